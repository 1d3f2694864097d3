"""Your model: your pipeline trains it on your data, and an endpoint serves it, on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sm_mlops.settings import load
from sm_mlops.testing import CSV, JSON, LINES, Model, Refused, trained

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A version trained on `data.sample` of mlops.yaml, or on `data.path` without one."""
    with trained(ROOT, tmp_path_factory.mktemp("sandbox")) as found:
        yield found


def test_it_trains_on_every_part_of_the_data(model: Model) -> None:
    assert all(model.gate["rows"][part] > 0 for part in ("train", "validation", "test"))


def test_the_gate_s_metric_fits_the_task(model: Model) -> None:
    metric = load(ROOT).gate.metric
    assert model.measured(metric) is not None, model.gate["metrics"][metric]["text"]


def test_every_test_row_gets_a_prediction(model: Model) -> None:
    predictions = model.predict(model.rows)
    assert len(predictions) == len(model.rows) == model.gate["rows"]["test"]
    assert None not in predictions


@pytest.mark.parametrize("content_type", [CSV, JSON, LINES])
def test_the_endpoint_predicts_what_was_evaluated(model: Model, content_type: str) -> None:
    answer = model.ask(model.sample.bodies[content_type], content_type)
    assert answer["predictions"] == model.sample.expected


def test_rows_without_the_model_s_columns_are_refused(model: Model) -> None:
    answer = model.ask(json.dumps([{"no such column": 1}]), JSON)
    assert isinstance(answer, Refused) and answer.status == 400
    assert "column" in str(answer)


@pytest.mark.parametrize("content_type", [JSON, LINES])
def test_a_body_that_cannot_be_read_is_refused(model: Model, content_type: str) -> None:
    answer = model.ask("{", content_type)
    assert isinstance(answer, Refused) and answer.status == 400
