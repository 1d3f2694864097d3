"""Runs one pipeline execution: starts steps when they are ready, waits for them, records the
results.

Sends its requests to SageMaker's API like any client, so that botocore checks them.
"""

from __future__ import annotations

import json
import logging
import secrets
import string
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sm_mlops.sandbox import caching, expressions
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.definition import JOB_OPERATIONS, Definition, RetryPolicy, Step, bind, parse
from sm_mlops.sandbox.expressions import ExpressionError, Scope
from sm_mlops.sandbox.job_folder import split_uri
from sm_mlops.sandbox.jobs import KILLED, PROCESSING, TRAINING, Jobs
from sm_mlops.sandbox.objects import NoSuchObject
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.transforms import TRANSFORM, Transforms
from sm_mlops.sandbox.wire import as_text, input_shape, moment, public, snake_case

EXECUTION = "PipelineExecution"
FAILED_REASON = "Step failure: One or multiple steps failed."
LONGEST_REASON = 1024
MOST_PARALLEL = 50
log = logging.getLogger(__name__)

# The service itself retries these; a policy in the step overrides it.
OWN_RETRY = RetryPolicy(("Step.SERVICE_FAULT", "Step.THROTTLING"))


class StepFailed(Exception):
    """A step that failed: FailureReason, and the exception type for retry policies."""

    def __init__(self, reason: str, kind: str = "") -> None:
        super().__init__(reason)
        self.reason, self.kind = reason, kind


class StepStopped(Exception):
    """A step that ended because the execution is being stopped."""


