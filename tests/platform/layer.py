"""Build the real Lambda layer twice from the package index and check that it fits the function.

`.ci/run` calls it: tests proper do without a network. Knows nothing of rendering.
"""

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RENDERED = ROOT / "{{cookiecutter.project_slug}}"
AARCH64 = 183
NEEDED = (
    "python/jwt/__init__.py",
    "python/cryptography/__init__.py",
    "python/cryptography/hazmat/bindings/_rust.abi3.so",
    "python/_cffi_backend.cpython-313-aarch64-linux-gnu.so",
)


def machine(library: bytes) -> int:
    """Return the ELF machine of a library, e_machine; 0 if it is no ELF."""
    return int.from_bytes(library[18:20], "little") if library[:4] == b"\x7fELF" else 0


def problems(content: bytes) -> list[str]:
    """Return what is wrong with a layer, in words."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = archive.namelist()
    found = [f"{name} is missing" for name in NEEDED if name not in names]
    libraries = [name for name in names if ".so" in Path(name).suffixes]
    found += [
        f"{name} is not for the function's machine"
        for name in libraries
        if machine(archive.read(name)) != AARCH64
    ]
    return found


def main() -> None:
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(RENDERED))
    import sm_mlops.bootstrap.assets  # type: ignore[import-not-found,unused-ignore]

    assets: Any = sm_mlops.bootstrap.assets
    first = assets.build_layer(RENDERED)
    with tempfile.TemporaryDirectory() as cache:
        # As on another machine: everything is fetched again.
        os.environ["UV_CACHE_DIR"] = cache
        second = assets.build_layer(RENDERED)
    wrong = problems(first)
    if first != second:
        wrong.append("two builds differ")
    if wrong:
        raise SystemExit(f"layer: {'; '.join(wrong)}")
    print(f"layer: {len(first) / 1024 / 1024:.1f} MB, for aarch64, twice the same")


if __name__ == "__main__":
    main()
