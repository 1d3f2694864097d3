"""The panel "Tool": move this repo to another version of the tool, or vendor the tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sm_mlops.cli.console import say
from sm_mlops.errors import MlopsError
from sm_mlops.settings import find_root

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Tool"


@app.command(rich_help_panel=PANEL)
def upgrade(
    version: Annotated[str, typer.Argument(help="A released version; the newest by default.")] = "",
) -> None:
    """Move template and tool to another version together. `make upgrade` also renews the lock.

    `cruft update` moves the template in a repo that is linked to it: it keeps your changes and
    marks conflicts. The tool moves in tool.txt. The exit code is 1 if there are conflicts.

    **Examples**

    - `make upgrade`
    - `make upgrade VERSION=1.2.3`
    """
    from sm_mlops.upgrade import template

    root = find_root(Path.cwd())
    done = template.upgrade(root, version)
    if not done.moved:
        say(f"Nothing to do: this repo is at {done.release.version}")
    else:
        say(f"Moved {' and '.join(done.moved)} to {done.release.version}")
    if done.link:
        say(f"The files of the template are not linked to it yet. To link them: {done.link}")
    if done.steps:
        say(f"\nWhat you still have to do, from the changelog:\n\n{done.steps}\n")
    if done.conflicts:
        say(f"Resolve the conflicts in {', '.join(done.conflicts)}; then make lock setup")
        raise typer.Exit(1)
    if done.moved:
        say("When make has ended: make test, git add -A, read git diff --cached, and commit")


@app.command(rich_help_panel=PANEL)
def vendor() -> None:
    """Put the installed tool into vendor/ as a wheel, and pin it in tool.txt by its hash.

    For workflows that cannot reach the source in tool.txt, such as a private repository (a
    workflow's token reads only its own repository), and for machines without a network.

    **Example**

    - `mlops vendor`, then `git add vendor tool.txt` and commit
    """
    from sm_mlops.upgrade import pin, wheel

    root = find_root(Path.cwd())
    if other := pin.mismatch(pin.read(root)):
        raise MlopsError(f"tool.txt pins a tool other than the installed one ({other}): make setup")
    try:
        name = wheel.vendor(root)
    except OSError as error:
        raise MlopsError(f"the wheel could not be written: {error}") from error
    say(f"Pinned {name} in tool.txt: git add vendor tool.txt, and commit")
