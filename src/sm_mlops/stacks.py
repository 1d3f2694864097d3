"""CloudFormation: show change sets and events, name the first failure as the reason, and recover
a stack from any state.

Must not know what the stacks are for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sm_mlops import display, templates
from sm_mlops.aws import Aws, error_code, ignoring
from sm_mlops.display import pause, tell
from sm_mlops.errors import MlopsError, one_line
from sm_mlops.interruption import answered

DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")
# Never worked, or failed to be deleted: such a stack can only be deleted.
DEAD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
READY = (*DONE, "UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE")
STACK = "AWS::CloudFormation::Stack"
FORMATION = "cloudformation"
_PREPARING = ("CREATE_PENDING", "CREATE_IN_PROGRESS")
_CHANGE_SET_GONE = ("ChangeSetNotFound", "InvalidChangeSetStatus")
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


@dataclass(frozen=True)
class Stack:
    """A stack as DescribeStacks returns it. `parameters`, `tags` and `outputs` by name."""

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
    """A resource of a change set. `action`: added, modified, replaced, maybe replaced, removed."""

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
        """Return whether the resource itself failed, not because another one did."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason.lower()


@dataclass(frozen=True)
class Outcome:
    """`changes` is empty if the stack was up to date. `left` has the resources that the clean-up
    after a successful update could not delete."""

    changes: tuple[Change, ...]
    executed: bool
    left: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Resource:
    """A resource of a stack. `physical` is its physical ID."""

    name: str
    kind: str
    physical: str


class Overtaken(MlopsError):
    """Another operation on the stack came first; nothing was changed."""


class StackFailed(MlopsError):
    """An operation began and failed. The message is the reason of the first failed resource;
    `event` is that failure, None if only the stack itself gave a reason."""

    def __init__(self, message: str, event: Event | None) -> None:
        super().__init__(message)
        self.event = event


