"""Event patterns over generated patterns and events, and the rule of platform.yml over generated
events.

Single cases are in test_sandbox_patterns.py.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_case import platform
from sm_mlops.sandbox import patterns
from sm_mlops.sandbox.wire import ApiError

pytestmark = pytest.mark.slow
CHECKED = settings(
    max_examples=250,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

NAMES = st.sampled_from(["a", "b", "c"])
TEXTS = st.text(st.sampled_from("abAB*\\.é"), max_size=4)
SCALARS = TEXTS | st.sampled_from((-1, 0, 1, 1.0, 0.5)) | st.booleans() | st.none()
LEAVES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.lists(SCALARS, max_size=2), max_size=2),
)
EVENTS = st.dictionaries(
    NAMES,
    st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=5),
    max_size=3,
)
PATTERNS = st.recursive(
    st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3), min_size=1, max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=2),
    max_leaves=4,
)


def matches(pattern: Any, event: Any) -> bool:
    return patterns.matches(patterns.parse(json.dumps(pattern)), event)


def texts(value: Any) -> set[str]:
    if isinstance(value, list):
        return {text for each in value for text in texts(each)}
    return {value} if isinstance(value, str) else set()


def second_reading(pattern: dict[str, Any], event: Any) -> bool:
    """Return whether each leaf of a pattern has one of the texts at its place in an event."""
    event = event if isinstance(event, dict) else {}
    return all(
        second_reading(wanted, event.get(name))
        if isinstance(wanted, dict)
        else bool(texts(event.get(name)) & set(wanted))
        for name, wanted in pattern.items()
    )


@CHECKED
@given(PATTERNS, EVENTS)
def test_two_readings_of_the_documentation_agree(pattern: Any, event: Any) -> None:
    assert matches(pattern, event) is second_reading(pattern, event)


def pattern_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return a pattern that wants each text of an event as it is."""
    made: dict[str, Any] = {}
    for name, value in event.items():
        wanted = pattern_of(value) if isinstance(value, dict) else sorted(texts(value))[:1]
        if wanted:
            made[name] = wanted
    return made


@CHECKED
@given(EVENTS.filter(pattern_of), EVENTS, st.randoms(use_true_random=False))
def test_a_pattern_made_of_an_event_fits_it_with_more_names_and_in_any_order(
    event: dict[str, Any], more: dict[str, Any], draw: Any
) -> None:
    pattern = pattern_of(event)
    assert matches(pattern, event)
    grown = {f"more-{name}": value for name, value in more.items()} | event
    names = sorted(grown, key=lambda _: draw.random())
    assert matches(dict(reversed(pattern.items())), {name: grown[name] for name in names})
    assert not matches({**pattern, "absent": ["x"]}, event)


@CHECKED
@given(PATTERNS, st.lists(EVENTS, min_size=1, max_size=3))
def test_one_object_of_a_list_has_to_fit_the_whole_pattern(pattern: Any, events: Any) -> None:
    one_by_one = [matches({"list": pattern}, {"list": event}) for event in events]
    assert matches({"list": pattern}, {"list": events}) is any(one_by_one)


# Whatever JSON there is, in Python's generous sense.
KINDS = ("prefix", "exists", "numeric", "$or", "a", "b", "<")
JSON = st.recursive(
    SCALARS | st.floats() | st.integers() | st.text(max_size=5),
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
    except (patterns.InvalidPattern, ApiError) as error:
        assert len(str(error).splitlines()) == 1
        return
    assert patterns.matches(parsed, event) in (True, False)


@pytest.mark.parametrize(
    "text",
    ["[" * 4000, '{"a":' * 800, '{"a":["x",', '{"a": [NaN]}', '{"a": [-Infinity]}', "\ud800"],
    ids=lambda text: ascii(text[:12]),
)
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(patterns.InvalidPattern):
        patterns.parse(text)


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


def about(source: str, kind: str, **detail: Any) -> dict[str, Any]:
    return {"source": f"aws.{source}", "detail-type": kind, "detail": detail}


ALARM, STACK = "CloudWatch Alarm State Change", "CloudFormation Stack Status Change"
ENDED = "SageMaker Model Building Pipeline Execution Status Change"


@pytest.mark.parametrize(
    ("rule", "event", "fits"),
    [
        (
            "Drift",
            about("cloudwatch", ALARM, alarmName="a-b-drift", state={"value": "ALARM"}),
            True,
        ),
        ("Drift", about("cloudwatch", ALARM, alarmName="a-b-drift", state={"value": "OK"}), False),
        ("Drift", about("cloudwatch", ALARM, alarmName="drifts", state={"value": "ALARM"}), False),
        ("Trained", about("sagemaker", ENDED, currentPipelineExecutionStatus="Failed"), True),
        ("Trained", about("sagemaker", ENDED, currentPipelineExecutionStatus="Executing"), False),
        ("Failed", about("cloudformation", STACK, **{"status-details": {"status": "X"}}), False),
        (
            "Failed",
            about("cloudformation", STACK, **{"status-details": {"status": "ROLLBACK_COMPLETE"}}),
            True,
        ),
    ],
)
def test_the_other_rules_wait_for_what_people_are_told(
    rule: str, event: dict[str, Any], fits: bool
) -> None:
    assert matches(platform().properties(f"{rule}Rule")["EventPattern"], event) is fits
