"""Call the approval trigger's function for one version: for an approval that did not reach GitHub.

Must not know GitHub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.errors import MlopsError, one_line
from sm_mlops.registry import Version

FUNCTION = "sm-mlops-trigger"
QUEUE = "sm-mlops-failed-approvals"
# Of ten messages each.
ROUNDS = 20
NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


@dataclass(frozen=True)
class Started:
    """A deployment that the function has started. `run` is the URL of its run, empty if the server
    returns none; `cleared` counts the deleted failed approvals of this version."""

    version: int
    model_package_arn: str
    repository: str
    commit: str
    run: str
    cleared: int = 0


def replay(aws: Aws, version: Version) -> Started:
    """Have the function start the deployment of a version, even a second time.

    Raises MlopsError with the function's message if it started nothing.
    """
    event = {"detail": {"ModelPackageArn": version.arn, "Replay": True}}
    answer = None
    with ignoring("ResourceNotFoundException"):
        # No retry: a call whose answer is lost may have started a deployment.
        answer = aws.client("lambda", attempts=1).invoke(
            FunctionName=FUNCTION, Payload=json.dumps(event).encode()
        )
    if answer is None:
        raise MlopsError(
            f"account {aws.account} has no function {FUNCTION} in "
            f"{aws.settings.project.region}: {aws.command} bootstrap creates the platform"
        )
    said = json.loads(answer["Payload"].read())
    if answer.get("FunctionError"):
        why = one_line(said.get("errorMessage") or said.get("errorType") or "failed")
        raise MlopsError(f"{FUNCTION}: {why}; its log: aws logs tail /aws/lambda/{FUNCTION}")
    if not said.get("started"):
        raise MlopsError(f"{FUNCTION} started nothing: {said.get('why') or 'no reason given'}")
    return Started(
        version=version.version,
        model_package_arn=version.arn,
        repository=str(said.get("repository", "")),
        commit=str(said.get("commit", "")),
        run=str(said.get("run", "")),
        cleared=_clear(aws, version.arn),
    )


def _clear(aws: Aws, arn: str) -> int:
    """Delete the failed approvals of this version from the queue, which ends its alarm.

    Return how many; 0 without a queue or the permission to read it.
    """
    queues = aws.client("sqs")
    cleared = 0
    with ignoring(*DENIED, *NO_QUEUE):
        url = queues.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        for _ in range(ROUNDS):
            # Messages of other versions are soon visible again. Without a wait SQS asks only some
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
    return cleared


def _names(body: str) -> str:
    """Return the ARN in a message, an event or Lambda's record of one; empty for other messages."""
    try:
        content = json.loads(body)
        return str(content.get("requestPayload", content)["detail"]["ModelPackageArn"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
