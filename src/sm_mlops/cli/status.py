"""The panel "Deploy": what runs where, and deleting it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

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
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from rich.console import Console

    from sm_mlops.aws import Aws
    from sm_mlops.deployment.destroy import Deletion, Kept
    from sm_mlops.deployment.status import Status

app = typer.Typer(rich_markup_mode="markdown")


@app.command(rich_help_panel=PANEL)
def status(
    context: typer.Context,
    stage: WhichStage = "",
    as_json: AsJson = False,
) -> None:
    """Show what runs where, what waits for approval, and the last training.

    **Examples**

    - `mlops status`
    - `mlops status --json | jq '.stages[] | {stage, version, state}'`
    """
    from sm_mlops.deployment.status import status as look

    with connected(context) as aws:
        found = look(aws, stage or None)
    if as_json:
        print_json(found)
        return
    _tell_status(aws, found)


def _tell_status(aws: Aws, found: Status) -> None:
    from sm_mlops.commit import short
    from sm_mlops.deployment.status import LISTED, table

    out.print(table(found.stages))
    say("")
    for number, version in enumerate(found.pending[:LISTED]):
        head = "to approve  " if number == 0 else "            "
        commit = short(version.commit)
        say(f"{head}version {version.version}  {version.evaluation}  commit {commit}")
    if len(found.pending) > LISTED:
        say(f"            and {len(found.pending) - LISTED} more: {aws.command} models")
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
    - `mlops destroy --all --registry --data` the end of the project
    """
    from sm_mlops.deployment import destroy as work

    if bool(stage) == everything:
        raise MlopsError("name a stage, or pass --all")
    if (registry or data) and not everything:
        raise MlopsError("--registry and --data need --all: they belong to all stages")
    if data and not registry:
        raise MlopsError("--data needs --registry: versions are useless without their artifacts")
    console = progress(as_json)
    with connected(context) as aws:
        deletions = [work.look(aws, each) for each in work.chosen(aws, stage or None)]
        executing = work.executing(aws) if everything else []
        kept = work.kept(aws)
        _tell_plan(console, deletions, executing, kept, registry, data)
        present = [item for item in deletions if not item.empty]
        if present or executing or registry:
            confirm("Delete this permanently?", yes)
        for arn in executing:
            aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
        left = _delete(aws, console, deletions, registry, data)
    if as_json:
        versions, objects = 0 if registry else kept.versions, 0 if data else kept.objects
        removed = [item.stage.name for item in present]
        rest = {"versions": versions, "objects": objects}
        print_json({"removed": removed, "left": left, "kept": rest})
    if left:
        raise fail(f"not deleted: {'; '.join(left)}")
    kinds = "no endpoint, configuration, model, scalable target, alarm or role"
    tell(console, f"Nothing billable remains: {kinds}.", "green")


def _delete(
    aws: Aws, console: Console, deletions: list[Deletion], registry: bool, data: bool
) -> list[str]:
    """Delete the stages, the registry and the data; return what remains."""
    from sm_mlops.deployment import destroy as work

    left: list[str] = []
    # Also those without a stack: what was created beside it is billed, too.
    for item in deletions:
        with interruptible(aws, item.stage.stack, cancellable=False):
            left += [f"{item.stage.name}: {name}" for name in work.destroy(item, console)]
    if registry:
        left += work.delete_registry(aws)
    if data:
        left += work.delete_data(aws, deletions)
    return left


def _tell_plan(
    console: Console,
    deletions: list[Deletion],
    executing: list[str],
    kept: Kept,
    registry: bool,
    data: bool,
) -> None:
    from sm_mlops.deployment.destroy import table

    present = [item for item in deletions if not item.empty]
    if present:
        console.print(table(present))
    for item in present:
        if item.stage.idle_cost is not None:
            saved = f"{item.stage.idle_cost:.0f} USD a month when idle"
            tell(console, f"saves       {item.stage.name}: {saved}")
    for arn in executing:
        tell(console, f"stops       execution {arn.rpartition('/')[2]}")
    plural = "" if kept.versions == 1 else "s"
    versions = f"pipeline and {kept.versions} version{plural} in the registry"
    objects = f"{kept.objects} objects, {kept.size / 1e6:.1f} MB, at {kept.bucket}"
    tell(console, f"{'deletes ' if registry else 'keeps   '}    {versions}")
    tell(console, f"{'deletes ' if data else 'keeps   '}    {objects}")
    if not (present or executing or registry):
        names = ", ".join(item.stage.name for item in deletions)
        tell(console, f"Nothing to delete, not deployed: {names}")
