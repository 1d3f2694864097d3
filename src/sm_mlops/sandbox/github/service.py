"""GitHub's front door: checks, counts and answers requests, and fails them on demand.

A WSGI application below a prefix: <prefix>/api/v3/... is the REST API, as on GitHub Enterprise
Server, <prefix>/<owner>/<repo>.git what git talks to.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sm_mlops.sandbox.faults import Fault, Faults
from sm_mlops.sandbox.github.accounts import Accounts
from sm_mlops.sandbox.github.answers import Answer, Refused
from sm_mlops.sandbox.github.git import Bare
from sm_mlops.sandbox.github.routes import Routes
from sm_mlops.sandbox.github.routing import API as API
from sm_mlops.sandbox.github.routing import Request
from sm_mlops.sandbox.storage import Store

PREFIX = "/_github"
VERSIONS = ("2022-11-28", "2026-03-10")
GIT = re.compile(r"/([\w.-]+)/([\w.-]+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)$")
log = logging.getLogger(__name__)


@dataclass
class GitHub:
    """A GitHub with its state in a store and its repositories in a folder.

    `accounts` sets up users, organizations, tokens and Apps. `requests` holds what has been asked,
    newest last, without bodies and credentials: "PUT /repos/acme/churn/...", status.
    """

    store: Store
    folder: Path
    requests: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put the parts together."""
        self.accounts = Accounts(self.store)
        self.bare = Bare(self.folder)
        self.routes = Routes(self.store, self.accounts, self.bare)
        self._faults = Faults()

    def inject(
        self,
        where: str,
        status: int = 500,
        message: str = "injected",
        headers: dict[str, str] | None = None,
        times: int = 1,
        after: int = 0,
        acts: bool = False,
    ) -> None:
        """Make requests fail: `where` is "<METHOD> <path>" with wildcards, without /api/v3.

        The first `after` that fit pass, the next `times` fail. Status 0 drops the connection.
        `acts`: the request is carried out, and only its answer is lost.
        """
        self._faults.append(
            Fault(where, status, message, times, after, acts, headers=headers or {})
        )

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; SCRIPT_NAME holds the prefix."""
        path = environ["PATH_INFO"]
        base = f"http://{environ['HTTP_HOST']}{environ.get('SCRIPT_NAME', '')}"
        label = f"{environ['REQUEST_METHOD']} {path.removeprefix(API)}"
        fault = self._faults.take(lambda each: fnmatch.fnmatchcase(label, each.where))
        if fault and not fault.acts:
            return self._fail(fault, label, environ, start)
        if not path.startswith(API + "/"):
            if fault:
                self._git(path, "", environ, lambda *_: None)
                return self._fail(fault, label, environ, start)
            return self._git(path, label, environ, start)
        headers: dict[str, str] = {
            "Content-Type": "application/json; charset=utf-8",
            "X-GitHub-Media-Type": "github.v3; format=json",
            "X-GitHub-Request-Id": secrets.token_hex(8).upper(),
        }
        try:
            answer = self._rest(path.removeprefix(API), environ, base, headers)
        except Refused as refused:
            answer = Answer(refused.body(), refused.status, refused.headers)
        except Exception:
            log.exception("GitHub: %s", label)
            answer = Answer({"message": "Server Error"}, 500)
        if fault:
            return self._fail(fault, label, environ, start)
        headers |= answer.headers
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        return self._send(label, answer.status, list(headers.items()), content, start)

    def _rest(
        self, path: str, environ: dict[str, Any], base: str, headers: dict[str, str]
    ) -> Answer:
        if not environ.get("HTTP_USER_AGENT"):
            raise Refused(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a "
                "User-Agent header",
            )
        actor = self.accounts.actor(environ.get("HTTP_AUTHORIZATION", ""))
        headers |= actor.headers()
        headers |= self.accounts.count(actor)
        version = environ.get("HTTP_X_GITHUB_API_VERSION", VERSIONS[0])
        if version not in VERSIONS:
            raise Refused(400, f"{version} is not a supported version.")
        headers["X-GitHub-Api-Version-Selected"] = version
        length = int(environ.get("CONTENT_LENGTH") or 0)
        text = environ["wsgi.input"].read(length) if length else b""
        try:
            body = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise Refused(400, "Problems parsing JSON") from error
        if not isinstance(body, dict):
            raise Refused(400, "Body should be a JSON object")
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        method = environ["REQUEST_METHOD"]
        return self.routes.answer(Request(actor, method, path, query, body, base), headers)

    def _git(
        self, path: str, label: str, environ: dict[str, Any], start: Callable[..., Any]
    ) -> Iterable[bytes]:
        found = GIT.match(path)
        plain = [("Content-Type", "text/plain")]
        if not found:
            return self._send(label, 404, plain, b"Not Found", start)
        pushes = found[3] == "git-receive-pack" or "receive-pack" in environ.get("QUERY_STRING", "")
        try:
            actor = self.accounts.actor(environ.get("HTTP_AUTHORIZATION", ""))
            record, more = self.routes.git_access(actor, f"{found[1]}/{found[2]}", pushes)
        except Refused as refused:
            if refused.status == 401:
                plain.append(("WWW-Authenticate", 'Basic realm="GitHub"'))
            return self._send(label, refused.status, plain, refused.message.encode(), start)
        status, headers, content = self.bare.serve(
            record["full_name"], found[3], environ, actor.login, more
        )
        if found[3] == "git-receive-pack":
            self.routes.pushed(record)
        return self._send(label, status, headers, content, start)

    def _fail(
        self, fault: Fault, label: str, environ: dict[str, Any], start: Callable[..., Any]
    ) -> Iterable[bytes]:
        if fault.status == 0:
            self.requests.append((label, 0))
            connection = environ["werkzeug.socket"]
            connection.shutdown(socket.SHUT_RDWR)
            return self._send("", 500, [], b"", start)
        body = json.dumps(Refused(fault.status, fault.message).body()).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", **fault.headers}
        return self._send(label, fault.status, list(headers.items()), body, start)

    def _send(
        self,
        label: str,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        start: Callable[..., Any],
    ) -> Iterable[bytes]:
        if label:
            self.requests.append((label, status))
            del self.requests[:-10_000]
        shown = [row for row in headers if row[0].lower() != "content-length"]
        if status != 204:
            shown.append(("Content-Length", str(len(content))))
        start(f"{status} {HTTPStatus(status).phrase}", shown)
        return [content] if status != 204 else []


class Standalone:
    """A GitHub on a port of its own, without an AWS beside it; a context manager."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        self.store = Store(folder)
        self.github = GitHub(self.store, folder / "git")
        self._http = make_server(
            "127.0.0.1", port, self._answer, threaded=True, request_handler=Quiet
        )

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        return mounted(self.github, environ, start)

    @property
    def url(self) -> str:
        """Return the address of this GitHub."""
        return f"http://127.0.0.1:{self._http.server_port}{PREFIX}"

    @property
    def api(self) -> str:
        """Return the address of its REST API."""
        return self.url + API

    def __enter__(self) -> Standalone:
        """Start answering."""
        threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="github", daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop answering."""
        self._http.shutdown()
        self._http.server_close()
        self.store.close()


def mounted(github: GitHub, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request to a path that begins with PREFIX."""
    path = environ["PATH_INFO"].removeprefix(PREFIX)
    return github({**environ, "SCRIPT_NAME": PREFIX, "PATH_INFO": path}, start)
