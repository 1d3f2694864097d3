"""tool.txt: one line that pins the tool of this repo, with its source."""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass
from pathlib import Path

import sm_mlops
from sm_mlops.errors import MlopsError
from sm_mlops.upgrade.wheel import FOLDER, NAME, PACKAGE

FILE = "tool.txt"
_VERSION, _HASH = r"(?P<version>\d[\w.!+]*)", "--hash=sha256:[0-9a-f]{64}"
_PATTERNS = (
    rf"{NAME} @ git\+(?P<address>(https?|ssh|git|file)://[!-~]+)@(?P<commit>[0-9a-f]{{40}})",
    rf"\./{FOLDER}/{PACKAGE}-{_VERSION}-py3-none-any\.whl {_HASH}",
    rf"{NAME}=={_VERSION}( {_HASH})+",
    rf"{NAME} @ https?://[!-~]+ {_HASH}",
)


@dataclass(frozen=True)
class Pin:
    """A commit of a git address, a version of a package index or in `vendor/`, or an archive."""

    line: str
    address: str = ""
    commit: str = ""
    version: str = ""

    @property
    def vendored(self) -> bool:
        """Return whether the tool is a wheel in `vendor/`."""
        return self.line.startswith(f"./{FOLDER}/")

    @property
    def shown(self) -> str:
        """Return the pin as a person reads it."""
        text = self.line.partition(" --hash")[0].removeprefix("./")
        if self.address:
            text = f"{self.address} at {self.commit[:7]}"
        return re.sub(r"//[^/\s]*@", "//", text)


def read(root: Path) -> Pin:
    """Return the pin of the repo at `root`. Raise MlopsError if tool.txt is missing or invalid."""
    try:
        line = (root / FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MlopsError(f"{FILE}: cannot be read; restore it: git restore {FILE}") from error
    for pattern in _PATTERNS:
        if found := re.fullmatch(pattern, line, re.ASCII):
            return Pin(line, **found.groupdict())
    raise MlopsError(
        f"{FILE}: must be one line such as {NAME} @ git+https://github.com/OWNER/{NAME}@COMMIT"
    )


def write(root: Path, line: str) -> None:
    """Pin the tool to another version."""
    (root / FILE).write_text(line + "\n", encoding="utf-8", newline="\n")


def mismatch(pin: Pin) -> str:
    """Return the installed version if it is not the pinned one, else nothing.

    An editable tool, as in the template's own environment, is never a mismatch.
    """
    origin = json.loads(importlib.metadata.distribution(NAME).read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return ""
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    same = commit == pin.commit if pin.commit else pin.version in ("", sm_mlops.version())
    return "" if same else f"{sm_mlops.version()} {f'at {commit[:7]}' if commit else ''}".strip()
