"""Outputs and the summary of a step in GitHub Actions, which do nothing elsewhere, and Markdown.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sm_mlops.tabular.text import visible

# GitHub's limit for one step, in bytes.
LONGEST_SUMMARY = 1024 * 1024
CUT = "\n\nThe rest is too long to show here.\n"


def running() -> bool:
    """Return whether this is a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def summary(markdown: str) -> None:
    """Add Markdown to the summary of this step; cut text that is too long."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    content = markdown.encode().rstrip() + b"\n\n"
    room = LONGEST_SUMMARY - (Path(file).stat().st_size if Path(file).exists() else 0)
    if len(content) > room:
        content = cut(markdown, room).encode() if room > 200 else b""
    with Path(file).open("ab") as stream:
        stream.write(content)


def cut(markdown: str, room: int) -> str:
    """Return `markdown` in at most `room` bytes (200 or more), with a note if it was longer.

    Close a code block or fold that the cut left open.
    """
    if len(markdown.encode()) <= room:
        return markdown
    space = room - len(CUT) - 100
    kept = markdown.encode()[: max(0, space)].decode(errors="ignore").rpartition("\n")[0]
    fence = ""
    for line in kept.splitlines():
        if line.startswith("```") and not fence:
            fence = line[: len(line) - len(line.lstrip("`"))]
        elif line == fence:
            fence = ""
    closing = f"\n{fence}" if fence else ""
    closing += "\n</details>" if kept.count("<details>") > kept.count("</details>") else ""
    return f"{kept}{closing}{CUT}"


def code(value: object) -> str:
    """Return a value as inline code, for a line or a cell of a table.

    In code GitHub makes no HTML, link, mention or reference of it.
    """
    text = visible(" ".join(str(value).split())).replace("`", "\\x60").replace("|", "\\x7c")
    return f"`{text or ' '}`"


def fenced(*lines: str, language: str = "") -> str:
    """Return a code block whose fence is longer than any in the lines."""
    lines = tuple(visible(line, keep="\n\t") for line in lines)
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join((f"{fence}{language}", *lines, fence))


def output(name: str, value: str) -> None:
    """Set an output of this step.

    GitHub drops a job output that contains a masked value, such as the account number: pass names,
    not ARNs.
    """
    file = os.environ.get("GITHUB_OUTPUT")
    if not file:
        return
    # No value can guess the end mark, end early and set another output.
    mark = f"end-{secrets.token_hex(16)}"
    with Path(file).open("a", encoding="utf-8") as stream:
        stream.write(f"{name}<<{mark}\n{value}\n{mark}\n")
