"""Errors of the data or the settings: one line for the person who can fix them, exit code 2.

Knows where SageMaker looks for a job's failure reason. Must not know what any step does.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path


class DataError(Exception):
    """Something in the data or the settings that the user can put right; its text is one line."""


def report(message: str) -> None:
    """Print the line, and leave it where SageMaker turns it into the job's reason of failure.

    Training jobs show the first 1,024 characters of `output/failure` (FailureReason), processing
    jobs those of `output/message` (ExitMessage).
    Source: SageMaker developer guide, "How Amazon SageMaker AI Processes Training Output" and
    "Build Your Own Processing Container".
    """
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
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
        sys.exit(2)
