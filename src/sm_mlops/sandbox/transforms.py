"""SageMaker's batch transform jobs: the objects below a prefix, sent in pieces to a container.

Knows S3 objects and the process that serves a model, nothing of endpoints. What `mlops predict`
does not use is refused by name. Sources: CreateTransformJob and its types in the API reference, and
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-batch-code.html
"""

from __future__ import annotations

import gzip
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.endpoints import SERVING_LOG
from sm_mlops.sandbox.hosting import MODEL, archive, check_key, find, listed, location
from sm_mlops.sandbox.job_folder import LONGEST_REASON, relative_key
from sm_mlops.sandbox.jobs import KILLED, refuse_volume_key
from sm_mlops.sandbox.joining import CSV, LINES, Joining, Mismatch
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.quotas import INSTANCES
from sm_mlops.sandbox.serving import Answer, Container, NoAnswer, ServingFailed
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, invalid, missing, not_implemented

TRANSFORM = "TransformJob"
FOLDER = "transforms"
LOG_GROUP = "/aws/sagemaker/TransformJobs"
MEGABYTE = 1024 * 1024
# Of a request, and of all that are sent at the same time.
PAYLOAD, LARGEST = 6, 100
SECONDS, RETRIES = 600.0, 3  # The defaults of ModelClientConfig.
# What DataProcessing does unless it is told otherwise.
PLAIN = {"InputFilter": "$", "JoinSource": "None", "OutputFilter": "$"}
SEE_LOGS = "See job logs for more information"
MEMBERS = (
    *("TransformJobName", "ModelName", "MaxConcurrentTransforms", "MaxPayloadInMB", "Environment"),
    *("BatchStrategy", "TransformInput", "TransformOutput", "TransformResources", "Tags"),
    "DataProcessing",
)


