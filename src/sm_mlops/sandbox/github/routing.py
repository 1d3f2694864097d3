"""Requests to the REST API, and the table of routes that answer them. Knows no route itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sm_mlops.sandbox.github.accounts import Actor
from sm_mlops.sandbox.github.answers import Answer, Json, page

API = "/api/v3"
REPO = "/repos/{owner}/{repo}"
ENVIRONMENT = f"{REPO}/environments/{{environment}}"
ADMIN = {"role": "admin", "permission": ("administration", "write")}


@dataclass(frozen=True)
class Request:
    """One request: its sender and content. `base` is the address of this GitHub."""

    actor: Actor
    method: str
    path: str
    query: dict[str, str]
    body: Json
    base: str

    @property
    def api(self) -> str:
        return f"{self.base}{API}"


@dataclass(frozen=True)
class Needs:
    """What a route requires: the permission of fine-grained tokens and Apps, the role in the
    repository, the scope of classic tokens; `app` for routes that only an App may call."""

    permission: tuple[str, str] | None = None
    role: str = "read"
    scope: str = "repo"
    app: bool = False


ROUTES: list[tuple[str, re.Pattern[str], str, Needs]] = []


def route(method: str, path: str, **needs: Any) -> Callable[[Any], Any]:
    """Make a method of Routes answer a path; {name} stands for one part, {name*} for the rest."""
    pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", path)
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def mark(function: Any) -> Any:
        ROUTES.append((method, re.compile(pattern), function.__name__, Needs(**needs)))
        return function

    return mark


def counted(name: str, rows: list[Json], request: Request) -> Answer:
    """Return one page of a list, with the number of all rows and links to the other pages."""
    shown, headers = page(rows, request.query, f"{request.api}{request.path}")
    return Answer({"total_count": len(rows), name: shown}, 200, headers)
