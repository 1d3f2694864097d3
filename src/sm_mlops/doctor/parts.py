"""Checks that ask `mlops bootstrap` for its plan: what it would do is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sm_mlops import projects
from sm_mlops.bootstrap import studio
from sm_mlops.bootstrap.by_hand import Tool
from sm_mlops.bootstrap.plan import Part, Todo, is_work
from sm_mlops.bootstrap.platform import CATALOG, S3, STACK, Options, Platform
from sm_mlops.bootstrap.project import Project
from sm_mlops.bootstrap.push import Push
from sm_mlops.bootstrap.repository import Repository
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.doctor.scene import Finding, Scene, failed, ok, warning
from sm_mlops.github import GitHub

SHOWN = 3


def platform(scene: Scene) -> Iterator[Finding]:
    if scene.problem is not None:
        raise scene.problem
    if scene.platform is None:
        region = scene.aws.settings.project.region
        yield failed(f"there is no stack {STACK} in {region}", scene.bootstrap)
        return
    yield from _findings(Platform(scene.aws, options(scene)), scene)


def domain(scene: Scene) -> Iterator[Finding]:
    """Check for a Studio, which shows the registry and the projects; nothing else needs it."""
    region, found = scene.aws.settings.project.region, studio.domains(scene.aws)
    if found and options(scene).template_provider == S3:
        # Studio offers a template in S3 if a tag of the domain says where it is.
        yield from _findings(studio.Studio(scene.aws, options(scene)), scene)
    elif found:
        yield ok(", ".join(item.name for item in found))
    elif scene.aws.sandbox:
        yield ok("none: the sandbox has no Studio")
    else:
        yield warning(
            f"none in {region}: approve versions with {scene.aws.command} approve",
            f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/studio",
        )


def options(scene: Scene) -> Options:
    """Return the option with which the project was created."""
    found = projects.find(scene.aws)
    return Options(S3 if found and found.template_url else CATALOG)


def _findings(part: Part, scene: Scene) -> Iterator[Finding]:
    """Yield one line for what is missing and one for each item for a person, or else one in all."""
    items = part.look()
    work = [item for item in items if is_work(item)]
    if work:
        shown = [
            f"{item.todo} {item.what}" + (f" ({item.detail})" if item.detail else "")
            for item in work[:SHOWN]
        ]
        more = f" and {len(work) - SHOWN} more" if len(work) > SHOWN else ""
        yield failed(f"to do: {'; '.join(shown)}{more}", scene.bootstrap)
    for_person = [item for item in items if item.todo is Todo.PERSON]
    for item in for_person:
        detail = f"{item.what}: {item.detail}" if item.detail else item.what
        yield warning(detail, item.remedy)
    if items and not work and not for_person:
        yield ok(items[0].what if len(items) == 1 else f"{len(items)} resources up to date")


def _check(part: Callable[[Scene, GitHub], Part]) -> Callable[[Scene], Iterator[Finding]]:
    """Return the check of a part that needs GitHub."""

    def look(scene: Scene) -> Iterator[Finding]:
        assert scene.hub is not None
        return _findings(part(scene, scene.hub), scene)

    return look


repository = _check(lambda scene, hub: Repository(scene.aws.settings, hub))
project = _check(lambda scene, hub: Project(scene.aws, hub, options(scene)))
settings = _check(lambda scene, hub: Settings(scene.aws, hub))
push = _check(lambda scene, hub: Push(scene.aws.settings, hub, scene.aws.sandbox))
tool = _check(lambda scene, hub: Tool(scene.aws.settings, hub))
