"""CloudFormation as a person follows it: a change set to read, events as they happen, the first
failure as the reason, and a way out of every state a stack can be stuck in.

Must not know what the stacks are for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sm_mlops.aws import Aws, error_code
from sm_mlops.console import tell
from sm_mlops.errors import MlopsError

# Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
TEMPLATE_BYTES = 51_200
_REASONS = re.compile(r"^( +)Metadata:\n\1  checkov:\n(?:\1    .*\n)+", re.MULTILINE)
DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
# Never was a working stack, or is to be none any more: nothing can be done with it but delete it.
DEAD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
READY = (*DONE, "UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE")
STACK = "AWS::CloudFormation::Stack"
_CHANGE_SET_GONE = ("ChangeSetNotFound", "InvalidChangeSetStatus")
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True)
class Stack:
    """What DescribeStacks says. `parameters`, `tags` and `outputs` by their names."""

    name: str
    arn: str
    status: str
    reason: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"


@dataclass(frozen=True)
class Change:
    """One line of a change set. `action`: added, modified, replaced, maybe replaced, removed."""

    action: str
    resource: str
    kind: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    identifier: str
    at: datetime
    resource: str
    kind: str
    physical: str
    status: str
    reason: str

    @property
    def failed(self) -> bool:
        """Failed by itself; what CloudFormation broke off because of another did not."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason.lower()


@dataclass(frozen=True)
class Outcome:
    """`changes` is empty when the stack already was as wanted. `left`: what the clean-up after a
    successful update could not remove."""

    stack: Stack
    changes: tuple[Change, ...]
    executed: bool
    left: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Resource:
    """A resource of a stack and where the service keeps it."""

    name: str
    kind: str
    physical: str
    status: str


class StackFailed(MlopsError):
    """An operation began and did not end well. The message is the first failed resource's reason;
    `event` is that failure, None where only the stack itself gave one."""

    def __init__(self, message: str, event: Event | None, began: datetime | None) -> None:
        super().__init__(message)
        self.event, self.began = event, began


