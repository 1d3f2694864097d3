"""Metrics of the team's own: found in the source, computed in Evaluate, named when they fail."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import datasets
from model_case import Case, DataError, metrics
from sm_mlops.tabular import measures

SOURCE = """
import numpy as np
from sm_mlops.tabular import metrics
from sm_mlops.tabular.metrics import lower_is_better

@lower_is_better
def cost(truth, predicted, rows):
    return 1.0

@metrics.higher_is_better
def gain(truth, predicted, rows):
    return 1.0

def helper(x):
    return x
"""


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The metrics that are declared, none at first."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(metrics, "_OWN", found)
    return found


def test_what_a_script_declares_is_read_without_importing_it(tmp_path: Path) -> None:
    file = tmp_path / "evaluate.py"
    assert measures.declared(file) == {}
    file.write_text(SOURCE + "raise SystemExit\n")
    assert measures.declared(file) == {"cost": True, "gain": False}


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (SOURCE.replace("def gain", "def auc"), "line 11: there is already a metric auc"),
        ("def (", "line 1: invalid syntax"),
    ],
)
def test_a_script_that_declares_nothing_usable_is_named(
    tmp_path: Path, source: str, line: str
) -> None:
    file = tmp_path / "evaluate.py"
    file.write_text(source)
    with pytest.raises(ValueError, match=f"^model/evaluate.py, {line}"):
        measures.declared(file)


def test_the_name_of_a_metric_of_the_library_is_refused_in_the_job_too() -> None:
    def auc(truth: Any, predicted: Any, rows: Any) -> float:
        return 1.0

    with pytest.raises(DataError, match="there is already a metric auc"):
        metrics.lower_is_better(auc)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["churn", "letters", "houses"])
def test_a_metric_gets_labels_predictions_and_raw_rows(
    tmp_path: Path, name: str, own: dict[str, Any]
) -> None:
    generate, target, task = datasets.ALL[name]
    seen: list[Any] = []

    @metrics.lower_is_better
    def cost(truth: Any, predicted: pd.DataFrame, rows: pd.DataFrame) -> float:
        seen[:] = truth, predicted, rows
        return float((truth != predicted["prediction"]).mean())

    case = Case(tmp_path)
    found = case.prepare(case.write(generate(rows=300)), target)
    case.train(num_boost_round="5")
    gate = case.evaluate()
    truth, predicted, rows = seen
    assert len(truth) == len(predicted) == len(rows) == found.data["rows"]["test"]
    assert list(rows) == [column.name for column in found.columns]
    if task == "regression":
        assert predicted["prediction"].dtype == "float64"
        assert gate["metrics"]["cost"]["value"] == 1.0
    else:
        assert set(truth) | set(predicted["prediction"]) <= set(found.classes)
        assert {f"probability_{label}" for label in found.class_names} <= set(predicted)
        accuracy = gate["metrics"]["accuracy"]["value"]
        assert gate["metrics"]["cost"]["value"] == pytest.approx(1 - accuracy)
    assert gate["metrics"]["cost"]["better"] == "lower"
    assert "<small>cost</small>" in (tmp_path / "evaluation" / "report.html").read_text()
    assert '"cost"' in (tmp_path / "evaluation" / "evaluation.json").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["churn", "houses"])
def test_what_a_metric_changes_in_its_arguments_changes_nothing_else(
    tmp_path: Path, name: str, own: dict[str, Any]
) -> None:
    generate, target, _ = datasets.ALL[name]
    case = Case(tmp_path)
    case.prepare(case.write(generate(rows=300)), target)
    case.train(num_boost_round="5")
    usual = case.evaluate()["metrics"]

    @metrics.lower_is_better
    def careless(truth: Any, predicted: pd.DataFrame, rows: pd.DataFrame) -> float:
        truth[:] = predicted["prediction"] = truth[0]
        rows.drop(rows.index, inplace=True)
        return 0.0

    @metrics.lower_is_better
    def careful(truth: Any, predicted: pd.DataFrame, rows: pd.DataFrame) -> float:
        return float((truth == truth[0]).all()) + float(len(rows) == 0)

    found = case.evaluate()["metrics"]
    assert found["careful"]["value"] == 0
    assert {known: found[known] for known in usual} == usual


def raises(truth: Any, predicted: Any, rows: Any) -> float:
    return 1 / len([])


def text(truth: Any, predicted: Any, rows: Any) -> str:
    return "low"


@pytest.mark.parametrize(
    ("metric", "offset", "pattern"),
    [
        (raises, 1, "raises raised ZeroDivisionError: division by zero"),
        (text, 0, "text returned 'low'; return a number"),
    ],
)
def test_a_metric_that_fails_is_named_with_file_and_line(
    metric: Any, offset: int, pattern: str
) -> None:
    metrics.higher_is_better(metric)
    line = metric.__code__.co_firstlineno + offset
    with pytest.raises(DataError, match=rf"^model/test_metrics\.py, line {line}: {pattern}$"):
        metrics.own(lambda: (np.empty(0), pd.DataFrame(), pd.DataFrame()))


def test_without_a_metric_of_the_team_s_own_no_frame_is_made() -> None:
    assert metrics.own(lambda: pytest.fail("frames were made")) == {}
