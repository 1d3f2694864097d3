"""`model/requirements.txt`: checked against the image, and packed unless jobs reach an index.

SageMaker's images install it with pip before training and serving; `tabular.install` does so in
processing jobs. Must not know which script needs a package.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.parser import BytesParser
from pathlib import Path

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sm_mlops import images
from sm_mlops.errors import MlopsError, one_line
from sm_mlops.redaction import run
from sm_mlops.tabular.install import reason
from sm_mlops.tabular.packaging import CONSTRAINTS, REQUIREMENTS, WHEELS

FILE = f"model/{REQUIREMENTS}"
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(34, 4, -1)))
"""What runs on the instances: the C library of each image is 2.34 or newer."""
_MARKERS = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{images.PYTHON}.0",
    "python_version": images.PYTHON,
    "sys_platform": "linux",
}
_URL = re.compile(r"(.*\s@\s.*|.*://.*|[./~].*|.*\.(whl|zip|tar\.gz))")


def files(
    root: Path,
    image: images.Image,
    library: Sequence[str] = (),
    *,
    team: bool = True,
    pack: bool = False,
    here: bool = False,
) -> dict[str, bytes]:
    """Return what travels in a bundle for `model/requirements.txt`, by name; nothing without one.

    Args:
        root: The model repo.
        image: The image that the jobs run in.
        library: Packages that `sm_mlops.tabular` needs besides.
        team: Whether the job runs the team's code.
        pack: Bring the wheels along, and use nothing else.
        here: Pack for the environments of this machine's sandbox.

    Raises:
        MlopsError: A line is not a plain requirement, contradicts the image, or has no wheel.
    """
    lines = _lines(root) if team else []
    default = images.find(images.DEFAULT).pins
    pins = {name: default[name] for name in ("matplotlib", "xgboost")} | image.pins
    wanted = [str(r) for r in _checked(lines, image, pins)]
    wanted += [f"{name}=={pins[name]}" for name in library]
    if not wanted:
        return {}
    options = [f"--constraint {CONSTRAINTS}"]
    constraints = "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))
    packed = _wheels(root / "model" / WHEELS)
    if pack:
        key = "\n".join([*wanted, constraints, *packed])
        packed = _packed(root, wanted, constraints, image, here, key) | packed
        options.append("--no-index")
    if packed:
        options.append(f"--find-links {WHEELS}")
    return {
        REQUIREMENTS: "".join(f"{line}\n" for line in (*options, *wanted)).encode(),
        CONSTRAINTS: constraints.encode(),
        **{f"{WHEELS}/{name}": content for name, content in packed.items()},
    }


def is_needed(root: Path, image: images.Image) -> bool:
    """Return whether the team requires what the image lacks. Raises MlopsError as `files` does."""
    wanted = _checked(_lines(root), image, image.pins)
    return any(_applies(r) and canonicalize_name(r.name) not in image.pins for r in wanted)


def _lines(root: Path) -> list[str]:
    """Return the lines of the file without comments, empty ones included."""
    file = root / FILE
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []
    except UnicodeDecodeError as error:
        raise MlopsError(f"{FILE}: not UTF-8 text (byte {error.start})") from error
    return [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]


def _applies(requirement: Requirement, **more: str) -> bool:
    """Return whether the image needs it, by its marker."""
    return requirement.marker is None or requirement.marker.evaluate({**_MARKERS, **more})


def _checked(lines: list[str], image: images.Image, pins: dict[str, str]) -> Iterator[Requirement]:
    """Yield the requirements of the file. Nothing of a refused option or address is repeated: it
    may contain a password."""
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        place = f"{FILE}, line {number}"
        if option := re.search(r"(?:^|\s)(-{1,2}[A-Za-z][a-z-]*)", line):
            raise MlopsError(
                f"{place}: the option {option[1]} is not allowed: name packages only, as in "
                f"lightgbm==4.6.0; put wheels from elsewhere into model/{WHEELS}/"
            )
        if _URL.fullmatch(line):
            raise MlopsError(
                f"{place}: an address or a path is not allowed: name the package only, as in "
                f"lightgbm==4.6.0, and put its wheel into model/{WHEELS}/"
            )
        try:
            wanted = Requirement(line)
            applies = _applies(wanted)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
            problem = one_line(str(error).splitlines()[0])
            raise MlopsError(f"{place}: {problem}; write it as in lightgbm==4.6.0") from error
        pinned = pins.get(canonicalize_name(wanted.name))
        if applies and pinned and not wanted.specifier.contains(pinned, prereleases=True):
            in_image = canonicalize_name(wanted.name) in image.pins
            who = f"the image {image.name} has" if in_image else "sm_mlops.tabular needs"
            raise MlopsError(
                f"{place}: {wanted.name}{wanted.specifier} contradicts {wanted.name} {pinned}, "
                f"which {who}; remove the line or write {wanted.name}=={pinned}"
            )
        yield wanted


def _packed(
    root: Path, wanted: list[str], constraints: str, image: images.Image, here: bool, key: str
) -> dict[str, bytes]:
    """Return the wheels of the requirements and what they require, without those of the image.

    They are downloaded once per `key`, so that a repo compiles to the same bytes again.
    """
    python, options = Path(sys.executable), []
    own = environment(image) / "bin" / "python"
    if not here:
        options = ["--python-version", images.PYTHON, "--implementation", "cp"]
        options += [word for name in PLATFORMS for word in ("--platform", name)]
    elif own.exists():
        python = own
    digest = hashlib.sha256("\n".join([key, str(python), *options]).encode()).hexdigest()
    folder = root / "build" / WHEELS / digest[:16]
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / CONSTRAINTS).write_text(constraints, encoding="utf-8")
        command = [str(python), "-m", "pip", "download", *options]
        _download(root, part, wanted, command)
        while not here and (more := _left_out(part, wanted, image)):
            wanted = [*wanted, *more]
            _download(root, part, wanted, command)
        for wheel in part.glob("*.whl"):
            if canonicalize_name(wheel.name.partition("-")[0]) in image.pins:
                wheel.unlink()
        part.rename(folder)
    return _wheels(folder)


def _left_out(folder: Path, wanted: list[str], image: images.Image) -> list[str]:
    """Return the requirements that nothing in the folder or the image meets: pip heeds markers as
    they are on this machine. Source: https://github.com/pypa/pip/issues/11664"""
    wheels = {canonicalize_name(w.name.partition("-")[0]): w for w in folder.glob("*.whl")}
    found, seen = list[str](), set[str]()
    left = [needed for needed in map(Requirement, wanted) if _applies(needed)]
    while left:
        needed = left.pop()
        needed.marker = None
        name, text = canonicalize_name(needed.name), str(needed)
        if text in seen:
            continue
        seen.add(text)
        if name in wheels:
            extras = ("", *needed.extras)
            more = _requires(wheels[name])
            left += [each for each in more if any(_applies(each, extra=e) for e in extras)]
        elif name not in image.pins and text not in wanted:
            found.append(text)
    return found


