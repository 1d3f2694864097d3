"""The cost of `mlops compile` and `mlops --help` beyond importing the libraries that they use.

Prints the CPU time of compiling against importing the SageMaker SDK, and of two helps against
importing boto3: whole processes, interleaved, so that other load on the machine matters little.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from generated import clean_copy  # noqa: E402

ROUNDS = 5
COMPILE = ["-m", "sm_mlops", "compile"]
SDK = ["-c", "import sagemaker.mlops.workflow.pipeline"]
HELPS = (["-m", "sm_mlops", "--help"], ["-m", "sm_mlops", "models", "--help"])
BOTO3 = ["-c", "import boto3"]


def seconds(arguments: list[str], repo: Path) -> float:
    """Return the CPU time of one Python process that runs in `repo` without a sign-in."""
    environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    environment |= {
        "HOME": str(repo.parent),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], cwd=repo, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def medians(runs: list[list[str]], repo: Path) -> list[float]:
    """Return the median CPU time of each command, measured in turns after a warm-up."""
    for run in runs:
        seconds(run, repo)
    times = [[seconds(run, repo) for run in runs] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        template = str(clean_copy(Path(folder) / "template"))
        repo = Path(cookiecutter(template, no_input=True, output_dir=folder, default_config=True))
        compiling, importing = medians([COMPILE, SDK], repo)
        boto3, *helps = medians([BOTO3, *HELPS], repo)
    print(
        f"compile: {compiling / importing:.2f} times importing the SDK, at most 1.3 "
        f"({compiling:.1f} s and {importing:.1f} s, median of {ROUNDS})"
    )
    for arguments, spent in zip(HELPS, helps, strict=True):
        print(
            f"mlops {' '.join(arguments[2:])}: {spent - boto3:+.2f} s against importing boto3, "
            f"at most +0.6 ({spent:.2f} s and {boto3:.2f} s, median of {ROUNDS})"
        )


if __name__ == "__main__":
    main()
