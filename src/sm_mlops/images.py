"""The container images that `mlops.yaml` may name, and the packages that each has.

The sandbox reads the same files. Must not know what runs in an image.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("images.json")
LOCKS = Path(__file__).parent / "sandbox" / "images"
DEFAULT = "xgboost-3.2-0"
PYTHON = "3.12"
"""The Python of every image here."""
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


@dataclass(frozen=True)
class Image:
    """An image: the SDK's framework and version, and the packages that its makers have pinned."""

    name: str
    title: str
    sdk: tuple[str, str]
    pins: dict[str, str]


def find(name: str) -> Image:
    """Return an image by its name in `mlops.yaml`. Raises KeyError."""
    entry = known()[name]
    framework, version = entry["sdk"]
    return Image(name, entry["title"], (framework, version), pins(LOCKS / f"{name}.in"))


@cache
def known() -> dict[str, dict[str, Any]]:
    """Return what `images.json` says of each image, by name."""
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def pins(file: Path) -> dict[str, str]:
    """Return name and version of each package that a file of requirements pins."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = filter(None, map(_PIN.match, lines))
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in found}
