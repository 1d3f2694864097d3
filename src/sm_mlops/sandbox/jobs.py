"""Processing and Training jobs: each is a real process in its own folder.

Knows jobs and S3 objects, not pipelines.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sm_mlops.sandbox import grants, images, processes, wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.job_folder import (
    LONGEST_REASON,
    JobFailed,
    Running,
    channel_config,
    keep_log_only,
    resources,
)
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, Params, invalid, missing, pick

PROCESSING, TRAINING = "ProcessingJob", "TrainingJob"
# A pattern of instance types; the tool reads the same file.
LOCAL_STORAGE = Path(__file__).parents[1] / "local_storage.txt"
LABELS = {PROCESSING: "processing-job", TRAINING: "training-job"}
LOG_GROUPS = {
    PROCESSING: "/aws/sagemaker/ProcessingJobs",
    TRAINING: "/aws/sagemaker/TrainingJobs",
}
KILLED = "The sandbox was killed while this was running; its processes were ended with it"


class Jobs:
    """Operations on jobs. Keys of records are ARNs.

    `work` runs a job of each kind and returns its status and failure reason; `url` is the sandbox's
    address; `stop_grace` is the time in seconds between SIGTERM and SIGKILL (AWS: 120).
    """

    def __init__(
        self,
        store: Store,
        objects: Objects,
        folder: Path,
        url: Callable[[], str],
        stop_grace: float = 30,
    ) -> None:
        self.store, self.objects, self.folder, self.url = store, objects, folder, url
        self.stop_grace = stop_grace
        self.work = {PROCESSING: self._process, TRAINING: self._train}
        self.running: dict[str, Running] = {}
        self.closing = False
        self._recover()

    def _recover(self) -> None:
        for kind in (PROCESSING, TRAINING):
            for record in list(self.store.all(kind).values()):
                if record[f"{kind}Status"] in ("InProgress", "Stopping"):
                    self._finish(kind, record, "Failed", f"InternalServerError: {KILLED}")
        if self.folder.is_dir():
            for job in self.folder.iterdir():
                keep_log_only(job)

    # Operations.

    def create_processing_job(self, params: Params, caller: Caller) -> Params:
        """Answer CreateProcessingJob at once; the job runs in the background."""
        refuse_processing(params)
        record = self._new(PROCESSING, params, caller)
        return {"ProcessingJobArn": record["ProcessingJobArn"]}

    def create_training_job(self, params: Params, caller: Caller) -> Params:
        """Answer CreateTrainingJob at once; the job runs in the background."""
        refuse_training(params)
        record = self._new(TRAINING, params, caller)
        return {"TrainingJobArn": record["TrainingJobArn"]}

    def _new(self, kind: str, params: Params, caller: Caller) -> Record:
        name = params[f"{kind}Name"]
        arn = _arn(kind, name, caller)
        check_role(params["RoleArn"], caller)
        now = time.time()
        record: Record = {
            **{member: value for member, value in params.items() if member != "Tags"},
            f"{kind}Arn": arn,
            f"{kind}Status": "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
            "_tags": params.get("Tags", []),
        }
        if kind == PROCESSING:
            record.setdefault("StoppingCondition", {"MaxRuntimeInSeconds": 86400})
        else:
            uri = params["OutputDataConfig"]["S3OutputPath"].rstrip("/")
            record["ModelArtifacts"] = {"S3ModelArtifacts": f"{uri}/{name}/output/model.tar.gz"}
        with self.store.lock:
            if self.store.get(kind, arn) is not None:
                raise wire.ApiError(
                    "ResourceInUse", f"Job name must be unique; {arn} already exists"
                )
            self.store.put(kind, arn, record)
            objects = RoleObjects(self.objects, params["RoleArn"], caller)
            job = Running(record, caller, self.folder / name, objects)
            self.running[arn] = job
        threading.Thread(target=self._run, args=(kind, job), name=name, daemon=True).start()
        return record

    def describe_processing_job(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._find(PROCESSING, params, caller))

    def describe_training_job(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._find(TRAINING, params, caller))

    def _find(self, kind: str, params: Params, caller: Caller) -> Record:
        name = params[f"{kind}Name"]
        error = missing if kind == PROCESSING else invalid
        words = f"Could not find requested job with name: {name}"
        return self.store.find(kind, _arn(kind, name, caller), error(words))

    # For the executor.

    def wait(self, arn: str) -> None:
        job = self.running.get(arn)
        if job is not None:
            job.done.wait()

    def stop(self, kind: str, arn: str) -> None:
        """Ask a job to stop; a job that has ended stays as it is."""
        job = self.running.get(arn)
        if job is None:
            return
        with self.store.lock:
            if job.record[f"{kind}Status"] != "InProgress":
                return
            self._set_status(kind, job.record, "Stopping")
        job.stop.set()
        self._signal(job, b"T")
        threading.Timer(self.stop_grace, self._signal, (job, b"K")).start()

    def close(self) -> None:
        """Kill every job at once and wait for the processes to be gone."""
        self.closing = True
        for job in list(self.running.values()):
            job.stop.set()
            self._signal(job, b"K")
        for job in list(self.running.values()):
            job.done.wait(timeout=10)

    def log_path(self, name: str) -> Path:
        return self.folder / name / "log.txt"

    @staticmethod
    def _signal(job: Running, order: bytes) -> None:
        process = job.process
        if process is None or process.poll() is not None:
            return
        # It may have just ended.
        with contextlib.suppress(ValueError, OSError):
            os.write(cast(Any, process.stdin).fileno(), order)

    # One job from start to end, in a thread of its own.

    def _run(self, kind: str, job: Running) -> None:
        record = job.record
        name = record[f"{kind}Name"]
        status, reason = "Failed", None
        try:
            shutil.rmtree(job.folder, ignore_errors=True)
            for part in ("ml", "tmp"):
                (job.folder / part).mkdir(parents=True)
            status, reason = self.work[kind](job)
        except JobFailed as error:
            reason = str(error)
        except NoSuchObject as error:
            reason = f"ClientError: {error}"
        except Exception as error:
            reason = f"InternalServerError: the sandbox failed: {type(error).__name__}: {error}"
            raise
        finally:
            if self.closing:
                status, reason = "Stopped", None
            # The job must end even if the disk is full.
            with contextlib.suppress(OSError):
                if reason:
                    with self.log_path(name).open("a") as log:
                        log.write(f"[sandbox] {status}: {reason}\n")
                keep_log_only(job.folder)
            self._finish(kind, record, status, reason)
            with self.store.lock:
                self.running.pop(record[f"{kind}Arn"], None)
            job.done.set()

    def _process(self, job: Running) -> tuple[str, str | None]:
        """Run a Processing job and return (status, failure reason)."""
        record = job.record
        cluster = record["ProcessingResources"]["ClusterConfig"]
        job.write_json("config/resourceconfig.json", resources(cluster))
        names = ("ProcessingJobName", "ProcessingInputs", "ProcessingOutputConfig")
        job.write_json("config/processingjobconfig.json", pick(record, *names))
        for item in record.get("ProcessingInputs", []):
            source = item["S3Input"]
            job.download(source["S3Uri"], job.inside(source["LocalPath"]))
        config = record.get("ProcessingOutputConfig", {})
        outputs = [o["S3Output"] for o in config.get("Outputs", [])]
        for output in outputs:
            job.inside(output["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (job.base / "output").mkdir(exist_ok=True)
        application = record["AppSpecification"]
        command = [*application["ContainerEntrypoint"], *application.get("ContainerArguments", [])]
        record["ProcessingStartTime"] = time.time()
        self.store.put(PROCESSING, record["ProcessingJobArn"], record)
        code, late = self._execute(
            job,
            [job.mapped(text) for text in command],
            {"PROCESSING_JOB_NAME": record["ProcessingJobName"]},
            record["StoppingCondition"]["MaxRuntimeInSeconds"],
        )
        message = job.text("output/message")
        if message:
            record["ExitMessage"] = message
        for output in outputs:
            job.upload(job.inside(output["LocalPath"]), output["S3Uri"])
        if job.stop.is_set() or late:
            return "Stopped", None
        if code:
            return "Failed", job.algorithm_error(message or job.text("output/failure"), code)
        return "Completed", None

    def _train(self, job: Running) -> tuple[str, str | None]:
        """Run a Training job in script mode and return (status, failure reason)."""
        record = job.record
        record["TrainingStartTime"] = time.time()
        self.store.put(TRAINING, record["TrainingJobArn"], record)
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (job.base / folder).mkdir(parents=True, exist_ok=True)
        channels = {each["ChannelName"]: each for each in record.get("InputDataConfig", [])}
        for name, channel in channels.items():
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            job.download(uri, job.base / "input" / "data" / name)
        checkpoints = record.get("CheckpointConfig")
        saved = job.base / "checkpoints"
        if checkpoints:
            saved = job.inside(checkpoints.get("LocalPath", "/opt/ml/checkpoints"))
            job.download(checkpoints["S3Uri"], saved, may_be_empty=True)
        hyperparameters = record.get("HyperParameters", {})
        config = "input/config"
        job.write_json(
            f"{config}/hyperparameters.json",
            {name: job.mapped(value) for name, value in hyperparameters.items()},
        )
        job.write_json(
            f"{config}/inputdataconfig.json",
            {name: channel_config(channel) for name, channel in channels.items()},
        )
        job.write_json(f"{config}/resourceconfig.json", resources(record["ResourceConfig"]))
        command, module = images.training(images.find(image_of(record)))
        names = {
            "TRAINING_JOB_NAME": record["TrainingJobName"],
            "TRAINING_JOB_ARN": record["TrainingJobArn"],
            "SAGEMAKER_TRAINING_MODULE": module,
        }
        longest = float(record["StoppingCondition"].get("MaxRuntimeInSeconds", 86400))
        code, late = self._execute(job, command, names, longest)
        if checkpoints:
            job.upload(saved, checkpoints["S3Uri"])
        stopped = job.stop.is_set() or late
        job.upload_packed("output/data", "output.tar.gz")
        if not code or stopped:
            job.upload_packed("model", "model.tar.gz")
        if stopped:
            return "Stopped", None
        if code:
            return "Failed", job.algorithm_error(job.text("output/failure", "output/message"), code)
        return "Completed", None

    def _execute(
        self, job: Running, command: list[str], names: dict[str, str], longest: float
    ) -> tuple[int, bool]:
        """Run the job's command; return its exit code and whether it ran out of time."""
        image = images.find(image_of(job.record))
        tools = images.overlay(image, job.folder / "environment")
        environment = processes.isolated_environment(
            job.base, job.folder / "tmp", job.caller.region, tools, [image]
        )
        for name, value in job.record.get("Environment", {}).items():
            environment[name] = job.mapped(value)
        environment |= names
        network = {**job.record, **job.record.get("NetworkConfig", {})}
        if not network.get("EnableNetworkIsolation"):
            role = grants.session(job.record["RoleArn"], "SageMaker", job.caller.region)
            environment |= {**role, "AWS_ENDPOINT_URL": self.url()}
        if job.stop.is_set():
            return 0, False
        late = threading.Event()

        def expire() -> None:
            late.set()
            self._signal(job, b"T")
            threading.Timer(self.stop_grace, self._signal, (job, b"K")).start()

        timer = threading.Timer(longest, expire)
        timer.daemon = True
        with self.log_path(job.folder.name).open("ab") as log:
            job.process = processes.start(command, log, job.base, environment)
        if job.stop.is_set():  # Stopped between the check above and the start.
            self._signal(job, b"K" if self.closing else b"T")
        timer.start()
        code = job.process.wait()
        timer.cancel()
        cast(Any, job.process.stdin).close()
        return code, late.is_set()

    # States.

    def _set_status(self, kind: str, record: Record, status: str) -> None:
        record[f"{kind}Status"] = status
        record["LastModifiedTime"] = time.time()
        self.store.put(kind, record[f"{kind}Arn"], record)

    def _finish(self, kind: str, record: Record, status: str, reason: str | None) -> None:
        with self.store.lock:
            now = time.time()
            short = "Processing" if kind == PROCESSING else "Training"
            record.setdefault(f"{short}StartTime", now)
            record[f"{short}EndTime"] = now
            if reason:
                record["FailureReason"] = reason[:LONGEST_REASON]
            self._set_status(kind, record, status)


