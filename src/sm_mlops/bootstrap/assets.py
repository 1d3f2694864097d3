"""What the platform's stack is made from besides its template: the trigger's code, its layer and
the product's template.

Same repo, same bytes, on every machine. Must not know where they are put.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sm_mlops import platform
from sm_mlops.errors import MlopsError
from sm_mlops.redaction import without_tokens
from sm_mlops.settings import Settings

TRIGGER, LAYER, TEMPLATE = "trigger.zip", "layer.zip", "project.yml"
PLATFORM = "platform.yml"
LOCK = platform.FOLDER / "trigger" / "requirements.lock"
# What the function sm-mlops-trigger runs on, as infra/platform.yml says.
ARCHITECTURE, PYTHON = "aarch64-manylinux2014", "3.13"
# Source: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAYER_BYTES = 50 * 1024 * 1024
_CODE = ("app.py", "handler.py")
_MOMENT = (1980, 1, 1, 0, 0, 0)
# Of what describes an installed package: what scanners of layers read, and the licences. The rest
# differs from one installation to another.
_METADATA = ("METADATA", "WHEEL")
# Of the product's template in the artifact bucket.
_KEY = re.compile(rf"platform/([^/\s]+)/([0-9a-f]{{16}})/{re.escape(TEMPLATE)}")


@dataclass(frozen=True)
class Assets:
    """`files`: contents by name. They belong below `prefix` in the artifact bucket, but for the
    product's template: that is at `template`.

    Both tell version and content, the prefix that of the platform's template as well, with the
    layer or without: so what lies there never changes.
    """

    prefix: str
    template: str
    files: dict[str, bytes]

    @property
    def content(self) -> str:
        """16 hexadecimal digits over all that a platform is made from."""
        return content_of(self.prefix)

    def key(self, name: str) -> str:
        """Where a file belongs in the artifact bucket."""
        return self.template if name == TEMPLATE else f"{self.prefix}{name}"


def content_of(prefix: str) -> str:
    """The digest in a prefix; empty for none."""
    return prefix.rstrip("/").rpartition("/")[2]


def template_in(text: str) -> str:
    """The key of a product's template that an address or a description names; else empty."""
    found = _KEY.search(text)
    return found[0] if found else ""


def version_of(key: str) -> str:
    """Of the product's template at this key."""
    return key.split("/")[1]


def build(settings: Settings, *, layer: bool) -> Assets:
    """The files of this repo's template version; with `layer` also what signing in as a GitHub App
    needs, which comes from the package index.

    Raises MlopsError.
    """
    version = settings.project.template_version
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9.+_-]*", version):
        raise MlopsError("pyproject.toml: [tool.mlops] must hold template-version, as in 0.1.0")
    infra = platform.FOLDER
    files = {
        TRIGGER: archive({name: _read(infra / "trigger" / name) for name in _CODE}),
        TEMPLATE: _read(infra / TEMPLATE),
    }
    # Of the layer what it is made from: whether there is one, is not this repo's to say.
    pinned = f"{ARCHITECTURE} {PYTHON}\n".encode() + _read(LOCK)
    whole = _digest({**files, PLATFORM: _read(infra / PLATFORM), LAYER: pinned})
    own = hashlib.sha256(files[TEMPLATE]).hexdigest()
    if layer:
        files[LAYER] = build_layer(settings.root)
    return Assets(
        prefix=f"platform/{version}/{whole[:16]}/",
        template=f"platform/{version}/{own[:16]}/{TEMPLATE}",
        files=files,
    )


def _digest(files: Mapping[str, bytes]) -> str:
    """Of names and contents, in hexadecimal."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()


def _read(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except FileNotFoundError as missing:
        raise MlopsError(f"{file}: no such file: git restore brings it back") from missing
    # Git on Windows may have written them otherwise.
    return content.replace(b"\r\n", b"\n")


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip of these contents whose bytes depend on nothing else.

    Stored, not compressed: zlib's output changes from one build of it to another.
    """
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as target:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.create_system = 3  # Unix, as the mode is of it; Windows would write 0.
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, content)
    return body.getvalue()


def build_layer(root: Path) -> bytes:
    """The zip of the Lambda layer: the packages that infra/trigger/requirements.lock pins, as built
    for the function's machine. Raises MlopsError.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/python-layers.html
    """
    lock = LOCK
    if not lock.is_file():
        raise MlopsError(f"{lock}: no such file: git restore brings it back")
    try:
        with tempfile.TemporaryDirectory(prefix="mlops-layer-") as folder:
            _install(lock, root, Path(folder))
            content = archive(_installed(Path(folder)))
    except OSError as error:
        raise MlopsError(f"{_FAILED}: {error.filename or ''}: {error.strerror}") from error
    if len(content) > LAYER_BYTES:
        raise MlopsError(f"{_FAILED}: it has {len(content)} bytes, and Lambda takes {LAYER_BYTES}")
    return content


_FAILED = "the layer for GitHub Apps cannot be built"


def _install(lock: Path, root: Path, target: Path) -> None:
    # The index is whichever uv is set up for, in its own files and variables.
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--color", "never"),
        *("--target", str(target), "--python-platform", ARCHITECTURE, "--python-version", PYTHON),
        *("--only-binary", ":all:", "--require-hashes", "--no-deps", "--no-compile-bytecode"),
        *("--requirements", str(lock)),
    ]
    done = subprocess.run(
        command,
        cwd=root,
        env=without_tokens(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MlopsError(f"{_FAILED}: {_reason(done.stderr)}")


def _reason(told: str) -> str:
    """One line from what uv wrote, with what to do; no address of an index, which may hold a
    password."""
    if "No module named uv" in told:
        return "this environment has no uv: make setup brings it"
    if found := re.search(r"Hash mismatch for `([^`]+)`", told):
        return (
            f"the package index offers another {found[1]} than {LOCK} pins (hash mismatch); "
            "if it was published anew, make lock pins it again"
        )
    if "os error 28" in told:
        return "no space left on the disk"
    # uv wraps long lines.
    whole = re.sub(r"\n(?!\s*(?:error|cause|hint): )", " ", told.strip())
    lines = [" ".join(line.split()) for line in whole.splitlines()]
    causes = [line.removeprefix("cause: ") for line in lines if line.startswith("cause: ")]
    first = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    why = causes[-1] if causes else first or "uv gave no reason"
    if "network was disabled" in told:
        return "uv is offline and its cache does not hold the packages: unset UV_OFFLINE once"
    if "error sending request" in told or "Failed to fetch" in told:
        return f"the package index cannot be reached ({_bare(why)}): see UV_INDEX_URL and the proxy"
    return _bare(f"{first}: {causes[-1]}" if causes else why)


def _bare(text: str) -> str:
    return re.sub(r"\b[a-z]+://\S+", "<address>", text)[:400]


def _installed(folder: Path) -> dict[str, bytes]:
    """The files of the layer by their names in it."""
    return {
        f"python/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and _is_needed(file.relative_to(folder).parts)
    }


def _is_needed(path: tuple[str, ...]) -> bool:
    top, *below = path
    if top.endswith(".dist-info"):
        return below[0] in (*_METADATA, "licenses")
    # Commands, and the lock of uv; tests that some packages install.
    return top != "bin" and top[0] != "." and not {"__pycache__", "test", "tests"} & {*path[:-1]}
