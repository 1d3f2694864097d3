"""What training reads from a file, the endpoint reads from the same texts: whatever a column holds,
its typed rows are the same, or one of the two says why it cannot be read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from model_case import Case, DataError
from sm_mlops.tabular import rows, serving, tables
from sm_mlops.tabular.text import MISSING

ROWS = 24
POOLS: dict[str, st.SearchStrategy[str]] = {
    "integers": st.integers(-(10**6), 10**6).map(str),
    "padded": st.integers(0, 999).map(lambda n: f"{n:05d}"),
    "floats": st.floats(-1e5, 1e5).map(lambda v: f"{v:.3f}"),
    "exponents": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "points": st.floats(0, 1e7).map(lambda v: f"{v:,.2f}"),
    "commas": st.floats(0, 1e7).map(lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,"))),
    "Swiss": st.floats(0, 1e7).map(lambda v: f"{v:,.2f}".replace(",", "'")),
    "French": st.floats(0, 1e7).map(
        lambda v: f"{v:,.1f}".translate(str.maketrans(",.", "\u202f,"))
    ),
    "money": st.integers(0, 10**5).map(lambda n: f"${n:,}"),
    "blanks": st.integers(0, 99).map(lambda n: f"  {n} "),
    "booleans": st.sampled_from(["yes", "No", "TRUE", "false", "1", "0", "on"]),
    "missing": st.sampled_from([m for m in sorted(MISSING) if m != "\\n"]),
    "unknown": st.just("unknown"),
    "days": st.dates().map(str),
    "stamps": st.datetimes().map(lambda d: d.isoformat(" ", "seconds")),
    "zoned": st.datetimes().map(lambda d: f"{d.isoformat(timespec='seconds')}+02:00"),
    "clock": st.times().map(lambda t: f"{t:%H:%M}"),
    "German days": st.dates().map(lambda d: f"{d.day:02d}.{d.month:02d}.{d.year:04d}"),
    "milliseconds": st.integers(1, 10**13).map(str),
    "words": st.sampled_from(["a", "B", "ü", "a b", "n.v.", "1,2", "1.2.3", "S12"]),
}
COLUMN = st.lists(st.sampled_from(sorted(POOLS)), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.lists(st.one_of([POOLS[name] for name in names]), min_size=ROWS, max_size=ROWS)
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.slow
@settings(
    max_examples=250,
    phases=(Phase.explicit, Phase.generate),  # shrinking would take minutes
)
@given(COLUMN, st.sampled_from(";,\t"))
@example(["1.234"] * 23 + ["1,5"], ";")
@example(["2024-01-01"] * 23 + ["2024-01-01T10:00:00"], ";")
@example([f"04:{i:02d}" for i in range(24)], ",")
@example(["-1.7e308", "$1"] * 12, ",")
@example(["1"] * 23 + ["true"], ";")
def test_the_endpoint_reads_the_texts_of_a_file_as_training_did(
    case: Case, texts: list[str], delimiter: str
) -> None:
    sink = io.StringIO()
    x = list(range(ROWS, 0, -1))
    table = list(zip(texts, x, "ab" * (ROWS // 2), strict=True))
    csv.writer(sink, delimiter=delimiter).writerows([("t", "x", "y"), *table])
    path = case.text(sink.getvalue())
    try:
        schema = case.prepare(path, "y")
    except DataError as error:
        assert "column 't'" in str(error)
        return
    read = rows.typed(schema, tables.read([path], "y", decimal=None))
    body = io.StringIO()
    csv.writer(body).writerows([("t", "x"), *(row[:2] for row in table)])
    asked = rows.typed(schema, serving.rows(body.getvalue(), "text/csv", schema))
    pd.testing.assert_frame_equal(rows.frame(read), rows.frame(asked))
