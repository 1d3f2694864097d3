"""EventBridge Scheduler: schedules of the default group.

Targets are functions and the operations of SageMaker in `UNIVERSAL`; what no stack of ours needs is
refused by name; what fails is logged and not tried again. Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sm_mlops.sandbox import clock, grants, identities, policies, recurrence, wire
from sm_mlops.sandbox.deliveries import Undeliverable
from sm_mlops.sandbox.functions import Functions
from sm_mlops.sandbox.services import JsonService, place
from sm_mlops.sandbox.storage import Record, Store
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
SESSION = "EventBridgeScheduler"
TARGET_MEMBERS = {"Arn", "RoleArn", "Input", "RetryPolicy"}
log = logging.getLogger(__name__)


class Schedules(JsonService):
    """Operations on schedules, and the thread that fires them. Keys of records are ARNs.

    `client` makes a client of a service for a region, with the rights of a key. A record's
    `_begin` is when its rate begins, `_after` the last moment that it has been fired for.
    """

    service = "scheduler"

    def __init__(
        self, store: Store, functions: Functions, client: Callable[[str, str, str], Any]
    ) -> None:
        super().__init__(store)
        self.functions, self._client = functions, client
        self._changed = threading.Event()
        self._closing = False
        self._turn = threading.Lock()

    # Operations.

    def create_schedule(self, params: Params, caller: Caller) -> Params:
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
        with self.store.lock:
            self.store.delete(SCHEDULE, self._find(params, caller)["Arn"])
        return {}

    def list_schedules(self, params: Params, caller: Caller) -> Params:
        _arn({"Name": "", **params}, caller)
        if {"NamePrefix", "State"} & set(params):
            raise not_implemented("scheduler:ListSchedules with NamePrefix or State")
        rows = sorted(self.mine(SCHEDULE, caller), key=lambda row: str(row["Name"]))
        rows, token = wire.page(rows, params, 100)
        return {"Schedules": [pick(row, "Arn", "Name", "State") for row in rows], **token}

    def _find(self, params: Params, caller: Caller) -> Record:
        words = f"Schedule {params['Name']} does not exist."
        error = ApiError("ResourceNotFoundException", words, 404)
        return self.store.find(SCHEDULE, _arn(params, caller), error)

    def _put(self, arn: str, params: Params, caller: Caller, known: Record | None) -> Params:
        now = clock.now()
        record: Record = {
            "Arn": arn,
            "Name": params["Name"],
            "GroupName": GROUP,
            "State": "ENABLED",
            "ScheduleExpressionTimezone": "UTC",
            **pick(params, *SETTINGS),
            **place(caller),
        }
        names = ("ScheduleExpression", "State")
        if known and [known[name] for name in names] == [record[name] for name in names]:
            record |= pick(known, "_begin", "_after")
        elif known and known["ScheduleExpression"] == record["ScheduleExpression"]:
            record |= {"_begin": known["_begin"], "_after": now}
        else:
            # AWS's documents do not say what becomes of it.
            if recurrence.parse(record["ScheduleExpression"]).following(now, now) is None:
                raise _refused("a ScheduleExpression that is never due")
            # A rate without StartDate begins at once.
            record |= {"_begin": int(now), "_after": int(now) - 1}
        self.store.put(SCHEDULE, arn, record)
        self._changed.set()
        return {"ScheduleArn": arn}

    # Time.

    def start(self) -> None:
        """Fire what becomes due from now on; what was due while no server ran is missed."""
        now = clock.now()
        with self.store.lock:
            for arn, record in list(self.store.all(SCHEDULE).items()):
                if record["_after"] < now - 1:
                    self.store.put(SCHEDULE, arn, {**record, "_after": now})
        threading.Thread(target=self._watch, name="schedules", daemon=True).start()

    def _watch(self) -> None:
        while not self._closing:
            self._changed.clear()
            try:
                self._advance(0.0)
            except Exception:
                log.exception("a schedule")
            with self.store.lock:
                found = self._next()
            self._changed.wait(max(0.0, found[0] - clock.now()) if found else None)

    def close(self) -> None:
        self._closing = True
        self._changed.set()

    def advance(self, until: float) -> list[tuple[str, float]]:
        """Move the clock to the next time at which schedules are due, at most to `until`, and fire
        all that are due then; return their names and times."""
        fired = self._advance(until)
        self._changed.set()
        return fired

    def _advance(self, until: float) -> list[tuple[str, float]]:
        fired = []
        with self._turn:
            with self.store.lock:
                due = self._next()
            clock.move(min(due[0], until) if due else until, self.store)
            while not self._closing:
                with self.store.lock:
                    found = self._next()
                    if found is None or found[0] > clock.now():
                        break
                    moment, record = found
                    record["_after"] = moment
                    self.store.put(SCHEDULE, record["Arn"], record)
                self._invoke(record, moment)
                fired.append((record["Name"], moment))
        return fired

    def _next(self) -> tuple[float, Record] | None:
        due = []
        for record in self.store.all(SCHEDULE).values():
            times = recurrence.parse(record["ScheduleExpression"])
            moment = times.following(record["_after"], record["_begin"])
            if moment is not None and record["State"] == "ENABLED":
                due.append((moment, record))
        return min(due, key=lambda each: each[0], default=None)

    def _invoke(self, record: Record, moment: float) -> None:
        """Call a schedule's target with the permissions of its role; report a failure."""
        account, region = record["_place"]
        target, caller = record["Target"], Caller(account, region, "")
        given = filled(target["Input"], record, clock.text(moment))
        try:
            role = identities.role(target["RoleArn"], caller.region)
            if role is None or not policies.trusted(role, SERVICE, group_arn(caller)):
                raise Undeliverable("AccessDenied", f"{target['RoleArn']} cannot be assumed")
            operation = universal(target["Arn"], caller.region)
            if operation is None:
                self._invoke_function(target, json.loads(given), caller)
            else:
                session = grants.session(target["RoleArn"], SESSION, caller.region)
                key = session["AWS_ACCESS_KEY_ID"]
                client = self._client("sagemaker", caller.region, key)
                getattr(client, wire.snake_case(operation))(**json.loads(given))
        except (ApiError, ClientError, BotoCoreError, Undeliverable) as error:
            log.error("schedule %s: %s: %s", record["Name"], target["Arn"], error)

    def _invoke_function(self, target: Params, event: Any, caller: Caller) -> None:
        arn, role = target["Arn"], target["RoleArn"]
        if not policies.role_may(role, "lambda:InvokeFunction", arn, caller.region):
            raise Undeliverable("AccessDenied", f"{role} may not invoke {arn}")
        self.functions.find(arn, caller)
        self.functions.invoke_later(arn, event)


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
