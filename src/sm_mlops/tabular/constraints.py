"""A baseline in the formats of SageMaker Model Monitor, which the model registry shows.

Must not know where a baseline comes from, or how we check requests ourselves.

Source: SageMaker developer guide, "Schema for Statistics", "Schema for Constraints" and "Model
quality metrics and Amazon CloudWatch monitoring".
"""

from typing import Any

import numpy as np

from sm_mlops.tabular import metrics
from sm_mlops.tabular.baseline import Baseline, Summary

BUCKETS = 10
LIMIT = 0.1
SKETCH = {"c": 0.64, "k": 2048}
"""Parameters of a KLL sketch, which holds up to `k` values of equal weight before it compacts."""
RATES = ("false_positive_rate", "false_negative_rate", "mse")
"""Of what Model Monitor measures, that of which less is better and that is no metric of ours."""
ENABLED = "Enabled"
MONITORING = {
    "evaluate_constraints": ENABLED,
    "emit_metrics": ENABLED,
    "datatype_check_threshold": LIMIT,
    "domain_content_threshold": LIMIT,
    "distribution_constraints": {
        "perform_comparison": ENABLED,
        "comparison_threshold": LIMIT,
        "comparison_method": "Robust",
        "categorical_comparison_threshold": LIMIT,
        "categorical_drift_method": "LInfinity",
    },
}


def files(baseline: Baseline, quality: dict[str, Any]) -> dict[str, Any]:
    """Return the content of each file by its name; `quality` is that of evaluation.json.

    What the columns of the training rows are like, what those of requests have to be like, and
    which values of the metrics are worse.
    """
    shown = [_statistics(column) for column in baseline.columns]
    asked = [_constraints(column) for column in baseline.columns]
    rows = {"item_count": baseline.rows}
    return {
        "statistics": {"version": 0, "dataset": rows, "features": shown},
        "constraints": {"version": 0, "features": asked, "monitoring_config": MONITORING},
        "evaluation-constraints": of_quality(quality),
    }


def of_quality(quality: dict[str, Any]) -> dict[str, Any]:
    """Return which values are worse than those of evaluation.json, which has them by task."""
    (name,) = (key for key in quality if key.endswith("_metrics"))
    limits = {
        metric: {"threshold": entry["value"], "comparison_operator": _operator(metric)}
        for metric, entry in quality[name].items()
        if isinstance(entry.get("value"), float)
    }
    return {"version": 0, name.replace("_metrics", "_constraints"): limits}


def _operator(metric: str) -> str:
    worse_above = metric in RATES or metrics.is_lower_better(metric)
    return "GreaterThanThreshold" if worse_above else "LessThanThreshold"


def _type(column: Summary) -> str:
    """Return the type that Model Monitor would infer from a request, in which a date is text."""
    if not column.present:
        return "Unknown"
    if column.kind != "number":
        return "String"
    return "Integral" if all(point.is_integer() for point in column.points) else "Fractional"


def _constraints(column: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "inferred_type": _type(column)}
    found["completeness"] = column.present / column.rows if column.rows else 0.0
    if column.kind == "number" and column.min is not None:
        found["num_constraints"] = {"is_non_negative": column.min >= 0}
    if column.kind == "text" and column.categories and not column.other:
        found["string_constraints"] = {"domains": list(column.categories)}
    return found


def _statistics(column: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "inferred_type": _type(column)}
    common = {"num_present": column.present, "num_missing": column.missing}
    if found["inferred_type"] == "String":
        found["string_statistics"] = {"common": common} | _texts(column)
    elif found["inferred_type"] != "Unknown":
        found["numerical_statistics"] = {"common": common} | _numbers(column)
    return found


def _texts(column: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if column.distinct is not None:
        found["distinct_count"] = column.distinct
    buckets = [{"value": text, "count": count} for text, count in column.categories.items()]
    if buckets:
        found["distribution"] = {"categorical": {"buckets": buckets}}
    return found


def _numbers(column: Summary) -> dict[str, Any]:
    total = None if column.mean is None else column.mean * column.present
    found = {"mean": column.mean, "sum": total, "std_dev": column.deviation}
    found |= {"min": column.min, "max": column.max}
    sketch = {"parameters": SKETCH, "data": [column.points]}
    return {
        **{
            name: value for name, value in found.items() if value is not None and np.isfinite(value)
        },
        "distribution": {"kll": {"buckets": _buckets(column), "sketch": sketch}},
    }


def _buckets(column: Summary) -> list[dict[str, Any]]:
    """Return ten ranges of equal width, and how many rows are in each, as the points tell."""
    assert column.min is not None and column.max is not None
    shares = np.linspace(0, 1, BUCKETS + 1)
    edges = column.min * (1 - shares) + column.max * shares
    below = np.searchsorted(column.points, edges[1:-1]) / len(column.points) * column.present
    counts = np.diff([0, *np.round(below), column.present])
    return [
        {"lower_bound": float(low), "upper_bound": float(high), "count": int(count)}
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
