"""Regions that have all that a project needs, from data that `make generate` makes of the SDKs."""

from __future__ import annotations

import json
from pathlib import Path

from sm_mlops.errors import MlopsError

FILE = Path(__file__).with_name("regions.json")


def require(region: str) -> None:
    """Raise MlopsError for a region that lacks something, or that the data does not know."""
    known: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    if known.get(region, ["unknown"]):
        lacks = f"has no {' and no '.join(known[region])}" if region in known else "is not known"
        good = ", ".join(name for name, missing in known.items() if not missing)
        raise MlopsError(
            f"the region {region} {lacks}: set region in pyproject.toml to one of {good}"
        )
