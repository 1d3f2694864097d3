"""Metrics, alarms and topics in the sandbox: who may report, when an alarm rings, who hears it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from alarm_cases import STAGE, alarm, report, sent, state, topic
from function_cases import ACCOUNT, until
from sandbox_cases import REGION, condition, fail, policy
from sandbox_iam_case import Account, allow, error
from sm_mlops.sandbox import Server, clock, cloudwatch, metrics, topics
from sm_mlops.sandbox.wire import ApiError

DAY = 86_400
NOTE = "import json\ndef handler(event, context):\n    print('GOT ' + json.dumps(event))\n"

# Missing data, values of the newest periods (None: none), and the state; None leaves it.
STATES: dict[str, tuple[str | None, list[float | None], str | None]] = {
    "above": ("ignore", [2.0], "ALARM"),
    "below": ("ignore", [0.0], "OK"),
    "nothing, ignored": ("ignore", [None], None),
    "nothing": ("missing", [None], "INSUFFICIENT_DATA"),
    "nothing, not said how": (None, [None], "INSUFFICIENT_DATA"),
    "nothing, good": ("notBreaching", [None], "OK"),
    "nothing, bad": ("breaching", [None], "ALARM"),
    "above once of two": ("notBreaching", [2.0, None], "OK"),
    "above twice of two": ("notBreaching", [2.0, 3.0], "ALARM"),
}


def stored(**changes: Any) -> Any:
    """Return an alarm as moto keeps it."""
    given = {
        "period": 3600,
        "statistic": "Maximum",
        "extended_statistic": None,
        "threshold": 1.0,
        "comparison_operator": "GreaterThanOrEqualToThreshold",
        "datapoints_to_alarm": None,
        "evaluation_periods": 1,
        "treat_missing_data": None,
    }
    return SimpleNamespace(**{**given, **changes})


@pytest.mark.parametrize("case", STATES)
def test_an_alarm_is_evaluated_by_its_newest_periods(case: str) -> None:
    missing, values, wanted = STATES[case]
    alarm = stored(treat_missing_data=missing, evaluation_periods=len(values))
    now = clock.now()
    samples = [(now - 3600 * i - 60, v) for i, v in enumerate(values) if v is not None]
    assert metrics.evaluate(alarm, samples, 3600.0)[0] == wanted


GRAPH = {"type": "metric", "properties": {"metrics": [["n", "m"]]}}
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:t"
# Operation, its members, and the words of the refusal.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a namespace of AWS": ("PutMetricData", {"Namespace": "AWS/Lambda"}, "parameter Namespace"),
    "no number": ("PutMetricData", {"MetricData": [{"Value": "NaN"}]}, "The value NaN"),
    "too old": ("PutMetricData", {"MetricData": [{"Timestamp": 1.0}]}, "past two weeks"),
    "statistics": ("PutMetricData", {"MetricData": [{"StatisticValues": {}}]}, "not implement Sta"),
    "an action": (
        "PutMetricAlarm",
        {"AlarmActions": ["arn:aws:lambda:eu-west-1:1:function:f"]},
        "lambda.* in AlarmActions",
    ),
    "a dashboard": ("PutDashboard", {"DashboardBody": "[]"}, "must be a JSON object"),
    "a graph": ("PutDashboard", {"DashboardBody": json.dumps({"widgets": [GRAPH]})}, "'region'"),
    "a widget": ("PutDashboard", {"DashboardBody": '{"widgets": [{"type": "x"}]}'}, "type x"),
    "too large": (
        "PutDashboard",
        {
            "DashboardBody": json.dumps(
                {"widgets": [{**GRAPH, "properties": {"metrics": [], "region": "r"}, "width": 25}]}
            )
        },
        "too large",
    ),
    "https": ("Subscribe", {"Protocol": "https"}, "the protocol https"),
    "an address": ("Subscribe", {"Protocol": "email", "Endpoint": "me"}, "Email address"),
    "a filter": (
        "Subscribe",
        {"Protocol": "email", "Endpoint": "a@b", "Attributes": [{}]},
        "Attributes of sns",
    ),
    "an attribute": ("SetTopicAttributes", {"AttributeName": "TracingConfig"}, "of topics"),
    "a policy": (
        "SetTopicAttributes",
        {"AttributeName": "Policy", "AttributeValue": policy(allow("sns:Publish"))},
        "must have a Principal",
    ),
    "a long subject": ("Publish", {"Subject": "x" * 101, "Message": "m"}, "Subject"),
    "a line in a subject": ("Publish", {"Subject": "a\nb", "Message": "m"}, "Subject"),
    "no message": ("Publish", {"Message": ""}, "Message"),
    "a phone": ("Publish", {"PhoneNumber": "+1", "Message": "m"}, "PhoneNumber of sns"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_aws_or_the_sandbox_cannot_do_is_refused(case: str) -> None:
    operation, params, words = REFUSED[case]
    check = topics.check if operation in ("Subscribe", "Publish") else cloudwatch.check
    check = topics.check if operation == "SetTopicAttributes" else check
    with pytest.raises(ApiError, match=words):
        check(operation, params)


# With a server.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, REGION) as server:
        Account(server.environment()).prepare()
        yield server


@pytest.fixture
def aws(server: Server) -> Account:
    return Account(server.environment())


def got(aws: Account, name: str) -> list[Any]:
    lines = [line for line in aws.log(name).splitlines() if line.startswith("GOT ")]
    return [json.loads(line.removeprefix("GOT ")) for line in lines]


@pytest.mark.slow
def test_an_alarm_rings_for_its_dimensions_and_is_an_event_and_a_message(
    aws: Account, server: Server
) -> None:
    where = topic(aws, "drift")
    actions = {"AlarmActions": [where], "AlarmDescription": "Data of churn drifts"}
    arn = alarm(aws, "churn-drift", TreatMissingData="ignore", **actions)
    pattern = {
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
        "detail": {"state": {"value": ["ALARM"]}},
    }
    function = aws.function("heard", NOTE)
    aws.permit("heard", aws.rule("drift", pattern, function))
    assert state(aws, "churn-drift") == "INSUFFICIENT_DATA"
    report(aws, 5, Dimensions=STAGE[:1])
    report(aws, 0)
    assert state(aws, "churn-drift") == "OK"
    report(aws, 2)
    assert state(aws, "churn-drift") == "ALARM"
    (event,) = until(lambda: got(aws, "heard"))
    assert event["resources"] == [arn] and event["source"] == "aws.cloudwatch"
    told = event["detail"]
    assert told["alarmName"] == "churn-drift" and told["previousState"]["value"] == "OK"
    assert set(told["state"]) == {"value", "reason", "reasonData", "timestamp"}
    (metric,) = told["configuration"]["metrics"]
    dimensions = {"Project": "churn", "Stage": "production"}
    assert metric["metricStat"]["metric"]["dimensions"] == dimensions
    (message,) = sent(server, where)
    assert message["To"] == ["drift@example.com"]
    assert message["Subject"] == f'ALARM: "churn-drift" in {REGION}'
    body = json.loads(message["Message"])
    assert body["AlarmDescription"] == "Data of churn drifts" and body["OldStateValue"] == "OK"
    assert "[2.0] was greater than or equal to the threshold (1.0)" in body["NewStateReason"]
    # Without data it keeps its state; changed, too; a second violation says nothing new.
    server.integrations.advance(clock.now() + DAY)
    alarm(aws, "churn-drift", TreatMissingData="ignore", Threshold=2, **actions)
    report(aws, 2)
    assert state(aws, "churn-drift") == "ALARM" and len(sent(server, where)) == 1


@pytest.mark.slow
def test_an_alarm_ends_as_the_clock_moves_or_as_somebody_says(aws: Account, server: Server) -> None:
    where = topic(aws, "passing")
    report(aws, 9)
    alarm(aws, "passing", TreatMissingData="notBreaching", OKActions=[where])
    assert state(aws, "passing") == "ALARM"
    server.integrations.advance(clock.now() + 2 * 3600)
    assert [m["Subject"] for m in sent(server, where)] == [f'OK: "passing" in {REGION}']
    quiet = alarm(aws, "quiet", TreatMissingData="ignore", MetricName="None", AlarmActions=[where])
    by_hand = {"AlarmName": "quiet", "StateValue": "ALARM", "StateReason": "a drill"}
    aws.client("cloudwatch").set_alarm_state(**by_hand)
    assert state(aws, "quiet") == "ALARM"
    body = json.loads(sent(server, where)[-1]["Message"])
    assert (body["AlarmArn"], body["NewStateReason"]) == (quiet, "a drill")


SERVICE = {"Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"}}
PUBLISH = {**SERVICE, "Action": "sns:Publish"}
# A statement of the topic's policy, its attributes, and whether an alarm reaches it.
REACHED: dict[str, tuple[Any, dict[str, str], bool]] = {
    "new": (None, {}, True),
    "named": (PUBLISH, {}, True),
    "account": (
        {**PUBLISH, "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}},
        {},
        True,
    ),
    "other": ({**PUBLISH, "Principal": {"Service": "events.amazonaws.com"}}, {}, False),
    "managed": (PUBLISH, {"KmsMasterKeyId": "alias/aws/sns"}, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REACHED)
def test_an_alarm_reaches_a_topic_whose_policy_and_key_let_it(
    aws: Account, server: Server, case: str
) -> None:
    statement, attributes, reached = REACHED[case]
    where = topic(aws, case, statement, **attributes)
    alarm(aws, case, MetricName=case, Dimensions=[], AlarmActions=[where])
    report(aws, 1, MetricName=case, Dimensions=[])
    assert state(aws, case) == "ALARM"
    assert bool(sent(server, where)) == reached


@pytest.mark.slow
def test_roles_report_and_publish_where_their_policies_let_them(
    aws: Account, server: Server
) -> None:
    namespace = {"StringEquals": {"cloudwatch:namespace": "sm-mlops"}}
    where = topic(aws, "people")
    arn = alarm(aws, "tagged", Tags=[{"Key": "project", "Value": "churn"}])
    job = aws.may(
        "reporter",
        allow("cloudwatch:PutMetricData", Condition=namespace),
        allow("cloudwatch:ListTagsForResource", arn),
        allow("sns:Publish", where),
    )
    report(job, 0)
    put = job.client("cloudwatch").put_metric_data
    row = {"MetricName": "m", "Value": 1}
    assert error(put, Namespace="other", MetricData=[row])[0] == "AccessDenied"
    tags = job.client("cloudwatch").list_tags_for_resource
    assert tags(ResourceARN=arn)["Tags"] == [{"Key": "project", "Value": "churn"}]
    assert error(tags, ResourceARN=arn + "-2")[0] == "AccessDenied"
    job.client("sns").publish(TopicArn=where, Subject="Approve version 3", Message="Open …")
    (message,) = sent(server, where)
    assert (message["Subject"], message["Message"]) == ("Approve version 3", "Open …")
    assert error(job.client("sns").publish, TopicArn=where + "2", Message="m")[1] == 403


@pytest.mark.slow
def test_statistics_are_of_one_metric_with_exactly_its_dimensions(aws: Account) -> None:
    client = aws.client("cloudwatch")
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    name = {"MetricName": "Rows"}
    for minutes, value in ((1, 10.0), (50, 30.0), (70, 5.0)):
        report(aws, value, Timestamp=hour + timedelta(minutes=minutes), **name)
    report(aws, 100, Timestamp=hour, Dimensions=STAGE[:1], **name)
    client.put_metric_data(
        Namespace="other",
        MetricData=[{**name, "Dimensions": STAGE, "Value": 7, "Timestamp": hour}],
    )
    asked = {
        "Metric": {"Namespace": "sm-mlops", "Dimensions": STAGE[::-1], **name},
        "Period": 3600,
        "Stat": "Sum",
    }
    during = {"StartTime": hour + timedelta(minutes=10), "EndTime": hour + timedelta(hours=3)}
    query = [{"Id": "q", "MetricStat": asked}]
    (row,) = client.get_metric_data(MetricDataQueries=query, **during)["MetricDataResults"]
    assert row["Values"] == [5.0, 30.0]
    points = client.get_metric_statistics(
        Namespace="sm-mlops",
        Dimensions=STAGE,
        Period=7200,
        Statistics=["Maximum"],
        **name,
        **during,
    )["Datapoints"]
    assert sorted(point["Maximum"] for point in points)[-1] == 30.0
    with pytest.raises(ClientError, match=r"does not implement this .*Expression of"):
        client.get_metric_data(MetricDataQueries=[{"Id": "q", "Expression": "1"}], **during)


@pytest.mark.slow
def test_the_end_of_an_execution_and_the_status_of_a_stack_are_events(aws: Account) -> None:
    function = aws.function("told", NOTE)
    pattern = {
        "detail-type": [
            "SageMaker Model Building Pipeline Execution Status Change",
            "CloudFormation Stack Status Change",
        ]
    }
    aws.permit("told", aws.rule("told", pattern, function))
    always = [{"Type": "Equals", "LeftValue": "1", "RightValue": "1"}]
    ended = aws.run([condition("C", always, [fail("F", "drift")])], name="failing")
    (event,) = until(lambda: got(aws, "told"))
    assert event["resources"] == [ended.described["PipelineArn"], ended.arn]
    told = event["detail"]
    assert told["currentPipelineExecutionStatus"] == "Failed"
    assert told["previousPipelineExecutionStatus"] == "Executing"
    assert told["executionEndTime"].endswith("Z") and told["pipelineExecutionArn"] == ended.arn
    template = {"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}}
    stack = aws.client("cloudformation").create_stack(
        StackName="s", TemplateBody=json.dumps(template)
    )["StackId"]
    statuses = {"CREATE_IN_PROGRESS", "CREATE_COMPLETE"}
    rows = until(lambda: found if len(found := got(aws, "told")) == 3 else None)
    stacks = [row for row in rows if row["source"] == "aws.cloudformation"]
    assert {row["detail"]["status-details"]["status"] for row in stacks} == statuses
    for row in stacks:
        assert row["resources"] == [stack] and row["detail"]["stack-id"] == stack
