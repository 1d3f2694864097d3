"""What moto would answer wrongly of SNS and of CloudWatch's dashboards, refused."""

from __future__ import annotations

import json
from typing import Any

from sm_mlops.sandbox.wire import ApiError, Params, not_implemented

PROTOCOLS = ("email", "sqs")
ATTRIBUTES = ("DisplayName", "KmsMasterKeyId", "Policy")
# The members that a widget needs, by its type. Source:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
WIDGETS: dict[str, dict[str, type]] = {
    "alarm": {"alarms": list},
    "log": {"query": str, "region": str},
    "metric": {"metrics": list, "region": str},
    "text": {"markdown": str},
}
LARGEST_MESSAGE = 256 * 1024


def check(service: str, operation: str, params: Params) -> None:
    """Refuse a request to SNS or CloudWatch that moto must not answer. Raises ApiError."""
    if operation == "PutDashboard":
        _check_dashboard(str(params.get("DashboardBody", "")))
    if service != "sns":
        return
    if operation == "Subscribe":
        if params.get("Protocol") not in PROTOCOLS:
            raise not_implemented(f"the protocol {params.get('Protocol')} of subscriptions")
        if params["Protocol"] == "email" and "@" not in str(params.get("Endpoint")):
            raise _invalid("Email address")
        if params.get("Attributes"):
            raise not_implemented("Attributes of sns:Subscribe")
    given = dict(params.get("Attributes") or {}) if operation == "CreateTopic" else {}
    if isinstance(params.get("Attributes"), list):  # A form's map: entries of key and value.
        given = {each["key"]: each["value"] for each in params["Attributes"]}
    if operation == "SetTopicAttributes":
        given = {str(params.get("AttributeName")): params.get("AttributeValue")}
    for name, value in given.items():
        if name not in ATTRIBUTES:
            raise not_implemented(f"{name} of topics")
        if name == "Policy":
            _check_policy(value)
    if operation in ("Publish", "PublishBatch"):
        _check_message(operation, params)


def _check_message(operation: str, params: Params) -> None:
    others = sorted(set(params) - {"TopicArn", "Subject", "Message"})
    if operation != "Publish" or others:
        raise not_implemented(f"{', '.join(others)} of sns:{operation}")
    subject = params.get("Subject")
    if subject is not None and not (0 < len(subject) <= 100 and subject.isprintable()):
        raise _invalid("Subject")
    if not 0 < len(str(params.get("Message", "")).encode()) <= LARGEST_MESSAGE:
        raise _invalid("Message")


def _check_policy(text: Any) -> None:
    try:
        found = json.loads(text)
    except (TypeError, ValueError) as error:
        raise _invalid("Policy Error: null") from error
    rows = found.get("Statement") if isinstance(found, dict) else None
    rows = [rows] if isinstance(rows, dict) else rows
    if not rows or any("Principal" not in row or "Resource" not in row for row in rows):
        raise _invalid("Policy statement must have a Principal and a Resource")


def _check_dashboard(text: str) -> None:
    problem = ""
    try:
        widgets = json.loads(text)["widgets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(
            "InvalidParameterInput", f"The field DashboardBody must be a JSON object: {error}"
        ) from error
    for number, widget in enumerate(widgets):
        needed = WIDGETS.get(widget.get("type"))
        if needed is None:
            raise not_implemented(f"a dashboard's widget of type {widget.get('type')}")
        for name, kind in needed.items():
            if not isinstance(widget.get("properties", {}).get(name), kind):
                problem = f"/widgets/{number}/properties should have required property '{name}'"
        if not 1 <= widget.get("width", 6) <= 24 or not 1 <= widget.get("height", 6) <= 1000:
            problem = f"/widgets/{number} is too large"
    if problem:
        raise ApiError(
            "InvalidParameterInput",
            f"The dashboard body is invalid, there are 1 validation errors: {problem}",
        )


def _invalid(what: str) -> ApiError:
    return ApiError("InvalidParameter", f"Invalid parameter: {what}")
