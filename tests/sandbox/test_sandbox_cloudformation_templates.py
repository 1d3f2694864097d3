"""The language of templates: functions, conditions, parameters, rules, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cloudformation_cases import given, resource, text
from sm_mlops.sandbox.cloudformation import parameters, schemas
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, Unresolved
from sm_mlops.sandbox.cloudformation.template import Template, order, parse
from sm_mlops.sandbox.wire import ApiError

ONE = {"One": resource("SQS::Queue")}


def read(**sections: Any) -> Template:
    return parse(text({"Resources": ONE, **sections}))


def scope(template: Template, **values: str) -> Scope:
    bound = parameters.bind(template, given(**values), None)
    return Scope(
        template=template,
        parameters=bound,
        account="123456789012",
        region="eu-west-1",
        stack_id="arn:stack",
        stack_name="stack",
        made=lambda logical: Made(f"{logical}-id", {"QueueName": "name", "A.B": "dotted"}),
        exports={"shared": "value"},
    )


def resolve(value: Any, **values: str) -> Any:
    template = read(
        Parameters={
            "Text": {"Type": "String", "Default": "a,b"},
            "List": {"Type": "CommaDelimitedList", "Default": "x, y"},
            "None": {"Type": "CommaDelimitedList", "Default": ""},
        },
        Conditions={
            "Yes": {"Fn::Equals": [{"Ref": "Text"}, "a,b"]},
            "No": {"Fn::Not": [{"Condition": "Yes"}]},
            "Both": {"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]},
            "Either": {"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]},
        },
    )
    return scope(template, **values).resolve(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Text"}, "a,b"),
        ({"Ref": "List"}, ["x", "y"]),
        ({"Ref": "One"}, "One-id"),
        ({"Ref": "AWS::Partition"}, "aws"),
        ({"Ref": "AWS::URLSuffix"}, "amazonaws.com"),
        ({"Fn::GetAtt": ["One", "QueueName"]}, "name"),
        ({"Fn::GetAtt": "One.A.B"}, "dotted"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Text"}, 1, True]]}, "a-a,b-1-true"),
        ({"Fn::Join": ["", {"Ref": "None"}]}, ""),
        ({"Fn::Select": ["1", {"Ref": "List"}]}, "y"),
        ({"Fn::Split": [",", {"Ref": "Text"}]}, ["a", "b"]),
        ({"Fn::Sub": "${One}/${One.QueueName}/${Text}/${!Kept}"}, "One-id/name/a,b/${Kept}"),
        ({"Fn::Sub": ["${Own}-${Text}", {"Own": {"Ref": "One"}}]}, "One-id-a,b"),
        ({"Fn::If": ["Yes", 1, 2]}, 1),
        ({"Fn::If": ["No", 1, {"Fn::If": ["Either", "deep", 2]}]}, "deep"),
        ({"Fn::If": ["Both", 1, 2]}, 2),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [1, {"Ref": "AWS::NoValue"}]}, {"b": [1]}),
        ({"Fn::ImportValue": "shared"}, "value"),
    ],
)
def test_functions_return_what_aws_documents(value: Any, expected: Any) -> None:
    assert resolve(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"Fn::GetAtt": ["One", "Nothing"]}, "does not support attribute type Nothing"),
        ({"Fn::ImportValue": "unknown"}, "No export named unknown found"),
        ({"Fn::Select": ["7", {"Ref": "List"}]}, "valid index"),
        ({"Fn::Sub": "${List}"}, "does not resolve to a string"),
    ],
)
def test_functions_that_cannot_be_computed_say_why(value: Any, words: str) -> None:
    with pytest.raises((ApiError, Unresolved), match=words.replace("(", r"\(")):
        resolve(value)


def test_yaml_has_short_functions_and_no_dates() -> None:
    template = parse(
        """
AWSTemplateFormatVersion: 2010-09-09
Conditions:
  Is: !Equals [a, a]
  Also: !Not [!Condition Is]
Resources:
  One:
    Type: AWS::SQS::Queue
    Properties:
      DisplayName: !Sub ["${A}-${AWS::Region}", {A: !GetAtt Two.Arn}]
      QueueName: !Join ["", [!Ref Two, !If [Is, a, !Ref "AWS::NoValue"]]]
  Two: {Type: AWS::Logs::LogGroup}
