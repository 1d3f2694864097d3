"""Check raw columns before anything is fitted, as `data.checks` of mlops.yaml asks for, and compare
them with the champion's.

Must not know about files.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import encoding
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.mlops_yaml import Rules
from sm_mlops.tabular.numerals import POINT, is_number, parse_number
from sm_mlops.tabular.schema import Schema

Found = tuple[int | None, str] | None
"""Row and text of a violation, if there is one; no row where it is of the column as a whole."""


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
            mark = decimals.get(column, POINT)
            found = _CHECKS[name](table[column], column, limit, mark) if name != "stop" else None
            if found is not None:
                row, what = found
                at = "" if row is None else f", {place(row)}"
                text = f"column '{column}'{at}: {what} (data.checks in mlops.yaml)"
                if given.get("stop", True):
                    raise DataError(text)
                results.append(_result(column, name, text, stops=False))
    return results


def _result(column: str, check: str, text: str, *, stops: bool) -> dict[str, Any]:
    """Return a violation, as `schema.json` holds it."""
    return {"column": column, "check": check, "text": text, "stops": stops}


def _first(bad: Any, what: Callable[[int], str]) -> Found:
    if not len(bad):
        return None
    more = f", and {len(bad) - 1:,} more rows" if len(bad) > 1 else ""
    return int(bad[0]), f"{what(bad[0])}{more}"


def _beyond(
    compare: np.ufunc, side: str, values: pa.ChunkedArray, column: str, limit: float, mark: str
) -> Found:
    if pa.types.is_temporal(values.type):
        return None, "holds dates or times; min and max are for numbers"
    try:
        numbers = encoding.numbers(values, column, decimal=mark)
    except encoding.Misfit as error:
        return error.row, f"{error.value!r} is not {error.expected}"
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(compare(numbers, limit))
    return _first(bad, lambda row: f"{numbers[row]:.10g} is {side} {limit:g}")


def _allowed(values: pa.ChunkedArray, column: str, limit: list[Any], mark: str) -> Found:
    codes, texts = encoding.distinct(values)
    known = {encoding.value_text(item) for item in limit}
    numbers = {_number(text, POINT) for text in known if text} - {None}
    other = [
        i
        for i, text in enumerate(texts)
        if text is not None and text not in known and _number(text, mark) not in numbers
    ]
    bad = np.flatnonzero(np.isin(codes, other))
    return _first(bad, lambda row: f"{texts[codes[row]]!r} is not allowed")


def _number(text: str, mark: str) -> float | Decimal | None:
    """Return a number, whole ones in full; None for a code such as 007, and for any other text."""
    if re.fullmatch("-?[0-9]+", text):
        return None if re.match("-?0[0-9]", text) else Decimal(text)
    return parse_number(text, mark) if is_number(text, mark) else None


def _unique(values: pa.ChunkedArray, column: str, limit: bool, mark: str) -> Found:
    codes, texts = encoding.distinct(values)
    order = np.argsort(codes, kind="stable")
    again = order[1:][(np.diff(codes[order]) == 0) & (codes[order][1:] >= 0)]
    again = [row for row in np.sort(again) if texts[codes[row]] is not None] if limit else []
    return _first(again, lambda row: f"{texts[codes[row]]!r} occurs again")


def _missing(values: pa.ChunkedArray, column: str, limit: float, mark: str) -> Found:
    codes, texts = encoding.distinct(values)
    known = np.array([*(text is not None for text in texts), False])
    share = float(1 - known[codes].mean())
    return (None, f"{share:.1%} is missing, more than {limit:.1%}") if share > limit else None


_CHECKS: dict[str, Callable[[pa.ChunkedArray, str, Any, str], Found]] = {
    "min": partial(_beyond, np.less, "below"),
    "max": partial(_beyond, np.greater, "above"),
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
        _result(name, "champion", f"column '{name}' {texts[name]}", stops=stops)
        for name in sorted(texts)
    ]
    if stops and results:
        raise DataError(f"{results[0]['text']} (data.changed_columns in mlops.yaml is stop)")
    return results
