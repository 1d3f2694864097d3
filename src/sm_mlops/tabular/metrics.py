"""Metrics of a model, by name and in the format that SageMaker's model registry shows.

Arrays in, plain numbers out; only a metric of the team's own gets frames. Must not know about
files, models or plots.
"""

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.measures import HIGHER, LOWER, OF_CLASSES, OF_QUANTITIES, refuse_taken

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BETAS = {"f0_5": 0.5, "f1": 1.0, "f2": 2.0}
POINTS = 200  # of a curve in evaluation.json
ENOUGH = 200  # rows for a standard deviation, as in SageMaker Model Monitor

Metric = Callable[[Any, Any, Any], Any]
"""(rows,) labels or quantities, the predictions and the raw rows, both as frames, to a number."""
_OWN: dict[str, tuple[Metric, bool]] = {}


def higher_is_better(metric: Metric) -> Metric:
    """Declare a metric of the team's own, a function in model/evaluate.py."""
    return _declare(metric, lower=False)


def lower_is_better(metric: Metric) -> Metric:
    """Declare a metric of the team's own of which less is better, such as a cost."""
    return _declare(metric, lower=True)


def _declare(metric: Metric, lower: bool) -> Metric:
    name = metric.__name__
    try:
        refuse_taken(name, _place(metric))
    except ValueError as error:
        raise DataError(str(error)) from error
    _OWN[name] = metric, lower
    return metric


def _place(metric: Metric, error: Exception | None = None) -> str:
    """Return file and line of a function, or of the error that it raised."""
    file, line = metric.__code__.co_filename, metric.__code__.co_firstlineno
    for frame in traceback.extract_tb(error.__traceback__) if error else ():
        line = (frame.lineno or line) if frame.filename == file else line
    return f"model/{Path(file).name}, line {line}"


def names() -> tuple[str, ...]:
    """Return all metrics: the library's and the team's own."""
    return (*HIGHER, *LOWER, *_OWN)


def fitting(task: str) -> tuple[str, ...]:
    """Return the metrics that are for this task; the team's own are for each."""
    return (*(OF_QUANTITIES if task == "regression" else OF_CLASSES), *_OWN)


def is_lower_better(name: str) -> bool:
    """Return whether lower values of a metric are better."""
    return name in LOWER or (name in _OWN and _OWN[name][1])


def own(frames: Callable[[], tuple[Any, Any, Any]]) -> dict[str, float]:
    """Return the values of the team's own metrics, whose arguments `frames` makes if there are any.

    Raises:
        DataError: One raises, or returns no number. The text names file and line.
    """
    found: dict[str, float] = {}
    arguments = frames() if _OWN else ()
    for name, (metric, _) in _OWN.items():
        try:
            value = metric(*(each.copy() for each in arguments))  # one may change its own
        except Exception as error:
            place = _place(metric, error)
            raise DataError(f"{place}: {name} raised {type(error).__name__}: {error}") from error
        if not isinstance(value, int | float | np.number):
            raise DataError(f"{_place(metric)}: {name} returned {value!r:.80}; return a number")
        found[name] = float(value)
    return found


