"""A step by itself on this machine: what its script needs, made by the steps before it.

For `python model/train.py`, with a breakpoint where one is wanted. Must not know what steps do.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sm_mlops.tabular import mlops_yaml, schema, scoring
from sm_mlops.tabular.failure import DataError

BEFORE: dict[str, tuple[str, ...]] = {
    "preprocess": (),
    "train": ("preprocess",),
    "evaluate": ("preprocess", "train"),
    "inference": ("preprocess", "train"),
}
WORK = Path("build") / "model"
ASKED = 3  # rows
SAMPLE = "breast-cancer.csv"  # which a fresh repo names and does not have


def arguments(folder: Path, step: str) -> list[str]:
    """Return the arguments of a step for data.sample of mlops.yaml, or data.path without one.

    Runs the steps before it first, each in a process of its own.

    Raises:
        DataError: The data is not on this machine, or a step before fails.
    """
    root = folder.resolve().parent
    work = root / WORK
    for before in BEFORE[step]:
        script = folder / f"{before}.py"
        print(f"{script.name}: the step before", flush=True)
        given = _arguments(before, root, work)
        if _run(script, *given):
            raise DataError(f"{script.name} failed, which runs before {step}.py")
    return _arguments(step, root, work)


def _arguments(step: str, root: Path, work: Path) -> list[str]:
    if step == "preprocess":
        return ["--data", str(_data(root)), "--output", str(work)]
    if step == "train":
        parts = ("train", "validation", "preprocessor")
        folders = [word for part in parts for word in (f"--{part}", str(work / part))]
        return [*folders, "--model-dir", str(work / "trained")]
    given = ["--model", str(work / "trained"), "--test", str(work / "test")]
    return [*given, "--output", str(work / "evaluation")]


def ask(folder: Path) -> None:
    """Send some test rows to the functions of inference.py, and print rows and answer."""
    arguments(folder, "inference")
    work = folder.resolve().parent / WORK
    inference = script(folder, "inference")
    model = inference.model_fn(str(work / "trained"))
    target = schema.load(work / "trained").target
    rows = pq.read_table(work / "test").slice(0, ASKED).drop_columns([target])
    body = scoring.to_csv(scoring.plain(rows))
    print(body, scoring.answered(inference, model, body, scoring.CSV, scoring.JSON), sep="\n")


def script(folder: Path, name: str) -> Any:
    """Return a script in the folder as a module, found by its name as other scripts find it."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _data(root: Path) -> Path:
    _, content = mlops_yaml.beside(root)
    data = content.get("data") or {}
    place = str(data.get("sample") or data.get("path") or "")
    if not place or "://" in place:
        # Which address is not said: one of a git host may hold a token.
        raise DataError(
            "mlops.yaml: data.path names no file of this machine; name rows like those there in "
            "data.sample, or pass --data"
        )
    found = root / place
    if not found.exists() and found.name == SAMPLE:
        from sm_mlops.tabular import sample_data  # no job needs it

        sample_data.write(found)
    if not found.exists():
        raise DataError(f"{os.path.relpath(found)}: no such file or folder; mlops.yaml names it")
    return found


def _run(*words: object) -> int:
    """Run Python with these arguments and all that this process was given."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, check=False, env=dict(os.environ)).returncode
