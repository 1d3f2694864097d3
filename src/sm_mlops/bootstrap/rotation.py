"""Replacing the secrets: the trigger's credential, and the access keys that GitHub signs in to AWS
with. What GitHub and the trigger have is valid at every moment.
"""

from __future__ import annotations

from collections.abc import Callable

from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential, keys, project
from sm_mlops.bootstrap.credential import Credential
from sm_mlops.bootstrap.plan import Tell
from sm_mlops.bootstrap.platform import Options, Platform
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.bootstrap.sign_in import KEY
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub

SERIAL = "KeySerial"


def rotate_credential(part: Credential, tell: Tell) -> None:
    """Store a new trigger credential after trying it. Raise MlopsError."""
    aws, found = part.aws, credential.kept(part.aws)
    if found is None:
        raise MlopsError(f"there is no platform in this account yet; run {aws.command} bootstrap")
    value = part.new(tell)
    part.store(value, tell)
    if "app" in value.kinds and "app" not in found:
        # The trigger's layer.
        Platform(aws, Options()).act(tell)
    if found and not aws.sandbox:
        tell(
            "The previous one still works. Delete it on GitHub: a token at "
            f"{part.hub.at.server}/settings/tokens, an App's key on the App's page"
        )


def rotate_key(aws: Aws, hub: GitHub, tell: Tell, confirm: Callable[[str], None]) -> None:
    """Replace the access keys of the project's users, and GitHub's copies of them.

    The previous keys stay until GitHub has the new ones; for Jenkins, whose copies cannot be seen,
    until `confirm` returns. After an interruption the next call continues. Raise MlopsError.
    """
    name = aws.settings.project.project
    # An earlier rotation may still be creating its key.
    projects.settled(aws, tell)
    outputs = projects.outputs(aws)
    if outputs is None:
        raise MlopsError(f"there is no SageMaker project {name} yet; run {aws.command} bootstrap")
    if not projects.TRAIN.secret(outputs):
        raise MlopsError(f"project {name} signs in without a key, so there is none to rotate")
    by_jenkins = aws.settings.project.ci == "jenkins"
    settings = Settings(aws, hub)
    repository = hub.repository(aws.settings.project.github)
    if repository is None and not by_jenkins:
        raise MlopsError(f"GitHub shows no repository {aws.settings.project.github}")
    places = [] if by_jenkins else settings.places(repository)
    for place in places:
        if place.holder is None:
            raise MlopsError(f"there is no key{place.of} yet; run {aws.command} bootstrap")
    begun = bool(keys.former(aws)) or not all(place.has_key(outputs) for place in places)
    if begun:
        tell(f"Continuing with keys of {name} that were created earlier")
    else:
        found = projects.find(aws)
        assert found is not None and found.stack is not None
        serial = int(found.stack.parameters.get(SERIAL) or 1) + 1
        project.update(aws, found, {SERIAL: str(serial)})
        for access in projects.ACCESSES:
            tell(f"{'created':<12} access key of {access.name_in(name)}")
        outputs = projects.outputs(aws)
        assert outputs is not None
    if by_jenkins:
        secrets = ", ".join(access.secret_in(name) for access in projects.ACCESSES)
        if not begun:
            tell(
                f"Copy the new keys from the secrets {secrets} to Jenkins, then run "
                f"{aws.command} secret rotate key again to delete the previous ones"
            )
            return
        confirm(f"Delete the previous keys? Jenkins must have those of the secrets {secrets}.")
    for place in places:
        # GitHub's times have no fractions: a key of this second may still be the former one.
        place.set_key(outputs)
        tell(f"{'set':<12} secrets {', '.join(KEY)}{place.of}")
    keys.delete_former(aws, tell)
