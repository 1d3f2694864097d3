"""Move a repo to another version of the template and the tool: releases, changelog, pins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from sm_mlops.compatibility import parsed
from sm_mlops.errors import MlopsError
from sm_mlops.upgrade import pin as pins
from sm_mlops.upgrade import wheel
from sm_mlops.upgrade.pin import Pin

CHANGELOG = "CHANGELOG.md"
TO_DO = "### To do in a repo"  # in CHANGELOG.md; without it, a version's whole text is shown
SECONDS = 60


@dataclass(frozen=True)
class Release:
    """A tagged version of the template."""

    version: str
    tag: str
    commit: str


@dataclass(frozen=True)
class Upgrade:
    """The result: `steps` is the changelog's text for the team, `conflicts` are files."""

    release: Release
    moved: list[str]
    steps: str
    conflicts: list[str]
    link: str


def releases(address: str, seconds: float = SECONDS) -> list[Release]:
    """Return all releases, oldest first. Raise MlopsError if git cannot reach the address."""
    found: dict[str, Release] = {}
    for line in _git("ls-remote", "--tags", "--", address, seconds=seconds).splitlines():
        commit, _, reference = line.partition("\t")
        # The commit of an annotated tag follows it, as v1.0^{}.
        if tag := re.fullmatch(r"refs/tags/(v?(\d+(?:\.\d+)*))(\^\{\})?", reference):
            found[tag[2]] = Release(tag[2], tag[1], commit)
    return sorted(found.values(), key=lambda release: parsed(release.version))


def address_of(root: Path, pin: Pin) -> str:
    """Return the address of the template's repository from .cruft.json or the pin, or nothing."""
    return (str(_cruft(root).get("template", "")) or pin.address).removeprefix("git+")


def upgrade(root: Path, wanted: str = "") -> Upgrade:
    """Move template and tool to the newest release, or to the version `wanted`.

    `make upgrade` also renews the lock.

    Raises:
        MlopsError: There are uncommitted changes, or the template or version cannot be found.
    """
    pin = pins.read(root)
    address = address_of(root, pin)
    if not address:
        raise MlopsError(
            "this repo does not name its template: .venv/bin/cruft link ADDRESS --checkout COMMIT, "
            "with the commit that it was rendered from (it asks the questions again: answer as "
            "pyproject.toml says); then commit .cruft.json"
        )
    if _git("status", "--porcelain", folder=root):
        raise MlopsError("there are uncommitted changes: commit or stash them, then make upgrade")
    release = _chosen(releases(address), wanted)
    before, cruft = _template_version(root), _cruft(root)
    moved = []
    with tempfile.TemporaryDirectory(prefix="mlops-upgrade-") as folder:
        template = Path(folder) / "template"
        _git(
            "clone", "--quiet", "--depth=1", f"--branch={release.tag}", "--", address, str(template)
        )
        line = _line(pin, template, release)
        # First, because cruft refuses uncommitted changes.
        if cruft and cruft.get("commit") != release.commit:
            _update(root, release)
            moved.append("template")
        if _move(root, pin, template, line):
            moved.append("tool")
        changelog = (template / CHANGELOG).read_text(encoding="utf-8")
    return Upgrade(
        release,
        moved,
        steps(changelog, before, release.version),
        [] if not cruft else _conflicts(root),
        "" if cruft else f".venv/bin/cruft link {address} --checkout {pin.commit or 'COMMIT'}",
    )


def steps(changelog: str, after: str, until: str) -> str:
    """Return what teams have to do for the versions after `after` up to `until`, oldest first."""
    parts = re.split(r"^## (\d+(?:\.\d+)*).*$", changelog, flags=re.MULTILINE)
    found = []
    for version, text in zip(parts[1::2], parts[2::2], strict=True):
        if parsed(after) < parsed(version) <= parsed(until):
            found.append(f"{version}\n\n{text.rpartition(TO_DO)[2].strip()}")
    return "\n\n".join(reversed(found))


def _chosen(known: list[Release], wanted: str) -> Release:
    if not known:
        raise MlopsError("the template has no release: its repository has no tag such as v1.2.3")
    by_name = {release.version: release for release in known}
    name = wanted.removeprefix("v") or known[-1].version
    if name not in by_name:
        raise MlopsError(f"there is no version {wanted}; there are {', '.join(by_name)}")
    return by_name[name]


def _template_version(root: Path) -> str:
    """Return the template's version in this repo, or nothing, which shows the whole changelog."""
    try:
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return str(table["tool"]["mlops"]["template-version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _cruft(root: Path) -> dict[str, object]:
    file = root / ".cruft.json"
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise MlopsError(".cruft.json is not JSON; restore it: git restore .cruft.json") from error


def _update(root: Path, release: Release) -> None:
    command = [sys.executable, "-m", "cruft", "update", "--skip-apply-ask"]
    done = subprocess.run(
        [*command, "--checkout", release.tag],
        cwd=root,
        # Its git signs in as ours does.
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    # Cruft's exit code is 0 even when it refuses.
    if done.returncode or _cruft(root).get("commit") != release.commit:
        raise MlopsError(f"cruft update failed: {_last_line(done.stderr or done.stdout)}")


def _line(pin: Pin, template: Path, release: Release) -> str:
    """Return what pins the tool to the release, from the same kind of source; "" for a wheel."""
    if pin.address:
        return f"{wheel.NAME} @ git+{pin.address}@{release.commit}"
    if pin.vendored:
        return ""
    if not pin.version:
        raise MlopsError(f"{pins.FILE} pins an archive: change it to that of {release.tag}")
    answers = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    line = str(answers.get("_tool_pin", ""))
    if not line:
        raise MlopsError(f"the template's cookiecutter.json has no _tool_pin at {release.tag}")
    return line


def _move(root: Path, pin: Pin, template: Path, line: str) -> bool:
    """Pin the tool to the release. Return whether the pin changed."""
    if line:
        pins.write(root, line)
    else:
        wheel.vendor(root, template)
    return pins.read(root) != pin


def _conflicts(root: Path) -> list[str]:
    names = _git("diff", "--name-only", "--diff-filter=U", folder=root).splitlines()
    rejected = _git("ls-files", "--others", "--exclude-standard", "*.rej", folder=root).splitlines()
    return [*names, *rejected]


def _git(*arguments: str, folder: Path | None = None, seconds: float | None = None) -> str:
    """Return git's output. Raise MlopsError with its error, without passwords."""
    try:
        done = subprocess.run(
            # Cloning a tag would print advice on standard error.
            ["git", "-c", "advice.detachedHead=false", *arguments],
            cwd=folder,
            # Neither git nor ssh may prompt.
            env={"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
            | os.environ
            | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except FileNotFoundError as error:
        raise MlopsError("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise MlopsError(f"git {arguments[0]}: no answer within {seconds:.0f} seconds") from error
    if done.returncode:
        raise MlopsError(f"git {arguments[0]}: {_last_line(done.stderr)}")
    return done.stdout.strip()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:] or [""]
    return re.sub(r"//[^/\s]*@", "//", found[0])
