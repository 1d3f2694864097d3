"""git in this repo, and the commit that it reads there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from sm_mlops.errors import MlopsError
from sm_mlops.redaction import without_tokens

# What a model is trained by; tool.txt brings the library that model/ builds on.
TRAINS = ("mlops.yaml", "model", "pipeline", "tool.txt")
# Those of an outer git, as in its hooks, point elsewhere; tracing, omitted as well, shows what is
# sent.
_OUTER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_CURL_VERBOSE")


def git(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run git in the repo at `root`, without prompts. Raise FileNotFoundError without git."""
    environment = {
        name: value
        for name, value in without_tokens(os.environ).items()
        if name not in _OUTER and not name.startswith("GIT_TRACE")
    }
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        env={**environment, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def current(root: Path) -> str:
    """Return 40 hexadecimal digits, plus `-dirty` if settings or code have uncommitted changes.

    Return `unknown` outside of git, and in a folder that git ignores.
    """
    try:
        head = git(root, "rev-parse", "--verify", "HEAD")
        if head.returncode or git(root, "check-ignore", "-q", str(root)).returncode == 0:
            return "unknown"
        changed = git(root, "status", "--porcelain", "--", *TRAINS)
    except FileNotFoundError:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def history(root: Path) -> set[str]:
    """Return HEAD and the commits that it comes from, as far as this clone has them."""
    try:
        return set(git(root, "rev-list", "HEAD").stdout.split())
    except FileNotFoundError:
        return set()


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
