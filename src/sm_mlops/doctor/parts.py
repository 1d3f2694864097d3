"""Checks that ask `mlops bootstrap` for its plan: what it would do is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sm_mlops import projects
from sm_mlops.bootstrap.plan import Item, Todo, is_work
from sm_mlops.bootstrap.platform import CATALOG, S3, STACK, Options, Platform
from sm_mlops.bootstrap.project import Project
from sm_mlops.bootstrap.push import Push
from sm_mlops.bootstrap.repository import Repository
from sm_mlops.bootstrap.settings import Settings
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
        yield failed("platform", f"there is no stack {STACK} in {region}", scene.bootstrap)
        return
    yield from _told("platform", Platform(scene.aws, _options(scene)).look(), scene)


def repository(scene: Scene) -> Iterator[Finding]:
    """Check the GitHub repository."""
    return _told("GitHub repository", Repository(scene.aws.settings, _hub(scene)).look(), scene)


def project(scene: Scene) -> Iterator[Finding]:
    """Check the SageMaker project."""
    items = Project(scene.aws, _hub(scene), _options(scene)).look()
    return _told("SageMaker project", items, scene)


def settings(scene: Scene) -> Iterator[Finding]:
    """Check what the workflows find on GitHub."""
    return _told("GitHub settings", Settings(scene.aws, _hub(scene)).look(), scene)


def push(scene: Scene) -> Iterator[Finding]:
    """Check that the repo's commits are on GitHub."""
    items = Push(scene.aws.settings, _hub(scene), scene.aws.sandbox).look()
    return _told("first push", items, scene)


def _hub(scene: Scene) -> GitHub:
    assert scene.hub is not None
    return scene.hub


def _options(scene: Scene) -> Options:
    """Return the option with which the project was created."""
    found = projects.find(scene.aws)
    return Options(S3 if found and found.template_url else CATALOG)


def _told(check: str, items: Iterable[Item], scene: Scene) -> Iterator[Finding]:
    """Yield one line for what is missing and one for each item for a person, or else one in all."""
    items = list(items)
    work = [item for item in items if is_work(item)]
    if work:
        shown = [
            f"{item.todo} {item.what}" + (f" ({item.detail})" if item.detail else "")
            for item in work[:SHOWN]
        ]
        more = f" and {len(work) - SHOWN} more" if len(work) > SHOWN else ""
        yield failed(check, f"to do: {'; '.join(shown)}{more}", scene.bootstrap)
    mine = [item for item in items if item.todo is Todo.PERSON]
    for item in mine:
        detail = f"{item.what}: {item.detail}" if item.detail else item.what
        yield warning(check, detail, item.remedy)
    if not work and not mine:
        detail = items[0].what if len(items) == 1 else f"{len(items)} resources up to date"
        yield ok(check, detail)
