"""Event patterns, matched and refused as EventBridge documents it. Knows no event bus.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html and the
pages below it on content filtering.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

LONGEST = 4096
TEXT_MATCHERS = ("prefix", "suffix", "equals-ignore-case", "wildcard")
NUMBERS = 5_000_000_000
COMPARISONS = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ABSENT = object()


class InvalidPattern(Exception):
    """Why EventBridge does not accept a pattern; one line."""


class Number(float):
    """A number of a JSON text. EventBridge compares how it is written: 300 is not 300.0."""

    text: str

    def __new__(cls, text: str) -> Number:
        """Return the number that a text shows."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def loads(text: str) -> Any:
    """Return what a JSON text holds, with every number as a Number."""
    return json.loads(text, parse_float=Number, parse_int=Number)


def parse(text: str) -> dict[str, Any]:
    """Return a pattern that is fit for `matches`. Raises InvalidPattern."""
    if len(text) > LONGEST:
        raise InvalidPattern(f"the pattern is longer than {LONGEST} characters")
    try:
        pattern = json.loads(text, parse_float=Number, parse_int=Number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidPattern(f"not JSON: {error}") from error
    _check_object(pattern, "the pattern")
    found: dict[str, Any] = pattern
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """Tell whether an event, read with `loads`, fits a pattern from `parse`."""
    # Of a list of objects, one object has to fit the whole pattern below it.
    if isinstance(event, list):
        return any(matches(pattern, each) for each in [*_flat(event)] or [None])
    members = event if isinstance(event, dict) else {}
    for name, wanted in pattern.items():
        if name == "$or" and isinstance(wanted, list):
            if not any(matches(each, members) for each in wanted):
                return False
        elif isinstance(wanted, dict):
            if not matches(wanted, members.get(name)):
                return False
        elif not _leaf(wanted, members.get(name, _ABSENT)):
            return False
    return True


def _leaf(wanted: list[Any], value: Any) -> bool:
    values = list(_flat(value)) if isinstance(value, list) else [value]
    # Objects and empty lists are no leaves: they count as absent.
    present = [each for each in values if each is not _ABSENT and not isinstance(each, dict)]
    for matcher in wanted:
        if isinstance(matcher, dict) and "exists" in matcher:
            if matcher["exists"] == bool(present):
                return True
        elif any(_one(matcher, each) for each in present):
            return True
    return False


def _one(matcher: Any, value: Any) -> bool:
    if not isinstance(matcher, dict):
        return _same(matcher, value)
    kind, given = next(iter(matcher.items()))
    if kind in TEXT_MATCHERS:
        return isinstance(value, str) and _text(kind, given, value)
    if kind == "anything-but":
        return not _but(given, value)
    if kind == "numeric":
        return isinstance(value, Number) and all(
            COMPARISONS[how](value, bound)
            for how, bound in zip(given[::2], given[1::2], strict=True)
        )
    try:  # cidr
        return isinstance(value, str) and ipaddress.ip_address(value) in ipaddress.ip_network(
            given, strict=False
        )
    except ValueError:
        return False


def _but(given: Any, value: Any) -> bool:
    if isinstance(given, dict):
        kind, texts = next(iter(given.items()))
        texts = texts if isinstance(texts, list) else [texts]
        return isinstance(value, str) and any(_text(kind, text, value) for text in texts)
    return any(_same(each, value) for each in (given if isinstance(given, list) else [given]))


def _text(kind: str, given: Any, value: str) -> bool:
    if isinstance(given, dict):  # {"prefix": {"equals-ignore-case": "..."}}
        given, value = given["equals-ignore-case"].lower(), value.lower()
    if kind == "prefix":
        return value.startswith(given)
    if kind == "suffix":
        return value.endswith(given)
    if kind == "equals-ignore-case":
        return bool(value.lower() == given.lower())
    return _covers(_wildcard(given), value)


def _covers(pieces: list[str], value: str) -> bool:
    """Tell whether a text is these pieces with anything in between.

    Each as early as it can be, so that no wildcard takes longer than its text is long; a regular
    expression with a dozen stars may take for ever.
    """
    if len(pieces) == 1:
        return value == pieces[0]
    first, *middle, last = pieces
    position, end = len(first), len(value) - len(last)
    for piece in middle:
        found = value.find(piece, position, max(end, 0))
        if found < 0:
            return False
        position = found + len(piece)
    return position <= end and value.startswith(first) and value.endswith(last)


def _wildcard(text: str) -> list[str]:
    """Return what stands between the stars of a wildcard; a backslash makes * and itself
    ordinary."""
    pieces, position = [""], 0
    while position < len(text):
        letter = text[position]
        if letter == "\\":
            if text[position + 1 : position + 2] not in ("*", "\\"):
                raise InvalidPattern(r"in a wildcard only \* and \\ may be escaped")
            position += 1
            pieces[-1] += text[position]
        elif letter == "*":
            if text[position + 1 : position + 2] == "*":
                raise InvalidPattern("a wildcard may not have * twice in a row")
            pieces.append("")
        else:
            pieces[-1] += letter
        position += 1
    return pieces


def _same(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, Number) and isinstance(value, Number):
        return wanted.text == value.text
    if isinstance(wanted, Number) or isinstance(value, Number):
        return False
    return type(wanted) is type(value) and bool(wanted == value)


def _flat(values: list[Any]) -> Iterator[Any]:
    for each in values:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


# What EventBridge refuses.


def _check_object(pattern: Any, where: str) -> None:
    if not isinstance(pattern, dict):
        raise InvalidPattern(f"{where} must be an object")
    if not pattern:
        raise InvalidPattern(f"{where} is empty")
    for name, wanted in pattern.items():
        if name == "$or":
            if not isinstance(wanted, list) or len(wanted) < 2:
                raise InvalidPattern('"$or" must be an array of two objects at least')
            for each in wanted:
                _check_object(each, "an element of $or")
        elif isinstance(wanted, dict):
            _check_object(wanted, f'"{name}"')
        elif not isinstance(wanted, list):
            raise InvalidPattern(f'"{name}" must be an object or an array')
        elif not wanted:
            raise InvalidPattern(f'Empty arrays are not allowed: "{name}"')
        else:
            for matcher in wanted:
                _check_matcher(matcher, name)


def _check_matcher(matcher: Any, name: str) -> None:
    if isinstance(matcher, list):
        raise InvalidPattern(f'the array of "{name}" may not hold an array')
    if not isinstance(matcher, dict):
        return
    if len(matcher) != 1:
        raise InvalidPattern(f'Only one key allowed in match expression of "{name}"')
    kind, given = next(iter(matcher.items()))
    if kind in TEXT_MATCHERS:
        _check_text(kind, given, nested=kind in ("prefix", "suffix"))
    elif kind == "exists":
        if not isinstance(given, bool):
            raise InvalidPattern("exists match pattern must be either true or false")
    elif kind == "numeric":
        _check_numeric(given)
    elif kind == "cidr":
        try:
            ipaddress.ip_network(given, strict=False)
        except ValueError as error:
            raise InvalidPattern(f"Malformed CIDR, one address and a mask: {given}") from error
    elif kind == "anything-but":
        _check_but(given)
    else:
        raise InvalidPattern(f"Unrecognized match type {kind}")


def _check_text(kind: str, given: Any, nested: bool) -> None:
    if nested and isinstance(given, dict) and list(given) == ["equals-ignore-case"]:
        given = given["equals-ignore-case"]
    if not isinstance(given, str):
        raise InvalidPattern(f"{kind} match pattern must be a string")
    if not given and kind in ("prefix", "suffix"):
        raise InvalidPattern(f"Null {kind} not allowed")
    if kind == "wildcard":
        _wildcard(given)


def _check_but(given: Any) -> None:
    if isinstance(given, dict):
        kind, texts = next(iter(given.items()), ("", None))
        if len(given) != 1 or kind not in TEXT_MATCHERS:
            raise InvalidPattern(f"Unsupported anything-but pattern: {kind}")
        for text in texts if isinstance(texts, list) else [texts]:
            _check_text(kind, text, nested=False)
        return
    values = given if isinstance(given, list) else [given]
    kinds = {type(each) for each in values}
    if len(kinds) != 1 or not kinds <= {str, Number}:
        raise InvalidPattern("anything-but takes strings or numbers, not both")


def _check_numeric(given: Any) -> None:
    if not isinstance(given, list) or len(given) not in (2, 4):
        raise InvalidPattern("numeric takes one comparison or two: an operator and a number each")
    for how, bound in zip(given[::2], given[1::2], strict=True):
        if how not in COMPARISONS:
            raise InvalidPattern(f"Unrecognized numeric range operator: {how}")
        if not isinstance(bound, Number) or abs(bound) > NUMBERS:
            raise InvalidPattern(f"numeric: a number of at most {NUMBERS} must follow {how}")
