"""GitHub's answers and the wording of refusals. Knows no route.

Source: https://docs.github.com/en/rest/using-the-rest-api
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
DOCUMENTATION = "https://docs.github.com/rest"
LARGEST_PAGE = 100


class Refused(Exception):
    """An error answer: status, message, and more for the body and headers."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: list[Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.errors, self.headers = errors, headers or {}

    def body(self) -> Json:
        shown: Json = {"message": self.message}
        if self.errors is not None:
            shown["errors"] = self.errors
        return {**shown, "documentation_url": DOCUMENTATION, "status": str(self.status)}


@dataclass
class Answer:
    """A good answer."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def not_found() -> Refused:
    """Return the error for what does not exist or the caller may not see."""
    return Refused(404, "Not Found")


def not_implemented(what: str) -> Refused:
    """Return the error for what GitHub has and the sandbox does not: a route, a member."""
    return Refused(501, f"The sandbox does not implement GitHub's {what}")


def invalid(resource: str, name: str, code: str = "invalid", message: str = "") -> Refused:
    """Return a 422 about one field."""
    error: Json = {"resource": resource, "code": code, "field": name}
    if message:
        error["message"] = message
    return Refused(422, "Validation Failed", [error])


def malformed(problem: str) -> Refused:
    """Return a 422 about a body that does not fit the schema."""
    return Refused(422, f"Invalid request.\n\n{problem}")


def wanted(body: Json, **types: type | tuple[type, ...]) -> list[Any]:
    """Return members that a body must have. Raises Refused."""
    found = []
    for name, kind in types.items():
        if name not in body:
            raise malformed(f'"{name}" wasn\'t supplied.')
        value = body[name]
        if not isinstance(value, kind):
            raise malformed(f"For '{name}', {value!r} is not of the expected type.")
        found.append(value)
    return found


def page(rows: list[Any], query: dict[str, str], url: str) -> tuple[list[Any], dict[str, str]]:
    """Return one page of rows and the headers that lead to the others."""
    size = min(max(_number(query.get("per_page"), 30), 1), LARGEST_PAGE)
    number = max(_number(query.get("page"), 1), 1)
    last = max(-(-len(rows) // size), 1)
    links = []
    for name, target in (("next", number + 1), ("last", last)) if number < last else ():
        text = "&".join(f"{k}={v}" for k, v in {**query, "page": str(target)}.items())
        links.append(f'<{url}?{text}>; rel="{name}"')
    headers = {"Link": ", ".join(links)} if links else {}
    return rows[(number - 1) * size : number * size], headers


def _number(text: str | None, default: int) -> int:
    return int(text) if text and re.fullmatch(r"\d{1,9}", text) else default
