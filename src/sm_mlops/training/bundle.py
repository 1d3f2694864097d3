"""The code a job gets: a script of `model/`, the modules it imports, and its part of `mlops.yaml`.

A bundle is named by the hash of what is in it, so that a step's cache key changes exactly when
its own code or settings do. Knows file names and imports, nothing of what the scripts do.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sm_mlops.tabular import packaging


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
        """A `source.tar.gz` as the containers' script mode takes it; the same bytes each time."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for name, content in self.files:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(content))
        return gzip.compress(tar.getvalue(), mtime=0)


def collect(
    model: Path, script: str, *, also: Iterable[str] = (), settings: dict[str, Any] | None = None
) -> Bundle:
    """The bundle of `script`, found in the folder `model`.

    `also` names scripts that travel with it though it does not import them: train.py packs
    inference.py. `settings` becomes the bundle's own `mlops.yaml`.
    Raises FileNotFoundError for a script that is not there.
    """
    found = packaging.collect(model, [script, *also])
    # Line ends are normalised: a checkout on Windows must not look like other code.
    files = {name: path.read_bytes().replace(b"\r\n", b"\n") for name, path in found.items()}
    if settings is not None:
        files["mlops.yaml"] = yaml.safe_dump(settings, sort_keys=True, allow_unicode=True).encode()
    return Bundle(script=script, files=tuple(sorted(files.items())))
