"""What all commands share: the consoles, common options, the account to work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sm_mlops import settings as mlops_settings
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws

# In a file or a CI log, where no terminal sets the width, tables keep their lines whole.
# (A process may have been started without any standard output.)
TERMINAL = sys.stdout is not None and sys.stdout.isatty()
out = Console(soft_wrap=True, width=None if TERMINAL else 120)
_ERRORS_ON_TERMINAL = sys.stderr is not None and sys.stderr.isatty()
err = Console(stderr=True, soft_wrap=True, width=None if _ERRORS_ON_TERMINAL else 120)

AsJson = Annotated[
    bool, typer.Option("--json", help="For scripts: the result as JSON, progress on stderr.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ContinueRollback = Annotated[
    bool,
    typer.Option(
        "--continue-rollback",
        help="First continue the rollback of a stack in UPDATE_ROLLBACK_FAILED. Fix its cause "
        "before.",
    ),
]


def say(line: str) -> None:
    """Print a line of the command's result."""
    tell(out, line)


def fail(line: str, code: int = 1) -> typer.Exit:
    """Print why the command fails; return the exception that ends it."""
    tell(err, f"mlops: {line}", "red")
    return typer.Exit(code)


def progress(as_json: bool) -> Console:
    """Return where progress goes: with --json, standard output is for the result alone."""
    return err if as_json else out


def confirm(question: str, yes: bool) -> None:
    """Return if the answer is yes. Raises MlopsError if it is no, or nobody can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise MlopsError(f"{question} stdin is not a terminal; pass --yes")
    if not typer.confirm(question, err=True):
        raise MlopsError("nothing was changed")


def at_terminal() -> Callable[[str], str] | None:
    """Return how to ask for hidden input at the terminal; None if there is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    return lambda line: str(
        typer.prompt(line, default="", show_default=False, hide_input=True, err=True)
    ).strip()


@dataclass
class State:
    sandbox: bool


def load_settings() -> mlops_settings.Settings:
    return mlops_settings.load(mlops_settings.find_root(Path.cwd()))


@contextmanager
def connected(context: typer.Context, *, empty: bool = False) -> Iterator[Aws]:
    """Yield the account to work on: the signed-in one, or the sandbox while the block runs.

    Unless it is to be `empty`, the sandbox has what `mlops run` needs even before bootstrap.
    """
    from sm_mlops.aws import Aws

    settings = load_settings()
    if not context.obj.sandbox:
        # A CI that has only an access key may do nothing but assume this role.
        yield Aws(settings, role=os.environ.get("MLOPS_ROLE", ""))
        return
    # Only this branch and the commands of `mlops sandbox` ever import the sandbox.
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
    """Set these variables for this process; an empty value removes one."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
