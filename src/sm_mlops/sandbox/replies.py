"""HTTP answers in the form of WSGI. Knows no service."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from sm_mlops.sandbox.wire import ApiError

Start = Callable[..., Any]


def reply(
    start: Start, status: int, headers: dict[str, str] | None = None, body: bytes = b""
) -> Iterable[bytes]:
    shown = {"x-amzn-RequestId": secrets.token_hex(16), **(headers or {})}
    shown["Content-Length"] = str(len(body))
    start(f"{status} {HTTPStatus(status).phrase}", list(shown.items()))
    return [body]


def json_reply(start: Start, answer: Any, status: int = 200) -> Iterable[bytes]:
    """Answer with JSON, as AWS's JSON services do."""
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    return reply(start, status, headers, json.dumps(answer).encode())


def error_reply(start: Start, error: ApiError, xml: str = "") -> Iterable[bytes]:
    """Answer with an error in a form that clients of REST and JSON services accept.

    `xml` is the element of errors, for services that answer with XML.
    """
    if xml:
        inner = f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        inner = inner if xml == "Error" else f"<Error><Type>Sender</Type>{inner}</Error>"
        content = f"<{xml}>{inner}</{xml}>".encode()
        return reply(start, error.status, {"Content-Type": "text/xml"}, content)
    body = {"__type": error.code, "Type": "User", "Message": error.message}
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": error.code}
    text = json.dumps({**body, "message": error.message}).encode()
    return reply(start, error.status, headers, text)


def read(environ: dict[str, Any]) -> bytes:
    """Return the body of a request, which can be read again."""
    source, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
    chunked = environ.pop("HTTP_TRANSFER_ENCODING", "")
    body: bytes = source.read() if chunked else source.read(length)
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    return body
