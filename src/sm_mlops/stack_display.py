"""Change sets and events of a CloudFormation stack, as tables and lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console
from rich.table import Table

from sm_mlops import display
from sm_mlops.errors import one_line


@dataclass(frozen=True)
class Change:
    """A resource of a change set. `action`: added, modified, replaced, maybe replaced, removed."""

    action: str
    resource: str
    kind: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    identifier: str
    at: datetime
    resource: str
    kind: str
    physical: str
    status: str
    reason: str

    @property
    def failed(self) -> bool:
        """Return whether the resource itself failed, not because another one did."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason.lower()


def change_table(changes: Iterable[Change]) -> Table:
    changes = list(changes)
    view = display.table("change", "resource", "type")
    if any(item.because for item in changes):
        view.add_column("because of")
    for item in changes:
        because = [", ".join(item.because)] * (len(view.columns) - 3)
        view.add_row(display.colored(item.action), item.resource, item.kind, *because)
    return view


def print_events(console: Console, events: Iterable[Event]) -> None:
    for event in events:
        # CloudFormation reports each start twice: before and after its call to the service.
        if event.reason == "Resource creation Initiated":
            continue
        clock = event.at.astimezone().strftime("%H:%M:%S")
        reason = f"  {one_line(event.reason)}" if event.reason else ""
        display.tell(console, f"{clock}  {event.status:<28} {event.resource}{reason}")


def event_table(events: list[Event]) -> Table:
    """Return the state of each resource, in the order in which they began."""
    view = display.table("resource", "state", "time", "")
    first: dict[str, Event] = {}
    last: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.resource, event)
        before = last.get(event.resource)
        # Only the replaced physical resource is deleted; this one stays.
        replaced = before is not None and before.status == "UPDATE_COMPLETE"
        if event.failed or not (replaced and event.status.startswith("DELETE_")):
            last[event.resource] = event
    for name, event in last.items():
        seconds = (event.at - first[name].at).total_seconds()
        view.add_row(
            name,
            display.colored(event.status),
            f"{seconds:.0f} s" if seconds >= 1 else "",
            one_line(event.reason),
        )
    return view
