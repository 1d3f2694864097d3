"""Check raw columns before anything is fitted, as `data.checks` of mlops.yaml asks for, and compare
them with the champion's.

Must not know about files.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import encoding
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.mlops_yaml import Rules
from sm_mlops.tabular.numerals import POINT
from sm_mlops.tabular.schema import Schema

Found = tuple[int | None, str]
"""Row and text of a violation; no row where it is of the column as a whole."""


@dataclass(frozen=True)
class Result:
    """A violation, as `schema.json` holds it."""

    column: str
    check: str
    text: str
    stops: bool


def check(
    table: pa.Table, asked: Rules, decimals: Mapping[str, str], place: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Return the violations that only warn. Raise DataError for the first that stops.

    Args:
        decimals: The decimal marks of columns that are written as text.
        place: Returns where a row of the table is in its file.
    """
    results = []
    for column, given in asked.items():
        if column not in table.column_names:
            raise DataError(f"data.checks of mlops.yaml: there is no column '{column}'")
        for name, limit in given.items():
            if name == "stop":
                continue
            mark = decimals.get(column, POINT)
            for row, what in _CHECKS[name](table[column], column, limit, mark):
                at = "" if row is None else f", {place(row)}"
                text = f"column '{column}'{at}: {what} (data.checks in mlops.yaml)"
                if given.get("stop", True):
                    raise DataError(text)
                results.append(asdict(Result(column, name, text, stops=False)))
    return results


def _bound(below: bool) -> Callable[[pa.ChunkedArray, str, Any, str], list[Found]]:
    def find(values: pa.ChunkedArray, column: str, limit: float, mark: str) -> list[Found]:
        if pa.types.is_temporal(values.type):
            return [(None, "holds dates or times; min and max are for numbers")]
        try:
            numbers = encoding.numbers(values, column, decimal=mark)
        except encoding.Misfit as error:
            return [(error.row, f"{error.value!r} is not {error.expected}")]
        with np.errstate(invalid="ignore"):
            bad = np.flatnonzero(numbers < limit if below else numbers > limit)
        side = f"below {limit:g}" if below else f"above {limit:g}"
        more = f", and {len(bad) - 1:,} more rows" if len(bad) > 1 else ""
        return [(int(bad[0]), f"{numbers[bad[0]]:.10g} is {side}{more}")] if len(bad) else []

    return find


def _allowed(values: pa.ChunkedArray, column: str, limit: list[Any], mark: str) -> list[Found]:
    codes, texts = encoding.distinct(values)
    known = {encoding.value_text(item) for item in limit}
    other = [i for i, text in enumerate(texts) if text is not None and text not in known]
    bad = np.flatnonzero(np.isin(codes, other))
    more = f", and {len(bad) - 1:,} more rows" if len(bad) > 1 else ""
    return [(int(bad[0]), f"{texts[codes[bad[0]]]!r} is not allowed{more}")] if len(bad) else []


def _unique(values: pa.ChunkedArray, column: str, limit: bool, mark: str) -> list[Found]:
    codes, texts = encoding.distinct(values)
    order = np.argsort(codes, kind="stable")
    again = order[1:][(np.diff(codes[order]) == 0) & (codes[order][1:] >= 0)]
    again = [int(row) for row in np.sort(again) if texts[codes[row]] is not None] if limit else []
    more = f", and {len(again) - 1:,} more rows" if len(again) > 1 else ""
    return [(again[0], f"{texts[codes[again[0]]]!r} occurs again{more}")] if again else []


def _missing(values: pa.ChunkedArray, column: str, limit: float, mark: str) -> list[Found]:
    codes, texts = encoding.distinct(values)
    known = np.array([*(text is not None for text in texts), False])
    share = float(1 - known[codes].mean())
    return [(None, f"{share:.1%} is missing, more than {limit:.1%}")] if share > limit else []


_CHECKS: dict[str, Callable[[pa.ChunkedArray, str, Any, str], list[Found]]] = {
    "min": _bound(below=True),
    "max": _bound(below=False),
    "allowed": _allowed,
    "unique": _unique,
    "missing": _missing,
}


def against(schema: Schema, champion: dict[str, Any], version: str) -> list[dict[str, Any]]:
    """Return how the columns differ from those of the champion's schema.json.

    Raise DataError for the first if `data.changed_columns` of mlops.yaml is stop.
    """
    before = {column["name"]: column["kind"] for column in champion["columns"]}
    now = {column.name: column.kind for column in schema.columns}
    texts = dict.fromkeys(before.keys() - now.keys(), f"is gone; version {version} has it")
    texts |= dict.fromkeys(now.keys() - before.keys(), f"is new since version {version}")
    for name in before.keys() & now.keys():
        kinds = before[name], now[name]
        if kinds[0] != kinds[1] and "unused" not in kinds:
            texts[name] = f"is {kinds[1]}, but {kinds[0]} in version {version}"
    stops = schema.data.get("changed_columns") == "stop"
    results = [
        asdict(Result(name, "champion", f"column '{name}' {texts[name]}", stops))
        for name in sorted(texts)
    ]
    if stops and results:
        raise DataError(f"{results[0]['text']} (data.changed_columns in mlops.yaml is stop)")
    return results
