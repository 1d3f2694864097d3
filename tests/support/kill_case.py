"""A sandbox with this repo's pipeline, killed with kill -9 while it works, and what must hold then.

Shared by the tests and the template's bench. Knows the sandbox from outside: its processes, its
folder, and what its API answers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from sm_mlops import executions, sandbox
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops.sandbox import client as sandbox_client
from sm_mlops.training import artifacts
from sm_mlops.training.run import start

VICTIMS = ("server", "server", "server", "everything", "a job", "a starting server")
RUNNING = ("Executing", "Stopping")
SECONDS = 120


@dataclass(frozen=True)
class Round:
    """What was killed, how long after its start, what the run had come to by then, how long the
    sandbox took to be back, and what it did then."""

    victim: str
    after: float
    step: str
    back: float
    versions: int
    problems: tuple[str, ...]


class Killing:
    """The sandbox of one repo. `draw` chooses victims and moments."""

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root, self.draw = root, draw
        self.settings = mlops_settings.load(root)
        self.region = self.settings.project.region
        self.folder = root.resolve() / sandbox_client.FOLDER

    def setup(self) -> float:
        """Make the pipeline, without the cache, and the first version; seconds of a run."""
        with self.awake() as aws:
            prepare(aws)
            first = start(aws, {}, lambda line: None)
            self.ended(aws, first)
            data, champion = artifacts.upload_data(aws), artifacts.upload_champion(aws)
            self.inputs = {
                "InputData": data.uri,
                "DataHash": data.digest,
                "Champion": champion.uri,
            }
            name = self.settings.pipeline
            found = aws.client("sagemaker").describe_pipeline(PipelineName=name)
            definition = json.loads(found["PipelineDefinition"])
            for step in definition["Steps"]:
                step.pop("CacheConfig", None)
            aws.client("sagemaker").update_pipeline(
                PipelineName=name, PipelineDefinition=json.dumps(definition)
            )
            begun = time.monotonic()
            arn = self.begin(aws)
            assert self.ended(aws, arn) == "Succeeded", executions.describe(aws, arn)
            return time.monotonic() - begun

    @contextlib.contextmanager
    def awake(self) -> Iterator[Aws]:
        """Yield a running server, and clients of it."""
        status = sandbox.start(self.root, self.region)
        variables = sandbox_client.environment(self.folder, status.port, self.region)
        kept = {name: value for name, value in os.environ.items() if variables.get(name) != ""}
        kept |= {name: value for name, value in variables.items() if value}
        with patch.dict(os.environ, kept, clear=True):
            yield Aws(self.settings, sandbox=True)

    def begin(self, aws: Aws) -> str:
        """Start an execution; its ARN."""
        answer = aws.client("sagemaker").start_pipeline_execution(
            PipelineName=self.settings.pipeline,
            PipelineParameters=[{"Name": key, "Value": uri} for key, uri in self.inputs.items()],
        )
        return str(answer["PipelineExecutionArn"])

    def ended(self, aws: Aws, arn: str) -> str:
        """Return the status of an execution at its end."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            answer = aws.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)
            if answer["PipelineExecutionStatus"] not in RUNNING:
                return str(answer["PipelineExecutionStatus"])
            time.sleep(0.05)
        return f"still running after {SECONDS} s"

    def round(self, longest: float) -> Round:
        """Start an execution, kill at a moment of the next `longest` seconds, look what is left,
        start again and run to the end."""
        victim, problems = self.draw.choice(VICTIMS), list[str]()
        if victim == "a starting server":
            after, step = self._kill_while_starting(), ""
        else:
            with self.awake() as aws:
                arn, after = self.begin(aws), self.draw.uniform(0, longest)
                time.sleep(after)
                step = self._step(aws, arn)
                self._kill(victim)
                if victim == "a job" and self.ended(aws, arn) not in ("Succeeded", "Failed"):
                    problems.append(f"{arn} did not end after its job was killed")
        if victim != "a job":
            problems += [f"left behind: {words}" for words in self._left()]
        begun = time.monotonic()
        with self.awake() as aws:
            back = time.monotonic() - begun
            problems += self._open(aws)
            problems += self._half_written(aws)
            before = len(self._versions(aws))
            status = self.ended(aws, self.begin(aws))
            versions = len(self._versions(aws))
            if status != "Succeeded" or versions != before + 1:
                problems.append(f"the next run {status}: {before}, then {versions} versions")
            problems += self._half_written(aws)
        return Round(victim, after, step, back, versions, tuple(problems))

    def stop(self) -> list[str]:
        """End the sandbox; what is left of it."""
        sandbox.stop(self.root)
        return self._left()

    # Killing.

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # A finished one that no one has asked about no longer has a folder.
                if process.status() != psutil.STATUS_ZOMBIE:
                    place = Path(process.cwd())
                    if place == self.folder or place.is_relative_to(self.folder):
                        found.append(process)
        return found

    def _left(self) -> list[str]:
        """Command lines of the sandbox's processes that have not ended five seconds later."""
        end = time.monotonic() + 5
        while (found := self._processes()) and time.monotonic() < end:
            time.sleep(0.02)
        words = []
        for process in found:
            with contextlib.suppress(psutil.Error):
                words.append(" ".join(process.cmdline())[-200:])
        return words

    def _kill(self, victim: str) -> None:
        status = sandbox.status(self.root)
        assert status is not None
        others = [process for process in self._processes() if process.pid != status.pid]
        if victim == "a job":
            chosen = [self.draw.choice(others)] if others else []
        elif victim == "everything":
            chosen = [psutil.Process(status.pid), *others]
        else:
            chosen = [psutil.Process(status.pid)]
        for process in chosen:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _kill_while_starting(self) -> float:
        sandbox.stop(self.root)
        script = f"import sandbox; sandbox.start({str(self.root)!r}, {self.region!r})"
        command = [sys.executable, "-c", script]
        package = Path(sandbox.__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(package)}
        starter = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        after = self.draw.uniform(0, 2)
        time.sleep(after)
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        starter.wait()
        # One that was waiting to start could start only now; it is a server like the others.
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        return after

    # What must hold afterwards.

    def _step(self, aws: Aws, arn: str) -> str:
        answer = aws.client("sagemaker").list_pipeline_execution_steps(
            PipelineExecutionArn=arn, SortOrder="Descending"
        )
        steps = answer["PipelineExecutionSteps"]
        return f"{steps[0]['StepName']} {steps[0]['StepStatus']}" if steps else "begun"

    def _open(self, aws: Aws) -> list[str]:
        """Return executions and jobs that still count as running, though nothing runs."""
        client: Any = aws.client("sagemaker")
        found = client.list_pipeline_executions(PipelineName=self.settings.pipeline, MaxResults=100)
        rows = [
            (row["PipelineExecutionArn"], row["PipelineExecutionStatus"])
            for row in found["PipelineExecutionSummaries"]
        ]
        for execution, _ in tuple(rows):
            steps = client.list_pipeline_execution_steps(PipelineExecutionArn=execution)
            for step in steps["PipelineExecutionSteps"]:
                rows.append((step["StepName"], step["StepStatus"]))
                for kind, describe in (
                    ("ProcessingJob", client.describe_processing_job),
                    ("TrainingJob", client.describe_training_job),
                ):
                    if kind in step.get("Metadata", {}):
                        name = step["Metadata"][kind]["Arn"].rpartition("/")[2]
                        job = describe(**{f"{kind}Name": name})
                        rows.append((name, job[f"{kind}Status"]))
        return [
            f"{name} is {status}" for name, status in rows if status in (*RUNNING, "InProgress")
        ]

    def _versions(self, aws: Aws) -> list[str]:
        group = self.settings.model_package_group
        pages = aws.client("sagemaker").get_paginator("list_model_packages")
        return [
            row["ModelPackageArn"]
            for page in pages.paginate(ModelPackageGroupName=group)
            for row in page["ModelPackageSummaryList"]
        ]

    def _half_written(self, aws: Aws) -> list[str]:
        """Versions without a model that loads, without metrics, and gaps in their numbers."""
        problems, numbers = [], []
        for arn in self._versions(aws):
            found: Any = aws.client("sagemaker").describe_model_package(ModelPackageName=arn)
            numbers.append(found["ModelPackageVersion"])
            try:
                url = found["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
                loads(self._read(aws, url))
                metrics = found["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
                assert json.loads(self._read(aws, metrics))
            except Exception as error:  # whatever is wrong with it, it is listed
                problems.append(f"version {numbers[-1]}: {type(error).__name__}: {error}")
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            problems.append(f"versions are numbered {numbers}")
        return problems

    def _read(self, aws: Aws, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


def loads(archive: bytes) -> None:
    """Raise unless it is a packed model: booster, schema and the endpoint's code."""
    import xgboost

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    booster = xgboost.Booster()
    booster.load_model(bytearray(files["model.ubj"]))
    assert booster.num_boosted_rounds() > 0
    assert json.loads(files["schema.json"])["columns"]
    assert json.loads(files["encoding.json"])["columns"]
    compile(files["code/inference.py"], "inference.py", "exec")
