"""What all commands share: the two consoles, the settings of this repo, the account to work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from sm_mlops import settings as mlops_settings
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws

# Into a file or a CI log, where no terminal sets the width, tables keep their lines whole.
# (A process may have been started without any standard output.)
TERMINAL = sys.stdout is not None and sys.stdout.isatty()
WIDTH = None if TERMINAL else 120
out = Console(soft_wrap=True, width=WIDTH)
_ERRORS_ON_TERMINAL = sys.stderr is not None and sys.stderr.isatty()
err = Console(stderr=True, soft_wrap=True, width=None if _ERRORS_ON_TERMINAL else 120)


def tell(console: Console, line: str, style: str | None = None) -> None:
    """Prints a line as it is: names of files, columns and labels may hold brackets."""
    console.print(line, style=style, markup=False, highlight=False)


def say(line: str) -> None:
    """Tells a line of the command's answer."""
    tell(out, line)


def confirm(question: str, yes: bool) -> None:
    """Goes on when the answer is yes. Raises MlopsError where nobody is there to be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise MlopsError(f"{question} Nobody is here to answer: add --yes")
    if not typer.confirm(question, err=True):
        raise MlopsError("nothing was changed")


@dataclass
class State:
    sandbox: bool


def load_settings() -> mlops_settings.Settings:
    return mlops_settings.load(mlops_settings.find_root(Path.cwd()))


@contextmanager
def connected(context: typer.Context, *, empty: bool = False) -> Iterator[Aws]:
    """The account to work on: the one signed in to, or the sandbox while the block lasts.

    The sandbox has what `mlops run` needs even where nobody has connected the repo, unless its
    account is to be `empty`.
    """
    from sm_mlops.aws import Aws

    settings = load_settings()
    if not context.obj.sandbox:
        # Where a key is all that a CI has, the key may do nothing but take this role.
        yield Aws(settings, role=os.environ.get("MLOPS_ROLE", ""))
        return
    # Only this branch, and the commands of `mlops sandbox`, ever import the sandbox.
    from sm_mlops import sandbox
    from sm_mlops.cli import sandbox_github
    from sm_mlops.cli.sandbox_account import prepare

    with sandbox.connect(settings.root, settings.project.region) as environment:
        apply(environment)
        aws = Aws(settings, sandbox=True)
        if not empty:
            prepare(aws)
        apply(sandbox_github.prepare(settings))
        yield aws


def apply(environment: dict[str, str]) -> None:
    """Sets these variables for this process; an empty value removes one."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
