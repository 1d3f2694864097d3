"""The look of lines, tables and states on rich's console. Must not know what they show, of which
nothing is markup, moves the cursor, or is a command to GitHub's runner."""

from __future__ import annotations

import re
import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sm_mlops.tabular.text import visible

# Where the first character of a command is; the runner reads it after blanks, in any case.
# Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
_COMMAND = re.compile(
    r"#(?=#\[)|:(?=:(?:error|warning|notice|debug|group|endgroup|echo|add-mask|add-path|set-env"
    r"|set-output|save-state|add-matcher|remove-matcher|stop-commands)(?:\s.*)?::)",
    re.IGNORECASE,
)


def shown(text: object) -> str:
    """Return text, of one line or several, that is only shown."""
    return _COMMAND.sub(lambda found: f"\\x{ord(found[0]):x}", visible(text, keep="\n\t"))


def tell(console: Console, line: str, style: str | None = None) -> None:
    """Print a line, or several."""
    console.print(shown(line), style=style, markup=False, highlight=False, emoji=False)


class _Table(Table):
    """A table whose cells are only shown, unless they are a Text."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        texts = (cell if isinstance(cell, Text) else Text(shown(cell)) for cell in cells)
        super().add_row(*texts, **options)


def table(*headings: str) -> Table:
    """Return an empty table in the style that all commands share."""
    view = _Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        view.add_column(heading)
    return view


_COLORS = {
    "green": ("ok", "Succeeded", "InService", "added", "create"),
    "red": ("failed", "Failed", "OutOfService", "UpdateRollbackFailed", "removed", "delete"),
    "magenta": ("Stopped", "Stopping", "unknown", "replaced", "maybe replaced", "manual"),
    "dim": ("Waiting", "Not run", "not deployed", "imported", "exists"),
}


def colored(state: str, color: str = "") -> Text:
    """Return a state in its color; yellow means in progress or needs attention."""
    known = (color for color, states in _COLORS.items() if state in states)
    failed = state.endswith("_FAILED") or "ROLLBACK" in state
    other = "red" if failed else "green" if state.endswith("_COMPLETE") else "yellow"
    return Text(shown(state), style=color or next(known, other))


def pause(began: float, longest: float = 5.0) -> float:
    """Return the seconds to wait before the next poll: few at first, more later.

    `began` is a reading of `time.monotonic`.
    """
    return min(longest, max(0.2, (time.monotonic() - began) / 30))
