"""Faults on demand: calls to a sandbox of this process fail as if AWS or GitHub had failed.

Wraps the methods with which a server and its GitHub answer. A call meets a fault after IAM has let
it in.
"""

from __future__ import annotations

import fnmatch
import json
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.sandbox import Server, calls, runtime
from sm_mlops.sandbox.github.answers import Refused
from sm_mlops.sandbox.github.routing import API
from sm_mlops.sandbox.github.service import GitHub
from sm_mlops.sandbox.iam import requests
from sm_mlops.sandbox.job_folder import JobFailed, Running
from sm_mlops.sandbox.jobs import PROCESSING, TRAINING
from sm_mlops.sandbox.replies import Start, error_reply
from sm_mlops.sandbox.wire import ApiError, Caller


@dataclass(eq=False)
class Fault:
    """An error in place of an answer: `after` requests that match pass, the next `times` fail.

    Status 0 drops the connection. With `acts` the request is carried out and only its answer is
    lost.
    """

    where: str
    status: int
    message: str = "injected"
    times: int = 1
    after: int = 0
    acts: bool = False
    code: str = ""
    agent: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Faults(list[Fault]):
    """The faults that wait for a request; safe for threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take(self, matches: Callable[[Fault], bool]) -> Fault | None:
        """Return the fault that a request meets, None if the request passes."""
        with self._lock:
            for fault in self:
                if not matches(fault):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self.remove(fault)
                return fault
        return None


def pending(target: Server | GitHub) -> Faults:
    """Return the faults that wait for a call to a server or a GitHub."""
    found: Faults | None = vars(target).get("_test_faults")
    if found is None:
        found = vars(target)["_test_faults"] = Faults()
        if isinstance(target, Server):
            _wrap_server(target, found)
        else:
            _wrap_github(target, found)
    return found


def inject(
    server: Server,
    where: str,
    code: str = "InternalFailure",
    message: str = "injected",
    status: int = 400,
    times: int = 1,
    after: int = 0,
    acts: bool = False,
    agent: str = "",
) -> None:
    """Make calls of an operation, or jobs of a kind, fail.

    `where` is an operation such as "CreateTrainingJob", or "*"; or "ProcessingJob" or "TrainingJob"
    for the job itself: its FailureReason becomes "<code>: <message>". With `agent`, only calls of
    clients with this in their user agent fail: "sm-mlops" is that of the commands, which the
    sandbox's own services do not have.
    """
    pending(server).append(Fault(where, status, message, times, after, acts, code, agent))


def inject_github(
    github: GitHub,
    where: str,
    status: int = 500,
    message: str = "injected",
    headers: dict[str, str] | None = None,
    times: int = 1,
    after: int = 0,
    acts: bool = False,
) -> None:
    """Make requests to GitHub fail.

    `where` is "<METHOD> <path>" with wildcards, without /api/v3.
    """
    pending(github).append(Fault(where, status, message, times, after, acts, headers=headers or {}))


def operation(service: str, environ: dict[str, Any]) -> str:
    """Return the operation that a request asks for, "" when it is unknown."""
    if service != "s3":
        return requests.read(service, environ)[0]
    found = calls.operation(service, environ)
    # The two differ by a header only.
    copies = "HTTP_X_AMZ_COPY_SOURCE" in environ
    return "PutObject" if found == "CopyObject" and not copies else found


def _wrap_server(server: Server, faults: Faults) -> None:
    serve = server.serve

    def serve_or_fail(
        service: str, caller: Caller, environ: dict[str, Any], start: Start
    ) -> Iterable[bytes]:
        agent = environ.get("HTTP_USER_AGENT", "")
        name = operation(service, environ) if faults else ""
        fault = faults.take(
            lambda each: each.where in (name, "*") and each.agent in agent,
        )
        if fault is None:
            return serve(service, caller, environ, start)
        if fault.acts:
            for _ in serve(service, caller, environ, lambda *_: None):
                pass
        if not fault.status:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        error = ApiError(fault.code, fault.message, fault.status or 500)
        if name.startswith("InvokeEndpoint"):
            return runtime.error_answer(error, start)
        content = error_reply(start, error, calls.xml(service, environ))
        # A client does not read the body of such an answer, and would take it for the next one.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else content

    server.serve = serve_or_fail  # type: ignore[method-assign]
    for kind in (PROCESSING, TRAINING):
        _wrap_jobs(server, kind, faults)


def _wrap_jobs(server: Server, kind: str, faults: Faults) -> None:
    run = server.jobs.work[kind]

    def run_or_fail(job: Running) -> tuple[str, str | None]:
        fault = faults.take(lambda each: each.where == kind)
        if fault is not None:
            raise JobFailed(f"{fault.code}: {fault.message}")
        return run(job)

    server.jobs.work[kind] = run_or_fail


def _wrap_github(github: GitHub, faults: Faults) -> None:
    answer = github.answer

    def answer_or_fail(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        label = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO'].removeprefix(API)}"
        fault = faults.take(lambda each: fnmatch.fnmatchcase(label, each.where))
        if fault is None:
            return answer(environ, start)
        if fault.acts:
            answer(environ, lambda *_: None)
            github.requests.pop()
        github.requests.append((label, fault.status))
        body = json.dumps(Refused(fault.status, fault.message).body()).encode()
        if not fault.status:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        headers = {"Content-Type": "application/json; charset=utf-8", **fault.headers}
        length = ("Content-Length", str(len(body)))
        start(f"{fault.status or 500} Injected", [*headers.items(), length])
        return [body]

    github.answer = answer_or_fail  # type: ignore[method-assign]
