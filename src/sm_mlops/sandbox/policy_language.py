"""IAM's policy language: what a policy document says about one request.

Knows documents and a request's facts only, no service and no account. Source:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sm_mlops.sandbox.wire import not_implemented

Value = str | tuple[str, ...] | None
"""One value, several of a multivalued key, or None for a key that the request does not have."""
Tags = Callable[[], Mapping[str, str]]
Document = str | bytes | Mapping[str, Any]
VARIABLE = re.compile(r"\$\{([^}]*)\}")
MODERN = "2012-10-17"


class Facts:
    """A request's context keys, case-insensitive. Expensive values are looked up when asked for.

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
        return Facts({**self._values, **values}, {**self._tags, **(tags or {})})


@dataclass(frozen=True)
class Asked:
    """What a request asks for, and the names by which a resource policy may call its sender.

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
    """A statement with every member that may be one or several as a tuple."""

    allows: bool
    actions: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    principals: tuple[tuple[str, str], ...] | None
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    variables: bool


def said(document: Document, asked: Asked) -> Said:
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
    """Return the statements of a policy, none for an invalid one."""
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
    # In the old version ${...} is text; a document without a version comes from a test.
    variables = document.get("Version", MODERN) == MODERN
    given: Mapping[str, Any]
    for given in many(document.get("Statement")):
        for name in ("NotAction", "NotResource", "NotPrincipal"):
            if name in given:
                raise not_implemented(f"{name} in policies")
    return tuple(
        Statement(
            allows=given.get("Effect") == "Allow",
            actions=_texts(given, "Action"),
            resources=_texts(given, "Resource"),
            principals=_principals(given),
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
    """Return one or several values as a list, and None as an empty list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(given: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    return tuple(map(str, many(given[name]))) if name in given else None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _principals(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    found = given.get("Principal")
    if found is None:
        return None
    if not isinstance(found, Mapping):
        return (("AWS", str(found)),)
    return tuple((kind, str(one)) for kind, names in found.items() for one in many(names))


# One statement.


def _applies(statement: Statement, asked: Asked) -> str | None:
    """Return by which kind of name a statement matches a request, None if it does not."""
    action = asked.action.lower()
    if statement.actions is not None and not _any(action, statement.actions):
        return None
    if statement.resources is not None and not _resource(statement, statement.resources, asked):
        return None
    how = "own"
    if statement.principals is not None:
        named = _named(statement.principals, asked.names)
        if named is None:
            return None
        how = named
    for condition in statement.conditions:
        if not _holds(*condition, statement.variables, asked.facts):
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


# Stand-ins in a pattern for wildcard characters that are literal.
_LITERAL = {"*": "\ue000", "?": "\ue001"}
_PLAIN = {stand: char for char, stand in _LITERAL.items()}


def _escaped(text: str) -> str:
    return "".join(_LITERAL.get(char, char) for char in text)


def _any(text: str, patterns: Iterable[str]) -> bool:
    return any(_like(text, pattern.lower()) for pattern in patterns)


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


# An operator's name without Not: how it compares one value of the request with one of the policy.
_OPERATORS: dict[str, Compare] = {
    "StringEquals": operator.eq,
    "StringLike": _like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda fact, wanted: fact.lower() == wanted.lower(),
}
_NEGATIONS = {
    "StringNotEquals": "StringEquals",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


# Of these services, the context keys that requests of the sandbox have.
KEYS = {
    "cloudformation": ("createaction",),
    "kms": ("calleraccount", "grantisforawsresource", "viaservice"),
    "lambda": (),
    "s3": ("existingobjecttag", "prefix", "resourceaccount"),
    "sagemaker": ("modelapprovalstatus", "modelarn", "resourcetag", "taggingaction"),
    "secretsmanager": ("resourcetag",),
    "sns": ("endpoint", "protocol"),
}


def _check_key(key: str) -> None:
    service, _, name = key.partition(":")
    if service in KEYS and name.partition("/")[0] not in KEYS[service]:
        raise not_implemented(f"the condition key {key} in policies")


def _holds(
    operation: str, key: str, values: tuple[str, ...], variables: bool, facts: Facts
) -> bool:
    """Tell whether a condition holds. Raises ApiError for what the sandbox does not implement.

    Source:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    group, _, name = operation.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    _check_key(key)
    fact = facts.get(key)
    if name == "Null" and not group:
        return str(fact is None).lower() in [value.lower() for value in values]
    negative = name in _NEGATIONS
    name = _NEGATIONS.get(name, name)
    compare = _OPERATORS.get(name)
    if compare is None or group not in ("", "ForAllValues"):
        raise not_implemented(f"the condition operator {operation} in policies")
    if not fact and (fact is None or group):
        # ForAllValues holds for a key without values.
        return if_exists or bool(group) or negative
    patterns = name.endswith("Like") or name.startswith("Arn")
    wanted = [
        _filled(value, facts, literal=patterns) if variables and "${" in value else value
        for value in values
    ]

    def fits(one: str) -> bool:
        return any(value is not None and compare(one, value) for value in wanted)

    given = (fact,) if isinstance(fact, str) else fact or ()
    found = [fits(one) != negative for one in given]
    # Without ForAllValues a key with several values compares with nothing.
    return all(found) if group or len(found) == 1 else negative
