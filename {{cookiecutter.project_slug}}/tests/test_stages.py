"""Your stages, the template of their endpoints, and what CI runs to deploy to them."""

from pathlib import Path

import pytest
from sm_mlops.deployment.stages import names
from sm_mlops.settings import load
from sm_mlops.testing import stage_problems, workflow_problems

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("stage", names(load(ROOT)))
def test_a_stage_can_be_deployed(stage: str) -> None:
    """By the rules of infra/<stage>.json, of infra/endpoint.yml, and of cfn-lint."""
    assert not stage_problems(ROOT, stage)


def test_ci_runs_commands_that_exist() -> None:
    """By GitHub's schema, and by the commands and options of mlops."""
    assert not workflow_problems(ROOT)
