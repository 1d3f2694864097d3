"""The plan of `mlops bootstrap`: what exists and what is created or changed, then doing it.

Must not know what the parts create.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table

from sm_mlops import display

Tell = Callable[[str], None]
"""Shows a person one line."""


class Todo(StrEnum):
    """What happens to a resource. PERSON: only a person can do it; the rest does not wait."""

    NOTHING = "exists"
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    PERSON = "manual"


@dataclass(frozen=True)
class Item:
    """A resource as it was found. `remedy` tells a person where and how."""

    what: str
    todo: Todo
    detail: str = ""
    remedy: str = ""


class Part:
    """Some of the resources that should exist. All methods may be called repeatedly."""

    def look(self) -> list[Item]:
        """Return every resource of this part. Change nothing, and do not require earlier parts."""
        return []

    def act(self, tell: Tell) -> None:
        """Do what `look` plans, and report each step once it is done; by default there is none.

        Raise MlopsError or an error of AWS. What is done stays; the next call continues.
        """

    def look_back(self) -> list[Item]:
        """Return what `mlops bootstrap --destroy` deletes, and as NOTHING what stays for a reason.

        Change nothing. Raise MlopsError if something else has to be deleted first.
        """
        return []

    def undo(self, tell: Tell) -> None:
        """Delete what `look_back` returns, as `act` does what `look` plans."""


def look(parts: Iterable[Part]) -> list[Item]:
    """Return the items of all parts."""
    return [item for part in parts for item in part.look()]


def is_work(item: Item) -> bool:
    """Return whether bootstrap itself has something to do."""
    return item.todo in (Todo.CREATE, Todo.CHANGE, Todo.DELETE)


def carry_out(parts: Sequence[Part], tell: Tell) -> list[Item]:
    """Let every part act, in order. Return what they find afterward."""
    for part in parts:
        part.act(tell)
    return look(parts)


def look_back(parts: Sequence[Part]) -> list[Item]:
    """Return what is to be deleted, of the last part first."""
    return [item for part in reversed(parts) for item in part.look_back()]


def take_back(parts: Sequence[Part], tell: Tell) -> list[Item]:
    """Let every part delete its resources, the last first. Return what they find afterward."""
    for part in reversed(parts):
        part.undo(tell)
    return look_back(parts)


def table(items: Iterable[Item]) -> Table:
    """Return the plan as a table."""
    view = display.table("", "what", "")
    for item in items:
        view.add_row(display.colored(item.todo), item.what, item.detail)
    return view
