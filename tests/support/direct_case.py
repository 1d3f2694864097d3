"""Requests of boto3 and PyGithub that reach a server of this same process without a socket, which
takes half of their time.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import botocore.session
import requests
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.credentials import Credentials, ReadOnlyCredentials
from urllib3 import HTTPResponse
from werkzeug.test import create_environ

from sm_mlops.sandbox import Server

Answer = tuple[str, Mapping[str, str], bytes]
"""Status such as "200 OK", headers, body."""
Ask = Callable[[dict[str, Any]], Answer | None]
"""Given a request as WSGI has it; returns None where it is to go its own way."""


def answer(server: Server, environ: dict[str, Any]) -> Answer:
    """Let the server answer."""
    kept: list[Any] = []
    body = b"".join(server._answer(environ, lambda *words: kept.extend(words[:2])))
    return kept[0], dict(kept[1]), body


class Clients:
    """Clients of boto3 for one server after the other, by service."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        assert self.server is not None
        if service not in self._made:
            session: Any = botocore.session.get_session()
            session._credentials = _Key(self)
            # Nothing is running.
            url = "http://127.0.0.1:9"
            made = session.create_client(service, region_name=self.server.region, endpoint_url=url)
            self._made[service] = direct(made, self._ask)
        return self._made[service]

    def _ask(self, environ: dict[str, Any]) -> Answer:
        assert self.server is not None
        return answer(self.server, environ)


class _Key(Credentials):
    """The key of the account of the server that clients have now."""

    def __init__(self, clients: Clients) -> None:
        super().__init__("-", "-")
        self.clients = clients

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        assert self.clients.server is not None
        key = self.clients.server.signatures.key
        return ReadOnlyCredentials(key.id, key.secret, None)


def direct(client: Any, ask: Ask) -> Any:
    """Return the client of boto3, whose requests are put to `ask` from now on."""

    def before_send(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        body: Any = request.body
        if hasattr(body, "read"):
            body = body.read()
            request.reset_stream()
        found = ask(_environ(request.method, request.url, dict(request.headers.items()), body))
        if found is None:
            return None
        headers: Any = found[1]
        return AWSResponse(request.url, int(found[0][:3]), headers, _Raw(found[2]))

    client.meta.events.register("before-send", before_send)
    return client


def directly(adapter: Any, request: requests.PreparedRequest, ask: Ask) -> requests.Response | None:
    """Return what the `adapter` of requests would return for a request that `ask` answers."""
    found = ask(_environ(str(request.method), str(request.url), request.headers, request.body))
    if found is None:
        return None
    raw = HTTPResponse(
        io.BytesIO(found[2]), found[1], int(found[0][:3]), reason="", preload_content=False
    )
    made: requests.Response = adapter.build_response(request, raw)
    return made


class _Raw(io.BytesIO):
    """A body as botocore reads it."""

    def stream(self, size: int = 1 << 16, decode_content: bool = False) -> Iterator[bytes]:
        return iter(functools.partial(self.read, size), b"")


def _environ(method: str, url: str, headers: Mapping[str, Any], body: Any) -> dict[str, Any]:
    texts = {
        name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }
    _, _, host, raw = url.split("/", 3)
    path, _, query = f"/{raw}".partition("?")
    data = body.encode() if isinstance(body, str) else bytes(body or b"")
    found: dict[str, Any] = create_environ(
        path, f"http://{host}/", query, method, headers=texts, data=data
    )
    return found | {"RAW_URI": f"/{raw}", "REQUEST_URI": f"/{raw}"}
