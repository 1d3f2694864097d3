"""Which commit this repo stands at. Asks git, changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path


def current(root: Path) -> str:
    """40 hexadecimal digits, with `-dirty` when what trains the model differs; else `unknown`.

    A folder that an outer repository ignores is not versioned by it, and counts as outside.
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
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
