"""Event patterns: what fits, what does not, what EventBridge refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sm_mlops.sandbox import patterns

CASES: list[tuple[str, Any, Any, bool]] = [
    ("an exact value", {"a": ["x"]}, {"a": "x"}, True),
    ("another value", {"a": ["x"]}, {"a": "X"}, False),
    ("one of several values", {"a": ["x", "y"]}, {"a": "y"}, True),
    ("every name has to fit", {"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
    ("names beyond the pattern do not matter", {"a": ["x"]}, {"a": "x", "b": 1}, True),
    ("nested names", {"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ("an absent parent", {"a": {"b": ["x"]}}, {"c": 1}, False),
    ("any element of a list", {"a": ["y"]}, {"a": ["x", "y"]}, True),
    ("no element of a list", {"a": ["z"]}, {"a": ["x", "y"]}, False),
    ("null", {"a": [None]}, {"a": None}, True),
    ("null is not absent", {"a": [None]}, {}, False),
    ("an empty text", {"a": [""]}, {"a": ""}, True),
    ("true is not a text", {"a": [True]}, {"a": "true"}, False),
    ("true is not one", {"a": [True]}, {"a": 1}, False),
    ("a prefix", {"a": [{"prefix": "ab"}]}, {"a": "abc"}, True),
    (
        "a prefix without case",
        {"a": [{"prefix": {"equals-ignore-case": "AB"}}]},
        {"a": "abc"},
        True,
    ),
    ("no prefix", {"a": [{"prefix": "b"}]}, {"a": "abc"}, False),
    ("a prefix of a number", {"a": [{"prefix": "1"}]}, {"a": 12}, False),
    ("a suffix", {"a": [{"suffix": ".gz"}]}, {"a": "m.tar.gz"}, True),
    (
        "a suffix without case",
        {"a": [{"suffix": {"equals-ignore-case": ".GZ"}}]},
        {"a": "m.gz"},
        True,
    ),
    ("without case", {"a": [{"equals-ignore-case": "aLpha"}]}, {"a": "Alpha"}, True),
    ("anything but a text", {"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
    ("anything but this text", {"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
    ("anything but needs a value", {"a": [{"anything-but": "x"}]}, {}, False),
    ("anything but several", {"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
    ("anything but numbers", {"a": [{"anything-but": [1, 2]}]}, {"a": 3}, True),
    ("anything but a prefix", {"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
    ("anything but prefixes", {"a": [{"anything-but": {"prefix": ["x", "z"]}}]}, {"a": "yx"}, True),
    ("anything but a suffix", {"a": [{"anything-but": {"suffix": "x"}}]}, {"a": "yx"}, False),
    (
        "anything but a wildcard",
        {"a": [{"anything-but": {"wildcard": "*/lib/*"}}]},
        {"a": "a/lib/b"},
        False,
    ),
    (
        "anything but without case",
        {"a": [{"anything-but": {"equals-ignore-case": ["X"]}}]},
        {"a": "x"},
        False,
    ),
    ("numbers as written", {"a": [300]}, {"a": 300}, True),
    ("a number", {"a": [{"numeric": ["=", 300]}]}, {"a": 300.0}, True),
    ("a range", {"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, True),
    ("outside a range", {"a": [{"numeric": [">", 0, "<", 5]}]}, {"a": 5}, False),
    ("a text is no number", {"a": [{"numeric": [">", 0]}]}, {"a": "1"}, False),
    ("an address in a net", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.0.255"}, True),
    ("an address elsewhere", {"a": [{"cidr": "10.0.0.0/24"}]}, {"a": "10.0.1.1"}, False),
    ("it exists", {"a": [{"exists": True}]}, {"a": None}, True),
    ("it does not exist", {"a": [{"exists": True}]}, {"b": 1}, False),
    ("it must not exist", {"a": [{"exists": False}]}, {"b": 1}, True),
    ("it must not exist and does", {"a": [{"exists": False}]}, {"a": 1}, False),
    ("an object is no leaf", {"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
    ("an empty list counts as absent", {"a": [{"exists": False}]}, {"a": []}, True),
    ("absent below an absent parent", {"a": {"b": [{"exists": False}]}}, {"c": 1}, True),
    ("absent below an empty list", {"a": {"b": [{"exists": False}]}}, {"a": []}, True),
    ("absent or a value", {"a": [{"exists": False}, "x"]}, {"a": "x"}, True),
    ("a wildcard", {"a": [{"wildcard": "dir/*/x.txt"}]}, {"a": "dir/a/b/x.txt"}, True),
    ("a wildcard over the whole text", {"a": [{"wildcard": "b*"}]}, {"a": "ab"}, False),
    ("an escaped star", {"a": [{"wildcard": "a\\*b"}]}, {"a": "a*b"}, True),
    ("an escaped star is no wildcard", {"a": [{"wildcard": "a\\*b"}]}, {"a": "axb"}, False),
    ("a dot is a dot", {"a": [{"wildcard": "a.c*"}]}, {"a": "abc"}, False),
    ("either", {"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": "y"}, True),
    ("neither", {"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "y"}, False),
    ("either and more", {"c": ["z"], "$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"a": "x"}, False),
    ("either, nested", {"d": {"$or": [{"a": ["x"]}, {"b": ["y"]}]}}, {"d": {"a": "x"}}, True),
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
    read = patterns.loads(json.dumps(event))
    assert patterns.matches(patterns.parse(json.dumps(pattern)), read) is fits


def test_numbers_are_compared_as_they_are_written() -> None:
    pattern = patterns.parse('{"a": [300]}')
    assert [
        patterns.matches(pattern, patterns.loads(f'{{"a": {n}}}'))
        for n in ("300", "300.0", "3.0e2")
    ] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "is empty"),
        ("[]", "must be an object"),
        ("{", "not JSON"),
        ('{"a": "x"}', "must be an object or an array"),
        ('{"a": []}', "Empty arrays"),
        ('{"a": [["x"]]}', "may not hold an array"),
        ('{"a": [{"like": "x"}]}', "Unrecognized match type like"),
        ('{"a": [{"prefix": "a", "suffix": "b"}]}', "Only one key"),
        ('{"a": [{"exists": "yes"}]}', "true or false"),
        ('{"a": [{"numeric": [">"]}]}', "numeric"),
        ('{"a": [{"numeric": ["!", 1]}]}', "operator"),
        ('{"a": [{"wildcard": "a**"}]}', "twice in a row"),
        ('{"a": [{"wildcard": "a\\\\b"}]}', "escaped"),
        ('{"a": [{"anything-but": ["x", 1]}]}', "not both"),
        ('{"a": [{"anything-but": {"numeric": ["=", 1]}}]}', "Unsupported"),
        ('{"a": [{"cidr": "10/x"}]}', "CIDR"),
        ('{"$or": [{"a": ["x"]}]}', "two objects"),
    ],
)  # fmt: skip
def test_a_pattern_that_eventbridge_refuses_is_refused(text: str, reason: str) -> None:
    with pytest.raises(patterns.InvalidPattern, match=reason):
        patterns.parse(text)
