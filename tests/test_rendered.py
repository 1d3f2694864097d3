"""The rendered repo's own tests, run where a user would run them."""

import re
from pathlib import Path

import pytest

from conftest import Run, run
from generated import RENDERED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def own_tests(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Run:
    """One run of all tests of a default render, in a folder with spaces and accents."""
    folder = tmp_path_factory.mktemp("own") / "Notre modèle, v2 (été)"
    home = tmp_path_factory.mktemp("home")
    folder.mkdir()
    made = run(
        *("python", "-m", "cookiecutter", "--no-input", "--output-dir", folder, template),
        cwd=folder,
        HOME=str(home),
    )
    assert made.code == 0, made.err
    return run(
        *(
            "python",
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "-rfEs",
        ),
        cwd=folder / "my-model",
        HOME=str(home),
        PYTEST_ADDOPTS="",
        PYTHONPATH=str(folder / "my-model"),
    )


def test_the_rendered_repo_s_own_tests_pass(own_tests: Run) -> None:
    assert own_tests.code == 0, own_tests.out[-10000:] + own_tests.err[-2000:]


def test_the_rendered_repo_s_own_tests_skip_nothing(own_tests: Run) -> None:
    closing = own_tests.out.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", closing) and "skipped" not in closing, own_tests.out[-3000:]


def test_every_part_of_the_rendered_repo_has_tests() -> None:
    for part in ("model", "ops", "pipeline", "sandbox"):
        assert list((RENDERED / "tests").glob(f"test_{part}_*.py")), part
