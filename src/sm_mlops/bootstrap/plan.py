"""The plan of `mlops bootstrap`: what there is, what will be made or changed, then doing it.

Must not know what the parts make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from rich.markup import escape
from rich.table import Table

Tell = Callable[[str], None]
"""Tells a person one line."""


class Todo(StrEnum):
    """What becomes of a thing."""

    NOTHING = "exists"
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    PERSON = "for you"
    """Only a person can do it; it does not hold up the rest."""


@dataclass(frozen=True)
class Item:
    """A thing as it was found. `place` is an account and region, or a repository; `remedy`, of a
    thing for a person, is where and how."""

    place: str
    what: str
    todo: Todo
    detail: str = ""
    remedy: str = ""


class Part(Protocol):
    """Some of what is to be there. Both methods may be called again and again."""

    def look(self) -> list[Item]:
        """Return every thing of this part. Changes nothing, and does not need the parts before
        to be there."""

    def act(self, tell: Tell) -> None:
        """Do what `look` finds to be done, and tell each thing once it is done.

        Raises MlopsError, or an error of AWS. What is done stays; the next call goes on from there.
        """


@runtime_checkable
class Removable(Protocol):
    """A part that `mlops bootstrap --destroy` takes away. Of the things of a part that is none,
    nothing is to be taken away."""

    def look_back(self) -> list[Item]:
        """Return what there is to take away, each thing as DELETE, and what stays for a reason as
        NOTHING. Changes nothing. Raises MlopsError where something has to go first."""

    def undo(self, tell: Tell) -> None:
        """Take away what `look_back` finds, and tell each thing once it is gone. As with `act`,
        what is gone stays so, and the next call goes on from there."""


def look(parts: Iterable[Part]) -> list[Item]:
    return [item for part in parts for item in part.look()]


def is_work(item: Item) -> bool:
    """Whether there is something to do that a person need not do."""
    return item.todo in (Todo.CREATE, Todo.CHANGE, Todo.DELETE)


def carry_out(parts: Sequence[Part], tell: Tell) -> list[Item]:
    """Lets every part act, in order. Returns what the parts find afterwards."""
    for part in parts:
        part.act(tell)
    return look(parts)


def look_back(parts: Sequence[Part]) -> list[Item]:
    """What goes, in the order in which it does: the last part first."""
    return [
        item for part in reversed(parts) if isinstance(part, Removable) for item in part.look_back()
    ]


def take_back(parts: Sequence[Part], tell: Tell) -> list[Item]:
    """Lets every part take its things away, the last first. Returns what is found afterwards."""
    for part in reversed(parts):
        if isinstance(part, Removable):
            part.undo(tell)
    return look_back(parts)


_COLOURS = {
    Todo.NOTHING: "dim",
    Todo.CREATE: "green",
    Todo.CHANGE: "yellow",
    Todo.DELETE: "red",
    Todo.PERSON: "magenta",
}


def table(items: Iterable[Item]) -> Table:
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "what", "where", ""):
        view.add_column(heading)
    for item in items:
        colour = _COLOURS[item.todo]
        view.add_row(
            f"[{colour}]{item.todo}[/]", escape(item.what), escape(item.place), escape(item.detail)
        )
    return view
