"""The check of the sign-in to GitHub."""

from __future__ import annotations

from collections.abc import Iterator

from sm_mlops.doctor.finding import Finding, failed, ok
from sm_mlops.doctor.scene import Scene
from sm_mlops.errors import MlopsError
from sm_mlops.github import SCOPES, GitHubError


def sign_in(scene: Scene) -> Iterator[Finding]:
    """Check whose token it is, and whether it has the scopes that bootstrap needs."""
    check, hub = "GitHub sign-in", scene.hub
    if hub is None:
        what, _, remedy = str(scene.sign_in_problem).partition(": ")
        yield failed(check, what, remedy)
        return
    person = hub.person
    name = person.login or "a GitHub App"
    try:
        hub.require(*SCOPES)
    except GitHubError:
        raise
    except MlopsError as error:
        what, _, remedy = str(error).partition(": ")
        yield failed(check, f"{name}: {what}", remedy)
        return
    scopes = "fine-grained or of an App" if person.scopes is None else "scopes " + ", ".join(SCOPES)
    yield ok(check, f"{name}, from {hub.origin} ({scopes})")
