"""Step caching: which earlier result a step may reuse instead of running.

Source: AWS's pages "Caching pipeline steps" and "Default cache key attributes by pipeline step
type".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sm_mlops.sandbox.definition import Step
from sm_mlops.sandbox.storage import Record

KEY_ATTRIBUTES = {
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "Training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
}


def key(step: Step, request: dict[str, Any]) -> str | None:
    """Return the cache key of a step's resolved request, None for types that are not cached.

    The key has the addresses of inputs, not their content: as on AWS, new data under an old address
    does not change it.
    """
    if step.type not in KEY_ATTRIBUTES:
        return None
    chosen = {name: request.get(name) for name in KEY_ATTRIBUTES[step.type]}
    text = json.dumps([step.name, step.type, chosen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find(
    step: Step, wanted: str, executions: Iterable[Record], now: float
) -> tuple[Record, Record] | None:
    """Return (execution, step record) of the most recent matching run, or None.

    Only successful runs of the same pipeline count (`executions` are the pipeline's), and only
    those not older than the step's ExpireAfter. A hit is never the source of another.
    """
    assert step.cache_seconds is not None
    found = [
        (execution, record)
        for execution in executions
        if (record := execution["_steps"].get(step.name)) is not None
        and record.get("_key") == wanted
        and record["StepStatus"] == "Succeeded"
        and not record.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")
        and now - record["EndTime"] <= step.cache_seconds
    ]
    return max(found, key=lambda pair: pair[1]["EndTime"], default=None)
