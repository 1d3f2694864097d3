"""Train XGBoost on the encoded rows and write everything that the endpoint needs.

Input:  channels (folders) train and validation, encoded rows as preprocess.py writes them, and
        preprocessor with schema.json. Hyperparameters as `--name value`: XGBoost's own, and
        num_boost_round, early_stopping_rounds, checkpoint_rounds. The others come from mlops.yaml,
        if it is in this folder or the one above.
Output: in the model folder: model.ubj; schema.json; training.json, parameters and learning curve;
        versions.json, the packages; code/, inference.py and the modules it imports.

You may replace this file as long as it writes these outputs. It must not see the test rows or know
how the model will be evaluated.
"""

import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from sm_mlops.tabular import booster as boosters
from sm_mlops.tabular import packaging
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.failure import DataError

Floats = npt.NDArray[np.float32]
CHECKPOINTS = Path("checkpoints")
CHECKPOINT = "model.ubj"
MOST_SECONDS = 60  # of training that an interruption can lose
OBJECTIVES = {
    "binary": ("binary:logistic", "logloss"),
    "multiclass": ("multi:softprob", "mlogloss"),
    "regression": ("reg:squarederror", "rmse"),
}


@dataclass
class Progress:
    """The progress of training, which every checkpoint contains."""

    rounds: int = 0
    best: int = 0
    curve: dict[str, list[float]] = field(default_factory=lambda: {"train": [], "validation": []})


def main(folder: Path) -> None:
    """Run the step, whose script is in `folder`, from the command line or in script mode."""
    folders, given = arguments(sys.argv[1:])
    folders["code"] = folder
    own, parameters = hyperparameters({**configured(folder), **given})
    train(folders, own, parameters)


