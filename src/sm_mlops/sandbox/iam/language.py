"""IAM's policy language: what a policy document says about one request.

Knows documents and a request's facts only, no service and no account. Source:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

Value = str | tuple[str, ...] | None
"""One value, several of a multivalued key, or None for a key that the request does not have."""
Tags = Callable[[], Mapping[str, str]]
Document = str | bytes | Mapping[str, Any]
VARIABLE = re.compile(r"\$\{([^}]*)\}")
MODERN = "2012-10-17"


class Facts:
    """A request's context keys, in any case. What is dear to find out is found out when asked for.

    `values` may hold functions; `tags` are functions that return tags, by the beginning of the key:
    "aws:resourcetag/" with {"project": "churn"}.
    """

    def __init__(
        self,
        values: Mapping[str, Value | Callable[[], Value]],
        tags: Mapping[str, Tags] | None = None,
    ) -> None:
        self._values = {key.lower(): value for key, value in values.items()}
        self._tags = dict(tags or {})

    def get(self, key: str) -> Value:
        """Return the value of a key, given in lower case."""
        found = self._values.get(key)
        if callable(found):
            found = self._values[key] = found()
        if found is not None or "/" not in key:
            return found
        beginning, _, name = key.partition("/")
        look = self._tags.get(f"{beginning}/")
        if look is None:
            return None
        tags = {tag.lower(): value for tag, value in look().items()}
        return tags.get(name)

    def with_(
        self,
        values: Mapping[str, Value | Callable[[], Value]],
        tags: Mapping[str, Tags] | None = None,
    ) -> Facts:
        """Return these facts and more."""
        return Facts({**self._values, **values}, {**self._tags, **(tags or {})})


@dataclass(frozen=True)
class Asked:
    """What a request asks for, and by which names a policy of a resource may call who asks.

    `names` maps each name to what it is: "direct" for the role, user or session itself, "account"
    for the account, "service", "federated".
    """

    action: str
    resource: str
    facts: Facts
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What a policy says: whether it denies, and whom it allows by which kind of name ("own" for a
    policy without principals)."""

    denied: bool = False
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Statement:
    """A statement with all that may be one or many as many."""

    allows: bool
    actions: tuple[str, ...] | None
    not_actions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    not_resources: tuple[str, ...] | None
    principals: tuple[tuple[str, str], ...] | None
    not_principals: tuple[tuple[str, str], ...] | None
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    variables: bool


def said(document: Document, asked: Asked) -> Said:
    """Return what a policy says about a request."""
    allowed = set()
    for statement in statements(document):
        how = _applies(statement, asked)
        if how is None:
            continue
        if not statement.allows:
            return Said(denied=True)
        allowed.add(how)
    return Said(allowed=frozenset(allowed))


def statements(document: Document) -> tuple[Statement, ...]:
    """Return the statements of a policy; none of what is no policy."""
    if isinstance(document, Mapping):
        return _statements(document)
    return _read(document.decode() if isinstance(document, bytes) else document)


@functools.lru_cache(maxsize=1024)
def _read(text: str) -> tuple[Statement, ...]:
    try:
        found = json.loads(unquote(text) if text.startswith("%7B") else text)
    except ValueError:
        return ()
    return _statements(found) if isinstance(found, dict) else ()


def _statements(document: Mapping[str, Any]) -> tuple[Statement, ...]:
    # Without the newer version ${...} is text; a document without any is one of the tests'.
    variables = document.get("Version", MODERN) == MODERN
    return tuple(
        Statement(
            allows=given.get("Effect") == "Allow",
            actions=_texts(given, "Action"),
            not_actions=_texts(given, "NotAction"),
            resources=_texts(given, "Resource"),
            not_resources=_texts(given, "NotResource"),
            principals=_principals(given, "Principal"),
            not_principals=_principals(given, "NotPrincipal"),
            conditions=tuple(
                (operation, key.lower(), tuple(_text(value) for value in many(values)))
                for operation, entries in (given.get("Condition") or {}).items()
                for key, values in entries.items()
            ),
            variables=variables,
        )
        for given in many(document.get("Statement"))
    )


