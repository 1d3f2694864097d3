"""The operation and members of a request to AWS, whatever protocol its service speaks.

Knows botocore's models only. Bodies that are read here can be read again.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from botocore.exceptions import UnknownServiceError

from sm_mlops.sandbox import calls, replies, wire
from sm_mlops.sandbox.runtime import PATH
from sm_mlops.sandbox.wire import Params

MODELS = {**calls.MODELS, "servicequotas": "service-quotas"}


def read(service: str, environ: dict[str, Any]) -> tuple[str, Params]:
    """Return operation and members; ("", {}) for what is not a request to this service."""
    invocation = PATH.match(environ.get("PATH_INFO", ""))
    if service == "sagemaker" and invocation:
        asynchronous = invocation[2] == "async-invocations"
        name = "InvokeEndpointAsync" if asynchronous else "InvokeEndpoint"
        return name, {"EndpointName": invocation[1]}
    prefix, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    if operation:
        # moto relies on this header, whatever the request was signed for.
        known = prefix == _prefix(service)
        return (operation, _json(replies.read(environ))) if known else ("", {})
    kind = environ.get("CONTENT_TYPE", "")
    query = environ.get("QUERY_STRING", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        form = _first(replies.read(environ).decode())
        return form.pop("Action", ""), tree(form)
    if "Action=" in query:
        form = _first(query)
        return form.pop("Action", ""), tree(form)
    operation, labels = calls.labeled(service, environ)
    if not operation:
        return "", {}
    queried = calls.queried(service, operation, environ)
    return operation, {**labels, **queried, **_json(replies.read(environ))}


def _prefix(service: str) -> str:
    try:
        return str(wire.service_model(MODELS.get(service, service)).metadata.get("targetPrefix"))
    except UnknownServiceError:
        return ""


def _first(form: str) -> dict[str, str]:
    # Of members that are given twice moto takes the first.
    return dict(reversed(parse_qsl(form, keep_blank_values=True)))


def _json(body: bytes) -> Params:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def tree(form: dict[str, str]) -> Params:
    """Return the members of a form of AWS's query protocol, whose names are paths: a list is
    Tags.member.1.Key, a map is Attributes.entry.1.key."""
    root: dict[str, Any] = {}
    for name, value in form.items():
        where = root
        *path, last = name.split(".")
        for part in path:
            following = where.setdefault(part, {})
            if not isinstance(following, dict):
                break
            where = following
        else:
            where[last] = value
    members = _plain(root)
    return members if isinstance(members, dict) else {}


def _plain(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if set(node) in ({"member"}, {"entry"}):
        return _plain(next(iter(node.values())))
    if node and all(name.isdigit() for name in node):
        return [_plain(node[name]) for name in sorted(node, key=int)]
    return {name: _plain(value) for name, value in node.items()}
