"""The panel "Registry": list, approve and reject versions, and open their reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sm_mlops import display, executions, registry
from sm_mlops.cli.console import TERMINAL, AsJson, connected, out, print_json, say
from sm_mlops.commit import short
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError
from sm_mlops.registry import Version
from sm_mlops.training import gate

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Registry"


@app.command(rich_help_panel=PANEL)
def models(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the registered versions with status, commit and metric."""
    with connected(context) as aws:
        found = list(registry.versions(aws, limit))
        if as_json:
            print_json([vars(each) | {"metrics": registry.statistics(aws, each)} for each in found])
            return
        if not found:
            say(f"No version yet: train one with {aws.command} run")
            return
        out.print(registry_table(found))


def registry_table(found: list[Version]) -> Table:
    view = display.table("version", "status", "created", "commit", "evaluation")
    for item in found:
        created = item.created.astimezone().strftime("%Y-%m-%d %H:%M")
        view.add_row(str(item.version), item.approval, created, short(item.commit), item.evaluation)
    return view


WhichVersion = Annotated[int, typer.Argument(help="A number listed by mlops models.")]
Comment = Annotated[str, typer.Option(help="The reason, kept with the version; 1,024 characters.")]


@app.command(rich_help_panel=PANEL)
def approve(
    context: typer.Context, version: WhichVersion, comment: Comment = "", as_json: AsJson = False
) -> None:
    """Approve a version: it may be deployed, and becomes the champion for new versions.

    This sets the status in the Model Registry, as Studio does.

    **Example**

    - `mlops approve 3 --comment "better on the new customers"`
    """
    _set_approval(context, version, "Approved", comment, as_json)


@app.command(rich_help_panel=PANEL)
def reject(
    context: typer.Context, version: WhichVersion, comment: Comment = "", as_json: AsJson = False
) -> None:
    """Reject a version: it cannot be deployed, and is no longer the champion.

    Stages that run it keep running it: see `mlops rollback STAGE`.

    **Example**

    - `mlops reject 3 --comment "drops the card payments"`
    """
    _set_approval(context, version, "Rejected", comment, as_json)


def _set_approval(
    context: typer.Context, number: int, approval: str, comment: str, as_json: bool
) -> None:
    if len(comment) > 1024:
        raise MlopsError(f"--comment has {len(comment)} characters; the registry allows 1024")
    with connected(context) as aws:
        found = registry.version(aws, number)
        registry.set_approval(aws, found, approval, comment)
    if as_json:
        print_json(replace(found, approval=approval))
        return
    same = found.approval == approval
    status = f"already {approval}" if same else f"{approval} (was {found.approval})"
    say(f"Version {found.version} is {status}: {found.evaluation}")
    if same and approval == "Approved" and not aws.sandbox:
        say(f"no deployment was started; to start it again: {aws.command} trigger {found.version}")
    known = stages.names(aws.settings)
    if approval == "Approved" and known:
        say(f"deploy it   {aws.command} deploy {known[0]} --model-package-arn {found.arn}")


@app.command(rich_help_panel=PANEL)
def report(
    context: typer.Context,
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION|EXECUTION]",
            help="A version's number, or an execution: its ARN or the last part of it.",
            show_default="the newest model that was evaluated",
        ),
    ] = None,
    execution: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default in reports/.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser.")
    ] = TERMINAL,
) -> None:
    """Download the report on a trained model, with the verdict of the quality gate, and open it.

    It is one HTML file that needs nothing else. A model that the gate stopped has one, too.

    **Examples**

    - `mlops report` shows the newest model, whether or not it became a version
    - `mlops report 3` shows version 3
    - `mlops report mohbegmuq4jz` shows the model of this execution
    """
    which = execution or which
    with connected(context) as aws:
        if which is None:
            found = registry.newest_report(aws)
        elif which.isdecimal():
            found = registry.report_of_version(aws, registry.version(aws, int(which)))
        else:
            found = registry.report_of_execution(aws, executions.find(aws, which))
        file = output or aws.settings.root / "reports" / f"{found.name}.html"
        gate.download_report(aws, found, file)
    say(str(file))
    if show:
        import webbrowser

        webbrowser.open(file.resolve().as_uri())
