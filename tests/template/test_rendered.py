"""The rendered repo's own tests, run where a user would run them, for every choice of an answer."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from generated import questions
from rendering import PIN, Run, run

pytestmark = pytest.mark.slow
OTHERS = {name: values[1:] for name, values in questions().items() if isinstance(values, list)}


def own_tests(folder: Path, template: Path, *options: str, **answers: str) -> Run:
    """Run them in a render with these answers, in a folder with spaces and accents."""
    output, home = folder / "Notre modèle, v2 (été)", folder / "home"
    output.mkdir(parents=True)
    home.mkdir()
    given = [f"{name}={value}" for name, value in answers.items()]
    made = run(
        *("python", "-m", "cookiecutter", "--no-input", "--output-dir", str(output)),
        *(str(template), f"_tool_pin={PIN}", *given),
        cwd=folder,
        HOME=str(home),
    )
    assert made.code == 0, made.err
    return run(
        *("python", "-m", "pytest", "-q", "--tb=short", "-rfEs", "-p", "no:cacheprovider"),
        *options,
        cwd=output / "my-model",
        HOME=str(home),
        PYTEST_ADDOPTS="",
    )


def assert_passed(done: Run) -> None:
    assert done.code == 0, done.out[-10000:] + done.err[-2000:]
    closing = done.out.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", closing), done.out[-3000:]
    # What is no Python package may be missing, and is named.
    missing = shutil.which("actionlint") is None
    assert "skipped" not in closing or (missing and "actionlint" in done.out), done.out[-3000:]


def test_the_rendered_repo_s_own_tests_pass(
    tmp_path: Path, template: Path, record_property: Callable[[str, object], None]
) -> None:
    done = own_tests(tmp_path, template, "--durations", "5")
    assert_passed(done)
    table = re.search(r"=+ slowest .*", done.out, re.DOTALL)
    assert table
    record_property("shown", f"The rendered repo's own tests:\n{table[0]}")


@pytest.mark.parametrize(
    "files",
    [
        # Those that read what an answer changes: the rest is the same to the byte, see test_matrix.
        pytest.param(("tests/test_stages.py",), id="of what changes"),
        pytest.param((), id="all", marks=pytest.mark.long),
    ],
)
def test_they_pass_with_every_other_choice(
    tmp_path: Path, template: Path, files: tuple[str, ...]
) -> None:
    for number in range(max(map(len, OTHERS.values()))):
        answers = {name: values[min(number, len(values) - 1)] for name, values in OTHERS.items()}
        assert_passed(own_tests(tmp_path / str(number), template, *files, **answers))
