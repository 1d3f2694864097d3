"""The environments that stand for container images, and what each job and endpoint adds to one.

An environment has the packages of `<name>.lock`, hard-linked from uv's cache, and lives beside the
running one. Processes use it through an overlay, into which pip installs. The image of a team has
the packages of a file of theirs, and a name of its own. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
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
DEFAULT = HERE / "xgboost-3.2-0.lock"
SERVING = "xgboost_image.serving:main"
# Which images there are; the tool reads the same file.
KNOWN: dict[str, dict[str, str]] = json.loads((HERE.parents[1] / "images.json").read_text())
_URI = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/([^:@]+)[:@](.+)")
# Imported once: it works, and is compiled before the first process needs it.
_WARM = {
    "gevent.monkey": "gevent",
    "gunicorn.app.wsgiapp": "gunicorn",
    "gunicorn.workers.ggevent": "gunicorn",
    "matplotlib.figure": "matplotlib",
    "pandas": "pandas",
    "pip": "pip",
    "pyarrow.compute": "pyarrow",
    "pyarrow.csv": "pyarrow",
    "pyarrow.parquet": "pyarrow",
    "sagemaker_containers.beta.framework": "sagemaker-containers",
    "sagemaker_containers.cli.train": "sagemaker-containers",
    "sagemaker_training.cli.train": "sagemaker-training",
    "sklearn": "scikit-learn",
    "xgboost": "xgboost",
}
"""Modules by their packages."""


class ImageError(Exception):
    """An image that cannot be used here; the message is one line."""


def find(uri: str, folder: Path = FOLDER) -> Path:
    """Return the environment of an image. Raises ImageError if there is none."""
    name = name_of(uri)
    if (folder / name / "ready").is_file():
        return folder / name
    if name in KNOWN:
        how = "make setup" if name == DEFAULT.stem else f"mlops --sandbox run, with image: {name}"
        raise ImageError(f"The environment of the image {uri} is not made; run: {how}")
    raise ImageError(
        f"The sandbox has no environment for the image {uri}; it has: {', '.join(KNOWN)}, and an "
        "image of yours once mlops.yaml names it with its image_environment"
    )


def name_of(uri: str) -> str:
    parts = _URI.fullmatch(uri)
    for name, image in KNOWN.items():
        if parts and parts.groups() == (image["repository"], image["tag"]):
            return name
    return f"own-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def training(image: Path) -> tuple[list[str], str]:
    """Return the command that trains in an image, and the module that its toolkit calls."""
    if (site_packages(image) / "sagemaker_training").is_dir():
        return ["python", "-P", "-m", "sagemaker_training.cli.train"], "sklearn_image.training:main"
    return ["python", "-P", "-m", "xgboost_image.quick"], "xgboost_image.training:main"


def make(
    lock: Path = DEFAULT, folder: Path = FOLDER, warm: str = "", name: str | None = None
) -> None:
    """Make an environment if it is missing or out of date, one process at a time.

    Says on stderr what takes time. `name` is that of the file, unless the image is a team's.
    Raises ImageError.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    made = folder / (name or lock.stem)
    if _is(made, digest):
        return
    with _only_process(folder):
        if not _is(made, digest):
            exact = bool(name) or (lock.stem in KNOWN and lock != DEFAULT)
            _make(made, lock, warm or _warm(lock), exact)
            # Only a complete environment gets its name, and this mark.
            (made / "ready").write_text(digest)


def _warm(lock: Path) -> str:
    pinned = set(re.findall("^([a-z0-9-]+)==", lock.read_text().lower(), re.MULTILINE))
    modules = [module for module, package in _WARM.items() if package in pinned]
    gevent = "gevent.monkey; gevent.monkey.patch_all(); import " if "gevent" in pinned else ""
    return gevent + ", ".join(modules)


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


def _make(made: Path, lock: Path, warm: str, exact: bool) -> None:
    python, version = interpreter(), ".".join(map(str, PYTHON))
    if exact and python is None:
        raise ImageError(f"cannot make the image {made.name}: install Python {version} first")
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
        options = hashes if "--hash=" in lock.read_text() else ()
        _run(command, "pip", "sync", "--python", installed, *options, str(lock))
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
