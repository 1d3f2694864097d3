"""What a batch transform job gets: a line for each row, also where a row cannot be predicted."""

import json
from typing import Any

import pytest

from model_case import PASSENGER as ROW
from model_case import Case, inference, passengers
from sm_mlops.tabular import json_lines

pytestmark = pytest.mark.slow
LINES = "application/jsonlines"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return passengers(tmp_path_factory.mktemp("passengers"))


@pytest.fixture(scope="module")
def model(case: Case) -> Any:
    return inference.model_fn(str(case.folder / "model"))


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")  # as batch transform sets it


OTHER = {**ROW, "Sex": "male", "Age": None, "Cabin": None, "Name": 'O\'Neil\n"Jim" {1}, Mr. N2'}


def ask(model: Any, lines: list[str]) -> list[Any]:
    reply = inference.transform_fn(model, "\n".join(lines), LINES, LINES)
    assert reply.status_code == 200, reply.get_data()
    return [json.loads(line) for line in reply.get_data().decode().splitlines()]


def dumped(*rows: Any) -> list[str]:
    return [json.dumps(row, separators=(",", ":")) for row in rows]


def test_a_row_that_cannot_be_predicted_is_a_line_with_its_reason(model: Any, job: None) -> None:
    bad = [{**ROW, "Age": "old"}, {**ROW, "Fare": [1]}, {k: ROW[k] for k in ("Sex", "Age")}]
    lines = [*dumped(ROW, bad[0], OTHER, ROW, bad[1]), "no JSON", *dumped(OTHER, bad[2])]
    found = ask(model, lines)
    good = ask(model, dumped(ROW, OTHER))
    assert [found[i] for i in (0, 2, 3, 6)] == [good[0], good[1], good[0], good[1]]
    assert found[1] == {
        "error": "column 'Age', row 2: 'old' is not a number",
        "column": "Age",
        "row": 2,
    }
    assert [row.get("row") for row in found] == [None, 2, None, None, 5, 6, None, 8]
    assert "row 6 is not JSON" in found[5]["error"]
    assert "is missing in row 8" in found[7]["error"]


def test_an_endpoint_still_refuses_the_whole_request(model: Any) -> None:
    reply = inference.transform_fn(model, "\n".join(dumped(ROW, {**ROW, "Age": "old"})), LINES, "")
    assert reply.status_code == 400


def test_a_piece_of_blank_lines_has_no_predictions(model: Any, job: None) -> None:
    assert ask(model, ["", " "]) == []


@pytest.mark.parametrize(
    "rows",
    [
        [ROW, OTHER],
        [{k: None if v is None else str(v) for k, v in row.items()} for row in (ROW, OTHER, ROW)],
        [{**ROW, "Age": None}, {**ROW, "Age": 3}, {**ROW, "Age": 2.5}],
        [{**ROW, "SibSp": 1.0, "Ticket": 17599}, {**ROW, "SibSp": 2, "Ticket": 5}],
        [{**ROW, "Ticket": "2020-01-01"}, {**ROW, "Ticket": "2020-01-01 00:00:00"}],
        [{**ROW, "PassengerId": 7, "more": True}, {**ROW, "PassengerId": "x", "more": False}],
        [ROW, dict(reversed(OTHER.items()))],
    ],
)
def test_a_job_predicts_what_the_endpoint_does(
    model: Any, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(model, dumped(*rows))
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    assert ask(model, dumped(*rows)) == expected
    assert ask(model, [json.dumps(row) for row in rows]) == expected


def test_columns_are_read_at_once_only_where_that_is_what_json_reads(model: Any) -> None:
    def read(*lines: str) -> Any:
        found = json_lines.columns("\n".join(lines) + "\n", model.schema)
        return found and {name: column.to_pylist() for name, column in found.items()}

    assert read('{"a":"1","b":null}', '{"a":null,"b":"ü"}') == {"a": ["1", None], "b": [None, "ü"]}
    assert read('{"a":"2020-01-01"}') == {"a": ["2020-01-01"]}
    for lines in (
        ['{"a":"1","b":"2"}', '{"a":"1"}'],
        ['{"a":"1","a":"2"}'],
        ['{"a":"1"}{"a":"2"}'],
        ['{"a":', '"1"}'],
        ['{"a":"1"}', '{"a":2}'],
        ["[1]"],
        ['{"a":[1]}'],
    ):
        assert read(*lines) is None, lines
