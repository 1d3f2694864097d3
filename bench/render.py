"""Time of rendering with default answers, whole process, against an empty one-file template.

Prints one ratio. Renders outside the temp folder, so that the first commit is part of it.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from generated import clean_copy  # noqa: E402

ROUNDS = 15


def seconds(template: Path, work: Path) -> float:
    """Return the wall time of one `cookiecutter --no-input`, started as a user's shell starts it."""
    output = work / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    # A temp folder of its own: the hook makes no repository below the temp folder.
    environment = os.environ | {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp")}
    command = [sys.executable, "-m", "cookiecutter", "--no-input", str(template)]
    start = time.perf_counter()
    subprocess.run(command, cwd=output, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    # Above the repository, or the hook would find itself inside one.
    work = Path.home() / ".cache" / f"sm-mlops-bench-{os.getpid()}"
    try:
        for name in ("home", "tmp"):
            (work / name).mkdir(parents=True)
        ours = clean_copy(work / "ours")
        empty = work / "empty"
        (empty / "{{cookiecutter.name}}").mkdir(parents=True)
        (empty / "cookiecutter.json").write_text('{"name": "empty"}\n')
        (empty / "{{cookiecutter.name}}" / "README.md").write_text("# {{ cookiecutter.name }}\n")

        seconds(empty, work)
        seconds(ours, work)
        assert (work / "output" / "my-model" / ".git").is_dir(), "the first commit is missing"
        times = [(seconds(ours, work), seconds(empty, work)) for _ in range(ROUNDS)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rendered, nothing = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"render: {rendered / nothing:.2f} times an empty template, at most 1.5 "
        f"({rendered * 1000:.0f} ms and {nothing * 1000:.0f} ms, median of {ROUNDS})"
    )


if __name__ == "__main__":
    main()
