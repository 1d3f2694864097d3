"""SageMaker's pipelines and their executions; the executor runs them."""

from __future__ import annotations

import secrets
import string
import threading
import time
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import grants, wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.definition import bind, parse, require_images
from sm_mlops.sandbox.executor import EXECUTION, Execution, recover
from sm_mlops.sandbox.jobs import Jobs
from sm_mlops.sandbox.objects import Objects
from sm_mlops.sandbox.policies import NO_ROLE, check_role
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.transforms import Transforms
from sm_mlops.sandbox.wire import ApiError, Caller, Params, invalid, missing, pick

PIPELINE = "Pipeline"
CHANGEABLE = ("PipelineDefinition", "PipelineDescription", "RoleArn")


class Pipelines:
    """Operations on pipelines and executions. Keys of records are ARNs.

    `client` makes a boto3 client of this sandbox for a region, with the rights of a role; `on_end`
    is called when an execution ends, `on_status` with one whose status has changed, and with its
    previous status.
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        jobs: Jobs,
        transforms: Transforms,
        client: Callable[[str, str], Any],
    ) -> None:
        self.store, self.objects, self._client = store, objects, client
        self.jobs, self.transforms = jobs, transforms
        self.running: dict[str, Execution] = {}
        self.on_end: Callable[[], None] = lambda: None
        self.on_status: Callable[[Record, str], None] = lambda record, previous: None
        recover(store)

    def create_pipeline(self, params: Params, caller: Caller) -> Params:
        """Answer CreatePipeline; refuse a definition that could not run."""
        wire.only(
            "CreatePipeline", params, *CHANGEABLE, "PipelineName", "ClientRequestToken", "Tags"
        )
        name, text = params["PipelineName"], _definition(params)
        arn = caller.arn(f"pipeline/{name}")
        with self.store.lock:
            if self.store.get(PIPELINE, arn) is not None:
                raise invalid(
                    "Pipeline names must be unique within an AWS account and region. "
                    f"Pipeline with name ({name}) already exists."
                )
            now = time.time()
            record = {
                **pick(params, "PipelineName", "PipelineDescription", "RoleArn"),
                "PipelineArn": arn,
                "PipelineDefinition": text,
                "CreationTime": now,
                "LastModifiedTime": now,
                "_tags": params.get("Tags", []),
                "_versions": [text],
            }
            self.store.put(PIPELINE, arn, record)
        return {"PipelineArn": arn}

    def update_pipeline(self, params: Params, caller: Caller) -> Params:
        """Answer UpdatePipeline; running executions keep the definition they started with."""
        wire.only("UpdatePipeline", params, *CHANGEABLE, "PipelineName")
        record = self._pipeline(params["PipelineName"], caller)
        with self.store.lock:
            if "PipelineDefinition" in params:
                text = _definition(params)
                if text != record["PipelineDefinition"]:
                    record["_versions"].append(text)
                record["PipelineDefinition"] = text
            record.update(pick(params, "PipelineDescription", "RoleArn"))
            record["LastModifiedTime"] = time.time()
            self.store.put(PIPELINE, record["PipelineArn"], record)
        return {
            "PipelineArn": record["PipelineArn"],
            "PipelineVersionId": len(record["_versions"]),
        }

    def describe_pipeline(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._pipeline(params["PipelineName"], caller))

    def list_pipelines(self, params: Params, caller: Caller) -> Params:
        prefix = params.get("PipelineNamePrefix", "")
        rows = [
            row
            for row in self.store.all(PIPELINE).values()
            if row["PipelineName"].startswith(prefix)
        ]
        rows, token = wire.listed("ListPipelines", rows, params, "PipelineNamePrefix")
        shown = ("PipelineArn", "PipelineName", "RoleArn", "CreationTime", "LastModifiedTime")
        return {"PipelineSummaries": [pick(row, *shown) for row in rows], **token}

    def delete_pipeline(self, params: Params, caller: Caller) -> Params:
        """Answer DeletePipeline, with its executions; refuse it while one of them runs."""
        record = self._pipeline(params["PipelineName"], caller)
        arn = record["PipelineArn"]
        with self.store.lock:
            executions = self._executions(arn)
            if any(e["PipelineExecutionArn"] in self.running for e in executions):
                raise ApiError("ConflictException", f"An execution of {arn} is running")
            for execution in executions:
                self.store.delete(EXECUTION, execution["PipelineExecutionArn"])
            self.store.delete(PIPELINE, arn)
        return {"PipelineArn": arn}

    def start_pipeline_execution(self, params: Params, caller: Caller) -> Params:
        """Answer StartPipelineExecution at once; start nothing twice for one ClientRequestToken."""
        wire.only(
            "StartPipelineExecution",
            params,
            "PipelineName",
            "PipelineExecutionDisplayName",
            "PipelineExecutionDescription",
            "PipelineParameters",
            "PipelineVersionId",
            "ClientRequestToken",
        )
        pipeline = self._pipeline(params["PipelineName"], caller)
        check_role(pipeline["RoleArn"], caller)
        if grants.unseen(pipeline["RoleArn"], "sagemaker.amazonaws.com"):
            raise invalid(NO_ROLE.format(role=pipeline["RoleArn"]))
        with self.store.lock:
            token = params["ClientRequestToken"]
            for earlier in self._executions(pipeline["PipelineArn"]):
                if earlier["_token"] == token:
                    return {"PipelineExecutionArn": earlier["PipelineExecutionArn"]}
            version = params.get("PipelineVersionId", len(pipeline["_versions"]))
            if version > len(pipeline["_versions"]):
                raise missing(f"Pipeline version {version} of {pipeline['PipelineArn']} not found")
            text = pipeline["_versions"][version - 1]
            definition = parse(text)
            given = params.get("PipelineParameters", [])
            bind(definition, given)
            alphabet = string.ascii_lowercase + string.digits
            identity = "".join(secrets.choice(alphabet) for _ in range(12))
            arn = f"{pipeline['PipelineArn']}/execution/{identity}"
            now = time.time()
            record: Record = {
                **pick(params, "PipelineExecutionDescription"),
                "PipelineArn": pipeline["PipelineArn"],
                "PipelineExecutionArn": arn,
                "PipelineExecutionDisplayName": params.get(
                    "PipelineExecutionDisplayName", f"execution-{int(now * 1000)}"
                ),
                "PipelineExecutionStatus": "Executing",
                "PipelineVersionId": version,
                "CreationTime": now,
                "LastModifiedTime": now,
                "RoleArn": pipeline["RoleArn"],
                "_pipeline": pipeline["PipelineName"],
                "_definition": text,
                "_parameters": given,
                "_token": token,
                "_steps": {},
            }
            self._launch(record, caller)
        return {"PipelineExecutionArn": arn}

    def _launch(self, record: Record, caller: Caller) -> None:
        role = record["RoleArn"]
        execution = Execution(
            record,
            self.store,
            self.jobs,
            self.transforms,
            RoleObjects(self.objects, role, caller),
            lambda: self._client(caller.region, role),
            lambda previous: self.on_status(record, previous),
        )
        arn = record["PipelineExecutionArn"]
        self.store.put(EXECUTION, arn, record)
        self.running[arn] = execution

        def run() -> None:
            try:
                execution.run()
            finally:
                with self.store.lock:
                    self.running.pop(arn, None)
                self.on_end()

        threading.Thread(target=run, name=arn, daemon=True).start()

    def stop_pipeline_execution(self, params: Params, caller: Caller) -> Params:
        """Answer StopPipelineExecution; the execution is Stopping until its jobs have ended."""
        record = self._execution(params["PipelineExecutionArn"])
        arn = record["PipelineExecutionArn"]
        execution = self.running.get(arn)
        if record["PipelineExecutionStatus"] == "Executing" and execution is not None:
            execution.stop()
        elif record["PipelineExecutionStatus"] not in ("Stopping", "Stopped"):
            raise ApiError(
                "ConflictException",
                f"Only an executing execution can be stopped; {arn} is "
                f"{record['PipelineExecutionStatus']}",
            )
        return {"PipelineExecutionArn": arn}

    def describe_pipeline_execution(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._execution(params["PipelineExecutionArn"]))

    def list_pipeline_executions(self, params: Params, caller: Caller) -> Params:
        pipeline = self._pipeline(params["PipelineName"], caller)
        rows = self._executions(pipeline["PipelineArn"])
        rows, token = wire.listed("ListPipelineExecutions", rows, params, "PipelineName")
        summaries = []
        for row in rows:
            summary = pick(
                row,
                "PipelineExecutionArn",
                "PipelineExecutionStatus",
                "PipelineExecutionDescription",
                "PipelineExecutionDisplayName",
            )
            summary["StartTime"] = row["CreationTime"]
            if "FailureReason" in row:
                summary["PipelineExecutionFailureReason"] = row["FailureReason"]
            summaries.append(summary)
        return {"PipelineExecutionSummaries": summaries, **token}

    def list_pipeline_execution_steps(self, params: Params, caller: Caller) -> Params:
        """Answer ListPipelineExecutionSteps, the newest first unless asked otherwise."""
        arn = params.get("PipelineExecutionArn")
        if not arn:
            raise invalid("PipelineExecutionArn must be given")
        record = self._execution(arn)
        with self.store.lock:
            rows = [wire.public(row) for row in record["_steps"].values()]
        rows.sort(key=lambda row: row["StartTime"])
        rows, token = wire.listed(
            "ListPipelineExecutionSteps", rows, params, "PipelineExecutionArn"
        )
        return {"PipelineExecutionSteps": rows, **token}

    def describe_pipeline_definition_for_execution(self, params: Params, caller: Caller) -> Params:
        record = self._execution(params["PipelineExecutionArn"])
        return {
            "PipelineDefinition": record["_definition"],
            "CreationTime": record["CreationTime"],
        }

    def list_pipeline_parameters_for_execution(self, params: Params, caller: Caller) -> Params:
        """Answer ListPipelineParametersForExecution: what the caller who started it has given."""
        given = self._execution(params["PipelineExecutionArn"])["_parameters"]
        rows, token = wire.page(given, params)
        return {"PipelineParameters": rows, **token}

    def _executions(self, pipeline_arn: str) -> list[Record]:
        with self.store.lock:
            return [
                record
                for record in self.store.all(EXECUTION).values()
                if record["PipelineArn"] == pipeline_arn
            ]

    def _pipeline(self, name: str, caller: Caller) -> Record:
        arn = name if name.startswith("arn:") else caller.arn(f"pipeline/{name}")
        return self.store.find(PIPELINE, arn, missing(f"Pipeline '{arn}' does not exist."))

    def _execution(self, arn: str) -> Record:
        error = missing(f"Pipeline execution with ARN '{arn}' does not exist.")
        return self.store.find(EXECUTION, arn, error)


def _definition(params: Params) -> str:
    if "PipelineDefinition" not in params:
        raise invalid("PipelineDefinition must be given")
    text = str(params["PipelineDefinition"])
    require_images(parse(text))
    return text
