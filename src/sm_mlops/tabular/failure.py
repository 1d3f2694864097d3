"""Report what ends a script: one line; exit code 2 for errors in the data or the settings.

Knows where SageMaker reads a job's failure reason. Must not know what any step does.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sm_mlops.tabular.text import visible

MEMORY = "a larger instance in compute of mlops.yaml has more memory"
_BEGIN = "Traceback (most recent call last):"
_INSTALLED = re.compile(r"/python3[^/]*/|/(?:site|dist)-packages/")
_MODULE = re.compile(r"^(?:\w+\.)+(?=\w+(?::|$))")  # before the name of an exception
_FRAME = re.compile(r'\s*File "(.+)", line (\d+)')


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
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = any(_is_own(Path(frame.filename), folder) for frame in frames)
        # The team's code may not end a step as if it were done; --help and a signal end it rightly.
        if isinstance(error, SystemExit) and (error.code or not own):
            raise
        traceback.print_exc()
        text = "".join(traceback.format_exception(error, chain=False))
        if type(error.__cause__).__name__ == "_RemoteTraceback":  # of a worker process
            text = str(error.__cause__)
        report(said(text.splitlines(), folder))
        leave(1)
    leave(0)


def said(lines: Sequence[str], folder: Path | None = None) -> str:
    """Return the last words of a script in the lines of its log: its line `error: ...`, or the
    exception of its last traceback with file and line; empty if there are none.

    The place is the last one in the team's code, which is not what it called in a library or in the
    code of the job beside it. `folder` is that of the script, if it is known.
    """
    told = (n for n, line in enumerate(lines) if line.startswith("error: ") or _FRAME.match(line))
    number = max(told, default=-1)
    if number < 0 or lines[number].startswith("error: "):
        return lines[number].removeprefix("error: ") if number >= 0 else ""
    start = max((n for n, line in enumerate(lines[: number + 1]) if _BEGIN in line), default=0)
    frames = [found for line in lines[start : number + 1] if (found := _FRAME.match(line))]
    place = ([frame for frame in frames if _is_own(Path(frame[1]), folder)] or frames)[-1]
    file = Path(place[1])
    name = file.relative_to(folder) if folder and file.is_relative_to(folder) else _below_code(file)
    words = [text.strip() for text in lines[number:] if text and not text.startswith(" ")]
    error = _MODULE.sub("", words[0]) if words else "an exception"
    hint = f"; {MEMORY}" if "MemoryError" in error.partition(":")[0] else ""
    return f"{error} ({name}, line {place[2]}){hint}"


def _is_own(file: Path, folder: Path | None) -> bool:
    inside = file.is_relative_to(folder) if folder else not _INSTALLED.search(str(file))
    return inside and "sm_mlops" not in file.parts and file.name[:1] != "<"


def _below_code(file: Path) -> Path:
    """Return the path below the folder `code` of a job or a model, else the name."""
    parts = file.parts
    at = len(parts) - parts[::-1].index("code") if "code" in parts else len(parts) - 1
    return Path(*parts[at:])


def leave(code: int) -> NoReturn:
    """End the process without shutting down the interpreter.

    On a busy machine, Arrow's threads then abort about 1% of processes ("terminate called without
    an active exception"), which would fail a job that is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
