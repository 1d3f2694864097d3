"""Event patterns over generated patterns and events: against a second reading of the documentation,
and by what must hold whatever they are; and the rule of platform.yml over generated events.

Single cases are in test_sandbox_patterns.py.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from platform_case import platform
from sm_mlops.sandbox import patterns

pytestmark = pytest.mark.slow
CHECKED = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
Path = tuple[str, ...]

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(st.sampled_from("abAB*\\.é"), max_size=4)
NUMBERS = (-1, 0, 1, 1.0, 2, 2.0, 0.5)
SCALARS = TEXTS | st.sampled_from(NUMBERS) | st.booleans() | st.none()
LEAVES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.lists(SCALARS, max_size=2), max_size=2),
)
# Lists of objects, which have a rule of their own, have a test of their own.
EVENTS = st.dictionaries(
    NAMES,
    st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=5),
    max_size=3,
)
PAIRS = 3000


# Drawn by hand: Hypothesis takes a twentieth of a second for one of these.


def a_pattern(draw: Random, depth: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in draw.sample("abc", draw.randint(1, 2)):
        deeper = depth < 2 and draw.random() < 0.3
        leaf = [a_matcher(draw) for _ in range(draw.choice([1, 1, 2]))]
        made[name] = a_pattern(draw, depth + 1) if deeper else leaf
    if depth < 3 and draw.random() < 0.2:
        either = {"$or": [a_pattern(draw, depth + 2) for _ in range(draw.randint(2, 3))]}
        made = either | (made if draw.random() < 0.5 else {})
    return made


def a_matcher(draw: Random) -> Any:
    text, number = a_text(draw, 1), draw.choice(NUMBERS)
    numbers = [draw.choice(["=", "<", "<=", ">", ">="]), number]
    return draw.choice(
        [
            a_scalar(draw),
            {draw.choice(["prefix", "suffix"]): draw.choice([text, {"equals-ignore-case": text}])},
            {"equals-ignore-case": text},
            {"wildcard": a_wildcard(draw)},
            {"exists": draw.random() < 0.5},
            {"numeric": numbers * draw.randint(1, 2)},
            {"numeric": [">", -2, "<=", number]},
            {"anything-but": draw.choice([text, number, [text, a_text(draw)], [number, 1]])},
            {"anything-but": {draw.choice(["prefix", "suffix"]): draw.choice([text, [text, "A"]])}},
            {"anything-but": {"equals-ignore-case": draw.choice([text, [text, "b"]])}},
            {"anything-but": {"wildcard": draw.choice([a_wildcard(draw), [a_wildcard(draw)]])}},
        ]
    )


def a_wildcard(draw: Random) -> str:
    parts = draw.choices(["a", "b", "A", ".", "é", "*", "*", "\\*", "\\\\"], k=draw.randint(0, 5))
    return "".join(x for x, before in zip(parts, ["", *parts], strict=False) if x + before != "**")


def a_text(draw: Random, least: int = 0) -> str:
    return "".join(draw.choices("aaabAA*\\.é", k=draw.randint(least, 2)))


def a_scalar(draw: Random) -> Any:
    return draw.choice([a_text(draw), a_text(draw), draw.choice(NUMBERS), True, False, None])


def an_event(draw: Random, depth: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in draw.sample("abc", draw.randint(0, 3)):
        several = [a_scalar(draw) for _ in range(draw.randint(0, 2))]
        deeper = an_event(draw, depth + 1) if depth < 3 else {}
        made[name] = draw.choice([a_scalar(draw), several, [several, a_scalar(draw)], deeper])
    return made


def matches(pattern: Any, event: Any) -> bool:
    return patterns.matches(patterns.parse(json.dumps(pattern)), patterns.loads(json.dumps(event)))


# A second reading: a pattern is a choice of lists of leaves, an event is its leaves by their paths.


def choices(pattern: dict[str, Any], path: Path = ()) -> Iterator[list[tuple[Path, list[Any]]]]:
    parts: list[list[list[tuple[Path, list[Any]]]]] = []
    for name, wanted in pattern.items():
        if name == "$or":
            parts.append([choice for each in wanted for choice in choices(each, path)])
        elif isinstance(wanted, dict):
            parts.append([*choices(wanted, (*path, name))])
        else:
            parts.append([[((*path, name), wanted)]])
    for chosen in itertools.product(*parts):
        yield [leaf for part in chosen for leaf in part]


def values(event: Any, path: Path) -> list[Any]:
    for name in path:
        event = event.get(name) if isinstance(event, dict) else None
        if event is None and name != path[-1]:
            return []
    return [*scalars(event)]


def scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from scalars(each)
    elif not isinstance(value, dict):
        yield value


def has(event: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(event, dict) or name not in event:
            return False
        event = event[name]
    return bool([*scalars(event)])


def second_reading(pattern: dict[str, Any], event: Any) -> bool:
    return any(
        all(
            any(
                matcher["exists"] == has(event, path)
                if isinstance(matcher, dict) and "exists" in matcher
                else has(event, path) and any(fits(matcher, v) for v in values(event, path))
                for matcher in wanted
            )
            for path, wanted in choice
        )
        for choice in choices(pattern)
    )


def same(one: Any, other: Any) -> bool:
    """As JSON writes them."""
    return json.dumps(one) == json.dumps(other)


def fits(matcher: Any, value: Any) -> bool:
    if not isinstance(matcher, dict):
        return same(matcher, value)
    [(kind, wanted)] = matcher.items()
    if kind == "anything-but":
        if isinstance(wanted, dict):
            [(inner, texts)] = wanted.items()
            each = texts if isinstance(texts, list) else [texts]
            return not any(fits({inner: text}, value) for text in each)
        return not any(same(w, value) for w in (wanted if isinstance(wanted, list) else [wanted]))
    if kind == "numeric":
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and all(compare(*pair, value) for pair in zip(wanted[::2], wanted[1::2], strict=True))
        )
    if not isinstance(value, str):
        return False
    if isinstance(wanted, dict):
        return fits({kind: wanted["equals-ignore-case"].lower()}, value.lower())
    if kind == "prefix":
        return value[: len(wanted)] == wanted
    if kind == "suffix":
        return value[max(len(value) - len(wanted), 0) :] == wanted
    if kind == "equals-ignore-case":
        return value.lower() == wanted.lower()
    return covers(wanted, value)


def compare(how: str, bound: float, value: float) -> bool:
    difference = Fraction(value) - Fraction(bound)
    return (
        (difference == 0 and "=" in how)
        or (difference < 0 and how[0] == "<")
        or (difference > 0 and how[0] == ">")
    )


def covers(wildcard: str, value: str) -> bool:
    if not wildcard:
        return not value
    if wildcard[0] == "*":
        return covers(wildcard[1:], value) or bool(value and covers(wildcard, value[1:]))
    size = 2 if wildcard[0] == "\\" else 1
    return value[:1] == wildcard[size - 1] and covers(wildcard[size:], value[1:])


def test_two_readings_of_the_documentation_agree() -> None:
    fitting = 0
    for seed in range(PAIRS):
        draw = Random(seed)
        pattern, event = a_pattern(draw), an_event(draw)
        fits_it = matches(pattern, event)
        assert fits_it is second_reading(pattern, event), (pattern, event)
        fitting += fits_it
    assert PAIRS / 10 < fitting < PAIRS * 9 / 10


def pattern_of(event: dict[str, Any]) -> dict[str, Any]:
    """A pattern that wants each leaf as it is, and no other where there is none."""
    made: dict[str, Any] = {}
    for name, value in event.items():
        if isinstance(value, dict):
            made[name] = pattern_of(value) or [{"exists": False}]
        else:
            made[name] = [*scalars(value)][:1] or [{"exists": False}]
    return made


@CHECKED
@given(EVENTS.filter(bool), EVENTS, st.randoms(use_true_random=False))
def test_a_pattern_made_of_an_event_fits_it_with_more_names_and_in_any_order(
    event: dict[str, Any], more: dict[str, Any], draw: Any
) -> None:
    pattern = pattern_of(event)
    assert matches(pattern, event)
    grown = {f"more-{name}": value for name, value in more.items()} | event
    names = sorted(grown, key=lambda _: draw.random())
    assert matches(dict(reversed(pattern.items())), {name: grown[name] for name in names})


@CHECKED
@given(EVENTS, st.randoms(use_true_random=False))
def test_one_other_leaf_breaks_it(event: dict[str, Any], draw: Any) -> None:
    pattern = pattern_of(event)
    paths = [path for choice in choices(pattern) for path, _ in choice]
    assume(paths)
    *way, last = draw.choice(paths)
    changed = copy.deepcopy(event)
    place = changed
    for name in way:
        place = place[name]
    # Of none of the kinds that there are.
    place[last] = "another" if [*scalars(place[last])] else "something"
    assert not matches(pattern, changed)


@CHECKED
@given(TEXTS | st.sampled_from(NUMBERS), SCALARS)
def test_anything_but_is_the_opposite_of_equality_where_there_is_a_value(
    wanted: Any, value: Any
) -> None:
    but, equal = {"a": [{"anything-but": wanted}]}, {"a": [wanted]}
    assert matches(but, {"a": value}) is not matches(equal, {"a": value})
    assert not matches(but, {}) and not matches(equal, {})


def test_of_a_list_of_objects_one_has_to_fit_it_all() -> None:
    for seed in range(PAIRS // 3):
        draw = Random(seed)
        pattern = a_pattern(draw)
        events = [an_event(draw) for _ in range(draw.randint(1, 3))]
        one_by_one = [matches({"list": pattern}, {"list": event}) for event in events]
        assert matches({"list": pattern}, {"list": events}) is any(one_by_one), (pattern, events)


# Whatever JSON there is, in Python's generous sense.
KINDS = (
    *("exists", "prefix", "suffix", "numeric", "cidr", "wildcard", "anything-but"),
    *("equals-ignore-case", "$or", "a", "b", "<"),
)
JSON = st.recursive(
    SCALARS
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["<", "10.0.0.0/8", "10.1.2.3", "::1", 10**30]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KINDS), inner, min_size=1, max_size=1)
        | st.dictionaries(st.sampled_from(KINDS), inner, max_size=3)
    ),
    max_leaves=10,
)


@CHECKED
@given(st.dictionaries(NAMES | st.just("$or"), JSON, max_size=2) | JSON, JSON)
def test_any_pattern_is_refused_in_a_line_or_fits_or_does_not(pattern: Any, event: Any) -> None:
    try:
        parsed = patterns.parse(json.dumps(pattern))
    except patterns.InvalidPattern as error:
        assert len(str(error).splitlines()) == 1
        return
    assert patterns.matches(parsed, patterns.loads(json.dumps(event))) in (True, False)


@pytest.mark.parametrize(
    "text",
    ["[" * 4000, '{"a":' * 800, '{"a":["x",', '{"a": [NaN]}', '{"a": [-Infinity]}', "\ud800"],
    ids=lambda text: ascii(text[:12]),
)
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(patterns.InvalidPattern):
        patterns.parse(text)


def test_short_wildcards_cover_what_a_second_reading_says() -> None:
    texts = ["".join(x) for size in range(5) for x in itertools.product("ab", repeat=size)]
    for size in range(5):
        for parts in itertools.product("ab*", repeat=size):
            if ("*", "*") not in itertools.pairwise(parts):
                wildcard = "".join(parts)
                pattern = patterns.parse(json.dumps({"a": [{"wildcard": wildcard}]}))
                for text in texts:
                    wanted = covers(wildcard, text)
                    assert patterns.matches(pattern, {"a": text}) is wanted, (wildcard, text)


def test_a_wildcard_with_many_stars_is_decided_at_once() -> None:
    stars = "*".join("a" * 12)
    assert not matches({"a": [{"wildcard": f"{stars}*b"}]}, {"a": "a" * 5000})
    assert matches({"a": [{"wildcard": f"{stars}*b"}]}, {"a": "a" * 5000 + "b"})


SAGEMAKER = {
    "version": "0",
    "id": "6c8c4b0e",
    "source": "aws.sagemaker",
    "detail-type": "SageMaker Model Package State Change",
    "account": "123456789012",
    "region": "eu-west-1",
    "resources": ["arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/1"],
    "detail": {"ModelPackageGroupName": "churn", "ModelApprovalStatus": "Approved"},
}
NEAR = {
    "source": ["aws.sagemaker", "aws.sagemakers", "AWS.SageMaker", "acme.sagemaker", "", None],
    "detail-type": [
        "SageMaker Model Package State Change",
        "SageMaker Model State Change",
        "SageMaker Training Job State Change",
        "sagemaker model package state change",
        None,
    ],
    "status": ["Approved", "Rejected", "PendingManualApproval", "approved", " Approved", "", None],
}


@CHECKED
@given(st.fixed_dictionaries({name: st.sampled_from(each) for name, each in NEAR.items()}), EVENTS)
def test_the_platforms_rule_waits_for_approvals_of_versions_and_for_nothing_else(
    chosen: dict[str, Any], more: dict[str, Any]
) -> None:
    event: dict[str, Any] = copy.deepcopy(SAGEMAKER)
    event["detail"] |= more | {"ModelApprovalStatus": chosen["status"]}
    for name in ("source", "detail-type"):
        event[name] = chosen[name]
    rule = platform().properties("ApprovedRule")["EventPattern"]
    wanted = all(value == NEAR[name][0] for name, value in chosen.items())
    assert matches(rule, event) is wanted
    # Above or beside its place the word counts for nothing.
    event["ModelApprovalStatus"] = event["detail"].pop("ModelApprovalStatus")
    event["detail"]["ModelLifeCycle"] = {"ModelApprovalStatus": "Approved"}
    assert not matches(rule, event)
