"""Event patterns: what fits, what does not, what EventBridge refuses, what the sandbox does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sm_mlops.sandbox import patterns
from sm_mlops.sandbox.wire import ApiError

CASES: list[tuple[str, Any, Any, bool]] = [
    ("an exact value", {"a": ["x"]}, {"a": "x"}, True),
    ("another value", {"a": ["x"]}, {"a": "X"}, False),
    ("one of several values", {"a": ["x", "y"]}, {"a": "y"}, True),
    ("every name has to fit", {"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
    ("names beyond the pattern do not matter", {"a": ["x"]}, {"a": "x", "b": 1}, True),
    ("nested names", {"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ("an absent parent", {"a": {"b": ["x"]}}, {"c": 1}, False),
    ("an absent value", {"a": ["x"]}, {}, False),
    ("any element of a list", {"a": ["y"]}, {"a": ["x", "y"]}, True),
    ("no element of a list", {"a": ["z"]}, {"a": ["x", "y"]}, False),
    ("the end of a text", {"a": ["x", {"suffix": "-y"}]}, {"a": "x-y"}, True),
    ("another end", {"a": [{"suffix": "-y"}]}, {"a": "-yx"}, False),
    ("an empty text", {"a": [""]}, {"a": ""}, True),
    ("a number is not a text", {"a": ["1"]}, {"a": 1}, False),
    ("true is not a text", {"a": ["true"]}, {"a": True}, False),
    ("an object is no leaf", {"a": ["x"]}, {"a": {"x": "x"}}, False),
    (
        "one object of a list fits",
        {"l": {"a": ["x"], "b": ["y"]}},
        {"l": [{"a": "x", "b": "y"}]},
        True,
    ),
    (
        "two objects of a list do not add up",
        {"l": {"a": ["x"], "b": ["y"]}},
        {"l": [{"a": "x", "b": "n"}, {"a": "n", "b": "y"}]},
        False,
    ),
    ("lists in lists", {"a": ["x"]}, {"a": [["y"], ["x"]]}, True),
]


@pytest.mark.parametrize(
    ("pattern", "event", "fits"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_pattern_fits_as_documented(pattern: Any, event: Any, fits: bool) -> None:
    assert patterns.matches(patterns.parse(json.dumps(pattern)), event) is fits


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "is empty"),
        ("[]", "must be an object"),
        ("{", "not JSON"),
        ('{"a": "x"}', "must be an object or an array"),
        ('{"a": []}', "Empty arrays"),
    ],
)
def test_a_pattern_that_eventbridge_refuses_is_refused(text: str, reason: str) -> None:
    with pytest.raises(patterns.InvalidPattern, match=reason):
        patterns.parse(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": [{"prefix": "x"}]}', '{"prefix": "x"} in event patterns'),
        ('{"a": [["x"]]}', '["x"] in event patterns'),
        ('{"$or": [{"a": ["x"]}, {"b": ["y"]}]}', "$or in event patterns"),
        ('{"a": [1]}', "1 in event patterns"),
        ('{"a": [null]}', "null in event patterns"),
    ],
)
def test_a_pattern_that_no_rule_of_ours_has_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(ApiError) as caught:
        patterns.parse(text)
    assert caught.value.message == f"The sandbox does not implement {what}"
