"""Whether this tool supports a repo rendered from an older template.

`pipeline/definition.py` and `model/` call a small public API of the tool. A version that breaks it
raises OLDEST_TEMPLATE, and CHANGELOG.md lists what a team has to change.
"""

from __future__ import annotations

import re

import sm_mlops
from sm_mlops.errors import MlopsError

OLDEST_TEMPLATE = "0.2.0"


def parsed(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, for comparison: (0, 2, 0)."""
    return tuple(map(int, re.findall(r"\d+", version)))


def require_supported(template_version: str) -> None:
    """Raise MlopsError if the repo's pipeline and model are too old for this tool."""
    if parsed(template_version) < parsed(OLDEST_TEMPLATE):
        raise MlopsError(
            f"pyproject.toml: this repo is from template {template_version or 'unknown'}, and "
            f"sm-mlops {sm_mlops.version()} needs {OLDEST_TEMPLATE} or newer: make upgrade"
        )
