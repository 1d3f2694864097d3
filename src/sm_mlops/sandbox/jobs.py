"""Processing and Training jobs: each is a real process in a folder laid out as SageMaker lays out
/opt/ml.

Knows jobs and S3 objects, not pipelines. Layout and file names are from AWS's pages "How SageMaker
Processing runs your processing container" and "How SageMaker provides training information".
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, Params, invalid, missing, pick

PROCESSING, TRAINING = "ProcessingJob", "TrainingJob"
LOG_GROUPS = {
    PROCESSING: "/aws/sagemaker/ProcessingJobs",
    TRAINING: "/aws/sagemaker/TrainingJobs",
}
LONGEST_REASON = 1024
KILLED = "The sandbox was killed while this was running; its processes were ended with it"
_HERE = Path(__file__).resolve().parent
_OPT_ML = re.compile(r"(^|=)/opt/ml(?=/|$)")


class JobFailed(Exception):
    """Why a job cannot go on, in the words of FailureReason."""


@dataclass
class Running:
    """A job while it runs: its folder, its process, and who waits for it."""

    record: Record
    caller: Caller
    folder: Path
    objects: RoleObjects
    done: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> Path:
        """Return the folder that stands for /opt/ml."""
        return self.folder / "ml"


class Jobs:
    """Operations on jobs. Keys of records are ARNs.

    `fault` is asked before a job starts and may return a FailureReason to fail it with (for tests
    of retry policies); `stop_grace` is the time in seconds between SIGTERM and SIGKILL (AWS: 120).
    """

    def __init__(
        self, store: Store, objects: Objects, folder: Path, stop_grace: float = 30
    ) -> None:
        self.store, self.objects, self.folder = store, objects, folder
        self.stop_grace = stop_grace
        self.fault: Callable[[str], str | None] = lambda kind: None
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
                _keep_log_only(job)

    # What the API offers.

    def create_processing_job(self, params: Params, caller: Caller) -> Params:
        """CreateProcessingJob: answers at once, the job runs in the background."""
        _refuse_unsupported_processing(params)
        record = self._new(PROCESSING, params, caller)
        return {"ProcessingJobArn": record["ProcessingJobArn"]}

    def create_training_job(self, params: Params, caller: Caller) -> Params:
        """CreateTrainingJob: answers at once, the job runs in the background."""
        _refuse_unsupported_training(params)
        record = self._new(TRAINING, params, caller)
        return {"TrainingJobArn": record["TrainingJobArn"]}

    def _new(self, kind: str, params: Params, caller: Caller) -> Record:
        name = params[f"{kind}Name"]
        label = "processing-job" if kind == PROCESSING else "training-job"
        arn = caller.arn(f"{label}/{name}")
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
            for switch in (
                "EnableNetworkIsolation",
                "EnableInterContainerTrafficEncryption",
                "EnableManagedSpotTraining",
            ):
                record.setdefault(switch, False)
            _advance(record, "Starting", "Preparing the instances for training")
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
        """DescribeProcessingJob."""
        return wire.public(self._find(PROCESSING, params, caller))

    def describe_training_job(self, params: Params, caller: Caller) -> Params:
        """DescribeTrainingJob."""
        return wire.public(self._find(TRAINING, params, caller))

    def list_processing_jobs(self, params: Params, caller: Caller) -> Params:
        """ListProcessingJobs: the newest first unless asked otherwise."""
        return self._list(PROCESSING, params, ("ProcessingEndTime", "FailureReason", "ExitMessage"))

    def list_training_jobs(self, params: Params, caller: Caller) -> Params:
        """ListTrainingJobs: the newest first unless asked otherwise."""
        return self._list(TRAINING, params, ("TrainingEndTime", "SecondaryStatus"))

    def _list(self, kind: str, params: Params, more: tuple[str, ...]) -> Params:
        rows = [
            job
            for job in self.store.all(kind).values()
            if wire.between(job, params)
            and wire.between(job, params, "LastModifiedTime")
            and params.get("NameContains", "") in job[f"{kind}Name"]
            and params.get("StatusEquals") in (None, job[f"{kind}Status"])
        ]
        by = {"Name": f"{kind}Name", "Status": f"{kind}Status"}.get(
            params.get("SortBy", ""), "CreationTime"
        )
        rows.sort(key=lambda row: row[by], reverse=params.get("SortOrder") != "Ascending")
        rows, token = wire.page(rows, params)
        names = (f"{kind}Name", f"{kind}Arn", "CreationTime", "LastModifiedTime", f"{kind}Status")
        return {f"{kind}Summaries": [pick(row, *names, *more) for row in rows], **token}

    def stop_processing_job(self, params: Params, caller: Caller) -> Params:
        """StopProcessingJob: SIGTERM, later SIGKILL."""
        self.stop(PROCESSING, self._find(PROCESSING, params, caller)["ProcessingJobArn"])
        return {}

    def stop_training_job(self, params: Params, caller: Caller) -> Params:
        """StopTrainingJob: SIGTERM, later SIGKILL; the model of a stopped job is kept."""
        self.stop(TRAINING, self._find(TRAINING, params, caller)["TrainingJobArn"])
        return {}

    def delete_processing_job(self, params: Params, caller: Caller) -> Params:
        """DeleteProcessingJob, with its log."""
        return self._delete(PROCESSING, params, caller)

    def delete_training_job(self, params: Params, caller: Caller) -> Params:
        """DeleteTrainingJob, with its log."""
        return self._delete(TRAINING, params, caller)

    def _delete(self, kind: str, params: Params, caller: Caller) -> Params:
        record = self._find(kind, params, caller)
        if record[f"{kind}Arn"] in self.running:
            raise invalid(f"{record[f'{kind}Arn']} is running; stop it first")
        self.store.delete(kind, record[f"{kind}Arn"])
        shutil.rmtree(self.folder / record[f"{kind}Name"], ignore_errors=True)
        return {}

    def _find(self, kind: str, params: Params, caller: Caller) -> Record:
        name = params[f"{kind}Name"]
        label = "processing-job" if kind == PROCESSING else "training-job"
        record = self.store.get(kind, caller.arn(f"{label}/{name}"))
        if record is None:
            # The service's own words, without the job's name.
            error = missing if kind == PROCESSING else invalid
            raise error(f"Could not find requested job with name: {name}")
        return record

    # What the executor uses beside the API.

    def wait(self, arn: str) -> None:
        """Return when the job has ended."""
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
        """Return where the log of a job is."""
        return self.folder / name / "log.txt"

    @staticmethod
    def _signal(job: Running, order: bytes) -> None:
        process = job.process
        if process is None or process.poll() is not None:
            return
        # It may just have ended by itself.
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
            injected = self.fault(kind)
            if injected:
                raise JobFailed(injected)
            work = self._process if kind == PROCESSING else self._train
            status, reason = work(job)
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
            # On a full disk the job must end all the same.
            with contextlib.suppress(OSError):
                if reason:
                    with self.log_path(name).open("a") as log:
                        log.write(f"[sandbox] {status}: {reason}\n")
                _keep_log_only(job.folder)
            self._finish(kind, record, status, reason)
            with self.store.lock:
                self.running.pop(record[f"{kind}Arn"], None)
            job.done.set()

    def _process(self, job: Running) -> tuple[str, str | None]:
        """Run a Processing job and return (status, failure reason)."""
        record = job.record
        config = job.base / "config"
        _write_json(
            config / "resourceconfig.json",
            _resources(record["ProcessingResources"]["ClusterConfig"]),
        )
        _write_json(config / "processingjobconfig.json", _json_ready(wire.public(record)))
        for item in record.get("ProcessingInputs", []):
            source = item["S3Input"]
            target = _inside(job, source["LocalPath"])
            self._download(job, source["S3Uri"], source.get("S3DataType", "S3Prefix"), target)
        outputs = record.get("ProcessingOutputConfig", {}).get("Outputs", [])
        for item in outputs:
            _inside(job, item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (job.base / "output").mkdir(exist_ok=True)
        application = record["AppSpecification"]
        command = [
            _mapped(job, text)
            for text in (
                *application.get("ContainerEntrypoint", []),
                *application.get("ContainerArguments", []),
            )
        ]
        record["ProcessingStartTime"] = time.time()
        self.store.put(PROCESSING, record["ProcessingJobArn"], record)
        environment = self._environment(job, record)
        environment["PROCESSING_JOB_NAME"] = record["ProcessingJobName"]
        code, late = self._execute(
            job, command, environment, record["StoppingCondition"]["MaxRuntimeInSeconds"]
        )
        message = _first_text(job.base / "output" / "message")
        if message:
            record["ExitMessage"] = message
        for item in outputs:
            target = item["S3Output"]
            self._upload(job, _inside(job, target["LocalPath"]), target["S3Uri"])
        if job.stop.is_set() or late:
            return "Stopped", None
        if code:
            return "Failed", _algorithm_error(job, message, code)
        return "Completed", None

    def _train(self, job: Running) -> tuple[str, str | None]:
        """Run a Training job under sagemaker-training and return (status, failure reason)."""
        record = job.record
        record["TrainingStartTime"] = time.time()
        self._phase(record, "Downloading", "Downloading input data")
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (job.base / folder).mkdir(parents=True, exist_ok=True)
        channels = {}
        for channel in record.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]
            target = job.base / "input" / "data" / channel["ChannelName"]
            self._download(job, source["S3Uri"], source["S3DataType"], target)
            channels[channel["ChannelName"]] = {
                "TrainingInputMode": "File",
                "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                **pick(channel, "ContentType"),
            }
        checkpoints = record.get("CheckpointConfig")
        saved = job.base / "checkpoints"
        if checkpoints:
            saved = _inside(job, checkpoints.get("LocalPath", "/opt/ml/checkpoints"))
            saved.mkdir(parents=True, exist_ok=True)
            self._download(job, checkpoints["S3Uri"], "S3Prefix", saved, may_be_empty=True)
        config = job.base / "input" / "config"
        hyperparameters = {
            name: _mapped(job, value) for name, value in record.get("HyperParameters", {}).items()
        }
        _write_json(config / "hyperparameters.json", hyperparameters)
        _write_json(config / "inputdataconfig.json", channels)
        _write_json(config / "resourceconfig.json", _resources(record["ResourceConfig"]))
        self._phase(record, "Training", "Training image download completed. Training in progress.")
        environment = self._environment(job, record)
        environment["TRAINING_JOB_NAME"] = record["TrainingJobName"]
        environment["TRAINING_JOB_ARN"] = record["TrainingJobArn"]
        code, late = self._execute(
            job, _train_command(record, job), environment, _longest_training(record)
        )
        self._phase(record, "Uploading", "Uploading generated training model")
        if checkpoints:
            self._upload(job, saved, checkpoints["S3Uri"])
        stopped = job.stop.is_set() or late
        self._pack(job, "output/data", "output.tar.gz")
        if not code or stopped:
            self._pack(job, "model", "model.tar.gz")
        if late:
            record["_secondary"] = "MaxRuntimeExceeded"
        if stopped:
            return "Stopped", None
        if code:
            text = _first_text(job.base / "output" / "failure")
            return "Failed", _algorithm_error(job, text, code)
        return "Completed", None

    def _pack(self, job: Running, folder: str, name: str) -> None:
        source = job.base / folder
        if not source.is_dir() or not any(source.iterdir()):
            return
        archive = job.folder / name
        pack(source, archive)
        uri = job.record["ModelArtifacts"]["S3ModelArtifacts"].rpartition("/")[0]
        bucket, key = split_uri(f"{uri}/{name}")
        job.objects.put(bucket, key, archive, move=True)

    def _execute(
        self, job: Running, command: list[str], environment: dict[str, str], longest: float
    ) -> tuple[int, bool]:
        """Run the job's command; return its exit code and whether it ran out of time."""
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
            job.process = subprocess.Popen(
                supervised(command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=job.base,
                env=environment,
                start_new_session=True,
            )
        if job.stop.is_set():  # Stopped between the check above and the start.
            self._signal(job, b"K" if self.closing else b"T")
        timer.start()
        code = job.process.wait()
        timer.cancel()
        cast(Any, job.process.stdin).close()
        return code, late.is_set()

    def _environment(self, job: Running, record: Record) -> dict[str, str]:
        """Return the job's environment."""
        environment = isolated_environment(job.base, job.folder / "tmp", job.caller.region)
        for name, value in record.get("Environment", {}).items():
            environment[name] = _mapped(job, value)
        return environment

    def _download(
        self, job: Running, uri: str, kind: str, target: Path, may_be_empty: bool = False
    ) -> None:
        """Copy objects into a folder the way File mode does."""
        target.mkdir(parents=True, exist_ok=True)
        bucket, prefix = split_uri(uri)
        if kind == "ManifestFile":
            pairs = list(self._manifest(job, bucket, prefix))
        else:
            try:
                keys = [k for k in job.objects.find(bucket, prefix) if not k.endswith("/")]
            except NoSuchObject as error:
                raise JobFailed(f"ClientError: {error}") from error
            pairs = [(bucket, key, relative_key(prefix, key)) for key in keys]
        if not pairs and not may_be_empty:
            raise JobFailed(
                f"ClientError: No S3 objects found under S3 URL '{uri}' given in input data "
                "source. Please ensure that the bucket exists in the selected region, that objects "
                "exist under that S3 prefix"
            )
        for where, key, name in pairs:
            path = target / name
            if not path.resolve().is_relative_to(target.resolve()):
                raise JobFailed(f"ClientError: key {key!r} would be written outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            # A copy, no link: a job may change its input, and must not change the object by that.
            shutil.copyfile(job.objects.path(where, key), path)

    def _manifest(self, job: Running, bucket: str, key: str) -> Iterator[tuple[str, str, str]]:
        entries = json.loads(job.objects.path(bucket, key).read_text())
        where, prefix = split_uri(entries[0]["prefix"])
        for name in entries[1:]:
            yield where, prefix + name, name

    def _upload(self, job: Running, folder: Path, uri: str) -> None:
        bucket, prefix = split_uri(uri)
        prefix = prefix.rstrip("/")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                key = f"{prefix}/{name}" if prefix else name
                try:
                    job.objects.put(bucket, key, path, move=not path.is_symlink())
                except NoSuchObject as error:
                    raise JobFailed(f"ClientError: {error}") from error

    # States.

    def _set_status(self, kind: str, record: Record, status: str) -> None:
        record[f"{kind}Status"] = status
        record["LastModifiedTime"] = time.time()
        if kind == TRAINING and status == "Stopping":
            _advance(record, "Stopping", "Stopping the training job")
        self.store.put(kind, record[f"{kind}Arn"], record)

    def _phase(self, record: Record, secondary: str, message: str) -> None:
        with self.store.lock:
            if record["TrainingJobStatus"] == "InProgress":
                _advance(record, secondary, message)
                self.store.put(TRAINING, record["TrainingJobArn"], record)

    def _finish(self, kind: str, record: Record, status: str, reason: str | None) -> None:
        with self.store.lock:
            now = time.time()
            short = "Processing" if kind == PROCESSING else "Training"
            record.setdefault(f"{short}StartTime", now)
            record[f"{short}EndTime"] = now
            if reason:
                record["FailureReason"] = reason[:LONGEST_REASON]
            if kind == TRAINING:
                seconds = max(1, round(now - record["TrainingStartTime"]))
                record["TrainingTimeInSeconds"] = record["BillableTimeInSeconds"] = seconds
                message = {"Completed": "Training job completed", "Failed": "Training job failed"}
                secondary = record.pop("_secondary", status)
                _advance(record, secondary, message.get(status, "Training job stopped"))
                record["SecondaryStatusTransitions"][-1]["EndTime"] = now
            self._set_status(kind, record, status)


def isolated_environment(base: Path, temporary: Path, region: str) -> dict[str, str]:
    """Return the environment of a process of the sandbox: built, so that nothing of the developer's
    gets in. `base` stands for /opt/ml."""
    tools = Path(sys.executable).parent
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.pathsep.join([str(tools), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_HERE / "guard"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAGEMAKER_BASE_DIR": str(base),
        "no_proxy": "localhost,127.0.0.1",
    }
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment[name] = environment[name.upper()] = nowhere
    return environment


def supervised(command: list[str]) -> list[str]:
    """Return the command that runs another under supervise.py."""
    return [sys.executable, "-I", "-S", str(_HERE / "supervise.py"), *command]


def pack(folder: Path, archive: Path) -> None:
    """Write a .tar.gz of a folder's content that depends on nothing but names and content."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name, filter=plain)


def split_uri(uri: str) -> tuple[str, str]:
    """Return (bucket, key) of an s3:// address. Raises JobFailed for anything else."""
    parts = urlparse(uri, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise JobFailed(f"ClientError: '{uri}' is not an S3 address")
    key = parts.path.removeprefix("/")
    return parts.netloc, f"{key}?{parts.query}" if parts.query else key


def relative_key(prefix: str, key: str) -> str:
    """Return the name that an object found under a prefix gets in its folder."""
    if key == prefix:
        return key.rpartition("/")[2]
    if prefix.endswith("/") or not prefix:
        return key[len(prefix) :]
    if key.startswith(f"{prefix}/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def _mapped(job: Running, text: str) -> str:
    """Return a text in which /opt/ml means the job's folder, also inside a JSON string."""
    if text.startswith('"/opt/ml') and text.endswith('"'):
        return json.dumps(_mapped(job, json.loads(text)))
    return _OPT_ML.sub(lambda match: f"{match[1]}{job.base}", text)


def _inside(job: Running, local: str) -> Path:
    if not local.startswith("/opt/ml/"):
        raise JobFailed(f"ClientError: LocalPath '{local}' is not below /opt/ml")
    path = job.base / local.removeprefix("/opt/ml/")
    if not path.resolve().is_relative_to(job.base.resolve()):
        raise JobFailed(f"ClientError: LocalPath '{local}' leads out of /opt/ml")
    return path


def _resources(config: dict[str, Any]) -> dict[str, Any]:
    # One host, and one whose name resolves: the toolkit waits minutes for "algo-1".
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": config.get("InstanceType", "local"),
        "hosts": ["localhost"],
    }
    return {
        "current_host": "localhost",
        "current_instance_type": group["instance_type"],
        "current_group_name": "homogeneousCluster",
        "hosts": ["localhost"],
        "instance_groups": [group],
        "network_interface_name": "lo",
    }


def _train_command(record: Record, job: Running) -> list[str]:
    specification = record["AlgorithmSpecification"]
    own = [
        *specification.get("ContainerEntrypoint", []),
        *specification.get("ContainerArguments", []),
    ]
    if own:
        return [_mapped(job, text) for text in own]
    script = Path(sys.executable).parent / "train"
    if script.is_file():
        return [str(script)]
    return [sys.executable, "-c", "from sagemaker_training.cli.train import main; main()"]


def _longest_training(record: Record) -> float:
    condition = record["StoppingCondition"]
    return float(condition.get("MaxRuntimeInSeconds", 86400))


def _advance(record: Record, secondary: str, message: str) -> None:
    now = time.time()
    transitions = record.setdefault("SecondaryStatusTransitions", [])
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
    record["SecondaryStatus"] = secondary


def _algorithm_error(job: Running, text: str | None, code: int) -> str:
    text = text or _first_text(job.base / "output" / "failure")
    text = text or _first_text(job.base / "output" / "message")
    if not text and code > 128:
        text = f"the process was ended by {_signal_name(code - 128)}"
    shown = text or "See job logs for more information"
    ending = f", exit code: {code}"
    room = LONGEST_REASON - len("AlgorithmError: ") - len(ending)
    return f"AlgorithmError: {shown[:room]}{ending}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _first_text(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(LONGEST_REASON).decode("utf-8", "replace").strip() or None


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _json_ready(record: Record) -> Record:
    return {
        name: value
        for name, value in record.items()
        if name
        in (
            "ProcessingJobArn",
            "ProcessingJobName",
            "AppSpecification",
            "Environment",
            "ExperimentConfig",
            "NetworkConfig",
            "ProcessingInputs",
            "ProcessingOutputConfig",
            "ProcessingResources",
            "RoleArn",
            "StoppingCondition",
        )
    }


def _keep_log_only(folder: Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name != "log.txt":
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _refuse_unsupported_processing(params: Params) -> None:
    for item in params.get("ProcessingInputs", []):
        name = item["InputName"]
        if "S3Input" not in item:
            raise invalid(f"Input '{name}': the sandbox supports S3Input only")
        source = item["S3Input"]
        if source.get("S3InputMode", "File") != "File" or source.get("S3CompressionType") == "Gzip":
            raise invalid(f"Input '{name}': the sandbox supports File mode, uncompressed, only")
        if "LocalPath" not in source:
            raise invalid(f"Input '{name}' needs S3Input.LocalPath")
    for item in params.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if "S3Output" not in item:
            raise invalid(f"Output '{item['OutputName']}': the sandbox supports S3Output only")
    if not params["AppSpecification"].get("ContainerEntrypoint"):
        raise invalid("The sandbox has no containers: AppSpecification needs a ContainerEntrypoint")


def _refuse_unsupported_training(params: Params) -> None:
    for channel in params.get("InputDataConfig", []):
        name = channel["ChannelName"]
        if "S3DataSource" not in channel["DataSource"]:
            raise invalid(f"Channel '{name}': the sandbox supports S3DataSource only")
        if channel["DataSource"]["S3DataSource"]["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise invalid(f"Channel '{name}': the sandbox supports S3Prefix and ManifestFile only")
        if channel.get("InputMode", "File") == "Pipe":
            raise invalid(f"Channel '{name}': the sandbox does not support Pipe mode")
        if channel.get("CompressionType", "None") != "None":
            raise invalid(f"Channel '{name}': the sandbox does not decompress channels")
        if channel.get("RecordWrapperType", "None") != "None":
            raise invalid(f"Channel '{name}': the sandbox does not wrap records")
    for member in ("OutputDataConfig", "ResourceConfig", "StoppingCondition"):
        if member not in params:
            raise invalid(f"CreateTrainingJob needs {member}")
    if "S3OutputPath" not in params["OutputDataConfig"]:
        raise invalid("CreateTrainingJob needs OutputDataConfig.S3OutputPath")
