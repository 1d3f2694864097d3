"""Time and memory of model/'s three steps beside the usual way, at growing numbers of rows.

The usual way is that of most SageMaker examples: pandas, scikit-learn's ColumnTransformer, CSV
between the steps. Same trees, same rounds, same machine, each step a process of its own.

    python bench/scale.py                     # 10 thousand, 100 thousand, 1 million rows, both ways
    python bench/scale.py --rows 5000000 --ours

Exits with code 1 if 1 million rows are not 3 times faster in half the memory, if time grows faster
than rows, or if a step needs 8 GiB.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv

MODEL = Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}" / "model"
STEPS = ("preprocess", "train", "evaluate")
LEVELS = (4, 8, 12, 20, 40)
ROUNDS = 100
TREES = {"eta": 0.1, "max_depth": 6, "max_bin": 256, "subsample": 0.8, "colsample_bytree": 0.8}
GIB = 1 << 30


@dataclass(frozen=True)
class Run:
    """Seconds and peak resident bytes (all processes of a step together) per step."""

    seconds: tuple[float, ...]
    memory: tuple[int, ...]


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--ours", action="store_true", help="leave out the usual way")
    given = parser.parse_args()
    print(
        f"{'rows':>9}  {'way':6}" + "".join(f"{step:>20}" for step in STEPS) + f"{'together':>20}"
    )
    ours: dict[int, Run] = {}
    failed = []
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder / "data.csv", rows)
            ours[rows] = measure(our_commands(folder), folder)
            show(rows, "ours", ours[rows])
            if max(ours[rows].memory) > 8 * GIB:
                failed.append(f"{rows:,} rows need more than 8 GiB")
            if given.ours:
                continue
            usual = measure(usual_commands(folder), folder)
            show(rows, "usual", usual)
            time_ratio = sum(usual.seconds) / sum(ours[rows].seconds)
            memory_ratio = max(ours[rows].memory) / max(usual.memory)
            ratios = f"{time_ratio:.1f} times faster, {memory_ratio:.2f} of the memory"
            print(f"{rows:>9,}  ratio  {ratios}", flush=True)
            if rows == 1_000_000 and (time_ratio < 3 or memory_ratio > 0.5):
                failed.append("1,000,000 rows: not 3 times faster in half the memory")
    sizes = sorted(ours)
    for small, large in pairwise(sizes):
        growth = sum(ours[large].seconds) / sum(ours[small].seconds)
        print(f"{large / small:.0f} times the rows: {growth:.1f} times the time")
        if growth > 1.2 * large / small:
            failed.append(f"from {small:,} to {large:,} rows time grows faster than rows")
    for line in failed:
        print(f"FAILED: {line}")
    return bool(failed)


def show(rows: int, way: str, run: Run) -> None:
    """Print one line of the table."""
    cells = [
        f"{s:7.1f} s {m / 2**20:6.0f} MiB" for s, m in zip(run.seconds, run.memory, strict=True)
    ]
    cells.append(f"{sum(run.seconds):7.1f} s {max(run.memory) / 2**20:6.0f} MiB")
    print(f"{rows:>9,}  {way:6}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def write_data(path: Path, rows: int) -> None:
    """Write 10 columns of floats, 5 of integers, 5 of categories, and a noisy yes/no target."""
    random = np.random.default_rng(0)
    columns: dict[str, object] = {}
    for i in range(10):
        columns[f"float_{i}"] = random.normal(size=rows)
    for i in range(5):
        columns[f"integer_{i}"] = random.integers(0, 1000, rows)
    logit = columns["float_0"] + columns["float_1"] * columns["float_2"] - 0.5  # type: ignore[operator]
    logit += columns["integer_0"] / 500 - 1  # type: ignore[operator]
    for i, levels in enumerate(LEVELS):
        code = random.integers(0, levels, rows)
        logit += np.linspace(-1, 1, levels)[code]
        names = pa.array([f"level_{k}" for k in range(levels)])
        columns[f"category_{i}"] = names.take(pa.array(code))
    yes = random.random(rows) < 1 / (1 + np.exp(-logit))
    columns["target"] = pa.array(["no", "yes"]).take(pa.array(yes.astype(int)))
    pacsv.write_csv(pa.table(columns), path)


def our_commands(folder: Path) -> list[list[str]]:
    """Return the three scripts' commands; mlops.yaml is written beside a copy of them."""
    code, out = folder / "code", folder / "ours"
    code.mkdir()
    for script in MODEL.glob("*.py"):
        (code / script.name).write_bytes(script.read_bytes())
    (code / "mlops.yaml").write_text("data: {target: target}\n", encoding="utf-8")
    trees = [word for name, value in TREES.items() for word in (f"--{name}", str(value))]
    return [
        [str(code / "preprocess.py"), "--data", str(folder / "data.csv"), "--output", str(out)],
        [
            *(str(code / "train.py"), "--train", str(out / "train")),
            *("--validation", str(out / "validation"), "--preprocessor", str(out / "preprocessor")),
            *("--model-dir", str(out / "model"), "--num_boost_round", str(ROUNDS)),
            *("--early_stopping_rounds", "0", *trees),
        ],
        [
            *(str(code / "evaluate.py"), "--model", str(out / "model.tar.gz")),
            *("--test", str(out / "test"), "--output", str(out / "evaluation")),
        ],
    ]


