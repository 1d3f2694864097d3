"""Invoke a deployed endpoint of any kind: body in, body out."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sm_mlops import objects
from sm_mlops.aws import Aws, error_code, ignoring, split_s3
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.errors import MlopsError, one_line

STARTING_SECONDS = 180.0  # After a pause a serverless endpoint downloads the model again.
LARGEST_MEGABYTES = {"real-time": 6, "serverless": 4, "asynchronous": 1024}
# Pieces of a file: so many rows fit the limit of an answer, even with many classes.
PIECE_ROWS = {"real-time": 5000, "serverless": 3000, "asynchronous": 1 << 31}
PIECE_MEGABYTES = LARGEST_MEGABYTES | {"asynchronous": 256}
ASYNC_SECONDS = 900.0  # An asynchronous endpoint may have to start its first instance.


@dataclass(frozen=True)
class Request:
    """`rows` is None if the body was sent as it is."""

    inference_id: str
    rows: int | None = None


@dataclass(frozen=True)
class Answer:
    """`seconds` includes network and retries; `requests` are those that it answers."""

    body: bytes
    content_type: str
    seconds: float
    requests: tuple[Request, ...] = ()


class Refused(MlopsError):
    """The container answered with an error. `status` is its status, such as 400.

    `reason` is the JSON that `model/inference.py` answers a client's fault with; else empty.
    """

    def __init__(self, message: str, status: int, reason: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason or {}


def invoke(aws: Aws, endpoint: Endpoint, body: bytes, content_type: str, accept: str) -> Answer:
    """Return the endpoint's answer. Raises Refused with the container's message."""
    most = LARGEST_MEGABYTES[endpoint.kind]
    if len(body) > most << 20:
        raise MlopsError(
            f"{endpoint.name} takes at most {most} MB per request, but this is "
            f"{len(body) / (1 << 20):.1f} MB: leave out --content-type, so that it is cut, or use "
            "mlops predict"
        )
    began, name = time.monotonic(), inference_id(aws)
    ask = _asynchronously if endpoint.kind == "asynchronous" else _at_once
    content, kind = ask(aws, endpoint, name, body, content_type, accept)
    return Answer(content, kind, time.monotonic() - began, (Request(name),))


def inference_id(aws: Aws) -> str:
    """Return an id for a request, which is captured with it: labels that come later name it, and
    its hour in UTC says where to look."""
    return f"{aws.now():%Y%m%d%H}-{secrets.token_hex(8)}"


def in_pieces(
    aws: Aws, endpoint: Endpoint, path: Path, accept: str
) -> Iterator[tuple[Answer, int]]:
    """Yield the answers to the rows of a file or folder, in order, and how many rows each is for.

    Raises:
        Refused: The container refuses a row; its message names the file, and the row if known.
        MlopsError: The file cannot be read as rows.
    """
    most = PIECE_MEGABYTES[endpoint.kind] << 20
    from sm_mlops.deployment import pieces  # a job that deploys lacks what it reads with

    for number, piece in enumerate(pieces.cut(path, most, PIECE_ROWS[endpoint.kind])):
        # One header for all.
        wanted = re.sub(r";\s*header=present", "", accept) if number else accept
        try:
            answer = invoke(aws, endpoint, piece.body, piece.content_type, wanted)
        except Refused as error:
            row, text = error.reason.get("row"), f"{piece.file.name}: {error}"
            if isinstance(row, int):
                text = str(error).replace(f"row {row}", piece.place(row), 1)
            raise Refused(text, error.status, error.reason) from error
        rows = len(piece.places)
        asked = tuple(replace(request, rows=rows) for request in answer.requests)
        yield replace(answer, requests=asked), rows


def joined(answers: list[Answer]) -> Answer:
    """Return one answer for several, in their order. Raises MlopsError if they are no lists."""
    first = answers[0]
    if len(answers) == 1:
        return first
    seconds = sum(answer.seconds for answer in answers)
    asked = tuple(request for answer in answers for request in answer.requests)
    if first.content_type.split(";")[0].strip() != "application/json":
        bodies = (answer.body.removesuffix(b"\n") + b"\n" for answer in answers)
        return Answer(b"".join(bodies), first.content_type, seconds, asked)
    try:
        rows = [row for answer in answers for row in json.loads(answer.body)["predictions"]]
    except (ValueError, KeyError, TypeError) as error:
        raise MlopsError(
            'the answers are not {"predictions": [...]}: ask with --accept application/jsonlines'
        ) from error
    body = json.dumps({"predictions": rows}, ensure_ascii=False).encode()
    return Answer(body, first.content_type, seconds, asked)


def _at_once(
    aws: Aws, endpoint: Endpoint, name: str, body: bytes, content_type: str, accept: str
) -> tuple[bytes, str]:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html

    botocore does not retry the error of a serverless endpoint that is starting.
    """
    from botocore.exceptions import ClientError

    request = {"Body": body, "ContentType": content_type, "Accept": accept, "InferenceId": name}
    end = time.monotonic() + STARTING_SECONDS
    try:
        while time.monotonic() < end:
            with ignoring("ModelNotReadyException"):
                answer = aws.runtime.invoke_endpoint(EndpointName=endpoint.name, **request)
                return answer["Body"].read(), answer["ContentType"]
            time.sleep(2)
    except ClientError as error:
        if error_code(error) != "ModelError":
            raise
        status = int(_field(error, "OriginalStatusCode") or 500)
        message, reason = _reason(str(_field(error, "OriginalMessage")))
        raise Refused(f"the model answered {status}: {message}", status, reason) from error
    raise MlopsError(
        f"{endpoint.name} is still starting after {STARTING_SECONDS:.0f} s: run the same command "
        "again"
    )


