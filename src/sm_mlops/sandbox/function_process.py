"""One invocation of a Lambda function: the deployed zip and its layers in their own process.

Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sm_mlops.sandbox import archives, grants, native, processes
from sm_mlops.sandbox.wire import moment

# What AWS's runtimes for Python include; everything else has to come with the function.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Result:
    """The outcome of an invocation."""

    request: str
    failed: bool
    payload: str
    log: str
    duration: float


class Processes:
    """Runs functions below a folder, which keeps unpacked code.

    `url` is the sandbox's address; `rewrite` changes the values of a function's environment
    variables, for addresses that differ in the sandbox.
    """

    def __init__(self, folder: Path, url: Callable[[], str]) -> None:
        self.folder, self.url = folder, url
        self.rewrite: Callable[[str], str] = lambda value: value
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._unpacking = threading.Lock()
        self._foreign: dict[Path, dict[str, list[Path]]] = {}

    def run(self, function: Any, event: Any, request: str) -> Result:
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder))
        begun = time.monotonic()
        try:
            output, code, late = self._process(function, event, request, folder, begun)
            seconds = time.monotonic() - begun
            answer: Any = {}
            with contextlib.suppress(FileNotFoundError):
                answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        memory = int(answer.get("memory", 0))
        duration = answer.get("duration", seconds)
        problem = None
        if late:
            duration = float(function.timeout)
            said = f"Task timed out after {duration:.2f} seconds"
            problem = ("Sandbox.Timedout", said)
            output += f"{moment(time.time())} {request} {said}\n"
        elif memory > int(function.memory_size) * 1024 * 1024:
            problem = ("Runtime.OutOfMemory", "Runtime exited with error: signal: killed")
        elif not answer:
            how = f"signal: {code - 128}" if code > 128 else f"exit status {code}"
            problem = ("Runtime.ExitError", f"Runtime exited with error: {how}")
        if problem:
            payload = {
                "errorType": problem[0],
                "errorMessage": f"RequestId: {request} Error: {problem[1]}",
            }
            output += f"RequestId: {request} Error: {problem[1]}\n" if not late else ""
            text, failed = json.dumps(payload), True
        else:
            text, failed = answer["payload"], bool(answer["failed"])
        report = _report(function, request, duration, memory, answer.get("init"))
        whole = (
            f"START RequestId: {request} Version: {function.version}\n"
            f"{output}END RequestId: {request}\n{report}\n"
        )
        return Result(request, failed, text, whole, duration)

    def _process(
        self, function: Any, event: Any, request: str, folder: Path, begun: float
    ) -> tuple[str, int, bool]:
        """Return the output, the exit code and whether the function timed out."""
        task = self._unpacked(function.code_bytes)
        try:
            path, text = self._path(function, task, folder)
        except LookupError as error:
            return f"[sandbox] {error}\n", 1, False
        (folder / "tmp").mkdir()
        job = {
            "path": path,
            "guard": str(_HERE / "guard" / "sitecustomize.py"),
            "answer": str(folder / "answer.json"),
            "handler": function.handler,
            "event": event,
            "request": request,
            "name": function.function_name,
            "arn": function.function_arn,
            "timeout": function.timeout,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = self._environment(function, folder)
        script = str(_HERE / "function_runtime.py")
        # Isolated, without site-packages: the function has only what it brings.
        command = [sys.executable, "-I", "-S", script, str(folder / "job.json")]
        with (folder / "output").open("wb") as output:
            process = processes.start(command, output, task, environment)
        self.running[request] = process
        late = False
        try:
            # The function's timeout counts from the start of the process.
            process.wait(timeout=max(function.timeout - (time.monotonic() - begun), 0.1))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            self.running.pop(request, None)
            processes.end(process)
        text += (folder / "output").read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            text += "\n"
        return text, process.returncode, late

    def _path(self, function: Any, task: Path, folder: Path) -> tuple[list[str], str]:
        """Return the folders to import from, and a note for the log. Raises LookupError."""
        from moto.awslambda.models import lambda_backends

        backend = lambda_backends[function.account_id][function.region]
        layers = []
        for each in function.layers:
            found = backend.layers_versions_by_arn(each["Arn"])
            if found is None:
                raise LookupError(f"the layer {each['Arn']} is gone")
            layers.append(self._unpacked(found.code_bytes))
        python = function.run_time.removeprefix("python")
        # Layers that come later win.
        tops = [
            top / "python" / sub if sub else top / "python"
            for top in reversed(layers)
            for sub in (f"lib/python{python}/site-packages", "")
        ]
        replaced = [self._native(top, folder) for top in tops]
        path = [task, *(each for each, _ in replaced), *tops, self._runtime(folder)]
        shown = [str(each) for each in path if each is not None and each.is_dir()]
        return shown, "".join(line for _, line in replaced)

    def _environment(self, function: Any, folder: Path) -> dict[str, str]:
        environment = processes.isolated_environment(folder, folder / "tmp", function.region)
        for name in ("PYTHONPATH", "SAGEMAKER_BASE_DIR", "OMP_NUM_THREADS"):
            environment.pop(name, None)
        own = {name: self.rewrite(value) for name, value in function.environment_vars.items()}
        return {
            **environment,
            "TZ": ":UTC",
            **own,
            **grants.session(function.role, function.function_name, function.region),
            "AWS_ENDPOINT_URL": self.url(),
            "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
        }

    def _unpacked(self, content: bytes) -> Path:
        """Return the folder with the content of a zip."""
        target = self.folder / "code" / hashlib.sha256(content).hexdigest()[:24]
        with self._unpacking:
            if not target.is_dir():
                part = target.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                archives.unpack_zip(content, part)
                part.rename(target)
        return target

    def _runtime(self, folder: Path) -> Path:
        """Return a folder with links to the packages that AWS's runtime has."""
        found = folder / "runtime"
        found.mkdir()
        for name in RUNTIME_PACKAGES:
            spec = find_spec(name)
            assert spec is not None and spec.origin is not None, name
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (found / source.name).symlink_to(source)
        return found

    def _native(self, top: Path, folder: Path) -> tuple[Path | None, str]:
        """Return a folder with this machine's builds of a layer's compiled packages, and a note.

        A layer for arm64 or another Python has libraries that cannot be loaded here. Only these
        packages are replaced, as a whole, with those of this environment.
        """
        foreign = self._foreign.get(top)
        if foreign is None:
            foreign = self._foreign[top] = native.foreign(top) if top.is_dir() else {}
        if not foreign:
            return None, ""
        found = folder / f"native-{hashlib.sha256(str(top).encode()).hexdigest()[:8]}"
        found.mkdir()
        shown = []
        for name, sources in foreign.items():
            for source in sources:
                if not (found / source.name).exists():
                    (found / source.name).symlink_to(source)
            shown.append(name if sources else f"{name} (which is not installed here)")
        words = "compiled for another machine, taken from this environment instead"
        return found, f"[sandbox] {words}: {', '.join(shown)}\n"

    def end(self) -> None:
        for process in list(self.running.values()):
            processes.end(process)


def log_group(function: Any) -> str:
    config = getattr(function, "sandbox_LoggingConfig", {})
    return str(config.get("LogGroup") or f"/aws/lambda/{function.function_name}")


def log_stream(function: Any) -> str:
    # One stream per version of code and settings, as one warm environment would write.
    text = f"{function.function_arn} {function.last_modified}"
    token = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{token}"


def _report(function: Any, request: str, duration: float, memory: int, init: float | None) -> str:
    spent = duration * 1000
    used = -(-memory // (1024 * 1024))
    report = (
        f"REPORT RequestId: {request}\tDuration: {spent:.2f} ms\t"
        f"Billed Duration: {int(-(-spent // 1))} ms\tMemory Size: {function.memory_size} MB\t"
        f"Max Memory Used: {used} MB\t"
    )
    return report + (f"Init Duration: {init * 1000:.2f} ms\t" if init is not None else "")
