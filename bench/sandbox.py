"""Time of an execution of the default data in the sandbox, against its scripts run by hand.

By hand is `python model/preprocess.py`, `train.py`, `evaluate.py`, one after the other. Each round
has a sandbox of its own, so that no step comes from the cache.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from generated import clean_copy  # noqa: E402

ROUNDS = 3

EXECUTION = """
import os, sys, time
from pathlib import Path
from sm_mlops import sandbox
from sm_mlops import executions
from sm_mlops.aws import Aws
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.training.run import start
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops import settings

root = Path.cwd()
with sandbox.connect(root, settings.load(root).project.region) as environment:
    apply(environment)
    aws = Aws(settings.load(root), sandbox=True)
    prepare(aws)
    arn = start(aws, {}, lambda line: None)
    begun = time.perf_counter()
    while (execution := executions.describe(aws, arn)).status not in executions.FINAL:
        time.sleep(0.05)
    print(time.perf_counter() - begun)
    assert execution.status == "Succeeded", execution
"""


def by_hand(repo: Path, work: Path) -> float:
    """Wall time of the three scripts, from the raw file to the report, in seconds."""
    champion = work / "champion"
    champion.mkdir(parents=True)
    (champion / "none.json").write_text("{}")
    prepared, model = work / "prepared", work / "model"
    scripts: list[list[str | Path]] = [
        ["preprocess.py", "--data", "data/breast-cancer.csv", "--output", prepared],
        [
            *("train.py", "--train", prepared / "train", "--validation", prepared / "validation"),
            *("--preprocessor", prepared / "preprocessor", "--model-dir", model),
        ],
        [
            *("evaluate.py", "--model", model, "--test", prepared / "test"),
            *("--champion", champion, "--output", work / "evaluation"),
        ],
    ]
    start = time.perf_counter()
    for script, *arguments in scripts:
        subprocess.run(
            [sys.executable, repo / "model" / script, *arguments],
            cwd=repo,
            check=True,
            capture_output=True,
        )
    return time.perf_counter() - start


def in_the_sandbox(repo: Path) -> float:
    """Wall time of an execution from its start to its end, in seconds."""
    subprocess.run(
        [sys.executable, "-m", "sm_mlops", "sandbox", "reset"],
        cwd=repo,
        check=True,
        capture_output=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", EXECUTION],
        cwd=repo,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        template = str(clean_copy(Path(folder) / "template"))
        repo = Path(cookiecutter(template, no_input=True, output_dir=folder, default_config=True))
        sample = [
            *(sys.executable, "-m", "sm_mlops.tabular.sample_data"),
            "data/breast-cancer.csv",
        ]
        subprocess.run(sample, cwd=repo, check=True)
        by_hand(repo, work / "warm")
        times = [
            (in_the_sandbox(repo), by_hand(repo, work / str(number))) for number in range(ROUNDS)
        ]
    sandbox, hand = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"sandbox: {sandbox / hand:.2f} times the scripts by hand, at most 1.6 "
        f"({sandbox:.1f} s and {hand:.1f} s, median of {ROUNDS})"
    )


if __name__ == "__main__":
    main()
