"""Replacing the secrets: the trigger's credential, and the access key that GitHub signs in to AWS
with. At every moment what GitHub and the trigger have is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential, project
from sm_mlops.bootstrap.credential import Ask, Credential
from sm_mlops.bootstrap.plan import Tell
from sm_mlops.bootstrap.settings import KEY, Settings
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub

# The access key in infra/project.yml.
RESOURCE = "GitHubUserKey"
SERIAL = "KeySerial"


def rotate_credential(
    aws: Aws,
    hub: GitHub,
    environment: Mapping[str, str],
    ask: Ask | None,
    tell: Tell,
    sandbox_token: Callable[[], str] | None = None,
) -> None:
    """Stores a new credential of the trigger once GitHub has let it in. Raises MlopsError."""
    found = credential.kept(aws)
    if found is None:
        raise MlopsError(f"there is no platform in this account yet: {aws.command} bootstrap")
    part = Credential(aws, hub, environment, ask, sandbox_token)
    value = part.new(tell)
    part.store(found, value)
    tell(f"{'stored':<12} {credential.WHAT}: {value.origin}")
    if "app" in value.kinds and "app" not in found.kinds:
        from sm_mlops.bootstrap.platform import Options, Platform

        # Its layer.
        Platform(aws, Options()).act(tell)
    if found.kinds and not aws.sandbox:
        tell(
            "The former one still works: delete it at GitHub, a token at "
            f"{hub.at.server}/settings/tokens, a key on the page of its App"
        )


def rotate_key(aws: Aws, hub: GitHub, tell: Tell) -> None:
    """Replaces the access key of the project's user, and GitHub's copy of it.

    The former key stays until GitHub has the new one. Interrupted, the next call goes on from
    there. Raises MlopsError.
    """
    name = aws.settings.project.project
    # An earlier rotation may still be making its key.
    project.settled(aws, tell)
    outputs = project.outputs(aws)
    if outputs is None:
        raise MlopsError(f"there is no SageMaker project {name} yet: {aws.command} bootstrap")
    if "GitHubUserSecretArn" not in outputs:
        raise MlopsError(f"project {name} signs in without a key: there is none to rotate")
    by_jenkins = aws.settings.project.ci == "jenkins"
    settings = Settings(aws, hub)
    repository = hub.repository(aws.settings.project.github)
    if repository is None and not by_jenkins:
        raise MlopsError(f"GitHub shows no repository {aws.settings.project.github}")
    begun = bool(former_keys(aws)) or not (by_jenkins or settings.has_key(repository, outputs))
    if begun:
        tell(f"Goes on with a key of {name}-github that was made before.")
    else:
        _make_key(aws, tell)
        outputs = project.outputs(aws)
        assert outputs is not None
    if by_jenkins:
        if not begun:
            tell(
                f"Copy the new key from the secret sm-mlops/{name}/github-user to Jenkins; "
                f"{aws.command} secret rotate key then deletes the former one."
            )
            return
    else:
        settings.set_key(repository, outputs)
        tell(f"{'set':<12} secrets {', '.join(KEY)}")
    delete_former_keys(aws, tell)


def former_keys(aws: Aws) -> list[str]:
    """Access keys of the project's user other than the stack's own."""
    from botocore.exceptions import ClientError

    from sm_mlops.aws import error_code

    found = project.find(aws)
    if found is None or found.stack is None:
        return []
    held = [each for each in stacks.resources(aws, found.stack) if each.name == RESOURCE]
    if not held:
        return []
    try:
        rows: list[dict[str, Any]] = aws.client("iam").list_access_keys(UserName=_user(aws))[
            "AccessKeyMetadata"
        ]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return []
    keys = [row["AccessKeyId"] for row in rows]
    # Otherwise it is not known which one counts.
    return [key for key in keys if key != held[0].physical] if held[0].physical in keys else []


def delete_former_keys(aws: Aws, tell: Tell) -> None:
    for key in former_keys(aws):
        aws.client("iam").delete_access_key(UserName=_user(aws), AccessKeyId=key)
        tell(f"{'deleted':<12} former access key of {_user(aws)}")


def _make_key(aws: Aws, tell: Tell) -> None:
    found = project.find(aws)
    assert found is not None and found.stack is not None
    serial = int(found.stack.parameters.get(SERIAL) or 1) + 1
    project.update(aws, {SERIAL: str(serial)}, tell)
    tell(f"{'created':<12} access key of {_user(aws)}")


def _user(aws: Aws) -> str:
    return f"{aws.settings.project.project}-github"
