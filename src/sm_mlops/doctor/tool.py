"""The check of the tool: is it what tool.txt pins, and is there a newer one?"""

from __future__ import annotations

from collections.abc import Iterator

import sm_mlops
from sm_mlops.compatibility import parsed
from sm_mlops.doctor.scene import Finding, Scene, ok, warning
from sm_mlops.errors import MlopsError
from sm_mlops.upgrade import pin as pins
from sm_mlops.upgrade import template

SECONDS = 10


def version(scene: Scene) -> Iterator[Finding]:
    """Compare what is installed with the pin, the template and the newest release."""
    settings = scene.aws.settings
    if not (settings.root / pins.FILE).exists():
        # Rendered before 0.2.0.
        return
    pin, ours = pins.read(settings.root), sm_mlops.version()
    if other := pins.mismatch(pin):
        yield warning(f"{other} is installed, but tool.txt pins {pin.shown}", "make setup")
    else:
        yield ok(f"{ours} from {pin.shown}")
    if parsed(settings.project.template_version) != parsed(ours):
        detail = (
            f"the repo has template {settings.project.template_version}, but the tool is {ours}"
        )
        yield warning(detail, "make upgrade")
    address = template.address_of(settings.root, pin)
    if not address:
        return
    try:
        newest = [release.version for release in template.releases(address, SECONDS)][-1:]
    except MlopsError as error:
        yield warning(f"could not look for newer versions: {error}")
        return
    if newest and parsed(newest[0]) > parsed(ours):
        yield warning(f"{newest[0]} is available", "make upgrade")
