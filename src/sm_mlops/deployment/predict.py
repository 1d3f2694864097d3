"""One prediction by a deployed endpoint, whatever its kind: body in, body out."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sm_mlops import objects
from sm_mlops.aws import Aws, error_code, split_s3
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.errors import MlopsError

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
}
STARTING_SECONDS = 180.0  # a serverless endpoint after a pause; the model is downloaded again
ASYNC_SECONDS = 900.0  # an asynchronous endpoint may start its first instance


@dataclass(frozen=True)
class Answer:
    """`seconds` as the caller waits for it, network and retries included."""

    body: bytes
    content_type: str
    seconds: float


class Refused(MlopsError):
    """The container answered with an error of its own; `status` is the container's, such as 400."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def invoke(
    aws: Aws,
    endpoint: Endpoint,
    body: bytes,
    content_type: str,
    accept: str,
    *,
    at_most: float = ASYNC_SECONDS,
) -> Answer:
    """The endpoint's answer. Raises Refused with the container's own words.

    Throttling is retried by botocore, a serverless endpoint that is still starting here.
    """
    began = time.monotonic()
    if endpoint.kind == "asynchronous":
        content, kind = _asynchronously(aws, endpoint, body, content_type, accept, at_most)
    else:
        content, kind = _at_once(aws, endpoint, body, content_type, accept)
    return Answer(content, kind, time.monotonic() - began)


def _at_once(
    aws: Aws, endpoint: Endpoint, body: bytes, content_type: str, accept: str
) -> tuple[bytes, str]:
    from botocore.exceptions import ClientError

    request = {"Body": body, "ContentType": content_type, "Accept": accept}
    end = time.monotonic() + STARTING_SECONDS
    try:
        while (answer := _when_ready(aws, endpoint, request)) is None:
            if time.monotonic() > end:
                raise MlopsError(
                    f"{endpoint.name} is still starting after {STARTING_SECONDS:.0f} s: "
                    "give the same command again"
                )
            time.sleep(2)
    except ClientError as error:
        if error_code(error) != "ModelError":
            raise
        status = int(_told(error, "OriginalStatusCode") or 500)
        # The toolkit in the container adds its traceback to the words of the model.
        said = str(_told(error, "OriginalMessage")).partition("Traceback (most recent")[0]
        said = " ".join(said.split())
        raise Refused(f"the model answered {status}: {said}", status) from error
    return answer["Body"].read(), answer["ContentType"]


def _when_ready(aws: Aws, endpoint: Endpoint, request: dict[str, Any]) -> dict[str, Any] | None:
    """What InvokeEndpoint answers; None while a serverless endpoint is getting its resources, which
    is an error that botocore does not retry.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
    """
    from botocore.exceptions import ClientError

    try:
        found: dict[str, Any] = aws.runtime.invoke_endpoint(EndpointName=endpoint.name, **request)
    except ClientError as error:
        if error_code(error) != "ModelNotReadyException":
            raise
        return None
    return found


def _told(error: Any, name: str) -> Any:
    return error.response.get(name, error.response["Error"].get(name, ""))


def _asynchronously(
    aws: Aws, endpoint: Endpoint, body: bytes, content_type: str, accept: str, at_most: float
) -> tuple[bytes, str]:
    """By way of S3: the requests in the folder `input/` beside the one for the answers.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-invoke-endpoint.html
    """
    config = aws.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint.config)
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    bucket, prefix = split_s3(output["S3OutputPath"])
    # infra/endpoint.yml lets the endpoint's role read requests from there.
    folder = prefix.rstrip("/").rpartition("/")[0]
    key = f"{folder}/input/{secrets.token_hex(16)}"
    encryption = (
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": output["KmsKeyId"]}
        if output.get("KmsKeyId")
        else {}
    )
    aws.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, **encryption)
    answer = aws.runtime.invoke_endpoint_async(
        EndpointName=endpoint.name,
        ContentType=content_type,
        Accept=accept,
        InputLocation=f"s3://{bucket}/{key}",
    )
    end = time.monotonic() + at_most
    pause = 0.1
    while True:
        if found := _object(aws, answer["OutputLocation"]):
            # Nobody promises that the object is marked as what it holds.
            return found, accept
        if answer.get("FailureLocation") and (found := _object(aws, answer["FailureLocation"])):
            said = found.decode("utf-8", "replace").partition("Traceback (most recent")[0]
            said = " ".join(said.split())
            # The container's status is in the service's words only, where it is told at all.
            told = re.search(r"error \((\d{3})\)", said)
            raise Refused(f"the model refused: {said}", int(told[1]) if told else 400)
        if time.monotonic() > end:
            raise MlopsError(
                f"{endpoint.name} has not answered within {at_most:.0f} s; "
                f"its answer will be {answer['OutputLocation']}"
            )
        time.sleep(pause)
        pause = min(5.0, pause * 1.5)


def _object(aws: Aws, uri: str) -> bytes | None:
    from botocore.exceptions import ClientError

    try:
        return objects.read(aws, uri)
    except ClientError as error:
        if error_code(error) not in ("NoSuchKey", "404"):
            raise
        return None