def arguments(argv: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the folders (train, validation, preprocessor, model-dir) and the hyperparameters."""
    sources = {
        "train": "SM_CHANNEL_TRAIN",
        "validation": "SM_CHANNEL_VALIDATION",
        "preprocessor": "SM_CHANNEL_PREPROCESSOR",
        "model-dir": "SM_MODEL_DIR",
    }
    given: dict[str, str] = {}
    words = [part for word in argv for part in (word.split("=", 1) if "--" in word[:2] else [word])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise DataError("arguments come as pairs: --train DIR --model-dir DIR --eta 0.1 ...")
    for name, value in zip(words[::2], words[1::2], strict=True):
        given[name.removeprefix("--").replace("model_dir", "model-dir")] = value
    folders = {}
    for name, variable in sources.items():
        place = given.pop(name, "") or os.environ.get(variable, "")
        if not place:
            raise DataError(f"--{name} is missing (or {variable} in the environment)")
        folders[name] = Path(place)
    return folders, given


def configured(folder: Path) -> dict[str, Any]:
    """Return the hyperparameters of mlops.yaml in `folder` or the one above, if it exists."""
    for path in (folder / "mlops.yaml", folder.parent / "mlops.yaml"):
        if path.exists():
            from sm_mlops.tabular import mlops_yaml

            content = mlops_yaml.load(path.read_text(encoding="utf-8")) or {}
            return dict(content.get("hyperparameters") or {})
    return {}


def hyperparameters(given: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Return those of this file and those of XGBoost. Raise DataError for a wrong name or value."""
    known: dict[str, type] = {**boosters.OWN, **boosters.XGBOOST}
    merged = dict(boosters.DEFAULTS)
    for raw_name, value in given.items():
        name = boosters.ALIASES.get(raw_name, raw_name)
        if name not in known:
            raise DataError(boosters.unknown(raw_name))
        if isinstance(value, str) and value[:1] == '"':
            value = json.loads(value)  # the SageMaker SDK encodes values as JSON
        if value is None or value in ("", "null", "None"):
            continue
        kind = known[name]
        try:
            number = float(value) if kind is not str else 0.0
            if kind is int and not number.is_integer():
                raise ValueError
            merged[name] = kind(number) if kind is not str else str(value)
        except (TypeError, ValueError):
            expected = "a whole number" if kind is int else "a number"
            raise DataError(f"hyperparameter '{raw_name}' is {value!r}, not {expected}") from None
    own = {name: int(merged.pop(name, 0)) for name in boosters.OWN}
    if own["num_boost_round"] < 1:
        raise DataError("hyperparameter 'num_boost_round' must be at least 1")
    return own, merged


def train(folders: dict[str, Path], own: dict[str, int], given: dict[str, Any]) -> None:
    """Train, and write the model folder."""
    schema = schemas.load(folders["preprocessor"])
    xgboost = boosters.load()
    objective, metric = OBJECTIVES[schema.task]
    parameters = {
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "seed": 0,
        "seed_per_iteration": True,  # random draws depend on the round alone, also after a resume
        "nthread": threads(schema),
        **({"num_class": len(schema.classes)} if schema.task == "multiclass" else {}),
        **given,
    }
    training = matrix(xgboost, folders["train"], schema, parameters)
    validation = matrix(xgboost, folders["validation"], schema, parameters, training)
    try:
        store = checkpoint_folder(folders["preprocessor"], parameters)
        model, progress = boost(xgboost, parameters, own, training, validation, store)
    except xgboost.core.XGBoostError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        refusals = ("Parameter", "Check failed", "doesn't support")
        if "Invalid Parameter" in str(error) or any(words in lines[0] for words in refusals):
            raise DataError(f"XGBoost refuses a hyperparameter: {lines[0][:300]}") from error
        raise
    if metric in ("rmse", "mae"):  # in the unit of the target
        progress.curve = {
            part: [value * schema.scale for value in values]
            for part, values in progress.curve.items()
        }
    save(folders, model, schema, {**parameters, **own}, progress)
    curve = progress.curve["validation"]
    print(
        f"best of {progress.rounds} rounds is {progress.best + 1}: "
        f"{metric} {curve[progress.best]:.5f}"
    )


def threads(schema: schemas.Schema) -> int:
    """Return one thread per 500,000 values, at most one per core; more threads would be slower."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    values = schema.data["rows"]["train"] * len(schema.features)
    return max(1, min(cores, values // 500_000))


def matrix(
    xgboost: Any, folder: Path, schema: schemas.Schema, parameters: dict[str, Any], ref: Any = None
) -> Any:
    """Return the rows of the Parquet files in a folder, read a row group at a time."""
    groups = [
        (path, group)
        for path in sorted(folder.glob("*.parquet"))
        for group in range(pq.ParquetFile(path).num_row_groups)
    ]
    if not groups:
        raise DataError(f"{folder}: no rows in Parquet files here")

    class RowGroups(xgboost.DataIter):
        def __init__(self) -> None:
            self.at = 0
            super().__init__()

        def reset(self) -> None:
            self.at = 0

        def next(self, input_data: Any) -> bool:
            if self.at == len(groups):
                return False
            path, group = groups[self.at]
            table = pq.ParquetFile(path).read_row_group(group)
            rows = np.empty((table.num_rows, table.num_columns - 1), np.float32)
            for j in range(rows.shape[1]):
                rows[:, j] = table.column(j + 1).to_numpy()
            input_data(
                data=rows,
                label=table.column(0).to_numpy(),
                feature_names=schema.features,
                feature_types=schema.types,
            )
            self.at += 1
            return True

    if parameters["tree_method"] in ("approx", "exact"):  # they take no quantized rows
        parts: list[dict[str, Any]] = []
        reader = RowGroups()
        while reader.next(lambda **part: parts.append(part)):
            pass
        return xgboost.DMatrix(
            np.concatenate([part["data"] for part in parts]),
            np.concatenate([part["label"] for part in parts]),
            feature_names=schema.features,
            feature_types=schema.types,
            enable_categorical=True,
            nthread=parameters["nthread"],
        )
    bins = int(parameters.get("max_bin", 256))
    return xgboost.QuantileDMatrix(
        RowGroups(), max_bin=bins, ref=ref, enable_categorical=True, nthread=parameters["nthread"]
    )


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


def checkpoint_folder(preprocessor: Path, parameters: dict[str, Any]) -> Path | None:
    """Return the folder for checkpoints of this data and these parameters, if SageMaker keeps any.

    Executions share the folder in S3, and none may resume from a checkpoint of other data or
    parameters. The schema contains the hash of the data and all that was fitted.
    """
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / CHECKPOINTS
    if not base.is_dir():
        return None
    digest = hashlib.sha256((preprocessor / schemas.FILE).read_bytes())
    shaping = {name: value for name, value in parameters.items() if name != "nthread"}
    digest.update(json.dumps(shaping, sort_keys=True).encode())
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


def save(
    folders: dict[str, Path],
    model: Any,
    schema: schemas.Schema,
    parameters: dict[str, Any],
    progress: Progress,
) -> None:
    """Write the model folder."""
    folder = folders["model-dir"]
    folder.mkdir(parents=True, exist_ok=True)
    for path in folders["preprocessor"].iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    model.feature_names, model.feature_types = schema.features, schema.types
    model.save_model(folder / "model.ubj")
    gain = model.get_score(importance_type="total_gain")
    total = sum(gain.values()) or 1.0
    notes = {
        "parameters": parameters,
        "rounds": progress.rounds,
        "best_round": progress.best + 1,
        "metric": parameters["eval_metric"],
        "curve": progress.curve,
        "importance": {
            name: gain[name] / total for name in sorted(gain, key=lambda n: (-gain[n], n))
        },
    }
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("xgboost", "numpy", "pyarrow")
    }
    for name, content in (("training.json", notes), ("versions.json", versions)):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    code = folder / "code"
    code.mkdir(exist_ok=True)
    for name, path in packaging.collect(folders["code"], ["inference.py"]).items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, code / name)