def usual_commands(folder: Path) -> list[list[str]]:
    """Return the commands of the same three steps of the usual way, in this file."""
    out = folder / "usual"
    out.mkdir()
    return [[__file__, f"--usual-{step}", str(folder / "data.csv"), str(out)] for step in STEPS]


def measure(commands: list[list[str]], folder: Path) -> Run:
    """Run the steps one after the other; between training and evaluation the model is packed."""
    seconds, memory = [], []
    for command in commands:
        if command[0].endswith("evaluate.py"):
            with tarfile.open(folder / "ours" / "model.tar.gz", "w:gz") as tar:
                for path in sorted((folder / "ours" / "model").iterdir()):
                    tar.add(path, path.name)
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        peak = [0]
        watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        watch.start()
        if process.wait() != 0:
            raise SystemExit(f"{' '.join(command[:2])} failed")
        seconds.append(time.perf_counter() - start)
        watch.join()
        memory.append(peak[0])
    return Run(tuple(seconds), tuple(memory))


def _watch(pid: int, peak: list[int]) -> None:
    """Keep the most that the process and its children hold together, read 50 times a second."""
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for one in (process, *process.children(recursive=True)):
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        return


# The usual way


def usual_preprocess(data: Path, out: Path) -> None:
    """Read with pandas, split, encode with a ColumnTransformer, write CSV without a header."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.read_csv(data)
    target = (frame.pop("target") == "yes").astype(int)
    text = list(frame.select_dtypes("object"))
    numeric = [name for name in frame if name not in text]
    train, rest, train_y, rest_y = train_test_split(
        frame, target, test_size=0.3, stratify=target, random_state=0
    )
    validation, test, validation_y, test_y = train_test_split(
        rest, rest_y, test_size=0.5, stratify=rest_y, random_state=0
    )
    scale = Pipeline([("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    encode = Pipeline(
        [
            ("impute", SimpleImputer(strategy="most_frequent")),
            ("onehot", OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
        ]
    )
    encoder = ColumnTransformer([("numbers", scale, numeric), ("categories", encode, text)])
    parts = {
        "train": (encoder.fit_transform(train), train_y),
        "validation": (encoder.transform(validation), validation_y),
        "test": (encoder.transform(test), test_y),
    }
    for name, (matrix, label) in parts.items():
        table = np.concatenate([label.to_numpy()[:, None], matrix], axis=1)
        pd.DataFrame(table).to_csv(out / f"{name}.csv", header=False, index=False)


def usual_train(data: Path, out: Path) -> None:
    """Read the CSV files with pandas, train, save."""
    import pandas as pd
    import xgboost

    parts = {}
    for name in ("train", "validation"):
        frame = pd.read_csv(out / f"{name}.csv", header=None)
        parts[name] = xgboost.DMatrix(frame.iloc[:, 1:], label=frame.iloc[:, 0])
    parameters = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        **TREES,
    }
    evals = [(matrix, name) for name, matrix in parts.items()]
    model = xgboost.train(parameters, parts["train"], ROUNDS, evals=evals, verbose_eval=20)
    model.save_model(out / "model.json")


def usual_evaluate(data: Path, out: Path) -> None:
    """Read the CSV file with pandas, predict, compute metrics, draw three plots."""
    import json

    import matplotlib
    import pandas as pd
    import xgboost
    from sklearn import metrics

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frame = pd.read_csv(out / "test.csv", header=None)
    truth = frame.iloc[:, 0].to_numpy()
    model = xgboost.Booster(model_file=out / "model.json")
    score = model.predict(xgboost.DMatrix(frame.iloc[:, 1:]))
    label = (score > 0.5).astype(int)
    values = {
        "accuracy": metrics.accuracy_score(truth, label),
        "precision": metrics.precision_score(truth, label),
        "recall": metrics.recall_score(truth, label),
        "f1": metrics.f1_score(truth, label),
        "auc": metrics.roc_auc_score(truth, score),
        "logloss": metrics.log_loss(truth, score),
    }
    metrics.RocCurveDisplay.from_predictions(truth, score)
    plt.savefig(out / "roc.png")
    metrics.PrecisionRecallDisplay.from_predictions(truth, score)
    plt.savefig(out / "recall.png")
    metrics.ConfusionMatrixDisplay.from_predictions(truth, label)
    plt.savefig(out / "confusion.png")
    (out / "evaluation.json").write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    usual = {
        f"--usual-{f.__name__.removeprefix('usual_')}": f
        for f in (usual_preprocess, usual_train, usual_evaluate)
    }
    if len(sys.argv) == 4 and sys.argv[1] in usual:
        usual[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
