"""GitHub's entry point: checks, counts and answers requests.

A WSGI application below a prefix: <prefix>/api/v3/... is the REST API, as on GitHub Enterprise
Server, <prefix>/<owner>/<repo>.git what git talks to.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sm_mlops.sandbox.github.accounts import Accounts
from sm_mlops.sandbox.github.answers import Answer, Refused
from sm_mlops.sandbox.github.git import Bare
from sm_mlops.sandbox.github.routes import Routes
from sm_mlops.sandbox.github.routing import API as API
from sm_mlops.sandbox.github.routing import Request
from sm_mlops.sandbox.replies import read
from sm_mlops.sandbox.storage import Store

PREFIX = "/_github"
VERSIONS = ("2022-11-28", "2026-03-10")
GIT = re.compile(r"/([\w.-]+)/([\w.-]+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)$")
log = logging.getLogger(__name__)


class GitHub:
    """A GitHub with its state in a store and its repositories in a folder.

    `accounts` sets up users, organizations, tokens and Apps. `requests` holds past requests,
    newest last, without bodies and credentials: "PUT /repos/acme/churn/...", status.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.requests: list[tuple[str, int]] = []
        self.accounts = Accounts(store)
        self.bare = Bare(folder)
        self.routes = Routes(store, self.accounts, self.bare)

    def answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; SCRIPT_NAME holds the prefix."""
        path = environ["PATH_INFO"]
        base = f"http://{environ['HTTP_HOST']}{environ.get('SCRIPT_NAME', '')}"
        label = f"{environ['REQUEST_METHOD']} {path.removeprefix(API)}"
        if not path.startswith(API + "/"):
            return self._git(path, label, environ, start)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            answer = self._rest(path.removeprefix(API), environ, base, headers)
        except Refused as refused:
            answer = Answer(refused.body(), refused.status, refused.headers)
        except Exception:
            log.exception("GitHub: %s", label)
            answer = Answer({"message": "Server Error"}, 500)
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
        text = read(environ)
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

    def _send(
        self,
        label: str,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        start: Callable[..., Any],
    ) -> Iterable[bytes]:
        self.requests.append((label, status))
        del self.requests[:-10_000]
        shown = [row for row in headers if row[0].lower() != "content-length"]
        if status != 204:
            shown.append(("Content-Length", str(len(content))))
        start(f"{status} {HTTPStatus(status).phrase}", shown)
        return [content] if status != 204 else []


def mounted(github: GitHub, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"].removeprefix(PREFIX)
    return github.answer({**environ, "SCRIPT_NAME": PREFIX, "PATH_INFO": path}, start)
