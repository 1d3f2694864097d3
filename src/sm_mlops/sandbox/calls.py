"""Which operation a REST request to AWS asks for, and in what form its service answers errors.

Knows requests and botocore's models only.
"""

from __future__ import annotations

import functools
import re
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.exceptions import UnknownServiceError

from sm_mlops.sandbox import wire

# By the name a request is signed for, where botocore calls the service otherwise.
MODELS = {
    "monitoring": "cloudwatch",
    "email": "ses",
    "tagging": "resourcegroupstaggingapi",
}


def operation(service: str, environ: dict[str, Any]) -> str:
    """Return the name of a REST operation, "" when it is unknown."""
    return labeled(service, environ)[0]


def labeled(service: str, environ: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the name of a REST operation with the members in its path; ("", {}) if unknown."""
    path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if "smithy-protocol" in environ.get("HTTP_SMITHY_PROTOCOL", "") or "/operation/" in path:
        return path.rpartition("/")[2], {}
    best, labels, size = "", {}, -1
    for verb, pattern, needed, name in _routes(MODELS.get(service, service)):
        # Of several that fit, the one that says most is meant: PUT ?policy, not PUT.
        found = pattern.fullmatch(path) if verb == method and needed <= set(query) else None
        weight = 10 * len(needed) - pattern.groups
        if found and (weight > size or not best):
            best, labels, size = name, found.groupdict(), weight
    return best, {name: unquote(value) for name, value in labels.items()}


def queried(service: str, operation: str, environ: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a REST operation that are in its query."""
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    shape = wire.service_model(MODELS.get(service, service)).operation_model(operation).input_shape
    found: dict[str, Any] = {}
    for name, member in (shape.members if shape else {}).items():
        given = query.get(member.serialization.get("name", name))
        if given and member.serialization.get("location") == "querystring":
            found[name] = int(given[0]) if member.type_name == "integer" else given[0]
    return found


def xml(service: str, environ: dict[str, Any]) -> str:
    """Return the name of the XML element for a service's errors, "" for a JSON service."""
    if environ.get("HTTP_X_AMZ_TARGET") or environ.get("HTTP_SMITHY_PROTOCOL"):
        return ""
    try:
        protocol = wire.service_model(MODELS.get(service, service)).metadata["protocol"]
    except UnknownServiceError:
        return ""
    if service == "s3":
        return "Error"
    # A service may speak several; what is no target and no form is REST.
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    return "ErrorResponse" if form or protocol in ("query", "rest-xml") else ""


@functools.cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], frozenset[str], str]]:
    try:
        model = wire.service_model(service)
    except UnknownServiceError:
        return []
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http.get("requestUri", "/").partition("?")
        text = re.escape(path.rstrip("/") or "/")
        text = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", text)
        text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", text)
        pattern = re.compile(f"{text}/?" if text != "/" else "/")
        needed = frozenset(part.partition("=")[0] for part in query.split("&") if part)
        found.append((http.get("method", "POST"), pattern, needed, name))
    return found
