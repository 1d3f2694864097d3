"""Your pipeline: what `pipeline/definition.py` compiles to."""

import json
from pathlib import Path

import pytest
from sm_mlops.settings import load, parameter_name
from sm_mlops.testing import compiled, scripts

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def definition() -> str:
    return compiled(ROOT)


@pytest.mark.slow
def test_it_compiles_to_the_same_bytes_every_time(definition: str) -> None:
    assert compiled(ROOT, hash_seed=1) == definition


def test_the_script_of_every_step_exists(definition: str) -> None:
    found = scripts(definition)
    assert found
    for step, script in found.items():
        assert (ROOT / "model" / script).is_file(), f"{step} runs model/{script}"


def test_only_what_passes_the_gate_is_registered(definition: str) -> None:
    unconditional = {step["Type"] for step in json.loads(definition)["Steps"]}
    assert "RegisterModel" not in unconditional


def test_each_hyperparameter_can_be_set_for_one_execution(definition: str) -> None:
    names = {parameter["Name"] for parameter in json.loads(definition)["Parameters"]}
    assert {parameter_name(name) for name in load(ROOT).hyperparameters} <= names
