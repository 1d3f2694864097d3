"""Errors of the data or the settings: one line for the person who can fix them, exit code 2.

Knows where SageMaker looks for a job's failure reason. Must not know what any step does.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class DataError(Exception):
    """Something in the data or the settings that the user can put right; its text is one line."""


def report(message: str) -> None:
    """Print the line, and leave it where SageMaker turns it into the job's reason of failure.

    Training jobs show the first 1,024 characters of `output/failure` (FailureReason), processing
    jobs those of `output/message` (ExitMessage).
    Source: SageMaker developer guide, "How Amazon SageMaker AI Processes Training Output" and
    "Build Your Own Processing Container".
    """
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    line = " ".join(message.split())
    # Where a job keeps its inputs says nothing to the person; the rest is the name they know.
    for inputs in ("processing/input", "input/data"):
        line = line.replace(f"{base / inputs}/", "")
    print(f"error: {line}", file=sys.stderr)
    if "SAGEMAKER_BASE_DIR" in os.environ or base.is_dir():
        output = base / "output"
        output.mkdir(parents=True, exist_ok=True)
        for name in ("failure", "message"):
            (output / name).write_text(line[:1024], encoding="utf-8")


def run(main: Callable[[], None]) -> None:
    """Call a script's main; a DataError ends the process with its line and code 2."""
    try:
        main()
    except DataError as error:
        report(str(error))
        leave(2)
    leave(0)


def leave(code: int) -> NoReturn:
    """End the process without tearing the interpreter down.

    Threads of Arrow's that end at that moment abort about one process in a hundred on a busy
    machine ("terminate called without an active exception"), and so fail a job that has done all.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
