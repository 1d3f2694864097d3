"""The step Train: call the team's `fit` and `save`, and add what the endpoint needs besides.

Input:  channels (folders) train and validation, typed rows as Preprocess writes them, and
        preprocessor with schema.json and baseline.json. Hyperparameters as `--name value`; the
        others come from mlops.yaml, if it is in the folder of the script or the one above.
Output: in the model folder: what `save` writes; schema.json, baseline.json; versions.json, the
        packages; code/, inference.py and the modules it imports.

Must not know any algorithm, see the test rows, or know how the model will be evaluated.
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sm_mlops.tabular import baseline, booster, encoder, inference, local, mlops_yaml, packaging
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.rows import Rows, StoredRows

CHANNELS = {
    "train": "SM_CHANNEL_TRAIN",
    "validation": "SM_CHANNEL_VALIDATION",
    "preprocessor": "SM_CHANNEL_PREPROCESSOR",
    "model-dir": "SM_MODEL_DIR",
}
TRIED = 100  # validation rows that the saved model predicts
# Packages whose versions a model depends on, by the module that is imported.
PACKAGES = {
    **{name: name for name in ("xgboost", "numpy", "pyarrow", "lightgbm", "catboost", "torch")},
    "sklearn": "scikit-learn",
}


def main(folder: Path) -> None:
    """Run the step, whose script is in `folder`, from the command line or in script mode."""
    words = sys.argv[1:]
    if "SM_MODEL_DIR" not in os.environ and "--train" not in words:
        words = [*local.arguments(folder, "train"), *words]
    folders, given = arguments(words)
    folders["code"] = folder
    configured = mlops_yaml.beside(folder)[1].get("hyperparameters") or {}
    parameters = hyperparameters({**configured, **given})
    refuse_unknown(folder, parameters)
    train(folders, parameters, hooks(folder))


def hooks(folder: Path) -> Any:
    """Return the module train.py, under its own name, by which pickled functions are found."""
    module = local.script(folder, "train")
    for name in ("fit", "predict", "save", "load"):
        if not callable(getattr(module, name, None)):
            raise DataError(f"model/train.py: no function {name}; see its first lines")
    return module


def arguments(argv: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the folders (train, validation, preprocessor, model-dir) and the hyperparameters."""
    given: dict[str, str] = {}
    words = [part for word in argv for part in (word.split("=", 1) if "--" in word[:2] else [word])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise DataError("arguments come as pairs: --train DIR --model-dir DIR --eta 0.1 ...")
    for name, value in zip(words[::2], words[1::2], strict=True):
        given[name.removeprefix("--").replace("model_dir", "model-dir")] = value
    folders = {}
    for name, variable in CHANNELS.items():
        place = given.pop(name, "") or os.environ.get(variable, "")
        if not place:
            raise DataError(f"--{name} is missing (or {variable} in the environment)")
        folders[name] = Path(place)
    return folders, given


def hyperparameters(given: dict[str, Any]) -> dict[str, Any]:
    """Return those that have a value, numbers as numbers."""
    found = {}
    for name, value in given.items():
        if isinstance(value, str) and value[:1] == '"':
            value = json.loads(value)  # the SageMaker SDK encodes values as JSON
        if value is not None and value not in booster.ABSENT:
            found[name] = _number(value)
    return found


def _number(value: Any) -> Any:
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def refuse_unknown(folder: Path, given: Mapping[str, Any]) -> None:
    """Raise DataError for what neither XGBoost nor the team's code can mean."""
    files = packaging.collect(folder, ["train.py"])
    own = [p.read_bytes() for n, p in files.items() if n[-3:] == ".py" and n[:9] != "sm_mlops/"]
    if problem := booster.refused(given, files, own):
        raise DataError(problem)


def train(folders: dict[str, Path], parameters: dict[str, Any], hooks: Any) -> None:
    """Train with the functions of `hooks`, and write the model folder."""
    schema = schemas.load(folders["preprocessor"])
    rows = {name: StoredRows(schema, folders[name]) for name in ("train", "validation")}
    model = hooks.fit(rows["train"], rows["validation"], parameters)
    folder = folders["model-dir"]
    folder.mkdir(parents=True, exist_ok=True)
    hooks.save(model, folder)
    del model
    some = Rows(schema, next(rows["validation"].batches()).table.slice(0, TRIED))
    inference.checked(hooks.predict(hooks.load(folder), some), some)
    if schema.features is None and (folder / encoder.FILE).exists():
        schema = replace(schema, optional=encoder.Encoding.load(folder).unused)
    schema.save(folder)
    if (folders["preprocessor"] / baseline.FILE).exists():
        shutil.copyfile(folders["preprocessor"] / baseline.FILE, folder / baseline.FILE)
    versions = {"python": platform.python_version()} | {
        package: version(package) for name, package in PACKAGES.items() if name in sys.modules
    }
    schemas.write_json(folder / "versions.json", versions)
    code = folder / "code"
    code.mkdir(exist_ok=True)
    for name, path in packaging.collect(folders["code"], ["inference.py"]).items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, code / name)
