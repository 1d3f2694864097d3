"""Values of a template's parameters: defaults, previous values, types and constraints.

Knows the language only; who looks up SSM parameters is told by the caller. Wording of errors:
CloudFormation's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox.cloudformation.template import Json, Template, invalid
from sm_mlops.sandbox.wire import Params

SSM_VALUE = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
HIDDEN = "****"
AWS_TYPES = re.compile(r"AWS::(EC2|Route53|SSM)::[A-Za-z:]+")
# What AWS checks by looking for the thing itself is checked here by the form of its name.
FORMS = {
    "AWS::EC2::Subnet::Id": r"subnet-[0-9a-f]{8,17}",
    "AWS::EC2::SecurityGroup::Id": r"sg-[0-9a-f]{8,17}",
    "AWS::EC2::VPC::Id": r"vpc-[0-9a-f]{8,17}",
}


def bind(
    template: Template,
    given: list[Params],
    previous: dict[str, str] | None,
    ssm: Callable[[str], str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters' values as text, and those that SSM parameters stand for.

    `previous` are the values of the stack to be updated, None when it is new; `ssm` returns the
    value of an SSM parameter and raises ApiError. Raises ApiError (ValidationError).
    """
    unknown = [p["ParameterKey"] for p in given if p["ParameterKey"] not in template.parameters]
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values: dict[str, str] = {}
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
    missing = []
    for name, declared in template.parameters.items():
        if name not in values:
            if "Default" in declared:
                values[name] = _text(declared["Default"])
            else:
                missing.append(name)
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    resolved = {}
    for name, declared in template.parameters.items():
        _check(name, declared, values[name])
        if SSM_VALUE.fullmatch(declared["Type"]):
            resolved[name] = ssm(values[name])
    return {name: values[name] for name in template.parameters}, resolved


def value(declared: Json, text: str) -> Any:
    """Return what a Ref to a parameter gives: text, or a list of texts."""
    kind = _kind(declared)
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        # Of an empty text, too: one empty item, as AWS has it.
        return [item.strip() for item in text.split(",")]
    return text


def _kind(declared: Json) -> str:
    kind = str(declared["Type"])
    match = SSM_VALUE.fullmatch(kind)
    return match[1] if match else kind


def _check(name: str, declared: Json, text: str) -> None:
    kind = declared["Type"]
    base = kind.removeprefix("List<").removesuffix(">")
    if base not in ("String", "Number", "CommaDelimitedList") and not AWS_TYPES.match(base):
        raise invalid(f"Template format error: Unrecognized parameter type: {kind}")
    items = [text]
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        items = [item.strip() for item in text.split(",")]
    described = declared.get("ConstraintDescription")

    def refuse(constraint: str) -> None:
        if described:
            raise invalid(f"Parameter '{name}' failed to satisfy constraint: {described}")
        raise invalid(f"Parameter '{name}' {constraint}")

    allowed = declared.get("AllowedValues")
    for item in items:
        if base == "Number" and not _is_number(item):
            raise invalid(f"Parameter '{name}' must be a number")
        if allowed is not None and item not in [_text(one) for one in allowed]:
            refuse("must be one of AllowedValues")
        if base in FORMS and not re.fullmatch(FORMS[base], item):
            raise invalid(
                f"Parameter validation failed: parameter value {item} for parameter "
                f"name {name} does not exist"
            )
        if base == "Number":
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


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