class _Failed(Exception):
    """Why an object cannot be transformed; `kind` is ClientError or AlgorithmError."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class _Running:
    record: Record
    container: Container
    objects: RoleObjects
    data_log: Path
    joining: Joining | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def note(self, text: str) -> None:
        """Write to the stream in which SageMaker says what it got from the container."""
        moment = wire.moment(time.time()).removesuffix("Z")
        with self.data_log.open("a", encoding="utf-8") as log:
            log.writelines(f"{moment}:[sagemaker logs]: {line}\n" for line in text.splitlines())


class Transforms:
    """Operations on transform jobs. Keys of records are ARNs. `on_idle` is called when one ends."""

    def __init__(self, store: Store, objects: Objects, folder: Path) -> None:
        self.store, self.objects, self.folder = store, objects, folder
        self.on_idle: Callable[[], None] = lambda: None
        self.running: dict[str, _Running] = {}
        self.closing = False
        for record in list(store.all(TRANSFORM).values()):
            if record["TransformJobStatus"] in ("InProgress", "Stopping"):
                self._finish(record, "Failed", f"InternalServerError: {KILLED}")
                shutil.rmtree(folder / record["TransformJobName"] / "container", True)

    # Operations.

    def create_transform_job(self, params: Params, caller: Caller) -> Params:
        """Answer CreateTransformJob at once; the job runs in the background."""
        _refuse(params, caller)
        name = params["TransformJobName"]
        model = find(self.store, MODEL, params["ModelName"], caller)
        arn = caller.arn(f"transform-job/{name}")
        now = time.time()
        record: Record = {
            **{member: value for member, value in params.items() if member != "Tags"},
            "TransformJobArn": arn,
            "TransformJobStatus": "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
            "_tags": params.get("Tags", []),
        }
        with self.store.lock:
            if self.store.get(TRANSFORM, arn) is not None:
                raise ApiError("ResourceInUse", f"Job name must be unique; {arn} already exists")
            self._check_quota(params["TransformResources"]["InstanceType"], caller)
            self.store.put(TRANSFORM, arn, record)
            job = self.running[arn] = self._job(record, model["_container"], caller)
        threading.Thread(target=self._run, args=(job,), name=name, daemon=True).start()
        return {"TransformJobArn": arn}

    def describe_transform_job(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._find(params, caller))

    def stop_transform_job(self, params: Params, caller: Caller) -> Params:
        """Answer StopTransformJob; the objects under way have no output."""
        record = self._find(params, caller)
        with self.store.lock:
            if record["TransformJobStatus"] != "InProgress":
                status = record["TransformJobStatus"]
                raise invalid(f"The request was rejected because the job is in status {status}.")
        self.stop(record["TransformJobArn"])
        return {}

    def stop(self, arn: str) -> None:
        """Ask a job to end, if it runs."""
        with self.store.lock:
            job = self.running.get(arn)
            if job is None or job.record["TransformJobStatus"] != "InProgress":
                return
            self._set_status(job.record, "Stopping")
        job.stop.set()
        job.container.stop()

    def wait(self, arn: str) -> None:
        """Wait until a job has ended."""
        job = self.running.get(arn)
        if job is not None:
            job.ended.wait()

    def list_transform_jobs(self, params: Params, caller: Caller) -> Params:
        return listed(self.store, TRANSFORM, "TransformJobSummaries", params, caller)

    def close(self) -> None:
        """End every job; the next server says that they failed."""
        self.closing = True
        for job in list(self.running.values()):
            job.stop.set()
            job.container.stop()

    def _find(self, params: Params, caller: Caller) -> Record:
        name = params["TransformJobName"]
        error = missing(f"Could not find requested job with name: {name}")
        return self.store.find(TRANSFORM, caller.arn(f"transform-job/{name}"), error)

    def _check_quota(self, kind: str, caller: Caller) -> None:
        used = sum(
            job.record["TransformResources"]["InstanceType"] == kind
            for arn, job in self.running.items()
            if arn.startswith(caller.arn(""))
        )
        if used >= INSTANCES:
            raise ApiError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{kind} for transform job usage' is {INSTANCES} "
                f"Instances, with current utilization of {used} Instances and a request delta of 1 "
                "Instances. Please use AWS Service Quotas to request an increase for this quota.",
            )

    # One job from start to end, in a thread of its own.

    def _job(self, record: Record, model: Params, caller: Caller) -> _Running:
        name = record["TransformJobName"]
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        objects = RoleObjects(self.objects, model["Role"], caller)
        for stream in ("container", "data-log"):
            log = {
                "Account": caller.account,
                "Region": caller.region,
                "Group": LOG_GROUP,
                "Stream": f"{name}/{stream}",
                "File": f"../{FOLDER}/{name}/{stream}.log",
                "Role": model["Role"],
            }
            self.store.put(SERVING_LOG, f"{name}/{stream}", log)
        container = Container(
            folder / "container",
            folder / "container.log",
            model["Image"],
            lambda: archive(self.objects, model, caller),
            model["Environment"] | record.get("Environment", {}) | _variables(record),
            caller.region,
        )
        return _Running(record, container, objects, folder / "data-log.log", _joining(record))

    def _run(self, job: _Running) -> None:
        record = job.record
        status, reason = "Failed", ""
        try:
            record["TransformStartTime"] = time.time()
            self.store.put(TRANSFORM, record["TransformJobArn"], record)
            reason = self._transform(job)
            status = "Failed" if reason else "Completed"
        except _Failed as error:
            reason = f"{error.kind}: {error}"
        except Exception as error:
            reason = f"InternalServerError: the sandbox failed: {type(error).__name__}: {error}"
            raise
        finally:
            job.container.end()
            if not self.closing:
                if job.stop.is_set():
                    status, reason = "Stopped", ""
                self._finish(record, status, reason)
            with self.store.lock:
                self.running.pop(record["TransformJobArn"], None)
            job.ended.set()
            self.on_idle()

    def _transform(self, job: _Running) -> str:
        """Transform every object; return the reason if one failed, which stops no other."""
        source = job.record["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        bucket, prefix = location(source)
        job.note(", ".join(f"{name}={value}" for name, value in _settings(job.record).items()))
        try:
            keys = [key for key in job.objects.find(bucket, prefix) if not key.endswith("/")]
        except NoSuchObject as error:
            raise _Failed("ClientError", str(error)) from error
        if not keys:
            raise _Failed("ClientError", f"No S3 objects found under S3 URL '{source}'")
        try:
            job.container.start()
        except ServingFailed as error:
            words = {"download": "Failed to download model data", "extract": "Failed to extract it"}
            kind = "ClientError" if error.problem in words else "AlgorithmError"
            raise _Failed(kind, words.get(error.problem, SEE_LOGS)) from error
        failed = ""
        for key in keys:
            if job.stop.is_set():
                break
            try:
                self._transform_one(job, bucket, key, prefix)
            except _Failed as error:
                if not job.stop.is_set():
                    job.note(
                        "\n".join(f"{bucket}/{key}: {line}" for line in str(error).split("\n"))
                    )
                failed = failed or f"{error.kind}: {SEE_LOGS}"
        return failed

    def _transform_one(self, job: _Running, bucket: str, key: str, prefix: str) -> None:
        """Store `<input>.out`, if the whole object could be transformed."""
        target = self.objects.files.temporary()
        output = job.record["TransformOutput"]
        line = b"\n" if output.get("AssembleWith") == "Line" else b""
        try:
            with job.objects.path(bucket, key).open("rb") as raw, target.open("wb") as out:
                packed = job.record["TransformInput"].get("CompressionType") == "Gzip"
                stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
                with closing(self._answers(job, _pieces(stream, job.record))) as answers:
                    for body in answers:
                        out.write(body)
                        out.write(line)
            to, folder = location(output["S3OutputPath"])
            name = f"{folder.rstrip('/')}/{relative_key(prefix, key)}.out".removeprefix("/")
            job.objects.put(to, name, target, move=True)
        except NoSuchObject as error:
            raise _Failed("ClientError", str(error)) from error
        except (OSError, EOFError) as error:
            raise _Failed("ClientError", f"cannot decompress: {error}") from error
        finally:
            target.unlink(missing_ok=True)

    def _answers(self, job: _Running, pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Yield the answers in the order of the pieces, of which several are sent at a time."""
        most = _settings(job.record)["MaxConcurrentTransforms"]
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(most) as pool:
            try:
                for piece in pieces:
                    waiting.append(pool.submit(_predict, job, piece))
                    if len(waiting) > most:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _finish(self, record: Record, status: str, reason: str) -> None:
        with self.store.lock:
            record["TransformEndTime"] = time.time()
            if reason:
                record["FailureReason"] = reason[:LONGEST_REASON]
            self._set_status(record, status)

    def _set_status(self, record: Record, status: str) -> None:
        record["TransformJobStatus"] = status
        record["LastModifiedTime"] = time.time()
        self.store.put(TRANSFORM, record["TransformJobArn"], record)


