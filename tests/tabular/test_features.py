"""Columns of the team's own: typed alike in training and in requests, and checked."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from model_case import MODEL, Case, DataError, Encoding, hooks, preprocess
from sm_mlops.tabular import inference, rows, serving
from sm_mlops.tabular.schema import Schema

Frame = pd.DataFrame
JSON = "application/json"
DATA: dict[str, list[Any]] = {
    "width": [i % 9 + 1 for i in range(60)],
    "height": [i % 7 + 0.5 for i in range(60)],
    "flag": ["yes", "no", None] * 20,
    "day": [f"2024-01-{i % 28 + 1:02}" for i in range(60)],
    "colour": ["red", " red", "blue", None] * 15,
    "y": ["a", "b"] * 30,
}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def area(frame: Frame) -> Frame:
    """Derive columns of each kind across columns."""
    return Frame(
        {
            "area": frame["width"] * frame["height"],
            "tall": frame["height"] > frame["width"],
            "later": frame["day"] + pd.Timedelta(days=1),
            "age": pd.Timestamp("2024-03-01") - frame["day"],
            "both": frame["colour"] + frame["flag"].astype(str),
            "size": pd.cut(frame["width"], [0, 3, 9], labels=["small", "large"]),
        }
    )


def served(case: Case, features: Callable[[Frame], Frame]) -> inference.Served:
    folder = str(case.folder / "model")
    return inference.load(folder, hooks.load, hooks.predict, features)


def ask(model: inference.Served, *requests: dict[str, Any]) -> tuple[int, Any]:
    reply = inference.respond(model, json.dumps(requests), JSON, JSON)
    return reply.status_code, json.loads(reply.get_data())


def request(row: int) -> dict[str, Any]:
    return {name: values[row] for name, values in DATA.items() if name != "y"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def features(rows):\n    return rows\n", True),
        ('def features(rows: "X") -> "X":\n    """Say."""\n    return rows  # as it is\n', True),
        ("def features(rows):\n    rows['x'] = 1\n    return rows\n", False),
        ("def features(rows):\n    return rows.copy()\n", False),
        ("other = None\ndef features(rows):\n    return other\n", False),
        ("features = lambda rows: rows\n", False),
        ("def twice(f):\n    return f\n@twice\ndef features(rows):\n    return rows\n", False),
    ],
)
def test_only_a_function_that_returns_its_rows_counts_as_unused(
    tmp_path: Path, source: str, expected: bool
) -> None:
    file = tmp_path / "preprocess.py"
    file.write_text(source)
    names: dict[str, Any] = {}
    exec(compile(source, str(file), "exec"), names)
    assert preprocess.unchanged(names["features"]) is expected


def test_while_features_is_unused_no_frame_is_made(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "frame", lambda table: pytest.fail("a frame was made"))
    assert case.prepare(case.write(DATA), "y").features is None
    case.train(num_boost_round="1")
    status, answer = ask(served(case, lambda frame: pytest.fail("called")), request(0))
    assert (status, len(answer["predictions"])) == (200, 1)


def test_a_frame_has_the_same_types_whatever_its_rows_hold(case: Case) -> None:
    found = case.prepare(case.write(DATA), "y")
    types = case.rows().frame.dtypes.to_dict()
    assert {name: str(kind) for name, kind in types.items()} == {
        "width": "float64", "height": "float64", "flag": "boolean", "day": "datetime64[us]",
        "colour": "object",
    }  # fmt: skip
    for body in ({**request(0), "width": "3"}, dict.fromkeys(request(0))):
        asked = serving.rows(json.dumps([body]), JSON, found)
        assert rows.frame(rows.typed(found, asked)).dtypes.to_dict() == types


def test_texts_are_trimmed_and_missing_ones_are_none(case: Case) -> None:
    case.prepare(case.write(DATA), "y")
    assert set(case.rows().frame["colour"]) == {"red", "blue", None}


def test_derived_columns_are_trained_on_and_computed_for_each_request(case: Case) -> None:
    found = case.prepare(case.write(DATA), "y", features=area)
    assert {column.name: column.kind for column in found.features or ()} == {
        "area": "number", "tall": "boolean", "later": "date", "age": "number", "both": "text",
        "size": "text",
    }  # fmt: skip
    case.train(num_boost_round="3")
    model, one = served(case, area), request(3)
    assert model.model.encoding.features[0] == "area"
    _, alone = ask(model, one)
    status, beside = ask(model, request(0), one, dict.fromkeys(one))
    assert status == 200
    assert beside["predictions"][1:2] == alone["predictions"]


def test_a_value_that_does_not_fit_is_the_client_s_fault_before_features_is_called(
    case: Case,
) -> None:
    case.prepare(case.write(DATA), "y", features=area)
    case.train(num_boost_round="1")
    model = served(case, lambda frame: pytest.fail("called"))
    status, answer = ask(model, request(0), {**request(1), "width": "wide"})
    assert (status, answer["column"], answer["row"]) == (400, "width", 2)
    status, answer = ask(model, {k: v for k, v in request(0).items() if k != "flag"})
    assert (status, answer["column"]) == (400, "flag")


def test_an_exception_of_features_at_the_endpoint_is_not_a_client_s_fault(case: Case) -> None:
    case.prepare(case.write(DATA), "y", features=area)
    case.train(num_boost_round="1")
    with pytest.raises(KeyError, match="nobody"):
        ask(served(case, lambda frame: frame[["nobody"]]), request(0))
    with pytest.raises(DataError, match="column 'tall' is missing in some of the rows"):
        ask(served(case, lambda frame: area(frame).drop(columns="tall")), request(0))


WRONG: dict[str, tuple[Callable[[Frame], Any], str]] = {
    "nothing": (lambda frame: None, "it returned NoneType, not a DataFrame"),
    "a column": (lambda frame: frame["width"], "it returned Series, not a DataFrame"),
    "fewer rows": (lambda frame: frame.dropna(), r"it returned \d+ rows for 42; return each row"),
    "another order": (lambda frame: frame[::-1], "it returned the rows in another order"),
    "a number beyond all bounds": (
        lambda frame: frame.assign(x=pd.Series([10**400] * len(frame), frame.index, object)),
        "column 'x' holds values of",
    ),
    "no column": (lambda frame: frame[[]], "it returned no column"),
    "a name twice": (
        lambda frame: pd.concat([frame, frame], axis=1), "it returned two columns 'width'",
    ),
    "several types": (
        lambda frame: frame.assign(x=[1, "a"] * (len(frame) // 2)), "column 'x' holds values of",
    ),
    "lists": (
        lambda frame: frame.assign(x=frame["day"].map(lambda day: [1])), "column 'x' holds list<",
    ),
    "another type in the second batch": (
        lambda frame: frame.assign(x="a" if len(frame) > 20 else 1),
        "column 'x' is number in some rows and text in others",
    ),
    "another column in the second batch": (
        lambda frame: frame if len(frame) > 20 else frame.assign(x=1), "'x' is only in some",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_features_may_not_return_is_named_in_one_line(case: Case, name: str) -> None:
    features, pattern = WRONG[name]
    line = rf"^features of model/preprocess\.py: .*{pattern}"
    with pytest.raises(DataError, match=line) as error:
        case.prepare(case.write(DATA), "y", features=features)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_an_exception_of_features_in_training_is_named_with_file_and_line(case: Case) -> None:
    code = case.folder / "code"
    shutil.copytree(MODEL, code)
    script = code / "preprocess.py"
    text = script.read_text().replace("    return rows\n", "    return rows[['nobody']]\n")
    script.write_text(text)
    (code / "mlops.yaml").write_text("data: {target: y}\n")
    words: list[Any] = [script, "--data", case.write(DATA), "--output", case.folder / "out"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    line = text.splitlines().index("    return rows[['nobody']]") + 1
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert re.fullmatch(rf"error: KeyError: .*nobody.* \(preprocess\.py, line {line}\)", last)


def test_a_column_whose_first_batches_hold_nothing_gets_its_type_from_later_ones(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, "CHUNK", 10)
    data = DATA | {"day": ["2024-01-01"] * 40 + ["2025-01-01"] * 20}
    late = pd.Timestamp("2024-06-01")

    def features(frame: Frame) -> Frame:
        late_width = frame["width"].where(frame["day"] > late).astype(object)
        nothing = pd.Series([None] * len(frame), dtype=object)
        return Frame({"late": late_width.where(late_width.notna(), None), "nothing": nothing.values,
                      "height": frame["height"]})  # fmt: skip

    found = case.prepare(case.write(data), "y", features=features)
    assert [(c.name, c.kind) for c in found.features or ()] == [
        ("late", "number"), ("nothing", "text"), ("height", "number"),
    ]  # fmt: skip
    assert len(case.rows()) == len(case.rows().labels) == found.data["rows"]["train"]
    assert case.rows().frame["late"].notna().any()


def test_a_request_without_rows_reaches_neither_features_nor_predict(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.prepare(case.write(DATA), "y", features=area)
    case.train(num_boost_round="1")
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    model = served(case, lambda frame: pytest.fail("called"))
    reply = inference.respond(model, "width,height,flag,day,colour\n", "text/csv", "text/csv")
    assert (reply.status_code, reply.get_data()) == (200, b"")


def test_columns_that_the_encoding_does_not_use_may_be_absent_or_anything(case: Case) -> None:
    data = DATA | {"key": list(range(60)), "same": ["x"] * 60}
    case.prepare(case.write(data), "y")
    case.train(num_boost_round="1")
    model = served(case, lambda frame: frame)
    assert model.schema.optional == ["key", "same"]
    answers = [ask(model, request(0) | more) for more in ({}, {"key": 7}, {"key": "C-1"})]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 200


def test_no_row_of_the_training_rows_is_encoded_with_its_own_label(case: Case) -> None:
    names = [f"n{i % 290}" for i in range(2000)]
    case.prepare(case.write({"name": names, "y": [i % 3 % 2 for i in range(2000)]}), "y")
    train = case.rows()
    encoding = Encoding.fit(train)
    at = encoding.features.index("name.mean.0")
    same, again = encoding.encode(train)[:, at], encoding.encode(case.rows())[:, at]
    assert len(set(same.tolist())) > len(set(again.tolist()))


def test_rows_in_memory_and_in_files_are_the_same(case: Case) -> None:
    case.prepare(case.write(DATA), "y")
    stored = case.rows()
    held = rows.Rows(stored.schema, stored.table, stored.labels)
    assert held.frame.equals(stored.frame)
    assert [len(batch) for batch in held.batches()] == [len(stored)]
    assert held.column("width").equals(stored.column("width"))
    with pytest.raises(DataError, match="no labels"):
        assert rows.Rows(stored.schema, stored.table).labels


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_spans_of_time_may_be_long(unit: str) -> None:
    years = 200 if unit == "ns" else 8000
    spans = pd.Series([years * 365, None]).astype("Int64") * 86400
    spans = pd.Series(pa.array(spans).cast(pa.duration("s")).cast(pa.duration(unit)).to_pandas())
    made = rows.derived(lambda frame: Frame({"age": spans}), pa.table({"x": [1.0, 2.0]}))
    assert made["age"].to_pylist()[0] == years * 365 * 86400.0


@pytest.mark.parametrize(
    ("classes", "values", "fits"),
    [
        ([], [1, 2], True),
        ([], [[1.0], [2.0]], False),
        (["a", "b"], [[0.5, 0.5], [1, 0]], True),
        (["a", "b"], [0.5, 1.0], False),
        (["a", "b"], [["a", "b"], ["a", "b"]], False),
    ],
)
def test_predictions_of_another_shape_are_refused(
    classes: list[str], values: Any, fits: bool
) -> None:
    schema = Schema("binary" if classes else "regression", "y", classes, [], [], {})
    asked = rows.Rows(schema, pa.table({"x": [1.0, 2.0]}))
    if fits:
        assert inference.checked(values, asked).dtype.kind == "f"
    else:
        with pytest.raises(ValueError, match=r"predict of model/train\.py returned .* for 2 rows"):
            inference.checked(values, asked)
