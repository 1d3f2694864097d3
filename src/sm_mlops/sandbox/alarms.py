"""Alarms on what functions and queues report: recorded in moto's CloudWatch, evaluated here.

moto stores alarms and never evaluates them. Periods are real time: an alarm stays in ALARM as long
as it would on AWS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.metrics import set_state, state_of
from sm_mlops.sandbox.wire import Caller

FUNCTIONS, QUEUES = "AWS/Lambda", "AWS/SQS"
UNITS = {"Duration": "Milliseconds", "PostRuntimeExtensionsDuration": "Milliseconds"}
KEPT = 5_000
Key = tuple[str, str, str, str, frozenset[tuple[str, str]]]
"""Account, region, namespace, metric, dimensions."""


class Alarms:
    """Samples since the server started, and the alarms on them; safe for threads."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._samples: dict[Key, deque[tuple[float, float]]] = {}

    def record(
        self, caller: Caller, namespace: str, dimensions: dict[str, str], **values: float
    ) -> None:
        """Keep what a service reports now, and update the alarms on it."""
        from moto.cloudwatch.models import cloudwatch_backends

        backend: Any = cloudwatch_backends[caller.account][caller.region]
        now = clock.now()
        moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        where = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        for metric, value in values.items():
            key = (caller.account, caller.region, namespace, metric, frozenset(dimensions.items()))
            self._samples.setdefault(key, deque(maxlen=KEPT)).append((now, value))
            row = {"MetricName": metric, "Value": value, "Dimensions": where, "Timestamp": moment}
            backend.put_metric_data(namespace, [{**row, "Unit": UNITS.get(metric, "Count")}])
        self.look(caller)

    def look(self, caller: Caller) -> None:
        """Bring the states of these alarms up to date."""
        from moto.cloudwatch.models import cloudwatch_backends

        backend: Any = cloudwatch_backends[caller.account][caller.region]
        for alarm in list(backend.alarms.values()):
            if alarm.namespace not in (FUNCTIONS, QUEUES) or not alarm.metric_name:
                continue
            dimensions = frozenset((d.name, d.value) for d in alarm.dimensions)
            place = (caller.account, caller.region)
            key = (*place, alarm.namespace, alarm.metric_name, dimensions)
            samples = list(self._samples.get(key, deque()).copy())
            state = state_of(alarm, samples, float(alarm.period))
            if state is not None and state != alarm.state_value:
                set_state(alarm, state, caller.account)
                self.on_change()
