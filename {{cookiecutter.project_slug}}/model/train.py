"""The model: fit, predict, save, load. By default XGBoost on the library's encoding.

In:   train, validation, rows: typed rows after `features` of preprocess.py, as `.frame` (pandas) or
      `.table` (Arrow); types and missing values are listed in preprocess.py. `.labels`, in training
      only: (rows,) index in `.schema.classes`, or the quantity. Parameters: `hyperparameters` of
      mlops.yaml by name. For an algorithm of your own, `Encoding.fit(train)` of
      sm_mlops.tabular.encoder encodes rows as float32: `.encode(rows)` is (rows, features), NaN
      where missing; `.save(folder)` and `Encoding.load(folder)` keep it.
Out:  fit and load: any object. predict: (rows, classes) probabilities in the order of
      `.schema.classes`, or (rows,) quantities. save: files in `folder`, which load reads.

fit runs in the job; load once and predict for each request at the endpoint.
By itself: python model/train.py, after preprocess.py, which it runs first.
"""

from pathlib import Path
from typing import Any

import numpy as np
from sm_mlops.tabular import boosting
from sm_mlops.tabular.rows import Rows


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Any:
    """Return the model; the validation rows say when to stop."""
    return boosting.fit(train, validation, parameters)


def predict(model: Any, rows: Rows) -> np.ndarray[Any, Any]:
    """Return a prediction per row."""
    return boosting.predict(model, rows)


def save(model: Any, folder: Path) -> None:
    """Write the model, and training.json for the report's learning curve and importance."""
    boosting.save(model, folder)


def load(folder: Path) -> Any:
    """Return the model that `save` wrote."""
    return boosting.load(folder)


if __name__ == "__main__":
    from sm_mlops.tabular import train
    from sm_mlops.tabular.failure import run

    run(train.main, Path(__file__).parent)
