"""The files that the platform's stack needs in the artifact bucket: the functions' code, their
layer, its own template and the project's.

The same tool makes the same bytes on every machine. Must not know how they are uploaded.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sm_mlops import platform
from sm_mlops.errors import MlopsError
from sm_mlops.redaction import run
from sm_mlops.upgrade.wheel import archive

TRIGGER, LAYER = "trigger.zip", "layer.zip"
PLATFORM, PROJECT = "platform.yml", "project.yml"
LOCK = "trigger/requirements.lock"
# Of the function sm-mlops-trigger in platform.yml.
ARCHITECTURE, PYTHON = "aarch64-manylinux2014", "3.13"
# Source: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
LAYER_BYTES = 50 * 1024 * 1024
_CODE = ("app", "ci", "claims", "handler", "notices", "registry", "retraining")
_TEMPLATE_KEY = re.compile(rf"platform/([^/\s]+)/[0-9a-f]{{16}}/{re.escape(PROJECT)}")
_FAILED = "cannot build the layer for GitHub Apps"


@dataclass(frozen=True)
class Assets:
    """Contents by name, for below `prefix` in the artifact bucket.

    The prefix has the version and a digest of all sources, so an object below it never changes.
    """

    prefix: str
    files: dict[str, bytes]

    @property
    def template(self) -> str:
        """The key of the project's template."""
        return self.prefix + PROJECT


def build() -> Assets:
    """Return the files of this tool's version, without the layer."""
    sources = {
        # A checkout on Windows may have other line ends.
        name: (platform.FOLDER / name).read_bytes().replace(b"\r\n", b"\n")
        for name in (*(f"trigger/{name}.py" for name in _CODE), LOCK, PLATFORM, PROJECT)
    }
    whole = hashlib.sha256()
    for name, content in sorted(sources.items()):
        whole.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    # S3 takes a plus sign in an address for a space.
    version = platform.version().replace("+", "_")
    return Assets(
        prefix=f"platform/{version}/{whole.hexdigest()[:16]}/",
        files={
            TRIGGER: archive({f"{name}.py": sources[f"trigger/{name}.py"] for name in _CODE}),
            PLATFORM: sources[PLATFORM],
            PROJECT: sources[PROJECT],
        },
    )


def template_in(text: str) -> str:
    """Return the key of a project's template found in an address or a description, or ""."""
    found = _TEMPLATE_KEY.search(text)
    return found[0] if found else ""


def version_of(key: str) -> str:
    """Return the version of the project's template at this key."""
    return key.split("/")[1].replace("_", "+")


def build_layer(root: Path) -> bytes:
    """Return the zip of the Lambda layer: the packages of trigger/requirements.lock, built for the
    function's machine. `root` is where uv looks for the settings of its index. Raise MlopsError.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/python-layers.html
    """
    try:
        with tempfile.TemporaryDirectory(prefix="mlops-layer-") as folder:
            _install(root, Path(folder))
            content = archive(dict(sorted(_installed(Path(folder)).items())))
    except OSError as error:
        raise MlopsError(f"{_FAILED}: {error.filename or ''}: {error.strerror}") from error
    if len(content) > LAYER_BYTES:
        raise MlopsError(f"{_FAILED}: it has {len(content)} bytes; Lambda allows {LAYER_BYTES}")
    return content


def _install(root: Path, target: Path) -> None:
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--color", "never"),
        *("--target", str(target), "--python-platform", ARCHITECTURE, "--python-version", PYTHON),
        *("--only-binary", ":all:", "--require-hashes", "--no-deps", "--no-compile-bytecode"),
        *("--requirements", str(platform.FOLDER / LOCK)),
    ]
    done = run(command, root)
    if done.returncode:
        raise MlopsError(f"{_FAILED}: {_reason(done.stderr)}")


def _reason(said: str) -> str:
    """Return one line from what uv wrote, without an index's address, which may hold a password."""
    if "No module named uv" in said:
        return "this environment has no uv; run make setup"
    if found := re.search(r"Hash mismatch for `([^`]+)`", said):
        return f"hash mismatch: the package index has another {found[1]} than this tool pins"
    if "network was disabled" in said:
        return "uv is offline and its cache lacks the packages; unset UV_OFFLINE and try again"
    # uv wraps long lines.
    whole = re.sub(r"\n(?!\s*(?:error|cause|hint): )", " ", said.strip())
    lines = [" ".join(line.split()) for line in whole.splitlines()]
    causes = [line.removeprefix("cause: ") for line in lines if line.startswith("cause: ")]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    why = re.sub(r"\b[a-z]+://\S+", "<address>", ": ".join([*errors[:1], *causes[-1:]]))[:400]
    if "error sending request" in said or "Failed to fetch" in said:
        return f"cannot reach the package index ({why}); check UV_INDEX_URL and the proxy"
    return why or "uv gave no reason"


def _installed(folder: Path) -> dict[str, bytes]:
    """Return the files of the layer by their names in it."""
    return {
        f"python/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and _is_needed(file.relative_to(folder).parts)
    }


def _is_needed(path: tuple[str, ...]) -> bool:
    top, *below = path
    if top.endswith(".dist-info"):
        # The others depend on the installation.
        return below[0] in ("METADATA", "WHEEL", "licenses")
    # Leave out commands, uv's own lock, and the tests that some packages install.
    return top != "bin" and top[0] != "." and not {"__pycache__", "test", "tests"} & {*path[:-1]}
