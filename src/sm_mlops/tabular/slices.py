"""One metric by the values of chosen columns: where a model is weaker than as a whole.

Must not know how models predict, or how a page looks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sm_mlops.tabular import encoding
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.metrics import Bools
from sm_mlops.tabular.rows import quantities
from sm_mlops.tabular.schema import Column, Schema, label_text
from sm_mlops.tabular.text import MISSING, nearest, number

FEWEST = 30  # rows; of fewer a metric says little
MOST = 12  # values of a column that are slices of their own
RANGES = 4  # with equally many rows, that numbers and dates are cut into


def check(names: Sequence[str], known: Sequence[str], dropped: Sequence[str]) -> None:
    """Raise DataError for a column that the test rows do not have."""
    for name in names:
        if name in dropped:
            raise DataError(
                f"evaluation.slices in mlops.yaml: '{name}' is in data.drop, so the test rows do "
                "not have it"
            )
        if name not in known:
            raise DataError(
                f"evaluation.slices in mlops.yaml: no column '{name}'; {nearest(name, known)}"
            )


def measured(
    test: Path, names: Sequence[str], schema: Schema, measure: Callable[[Bools], float]
) -> list[dict[str, Any]]:
    """Return per column its slices: value, rows, share, `metric`, and whether that is `enough`.

    Args:
        test: The folder of the test rows.
        measure: Returns the metric of some of the rows, NaN if it is undefined.
    """
    found = []
    columns = {column.name: column for column in schema.columns}
    for name in names:
        tables = [pq.read_table(path, columns=[name]) for path in sorted(test.glob("*.parquet"))]
        values = pa.concat_tables(tables)[name]
        rows = []
        for text, mask in _parts(columns[name], values):
            size, value = int(mask.sum()), measure(mask)
            rows.append(
                {
                    "value": text,
                    "rows": size,
                    "share": size / max(len(mask), 1),
                    "metric": value if np.isfinite(value) else None,
                    "enough": size >= FEWEST and bool(np.isfinite(value)),
                }
            )
        found.append({"column": name, "slices": rows})
    return found


def _parts(column: Column, values: pa.ChunkedArray) -> list[tuple[str, Bools]]:
    """Return what to call each slice, and its rows; the largest first, or in order of the range."""
    if column.kind in ("number", "date"):
        numbers = quantities(column, values)
        known = np.isfinite(numbers)
        if len(np.unique(numbers[known])) > MOST:
            return _ranges(numbers, known, number if column.kind == "number" else _day)
    codes, written = encoding.coded(values)
    each = np.array([_text(value) for value in [*written, None]], object)[codes]
    count = Counter(each.tolist())
    common = sorted(count, key=lambda text: (-count[text], text))
    shown, rest = common[:MOST], common[MOST:]
    found = [(text, each == text) for text in shown]
    if rest:
        found.append((f"{len(rest)} other values", np.isin(each, rest)))
    return found


def _ranges(
    numbers: encoding.Floats, known: Bools, show: Callable[[float], str]
) -> list[tuple[str, Bools]]:
    at = np.linspace(0, 1, RANGES + 1)
    edges = np.unique(np.quantile(numbers[known], at, method="nearest"))
    place = np.searchsorted(edges[1:-1], numbers, side="right")
    found = [
        (f"{show(low)} to {show(high)}", known & (place == i))
        for i, (low, high) in enumerate(pairwise(edges))
    ]
    return [*found, ("missing", ~known)] if not known.all() else found


def _day(seconds: float) -> str:
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))


def _text(value: object) -> str:
    text = "" if value is None or value != value else label_text(value)
    return "missing" if text.lower() in MISSING else text
