"""Metrics by slice: how columns are cut, and which slices are too small to tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasets
from model_case import Case, DataError
from sm_mlops.tabular import slices
from sm_mlops.tabular.schema import Column, Schema


def cut(tmp_path: Path, kind: str, values: list[Any], **more: Any) -> list[dict[str, Any]]:
    """Return the slices of one column; the metric is the number of rows."""
    schema = Schema("binary", "y", ["a", "b"], [Column("x", kind, **more)], ["id"], {})
    half = len(values) // 2
    for part, rows in enumerate((values[:half], values[half:])):
        pq.write_table(pa.table({"x": rows, "y": ["a"] * len(rows)}), tmp_path / f"{part}.parquet")
    [found] = slices.measured(tmp_path, ["x"], schema, lambda rows: float(rows.sum()))
    assert found["column"] == "x"
    return list(found["slices"])


def test_each_common_value_is_a_slice_and_the_others_are_one(tmp_path: Path) -> None:
    values = ["north"] * 60 + ["south"] * 40 + [None, " na "] + [f"v{i:02}" for i in range(20)]
    found = cut(tmp_path, "text", values)
    rows = {each["value"]: (each["rows"], each["enough"]) for each in found}
    assert list(rows)[:3] == ["north", "south", "missing"]
    assert rows["north"] == (60, True) and rows["missing"] == (2, False)
    assert rows["11 other values"] == (11, False)
    assert found[0]["share"] == pytest.approx(60 / 122)
    assert sum(each["rows"] for each in found) == 122


def test_numbers_are_cut_into_ranges_of_equal_size(tmp_path: Path) -> None:
    found = cut(tmp_path, "number", [*(f"{1900 + i}" for i in range(100)), None])
    assert [each["value"] for each in found] == [
        "1900 to 1925", "1925 to 1950", "1950 to 1974", "1974 to 1999", "missing",
    ]  # fmt: skip
    assert [each["rows"] for each in found] == [25, 25, 24, 26, 1]
    assert found[-1] == {
        "value": "missing", "rows": 1, "share": 1 / 101, "metric": 1.0, "enough": False,
    }  # fmt: skip


def test_dates_are_cut_into_ranges_and_few_numbers_into_values(tmp_path: Path) -> None:
    days = [f"{day:02}.03.2024" for day in range(1, 29)]
    found = cut(tmp_path, "date", days, format="%d.%m.%Y")
    assert found[0]["value"] == "2024-03-01 to 2024-03-08"
    assert [each["value"] for each in cut(tmp_path, "number", [1.0, 2.0, 2.0, 1.0])] == ["1", "2"]


@pytest.mark.slow
def test_the_gates_metric_is_in_report_and_evaluation_by_slice(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=700)), "Churn", drop=("Partner",))
    case.train()
    for name, said in (("Contrakt", "did you mean 'Contract'"), ("Partner", "is in data.drop")):
        with pytest.raises(DataError, match=f"evaluation.slices in mlops.yaml: .*{said}"):
            case.evaluate(slices=(name,))
    case.evaluate(metric="f1", slices=("Contract", "tenure"))
    quality = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    sliced = quality["slices"]
    assert sliced["metric"] == "f1"
    assert sliced["value"] == quality["binary_classification_metrics"]["f1"]["value"]
    contract, tenure = sliced["columns"]
    assert {each["value"] for each in contract["slices"]} == {
        "Month-to-month", "One year", "Two year",
    }  # fmt: skip
    assert len(tenure["slices"]) == 4
    weight = np.array([each["share"] for each in contract["slices"]])
    assert weight.sum() == pytest.approx(1)
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "<h2>By slice</h2>" in page and "Month-to-month" in page
