"""Report what ends a script: one line; exit code 2 for errors in the data or the settings.

Knows where SageMaker reads a job's failure reason. Must not know what any step does.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sm_mlops.tabular.text import visible


class DataError(Exception):
    """An error in the data or the settings that the user can fix; its text is one line, without
    control characters that the data may hold."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def report(message: str) -> None:
    """Print the line, and write it where SageMaker reads the failure reason of the job.

    Training jobs show the first 1,024 characters of `output/failure` (FailureReason), processing
    jobs those of `output/message` (ExitMessage).
    Source: SageMaker developer guide, "How Amazon SageMaker AI Processes Training Output" and
    "Build Your Own Processing Container".
    """
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    line = visible(" ".join(message.split()))
    # The folder of a job's inputs is of no use to the reader.
    for inputs in ("processing/input", "input/data"):
        line = line.replace(f"{base / inputs}/", "")
    print(f"error: {line}", file=sys.stderr)
    if "SAGEMAKER_BASE_DIR" in os.environ or base.is_dir():
        output = base / "output"
        output.mkdir(parents=True, exist_ok=True)
        for name in ("failure", "message"):
            (output / name).write_text(line[:1024], encoding="utf-8")


def run(main: Callable[[Path], None], folder: Path) -> None:
    """Call the main of a script in `folder`, and end the process: for a DataError with its line and
    code 2, for any other exception with its traceback, its place and code 1."""
    try:
        main(folder)
    except DataError as error:
        report(str(error))
        leave(2)
    except Exception as error:
        traceback.print_exc()
        # The last place in the team's code, not the one in a library that it called.
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in frames if Path(frame.filename).parent == folder] or frames
        place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
        report(f"{type(error).__name__}: {error} ({place})")
        leave(1)
    leave(0)


def leave(code: int) -> NoReturn:
    """End the process without shutting down the interpreter.

    On a busy machine, Arrow's threads then abort about 1 % of processes ("terminate called without
    an active exception"), which would fail a job that is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
