"""EventBridge's buses: what happens becomes an event, is matched with rules, and reaches targets.

Rules and targets are moto's; matching and delivery are not: moto knows a part of the patterns and
no Lambda.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox import patterns, wire
from sm_mlops.sandbox.deliveries import Undeliverable, check_queue, render, send
from sm_mlops.sandbox.functions import Functions
from sm_mlops.sandbox.replies import Start, json_reply, read
from sm_mlops.sandbox.wire import ApiError, Caller, Params

TARGETS = ("lambda", "sqs", "sns", "logs")
# A target that cannot be reached is tried for a day with backoff; here, this often at once.
TRIES = 185
TARGET_MEMBERS = (
    "Id",
    "Arn",
    "RoleArn",
    "Input",
    "InputPath",
    "InputTransformer",
    "DeadLetterConfig",
    "RetryPolicy",
    "SqsParameters",
)
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
    """Events in, deliveries out. `repeat` is how often SageMaker announces one change: it promises
    no number."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.repeat = 1
        self.keep: Callable[..., None] = lambda *services: None

    def model_package(self, package: Params) -> None:
        """Announce that a version has been registered or changed.

        Source: https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
        """
        arn = package["ModelPackageArn"]
        detail = wire.pick(package, *SHOWN)
        if "ModelPackageVersion" in detail:
            detail.pop("ModelPackageName", None)
        for name in ("CreationTime", "LastModifiedTime"):
            if name in detail:
                detail[name] = _moment(detail[name])
        detail.setdefault("CertifyForMarketplace", False)
        caller = Caller(arn.split(":")[4], arn.split(":")[3], "")
        for _ in range(self.repeat):
            event = {
                "detail-type": "SageMaker Model Package State Change",
                "source": "aws.sagemaker",
                "resources": [arn],
                "detail": detail,
            }
            self.publish(event, "default", caller)

    # Requests.

    def answer(
        self, operation: str, environ: dict[str, Any], start: Start, caller: Caller
    ) -> Iterable[bytes] | None:
        """Answer a request to EventBridge, or return None when it is moto's. Raises ApiError."""
        if operation not in ("PutEvents", "PutRule", "PutTargets", "TestEventPattern"):
            return None
        body = read(environ)
        given = json.loads(body or b"{}")
        wire.check(operation, given, "events")
        if operation == "PutEvents":
            return json_reply(start, self._put(given, caller))
        if operation == "TestEventPattern":
            return json_reply(start, _test(given))
        if operation == "PutRule":
            _check_rule(given)
        else:
            for target in given["Targets"]:
                _check_target(target)
        environ["wsgi.input"] = io.BytesIO(body)
        return None

    def _put(self, given: Params, caller: Caller) -> Params:
        rows = []
        for entry in given["Entries"]:
            problem = _problem(entry)
            if problem:
                rows.append({"ErrorCode": problem[0], "ErrorMessage": problem[1]})
                continue
            event = {
                "detail-type": entry["DetailType"],
                "source": entry["Source"],
                "resources": entry.get("Resources", []),
                "detail": json.loads(entry["Detail"]),
            }
            bus = entry.get("EventBusName", "default").rpartition("/")[2]
            rows.append({"EventId": self.publish(event, bus, caller)})
        failed = sum("ErrorCode" in row for row in rows)
        return {"FailedEntryCount": failed, "Entries": rows}

    def publish(self, event: Params, bus: str, caller: Caller) -> str:
        """Put an event on a bus and deliver it; return its id."""
        from moto.events.models import events_backends

        whole = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": event["detail-type"],
            "source": event["source"],
            "account": caller.account,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": caller.region,
            "resources": event["resources"],
            "detail": event["detail"],
        }
        # Read as text is, so that numbers keep how they are written.
        text = json.dumps(whole)
        read_again = patterns.loads(text)
        found = events_backends[caller.account][caller.region].event_buses.get(bus)
        for rule in list(found.rules.values()) if found else []:
            wanted = rule.event_pattern.dump()
            if not rule.state.startswith("ENABLED") or not wanted:
                continue
            if patterns.matches(patterns.parse(wanted), read_again):
                for target in list(rule.targets):
                    self._deliver(json.loads(text), rule, target)
        return str(whole["id"])

    def _deliver(self, event: Params, rule: Any, target: Params) -> None:
        try:
            body = _input(event, rule, target)
            self._send(body, rule, target)
        except Undeliverable as error:
            log.error("rule %s cannot reach %s: %s", rule.name, target["Arn"], error)
            dead = target.get("DeadLetterConfig", {}).get("Arn")
            if not dead:
                return
            tries = target.get("RetryPolicy", {}).get("MaximumRetryAttempts", TRIES)
            attributes = {
                "RULE_ARN": rule.arn,
                "TARGET_ARN": target["Arn"],
                "ERROR_CODE": error.code,
                "ERROR_MESSAGE": str(error),
                # Missing permissions and targets are not tried again.
                "RETRY_ATTEMPTS": str(tries if error.code == "SDK_CLIENT_ERROR" else 0),
            }
            try:
                check_queue(dead, "events.amazonaws.com", rule.arn)
                send(dead, render(event), attributes)
                self.keep("sqs")
                self.functions.queue_changed(dead)
            except Undeliverable as second:
                log.error("nor its dead-letter queue: %s", second)

    def _send(self, body: Any, rule: Any, target: Params) -> None:
        arn, service = target["Arn"], target["Arn"].split(":")[2]
        if service == "lambda":
            if not target.get("RoleArn"):
                self.functions.check_invoker(arn, "events.amazonaws.com", rule.arn)
            self.functions.invoke_later(arn, body)
        elif service == "sqs":
            check_queue(arn, "events.amazonaws.com", rule.arn)
            send(arn, render(body))
            self.keep("sqs")
            self.functions.queue_changed(arn)
        elif service == "sns":
            send(arn, render(body))
            self.keep("sns", "sqs")
        else:
            _log(arn, body)
            self.keep("logs")