class Execution:
    """One running execution. `run` blocks until it has ended; `stop` may be called from any
    thread."""

    def __init__(
        self,
        record: Record,
        store: Store,
        jobs: Jobs,
        transforms: Transforms,
        objects: RoleObjects,
        client: Callable[[], Any],
        on_status: Callable[[str], None] = lambda previous: None,
    ) -> None:
        self.record, self.store, self.objects = record, store, objects
        self.jobs, self.transforms = jobs, transforms
        self._client, self._on_status = client, on_status
        self.definition: Definition = parse(record["_definition"])
        self.parameters = bind(self.definition, record["_parameters"])
        self.stopping = threading.Event()
        self.ended = threading.Event()
        self._changed = threading.Condition()
        self._running: set[str] = set()

    @property
    def arn(self) -> str:
        return str(self.record["PipelineExecutionArn"])

    # The loop.

    def run(self) -> None:
        with self._changed:
            while True:
                if not self.stopping.is_set() and not self._has_failed():
                    for step in self._ready()[: MOST_PARALLEL - len(self._running)]:
                        self._start(step)
                if not self._running:
                    break
                self._changed.wait()
        self._conclude()
        self.ended.set()

    def _start(self, step: Step) -> None:
        self._running.add(step.name)
        row: Record = {
            "StepName": step.name,
            "StartTime": time.time(),
            "StepStatus": "Executing",
            "AttemptCount": 1,
        }
        self.record["_steps"][step.name] = row
        self._save()
        threading.Thread(
            target=self._perform, args=(step, row), name=f"step {step.name}", daemon=True
        ).start()

    def _perform(self, step: Step, row: Record) -> None:
        status, reason = "Failed", "InternalServerError: the sandbox failed; see its log"
        try:
            self._work(step, row)
            status, reason = "Succeeded", ""
        except StepFailed as error:
            reason = error.reason
        except StepStopped:
            status, reason = "Stopped", ""
        except (ExpressionError, NoSuchObject) as error:
            reason = f"ClientError: {error}"
        finally:
            with self._changed:
                row.update(StepStatus=status, EndTime=time.time())
                if reason:
                    row["FailureReason"] = reason[:LONGEST_REASON]
                self._running.discard(step.name)
                self._save()
                self._changed.notify_all()

    def _ready(self) -> list[Step]:
        return [step for step in self.definition.steps.values() if self._is_ready(step)]

    def _is_ready(self, step: Step) -> bool:
        rows = self.record["_steps"]
        if step.name in rows:
            return False
        if any(rows.get(name, {}).get("StepStatus") != "Succeeded" for name in step.dependencies):
            return False
        if step.branch is None:
            return True
        condition, wanted = step.branch
        return bool(self._outcome(condition) == wanted)

    def _outcome(self, condition: str) -> bool | None:
        row = self.record["_steps"].get(condition, {})
        outcome = row.get("Metadata", {}).get("Condition", {}).get("Outcome")
        return None if outcome is None else outcome == "True"

    def _has_failed(self) -> bool:
        return any(row["StepStatus"] == "Failed" for row in self.record["_steps"].values())

    def _conclude(self) -> None:
        with self.store.lock:
            previous = self.record["PipelineExecutionStatus"]
            if self.stopping.is_set():
                self.record["PipelineExecutionStatus"] = "Stopped"
            elif self._has_failed():
                self.record["PipelineExecutionStatus"] = "Failed"
                self.record["FailureReason"] = FAILED_REASON
            else:
                self.record["PipelineExecutionStatus"] = "Succeeded"
            self._save()
        self._on_status(previous)

    def _save(self) -> None:
        with self.store.lock:
            self.record["LastModifiedTime"] = time.time()
            self.store.put(EXECUTION, self.arn, self.record)

    def stop(self) -> None:
        """Stop: no further step starts, running jobs are asked to end."""
        with self._changed, self.store.lock:
            if self.record["PipelineExecutionStatus"] != "Executing":
                return
            self.record["PipelineExecutionStatus"] = "Stopping"
            self.stopping.set()
            for row in self.record["_steps"].values():
                if row["StepStatus"] == "Executing":
                    row["StepStatus"] = "Stopping"
            self._save()
            rows = list(self.record["_steps"].values())
            self._changed.notify_all()
        self._on_status("Executing")
        for row in rows:
            self._stop_job(row)

    def _stop_job(self, row: Record) -> None:
        for kind in (PROCESSING, TRAINING, TRANSFORM):
            if kind in row.get("Metadata", {}):
                self._stop(kind, row["Metadata"][kind]["Arn"])

    def _stop(self, kind: str, arn: str) -> None:
        if kind == TRANSFORM:
            self.transforms.stop(arn)
        else:
            self.jobs.stop(kind, arn)

    # One step.

    def _work(self, step: Step, row: Record) -> None:
        scope = self._scope()
        if step.type == "Condition":
            conditions = step.arguments["Conditions"]
            outcome = all(expressions.holds(condition, scope) for condition in conditions)
            row["Metadata"] = {"Condition": {"Outcome": "True" if outcome else "False"}}
            return
        if step.type == "Fail":
            message = as_text(expressions.resolve(step.arguments["ErrorMessage"], scope))
            row["Metadata"] = {"Fail": {"ErrorMessage": message[:3072]}}
            raise StepFailed(message)
        operation = JOB_OPERATIONS[step.type][0]
        request = expressions.resolve(step.arguments, scope, input_shape(operation))
        if step.type == "RegisterModel":
            self._with_retries(step, row, lambda: self._register(step, row, request))
            return
        row["_key"] = caching.key(step, request)
        if step.cache_seconds is not None and self._use_cached(step, row):
            return
        self._with_retries(step, row, lambda: self._run_job(step, row, request))

    def _use_cached(self, step: Step, row: Record) -> bool:
        with self.store.lock:
            executions = [
                execution
                for execution in self.store.all(EXECUTION).values()
                if execution["PipelineArn"] == self.record["PipelineArn"]
            ]
            hit = caching.find(step, row["_key"], executions, time.time())
            if hit is None:
                row["CacheHitResult"] = {"SourcePipelineExecutionArn": ""}
                return False
            source, found = hit
            row["Metadata"] = found["Metadata"]
            row["CacheHitResult"] = {"SourcePipelineExecutionArn": source["PipelineExecutionArn"]}
            return True

    def _run_job(self, step: Step, row: Record, request: dict[str, Any]) -> None:
        kind = f"{step.type}Job"
        mark = {"Key": "sagemaker:pipeline-execution-arn", "Value": self.arn}
        tags = [*request.get("Tags", ()), mark]
        request = {**request, f"{kind}Name": self._job_name(step), "Tags": tags}
        answer = self._call(JOB_OPERATIONS[step.type][0], request)
        arn = answer[f"{kind}Arn"]
        with self._changed:
            row["Metadata"] = {kind: {"Arn": arn}}
            self._save()
        if self.stopping.is_set():
            self._stop(kind, arn)
        (self.transforms if kind == TRANSFORM else self.jobs).wait(arn)
        job = self.store.get(kind, arn)
        status = job[f"{kind}Status"] if job else "Deleted"
        if status == "Completed":
            return
        if status == "Stopped" and self.stopping.is_set():
            raise StepStopped
        if status != "Failed" or job is None:
            raise StepFailed(f"ClientError: The job was {status.lower()}: {arn}")
        reason = job.get("FailureReason", "")
        raise StepFailed(f"ClientError: {reason}", _job_exception(reason))

    def _register(self, step: Step, row: Record, request: dict[str, Any]) -> None:
        metadata = {"GeneratedBy": self.arn, **request.get("MetadataProperties", {})}
        answer = self._call("CreateModelPackage", {**request, "MetadataProperties": metadata})
        row["Metadata"] = {"RegisterModel": {"Arn": answer["ModelPackageArn"]}}

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the sandbox's own API, over HTTP, through botocore's checks."""
        client = self._client()
        try:
            answer: dict[str, Any] = getattr(client, snake_case(operation))(**request)
        except ClientError as error:
            message = error.response["Error"].get("Message", "")
            raise StepFailed(
                f"ClientError: Failed to invoke sagemaker:{operation}. Error Details: {message}",
                _call_exception(error),
            ) from error
        except BotoCoreError as error:
            shown = " ".join(str(error).split())
            raise StepFailed(
                f"ClientError: Failed to invoke sagemaker:{operation}. Error Details: {shown}"
            ) from error
        return answer

    def _with_retries(self, step: Step, row: Record, attempt: Callable[[], None]) -> None:
        """Make attempts until one succeeds or no policy of the step asks for another."""
        used: dict[int, int] = {}
        began = time.monotonic()
        policies = (*step.retries, OWN_RETRY)
        while True:
            if self.stopping.is_set():
                raise StepStopped
            try:
                return attempt()
            except StepFailed as error:
                fitting = (i for i, p in enumerate(policies) if error.kind in p.exceptions)
                index = next(fitting, None)
                if index is None:
                    raise
                policy, count = policies[index], used.get(index, 0)
                pause = policy.interval * policy.backoff**count
                late = time.monotonic() - began + pause
                if count >= policy.attempts or (
                    policy.expire_after is not None and late > policy.expire_after
                ):
                    raise
                used[index] = count + 1
                log.info("step %s: %s; again in %.1f s", step.name, error.reason, pause)
            if self.stopping.wait(pause):
                raise StepStopped
            with self._changed:
                row["AttemptCount"] += 1
                row.pop("Metadata", None)
                self._save()

    def _job_name(self, step: Step) -> str:
        # AWS: pipelines-<execution id>-<step>-<10 random>, at most 63 characters.
        identity = self.arn.rpartition("/")[2]
        letters = string.ascii_letters + string.digits
        suffix = "".join(secrets.choice(letters) for _ in range(10))
        room = 63 - len(f"pipelines-{identity}--{suffix}")
        middle = step.name.replace("_", "-")[:room].strip("-") or "step"
        while "--" in middle:
            middle = middle.replace("--", "-")
        return f"pipelines-{identity}-{middle}-{suffix}"

    # The scope of expressions.

    def _scope(self) -> Scope:
        return Scope(
            parameters=self.parameters,
            execution={
                "PipelineName": self.record["_pipeline"],
                "PipelineArn": self.record["PipelineArn"],
                "PipelineExecutionId": self.arn.rpartition("/")[2],
                "PipelineExecutionArn": self.arn,
                "StartDateTime": moment(self.record["CreationTime"]),
                "CurrentDateTime": moment(time.time()),
            },
            properties=self._properties,
            property_file=self._property_file,
        )

    def _properties(self, name: str) -> Any:
        """Return what Describe answers for the result of a finished step."""
        metadata = self.record["_steps"].get(name, {}).get("Metadata", {})
        if "Condition" in metadata:
            return metadata["Condition"]
        for kind in (PROCESSING, TRAINING, TRANSFORM, "RegisterModel"):
            if kind in metadata:
                member = "ModelPackage" if kind == "RegisterModel" else kind
                found = self.store.get(member, metadata[kind]["Arn"])
                if found is not None:
                    return public(found)
        raise ExpressionError(f"step {name} has no properties: it did not run")

    def _property_file(self, name: str, file: str) -> Any:
        output, path = self.definition.steps[name].property_files[file]
        outputs = self._properties(name)["ProcessingOutputConfig"]["Outputs"]
        folder = next(o["S3Output"]["S3Uri"] for o in outputs if o["OutputName"] == output)
        uri = f"{folder.rstrip('/')}/{path}"
        bucket, key = split_uri(uri)
        try:
            return json.loads(self.objects.path(bucket, key).read_bytes())
        except ValueError as error:
            raise ExpressionError(f"{uri} is not JSON: {error}") from error


def recover(store: Store) -> None:
    """Fail the executions that a killed server left running."""
    for arn, record in list(store.all(EXECUTION).items()):
        if record["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            continue
        for row in record["_steps"].values():
            if row["StepStatus"] in ("Starting", "Executing", "Stopping"):
                row.update(StepStatus="Failed", EndTime=time.time(), FailureReason=f"{KILLED}.")
        record.update(
            PipelineExecutionStatus="Failed",
            FailureReason=f"{KILLED}. Start it again.",
            LastModifiedTime=time.time(),
        )
        store.put(EXECUTION, arn, record)


def _call_exception(error: ClientError) -> str:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if "Throttl" in code or code == "TooManyRequestsException":
        return "Step.THROTTLING"
    if code == "ResourceLimitExceeded":
        return "SageMaker.RESOURCE_LIMIT"
    return "Step.SERVICE_FAULT" if status >= 500 else ""


def _job_exception(reason: str) -> str:
    # The first word of a job's FailureReason is its kind.
    word = reason.partition(":")[0]
    return {
        "CapacityError": "SageMaker.CAPACITY_ERROR",
        "InternalServerError": "SageMaker.JOB_INTERNAL_ERROR",
        "ResourceLimitExceeded": "SageMaker.RESOURCE_LIMIT",
    }.get(word, "")
