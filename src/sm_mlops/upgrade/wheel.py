"""Build this tool's wheel from its source, or from its installed files.

Works offline, without a build backend; equal files give equal bytes on every machine. The
template's hook loads this file in cookiecutter's interpreter, so it needs only the standard library
of Python 3.11.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "sm-mlops"
PACKAGE = "sm_mlops"
FOLDER = "vendor"
_WHEEL = f"Wheel-Version: 1.0\nGenerator: {NAME}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def vendor(repo: Path, source: Path | None = None) -> str:
    """Write the wheel to `vendor/` of `repo`, delete older ones, and pin it in `tool.txt`.

    Args:
        source: The template's folder; by default the installed tool is packed.

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
    """Return the same from the tool that is installed in this environment.

    Raises:
        FileNotFoundError: It is not installed, or its files are missing.
    """
    # Imported here, because they are slow and the hook does not need them.
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


def metadata(project: dict[str, Any], version: str) -> str:
    """Return what hatchling writes into METADATA for the table `project` of pyproject.toml."""
    lines = [
        "Metadata-Version: 2.5",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in project["license-files"]),
        f"Requires-Python: {_sorted(str(project['requires-python']))}",
        *(f"Requires-Dist: {_sorted(item)}" for item in project["dependencies"]),
    ]
    extras = project["optional-dependencies"]
    for extra in sorted(extras):
        lines.append(f"Provides-Extra: {extra}")
        items = sorted({_sorted(item) for item in _expanded(extra, extras)})
        lines += [f"Requires-Dist: {item}; extra == '{extra}'" for item in items]
    return "\n".join(lines) + "\n"


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

    They are not compressed, so that git can store a new wheel as its difference from the last one.
    """
    info = f"{PACKAGE}-{version}.dist-info"
    files = files | {f"{info}/WHEEL": _WHEEL.encode()}
    # Metadata last, as the format recommends.
    names = sorted(files, key=lambda name: (name.startswith(info), name))
    record = ""
    for name in names:
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest())
        record += f"{name},sha256={digest.decode().rstrip('=')},{len(files[name])}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return archive({name: files[name] for name in [*names, f"{info}/RECORD"]})


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of these contents, in this order, whose bytes depend on nothing else.

    Stored, not compressed: the output of zlib differs between its builds.
    """
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as target:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # Dated 1980, not now.
            entry.create_system = 3  # Unix, which the mode belongs to; Windows would write 0.
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, content)
    return body.getvalue()
