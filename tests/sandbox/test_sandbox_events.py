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
    aws = Wired(server.url)
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
    queue = aws.queue("all", "events.amazonaws.com")
    aws.rule("all", {"detail-type": [{"prefix": "SageMaker Model Package"}]}, queue)
    aws.version()
    bodies = [json.loads(m["Body"]) for m in aws.messages(queue)]
    assert len({body["id"] for body in bodies}) == 3
    assert {body["detail"]["ModelApprovalStatus"] for body in bodies} == {"PendingManualApproval"}


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


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"Input": '{"constant": 1}'}, {"constant": 1}),
        ({"InputPath": "$.detail.who"}, "me"),
        (
            {
                "InputTransformer": {
                    "InputPathsMap": {"who": "$.detail.who", "n": "$.detail.list[1]"},
                    "InputTemplate": '{"text": "<who> from <aws.events.rule-name>", '
                    '"raw": <who>, "n": <n>}',
                }
            },
            {"text": "me from shaped", "raw": "me", "n": 2},
        ),
    ],
)  # fmt: skip
def test_a_target_gets_the_input_it_asks_for(aws: Wired, given: Any, seen: Any) -> None:
    queue = aws.queue("shaped", "events.amazonaws.com")
    aws.rule("shaped", {"source": ["us"]}, queue, **given)
    put(aws, "us", {"who": "me", "list": [1, 2]})
    assert [json.loads(m["Body"]) for m in aws.messages(queue)] == [seen]


def put(aws: Wired, source: str, detail: Any) -> dict[str, Any]:
    entry = {"Source": source, "DetailType": "t", "Detail": json.dumps(detail)}
    return dict(aws.events.put_events(Entries=[entry])["Entries"][0])


def test_nobody_can_pretend_to_be_an_aws_service(aws: Wired) -> None:
    assert put(aws, "aws.sagemaker", {})["ErrorCode"] == "NotAuthorizedForSourceException"
    assert "EventId" in put(aws, "acme", {})


def test_what_eventbridge_or_the_sandbox_cannot_do_is_refused(aws: Wired) -> None:
    with pytest.raises(ClientError, match="InvalidEventPattern"):
        aws.events.put_rule(Name="bad", EventPattern='{"source": "aws.sagemaker"}')
    with pytest.raises(ClientError, match="no scheduled rules"):
        aws.events.put_rule(Name="bad", ScheduleExpression="rate(1 day)")
    aws.events.put_rule(Name="good", EventPattern='{"source": ["x"]}')
    with pytest.raises(ClientError, match="delivers events to"):
        aws.events.put_targets(
            Rule="good", Targets=[{"Id": "1", "Arn": "arn:aws:codebuild:eu-west-1:1:project/p"}]
        )


def test_a_pattern_can_be_tried(aws: Wired) -> None:
    event = dict.fromkeys(("id", "account", "source", "time", "region", "detail-type"), "x")
    text = json.dumps({**event, "resources": [], "detail": {"n": 300.0}})
    for pattern, fits in (
        ({"detail": {"n": [{"numeric": ["=", 300]}]}}, True),
        ({"id": ["y"]}, False),
    ):
        found = aws.events.test_event_pattern(EventPattern=json.dumps(pattern), Event=text)
        assert found["Result"] is fits
