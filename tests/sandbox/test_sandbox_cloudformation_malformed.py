"""A malformed template or request is refused in one line, never with an internal error."""

from __future__ import annotations

import copy
import http.client
import random
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from cloudformation_cases import Deployer, new_name, resource, text
from sandbox_cases import REGION
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.cloudformation.expressions import Scope, Unresolved
from sm_mlops.sandbox.cloudformation.parameters import bind
from sm_mlops.sandbox.cloudformation.template import parse
from sm_mlops.sandbox.wire import ApiError

pytestmark = pytest.mark.slow

WHOLE: dict[str, Any] = {
    "Description": "everything",
    "Parameters": {
        "Text": {"Type": "String", "Default": "x", "AllowedValues": ["x", "y"]},
        "Count": {"Type": "Number", "Default": 3, "MinValue": 1, "MaxValue": 9},
        "Letters": {"Type": "String", "Default": "abc", "AllowedPattern": "[a-z]+"},
        "Items": {"Type": "CommaDelimitedList", "Default": "a,b", "MinLength": 1},
    },
    "Rules": {
        "R": {
            "RuleCondition": {"Fn::Equals": [{"Ref": "Text"}, "x"]},
            "Assertions": [{"Assert": {"Fn::EachMemberEquals": [["3"], {"Ref": "Count"}]}}],
        }
    },
    "Conditions": {
        "A": {"Fn::Equals": [{"Ref": "Text"}, "x"]},
        "B": {"Fn::And": [{"Condition": "A"}, {"Fn::Not": [{"Fn::Equals": ["1", "2"]}]}]},
    },
    "Resources": {
        "One": resource(
            "SecretsManager::Secret",
            SecretString={
                "Fn::Sub": ["${Text}${x}", {"x": {"Fn::Select": ["0", {"Ref": "Items"}]}}]
            },
        ),
        "Two": {
            "Type": "AWS::SecretsManager::Secret",
            "Condition": "B",
            "DependsOn": ["One"],
            "Metadata": {"z": {"Ref": "Text"}},
            "Properties": {
                "SecretString": {
                    "Fn::Join": [
                        "-",
                        [
                            {"Fn::If": ["A", "1", {"Ref": "AWS::NoValue"}]},
                            {"Fn::Select": [1, {"Fn::Split": [",", "a,b"]}]},
                            {"Fn::GetAtt": ["One", "Id"]},
                        ],
                    ]
                },
            },
        },
    },
    "Outputs": {"O": {"Value": {"Ref": "Two"}, "Condition": "B", "Export": {"Name": "e"}}},
}
ODD: list[Any] = [
    None, True, -1, 1.5, "", "x", "é", [], {}, [[]], [None], {"Ref": None}, {"Ref": "Nope"},
    {"Ref": "One"}, {"Ref": "AWS::NoValue"}, {"Ref": "AWS::Nope"}, {"Fn::GetAtt": []},
    {"Fn::GetAtt": ["One", "Nope"]}, {"Fn::Sub": []}, {"Fn::Sub": "${}"}, {"Fn::Join": [1, [None]]},
    {"Fn::Select": ["x", []]}, {"Fn::Split": [",", 3]}, {"Fn::Split": ["", "a"]},
    {"Fn::If": [["A"], 1, 2]}, {"Fn::If": {}}, {"Fn::Cidr": ["x", 1]},
    {"Fn::Cidr": ["10.0.0.0/24", 999, 8]}, {"Fn::Cidr": ["10.0.0.0/24", 1, 99]},
    {"Fn::GetAZs": []}, {"Fn::Base64": ["a"]}, {"Fn::ImportValue": ["n"]}, {"Fn::Length": 3},
    {"Fn::ToJsonString": 1}, {"Fn::Nope": 1}, {"Condition": "Nope"}, {"Condition": ["A"]},
    {"Fn::Equals": [1]}, {"Fn::Equals": [1, 2]}, {"Fn::Not": "x"}, {"Fn::And": []},
    {"Fn::Contains": [1, 2]}, {"Fn::ValueOf": ["P", "x"]}, {"Fn::RefAll": ["String"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stacks"), REGION) as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Deployer:
    return Deployer(server.environment())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def evaluate(body: str) -> None:
    template = parse(body)
    scope = Scope(template, bind(template, [], None), "123456789012", REGION, "id", "name")
    scope.check_rules()
    for logical in scope.active():
        scope.properties(logical)
        scope.resolve(template.resources[logical].get("Metadata"))
    scope.resolve([output["Value"] for output in template.outputs.values()])


def test_no_odd_value_anywhere_in_a_template_meets_a_defect() -> None:
    evaluate(text(WHOLE))
    refused = 0
    chance = random.Random(3)
    for path in places(WHOLE):
        for odd in chance.sample(ODD, 12):
            changed = copy.deepcopy(WHOLE)
            holder: Any = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = copy.deepcopy(odd)
            try:
                evaluate(text(changed))
            except (ApiError, Unresolved):
                refused += 1
    assert refused > 500


def test_a_tag_with_an_unknown_member_or_without_a_value_is_refused(aws: Deployer) -> None:
    for tag in ({"Key": "a", "Valeu": "b"}, {"Key": "a"}, "a=b"):
        name = aws.deploy({"Resources": {"T": resource("SQS::Queue", Tags=[tag])}})
        why = aws.reasons(name, "CREATE_FAILED")["T"]
        assert why.startswith("Properties validation failed for resource T"), why


def test_a_defect_is_answered_in_the_words_of_the_protocol(
    aws: Deployer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.stacks, "list_imports", lambda params, caller: 1 // 0)
    with pytest.raises(aws.cfn.exceptions.ClientError) as caught:
        aws.cfn.list_imports(ExportName="e")
    assert caught.value.response["Error"]["Code"] == "InternalFailure"
    assert "server.log" in str(caught.value)


@pytest.mark.parametrize("service", ["cloudformation", "sagemaker"])
@pytest.mark.parametrize(("length", "body"), [("2", b"\xff{"), ("-5", b""), ("abc", b"")])
def test_a_malformed_request_is_answered_as_the_callers_mistake(
    server: Server, service: str, length: str, body: bytes
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"} if service == "sagemaker" else {}
    signed = AWSRequest("POST", server.url, target, body)
    key = server.signatures.key
    credentials = ReadOnlyCredentials(key.id, key.secret, None)
    SigV4Auth(credentials, service, REGION).add_auth(signed)
    connection.putrequest("POST", "/")
    for name, value in {**signed.headers, "Content-Length": length}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize("logical", ["Ref", "Condition"])
def test_a_resource_may_have_the_name_of_a_function(aws: Deployer, logical: str) -> None:
    body = {"Resources": {logical: resource("SQS::Queue"), "Other": resource("SQS::Queue")}}
    assert aws.stack(aws.deploy(body, new_name()))["StackStatus"] == "CREATE_COMPLETE"
