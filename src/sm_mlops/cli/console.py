"""What all commands share: the consoles, common options, the account."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.highlighter import JSONHighlighter

from sm_mlops import actions
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws
from sm_mlops.display import shown, tell
from sm_mlops.errors import MlopsError


def on_terminal(stream: IO[str] | None) -> bool:
    """Return whether a standard stream is a terminal; a process may have none."""
    return stream is not None and stream.isatty()


def attended() -> bool:
    """Return whether a person can answer: a runner of GitHub may give its jobs a terminal, too."""
    return on_terminal(sys.stdin) and not actions.running()


# In a file or a CI log there is no terminal to take the width from.
TERMINAL = on_terminal(sys.stdout)
out = Console(soft_wrap=True, width=None if TERMINAL else 120)
err = Console(stderr=True, soft_wrap=True, width=None if on_terminal(sys.stderr) else 120)

AsJson = Annotated[
    bool, typer.Option("--json", help="For scripts: the result as JSON, progress on stderr.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
ContinueRollback = Annotated[
    bool,
    typer.Option(
        "--continue-rollback",
        help="First continue the rollback of a stack in UPDATE_ROLLBACK_FAILED, once its cause "
        "is fixed.",
    ),
]


def say(line: str) -> None:
    """Print a line of the command's result."""
    tell(out, line)


def print_json(data: object) -> None:
    """Print a result for scripts; it may contain dataclasses and times."""
    # Escapes for all but ASCII, and for what GitHub's runner would take for a command.
    text = json.dumps(data, indent=2, default=_as_json).replace("##[", "\\u0023#[")
    out.print(JSONHighlighter()(text))


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else asdict(value)


def pairs(option: str, example: str, given: list[str] | None) -> dict[str, str]:
    """Return the values of a repeated option `NAME=VALUE` by name. Raises MlopsError."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            # The text is not shown: it may be a secret.
            raise MlopsError(f"{option} must be NAME=VALUE, as in {option} {example}")
        found[name.strip()] = value
    return found


def fail(line: str, code: int = 1) -> typer.Exit:
    """Print why the command fails; return the exception that ends it."""
    tell(err, f"mlops: {line}", "red")
    return typer.Exit(code)


def progress(as_json: bool) -> Console:
    """Return the console for progress: with --json, stdout is for the result alone."""
    return err if as_json else out


def confirm(question: str, yes: bool) -> None:
    """Raise MlopsError unless the answer is yes; also if stdin is not a terminal."""
    if yes:
        return
    if not attended():
        raise MlopsError(f"{question} stdin is not a terminal; pass --yes")
    if not typer.confirm(shown(question), err=True):
        raise MlopsError("nothing was changed")


def at_terminal() -> Callable[[str], str] | None:
    """Return a prompt for hidden input, None if stdin is not a terminal."""
    if not attended():
        return None
    return lambda line: str(
        typer.prompt(line, default="", show_default=False, hide_input=True, err=True)
    ).strip()


def load_settings(without: tuple[str, ...] = ()) -> mlops_settings.Settings:
    return mlops_settings.load(mlops_settings.find_root(Path.cwd()), without=without)


@contextmanager
def connected(
    context: typer.Context, *, empty: bool = False, without: tuple[str, ...] = ()
) -> Iterator[Aws]:
    """Yield the signed-in account, or that of the sandbox, which runs until the end of the block.

    `context.obj` is whether to use the sandbox.
    Unless it must be `empty`, the sandbox has what `mlops run` needs before bootstrap. The command
    does `without` some sections of mlops.yaml.
    """
    settings = load_settings(without)
    if not context.obj:
        # The access key of a CI may only assume this role.
        yield Aws(settings, role=os.environ.get("MLOPS_ROLE", ""))
        return
    # Only this branch and the commands of `mlops sandbox` ever import the sandbox.
    from sm_mlops import sandbox
    from sm_mlops.cli.sandbox_account import apply, prepare, prepare_github

    with sandbox.connect(settings.root, settings.project.region) as environment:
        apply(environment)
        ahead = max(0.0, sandbox.control(settings.root, "time") - time.time())
        aws = Aws(settings, sandbox=True, ahead=ahead)
        if not empty:
            prepare(aws)
        apply(prepare_github(settings))
        yield aws