def _requires(wheel: Path) -> list[Requirement]:
    """Return what a wheel requires, by its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        # Other packages that it brings along are deeper inside.
        [name] = [n for n in archive.namelist() if re.fullmatch("[^/]+[.]dist-info/METADATA", n)]
        metadata = BytesParser().parsebytes(archive.read(name), headersonly=True)
    found = []
    for line in metadata.get_all("Requires-Dist", []):
        with suppress(InvalidRequirement):  # of a form that only an old pip reads
            found.append(Requirement(line))
    return found


def _wheels(folder: Path) -> dict[str, bytes]:
    return {wheel.name: wheel.read_bytes() for wheel in sorted(folder.glob("*.whl"))}


def environment(image: images.Image) -> Path:
    """Return where the sandbox has the environment of an image."""
    name = image.name
    if image.sdk is None:
        name = f"own-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return Path(sys.prefix) / "images" / name


def _download(root: Path, folder: Path, wanted: list[str], command: list[str]) -> None:
    """Let pip download wheels with this machine's settings. Raises MlopsError."""
    command += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    command += ["--find-links", str(root / "model" / WHEELS), "--dest", str(folder)]
    command += ["--constraint", str(folder / CONSTRAINTS), *wanted]
    done = run(command, root)
    if done.returncode:
        why = re.sub(r"://[^/\s@]+@", "://", reason(done.stdout + done.stderr))
        raise MlopsError(f"{FILE}: cannot pack its wheels: {one_line(why)}")
