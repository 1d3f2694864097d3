"""The environments that stand for container images, and what each job and endpoint adds to one.

An environment has the packages of `<name>.lock`, hard-linked from uv's cache, and lives beside the
running one. Processes use it through an overlay, into which pip installs. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path(sys.prefix) / "images"
PYTHON = (3, 12)
"""The images' own Python."""
FRAMEWORK = HERE / "framework"
TRAINING, SERVING = "xgboost_image.training:main", "xgboost_image.serving:main"
_URI = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/sagemaker-(.+):(.+)")
# Imported once: it works, and is compiled before the first process needs it.
_WARM = (
    "gevent.monkey; gevent.monkey.patch_all(); "
    "import gunicorn.app.wsgiapp, gunicorn.workers.ggevent, matplotlib.figure, pandas, pip, "
    "pyarrow.compute, pyarrow.csv, pyarrow.parquet, sklearn, xgboost, "
    "sagemaker_containers.beta.framework, sagemaker_containers.cli.train"
)


class ImageError(Exception):
    """An image that cannot be used here; the message is one line."""


def find(uri: str, folder: Path = FOLDER) -> Path:
    """Return the environment of an image. Raises ImageError if there is none."""
    parts = _URI.fullmatch(uri)
    name = "-".join(parts.groups()) if parts else ""
    if not (parts and (HERE / f"{name}.lock").is_file()):
        known = ", ".join(sorted(lock.stem for lock in HERE.glob("*.lock")))
        raise ImageError(f"The sandbox has no environment for the image {uri}; it has: {known}")
    if not (folder / name / "ready").is_file():
        raise ImageError(f"The environment of the image {uri} is not made; run: make setup")
    return folder / name


def make(folder: Path = FOLDER, locks: Path = HERE, warm: str = _WARM) -> None:
    """Make the environments that are missing or out of date, one process at a time.

    Says on stderr what takes time. Raises ImageError.
    """
    for lock in sorted(locks.glob("*.lock")):
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        made = folder / lock.stem
        if _is(made, digest):
            continue
        with _only_process(folder):
            if not _is(made, digest):
                _make(made, lock, warm)
                # Only a complete environment gets its name, and this mark.
                (made / "ready").write_text(digest)


def _is(made: Path, digest: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return (made / "ready").read_text() == digest and (made / "bin" / "python").exists()
    return False


@contextlib.contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ImageError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(made: Path, lock: Path, warm: str) -> None:
    python, version = interpreter(), ".".join(map(str, PYTHON))
    own = "" if python else f"; Python {version} is not installed, so it gets this one's"
    print(f"Making the image {made.name}: once, less than a minute{own}", file=sys.stderr)
    part = made.with_name(f"{made.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    uv = Path(sys.prefix, "bin", "uv")
    command = str(uv) if uv.exists() else shutil.which("uv") or "uv"
    try:
        _run(command, "venv", "--python", python or sys.executable, str(part))
        installed = str(part / "bin" / "python")
        hashes = ("--require-hashes", "--build-constraints", str(lock))
        _run(command, "pip", "sync", "--python", installed, *hashes, str(lock))
        _amend(site_packages(part))
        _run(installed, "-c", f"import {warm}", SAGEMAKER_BASE_DIR=str(part / "ml"))
    except OSError as error:
        raise ImageError(f"cannot make the image {made.name}: {command}: {error}") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"{error.cmd[0]} failed"]
        raise ImageError(f"cannot make the image {made.name}: {' '.join(said)}") from error
    shutil.rmtree(part / "ml", ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)
    part.rename(made)


def interpreter() -> str | None:
    """Return an installed Python of the images' version: on the PATH, or one of pyenv's."""
    name = ".".join(map(str, PYTHON))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    folders = [*os.get_exec_path(), *map(str, sorted(pyenv.glob(f"{name}.*/bin")))]
    for folder in folders:
        python = Path(folder) / f"python{name}"
        # A shim of pyenv's exists also for a version that is switched off.
        if (
            os.access(python, os.X_OK)
            and not subprocess.run([python, "-c", ""], env={}, capture_output=True).returncode
        ):
            return str(python)
    return None


def _run(*command: str, **more: str) -> None:
    # Bytecode is wanted here, whatever the caller's own processes write.
    kept = {
        n: v for n, v in os.environ.items() if n not in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    }
    subprocess.run(command, check=True, capture_output=True, text=True, env=kept | more)


def _amend(site: Path) -> None:
    """Change what the image's build changes: a name that Python 3.10 has removed."""
    module = site / "sagemaker_containers" / "_mapping.py"
    if module.exists():
        text = module.read_text().replace("collections.Mapping", "collections.abc.Mapping")
        # The file may be a link into uv's cache.
        module.unlink()
        module.write_text(text)


def site_packages(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    return next((environment / "lib").glob("python*")) / "site-packages"


def overlay(image: Path, folder: Path) -> Path:
    """Make the environment of one process upon an image, and return the folder of its commands.

    It finds its own packages first, then the image's and the framework's.
    """
    packages = site_packages(image)
    own = folder / packages.relative_to(image)
    own.mkdir(parents=True)
    (folder / "bin").mkdir()
    shutil.copyfile(image / "pyvenv.cfg", folder / "pyvenv.cfg")
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to((image / "bin" / "python").resolve())
    lines = f"import site; site.addsitedir({str(packages)!r})\n{FRAMEWORK}\n"
    (own / "image.pth").write_text(lines, encoding="utf-8")
    return folder / "bin"
