"""The panel "Connect": check the connection, and pass on an approval by hand."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sm_mlops import registry
from sm_mlops.cli.console import AsJson, connected, out, print_json, say
from sm_mlops.deployment.deploy import approved
from sm_mlops.deployment.trigger import replay

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Connect"


@app.command(rich_help_panel=PANEL)
def trigger(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="A number listed by mlops models.")],
    as_json: AsJson = False,
) -> None:
    """Pass an approval on to GitHub (or Jenkins): start its deployment, or start it again.

    An approval does this by itself. Use this for an approval that was lost, for example because
    GitHub did not answer for hours or the token had expired.

    **Example**

    - `mlops trigger 3`
    """
    with connected(context) as aws:
        started = replay(aws, approved(aws, registry.version(aws, version).arn))
    if as_json:
        print_json(started)
        return
    say(f"Started the deployment of version {started.version}, commit {started.commit[:7]}")
    say(f"follow it   {started.run or f'the runs of {started.repository}'}")
    if started.cleared:
        noun = "failed approval" if started.cleared == 1 else "failed approvals"
        say(f"Deleted {started.cleared} {noun} of this version from the queue")


@app.command(rich_help_panel=PANEL)
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check sign-ins, permissions, platform, project, GitHub and quotas, each with a remedy.

    Changes nothing. The exit code is 1 if a check fails, but not for a warning, such as a missing
    permission to read something.
    """
    from sm_mlops.doctor import State, examine
    from sm_mlops.doctor.scene import table

    with connected(context) as aws:
        found = examine(aws, os.environ)
    count = {state: sum(item.state is state for item in found) for state in State}
    if as_json:
        print_json(found)
    else:
        out.print(table(found))
        say(", ".join(f"{number} {state}" for state, number in count.items() if number))
    if count[State.FAILED]:
        raise typer.Exit(1)
