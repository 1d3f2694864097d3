"""XGBoost on the library's encoding: what `fit`, `predict`, `save` and `load` of a fresh repo's
model/train.py call.

Trains in rounds with early stopping, and resumes from a checkpoint where SageMaker keeps one. Must
not see the test rows, or know how the model is evaluated or served.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sm_mlops.tabular import booster as boosters
from sm_mlops.tabular.encoder import Encoding
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.rows import Rows
from sm_mlops.tabular.schema import write_json

FILE = "model.ubj"
NOTES = "training.json"
CHECKPOINTS = Path("checkpoints")
CHECKPOINT = "model.ubj"
MOST_SECONDS = 60  # of training that an interruption can lose
SMALL = 2000  # rows; up to here one thread is faster than several
OBJECTIVES = {
    "binary": ("binary:logistic", "logloss"),
    "multiclass": ("multi:softprob", "mlogloss"),
    "regression": ("reg:squarederror", "rmse"),
}

REFUSALS = (
    *("Parameter", "Check failed", "doesn't support", "Not implemented", "Unknown "),
    *("Invalid argument", "Failed to parse", "label must be"),
)
"""What XGBoost's first line holds where a hyperparameter is wrong."""


@dataclass
class Progress:
    """The progress of training, which every checkpoint contains."""

    rounds: int = 0
    best: int = 0
    curve: dict[str, list[float]] = field(default_factory=lambda: {"train": [], "validation": []})


@dataclass(frozen=True)
class Model:
    """A trained booster, the encoding of its rows, and notes about its training for the report.

    A quantity is trained on as (quantity - offset) / scale, where float32 lacks precision.
    """

    booster: Any
    encoding: Encoding
    offset: float = 0.0
    scale: float = 1.0
    notes: dict[str, Any] = field(default_factory=dict)

    def contributions(self, rows: Rows) -> dict[str, Any]:
        """Return how much each column moves the predictions of these rows, for the report."""
        from sm_mlops.tabular import contributions

        encoded = self.encoding.encode(rows)
        return contributions.overview(self.booster, encoded, self.encoding.columns, self.scale)


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Model:
    """Return a model with as many trees as are best on the validation rows.

    Args:
        parameters: XGBoost's own, and num_boost_round, early_stopping_rounds, checkpoint_rounds;
            booster.DEFAULTS for those that are absent. Other names are ignored.

    Raises:
        DataError: A parameter has a wrong value, or no column varies.
    """
    own, given = hyperparameters(parameters)
    encoding = Encoding.fit(train)
    names = encoding.features
    xgboost = boosters.load()
    task = train.schema.task
    objective, metric = OBJECTIVES[task]
    chosen = {
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "seed": 0,
        "seed_per_iteration": True,  # random draws depend on the round alone, also after a resume
        "nthread": threads(len(train) * len(names)),
        **({"num_class": len(train.schema.classes)} if task == "multiclass" else {}),
        **given,
    }
    offset, scale = standard(train.labels) if task == "regression" else (0.0, 1.0)
    # The image's own folder for temporary files is on its small system disk; /tmp is the volume's:
    # https://docs.aws.amazon.com/sagemaker/latest/dg/model-train-storage.html
    scratch = os.environ.get("TMPDIR") or "/tmp"  # nosec B108 # no names in it
    try:
        with (
            tempfile.TemporaryFile(dir=scratch) as first,
            tempfile.TemporaryFile(dir=scratch) as second,
        ):
            training = matrix(xgboost, first, encoding, train, (offset, scale), chosen)
            check = matrix(xgboost, second, encoding, validation, (offset, scale), chosen, training)
        store = checkpoint_folder(encoding, train, chosen)
        model, progress = boost(xgboost, chosen, own, training, check, store)
    except xgboost.core.XGBoostError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        if "Invalid Parameter" in str(error) or any(words in lines[0] for words in REFUSALS):
            raise DataError(f"XGBoost refuses a hyperparameter: {lines[0][:300]}") from error
        raise
    if metric in ("rmse", "mae"):  # in the unit of the target
        progress.curve = {
            part: [value * scale for value in values] for part, values in progress.curve.items()
        }
    curve = progress.curve["validation"]
    print(
        f"best of {progress.rounds} rounds is {progress.best + 1}: "
        f"{metric} {curve[progress.best]:.5f}, with {len(names)} features"
    )
    model.feature_names, model.feature_types = names, encoding.types
    model.set_attr(offset=repr(offset), scale=repr(scale))
    return Model(model, encoding, offset, scale, notes(model, encoding, chosen | own, progress))


