"""What CI runs fits this repo: its region, its project, the commands that it has.

Whichever CI that is; files that are not there are not missed.
"""

from __future__ import annotations

import re

import typer
from conftest import ROOT
from sm_mlops import settings as mlops_settings
from sm_mlops.cli.main import app

NAMES = ("ci.yml", "build.yml", "deploy.yml")


def files() -> dict[str, str]:
    """Name and text of the workflows, or of the Jenkinsfile."""
    found = [ROOT / ".github" / "workflows" / name for name in NAMES] + [ROOT / "Jenkinsfile"]
    return {file.name: file.read_text(encoding="utf-8") for file in found if file.is_file()}


def named(variable: str, text: str) -> list[str]:
    return re.findall(rf"^ *{variable}(?: =|:) [\"']?([^\"'\s]+)", text, re.MULTILINE)


def test_each_file_names_the_region_and_project_of_pyproject() -> None:
    project = mlops_settings.load(ROOT).project
    for name, text in files().items():
        assert named("AWS_REGION", text) == [project.region], name
        assert named("PROJECT", text) == [project.project], name


def test_each_command_is_there() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for name, text in files().items():
        assert set(re.findall(r"\.venv/bin/mlops ([\w-]+)", text)) <= commands, name


def test_names_are_found_in_either_form() -> None:
    assert named("PROJECT", 'env:\n  PROJECT: "a-b"\n') == ["a-b"]
    assert named("PROJECT", "    PROJECT = 'a-b'\n") == ["a-b"]
