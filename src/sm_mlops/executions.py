"""Executions of the pipeline: find them, follow their steps, explain why one failed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sm_mlops import display
from sm_mlops.aws import ABSENT, Aws, exists, ignoring
from sm_mlops.errors import MlopsError
from sm_mlops.tabular.failure import MEMORY, said

FINAL = ("Succeeded", "Failed", "Stopped")
# In the description of an execution, before the reason for it; the platform's functions read it.
REASON = ". Reason: "
LAST_LINES = 20  # of a log that are shown with a failure
_LOG_GROUPS = {
    "ProcessingJob": "/aws/sagemaker/ProcessingJobs",
    "TrainingJob": "/aws/sagemaker/TrainingJobs",
}


@dataclass(frozen=True)
class Step:
    """One step of an execution; `job` names its processing or training job, `kind` says which.

    `kind` is `Fail` for a step that is there to fail.
    `source`: ARN of the execution whose result it took from the cache, or empty.
    """

    name: str
    status: str
    started: datetime | None = None
    ended: datetime | None = None
    source: str = ""
    attempts: int = 1
    reason: str = ""
    kind: str = ""
    job: str = ""
    model_package: str = ""

    @property
    def cached(self) -> bool:
        return bool(self.source)

    @property
    def seconds(self) -> float | None:
        if self.started is None:
            return None
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()


@dataclass(frozen=True)
class Execution:
    arn: str
    status: str
    reason: str
    steps: tuple[Step, ...]

    @property
    def identifier(self) -> str:
        return self.arn.rsplit("/", 1)[-1]

    @property
    def pipeline(self) -> str:
        return self.arn.rsplit("/", 3)[-3]

    @property
    def model_package(self) -> str:
        """ARN of the version that this execution registered, or empty."""
        return next((step.model_package for step in self.steps if step.model_package), "")

    @property
    def judged(self) -> bool:
        """Whether nothing failed but a step that is there to fail, such as that of the gate."""
        failed = [step for step in self.steps if step.status == "Failed"]
        return bool(failed) and all(step.kind == "Fail" for step in failed)

    @property
    def unchanged(self) -> bool:
        """Whether the model came from the cache; Evaluate also runs for another reason."""
        jobs = [step for step in self.steps if step.job and step.name != "Evaluate"]
        return bool(jobs) and all(step.cached for step in jobs)


def find(aws: Aws, identifier: str | None) -> str:
    """Return the ARN of the newest execution, or of the one with this ARN or last part of it, which
    may also be a check of a stage."""
    if identifier and identifier.startswith("arn:"):
        if not exists(aws.sagemaker.describe_pipeline_execution, PipelineExecutionArn=identifier):
            raise MlopsError(f"no execution {identifier}")
        return identifier
    for pipeline in (aws.settings.pipeline, aws.settings.monitor_pipeline)[
        : 2 if identifier else 1
    ]:
        for item in summaries(aws, pipeline):
            arn = str(item["PipelineExecutionArn"])
            if identifier in (None, arn.rsplit("/", 1)[-1]):
                return arn
    if identifier:
        raise MlopsError(f"no execution {identifier} of pipeline {aws.settings.pipeline}")
    raise MlopsError(
        f"pipeline {aws.settings.pipeline} has no execution yet: start one with {aws.command} run"
    )


def summaries(aws: Aws, pipeline: str = "") -> Iterator[dict[str, Any]]:
    """Yield the items of ListPipelineExecutions, newest first; nothing without a pipeline."""
    with ignoring(*ABSENT):
        yield from aws.pages(
            "list_pipeline_executions",
            "PipelineExecutionSummaries",
            PipelineName=pipeline or aws.settings.pipeline,
            SortBy="CreationTime",
            SortOrder="Descending",
        )


def parameters(aws: Aws, arn: str) -> dict[str, str]:
    """Return the parameters of an execution by name, but for those with their default."""
    operation = "list_pipeline_parameters_for_execution"
    found = aws.pages(operation, "PipelineParameters", PipelineExecutionArn=arn)
    return {item["Name"]: item["Value"] for item in found}


def describe(aws: Aws, arn: str, order: tuple[str, ...] = ()) -> Execution:
    """Return the state of an execution; steps of `order` that have not begun are `Waiting`."""
    execution = aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    steps = {step.name: step for step in _steps(aws, arn)}
    status = execution["PipelineExecutionStatus"]
    waiting = "Waiting" if status not in FINAL else "Not run"
    names = (*order, *(name for name in steps if name not in order))
    return Execution(
        arn=arn,
        status=status,
        reason=execution.get("FailureReason", ""),
        steps=tuple(steps.get(name) or Step(name, waiting) for name in names),
    )


def _steps(aws: Aws, arn: str) -> Iterator[Step]:
    """Yield the steps of an execution that have begun."""
    operation, key = "list_pipeline_execution_steps", "PipelineExecutionSteps"
    for item in aws.pages(operation, key, PipelineExecutionArn=arn, SortOrder="Ascending"):
        step = _step(item)
        if step.source and not step.job:
            found = (other for other in _steps(aws, step.source) if other.name == step.name)
            origin = next(found, step)
            step = replace(step, kind=origin.kind, job=origin.job)
        yield step


def _step(item: dict[str, Any]) -> Step:
    metadata = item.get("Metadata", {})
    kind = next((kind for kind in (*_LOG_GROUPS, "Fail") if kind in metadata), "")
    return Step(
        name=item["StepName"],
        status=item["StepStatus"],
        started=item.get("StartTime"),
        ended=item.get("EndTime"),
        # On a miss it may be there with an empty ARN.
        source=item.get("CacheHitResult", {}).get("SourcePipelineExecutionArn", ""),
        attempts=item.get("AttemptCount", 1),
        reason=item.get("FailureReason", "") or metadata.get("Fail", {}).get("ErrorMessage", ""),
        kind=kind,
        job=metadata[kind]["Arn"].rsplit("/", 1)[-1] if kind in _LOG_GROUPS else "",
        model_package=metadata.get("RegisterModel", {}).get("Arn", ""),
    )


def reason(description: str) -> str:
    """Return why an execution was started, by its description; empty if that was not said."""
    return description.partition(REASON)[2]


def all_steps(definition: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a pipeline definition, each condition followed by those it decides on."""
    waiting = json.loads(definition)["Steps"]
    while waiting:
        step = waiting.pop(0)
        yield step
        given = step.get("Arguments") or {}
        waiting[:0] = [*given.get("IfSteps", ()), *given.get("ElseSteps", ())]


