"""The expressions of GitHub Actions, as far as the rendered workflows use them: properties, text,
numbers, == != && || ! and the four functions of status. Everything else is refused.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

STATUS = ("success", "failure", "always", "cancelled")
TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<sign>==|!=|&&|\|\||[!().])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_-]*))"
)
Functions = Mapping[str, Callable[[], bool]]


class Unsupported(Exception):
    """A workflow holds something that is not known here, or that GitHub does not know either."""


class Known(dict[str, Any]):
    """A context whose properties are all known; any other is a mistake, not an empty text."""


def interpolate(text: str, contexts: Mapping[str, Any]) -> str:
    """Return `text` with its `${{ }}` evaluated. Raises Unsupported."""
    done = re.sub(
        r"\$\{\{(.*?)\}\}", lambda found: as_text(evaluate(found[1], contexts)), text, flags=re.S
    )
    if "${{" in re.sub(r"\$\{\{.*?\}\}", "", text, flags=re.S):
        raise Unsupported(f"an expression does not end: {text}")
    return done


def holds(condition: str, contexts: Mapping[str, Any], functions: Functions) -> bool:
    """Return whether an `if` is met; without a status function, `success()` must hold as well."""
    inner = re.fullmatch(r"\s*\$\{\{(.*)\}\}\s*", condition, flags=re.S)
    text = inner[1] if inner else condition
    if "${{" in text:
        # Text beside an expression makes a text, which is always true.
        raise Unsupported(f"a condition that is partly text: {condition}")
    asks = any(token[1] in STATUS for token in tokens(text) if token[0] == "name")
    met = truthy(evaluate(text, contexts, functions))
    return met and (asks or functions["success"]())


def evaluate(text: str, contexts: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """Return the value of one expression. Raises Unsupported."""
    parser = _Parser(text, contexts, functions or {})
    value = parser.either()
    if parser.left:
        raise Unsupported(f"{parser.left[0][1]!r} is not understood in: {text.strip()}")
    return value


def tokens(text: str) -> list[tuple[str, str]]:
    """Return kind and text of each token."""
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match or not match.lastgroup:
            raise Unsupported(f"{text[at:].strip()[0]!r} is not understood in: {text}")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


class _Parser:
    """Recursive descent; both sides are always evaluated, so that a mistake shows in either."""

    def __init__(self, text: str, contexts: Mapping[str, Any], functions: Functions) -> None:
        self.text, self.contexts, self.functions = text.strip(), contexts, functions
        self.left = tokens(text)

    def either(self) -> Any:
        value = self.both()
        while self._take("||"):
            other = self.both()
            value = value if truthy(value) else other
        return value

    def both(self) -> Any:
        value = self.comparison()
        while self._take("&&"):
            other = self.comparison()
            value = other if truthy(value) else value
        return value

    def comparison(self) -> Any:
        value = self.unary()
        for sign in ("==", "!="):
            if self._take(sign):
                value = same(value, self.unary()) == (sign == "==")
        return value

    def unary(self) -> Any:
        return not truthy(self.unary()) if self._take("!") else self.operand()

    def operand(self) -> Any:
        if self._take("("):
            value = self.either()
            self._need(")")
            return value
        kind, token = self._next()
        if kind == "text":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return float(token)
        if kind != "name":
            raise Unsupported(f"{token!r} is not understood in: {self.text}")
        if token in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token]
        return self._call(token) if self._take("(") else self._property(token)

    def _call(self, name: str) -> bool:
        if name not in self.functions:
            raise Unsupported(f"the function {name}() is not known here: {self.text}")
        self._need(")")
        return self.functions[name]()

    def _property(self, name: str) -> Any:
        if name not in self.contexts:
            raise Unsupported(f"the context {name} is not there: {self.text}")
        value = self.contexts[name]
        while self._take("."):
            kind, key = self._next()
            if kind != "name":
                raise Unsupported(f"{key!r} is no property: {self.text}")
            if isinstance(value, Known) and key not in value:
                raise Unsupported(f"{name} has no {key}: {self.text}")
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _next(self) -> tuple[str, str]:
        if not self.left:
            raise Unsupported(f"something is missing at the end of: {self.text}")
        return self.left.pop(0)

    def _take(self, sign: str) -> bool:
        if self.left and self.left[0] == ("sign", sign):
            self.left.pop(0)
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise Unsupported(f"{sign!r} is missing in: {self.text}")


def same(one: Any, other: Any) -> bool:
    """Compare loosely: text ignores case, and unlike kinds are compared as numbers."""
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    if type(one) is type(other):
        return bool(one == other)
    return _number(one) == _number(other)


def _number(value: Any) -> float:
    if value is None:
        return 0
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return math.nan


def truthy(value: Any) -> bool:
    return not (value is None or value == "" or value == 0 or value != value)


def as_text(value: Any) -> str:
    """Return a value as text. Raises Unsupported for what has properties."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | int):
        return f"{value:.15g}"
    if isinstance(value, str):
        return value
    raise Unsupported("a whole context cannot be put into a text")
