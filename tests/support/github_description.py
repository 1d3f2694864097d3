"""GitHub's own description of its REST API as the judge of requests to the sandbox's GitHub, and of
its answers.

`github.json` beside this file holds the operations that the tool asks for, without prose, out of
https://github.com/github/rest-api-description. To renew it: `npm pack @octokit/openapi`, unpack it,
and `python tests/support/github_description.py package/generated/api.github.com.json`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from sm_mlops.sandbox.github import routes  # noqa: F401 # fills the table of routes
from sm_mlops.sandbox.github.routing import ROUTES

FILE = Path(__file__).with_name("github.json")
# github.com takes and shows it without describing it.
UNDESCRIBED = {"can_admins_bypass"}
# Of `mlops comment`; the sandbox has no issues.
COMMENTS = (
    "GET /repos/{}/{}/issues/{}/comments",
    "POST /repos/{}/{}/issues/{}/comments",
    "PATCH /repos/{}/{}/issues/comments/{}",
)
# What a schema says about values; the rest is prose.
KEPT = {
    *("type", "enum", "const", "properties", "items", "required", "nullable", "$ref", "pattern"),
    *("additionalProperties", "anyOf", "oneOf", "allOf", "not", "minimum", "maximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties"),
}


def template(path: str) -> str:
    """Return a path whose parameters have no names: the two sides name them differently."""
    return re.sub(r"\{[^}]*\}|\(\?P<\w+>[^)]*\)", "{}", path)


def operations() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield what is asked for, as "PUT /repos/{}/{}/..." and the pattern of its paths."""
    for method, pattern, _, _ in ROUTES:
        yield f"{method} {template(pattern.pattern)}", pattern
    for name in COMMENTS:
        yield name, re.compile(name.partition(" ")[2].replace("{}", "[^/]+"))


def _operation(method: str, path: str) -> str:
    path = re.sub(r"^/repositories/\d+", "/repos/owner/name", path.partition("?")[0])
    return next(
        (
            name
            for name, pattern in operations()
            if name.startswith(f"{method} ") and pattern.fullmatch(path)
        ),
        "",
    )


def asked(method: str, path: str, sent: Any) -> list[str]:
    """Return how a request differs from the description, whatever it is answered."""
    name = _operation(method, path)
    if not name:
        return [f"{method} {path}: not described"]
    if not (sent or described()[name]["required"]):
        return []
    return _violations(f"{name}: request", _validator(name, "request"), _known(sent))


def wrong(method: str, path: str, sent: Any, status: int, answer: Any) -> list[str]:
    """Return how an exchange differs from the description. Refusals are not described fully."""
    # A redirect answers for the place, not for the operation.
    if status >= 300:
        return []
    found, name = asked(method, path, sent), _operation(method, path)
    expected = described()[name]["answers"] if name else {str(status): {}}
    if str(status) not in expected:
        found.append(f"{name}: answers {status}, not one of {', '.join(expected)}")
    elif name and answer is not None:
        found += _violations(f"{name}: answer", _validator(name, str(status)), _known(answer))
    return found


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return [_known(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _known(each) for name, each in value.items() if name not in UNDESCRIBED}


def _violations(what: str, validator: Draft202012Validator, value: Any) -> list[str]:
    return [
        f"{what}: {error.json_path}: {error.message[:300]}"
        for error in validator.iter_errors(value)
    ]


@functools.cache
def _file() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def described() -> dict[str, Any]:
    """Return the operations of the description, by the names of `operations`."""
    found: dict[str, Any] = _file()["operations"]
    return found


@functools.cache
def _validator(name: str, part: str) -> Draft202012Validator:
    """Return the judge of a request, which has to be complete, or of an answer, which may lack what
    GitHub shows as well; neither may have what GitHub does not know."""
    operation, answers = described()[name], part != "request"
    schema = operation["answers"][part] if answers else operation["request"]
    schemas = {key: _strict(value, answers) for key, value in _file()["schemas"].items()}
    return Draft202012Validator({**_strict(schema, answers), "components": {"schemas": schemas}})


def _strict(schema: Any, answers: bool) -> Any:
    """Return a schema of OpenAPI as one of JSON Schema, its objects closed."""
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _strict(each, answers) for name, each in value.items()}
        elif key in ("items", "additionalProperties", "not"):
            made[key] = _strict(value, answers)
        elif key in ("anyOf", "oneOf"):
            # Without required members several alternatives may fit.
            name = "anyOf" if answers and key == "oneOf" else key
            made[name] = [_strict(each, answers) for each in value]
        elif not (key == "nullable" or (answers and key == "required")):
            made[key] = value
    if "properties" in made and "anyOf" not in made:
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def _trim(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_trim(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _trim(each) for name, each in value.items()}
        elif key in KEPT:
            found[key] = _trim(value)
    return found


def write(source: Path) -> None:
    """Write `github.json` out of GitHub's description."""
    whole = json.loads(source.read_text(encoding="utf-8"))
    paths = {template(path): operation for path, operation in whole["paths"].items()}
    made: dict[str, Any] = {}
    for name, _ in operations():
        method, _, path = name.partition(" ")
        operation = paths[path][method.lower()]
        body = operation.get("requestBody", {})
        made[name] = {
            "required": bool(body.get("required")),
            "request": _trim(_schema(body)),
            "answers": {
                code: _trim(_schema(_resolved(whole, answer)))
                for code, answer in operation["responses"].items()
                if code < "400"
            },
        }
    schemas: dict[str, Any] = {}
    waiting = _named(made)
    while waiting:
        name = waiting.pop()
        if name not in schemas:
            schemas[name] = _trim(whole["components"]["schemas"][name])
            waiting |= _named(schemas[name])
    content = {
        "source": f"github/rest-api-description {whole['info']['version']}, MIT license",
        "operations": made,
        "schemas": dict(sorted(schemas.items())),
    }
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _schema(body: dict[str, Any]) -> Any:
    return body.get("content", {}).get("application/json", {}).get("schema", {})


def _resolved(whole: Any, answer: dict[str, Any]) -> dict[str, Any]:
    name = answer.get("$ref", "").rpartition("/")[2]
    return dict(whole["components"]["responses"][name]) if name else answer


def _named(content: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(content)))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
