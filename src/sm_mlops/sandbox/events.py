"""EventBridge's default bus: a change of a version, an execution, an alarm or a stack becomes an
event, is matched with rules, and reaches functions.

moto keeps rules and targets; matching and delivery are done here.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import clock, patterns, wire
from sm_mlops.sandbox.alarms import detail
from sm_mlops.sandbox.cloudwatch import State
from sm_mlops.sandbox.deliveries import Undeliverable, check_queue, render, send
from sm_mlops.sandbox.functions import Functions
from sm_mlops.sandbox.replies import read
from sm_mlops.sandbox.wire import ApiError, Params, moment, not_implemented

TARGET_MEMBERS = ("Id", "Arn", "DeadLetterConfig", "RetryPolicy")
RULE_MEMBERS = ("Name", "Description", "EventPattern", "State", "Tags")
NOT_HERE = ("PutEvents", "TestEventPattern")
# What the documented event of a model package shows.
SHOWN = (
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "InferenceSpecification",
    "ModelPackageStatus",
    "ModelPackageStatusDetails",
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
        told = wire.pick(package, *SHOWN)
        for name in ("CreationTime", "LastModifiedTime"):
            told[name] = moment(told[name])
        told.setdefault("CertifyForMarketplace", False)
        if fields:
            told["UpdatedModelPackageFields"] = fields
        for _ in range(self.repeat):
            self._publish("aws.sagemaker", "SageMaker Model Package State Change", [arn], told)

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

    def alarm(self, alarm: Any, previous: State) -> None:
        arn = alarm.alarm_arn
        self._publish(
            "aws.cloudwatch", "CloudWatch Alarm State Change", [arn], detail(alarm, previous)
        )

    def execution(self, record: Params, previous: str) -> None:
        """Announce that an execution of a pipeline has a new status; see `model_package`."""
        told = {
            "pipelineExecutionDisplayName": record["PipelineExecutionDisplayName"],
            "currentPipelineExecutionStatus": record["PipelineExecutionStatus"],
            "previousPipelineExecutionStatus": previous,
            "executionStartTime": clock.text(record["CreationTime"]),
            "pipelineExecutionDescription": record.get("PipelineExecutionDescription"),
            "pipelineArn": record["PipelineArn"],
            "pipelineExecutionArn": record["PipelineExecutionArn"],
        }
        if record["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
            told["executionEndTime"] = clock.text(record["LastModifiedTime"])
        self._publish(
            "aws.sagemaker",
            "SageMaker Model Building Pipeline Execution Status Change",
            [record["PipelineArn"], record["PipelineExecutionArn"]],
            {name: value for name, value in told.items() if value is not None},
        )

    def stack(self, stack: Params) -> None:
        """Announce that a stack has a new status.

        Source:
        https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/event-detail-stack-status-change.html
        """
        told = {
            "stack-id": stack["StackId"],
            "status-details": {
                "status": stack["StackStatus"],
                "status-reason": stack.get("StackStatusReason") or "",
            },
        }
        if stack.get("_token"):
            told["client-request-token"] = stack["_token"]
        kind = "CloudFormation Stack Status Change"
        self._publish("aws.cloudformation", kind, [stack["StackId"]], told)

    def _publish(self, source: str, kind: str, resources: list[str], told: Params) -> None:
        """Put an event on the default bus of its resources' account and deliver it."""
        from moto.events.models import events_backends

        _, _, _, region, account, _ = resources[0].split(":", 5)
        whole = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": kind,
            "source": source,
            "account": account,
            "time": clock.text(clock.now()),
            "region": region,
            "resources": resources,
            "detail": told,
        }
        # A copy, which a later change in the registry does not affect.
        whole = json.loads(json.dumps(whole))
        found = events_backends[account][region].event_buses.get("default")
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
