"""What the checks of a stage have found: read from S3, as a table and as one word of health; and
which check failed, which leaves nothing in S3.

Source: `tabular/monitor.py` writes `<project>/monitor/<stage>/<end of the window>/result.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from rich.table import Table

from sm_mlops import display, executions, objects
from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.deployment.status import Status
from sm_mlops.errors import MlopsError, one_line
from sm_mlops.executions import Execution

SHOWN = 10
RECENT = 30  # executions among which the newest check of each stage is looked for
LONGEST = 300  # characters of why a check failed
NEVER = "never checked"
_SAID = {
    "missing": "missing {}",
    "new": "new values of {}",
    "outside": "{} outside its range",
    "prediction": "drift of {}",
    "type": "{} of another kind",
}
_COLORS = {"ok": "green", "violation": "red"}


@dataclass(frozen=True)
class Result:
    """A check of one window. `worst` is the greatest figure relative to its limit, in words;
    `content` is all of `result.json`."""

    stage: str
    start: datetime
    end: datetime
    status: str
    rows: int
    worst: str = ""
    message: str = ""
    violations: tuple[dict[str, Any], ...] = ()
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of its folder: the end of the window."""
        return window_name(self.end)


def window_name(end: datetime) -> str:
    """Return the name of the window that ends at the full hour before or at `end`."""
    return end.astimezone(UTC).strftime("%Y-%m-%dT%HZ")


def last(aws: Aws, stage: Stage, most: int = SHOWN) -> list[Result]:
    """Return the results of the last windows of a stage, newest first."""
    bucket, prefix = stage.bucket(aws.bucket), _prefix(aws, stage)
    given = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
    with ignoring("NoSuchBucket"):
        found = aws.pages("list_objects_v2", "CommonPrefixes", "s3", **given)
        folders = (item["Prefix"].removeprefix(prefix).rstrip("/") for item in found)
        names = sorted(folders, reverse=True)
        results = (of_window(aws, stage, name) for name in names[:most])
        return [result for result in results if result is not None]
    return []


def of_window(aws: Aws, stage: Stage, name: str) -> Result | None:
    """Return the result of a window, None if it has none."""
    uri = _uri(aws, stage, name, "result.json")
    content = objects.find(aws, uri)
    if content is None:
        return None
    try:
        return parsed(stage.name, json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise MlopsError(
            f"{uri} is not the result of a check ({error}); delete it, and "
            f"{aws.command} monitor {stage.name} --run"
        ) from error


def report_uri(aws: Aws, result: Result, stage: Stage) -> str:
    return _uri(aws, stage, result.name, "report.html")


def _uri(aws: Aws, stage: Stage, window: str, file: str) -> str:
    return f"s3://{stage.bucket(aws.bucket)}/{_prefix(aws, stage)}{window}/{file}"


def _prefix(aws: Aws, stage: Stage) -> str:
    return f"{aws.settings.prefix}/monitor/{stage.name}/"


def parsed(stage: str, content: dict[str, Any]) -> Result:
    """Return a result of what `result.json` holds."""
    start, end = (datetime.fromisoformat(content["window"][key]) for key in ("start", "end"))
    violations = tuple(content["violations"])
    worst = content.get("worst") or next(iter(violations), None)
    return Result(
        stage=stage,
        start=start,
        end=end,
        status=content["status"],
        rows=content["rows"],
        worst=_words(worst) if worst else "",
        message=content["message"],
        violations=violations,
        content=content,
    )


def _words(found: dict[str, Any]) -> str:
    return f"{_what(found)} {found['value']:.3g} (limit {found['limit']:.3g})"


def _what(found: dict[str, Any]) -> str:
    """Return what a figure is of, such as `drift of amount`, or `quality`."""
    kind, column = str(found["kind"]), found.get("column")
    return _SAID.get(kind, f"{kind} of {{}}").format(column) if column else kind


def health(results: Sequence[Result], now: datetime) -> str:
    """Return the health of a stage by its results, newest first: `ok since 2026-11-28`, or
    `last checked 2026-11-20` if that is longer ago than two periods."""
    if not results:
        return NEVER
    newest = results[0]
    period = max(newest.end - each for each in (newest.start, *(r.end for r in results[1:2])))
    said, checked = _health(results), f"last checked {newest.end.astimezone(UTC):%Y-%m-%d}"
    if now - newest.end <= 2 * period:
        return said
    return checked if newest.status == "ok" else f"{said}, {checked}"


def _health(results: Sequence[Result]) -> str:
    newest = results[0]
    if newest.violations:
        worst = max(newest.violations, key=lambda found: found["value"] / (found["limit"] or 1e-9))
        more = len(newest.violations) - 1
        return _what(worst) + (f" and {more} more" if more else "")
    if newest.status != "ok":
        return newest.status
    since = newest.start
    for result in results:
        if result.status != "ok":
            break
        since = result.start
    return f"ok since {since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Failure:
    """The newest check of a stage, which failed: nothing is known about its window."""

    started: datetime
    why: str
    """The reason, and the command that shows more."""

    def __str__(self) -> str:
        return f"newest check failed {self.started.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def failures(aws: Aws, names: Iterable[str]) -> dict[str, Failure]:
    """Return the stages whose newest check failed, other than by a violation; none to who may not
    ask. One that runs or was stopped says nothing."""
    found, wanted = dict[str, Failure](), set(names)
    with ignoring(*DENIED):
        checks = executions.summaries(aws, aws.settings.monitor_pipeline)
        for item in islice(checks, RECENT):
            arn, status = item["PipelineExecutionArn"], item["PipelineExecutionStatus"]
            if not wanted:
                break
            if status not in ("Succeeded", "Failed"):
                continue
            name = executions.parameters(aws, arn).get("Stage", "")
            if name not in wanted:
                continue
            wanted.remove(name)
            execution = executions.describe(aws, arn) if status == "Failed" else None
            if execution and not execution.judged:
                found[name] = Failure(item["StartTime"], _why(aws, execution))
    return found


def _why(aws: Aws, execution: Execution) -> str:
    said = execution.reason
    with ignoring(*DENIED):
        said = executions.failure(aws, execution)[0]
    said = one_line(said)
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
    has_log = any(step.job for step in execution.steps if step.status == "Failed")
    command = f"{aws.command} logs --execution {execution.identifier}"
    return f"{said}; {command}" if has_log else said


def with_health(aws: Aws, found: Status) -> Status:
    """Return the state of stages with the health of those that are checked; `unknown` where it
    cannot be read."""
    monitored = {row.stage for row in found.stages} & set(aws.settings.monitoring.stages)
    failed = failures(aws, monitored)
    rows = []
    for row in found.stages:
        if row.stage in monitored:
            said = "unknown"
            if row.stage in failed:
                said = f"check failed: {aws.command} monitor {row.stage}"
            else:
                with ignoring(*DENIED), suppress(MlopsError):
                    said = health(last(aws, stages.load(aws.settings, row.stage)), aws.now())
            row = replace(row, health=said)
        rows.append(row)
    return replace(found, stages=tuple(rows))


def table(results: Iterable[Result]) -> Table:
    view = display.table("window (UTC)", "status", "rows", "worst")
    view.columns[2].justify = "right"
    for result in results:
        start, end = (moment.astimezone(UTC) for moment in (result.start, result.end))
        view.add_row(
            f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}",
            display.colored(result.status, _COLORS.get(result.status, "yellow")),
            f"{result.rows:,}",
            result.worst,
        )
    return view
