"""The model: a random forest on the library's encoding."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sm_mlops.tabular.encoder import Encoding
from sm_mlops.tabular.rows import Rows


@dataclass
class Model:
    """The forest, and the encoding of its rows."""

    encoding: Encoding
    forest: Any


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Model:
    """Return the model; a forest needs no validation rows."""
    encoding = Encoding.fit(train)
    kind = RandomForestClassifier if train.schema.classes else RandomForestRegressor
    forest = kind(**parameters, n_jobs=-1, random_state=0)
    return Model(encoding, forest.fit(encoding.encode(train), train.labels))


def predict(model: Model, rows: Rows) -> np.ndarray[Any, Any]:
    """Return a prediction per row."""
    answer = model.forest.predict_proba if rows.schema.classes else model.forest.predict
    return answer(model.encoding.encode(rows))


def save(model: Model, folder: Path) -> None:
    """Write encoding and forest; an endpoint predicts on one core per request."""
    model.encoding.save(folder)
    joblib.dump(model.forest.set_params(n_jobs=1), folder / "forest.joblib")


def load(folder: Path) -> Model:
    """Return the model that `save` wrote."""
    return Model(Encoding.load(folder), joblib.load(folder / "forest.joblib"))


if __name__ == "__main__":
    from sm_mlops.tabular import train
    from sm_mlops.tabular.failure import run

    run(train.main, Path(__file__).parent)
