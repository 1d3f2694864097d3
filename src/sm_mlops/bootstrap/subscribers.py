"""Who gets the platform's messages: subscriptions to its topic, as its setting Subscribers says.

Not CloudFormation's: it cannot iterate over a list, and would ask everyone to confirm again whose
place in the list changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import needs, platform
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo

NAME = "Subscribers"
# Instead of an ARN, until someone confirms.
PENDING = "PendingConfirmation"


@dataclass
class Subscribers(Part):
    """A part of the plan. Whom the setting no longer names unsubscribes by the link in a message:
    others may subscribe by themselves, so that nothing is deleted here."""

    aws: Aws
    options: platform.Options

    def look(self) -> list[Item]:
        return list(self._items())

    def _items(self) -> Iterator[Item]:
        found = platform.outputs(self.aws) or {}
        given = self.options.parameters.get(NAME, found.get(NAME, ""))
        topic = found.get("TopicArn", "")
        there = self._subscribed(topic) if topic else {}
        for who in needs.items(given):
            what, state = f"messages to {who}", there.get(who)
            if state is None:
                yield Item(what, Todo.CREATE)
            elif state == PENDING:
                how = f"{who} confirms the subscription that AWS asked for"
                yield Item(what, Todo.PERSON, "not confirmed yet", how)
            else:
                yield Item(what, Todo.NOTHING)

    def _subscribed(self, topic: str) -> dict[str, str]:
        """Return the ARN, or `PENDING`, of each subscription by its endpoint."""
        pages = self.aws.client("sns").get_paginator("list_subscriptions_by_topic")
        return {
            item["Endpoint"]: item["SubscriptionArn"]
            for page in pages.paginate(TopicArn=topic)
            for item in page["Subscriptions"]
        }

    def act(self, tell: Tell) -> None:
        found = platform.outputs(self.aws) or {}
        topic = found.get("TopicArn", "")
        if not topic:
            return
        there = self._subscribed(topic)
        for who in needs.items(found.get(NAME, "")):
            if who not in there:
                self.aws.client("sns").subscribe(
                    TopicArn=topic, Protocol=protocol(who), Endpoint=who
                )
                tell(f"{'subscribed':<12} {who}")


def protocol(endpoint: str) -> str:
    """Return how SNS reaches an address that the template allows."""
    if endpoint.startswith("arn:"):
        return endpoint.split(":")[2]
    return "https" if endpoint.startswith("https://") else "email"