def image_of(record: Params) -> str:
    """Return the address of a job's image, or raise ApiError if there is none to run it in."""
    processing = record.get("AppSpecification", {}).get("ImageUri")
    uri = str(processing or record.get("AlgorithmSpecification", {}).get("TrainingImage", ""))
    try:
        images.find(uri)
    except images.ImageError as error:
        raise invalid(str(error)) from error
    return uri


def _arn(kind: str, name: str, caller: Caller) -> str:
    # In lower case: the ARN that a step names does not spell the job's name.
    return caller.arn(f"{LABELS[kind]}/{name.lower()}")


def refuse_volume_key(resources: Params) -> None:
    """Raise ApiError for a volume key of an instance type with local storage, as SageMaker does."""
    pattern = LOCAL_STORAGE.read_text(encoding="utf-8").strip()
    if re.match(pattern, resources.get("InstanceType", "")) and resources.get("VolumeKmsKeyId"):
        raise invalid("KMS key is not supported for NVMe instance storage.")


def refuse_processing(params: Params) -> None:
    """Raise ApiError for a Processing job that the sandbox would not run as SageMaker does."""
    refuse_volume_key(params["ProcessingResources"]["ClusterConfig"])
    image_of(params)
    for item in params.get("ProcessingInputs", []):
        name = item["InputName"]
        if "S3Input" not in item:
            raise invalid(f"Input '{name}': the sandbox supports S3Input only")
        source = item["S3Input"]
        if source.get("S3DataType", "S3Prefix") != "S3Prefix":
            raise invalid(f"Input '{name}': the sandbox supports S3DataType S3Prefix only")
        if source.get("S3InputMode", "File") != "File" or source.get("S3CompressionType") == "Gzip":
            raise invalid(f"Input '{name}': the sandbox supports File mode, uncompressed, only")
        if "LocalPath" not in source:
            raise invalid(f"Input '{name}' needs S3Input.LocalPath")
    for item in params.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if "S3Output" not in item:
            raise invalid(f"Output '{item['OutputName']}': the sandbox supports S3Output only")
    if not params["AppSpecification"].get("ContainerEntrypoint"):
        raise invalid("The sandbox has no containers: AppSpecification needs a ContainerEntrypoint")


