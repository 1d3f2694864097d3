"""The look of lines, tables and states on rich's console. Must not know what they show."""

from __future__ import annotations

import time

from rich.console import Console
from rich.table import Table


def tell(console: Console, line: str, style: str | None = None) -> None:
    """Print a line without markup: names of files, columns and labels may contain brackets."""
    console.print(line, style=style, markup=False, highlight=False)


def table(*headings: str) -> Table:
    """Return an empty table in the style that all commands share."""
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        view.add_column(heading)
    return view


_COLORS = {
    "green": ("ok", "Succeeded", "InService", "added", "create"),
    "red": ("failed", "Failed", "OutOfService", "UpdateRollbackFailed", "removed", "delete"),
    "magenta": ("Stopped", "Stopping", "unknown", "replaced", "maybe replaced", "manual"),
    "dim": ("Waiting", "Not run", "not deployed", "imported", "exists"),
}


def colored(state: str) -> str:
    """Return a state as rich markup; yellow means in progress or needs attention."""
    for color, states in _COLORS.items():
        if state in states:
            return f"[{color}]{state}[/]"
    if state.endswith("_FAILED") or "ROLLBACK" in state:
        return f"[red]{state}[/]"
    return f"[{'green' if state.endswith('_COMPLETE') else 'yellow'}]{state}[/]"


def pause(began: float, longest: float = 5.0) -> float:
    """Return the seconds to wait before the next poll: few at first, more later.

    `began` is a reading of `time.monotonic`.
    """
    return min(longest, max(0.2, (time.monotonic() - began) / 30))
