"""Dates: with a time zone or without one, as in training, and as pandas writes them to JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_case import Case, DataError, model_schema
from sm_mlops.tabular import encoding, rows, serving, tables
from sm_mlops.tabular.encoding import Misfit

ZONES = ("-05:00", "-08:00", "Z", "+0200")
NAIVE = [f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}T08:{i:02d}:00" for i in range(40)]
ZONED = [f"{text}{ZONES[i % 4]}" for i, text in enumerate(NAIVE)]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


PADDED = {
    "%b %d, %Y": ["Feb  1, 2024", "Feb 1, 2024", "Feb1, 2024", "Feb 01, 2024"],
    "%B %d, %Y %H:%M": ["February  1, 2024 10:00", "February 1, 2024 10:00"],
    "%m/%d/%Y": ["2/ 1/2024", "2/1/2024", "02/01/2024", " 2/ 1/2024"],
    "%Y-%m-%d": ["2024-2- 1", "2024-02-01"],
    "%d %b %Y": [" 1 Feb 2024", "1 Feb 2024"],
}


@pytest.mark.parametrize("form", PADDED)
def test_days_may_be_padded_and_no_month_has_more_than_it_has(form: str) -> None:
    found = encoding.parse_dates(pa.array(PADDED[form]), form).to_pylist()
    assert {date and date.date().isoformat() for date in found} == {"2024-02-01"}
    late = [re.sub(r"( 1|0?1)(?=[, ]|/2024|$)", "30", text, count=1) for text in PADDED[form]]
    assert all("30" in text for text in late), late
    assert set(encoding.parse_dates(pa.array(late), form).to_pylist()) == {None}


@pytest.mark.parametrize("bad", ["garbage", "2026-13-01T10:00:00", "2026-02-30"])
def test_the_row_that_is_no_date_is_named_and_not_a_good_one_before_it(bad: str) -> None:
    good = ["2026-01-01T10:00:00.5", "2026-01-01T10:00:00", "2026-01-01"]
    for at in range(4):
        texts = [*good[:at], bad, *good[at:]]
        for more in ([], ["1704067200000"]):
            with pytest.raises(Misfit) as refused:
                encoding._parsed(pa.array([*more, *texts]), "d", None, False)
            assert (refused.value.row, refused.value.value) == (at + len(more), bad)


def prepared(case: Case, dates: list[Any]) -> model_schema.Schema:
    data = {"day": dates, "x": list(range(40, 0, -1)), "y": ["a", "b"] * 20}
    return case.prepare(case.write(data), "y")


def seconds(schema: model_schema.Schema, *dates: Any) -> list[float]:
    """Return what the endpoint reads."""
    body = json.dumps([{"day": date, "x": 1} for date in dates])
    table = serving.rows(body, "application/json", schema)
    fitting = rows.typed(schema, table)
    column = schema.columns[0]
    read = encoding.timestamps(table["day"], "day", column.format, column.zoned)
    assert len(fitting) == len(read)
    return read.tolist()


@pytest.mark.parametrize(
    ("trained", "fitting", "other", "said"),
    [
        (ZONED, "2026-04-18T10:00:00+02:00", "2026-04-18T08:00:00", "with a time zone, such as"),
        (ZONED, "2026-04-18 08:00:00Z", "2026-04-18", "with a time zone, such as"),
        (NAIVE, "2026-04-18T08:00:00", "2026-04-18T08:00:00Z", "without a time zone, such as"),
        (NAIVE, "2026-04-18 08:00", "2026-04-18T08:00:00-05:00", "without a time zone, such as"),
    ],
)
def test_a_date_with_a_zone_where_training_had_none_or_without_one_is_refused(
    case: Case, trained: list[str], fitting: str, other: str, said: str
) -> None:
    found = prepared(case, trained)
    assert seconds(found, fitting) == [1776499200.0]
    with pytest.raises(Misfit) as refused:
        seconds(found, fitting, other)
    assert f"column 'day', row 2: '{other}' is not a date {said}" in str(refused.value)


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_zones_of_parquet_are_known(case: Case, zone: str | None) -> None:
    stamps = pa.array(np.arange(40) * 10**9, pa.timestamp("us", zone))
    path = case.folder / "data.parquet"
    pq.write_table(pa.table({"day": stamps, "x": range(40, 0, -1), "y": ["a", "b"] * 20}), path)
    found = case.prepare(path, "y")
    assert found.columns[0].zoned is (zone is not None)
    assert seconds(found, f"2026-04-18T08:00:00{'Z' if zone else ''}") == [1776499200.0]


@pytest.mark.parametrize("at", [0, 39])
def test_zones_in_some_rows_only_are_refused_by_training(case: Case, at: int) -> None:
    some = [*ZONED[:at], NAIVE[at], *ZONED[at + 1 :]]
    with pytest.raises(DataError, match=f"column 'day': .* and '{NAIVE[at]}' has none; write all"):
        prepared(case, some)


@pytest.mark.parametrize("trained", [ZONED, NAIVE])
@pytest.mark.parametrize("written", [1386979200000, 1386979200000.0, "1386979200000"])
def test_a_date_as_pandas_writes_it_to_json_is_read(
    case: Case, trained: list[str], written: Any
) -> None:
    assert seconds(prepared(case, trained), written) == [1386979200.0]


@pytest.mark.parametrize("written", [20131214, 1386979200, 0, 5.5, 10**18, "20131214", True])
def test_a_number_that_may_be_no_milliseconds_is_refused_and_says_how_to_write_dates(
    case: Case, written: Any
) -> None:
    with pytest.raises(Misfit, match=r"such as 2026-04-18 .*or milliseconds since 1970"):
        seconds(prepared(case, NAIVE), written)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(
        st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
        min_size=40,
        max_size=40,
        unique=True,
    ),
    st.booleans(),
)
def test_training_and_the_endpoint_read_any_date_alike(
    case: Case, dates: list[Any], zoned: bool
) -> None:
    texts = [date.isoformat(timespec="microseconds") + "Z" * zoned for date in dates]
    found = prepared(case, texts)
    read = seconds(found, *texts)
    right = [(d - dates[0]).total_seconds() for d in dates]
    assert [r - read[0] for r in read] == pytest.approx(right, abs=1e-4)


LATE = ("9999-12-31 23:59:59.997", "9999-12-31 00:00:00", "0001-01-01", "2024-01-05 07:00:00")


@pytest.mark.parametrize("fine", ["2024-01-05 07:00:00.1234567", "2024-01-05 07:00:00.123456789"])
@pytest.mark.parametrize("zone", ["", "Z"])
def test_training_reads_dates_beyond_the_range_of_nanoseconds_as_they_are(
    case: Case, fine: str, zone: str
) -> None:
    dates = [f"{d} 00:00:00{zone}" if zone and ":" not in d else f"{d}{zone}" for d in LATE]
    for texts in (dates, [*dates, f"{fine}{zone}"]):
        data = {"day": texts * 10, "x": range(10 * len(texts)), "y": ["a", "b"] * 5 * len(texts)}
        path = case.write(data)
        found = case.prepare(path, "y")
        read = rows.typed(found, tables.read([path], "y"))["day"].to_pylist()[: len(texts)]
        assert [date.year for date in read] == [9999, 9999, 1, 2024, 2024][: len(texts)]
        assert [date.replace(tzinfo=UTC).timestamp() for date in read] == seconds(found, *texts)
    assert read[-1].microsecond == 123456


@pytest.mark.parametrize("dates", ["2024-01-{:02d}T{:02d}Z", "2024-01-{:02d} {:02d}+02:00"])
def test_a_zone_may_follow_the_hour(case: Case, dates: str) -> None:
    texts = [dates.format(i % 28 + 1, i % 24) for i in range(40)]
    found = prepared(case, texts)
    assert found.columns[0].zoned
    assert len(seconds(found, *texts)) == 40
    assert not prepared(case, [text[:13] for text in texts]).columns[0].zoned
