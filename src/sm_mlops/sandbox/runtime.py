"""SageMaker's runtime: InvokeEndpoint and InvokeEndpointAsync, over HTTP as AWS's clients speak it.

Passes bodies on to the endpoints' containers and words errors as the service does. Does not know
how endpoints are deployed.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sm_mlops.sandbox.capture import Capture
from sm_mlops.sandbox.endpoints import ENDPOINT, Endpoints
from sm_mlops.sandbox.fleets import Fleet
from sm_mlops.sandbox.hosting import location
from sm_mlops.sandbox.metrics import Metrics
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.replies import Start, read, reply
from sm_mlops.sandbox.serving import LOG_GROUP, Answer, NoAnswer, ServingFailed
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, not_implemented

PATH = re.compile(r"/endpoints/([^/]+)/(invocations|async-invocations)$")
ASYNC = "AsyncInvocation"
MEGABYTE = 1024 * 1024
# Of a request and of an answer. Sources: the maximum of BodyBlob in the service's model, and
# https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-invoke.html
LARGEST = 6 * MEGABYTE
LARGEST_SERVERLESS = 4 * MEGABYTE
LARGEST_ASYNC = 1024 * MEGABYTE
SECONDS = 60.0
ASYNC_SECONDS = 900
ASYNC_TTL = 21_600
ASYNC_WORKERS = 4
LONGEST_MESSAGE = 2048
HEADERS = (
    ("CONTENT_TYPE", "contentType", 1024),
    ("HTTP_ACCEPT", "accept", 1024),
    ("HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID", "inferenceId", 64),
)
PREFIX = "HTTP_X_AMZN_SAGEMAKER_"
KNOWN = ("INFERENCE_ID", "INPUTLOCATION", "CONTENT_TYPE", "ACCEPT")
log = logging.getLogger(__name__)


class Runtime:
    """Answers requests to endpoints. `on_idle` is called when an asynchronous one has ended."""

    def __init__(
        self, store: Store, objects: Objects, endpoints: Endpoints, metrics: Metrics
    ) -> None:
        self.store, self.objects = store, objects
        self.endpoints, self.metrics = endpoints, metrics
        self.capture = Capture(objects)
        self.on_idle: Callable[[], None] = lambda: None
        self._workers = ThreadPoolExecutor(ASYNC_WORKERS, "async")
        self._waiting = 0
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Continue the asynchronous invocations that an earlier server had accepted."""
        for key in list(self.store.all(ASYNC)):
            self._submit(key)

    def busy(self) -> bool:
        return self._waiting > 0

    def close(self) -> None:
        """Stop starting invocations; those that wait are kept."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self.capture.flush()

    def answer(self, environ: dict[str, Any], start: Start, caller: Caller) -> Iterable[bytes]:
        """Answer a request whose path matches PATH. Raises ApiError."""
        found = PATH.match(environ["PATH_INFO"])
        assert found is not None
        name, operation = found.groups()
        if environ["REQUEST_METHOD"] != "POST":
            raise ApiError("UnknownOperationException", f"{operation} takes POST only", 404)
        _check_headers(environ)
        record = self._endpoint(name, caller)
        if operation == "async-invocations":
            return self._accept(record, environ, start)
        return self._invoke(record, environ, start)

    # InvokeEndpoint.

    def _invoke(self, record: Record, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        arrived = time.perf_counter()
        name = record["EndpointName"]
        if "AsyncInferenceConfig" in record:
            raise ApiError(
                "ValidationError",
                f"Endpoint {name} is asynchronous: it answers InvokeEndpointAsync only",
            )
        serverless = "ServerlessConfig" in record["_deployed"]["variant"]
        body = read(environ)
        _check_size(len(body), serverless)
        headers = {
            "Content-Type": environ.get("CONTENT_TYPE") or "application/octet-stream",
            "Accept": environ.get("HTTP_ACCEPT") or "*/*",
        }
        fleet, answer = self._ask(record, body, headers, arrived)
        _check_size(len(answer.body), serverless)
        kind = answer.headers.get("Content-Type") or "application/octet-stream"
        inference = environ.get(f"{PREFIX}INFERENCE_ID")
        self.capture.keep(record, fleet.variant, headers["Content-Type"], body, answer, inference)
        sent = {"Content-Type": kind, "x-Amzn-Invoked-Production-Variant": fleet.variant}
        return reply(start, 200, sent, answer.body)

    def _ask(
        self,
        record: Record,
        body: bytes,
        headers: Mapping[str, str],
        arrived: float,
        seconds: float = SECONDS,
    ) -> tuple[Fleet, Answer]:
        """Return the fleet that answered, and its answer. Raises ModelError for the container's."""
        while True:
            fleet = self._fleet(record)
            begun = time.perf_counter()
            problem: tuple[int, str] | None = None
            try:
                answer = fleet.container.ask(body, headers, seconds)
            except ServingFailed:
                if fleet.container.ended and not self.endpoints.closing:
                    continue  # Replaced between the choice and the request.
                problem = (503, "the container does not start; see its log")
            except NoAnswer as error:
                problem = (0, _LATE) if error.late else (500, _DIED)
            else:
                if answer.status >= 400:
                    problem = (answer.status, answer.body.decode("utf-8", "replace"))
            break
        model = answer.seconds if problem is None else time.perf_counter() - begun
        status = problem[0] if problem else 200
        self._report(record, fleet, status, model, time.perf_counter() - arrived - model)
        if problem:
            raise ModelError(record, *problem)
        return fleet, answer

    def _report(
        self, record: Record, fleet: Fleet, status: int, model: float, overhead: float
    ) -> None:
        _, _, _, region, account, _ = record["EndpointArn"].split(":", 5)
        client_error = 400 <= status < 500
        counts = {"Invocations": 1.0, "InvocationsPerInstance": 1.0 / max(1, fleet.instances)}
        if "AsyncInferenceConfig" in record:
            counts = {"InvocationsProcessed": 1.0, "InvocationFailures": float(status != 200)}
        self.metrics.record(
            (account, region, record["EndpointName"], fleet.variant),
            {
                **counts,
                "Invocation4XXErrors": float(client_error),
                "Invocation5XXErrors": float(status != 200 and not client_error),
                "InvocationModelErrors": float(status != 200),
                "ModelLatency": model * 1e6,
                "OverheadLatency": max(0.0, overhead) * 1e6,
            },
        )

    def _endpoint(self, name: str, caller: Caller) -> Record:
        record = self.store.get(ENDPOINT, caller.arn(f"endpoint/{name}"))
        # The runtime does not know an endpoint that is still being created.
        if record is None or "_deployed" not in record:
            raise _unknown(name, caller.account)
        return record

    def _fleet(self, record: Record) -> Fleet:
        try:
            return self.endpoints.route(record["EndpointArn"])
        except KeyError:
            raise _unknown(record["EndpointName"], record["EndpointArn"].split(":")[4]) from None

    # InvokeEndpointAsync.

    def _accept(self, record: Record, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Queue a request; its answer goes to S3."""
        if "AsyncInferenceConfig" not in record:
            raise ApiError(
                "ValidationError",
                f"Endpoint {record['EndpointName']} is not asynchronous: use InvokeEndpoint",
            )
        config = record["AsyncInferenceConfig"]["OutputConfig"]
        source = environ.get(f"{PREFIX}INPUTLOCATION")
        if not source:
            raise not_implemented("sagemaker:InvokeEndpointAsync without InputLocation")
        key = str(uuid.uuid4())
        invocation: Record = {
            "Endpoint": record["EndpointArn"],
            "InferenceId": environ.get(f"{PREFIX}INFERENCE_ID") or str(uuid.uuid4()),
            "Input": source,
            "Output": f"{config['S3OutputPath'].rstrip('/')}/{key}.out",
            "Failure": None,
            "Headers": {
                "Content-Type": environ.get(f"{PREFIX}CONTENT_TYPE") or "application/octet-stream",
                "Accept": environ.get(f"{PREFIX}ACCEPT") or "*/*",
            },
            "Received": time.time(),
        }
        sent = {
            "Content-Type": "application/json",
            "X-Amzn-SageMaker-OutputLocation": invocation["Output"],
        }
        if config.get("S3FailurePath"):
            invocation["Failure"] = f"{config['S3FailurePath'].rstrip('/')}/{key}-error.out"
            sent["X-Amzn-SageMaker-FailureLocation"] = invocation["Failure"]
        self.store.put(ASYNC, key, invocation)
        self._submit(key)
        answer = json.dumps({"InferenceId": invocation["InferenceId"]}).encode()
        return reply(start, 202, sent, answer)

    def _submit(self, key: str) -> None:
        with self._lock:
            self._waiting += 1
        try:
            self._workers.submit(self._work, key)
        except RuntimeError:  # The sandbox is ending; its next start continues.
            log.info("asynchronous invocation %s waits for the next start", key)

    def _work(self, key: str) -> None:
        invocation = self.store.all(ASYNC)[key]
        try:
            record = self.store.get(ENDPOINT, invocation["Endpoint"])
            if record is not None:
                self._infer(record, invocation)
        except Exception:
            log.exception("asynchronous invocation %s", key)
        finally:
            if not self.endpoints.closing:
                self.store.delete(ASYNC, key)
            with self._lock:
                self._waiting -= 1
            self.on_idle()

    def _infer(self, record: Record, invocation: Record) -> None:
        failed = None
        try:
            if time.time() - invocation["Received"] > ASYNC_TTL:
                raise ApiError("ValidationError", "Request expired in the queue")
            objects = self.endpoints.objects_of(record)
            body = objects.path(*location(invocation["Input"])).read_bytes()
            if len(body) > LARGEST_ASYNC:
                raise _too_long(LARGEST_ASYNC)
            arrived = time.perf_counter()
            headers = invocation["Headers"]
            fleet, answer = self._ask(record, body, headers, arrived, ASYNC_SECONDS)
            self.capture.keep(record, fleet.variant, headers["Content-Type"], body, answer, None)
            self._write(record, invocation["Output"], answer.body)
        except (ApiError, NoSuchObject) as error:
            failed = getattr(error, "message", str(error))
        if self.endpoints.closing:
            return
        if failed is not None and invocation["Failure"]:
            self._write(record, invocation["Failure"], failed.encode())

    def _write(self, record: Record, uri: str, content: bytes) -> None:
        path = self.objects.files.temporary()
        path.write_bytes(content)
        bucket, key = location(uri)
        try:
            self.endpoints.objects_of(record).put(bucket, key, path, move=True)
        finally:
            path.unlink(missing_ok=True)


def _unknown(name: str, account: str) -> ApiError:
    return ApiError("ValidationError", f"Endpoint {name} of account {account} not found.")


def _check_headers(environ: dict[str, Any]) -> None:
    """Raise ApiError for headers that are not implemented, too long or not ASCII."""
    for name in sorted(environ):
        member = name.removeprefix(PREFIX)
        if member != name and member not in KNOWN:
            shown = member.replace("_", "-").title()
            raise not_implemented(f"invocations with X-Amzn-SageMaker-{shown}")
    for header, member, longest in HEADERS:
        text = environ.get(header) or ""
        if len(text) > longest or not text.isascii():
            raise ApiError(
                "ValidationError",
                f"1 validation error detected: Value at '{member}' failed to satisfy constraint: "
                f"Member must be of ASCII, with length less than or equal to {longest}",
            )


_LATE = (
    "Your invocation timed out while waiting for a response from container primary. Review the "
    "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)
_DIED = "the container's process ended while it worked on this request"


class ModelError(ApiError):
    """The container's own error, as InvokeEndpoint passes it on."""

    def __init__(self, record: Record, status: int, text: str) -> None:
        _, _, _, region, account, _ = record["EndpointArn"].split(":", 5)
        group = f"{LOG_GROUP}{record['EndpointName']}"
        text = text[:LONGEST_MESSAGE]
        kind = "client" if 400 <= status < 500 else "server"
        super().__init__(
            "ModelError",
            f'Received {kind} error ({status}) from primary with message "{text}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
            f"#logEventViewer:group={group} in account {account} for more information.",
            424,
        )
        self.fields = {
            "OriginalMessage": text,
            "OriginalStatusCode": status,
        }


def error_answer(error: ApiError, start: Start) -> Iterable[bytes]:
    """Answer with an error as the runtime's clients read it."""
    content = {"Message": error.message, **getattr(error, "fields", {})}
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": error.code}
    return reply(start, error.status, headers, json.dumps(content).encode())


def _check_size(size: int, serverless: bool) -> None:
    if serverless and size > LARGEST_SERVERLESS:
        # Source: https://github.com/aws/sagemaker-python-sdk/issues/4271
        raise ApiError("ValidationError", f"Request {uuid.uuid4()} has oversize body.")
    if size > LARGEST:
        raise _too_long(LARGEST)


def _too_long(largest: int) -> ApiError:
    return ApiError(
        "ValidationError",
        "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must "
        f"have length less than or equal to {largest}",
    )
