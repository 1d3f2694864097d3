"""SageMaker's runtime: InvokeEndpoint and InvokeEndpointAsync, over HTTP as AWS's clients speak it.

Passes bodies on to the endpoints' containers and words what goes wrong as the service does. Knows
nothing of how endpoints come about.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.endpoints import ENDPOINT, LOG_GROUP, Endpoints, Variant
from sandbox.serving import Answer, NoAnswer, ServingFailed
from sandbox.storage import Record, Store
from sandbox.wire import ApiError, Caller

PATH = re.compile(r"/endpoints/([^/]+)/(invocations|async-invocations)$")
MEGABYTE = 1024 * 1024
LARGEST = 25 * MEGABYTE
LARGEST_SERVERLESS = 4 * MEGABYTE
SECONDS = 60.0
LONGEST_MESSAGE = 2048
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
StartResponse = Callable[..., Any]


class Runtime:
    """Answers requests to endpoints."""

    def __init__(self, store: Store, endpoints: Endpoints) -> None:
        self.store, self.endpoints = store, endpoints

    def answer(
        self, environ: dict[str, Any], start: StartResponse, caller: Caller
    ) -> Iterable[bytes]:
        """Answer a request whose path fits PATH. Raises ApiError or ModelError."""
        found = PATH.match(environ["PATH_INFO"])
        assert found is not None
        name, _ = found.groups()
        record = self._endpoint(name, caller)
        arrived = time.perf_counter()
        size = int(environ.get("CONTENT_LENGTH") or 0)
        serverless = "ServerlessConfig" in record["_deployed"]["variants"][0]
        _check_size(size, LARGEST_SERVERLESS if serverless else LARGEST)
        body = environ["wsgi.input"].read(size)
        headers = {
            "Content-Type": environ.get("CONTENT_TYPE") or "application/octet-stream",
            "Accept": environ.get("HTTP_ACCEPT") or "*/*",
        }
        if "HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES" in environ:
            headers[ATTRIBUTES] = environ["HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES"]
        variant = self._variant(record, environ.get("HTTP_X_AMZN_SAGEMAKER_TARGET_VARIANT"))
        answer = self.ask(record, variant, body, headers, SECONDS, arrived)
        _check_size(len(answer.body), LARGEST_SERVERLESS if serverless else LARGEST)
        sent = [
            ("Content-Type", answer.headers.get("Content-Type") or "application/octet-stream"),
            ("Content-Length", str(len(answer.body))),
            ("x-Amzn-Invoked-Production-Variant", variant.name),
            ("x-amzn-RequestId", secrets.token_hex(16)),
        ]
        if answer.headers.get(ATTRIBUTES):
            sent.append((ATTRIBUTES, answer.headers[ATTRIBUTES]))
        start("200 OK", sent)
        return [answer.body]

    def ask(
        self,
        record: Record,
        variant: Variant,
        body: bytes,
        headers: dict[str, str],
        seconds: float,
        arrived: float,
    ) -> Answer:
        """Return the container's answer. Raises ModelError for what is none."""
        try:
            answer = variant.container.ask(body, headers, seconds)
            failed = None if answer.status < 400 else answer.body.decode("utf-8", "replace")
            status = answer.status
        except NoAnswer as error:
            status, failed = (0, _LATE) if error.late else (500, _DIED)
        except ServingFailed:
            status, failed = 503, "the container does not start"
        if failed is not None:
            raise ModelError(record, variant, status, failed)
        return answer

    def _endpoint(self, name: str, caller: Caller) -> Record:
        record = self.store.get(ENDPOINT, caller.arn(f"endpoint/{name}"))
        # One that is being created has nothing to answer with, and is not known here.
        if record is None or "_deployed" not in record:
            raise ApiError(
                "ValidationError", f"Endpoint {name} of account {caller.account} not found."
            )
        return record

    def _variant(self, record: Record, target: str | None) -> Variant:
        variant = self.endpoints.route(record["EndpointArn"], target)
        if variant is None:
            raise ApiError("ValidationError", f"Variant {target} not found for Request")
        return variant


_LATE = (
    "Your invocation timed out while waiting for a response from container primary. Review the "
    "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)
_DIED = "the container's process ended while it worked on this request"


class ModelError(ApiError):
    """The container's own error, as InvokeEndpoint passes it on."""

    def __init__(self, record: Record, variant: Variant, status: int, text: str) -> None:
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
            "LogStreamArn": f"arn:aws:logs:{region}:{account}:log-group:{group}",
        }


def error_answer(error: ApiError, start: StartResponse) -> Iterable[bytes]:
    """Answer with an error as the runtime's clients read it."""
    content = {"Message": error.message, **getattr(error, "fields", {})}
    body = json.dumps(content).encode()
    start(
        f"{error.status} Error",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("x-amzn-ErrorType", error.code),
            ("x-amzn-RequestId", secrets.token_hex(16)),
        ],
    )
    return [body]


def _check_size(size: int, largest: int) -> None:
    if size > largest:
        raise ApiError(
            "ValidationError",
            f"1 validation error detected: Value at 'body' failed to satisfy constraint: Member "
            f"must have length less than or equal to {largest}",
            413,
        )
