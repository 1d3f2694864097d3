"""What the raw rows of a version look like: summaries of columns, and baseline.json."""

import json
import pickle
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import monitor_formats
from model_case import Case
from sm_mlops.tabular import baseline, constraints, rows
from sm_mlops.tabular.baseline import Summarizer, Summary
from sm_mlops.tabular.schema import Column, Schema

NUMBERS = np.arange(100_000, dtype=np.float64)


def schema_of(*columns: Column) -> Schema:
    return Schema("binary", "y", ["no", "yes"], list(columns), [], {"threshold": 0.4, "files": 1})


def summary_of(values: Any, column: Column, size: int = rows.CHUNK) -> Summary:
    """Return the summary of one column, whose rows come `size` at a time."""
    summarizer = Summarizer([column])
    table = rows.typed(schema_of(column), pa.table({column.name: values}))
    for start in range(0, table.num_rows, size):
        summarizer.add(table.slice(start, size))
    return summarizer.summaries()[0]


def seconds(*texts: str) -> list[float]:
    return [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in texts]


DAYS = seconds("2026-01-02", "2026-03-04", "2026-03-05")
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "numbers": ("number", [3.0, None, 1.0, 2.0], {"missing": 1, "min": 1, "max": 3, "mean": 2,
                "points": [1, 2, 3]}),
    "amounts": ("number", ["1,000", "n/a", "$7"], {"missing": 1, "min": 7, "max": 1000,
                "points": [7, 1000]}),
    "infinity": ("number", [float("inf"), 1.0], {"missing": 1, "max": 1, "points": [1]}),
    "huge": ("number", [1e300, -1e300], {"min": -1e300, "deviation": None, "mean": 0}),
    "dates": ("date", ["2026-03-04", "2026-01-02", "", "2026-03-05"], {"missing": 1,
              "min": DAYS[0], "max": DAYS[2], "points": DAYS}),
    "booleans": ("boolean", ["yes", "no", "Yes", None], {"missing": 1, "distinct": 2, "other": 0,
                 "categories": {"true": 2, "false": 1}, "points": []}),
    "text": ("text", ["b", "a ", "b", "a", "b", "N/A"], {"missing": 1, "distinct": 2, "other": 0,
             "categories": {"b": 3, "a": 2}, "min": None}),
    "a text that occurs once": ("text", ["b"] * 4 + ["Ann Lee"], {"distinct": 2, "other": 1,
                                "categories": {"b": 4}}),
    "free text": ("text", ["Ann", "Bob", "Cem", "Cem"], {"distinct": 3, "other": 4,
                  "categories": {}}),
    "long text": ("text", ["b" * 999] * 4, {"distinct": 1, "other": 4, "categories": {}}),
    "more than 200 texts": ("text", [f"{i % 300:03}" for i in range(900)] + ["299"],
                            {"distinct": 300, "other": 901 - 4 - 199 * 3}),
    "all missing": ("number", [None, None], {"missing": 2, "min": None, "mean": None,
                    "points": []}),
    "text all missing": ("text", ["", "-"], {"missing": 2, "categories": {}, "distinct": 0}),
    "one row": ("number", [5.0], {"missing": 0, "min": 5, "max": 5, "deviation": 0,
                "points": [5]}),
    "no rows": ("number", pa.array([], pa.float64()), {"missing": 0, "points": []}),
    "many numbers": ("number", NUMBERS, {"min": 0, "max": 99_999, "mean": 49_999.5}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_summary_holds_what_the_rows_hold(name: str) -> None:
    kind, values, expected = CASES[name]
    found = summary_of(values, Column("c", kind))
    assert found.rows == len(values)
    assert {key: getattr(found, key) for key in expected} == expected


def test_a_summary_does_not_depend_on_the_sizes_of_the_tables() -> None:
    random = np.random.default_rng(1)
    texts = random.choice(["x", "y", "z"], 20_000)
    for kind, values in (("number", random.normal(size=20_000)), ("text", texts)):
        column = Column("c", kind)
        assert summary_of(values, column) == summary_of(values, column, 777)


def test_points_are_evenly_spaced_order_statistics() -> None:
    random = np.random.default_rng(2)
    few, many = random.permutation(NUMBERS[:4_095]), random.permutation(NUMBERS)
    spaced = np.linspace(0, 1, baseline.POINTS)
    exact = summary_of(few, Column("c", "number")).points
    assert exact == np.sort(few)[(spaced * (len(few) - 1)).round().astype(int)].tolist()
    near = np.array(summary_of(many, Column("c", "number")).points)
    wanted = np.sort(many)[(spaced * (len(many) - 1)).round().astype(int)]
    assert np.abs(near - wanted).max() < 0.002 * len(many)


def test_free_text_of_many_values_is_counted_and_not_kept() -> None:
    texts = [f"{i} Main Street" for i in range(baseline.COUNTED + 1)] * 3
    found = summary_of(texts, Column("c", "text"))
    assert (found.categories, found.other, found.distinct) == ({}, len(texts), None)


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    columns = [Column("n", "number", missing=["x"], decimal=","), Column("t", "text")]
    schema = schema_of(*columns)
    summarizer = Summarizer(columns)
    summarizer.add(rows.typed(schema, pa.table({"n": ["1,5", "x", None], "t": ["a", "a", None]})))
    written = baseline.of(schema, summarizer)
    written.save(tmp_path)
    assert baseline.load(tmp_path) == written
    assert written.schema.columns == columns
    assert written.schema.threshold == 0.4
    assert baseline.load(tmp_path / "nowhere") is None


def people(rows: int) -> dict[str, list[Any]]:
    return {
        "id": list(range(rows)),
        "name": [f"Person {i}" for i in range(rows)],
        "city": [["Rome", "Oslo", None][i % 3] for i in range(rows)],
        "since": [f"2026-01-{i % 28 + 1:02}" for i in range(rows)],
        "member": [["yes", "no"][i % 2] for i in range(rows)],
        "age": [None if i % 10 == 0 else 20 + i % 50 for i in range(rows)],
        "score": [i / 7 - 3 for i in range(rows)],
        "bought": [["y", "n"][i % 4 == 0] for i in range(rows)],
    }


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> baseline.Baseline:
    """Return what Preprocess says of its training rows."""
    case = Case(tmp_path_factory.mktemp("people"))
    case.prepare(case.write(people(400)), "bought", lambda rows: rows[["age"]], drop=("id",))
    found = baseline.load(case.folder / "out" / "preprocessor")
    assert found is not None
    return found


@pytest.mark.slow
def test_preprocess_summarizes_the_raw_training_rows(trained_on: baseline.Baseline) -> None:
    assert trained_on.rows == 280
    kinds = {column.name: column.kind for column in trained_on.columns}
    assert kinds == {"name": "text", "city": "text", "since": "date", "member": "boolean",
                     "age": "number", "score": "number"}  # fmt: skip
    assert trained_on.schema.features is None
    assert (trained_on.predictions, trained_on.quality) == (None, None)


def test_no_value_of_free_text_is_in_any_file(trained_on: baseline.Baseline) -> None:
    quality = {"binary_classification_metrics": {"auc": {"value": 0.9}}}
    files = [asdict(trained_on), *constraints.files(trained_on, quality).values()]
    assert "Person" not in json.dumps(files)
    assert "Rome" in json.dumps(files)


def test_statistics_and_constraints_are_those_of_the_columns(
    trained_on: baseline.Baseline,
) -> None:
    never = summary_of([None] * 280, Column("never", "number"))
    known = replace(trained_on, columns=[*trained_on.columns, never])
    shown, asked, _ = constraints.files(known, {"binary_classification_metrics": {}}).values()
    monitor_formats.refuse("statistics", shown)
    monitor_formats.refuse("constraints", asked)
    columns = {column.name: column for column in known.columns}
    features = {feature["name"]: feature for feature in asked["features"]}
    assert {name: feature["inferred_type"] for name, feature in features.items()} == {
        "name": "String", "city": "String", "since": "String", "member": "String",
        "age": "Integral", "score": "Fractional", "never": "Unknown",
    }  # fmt: skip
    assert features["city"]["string_constraints"] == {"domains": list(columns["city"].categories)}
    assert not {"string_constraints", "num_constraints"} & {*features["name"], *features["since"]}
    assert features["age"]["num_constraints"] == {"is_non_negative": True}
    assert features["score"]["num_constraints"] == {"is_non_negative": False}
    assert features["age"]["completeness"] == columns["age"].present / 280
    assert features["never"]["completeness"] == 0
    ages = next(f for f in shown["features"] if f["name"] == "age")["numerical_statistics"]
    points = columns["age"].points
    assert ages["mean"] == pytest.approx(np.mean(points))
    assert ages["sum"] == pytest.approx(np.sum(points))
    buckets = ages["distribution"]["kll"]["buckets"]
    counts, edges = np.histogram(points, 10)
    assert [bucket["count"] for bucket in buckets] == counts.tolist()
    assert [bucket["lower_bound"] for bucket in buckets] == pytest.approx(edges[:-1])


@pytest.mark.parametrize(
    ("task", "worse_above", "worse_below"),
    [
        ("binary_classification", "false_positive_rate", "auc"),
        ("multiclass_classification", "logloss", "weighted_f1"),
        ("regression", "mse", "r2"),
    ],
)
def test_the_constraints_of_the_quality_know_which_direction_is_worse(
    task: str, worse_above: str, worse_below: str
) -> None:
    values = {worse_above: 0.25, worse_below: 0.75, "undefined": "NaN"}
    group = {name: {"value": value, "standard_deviation": "NaN"} for name, value in values.items()}
    matrix = {"confusion_matrix": {"0": {"0": 1, "1": 2}}}
    found = constraints.of_quality({f"{task}_metrics": matrix | group, "slices": {}})
    monitor_formats.refuse(task, found)
    assert found[f"{task}_constraints"] == {
        worse_above: {"threshold": 0.25, "comparison_operator": "GreaterThanThreshold"},
        worse_below: {"threshold": 0.75, "comparison_operator": "LessThanThreshold"},
    }


@pytest.mark.slow
def test_ten_million_rows_are_held_in_less_than_a_megabyte() -> None:
    columns = [Column("n", "number"), Column("t", "text"), Column("f", "text")]
    summarizer, random = Summarizer(columns), np.random.default_rng(3)
    free = pa.array(random.integers(0, 1 << 40, rows.CHUNK)).cast(pa.string())
    texts = pa.array(random.choice(["x", "y"], rows.CHUNK))
    numbers = pa.array(random.normal(size=rows.CHUNK))
    for _ in range(77):
        summarizer.add(pa.table({"n": numbers, "t": texts, "f": free}))
    assert len(pickle.dumps(summarizer)) < 1_000_000
    number, text, free_text = summarizer.summaries()
    assert number.rows == 77 * rows.CHUNK
    assert np.interp(0.975, np.linspace(0, 1, 1000), number.points) == pytest.approx(1.96, abs=0.01)
    assert sum(text.categories.values()) == 77 * rows.CHUNK
    assert free_text.categories == {}
