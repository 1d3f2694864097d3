"""Metrics, alarms and topics as a test makes and reads them."""

from typing import Any

from function_cases import ACCOUNT
from sandbox_cases import REGION, policy
from sandbox_iam_case import Account
from sm_mlops.sandbox import Server

STAGE = [{"Name": "Project", "Value": "churn"}, {"Name": "Stage", "Value": "production"}]


def report(aws: Account, value: float, **more: Any) -> None:
    row = {"MetricName": "Violations", "Dimensions": STAGE, "Value": value, **more}
    aws.client("cloudwatch").put_metric_data(Namespace="sm-mlops", MetricData=[row])


def alarm(aws: Account, name: str, **changes: Any) -> str:
    """Make an alarm; return its ARN."""
    given = {
        "AlarmName": name,
        "Namespace": "sm-mlops",
        "MetricName": "Violations",
        "Dimensions": STAGE,
        "Statistic": "Maximum",
        "Period": 3600,
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        **changes,
    }
    aws.client("cloudwatch").put_metric_alarm(**given)
    return f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"


def state(aws: Account, name: str) -> str:
    found = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(found[0]["StateValue"])


def topic(aws: Account, name: str, statement: Any = None, **attributes: str) -> str:
    """Make a topic with a reader and a policy that has a statement; return its ARN."""
    sns = aws.client("sns")
    arn = sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
    sns.subscribe(TopicArn=arn, Protocol="email", Endpoint=f"{name}@example.com")
    if statement:
        sns.set_topic_attributes(
            TopicArn=arn,
            AttributeName="Policy",
            AttributeValue=policy({**statement, "Resource": arn}),
        )
    return str(arn)


def sent(server: Server, arn: str) -> list[dict[str, Any]]:
    return [each for each in server.integrations.topics.messages() if each["TopicArn"] == arn]
