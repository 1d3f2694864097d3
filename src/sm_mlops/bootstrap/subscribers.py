"""Who gets the platform's messages: subscriptions to its topic."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import platform
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.errors import MlopsError

# Instead of an ARN, until someone confirms.
PENDING = "PendingConfirmation"
_PROTOCOLS = {
    "email": re.compile(r"[^@\s,:/]{1,64}@[a-zA-Z0-9.-]{1,253}"),
    "https": re.compile(r"https://[^\s@]{1,1000}"),
    "lambda": re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[\w:-]{1,200}"),
    "sqs": re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[\w.-]{1,80}"),
}


@dataclass
class Subscribers(Part):
    """A part of the plan. It deletes nothing: others may have subscribed by themselves, and each
    message has a link that ends a subscription."""

    aws: Aws
    wanted: tuple[str, ...] = ()

    def look(self) -> list[Item]:
        there = self._subscribed(self._topic())
        for who in self.wanted:
            protocol(who)
        items = []
        for who in dict.fromkeys((*there, *self.wanted)):
            what, state = f"messages to {who}", there.get(who)
            if state is None:
                items.append(Item(what, Todo.CREATE))
            elif state == PENDING:
                how = f"{who} has to confirm the subscription; AWS has asked for that"
                items.append(Item(what, Todo.PERSON, "not confirmed yet", how))
            else:
                items.append(Item(what, Todo.NOTHING))
        return items

    def _topic(self) -> str:
        return (platform.outputs(self.aws) or {}).get("TopicArn", "")

    def _subscribed(self, topic: str) -> dict[str, str]:
        """Return the ARN, or `PENDING`, of each subscription by its endpoint."""
        if not topic:
            return {}
        operation, key = "list_subscriptions_by_topic", "Subscriptions"
        rows = self.aws.pages(operation, key, "sns", TopicArn=topic)
        # Who has ended a subscription is listed for days.
        there = (item for item in rows if item["SubscriptionArn"] != "Deleted")
        return {item["Endpoint"]: item["SubscriptionArn"] for item in there}

    def act(self, tell: Tell) -> None:
        topic = self._topic()
        there = self._subscribed(topic)
        for who in dict.fromkeys(self.wanted):
            if topic and who not in there:
                self.aws.client("sns").subscribe(
                    TopicArn=topic, Protocol=protocol(who), Endpoint=who
                )
                tell(f"{'subscribed':<12} {who}")


def protocol(endpoint: str) -> str:
    """Return how SNS reaches an address. Raise MlopsError if it does not."""
    for name, pattern in _PROTOCOLS.items():
        if pattern.fullmatch(endpoint):
            return name
    raise MlopsError(
        f"--subscriber {endpoint!r}: must be an e-mail address, an https address, or the ARN of a "
        "Lambda function or SQS queue"
    )