def _predict(job: _Running, piece: bytes) -> bytes:
    """Return what is stored for a piece. Raises _Failed."""
    if job.joining is None:
        return _ask(job, piece)
    try:
        return job.joining.joined(piece, _ask(job, job.joining.asked(piece)))
    except Mismatch as error:
        raise _Failed("ClientError", str(error)) from error


def _ask(job: _Running, piece: bytes) -> bytes:
    """Return the container's answer to a piece. Raises _Failed for any other status than 200."""
    headers = {
        "Content-Type": job.record["TransformInput"].get("ContentType"),
        "Accept": job.record["TransformOutput"].get("Accept"),
    }
    sent = {name: value for name, value in headers.items() if value}
    for last in [False] * RETRIES + [True]:
        if job.stop.is_set():
            raise _Failed("ClientError", "stopped")
        try:
            answer: Answer = job.container.ask(piece, sent, SECONDS)
        except (NoAnswer, ServingFailed) as error:
            if last or job.stop.is_set():
                raise _Failed("AlgorithmError", "Unable to get response from algorithm") from error
            continue
        if answer.status == 200:
            return answer.body
        text = answer.body.decode("utf-8", "replace")
        if answer.status < 500:
            raise _Failed("ClientError", f"ClientError: {answer.status}\n\nMessage:\n{text}")
        if last:
            words = f"Bad HTTP status received from algorithm: {answer.status}"
            raise _Failed("AlgorithmError", f"{words}\n{text}")
    raise AssertionError("unreachable")


