"""Messages to people: which events lead to one, what it says, and that it is sent once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from trigger_case import Aws, functions, replace

REGION, ACCOUNT = "eu-west-1", "123456789012"
CALLED = SimpleNamespace(
    invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:sm-mlops-notify"
)
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:sm-mlops-notifications"
VERSION = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/churn/3"
EXECUTION = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/churn/execution/abcdefghijkl"
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/churn-production/0a1b"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONSOLE = f"https://{REGION}.console.aws.amazon.com"
PACKAGE = {
    "ModelPackageGroupName": "churn",
    "ModelPackageVersion": 3,
    "ModelApprovalStatus": "PendingManualApproval",
    "MetadataProperties": {"Repository": "https://github.com/acme/churn", "CommitId": COMMIT},
    "CustomerMetadataProperties": {"Evaluation": "auc 0.9931"},
}
TRAIN = {"StepName": "Train", "StepStatus": "Succeeded", "Metadata": {"TrainingJob": {}}}
# The reason is an argument of its job.
EVALUATE = {"StepName": "Evaluate", "StepStatus": "Succeeded", "Metadata": {"ProcessingJob": {}}}
HIT, MISS = {"SourcePipelineExecutionArn": "x"}, {"SourcePipelineExecutionArn": ""}
REGISTER = {"StepName": "Register", "Metadata": {"RegisterModel": {"Arn": VERSION}}}
STOPPED = {
    "StepName": "GateFailed",
    "StepStatus": "Failed",
    "Metadata": {"Fail": {"ErrorMessage": "QualityGate: auc 0.7; wanted at least 0.9"}},
}
CHECK = EXECUTION.replace("churn", "churn-monitor")
FOUND = {"StepName": "Violation", "StepStatus": "Failed", "Metadata": {"Fail": {}}}
BROKEN = {**TRAIN, "StepStatus": "Failed", "FailureReason": "AlgorithmError: no\nmemory"}
ROLLED_BACK = {
    "LogicalResourceId": "Endpoint",
    "ResourceStatus": "UPDATE_FAILED",
    "ResourceStatusReason": "alarm churn-production-errors is in ALARM",
    "ClientRequestToken": "t1",
}


def event(kind: str, **detail: Any) -> dict[str, Any]:
    return {
        "detail-type": kind,
        "account": ACCOUNT,
        "region": REGION,
        "time": "2026-11-29T06:00:00Z",
        "detail": detail,
    }


def waits(arn: str = VERSION) -> dict[str, Any]:
    return event("SageMaker Model Package State Change", ModelPackageArn=arn)


def ended(
    status: str = "Succeeded",
    description: str = f"Commit {COMMIT}, content 0. Reason: drift",
    arn: str = EXECUTION,
) -> dict[str, Any]:
    return event(
        "SageMaker Model Building Pipeline Execution Status Change",
        currentPipelineExecutionStatus=status,
        pipelineExecutionArn=arn,
        pipelineExecutionDescription=description,
    )


def named(name: str) -> dict[str, Any]:
    own = tags(project="churn", stage="production")
    return {"DescribeStacks": {"Stacks": [{"StackName": name, "Tags": own}]}}


def stack(status: str = "UPDATE_ROLLBACK_COMPLETE") -> dict[str, Any]:
    about = {"stack-id": STACK, "client-request-token": "t1"}
    return event(
        "CloudFormation Stack Status Change", **about, **{"status-details": {"status": status}}
    )


def drifts(value: str = "ALARM", at: str = "2026-11-29T06:00:00Z") -> dict[str, Any]:
    state = {"value": value, "timestamp": at}
    return event("CloudWatch Alarm State Change", alarmName="churn-production-drift", state=state)


def tags(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


@pytest.fixture
def aws() -> Aws:
    account = Aws()
    own = tags(project="churn", stage="production")
    late = {**ROLLED_BACK, "ResourceStatusReason": "Resource update cancelled"}
    account.answers = {
        "DescribeModelPackage": PACKAGE,
        "ListModelPackages": {"ModelPackageSummaryList": [{"ModelPackageArn": VERSION}]},
        "ListPipelineExecutionSteps": {"PipelineExecutionSteps": [TRAIN, REGISTER]},
        "DescribeStacks": {"Stacks": [{"StackName": "churn-production", "Tags": own}]},
        "DescribeStackEvents": {"StackEvents": [late, ROLLED_BACK]},
        "ListTagsForResource": {"Tags": [*own, *tags(**{"retrain-on-drift": "true"})]},
    }
    return account


@pytest.fixture
def notices(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "AWS_REGION": REGION,
        "ALLOWED_OWNERS": "acme",
        "CLAIMS_BUCKET": "claims",
        "TOPIC_ARN": TOPIC,
        "JENKINS_URL": "https://jenkins.example.com",
    }.items():
        monkeypatch.setenv(name, value)
    with functions() as modules:
        replace(monkeypatch, modules, "client", aws.client)
        yield modules.notices


def steps(*given: dict[str, Any]) -> dict[str, Any]:
    return {"ListPipelineExecutionSteps": {"PipelineExecutionSteps": list(given)}}


@pytest.mark.parametrize(
    ("happened", "answers", "subject", "words"),
    [
        (
            waits(),
            {},
            "churn: version 3 waits for approval",
            [
                "auc 0.9931",
                "mlops approve 3",
                f"https://github.com/acme/churn/commit/{COMMIT}",
            ],
        ),
        (
            ended(),
            {},
            "churn: retraining Succeeded",
            [
                "registered version 3",
                "Reason: drift",
                "mlops report 3",
                "https://github.com/acme/churn/actions/workflows/build.yml",
            ],
        ),
        (
            ended(),
            steps({**TRAIN, "CacheHitResult": HIT}, EVALUATE),
            "churn: retraining Succeeded",
            ["The model is unchanged: data and code are those of an earlier training."],
        ),
        (
            ended("Failed"),
            steps(TRAIN, STOPPED),
            "churn: retraining Failed",
            ["registered no version: QualityGate: auc 0.7", "mlops report abcdefghijkl"],
        ),
        (
            ended("Failed"),
            steps(BROKEN) | {"ListModelPackages": {"ModelPackageSummaryList": []}},
            "churn: retraining Failed",
            [
                "failed in step Train: AlgorithmError: no memory",
                "mlops logs Train --execution abcdefghijkl",
                f"{CONSOLE}/sagemaker/home",
            ],
        ),
        (
            ended("Failed", "", CHECK),
            steps({**BROKEN, "StepName": "Check"}),
            "churn: a check failed",
            [
                "A monitoring check of churn failed: AlgorithmError: no memory",
                "mlops logs Check --execution abcdefghijkl",
                f"Execution: {CHECK}",
            ],
        ),
        (
            stack(),
            {},
            "churn: stage production was rolled back",
            [
                "Endpoint: alarm churn-production-errors is in ALARM",
                "The deployment of stage production of churn ended as UPDATE_ROLLBACK_COMPLETE.",
                "The previous version keeps serving.",
                "mlops status",
                f"{CONSOLE}/cloudformation/home?region={REGION}#/stacks/events?stackId=arn%3Aaws",
            ],
        ),
        (
            stack("UPDATE_ROLLBACK_FAILED"),
            {},
            "churn: stage production failed",
            ["UPDATE_ROLLBACK_FAILED"],
        ),
        (
            stack("DELETE_FAILED"),
            {},
            "churn: deleting stage production failed",
            [
                "Deleting stage production of churn ended as DELETE_FAILED.",
                "mlops destroy production   tries it again",
            ],
        ),
        (
            stack(),
            named("churn-production-watch"),
            "churn: the schedules and alarm of production were rolled back",
            [
                "The deployment of the schedules and alarm of production of churn ended as UPDATE",
                "The previous version keeps serving.",
                "mlops deploy production",
            ],
        ),
        (
            stack("DELETE_FAILED"),
            named("churn-production-watch"),
            "churn: deleting the schedules and alarm of production failed",
            [
                "Deleting the schedules and alarm of production of churn ended as DELETE_FAILED.",
                "mlops deploy production --model-package-arn ARN   tries it again, if the "
                "stage stays",
                "mlops destroy production   tries it again, if not",
            ],
        ),
        (
            drifts(),
            {},
            "churn: drift in production",
            [
                "a training starts by itself, at most once in 7 days",
                "mlops monitor production --report",
                f"{CONSOLE}/cloudwatch/home?region={REGION}#alarmsV2:alarm/churn-production-drift",
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_says_what_happened_where_what_to_do_and_where_to_look_once(
    notices: Any, aws: Aws, happened: Any, answers: dict[str, Any], subject: str, words: list[str]
) -> None:
    aws.answers |= answers
    told = [notices.handler(happened, CALLED) for _ in range(2)]
    assert [each["sent"] for each in told] == [True, False]
    [message] = aws.published
    assert (message["TopicArn"], message["Subject"]) == (TOPIC, subject)
    assert [word for word in words if word not in message["Message"]] == []
    assert "What to do next:\n  mlops" in message["Message"]
    assert message["Message"].rstrip().splitlines()[-1].startswith("https://")


def test_a_job_that_ran_is_no_cache_hit(notices: Any, aws: Aws) -> None:
    aws.answers |= steps({**TRAIN, "CacheHitResult": HIT}, {**TRAIN, "CacheHitResult": MISS})
    notices.handler(ended(), CALLED)
    assert "The model is unchanged" not in aws.published[0]["Message"]


def test_a_message_about_drift_says_what_the_newest_check_found(notices: Any, aws: Aws) -> None:
    aws.check(datetime(2026, 11, 28, 6, tzinfo=UTC), message="age")
    aws.check(datetime(2026, 11, 29, 6, tzinfo=UTC), message="income drifts")
    notices.handler(drifts(), CALLED)
    assert "income drifts" in aws.published[0]["Message"]


def test_drift_that_no_check_has_found_is_told_nobody(notices: Any, aws: Aws) -> None:
    aws.check(datetime(2026, 11, 29, 6, tzinfo=UTC), "ok")
    told = notices.handler(drifts(), CALLED)
    assert told["sent"] is False and "no violation" in told["why"]


def test_what_happens_again_is_told_again(notices: Any, aws: Aws) -> None:
    for at in ("2026-11-29T06:00:00Z", "2026-11-30T06:00:00Z"):
        notices.handler(drifts(at=at), CALLED)
        notices.handler({**stack(), "time": at}, CALLED)
    assert len(aws.published) == 4


def test_a_message_that_was_not_sent_is_sent_by_the_retry(notices: Any, aws: Aws) -> None:
    aws.answers["Publish"] = "ThrottledException"
    with pytest.raises(ClientError, match="Throttled"):
        notices.handler(waits(), CALLED)
    assert not aws.objects
    del aws.answers["Publish"]
    assert notices.handler(waits(), CALLED)["sent"] is True


def test_a_subject_is_what_sns_takes(notices: Any, aws: Aws) -> None:
    name = "é" * 120 + "\n"
    aws.answers["DescribeModelPackage"] = {**PACKAGE, "ModelPackageGroupName": name}
    notices.handler(waits(), CALLED)
    subject = aws.published[0]["Subject"]
    assert len(subject) == 100 and subject.isascii() and subject.isprintable()


@pytest.mark.parametrize(
    ("happened", "answers", "why"),
    [
        (waits(), {"DescribeModelPackage": {"ModelApprovalStatus": "Approved"}}, "is Approved"),
        (waits(), {"DescribeModelPackage": "ValidationException"}, "deleted"),
        (
            waits(),
            {"DescribeModelPackage": {"ModelApprovalStatus": "PendingManualApproval"}},
            "no repository",
        ),
        (ended(description=f"Commit {COMMIT}, content 0"), {}, "not the end of a retraining"),
        (ended("Executing"), {}, "not the end of a retraining"),
        (stack("UPDATE_COMPLETE"), {}, "a stack is UPDATE_COMPLETE"),
        (stack(), {"DescribeStacks": "ValidationException"}, "deleted"),
        (stack(), {"DescribeStacks": {"Stacks": [{"StackName": "x"}]}}, "not the stack of a stage"),
        (stack(), named("churn-production-other"), "not the stack of a stage"),
        (ended("Failed", "", CHECK), steps(FOUND), "not the end of a retraining"),
        (ended("Succeeded", "", CHECK), {}, "not the end of a retraining"),
        (drifts("OK"), {}, "not in ALARM"),
        (drifts(), {"ListTagsForResource": {"Tags": []}}, "not the alarm of a stage"),
        ({**waits(), "account": "210987654321"}, {}, "another account"),
        (event("x"), {}, "not an event"),
        (event("CloudWatch Alarm State Change"), {}, "not an alarm"),
        (["x"], {}, "not an event"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_concerns_nobody_is_told_nobody(
    notices: Any, aws: Aws, happened: Any, answers: dict[str, Any], why: str
) -> None:
    aws.answers |= answers
    told = notices.handler(happened, CALLED)
    assert told["sent"] is False and why in told["why"]
    assert not aws.published and not aws.objects