def follow(aws: Aws, arn: str, console: Console, *, until: float | None = None) -> Execution:
    """Show the execution until it ends: live on a terminal, else one line per change.

    `until` is a reading of `time.monotonic` at which to stop following.
    """
    answer = aws.sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
    order = tuple(step["Name"] for step in all_steps(answer["PipelineDefinition"]))
    began = time.monotonic()
    printed: dict[str, str] = {}
    on_terminal = Live(console=console, refresh_per_second=8) if console.is_terminal else None
    with on_terminal or nullcontext() as live:
        while True:
            execution = describe(aws, arn, order)
            if live is not None:
                live.update(table(execution))
            else:
                for step in execution.steps:
                    if step.status not in ("Waiting", "Not run", printed.get(step.name)):
                        printed[step.name] = step.status
                        display.tell(console, f"{step.name:<12} {step.status}{_suffix(step)}")
            now = time.monotonic()
            if execution.status in FINAL or (until is not None and now >= until):
                return execution
            pause = display.pause(began, longest=10.0)
            time.sleep(pause if until is None else max(0.0, min(pause, until - now)))


def table(execution: Execution) -> Table:
    view = display.table("step", "state", "time", "")
    for step in execution.steps:
        seconds = step.seconds
        view.add_row(
            step.name,
            display.colored(step.status),
            "" if seconds is None else duration(seconds),
            _suffix(step, timed=False),
        )
    return view


