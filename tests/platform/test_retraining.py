"""What starts a training by itself, and what does not: alarms about drift, and schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from trigger_case import Aws, GitHub, functions, replace

REGION, ACCOUNT, NAME = "eu-west-1", "123456789012", "churn-production-drift"
ALARM = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{NAME}"
VERSION = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/churn/3"
AT = "2026-11-29T06:00:00Z"
NOW = datetime.fromisoformat(AT)
TAGS = {
    "project": "churn",
    "stage": "production",
    "retrain-on-drift": "true",
    "cool-down-days": "7",
}
CALLED = SimpleNamespace(
    invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:sm-mlops-trigger",
    get_remaining_time_in_millis=lambda: 30_000,
)
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/churn-production-watch/0a1b2c3d"
WORKFLOW = "/repos/acme/churn/actions/workflows/build.yml/dispatches"


def tagged(**changes: str) -> dict[str, Any]:
    return {"Tags": [{"Key": key, "Value": value} for key, value in (TAGS | changes).items()]}


def package(repository: str = "https://github.com/acme/churn", **metadata: str) -> dict[str, Any]:
    origin = {"Repository": repository, "CommitId": "unknown"}
    return {"MetadataProperties": origin, "CustomerMetadataProperties": metadata}


def rings(at: str = AT, value: str = "ALARM", **changes: Any) -> dict[str, Any]:
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "account": ACCOUNT,
        "region": REGION,
        "time": at,
        "resources": [ALARM],
        "detail": {"alarmName": NAME, "state": {"value": value, "timestamp": at}},
        **changes,
    }


def scheduled(at: str = "2026-11-29T03:00:00Z", **changes: str) -> dict[str, Any]:
    given = {"Project": "churn", "Stage": "production", "Scheduled": at, "Stack": STACK, **changes}
    return {"Retrain": given}


def target(**changes: str) -> dict[str, str]:
    """Return the target of the schedule, as the stage's stack makes it."""
    return {"Input": json.dumps(scheduled("<aws.scheduler.scheduled-time>", **changes))}


@pytest.fixture
def github(github_as_described: list[str]) -> Iterator[GitHub]:
    server = GitHub(github_as_described)
    yield server
    server.close()


@pytest.fixture
def aws() -> Aws:
    """Return an account with an alarm, a schedule and an approved version."""
    account = Aws()
    account.answers = {
        "ListTagsForResource": tagged(),
        "GetSchedule": {"State": "ENABLED", "Target": target()},
        "ListModelPackages": {"ModelPackageSummaryList": [{"ModelPackageArn": VERSION}]},
        "DescribeModelPackage": package(),
        "GetSecretValue": {"SecretString": '{"token": "ghp_canary0123456789"}'},
    }
    return account


@pytest.fixture
def trigger(aws: Aws, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "AWS_REGION": REGION,
        "ALLOWED_OWNERS": "acme",
        "CLAIMS_BUCKET": "claims",
        "CREDENTIAL_SECRET": "sm-mlops/github",
        "GITHUB_API": github.url,
        "JENKINS_URL": f"{github.url}/jenkins",
    }.items():
        monkeypatch.setenv(name, value)
    with functions() as modules:
        replace(monkeypatch, modules, "client", aws.client)
        yield modules.handler


def state(**changes: str) -> dict[str, Any]:
    return {"State": "ENABLED", "Target": target(**changes)}


def test_drift_starts_the_repository_s_build_and_says_why(trigger: Any, github: GitHub) -> None:
    told = trigger.handler(rings(), CALLED)
    assert told["started"] is True and told["repository"] == "acme/churn"
    [(path, _, body)] = github.requests
    assert path == WORKFLOW
    assert json.loads(body)["inputs"] == {"reason": f"drift in production: alarm {NAME} at {AT}"}


def test_the_reason_names_what_the_newest_check_found(
    trigger: Any, github: GitHub, aws: Aws
) -> None:
    """Also of a check each hour, whose results fill more than one page of a listing."""
    for hours in range(1416):
        aws.check(NOW - timedelta(hours=hours + 1), message="age")
    aws.check(NOW, message="1 violation:\nage " * 99)
    trigger.handler(rings(), CALLED)
    reason = json.loads(github.requests[0][2])["inputs"]["reason"]
    assert reason.startswith("drift: 1 violation: age 1 violation: age")
    assert len(reason) <= 500 and reason.isprintable()


