"""The expression language of pipeline definitions: Get, Std:Join, Std:JsonGet, and conditions.

Pure functions over a Scope; knows neither jobs nor servers. definition.py has checked the names.
The language is the pipeline definition schema that AWS publishes
(https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from sm_mlops.sandbox.wire import as_text

FUNCTIONS = ("Get", "Std:Join", "Std:JsonGet")
EXECUTION_VARIABLES = (
    "PipelineName",
    "PipelineArn",
    "PipelineExecutionId",
    "PipelineExecutionArn",
    "StartDateTime",
    "CurrentDateTime",
)
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda left, right: bool(left == right),
    "GreaterThan": lambda left, right: bool(left > right),
    "GreaterThanOrEqualTo": lambda left, right: bool(left >= right),
    "LessThan": lambda left, right: bool(left < right),
    "LessThanOrEqualTo": lambda left, right: bool(left <= right),
}
_TOKEN = re.compile(r"""\.?([A-Za-z0-9_\-]+)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\]""")


class ExpressionError(Exception):
    """An expression that cannot be evaluated; the message is one line."""


@dataclass(frozen=True)
class Scope:
    """What expressions may refer to while an execution runs."""

    parameters: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, str] = field(default_factory=dict)
    properties: Callable[[str], Any] = lambda step: {}
    """Answer of Describe for a finished step."""
    property_file: Callable[[str, str], Any] = lambda step, name: {}
    """Parsed JSON of a step's property file."""


def is_expression(value: Any) -> bool:
    """Tell whether a JSON value is an expression rather than a literal."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    name = next(iter(value))
    return name == "Get" or name.startswith("Std:")


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every expression inside a JSON value, outermost first."""
    if is_expression(value):
        yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            yield from walk(child)


def references(value: Any) -> set[str]:
    """Return the names of the steps that a JSON value refers to."""
    return {
        split_get(expression["Get"])[1]
        for expression in walk(value)
        if isinstance(expression.get("Get"), str) and expression["Get"].startswith("Steps.")
    }


def split_get(path: str) -> tuple[str, str, list[str | int]]:
    """Split "Steps.Train.ModelArtifacts.S3ModelArtifacts" into (root, name, rest).

    In the rest a number is a list index, a string is a member or, on a list, the name of an item.
    Raises ExpressionError for anything else.
    """
    root, dot, rest = path.partition(".")
    if root not in ("Parameters", "Execution", "Steps") or not dot:
        raise ExpressionError(
            f"Get {path!r} must start with Parameters., Execution. or Steps. and name something"
        )
    tokens = split_path(rest)
    return root, str(tokens[0]), tokens[1:]


def split_path(path: str) -> list[str | int]:
    """Split a path such as `a.b['c'][0]` or `$.a.b` into members and indexes."""
    text = path.removeprefix("$")
    tokens: list[str | int] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"path {path!r} cannot be read at {text[position:]!r}")
        member, index, single, double = match.groups()
        tokens.append(int(index) if index is not None else member or single or double or "")
        position = match.end()
    if not tokens:
        raise ExpressionError(f"path {path!r} is empty")
    return tokens


def follow(value: Any, tokens: list[str | int], shown: str) -> Any:
    """Return what a path leads to; `shown` is how messages call the path."""
    for token in tokens:
        if isinstance(value, list):
            value = _item(value, token, shown)
        elif isinstance(value, dict) and str(token) in value:
            value = value[str(token)]
        else:
            raise ExpressionError(f"{shown} leads nowhere: there is no {token!r}")
    return value


def _item(items: list[Any], token: str | int, shown: str) -> Any:
    if isinstance(token, int):
        if token < len(items):
            return items[token]
        raise ExpressionError(f"{shown} leads nowhere: the list has {len(items)} items")
    # Outputs['train'] picks by the item's own name: OutputName, InputName, ChannelName...
    for item in items:
        if isinstance(item, dict) and any(
            name.endswith("Name") and value == token for name, value in item.items()
        ):
            return item
    raise ExpressionError(f"{shown} leads nowhere: no item is named {token!r}")


def resolve(value: Any, scope: Scope, shape: Shape | None = None) -> Any:
    """Return the value with every expression replaced by what it stands for.

    With `shape` (of the request that the value is for), results of expressions are converted to its
    type, as the service does: an Integer parameter may be used in a map of strings.
    """
    if is_expression(value):
        return _fit(evaluate(value, scope), shape)
    if isinstance(value, dict):
        return {name: resolve(v, scope, _member(shape, name)) for name, v in value.items()}
    if isinstance(value, list):
        inner = shape.member if isinstance(shape, ListShape) else None
        return [resolve(item, scope, inner) for item in value]
    return value


def _member(shape: Shape | None, name: str) -> Shape | None:
    if isinstance(shape, StructureShape):
        found: Shape | None = shape.members.get(name)
        return found
    return shape.value if isinstance(shape, MapShape) else None


def _fit(value: Any, shape: Shape | None) -> Any:
    kind = shape.type_name if shape is not None else None
    if kind == "string" and isinstance(value, bool | int | float):
        return as_text(value)
    if isinstance(value, str) and kind in ("integer", "long"):
        return int(value) if re.fullmatch(r"-?\d+", value) else value
    if isinstance(value, str) and kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def evaluate(expression: dict[str, Any], scope: Scope) -> Any:
    name, body = next(iter(expression.items()))
    if name == "Get":
        return _get(body, scope)
    if name == "Std:Join":
        return as_text(resolve(body.get("On", ""), scope)).join(
            as_text(resolve(item, scope)) for item in body["Values"]
        )
    return _json_get(body, scope)


def _get(path: str, scope: Scope) -> Any:
    root, name, rest = split_get(path)
    if root == "Parameters":
        return scope.parameters[name]
    if root == "Execution":
        return scope.execution[name]
    return follow(scope.properties(name), rest, path)


def _json_get(body: dict[str, Any], scope: Scope) -> Any:
    path = resolve(body["Path"], scope)
    _, step, rest = split_get(body["PropertyFile"]["Get"])
    name = str(rest[1])
    content = scope.property_file(step, name)
    return follow(content, split_path(path), f"{path} in property file {name} of step {step}")


def holds(condition: dict[str, Any], scope: Scope) -> bool:
    """Tell whether a condition is true. Raises ExpressionError when its sides cannot be
    compared."""
    kind = condition["Type"]
    left, right = (
        resolve(condition["LeftValue"], scope),
        resolve(condition["RightValue"], scope),
    )
    if not _comparable(left, right):
        raise ExpressionError(f"{kind} cannot compare {left!r} with {right!r}: types differ")
    return COMPARISONS[kind](left, right)


def _comparable(left: Any, right: Any) -> bool:
    def family(value: Any) -> str:
        if isinstance(value, bool):
            return "boolean"
        return "number" if isinstance(value, int | float) else type(value).__name__

    return family(left) == family(right)
