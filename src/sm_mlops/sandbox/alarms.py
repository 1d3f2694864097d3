"""Alarms on what functions, queues, jobs and people report: kept in moto's CloudWatch, evaluated
here. A change of state becomes an event and messages.

Endpoints' alarms are evaluated by their deployments: see metrics.py.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox import cloudwatch, topics
from sm_mlops.sandbox.cloudwatch import State
from sm_mlops.sandbox.deliveries import Undeliverable
from sm_mlops.sandbox.metrics import NAMESPACE, evaluate, set_state
from sm_mlops.sandbox.wire import Caller

FUNCTIONS, QUEUES = "AWS/Lambda", "AWS/SQS"
UNITS = {"Duration": "Milliseconds", "PostRuntimeExtensionsDuration": "Milliseconds"}
KEPT = 5_000
SERVICE = "cloudwatch.amazonaws.com"
Key = tuple[str, str, str, str, frozenset[tuple[str, str]]]
"""Account, region, namespace, metric, dimensions."""
log = logging.getLogger(__name__)


class Alarms:
    """The newest samples of each metric, and the alarms on them; safe for threads.

    `on_change` is called when a state has changed, `announce` with the alarm and its previous
    state.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.announce: Callable[[Any, State], None] = lambda alarm, previous: None
        self._samples: dict[Key, deque[tuple[float, float]]] = {}
        self._read: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        cloudwatch.on_state(self._changed)

    def record(
        self, caller: Caller, namespace: str, dimensions: dict[str, str], **values: float
    ) -> None:
        """Keep what a service reports now, and update the alarms on it."""
        backend = _backend(caller)
        where = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        rows = [
            {"MetricName": metric, "Value": value, "Dimensions": where}
            | {"Unit": UNITS.get(metric, "Count")}
            for metric, value in values.items()
        ]
        backend.put_metric_data(namespace, rows)
        self.look(caller)

    def look(self, caller: Caller) -> None:
        """Bring the states of the alarms in an account and region up to date."""
        backend, changes = _backend(caller), []
        with self._lock:
            self._index(backend, caller)
            for alarm in list(backend.alarms.values()):
                if alarm.namespace == NAMESPACE or not alarm.metric_name:
                    continue
                dimensions = frozenset((d.name, d.value) for d in alarm.dimensions)
                place = (caller.account, caller.region, alarm.namespace, alarm.metric_name)
                samples = list(self._samples.get((*place, dimensions), ()))
                state, value = evaluate(alarm, samples, float(alarm.period))
                if state is not None and state != alarm.state_value:
                    changes.append((alarm, state, value))
        # Without the lock: what hears of it may report metrics, or hold other locks.
        for change in changes:
            set_state(*change)

    def look_everywhere(self) -> None:
        """Bring all states up to date: the time has changed."""
        from moto.cloudwatch.models import cloudwatch_backends

        for account, regions in list(cloudwatch_backends.items()):
            for region in list(regions):
                self.look(Caller(account, region, ""))

    def _index(self, backend: Any, caller: Caller) -> None:
        """Read what moto has got since the last time."""
        place = (caller.account, caller.region)
        rows = backend.metric_data[self._read.get(place, 0) :]
        self._read[place] = self._read.get(place, 0) + len(rows)
        for row in rows:
            if row.namespace != NAMESPACE:
                dimensions = frozenset((d.name, d.value) for d in row.dimensions)
                key = (*place, row.namespace, row.name, dimensions)
                moment = row.timestamp.replace(tzinfo=UTC).timestamp()
                kept = self._samples.setdefault(key, deque(maxlen=KEPT))
                kept.append((moment, row.value))

    def _changed(self, alarm: Any, previous: State) -> None:
        """Announce a change of state and run the alarm's actions."""
        self.announce(alarm, previous)
        state = cloudwatch.state(alarm)
        actions = {
            "ALARM": alarm.alarm_actions,
            "OK": alarm.ok_actions,
            "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
        }[state.value]
        for action in (actions or []) if alarm.actions_enabled else []:
            if action.split(":")[2] != "sns":
                continue  # Scaling, which has its own.
            message = json.dumps(_message(alarm, state, previous))
            subject = f'{state.value}: "{alarm.name}" in {alarm.region_name}'
            try:
                topics.publish(action, subject, message, SERVICE, alarm.alarm_arn)
            except Undeliverable as error:
                log.error("alarm %s: %s", alarm.name, error)
        self.on_change()


def _message(alarm: Any, state: State, previous: State) -> dict[str, Any]:
    """Return what an alarm's message says, without what the alarm is on."""
    return {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "NewStateValue": state.value,
        "NewStateReason": state.reason,
        "StateChangeTime": _time(state.since),
        "Region": alarm.region_name,
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": previous.value,
    }


def detail(alarm: Any, previous: State) -> dict[str, Any]:
    """Return the detail of the event "CloudWatch Alarm State Change".

    Source:
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html
    """
    metric = {
        "dimensions": {d.name: d.value for d in alarm.dimensions},
        "name": alarm.metric_name,
        "namespace": alarm.namespace,
    }
    stat = {"metric": metric, "period": alarm.period, "stat": alarm.statistic}
    return {
        "alarmName": alarm.name,
        "configuration": {
            "description": alarm.description,
            "metrics": [{"id": "m1", "metricStat": stat, "returnData": True}],
        },
        "previousState": _shown(previous),
        "state": _shown(cloudwatch.state(alarm)),
    }


def _shown(state: State) -> dict[str, str]:
    return {
        "reason": state.reason,
        "reasonData": state.data,
        "timestamp": _time(state.since),
        "value": state.value,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def _backend(caller: Caller) -> Any:
    from moto.cloudwatch.models import cloudwatch_backends

    return cloudwatch_backends[caller.account][caller.region]
