"""Checks of the data before fitting: a violation is one line with column, value and row."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model_case import Case, DataError, model_schema
from sm_mlops.tabular import checks

CONTENT = "age;country;id;y\n" + "".join(
    f"{i % 50};{['de', 'fr'][i % 2]};c{i};{'ab'[i % 2]}\n" for i in range(100)
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def checked(case: Case, content: str, **rules: Any) -> list[dict[str, Any]]:
    schema = case.prepare(case.text(content), "y", checks=rules)
    saved = model_schema.load(case.folder / "out" / "preprocessor")
    assert saved.data["checks"] == schema.data["checks"]
    found: list[dict[str, Any]] = schema.data["checks"]
    return found


@pytest.mark.parametrize(
    ("line", "rule", "said"),
    [
        ("-3;de;d;a", {"age": {"min": 0}}, "column 'age', {}, line 102: -3 is below 0"),
        ("150;de;d;a", {"age": {"max": 120.0}}, "column 'age', {}, line 102: 150 is above 120"),
        (
            "1;uk;d;a",
            {"country": {"allowed": ["de", "fr"]}},
            "'country', {}, line 102: 'uk' is not",
        ),
        ("1;de;c7;a", {"id": {"unique": True}}, "column 'id', {}, line 102: 'c7' occurs again"),
        (
            "1;;d;a",
            {"country": {"missing": 0.0}},
            "column 'country': 1.0% is missing, more than 0.0",
        ),
        ("old;de;d;a", {"age": {"max": 120}}, "column 'age', {}, line 102: 'old' is not a number"),
    ],
)
def test_a_violation_names_column_value_and_row_and_stops_or_warns(
    case: Case, line: str, rule: dict[str, dict[str, Any]], said: str
) -> None:
    assert checked(case, CONTENT, **rule) == []
    ((column, given),) = rule.items()
    said = said.format(case.folder / "data.csv")
    with pytest.raises(DataError) as stopped:
        checked(case, f"{CONTENT}{line}\n", **rule)
    assert said in str(stopped.value)
    (found,) = checked(case, f"{CONTENT}{line}\n", **{column: {**given, "stop": False}})
    assert (found["column"], found["check"], found["stops"]) == (column, next(iter(given)), False)
    assert found["text"] == str(stopped.value)


@pytest.mark.parametrize(("mark", "values"), [(".", ["0.5", "1.0"]), (",", ["0,5", "1,5"])])
def test_allowed_numbers_may_be_written_otherwise(case: Case, mark: str, values: list[str]) -> None:
    content = "x;y\n" + "".join(f"{values[i % 2]};{'ab'[i % 2]}\n" for i in range(40))
    allowed = [float(value.replace(",", ".")) for value in values]
    assert checked(case, content, x={"allowed": allowed}) == []
    with pytest.raises(DataError, match="is not allowed"):
        checked(case, content, x={"allowed": allowed[:1]})


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("12345678901234567890", ["12345678901234567891"]),
        ("9007199254740993", ["9007199254740992"]),
        ("1" * 5_000, ["1" * 4_999]),
        ("007", ["7"]),
        ("7", ["07", "08"]),
    ],
)
def test_codes_and_long_numbers_are_allowed_as_they_are_written(
    value: str, allowed: list[str]
) -> None:
    found = checks._allowed(pa.chunked_array([[value]]), "x", allowed, ".")
    assert found == (0, f"{value!r} is not allowed")
    assert checks._allowed(pa.chunked_array([[value]]), "x", [*allowed, value], ".") is None


def test_numbers_with_commas_are_checked_as_they_are_read(case: Case) -> None:
    content = "x;y\n" + "".join(f"1.23{i % 10},5;{'ab'[i % 2]}\n" for i in range(40))
    assert checked(case, content, x={"min": 1230, "max": 1240}) == []
    with pytest.raises(DataError, match=r"line 11: 1239\.5 is above 1239, and 3 more rows"):
        checked(case, content, x={"max": 1239})


def test_a_check_of_a_column_that_is_not_there_is_refused(case: Case) -> None:
    with pytest.raises(DataError, match=r"data\.checks of mlops\.yaml: there is no column 'agee'"):
        checked(case, CONTENT, agee={"min": 0})


def packed(case: Case, content: str, **settings: Any) -> Path:
    case.prepare(case.text(content), "y", **settings)
    case.train(num_boost_round="2")
    shutil.copyfile(
        case.folder / "out" / "preprocessor" / "schema.json", case.folder / "champion.json"
    )
    archive = case.folder / "champion" / "model.tar.gz"
    case.pack(archive)
    (archive.parent / "champion.json").write_text(json.dumps({"version": "3"}))
    return archive.parent


@pytest.mark.slow
def test_columns_that_differ_from_the_champions_are_warned_about_or_stop(case: Case) -> None:
    champion = packed(case, CONTENT)
    lines = enumerate(CONTENT.splitlines())
    more = "".join(f"{line};{i * 7 % 11 if i else 'kind'}\n" for i, line in lines)
    schema = case.prepare(case.text(more), "y")
    former = json.loads((case.folder / "champion.json").read_text())
    assert [result["text"] for result in checks.against(schema, former, "3")] == [
        "column 'kind' is new since version 3"
    ]
    schema = replace(schema, columns=schema.columns[1:])
    assert [result["text"] for result in checks.against(schema, former, "3")] == [
        "column 'age' is gone; version 3 has it",
        "column 'kind' is new since version 3",
    ]
    case.prepare(case.text(more), "y", changed_columns="stop")
    case.train(num_boost_round="2")
    with pytest.raises(
        DataError, match=r"column .kind. is new since version 3 .data\.changed_colu"
    ):
        case.evaluate(champion)


def test_min_and_max_are_for_numbers(case: Case) -> None:
    days = "".join(f"2026-01-{i % 28 + 1:02d},{'ab'[i % 2]}\n" for i in range(60))
    with pytest.raises(DataError, match="column 'day': holds dates or times; min and max are for"):
        checked(case, f"day,y\n{days}", day={"min": 0})
