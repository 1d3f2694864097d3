"""The version of each stage, the versions that wait for approval, and the last execution.

Only reads. For a stage that cannot be read the row says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rich.table import Table

from sm_mlops import display, executions, registry, stacks
from sm_mlops.aws import Aws
from sm_mlops.commit import short
from sm_mlops.deployment import access, endpoints, stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError, explained, one_line
from sm_mlops.registry import Version

LISTED = 5


@dataclass(frozen=True)
class Running:
    """A stage. `state` is that of its endpoint, `idle_cost` is in US dollars a month, by
    prices of the region `priced_in` if that is not the project's."""

    stage: str
    account: str
    state: str
    kind: str = ""
    version: int | None = None
    since: datetime | None = None
    commit: str = ""
    idle_cost: float | None = None
    priced_in: str = ""
    note: str = ""


@dataclass(frozen=True)
class Status:
    """`pending` has the versions that wait for approval, newest first."""

    stages: tuple[Running, ...]
    pending: tuple[Version, ...]
    execution: dict[str, Any] | None


def status(aws: Aws, only: str | None = None) -> Status:
    """Return the state of one stage, or of all, among them those without a file."""
    known = list(registry.versions(aws))
    names = (only,) if only else stages.names(aws.settings)
    running = [_running(aws, name, known, strict=bool(only)) for name in names]
    if not only:
        running += [_without_file(aws, stage, known) for stage in endpoints.forgotten(aws)]
    return Status(
        stages=tuple(running),
        pending=tuple(item for item in known if item.approval == "PendingManualApproval"),
        execution=_last_execution(aws),
    )


def _running(aws: Aws, name: str, known: list[Version], *, strict: bool) -> Running:
    from botocore.exceptions import BotoCoreError, ClientError

    account = "?"
    try:
        stage = stages.load(aws.settings, name)
        account = stage.account or aws.account
        return _look(access.enter(aws, stage), stage, account, known)
    except MlopsError as error:
        if strict:
            raise
        return Running(name, account, "unknown", note=str(error))
    except (BotoCoreError, ClientError) as error:
        line = explained(error, aws.settings.project.region)
        if strict or line is None or account == aws.account:
            raise
        return Running(name, account, "unknown", note=f"account {account}: {line}")


def _without_file(aws: Aws, stage: Stage, known: list[Version]) -> Running:
    found = _look(aws, stage, aws.account, known)
    note = f"has no {stages.FOLDER}/{stage.name}.json: {aws.command} destroy {stage.name}"
    return replace(found, note=f"{note}, {found.note}" if found.note else note)


def _look(there: Aws, stage: Stage, account: str, known: list[Version]) -> Running:
    endpoint = endpoints.describe(there, stage.stack)
    stack = stacks.describe(there, stage.stack)
    notes = []
    if stack and stack.status == "UPDATE_ROLLBACK_COMPLETE":
        notes.append("the last deployment failed")
    elif stack and stack.status not in stacks.DONE:
        notes.append(f"stack {stack.status}")
    if endpoint is None:
        state = "not deployed"
        if stack and stack.status in stacks.READY:
            state = "endpoint gone"
            notes.append(f"its stack is there: {there.command} destroy {stage.name}, then deploy")
        return Running(stage.name, account, state, stage.kind, note=", ".join(notes))
    runs = next((item for item in known if item.version == endpoint.version), None)
    if endpoint.version is None:
        notes.append(f"runs model {endpoint.model}, no version of the registry")
    elif runs is None:
        notes.append("its version is no longer in the registry")
    elif runs.approval != "Approved":
        notes.append(f"is now {runs.approval}")
    else:
        newest = max(item.version for item in known if item.approval == "Approved")
        is_newest = newest == runs.version
        notes.append("newest approved" if is_newest else f"version {newest} is approved")
    if stack is None:
        notes.append("has no stack")
    # An endpoint in service may still have the reason of an update that was rolled back.
    if endpoint.reason and endpoint.status != "InService":
        notes.append(endpoint.reason)
    return Running(
        stage=stage.name,
        account=account,
        state=endpoint.status,
        kind=endpoint.kind,
        version=endpoint.version,
        since=endpoint.since,
        commit=runs.commit if runs else "",
        idle_cost=stage.idle_cost,
        priced_in=stage.priced_in,
        note=", ".join(notes),
    )


def _last_execution(aws: Aws) -> dict[str, Any] | None:
    newest = next(executions.summaries(aws), None)
    if newest is None:
        return None
    arn = newest["PipelineExecutionArn"]
    found = aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    return {
        "arn": arn,
        "status": found["PipelineExecutionStatus"],
        "started": found["CreationTime"].isoformat(),
        "reason": one_line(found.get("FailureReason", "")),
    }


def _cost(row: Running) -> str:
    if row.idle_cost is None:
        return ""
    return f"{row.idle_cost:.0f}" + (f" ({row.priced_in})" if row.priced_in else "")


def table(running: Iterable[Running]) -> Table:
    rows = list(running)
    accounts = len({row.account for row in rows}) > 1
    view = display.table()
    # On a narrow terminal the columns without no_wrap are folded.
    for heading in ("stage", *(["account"] if accounts else []), "version", "state"):
        view.add_column(heading, no_wrap=True)
    for heading in ("kind", "since", "commit"):
        view.add_column(heading, overflow="fold")
    view.add_column("idle $/month", justify="right")
    view.add_column("", overflow="fold")
    for row in rows:
        since = row.since.astimezone().strftime("%Y-%m-%d %H:%M") if row.since else ""
        cells: list[Any] = [
            str(row.version) if row.version is not None else "-",
            display.colored(row.state),
            row.kind,
            since,
            short(row.commit),
            _cost(row),
            row.note,
        ]
        view.add_row(row.stage, *([row.account] if accounts else []), *cells)
    return view
