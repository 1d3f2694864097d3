"""Checks that ask `mlops bootstrap` for its plan: what it would do is missing."""

from __future__ import annotations

from collections.abc import Iterator

from sm_mlops import projects
from sm_mlops.bootstrap import studio
from sm_mlops.bootstrap.plan import Part, Todo, is_work
from sm_mlops.bootstrap.platform import CATALOG, S3, STACK, Options, Platform
from sm_mlops.bootstrap.project import Project
from sm_mlops.bootstrap.push import Push
from sm_mlops.bootstrap.repository import Repository
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.bootstrap.tool import Tool
from sm_mlops.doctor.finding import Finding, failed, ok, warning
from sm_mlops.doctor.scene import Scene
from sm_mlops.github import GitHub

SHOWN = 3


def platform(scene: Scene) -> Iterator[Finding]:
    """Check the platform."""
    if scene.problem is not None:
        raise scene.problem
    if scene.platform is None:
        region = scene.aws.settings.project.region
        yield failed(f"there is no stack {STACK} in {region}", scene.bootstrap)
        return
    yield from _findings(Platform(scene.aws, options(scene)), scene)


def repository(scene: Scene) -> Iterator[Finding]:
    """Check the GitHub repository."""
    return _findings(Repository(scene.aws.settings, _hub(scene)), scene)


def project(scene: Scene) -> Iterator[Finding]:
    """Check the SageMaker project."""
    return _findings(Project(scene.aws, _hub(scene), options(scene)), scene)


def settings(scene: Scene) -> Iterator[Finding]:
    """Check what the workflows find on GitHub."""
    return _findings(Settings(scene.aws, _hub(scene)), scene)


def push(scene: Scene) -> Iterator[Finding]:
    """Check that the repo's commits are on GitHub."""
    return _findings(Push(scene.aws.settings, _hub(scene), scene.aws.sandbox), scene)


def tool(scene: Scene) -> Iterator[Finding]:
    """Check that a workflow can get the tool from where tool.txt says."""
    return _findings(Tool(scene.aws.settings, _hub(scene)), scene)


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


def _hub(scene: Scene) -> GitHub:
    assert scene.hub is not None
    return scene.hub


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