def _pieces(stream: IO[bytes], record: Record) -> Iterator[bytes]:
    """Yield the bodies of the requests for an object, each within MaxPayloadInMB."""
    most = _settings(record)["MaxPayloadInMB"] * MEGABYTE

    def fitting(body: bytes) -> bytes:
        if len(body) > most:
            raise _Failed(
                "ClientError", f"a payload exceeds MaxPayloadInMB ({most // MEGABYTE} MB)"
            )
        return body

    if record["TransformInput"].get("SplitType", "None") == "None":
        yield fitting(stream.read(most + 1))
        return
    if record.get("BatchStrategy") == "SingleRecord":
        yield from map(fitting, stream)
        return
    rest = b""
    while block := stream.read(most - len(rest)):
        rest += block
        if len(rest) < most:
            continue
        cut = rest.rfind(b"\n") + 1
        if not cut:
            fitting(rest + stream.read(1))
            break
        yield rest[:cut]
        rest = rest[cut:]
    if rest:
        yield rest


def _settings(record: Record) -> dict[str, Any]:
    """Return the settings as the job's log shows them. The image has no /execution-parameters."""
    strategy = record.get("BatchStrategy", "MultiRecord")
    return {
        "MaxConcurrentTransforms": record.get("MaxConcurrentTransforms") or 1,
        "MaxPayloadInMB": record.get("MaxPayloadInMB", PAYLOAD),
        "BatchStrategy": "SINGLE_RECORD" if strategy == "SingleRecord" else "MULTI_RECORD",
    }


def _variables(record: Record) -> dict[str, str]:
    """Return what SageMaker tells the container."""
    shown = _settings(record)
    return {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": shown["BatchStrategy"],
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(shown["MaxConcurrentTransforms"]),
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(shown["MaxPayloadInMB"]),
    }


def _joining(record: Record) -> Joining | None:
    """Return how a job joins, None if it stores what the container answers."""
    given = record.get("DataProcessing") or {}
    if not any(given.get(name, plain) != plain for name, plain in PLAIN.items()):
        return None
    source, output = record["TransformInput"], record["TransformOutput"]
    kinds = (source.get("ContentType"), output.get("Accept"))
    lines = (source.get("SplitType"), output.get("AssembleWith"))
    if not {*kinds} <= {CSV, LINES} or len({*kinds}) > 1 or lines != ("Line", "Line"):
        raise not_implemented(
            "sagemaker:CreateTransformJob with DataProcessing of other data than lines of "
            f"{CSV} or {LINES}, in ContentType, Accept, SplitType and AssembleWith alike"
        )
    try:
        return Joining(given, *kinds)
    except Mismatch as error:
        raise invalid(str(error)) from error


def _refuse(params: Params, caller: Caller) -> None:
    """Raise ApiError for what SageMaker refuses, and by name for what the sandbox does not do."""
    wire.only("CreateTransformJob", params, *MEMBERS)
    given, output, machines = (
        params[f"Transform{part}"] for part in ("Input", "Output", "Resources")
    )
    source = given["DataSource"]["S3DataSource"]
    wire.only("CreateTransformJob", machines, "InstanceType", "InstanceCount", "VolumeKmsKeyId")
    for name, value, known in (
        ("S3DataType", source["S3DataType"], ("S3Prefix",)),
        ("SplitType", given.get("SplitType", "None"), ("None", "Line")),
        ("InstanceCount", machines["InstanceCount"], (1,)),
    ):
        if value not in known:
            raise not_implemented(f"sagemaker:CreateTransformJob with {name} {value}")
    _joining(params)
    payload = params.get("MaxPayloadInMB", PAYLOAD)
    if payload == 0:
        raise not_implemented("sagemaker:CreateTransformJob with MaxPayloadInMB 0")
    if payload * max(1, params.get("MaxConcurrentTransforms", 1)) > LARGEST:
        raise invalid(
            "MaxPayloadInMB, and its product with MaxConcurrentTransforms, cannot be greater than "
            f"{LARGEST} MB"
        )
    for uri in (source["S3Uri"], output["S3OutputPath"]):
        location(uri)
    refuse_volume_key(machines)
    for key in (output.get("KmsKeyId"), machines.get("VolumeKmsKeyId")):
        if key:
            check_key(key, caller)
