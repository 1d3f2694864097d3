"""The process that serves one production variant, from unpacking to its end.

Knows processes and HTTP on 127.0.0.1; nothing of endpoints, their states or AWS's API.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sm_mlops.sandbox import archives, images, processes
from sm_mlops.sandbox.model_server import TOKEN, TOKEN_HEADER

LOG_GROUP = "/aws/sagemaker/Endpoints/"
STARTUP_SECONDS = 240.0
BACKLOG = 256
LARGEST_LOG = 16 * 1024 * 1024
_HERE = Path(__file__).resolve().parent
_OPT_ML = "/opt/ml"


class ServingFailed(Exception):
    """The container does not serve; `problem` names the point of failure."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class NoAnswer(Exception):
    """A request got no answer: the process ended or, if `late`, the request timed out."""

    def __init__(self, late: bool) -> None:
        super().__init__("timed out" if late else "the process ended")
        self.late = late


@dataclass(frozen=True)
class Answer:
    """What the container answered, and how long it took in seconds."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float


@dataclass
class Process:
    """A started process and its free connections. It answers those who send its token."""

    popen: subprocess.Popen[bytes]
    port: int
    token: str
    free: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        try:
            found = self.free.pop()
            cast(Any, found.sock).settimeout(timeout)
        except IndexError:
            found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
            found.connect()
            cast(Any, found.sock).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    def end(self) -> None:
        """Kill it and close the connections."""
        processes.end(self.popen)
        while self.free:
            self.free.pop().close()


class Container:
    """One model in its own process, which starts when first needed.

    `folder` is this container's own; in it `ml` stands for /opt/ml. `archive` returns the path of
    the model.tar.gz, which is unpacked once, or None. Safe for threads.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        image: str,
        archive: Callable[[], Path | None],
        environment: Mapping[str, str],
        region: str,
        startup: float = STARTUP_SECONDS,
    ) -> None:
        self.folder, self.log, self.archive, self.region = folder, log, archive, region
        self.image = images.find(image)
        self.environment, self.startup = environment, startup
        self.ended = False
        self._process: Process | None = None
        self._starting: Process | None = None
        self._lock = threading.Lock()
        self._active = 0

    def start(self) -> Process:
        """Return the running process, started and healthy. Raises ServingFailed."""
        process = self._process
        if process is not None and process.alive:
            return process
        with self._lock:
            process = self._process
            if process is not None and process.alive:
                return process
            if self.ended:
                raise ServingFailed("ended")
            if process is not None:
                process.end()
                self._note("the process had ended; starting it again")
            self._unpack()
            started = self._spawn()
            try:
                self._ping(started)
            except BaseException:
                started.end()
                raise
            self._process = started
            if self.ended:
                started.end()
                raise ServingFailed("ended")
            return started

    def ask(self, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Send a body to /invocations. Raises NoAnswer, or ServingFailed if it cannot start.

        A process found dead is started again; a request that kills it is sent a second time.
        """
        with self._lock:
            self._active += 1
        try:
            for last in (False, True):
                process = self.start()
                try:
                    return _exchange(process, body, headers, timeout)
                except TimeoutError as error:
                    raise NoAnswer(late=True) from error
                except (OSError, http.client.HTTPException) as error:
                    # It may take a moment to see that a process was killed.
                    if last or not _ends(process):
                        raise NoAnswer(late=False) from error
            raise AssertionError("unreachable")
        finally:
            with self._lock:
                self._active -= 1
            self._bound_log()

    def drain(self, seconds: float) -> None:
        """Wait until no request is being answered, at most this long."""
        end = time.monotonic() + seconds
        while self._active and time.monotonic() < end:
            time.sleep(0.01)

    def end(self) -> None:
        """End the process for good and delete what was unpacked; the log stays."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """End the process for good, and keep what was unpacked."""
        self.ended = True
        process = self._starting or self._process
        if process is not None:
            process.end()
        with self._lock:
            if self._process is not None:
                self._process.end()

    def _unpack(self) -> None:
        base = self.folder / "ml"
        if (base / "model").is_dir():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "tmp").mkdir(parents=True)
        images.overlay(self.image, self.folder / "environment")
        part = base / "unpacking"
        part.mkdir(parents=True)
        archive = self.archive()
        if archive is not None:
            try:
                archives.unpack_tar(archive, part)
            except (tarfile.TarError, EOFError, OSError) as error:
                self._note(f"cannot unpack the model data: {error}")
                raise ServingFailed("extract") from error
        # Only a complete folder gets this name.
        part.rename(base / "model")

    def _spawn(self) -> Process:
        base = self.folder / "ml"
        tools, read_only = self.folder / "environment" / "bin", [self.image, base / "model"]
        environment = processes.isolated_environment(
            base, self.folder / "tmp", self.region, tools, read_only
        )
        # The image's own default.
        environment["OMP_NUM_THREADS"] = "1"
        for name, value in self.environment.items():
            environment[name] = (
                f"{base}{value.removeprefix(_OPT_ML)}"
                if value == _OPT_ML or value.startswith(f"{_OPT_ML}/")
                else value
            )
        # Unlike the others, this one is not the container's to choose.
        environment["SAGEMAKER_BASE_DIR"] = str(base)
        environment[TOKEN] = token = secrets.token_hex()
        listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        with listening, self.log.open("ab") as log:
            command = ["python", str(_HERE / "model_server.py"), str(listening.fileno())]
            popen = processes.start(command, log, base, environment, [listening.fileno()])
            return Process(popen, listening.getsockname()[1], token)

    def _ping(self, process: Process) -> None:
        """Wait until the process answers, which it does once the model is loaded."""
        self._starting = process
        if self.ended:
            process.end()
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=self.startup)
        try:
            connection.request("GET", "/ping", headers={TOKEN_HEADER: process.token})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            late = isinstance(error, TimeoutError)
            self._note(
                f"no answer to /ping within {self.startup:.0f} s"
                if late
                else "the process ended before it answered /ping"
            )
            raise ServingFailed("ping") from error
        finally:
            connection.close()
            self._starting = None
        if answer.status != 200:
            raise ServingFailed("ping")

    def _bound_log(self) -> None:
        # Its writers append, so their next line is the first of the file.
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LARGEST_LOG:
                os.truncate(self.log, 0)
                self._note("the log was too long; it starts again here")

    def _note(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"[sandbox] {text}\n")


def _exchange(process: Process, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
    connection = process.connection(timeout)
    try:
        begun = time.perf_counter()
        connection.putrequest("POST", "/invocations", skip_accept_encoding=True)
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader(TOKEN_HEADER, process.token)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body)
        response = connection.getresponse()
        answer = Answer(
            response.status, response.headers, response.read(), time.perf_counter() - begun
        )
    except BaseException:
        connection.close()
        raise
    process.free.append(connection)
    return answer


def _ends(process: Process) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.popen.wait(timeout=2)
    return not process.alive
