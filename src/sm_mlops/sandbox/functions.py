"""Lambda functions that run: each invocation executes the deployed zip in its own process.

moto keeps functions, layers and permissions. This adds what it drops or needs Docker for:
invocations, asynchronous retries, the destination of failures, logs and metrics.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html and the pages below it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from sm_mlops.sandbox import grants, policies, wire
from sm_mlops.sandbox.alarms import FUNCTIONS, QUEUES, Alarms
from sm_mlops.sandbox.deliveries import Undeliverable, render, send, waiting
from sm_mlops.sandbox.function_process import Processes, Result, log_group, log_stream
from sm_mlops.sandbox.replies import Start, read, reply
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, moment, not_implemented

INVOCATION = "FunctionInvocation"
LARGEST_EVENT = 6 * 1024 * 1024
RETRY_SECONDS = (60.0, 120.0)
TAIL_BYTES = 4096
RESERVED = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|AWS_DEFAULT_REGION|AWS_REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_\w+"
    r"|AWS_ACCESS_KEY|AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN"
    r"|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR"
)
RUNTIMES = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.14")
PATH = re.compile(r"/2015-03-31/functions(?:/(?P<name>[^/]+)(?P<rest>/.*)?)?/?$")
CONFIG_PATH = re.compile(r"/2019-09-25/functions/(?P<name>[^/]+)/event-invoke-config/?$")
log = logging.getLogger(__name__)


class Functions:
    """Invocations of the functions in moto; asynchronous ones survive a restart. Safe for threads.

    `pace` shortens the waits between retries.
    """

    def __init__(self, store: Store, folder: Path, url: Callable[[], str], pace: float) -> None:
        self.store, self.pace = store, pace
        self.alarms = Alarms()
        self.processes = Processes(folder, url)
        self.keep: Callable[..., None] = lambda *services: None
        self.on_idle: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        _fix_moto()

    # Requests.

    def answer(
        self,
        environ: dict[str, Any],
        start: Start,
        caller: Caller,
        by_moto: Callable[[], Iterable[bytes]],
    ) -> Iterable[bytes] | None:
        """Answer a request to Lambda; return None for one that moto answers. Raises ApiError."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        found = PATH.match(path)
        if found and found["rest"] == "/invocations" and method == "POST":
            return reply(start, *self._invoke(found["name"], environ, caller))
        creates = bool(found and not found["name"] and method == "POST")
        changes = found and method == "PUT" and found["rest"] in ("/configuration", "/code")
        sets = CONFIG_PATH.match(path) if method in ("PUT", "POST") else None
        if not (creates or changes or sets):
            return None
        given = json.loads(read(environ) or b"{}")
        if sets:
            _check_destinations(given, self.find(sets["name"], caller))
            return None
        assert found is not None
        _check_function(given, caller, creates)
        answer = by_moto()
        name = str(given.get("FunctionName") if creates else found["name"])
        with contextlib.suppress(ApiError):  # moto has refused it.
            function = self.find(name, caller)
            if "LoggingConfig" in given:
                function.sandbox_LoggingConfig = given["LoggingConfig"]
            self.keep("lambda")
        return answer

    def _invoke(
        self, name: str, environ: dict[str, Any], caller: Caller
    ) -> tuple[int, dict[str, str], bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "Qualifier" in query:
            raise not_implemented("Qualifier of lambda:Invoke")
        function = self.find(name, caller)
        body = read(environ)
        kind = environ.get("HTTP_X_AMZ_INVOCATION_TYPE") or "RequestResponse"
        event = _event(body, kind)
        result = self.run(function, event, str(uuid.uuid4()))
        headers = {
            "Content-Type": "application/json",
            "x-amzn-RequestId": result.request,
        }
        if result.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if environ.get("HTTP_X_AMZ_LOG_TYPE") == "Tail":
            tail = result.log.encode()[-TAIL_BYTES:]
            headers["X-Amz-Log-Result"] = base64.b64encode(tail).decode()
        return 200, headers, result.payload.encode()

    def find(self, name: str, caller: Caller) -> Any:
        """Return moto's function of a name or ARN. Raises ApiError."""
        from moto.awslambda.exceptions import UnknownFunctionException
        from moto.awslambda.models import lambda_backends

        account, region = caller.account, caller.region
        if name.startswith("arn:"):
            region, account, name = (name.split(":")[index] for index in (3, 4, 6))
        try:
            return lambda_backends[account][region].get_function(name, None)
        except UnknownFunctionException as error:
            arn = caller.arn(f"function:{name}", "lambda")
            raise ApiError(
                "ResourceNotFoundException", f"Function not found: {arn}", 404
            ) from error

    # Asynchronous invocations.

    def check_invoker(self, arn: str, service: str, source: str) -> None:
        """Raise Undeliverable when a function's policy does not let a service invoke it."""
        parts = arn.split(":")
        try:
            function = self.find(arn, Caller(parts[4], parts[3], ""))
        except ApiError as error:
            raise Undeliverable("RESOURCE_NOT_FOUND", error.message) from error
        statements = {"Statement": function.policy.statements}
        if not policies.service_may(statements, service, "lambda:InvokeFunction", arn, source):
            raise Undeliverable(
                "NO_PERMISSIONS",
                f"the resource policy of {arn} does not let {service} invoke it for {source}",
            )

    def invoke_later(self, arn: str, event: Any) -> None:
        """Accept an event for a function. It survives a restart."""
        request = str(uuid.uuid4())
        record = {"Arn": arn, "Event": event, "Accepted": time.time(), "Tried": 0}
        self.store.put(INVOCATION, request, record)
        self._work(request, record)

    def recover(self) -> None:
        """Continue what had been accepted before a restart."""
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
            function = self.find(record["Arn"], caller)
            config = _invoke_config(function)
            result = self.run(function, record["Event"], request)
            if self._closing.is_set():
                return  # The next server tries again.
            record["Tried"] += 1
            self.store.put(INVOCATION, request, record)
            if not result.failed:
                return
            retries = config.get("MaximumRetryAttempts", len(RETRY_SECONDS))
            oldest = config.get("MaximumEventAgeInSeconds", 21_600)
            if record["Tried"] > retries:
                self._report(function, record, result, config, "RetriesExhausted")
                return
            if time.time() - record["Accepted"] > oldest:
                self._report(function, record, result, config, "EventAgeExceeded")
                return
            if self._closing.wait(RETRY_SECONDS[record["Tried"] - 1] * self.pace):
                return

    def _report(
        self, function: Any, record: Record, result: Result, config: Record, condition: str
    ) -> None:
        """Send a failure to the function's destination."""
        target = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if not target:
            return
        body = {
            "version": "1.0",
            "timestamp": moment(time.time()),
            "requestContext": {
                "requestId": result.request,
                "functionArn": f"{function.function_arn}:{function.version}",
                "condition": condition,
                "approximateInvokeCount": record["Tried"],
            },
            "requestPayload": record["Event"],
            "responsePayload": json.loads(result.payload),
        }
        try:
            if not policies.role_may(function.role, "sqs:SendMessage", target, function.region):
                raise Undeliverable("NO_PERMISSIONS", f"{function.role} may not send to {target}")
            send(target, render(body), {})
            self.keep("sqs")
            self.queue_changed(target)
        except Undeliverable as error:
            log.error("%s: %s", function.function_name, error)
            caller = Caller(function.account_id, function.region, "")
            self._measure(function, caller, DestinationDeliveryFailures=1.0)

    def queue_changed(self, arn: str) -> None:
        """Report how full a queue is, for the alarms on it."""
        _, _, _, region, account, name = arn.split(":", 5)
        self.alarms.record(
            Caller(account, region, ""),
            QUEUES,
            {"QueueName": name},
            ApproximateNumberOfMessagesVisible=float(waiting(arn)),
        )

    # One invocation.

    def run(self, function: Any, event: Any, request: str) -> Result:
        """Run a function to its end, with its log and metrics."""
        caller = Caller(function.account_id, function.region, "")
        result = self.processes.run(function, event, request)
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

    def _write_log(self, function: Any, result: Result) -> None:
        """Write to CloudWatch Logs, as far as the execution role may."""
        from moto.logs.models import logs_backends

        group, stream = log_group(function), log_stream(function)
        place = f"arn:{wire.partition(function.region)}:logs:{function.region}"
        resource = f"{place}:{function.account_id}:log-group:{group}:log-stream:{stream}"
        backend: Any = logs_backends[function.account_id][function.region]
        role, region = function.role, function.region
        if group not in backend.groups:
            creates = resource.partition(":log-stream:")[0]
            if not any(
                policies.role_may(role, "logs:CreateLogGroup", each, region)
                for each in (creates, f"{creates}:*")
            ):
                return
            backend.ensure_log_group(group)
        if not policies.role_may(role, "logs:PutLogEvents", resource, region):
            return
        backend.ensure_log_stream(group, stream)
        now = int(time.time() * 1000)
        backend.groups[group].streams[stream].put_log_events(
            [{"timestamp": now, "message": f"{line}\n"} for line in result.log.splitlines()]
        )
        self.keep("logs")

    # Lifecycle.

    def busy(self) -> bool:
        """Tell whether an invocation runs or waits for its next attempt."""
        return bool(self.processes.running or self.store.all(INVOCATION))

    def close(self) -> None:
        """End what runs; accepted events stay for the next server."""
        self._closing.set()
        self.processes.end()


def _event(body: bytes, kind: str) -> Any:
    if kind != "RequestResponse":
        raise not_implemented(f"InvocationType {kind} of lambda:Invoke")
    if len(body) > LARGEST_EVENT:
        raise ApiError(
            "RequestTooLargeException",
            f"{len(body)} byte payload is too large for the {kind} invocation type "
            f"(limit {LARGEST_EVENT} bytes)",
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


# What Lambda refuses and moto accepts.


def _check_function(given: Record, caller: Caller, creates: bool) -> None:
    if creates:
        wire.check("CreateFunction", given, "lambda")
        if given.get("PackageType", "Zip") != "Zip":
            raise not_implemented(f"PackageType {given['PackageType']} of lambda functions")
    if "Runtime" in given and given["Runtime"] not in RUNTIMES:
        raise not_implemented(f"the runtime {given['Runtime']} (only {', '.join(RUNTIMES)})")
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
    if given.get("DeadLetterConfig"):
        raise not_implemented("DeadLetterConfig of lambda functions")
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
    for outcome, found in (given.get("DestinationConfig") or {}).items():
        target = (found or {}).get("Destination")
        if target and (outcome != "OnFailure" or ":sqs:" not in target):
            raise not_implemented(f"{outcome} {target} as destination of lambda functions")
        if target and not policies.role_may(
            function.role, "sqs:SendMessage", target, function.region
        ):
            raise _invalid(
                "The function's execution role does not have permissions to call SendMessage on "
                f"{target}"
            )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def _fix_moto() -> None:
    """Make moto's functions show the settings that it drops, and picklable."""
    from moto.awslambda import models

    function: Any = models.LambdaFunction
    if hasattr(function, "sandbox_shown"):
        return
    bare = function.get_configuration

    def shown(self: Any, on_create: bool = False) -> dict[str, Any]:
        config = bare(self, on_create)
        if getattr(self, "sandbox_LoggingConfig", None):
            config["LoggingConfig"] = self.sandbox_LoggingConfig
        return config

    whole = function.__getstate__

    def state(self: Any) -> dict[str, Any]:
        # With it, all logs of the account would be stored again.
        return {name: value for name, value in whole(self).items() if name != "logs_backend"}

    function.get_configuration = shown
    function.__getstate__ = state
    function.sandbox_shown = True