@pytest.mark.parametrize(
    ("checks", "reason"),
    [
        ([(0, {"status": "ok"})], None),
        ([(0, {"status": "no requests"}), (9, {"status": "violation"})], None),
        # Late labels add a violation to a window before; the newest result stays as it is.
        (
            [(0, {"status": "ok"}), (2, {"message": "auc 0.7", "written": NOW})],
            "drift: auc 0.7",
        ),
        # A violation that was found before has had its alarm.
        ([(0, {"status": "ok"}), (2, {"written": NOW - timedelta(hours=3)})], None),
        ([(0, {"written": NOW - timedelta(hours=3)})], None),
        # An event that arrives late is about what was known at its time.
        ([(0, {"message": "age"}), (-1, {"status": "ok"})], "drift: age"),
        # The job puts its metrics before it has written all results.
        ([(0, {"status": "ok", "digest": "", "message": "ok"})], "drift: ok"),
        ([(0, {"window": "x", "status": "ok"})], f"drift in production: alarm {NAME} at {AT}"),
    ],
)
def test_a_metric_without_a_violation_that_a_check_found_starts_nothing(
    trigger: Any, aws: Aws, github: GitHub, checks: list[Any], reason: str | None
) -> None:
    """Any project may put the metric of another."""
    for days, result in checks:
        aws.check(NOW - timedelta(days=days), **result)
    told = trigger.handler(rings(), CALLED)
    assert (told["started"], told.get("reason")) == (reason is not None, reason)
    assert reason or "no violation" in told["why"]


