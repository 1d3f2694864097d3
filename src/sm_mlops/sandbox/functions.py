"""Lambda functions that run: each invocation the deployed zip in a process of its own.

moto keeps functions, layers, permissions and versions; here is what it needs Docker for, or drops:
invocations, asynchronous retries, dead letters, destinations, logs and metrics.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html and the pages below it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

from sm_mlops.sandbox import grants, native, wire
from sm_mlops.sandbox.alarms import FUNCTIONS, QUEUES, Alarms
from sm_mlops.sandbox.deliveries import Undeliverable, render, send, waiting
from sm_mlops.sandbox.processes import isolated_environment, supervised
from sm_mlops.sandbox.replies import Start, read, reply
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller

INVOCATION = "FunctionInvocation"
SYNCHRONOUS_BYTES, ASYNCHRONOUS_BYTES = 6 * 1024 * 1024, 1024 * 1024
RETRY_SECONDS = (60.0, 120.0)
TAIL_BYTES = 4096
# What AWS's runtimes for Python bring along; everything else has to come with the function.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
RESERVED = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|AWS_DEFAULT_REGION|AWS_REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_\w+"
    r"|AWS_ACCESS_KEY|AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN"
    r"|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR"
)
RUNTIMES = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
PATH = re.compile(r"/2015-03-31/functions(?:/(?P<name>[^/]+)(?P<rest>/.*)?)?/?$")
CONFIG_PATH = re.compile(r"/2019-09-25/functions/(?P<name>[^/]+)/event-invoke-config/?$")
_HERE = Path(__file__).resolve().parent
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What an invocation has answered. `memory` in bytes, 0 when it is not known."""

    request: str
    failed: bool
    payload: str
    log: str
    duration: float
    memory: int


