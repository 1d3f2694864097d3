"""The model: LightGBM on the library's encoding."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from sm_mlops.tabular.encoder import Encoding
from sm_mlops.tabular.rows import Rows


@dataclass
class Model:
    """The trees, and the encoding of their rows."""

    encoding: Encoding
    booster: lightgbm.Booster


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Model:
    """Return the model; the validation rows say when to stop."""
    encoding, classes = Encoding.fit(train), len(train.schema.classes)
    # The library's tasks have the names of LightGBM's objectives.
    objective = {"objective": train.schema.task, "num_class": classes if classes > 2 else 1}
    training = lightgbm.Dataset(encoding.encode(train), train.labels)
    check = training.create_valid(encoding.encode(validation), validation.labels)
    booster = lightgbm.train(
        {**objective, "seed": 0, "verbosity": -1, **parameters}, training, valid_sets=[check]
    )
    print(f"stopped after {booster.num_trees()} trees, best at {booster.best_iteration}")
    return Model(encoding, booster)


def predict(model: Model, rows: Rows) -> np.ndarray[Any, Any]:
    """Return a prediction per row."""
    found = np.asarray(model.booster.predict(model.encoding.encode(rows)))
    return np.stack([1 - found, found], axis=1) if rows.schema.task == "binary" else found


def save(model: Model, folder: Path) -> None:
    """Write encoding and trees, those after the best iteration left out."""
    model.encoding.save(folder)
    model.booster.save_model(folder / "model.txt")


def load(folder: Path) -> Model:
    """Return the model that `save` wrote."""
    return Model(Encoding.load(folder), lightgbm.Booster(model_file=folder / "model.txt"))


if __name__ == "__main__":
    from sm_mlops.tabular import train
    from sm_mlops.tabular.failure import run

    run(train.main, Path(__file__).parent)
