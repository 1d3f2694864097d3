"""Wheels made on the spot, so that no test needs a package index."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    code: str = "",
    requires: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel with one module of the same name, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": code or f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(file, "w") as wheel:
        for path, text in (*files.items(), (f"{info}/RECORD", record)):
            wheel.writestr(zipfile.ZipInfo(path), text)  # always the same bytes
    return file


def pack_installed(site: Path, names: Iterable[str], folder: Path) -> None:
    """Write wheels of installed packages, from what their records list."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        [info] = site.glob(f"{name}-*.dist-info")
        tags = re.findall("^Tag: (.+)$", (info / "WHEEL").read_text(), re.MULTILINE)
        file = folder / f"{info.name.removesuffix('.dist-info')}-{tags[-1]}.whl"
        with zipfile.ZipFile(file, "w") as wheel:
            for line in (info / "RECORD").read_text().splitlines():
                path = line.split(",")[0]
                if not path.startswith("..") and (site / path).is_file():
                    wheel.write(site / path, path)