"""
    )
    properties = template.resources["One"]["Properties"]
    assert properties["DisplayName"]["Fn::Sub"][1] == {"A": {"Fn::GetAtt": ["Two", "Arn"]}}
    assert template.conditions["Also"] == {"Fn::Not": [{"Condition": "Is"}]}
    assert order(template, {"One", "Two"}) == {"Two": set(), "One": {"Two"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[1]", "unsupported structure"),
        ("{", "JSON not well-formed. (line 1, column 2)"),
        ("Resources: [", "YAML not well-formed. (line 2"),
        ("Resources: {}", "At least one Resources member must be defined"),
        ("Resource: {A: {Type: 'AWS::SQS::Queue'}}", "Invalid template property or properties"),
        ("Resources: {A: {Properties: {}}}", "must contain a Type member"),
        ("Resources: {A: {Type: T, Depends: B}}", "Invalid template resource property 'Depends'"),
        ("Resources: {A: {Type: T, DependsOn: B}}", "Unresolved resource dependencies [B]"),
        ("Resources: {A: {Type: T, Condition: C}}", "Unresolved condition dependency C"),
        ("Resources: {A-B: {Type: T}}", "Resources name A-B is non alphanumeric"),
        ("Resources: {A: {Type: T}, A: {Type: T}}", "duplicate key A"),
        ("Resources: {A: {Type: T, Properties: {X: !Ref B}}}", "Unresolved resource dependencies"),
        ("Resources: {A: {Type: T, Properties: {X: !Sub '${B.C}'}}}", "dependencies [B]"),
        ("Resources: {A: {Type: T, Properties: {X: !Frobnicate B}}}", "Fn::Frobnicate"),
        ("Resources: {A: {Type: T, Properties: {X: !If [C, 1, 2]}}}", "dependency: C in Fn::If"),
        ("Resources: {A: {Type: T, Properties: {X: !Join [a]}}}", "Fn::Join"),
        ("Resources: {A: {Type: T, DeletionPolicy: Kepe}}", "Unrecognized DeletionPolicy Kepe"),
        (
            "Transform: AWS::Serverless-2016-10-31\nResources: {A: {Type: T}}",
            "does not implement Transform of a template: AWS::Serverless-2016-10-31",
        ),
        (
            "Resources: {A: {Type: T, Properties: {X: !Base64 B}}}",
            "does not implement Fn::Base64 in Resources",
        ),
        (
            "Resources: {A: {Type: T, DeletionPolicy: Snapshot}}",
            "does not implement DeletionPolicy Snapshot",
        ),
        (
            "Resources: {A: {Type: T, DependsOn: B}, B: {Type: T, Properties: {X: !Ref A}}}",
            "Circular dependency between resources: [A, B]",
        ),
        (
            "Conditions: {A: !Not [!Condition B], B: !Not [!Condition A]}\n"
            "Resources: {A: {Type: T}}",
            "Circular dependencies for condition",
        ),
        (
            "Resources: {A: {Type: T}}\nOutputs: {O: {Valu: 1}}",
            "[/Outputs/O] Every Outputs member must contain a Value",
        ),
        ("Resources: {A: {Type: T}}\nOutputs: {O: {Value: !Ref B}}", "dependencies [B]"),
    ],
)
def test_templates_with_mistakes_are_refused(body: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.code == "ValidationError"
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ({"Type": "Number"}, "many", "must be a number"),
        ({"Type": "Number", "MinValue": 2}, "1", "must be a number not less than 2"),
        ({"Type": "Number", "MaxValue": 2}, "3", "must be a number not greater than 2"),
        ({"Type": "String", "AllowedValues": ["a"]}, "b", "must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "B", "must match pattern [a-z]+"),
        ({"Type": "String", "MinLength": 2}, "x", "must contain at least 2 characters"),
        ({"Type": "String", "MaxLength": 2}, "xyz", "must contain at most 2 characters"),
        (
            {"Type": "String", "AllowedPattern": "a", "ConstraintDescription": "only a"},
            "b",
            "failed to satisfy constraint: only a",
        ),
        ({"Type": "List<Number>"}, "1", "does not implement parameters of type List<Number>"),
        ({"Type": "CommaDelimitedList", "AllowedPattern": "[ab]"}, "a, c", "must match pattern"),
        ({"Type": "Strin"}, "a", "Unrecognized parameter type: Strin"),
        (
            {"Type": "AWS::SSM::Parameter::Value<String>"},
            "p",
            "does not implement parameters of type AWS::SSM::Parameter::Value<String>",
        ),
    ],
)
def test_parameters_are_held_to_their_constraints(
    declared: dict[str, Any], value: str, words: str
) -> None:
    with pytest.raises(ApiError) as caught:
        parameters.bind(read(Parameters={"P": declared}), given(P=value), None)
    assert words in caught.value.message


def test_parameters_come_from_the_request_the_stack_or_the_template() -> None:
    declared = {"Type": "String"}
    template = read(
        Parameters={"Given": declared, "Kept": declared, "Default": {**declared, "Default": 3}}
    )
    kept: dict[str, Any] = {"ParameterKey": "Kept", "UsePreviousValue": True}
    request = [*given(Given="new"), kept]
    values = parameters.bind(template, request, {"Kept": "old", "Default": "before"})
    assert values == {"Given": "new", "Kept": "old", "Default": "3"}
    for wrong, words in (
        ([], r"Parameters: \[Given, Kept\] must have values"),
        (given(Other="x"), r"Parameters: \[Other\] do not exist in the template"),
    ):
        with pytest.raises(ApiError, match=words):
            parameters.bind(template, wrong, None)


def test_an_empty_list_parameter_is_one_empty_item() -> None:
    template = read(
        Parameters={"L": {"Type": "CommaDelimitedList", "Default": ""}},
        Rules={"R": {"Assertions": [{"Assert": {"Fn::EachMemberEquals": [{"Ref": "L"}, ""]}}]}},
    )
    scope(template).check_rules()
    assert scope(template).resolve({"Ref": "L"}) == [""]


def test_rules_refuse_what_does_not_fit_together() -> None:
    template = read(
        Parameters={"Kind": {"Type": "String"}, "Size": {"Type": "String"}},
        Rules={
            "Small": {
                "RuleCondition": {"Fn::Equals": [{"Ref": "Kind"}, "test"]},
                "Assertions": [
                    {
                        "Assert": {
                            "Fn::Or": [
                                {"Fn::Equals": [{"Ref": "Size"}, "s"]},
                                {"Fn::Equals": [{"Ref": "Size"}, "m"]},
                            ]
                        },
                        "AssertDescription": "tests are small",
                    }
                ],
            }
        },
    )
    scope(template, Kind="live", Size="xl").check_rules()
    scope(template, Kind="test", Size="s").check_rules()
    with pytest.raises(ApiError, match="Rule Small: tests are small"):
        scope(template, Kind="test", Size="xl").check_rules()


def test_only_resources_whose_condition_holds_are_active() -> None:
    template = parse(
        text(
            {
                "Parameters": {"On": {"Type": "String"}},
                "Conditions": {"Is": {"Fn::Equals": [{"Ref": "On"}, "yes"]}},
                "Resources": {**ONE, "Two": {**ONE["One"], "Condition": "Is"}},
            }
        )
    )
    assert scope(template, On="yes").active() == {"One", "Two"}
    assert scope(template, On="no").active() == {"One"}
    with pytest.raises(ApiError, match="Unresolved resource dependencies"):
        scope(template, On="no").resolve({"Ref": "Two"})


def test_schemas_know_what_needs_a_new_resource() -> None:
    assert schemas.create_only("AWS::SageMaker::Endpoint") == {"EndpointName"}
    assert "ProductionVariants" in schemas.create_only("AWS::SageMaker::EndpointConfig")
    assert schemas.create_only("AWS::CloudWatch::Alarm") == {"AlarmName"}
    assert not schemas.exists("AWS::SageMaker::Oracle")


def test_nested_properties_are_checked_and_converted() -> None:
    kind = "AWS::SageMaker::Endpoint"
    config = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "SIDEWAYS", "WaitIntervalInSeconds": "60"},
            "MaximumExecutionTimeoutInSeconds": 5,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"Name": "x"}]},
    }
    given_ = {"EndpointConfigName": 1, "DeploymentConfig": config, "RetainDeploymentConfig": "true"}
    properties = schemas.conform(kind, given_)
    assert (properties["EndpointConfigName"], properties["RetainDeploymentConfig"]) == ("1", True)
    routing = properties["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["WaitIntervalInSeconds"] == 60
    place = "#/DeploymentConfig/BlueGreenUpdatePolicy"
    alarm = "#/DeploymentConfig/AutoRollbackConfiguration/Alarms/0"
    assert sorted(schemas.violations(kind, properties)) == [
        f"{alarm}: extraneous key [Name] is not permitted",
        f"{alarm}: required key [AlarmName] not found",
        f"{place}/MaximumExecutionTimeoutInSeconds: 5 is not greater or equal to 600",
        f"{place}/TrafficRoutingConfiguration/Type: SIDEWAYS is not a valid enum value",
    ]
