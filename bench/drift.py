"""False alarms and power of the drift check of `monitoring`, on 30 columns of mixed kinds.

    python bench/drift.py             # 300 windows of each kind
    python bench/drift.py --windows 1000

Exits with code 1 if more than 1 in 100 windows from the training distribution violate, or fewer
than 95 in 100 with one column shifted by half a standard deviation are found.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sm_mlops.tabular import drift
from sm_mlops.tabular.baseline import Summarizer, Summary
from sm_mlops.tabular.schema import Column

Draw = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def _zero_inflated(random: np.random.Generator, rows: int) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = random.gamma(2.0, 10.0, rows).round(2)
    return np.where(random.random(rows) < 0.7, 0.0, values)


DRAWS: dict[str, Draw] = {
    "normal": lambda random, rows: random.normal(50, 10, rows),
    "uniform": lambda random, rows: random.random(rows),
    "skewed": lambda random, rows: random.lognormal(3, 1, rows),
    "two groups": lambda random, rows: (
        random.normal(0, 1, rows) + 6.0 * (random.random(rows) < 0.3)
    ),
    "counts": lambda random, rows: random.poisson(2.0, rows).astype(float),
    "mostly zero": _zero_inflated,
    "rating 1 to 5": lambda random, rows: random.integers(1, 6, rows).astype(float),
}
LEVELS = (2, 5, 12, 40, 300)
"""Categories per column of text, whose frequencies fall by their rank."""
NUMBERS = [f"{name} {i}" for i in range(3) for name in DRAWS]
TEXTS = [f"{levels} levels" for levels in LEVELS]
COLUMNS = [
    *(Column(name, "number") for name in NUMBERS),
    *(Column(name, "text") for name in TEXTS),
    *(Column(name, "text") for name in ("free text", "with missing")),
    *(Column(name, "boolean") for name in ("flag", "rare flag")),
]


def table(random: np.random.Generator, rows: int, shifted: str = "") -> pa.Table:
    """Return typed rows; of the column `shifted` by half a standard deviation."""
    arrays = []
    for name in NUMBERS:
        values = DRAWS[name.rpartition(" ")[0]](random, rows)
        if name == shifted:
            values = values + 0.5 * SPREAD[name]
        values[random.random(rows) < 0.02] = np.nan
        arrays.append(pa.array(values))
    for levels in LEVELS:
        weights = 1 / np.arange(1, levels + 1)
        codes = random.choice(levels, rows, p=weights / weights.sum())
        arrays.append(pa.array([f"v{code}" for code in codes]).dictionary_encode())
    words = random.integers(0, 1 << 40, rows)
    arrays.append(pa.array([f"text {word}" for word in words]).dictionary_encode())
    some = ["a", "b", None]
    arrays.append(pa.array([some[c] for c in random.integers(0, 3, rows)]).dictionary_encode())
    arrays += [pa.array(random.random(rows) < share) for share in (0.4, 0.02)]
    return pa.Table.from_arrays(arrays, [column.name for column in COLUMNS])


SPREAD = {
    name: float(np.std(DRAWS[name.rpartition(" ")[0]](np.random.default_rng(1), 100_000)))
    for name in NUMBERS
}


def summary(rows: pa.Table, before: list[Summary] | None = None) -> list[Summary]:
    """Return the summaries of typed rows."""
    summarizer = Summarizer(COLUMNS, before or [])
    summarizer.add(rows)
    return summarizer.summaries()


def violations(before: list[Summary], after: list[Summary]) -> set[str]:
    """Return the columns that violate the default limits."""
    found = drift.columns(before, after, {}, drift.LIMITS)
    tests = sum(len(column.tests) for column in found)
    return {c.name for c in found if any(test.fails(tests) for test in c.tests)}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--windows", type=int, default=300)
    windows = parser.parse_args().windows
    failed = []
    print(f"{len(COLUMNS)} columns, {windows} windows of each kind, seconds for a comparison in ()")
    for training, rows in (
        (20_000, 2000),
        (400, 2000),
        (400, 500),
        (20_000, 500),
        (20_000, 50_000),
    ):
        random = np.random.default_rng(training + rows)
        count = windows if rows < 10_000 else windows // 10
        alarms = found = 0
        missed: dict[str, int] = {}
        seconds = 0.0
        for i in range(count):
            if i % 20 == 0:
                before = summary(table(random, training))
            shifted = NUMBERS[i % len(NUMBERS)]
            same, other = (summary(table(random, rows, name), before) for name in ("", shifted))
            start = time.perf_counter()
            alarms += bool(violations(before, same))
            seconds += time.perf_counter() - start
            hit = shifted in violations(before, other)
            found += hit
            if not hit:
                kind = shifted.rpartition(" ")[0]
                missed[kind] = missed.get(kind, 0) + 1
        print(
            f"{training:>6,} training rows, windows of {rows:>6,}: {alarms / count:.1%} false "
            f"alarms, {found / count:.1%} of shifts by half a standard deviation found "
            f"({seconds / count:.3f}); missed: {missed}",
            flush=True,
        )
        if alarms / count > 0.01:
            failed.append(f"{training}, {rows}: more than 1 in 100 false alarms")
        if (training, rows) == (20_000, 2000) and found / count < 0.95:
            failed.append("fewer than 95 in 100 shifts found in windows of 2,000 rows")
    for line in failed:
        print(f"FAILED: {line}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
