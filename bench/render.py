"""Time of rendering with default answers, whole process, against an empty one-file template.

Prints two ratios: from a clone whose commit is pushed, which is pinned by its address, and from
files that nobody else has, of which the hook packs the tool. Renders outside the temp folder, so
that the first commit is part of it.
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
    """Return the wall time of `cookiecutter --no-input`, started as a user's shell starts it."""
    output = work / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    # A temp folder of its own: the hook makes no repository below the temp folder.
    environment = os.environ | {"HOME": str(work / "home"), "TMPDIR": str(work / "tmp")}
    # Set, Python would compile cookiecutter again each time, and the ratio would look better.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "cookiecutter", "--no-input", str(template)]
    start = time.perf_counter()
    subprocess.run(command, cwd=output, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def clone_of(folder: Path) -> Path:
    """Make the folder a clone whose commit is in its origin, and return it."""
    origin = "https://github.com/acme/sm-mlops.git"
    named = ("-c", "user.name=Bench", "-c", "user.email=bench@localhost")
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        (*named, "commit", "--quiet", "--message", "All"),
        ("remote", "add", "origin", origin),
        ("update-ref", "refs/remotes/origin/main", "HEAD"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def main() -> None:
    # Above the repository, or the hook would find itself inside one.
    work = Path.home() / ".cache" / f"sm-mlops-bench-{os.getpid()}"
    try:
        for name in ("home", "tmp"):
            (work / name).mkdir(parents=True)
        packed = clean_copy(work / "packed")
        pushed = clone_of(clean_copy(work / "pushed"))
        empty = work / "empty"
        (empty / "{{cookiecutter.name}}").mkdir(parents=True)
        (empty / "cookiecutter.json").write_text('{"name": "empty"}\n')
        (empty / "{{cookiecutter.name}}" / "README.md").write_text("# {{ cookiecutter.name }}\n")

        for template, named in ((pushed, False), (packed, True)):
            seconds(template, work)
            made = work / "output" / "my-model"
            assert (made / ".git").is_dir(), "the first commit is missing"
            assert (made / "vendor").is_dir() == named, "not pinned as expected"
        kinds = (pushed, packed, empty)
        times = [[seconds(template, work) for template in kinds] for _ in range(ROUNDS)]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    address, files, nothing = (statistics.median(column) for column in zip(*times, strict=True))
    for name, found in (("a pushed commit", address), ("files of one's own", files)):
        print(
            f"render from {name}: {found / nothing:.2f} times an empty template, at most 1.5 "
            f"({found * 1000:.0f} ms and {nothing * 1000:.0f} ms, median of {ROUNDS})"
        )


if __name__ == "__main__":
    main()
