"""The expression language of pipeline definitions, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from sm_mlops.sandbox.expressions import ExpressionError, Scope, holds, references, resolve
from sm_mlops.sandbox.wire import input_shape

JOB = {
    "ModelArtifacts": {"S3ModelArtifacts": "s3://b/model.tar.gz"},
    "ProcessingOutputConfig": {
        "Outputs": [
            {"OutputName": "train", "S3Output": {"S3Uri": "s3://b/train"}},
            {"OutputName": "test", "S3Output": {"S3Uri": "s3://b/test"}},
        ]
    },
}
GATE = {"metrics": {"auc": {"value": 0.9}}, "a b": [1, {"c": True}]}
SCOPE = Scope(
    parameters={"Rounds": 5, "Rate": 0.5, "Name": "n", "Fast": True},
    execution={"PipelineName": "pipe", "PipelineExecutionId": "abc"},
    properties=lambda step: JOB,
    property_file=lambda step, name: GATE,
)


def json_get(path: Any) -> dict[str, Any]:
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.E.PropertyFiles.gate"}, "Path": path}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ({"Get": "Parameters.Rounds"}, 5),
        ({"Get": "Parameters.Fast"}, True),
        ({"Get": "Execution.PipelineName"}, "pipe"),
        ({"Get": "Steps.T.ModelArtifacts.S3ModelArtifacts"}, "s3://b/model.tar.gz"),
        ({"Get": "Steps.P.ProcessingOutputConfig.Outputs['test'].S3Output.S3Uri"}, "s3://b/test"),
        ({"Get": 'Steps.P.ProcessingOutputConfig.Outputs["train"].S3Output.S3Uri'}, "s3://b/train"),
        ({"Get": "Steps.P.ProcessingOutputConfig.Outputs[0].S3Output.S3Uri"}, "s3://b/train"),
        ({"Std:Join": {"On": "/", "Values": ["a", {"Get": "Parameters.Rounds"}, 0.5]}}, "a/5/0.5"),
        ({"Std:Join": {"On": "", "Values": [{"Get": "Parameters.Fast"}, True]}}, "truetrue"),
        ({"Std:Join": {"On": "-", "Values": [{"Std:Join": {"On": "", "Values": ["x"]}}]}}, "x"),
        (json_get("metrics.auc.value"), 0.9),
        (json_get("$.metrics.auc.value"), 0.9),
        (json_get("['a b'][1].c"), True),
        (json_get({"Std:Join": {"On": ".", "Values": ["metrics", "auc", "value"]}}), 0.9),
        ({"Std:Join": {"On": " ", "Values": ["auc", json_get("metrics.auc.value")]}}, "auc 0.9"),
    ],
)
def test_an_expression_stands_for_its_value(expression: dict[str, Any], value: Any) -> None:
    assert resolve({"here": [expression]}, SCOPE) == {"here": [value]}


def test_literals_stay_as_they_are() -> None:
    literal = {"Get": 1, "other": [None, 2, "x", {"Value": {}}]}
    assert resolve(literal, SCOPE) == literal


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"Get": "Nope.X"}, "must start with"),
        ({"Get": "Steps.T.ModelArtifacts.Nope"}, "there is no 'Nope'"),
        ({"Get": "Steps.P.ProcessingOutputConfig.Outputs['nope']"}, "no item is named 'nope'"),
        ({"Get": "Steps.P.ProcessingOutputConfig.Outputs[7]"}, "the list has 2 items"),
        (json_get("metrics.nope"), "there is no 'nope'"),
        (json_get("metrics.*"), "cannot be read at '.*'"),
    ],
)
def test_what_cannot_be_resolved_says_why(expression: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpressionError, match=message.replace("*", r"\*")):
        resolve(expression, SCOPE)


@pytest.mark.slow
def test_a_result_has_the_type_named_in_the_request() -> None:
    request = {
        "HyperParameters": {"rounds": {"Get": "Parameters.Rounds"}},
        "ResourceConfig": {"InstanceCount": {"Get": "Parameters.Rounds"}},
        "EnableManagedSpotTraining": {"Get": "Parameters.Fast"},
    }
    assert resolve(request, SCOPE, input_shape("CreateTrainingJob")) == {
        "HyperParameters": {"rounds": "5"},
        "ResourceConfig": {"InstanceCount": 5},
        "EnableManagedSpotTraining": True,
    }


def test_references_are_found_wherever_they_are() -> None:
    arguments = {
        "a": [{"Get": "Steps.One.X"}],
        "b": {"Std:Join": {"On": "", "Values": [{"Get": "Steps.Two.Y"}]}},
        "c": json_get("x"),
        "d": {"Get": "Parameters.Steps"},
    }
    assert references(arguments) == {"One", "Two", "E"}


def compare(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (compare("Equals", {"Get": "Parameters.Name"}, "n"), True),
        (compare("Equals", {"Get": "Parameters.Name"}, "m"), False),
        (compare("Equals", {"Get": "Parameters.Fast"}, True), True),
        (compare("Equals", 1, 1.0), True),
        (compare("GreaterThan", 2, 1), True),
        (compare("GreaterThan", 1, 1), False),
        (compare("GreaterThanOrEqualTo", 1, 1), True),
        (compare("GreaterThanOrEqualTo", json_get("metrics.auc.value"), 0.95), False),
        (compare("LessThan", 1, 2), True),
        (compare("LessThan", 1, 1), False),
        (compare("LessThanOrEqualTo", 1, 1), True),
        (compare("LessThanOrEqualTo", 2, 1), False),
    ],
)
def test_a_condition_has_its_outcome(condition: dict[str, Any], outcome: bool) -> None:
    assert holds(condition, SCOPE) is outcome


@pytest.mark.parametrize(("left", "right"), [("1", 1), (True, 1), (None, "x")])
def test_values_of_different_types_are_not_compared(left: Any, right: Any) -> None:
    with pytest.raises(ExpressionError, match="types differ"):
        holds(compare("Equals", left, right), SCOPE)
