"""The commit of this repo, read from git."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from sm_mlops.errors import MlopsError
from sm_mlops.redaction import without_tokens

# What a model is trained by; tool.txt brings the library that model/ builds on.
TRAINS = ("mlops.yaml", "model", "pipeline", "tool.txt")


def current(root: Path) -> str:
    """Return 40 hexadecimal digits, plus `-dirty` if settings or code have uncommitted changes.

    Return `unknown` outside of git, and in a folder that git ignores.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=without_tokens(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        head = git("rev-parse", "--verify", "HEAD")
        if head.returncode != 0 or git("check-ignore", "-q", str(root)).returncode == 0:
            return "unknown"
        changed = git("status", "--porcelain", "--", *TRAINS)
    except FileNotFoundError:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def short(commit: str) -> str:
    """Return the first seven digits, with the suffix `-dirty` if there is one."""
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def require(commit: str) -> None:
    """Raise MlopsError unless this is a full commit, which may be on main."""
    if re.fullmatch("[0-9a-f]{40}", commit):
        return
    raise MlopsError(
        f"commit {commit}: a version trained from uncommitted changes or outside of git was "
        "reviewed by nobody; commit, train again and deploy that version"
        if commit.endswith("-dirty") or commit == "unknown"
        else f"commit {commit!r} is not a full commit: give all 40 hexadecimal digits, as in "
        "mlops models --json"
    )