class Functions:
    """Invocations of the functions in moto; asynchronous ones survive a restart. Safe for threads.

    `rewrite` changes the values of a function's environment variables, for the addresses that are
    others in the sandbox. `pace` shortens the waits between retries.
    """

    def __init__(self, store: Store, folder: Path, url: Callable[[], str], pace: float) -> None:
        self.store, self.folder, self.url, self.pace = store, folder, url, pace
        self.alarms = Alarms()
        self.rewrite: Callable[[str], str] = lambda value: value
        self.keep: Callable[..., None] = lambda *services: None
        self.on_idle: Callable[[], None] = lambda: None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._closing = threading.Event()
        self._unpacking = threading.Lock()
        self._foreign: dict[Path, dict[str, list[Path]]] = {}
        _mend_moto()

    # Requests.

    def answer(
        self,
        environ: dict[str, Any],
        start: Start,
        caller: Caller,
        by_moto: Callable[[], Iterable[bytes]],
    ) -> Iterable[bytes] | None:
        """Answer a request to Lambda, or return None when it is all moto's. Raises ApiError."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        found = PATH.match(path)
        if found and found["rest"] == "/invocations" and method == "POST":
            return reply(start, *self._invoke(found["name"], environ, caller))
        creates = bool(found and not found["name"] and method == "POST")
        changes = found and method == "PUT" and found["rest"] in ("/configuration", "/code")
        sets = CONFIG_PATH.match(path) if method in ("PUT", "POST") else None
        if not (creates or changes or sets):
            return None
        body = read(environ)
        environ["wsgi.input"] = io.BytesIO(body)
        given = json.loads(body or b"{}")
        if sets:
            _check_destinations(given, self._find(sets["name"], None, caller))
            return None
        assert found is not None
        _check_function(given, caller, creates)
        answer = by_moto()
        name = str(given.get("FunctionName") if creates else found["name"])
        with contextlib.suppress(ApiError):  # moto has refused it.
            function = self._find(name, None, caller)
            for member in ("DeadLetterConfig", "LoggingConfig"):
                if member in given:
                    setattr(function, f"sandbox_{member}", given[member])
            self.keep("lambda")
        return answer

    def _invoke(
        self, name: str, environ: dict[str, Any], caller: Caller
    ) -> tuple[int, dict[str, str], bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        function = self._find(name, query.get("Qualifier", [None])[0], caller)
        body = read(environ)
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE") or "RequestResponse"
        event = _event(body, kind)
        if kind == "DryRun":
            return 204, {}, b""
        if kind == "Event":
            request = self.invoke_later(function.function_arn, event)
            return 202, {"x-amzn-RequestId": request}, b""
        result = self.run(function, event, str(uuid.uuid4()))
        headers = {
            "Content-Type": "application/json",
            "X-Amz-Executed-Version": str(function.version),
            "x-amzn-RequestId": result.request,
        }
        if result.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if environ.get("HTTP_X_AMZ_LOG_TYPE") == "Tail":
            tail = result.log.encode()[-TAIL_BYTES:]
            headers["X-Amz-Log-Result"] = base64.b64encode(tail).decode()
        return 200, headers, result.payload.encode()

    def _find(self, name: str, qualifier: str | None, caller: Caller) -> Any:
        from moto.awslambda.exceptions import UnknownFunctionException
        from moto.awslambda.models import lambda_backends

        account, region = caller.account, caller.region
        if name.startswith("arn:"):
            parts = name.split(":")
            region, account = parts[3], parts[4]
            qualifier = parts[7] if len(parts) > 7 else qualifier
            name = parts[6]
        try:
            return lambda_backends[account][region].get_function(name, qualifier)
        except UnknownFunctionException as error:
            arn = caller.arn(f"function:{name}", "lambda")
            raise ApiError(
                "ResourceNotFoundException", f"Function not found: {arn}", 404
            ) from error

    # Asynchronous invocations.

    def check_invoker(self, arn: str, service: str, source: str) -> None:
        """Refuse a service that a function's resource policy does not allow. Raises
        Undeliverable."""
        parts = arn.split(":")
        try:
            function = self._find(arn, None, Caller(parts[4], parts[3], ""))
        except ApiError as error:
            raise Undeliverable("RESOURCE_NOT_FOUND", error.message) from error
        statements = {"Statement": function.policy.statements}
        if not grants.service_may(statements, service, "lambda:InvokeFunction", arn, source):
            raise Undeliverable(
                "NO_PERMISSIONS",
                f"the resource policy of {arn} does not let {service} invoke it for {source}",
            )

    def invoke_later(self, arn: str, event: Any) -> str:
        """Accept an event for a function; return the request's id. It survives a restart."""
        request = str(uuid.uuid4())
        record = {"Arn": arn, "Event": event, "Accepted": time.time(), "Tried": 0}
        self.store.put(INVOCATION, request, record)
        self._work(request, record)
        return request

    def recover(self) -> None:
        """Go on with what had been accepted before a restart."""
        for request, record in list(self.store.all(INVOCATION).items()):
            self._work(request, record)

    def _work(self, request: str, record: Record) -> None:
        name = f"invocation {request}"
        threading.Thread(
            target=self._deliver, args=(request, record), name=name, daemon=True
        ).start()

    def _deliver(self, request: str, record: Record) -> None:
        try:
            self._try(request, record)
        except Exception:
            if not self._closing.is_set():
                log.exception("invocation %s of %s", request, record["Arn"])
        if not self._closing.is_set():
            self.store.delete(INVOCATION, request)
            self.on_idle()

    def _try(self, request: str, record: Record) -> None:
        parts = record["Arn"].split(":")
        caller = Caller(parts[4], parts[3], "")
        while True:
            function = self._find(record["Arn"], None, caller)
            config = _invoke_config(function)
            result = self.run(function, record["Event"], request)
            if self._closing.is_set():
                return  # The next server tries again.
            record["Tried"] += 1
            self.store.put(INVOCATION, request, record)
            if not result.failed:
                self._tell(function, record, result, config, "Success")
                return
            retries = config.get("MaximumRetryAttempts", len(RETRY_SECONDS))
            oldest = config.get("MaximumEventAgeInSeconds", 21_600)
            if record["Tried"] > retries:
                self._tell(function, record, result, config, "RetriesExhausted")
                return
            if time.time() - record["Accepted"] > oldest:
                self._tell(function, record, result, config, "EventAgeExceeded")
                return
            if self._closing.wait(RETRY_SECONDS[record["Tried"] - 1] * self.pace):
                return

    def _tell(
        self, function: Any, record: Record, result: Result, config: Record, condition: str
    ) -> None:
        """Send the outcome to the destination and, when it failed, to the dead-letter queue."""
        caller = Caller(function.account_id, function.region, "")
        outcome = "OnSuccess" if condition == "Success" else "OnFailure"
        where = config.get("DestinationConfig", {}).get(outcome, {}).get("Destination")
        body = {
            "version": "1.0",
            "timestamp": _moment(time.time()),
            "requestContext": {
                "requestId": result.request,
                "functionArn": f"{function.function_arn}:{function.version}",
                "condition": condition,
                "approximateInvokeCount": record["Tried"],
            },
            "requestPayload": record["Event"],
            "responseContext": {"statusCode": 200, "executedVersion": str(function.version)},
            "responsePayload": json.loads(result.payload),
        }
        if result.failed:
            body["responseContext"]["functionError"] = "Unhandled"
        dead = getattr(function, "sandbox_DeadLetterConfig", {}).get("TargetArn")
        letters: list[tuple[str, str, dict[str, str], str]]
        letters = [(where, render(body), {}, "DestinationDeliveryFailures")] if where else []
        if dead and result.failed:
            attributes = {
                "RequestID": result.request,
                "ErrorCode": "200",
                "ErrorMessage": json.loads(result.payload).get("errorMessage", "")[:1024],
            }
            letters.append((dead, render(record["Event"]), attributes, "DeadLetterErrors"))
        for target, text, attributes, metric in letters:
            try:
                self._may_send(function, target)
                send(target, text, attributes)
                self.keep("sqs", "sns")
                self.queue_changed(target)
            except Undeliverable as error:
                log.error("%s: %s", function.function_name, error)
                self._measure(function, caller, **{metric: 1.0})

    def queue_changed(self, arn: str) -> None:
        """Report how full a queue is, for the alarms on it."""
        _, _, service, region, account, name = arn.split(":", 5)
        if service == "sqs":
            self.alarms.record(
                Caller(account, region, ""),
                QUEUES,
                {"QueueName": name},
                ApproximateNumberOfMessagesVisible=float(waiting(arn)),
            )

    def _may_send(self, function: Any, target: str) -> None:
        action = "sqs:SendMessage" if ":sqs:" in target else "sns:Publish"
        if not grants.role_may(function.role, action, target, function.region):
            raise Undeliverable("NO_PERMISSIONS", f"{function.role} may not {action} on {target}")

    # One invocation.

    def run(self, function: Any, event: Any, request: str) -> Result:
        """Run a function to its end, with its log and metrics."""
        caller = Caller(function.account_id, function.region, "")
        result = self._execute(function, event, request)
        if self._closing.is_set():
            return result
        self._write_log(function, result)
        self._measure(
            function,
            caller,
            Invocations=1.0,
            Errors=float(result.failed),
            Duration=result.duration * 1000,
        )
        return result

    def _measure(self, function: Any, caller: Caller, **values: float) -> None:
        self.alarms.record(caller, FUNCTIONS, {"FunctionName": function.function_name}, **values)
        self.keep("cloudwatch", "sns", "sqs")

    def _execute(self, function: Any, event: Any, request: str) -> Result:
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
            output += f"{_moment(time.time())} {request} {said}\n"
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
        return Result(request, failed, text, whole, duration, memory)

    def _process(
        self, function: Any, event: Any, request: str, folder: Path, begun: float
    ) -> tuple[str, int, bool]:
        """Return the output, the exit code and whether the time was up."""
        task = self._unpacked(function.code_bytes)
        from moto.awslambda.models import lambda_backends

        backend = lambda_backends[function.account_id][function.region]
        layers = []
        for each in function.layers:
            found = backend.layers_versions_by_arn(each["Arn"])
            if found is None:
                return f"[sandbox] the layer {each['Arn']} is gone\n", 1, False
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
        (folder / "tmp").mkdir()
        job = {
            "path": [str(each) for each in path if each is not None and each.is_dir()],
            "guard": str(_HERE / "guard" / "sitecustomize.py"),
            "answer": str(folder / "answer.json"),
            "handler": function.handler,
            "event": event,
            "request": request,
            "name": function.function_name,
            "version": str(function.version),
            "arn": function.function_arn,
            "memory": function.memory_size,
            "timeout": function.timeout,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = self._environment(function, task, folder)
        script = str(_HERE / "function_runtime.py")
        # Isolated, without site-packages: what the function does not bring is not there.
        command = [sys.executable, "-I", "-S", script, str(folder / "job.json")]
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                supervised(command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=task,
                env=environment,
                start_new_session=True,
            )
        self._running[request] = process
        late = False
        try:
            # A person would wait for a process; the budget is the function's from its start on.
            process.wait(timeout=max(function.timeout - (time.monotonic() - begun), 0.1))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            self._running.pop(request, None)
            _end(process)
        text = "".join(line for _, line in replaced)
        text += (folder / "output").read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            text += "\n"
        return text, process.returncode, late

    def _environment(self, function: Any, task: Path, folder: Path) -> dict[str, str]:
        environment = isolated_environment(folder, folder / "tmp", function.region)
        for name in ("PYTHONPATH", "SAGEMAKER_BASE_DIR", "OMP_NUM_THREADS"):
            environment.pop(name, None)
        own = {name: self.rewrite(value) for name, value in function.environment_vars.items()}
        return {
            **environment,
            "TZ": ":UTC",
            **own,
            **grants.session(function.role, function.function_name, function.region),
            "AWS_ENDPOINT_URL": self.url(),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
            "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": _log_group(function),
            "AWS_LAMBDA_LOG_STREAM_NAME": _log_stream(function),
            "LAMBDA_TASK_ROOT": str(task),
            "_HANDLER": function.handler,
        }

    def _unpacked(self, content: bytes) -> Path:
        """Return the folder with what a zip holds."""
        target = self.folder / "code" / hashlib.sha256(content).hexdigest()[:24]
        with self._unpacking:
            if not target.is_dir():
                part = target.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    archive.extractall(part)
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
        """Return a folder with this machine's builds of a layer's compiled packages, and the line
        that tells of them.

        A layer for arm64 and another Python holds libraries that cannot be loaded here. Only such
        packages are replaced, as a whole, by those of this environment.
        """
        foreign = self._foreign.get(top)
        if foreign is None:
            foreign = self._foreign[top] = native.foreign(top) if top.is_dir() else {}
        if not foreign:
            return None, ""
        found = folder / f"native-{hashlib.sha256(str(top).encode()).hexdigest()[:8]}"
        found.mkdir()
        told = []
        for name, sources in foreign.items():
            for source in sources:
                if not (found / source.name).exists():
                    (found / source.name).symlink_to(source)
            told.append(name if sources else f"{name} (which is not installed here)")
        words = "compiled for another machine, taken from this environment instead"
        return found, f"[sandbox] {words}: {', '.join(told)}\n"

    def _write_log(self, function: Any, result: Result) -> None:
        """Write to CloudWatch what the execution role may write, as Lambda does."""
        from moto.logs.models import logs_backends

        group, stream = _log_group(function), _log_stream(function)
        place = f"arn:{wire.partition(function.region)}:logs:{function.region}"
        resource = f"{place}:{function.account_id}:log-group:{group}:log-stream:{stream}"
        backend: Any = logs_backends[function.account_id][function.region]
        role, region = function.role, function.region
        if group not in backend.groups:
            creates = resource.partition(":log-stream:")[0]
            if not any(
                grants.role_may(role, "logs:CreateLogGroup", each, region)
                for each in (creates, f"{creates}:*")
            ):
                return
            backend.ensure_log_group(group)
        if not grants.role_may(role, "logs:PutLogEvents", resource, region):
            return
        backend.ensure_log_stream(group, stream)
        moment = int(time.time() * 1000)
        backend.groups[group].streams[stream].put_log_events(
            [{"timestamp": moment, "message": f"{line}\n"} for line in result.log.splitlines()]
        )
        self.keep("logs")

    # Life.

    def busy(self) -> bool:
        """Tell whether an invocation runs or waits for its next try."""
        return bool(self._running or self.store.all(INVOCATION))

    def close(self) -> None:
        """End what runs; accepted events stay for the next server."""
        self._closing.set()
        for process in list(self._running.values()):
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The end of its lifeline; see supervise.py.
    with contextlib.suppress(OSError):
        cast(Any, process.stdin).close()
    process.wait()


def _event(body: bytes, kind: str) -> Any:
    limit = ASYNCHRONOUS_BYTES if kind == "Event" else SYNCHRONOUS_BYTES
    if kind not in ("Event", "RequestResponse", "DryRun"):
        raise wire.invalid(
            f"1 validation error detected: Value '{kind}' at 'invocationType' failed to satisfy "
            "constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]"
        )
    if len(body) > limit:
        raise ApiError(
            "RequestTooLargeException",
            f"{len(body)} byte payload is too large for the {kind} invocation type "
            f"(limit {limit} bytes)",
            413,
        )
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise ApiError(
            "InvalidRequestContentException", f"Could not parse request body into json: {error}"
        ) from error


def _invoke_config(function: Any) -> Record:
    return dict(function.event_invoke_config[-1].config) if function.event_invoke_config else {}


def _log_group(function: Any) -> str:
    config = getattr(function, "sandbox_LoggingConfig", {})
    return str(config.get("LogGroup") or f"/aws/lambda/{function.function_name}")


def _log_stream(function: Any) -> str:
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


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# What Lambda refuses and moto takes.


def _check_function(given: Record, caller: Caller, creates: bool) -> None:
    if creates:
        wire.check("CreateFunction", given, "lambda")
        if given.get("PackageType", "Zip") != "Zip":
            raise _invalid("the sandbox runs functions from zip archives only")
    if "Runtime" in given and given["Runtime"] not in RUNTIMES:
        raise _invalid(f"the sandbox runs {', '.join(RUNTIMES)} only, not {given['Runtime']}")
    variables = (given.get("Environment") or {}).get("Variables") or {}
    reserved = [name for name in variables if RESERVED.fullmatch(name)]
    if reserved:
        raise _invalid(
            "Lambda was unable to configure your environment variables because the environment "
            "variables you have provided contains reserved keys that are currently not supported "
            f"for modification. Reserved keys used in this request: {', '.join(reserved)}"
        )
    if len(json.dumps(variables)) > 4096:
        raise _invalid("Environment variables are larger than 4 KB")
    if "Role" in given and not grants.trusts(given["Role"], "lambda.amazonaws.com"):
        raise _invalid("The role defined for the function cannot be assumed by Lambda.")
    dead = (given.get("DeadLetterConfig") or {}).get("TargetArn")
    if dead and "Role" in given:
        action = "sqs:SendMessage" if ":sqs:" in dead else "sns:Publish"
        if not grants.role_may(given["Role"], action, dead, caller.region):
            raise _invalid(
                "The provided execution role does not have permissions to call "
                f"{action.partition(':')[2]} on {action.partition(':')[0].upper()}"
            )
    code = given.get("Code", given)
    if "S3Bucket" in code:
        _check_object(code["S3Bucket"], code.get("S3Key", ""), caller)


def _check_object(bucket: str, key: str, caller: Caller) -> None:
    from moto.s3.exceptions import MissingBucket
    from moto.s3.models import s3_backends

    try:
        found = s3_backends[caller.account][wire.partition(caller.region)].get_object(bucket, key)
    except MissingBucket as error:
        raise _invalid(
            "Error occurred while GetObject. S3 Error Code: NoSuchBucket. "
            "S3 Error Message: The specified bucket does not exist"
        ) from error
    if found is None:
        raise _invalid(
            "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
            "S3 Error Message: The specified key does not exist."
        )


def _check_destinations(given: Record, function: Any) -> None:
    for outcome in (given.get("DestinationConfig") or {}).values():
        target = (outcome or {}).get("Destination")
        if not target:
            continue
        if ":sqs:" not in target and ":sns:" not in target:
            raise _invalid(f"the sandbox delivers to SQS and SNS only, not {target}")
        action = "sqs:SendMessage" if ":sqs:" in target else "sns:Publish"
        if not grants.role_may(function.role, action, target, function.region):
            raise _invalid(
                "The function's execution role does not have permissions to call "
                f"{action.partition(':')[2]} on {target}"
            )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def _mend_moto() -> None:
    """Make moto's functions show the settings that it drops, and fit to be kept."""
    from moto.awslambda import models

    function: Any = models.LambdaFunction
    if hasattr(function, "sandbox_shown"):
        return
    bare = function.get_configuration

    def shown(self: Any, on_create: bool = False) -> dict[str, Any]:
        config = bare(self, on_create)
        for member in ("DeadLetterConfig", "LoggingConfig"):
            if getattr(self, f"sandbox_{member}", None):
                config[member] = getattr(self, f"sandbox_{member}")
        return config

    whole = function.__getstate__

    def state(self: Any) -> dict[str, Any]:
        # With it, all logs of the account would be kept once more.
        return {name: value for name, value in whole(self).items() if name != "logs_backend"}

    function.get_configuration = shown
    function.__getstate__ = state
    function.sandbox_shown = True
