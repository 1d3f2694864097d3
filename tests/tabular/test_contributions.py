"""What moves the predictions: SHAP values by column, within bounds, from the model that knows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import datasets
from model_case import Case
from sm_mlops.tabular import contributions

pytestmark = pytest.mark.slow


def test_contributions_of_one_column_are_together_and_have_a_direction(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, shop = random.normal(size=600), random.integers(0, 3, 600)
    table = {
        "up": x.tolist(),
        "down": (other := random.normal(size=600)).tolist(),
        "shop": [f"s{k}" for k in shop],
        "at": [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(600)],
        "y": (3 * x - 2 * other + 4 * (shop == 2) + 0.1 * random.normal(size=600)).tolist(),
    }
    case = Case(tmp_path)
    case.prepare(case.write(table), "y")
    model = case.train(num_boost_round="60")
    rows = pq.read_table(tmp_path / "out" / "test" / "part-0.parquet").drop_columns(["y"])
    found = model.contributions(rows)
    columns = {each["name"]: each for each in found["columns"]}
    assert found["rows"] == rows.num_rows
    assert set(columns) == {"up", "down", "shop", "at"}
    assert [each["name"] for each in found["columns"]][-1] == "at"
    assert (columns["up"]["direction"], columns["down"]["direction"]) == ("up", "down")
    assert columns["shop"]["high"] == "s2"
    assert columns["up"]["mean"] > 1


def test_of_many_classes_the_one_that_moves_most_is_named(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.letters(rows=400, classes=3)), "letter")
    model = case.train(num_boost_round="5")
    rows = pq.read_table(tmp_path / "out" / "test" / "part-0.parquet").drop_columns(["letter"])
    found = model.contributions(rows)
    assert all(each["most"] in (0, 1, 2) for each in found["columns"])
    case.evaluate()
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "What moves the predictions" in page and "mostly class class " in page


def test_rows_are_as_many_as_time_and_memory_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=700)), "Churn")
    model = case.train(num_boost_round="10")
    rows = pq.read_table(tmp_path / "out" / "test" / "part-0.parquet").drop_columns(["Churn"])
    assert model.contributions(rows)["rows"] == rows.num_rows > 50
    monkeypatch.setattr(contributions, "MOST_VALUES", 20 * (1 + len(model.model.encoding.features)))
    assert model.contributions(rows)["rows"] == 20
    monkeypatch.setattr(contributions, "MOST_WORK", 1.0)
    assert model.contributions(rows) == {"why": "the model is too large for it"}


MODEL = "from sm_mlops.tabular.boosting import Model"


def without(script: str) -> str:
    return script + f"\n\n{MODEL}\n\ndel Model.contributions\n"


def failing(script: str) -> str:
    return (
        script
        + f"\n\n{MODEL}\n\n"
        + "def fail(model, rows):\n    raise KeyError('x')\n\n\nModel.contributions = fail\n"
    )


@pytest.mark.parametrize(
    ("change", "said"), [(without, None), (failing, "could not be computed: KeyError: &#x27;x")]
)
def test_another_model_has_none_and_a_failure_stops_nothing(
    tmp_path: Path, change: Any, said: str | None
) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=300)), "Churn")
    case.train(num_boost_round="2")
    script = tmp_path / "model/code/inference.py"
    script.write_text(change(script.read_text(encoding="utf-8")), encoding="utf-8")
    assert json.dumps(case.evaluate())
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert ("What moves the predictions" in page) == (said is not None)
    assert said is None or said in page
