"""The panel "Connect", its part for what is there already: look at all of it, and pass an approval
on by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from sm_mlops.console import connected, out, say
from sm_mlops.errors import MlopsError

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Connect"
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: the result as JSON.")]


@app.command(rich_help_panel=PANEL)
def trigger(
    context: typer.Context,
    version: Annotated[
        int | None, typer.Argument(help="A version, as mlops models lists them.")
    ] = None,
    model_package_arn: Annotated[
        str, typer.Option(help="Instead of the version: its ARN.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Pass an approval on to GitHub (or Jenkins) by hand: its deployment is started, also again.

    An approval does that by itself. This is for one that could not be passed on, say because
    GitHub did not answer for hours or its token had expired.

    **Example**

    - `mlops trigger 3`
    """
    from sm_mlops import registry
    from sm_mlops.deployment.deploy import approved
    from sm_mlops.deployment.trigger import replay

    if (version is None) == (not model_package_arn):
        raise MlopsError("name a version, as in mlops trigger 3, or --model-package-arn ARN")
    with connected(context) as aws:
        arn = model_package_arn or registry.version(aws, version).arn
        started = replay(aws, approved(aws, arn))
    if as_json:
        out.print_json(data=started.as_json())
        return
    say(f"Deployment of version {started.version} is started, commit {started.commit[:7]}")
    say(f"follow it   {started.run or f'the runs of {started.repository}'}")
    if started.cleared:
        noun = "failed approval" if started.cleared == 1 else "failed approvals"
        say(f"{started.cleared} {noun} of this version taken off the queue")


@app.command(rich_help_panel=PANEL)
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check sign-ins, rights, platform, project, GitHub and quotas, each with what to do about it.

    Changes nothing. Exit code 1 when something has failed; a warning is no failure. What you have
    no right to look at is a warning that names the right.
    """
    import os
    from dataclasses import asdict

    from sm_mlops.doctor import State, examine
    from sm_mlops.doctor.finding import table

    with connected(context) as aws:
        found = examine(aws, os.environ)
    count = {state: sum(item.state is state for item in found) for state in State}
    if as_json:
        out.print_json(data=[asdict(item) for item in found])
    else:
        out.print(table(found))
        say(", ".join(f"{number} {state}" for state, number in count.items() if number))
    if count[State.FAILED]:
        raise typer.Exit(1)
