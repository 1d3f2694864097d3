"""The files that a job gets: a script of `model/`, what it imports, and its part of `mlops.yaml`.

A bundle is named by the hash of its content, so that a step's cache key changes exactly when its
own code or settings do. Must not know what the scripts do.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings
from sm_mlops.tabular import packaging
from sm_mlops.tabular.failure import DataError


@dataclass(frozen=True)
class Bundle:
    """`files` maps names to contents, sorted by name."""

    script: str
    files: tuple[tuple[str, bytes], ...]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits that identify script and contents."""
        digest = hashlib.sha256(self.script.encode())
        for name, content in self.files:
            digest.update(f"\0{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    def tar_gz(self) -> bytes:
        """Return the `source.tar.gz` of the containers' script mode; always the same bytes."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name, content in self.files:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(content))
        return gzip.compress(tar.getvalue(), mtime=0)


def collect(
    settings: Settings, script: str, *, also: Iterable[str] = (), reads: Iterable[str] = ()
) -> Bundle:
    """Return the bundle of a script of `model/`.

    Args:
        settings: Of the repo.
        script: Name of a file in `model/`.
        also: Files of `model/` that travel along though the script does not import them.
        reads: Keys of `mlops.yaml`, such as `split` or `data.target`; they become the bundle's own
            `mlops.yaml`.

    Raises:
        MlopsError: A file is missing, cannot be parsed, or imports what no job has.
    """
    try:
        found = packaging.collect(settings.root / "model", [script, *also])
    except DataError as error:
        raise MlopsError(str(error)) from error
    files = {name: _content(path) for name, path in found.items()}
    if reads := list(reads):
        chosen: dict[str, Any] = {}
        for key in reads:
            _choose(chosen, settings, key)
        files["mlops.yaml"] = yaml.safe_dump(chosen, sort_keys=True, allow_unicode=True).encode()
    return Bundle(script=script, files=tuple(sorted(files.items())))


def _content(path: Path) -> bytes:
    # A checkout on Windows must not look like other code.
    content = path.read_bytes()
    return content.replace(b"\r\n", b"\n") if path.suffix == ".py" else content


def _choose(chosen: dict[str, Any], settings: Settings, key: str) -> None:
    """Add the value of `key` to `chosen`, as it would stand in `mlops.yaml`."""
    *sections, name = key.split(".")
    value: Any = settings
    for section in sections:
        value = getattr(value, section, None)
        chosen = chosen.setdefault(section, {})
    if key.partition(".")[0] in ("root", "project") or not hasattr(value, name):
        raise MlopsError(f"pipeline/definition.py: mlops.yaml has no key {key}")
    found = getattr(value, name)
    if is_dataclass(found) and not isinstance(found, type):
        found = asdict(found)
    chosen[name] = list(found) if isinstance(found, tuple) else found
