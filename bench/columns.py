"""CPU time of Preprocess per kind of column, at growing numbers of rows.

    python bench/columns.py                    # 10 thousand, 100 thousand and 1 million rows
    python bench/columns.py --rows 10000 100000 --only codes

Exits with code 1 if the time of any kind grows by more than 1.5 times the rows.
"""

import argparse
import contextlib
import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from sm_mlops.tabular import preprocess

WORDS = np.array([f"word{i:04d}" for i in range(3000)])
Random = np.random.Generator


def _commas(rows: int, random: Random) -> list[str]:
    return [f"{v:,.2f}".translate(str.maketrans(",.", ".,")) for v in random.uniform(0, 1e6, rows)]


def _dates(rows: int, random: Random) -> list[str]:
    days = random.integers(0, 20_000, rows).astype("datetime64[D]").astype(str)
    return [f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in days.tolist()]


KINDS: dict[str, Callable[[int, Random], object]] = {
    "numbers": lambda rows, random: random.normal(size=rows),
    "integers": lambda rows, random: random.integers(0, 10**9, rows),
    "decimal commas": _commas,
    "amounts": lambda rows, random: [f"${v:,.2f}" for v in random.uniform(0, 1e6, rows)],
    "codes": lambda rows, random: [f"S{i}" if i % 3 == 0 else str(i * 7) for i in range(rows)],
    "mostly numbers": lambda rows, random: [
        "unknown" if i % 9 == 0 else str(i) for i in range(rows)
    ],
    "dates": lambda rows, random: random.integers(0, 10**9, rows).astype("datetime64[s]"),
    "written dates": _dates,
    "ids": lambda rows, random: [f"{v:016x}" for v in random.integers(0, 2**62, rows).tolist()],
    "texts": lambda rows, random: [" ".join(w) for w in WORDS[random.integers(0, 3000, (rows, 4))]],
    "categories": lambda rows, random: WORDS[random.integers(0, 200, rows)],
    "high cardinality": lambda rows, random: [
        f"customer {v}" for v in random.integers(0, rows // 3, rows).tolist()
    ],
    "booleans": lambda rows, random: np.array(["yes", "no"])[random.integers(0, 2, rows)],
}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS))
    given = parser.parse_args()
    print(f"{'CPU seconds':18}" + "".join(f"{rows:>12,}" for rows in given.rows) + "   growth")
    failed = []
    for kind in given.only:
        seconds = [measure(kind, rows) for rows in given.rows]
        growth = [large / small for small, large in pairwise(seconds)]
        cells = "".join(f"{s:12.2f}" for s in seconds) + "   "
        print(f"{kind:18}{cells}{', '.join(f'{g:.1f}' for g in growth)}", flush=True)
        for (few, many), ratio in zip(pairwise(given.rows), growth, strict=True):
            if ratio > 1.5 * many / few:
                failed.append(
                    f"{kind}: {many / few:.0f} times the rows, {ratio:.1f} times the time"
                )
    for line in failed:
        print(f"FAILED: {line}")
    return bool(failed)


def measure(kind: str, rows: int) -> float:
    """Return the CPU seconds of Preprocess on such a column, a number and a target, in a process of
    its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        random = np.random.default_rng(0)
        target = np.array(["no", "yes"])[random.integers(0, 2, rows)]
        columns = {kind: pa.array(KINDS[kind](rows, random)), "age": random.integers(0, 90, rows)}
        table = pa.table({**columns, "target": target})
        pacsv.write_csv(table, path)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_seconds, (path,))


def _seconds(path: Path) -> float:
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess.preprocess(path, path.parent / "out", preprocess.Settings("target"))
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
