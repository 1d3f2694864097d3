"""The panel "Deploy": show the version of each stage, and delete stages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from sm_mlops.aws import Aws
from sm_mlops.cli.console import (
    AsJson,
    Yes,
    confirm,
    connected,
    fail,
    out,
    print_json,
    progress,
    say,
)
from sm_mlops.cli.deploy import PANEL, WhichStage, interruptible
from sm_mlops.commit import short
from sm_mlops.deployment import destroy as work
from sm_mlops.deployment import status as states
from sm_mlops.deployment import watch
from sm_mlops.deployment.destroy import Deletion, Kept
from sm_mlops.deployment.prices import Prices
from sm_mlops.deployment.status import Status
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.monitoring import results

app = typer.Typer(rich_markup_mode="markdown")


@app.command(rich_help_panel=PANEL)
def status(context: typer.Context, stage: WhichStage = "", as_json: AsJson = False) -> None:
    """Show what runs where, what waits for approval, and the last training.

    **Examples**

    - `mlops status`
    - `mlops status --json | jq '.stages[] | {stage, version, state}'`
    """
    with connected(context) as aws:
        found = results.with_health(aws, states.status(aws, stage or None))
    if as_json:
        print_json(found)
        return
    _tell_status(aws, found)


def _tell_status(aws: Aws, found: Status) -> None:
    out.print(states.table(found.stages))
    for line in states.idle(found.stages):
        say(f"idle        {line}")
    say("")
    for number, version in enumerate(found.pending[: states.LISTED]):
        head = "to approve  " if number == 0 else "            "
        commit = short(version.commit)
        say(f"{head}version {version.version}  {version.evaluation}  commit {commit}")
    if len(found.pending) > states.LISTED:
        say(f"            and {len(found.pending) - states.LISTED} more: {aws.command} models")
    if not found.pending:
        say("to approve  nothing")
    last = found.execution
    if last is None:
        say(f"trained     never: {aws.command} run")
        return
    reason = f"  {last['reason']}" if last["reason"] else ""
    identifier = last["arn"].rpartition("/")[2]
    started = datetime.fromisoformat(last["started"]).astimezone().strftime("%Y-%m-%d %H:%M")
    say(f"trained     {started}  {identifier}  {last['status']}{reason}")
    if last["why"]:
        say(f"because     {last['why']}")


@app.command(rich_help_panel=PANEL)
def destroy(
    context: typer.Context,
    stage: WhichStage = "",
    everything: Annotated[
        bool, typer.Option("--all", help="All stages, and running executions.")
    ] = False,
    registry: Annotated[
        bool, typer.Option("--registry", help="With --all: also the pipeline and all versions.")
    ] = False,
    data: Annotated[
        bool,
        typer.Option(
            "--data", help="With --registry: also objects in the bucket, endpoints' logs."
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a stage and verify that nothing billable remains.

    Shows what is deleted and what is kept, and asks. By default the registry and the data are
    kept: the stage can be deployed again at any time.

    **Examples**

    - `mlops destroy staging`
    - `mlops destroy --all --yes`
    - `mlops destroy --all --registry --data` at the end of the project
    """
    _require_consistent(stage, everything, registry, data)
    console = progress(as_json)
    # A wrong schedule or a stage without a file must not keep what costs money.
    with connected(context, without=("monitoring", "retraining")) as aws:
        deletions = [work.look(aws, each) for each in work.chosen(aws, stage or None)]
        executing = work.executing(aws) if everything else []
        kept = work.kept(aws)
        present = [item for item in deletions if not item.empty]
        _tell_plan(console, Prices(aws), present, executing, kept, registry, data)
        if present or executing or registry:
            confirm("Delete this permanently?", yes)
        else:
            names = ", ".join(item.stage.name for item in deletions)
            tell(console, f"Nothing to delete, not deployed: {names}")
        work.stop(aws, executing, console, wait=registry)
        left = _delete(aws, console, deletions, registry, data)
    if as_json:
        rest = {
            "versions": 0 if registry else kept.versions,
            "objects": 0 if data else kept.objects,
        }
        removed = [item.stage.name for item in present]
        print_json({"removed": removed, "left": left, "kept": rest})
    if left:
        raise fail(f"not deleted: {'; '.join(left)}")
    kinds = "no endpoint, configuration, model, scalable target, alarm, schedule or role"
    tell(console, f"Nothing billable remains: {kinds}.", "green")


def _require_consistent(stage: str, everything: bool, registry: bool, data: bool) -> None:
    """Raise MlopsError if these options do not belong together."""
    if bool(stage) == everything:
        raise MlopsError("name a stage, or pass --all")
    if (registry or data) and not everything:
        raise MlopsError("--registry and --data need --all: they belong to all stages")
    if data and not registry:
        raise MlopsError("--data needs --registry: versions are useless without their artifacts")


def _delete(
    aws: Aws, console: Console, deletions: list[Deletion], registry: bool, data: bool
) -> list[str]:
    """Delete the stages, the registry and the data; return what remains."""
    left: list[str] = []
    # Also a stage without a stack: other resources with its name are billed, too.
    for item in deletions:
        names = (item.stage.stack, watch.stack_name(item.stage))
        with interruptible(item.account, *names, cancellable=False):
            left += [f"{item.stage.name}: {name}" for name in work.destroy(item, console)]
    if registry:
        left += work.delete_registry(aws)
    if data:
        left += work.delete_data(aws, deletions)
    return left


def _tell_plan(
    console: Console,
    prices: Prices,
    present: list[Deletion],
    executing: list[str],
    kept: Kept,
    registry: bool,
    data: bool,
) -> None:
    if present:
        console.print(work.table(present))
    lines = [("stops", f"execution {arn.rpartition('/')[2]}") for arn in executing]
    for item in present:
        # A stage without a file has no tags, and no one knows its instances.
        cost = prices.idle(item.stage) if item.stage.tags else None
        if cost:
            text = f"{item.stage.name}: {cost.dollars:.0f} USD a month when idle, {cost.prices}"
            lines.append(("saves", text.removesuffix(", ")))
    plural = "" if kept.versions == 1 else "s"
    versions = f"pipeline and {kept.versions} version{plural} in the registry"
    objects = f"{kept.objects} objects, {kept.size / 1e6:.1f} MB, at {kept.bucket}"
    lines.append(("deletes" if registry else "keeps", versions))
    lines.append(("deletes" if data else "keeps", objects))
    for action, what in lines:
        tell(console, f"{action:<12}{what}")
