"""Events in the sandbox: a change in the registry reaches the functions that rules name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import Wired, until
from sandbox_cases import GROUP
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

APPROVED = {
    "source": ["aws.sagemaker"],
    "detail-type": ["SageMaker Model Package State Change"],
    "detail": {"ModelApprovalStatus": ["Approved"]},
}
NOTE = "import json\ndef handler(event, context):\n    print('GOT ' + json.dumps(event))\n"


@pytest.fixture
def server(tmp_path: Any) -> Iterator[Server]:
    with Server(tmp_path, "eu-west-1") as server:
        yield server


@pytest.fixture
def aws(server: Server) -> Wired:
    aws = Wired(server.environment())
    aws.prepare()
    return aws


def got(aws: Wired, name: str) -> list[Any]:
    lines = [line for line in aws.log(name).splitlines() if line.startswith("GOT ")]
    return [json.loads(line.removeprefix("GOT ")) for line in lines]


def test_an_approval_reaches_the_function_as_the_documented_event(aws: Wired) -> None:
    function = aws.function("trigger", NOTE)
    aws.permit("trigger", aws.rule("approved", APPROVED, function))
    arn = aws.version(
        MetadataProperties={"CommitId": "abc", "Repository": "https://github.com/a/b"}
    )
    aws.approve(arn)
    (event,) = until(lambda: got(aws, "trigger"))
    envelope = "version id detail-type source account time region resources detail"
    assert set(event) == set(envelope.split())
    assert event["resources"] == [arn] and event["account"] == "123456789012"
    detail = event["detail"]
    assert detail["ModelApprovalStatus"] == "Approved" and detail["ModelPackageArn"] == arn
    assert detail["ModelPackageGroupName"] == GROUP and detail["ModelPackageVersion"] == 1
    assert detail["MetadataProperties"]["CommitId"] == "abc"
    assert detail["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]


def test_what_no_rule_asks_for_invokes_nothing(aws: Wired, server: Server) -> None:
    function = aws.function("trigger", NOTE)
    aws.permit("trigger", aws.rule("approved", APPROVED, function))
    arn = aws.version()
    aws.approve(arn, "Rejected")
    aws.events.disable_rule(Name="approved")
    aws.approve(arn)
    assert not server.integrations.busy() and aws.log("trigger") == ""


def test_one_change_may_be_announced_several_times(aws: Wired, server: Server) -> None:
    server.integrations.events.repeat = 3
    function = aws.function("trigger", NOTE)
    aws.permit("trigger", aws.rule("approved", APPROVED, function))
    aws.approve(aws.version())
    events = until(lambda: found if len(found := got(aws, "trigger")) == 3 else None)
    assert len({event["id"] for event in events}) == 3


def test_a_function_without_permission_sends_the_event_to_the_rules_dead_letters(
    aws: Wired,
) -> None:
    dead = aws.queue("dead", "events.amazonaws.com")
    function = aws.function("locked", NOTE)
    rule = aws.rule("approved", APPROVED, function, DeadLetterConfig={"Arn": dead})
    arn = aws.version()
    aws.approve(arn)
    (letter,) = aws.messages(dead)
    attributes = {k: v["StringValue"] for k, v in letter["MessageAttributes"].items()}
    assert attributes["ERROR_CODE"] == "NO_PERMISSIONS" and attributes["RULE_ARN"] == rule
    assert json.loads(letter["Body"])["resources"] == [arn]
    assert aws.log("locked") == ""


def test_a_permission_for_another_rule_does_not_count(aws: Wired) -> None:
    dead = aws.queue("dead", "events.amazonaws.com")
    function = aws.function("locked", NOTE)
    rule = aws.rule("approved", APPROVED, function, DeadLetterConfig={"Arn": dead})
    aws.permit("locked", rule + "-other")
    aws.approve(aws.version())
    assert len(aws.messages(dead)) == 1


def test_what_eventbridge_or_the_sandbox_cannot_do_is_refused(aws: Wired) -> None:
    with pytest.raises(ClientError, match="InvalidEventPattern"):
        aws.events.put_rule(Name="bad", EventPattern='{"source": "aws.sagemaker"}')
    for given, words in (
        ({"ScheduleExpression": "rate(1 day)"}, "ScheduleExpression of events:PutRule"),
        ({"EventPattern": '{"a": [{"prefix": "x"}]}'}, "in event patterns"),
    ):
        with pytest.raises(ClientError, match=f"does not implement .*{words}"):
            aws.events.put_rule(Name="bad", **given)
    aws.events.put_rule(Name="good", EventPattern='{"source": ["x"]}')
    function = {"Id": "1", "Arn": "arn:aws:lambda:eu-west-1:123456789012:function:f"}
    for target, words in (
        ({"Id": "1", "Arn": "arn:aws:sqs:eu-west-1:123456789012:q"}, "events to arn:aws:sqs"),
        ({**function, "Input": "{}"}, "Input of events:PutTargets"),
    ):
        with pytest.raises(ClientError, match=f"does not implement {words}"):
            aws.events.put_targets(Rule="good", Targets=[target])
    entry = {"Source": "acme", "DetailType": "t", "Detail": "{}"}
    with pytest.raises(ClientError, match="does not implement events:PutEvents"):
        aws.events.put_events(Entries=[entry])


def test_what_moto_does_not_implement_is_refused_by_name(server: Server) -> None:
    for service, operation, given in (
        ("iam", "get_context_keys_for_custom_policy", {"PolicyInputList": ["{}"]}),
        ("secretsmanager", "stop_replication_to_replica", {"SecretId": "s"}),
    ):
        call = getattr(server.client("eu-west-1", service), operation)
        with pytest.raises(ClientError, match=f"does not implement .* {service}: .*{operation}"):
            call(**given)
