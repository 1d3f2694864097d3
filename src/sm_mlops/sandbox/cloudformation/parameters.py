"""Values of a template's parameters: defaults, previous values, types and constraints.

Knows the language only. Wording of errors: CloudFormation's.
"""

from __future__ import annotations

import re
from typing import Any

from sm_mlops.sandbox.cloudformation.template import Json, Template, invalid
from sm_mlops.sandbox.wire import Params, as_text, not_implemented

HIDDEN = "****"
TYPES = ("String", "Number", "CommaDelimitedList")
OF_AWS = re.compile(r"List<Number>|(List<)?AWS::[A-Za-z0-9:]+(<.+>)?>?")


def bind(
    template: Template,
    given: list[Params],
    previous: dict[str, str] | None,
) -> dict[str, str]:
    """Return the parameters' values as text.

    `previous` are the values of the stack to be updated, None when it is new. Raises ApiError
    (ValidationError).
    """
    unknown = [p["ParameterKey"] for p in given if p["ParameterKey"] not in template.parameters]
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {
        name: as_text(declared["Default"])
        for name, declared in template.parameters.items()
        if "Default" in declared
    }
    for parameter in given:
        name = parameter["ParameterKey"]
        if parameter.get("UsePreviousValue"):
            if "ParameterValue" in parameter:
                raise invalid(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as "
                    "true and non empty value for a parameter"
                )
            if previous is None:
                raise invalid(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as "
                    "true for a parameter key not in the previous template"
                )
            if name in previous:
                values[name] = previous[name]
        elif "ParameterValue" in parameter:
            values[name] = parameter["ParameterValue"]
    missing = [name for name in template.parameters if name not in values]
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for name, declared in template.parameters.items():
        _check(name, declared, values[name])
    return {name: values[name] for name in template.parameters}


def value(declared: Json, text: str) -> Any:
    """Return what a Ref to a parameter gives: text, or a list of texts."""
    if declared["Type"] == "CommaDelimitedList":
        # An empty text is a list with one empty item, as on AWS.
        return [item.strip() for item in text.split(",")]
    return text


def _check(name: str, declared: Json, text: str) -> None:
    kind = declared["Type"]
    if kind not in TYPES and OF_AWS.fullmatch(kind):
        raise not_implemented(f"parameters of type {kind}", "ValidationError")
    if kind not in TYPES:
        raise invalid(f"Template format error: Unrecognized parameter type: {kind}")
    items = [item.strip() for item in text.split(",")] if kind == TYPES[2] else [text]
    described = declared.get("ConstraintDescription")

    def refuse(constraint: str) -> None:
        if described:
            raise invalid(f"Parameter '{name}' failed to satisfy constraint: {described}")
        raise invalid(f"Parameter '{name}' {constraint}")

    allowed = declared.get("AllowedValues")
    for item in items:
        if kind == "Number" and not _is_number(item):
            raise invalid(f"Parameter '{name}' must be a number")
        if allowed is not None and item not in [as_text(one) for one in allowed]:
            refuse("must be one of AllowedValues")
        if kind == "Number":
            if "MinValue" in declared and float(item) < float(declared["MinValue"]):
                refuse(f"must be a number not less than {declared['MinValue']}")
            if "MaxValue" in declared and float(item) > float(declared["MaxValue"]):
                refuse(f"must be a number not greater than {declared['MaxValue']}")
        pattern = declared.get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, item):
            refuse(f"must match pattern {pattern}")
    if "MinLength" in declared and len(text) < int(declared["MinLength"]):
        refuse(f"must contain at least {declared['MinLength']} characters")
    if "MaxLength" in declared and len(text) > int(declared["MaxLength"]):
        refuse(f"must contain at most {declared['MaxLength']} characters")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
