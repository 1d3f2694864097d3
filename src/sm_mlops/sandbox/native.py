"""Compiled packages that were built for another machine, and their replacements here.

Knows neither functions nor layers.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ELF_HEADER = 20


def foreign(folder: Path) -> dict[str, list[Path]]:
    """Return the packages below a folder that cannot be loaded here, by their names.

    Each comes with the files and folders of this environment that replace it, none if it is not
    installed.
    """
    tops = {
        library.relative_to(folder).parts[0].partition(".")[0]
        for library in sorted(folder.rglob("*.so*"))
        if library.is_file() and not _loads(library)
    }
    found: dict[str, list[Path]] = {}
    for top in sorted(tops):
        for name in _distributions().get(top) or [top]:
            if name not in found:
                found[name] = _entries(name)
    return found


def _loads(library: Path) -> bool:
    """Tell whether a library is for this machine and this Python, judging by its header."""
    if _machine(library) != _machine(Path(sys.executable)):
        return False
    _, dot, suffix = library.name.partition(".")
    # cpython-313-... is of one Python only; abi3 and names of other libraries are of all.
    return not suffix.startswith("cpython-") or dot + suffix in EXTENSION_SUFFIXES


def _machine(file: Path) -> bytes:
    """Return class, byte order and machine of an ELF file; nothing of other systems fits."""
    with file.open("rb") as source:
        header = source.read(ELF_HEADER)
    return header[4:6] + header[18:20] if header.startswith(b"\x7fELF") else file.name.encode()


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _entries(name: str) -> list[Path]:
    try:
        here = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    tops = {file.parts[0] for file in here.files or () if ".." not in file.parts}
    found = (Path(str(here.locate_file(top))) for top in sorted(tops))
    return [path for path in found if path.exists()]
