"""Checks of the tool: is it what tool.txt pins, is there a newer one, can workflows get it?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sm_mlops
from sm_mlops.compatibility import parsed
from sm_mlops.doctor.finding import Finding, ok, warning
from sm_mlops.doctor.scene import Scene
from sm_mlops.errors import MlopsError
from sm_mlops.upgrade import pin as pins
from sm_mlops.upgrade import template

SECONDS = 10


def version(scene: Scene) -> Iterator[Finding]:
    """What is installed, against what is pinned, the template and the newest release."""
    check, settings = "version", scene.aws.settings
    if not (settings.root / pins.FILE).exists():
        # Rendered before 0.2.0.
        return
    pin, ours = pins.read(settings.root), sm_mlops.version()
    if other := pins.mismatch(pin):
        yield warning(check, f"{other} is installed, tool.txt pins {pin.shown}", "make setup")
    else:
        yield ok(check, f"{ours} from {pin.shown}")
    if parsed(settings.project.template_version) != parsed(ours):
        detail = f"the repo is from template {settings.project.template_version}, the tool {ours}"
        yield warning(check, detail, "make upgrade")
    address = template.address_of(settings.root, pin)
    if not address:
        return
    try:
        newest = [release.version for release in template.releases(address, SECONDS)][-1:]
    except MlopsError as error:
        yield warning(check, f"newer versions not looked for: {error}")
        return
    if newest and parsed(newest[0]) > parsed(ours):
        yield warning(check, f"{newest[0]} is out", "make upgrade")


def access(scene: Scene) -> Iterator[Finding]:
    """Whether a workflow can clone the tool: its token reads the workflow's own repository only."""
    if problem := unreachable(scene):
        yield warning(
            "tool in workflows", problem, "mlops vendor, then commit vendor/ and tool.txt"
        )


def unreachable(scene: Scene) -> str:
    """Return why workflows cannot get the tool from where tool.txt says; nothing if they can."""
    root, project = scene.aws.settings.root, scene.aws.settings.project
    if scene.hub is None or not (root / pins.FILE).exists():
        return ""
    address = pins.read(root).address
    found = re.fullmatch(r"(\w+)://(?:\w+@)?([^/:]+)(?::\d+)?/(.+?)(?:\.git)?", address)
    if not found:
        return ""
    scheme, host, name = found.groups()
    if scheme == "ssh":
        return f"{host} is reached by ssh, for which workflows have no key"
    if host != project.git_host or name == project.github:
        return ""
    there = scene.hub.repository(name)
    if there is not None and there.private:
        return f"{name} is private: the token of a workflow cannot clone it"
    return ""
