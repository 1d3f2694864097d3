"""Which commit this repo stands at. Asks git, changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from sm_mlops.errors import MlopsError
from sm_mlops.redaction import without_tokens


def current(root: Path) -> str:
    """40 hexadecimal digits, with `-dirty` when what trains the model differs; else `unknown`.

    A folder that an outer repository ignores is not versioned by it, and counts as outside.
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
        changed = git(
            "status", "--porcelain", "--", "mlops.yaml", "model", "pipeline"
        ).stdout.strip()
    except FileNotFoundError:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed else "")


def short(commit: str) -> str:
    """As people call it: seven digits, and whether something was not committed."""
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def require(commit: str) -> None:
    """Raises MlopsError unless it names one commit, which any clone can check out."""
    if re.fullmatch("[0-9a-f]{40}", commit):
        return
    raise MlopsError(
        f"commit {commit}: a version trained from changes that were not committed, or outside of "
        "git, cannot be checked out; commit them, train again and deploy that version"
        if commit.endswith("-dirty") or commit == "unknown"
        else f"commit {commit!r} is not one: give all 40 hexadecimal digits, "
        "as mlops models --json has them"
    )
