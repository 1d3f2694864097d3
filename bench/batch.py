"""A million rows through `mlops predict`, against scoring the same rows in one process.

Prints the rows per second of CPU time of the model's own code in one process (CSV in, CSV out, as
Evaluate does it), of the batch transform job (container and the sandbox's part of it) and of the
whole command, and their ratios. Wall time is shown, too, but depends on who else uses the machine.
"""

import contextlib
import io
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support")]

from deployment_cases import Place, place  # noqa: E402
from model_case import Case  # noqa: E402
from sm_mlops.deployment import batch  # noqa: E402
from sm_mlops.tabular import scoring  # noqa: E402

ROWS, COLUMNS, TRAINED = 1_000_000, 20, 20_000


def table(rows: int) -> pa.Table:
    """Return twenty columns: ids, numbers of two digits, categories, dates."""
    draw = np.random.default_rng(7)
    columns = {"id": pa.array(np.arange(rows))}
    for i in range(COLUMNS - 5):
        columns[f"x{i}"] = pa.array(np.round(draw.normal(size=rows) * 100, 2))
    for i in range(3):
        columns[f"k{i}"] = pa.array(draw.choice(["red", "green", "blue", "black"], rows))
    days = np.datetime64("2026-01-01") + draw.integers(0, 365, rows)
    return pa.table({**columns, "day": pa.array(days)})


def trained(work: Path) -> Path:
    """Return the folder of a model of these columns."""
    rows = table(TRAINED)
    signal = rows["x0"].to_numpy() + rows["x1"].to_numpy() + 50 * (rows["k0"].to_numpy() == "red")
    case, data = Case(work), work / "data.csv"
    pacsv.write_csv(rows.append_column("label", pa.array(np.where(signal > 20, "yes", "no"))), data)
    with contextlib.redirect_stdout(io.StringIO()):
        case.prepare(data, "label")
        case.train(num_boost_round="200")
    return work / "model"


def scored(model_dir: Path, work: Path) -> float:
    """Return the CPU seconds of scoring the rows in one process, as Evaluate does it."""
    test = work / "test"
    test.mkdir()
    rows = table(ROWS)
    pq.write_table(rows.append_column("label", pa.array(["no"] * ROWS)), test / "rows.parquet")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [scoring.__file__, model_dir, test, "label", work / "scored"]
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Usage:
    """CPU seconds of this process, and of those that it has started."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._end.wait(0.1):
            for child in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    times = child.cpu_times()
                    self._seen[child.pid] = times.user + times.system

    def now(self) -> float:
        return time.process_time() + sum(self._seen.values())

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def predicted(here: Place, model_dir: Path, work: Path) -> tuple[float, float, float]:
    """Return CPU seconds of the command and of its job, and the seconds that the command took."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in model_dir.iterdir():
            tar.add(path, path.name)
    stage = here.stage("bench")
    here.deploy(stage, here.register_model(archive.getvalue()))
    pacsv.write_csv(table(ROWS), work / "rows.csv")
    usage, module = Usage(), cast(Any, batch)
    follow = module._follow
    marks: list[float] = []

    def followed(*arguments: Any) -> None:
        marks.append(usage.now())
        follow(*arguments)
        marks.append(usage.now())

    begun, before = time.perf_counter(), usage.now()
    module._follow = followed
    try:
        target = str(work / "out.csv")
        done = batch.predict(here.aws, stage, str(work / "rows.csv"), target, here.console)
    finally:
        module._follow = follow
        usage.end()
    assert (done.rows, done.errors) == (ROWS, 0), done
    return usage.now() - before, marks[1] - marks[0], time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model_dir = trained(work)
        alone = scored(model_dir, work)
        with place(work / "place") as here:
            whole, job, wall = predicted(here, model_dir, work)
    for name, seconds in (("one process", alone), ("job", job), ("whole command", whole)):
        rate = ROWS / seconds
        print(
            f"{name:>14} {seconds:6.1f} CPU s {rate:10,.0f} rows/CPU s, ratio {alone / seconds:.2f}"
        )
    print(f"{ROWS:,} rows x {COLUMNS} columns in {wall:.0f} s; ratio of the job at least 0.7")


if __name__ == "__main__":
    main()
