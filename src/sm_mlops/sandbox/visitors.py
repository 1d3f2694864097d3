"""Which requests the server listens to: none that a web page makes a browser send.

A page may send simple requests to any address, and may give its own name this machine's address
(DNS rebinding). A browser then says so, in Host, Origin or Sec-Fetch-Site.
"""

from __future__ import annotations

from typing import Any

from sm_mlops.sandbox.wire import ApiError

NAMES = ("127.0.0.1", "localhost", "[::1]")


def refusal(environ: dict[str, Any]) -> ApiError | None:
    """Return the error for a visitor's request, None for one to answer."""
    host = environ.get("HTTP_HOST", "")
    if host not in [f"{name}:{environ['SERVER_PORT']}" for name in NAMES]:
        return ApiError("MisdirectedRequest", "unknown Host header", 421)
    own = f"http://{host}"
    site = environ.get("HTTP_SEC_FETCH_SITE", "none")
    if environ.get("HTTP_ORIGIN", own) != own or site not in ("none", "same-origin"):
        return ApiError("AccessDenied", "requests from web pages are refused", 403)
    if not (environ.get("CONTENT_LENGTH") or "0").isdecimal():
        return ApiError("SerializationException", "Content-Length")
    return None