def describe(aws: Aws, name: str) -> Stack | None:
    """Return the stack of this name or ARN, None if it does not exist."""
    from botocore.exceptions import ClientError

    try:
        found = aws.client(FORMATION).describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error_code(error) == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    given = found.get("Parameters", ())
    return Stack(
        name=found["StackName"],
        arn=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={item["ParameterKey"]: item.get("ParameterValue", "") for item in given},
        tags={item["Key"]: item["Value"] for item in found.get("Tags", ())},
        outputs={item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", ())},
    )


def names(aws: Aws) -> list[str]:
    """Return the names of the stacks of the account and region."""
    return [found["StackName"] for found in aws.pages("describe_stacks", "Stacks", FORMATION)]


def resources(aws: Aws, stack: Stack) -> list[Resource]:
    """Return the resources that the stack has now."""
    operation, key = "list_stack_resources", "StackResourceSummaries"
    return [
        Resource(
            item["LogicalResourceId"], item["ResourceType"], item.get("PhysicalResourceId", "")
        )
        for item in aws.pages(operation, key, FORMATION, StackName=stack.arn)
        if item["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def deploy(
    aws: Aws,
    name: str,
    template: Path | str | None,
    parameters: Mapping[str, str | None],
    tags: Mapping[str, str],
    capabilities: Iterable[str],
    console: Console,
    *,
    execute: bool = True,
    continue_rollback: bool = False,
    imports: Iterable[Mapping[str, Any]] = (),
    had: Mapping[str, str] | None = None,
) -> Outcome:
    """Create or update the stack with this template and these parameters, and wait for the end.

    `template` is a file, its address in S3, or its text; without it the stack keeps its own. A
    parameter that is None keeps its value. With
    `execute=False` the change set is shown and deleted. `imports` are existing resources that the
    stack takes over; it must have no others then. `had` are the stack's tags when `tags` were
    computed, {} if there was none. Raises MlopsError if the stack cannot be changed in its present
    state, Overtaken if it no longer has those tags, StackFailed if the operation failed.
    """
    body = templates.body(template) if isinstance(template, Path) else template
    stack = make_ready(aws, name, console, continue_rollback=continue_rollback, execute=execute)
    change_set = f"mlops-{secrets.token_hex(6)}"
    request: dict[str, Any] = {
        "StackName": name,
        "ChangeSetName": change_set,
        # A retry after a lost answer creates no second one.
        "ClientToken": change_set,
        "ChangeSetType": "UPDATE" if stack and stack.status in READY else "CREATE",
        "Parameters": [_parameter(key, value) for key, value in parameters.items()],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        "Capabilities": list(capabilities),
        **_template(body),
    }
    if imports:
        request |= {"ChangeSetType": "IMPORT", "ResourcesToImport": list(imports)}
    formation = aws.client(FORMATION)
    with _alone(name):
        formation.create_change_set(**request)
    # From here on, CloudFormation discards the change set if anything else changes the stack.
    if had is not None and request["ChangeSetType"] == "UPDATE":
        now = describe(aws, name)
        if now is None or now.tags != had:
            _remove_change_set(aws, name, change_set)
            raise Overtaken(f"another operation has changed {name}: look at it again")
    changes, since = _carry_out(aws, name, change_set, console, execute)
    if since is None:
        return Outcome(changes, executed=False)
    began = describe(aws, name)
    assert began is not None
    ended, events = follow(aws, began, since, console, must_begin=True)
    if ended.status not in DONE:
        raise _failure(ended, events)
    left = tuple(event for event in events if event.status == "DELETE_FAILED")
    return Outcome(changes, executed=True, left=left)


def _carry_out(
    aws: Aws, name: str, change_set: str, console: Console, execute: bool
) -> tuple[tuple[Change, ...], str | None]:
    """Show what a change set changes, and execute it if that is wanted, or delete it. Return the
    changes, and the newest event before, None if it was not executed."""
    executed = False
    try:
        with _alone(name):
            changes = _changes(aws, name, change_set)
        if changes is None or not execute:
            return changes or (), None
        console.print(change_table(changes))
        since = newest_event(aws, name)
        start = aws.client(FORMATION).execute_change_set
        with _alone(name):
            answered(start, **_named(name, change_set), ClientRequestToken=change_set)
        executed = True
        return changes, since
    except KeyboardInterrupt as interruption:
        # It waited for this answer.
        executed = bool(interruption.args)
        raise
    finally:
        # Refused, interrupted, or a dry run.
        if not executed:
            _remove_change_set(aws, name, change_set)


def _named(name: str, change_set: str) -> dict[str, str]:
    """Return what names a change set: IAM compares its ARN, if it is named by that, with policies,
    and otherwise that of its stack, which the policies of roles list."""
    return {"StackName": name, "ChangeSetName": change_set}


def _template(given: str | None) -> dict[str, Any]:
    if given is None:
        return {"UsePreviousTemplate": True}
    return {"TemplateURL" if given.startswith("https://") else "TemplateBody": given}


def _parameter(name: str, value: str | None) -> dict[str, Any]:
    given = {"UsePreviousValue": True} if value is None else {"ParameterValue": value}
    return {"ParameterKey": name, **given}


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Explain CloudFormation's error when another operation on the stack came first.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        said = ("_IN_PROGRESS", "does not exist")
        busy = error_code(error) == "ValidationError" and any(word in str(error) for word in said)
        if not busy and error_code(error) not in _CHANGE_SET_GONE:
            raise
        raise Overtaken(
            f"another operation is changing {name}: wait for its end, then run the command again"
        ) from error


def make_ready(
    aws: Aws, name: str, console: Console, *, continue_rollback: bool, execute: bool = True
) -> Stack | None:
    """Return the stack once a change set can be made for it, None if it must be created.

    Wait for an operation in progress; delete a stack that never worked. Raises MlopsError with
    the command to run where a person has to decide.
    """
    while True:
        stack = describe(aws, name)
        if stack is None or stack.status in (*READY, "REVIEW_IN_PROGRESS"):
            if stack and stack.status == "REVIEW_IN_PROGRESS":
                tell(console, f"{name} is REVIEW_IN_PROGRESS: a change set was never executed")
            return stack
        if stack.busy:
            settle(aws, stack, console)
        elif stack.status in DEAD:
            if not execute:
                raise MlopsError(
                    f"{name} is {stack.status}: a deployment would delete and re-create it"
                )
            tell(console, f"{name} is {stack.status}: deleting it to create it again")
            delete(aws, stack, console)
        elif stack.status == "UPDATE_ROLLBACK_FAILED":
            if not continue_rollback or not execute:
                raise MlopsError(_stuck_rollback(aws, stack))
            tell(console, f"{name} is UPDATE_ROLLBACK_FAILED: continuing the rollback")
            since = newest_event(aws, stack.arn)
            aws.client(FORMATION).continue_update_rollback(StackName=stack.arn)
            ended, events = follow(aws, stack, since, console, must_begin=True)
            if ended.status == "UPDATE_ROLLBACK_FAILED":
                raise _failure(ended, events)
        else:
            raise MlopsError(
                f"{name} is {stack.status}, and cannot be updated: "
                f"aws cloudformation rollback-stack --stack-name {name}"
            )


def settle(aws: Aws, stack: Stack, console: Console) -> Stack | None:
    """Wait for the operation in progress, if there is one; return the stack as it is then."""
    if not stack.busy:
        return stack
    tell(console, f"{stack.name} is {stack.status}: waiting")
    follow(aws, stack, newest_event(aws, stack.arn), console)
    return describe(aws, stack.name)


def _stuck_rollback(aws: Aws, stack: Stack) -> str:
    rollback = takewhile(
        lambda event: event.status != "UPDATE_ROLLBACK_IN_PROGRESS", _newest_first(aws, stack.arn)
    )
    failed = [event for event in rollback if event.failed]
    why = f" because of {failed[-1].resource} ({one_line(failed[-1].reason)})" if failed else ""
    skip = f" --resources-to-skip {failed[-1].resource}" if failed else ""
    return (
        f"{stack.name} is UPDATE_ROLLBACK_FAILED: it could not return to the state before{why}. "
        "Fix that and add --continue-rollback; to skip what cannot be fixed: "
        f"aws cloudformation continue-update-rollback --stack-name {stack.name}{skip}"
    )


def delete(aws: Aws, stack: Stack, console: Console) -> None:
    """Delete the stack and wait for the end. Raises StackFailed if a resource remains."""
    since = newest_event(aws, stack.arn)
    aws.client(FORMATION).delete_stack(StackName=stack.arn)
    ended, events = follow(aws, stack, since, console, must_begin=True)
    if ended.status != "DELETE_COMPLETE":
        raise _failure(ended, events)


def _failure(stack: Stack, events: list[Event]) -> StackFailed:
    failed = next((event for event in events if event.failed and event.kind != STACK), None)
    if failed is None:
        # Canceled by a person, or by a rollback alarm.
        reasons = [event.reason for event in events if event.kind == STACK and event.reason]
        text = reasons[-1] if reasons else stack.reason
    else:
        text = f"{failed.resource}: {_message(failed.reason)}"
    return StackFailed(f"{stack.name} is {stack.status}: {one_line(text)}", failed)


def _message(reason: str) -> str:
    """Return the service's message without what CloudFormation's handlers put around it."""
    found = re.fullmatch(
        r'Resource handler returned message: "(.*)" \(RequestToken: .*\)', reason, re.DOTALL
    )
    text = found[1] if found else reason
    return re.sub(r" \(Service: \w+, Status Code: \d+, Request ID: [\w-]+.*\)$", "", text)


def _changes(aws: Aws, name: str, change_set: str) -> tuple[Change, ...] | None:
    """Wait for the change set; return its changes, None if there are none."""
    named = _named(name, change_set)
    describe_change_set = aws.client(FORMATION).describe_change_set
    began = time.monotonic()
    while (answer := describe_change_set(**named))["Status"] in _PREPARING:
        time.sleep(pause(began))
    if answer["Status"] != "CREATE_COMPLETE":
        reason = one_line(answer.get("StatusReason", ""))
        if any(text in reason for text in _NO_CHANGES):
            return None
        why = "; ".join(_invalid(aws, name, change_set)) or reason
        raise MlopsError(f"CloudFormation refuses the change set: {why}")
    found = aws.pages("describe_change_set", "Changes", FORMATION, **named)
    return tuple(_change(item["ResourceChange"]) for item in found)


def _invalid(aws: Aws, name: str, change_set: str) -> list[str]:
    """Return what CloudFormation's validation found, of which the change set itself says nothing.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html
    """
    from botocore.exceptions import ClientError

    request = {**_named(name, change_set), "Filters": {"FailedEvents": True}}
    try:
        found = aws.client(FORMATION).describe_events(**request)["OperationEvents"]
    except ClientError:  # The reason of the change set has to do.
        return []
    return [
        f"{event.get('LogicalResourceId', name)}: {one_line(event['ValidationStatusReason'])}"
        for event in found
        if event.get("ValidationStatusReason")
    ]


def _change(item: dict[str, Any]) -> Change:
    resource, kind = item["LogicalResourceId"], item["ResourceType"]
    if whole := {"Add": "added", "Remove": "removed", "Import": "imported"}.get(item["Action"]):
        return Change(whole, resource, kind)
    action = {"True": "replaced", "Conditional": "maybe replaced"}.get(
        item.get("Replacement", ""), "modified"
    )
    targets = [detail.get("Target", {}) for detail in item.get("Details", ())]
    because = [target.get("Name") or target.get("Attribute", "") for target in targets]
    return Change(action, resource, kind, tuple(dict.fromkeys(filter(None, because))))


def _remove_change_set(aws: Aws, name: str, change_set: str) -> None:
    """Delete the change set, and the empty stack that a first change set creates."""
    formation = aws.client(FORMATION)
    # Executing another change set deletes this one, and so does deleting the stack.
    with ignoring(*_CHANGE_SET_GONE, "ValidationError"):
        formation.delete_change_set(**_named(name, change_set))
    stack = describe(aws, name)
    if stack is None or stack.status != "REVIEW_IN_PROGRESS":
        return
    if not formation.list_change_sets(StackName=stack.arn)["Summaries"]:
        formation.delete_stack(StackName=stack.arn)


def newest_event(aws: Aws, name: str) -> str:
    """Return the ID of the newest event: later ones belong to the next operation."""
    events = aws.client(FORMATION).describe_stack_events(StackName=name)["StackEvents"]
    return str(events[0]["EventId"]) if events else ""


def _newest_first(aws: Aws, name: str) -> Iterator[Event]:
    for item in aws.pages("describe_stack_events", "StackEvents", FORMATION, StackName=name):
        yield Event(
            identifier=item["EventId"],
            at=item["Timestamp"],
            resource=item["LogicalResourceId"],
            kind=item["ResourceType"],
            physical=item.get("PhysicalResourceId", ""),
            status=item["ResourceStatus"],
            reason=item.get("ResourceStatusReason", ""),
        )


def _events(aws: Aws, name: str, since: str) -> list[Event]:
    """Return the events after `since`, the oldest first."""
    found = takewhile(lambda event: event.identifier != since, _newest_first(aws, name))
    return list(found)[::-1]


def follow(
    aws: Aws, stack: Stack, since: str, console: Console, *, must_begin: bool = False
) -> tuple[Stack, list[Event]]:
    """Show the events after `since` until no operation is in progress.

    With `must_begin` the end must be among those events: right after a request, the stack may
    still have its old status.
    """
    began, events = time.monotonic(), list[Event]()
    on_terminal = Live(console=console, refresh_per_second=8) if console.is_terminal else None
    with on_terminal or nullcontext() as live:
        while True:
            # The status first: once it is final, all events of the operation are there.
            now = describe(aws, stack.arn)
            new = _events(aws, stack.arn, events[-1].identifier if events else since)
            events += new
            if live is not None:
                live.update(event_table(events))
            else:
                print_events(console, new)
            if now is None or now.status == "DELETE_COMPLETE":
                return Stack(stack.name, stack.arn, "DELETE_COMPLETE"), events
            own = [event.status for event in events if event.physical == now.arn]
            ended = bool(own) and not own[-1].endswith("_IN_PROGRESS")
            if not now.status.endswith("_IN_PROGRESS") and (ended or not must_begin):
                return now, events
            time.sleep(pause(began))


def change_table(changes: Iterable[Change]) -> Table:
    changes = list(changes)
    view = display.table("change", "resource", "type")
    if any(item.because for item in changes):
        view.add_column("because of")
    for item in changes:
        because = [", ".join(item.because)] * (len(view.columns) - 3)
        view.add_row(display.colored(item.action), item.resource, item.kind, *because)
    return view


def print_events(console: Console, events: Iterable[Event]) -> None:
    for event in events:
        # CloudFormation reports each start twice: before and after its call to the service.
        if event.reason == "Resource creation Initiated":
            continue
        clock = event.at.astimezone().strftime("%H:%M:%S")
        reason = f"  {one_line(event.reason)}" if event.reason else ""
        tell(console, f"{clock}  {event.status:<28} {event.resource}{reason}")


def event_table(events: list[Event]) -> Table:
    """Return the state of each resource, in the order in which they began."""
    view = display.table("resource", "state", "time", "")
    first: dict[str, Event] = {}
    last: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.resource, event)
        before = last.get(event.resource)
        # Only the replaced physical resource is deleted; this one stays.
        replaced = before is not None and before.status == "UPDATE_COMPLETE"
        if event.failed or not (replaced and event.status.startswith("DELETE_")):
            last[event.resource] = event
    for name, event in last.items():
        seconds = (event.at - first[name].at).total_seconds()
        view.add_row(
            name,
            display.colored(event.status),
            f"{seconds:.0f} s" if seconds >= 1 else "",
            one_line(event.reason),
        )
    return view
