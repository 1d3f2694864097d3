"""Deleting a registry, with and without a SageMaker project that owns its group."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap_case import NAME, Land, land
from sm_mlops import projects
from sm_mlops.bootstrap.project import Project
from sm_mlops.deployment import destroy

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
