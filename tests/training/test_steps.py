"""A team's own step and its own package: written where the README says, run in the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from repos import Repo, mlops
from sm_mlops.training.definition import DEFINITION

pytestmark = pytest.mark.slow

SCRIPT = """\
import argparse
from pathlib import Path

import pyarrow.parquet as pq
import words

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=Path)
parser.add_argument("--output", type=Path)
given = parser.parse_args()
[file] = given.rows.glob("*.parquet")
text = f"{words.COUNTED} {pq.read_metadata(file).num_rows} rows"
(given.output / "count.txt").write_text(text)
print(text)
"""
STEP = """\
    code = repo.code("extra.py")
    extra = ProcessingStep(
        name="Extra",
        step_args=repo.processor(code).run(
            inputs=[code.input, repo.input("rows", repo.output_of(preprocess, "test"))],
            outputs=[repo.output("extra", "count")],
            arguments=["--rows", f"{IN}/rows", "--output", f"{OUT}/count"],
        ),
        cache_config=repo.cache,
        retry_policies=repo.retries,
    )

"""
HELPERS = """\
from pathlib import Path

WORDS = Path(__file__).with_name("words.txt").read_text().split()
"""


def replaced(file: Path, before: str, after: str) -> None:
    """Replace a text of a file, which must be there once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_a_step_of_the_team_is_a_script_and_a_step_in_the_definition(repo: Repo) -> None:
    repo.configure(hyperparameters={"num_boost_round": 20})
    (repo.root / "model" / "extra.py").write_text(SCRIPT, encoding="utf-8")
    (repo.root / "model" / "words.py").write_text("COUNTED = 'counted'\n", encoding="utf-8")
    definition = repo.root / DEFINITION
    place = "    # The functions of train.py"
    replaced(definition, place, STEP + place)
    replaced(definition, "steps=[preprocess, train,", "steps=[preprocess, extra, train,")
    done = mlops(repo.root, "--sandbox", "run", "--set", "GateThreshold=0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Extra        Succeeded" in done.stdout
    assert "Registered version 1" in done.stdout
    logs = mlops(repo.root, "--sandbox", "logs", "Extra")
    assert logs.stdout.splitlines()[-1] == "counted 85 rows"


@pytest.mark.long
def test_an_exception_in_the_team_s_train_py_is_named_with_its_line(repo: Repo) -> None:
    train = repo.root / "model" / "train.py"
    place = "    return boosting.fit("
    replaced(train, place, "    print(1 / len([]))\n" + place)
    number = train.read_text(encoding="utf-8").splitlines().index("    print(1 / len([]))") + 1
    done = mlops(repo.root, "--sandbox", "run")
    assert done.returncode == 1
    first, *rest = done.stderr.splitlines()
    assert first == f"Train: ZeroDivisionError: division by zero (train.py, line {number})"
    assert "| Traceback (most recent call last):" in rest
    assert rest[-1].startswith("log: mlops --sandbox logs Train --execution ")
    assert mlops(repo.root, *rest[-1].partition(" (in ")[0].split()[2:]).returncode == 0


@pytest.mark.long
def test_a_package_that_serving_needs_is_in_every_step_up_to_register(repo: Repo) -> None:
    repo.configure(hyperparameters={"num_boost_round": 20})
    helpers = repo.root / "model" / "helpers"
    helpers.mkdir()
    (helpers / "__init__.py").write_text(HELPERS, encoding="utf-8")
    (helpers / "words.txt").write_text("mean worst", encoding="utf-8")
    place = "from preprocess import features\n"
    inference = repo.root / "model" / "inference.py"
    replaced(inference, place, "from helpers import WORDS\n" + place)
    place = "    return inference.load("
    replaced(inference, place, "    assert WORDS == ['mean', 'worst']\n" + place)
    done = mlops(repo.root, "--sandbox", "run", "--set", "GateThreshold=0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered version 1" in done.stdout
