"""SNS: what moto would answer wrongly is refused, messages are kept, and services publish as far as
a topic's policy and key let them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.deliveries import Undeliverable
from sm_mlops.sandbox.policies import service_may
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Params, not_implemented

MESSAGE = "Message"
PROTOCOLS = ("email", "sqs")
ATTRIBUTES = ("DisplayName", "KmsMasterKeyId", "Policy")
# Its policy lets only principals of the account use it.
MANAGED_KEY = "alias/aws/sns"
LARGEST_MESSAGE = 256 * 1024


class Topics:
    """The messages that have been published, oldest first."""

    def __init__(self, store: Store) -> None:
        self.store = store
        _fix_moto(self._keep)

    def messages(self) -> list[Record]:
        """Return each message with its time, topic and the addresses that it was sent to."""
        return list(self.store.all(MESSAGE).values())

    def _keep(self, topic: Any, message: str, subject: str | None) -> None:
        rows = topic.sns_backend._get_topic_subscriptions(topic)
        record = {
            "Time": clock.now(),
            "TopicArn": topic.arn,
            "To": [row.endpoint for row in rows if row.protocol == "email"],
            "Subject": subject or "AWS Notification Message",
            "Message": message,
        }
        with self.store.lock:
            self.store.put(MESSAGE, f"{len(self.store.all(MESSAGE)):06}", record)


def publish(arn: str, subject: str, message: str, service: str, source: str) -> None:
    """Publish for a service (cloudwatch.amazonaws.com), about the resource `source`.

    Raises Undeliverable when the topic's policy or its key does not let the service.
    """
    from moto.sns.models import sns_backends

    _, _, _, region, account, _ = arn.split(":", 5)
    found = sns_backends[account][region].topics.get(arn)
    if found is None:
        raise Undeliverable("NotFound", f"there is no topic {arn}")
    if not service_may(found.policy, service, "sns:Publish", arn, source):
        words = f"the policy of {arn} does not let {service} publish for {source}"
        raise Undeliverable("AuthorizationError", words)
    if str(found.kms_master_key_id).endswith(MANAGED_KEY):
        words = f"{MANAGED_KEY} of {arn} does not let {service} use it"
        raise Undeliverable("KMSAccessDenied", words)
    found.publish(message, subject[:100])


def _fix_moto(keep: Callable[[Any, str, str | None], None]) -> None:
    """Call a function with each message that moto's topics publish."""
    from moto.sns.models import Topic

    topic: Any = Topic
    publishes = getattr(topic, "sandbox_publishes", topic.publish)

    def published(
        self: Any, message: str, subject: str | None = None, *more: Any, **named: Any
    ) -> str:
        identity: str = publishes(self, message, subject, *more, **named)
        keep(self, message, subject)
        return identity

    topic.sandbox_publishes, topic.publish = publishes, published


# Requests.


def check(operation: str, params: Params) -> None:
    """Refuse a request that moto must not answer. Raises ApiError."""
    if operation == "Subscribe":
        if params.get("Protocol") not in PROTOCOLS:
            raise not_implemented(f"the protocol {params.get('Protocol')} of subscriptions")
        if params["Protocol"] == "email" and "@" not in str(params.get("Endpoint")):
            raise _invalid("Email address")
        if params.get("Attributes"):
            raise not_implemented("Attributes of sns:Subscribe")
    elif operation in ("CreateTopic", "SetTopicAttributes"):
        for name, value in _attributes(operation, params).items():
            if name not in ATTRIBUTES:
                raise not_implemented(f"{name} of topics")
            if name == "Policy":
                _check_policy(value)
    elif operation in ("Publish", "PublishBatch"):
        _check_message(operation, params)


def _attributes(operation: str, params: Params) -> Params:
    if operation == "SetTopicAttributes":
        return {str(params.get("AttributeName")): params.get("AttributeValue")}
    # A form's map: entries of key and value.
    return {each["key"]: each["value"] for each in params.get("Attributes") or []}


def _check_message(operation: str, params: Params) -> None:
    others = sorted(set(params) - {"TopicArn", "Subject", "Message", "Version"})
    if operation != "Publish" or others:
        raise not_implemented(f"{', '.join(others)} of sns:{operation}")
    subject = params.get("Subject")
    if subject is not None and not (0 < len(subject) <= 100 and subject.isprintable()):
        raise _invalid("Subject")
    if not 0 < len(str(params.get("Message", "")).encode()) <= LARGEST_MESSAGE:
        raise _invalid("Message")


def _check_policy(text: Any) -> None:
    try:
        found = json.loads(text)
    except (TypeError, ValueError) as error:
        raise _invalid("Policy Error: null") from error
    rows = found.get("Statement") if isinstance(found, dict) else None
    rows = [rows] if isinstance(rows, dict) else rows
    if not rows or any("Principal" not in row or "Resource" not in row for row in rows):
        raise _invalid("Policy statement must have a Principal and a Resource")


def _invalid(what: str) -> ApiError:
    return ApiError("InvalidParameter", f"Invalid parameter: {what}")
