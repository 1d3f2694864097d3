"""The sandbox's server: one process that answers AWS's APIs on 127.0.0.1 and runs what they start.

SageMaker's pipelines, jobs and registry are answered here, every other request by moto. Start it
with `sandbox.connect` or `sandbox.start`; tests use the class `Server` in their own process.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import gc
import io
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from botocore.config import Config
from botocore.session import get_session
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from sm_mlops.sandbox import calls, client, grants, runtime, wire
from sm_mlops.sandbox.cloudformation import Stacks, protocol
from sm_mlops.sandbox.endpoints import CONFIG, ENDPOINT, MODEL, TIME, Endpoints
from sm_mlops.sandbox.github.service import PREFIX, GitHub
from sm_mlops.sandbox.iam.service import Iam
from sm_mlops.sandbox.integrations import TAGGED, Integrations
from sm_mlops.sandbox.jobs import PROCESSING, TRAINING, Jobs
from sm_mlops.sandbox.logs import Logs
from sm_mlops.sandbox.metrics import Metrics
from sm_mlops.sandbox.moto_state import MotoState
from sm_mlops.sandbox.objects import Objects
from sm_mlops.sandbox.pipelines import PIPELINE, Pipelines
from sm_mlops.sandbox.registry import GROUP, PACKAGE, Registry
from sm_mlops.sandbox.replies import error_reply
from sm_mlops.sandbox.storage import DamagedState, Files, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, missing

ACCOUNT = "123456789012"
LARGE_BODY = 1024 * 1024
MOST_TAGS = 50
Operation = Callable[[Params, Caller], Params]
StartResponse = Callable[..., Any]
log = logging.getLogger(__name__)


def _forget() -> None:
    """Empty moto, whose models also stand in lists of their classes: some 30 MB each time."""
    BackendDict.reset()
    reset_model_data()


class _Dispatcher(DomainDispatcherApplication):
    """moto's, which would look through the files of its package with every request: 0.5 ms."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


class _Handler(MotoRequestHandler):
    """moto's request handler, silent and without Nagle's delay of 40 ms between header and body."""

    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        super().run_wsgi()
        # An idle connection would hold on to its last request, with a body of maybe 200 MB; and
        # moto's request objects are cycles, which Python would look for much later.
        self.environ = {}
        length = self.headers.get("Content-Length") or "0"
        if length.isdecimal() and int(length) > LARGE_BODY:
            gc.collect()

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            log.error(message, *args)


