"""What endpoints report to CloudWatch, and whether the alarms on it fire.

Metrics and units are those of AWS's page "Amazon SageMaker AI metrics in Amazon CloudWatch". moto
stores metrics and alarms and evaluates neither; alarms are evaluated here, while a deployment asks.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.wire import Caller

NAMESPACE = "AWS/SageMaker"
KEPT = 20_000
UNITS = {"ModelLatency": "Microseconds", "OverheadLatency": "Microseconds"}
OURS = "Threshold Crossed"
COMPARED = {
    "GreaterThanThreshold": "greater than",
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
}
Sample = tuple[float, dict[str, float]]
Series = tuple[str, str, str, str]
"""Account, region, endpoint, variant."""


class Metrics:
    """Samples of invocations, the newest of each variant; safe for threads.

    `pace` shortens alarm periods as it does a deployment's waiting times.
    """

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self._samples: dict[Series, deque[Sample]] = {}
        self._unpublished: deque[tuple[Series, Sample]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def record(self, series: Series, values: dict[str, float]) -> None:
        """Keep what one invocation reports, by name of the metric."""
        sample = (clock.now(), values)
        found = self._samples.get(series)
        if found is None:
            with self._lock:
                found = self._samples.setdefault(series, deque(maxlen=KEPT))
        found.append(sample)
        self._unpublished.append((series, sample))

    def publish(self) -> None:
        """Bring moto's CloudWatch up to date, with one value for each second."""
        from moto.cloudwatch.models import MetricAggregatedDatum, cloudwatch_backends

        with self._lock:
            seconds: dict[tuple[Series, int, str], list[float]] = {}
            while self._unpublished:
                series, (moment, values) = self._unpublished.popleft()
                for name, value in values.items():
                    seconds.setdefault((series, int(moment), name), []).append(value)
            for ((account, region, endpoint, variant), second, name), found in seconds.items():
                backend: Any = cloudwatch_backends[account][region]
                backend.metric_data.append(
                    MetricAggregatedDatum(
                        NAMESPACE,
                        name,
                        min(found),
                        max(found),
                        len(found),
                        sum(found),
                        [
                            {"Name": "EndpointName", "Value": endpoint},
                            {"Name": "VariantName", "Value": variant},
                        ],
                        datetime.fromtimestamp(second, UTC).replace(tzinfo=None),
                        UNITS.get(name, "Count"),
                    )
                )

    def alarmed(self, names: list[str], caller: Caller, begun: float) -> str | None:
        """Return the first of these alarms that is in ALARM, or None.

        A state that SetAlarmState has set counts; others are evaluated again. `begun` is when the
        deployment began: missing data before it breaches nothing.
        """
        for name in names:
            alarm = find_alarm(name, caller)
            if alarm is None:
                continue
            ours = alarm.state_reason.startswith(OURS)
            if alarm.state_value == "ALARM" and not ours:
                return name
            state, value = self._evaluate(alarm, caller, begun)
            if state is not None and state != alarm.state_value:
                set_state(alarm, state, value)
            if state == "ALARM":
                return name
        return None

    def _evaluate(
        self, alarm: Any, caller: Caller, begun: float
    ) -> tuple[str | None, float | None]:
        """Return what `evaluate` does of an alarm on the endpoints' metrics, None for any other."""
        dimensions = {dimension.name: dimension.value for dimension in alarm.dimensions}
        if alarm.namespace != NAMESPACE or set(dimensions) != {"EndpointName", "VariantName"}:
            return None, None
        series = (
            caller.account, caller.region, dimensions["EndpointName"], dimensions["VariantName"],
        )  # fmt: skip
        samples = [
            (moment, values[alarm.metric_name])
            for moment, values in self._samples.get(series, deque()).copy()
            if alarm.metric_name in values
        ]
        return evaluate(alarm, samples, float(alarm.period) * self.pace, begun)


def evaluate(
    alarm: Any, samples: list[tuple[float, float]], length: float, begun: float = 0.0
) -> tuple[str | None, float | None]:
    """Return the state of an alarm on samples (time, value), None for the one that it has, and the
    newest value that it was decided by.

    `length` is a period in seconds; missing data before `begun` breaches nothing.
    """
    now = clock.now()
    periods: list[list[float]] = [[] for _ in range(int(alarm.evaluation_periods))]
    for moment, value in samples:
        position = int((now - moment) / length)
        if 0 <= position < len(periods):
            periods[position].append(value)
    missing = alarm.treat_missing_data
    if not any(periods) and missing not in ("breaching", "notBreaching"):
        return (None if missing == "ignore" else "INSUFFICIENT_DATA"), None
    breaching = 0
    for position, found in enumerate(periods):
        if found:
            breaching += _breaches(alarm, found)
        elif missing == "breaching":
            breaching += now - (position + 1) * length >= begun
    state = "ALARM" if breaching >= int(alarm.datapoints_to_alarm or len(periods)) else "OK"
    return state, next((_statistic(alarm, found) for found in periods if found), None)


def set_state(alarm: Any, state: str, value: float | None) -> None:
    """Change an alarm's state; whoever listens to alarms hears of it. `value` is what it was
    decided by, None for missing data."""
    verb = "was" if state == "ALARM" else "was not"
    compared = COMPARED.get(alarm.comparison_operator, alarm.comparison_operator)
    shown = f"[{value}] {verb} {compared} the threshold ({float(alarm.threshold)})"
    if value is None:
        shown = f"were missing, which counts as {alarm.treat_missing_data or 'missing'}"
    data = {
        "version": "1.0",
        "queryDate": f"{clock.text(clock.now())[:-1]}.000+0000",
        "statistic": alarm.statistic,
        "period": int(alarm.period),
        "recentDatapoints": [] if value is None else [value],
        "threshold": float(alarm.threshold),
    }
    alarm.update_state(f"{OURS}: datapoints {shown}", json.dumps(data), state)


def find_alarm(name: str, caller: Caller) -> Any:
    """Return moto's alarm of this name, or None."""
    from moto.cloudwatch.models import cloudwatch_backends

    return cloudwatch_backends[caller.account][caller.region].alarms.get(name)


def _statistic(alarm: Any, values: list[float]) -> float:
    if alarm.extended_statistic:
        ordered = sorted(values)
        position = (len(ordered) - 1) * float(alarm.extended_statistic[1:]) / 100
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
    if alarm.statistic == "Maximum":
        return max(values)
    return sum(values) / (len(values) if alarm.statistic == "Average" else 1)


def _breaches(alarm: Any, values: list[float]) -> bool:
    value, threshold = _statistic(alarm, values), float(alarm.threshold)
    return {
        "GreaterThanThreshold": value > threshold,
        "GreaterThanOrEqualToThreshold": value >= threshold,
        "LessThanThreshold": value < threshold,
        "LessThanOrEqualToThreshold": value <= threshold,
    }.get(alarm.comparison_operator, False)
