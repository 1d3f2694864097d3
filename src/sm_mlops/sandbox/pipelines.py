"""Pipelines and their executions, as SageMaker's API answers for them; the executor does the
running."""

from __future__ import annotations

import secrets
import string
import threading
import time
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.definition import bind, parse
from sm_mlops.sandbox.executor import EXECUTION, Execution, JobControl, recover
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, invalid, missing, pick

PIPELINE = "Pipeline"


class Pipelines:
    """Operations on pipelines and executions. Keys of records are ARNs.

    `client` makes a boto3 client of this sandbox for a region, with the rights of a role; `on_end`
    is called when an execution ends.
    """

    def __init__(
        self, store: Store, objects: Objects, jobs: JobControl, client: Callable[[str, str], Any]
    ) -> None:
        self.store, self.objects, self.jobs, self._client = store, objects, jobs, client
        self.running: dict[str, Execution] = {}
        self.on_end: Callable[[], None] = lambda: None
        recover(store)

    def create_pipeline(self, params: Params, caller: Caller) -> Params:
        """CreatePipeline: refuses a definition that could not run."""
        name = params["PipelineName"]
        arn = caller.arn(f"pipeline/{name}")
        with self.store.lock:
            if self.store.get(PIPELINE, arn) is not None:
                raise invalid(
                    "Pipeline names must be unique within an AWS account and region. "
                    f"Pipeline with name ({name}) already exists."
                )
            text = self._definition(params)
            parse(text)
            now = time.time()
            record = {
                **pick(
                    params,
                    "PipelineName",
                    "PipelineDescription",
                    "RoleArn",
                    "ParallelismConfiguration",
                ),
                "PipelineArn": arn,
                "PipelineDisplayName": params.get("PipelineDisplayName", name),
                "PipelineDefinition": text,
                "PipelineStatus": "Active",
                "CreationTime": now,
                "LastModifiedTime": now,
                "CreatedBy": caller.context(),
                "LastModifiedBy": caller.context(),
                "_tags": params.get("Tags", []),
                "_version": 1,
            }
            self.store.put(PIPELINE, arn, record)
        return {"PipelineArn": arn}

    def update_pipeline(self, params: Params, caller: Caller) -> Params:
        """UpdatePipeline: executions that run keep the definition they were started with."""
        record = self._pipeline(params["PipelineName"], caller)
        with self.store.lock:
            if "PipelineDefinition" in params or "PipelineDefinitionS3Location" in params:
                text = self._definition(params)
                parse(text)
                if text != record["PipelineDefinition"]:
                    record["_version"] += 1
                record["PipelineDefinition"] = text
            record.update(
                pick(
                    params,
                    "PipelineDisplayName",
                    "PipelineDescription",
                    "RoleArn",
                    "ParallelismConfiguration",
                )
            )
            record.update(LastModifiedTime=time.time(), LastModifiedBy=caller.context())
            self.store.put(PIPELINE, record["PipelineArn"], record)
        return {"PipelineArn": record["PipelineArn"], "PipelineVersionId": record["_version"]}

    def _definition(self, params: Params) -> str:
        if "PipelineDefinition" in params:
            return str(params["PipelineDefinition"])
        place = params.get("PipelineDefinitionS3Location")
        if not place:
            raise invalid("PipelineDefinition or PipelineDefinitionS3Location must be given")
        try:
            return self.objects.path(place["Bucket"], place["ObjectKey"]).read_text()
        except NoSuchObject as error:
            raise invalid(str(error)) from error

    def describe_pipeline(self, params: Params, caller: Caller) -> Params:
        """DescribePipeline."""
        record = self._pipeline(params["PipelineName"], caller)
        executions = self._executions(record["PipelineArn"])
        answer = wire.public(record)
        if executions:
            answer["LastRunTime"] = max(e["CreationTime"] for e in executions)
        return answer

    def list_pipelines(self, params: Params, caller: Caller) -> Params:
        """ListPipelines: by creation time, the newest first unless asked otherwise."""
        prefix = params.get("PipelineNamePrefix", "")
        rows = [
            row
            for row in self.store.all(PIPELINE).values()
            if row["PipelineName"].startswith(prefix) and wire.between(row, params, name="Created")
        ]
        by = "PipelineName" if params.get("SortBy") == "Name" else "CreationTime"
        rows.sort(key=lambda row: row[by], reverse=params.get("SortOrder") != "Ascending")
        rows, token = wire.page(rows, params)
        summaries = []
        for row in rows:
            summary = pick(
                row,
                "PipelineArn",
                "PipelineName",
                "PipelineDisplayName",
                "PipelineDescription",
                "RoleArn",
                "CreationTime",
                "LastModifiedTime",
            )
            executions = self._executions(row["PipelineArn"])
            if executions:
                summary["LastExecutionTime"] = max(e["CreationTime"] for e in executions)
            summaries.append(summary)
        return {"PipelineSummaries": summaries, **token}

    def delete_pipeline(self, params: Params, caller: Caller) -> Params:
        """DeletePipeline, with its executions; refused while one of them runs."""
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
        """StartPipelineExecution: answers at once; the same ClientRequestToken starts nothing
        twice."""
        if "SelectiveExecutionConfig" in params:
            raise invalid("The sandbox does not support SelectiveExecutionConfig")
        pipeline = self._pipeline(params["PipelineName"], caller)
        check_role(params.get("RoleArn") or pipeline["RoleArn"], caller)
        with self.store.lock:
            token = params["ClientRequestToken"]
            for earlier in self._executions(pipeline["PipelineArn"]):
                if earlier["_token"] == token:
                    return {"PipelineExecutionArn": earlier["PipelineExecutionArn"]}
            definition = parse(pipeline["PipelineDefinition"])
            given = params.get("PipelineParameters", [])
            values = bind(definition, given)
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
                "PipelineVersionId": pipeline["_version"],
                "CreationTime": now,
                "LastModifiedTime": now,
                "CreatedBy": caller.context(),
                "LastModifiedBy": caller.context(),
                "RoleArn": params.get("RoleArn", pipeline["RoleArn"]),
                "_pipeline": pipeline["PipelineName"],
                "_definition": pipeline["PipelineDefinition"],
                "_parameters": given,
                "_values": values,
                "_token": token,
                "_steps": {},
            }
            parallel = params.get(
                "ParallelismConfiguration", pipeline.get("ParallelismConfiguration")
            )
            if parallel:
                record["ParallelismConfiguration"] = parallel
            self._launch(record, caller)
        return {"PipelineExecutionArn": arn}

    def _launch(self, record: Record, caller: Caller) -> None:
        role = record["RoleArn"]
        execution = Execution(
            record,
            self.store,
            self.jobs,
            RoleObjects(self.objects, role, caller),
            lambda: self._client(caller.region, role),
        )
        experiment = execution.experiment()
        if experiment:
            record["PipelineExperimentConfig"] = experiment
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

    def retry_pipeline_execution(self, params: Params, caller: Caller) -> Params:
        """RetryPipelineExecution: runs what failed or was stopped again, keeps what succeeded."""
        record = self._execution(params["PipelineExecutionArn"])
        arn = record["PipelineExecutionArn"]
        with self.store.lock:
            if (
                record["PipelineExecutionStatus"] not in ("Failed", "Stopped")
                or arn in self.running
            ):
                if record.get("_retry") == params["ClientRequestToken"]:
                    return {"PipelineExecutionArn": arn}
                raise ApiError(
                    "ConflictException",
                    f"Only a failed or stopped execution can be retried; {arn} is "
                    f"{record['PipelineExecutionStatus']}",
                )
            record["_steps"] = {
                name: row
                for name, row in record["_steps"].items()
                if row["StepStatus"] == "Succeeded"
            }
            record.pop("FailureReason", None)
            record["PipelineExecutionStatus"] = "Executing"
            record["_retry"] = params["ClientRequestToken"]
            if "ParallelismConfiguration" in params:
                record["ParallelismConfiguration"] = params["ParallelismConfiguration"]
            self._launch(record, caller)
        return {"PipelineExecutionArn": arn}

    def stop_pipeline_execution(self, params: Params, caller: Caller) -> Params:
        """StopPipelineExecution: Stopping at once, Stopped when the running jobs have ended."""
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
        """DescribePipelineExecution."""
        return wire.public(self._execution(params["PipelineExecutionArn"]))

    def list_pipeline_executions(self, params: Params, caller: Caller) -> Params:
        """ListPipelineExecutions: by creation time, the newest first unless asked otherwise."""
        pipeline = self._pipeline(params["PipelineName"], caller)
        rows = [
            row
            for row in self._executions(pipeline["PipelineArn"])
            if wire.between(row, params, name="Created")
        ]
        by = (
            "PipelineExecutionArn"
            if params.get("SortBy") == "PipelineExecutionArn"
            else "CreationTime"
        )
        rows.sort(key=lambda row: row[by], reverse=params.get("SortOrder") != "Ascending")
        rows, token = wire.page(rows, params)
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
        """ListPipelineExecutionSteps: the steps started so far, the newest first unless asked
        otherwise."""
        arn = params.get("PipelineExecutionArn")
        if not arn:
            raise invalid("PipelineExecutionArn must be given")
        record = self._execution(arn)
        with self.store.lock:
            rows = [wire.public(row) for row in record["_steps"].values()]
        rows.sort(key=lambda row: row["StartTime"])
        if params.get("SortOrder") != "Ascending":
            rows.reverse()
        rows, token = wire.page(rows, params)
        return {"PipelineExecutionSteps": rows, **token}

    def describe_pipeline_definition_for_execution(self, params: Params, caller: Caller) -> Params:
        """DescribePipelineDefinitionForExecution."""
        record = self._execution(params["PipelineExecutionArn"])
        return {
            "PipelineDefinition": record["_definition"],
            "CreationTime": record["CreationTime"],
        }

    def list_pipeline_parameters_for_execution(self, params: Params, caller: Caller) -> Params:
        """ListPipelineParametersForExecution: every parameter with the value it had, as text."""
        record = self._execution(params["PipelineExecutionArn"])
        rows = [{"Name": k, "Value": _shown(v)} for k, v in record["_values"].items()]
        rows, token = wire.page(rows, params)
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
        record = self.store.get(PIPELINE, arn)
        if record is None:
            raise missing(f"Pipeline '{arn}' does not exist.")
        return record

    def _execution(self, arn: str) -> Record:
        record = self.store.get(EXECUTION, arn)
        if record is None:
            raise missing(f"Pipeline execution with ARN '{arn}' does not exist.")
        return record


def _shown(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