@pytest.mark.parametrize(
    ("event", "answers", "why"),
    [
        (rings(value="OK"), {}, "not in ALARM"),
        (rings(account="210987654321"), {}, "another account"),
        (rings(region="us-east-1"), {}, "another account or region"),
        (rings(time="soon"), {}, "malformed"),
        (rings(detail={"alarmName": "errors", "state": {"value": "ALARM"}}), {}, "not an alarm"),
        (rings(detail={"alarmName": NAME, "state": []}), {}, "not in ALARM"),
        (rings(), {"ListTagsForResource": "ResourceNotFound"}, "deleted"),
        (rings(), {"ListTagsForResource": {"Tags": []}}, "not the alarm of a stage"),
        (rings(), {"ListTagsForResource": tagged(project="other")}, "not the alarm of a stage"),
        (rings(), {"ListTagsForResource": tagged(**{"cool-down-days": "x"})}, "malformed"),
        (rings(), {"ListTagsForResource": tagged(**{"retrain-on-drift": "false"})}, "on_drift"),
        (rings(), {"ListModelPackages": "ValidationException"}, "no model package group"),
        (rings(), {"ListModelPackages": {"ModelPackageSummaryList": []}}, "no approved version"),
        (rings(), {"DescribeModelPackage": package("https://github.com/x/y")}, "not allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_drift_of_a_stage_that_wants_it_starts_nothing(
    trigger: Any, aws: Aws, github: GitHub, event: Any, answers: dict[str, Any], why: str
) -> None:
    aws.answers |= answers
    told = trigger.handler(event, CALLED)
    assert told["started"] is False and why in told["why"]
    assert not github.requests and not aws.objects


def test_drift_starts_one_training_in_a_cool_down(trigger: Any, github: GitHub) -> None:
    alarms = [rings(f"2026-{day}T06:00:00Z") for day in ("11-01", "11-01", "11-07", "11-08")]
    told = [trigger.handler(alarm, CALLED) for alarm in alarms]
    assert [each["started"] for each in told] == [True, False, False, True]
    assert "2026-11-01 06:00 UTC" in told[2]["why"]


@pytest.mark.parametrize(
    ("at", "starts"),
    # The first is a retry of what may have been killed.
    [("2026-11-01T06:00:00Z", True), ("2026-11-02T06:00:00Z", False), (AT, True)],
)
def test_a_training_that_could_not_be_recorded_counts_in_the_cool_down(
    trigger: Any, aws: Aws, github: GitHub, at: str, starts: bool
) -> None:
    trigger.handler(rings("2026-11-01T06:00:00Z"), CALLED)
    [(key, record)] = aws.objects.items()
    aws.objects[key] = json.dumps(json.loads(record) | {"state": "claimed", "at": 0}).encode()
    assert trigger.handler(rings(at), CALLED)["started"] is starts


@pytest.mark.parametrize("before", [False, True])
def test_a_training_that_did_not_start_leaves_no_trace_and_is_started_by_the_retry(
    trigger: Any, aws: Aws, github: GitHub, before: bool
) -> None:
    if before:
        trigger.handler(rings("2026-11-01T06:00:00Z"), CALLED)
    was = dict(aws.objects)
    github.answers = [(503, {}, b'{"message": "no"}'), (204, {}, b"")]
    with pytest.raises(trigger.TriggerError, match="503 no"):
        trigger.handler(rings(), CALLED)
    assert aws.objects == was
    assert trigger.handler(rings(), CALLED)["started"] is True
    assert trigger.handler(rings(), CALLED)["started"] is False


def test_a_jenkins_repo_is_trained_by_its_job(trigger: Any, aws: Aws, github: GitHub) -> None:
    aws.answers["DescribeModelPackage"] = package(CI="jenkins")
    secret = {"jenkins_user": "ci", "jenkins_token": "11canary"}
    aws.answers["GetSecretValue"] = {"SecretString": json.dumps(secret)}
    assert trigger.scheduled(scheduled(), CALLED)["started"] is True
    [(path, _, body)] = github.requests
    assert path == "/jenkins/job/acme/job/churn/job/main/buildWithParameters"
    assert body == b"MLOPS_REASON=schedule+of+production%2C+2026-11-29T03%3A00%3A00Z"


def test_a_workflow_without_the_input_is_an_error_that_says_what_to_do(
    trigger: Any, github: GitHub
) -> None:
    github.answers = [(422, {}, b'{"message": "Unexpected inputs provided: [\\"reason\\"]"}')]
    with pytest.raises(trigger.TriggerError, match="make upgrade"):
        trigger.handler(rings(), CALLED)


def test_a_schedule_starts_one_training_per_time_and_hour(trigger: Any, github: GitHub) -> None:
    """The hour is between the times of the schedule, not between what they start."""
    times = ("03:00", "03:00", "04:00", "04:59", "03:00", "05:00", "05:00")
    told = [trigger.scheduled(scheduled(f"2026-11-29T{at}:00Z"), CALLED) for at in times]
    assert [each["started"] for each in told] == [True, False, True, False, False, True, False]
    assert "less than an hour before" in told[3]["why"]
    assert len(github.requests) == 3


@pytest.mark.parametrize(
    ("event", "answers", "why"),
    [
        (scheduled(), {"GetSchedule": "ResourceNotFoundException"}, "no schedule churn-production"),
        (scheduled(), {"GetSchedule": {"State": "DISABLED"}}, "is DISABLED"),
        # Of another project, which does not know the stack.
        (scheduled(Stack=f"{STACK}-not"), {}, "not what schedule"),
        (scheduled(Stack=""), {"GetSchedule": state(Stack="")}, "not what schedule"),
        (scheduled(), {"GetSchedule": state(Project="other")}, "not what schedule"),
        (scheduled(), {"GetSchedule": {"State": "ENABLED", "Target": {}}}, "not what schedule"),
        (scheduled(Stage="../x"), {}, "not the input"),
        (scheduled(Scheduled="<aws.scheduler.scheduled-time>"), {}, "not the time"),
        (scheduled(Scheduled="2026-13-29T03:00:00Z"), {}, "not the time"),
        (scheduled(Scheduled="2026-11-29T03:00:00"), {}, "not the time"),
        ({"Retrain": {"Project": "churn"}}, {}, "not the input"),
        ({"Retrain": ["churn"]}, {}, "not the input"),
        (["Retrain"], {}, "not the input"),
        # What the other function takes.
        ({"detail": {"ModelPackageArn": VERSION, "Replay": True}}, {}, "not the input"),
        (rings(), {}, "not the input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_schedule_of_the_project_asks_for_starts_nothing(
    trigger: Any, aws: Aws, github: GitHub, event: Any, answers: dict[str, Any], why: str
) -> None:
    aws.answers |= answers
    told = trigger.scheduled(event, CALLED)
    assert told["started"] is False and why in told["why"]
    assert not github.requests and not aws.objects


def test_a_project_starts_no_training_of_one_whose_name_begins_its_own(
    trigger: Any, aws: Aws, github: GitHub
) -> None:
    """The roles of churn-eu may say of their schedule and their alarm that both are churn's."""
    own = {"Project": "churn", "Stage": "eu-production"}
    alarm = {"alarmName": "churn-eu-production-drift", "state": {"value": "ALARM"}}
    tags = tagged(project="churn", stage="eu-production")
    aws.answers |= {"GetSchedule": state(**own), "ListTagsForResource": tags}
    told = [
        trigger.scheduled(scheduled(**own), CALLED),
        trigger.handler(rings(detail=alarm), CALLED),
    ]
    assert [(each["started"], "only production" in each["why"]) for each in told] == [
        (False, True),
        (False, True),
    ]
    assert not github.requests


def test_the_function_of_approvals_takes_no_schedule(trigger: Any, github: GitHub) -> None:
    assert trigger.handler(scheduled(), CALLED)["started"] is False
    assert not github.requests
