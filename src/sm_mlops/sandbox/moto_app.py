"""moto as a WSGI application that stays fast in a long-lived server."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from random import SystemRandom
from typing import Any

from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_api._internal.moto_random import MotoRandom
from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)

from sm_mlops.sandbox.iam.requests import read

LARGE_BODY = 1024 * 1024
# No page of a browser reads an answer, and nobody guesses the secret of a key or a session.
werkzeug_app.DISABLE_GLOBAL_CORS = True
for _name in ("random", "getrandbits"):
    setattr(MotoRandom, _name, getattr(SystemRandom, _name))
log = logging.getLogger(__name__)


def forget() -> None:
    """Empty moto, whose models are also kept in lists of their classes: some 30 MB each time."""
    BackendDict.reset()
    reset_model_data()


class Dispatcher(DomainDispatcherApplication):
    """moto's dispatcher with a cache: moto searches its files at every request, for 0.5 ms. And
    with an order: a list fails with status 500 if another thread adds to it."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._backends: dict[str | None, Any] = {}
        self._locks: dict[str, threading.RLock] = {}

    def turn(self, service: str, environ: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
        """Let a request to a service wait for those before it, unless it may take long."""
        length = environ.get("CONTENT_LENGTH") or "0"
        long = not length.isdecimal() or int(length) > LARGE_BODY
        long = long or (service == "sqs" and read(service, environ)[0] == "ReceiveMessage")
        lock = self._locks.setdefault(service, threading.RLock())
        return contextlib.nullcontext() if long else lock

    def get_backend_for_host(self, host: str | None) -> Any:
        if host in ("moto_api", "instance_metadata"):
            return None  # By its path alone; the signature names the service.
        if host not in self._backends:
            self._backends[host] = super().get_backend_for_host(host)
        return self._backends[host]


class Handler(MotoRequestHandler):
    """moto's request handler, silent and without Nagle's delay of 40 ms between header and body."""

    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        super().run_wsgi()
        # An idle connection would keep its last request, with a body of maybe 200 MB; and moto's
        # request objects are cycles, which Python would find much later.
        self.environ = {}
        length = self.headers.get("Content-Length") or "0"
        if length.isdecimal() and int(length) > LARGE_BODY:
            gc.collect()

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            log.error(message, *args)
