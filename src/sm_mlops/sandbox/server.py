"""The sandbox's server: one process that answers AWS's APIs on 127.0.0.1 and runs what they start.

SageMaker's pipelines, jobs and registry are answered here, most other requests by moto. Start it
with `sandbox.connect` or `sandbox.start`; tests use the class `Server` in their own process.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from werkzeug.serving import BaseWSGIServer, make_server

from sm_mlops.sandbox import calls, client, clock, grants, moto_app, runtime, visitors, wire
from sm_mlops.sandbox.clients import Clients
from sm_mlops.sandbox.cloudformation import Stacks, protocol
from sm_mlops.sandbox.endpoints import TIME, Endpoints
from sm_mlops.sandbox.github.service import PREFIX, GitHub, mounted
from sm_mlops.sandbox.hosting import Models
from sm_mlops.sandbox.iam.service import Iam
from sm_mlops.sandbox.integrations import Integrations
from sm_mlops.sandbox.jobs import Jobs
from sm_mlops.sandbox.logs import Logs
from sm_mlops.sandbox.metrics import Metrics
from sm_mlops.sandbox.moto_state import MotoState
from sm_mlops.sandbox.objects import Objects
from sm_mlops.sandbox.pipelines import Pipelines
from sm_mlops.sandbox.registry import Registry
from sm_mlops.sandbox.replies import Start, error_reply, json_reply, read, reply
from sm_mlops.sandbox.signatures import Signatures, Unverified
from sm_mlops.sandbox.storage import DamagedState, Files, Store
from sm_mlops.sandbox.tags import Tags
from sm_mlops.sandbox.transforms import FOLDER, Transforms
from sm_mlops.sandbox.wire import ApiError, Caller, Params

# What moto answers of SageMaker: Studio's domains, which a person makes.
BY_MOTO = ("CreateDomain", "DescribeDomain", "ListDomains", "DeleteDomain")
Operation = Callable[[Params, Caller], Params]
log = logging.getLogger(__name__)


class Server:
    """A sandbox in this process; a context manager. One at a time: moto's state is global.

    Raises SandboxError when another server has this state open or the state cannot be read.
    """

    def __init__(
        self, root: Path, region: str = "us-east-1", stop_grace: float = 30, pace: float = TIME
    ) -> None:
        self.root, self.region, self.stop_grace = Path(root).resolve(), region, stop_grace
        self.pace = pace
        self.folder = self.root / client.FOLDER
        self.ended = threading.Event()
        self.token = secrets.token_hex(16)
        self._leases = 0
        self._owned = False
        self._standing = True
        self._closing = False
        self._state_lock = threading.RLock()
        self.clients = Clients(lambda: self.url, self.token)
        self._http: BaseWSGIServer | None = None

    # Lifecycle.

    def start(self, port: int = 0) -> Server:
        """Load the state and start answering."""
        self._open()
        self._build()
        self.endpoints.recover()
        self.runtime.recover()
        self._moto_app = moto_app.Dispatcher()
        self._http = make_server(
            "127.0.0.1", port, self._answer, threaded=True, request_handler=moto_app.Handler
        )
        # close() waits for at most this interval.
        threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="http", daemon=True
        ).start()
        self.stacks.recover()
        self.integrations.recover()
        return self

    def _open(self) -> None:
        """Take the lock on the state and load it. Raises SandboxError."""
        client.own(self.folder)
        self._lock_file = (self.folder / client.SERVER_LOCK).open("a+")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise client.SandboxError(
                f"another sandbox server has {self.folder} open; end it with: mlops sandbox down"
            ) from error
        self._lock_file.truncate(0)
        self._lock_file.write(str(os.getpid()))
        self._lock_file.flush()
        moto_app.forget()
        key = client.account_key(self.folder)
        self.signatures = Signatures(key, self.token, self.region)
        try:
            self.store = Store(self.folder)
        except DamagedState as error:
            self._lock_file.close()
            raise client.SandboxError(str(error)) from error
        try:
            clock.load(self.store)
            files = Files(self.folder / "s3")
            self.objects = Objects(self.store, files)
            self.moto = MotoState(self.store)
        except Exception as error:
            # Pickles of another version of moto fail in many ways.
            self.store.close()
            self._lock_file.close()
            raise client.SandboxError(
                f"{self.folder} is damaged or from another version ({error}); "
                "clear it with: mlops sandbox reset"
            ) from error

    def _build(self) -> None:
        """Make the services and connect them."""
        self.iam = Iam(self.store, self.moto.keep)
        grants.on_session(self.moto.keep)
        self.jobs = Jobs(
            self.store, self.objects, self.folder / "jobs", lambda: self.url, self.stop_grace
        )
        self.registry = Registry(self.store)
        self.registry.recover()
        self.metrics = Metrics(self.pace)
        self.models = Models(self.store, self.objects, self.registry)
        self.endpoints = Endpoints(
            self.store, self.objects, self.metrics, self.folder / "endpoints"
        )
        self.endpoints.on_idle = self.end_if_idle
        self.endpoints.on_deleted = lambda: self.moto.keep("applicationautoscaling")
        self.runtime = runtime.Runtime(self.store, self.objects, self.endpoints, self.metrics)
        self.runtime.on_idle = self.end_if_idle
        self.transforms = Transforms(self.store, self.objects, self.folder / FOLDER)
        self.transforms.on_idle = self.end_if_idle
        self.pipelines = Pipelines(
            self.store, self.objects, self.jobs, self.transforms, self.clients.of_role
        )
        self.pipelines.on_end = self.end_if_idle
        self.stacks = Stacks(
            self.store, lambda service, region, key: self.client(region, service, key)
        )
        self.stacks.on_end = self.end_if_idle
        self.stacks.ledger.settle = self.moto.flush
        self.logs = Logs(self.store, self.jobs, self.folder / "endpoints")
        self.integrations = Integrations(self)
        self._operations = self._table()

    def warm(self) -> None:
        """Load what the first execution needs."""
        wire.service_model()
        self.client(self.region)

    @property
    def port(self) -> int:
        assert self._http is not None, "start() comes first"
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def github(self) -> GitHub:
        return self.integrations.github

    def environment(self) -> dict[str, str]:
        """Return the environment variables for clients, "" for those to remove."""
        return client.environment(self.folder, self.port, self.region)

    def client(self, region: str, service: str = "sagemaker", access_key: str = "") -> Any:
        """Return a client of this sandbox that tries every call once."""
        return self.clients.get(region, service, access_key)

    def close(self, why: str | None = None) -> None:
        """Stop what runs, save everything, stop answering. `why` becomes the executions'
        FailureReason."""
        with self._state_lock:
            if self._closing:
                return
            # First, so that no stack treats the answers of a closing server as failures.
            self.stacks.end()
            self.integrations.close()
            self._closing = True
        self.jobs.closing = True
        for execution in list(self.pipelines.running.values()):
            if why:
                execution.record["FailureReason"] = why
            execution.stop()
        self.stacks.close()
        self.jobs.close()
        self.transforms.close()
        self.endpoints.close()
        self.runtime.close()
        for execution in list(self.pipelines.running.values()):
            execution.ended.wait(timeout=5)
        self.moto.flush()
        self.store.close()
        (self.folder / client.RECORD).unlink(missing_ok=True)
        self._lock_file.close()
        self.ended.set()
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        self.objects.close()
        moto_app.forget()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Ownership: see sandbox/client.py for the other side.

    def belong_to_starter(self) -> None:
        """End when the process that started this one ends; see `left`."""
        self._standing, self._owned = False, True

    def left(self, goodbye: bool) -> None:
        """End at once if the starter was killed, that is, left without a goodbye."""
        if not goodbye:
            self.close("The sandbox was killed together with the process that had started it.")
            return
        self._owned = False
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """End if no client holds this server and nothing runs in it."""
        with self._state_lock:
            held = self._standing or self._owned or self._leases
            running = self.pipelines.running or self.jobs.running or self.stacks.running
            busy = (
                running or self.transforms.running or self.endpoints.busy() or self.runtime.busy()
            )
            busy = busy or self.integrations.busy()
            if held or busy or self._closing:
                return
        threading.Thread(target=self.close, name="end").start()

    # Requests.

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        stranger = visitors.refusal(environ)
        if stranger is not None:
            return error_reply(start, stranger)
        if self._closing:
            return error_reply(start, ApiError("ServiceUnavailable", "this sandbox is ending", 503))
        if path.startswith("/_sandbox/"):
            return self._control(path, environ, start)
        if path.startswith(PREFIX + "/"):
            if not environ.get("HTTP_AUTHORIZATION"):
                # GitHub shows public repositories to anybody; others on this machine see none.
                return reply(start, 401, {"WWW-Authenticate": 'Basic realm="GitHub"'})
            return mounted(self.github, environ, start)
        try:
            service, caller = self.signatures.sender(environ)
            self.iam.guard.check(service, environ, caller)
        except Unverified as error:
            return self.iam.error(error.service, environ, start, error.answer(environ))
        except ApiError as error:
            return self.iam.error(service, environ, start, error)
        return self.serve(service, caller, environ, start)

    def serve(
        self, service: str, caller: Caller, environ: dict[str, Any], start: Start
    ) -> Iterable[bytes]:
        """Answer a request that IAM has allowed."""
        target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if target == "SageMaker" and operation not in BY_MOTO:
            return self._sagemaker(operation, caller, environ, start)
        if service == protocol.SERVICE:
            body = read(environ)
            status, answer = protocol.answer(body, lambda name: self.stacks.operation(name, caller))
            return reply(start, status, {"Content-Type": "text/xml"}, answer)
        if _invokes(service, environ):
            return self._invoke(caller, environ, start)
        by_moto = functools.partial(self._by_moto, service, caller, environ, start)
        answered = self.integrations.answer(environ, start, service, caller, by_moto)
        if answered is None:
            answered = self.iam.answer(service, environ, caller, start, by_moto)
        return by_moto() if answered is None else answered

    def _invoke(self, caller: Caller, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        try:
            return self.runtime.answer(environ, start, caller)
        except ApiError as error:
            return runtime.error_answer(error, start)
        except Exception as error:
            return runtime.error_answer(_defect(error, environ["PATH_INFO"]), start)

    def _by_moto(
        self, signed: str, caller: Caller, environ: dict[str, Any], start: Start
    ) -> Iterable[bytes]:
        application = self._moto_app.get_application(environ)
        service: str = cast(Any, application).service
        try:
            with self._moto_app.turn(service, environ):
                if service == "logs":
                    self.logs.update()
                    self.logs.name_streams(environ, caller)
                if service == "cloudwatch":
                    self.metrics.publish()
                answer: Iterable[bytes] = application(environ, start)
        except NotImplementedError as error:
            refusal = wire.not_implemented(f"this request to {service}: {error}")
            return error_reply(start, refusal, calls.xml(signed, environ))
        self.moto.after_request(service, environ, self.objects)
        return answer

    def _sagemaker(
        self, operation: str, caller: Caller, environ: dict[str, Any], start: Start
    ) -> Iterable[bytes]:
        body = read(environ)
        try:
            if operation not in self._operations:
                raise wire.not_implemented(f"sagemaker:{operation}")
            params = _parsed(body)
            if operation in TAG_OPERATIONS and str(params.get("ResourceArn")).count(":domain/"):
                return self._by_moto("sagemaker", caller, environ, start)
            wire.check(operation, params)
            return json_reply(start, self._operations[operation](params, caller))
        except ApiError as error:
            return error_reply(start, error)
        except Exception as error:
            return error_reply(start, _defect(error, operation))

    def _table(self) -> dict[str, Operation]:
        """Return the operations of SageMaker, by name."""
        hosting = (self.models, self.endpoints, self.transforms)
        projects = self.integrations.projects
        owners = (self.jobs, self.registry, self.pipelines, *hosting, projects, Tags(self.store))
        return {
            name: getattr(owner, wire.snake_case(name))
            for owner in owners
            for name in wire.service_operations()
            if hasattr(owner, wire.snake_case(name))
        }

    # The sandbox's own requests.

    def _control(self, path: str, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if not client.same(environ.get("HTTP_X_SANDBOX_TOKEN", ""), self.token):
            return error_reply(start, ApiError("AccessDenied", "not this sandbox's token", 403))
        action = path.removeprefix("/_sandbox/")
        if action == "status":
            return json_reply(start, self._status())
        if action == "lease":
            return self._lease(environ["werkzeug.socket"], start)
        if action == "stop":
            threading.Thread(target=self.close, name="stop").start()
            return json_reply(start, {})
        if action == "control":
            try:
                return json_reply(start, {"answer": self.integrations.control(read(environ))})
            except ApiError as error:
                return error_reply(start, error)
        return error_reply(start, ApiError("NotFound", path, 404))

    def _status(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "pid": os.getpid(),
            "region": self.region,
            "standing": self._standing,
        }

    def _lease(self, connection: socket.socket, start: Start) -> Iterable[bytes]:
        """Stay alive for a client as long as its connection is open."""
        with self._state_lock:
            if self._closing:
                return error_reply(start, ApiError("ServiceUnavailable", "ending", 503))
            self._leases += 1
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.settimeout(None)
            while connection.recv(64):
                pass
        except OSError:
            pass  # The client was killed, which ends its lease too.
        finally:
            with self._state_lock:
                self._leases -= 1
            self.end_if_idle()
        start("200 OK", [("Content-Length", "0"), ("Connection", "close")])
        return []


TAG_OPERATIONS = ("AddTags", "ListTags", "DeleteTags")


def _invokes(service: str, environ: dict[str, Any]) -> bool:
    # A bucket may be named "endpoints"; no other service has such a path.
    return service != "s3" and bool(runtime.PATH.match(environ.get("PATH_INFO", "")))


def _parsed(body: bytes) -> Params:
    try:
        return cast(Params, json.loads(body or b"{}"))
    except ValueError as error:
        raise ApiError("SerializationException", f"The body is no JSON: {error}") from error


def _defect(error: Exception, where: str) -> ApiError:
    """Log a defect of the sandbox and return the error for its client."""
    log.exception("%s", where)
    words = f"Internal error of the sandbox, see server.log: {error!r}"
    return ApiError("InternalFailure", words, 500)
