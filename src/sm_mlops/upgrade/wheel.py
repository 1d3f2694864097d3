"""Builds this tool's wheel: from its source, or from the place where it is installed.

Needs neither a network nor a build backend, so it works offline, and the same files give the same
bytes on every machine. The template's hook loads this file in cookiecutter's interpreter: standard
library only, Python 3.11 or newer, and nothing else of ours.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

NAME = "sm-mlops"
PACKAGE = "sm_mlops"
FOLDER = "vendor"
# The oldest time that a zip can hold. One fixed time, so that equal files are equal archives.
_MOMENT = (1980, 1, 1, 0, 0, 0)
_WHEEL = f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def vendor(repo: Path, source: Path | None = None) -> str:
    """Write the wheel into `vendor/` of `repo` in place of older ones, and pin it in `tool.txt`.

    Args:
        source: The template's folder; without it, the tool that is installed here is packed.

    Returns:
        The path of the wheel below `repo`.
    """
    version, files = from_source(source) if source else from_installation()
    name = f"{FOLDER}/{PACKAGE}-{version}-py3-none-any.whl"
    content = pack(version, files)
    (repo / FOLDER).mkdir(exist_ok=True)
    for old in (repo / FOLDER).glob(f"{PACKAGE}-*.whl"):
        old.unlink()
    (repo / name).write_bytes(content)
    pin = f"./{name} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
    (repo / "tool.txt").write_bytes(pin.encode())
    return name


def from_source(root: Path) -> tuple[str, dict[str, bytes]]:
    """Return the version and the files of a wheel, by name, from the template's folder."""
    answers = json.loads((root / "cookiecutter.json").read_text(encoding="utf-8"))
    version = str(answers["_template_version"])
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = root / "src"
    files = {
        file.relative_to(source).as_posix(): file.read_bytes()
        for file in (source / PACKAGE).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    }
    info = f"{PACKAGE}-{version}.dist-info"
    files[f"{info}/METADATA"] = metadata(project, version).encode()
    commands = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{commands}".encode()
    for name in project["license-files"]:
        files[f"{info}/licenses/{name}"] = (root / name).read_bytes()
    return version, files


def from_installation() -> tuple[str, dict[str, bytes]]:
    """Return the same for the tool that is installed beside this interpreter.

    Raises:
        FileNotFoundError: It is not installed, or its files are gone.
    """
    # Not above: the hook does without them, and they take long to import.
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        installed = distribution(NAME)
    except PackageNotFoundError as error:
        raise FileNotFoundError(f"{NAME} is not installed here") from error
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return from_source(Path(unquote(urlsplit(origin["url"]).path)))
    kept = re.compile(
        rf"{PACKAGE}/(?!.*\.pyc$)|[^/]+\.dist-info/(METADATA|entry_points\.txt|licenses/)"
    )
    return installed.version, {
        file.as_posix(): Path(str(installed.locate_file(file))).read_bytes()
        for file in installed.files or ()
        if kept.match(file.as_posix())
    }


def metadata(project: dict[str, object], version: str) -> str:
    """Return what hatchling writes into METADATA for the table `project` of pyproject.toml."""
    lines = [
        "Metadata-Version: 2.5",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in _list(project["license-files"])),
        f"Requires-Python: {_sorted(str(project['requires-python']))}",
        *(f"Requires-Dist: {_sorted(item)}" for item in _list(project["dependencies"])),
    ]
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    for extra in sorted(extras):
        lines.append(f"Provides-Extra: {extra}")
        items = sorted({_sorted(item) for item in _expanded(extra, extras)})
        lines += [f"Requires-Dist: {item}; extra == '{extra}'" for item in items]
    return "\n".join(lines) + "\n"


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return value


def _expanded(extra: str, extras: dict[str, list[str]]) -> Iterable[str]:
    """Yield the requirements of an extra, those of the extras it names included."""
    for item in extras[extra]:
        if item.startswith(f"{NAME}["):
            for other in item[len(NAME) + 1 : -1].split(","):
                yield from _expanded(other, extras)
        else:
            yield item


def _sorted(requirement: str) -> str:
    """Return a requirement, or a specifier alone, with its clauses in order."""
    name = re.match(r"[\w.\[\],-]*", requirement)[0]  # type: ignore[index]
    return name + ",".join(sorted(requirement[len(name) :].split(",")))


def pack(version: str, files: dict[str, bytes]) -> bytes:
    """Return the wheel that holds `files`.

    They are stored as they are: git compresses a push anyway, and from the wheel before it keeps
    only what differs, which it cannot do with what is compressed already.
    """
    info = f"{PACKAGE}-{version}.dist-info"
    files = files | {f"{info}/WHEEL": _WHEEL.encode()}
    record = []
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as target:
        # Metadata last, as the format recommends.
        for name in sorted(files, key=lambda name: (name.startswith(info), name)):
            digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest())
            record.append(f"{name},sha256={digest.decode().rstrip('=')},{len(files[name])}")
            _add(target, name, files[name])
        record.append(f"{info}/RECORD,,")
        _add(target, f"{info}/RECORD", ("\n".join(record) + "\n").encode())
    return body.getvalue()


def _add(target: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.create_system = 3  # Unix, as the mode is.
    entry.external_attr = 0o100644 << 16
    target.writestr(entry, content)