def many(value: Any) -> list[Any]:
    """Return one or many as many, and nothing as none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(given: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    return tuple(map(str, many(given[name]))) if name in given else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _principals(given: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...] | None:
    if name not in given:
        return None
    if not isinstance(given[name], Mapping):
        return (("AWS", str(given[name])),)
    return tuple((kind, str(one)) for kind, names in given[name].items() for one in many(names))


# One statement.


def _applies(statement: Statement, asked: Asked) -> str | None:
    """Return by which kind of name a statement fits a request, None when it does not."""
    action = asked.action.lower()
    if statement.actions is not None and not _any(action, statement.actions, True):
        return None
    if statement.not_actions is not None and _any(action, statement.not_actions, True):
        return None
    if statement.resources is not None and not _resource(statement, statement.resources, asked):
        return None
    if statement.not_resources is not None and _resource(statement, statement.not_resources, asked):
        return None
    how = "own"
    if statement.principals is not None:
        named = _named(statement.principals, asked.names)
        if named is None:
            return None
        how = named
    if statement.not_principals is not None:
        if _named(statement.not_principals, asked.names) is not None:
            return None
        how = "anybody"
    for condition in statement.conditions:
        holds = _holds(*condition, statement.variables, asked.facts)
        # What is not understood neither allows anything nor lets a denial go.
        if holds is False or (holds is None and statement.allows):
            return None
    return how


def _named(principals: Iterable[tuple[str, str]], names: Mapping[str, str]) -> str | None:
    found = set()
    for kind, name in principals:
        if name == "*" and kind == "AWS":
            found.add("anybody")
        elif name in names and (names[name] in ("direct", "account")) == (kind == "AWS"):
            found.add(names[name])
    return next(
        (how for how in ("direct", "service", "federated", "anybody", "account") if how in found),
        None,
    )


def _resource(statement: Statement, patterns: tuple[str, ...], asked: Asked) -> bool:
    for pattern in patterns:
        if statement.variables and "${" in pattern:
            filled = _filled(pattern, asked.facts, literal=True)
            if filled is not None and _like(asked.resource, filled):
                return True
        elif _like(asked.resource, pattern):
            return True
    return False


def _filled(text: str, facts: Facts, literal: bool) -> str | None:
    """Return a text with its variables filled in, None where the request has no such value.

    `literal`: wildcards inside a value mean themselves, as they do in AWS's ${*}.
    """
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        if found[1] in ("*", "?", "$"):
            return _escaped(found[1]) if literal else found[1]
        name, comma, default = found[1].partition(",")
        fact = facts.get(name.strip().lower())
        if isinstance(fact, str):
            return _escaped(fact) if literal else fact
        if comma:
            return default.strip().strip("'")
        missing = True
        return ""

    filled = VARIABLE.sub(value, text)
    return None if missing else filled


# In a pattern these stand for a wildcard character that means itself.
_LITERAL = {"*": "\ue000", "?": "\ue001"}
_PLAIN = {stand: char for char, stand in _LITERAL.items()}


def _escaped(text: str) -> str:
    return "".join(_LITERAL.get(char, char) for char in text)


def _any(text: str, patterns: Iterable[str], ignore_case: bool) -> bool:
    return any(_like(text, p.lower() if ignore_case else p) for p in patterns)


def _like(text: str, pattern: str) -> bool:
    return pattern == "*" or text == pattern or _compiled(pattern).fullmatch(text) is not None


@functools.lru_cache(maxsize=8192)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": ".", **{stand: re.escape(char) for stand, char in _PLAIN.items()}}
    return re.compile("".join(parts.get(c) or re.escape(c) for c in pattern), re.DOTALL)


def _arn_like(text: str, pattern: str) -> bool:
    # A wildcard stays within one of an ARN's six parts.
    parts, patterns = text.split(":", 5), pattern.split(":", 5)
    return len(parts) == len(patterns) == 6 and all(map(_like, parts, patterns))


# Conditions.

Compare = Callable[[str, str], bool]


def _number(compare: Callable[[float, float], bool]) -> Compare:
    return lambda fact, wanted: compare(float(fact), float(wanted))


def _date(compare: Callable[[float, float], bool]) -> Compare:
    return lambda fact, wanted: compare(_moment(fact), _moment(wanted))


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _address(fact: str, wanted: str) -> bool:
    return ipaddress.ip_address(fact) in ipaddress.ip_network(wanted, strict=False)


# An operator's name without Not: how it compares one value of the request with one of the policy.
_OPERATORS: dict[str, Compare] = {
    "StringEquals": operator.eq,
    "StringEqualsIgnoreCase": lambda fact, wanted: fact.lower() == wanted.lower(),
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda fact, wanted: fact.lower() == wanted.lower(),
    "BinaryEquals": lambda fact, wanted: base64.b64decode(fact) == base64.b64decode(wanted),
    "NumericEquals": _number(operator.eq),
    "NumericLessThan": _number(operator.lt),
    "NumericLessThanEquals": _number(operator.le),
    "NumericGreaterThan": _number(operator.gt),
    "NumericGreaterThanEquals": _number(operator.ge),
    "DateEquals": _date(operator.eq),
    "DateLessThan": _date(operator.lt),
    "DateLessThanEquals": _date(operator.le),
    "DateGreaterThan": _date(operator.gt),
    "DateGreaterThanEquals": _date(operator.ge),
    "IpAddress": _address,
}
_NEGATIONS = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}


def _holds(
    operation: str, key: str, values: tuple[str, ...], variables: bool, facts: Facts
) -> bool | None:
    """Tell whether a condition holds, None when it is not understood. Source:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    group, _, name = operation.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    fact = facts.get(key)
    if name == "Null" and not group:
        return str(fact is None).lower() in [value.lower() for value in values]
    negative = name in _NEGATIONS
    name = _NEGATIONS.get(name, name)
    compare = _OPERATORS.get(name)
    if compare is None or group not in ("", "ForAllValues", "ForAnyValue"):
        return None
    if not fact and (fact is None or group):
        # Of no value, all have any property and none has one.
        return if_exists or group == "ForAllValues" or (negative and not group)
    patterns = name.endswith("Like") or name.startswith("Arn")
    wanted = [
        _filled(value, facts, literal=patterns) if variables and "${" in value else value
        for value in values
    ]

    def fits(one: str) -> bool:
        return any(value is not None and _compared(compare, one, value) for value in wanted)

    given = (fact,) if isinstance(fact, str) else fact or ()
    found = [fits(one) != negative for one in given]
    if group == "ForAnyValue":
        return any(found)
    # Without ForAll... or ForAny... a key with several values compares with nothing.
    return all(found) if group or len(found) == 1 else negative


def _compared(compare: Compare, fact: str, wanted: str) -> bool:
    try:
        return compare(fact, wanted)
    except ValueError:  # No number, date or address.
        return False
