"""The panel "Registry": list, approve and reject versions, and open their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sm_mlops import display, executions, registry
from sm_mlops.cli.console import TERMINAL, AsJson, connected, out, print_json, say
from sm_mlops.commit import short
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError
from sm_mlops.training import compare, gate

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Registry"
SHOWN = 3  # settings that mlops models names


@app.command(rich_help_panel=PANEL)
def models(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the registered versions: status, commit, metric, and settings that changed."""
    with connected(context) as aws:
        found = list(registry.versions(aws, limit + 1))
        known = [compare.settings(aws, each) for each in found]
        if as_json:
            rows = zip(found[:limit], known, strict=False)
            print_json(
                [
                    vars(each) | {"metrics": registry.statistics(aws, each), "settings": own}
                    for each, own in rows
                ]
            )
            return
        if not found:
            say(f"No version yet: train one with {aws.command} run")
            return
        pairs = zip(known[:limit], [*known[1:], None], strict=False)
        view = display.table("version", "status", "created", "commit", "evaluation", "changed")
        for each, (new, old) in zip(found, pairs, strict=False):
            created = each.created.astimezone().strftime("%Y-%m-%d %H:%M")
            view.add_row(
                *(str(each.version), each.approval, created, short(each.commit)),
                *(each.evaluation, _changed(new, old)),
            )
        out.print(view)


def _changed(after: dict[str, Any] | None, before: dict[str, Any] | None) -> str:
    """Return the settings in which a version differs from the one before, as far as known."""
    if after is None or before is None:
        return ""
    pairs = compare.differences(before, after)
    texts = [f"{name.partition('.')[2] or name} {_text(pair)}" for name, pair in pairs.items()]
    more = f", {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more or "no setting"


def _text(pair: Sequence[Any]) -> str:
    return " → ".join(text if len(text) <= 24 else f"{text[:12]}…" for text in compare.shown(pair))


@app.command("compare", rich_help_panel=PANEL)
def compare_command(
    context: typer.Context,
    first: Annotated[int, typer.Argument(help="A number listed by mlops models.")],
    second: Annotated[int, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions: settings, data, metrics, curves and code.

    **Example**

    - `mlops compare 2 3` shows what version 3 changed
    """
    with connected(context) as aws:
        found = compare.compare(aws, first, second)
    if as_json:
        print_json(found)
        return
    for note in found["notes"]:
        say(f"note: {note}")
    heads = [f"version {number}" for number in (first, second)]
    settings = display.table("setting", *heads)
    for name, pair in found["settings"].items():
        settings.add_row(name, *compare.shown(pair))
    out.print(settings if found["settings"] else "No known setting differs.")
    metrics = display.table("metric", *heads, "change")
    for name, pair in found["metrics"].items():
        apart = "" if None in pair else f"{pair[1] - pair[0]:+.4f}"
        metrics.add_row(name, *("-" if v is None else f"{v:.4f}" for v in pair), apart)
    say("")
    out.print(metrics)
    _say_curves(dict(zip(heads, found["curves"], strict=True)))
    _say_code(found["code"])


def _say_curves(curves: dict[str, Any]) -> None:
    """Show the validation metric of each round, and the best one."""
    view = display.table("learning curve", "rounds", "best", "")
    for head, training in curves.items():
        if values := training.get("curve", {}).get("validation"):
            best = training["best_round"]
            value = f"{training['metric']} {values[best - 1]:.4f} in round {best}"
            view.add_row(head, str(training["rounds"]), value, compare.sparkline(values))
    if view.rows:
        say("")
        out.print(view)


def _say_code(code: dict[str, Any]) -> None:
    before, after = (short(commit) or "unknown" for commit in code["commits"])
    count = code["between"]
    between = "" if count is None else f" ({count} commit{'s' if count != 1 else ''})"
    say(f"\ncode  {before} → {after}{between}")
    for file in code["files"] or ():
        say(f"      {file}")
    if code["files"] == [] and not code["why"]:
        say("      no file that trains the model differs")
    if code["why"]:
        say(f"      {code['why']}")


WhichVersion = Annotated[int, typer.Argument(help="A number listed by mlops models.")]
Comment = Annotated[str, typer.Option(help="The reason, kept with the version; 1,024 characters.")]


@app.command(rich_help_panel=PANEL)
def approve(
    context: typer.Context, version: WhichVersion, comment: Comment = "", as_json: AsJson = False
) -> None:
    """Approve a version: it may be deployed, and becomes the champion for new versions.

    This sets the status in the Model Registry, as Studio does. In a connected repo it starts the
    deployment, but not with --sandbox, where you deploy by hand.

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
