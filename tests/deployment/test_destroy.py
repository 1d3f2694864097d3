"""Deleting a registry, with and without a SageMaker project that owns its group; what of
mlops.yaml deleting does without."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bootstrap_case import NAME, Land, land
from repos import Repo
from sm_mlops import projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap.project import Project
from sm_mlops.cli.main import app
from sm_mlops.deployment import destroy
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow


def groups(here: Land) -> list[str]:
    rows = here.aws.pages("list_model_package_groups", "ModelPackageGroupSummaryList")
    return [row["ModelPackageGroupName"] for row in rows]


def test_the_registry_of_a_project_is_emptied_and_its_group_is_deleted_with_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with land(tmp_path, monkeypatch) as here:
        here.act()
        here.aws.sagemaker.create_model_package(ModelPackageGroupName=NAME)
        assert destroy.delete_registry(here.aws) == []
        assert groups(here) == [NAME] and destroy.kept(here.aws).versions == 0
        here.part(Project).undo(print)
        assert projects.find(here.aws) is None and groups(here) == []


def test_a_registry_without_a_project_is_deleted_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with land(tmp_path, monkeypatch) as here:
        here.aws.sagemaker.create_model_package_group(ModelPackageGroupName=NAME)
        here.aws.sagemaker.create_model_package(ModelPackageGroupName=NAME)
        assert destroy.delete_registry(here.aws) == []
        assert groups(here) == []


def test_executions_of_both_pipelines_have_ended_before_these_are_deleted(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageMaker refuses to delete a pipeline with a running execution."""
    states = {"churn": ["Executing", "Stopping", "Stopped"], "churn-monitor": ["Executing"] * 2}

    def summaries(aws: Aws, pipeline: str) -> list[dict[str, str]]:
        status = states[pipeline].pop(0) if states[pipeline] else "Succeeded"
        return [{"PipelineExecutionArn": pipeline, "PipelineExecutionStatus": status}]

    stopped: list[str] = []
    stop = "stop_pipeline_execution"
    monkeypatch.setattr(
        account.sagemaker, stop, lambda PipelineExecutionArn: stopped.append(PipelineExecutionArn)
    )
    monkeypatch.setattr(destroy.executions, "summaries", summaries)
    monkeypatch.setattr(destroy.time, "sleep", lambda seconds: None)
    running = destroy.executing(account)
    said = Console(file=io.StringIO())
    destroy.stop(account, running, said, wait=True)
    assert stopped == running == ["churn", "churn-monitor"]
    assert destroy.executing(account) == []
    assert "Waiting until running executions" in said.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "section", ["monitoring: {stages: [gone]}", "monitoring: 3", "retraining: {schedule: daily}"]
)
def test_a_stage_is_deleted_whatever_mlops_yaml_says_of_checks_and_training(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.chdir(repo.root)
    (repo.root / "mlops.yaml").write_text(f"data: {{path: x, target: y}}\n{section}\n")
    refused = CliRunner().invoke(app, ["status"])
    assert isinstance(refused.exception, MlopsError)
    done = CliRunner().invoke(app, ["destroy", "staging", "--yes"])
    assert done.exit_code == 0, done.exception
    assert "Nothing to delete, not deployed: staging" in done.output
