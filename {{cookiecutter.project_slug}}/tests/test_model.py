"""Your model: your pipeline trains it on your data, and an endpoint serves it, on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("content_type", [CSV, JSON, LINES])
def test_the_endpoint_predicts_what_was_evaluated(model: Model, content_type: str) -> None:
    rows = model.sample.bodies[content_type]
    assert model.ask(rows, content_type) == model.sample.expected


def test_rows_without_the_model_s_columns_are_refused(model: Model) -> None:
    with pytest.raises(Refused, match="column") as refused:
        model.ask(json.dumps([{"no such column": 1}]).encode(), JSON)
    assert refused.value.status == 400


@pytest.mark.parametrize("content_type", [JSON, LINES])
def test_a_body_that_cannot_be_read_is_refused(model: Model, content_type: str) -> None:
    with pytest.raises(Refused) as refused:
        model.ask(b"{", content_type)
    assert refused.value.status == 400


def test_another_content_type_is_refused(model: Model) -> None:
    with pytest.raises(Refused, match="content type") as refused:
        model.ask(b"x", "image/png")
    assert refused.value.status == 415
