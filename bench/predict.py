"""Predictions of the packaged default model, through its own inference.py.

Prints the median time of one row and of 10,000 rows inside `predictions`, and how many times the
rows per second of the one the other makes.
"""

import contextlib
import importlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "{{cookiecutter.project_slug}}" / "model"
ROWS, ROUNDS = 10_000, 50


def packaged(work: Path) -> tuple[Path, list[str]]:
    """Return the model folder and the lines of a CSV of its data, header first."""
    data = work / "data.csv"
    commands = [
        ["-m", "sm_mlops.tabular.sample_data", data],
        [SCRIPTS / "preprocess.py", "--data", data, "--output", work],
        [
            *(SCRIPTS / "train.py", "--train", work / "train", "--validation", work / "validation"),
            *("--preprocessor", work / "preprocessor", "--model-dir", work / "model"),
        ],
    ]
    for arguments in commands:
        command = [sys.executable, *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return work / "model", data.read_text().splitlines()


def seconds(model: Any, lines: list[str]) -> float:
    """Return the median time of predictions for these lines of CSV, in the packaged library."""
    from sm_mlops.tabular import inference, serving

    rows = serving.rows("\n".join(lines), "text/csv", model.schema)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        inference.predictions(model, rows)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model_dir, (header, *rows) = packaged(Path(folder))
        sys.path.insert(0, str(model_dir / "code"))
        inference = importlib.import_module("inference")
        with contextlib.redirect_stdout(io.StringIO()):
            model = inference.model_fn(str(model_dir))
        one = seconds(model, [header, rows[0]])
        many = seconds(model, [header, *(rows * (ROWS // len(rows) + 1))[:ROWS]])
    print(
        f"predict: one row {one * 1000:.1f} ms; {ROWS:,} rows {many * 1000:.0f} ms, "
        f"{ROWS / many:,.0f} rows a second, {one / (many / ROWS):.0f} times those of single rows"
    )


if __name__ == "__main__":
    main()
