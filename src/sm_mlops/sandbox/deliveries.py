"""Messages that services send to queues: dead letters of rules and destinations of functions.

Writes into moto's SQS on behalf of the service.
"""

from __future__ import annotations

import json
from typing import Any

from sm_mlops.sandbox.policies import service_may


class Undeliverable(Exception):
    """Why a message could not be delivered; `code` as EventBridge reports it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def send(arn: str, body: str, attributes: dict[str, str]) -> None:
    """Send a message to the queue of this ARN. Raises Undeliverable."""
    _, _, _, region, account, name = arn.split(":", 5)
    # Some attributes are numbers by the services' documentation.
    shown = {
        key: {"DataType": "Number" if value.isdigit() else "String", "StringValue": value}
        for key, value in attributes.items()
    }
    _queue(arn)
    _sqs(account, region).send_message(name, body, message_attributes=shown)


def check_queue(arn: str, service: str, source: str) -> None:
    """Raise Undeliverable when a queue's policy does not let a service send to it."""
    policy = _queue(arn).policy or {}
    if not service_may(policy, service, "sqs:SendMessage", arn, source):
        raise Undeliverable(
            "NO_PERMISSIONS", f"the queue policy of {arn} does not let {service} send messages"
        )


def waiting(arn: str) -> int:
    return int(_queue(arn).approximate_number_of_messages)


def render(value: Any) -> str:
    """Return an event as services write it into a message."""
    return json.dumps(value, separators=(",", ":"))


def _queue(arn: str) -> Any:
    _, _, _, region, account, name = arn.split(":", 5)
    found = _sqs(account, region).queues.get(name)
    if found is None:
        raise Undeliverable("RESOURCE_NOT_FOUND", f"there is no queue {arn}")
    return found


def _sqs(account: str, region: str) -> Any:
    from moto.sqs.models import sqs_backends

    return sqs_backends[account][region]