def _suffix(step: Step, *, timed: bool = True) -> str:
    parts = []
    if timed and step.ended and step.seconds is not None:
        parts.append(duration(step.seconds))
    if step.cached:
        parts.append("cache hit")
    if step.attempts > 1:
        parts.append(f"attempt {step.attempts}")
    return f"  {', '.join(parts)}" if parts else ""


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def failure(aws: Aws, execution: Execution) -> list[str]:
    """Return why an execution failed, in lines: the step, its message, the end of its log, the
    command that shows all of it."""
    lines = []
    for step in execution.steps:
        if step.status == "Failed" and step.name != "QualityGate":
            log = log_lines(aws, step) if step.job else []
            said_by_job = _message(aws, step, log)
            message = re.sub(
                r"(?<![\w./-])mlops (?=(run|reject)\b)", f"{aws.command} ", said_by_job
            )
            lines.append(f"{step.name}: {message}")
            if any(line.startswith("Traceback ") for line in log) or not said(log):
                lines += [f"| {line}" for line in log[-LAST_LINES:]]
            if step.job:
                command = f"{aws.command} logs {step.name} --execution {execution.identifier}"
                lines.append(f"log: {command} (in {_LOG_GROUPS[step.kind]})")
    return lines or [execution.reason or f"the execution is {execution.status}"]


def _message(aws: Aws, step: Step, log: list[str]) -> str:
    """Return the failed job's own message.

    A processing job has it as ExitMessage. In training, the XGBoost container's toolkit overwrites
    the script's `output/failure` with the command it ran: the script's message is in the log only.
    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/byoc-metadata.html, and `_trainer.py` of
    sagemaker-containers.
    """
    reason = step.reason
    if step.kind == "ProcessingJob":
        job = _described(aws, step)
        if job.get("ExitMessage"):
            return str(job["ExitMessage"]).strip()
        reason = str(job.get("FailureReason") or reason).strip()
    if re.search(r"exit code:? 137|ExitCode 137|SIGKILL|OutOfMemory|more memory", reason, re.I):
        return f"the job was killed, probably for lack of memory: {MEMORY} ({reason})"
    return (said(log) if "AlgorithmError" in reason else "") or reason


def logs(aws: Aws, execution: Execution, name: str | None) -> tuple[list[str], str, str]:
    """Return the log of a step's job, the ARN of the execution whose job it is if the step was a
    cache hit, and why the step failed; by default of the step that failed, or of the last one.

    The log itself may end with the toolkit's own error, after the reason.
    """
    jobs = {step.name: step for step in execution.steps if step.job}
    if name is None and jobs:
        failed = [step.name for step in jobs.values() if step.status == "Failed"]
        name = (failed or list(jobs))[-1]
    if name not in jobs:
        known = ", ".join(jobs) or "none; no job has started"
        raise MlopsError(
            f"execution {execution.identifier} has no log of {name}; steps with a log: {known}"
        )
    lines = log_lines(aws, jobs[name])
    if not lines:
        raise MlopsError(f"no log of {jobs[name].job} in {_LOG_GROUPS[jobs[name].kind]} yet")
    step = jobs[name]
    why = f"{name} failed: {_message(aws, step, lines)}" if step.status == "Failed" else ""
    return lines, step.source, why


def log_lines(aws: Aws, step: Step) -> list[str]:
    """Return the log of the step's job so far.

    The ARN of a job has lower case only; its log stream begins with the name that Describe gives.
    """
    name = _described(aws, step)[f"{step.kind}Name"]
    return aws.log_lines(_LOG_GROUPS[step.kind], logStreamNamePrefix=f"{name}/")


def _described(aws: Aws, step: Step) -> dict[str, Any]:
    """Return what Describe answers for the step's job."""
    if step.kind == "ProcessingJob":
        return dict(aws.sagemaker.describe_processing_job(ProcessingJobName=step.job))
    return dict(aws.sagemaker.describe_training_job(TrainingJobName=step.job))