def predict(model: Model, rows: Rows) -> npt.NDArray[Any]:
    """Return (rows,) quantities or (rows, classes) probabilities."""
    encoded = model.encoding.encode(rows)
    model.booster.set_param({"nthread": 1 if len(encoded) <= SMALL else 0})
    values = model.booster.inplace_predict(encoded, validate_features=False)
    if rows.schema.task == "binary":
        values = np.stack([1 - values, values], axis=1)
    if (model.offset, model.scale) != (0, 1):
        values = values.astype(np.float64) * model.scale + model.offset
    return values


def save(model: Model, folder: Path) -> None:
    """Write model.ubj, encoding.json, and training.json for the report."""
    model.booster.save_model(folder / FILE)
    model.encoding.save(folder)
    write_json(folder / NOTES, model.notes)


def load(folder: Path) -> Model:
    """Read what `save` wrote."""
    booster = boosters.load().Booster(model_file=str(folder / FILE))
    offset, scale = (float(booster.attr(name)) for name in ("offset", "scale"))
    return Model(booster, Encoding.load(folder), offset, scale)


def hyperparameters(given: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Return those of this file and those of XGBoost. Raise DataError for a wrong value."""
    merged = dict(boosters.DEFAULTS)
    for raw_name, value in given.items():
        name = boosters.ALIASES.get(raw_name, raw_name)
        if name not in boosters.KNOWN:
            continue
        if problem := boosters.wrong(raw_name, value):
            raise DataError(problem)
        kind = boosters.KNOWN[name]
        merged[name] = str(value) if kind is str else kind(float(value))
    own = {name: int(merged.pop(name, 0)) for name in boosters.OWN}
    if own["num_boost_round"] < 1:
        raise DataError("hyperparameter 'num_boost_round' must be at least 1")
    if negative := [name for name, value in own.items() if value < 0]:
        raise DataError(f"hyperparameter '{negative[0]}' must not be negative")
    return own, merged


def threads(values: int) -> int:
    """Return one thread per 500,000 values, at most one per core; more threads would be slower."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, values // 500_000))


def standard(values: Any) -> tuple[float, float]:
    """Return offset and scale of the target; 0 and 1 unless float32 (7 digits) loses its spread.

    Seconds since 1970 are such a target. All others stay as they are, because some objectives need
    positive labels.
    """
    offset = float(values.mean())
    far = float(np.abs(values - offset).max()) or 1.0
    spread = far * float(np.sqrt(np.mean(((values - offset) / far) ** 2)))  # squares may overflow
    if float(np.abs(values).max()) < 1e4 * spread and 1e-10 < spread < 1e15:
        return 0.0, 1.0
    return offset, spread or 1.0


def matrix(
    xgboost: Any,
    store: IO[bytes],
    encoding: Encoding,
    rows: Rows,
    standardized: tuple[float, float],
    parameters: dict[str, Any],
    ref: Any = None,
) -> Any:
    """Return the encoded rows as XGBoost's matrix.

    They are encoded into the file `store`, so that memory holds a batch of them and what XGBoost
    makes of all.
    """
    offset, scale = standardized
    for encoded in encoding.batches(rows):
        store.write(encoded.data)
    store.flush()
    about = {
        "data": np.memmap(store, np.float32, "r", shape=(len(rows), len(encoding.types))),
        "label": ((rows.labels - offset) / scale).astype(np.float32),
        "feature_names": encoding.features,
        "feature_types": encoding.types,
        "enable_categorical": True,
        "nthread": parameters["nthread"],
    }
    if parameters["tree_method"] in ("approx", "exact"):  # they take no quantized rows
        return xgboost.DMatrix(**about)
    return xgboost.QuantileDMatrix(**about, max_bin=int(parameters.get("max_bin", 256)), ref=ref)


def boost(
    xgboost: Any,
    parameters: dict[str, Any],
    own: dict[str, int],
    training: Any,
    validation: Any,
    store: Path | None,
) -> tuple[Any, Progress]:
    """Add trees until the validation metric has not improved for early_stopping_rounds. Return the
    model up to its best round.

    Resume from a checkpoint. Write one on SIGTERM, and regularly, because the containers' toolkits
    do not pass on the signal of a spot interruption, and everything is killed two minutes later.
    """
    model, progress = restore(xgboost, store, parameters, [training, validation])
    every = own["checkpoint_rounds"] or 50
    patience = own["early_stopping_rounds"] or own["num_boost_round"]
    metric = str(parameters["eval_metric"])
    higher = metric.split("@")[0] in ("auc", "aucpr", "map", "ndcg", "pre")
    stopped: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    curve, saved = progress.curve, time.monotonic()
    try:
        while (
            progress.rounds < own["num_boost_round"] and progress.rounds - progress.best <= patience
        ):
            model.update(training, progress.rounds)
            text = model.eval_set(
                [(training, "train"), (validation, "validation")], progress.rounds
            )
            scores = dict(part.rsplit(":", 1) for part in text.split("\t")[1:])
            for part in curve:
                curve[part].append(float(scores[f"{part}-{metric}"]))
            last, best = curve["validation"][-1], curve["validation"][progress.best]
            if (last > best) if higher else (last < best):
                progress.best = progress.rounds
            if progress.rounds % 20 == 0:
                print(text, flush=True)
            progress.rounds += 1
            due = progress.rounds % every == 0 or time.monotonic() - saved > MOST_SECONDS
            if store and (stopped or due):
                checkpoint(store, model, progress)
                saved = time.monotonic()
            if stopped:
                print(f"terminated after {progress.rounds} rounds", flush=True)
                sys.exit(128 + stopped[0])
    finally:
        signal.signal(signal.SIGTERM, previous)
    model.set_attr(progress=None)
    return model[: progress.best + 1], progress


def checkpoint_folder(encoding: Encoding, train: Rows, parameters: dict[str, Any]) -> Path | None:
    """Return the folder for checkpoints of this data and these parameters, if SageMaker keeps any.

    Executions share the folder in S3, and none may resume from a checkpoint of other rows or
    parameters.
    """
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / CHECKPOINTS
    if not base.is_dir():
        return None
    shaping = {name: value for name, value in parameters.items() if name != "nthread"}
    columns = [asdict(column) for column in encoding.columns]
    content = [shaping, columns, encoding.summary, train.schema.data]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(train.labels.tobytes())
    folder = base / digest.hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    return folder


def checkpoint(store: Path, model: Any, progress: Progress) -> None:
    """Replace the checkpoint atomically, because SageMaker copies it to S3 at any time."""
    model.set_attr(progress=json.dumps(progress.__dict__))
    model.save_model(store / "next.ubj")
    (store / "next.ubj").replace(store / CHECKPOINT)


def restore(
    xgboost: Any, store: Path | None, parameters: dict[str, Any], cache: list[Any]
) -> tuple[Any, Progress]:
    """Return the model and progress of the checkpoint, or new ones."""
    model = xgboost.Booster(parameters, cache)
    if store is None or not (store / CHECKPOINT).exists():
        return model, Progress()
    model.load_model(store / CHECKPOINT)
    model.set_param(parameters)
    progress = Progress(**json.loads(model.attr("progress")))
    print(f"resumed after {progress.rounds} rounds", flush=True)
    return model, progress


def notes(
    model: Any, encoding: Encoding, parameters: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Return the content of training.json."""
    gain = model.get_score(importance_type="total_gain")
    total = sum(gain.values()) or 1.0
    return {
        "parameters": parameters,
        "rounds": progress.rounds,
        "best_round": progress.best + 1,
        "metric": parameters["eval_metric"],
        "curve": progress.curve,
        "importance": {
            name: gain[name] / total for name in sorted(gain, key=lambda n: (-gain[n], n))
        },
        "features": len(encoding.types),
        "columns": encoding.summary,
    }
