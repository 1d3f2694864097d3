"""What AWS's protocols share: requests checked against botocore's models, errors as the services
word them.

Knows the published service models only, nothing of what an operation does.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import regex
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

Params = dict[str, Any]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Caller:
    """The account and region that a request was signed for, and its access key."""

    account: str
    region: str
    access_key: str

    def arn(self, resource: str, service: str = "sagemaker") -> str:
        """Return the ARN of a resource of this account and region."""
        return f"arn:{partition(self.region)}:{service}:{self.region}:{self.account}:{resource}"


def partition(region: str) -> str:
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


class ApiError(Exception):
    """An error answer of the API: code, one-line message, HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


def invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)


def not_implemented(what: str, code: str = "NotImplemented") -> ApiError:
    """Return the error for what AWS has and the sandbox does not: an operation, a resource type, a
    function. `code` is the one that the service's clients expect of a request it cannot serve."""
    return ApiError(code, f"The sandbox does not implement {what}")


def missing(message: str) -> ApiError:
    return ApiError("ResourceNotFound", message)


@functools.cache
def service_model(service: str = "sagemaker") -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def input_shape(operation: str, service: str = "sagemaker") -> StructureShape:
    shape = service_model(service).operation_model(operation).input_shape
    assert isinstance(shape, StructureShape)
    return shape


def check(operation: str, params: Params, service: str = "sagemaker") -> None:
    """Refuse a request that does not match the model: types, required members, lengths, patterns,
    enums.

    botocore's client checks types and required members only; the service checks all of it, so the
    sandbox does. Raises ApiError with the service's wording.
    """
    found: list[str] = []
    _check(params, input_shape(operation, service), "", found)
    if found:
        noun = "error" if len(found) == 1 else "errors"
        raise invalid(f"{len(found)} validation {noun} detected: {'; '.join(found)}")


_PYTHON = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": (int, float, str),
    "structure": dict,
    "map": dict,
    "list": list,
    "blob": str,
}


def _check(value: Any, shape: Shape, path: str, found: list[str]) -> None:
    def wrong(constraint: str) -> None:
        shown = json.dumps(value)[:200]
        found.append(
            f"Value {shown} at '{path or 'request'}' failed to satisfy constraint: {constraint}"
        )

    kind = shape.type_name
    expected: Any = _PYTHON[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean"):
        return wrong(f"Member must be of type {kind}")
    if isinstance(shape, StructureShape):
        for name in shape.required_members:
            if name not in value:
                found.append(
                    f"Value null at '{_join(path, name)}' failed to satisfy constraint: "
                    "Member must not be null"
                )
        for name, member in value.items():
            if name in shape.members:
                _check(member, shape.members[name], _join(path, name), found)
            else:
                found.append(f"Unknown member '{_join(path, name)}'")
    elif isinstance(shape, MapShape):
        for name, member in value.items():
            _check(name, shape.key, f"{path}.key", found)
            _check(member, shape.value, _join(path, name), found)
    elif isinstance(shape, ListShape):
        for index, member in enumerate(value):
            _check(member, shape.member, f"{path}[{index}]", found)
    _check_limits(value, shape, wrong)


def _check_limits(value: Any, shape: Shape, wrong: Callable[[str], None]) -> None:
    limits = shape.metadata
    if "enum" in limits and value not in limits["enum"]:
        wrong(f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]")
    if isinstance(value, bool) or shape.type_name == "timestamp":
        return
    size, unit = (len(value), "length ") if hasattr(value, "__len__") else (value, "value ")
    if "min" in limits and size < limits["min"]:
        wrong(f"Member must have {unit}greater than or equal to {limits['min']}")
    if "max" in limits and size > limits["max"]:
        wrong(f"Member must have {unit}less than or equal to {limits['max']}")
    pattern = limits.get("pattern")
    if (
        pattern
        and isinstance(value, str)
        and not java_pattern(pattern, regex.DOTALL).fullmatch(value)
    ):
        wrong(f"Member must satisfy regular expression pattern: {pattern}")


# Java's spelling of all characters beyond the first 65,536.
_BEYOND = r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"


@functools.cache
def java_pattern(pattern: str, flags: int = 0) -> regex.Pattern[str]:
    """Return a pattern of AWS's models and schemas, which are Java's, with `\\p{L}` and `&&`."""
    return regex.compile(pattern.replace(*_BEYOND), flags | regex.VERSION1)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def page(rows: list[Row], params: Params, default: int = 10) -> tuple[list[Row], Params]:
    """Return one page of rows, and the NextToken to answer with (an empty dict on the last
    page)."""
    start = 0
    if params.get("NextToken"):
        try:
            start = int(base64.urlsafe_b64decode(params["NextToken"]).decode())
        except ValueError as error:
            raise invalid("Invalid pagination token") from error
    end = start + int(params.get("MaxResults") or default)
    if end >= len(rows):
        return rows[start:], {}
    return rows[start:end], {"NextToken": base64.urlsafe_b64encode(str(end).encode()).decode()}


def only(operation: str, params: Params, *names: str) -> None:
    """Raise ApiError for members of a request that the sandbox does not implement."""
    for name in sorted(set(params) - set(names)):
        raise not_implemented(f"sagemaker:{operation} with {name}")


def listed(
    operation: str, rows: list[Row], params: Params, *filters: str, ascending: bool = False
) -> tuple[list[Row], Params]:
    """Return one page of rows by creation time, and the NextToken to answer with.

    `rows` come as they were created; `ascending` is the operation's order unless asked otherwise.
    """
    only(operation, params, *filters, "SortBy", "SortOrder", "MaxResults", "NextToken")
    if params.get("SortBy", "CreationTime") != "CreationTime":
        raise not_implemented(f"sagemaker:{operation} with SortBy {params['SortBy']}")
    first = params.get("SortOrder", "Ascending" if ascending else "Descending")
    return page(rows if first == "Ascending" else rows[::-1], params)


def moment(seconds: float) -> str:
    """Return a time in ISO 8601, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def as_text(value: Any) -> str:
    """Return a scalar as pipelines and CloudFormation show it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def pick(record: Params, *names: str) -> Params:
    return {name: record[name] for name in names if record.get(name) is not None}


def public(record: Params) -> Params:
    return {name: value for name, value in record.items() if not name.startswith("_")}


def service_operations(service: str = "sagemaker") -> list[str]:
    return list(service_model(service).operation_names)


def snake_case(operation: str) -> str:
    """Return an operation's name as a method's: CreateTrainingJob, create_training_job."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", operation).lower()
