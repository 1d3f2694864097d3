"""Numbers as people write them: training and the endpoint read a text as the same value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_case import Case, DataError, model_schema
from sm_mlops.tabular import encoding, numerals, serving, tables
from sm_mlops.tabular.encoding import Misfit


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def rows_of(*columns: Sequence[Any]) -> str:
    sink = io.StringIO()
    csv.writer(sink, delimiter=";").writerows(zip(*columns, strict=True))
    return sink.getvalue()


LABELS = ["a", "b"] * 20


def served(schema: model_schema.Schema, name: str, texts: list[Any]) -> list[float]:
    """Return what the endpoint reads in a column; the others are missing."""
    rows = [{c.name: t if c.name == name else None for c in schema.columns} for t in texts]
    table = serving.rows(json.dumps(rows), "application/json", schema)
    column = next(c for c in schema.columns if c.name == name)
    return encoding.numbers(table[name], name, column.missing, column.decimal).tolist()


def column(schema: model_schema.Schema, name: str = "x") -> model_schema.Column:
    return next(c for c in schema.columns if c.name == name)


def test_thousands_dots_and_decimal_commas_in_one_file_are_numbers_as_written(case: Case) -> None:
    random = np.random.default_rng(0)
    area = [f"{int(a):,}".replace(",", ".") for a in random.integers(900, 20_000, 40)]
    price = [f"{p:.2f}".replace(".", ",") for p in random.uniform(3, 60, 40)]
    year = random.integers(1900, 2020, 40).tolist()
    path = case.text("Fläche;Baujahr;Preis\n" + rows_of([*area[:-1], "991"], year, price))
    found = case.prepare(path, "Preis")
    assert found.task == "regression"
    assert case.encoding().summary[0]["low"] >= 900
    assert served(found, "Fläche", ["10.998", "991", 10.998]) == [10998.0, 991.0, 10.998]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1'234.5", "12"], [1234.5, 12]),
        (["1\u2019234'567.25", "0.5"], None),
        (["1 234,5", "12"], [1234.5, 12]),
        (["1\u00a0234,5", "1\u202f234\u202f567"], [1234.5, 1234567]),
        (["1,23,456", "12,34,567.5"], [123456, 1234567.5]),
        (["1.234.567,5", "-3"], [1234567.5, -3]),
        (["1.234,50 €", "2,00 €"], [1234.5, 2]),
        (["0,123", "1,234"], [0.123, 1.234]),
        (["0.123", "1.234"], [0.123, 1.234]),
    ],
)
def test_a_column_decides_by_itself(
    case: Case, texts: list[str], values: list[float] | None
) -> None:
    kind = "number" if values else "text"
    found = case.prepare(case.text("x;y\n" + rows_of(texts * 20, LABELS)), "y")
    assert column(found).kind == kind
    if values:
        assert served(found, "x", texts) == values


@pytest.mark.parametrize("text", ["18_25", "1_000", "2024_01", "1_0.5"])
def test_digits_with_underscores_are_text(text: str) -> None:
    assert not numerals.is_number(text) and not numerals.is_number(text, numerals.COMMA)


def test_columns_of_one_file_may_differ(case: Case) -> None:
    path = case.text("p;c;y\n" + rows_of(["1.5", "2.25"] * 20, ["1,5", "2,25"] * 20, LABELS))
    found = case.prepare(path, "y")
    assert (column(found, "p").decimal, column(found, "c").decimal) == (".", ",")
    assert [s["high"] for s in case.encoding().summary] == [2.25, 2.25]


AMBIGUOUS = "x;k;y\n" + rows_of(["1.234", "5.678", "9"] * 13, [3, 4, 5] * 13, LABELS[:39])


def test_a_column_that_nothing_decides_is_refused_with_its_values(case: Case) -> None:
    with pytest.raises(DataError) as error:
        case.prepare(case.text(AMBIGUOUS), "y")
    assert str(error.value).endswith(
        "data.csv: column 'x': the marks in '1.234', '5.678' could be decimal or thousands; "
        "set data.decimal in mlops.yaml to point or comma"
    )


@pytest.mark.parametrize("texts", [["10.998", "991", "17.946"], ["10.998", "17.946", "19.483"]])
def test_a_point_is_no_decimal_beside_whole_numbers_without_it_unless_that_is_said(
    case: Case, texts: list[str]
) -> None:
    """In a file whose delimiter is a comma, which speaks for decimal points."""
    path = case.text("x,k,y\n" + rows_of(texts * 13, [3, 4, 5] * 13, LABELS[:39]).replace(";", ","))
    if "991" in texts:
        with pytest.raises(DataError, match=r"column 'x': .* set data\.decimal"):
            case.prepare(path, "y")
        case.prepare(path, "y", decimal="comma")
        assert case.encoding().summary[0]["high"] == 17_946
    else:
        case.prepare(path, "y")
        assert case.encoding().summary[0]["high"] == 19.483


@pytest.mark.parametrize(("setting", "high"), [("comma", 5678), ("point", 9)])
def test_the_setting_decides_about_a_column_that_nothing_else_does(
    case: Case, setting: str, high: float
) -> None:
    found = case.prepare(case.text(AMBIGUOUS), "y", decimal=setting)
    assert case.encoding().summary[0]["high"] == high
    assert served(found, "x", ["5.678"]) == [5678 if setting == "comma" else 5.678]


@pytest.mark.slow
def test_whole_numbers_far_up_do_not_hide_thousands_further_down(case: Case) -> None:
    x = [*range(1, 60_000), "1.234", "2.345"]
    path = case.text("x;z;y\n" + rows_of(x, ["0,5", *["1"] * 60_000], (LABELS * 1501)[:60_001]))
    case.prepare(path, "y")
    assert case.encoding().summary[0]["high"] == 59_999


def test_points_and_commas_in_one_column_are_refused(case: Case) -> None:
    with pytest.raises(DataError, match=r"column 'x': '1\.5' has a decimal point and '2,5' a deci"):
        case.prepare(case.text("x;y\n" + rows_of(["1.5", "2,5"] * 20, LABELS)), "y")


def test_a_number_written_otherwise_than_in_training_is_refused_by_the_endpoint(
    case: Case,
) -> None:
    found = case.prepare(case.text("x;y\n" + rows_of(["1,5", "2,25"] * 20, LABELS)), "y")
    with pytest.raises(Misfit, match=r"column 'x', row 2: '1\.5' is not a number with a decimal c"):
        served(found, "x", ["1,5", "1.5"])


def test_json_numbers_keep_their_value_beside_texts_with_commas(case: Case) -> None:
    found = case.prepare(case.text("x;y\n" + rows_of(["1,5", "2,25"] * 20, LABELS)), "y")
    assert served(found, "x", ["1,5", 1.234]) == [1.5, 1.234]


def written(number: float, decimals: int, decimal: str, thousands: str) -> str:
    text = f"{number:,.{decimals}f}".replace(",", "T").replace(".", decimal)
    return text.replace("T", thousands)


NUMBERS = st.lists(
    st.floats(-1e9, 1e9).filter(lambda v: abs(v) > 1e-6), min_size=30, max_size=30, unique=True
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    NUMBERS,
    st.integers(0, 4),
    st.sampled_from(
        [".,", ".", ".'", ". ", ",.", ",", ", ", ",\u00a0", ",\u202f", ".\u2019", ",'"]
    ),
    st.sampled_from([";", ",", "\t"]),
)
def test_any_number_in_any_writing_is_read_right_or_asked_about(
    case: Case, values: list[float], decimals: int, marks: str, delimiter: str
) -> None:
    """Never another value, neither in training nor at the endpoint."""
    texts = [written(v, decimals, marks[0], marks[1:]) for v in values]
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=delimiter)
    writer.writerows([("x", "y"), *zip(texts, "ab" * 15, strict=True)])
    try:
        found = case.prepare(case.text(sink.getvalue()), "y")
    except DataError as error:
        assert "data.decimal" in str(error) or "no column varies" in str(error)
        return
    if column(found).kind != "number":
        return
    right = [round(v, decimals) for v in values]
    # A comma delimits, so a mark that could be both is taken for what it is in such files.
    if delimiter == "," and marks[0] == "," and served(found, "x", texts) != right:
        assert all("." not in t for t in texts)
        return
    assert served(found, "x", texts) == pytest.approx(right)
    trained = case.rows().column("x").to_pylist()
    assert min(right) <= min(trained) <= max(trained) <= max(right)


def test_integers_in_hexadecimal_are_read_as_in_training(case: Case) -> None:
    texts = [f"0x{i:X}" for i in range(37)] + ["0Xff", " 0x1f", "0xFFFFFFFFFFFFFFFF"]
    path = case.text("x;y\n" + rows_of(texts, LABELS))
    found = case.prepare(path, "y")
    read = [*map(float, range(37)), 255.0, 31.0, -1.0]
    assert served(found, "x", texts) == tables.read([path], "y")["x"].to_pylist() == read
    with pytest.raises(Misfit, match="'0x1FFFFFFFFFFFFFFFF' is not a number"):
        served(found, "x", ["0x1FFFFFFFFFFFFFFFF"])