def describe(aws: Aws, name: str) -> Stack | None:
    """The stack of this name or ARN; None when there is none."""
    from botocore.exceptions import ClientError

    try:
        found = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error_code(error) == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return Stack(
        name=found["StackName"],
        arn=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={
            item["ParameterKey"]: item.get("ParameterValue", "")
            for item in found.get("Parameters", ())
        },
        tags={item["Key"]: item["Value"] for item in found.get("Tags", ())},
        outputs={item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", ())},
    )


def resources(aws: Aws, stack: Stack) -> list[Resource]:
    """What the stack holds now."""
    pages = aws.client("cloudformation").get_paginator("list_stack_resources")
    return [
        Resource(
            item["LogicalResourceId"],
            item["ResourceType"],
            item.get("PhysicalResourceId", ""),
            item["ResourceStatus"],
        )
        for page in pages.paginate(StackName=stack.arn)
        for item in page["StackResourceSummaries"]
        if item["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def deploy(
    aws: Aws,
    name: str,
    template: Path | None,
    parameters: Mapping[str, str | None],
    tags: Mapping[str, str],
    capabilities: Iterable[str],
    console: Console,
    *,
    execute: bool = True,
    continue_rollback: bool = False,
) -> Outcome:
    """Brings the stack to this template and these parameters, and follows it to its end.

    Without `template` the stack keeps the one it has; a parameter that is None keeps its value.
    With `execute=False` the change set is shown and removed again. Raises MlopsError when the
    stack cannot be changed as it is, StackFailed when it could not be brought to the new state.
    """
    body = _body(template) if template else None
    stack = make_ready(aws, name, console, continue_rollback=continue_rollback, execute=execute)
    change_set = f"mlops-{secrets.token_hex(6)}"
    request: dict[str, Any] = {
        "StackName": name,
        "ChangeSetName": change_set,
        # Asked for twice, because the first answer got lost, it is made once.
        "ClientToken": change_set,
        "ChangeSetType": "UPDATE" if stack and stack.status in READY else "CREATE",
        "Parameters": [
            {"ParameterKey": key, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": key, "ParameterValue": value}
            for key, value in parameters.items()
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        "Capabilities": list(capabilities),
        **({"TemplateBody": body} if body else {"UsePreviousTemplate": True}),
    }
    formation = aws.client("cloudformation")
    with _alone(name):
        arn = formation.create_change_set(**request)["Id"]
    try:
        changes = _changes(aws, arn)
        if changes is None or not execute:
            return Outcome(stack or Stack(name, "", ""), changes or (), executed=False)
        console.print(change_table(changes))
        since = newest_event(aws, name)
        with _alone(name):
            formation.execute_change_set(ChangeSetName=arn, ClientRequestToken=change_set)
        arn = ""
    finally:
        # Left behind by a refusal, an interruption, or because it was for looking only.
        if arn:
            _remove_change_set(aws, arn, name)
    began = describe(aws, name)
    assert began is not None
    ended, events = follow(aws, began, since, console, must_begin=True)
    if ended.status not in DONE:
        raise _failure(ended, events)
    left = tuple(event for event in events if event.status == "DELETE_FAILED")
    return Outcome(ended, changes, executed=True, left=left)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Tells what CloudFormation answers when somebody else's operation on the stack was first.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        busy = error_code(error) == "ValidationError" and "_IN_PROGRESS" in str(error)
        if not busy and error_code(error) not in _CHANGE_SET_GONE:
            raise
        raise MlopsError(
            f"{name} is being changed by somebody else, who began after this did: look at what "
            "comes of it, then give the same command again"
        ) from error


def _body(template: Path) -> str:
    text = template.read_text(encoding="utf-8")
    if len(text.encode()) > TEMPLATE_BYTES:
        # Comments are for people, and reasons for checkov; CloudFormation counts them as well.
        text = "".join(
            line
            for line in text.splitlines(keepends=True)
            if line.strip() and not line.lstrip().startswith("# ")
        )
        text = _REASONS.sub("", text)
    if len(text.encode()) > TEMPLATE_BYTES:
        raise MlopsError(
            f"{template.name} has {len(text.encode()):,} bytes without its comments; "
            f"CloudFormation takes {TEMPLATE_BYTES:,}"
        )
    return text


def make_ready(
    aws: Aws, name: str, console: Console, *, continue_rollback: bool, execute: bool = True
) -> Stack | None:
    """The stack in a state that a change set can begin from; None when it is to be created.

    Waits for an operation that is under way and deletes a stack that never came to life, telling
    so. Raises MlopsError with what to do where that is a person's decision.
    """
    while True:
        stack = describe(aws, name)
        if stack is None or stack.status in (*READY, "REVIEW_IN_PROGRESS"):
            if stack and stack.status == "REVIEW_IN_PROGRESS":
                tell(console, f"{name} is REVIEW_IN_PROGRESS: an earlier change set was never run")
            return stack
        if stack.busy:
            tell(console, f"{name} is {stack.status}: waiting for that to end")
            follow(aws, stack, newest_event(aws, stack.arn), console)
        elif stack.status in DEAD:
            if not execute:
                raise MlopsError(
                    f"{name} is {stack.status}: a deployment would delete it and create it anew"
                )
            tell(console, f"{name} is {stack.status}: deleting it to create it anew")
            delete(aws, stack, console)
        elif stack.status == "UPDATE_ROLLBACK_FAILED":
            if not continue_rollback or not execute:
                raise MlopsError(_stuck_rollback(aws, stack))
            tell(console, f"{name} is UPDATE_ROLLBACK_FAILED: continuing the rollback")
            _continue_rollback(aws, stack, console)
        else:
            raise MlopsError(
                f"{name} is {stack.status}, from which no deployment can begin: "
                f"aws cloudformation rollback-stack --stack-name {name}"
            )


def _stuck_rollback(aws: Aws, stack: Stack) -> str:
    failed = [event for event in _events(aws, stack.arn, last_rollback_only=True) if event.failed]
    why = f" because of {failed[0].resource} ({_one_line(failed[0].reason)})" if failed else ""
    skip = f" --resources-to-skip {failed[0].resource}" if failed else ""
    return (
        f"{stack.name} is UPDATE_ROLLBACK_FAILED: it could not return to the state before{why}. "
        "Mend that and add --continue-rollback; what cannot be mended is left out with: "
        f"aws cloudformation continue-update-rollback --stack-name {stack.name}{skip}"
    )


def _continue_rollback(aws: Aws, stack: Stack, console: Console) -> None:
    since = newest_event(aws, stack.arn)
    aws.client("cloudformation").continue_update_rollback(StackName=stack.arn)
    ended, events = follow(aws, stack, since, console, must_begin=True)
    if ended.status == "UPDATE_ROLLBACK_FAILED":
        raise _failure(ended, events)


def delete(aws: Aws, stack: Stack, console: Console) -> tuple[Event, ...]:
    """Deletes the stack and follows that to its end. Raises StackFailed when something stays."""
    since = newest_event(aws, stack.arn)
    aws.client("cloudformation").delete_stack(StackName=stack.arn)
    ended, events = follow(aws, stack, since, console, must_begin=True)
    if ended.status != "DELETE_COMPLETE":
        raise _failure(ended, events)
    return tuple(events)


def _failure(stack: Stack, events: list[Event]) -> StackFailed:
    failed = next((event for event in events if event.failed and event.kind != STACK), None)
    reason = stack.reason
    if failed is None:
        # Cancelled by a person, or by an alarm that watches over the stack.
        said = [event.reason for event in events if event.kind == STACK and event.reason]
        reason = said[-1] if said else stack.reason
    words = f"{failed.resource}: {_own_words(failed.reason)}" if failed else reason
    began = events[0].at if events else None
    return StackFailed(f"{stack.name} is {stack.status}: {_one_line(words)}", failed, began)


def _own_words(reason: str) -> str:
    """The service's message, without what CloudFormation's handlers put around it."""
    found = re.fullmatch(
        r'Resource handler returned message: "(.*)" \(RequestToken: .*\)', reason, re.DOTALL
    )
    words = found[1] if found else reason
    return re.sub(r" \(Service: \w+, Status Code: \d+, Request ID: [\w-]+.*\)$", "", words)


# Change sets


def _changes(aws: Aws, arn: str) -> tuple[Change, ...] | None:
    """What the change set would do, once it is computed; None for nothing at all."""
    formation = aws.client("cloudformation")
    began = time.monotonic()
    while True:
        answer = formation.describe_change_set(ChangeSetName=arn)
        if answer["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            break
        time.sleep(pause(began))
    if answer["Status"] != "CREATE_COMPLETE":
        reason = _one_line(answer.get("StatusReason", ""))
        if any(words in reason for words in _NO_CHANGES):
            return None
        raise MlopsError(f"CloudFormation refuses the change set: {reason}")
    found = [_change(item["ResourceChange"]) for item in answer["Changes"]]
    while token := answer.get("NextToken"):
        answer = formation.describe_change_set(ChangeSetName=arn, NextToken=token)
        found += [_change(item["ResourceChange"]) for item in answer["Changes"]]
    return tuple(found)


def _change(item: dict[str, Any]) -> Change:
    action = {"Add": "added", "Remove": "removed", "Import": "imported"}.get(
        item["Action"], "modified"
    )
    if item.get("Replacement") == "True":
        action = "replaced"
    elif item.get("Replacement") == "Conditional":
        action = "maybe replaced"
    because = []
    for detail in item.get("Details", ()):
        target = detail.get("Target", {})
        because.append(target.get("Name") or target.get("Attribute", ""))
    return Change(
        action,
        item["LogicalResourceId"],
        item["ResourceType"],
        tuple(dict.fromkeys(filter(None, because))) if item["Action"] == "Modify" else (),
    )


_ACTIONS = {
    "added": "green",
    "modified": "yellow",
    "replaced": "magenta",
    "maybe replaced": "magenta",
    "removed": "red",
}


def change_table(changes: Iterable[Change]) -> Table:
    changes = list(changes)
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("change", "resource", "type"):
        view.add_column(heading)
    if any(item.because for item in changes):
        view.add_column("because of")
    for item in changes:
        colour = _ACTIONS.get(item.action, "dim")
        because = [escape(", ".join(item.because))] * (len(view.columns) - 3)
        view.add_row(f"[{colour}]{item.action}[/]", item.resource, item.kind, *because)
    return view


def _remove_change_set(aws: Aws, arn: str, name: str) -> None:
    """And the empty stack that a first change set makes."""
    from botocore.exceptions import ClientError

    formation = aws.client("cloudformation")
    try:
        formation.delete_change_set(ChangeSetName=arn)
    except ClientError as error:
        # Another one, executed meanwhile, has taken this one with it.
        if error_code(error) not in _CHANGE_SET_GONE:
            raise
    stack = describe(aws, name)
    if stack is None or stack.status != "REVIEW_IN_PROGRESS":
        return
    if not formation.list_change_sets(StackName=stack.arn)["Summaries"]:
        formation.delete_stack(StackName=stack.arn)


# Events


def newest_event(aws: Aws, name: str) -> str:
    """Its identifier: what is newer belongs to what is started next."""
    events = aws.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return str(events[0]["EventId"]) if events else ""


def _events(
    aws: Aws, name: str, since: str = "", *, last_rollback_only: bool = False
) -> list[Event]:
    """The events after the one called `since`, the oldest first."""
    found: list[Event] = []
    for item in _newest_first(aws, name):
        if item["EventId"] == since:
            break
        event = Event(
            identifier=item["EventId"],
            at=item["Timestamp"],
            resource=item["LogicalResourceId"],
            kind=item["ResourceType"],
            physical=item.get("PhysicalResourceId", ""),
            status=item["ResourceStatus"],
            reason=item.get("ResourceStatusReason", ""),
        )
        found.append(event)
        if last_rollback_only and event.status == "UPDATE_ROLLBACK_IN_PROGRESS":
            break
    return found[::-1]


def _newest_first(aws: Aws, name: str) -> Iterator[dict[str, Any]]:
    pages = aws.client("cloudformation").get_paginator("describe_stack_events")
    for page in pages.paginate(StackName=name):
        yield from page["StackEvents"]


def follow(
    aws: Aws, stack: Stack, since: str, console: Console, *, must_begin: bool = False
) -> tuple[Stack, list[Event]]:
    """Shows what happens after the event `since` until nothing is under way any more.

    With `must_begin` the end must be among those events: right after a request the stack may
    still have the status it had.
    """
    if not console.is_terminal:
        return _until_settled(
            aws, stack, since, must_begin, lambda events, new: _tell_events(console, new)
        )
    with Live(console=console, refresh_per_second=8) as live:
        return _until_settled(
            aws, stack, since, must_begin, lambda events, new: live.update(event_table(events))
        )


def _until_settled(
    aws: Aws,
    stack: Stack,
    since: str,
    must_begin: bool,
    show: Callable[[list[Event], list[Event]], None],
) -> tuple[Stack, list[Event]]:
    began = time.monotonic()
    events: list[Event] = []
    while True:
        # The state first: all events of an operation are there when its last state is.
        now = describe(aws, stack.arn)
        new = _events(aws, stack.arn, events[-1].identifier if events else since)
        events += new
        show(events, new)
        if now is None or now.status == "DELETE_COMPLETE":
            return Stack(stack.name, stack.arn, "DELETE_COMPLETE"), events
        if _settled(now) and (_told_end(now, events) or not must_begin):
            return now, events
        time.sleep(pause(began))


def _settled(stack: Stack) -> bool:
    return not stack.busy and stack.status != "REVIEW_IN_PROGRESS"


def _told_end(stack: Stack, events: list[Event]) -> bool:
    own = [event.status for event in events if event.physical == stack.arn]
    return bool(own) and not own[-1].endswith("_IN_PROGRESS")


def _tell_events(console: Console, events: list[Event]) -> None:
    for event in events:
        # CloudFormation tells each beginning twice: before and after it has asked the service.
        if event.reason == "Resource creation Initiated":
            continue
        clock = event.at.astimezone().strftime("%H:%M:%S")
        reason = f"  {_one_line(event.reason)}" if event.reason else ""
        tell(console, f"{clock}  {event.status:<28} {event.resource}{reason}")


def event_table(events: list[Event]) -> Table:
    """The state of each resource, in the order in which they began."""
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("resource", "state", "time", ""):
        view.add_column(heading)
    first: dict[str, Event] = {}
    last: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.resource, event)
        before = last.get(event.resource)
        # The one that was replaced goes; the resource of this name stays.
        replaced = before is not None and before.status == "UPDATE_COMPLETE"
        if event.failed or not (replaced and event.status.startswith("DELETE_")):
            last[event.resource] = event
    for name, event in last.items():
        seconds = (event.at - first[name].at).total_seconds()
        view.add_row(
            name,
            f"[{_colour(event.status)}]{event.status}[/]",
            f"{seconds:.0f} s" if seconds >= 1 else "",
            escape(_one_line(event.reason)),
        )
    return view


def _colour(status: str) -> str:
    if status.endswith("_FAILED") or "ROLLBACK" in status:
        return "red"
    return "green" if status.endswith("_COMPLETE") else "yellow"


def pause(began: float) -> float:
    """Seconds until the next look: quick at first, for the sandbox, and gentle on the API later."""
    return min(5.0, max(0.2, (time.monotonic() - began) / 30))


def _one_line(text: str) -> str:
    return " ".join(text.split())
