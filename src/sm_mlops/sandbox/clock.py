"""The sandbox's clock: real time, plus what `mlops sandbox wait` has moved it.

Schedules, metrics, alarms, capture, events, objects of S3 and model packages follow it. Signatures,
sessions, tokens and leases keep real time, and so do jobs and executions.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sm_mlops.sandbox.storage import Store

CLOCK = "Clock"
# One server at a time: see server.Server.
_OFFSET = [0.0]


def now() -> float:
    """Return the time in seconds since 1970."""
    return time.time() + _OFFSET[0]


def text(moment: float) -> str:
    """Return a time as events show it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _naive() -> datetime:
    return datetime.fromtimestamp(now(), UTC).replace(tzinfo=None)


def load(store: Store) -> None:
    """Continue at the offset that the state has; let moto's S3 and CloudWatch follow."""
    from moto.cloudwatch import models as cloudwatch
    from moto.s3 import models as s3

    s3.utcnow = cloudwatch.utcnow = _naive
    _OFFSET[0] = (store.get(CLOCK, CLOCK) or {"Offset": 0.0})["Offset"]


def move(moment: float, store: Store) -> None:
    """Move the clock forward to a moment; never back."""
    if moment > now():
        _OFFSET[0] += moment - now()
        store.put(CLOCK, CLOCK, {"Offset": _OFFSET[0]})
