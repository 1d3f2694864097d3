"""What the sandbox cannot run is refused when a pipeline is created, with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox_cases import condition, fail, get, json_get, step
from sm_mlops.sandbox.definition import bind, parse
from sm_mlops.sandbox.wire import ApiError

JOB: dict[str, Any] = {"AppSpecification": {}}
OUTPUTS = {"ProcessingOutputConfig": {"Outputs": [{"OutputName": "out"}]}}
CHECK = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}


def document(steps: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None) -> str:
    return json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": steps})


def refused(text: str) -> str:
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert caught.value.code in ("ValidationException", "NotImplemented")
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([step("A", "Tuning", {})], "type 'Tuning', which the sandbox does not run"),
        ([step("A", "Lambda", {})], "type 'Lambda', which the sandbox does not run"),
        ([step("a b", "Fail", {})], "Step name 'a b' must match"),
        ([step("A", "Fail", {})], "needs Arguments.ErrorMessage"),
        ([fail("A", "x"), fail("A", "y")], "Step names must be unique: 'A'"),
        ([fail("A", "x", DependsOn=["B"])], "depends on 'B', which is not a step"),
        (
            [fail("A", "x", DependsOn=["B"]), fail("B", "x", DependsOn=["A"])],
            "depend on each other in a circle: A, B",
        ),
        ([fail("A", get("Parameters.P"))], "parameter 'P' is not defined"),
        ([fail("A", get("Execution.Nope"))], "execution variable 'Nope' is not known"),
        ([fail("A", {"Std:Upper": "x"})], "function 'Std:Upper' is not known"),
        ([fail("A", get("Steps.B.X"))], "depends on 'B', which is not a step"),
        (
            [step("T", "Training", {}), fail("A", get("Steps.T.ModelArtifacts.Nope"))],
            "DescribeTrainingJob answers no such member",
        ),
        (
            [step("P", "Processing", OUTPUTS), fail("A", json_get("P", "gate", "x"))],
            "step 'P' has no such property file",
        ),
        (
            [
                step(
                    "P",
                    "Processing",
                    OUTPUTS,
                    PropertyFiles=[
                        {"PropertyFileName": "f", "OutputName": "nope", "FilePath": "x"}
                    ],
                )
            ],
            "names output 'nope', which the step does not have",
        ),
        (
            [condition("C", [{"Type": "Or"}])],
            "does not implement a condition of type 'Or' (step 'C')",
        ),
        (
            [fail("F", {"Std:JsonGet": {"S3Uri": "s3://b/x.json", "Path": "p"}})],
            "does not implement Std:JsonGet with S3Uri",
        ),
        ([condition("C", [{"Type": "Equals"}])], "needs LeftValue, RightValue"),
        ([condition("C", [])], "needs a list of Conditions"),
        (
            [condition("C", [CHECK], [step("A", "Tuning", {})])],
            "type 'Tuning', which the sandbox does not run",
        ),
        (
            [step("P", "Processing", JOB, CacheConfig={"Enabled": True, "ExpireAfter": "soon"})],
            "'soon' of step 'P' is no ISO 8601 duration",
        ),
        (
            [step("P", "Processing", JOB, RetryPolicies=[{"ExceptionType": ["Step.NOPE"]}])],
            "'Step.NOPE'",
        ),
        ([step("P", "Processing", JOB, Sparkle=1)], "members not known here: Sparkle"),
    ],
)
def test_a_definition_is_refused_with_its_reason(steps: list[dict[str, Any]], message: str) -> None:
    assert message in refused(document(steps))


def test_text_that_is_not_a_definition_is_refused() -> None:
    assert "Unable to parse pipeline definition" in refused("{")
    assert "version '1'" in refused('{"Version": "1", "Steps": []}')


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86400),
        ("P30D", 30 * 86400),
        ("PT1H", 3600),
        ("T16m", 16 * 60),
        ("30dT5h", 30 * 86400 + 5 * 3600),
        ("5y", 5 * 365 * 86400),
        ("2w", 14 * 86400),
        ("1m", 30 * 86400),
    ],
)
def test_expiry_is_read_as_aws_documents_it(text: str, seconds: int) -> None:
    cache = {"Enabled": True, "ExpireAfter": text}
    parsed = parse(document([step("P", "Processing", JOB, CacheConfig=cache)]))
    assert parsed.steps["P"].cache_seconds == seconds


def test_dependencies_come_from_depends_on_and_references_and_branches() -> None:
    parsed = parse(
        document(
            [
                step("A", "Training", {}),
                step("B", "Training", {}),
                condition(
                    "C",
                    [CHECK],
                    [fail("D", get("Steps.A.ModelArtifacts.S3ModelArtifacts"), DependsOn=["B"])],
                ),
            ]
        )
    )
    assert parsed.steps["D"].dependencies == {"A", "B", "C"}
    assert parsed.steps["C"].dependencies == frozenset()


PARAMETERS: list[dict[str, Any]] = [
    {"Name": "Text", "Type": "String", "DefaultValue": "a", "EnumValues": ["a", "b"]},
    {"Name": "Count", "Type": "Integer", "DefaultValue": 1},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 1},
    {"Name": "Fast", "Type": "Boolean", "DefaultValue": False},
]


def test_parameters_take_their_types_from_the_definition() -> None:
    parsed = parse(document([], PARAMETERS))
    assert bind(parsed, []) == {"Text": "a", "Count": 1, "Rate": 1.0, "Fast": False}
    given = [
        {"Name": "Text", "Value": "b"},
        {"Name": "Count", "Value": "7"},
        {"Name": "Rate", "Value": "0.25"},
        {"Name": "Fast", "Value": "true"},
    ]
    assert bind(parsed, given) == {"Text": "b", "Count": 7, "Rate": 0.25, "Fast": True}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Text", "c", "is not one of ['a', 'b']"),
        ("Count", "1.5", "is not of type Integer"),
        ("Rate", "fast", "is not of type Float"),
        ("Fast", "yes", "is not of type Boolean"),
        ("Nope", "1", "Unknown parameter 'Nope'"),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        bind(parse(document([], PARAMETERS)), [{"Name": name, "Value": value}])
    assert message in caught.value.message


def test_a_parameter_without_default_must_be_given() -> None:
    with pytest.raises(ApiError, match="Parameters without a value: Must"):
        bind(parse(document([], [{"Name": "Must", "Type": "String"}])), [])
