"""What moto's CloudWatch does otherwise than AWS's, and the requests to it that are refused.

moto stores metrics, alarms and dashboards. Here an alarm begins without data and keeps its state
when it is changed, whoever listens hears of each change of state, and statistics are of one metric
with exactly these dimensions. Written against moto 5.2.
"""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.wire import ApiError, Params, not_implemented

ACTIONS = ("sns", "autoscaling")
OLDEST, LATEST = 14 * 86_400, 2 * 3600
# The members that a widget of metrics needs. Source:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
NEEDED = {"metrics": list, "region": str}


@dataclass(frozen=True)
class State:
    """A state of an alarm: OK, ALARM or INSUFFICIENT_DATA, why, and since when."""

    value: str
    reason: str
    data: str
    since: datetime


Listener = Callable[[Any, State], None]
_LISTENERS: list[Listener] = []
_LOCK = threading.Lock()


def on_state(listener: Listener) -> None:
    """Call a function with each alarm that changes its state, and with the previous state."""
    _fix_moto()
    _LISTENERS[:] = [listener]


def state(alarm: Any) -> State:
    since = alarm.state_updated_timestamp
    return State(alarm.state_value, alarm.state_reason, alarm.state_reason_data, since)


# Requests.


def check(operation: str, params: Params) -> None:
    """Refuse a request that moto must not answer. Raises ApiError."""
    if operation == "PutDashboard":
        _check_dashboard(str(params.get("DashboardBody", "")))
    elif operation == "PutMetricData":
        _check_data(params)
    elif operation == "PutMetricAlarm":
        if params.get("Statistic", "Sum") not in ("Average", "Maximum", "Sum"):
            raise not_implemented(f"the statistic {params['Statistic']} of alarms")
        for name in ("AlarmActions", "OKActions", "InsufficientDataActions"):
            for action in params.get(name) or []:
                if action.split(":")[2:3] not in [[service] for service in ACTIONS]:
                    raise not_implemented(f"{action} in {name} of alarms")


def _check_data(params: Params) -> None:
    if str(params.get("Namespace", "")).startswith("AWS/"):
        words = f"The value {params['Namespace']} for parameter Namespace is invalid."
        raise ApiError("InvalidParameterValue", words)
    if "EntityMetricData" in params:
        raise not_implemented("EntityMetricData of cloudwatch:PutMetricData")
    for row in params.get("MetricData") or []:
        if "StatisticValues" in row:
            raise not_implemented("StatisticValues of cloudwatch:PutMetricData")
        for value in (row["Value"],) if "Value" in row else row.get("Values", ()):
            if not math.isfinite(float(value)):
                words = f"The value {value} for parameter MetricData.member.1.Value is invalid."
                raise ApiError("InvalidParameterValue", words)
        given = row.get("Timestamp")
        moment = clock.now() if given is None else _seconds(given)
        if not -OLDEST <= moment - clock.now() <= LATEST:
            words = "The parameter MetricData.member.1.Timestamp must specify a time within the "
            raise ApiError("InvalidParameterValue", words + "past two weeks or the next two hours.")


def _seconds(given: Any) -> float:
    try:
        return float(given)
    except ValueError:
        return datetime.fromisoformat(given).replace(tzinfo=UTC).timestamp()


def _check_dashboard(text: str) -> None:
    problem = ""
    try:
        widgets = json.loads(text)["widgets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(
            "InvalidParameterInput", f"The field DashboardBody must be a JSON object: {error}"
        ) from error
    for number, widget in enumerate(widgets):
        if widget.get("type") != "metric":
            raise not_implemented(f"a dashboard's widget of type {widget.get('type')}")
        for name, kind in NEEDED.items():
            if not isinstance(widget.get("properties", {}).get(name), kind):
                problem = f"/widgets/{number}/properties should have required property '{name}'"
        if not 1 <= widget.get("width", 6) <= 24 or not 1 <= widget.get("height", 6) <= 1000:
            problem = f"/widgets/{number} is too large"
    if problem:
        raise ApiError(
            "InvalidParameterInput",
            f"The dashboard body is invalid, there are 1 validation errors: {problem}",
        )


# moto.


def _fix_moto() -> None:
    from moto.cloudwatch import models

    backend: Any = models.CloudWatchBackend
    if hasattr(backend, "sandbox"):
        return
    backend.sandbox = True
    put, update = backend.put_metric_alarm, models.Alarm.update_state
    get_data, get_statistics = backend.get_metric_data, backend.get_metric_statistics

    def put_metric_alarm(self: Any, name: str, **given: Any) -> Any:
        known = self.alarms.get(name)
        made = put(self, name=name, **given)
        made.state_value = "INSUFFICIENT_DATA"
        if known is not None:
            kept = {k: v for k, v in vars(known).items() if k.startswith(("state_", "history"))}
            vars(made).update(kept)
        return made

    def update_state(self: Any, reason: str, reason_data: str, state_value: str) -> None:
        with _LOCK:
            previous = state(self)
            update(self, reason, reason_data or "{}", state_value)
        if previous.value != state_value:
            for listener in _LISTENERS:
                listener(self, previous)

    def get_metric_data(self: Any, queries: list[Params], **given: Any) -> list[Params]:
        rows = []
        for query in queries:
            if "MetricStat" not in query:
                raise NotImplementedError("Expression of cloudwatch:GetMetricData")
            metric = dict(query["MetricStat"]["Metric"])
            only = _only(self, metric["Namespace"], metric.pop("Dimensions", []))
            asked = {**query, "MetricStat": {**query["MetricStat"], "Metric": metric}}
            rows += get_data(only, queries=[asked], **given)
        return rows

    def get_metric_statistics(self: Any, namespace: str, *more: Any, **given: Any) -> Any:
        only = _only(self, namespace, given["dimensions"])
        return get_statistics(only, namespace, *more, **given)

    models.Alarm.update_state = update_state  # type: ignore[method-assign]
    for method in (put_metric_alarm, get_metric_data, get_metric_statistics):
        setattr(backend, method.__name__, method)


def _only(backend: Any, namespace: str, dimensions: list[Params]) -> Any:
    """Return moto's backend with the data of one namespace and exactly these dimensions."""
    wanted = {(each["Name"], each["Value"]) for each in dimensions}
    found = copy.copy(backend)
    found.metric_data = [
        datum
        for datum in backend.metric_data
        if datum.namespace == namespace and {(d.name, d.value) for d in datum.dimensions} == wanted
    ]
    return found