def _log(arn: str, body: Any) -> None:
    from moto.logs.models import logs_backends

    parts = arn.split(":")
    backend: Any = logs_backends[parts[4]][parts[3]]
    group, stream = parts[6], str(uuid.uuid4())
    if group not in backend.groups:
        raise Undeliverable("RESOURCE_NOT_FOUND", f"there is no log group {group}")
    backend.ensure_log_stream(group, stream)
    backend.groups[group].streams[stream].put_log_events(
        [{"timestamp": int(time.time() * 1000), "message": render(body)}]
    )


def _input(event: Params, rule: Any, target: Params) -> Any:
    """Return what a target gets of an event: all of it, a part, a constant or a filled template."""
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputPath" in target:
        return _at(target["InputPath"], event)
    transformer = target.get("InputTransformer")
    if not transformer:
        return event
    values = {
        name: _at(path, event) for name, path in transformer.get("InputPathsMap", {}).items()
    } | {
        "aws.events.rule-arn": rule.arn,
        "aws.events.rule-name": rule.name,
        "aws.events.event.ingestion-time": event["time"],
        "aws.events.event": {k: v for k, v in event.items() if k != "detail"},
        "aws.events.event.json": event,
    }
    template = transformer["InputTemplate"]

    def fill(found: re.Match[str]) -> str:
        value = values.get(found[1], "")
        before = template[: found.start()]
        quoted = (before.count('"') - before.count('\\"')) % 2 == 1
        if not quoted:
            return json.dumps(value)
        text = value if isinstance(value, str) else json.dumps(value)
        return json.dumps(text)[1:-1]

    text = re.sub(r"<([\w.-]+)>", fill, template)
    try:
        return json.loads(text)
    except ValueError as error:
        raise Undeliverable("INVALID_JSON", f"the input template gives no JSON: {error}") from error


def _at(path: str, event: Params) -> Any:
    """Return what a path such as $.detail.x[0] finds, "" for nothing."""
    value: Any = event
    for name, index in re.findall(r"\.([\w-]+)|\[(\d+)\]", path.removeprefix("$")):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError):
            return ""
    return value


def _problem(entry: Params) -> tuple[str, str] | None:
    for member in ("Source", "DetailType", "Detail"):
        if not entry.get(member):
            return (
                "InvalidArgument",
                f"Parameter {member} is not valid. Reason: {member} is a required argument.",
            )
    if entry["Source"].startswith("aws."):
        return (
            "NotAuthorizedForSourceException",
            f"Not authorized for the source {entry['Source']}",
        )
    try:
        if isinstance(json.loads(entry["Detail"]), dict):
            return None
    except ValueError:
        pass
    return "MalformedDetail", "Detail is malformed."


def _parse(text: str) -> Params:
    try:
        return patterns.parse(text)
    except patterns.InvalidPattern as error:
        raise ApiError(
            "InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}"
        ) from error


def _test(given: Params) -> Params:
    pattern = _parse(given["EventPattern"])
    event = patterns.loads(given["Event"])
    needed = ("id", "account", "source", "time", "region", "resources", "detail-type")
    absent = [name for name in needed if name not in event]
    if absent:
        raise wire.invalid(f"Parameter Event is not valid. It lacks {', '.join(absent)}.")
    return {"Result": patterns.matches(pattern, event)}


def _check_rule(given: Params) -> None:
    if given.get("ScheduleExpression"):
        raise wire.invalid("the sandbox runs no scheduled rules")
    if not given.get("EventPattern"):
        raise wire.invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    _parse(given["EventPattern"])


def _check_target(target: Params) -> None:
    parts = target["Arn"].split(":")
    if len(parts) < 6 or parts[2] not in TARGETS:
        raise wire.invalid(
            f"the sandbox delivers events to {', '.join(TARGETS)} only, not {target['Arn']}"
        )
    unknown = sorted(set(target) - set(TARGET_MEMBERS))
    if unknown:
        raise wire.invalid(f"the sandbox does not apply {', '.join(unknown)} of a target")
    if sum(name in target for name in ("Input", "InputPath", "InputTransformer")) > 1:
        raise wire.invalid("Only one of Input, InputPath, or InputTransformer must be provided.")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
