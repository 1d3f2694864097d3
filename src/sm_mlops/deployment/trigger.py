"""The approval trigger by hand: its function, called for one version, and what came of it.

For approvals that found GitHub out of order. Must not know GitHub: what the function says is told.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sm_mlops.aws import Aws, error_code
from sm_mlops.errors import MlopsError
from sm_mlops.registry import Version

FUNCTION = "sm-mlops-trigger"
QUEUE = "sm-mlops-failed-approvals"
# So many times ten messages are looked through; a queue holds more only where nobody looked for
# weeks.
ROUNDS = 20


@dataclass(frozen=True)
class Started:
    """A deployment the function has started. `run` is the address of its run, "" where the server
    tells none; `cleared` counts the failed approvals of this version that are done with."""

    version: int
    model_package_arn: str
    repository: str
    commit: str
    run: str
    cleared: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def replay(aws: Aws, version: Version) -> Started:
    """Lets the function start the deployment of a version, also where it has done so before.

    Raises MlopsError with what the function says where nothing was started.
    """
    from botocore.exceptions import ClientError

    event = {"detail": {"ModelPackageArn": version.arn, "Replay": True}}
    try:
        # Once: a call whose answer got lost may have started a deployment.
        answer = aws.client("lambda", attempts=1).invoke(
            FunctionName=FUNCTION, Payload=json.dumps(event).encode()
        )
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        raise MlopsError(
            f"account {aws.account} has no function {FUNCTION} in "
            f"{aws.settings.project.region}: {aws.command} bootstrap makes the platform"
        ) from error
    said = _content(answer["Payload"].read())
    if answer.get("FunctionError"):
        words = " ".join(str(said.get("errorMessage", "")).split())
        raise MlopsError(
            f"{FUNCTION}: {words or said.get('errorType') or 'failed without a word'}; its log: "
            f"aws logs tail /aws/lambda/{FUNCTION}"
        )
    if not said.get("started"):
        raise MlopsError(f"{FUNCTION} started nothing: {said.get('why') or 'it does not say why'}")
    return Started(
        version=version.version,
        model_package_arn=version.arn,
        repository=str(said.get("repository", "")),
        commit=str(said.get("commit", "")),
        run=str(said.get("run", "")),
        cleared=_clear(aws, version.arn),
    )


def _content(payload: bytes) -> dict[str, Any]:
    try:
        said = json.loads(payload)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {}


def _clear(aws: Aws, arn: str) -> int:
    """Takes the failed approvals of this version off the queue, whose alarm rings until then.

    Returns how many; 0 also where there is no queue or no right to it, which stops nothing.
    """
    from botocore.exceptions import ClientError

    queues = aws.client("sqs")
    cleared = 0
    try:
        url = queues.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        for _ in range(ROUNDS):
            # Those of other versions are there again in a moment. Without a wait SQS asks only some
            # of its servers.
            found = queues.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=10, WaitTimeSeconds=1
            ).get("Messages", [])
            if not found:
                break
            for message in found:
                if _names(message["Body"]) == arn:
                    queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                    cleared += 1
    except ClientError as error:
        if error_code(error) not in (
            "AccessDenied",
            "AccessDeniedException",
            "AWS.SimpleQueueService.NonExistentQueue",
            "QueueDoesNotExist",
        ):
            raise
    return cleared


def _names(body: str) -> str:
    """The ARN in a message: of Lambda, which tells request and answer, or an event as it was."""
    told = _content(body.encode())
    event = told.get("requestPayload", told)
    detail = event.get("detail") if isinstance(event, dict) else None
    return str(detail.get("ModelPackageArn", "")) if isinstance(detail, dict) else ""