@dataclass
class Fault:
    """An error that the next calls or jobs meet; see Server.inject."""

    where: str
    code: str
    message: str
    status: int
    times: int
    after: int
    acts: bool
    agent: str


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
        self._faults: list[Fault] = []
        self._leases = 0
        self._owned = False
        self._standing = True
        self._closing = False
        self._state_lock = threading.RLock()
        self._client_lock = threading.Lock()
        self._make_client = functools.cache(self._new_client)
        self._http: BaseWSGIServer | None = None

    # Life.

    def start(self, port: int = 0) -> Server:
        """Load the state and start answering."""
        self.folder.mkdir(parents=True, exist_ok=True)
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
        _forget()
        try:
            self.store = Store(self.folder)
        except DamagedState as error:
            self._lock_file.close()
            raise client.SandboxError(str(error)) from error
        try:
            files = Files(self.folder / "s3")
            self.objects = Objects(self.store, files)
            self.moto = MotoState(self.store)
        except Exception as error:
            # Pickles of another version of moto fail in many ways; all mean the same to the user.
            self.store.close()
            self._lock_file.close()
            raise client.SandboxError(
                f"{self.folder} is damaged or from another version ({error}); "
                "clear it with: mlops sandbox reset"
            ) from error
        self.iam = Iam(self.store, self.moto.keep)
        grants.on_session(self.moto.keep)
        self.jobs = Jobs(self.store, self.objects, self.folder / "jobs", self.stop_grace)
        self.jobs.fault = self._job_fault
        self.registry = Registry(self.store)
        self.registry.recover()
        self.metrics = Metrics(self.pace)
        self.metrics.on_change = lambda: self.moto.keep("cloudwatch", "sns", "sqs")
        self.endpoints = Endpoints(
            self.store, self.objects, self.registry, self.metrics, self.folder / "endpoints"
        )
        self.endpoints.on_idle = self.end_if_idle
        self.endpoints.on_deleted = lambda: self.moto.keep("applicationautoscaling")
        self.runtime = runtime.Runtime(self.store, self.objects, self.endpoints, self.metrics)
        self.runtime.on_idle = self.end_if_idle
        self.pipelines = Pipelines(self.store, self.objects, self.jobs, self._as_role)
        self.pipelines.on_end = self.end_if_idle
        self.stacks = Stacks(
            self.store, lambda service, region, key: self.client(region, service, key)
        )
        self.stacks.on_end = self.end_if_idle
        self.stacks.ledger.settle = self.moto.flush
        self.logs = Logs(self.store, self.jobs, self.folder / "endpoints")
        self.integrations = Integrations(self)
        self._operations = self._table()
        self.endpoints.recover()
        self.runtime.recover()
        self._moto_app = _Dispatcher()
        self._http = make_server(
            "127.0.0.1", port, self._answer, threaded=True, request_handler=_Handler
        )
        # The interval is how long close() may wait; ten looks a second cost nothing measurable.
        threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="http", daemon=True
        ).start()
        # What the first execution will need, while nobody waits for it.
        threading.Thread(target=self._warm, name="warm up", daemon=True).start()
        self.stacks.recover()
        self.integrations.recover()
        return self

    def _warm(self) -> None:
        wire.service_model()
        self.client(self.region)
        # What is loaded now stays: looking through it again for garbage would cost 20 ms a time.
        gc.collect()
        gc.freeze()

    @property
    def port(self) -> int:
        """Return the port."""
        assert self._http is not None, "start() comes first"
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Return the endpoint URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def github(self) -> GitHub:
        """Return the GitHub of this sandbox."""
        return self.integrations.github

    def environment(self) -> dict[str, str]:
        """Return the environment variables for clients, "" for those to remove."""
        return client.environment(self.folder, self.port, self.region)

    def client(
        self, region: str, service: str = "sagemaker", access_key: str = client.ACCESS_KEY
    ) -> Any:
        """Return a client of this sandbox that tries every call once."""
        with self._client_lock:  # Clients may be shared between threads, making them may not.
            return self._make_client(region, service, access_key)

    def _as_role(self, region: str, role: str) -> Any:
        """Return a client of SageMaker with the rights of a role."""
        key = grants.session(role, "SageMaker", region)["AWS_ACCESS_KEY_ID"]
        return self.client(region, access_key=key)

    def _new_client(self, region: str, service: str, access_key: str) -> Any:
        return self._core.create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=access_key or client.ACCESS_KEY,
            aws_secret_access_key="sandbox",
            config=Config(retries={"total_max_attempts": 1}, proxies={}, max_pool_connections=64),
        )

    def core(self) -> Any:
        """Return the botocore session that makes this server's clients."""
        return self._core

    @functools.cached_property
    def _core(self) -> Any:
        # One session reads each service's model once.
        core = get_session()
        core.set_config_variable("profile", None)
        return core

    def close(self, why: str | None = None) -> None:
        """Stop what runs, write everything down, stop answering. `why` becomes the executions'
        reason."""
        with self._state_lock:
            if self._closing:
                return
            # First, so that no stack takes the answers of a closing server for failures.
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
        gc.unfreeze()
        _forget()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # Whose server it is: see sandbox/client.py for the other side.

    def belong_to_starter(self) -> None:
        """End when the process that started this one ends; see `left`."""
        self._standing, self._owned = False, True

    def left(self, goodbye: bool) -> None:
        """The starter has left: without a goodbye it was killed, and everything ends at once."""
        if not goodbye:
            self.close("The sandbox was killed: the process that had started it was.")
            return
        self._owned = False
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """End when nobody holds this server and nothing runs in it any more."""
        with self._state_lock:
            held = self._standing or self._owned or self._leases
            running = self.pipelines.running or self.jobs.running or self.stacks.running
            busy = running or self.endpoints.busy() or self.runtime.busy()
            busy = busy or self.integrations.busy()
            if held or busy or self._closing:
                return
        threading.Thread(target=self.close, name="end").start()

    # Requests.

    def _answer(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if self._closing:
            return _json_error(ApiError("ServiceUnavailable", "this sandbox is ending", 503), start)
        if path.startswith("/_sandbox/"):
            return self._control(path, environ, start)
        if path.startswith(PREFIX + "/"):
            return self.integrations.web(environ, start)
        if not (environ.get("CONTENT_LENGTH") or "0").isdecimal():
            return _json_error(ApiError("SerializationException", "Content-Length", 400), start)
        signed_for, caller = _signed_for(environ), _caller(environ, self.region)
        refused = self.iam.refuse(signed_for, environ, caller, start)
        if refused is not None:
            return refused
        if self._faults:
            operation = _operation(signed_for, environ)
            fault = self._take_fault(operation, environ.get("HTTP_USER_AGENT", ""))
            if fault is not None:
                return self._fail(fault, signed_for, caller, environ, start)
        return self._serve(signed_for, caller, environ, start)

    def _serve(
        self, signed_for: str, caller: Caller, environ: dict[str, Any], start: StartResponse
    ) -> Iterable[bytes]:
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if service == "SageMaker":
            handled = self._sagemaker(operation, environ, start)
            if handled is not None:
                return handled
        if signed_for == protocol.SERVICE:
            return self._cloudformation(environ, start)
        if _invokes(signed_for, environ):
            return self._invoke(environ, start)
        by_moto = functools.partial(self._by_moto, environ, start)
        answer = self.integrations.answer(environ, start, signed_for, caller, by_moto)
        if answer is None:
            answer = self.iam.answer(signed_for, environ, caller, start, by_moto)
        return by_moto() if answer is None else answer

    def _invoke(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        try:
            return self.runtime.answer(environ, start, _caller(environ, self.region))
        except ApiError as error:
            return runtime.error_answer(error, start)
        except Exception as error:
            return runtime.error_answer(_defect(error, environ["PATH_INFO"]), start)

    def _cloudformation(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        caller = _caller(environ, self.region)

        status, answer = protocol.answer(body, lambda name: self.stacks.operation(name, caller))
        reason = "OK" if status < 400 else "Bad Request"
        headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))]
        start(f"{status} {reason}", headers)
        return [answer]

    def _by_moto(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        application = self._moto_app.get_application(environ)
        service: str = cast(Any, application).service
        if service == "logs":
            self.logs.update()
            self.logs.name_streams(environ, _caller(environ, self.region))
        if service == "cloudwatch":
            self.metrics.publish()
        answer: Iterable[bytes] = application(environ, start)
        self.moto.after_request(service, environ, self.objects)
        return answer

    def _sagemaker(
        self, operation: str, environ: dict[str, Any], start: StartResponse
    ) -> Iterable[bytes] | None:
        """Answer a SageMaker request, or return None when it is moto's."""
        handler = self._operations.get(operation)
        if handler is None:
            return None
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            params = _parsed(body)
            if operation in _TAG_OPERATIONS and self._tagged(params) is None:
                return self._pass_on(body, environ, start)
            wire.check(operation, params)
            answer = handler(params, _caller(environ, self.region))
        except ApiError as error:
            return _json_error(error, start)
        except Exception as error:
            return _json_error(_defect(error, operation), start)
        return _json_answer(answer, start)

    def _pass_on(
        self, body: bytes, environ: dict[str, Any], start: StartResponse
    ) -> Iterable[bytes]:
        environ["wsgi.input"] = io.BytesIO(body)
        return self._by_moto(environ, start)

    def _table(self) -> dict[str, Operation]:
        """Return the operations answered here, by name."""
        table: dict[str, Operation] = {
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }
        owners = (self.jobs, self.registry, self.pipelines, self.endpoints)
        for owner in (*owners, *self.integrations.owners()):
            for name in wire.service_operations():
                method = getattr(owner, wire.snake_case(name), None)
                if method is not None:
                    table[name] = method
        return table

    # Tags of what is answered here.

    def _tagged(self, params: Params) -> tuple[str, str, Params] | None:
        arn = str(params.get("ResourceArn", ""))
        kind = _TAGGED.get(arn.rpartition(":")[2].partition("/")[0])
        if kind is None:
            return None
        record = self.store.get(kind, arn)
        if record is None:
            raise missing(f"{arn} does not exist")
        return kind, arn, record

    def _add_tags(self, params: Params, caller: Caller) -> Params:
        kind, arn, record = cast(tuple[str, str, Params], self._tagged(params))
        tags = {tag["Key"]: tag for tag in (*record["_tags"], *params["Tags"])}
        if len(tags) > MOST_TAGS:
            raise wire.invalid(f"The number of tags of {arn} exceeds the limit of {MOST_TAGS}")
        record["_tags"] = list(tags.values())
        self.store.put(kind, arn, record)
        return {"Tags": record["_tags"]}

    def _list_tags(self, params: Params, caller: Caller) -> Params:
        _, _, record = cast(tuple[str, str, Params], self._tagged(params))
        rows, token = wire.page(record["_tags"], params, default=50)
        return {"Tags": rows, **token}

    def _delete_tags(self, params: Params, caller: Caller) -> Params:
        kind, arn, record = cast(tuple[str, str, Params], self._tagged(params))
        gone = set(params["TagKeys"])
        record["_tags"] = [tag for tag in record["_tags"] if tag["Key"] not in gone]
        self.store.put(kind, arn, record)
        return {}

    # Faults, for tests of what retries them.

    def inject(
        self,
        where: str,
        code: str = "InternalFailure",
        message: str = "injected",
        status: int = 400,
        times: int = 1,
        after: int = 0,
        acts: bool = False,
        agent: str = "",
    ) -> None:
        """Make calls of an operation, or jobs of a kind, fail: the first `after` that fit pass, the
        next `times` fail.

        `where` is an operation such as "CreateTrainingJob", or "*"; or "ProcessingJob" or
        "TrainingJob" for the job itself: its FailureReason becomes "<code>: <message>". Status 0
        drops the connection. `acts`: the call is carried out, and only its answer is lost. With
        `agent`, only of clients that have this in their user agent: "sm-mlops" is that of the
        commands, which services of the sandbox do not have.
        """
        self._faults.append(Fault(where, code, message, status, times, after, acts, agent))

    def faulty(self) -> bool:
        """Tell whether a fault waits for a call."""
        return bool(self._faults)

    def _take_fault(self, where: str, agent: str | None = None) -> Fault | None:
        """Return the fault that meets a call of a client with this user agent, or a job."""
        with self._state_lock:
            for fault in self._faults:
                fits = fault.where == where or (fault.where == "*" and agent is not None)
                if fits and fault.agent in (agent or ""):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None

    def _fail(
        self,
        fault: Fault,
        signed_for: str,
        caller: Caller,
        environ: dict[str, Any],
        start: StartResponse,
    ) -> Iterable[bytes]:
        if fault.acts:
            for _ in self._serve(signed_for, caller, environ, lambda *_: None):
                pass
        if not fault.status:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        error = ApiError(fault.code, fault.message, fault.status or 500)
        if _invokes(signed_for, environ):
            return runtime.error_answer(error, start)
        content = error_reply(start, error, calls.xml(signed_for, environ))
        # Nobody reads the body of such an answer, which would be taken for the next answer's.
        return [] if environ["REQUEST_METHOD"] == "HEAD" else content

    def _job_fault(self, kind: str) -> str | None:
        fault = self._take_fault(kind)
        return f"{fault.code}: {fault.message}" if fault else None

    # The sandbox's own requests.

    def _control(self, path: str, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if not secrets.compare_digest(environ.get("HTTP_X_SANDBOX_TOKEN", ""), self.token):
            return _json_error(ApiError("AccessDenied", "not this sandbox's token", 403), start)
        action = path.removeprefix("/_sandbox/")
        if action == "status":
            return _json_answer(self._status(), start)
        if action == "lease":
            return self._lease(environ["werkzeug.socket"], start)
        if action == "stop":
            threading.Thread(target=self.close, name="stop").start()
            return _json_answer({}, start)
        if action == "fault":
            size = int(environ.get("CONTENT_LENGTH") or 0)
            self.inject(**json.loads(environ["wsgi.input"].read(size)))
            return _json_answer({}, start)
        if action == "control":
            size = int(environ.get("CONTENT_LENGTH") or 0)
            try:
                answer = self.integrations.control(environ["wsgi.input"].read(size))
            except ApiError as error:
                return _json_error(error, start)
            return _json_answer({"answer": answer}, start)
        return _json_error(ApiError("NotFound", path, 404), start)

    def _status(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "pid": os.getpid(),
            "region": self.region,
            "standing": self._standing,
            "executions": len(self.pipelines.running),
            "jobs": len(self.jobs.running),
        }

    def _lease(self, connection: socket.socket, start: StartResponse) -> Iterable[bytes]:
        """Stay alive for a client as long as its connection is open."""
        with self._state_lock:
            if self._closing:
                return _json_error(ApiError("ServiceUnavailable", "ending", 503), start)
            self._leases += 1
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.settimeout(None)
            while connection.recv(64):
                pass
        except OSError:
            pass  # The client was killed; its lease ends all the same.
        finally:
            with self._state_lock:
                self._leases -= 1
            self.end_if_idle()
        start("200 OK", [("Content-Length", "0"), ("Connection", "close")])
        return []


_TAGGED = {
    "pipeline": PIPELINE,
    "model-package-group": GROUP,
    "model-package": PACKAGE,
    "processing-job": PROCESSING,
    "training-job": TRAINING,
    "model": MODEL,
    "endpoint-config": CONFIG,
    "endpoint": ENDPOINT,
    **TAGGED,
}
_TAG_OPERATIONS = ("AddTags", "ListTags", "DeleteTags")


def _caller(environ: dict[str, Any], region: str) -> Caller:
    """Read account and region from the request's signature
    (Credential=KEY/DATE/REGION/SERVICE/...)."""
    parts = _credential(environ)
    if len(parts) != 5:
        return Caller(ACCOUNT, region, "")
    if parts[0] == client.ACCESS_KEY:
        return Caller(ACCOUNT, parts[2] or region, parts[0])
    # Imported late: the first answer of a new server need not wait for all of IAM.
    from moto.iam.models import get_account_id_from

    return Caller(get_account_id_from(parts[0]), parts[2] or region, parts[0])


def _signed_for(environ: dict[str, Any]) -> str:
    """Return the service that a request was signed for, "" if it was not signed."""
    parts = _credential(environ)
    return parts[3] if len(parts) == 5 else ""


def _credential(environ: dict[str, Any]) -> list[str]:
    """Return key, date, region, service and end of a signature, in a header or in the query of an
    address that was signed before."""
    header, query = environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")
    found: str = header.partition("Credential=")[2].split(",")[0]
    if not found and "X-Amz-Credential=" in query:
        found = unquote(query.partition("X-Amz-Credential=")[2].partition("&")[0])
    if not found and "AWSAccessKeyId=" in query:  # S3's older signatures name no region.
        key = unquote(query.partition("AWSAccessKeyId=")[2].partition("&")[0])
        found = f"{key}///s3/"
    return found.split("/")


def _operation(service: str, environ: dict[str, Any]) -> str:
    """Return the operation that a request asks for, "" when it cannot be told."""
    if _invokes(service, environ):
        asynchronous = environ["PATH_INFO"].endswith("/async-invocations")
        return "InvokeEndpointAsync" if asynchronous else "InvokeEndpoint"
    return calls.operation(service, environ)


def _invokes(service: str, environ: dict[str, Any]) -> bool:
    # A bucket may be called "endpoints"; everybody else must not meet moto's made-up answers.
    return service != "s3" and bool(runtime.PATH.match(environ.get("PATH_INFO", "")))


def _parsed(body: bytes) -> Params:
    try:
        return cast(Params, json.loads(body or b"{}"))
    except ValueError as error:
        raise ApiError("SerializationException", f"The body is no JSON: {error}") from error


def _defect(error: Exception, where: str) -> ApiError:
    """Write a defect of the sandbox's down; return what its client is told, in a form it reads."""
    log.exception("%s", where)
    words = f"Internal error of the sandbox, see server.log: {error!r}"
    return ApiError("InternalFailure", words, 500)


def _json_answer(answer: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
    body = json.dumps(answer).encode()
    start(
        "200 OK",
        [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("Content-Length", str(len(body))),
            ("x-amzn-RequestId", secrets.token_hex(16)),
        ],
    )
    return [body]


def _json_error(error: ApiError, start: StartResponse) -> Iterable[bytes]:
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    reason = "Bad Request" if error.status < 500 else "Internal Server Error"
    start(
        f"{error.status} {reason}",
        [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("Content-Length", str(len(body))),
            ("x-amzn-ErrorType", error.code),
            ("x-amzn-RequestId", secrets.token_hex(16)),
        ],
    )
    return [body]


def main() -> None:
    """Run a server as a process of its own (see sandbox/client.py, which starts it)."""
    parser = argparse.ArgumentParser(prog="sm_mlops.sandbox.server")
    parser.add_argument("root", type=Path)
    parser.add_argument("region")
    parser.add_argument("--standing", action="store_true")
    options = parser.parse_args()
    server = Server(options.root, options.region)
    try:
        server.start()
        client.write_record(server.folder, server.port, server.token, server.region)
    except client.SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(2)
    except OSError as error:
        print(json.dumps({"error": f"cannot write to {server.folder}: {error}"}), flush=True)
        raise
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: threading.Thread(target=server.close).start())
    if not options.standing:
        server.belong_to_starter()
        threading.Thread(target=_watch_starter, args=(server,), daemon=True).start()
    # The starter waits for this line and takes its end of the pipe away after it.
    print(json.dumps({"port": server.port}), flush=True)
    with (server.folder / "server.log").open("a") as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    server.ended.wait()
    # Threads of requests may still hang on their connections; everything is written down.
    os._exit(0)


def _watch_starter(server: Server) -> None:
    words = b""
    while piece := os.read(0, 64):
        words += piece
    server.left(goodbye=words.startswith(b"bye"))


if __name__ == "__main__":
    main()
