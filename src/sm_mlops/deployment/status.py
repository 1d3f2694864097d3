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
from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.commit import short
from sm_mlops.deployment import access, endpoints, stages, watch
from sm_mlops.deployment.prices import Prices
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError, explained, one_line
from sm_mlops.registry import Version

LISTED = 5
ABSENT = "not deployed"


@dataclass(frozen=True)
class Running:
    """A stage. `state` is that of its endpoint or batch only; `idle_cost` is in US dollars a month,
    and `prices` says by which."""

    stage: str
    account: str
    state: str
    kind: str = ""
    version: int | None = None
    since: datetime | None = None
    commit: str = ""
    idle_cost: float | None = None
    prices: str = ""
    note: str = ""
    health: str = ""
    """Of a stage that is checked, see `mlops monitor`."""


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
    prices = Prices(aws)
    running = [_running(prices, name, known, strict=bool(only)) for name in names]
    if not only:
        running += [_without_file(aws, stage, known) for stage in endpoints.forgotten(aws)]
    return Status(
        stages=tuple(running),
        pending=tuple(item for item in known if item.approval == "PendingManualApproval"),
        execution=_last_execution(aws),
    )


def _running(prices: Prices, name: str, known: list[Version], *, strict: bool) -> Running:
    from botocore.exceptions import BotoCoreError, ClientError

    aws, account = prices.aws, "?"
    try:
        stage = stages.load(aws.settings, name)
        account = stage.account or aws.account
        found = _look(access.enter(aws, stage), stage, account, known)
        cost = prices.idle(stage) if found.state != ABSENT else None
        return replace(found, idle_cost=cost.dollars, prices=cost.prices) if cost else found
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
    endpoint = endpoints.running(there, stage.stack)
    stack = stacks.describe(there, stage.stack)
    notes = []
    if stack and stack.status == "UPDATE_ROLLBACK_COMPLETE":
        notes.append("the last deployment failed")
    elif stack and stack.status not in stacks.DONE:
        notes.append(f"stack {stack.status}")
    second = None
    # An older project's role may not ask.
    with ignoring(*DENIED):
        second = stacks.describe(there, watch.stack_name(stage))
    if second and second.status not in stacks.DONE:
        notes.append(f"stack {second.name} {second.status}")
    if endpoint is None:
        state = ABSENT
        if stack and stack.status in stacks.READY:
            state = "endpoint gone"
            notes.append(f"its stack is there: {there.command} destroy {stage.name}, then deploy")
        return Running(stage.name, account, state, stage.kind, note=", ".join(notes))
    runs = next((item for item in known if item.version == endpoint.version), None)
    if endpoint.kind == "batch":
        notes.append("no endpoint")
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
        "why": executions.reason(found.get("PipelineExecutionDescription", "")),
    }


def idle(running: Iterable[Running]) -> list[str]:
    """Return what stages cost a month when idle, in words: a line for each source of prices, which
    names its stages if there are several."""
    found: dict[str, list[Running]] = {}
    for row in running:
        if row.idle_cost and row.prices:
            found.setdefault(row.prices, []).append(row)
    lines = []
    for prices, rows in found.items():
        names = f"{', '.join(row.stage for row in rows)}: " if len(found) > 1 else ""
        dollars = sum(row.idle_cost or 0.0 for row in rows)
        lines.append(f"{names}{dollars:.0f} USD a month, {prices}")
    return lines


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
    checked = any(row.health for row in rows)
    for heading in (*(["health"] if checked else []), ""):
        view.add_column(heading, overflow="fold")
    for row in rows:
        since = row.since.astimezone().strftime("%Y-%m-%d %H:%M") if row.since else ""
        health = display.colored(row.health, "green" if row.health.startswith("ok") else "yellow")
        cells: list[Any] = [
            str(row.version) if row.version is not None else "-",
            display.colored(row.state),
            row.kind,
            since,
            short(row.commit),
            "" if row.idle_cost is None else f"{row.idle_cost:.0f}",
            *([health] if checked else []),
            row.note,
        ]
        view.add_row(row.stage, *([row.account] if accounts else []), *cells)
    return view
