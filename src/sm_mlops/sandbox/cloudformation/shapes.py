"""The form of a template: the members of each section and their types.

Knows neither functions nor resource types. Wording of errors: CloudFormation's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox.wire import ApiError

Json = dict[str, Any]
Check = Callable[[Any], bool]


def invalid(message: str) -> ApiError:
    """Return the error that CloudFormation answers to a bad request."""
    return ApiError("ValidationError", message)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _anything(value: Any) -> bool:
    return True


def _number(value: Any) -> bool:
    return _scalar(value) and re.fullmatch(r"-?\d+(\.\d+)?([eE]\d+)?", str(value)) is not None


def _whole(value: Any) -> bool:
    return _scalar(value) and str(value).isdecimal()


def _pattern(value: Any) -> bool:
    try:
        return _text(value) and re.compile(value) is not None
    except re.error:
        return False


def _texts(value: Any) -> bool:
    return _text(value) or (isinstance(value, list) and all(map(_text, value)))


def _scalars(value: Any) -> bool:
    return isinstance(value, list) and all(map(_scalar, value))


def _properties(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return not (len(value) == 1 and next(iter(value)).startswith(("Fn::", "Ref")))


def _export(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["Name"]


def _assertions(value: Any) -> bool:
    known = {"Assert", "AssertDescription"}
    return isinstance(value, list) and all(
        isinstance(each, dict) and "Assert" in each and set(each) <= known for each in value
    )


# Sections: the checks of a member's members, and the required one.
MEMBERS: dict[str, tuple[dict[str, Check], str]] = {
    "Parameters": (
        {
            "Type": _text,
            "Default": _scalar,
            "AllowedPattern": _pattern,
            "AllowedValues": _scalars,
            "ConstraintDescription": _text,
            "Description": _text,
            "MaxLength": _whole,
            "MaxValue": _number,
            "MinLength": _whole,
            "MinValue": _number,
            "NoEcho": _scalar,
        },
        "Type",
    ),
    "Rules": ({"RuleCondition": _object, "Assertions": _assertions}, "Assertions"),
    "Resources": (
        {
            "Type": _text,
            "Properties": _properties,
            "DependsOn": _texts,
            "Condition": _text,
            "Metadata": _anything,
            "DeletionPolicy": _text,
            "UpdateReplacePolicy": _text,
        },
        "Type",
    ),
    "Outputs": (
        {"Value": _anything, "Description": _text, "Condition": _text, "Export": _export},
        "Value",
    ),
}


def check(template: Json) -> None:
    """Refuse a template with a wrong form. Raises ApiError (ValidationError)."""
    if not _text(template.get("Description") or ""):
        raise invalid("Template format error: Description must be a string.")
    for section in ("Metadata", "Mappings", "Conditions", *MEMBERS):
        if not _object(template.get(section) or {}):
            raise invalid(f"Template format error: {section} must be an object.")
    for section, (members, needed) in MEMBERS.items():
        for name, member in (template.get(section) or {}).items():
            _check_member(section, name, member, members, needed)
    for name, condition in (template.get("Conditions") or {}).items():
        if not _object(condition):
            raise invalid(f"Template format error: Conditions/{name} must be an object.")


def _check_member(
    section: str, name: str, member: Any, members: dict[str, Check], needed: str
) -> None:
    if not _object(member):
        raise invalid(f"Template format error: Any {section} member must be an object.")
    if member.get(needed) is None:
        what = "member must contain a Value object"
        if needed != "Value":
            what = f"object must contain a {needed} member."
        raise invalid(f"Template format error: [/{section}/{name}] Every {section} {what}")
    noun = section.lower().removesuffix("s")
    for key, value in member.items():
        if key not in members:
            raise invalid(f"Invalid template {noun} property '{key}'")
        if value is not None and not members[key](value):
            raise invalid(
                f"Template format error: [/{section}/{name}/{key}] is not of the form that it must "
                "have."
            )
    for key in [key for key, value in member.items() if value is None]:
        raise invalid(f"[/{section}/{name}/{key}] 'null' values are not allowed in templates")
