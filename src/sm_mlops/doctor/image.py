"""Check of the image that mlops.yaml names."""

from __future__ import annotations

from collections.abc import Iterator

from sm_mlops import images
from sm_mlops.aws import ignoring
from sm_mlops.bootstrap import needs
from sm_mlops.deployment.access import PULL
from sm_mlops.doctor.account import denied
from sm_mlops.doctor.scene import Finding, Scene, failed, ok

ABSENT = ("ImageNotFoundException", "RepositoryNotFoundException")


def image(scene: Scene) -> Iterator[Finding]:
    """Check that an image of the team's exists, and that the pipeline's role may pull it."""
    settings = scene.aws.settings
    name, container = settings.image, settings.container
    if container.sdk is not None:
        yield ok(f"SageMaker's {container.title}")
        return
    if scene.aws.sandbox:
        yield ok(f"{name}: the sandbox installs {settings.image_environment} instead")
        return
    place = images.address(name)
    which = {"imageTag": place["tag"]} if "tag" in place else {"imageDigest": place["digest"]}
    found = None
    with ignoring(*ABSENT):
        found = scene.client("ecr").describe_images(
            registryId=name.partition(".")[0],
            repositoryName=place["repository"],
            imageIds=[which],
        )
    if found is None:
        yield failed(f"{name} does not exist", "push it, or change image in mlops.yaml")
        return
    role = settings.role_arn(scene.aws.account)
    if lacking := denied(scene, role, {needs.image_repository(scene.aws): PULL}):
        what = f"{role.rpartition('/')[2]} may not pull {name}: lacks {', '.join(lacking)}"
        yield failed(what, scene.bootstrap)
        return
    yield ok(name)
