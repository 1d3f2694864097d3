"""EventBridge Scheduler: schedules of the default group.

Targets are functions and the operations of SageMaker in `UNIVERSAL`; what no stack of ours needs is
refused by name. Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/
"""

from __future__ import annotations

import json
import re
import secrets

from sm_mlops.sandbox import clock, identities, policies, recurrence, wire
from sm_mlops.sandbox.services import JsonService, place
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented, partition, pick

SCHEDULE = "Schedule"
GROUP = "default"
SERVICE = "scheduler.amazonaws.com"
UNIVERSAL = {
    "sagemaker:startPipelineExecution": "StartPipelineExecution",
    "sagemaker:createTransformJob": "CreateTransformJob",
}
KEYWORD = re.compile(r"<aws\.scheduler\.([a-z-]+)>")
SETTINGS = ("ScheduleExpression", "State", "Description", "Target", "FlexibleTimeWindow")
MEMBERS = {*SETTINGS, "Name", "GroupName", "ScheduleExpressionTimezone", "ClientToken"}
TARGET_MEMBERS = {"Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig"}


class Schedules(JsonService):
    """Operations on schedules. Keys of records are ARNs."""

    service = "scheduler"

    def create_schedule(self, params: Params, caller: Caller) -> Params:
        """Answer CreateSchedule."""
        arn = _arn(params, caller)
        _check(params, caller)
        with self.store.lock:
            if self.store.get(SCHEDULE, arn) is not None:
                words = f"Schedule {params['Name']} already exists."
                raise ApiError("ConflictException", words, 409)
            return self._put(arn, params, caller, None)

    def update_schedule(self, params: Params, caller: Caller) -> Params:
        """Answer UpdateSchedule: what the request does not say gets its default."""
        _check(params, caller)
        with self.store.lock:
            known = self._find(params, caller)
            return self._put(known["Arn"], params, caller, known)

    def get_schedule(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._find(params, caller))

    def delete_schedule(self, params: Params, caller: Caller) -> Params:
        self.store.delete(SCHEDULE, self._find(params, caller)["Arn"])
        return {}

    def list_schedules(self, params: Params, caller: Caller) -> Params:
        """Answer ListSchedules, by name."""
        _arn({"Name": "", **params}, caller)
        rows = [
            row
            for row in self.mine(SCHEDULE, caller)
            if row["Name"].startswith(params.get("NamePrefix", ""))
            and row["State"] == params.get("State", row["State"])
        ]
        rows, token = wire.page(sorted(rows, key=lambda row: str(row["Name"])), params, 100)
        names = ("Arn", "GroupName", "Name", "State", "CreationDate", "LastModificationDate")
        return {
            "Schedules": [
                {**pick(row, *names), "Target": pick(row["Target"], "Arn")} for row in rows
            ],
            **token,
        }

    def _find(self, params: Params, caller: Caller) -> Record:
        found = self.store.get(SCHEDULE, _arn(params, caller))
        if found is None:
            words = f"Schedule {params['Name']} does not exist."
            raise ApiError("ResourceNotFoundException", words, 404)
        return found

    def _put(self, arn: str, params: Params, caller: Caller, known: Record | None) -> Params:
        now = clock.now()
        record: Record = {
            "Arn": arn,
            "Name": params["Name"],
            "GroupName": GROUP,
            "State": "ENABLED",
            "ActionAfterCompletion": "NONE",
            "ScheduleExpressionTimezone": "UTC",
            **pick(params, *SETTINGS),
            "CreationDate": known["CreationDate"] if known else now,
            "LastModificationDate": now,
            **place(caller),
        }
        self.store.put(SCHEDULE, arn, record)
        return {"ScheduleArn": arn}


def _arn(params: Params, caller: Caller) -> str:
    """Return a schedule's ARN. Raises ApiError for one of another group."""
    if params.get("GroupName", GROUP) != GROUP:
        raise _refused(f"schedule groups ({params['GroupName']})")
    return caller.arn(f"schedule/{GROUP}/{params['Name']}", "scheduler")


def _check(params: Params, caller: Caller) -> None:
    """Refuse what EventBridge Scheduler refuses, and by name what is not implemented."""
    unknown = sorted(set(params) - MEMBERS)
    if unknown:
        raise _refused(f"{', '.join(unknown)} of schedules")
    if params.get("ScheduleExpressionTimezone", "UTC") != "UTC":
        raise _refused(f"the time zone {params['ScheduleExpressionTimezone']} of schedules")
    if params["FlexibleTimeWindow"] != {"Mode": "OFF"}:
        raise _refused("a FlexibleTimeWindow of schedules")
    expression = params["ScheduleExpression"]
    if expression.startswith("at("):
        raise _refused("at(...) as ScheduleExpression")
    try:
        recurrence.parse(expression)
    except recurrence.InvalidExpression as error:
        raise wire.invalid(f"Invalid Schedule Expression {expression}: {error}.") from error
    _check_target(params["Target"], caller)


def _check_target(target: Params, caller: Caller) -> None:
    unknown = sorted(set(target) - TARGET_MEMBERS)
    if unknown:
        raise _refused(f"{', '.join(unknown)} of a schedule's Target")
    role = identities.role(target["RoleArn"], caller.region)
    source = group_arn(caller)
    if role is None or not policies.trusted(role, SERVICE, source):
        words = "must allow AWS EventBridge Scheduler to assume the role"
        raise wire.invalid(f"The execution role you provide {words}.")
    operation = universal(target["Arn"], caller.region)
    if operation is None and target["Arn"].split(":")[2:3] != ["lambda"]:
        raise _refused(f"{target['Arn']} as target of a schedule")
    if "Input" not in target:
        raise _refused("a Target without Input")
    sample = "2022-03-22T18:59:43Z"
    try:
        given = json.loads(filled(target["Input"], {"Arn": caller.arn("x", "scheduler")}, sample))
    except ValueError as error:
        raise wire.invalid(f"Invalid RequestJson provided. Reason: {error}") from error
    if operation is not None:
        wire.check(operation, given)


def universal(arn: str, region: str) -> str | None:
    """Return the operation of SageMaker that a universal target names, or None."""
    name = arn.removeprefix(f"arn:{partition(region)}:scheduler:::aws-sdk:")
    return UNIVERSAL.get(name)


def group_arn(caller: Caller) -> str:
    """Return what EventBridge Scheduler gives as aws:SourceArn: the group, not the schedule."""
    return caller.arn(f"schedule-group/{GROUP}", "scheduler")


def filled(text: str, schedule: Record, scheduled: str) -> str:
    """Return a target's input with the context attributes filled in. Raises ApiError."""
    values = {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": scheduled,
        "execution-id": secrets.token_hex(8),
        "attempt-number": "1",
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise wire.invalid(f"{found[0]} is no context attribute")
        return str(values[found[1]])

    return KEYWORD.sub(value, text)


def _refused(what: str) -> ApiError:
    return not_implemented(what, "ValidationException")
