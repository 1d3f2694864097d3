"""The services between SageMaker's registry and GitHub: events, functions, Service Catalog,
connections, projects and quotas. The server tries these first."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from sm_mlops.sandbox import calls, clock, cloudwatch, functions, grants, topics, versions
from sm_mlops.sandbox.catalog import Catalog
from sm_mlops.sandbox.connections import Connections
from sm_mlops.sandbox.events import Events
from sm_mlops.sandbox.github.service import API, PREFIX, GitHub
from sm_mlops.sandbox.iam import objects, requests
from sm_mlops.sandbox.projects import Projects
from sm_mlops.sandbox.provisioning import Provisioning
from sm_mlops.sandbox.quotas import Quotas
from sm_mlops.sandbox.replies import Start, error_reply, json_reply, read
from sm_mlops.sandbox.schedules import Schedules
from sm_mlops.sandbox.services import JsonService
from sm_mlops.sandbox.wire import ApiError, Caller, not_implemented, public
from sm_mlops.sandbox.workflow import Workflows

# What a person does at a console, and a switch for tests.
CONTROLS = (
    "advance",
    "be_strict",
    "time",
    "topics.messages",
    "working",
    "workflows.environment",
    "connections.complete",
    "github.accounts.add",
    "github.accounts.fine_grained",
    "github.accounts.token",
    "github.routes.add",
    "github.routes.finish",
    "github.routes.runs_of",
)
OTHER_PORT = re.compile(r"^http://127\.0\.0\.1:\d+(?=/_github\b)")


class Integrations:
    """The services of this module in one server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        folder = server.folder
        self.functions = functions.Functions(
            server.store, folder / "functions", lambda: server.url, server.pace
        )
        self.functions.keep = server.moto.keep
        self.alarms = self.functions.alarms
        self.alarms.on_change = lambda: server.moto.keep("cloudwatch", "sns", "sqs")
        self.topics = topics.Topics(server.store)
        self.functions.processes.rewrite = self._rewrite
        self.functions.on_idle = server.end_if_idle
        self.events = Events(self.functions)
        self.events.keep = server.moto.keep
        self.alarms.announce = self.events.alarm
        server.pipelines.on_status = self.events.execution
        server.stacks.ledger.on_status = self.events.stack
        server.registry.on_change = lambda package, fields: self.events.model_package(
            public(package), fields
        )
        self.github = GitHub(server.store, folder / "github")
        versions.fix()
        self.workflows = Workflows(self.github, server.iam.tokens, server)
        self.connections = Connections(server.store)
        self.catalog = Catalog(server.store, self._client)
        self.provisioning = Provisioning(server.store, self.catalog, self._client)
        self.provisioning.on_idle = server.end_if_idle
        self.schedules = Schedules(server.store, self.functions, self._client)
        self.projects = Projects(server.store, self.provisioning, self._client)
        self.projects.on_idle = server.end_if_idle
        self._services: dict[str, JsonService] = {
            each.service: each for each in (self.connections, self.catalog)
        }
        # The only service whose signing name differs from the name of its model.
        self._services["servicequotas"] = Quotas(server.store)

    def _client(self, service: str, region: str, key: str) -> Any:
        return self.server.client(region, service, key)

    def be_strict(self) -> None:
        """Forbid what is missing in S3, and see roles and grants later than they are made."""
        objects.AS_LISTED, grants.LATE, self.catalog.late = False, 1, 3

    def time(self) -> float:
        return clock.now()

    def advance(self, until: float) -> dict[str, Any]:
        """Move the clock to the next time at which schedules are due, at most to `until`.

        Return the time and what was fired, names and times.
        """
        self.server.runtime.capture.flush()
        fired = self.schedules.advance(until)
        self.alarms.look_everywhere()
        return {"now": clock.now(), "fired": fired}

    def working(self) -> bool:
        """Tell whether something runs that a schedule or an alarm may have started."""
        server = self.server
        jobs = server.pipelines.running or server.jobs.running or server.transforms.running
        return bool(jobs) or self.functions.busy()

    def control(self, body: bytes) -> Any:
        """Do what a person requests: {"call": one of CONTROLS, "args", "kwargs"}."""
        given = json.loads(body)
        if given["call"] not in CONTROLS:
            raise ApiError("NotFound", f"no control {given['call']}", 404)
        method: Any = functools.reduce(getattr, given["call"].split("."), cast(Any, self))
        return method(*given.get("args", []), **given.get("kwargs", {}))

    def _rewrite(self, value: str) -> str:
        """Return the value of a function's variable with the addresses of this server."""
        if value.rstrip("/") == "https://api.github.com":
            return f"{self.server.url}{PREFIX}{API}"
        return OTHER_PORT.sub(self.server.url, value)

    def answer(
        self,
        environ: dict[str, Any],
        start: Start,
        service: str,
        caller: Caller,
        by_moto: Callable[[], Iterable[bytes]],
    ) -> Iterable[bytes] | None:
        """Answer a request signed for a service, or return None."""
        try:
            if service == "lambda":
                return self.functions.answer(environ, start, caller, by_moto)
            target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
            if service == "events":
                self.events.check(target, environ)
            if service == "sns":
                topics.check(*requests.read(service, environ))
            if service == "monitoring":
                return self._monitoring(environ, caller, by_moto)
            if service == "scheduler":
                operation, params = requests.read(service, environ)
                body = json.dumps(params).encode()
                return json_reply(start, self.schedules.answer(operation, body, caller))
            if service in self._services:
                return json_reply(
                    start, self._services[service].answer(target, read(environ), caller)
                )
            if service == "codestar-connections":
                raise not_implemented(f"{service}:{target}")
        except ApiError as error:
            return error_reply(start, error, calls.xml(service, environ))
        return None

    def _monitoring(
        self, environ: dict[str, Any], caller: Caller, by_moto: Callable[[], Iterable[bytes]]
    ) -> Iterable[bytes]:
        """Answer a request to CloudWatch; alarms are up to date before and after it."""
        cloudwatch.check(*requests.read("monitoring", environ))
        self.alarms.look(caller)
        answer = by_moto()
        self.alarms.look(caller)
        return answer

    def recover(self) -> None:
        self.functions.recover()
        self.schedules.start()
        self.provisioning.recover()
        self.projects.recover()

    def busy(self) -> bool:
        return self.functions.busy() or self.provisioning.busy() or self.projects.busy()

    def close(self) -> None:
        """End what runs. That executions end with the server is no event."""
        self.server.pipelines.on_status = lambda record, previous: None
        self.server.stacks.ledger.on_status = lambda stack: None
        self.schedules.close()
        self.functions.close()
        self.provisioning.closing.set()
        self.projects.close()
