"""The files of a job: a script of `model/`, what it imports, and its part of `mlops.yaml`.

A bundle is named by the hash of its content, so that a step's cache key changes exactly when its
own code or settings change. Must not know what the scripts do.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass
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

    @property
    def installer(self) -> str | None:
        """Return the name of the file that installs the team's requirements, if it has any."""
        name = f"{packaging.INSTALLER.replace('.', '/')}.py"
        return name if packaging.REQUIREMENTS in dict(self.files) else None

    @cached_property
    def digest(self) -> str:
        """Return 32 hexadecimal digits that identify script and contents."""
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
    settings: Settings,
    script: str,
    *,
    also: Iterable[str] = (),
    reads: Iterable[str] = (),
    required: Callable[[Container[str]], Mapping[str, bytes]] = lambda files: {},
    folder: Path | None = None,
) -> Bundle:
    """Return the bundle of `script` and `also`, names of files in `model/` or in `folder`, with its
    own `mlops.yaml`, which has the keys `reads`. The arguments and errors are those of `Repo.code`.
    `required` returns by name what a job with these files installs.
    """
    folder = folder or settings.root / "model"
    try:
        found = packaging.collect(folder, [script, *also], started=script)
    except DataError as error:
        raise MlopsError(str(error)) from error
    others = (packaging.REQUIREMENTS, packaging.CONSTRAINTS)
    code = {name: path for name, path in found.items() if name not in others}
    files = {name: _content(path) for name, path in code.items() if path.suffix != ".whl"}
    files |= required(files)
    if chosen := _chosen(settings, reads):
        files["mlops.yaml"] = yaml.safe_dump(chosen, sort_keys=True, allow_unicode=True).encode()
    return Bundle(script=script, files=tuple(sorted(files.items())))


def _content(path: Path) -> bytes:
    # A checkout on Windows must give the same bundle.
    content = path.read_bytes()
    return content.replace(b"\r\n", b"\n") if path.suffix == ".py" else content


def _chosen(settings: Settings, keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of `keys`, nested as in `mlops.yaml`."""
    # As JSON, tuples become lists.
    everything = json.loads(json.dumps(asdict(settings), default=str))
    del everything["root"], everything["project"]
    chosen: dict[str, Any] = {}
    for key in keys:
        value, target = everything, chosen
        *sections, name = key.split(".")
        for section in sections:
            value, target = value.get(section, {}), target.setdefault(section, {})
            value = value if isinstance(value, dict) else {}
        if name not in value:
            raise MlopsError(f"pipeline/definition.py: mlops.yaml has no key {key}")
        target[name] = value[name]
    return chosen
