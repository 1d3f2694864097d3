"""Runs one invocation of a Lambda function, in its own process. Standard library only.

Started by functions.py with the path of a JSON file that says what to run; writes its answer to
another. Errors have the types and words of AWS's runtime for Python.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


class Context:
    """What a handler gets as its second argument."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.aws_request_id = job["request"]
        self.function_name = job["name"]
        self.invoked_function_arn = job["arn"]
        self._deadline = time.monotonic() + job["timeout"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the function's timeout."""
        return max(int((self._deadline - time.monotonic()) * 1000), 0)


class Stop(Exception):
    """The function cannot be run: a type and a message of the runtime's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def load(name: str) -> Callable[[Any, Context], Any]:
    """Return the handler function. Raises Stop."""
    module_name, _, function = name.rpartition(".")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Stop(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    found: Callable[[Any, Context], Any] = getattr(module, function)
    return found


def marshal(answer: object) -> str:
    """Return an answer as JSON text. Raises Stop."""
    try:
        return json.dumps(answer)
    except (TypeError, ValueError) as error:
        raise Stop("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def failure(error: Exception, request: str) -> str:
    """Return what the caller sees of an exception, and write it to the log as the runtime does."""
    if isinstance(error, Stop):
        kind, message, trace = error.kind, error.message, []
    else:
        kind, message = type(error).__name__, str(error)
        # Without the frame of this file.
        frames = traceback.extract_tb(error.__traceback__)
        trace = traceback.format_list([f for f in frames if f.filename != __file__])
    shown = "".join(["Traceback (most recent call last):\n", *trace]) if trace else ""
    print(f"[ERROR] {kind}: {message}\n{shown}".rstrip(), flush=True)
    return json.dumps(
        {"errorMessage": message, "errorType": kind, "requestId": request, "stackTrace": trace}
    )


def peak() -> int:
    """Return the most memory that this process has used so far, in bytes."""
    try:
        # Not ru_maxrss: before Linux 6.2 that may be the parent's.
        with open("/proc/self/status") as file:  # noqa: PTH123
            found = next(line for line in file if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024


def main(path: str) -> None:
    """Run the invocation that a file describes."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        job = json.load(file)
    # The script's own folder would let a function import the sandbox.
    sys.path[:] = [*job["path"], *(p for p in sys.path if p != os.path.dirname(__file__))]  # noqa: PTH120
    with open(job["guard"], encoding="utf-8") as file:  # noqa: PTH123
        code = compile(file.read(), job["guard"], "exec")
        exec(code, {"__name__": "guard"})  # nosec B102 # the sandbox's own file
    handler = logging.StreamHandler(sys.stdout)
    form = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t" + job["request"] + "\t%(message)s",
        "%Y-%m-%dT%H:%M:%S",
    )
    form.converter = time.gmtime
    handler.setFormatter(form)
    logging.getLogger().addHandler(handler)
    failed, begun = True, time.perf_counter()
    started = begun
    try:
        function = load(job["handler"])
        started = time.perf_counter()
        payload = marshal(function(job["event"], Context(job)))
        failed = False
    except Exception as error:
        payload = failure(error, job["request"])
    ended = time.perf_counter()
    answer = {
        "failed": failed,
        "payload": payload,
        "init": started - begun,
        "duration": ended - started,
        "memory": peak(),
    }
    sys.stdout.flush()
    with open(job["answer"] + ".part", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(answer, file)
    os.replace(job["answer"] + ".part", job["answer"])  # noqa: PTH105


if __name__ == "__main__":
    main(sys.argv[1])
