"""Event patterns, matched and refused as EventBridge documents it. Knows no event bus.

Only what our rules use: objects, and lists of which one string must be equal or end a text. Source:
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sm_mlops.sandbox.wire import not_implemented

LONGEST = 4096


class InvalidPattern(Exception):
    """Why EventBridge does not accept a pattern; one line."""


def parse(text: str) -> dict[str, Any]:
    """Return a pattern that is fit for `matches`. Raises InvalidPattern, or ApiError for what
    EventBridge takes and the sandbox does not implement."""
    if len(text) > LONGEST:
        raise InvalidPattern(f"the pattern is longer than {LONGEST} characters")
    try:
        pattern = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidPattern(f"not JSON: {error}") from error
    _check_object(pattern, "the pattern")
    found: dict[str, Any] = pattern
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """Tell whether an event fits a pattern from `parse`."""
    # Of a list of objects, one object has to fit the whole pattern below it.
    if isinstance(event, list):
        return any(matches(pattern, each) for each in _flat(event))
    members = event if isinstance(event, dict) else {}
    for name, wanted in pattern.items():
        if isinstance(wanted, dict):
            if not matches(wanted, members.get(name)):
                return False
        elif not any(_fits(value, wanted) for value in _texts(members.get(name))):
            return False
    return True


def _fits(text: str, wanted: list[Any]) -> bool:
    ends = (each["suffix"] for each in wanted if isinstance(each, dict))
    return text in wanted or any(text.endswith(end) for end in ends)


def _texts(value: Any) -> Iterator[str]:
    for each in _flat(value) if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield each


def _flat(values: list[Any]) -> Iterator[Any]:
    for each in values:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


def _check_object(pattern: Any, where: str) -> None:
    if not isinstance(pattern, dict):
        raise InvalidPattern(f"{where} must be an object")
    if not pattern:
        raise InvalidPattern(f"{where} is empty")
    for name, wanted in pattern.items():
        if name == "$or":
            raise not_implemented("$or in event patterns")
        if isinstance(wanted, dict):
            _check_object(wanted, f'"{name}"')
        elif not isinstance(wanted, list):
            raise InvalidPattern(f'"{name}" must be an object or an array')
        elif not wanted:
            raise InvalidPattern(f'Empty arrays are not allowed: "{name}"')
        else:
            for value in wanted:
                if not isinstance(value, str) and not _is_suffix(value):
                    raise not_implemented(f"{json.dumps(value)} in event patterns")


def _is_suffix(value: Any) -> bool:
    return (
        isinstance(value, dict) and list(value) == ["suffix"] and isinstance(value["suffix"], str)
    )
