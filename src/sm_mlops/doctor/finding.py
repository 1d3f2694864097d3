"""What a check finds, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table

from sm_mlops import display


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of the table. `check` is set when a check has returned; `remedy` is a command or a
    URL."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def ok(detail: str) -> Finding:
    return Finding("", State.OK, detail)


def warning(detail: str, remedy: str = "") -> Finding:
    return Finding("", State.WARNING, detail, remedy)


def failed(detail: str, remedy: str = "") -> Finding:
    return Finding("", State.FAILED, detail, remedy)


def table(findings: Iterable[Finding]) -> Table:
    """Return the table of all findings, each remedy below its finding."""
    view = display.table()
    for heading in ("", "check"):
        view.add_column(heading, no_wrap=True)
    # Folded, not cut: it has URLs and commands to copy.
    view.add_column("", overflow="fold")
    for item in findings:
        view.add_row(display.colored(item.state), item.check, item.detail)
        if item.remedy:
            view.add_row("", "", f"-> {item.remedy}")
    return view
