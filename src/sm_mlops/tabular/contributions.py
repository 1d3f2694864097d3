"""How much each column moves a booster's predictions: SHAP values as XGBoost computes them.

On a sample of rows that bounds time and memory. Must not know where rows come from.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sm_mlops.tabular import booster as boosters
from sm_mlops.tabular.metrics import thinned

MOST_ROWS, FEWEST_ROWS = 1000, 10
# Of leaves x depth squared x rows: about ten seconds of one core, measured with XGBoost 3.2.
MOST_WORK = 1.2e9
MOST_VALUES = 5e7  # float32
CLEAR = 0.3  # correlation of values and contributions that is called a direction
SEEN = 3  # rows of a category that is named
Floats = npt.NDArray[np.float32]


def overview(
    booster: Any, matrix: Floats, columns: Sequence[Any], scale: float = 1.0
) -> dict[str, Any]:
    """Return `rows`, how many were used, and `columns` by falling `mean` of |contribution|.

    A column's `direction` is up, down or mixed as its values rise, with `low` and `high` the
    categories that lower and raise the prediction most; for more than two classes there is only
    `most`, the index of the class that it moves most.

    Args:
        matrix: (rows, features), encoded.
        columns: With `name`, `kind`, `features` and `categories`, in the order of the features.
        scale: Of the quantity that the booster predicts.
    """
    xgboost = boosters.load()
    rows = _affordable(booster, matrix.shape[1])
    if rows < FEWEST_ROWS:
        return {"why": "the model is too large for it"}
    chosen = matrix[thinned(len(matrix), rows)]
    names, types = booster.feature_names, booster.feature_types
    data = xgboost.DMatrix(
        chosen, feature_names=names, feature_types=types, enable_categorical=True
    )
    values = booster.predict(data, pred_contribs=True)[..., :-1] * scale
    found, start = [], 0
    for column in columns:
        own = slice(start, start := start + len(column.features))
        if not column.features:
            continue
        moved = values[..., own].sum(axis=-1)  # (rows,) or (rows, classes)
        entry = {"name": column.name, "mean": float(np.abs(moved).mean())}
        if moved.ndim == 2:
            entry["most"] = int(np.abs(moved).mean(axis=0).argmax())
        else:
            entry |= _direction(column, chosen[:, own][:, 0], moved)
        found.append(entry)
    found.sort(key=lambda entry: -entry["mean"])
    return {"rows": len(chosen), "columns": found}


def _affordable(booster: Any, features: int) -> int:
    """Return how many rows take bounded time and memory."""
    learner = json.loads(booster.save_config())["learner"]
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    trees = int(learner["gradient_booster"]["gbtree_model_param"]["num_trees"])
    splits = sum(booster.get_score(importance_type="weight").values())
    depth = np.log2(splits / trees + 1) + 1
    work = (splits + trees) * depth**2
    return int(min(MOST_ROWS, MOST_WORK / work, MOST_VALUES / (outputs * (features + 1))))


def _direction(column: Any, x: Floats, moved: Floats) -> dict[str, Any]:
    if column.kind == "text":
        return {}
    if column.kind == "category":
        means = {
            name: float(moved[x == code].mean())
            for code, name in enumerate(column.categories)
            if (x == code).sum() >= SEEN
        }
        if len(means) < 2:
            return {}
        return {"low": min(means, key=means.__getitem__), "high": max(means, key=means.__getitem__)}
    known = np.isfinite(x)
    if known.sum() < SEEN or np.ptp(x[known]) == 0 or np.ptp(moved[known]) == 0:
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        r = np.corrcoef(x[known].astype(np.float64), moved[known])[0, 1]
    return {"direction": "up" if r >= CLEAR else "down" if r <= -CLEAR else "mixed"}