def _reason(text: str) -> tuple[str, dict[str, Any]]:
    """Return the model's message, without a traceback, and the JSON that it is from, if any."""
    with contextlib.suppress(ValueError, IndexError):
        # The service's own words may surround it.
        found, _ = json.JSONDecoder().raw_decode(text, text.index('{"error"'))
        return one_line(str(found["error"])), found
    return one_line(text.partition("Traceback (most recent")[0]), {}


def _field(error: Any, name: str) -> Any:
    return error.response.get(name, error.response["Error"].get(name, ""))


def _asynchronously(
    aws: Aws, endpoint: Endpoint, name: str, body: bytes, content_type: str, accept: str
) -> tuple[bytes, str]:
    """Send the request through S3, below `input/` beside `output/`, which has the answers.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-invoke-endpoint.html
    """
    config = aws.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint.config)
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    bucket, prefix = split_s3(output["S3OutputPath"])
    # infra/endpoint.yml allows the endpoint's role to read there, and monitoring looks there.
    folder = f"{prefix.rstrip('/')}/".partition("/output/")[0]
    key = f"{folder}/input/{name}"
    encryption = objects.encryption(output.get("KmsKeyId"))
    aws.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, **encryption)
    answer = aws.runtime.invoke_endpoint_async(
        EndpointName=endpoint.name,
        ContentType=content_type,
        Accept=accept,
        InferenceId=name,
        InputLocation=f"s3://{bucket}/{key}",
    )
    end = time.monotonic() + ASYNC_SECONDS
    pause = 0.1
    while True:
        if found := objects.find(aws, answer["OutputLocation"]):
            # Nothing guarantees the object's content type.
            return found, accept
        failure = answer.get("FailureLocation")
        if failure and (found := objects.find(aws, failure)):
            text = found.decode("utf-8", "replace")
            message, reason = _reason(text)
            # The container's status is in the service's message, if anywhere.
            status = re.search(r"error \((\d{3})\)", text)
            code = int(status[1]) if status else 400
            raise Refused(f"the model refused: {message}", code, reason)
        if time.monotonic() > end:
            raise MlopsError(
                f"{endpoint.name} has not answered within {ASYNC_SECONDS:.0f} s; "
                f"its answer will be {answer['OutputLocation']}"
            )
        time.sleep(pause)
        pause = min(5.0, pause * 1.5)
