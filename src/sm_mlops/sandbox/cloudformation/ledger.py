"""The records of stacks: their state, events, names and exports.

Knows nothing of how a stack changes. A stack's record has the members that DescribeStacks shows
and, with names that start with '_', what the next operation needs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller

STACK, EVENT, CHANGE_SET = "Stack", "StackEvent", "ChangeSet"
# What an update replaces and its rollback brings back.
TARGET = (
    "Capabilities",
    "Description",
    "Outputs",
    "Parameters",
    "Tags",
    "_imports",
    "_template",
    "_values",
)


class Ledger:
    """Stacks and their events. Hold `lock` to change a record.

    `settle` writes other services' state to disk, so that no record is ahead of them after a kill.
    Do not call it while holding `lock`. `on_status` is called with a stack that has a new status.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.lock = store, store.lock
        self.settle: Callable[[], None] = lambda: None
        self.on_status: Callable[[Record], None] = lambda stack: None
        self._events: dict[str, list[Record]] = {}
        for event in store.all(EVENT).values():
            self._events.setdefault(event["StackId"], []).append(event)

    def stacks(self, caller: Caller) -> list[Record]:
        """Return the stacks of an account and region, oldest first, deleted ones as well."""
        return [
            stack
            for stack in list(self.store.all(STACK).values())
            if (stack["_account"], stack["_region"]) == (caller.account, caller.region)
        ]

    def find(self, name: str, caller: Caller) -> Record | None:
        """Return a stack by its id, or by name when it has not been deleted."""
        if name.startswith("arn:"):
            return self.store.get(STACK, name)
        for stack in self.stacks(caller):
            if stack["StackName"] == name and stack["StackStatus"] != "DELETE_COMPLETE":
                return stack
        return None

    def save(self, stack: Record) -> None:
        self.store.put(STACK, stack["StackId"], stack)

    def status(self, stack: Record, status: str, why: str | None = None) -> None:
        with self.lock:
            stack["StackStatus"] = status
            stack["StackStatusReason"] = why
            own = {
                "LogicalResourceId": stack["StackName"],
                "PhysicalResourceId": stack["StackId"],
                "ResourceType": "AWS::CloudFormation::Stack",
            }
            self.event(stack, own, status, why)
            self.save(stack)
        self.on_status(stack)

    def event(self, stack: Record, about: Record, status: str, why: str | None) -> None:
        with self.lock:
            events = self._events.setdefault(stack["StackId"], [])
            number = f"{len(events):06}"
            event: dict[str, Any] = {
                "StackId": stack["StackId"],
                "EventId": f"{about['LogicalResourceId']}-{status}-{uuid.uuid4()}",
                "StackName": stack["StackName"],
                "LogicalResourceId": about["LogicalResourceId"],
                "PhysicalResourceId": about.get("PhysicalResourceId", ""),
                "ResourceType": about["ResourceType"],
                "Timestamp": time.time(),
                "ResourceStatus": status,
            }
            if why:
                event["ResourceStatusReason"] = why
            if stack.get("_token"):
                event["ClientRequestToken"] = stack["_token"]
            events.append(event)
            self.store.put(EVENT, f"{stack['StackId']}#{number}", event)

    def events(self, stack: Record) -> list[Record]:
        """Return a stack's events, the newest first."""
        return self._events.get(stack["StackId"], [])[::-1]

    def exports(self, caller: Caller, without: str | None = None) -> dict[str, tuple[str, Record]]:
        """Return what stacks export, by name: value and stack."""
        found = {}
        for stack in self.stacks(caller):
            if stack["StackId"] != without and stack["StackStatus"] != "DELETE_COMPLETE":
                for output in stack.get("Outputs", []):
                    if "ExportName" in output:
                        found[output["ExportName"]] = (output["OutputValue"], stack)
        return found

    def importers(self, name: str, caller: Caller) -> list[str]:
        """Return the names of the stacks that import a value."""
        return [
            stack["StackName"]
            for stack in self.stacks(caller)
            if name in stack.get("_imports", []) and stack["StackStatus"] != "DELETE_COMPLETE"
        ]


def caller_of(stack: Record) -> Caller:
    return Caller(stack["_account"], stack["_region"], stack["_access_key"])
