"""EventBridge's default bus: a change in the registry becomes an event, is matched with rules, and
reaches functions.

moto keeps rules and targets; matching and delivery are done here.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import clock, patterns, wire
from sm_mlops.sandbox.deliveries import Undeliverable, check_queue, render, send
from sm_mlops.sandbox.functions import Functions
from sm_mlops.sandbox.replies import read
from sm_mlops.sandbox.wire import ApiError, Caller, Params, moment, not_implemented

TARGET_MEMBERS = ("Id", "Arn", "DeadLetterConfig", "RetryPolicy")
RULE_MEMBERS = ("Name", "Description", "EventPattern", "State", "Tags")
NOT_HERE = ("PutEvents", "TestEventPattern")
# What the documented event of a model package shows.
SHOWN = (
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "InferenceSpecification",
    "SourceAlgorithmSpecification",
    "ValidationSpecification",
    "ModelPackageStatus",
    "ModelPackageStatusDetails",
    "CertifyForMarketplace",
    "ModelApprovalStatus",
    "MetadataProperties",
    "CustomerMetadataProperties",
    "ModelMetrics",
    "ModelLifeCycle",
    "LastModifiedTime",
    "ApprovalDescription",
    "Domain",
    "Task",
    "SamplePayloadUrl",
)
log = logging.getLogger(__name__)


class Events:
    """Publishes events and delivers them. `repeat` is how often SageMaker announces one change: it
    guarantees at least once."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.repeat = 1
        self.keep: Callable[..., None] = lambda *services: None

    def model_package(self, package: Params, fields: list[str]) -> None:
        """Announce that a version has been registered, or that these fields were changed.

        Source:
        https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
        """
        arn = package["ModelPackageArn"]
        detail = wire.pick(package, *SHOWN)
        if "ModelPackageVersion" in detail:
            detail.pop("ModelPackageName", None)
        for name in ("CreationTime", "LastModifiedTime"):
            if name in detail:
                detail[name] = moment(detail[name])
        detail.setdefault("CertifyForMarketplace", False)
        if fields:
            detail["UpdatedModelPackageFields"] = fields
        for _ in range(self.repeat):
            self._publish(arn, detail)

    # Requests.

    def check(self, operation: str, environ: dict[str, Any]) -> None:
        """Refuse a request to EventBridge that moto must not answer. Raises ApiError."""
        if operation in NOT_HERE:
            raise not_implemented(f"events:{operation}")
        if operation not in ("PutRule", "PutTargets"):
            return
        given = json.loads(read(environ) or b"{}")
        wire.check(operation, given, "events")
        if operation == "PutRule":
            _check_rule(given)
        else:
            for target in given["Targets"]:
                _check_target(target)

    def _publish(self, arn: str, detail: Params) -> None:
        """Put an event about a version on its account's bus and deliver it."""
        from moto.events.models import events_backends

        caller = Caller(arn.split(":")[4], arn.split(":")[3], "")
        whole = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "SageMaker Model Package State Change",
            "source": "aws.sagemaker",
            "account": caller.account,
            "time": clock.text(clock.now()),
            "region": caller.region,
            "resources": [arn],
            "detail": detail,
        }
        # A copy, which a later change in the registry does not affect.
        whole = json.loads(json.dumps(whole))
        found = events_backends[caller.account][caller.region].event_buses.get("default")
        for rule in list(found.rules.values()) if found else []:
            wanted = rule.event_pattern.dump()
            if not rule.state.startswith("ENABLED") or not wanted:
                continue
            if patterns.matches(patterns.parse(wanted), whole):
                for target in list(rule.targets):
                    self._deliver(whole, rule, target)

    def _deliver(self, event: Params, rule: Any, target: Params) -> None:
        arn = target["Arn"]
        try:
            self.functions.check_invoker(arn, "events.amazonaws.com", rule.arn)
            self.functions.invoke_later(arn, event)
        except Undeliverable as error:
            log.error("rule %s cannot reach %s: %s", rule.name, arn, error)
            dead = target.get("DeadLetterConfig", {}).get("Arn")
            if not dead:
                return
            attributes = {
                "RULE_ARN": rule.arn,
                "TARGET_ARN": arn,
                "ERROR_CODE": error.code,
                "ERROR_MESSAGE": str(error),
                # Missing permissions and targets are not tried again.
                "RETRY_ATTEMPTS": "0",
            }
            try:
                check_queue(dead, "events.amazonaws.com", rule.arn)
                send(dead, render(event), attributes)
                self.keep("sqs")
                self.functions.queue_changed(dead)
            except Undeliverable as second:
                log.error("the dead-letter queue of rule %s: %s", rule.name, second)


def _check_rule(given: Params) -> None:
    _refuse("PutRule", set(given) - set(RULE_MEMBERS))
    if not given.get("EventPattern"):
        raise wire.invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    try:
        patterns.parse(given["EventPattern"])
    except patterns.InvalidPattern as error:
        raise ApiError(
            "InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}"
        ) from error


def _check_target(target: Params) -> None:
    if target["Arn"].split(":")[2:3] != ["lambda"]:
        raise not_implemented(f"events to {target['Arn']}", "ValidationException")
    _refuse("PutTargets", set(target) - set(TARGET_MEMBERS))


def _refuse(operation: str, members: set[str]) -> None:
    if members:
        names = ", ".join(sorted(members))
        raise not_implemented(f"{names} of events:{operation}", "ValidationException")
