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

from sm_mlops.errors import MlopsError

FILE = Path(__file__).with_name("images.json")
LOCKS = Path(__file__).parent / "sandbox" / "images"
DEFAULT = "xgboost-3.2-0"
PYTHON = "3.12"
"""The Python of every image here."""
NEEDED = ("numpy", "pandas", "pyarrow", "pyyaml", "sagemaker-containers")
"""What an image of the team's must have: for the tabular library, and to train and serve."""
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
_ADDRESS = re.compile(
    r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/"
    r"(?P<repository>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    r"(:(?P<tag>\w[\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))"
)


@dataclass(frozen=True)
class Image:
    """An image and the packages that its makers have pinned.

    `sdk` is the framework and version by which the SageMaker SDK knows it; None for an image of the
    team's, whose name is its address in ECR.
    """

    name: str
    title: str
    sdk: tuple[str, str] | None
    pins: dict[str, str]


def find(name: str, environment: Path | None = None) -> Image:
    """Return an image by its name in `mlops.yaml`; one of the team's with its file of packages.

    Raises MlopsError for a file that is missing or cannot be right.
    """
    if name in known():
        entry = known()[name]
        framework, version = entry["sdk"]
        return Image(name, entry["title"], (framework, version), pins(LOCKS / f"{name}.in"))
    assert environment is not None
    try:
        packages = pins(environment)
    except (OSError, UnicodeDecodeError) as error:
        raise MlopsError(f"mlops.yaml: image_environment: cannot read {environment}") from error
    if missing := [package for package in NEEDED if package not in packages]:
        raise MlopsError(
            f"mlops.yaml: image_environment: {environment.name} does not pin {', '.join(missing)}, "
            "which jobs and endpoints need; write what the image has, as name==version"
        )
    return Image(name, name, None, packages)


def problem(name: str, environment: str | None, region: str) -> str | None:
    """Return what is wrong with `image` and `image_environment`, in words; None for nothing."""
    if name in known():
        wrong = "image_environment is for an image of your own; remove it"
        return wrong if environment else None
    address = _ADDRESS.fullmatch(name)
    if address is None:
        return (
            f"image must be one of {', '.join(known())}, or the address of an image of your own in "
            f"ECR with a tag or digest, as in 123456789012.dkr.ecr.{region}.amazonaws.com/"
            f"team/forest:1.0, not {name}"
        )
    if address["repository"] in [image["repository"] for image in known().values()]:
        return f"image {name} is named like SageMaker's own: write one of {', '.join(known())}"
    if address["region"] != region:
        return f"image is in {address['region']}, but jobs run in {region}: copy it to that region"
    if not environment:
        return (
            "image_environment is missing: name a file with the packages of the image "
            "(pip list --format=freeze inside of it), which the sandbox installs"
        )
    return None


def address(name: str) -> dict[str, str]:
    """Return repository and tag or digest of an image of the team's."""
    found = _ADDRESS.fullmatch(name)
    assert found is not None
    return {key: value for key, value in found.groupdict().items() if value}


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
