"""What a failed script leaves behind: one line with file and line of the team's code."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest

from hostile import HOSTILE
from sm_mlops.tabular import failure


def test_an_exception_of_a_script_is_reported_with_its_place_in_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    ended: list[int] = []
    monkeypatch.setattr(failure, "leave", ended.append)
    script = compile(
        "def main(folder):\n    import json\n    json.loads('{')\n", "/opt/ml/train.py", "exec"
    )
    there: dict[str, Any] = {}
    exec(script, there)
    failure.run(there["main"], Path("/opt/ml"))
    assert ended[0] == 1
    reason = (tmp_path / "output" / "failure").read_text(encoding="utf-8")
    assert reason.startswith("JSONDecodeError: Expecting property name")
    assert reason.endswith("(train.py, line 3)")
    said = capsys.readouterr().err
    assert said.startswith("Traceback ") and said.endswith(f"error: {reason}\n")


HELPERS = """
def syntax():
    exec(compile("x = (", str(HERE / "model" / "broken.py"), "exec"))


def imported():
    import not_there


def pool():
    from multiprocessing.pool import ThreadPool

    ThreadPool(1).apply(divide)


def process():
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("fork")) as executor:
        executor.submit(divide).result()


def memory():
    import numpy

    numpy.empty((1 << 45,))


def divide():
    return 1 / 0


def leave():
    sys.exit(0)
"""
LIBRARY = """
def train(hook):
    hook()
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("divide", "ZeroDivisionError: division by zero (helpers/own.py, line 31)"),
        ("syntax", "SyntaxError: '(' was never closed (broken.py, line 1)"),
        ("imported", "No module named 'not_there' (helpers/own.py, line 7)"),
        ("pool", "ZeroDivisionError: division by zero (helpers/own.py, line 31)"),
        ("process", "ZeroDivisionError: division by zero (helpers/own.py, line 31)"),
        ("leave", "SystemExit: 0 (helpers/own.py, line 35)"),
        ("memory", "(helpers/own.py, line 27); a larger instance in compute of mlops.yaml"),
    ],
)
def test_a_failure_names_file_and_line_of_the_teams_code_wherever_it_happens(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    ended: list[int] = []
    monkeypatch.setattr(failure, "leave", ended.append)
    model = tmp_path / "model"
    (model / "helpers").mkdir(parents=True)
    (model / "sm_mlops").mkdir()
    there: dict[str, Any] = {"HERE": tmp_path, "__name__": "own", "sys": sys}
    own, library = model / "helpers" / "own.py", model / "sm_mlops" / "train.py"
    for file, text in ((own, HELPERS), (library, LIBRARY)):
        file.write_text(text, encoding="utf-8")
        exec(compile(text, str(file), "exec"), there)
    monkeypatch.setitem(sys.modules, "own", type(sys)("own"))
    sys.modules["own"].__dict__.update(there)
    failure.run(lambda folder: there["train"](there[name]), model)
    assert reason in (tmp_path / "output" / "message").read_text(encoding="utf-8")
    assert ended[0] == 1


def test_a_script_that_is_asked_for_help_ends_as_it_wants(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        failure.run(lambda folder: print(ArgumentParser().parse_args(["--help"])), tmp_path)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_reason_of_a_failed_job_is_one_line_that_is_only_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    failure.report(f"data.csv: column '{text}' is missing")
    line = (tmp_path / "output" / "failure").read_text(encoding="utf-8")
    assert line.isprintable()
    assert capsys.readouterr().err == f"error: {line}\n"