def thinned(size: int, most: int = POINTS) -> Ints:
    """Return at most `most` of the indices 0 to size-1, evenly spaced, with both ends."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(np.int64)


def _positives(truth: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Return true and false positives at or above each distinct score, the highest score first."""
    order = np.argsort(-score, kind="stable")
    score, truth = score[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true = np.cumsum(truth)[last].astype(np.float64)
    return true, last + 1.0 - true


def roc_curve(truth: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Return false and true positive rates; a rate without any such row stays 0."""
    true, false = _positives(truth, score)
    return np.append(0.0, false / max(false[-1], 1)), np.append(0.0, true / max(true[-1], 1))


def precision_recall_curve(truth: Bools, score: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision; without positives, recall stays 0."""
    true, false = _positives(truth, score)
    return np.append(0.0, true / max(true[-1], 1)), np.append(1.0, true / (true + false))


def roc_auc(truth: Bools, score: Floats) -> float:
    """Return the area under the ROC curve, ties counted half; NaN if only one class is present."""
    x, y = roc_curve(truth, score)
    return float(np.trapezoid(y, x)) if x[-1] and y[-1] else float("nan")


def average_precision(truth: Bools, score: Floats) -> float:
    """Return the sum over thresholds of precision times step in recall; NaN without positives."""
    recall, precision = precision_recall_curve(truth, score)
    return float(np.sum(np.diff(recall) * precision[1:])) if recall[-1] else float("nan")


def confusion(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """Return (classes, classes) counts, actual by row, predicted by column."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _per_class(matrix: Ints) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and support of each class; 0 where undefined."""
    hit, support = np.diag(matrix).astype(float), matrix.sum(axis=1).astype(float)
    claimed = matrix.sum(axis=0).astype(float)
    return hit / np.maximum(claimed, 1), hit / np.maximum(support, 1), support


def _f(precision: Any, recall: Any, beta: float) -> Any:
    square = beta * beta
    return (1 + square) * precision * recall / np.maximum(square * precision + recall, 1e-300)


def decided(probability: Floats, threshold: float) -> Ints:
    """Return (rows,) classes: of two the second at `threshold` or more, else the likeliest."""
    if probability.shape[1] == 2:
        return (probability[:, 1] >= threshold).astype(np.int64)
    return probability.argmax(axis=1)


def trade(truth: Bools, score: Floats, thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Return precision, recall and the share predicted positive at each threshold.

    Precision is NaN where nothing is predicted positive, recall where nothing is.
    """
    above = np.sort(score), np.sort(score[truth])
    claimed, hit = (len(v) - np.searchsorted(v, thresholds).astype(np.float64) for v in above)
    with np.errstate(invalid="ignore"):
        return hit / claimed, hit / np.float64(len(above[1])), claimed / len(score)


def classification(truth: Ints, probability: Floats, threshold: float = 0.5) -> dict[str, float]:
    """Return OF_CLASSES by name: for two classes, the second one's; else the classes' mean."""
    classes = probability.shape[1]
    matrix = confusion(truth, decided(probability, threshold), classes)
    precision, recall, support = _per_class(matrix)
    present = np.flatnonzero(support)
    scored = [1] if classes == 2 else present
    shown = [1] if classes == 2 else np.flatnonzero(support + matrix.sum(axis=0))
    own = np.clip(probability[np.arange(len(truth)), truth], 1e-15, 1)
    return {
        "auc": float(np.mean([roc_auc(truth == k, probability[:, k]) for k in scored])),
        "average_precision": float(
            np.mean([average_precision(truth == k, probability[:, k]) for k in scored])
        ),
        "accuracy": float(np.trace(matrix) / max(len(truth), 1)),
        "balanced_accuracy": float(recall[present].mean()),
        "precision": float(precision[shown].mean()),
        "recall": float(recall[shown].mean()),
        "f1": float(_f(precision, recall, 1)[shown].mean()),
        "logloss": float(-np.log(own).mean()),
    }


def measured(task: str, truth: Any, predicted: Floats, threshold: float) -> dict[str, float]:
    """Return the metrics that fit the task, by name."""
    if task == "regression":
        return regression(truth, predicted)
    return classification(truth, predicted, threshold)


def regression(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Return OF_QUANTITIES by name; mape as a fraction, over the rows whose truth is not zero."""
    error = predicted - truth
    spread = float(np.sum((truth - truth.mean()) ** 2))
    other = truth != 0
    relative = np.abs(error[other] / truth[other])
    return {
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "mape": float(relative.mean()) if len(relative) else float("nan"),
    }


# SageMaker's format
# Source: "Model quality metrics and Amazon CloudWatch monitoring", SageMaker developer guide.


def model_quality(
    task: str,
    truth: Any,
    predicted: Floats,
    classes: list[str],
    own: dict[str, float],
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Return the content of evaluation.json. An undefined value is the text "NaN"."""
    by_task: dict[str, Callable[[Any, Floats], dict[str, float]]] = {
        "binary": partial(_binary, threshold=threshold),
        "multiclass": _multiclass,
        "regression": _errors,
    }
    compute = by_task[task]
    values = compute(truth, predicted)
    spread = _deviations(compute, truth, predicted)
    group: dict[str, Any] = {
        name: {"value": _finite(value), "standard_deviation": _finite(spread[name])}
        for name, value in values.items()
    }
    group |= {
        name: {"value": _finite(value), "standard_deviation": "NaN"} for name, value in own.items()
    }
    if task == "regression":
        return {"regression_metrics": group}
    matrix = confusion(truth, decided(predicted, threshold), len(classes))
    names = ["0", "1"] if task == "binary" else classes
    rows = zip(names, matrix.tolist(), strict=True)
    table = {actual: dict(zip(names, row, strict=True)) for actual, row in rows}
    group = {"confusion_matrix": table, **group}
    if task == "multiclass":
        return {"multiclass_classification_metrics": group}
    group |= _curves(truth == 1, predicted[:, 1])
    return {"binary_classification_metrics": group}


def _curves(truth: Bools, score: Floats) -> dict[str, dict[str, list[float]]]:
    wrong, hit = roc_curve(truth, score)
    recall, precision = precision_recall_curve(truth, score)
    at = thinned(len(hit))
    return {
        "receiver_operating_characteristic_curve": {
            "false_positive_rates": wrong[at].tolist(),
            "true_positive_rates": hit[at].tolist(),
        },
        "precision_recall_curve": {
            "precisions": precision[at].tolist(),
            "recalls": recall[at].tolist(),
        },
    }


def _binary(truth: Ints, probability: Floats, threshold: float) -> dict[str, float]:
    matrix = confusion(truth, decided(probability, threshold), 2)
    precision, recall, support = _per_class(matrix)
    p, r = precision[1], recall[1]
    share = float(support[1] / max(support.sum(), 1))  # of positives: the precision of "always yes"
    result = {
        "recall": float(r),
        "precision": float(p),
        "accuracy": float(np.trace(matrix) / max(len(truth), 1)),
        "recall_best_constant_classifier": 1.0,
        "precision_best_constant_classifier": share,
        "accuracy_best_constant_classifier": max(share, 1 - share),
        "true_positive_rate": float(r),
        "true_negative_rate": float(recall[0]),
        "false_positive_rate": float(1 - recall[0]),
        "false_negative_rate": float(1 - r),
        "auc": roc_auc(truth == 1, probability[:, 1]),
    }
    for name, beta in BETAS.items():
        result[name] = float(_f(p, r, beta))
        result[f"{name}_best_constant_classifier"] = float(_f(share, 1.0, beta))
    return result


def _multiclass(truth: Ints, probability: Floats) -> dict[str, float]:
    matrix = confusion(truth, probability.argmax(axis=1), probability.shape[1])
    precision, recall, support = _per_class(matrix)
    weight = support / max(support.sum(), 1)
    share = float(weight.max())  # of the commonest class: the accuracy of always predicting it
    result = {
        "accuracy": float(np.trace(matrix) / max(len(truth), 1)),
        "weighted_recall": float(weight @ recall),
        "weighted_precision": float(weight @ precision),
        "accuracy_best_constant_classifier": share,
        "weighted_recall_best_constant_classifier": share,
        "weighted_precision_best_constant_classifier": share * share,
    }
    for name, beta in BETAS.items():
        result[f"weighted_{name}"] = float(weight @ _f(precision, recall, beta))
        constant = share * float(_f(share, 1.0, beta))
        result[f"weighted_{name}_best_constant_classifier"] = constant
    return result


def _errors(truth: Floats, predicted: Floats) -> dict[str, float]:
    values = regression(truth, predicted)
    return {"mse": values["rmse"] ** 2} | {name: values[name] for name in ("mae", "rmse", "r2")}


def _deviations(
    compute: Callable[[Any, Floats], dict[str, float]], truth: Any, predicted: Floats
) -> dict[str, float]:
    """Return the spread over five random samples of 80% of the rows, as Model Monitor does."""
    if len(truth) < ENOUGH:
        return dict.fromkeys(compute(truth, predicted), float("nan"))
    random = np.random.default_rng(0)
    samples = [random.random(len(truth)) < 0.8 for _ in range(5)]  # nosec B311 # a bootstrap
    results = [compute(truth[s], predicted[s]) for s in samples]
    return {name: float(np.std([r[name] for r in results])) for name in results[0]}


def _finite(value: float) -> float | str:
    return float(value) if np.isfinite(value) else "NaN"
