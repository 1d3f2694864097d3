"""Replacing the secrets: the trigger's credential, and the access key with which GitHub signs in to
AWS. What GitHub and the trigger have is valid at every moment.
"""

from __future__ import annotations

from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential, keys, project
from sm_mlops.bootstrap.credential import Credential
from sm_mlops.bootstrap.plan import Tell
from sm_mlops.bootstrap.platform import Options, Platform
from sm_mlops.bootstrap.settings import KEY, Settings
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub

SERIAL = "KeySerial"


def rotate_credential(part: Credential, tell: Tell) -> None:
    """Store a new trigger credential after trying it. Raise MlopsError."""
    aws, found = part.aws, credential.kept(part.aws)
    if found is None:
        raise MlopsError(f"there is no platform in this account yet; run {aws.command} bootstrap")
    value = part.new(tell)
    part.store(value)
    tell(f"{'stored':<12} {credential.WHAT}: {value.origin}")
    if "app" in value.kinds and "app" not in found:
        # The trigger's layer.
        Platform(aws, Options()).act(tell)
    if found and not aws.sandbox:
        tell(
            "The previous one still works. Delete it on GitHub: a token at "
            f"{part.hub.at.server}/settings/tokens, an App's key on the App's page"
        )


def rotate_key(aws: Aws, hub: GitHub, tell: Tell) -> None:
    """Replace the access key of the project's user, and GitHub's copy of it.

    The previous key stays until GitHub has the new one. After an interruption the next call
    continues. Raise MlopsError.
    """
    name = aws.settings.project.project
    # An earlier rotation may still be creating its key.
    projects.settled(aws, tell)
    outputs = projects.outputs(aws)
    if outputs is None:
        raise MlopsError(f"there is no SageMaker project {name} yet; run {aws.command} bootstrap")
    if "GitHubUserSecretArn" not in outputs:
        raise MlopsError(f"project {name} signs in without a key, so there is none to rotate")
    by_jenkins = aws.settings.project.ci == "jenkins"
    settings = Settings(aws, hub)
    repository = hub.repository(aws.settings.project.github)
    if repository is None and not by_jenkins:
        raise MlopsError(f"GitHub shows no repository {aws.settings.project.github}")
    begun = bool(keys.former(aws)) or not (by_jenkins or settings.has_key(repository, outputs))
    if begun:
        tell(f"Continuing with a key of {keys.user(aws)} that was created earlier")
    else:
        found = projects.find(aws)
        assert found is not None and found.stack is not None
        serial = int(found.stack.parameters.get(SERIAL) or 1) + 1
        project.update(aws, found, {SERIAL: str(serial)})
        tell(f"{'created':<12} access key of {keys.user(aws)}")
        outputs = projects.outputs(aws)
        assert outputs is not None
    if by_jenkins and not begun:
        tell(
            f"Copy the new key from the secret sm-mlops/{name}/github-user to Jenkins, then run "
            f"{aws.command} secret rotate key again to delete the previous one"
        )
        return
    if not by_jenkins:
        settings.set_key(repository, outputs)
        tell(f"{'set':<12} secrets {', '.join(KEY)}")
    keys.delete_former(aws, tell)
