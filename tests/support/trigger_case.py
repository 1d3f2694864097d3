"""The modules of the platform's functions, loaded as Lambda does: by their own names, from their
folder; a server that answers like GitHub's, and an AWS in memory."""

from __future__ import annotations

import importlib
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

import github_description
from sm_mlops import platform

FOLDER = platform.FOLDER / "trigger"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))


@contextmanager
def functions() -> Iterator[SimpleNamespace]:
    """Yield the modules by name, as in a fresh instance of a function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        _forget()
        try:
            yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        finally:
            _forget()


def _forget() -> None:
    for name in NAMES:
        sys.modules.pop(name, None)


def replace(patch: pytest.MonkeyPatch, modules: SimpleNamespace, name: str, value: Any) -> None:
    """Replace what each module that has this name imported or defines by it."""
    for module in vars(modules).values():
        assert isinstance(module, ModuleType)
        if hasattr(module, name):
            patch.setattr(module, name, value)


class GitHub:
    """Answers from `answers`, the last one repeatedly; remembers requests, and in `wrong` how
    those to GitHub's API differ from its description."""

    def __init__(self, wrong: list[str]) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = [(204, {}, b"")]
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                github.requests.append((self.path, dict(self.headers), body))
                if not self.path.startswith("/jenkins/"):
                    wrong.extend(github_description.asked("POST", self.path, json.loads(body)))
                answers = github.answers
                status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        # It looks that often whether it is to end.
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


class Aws:
    """Clients of an account in memory, whose requests botocore's models judge.

    `objects` is the bucket; `answers` has an answer, an error's code, or what makes one of a
    request, by operation.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, datetime] = {}
        self.answers: dict[str, Any] = {}
        self.published: list[dict[str, str]] = []

    def client(self, service: str) -> SimpleNamespace:
        names = {botocore.xform_name(name): name for name in _model(service).operation_names}
        return SimpleNamespace(
            **{own: self._operation(service, name) for own, name in names.items()}
        )

    def _operation(self, service: str, name: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            validate_parameters(request, _model(service).operation_model(name).input_shape)
            own = getattr(self, f"_{botocore.xform_name(name)}", None)
            answer = own(name, request) if own else self.answers[name]
            answer = answer(request) if callable(answer) else answer
            if isinstance(answer, str):
                message = "it does not exist" if answer == "ValidationException" else "no"
                raise ClientError({"Error": {"Code": answer, "Message": message}}, name)
            return answer

        return call

    def _put_object(self, _: str, request: dict[str, Any]) -> Any:
        key, there = request["Key"], self.objects.get(request["Key"])
        if request.get("IfNoneMatch") and there is not None:
            return "PreconditionFailed"
        if "IfMatch" in request and request["IfMatch"] != str(hash(there)):
            return "PreconditionFailed"
        self.objects[key] = request["Body"]
        return {}

    def _get_object(self, _: str, request: dict[str, Any]) -> Any:
        body = self.objects.get(request["Key"])
        if body is None:
            return "NoSuchKey"
        written = self.written.get(request["Key"], datetime.now(UTC))
        return {"Body": io.BytesIO(body), "ETag": str(hash(body)), "LastModified": written}

    def _delete_object(self, _: str, request: dict[str, Any]) -> Any:
        self.objects.pop(request["Key"], None)
        return {}

    def _list_objects_v2(self, _: str, request: dict[str, Any]) -> Any:
        start = request["Prefix"]
        names = {k[len(start) :].split("/")[0] for k in self.objects if k.startswith(start)}
        found = sorted(f"{start}{name}/" for name in names)
        found = [name for name in found if name > request.get("StartAfter", "")]
        most = request.get("MaxKeys", 1000)
        page = [{"Prefix": name} for name in found[:most]]
        return {"CommonPrefixes": page, "IsTruncated": len(found) > most}

    def check(
        self, end: datetime, status: str = "violation", written: datetime | None = None, **more: str
    ) -> None:
        """Keep the result of a check of a day that ends at `end`, in production of churn."""
        window = {"start": (end - timedelta(days=1)).isoformat(), "end": end.isoformat()}
        result = {"status": status, "window": window, "digest": "0a", "message": status, **more}
        key = f"churn/monitor/production/{end:%Y-%m-%dT%HZ}/result.json"
        self.objects[key] = json.dumps(result).encode()
        self.written[key] = written or end

    def _publish(self, _: str, request: dict[str, Any]) -> Any:
        if "Publish" in self.answers:
            return self.answers["Publish"]
        self.published.append(request)
        return {"MessageId": "1"}