def refuse_training(params: Params) -> None:
    """Raise ApiError for a Training job that the sandbox would not run as SageMaker does."""
    image_of(params)
    for member in ("ContainerEntrypoint", "ContainerArguments"):
        if member in params["AlgorithmSpecification"]:
            raise invalid(f"The sandbox does not support AlgorithmSpecification.{member}")
    for channel in params.get("InputDataConfig", []):
        name = channel["ChannelName"]
        if "S3DataSource" not in channel["DataSource"]:
            raise invalid(f"Channel '{name}': the sandbox supports S3DataSource only")
        if channel["DataSource"]["S3DataSource"]["S3DataType"] != "S3Prefix":
            raise invalid(f"Channel '{name}': the sandbox supports S3DataType S3Prefix only")
        if channel.get("InputMode", "File") == "Pipe":
            raise invalid(f"Channel '{name}': the sandbox does not support Pipe mode")
        if channel.get("CompressionType", "None") != "None":
            raise invalid(f"Channel '{name}': the sandbox does not decompress channels")
        if channel.get("RecordWrapperType", "None") != "None":
            raise invalid(f"Channel '{name}': the sandbox does not wrap records")
    for member in ("OutputDataConfig", "ResourceConfig", "StoppingCondition"):
        if member not in params:
            raise invalid(f"CreateTrainingJob needs {member}")
    refuse_volume_key(params["ResourceConfig"])
    if "S3OutputPath" not in params["OutputDataConfig"]:
        raise invalid("CreateTrainingJob needs OutputDataConfig.S3OutputPath")
