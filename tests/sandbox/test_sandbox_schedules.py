"""Schedules in the sandbox: when expressions are due, whom they call with whose permissions, and
the clock that tests and people move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import ACCOUNT, Wired, until
from sandbox_cases import REGION, condition
from sandbox_iam_case import Account, allow, error
from schedule_cases import DAY, SCHEDULER, request, role, statement, wait
from schedule_expressions import ACCEPTED, NEVER, REFUSED
from sm_mlops.sandbox import Server, clock, recurrence

NOTE = "import json\ndef handler(event, context):\n    print('GOT ' + json.dumps(event))\n"


def utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


# Expression, a moment, and the next time after it (2026-11-29 is a Sunday).
NEXT: dict[str, tuple[str, str]] = {
    "rate(1 day)": ("2026-11-29 10:00", "2026-11-30 09:00"),
    "rate(90 minutes)": ("2026-11-29 10:00", "2026-11-29 10:30"),
    "rate(2 hours)": ("2026-11-20 00:00", "2026-11-29 09:00"),
    "cron(0 6 * * ? *)": ("2026-11-29 06:00", "2026-11-30 06:00"),
    "cron(0/15 8-9 * * ? *)": ("2026-11-29 08:50", "2026-11-29 09:00"),
    "cron(30 6 1,15 * ? *)": ("2026-11-29 10:00", "2026-12-01 06:30"),
    "cron(0 0 L * ? *)": ("2026-11-29 10:00", "2026-11-30 00:00"),
    "cron(0 0 29 2 ? *)": ("2026-11-29 10:00", "2028-02-29 00:00"),
    "cron(0 9 ? * MON-FRI *)": ("2026-11-27 10:00", "2026-11-30 09:00"),
    "cron(0 9 ? * 1 *)": ("2026-11-29 08:00", "2026-11-29 09:00"),
    "cron(0 9 ? * L *)": ("2026-11-29 08:00", "2026-12-05 09:00"),
    "cron(0 9 ? DEC 6L *)": ("2026-11-29 08:00", "2026-12-25 09:00"),
    "cron(0 9 ? * TUE#2 *)": ("2026-11-29 08:00", "2026-12-08 09:00"),
    "cron(0 0 1 1 ? 2030)": ("2026-11-29 08:00", "2030-01-01 00:00"),
}


@pytest.mark.parametrize("expression", NEXT)
def test_an_expression_is_due_when_eventbridge_scheduler_says(expression: str) -> None:
    moment, wanted = NEXT[expression]
    found = recurrence.parse(expression).following(utc(moment), utc("2026-11-29 09:00"))
    assert found == utc(wanted)


@pytest.mark.parametrize("expression", NEVER)
def test_an_expression_without_a_day_that_comes_is_never_due(expression: str) -> None:
    assert recurrence.parse(expression).following(utc("2026-11-29 10:00"), 0) is None


@pytest.mark.parametrize("expression", [*ACCEPTED, *REFUSED])
def test_what_mlops_yaml_takes_is_an_expression_and_nothing_else(expression: str) -> None:
    if expression in ACCEPTED:
        recurrence.parse(expression)
        return
    with pytest.raises(recurrence.InvalidExpression):
        recurrence.parse(expression)


# With a server.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("schedules"), REGION) as server:
        aws = Wired(server.environment())
        aws.prepare()
        aws.role("starter", statement("sagemaker:StartPipelineExecution"), SCHEDULER)
        aws.role("nobody", statement("sagemaker:ListModels"), SCHEDULER)
        always = condition("C", [{"Type": "Equals", "LeftValue": "1", "RightValue": "1"}])
        when = {"Name": "Until", "Type": "String"}
        aws.create("checked", [always], [when])
        yield server


@pytest.fixture
def aws(server: Server) -> Iterator[Wired]:
    aws = Wired(server.environment())
    yield aws
    scheduler = aws.client("scheduler")
    for row in scheduler.list_schedules()["Schedules"]:
        scheduler.delete_schedule(Name=row["Name"])


def started(aws: Wired) -> list[str]:
    """Return the parameter of each execution, oldest first."""
    rows = aws.sagemaker.list_pipeline_executions(PipelineName="checked", SortOrder="Ascending")
    ask = aws.sagemaker.list_pipeline_parameters_for_execution
    return [
        ask(PipelineExecutionArn=row["PipelineExecutionArn"])["PipelineParameters"][0]["Value"]
        for row in rows["PipelineExecutionSummaries"]
    ]


@pytest.mark.slow
def test_a_rate_begins_at_once_and_goes_on_as_the_clock_moves(aws: Wired, server: Server) -> None:
    before = len(started(aws))
    aws.client("scheduler").create_schedule(**request())
    (first,) = until(lambda: started(aws)[before:])
    begin = utc(first.removesuffix("Z"))
    assert abs(begin - clock.now()) < 20
    moved = clock.now()
    assert wait(server, 2 * DAY) == [("s", begin + DAY), ("s", begin + 2 * DAY)]
    assert clock.now() == pytest.approx(moved + 2 * DAY, abs=60)
    times = [clock.text(begin + DAY), clock.text(begin + 2 * DAY)]
    assert started(aws)[before + 1 :] == times
    found = aws.sagemaker.list_pipeline_executions(PipelineName="checked")
    assert {r["PipelineExecutionStatus"] for r in found["PipelineExecutionSummaries"]} == {
        "Succeeded"
    }


@pytest.mark.slow
def test_a_disabled_schedule_rests_and_a_changed_one_follows_its_new_expression(
    aws: Wired, server: Server
) -> None:
    scheduler = aws.client("scheduler")
    hourly = request(ScheduleExpression="cron(0 * * * ? *)", State="DISABLED")
    scheduler.create_schedule(**hourly)
    assert wait(server, DAY) == []
    scheduler.update_schedule(**{**hourly, "State": "ENABLED"})
    assert len(wait(server, 2 * 3600)) == 2
    scheduler.update_schedule(**request(ScheduleExpression="cron(30 2 * * ? *)"))
    ((_, moment),) = wait(server, DAY)
    assert clock.text(moment).endswith("T02:30:00Z")


@pytest.mark.slow
def test_a_function_gets_the_input_with_the_context_attributes(aws: Wired, server: Server) -> None:
    function = aws.function("note", NOTE)
    aws.role("invoker", statement("lambda:InvokeFunction"), SCHEDULER)
    given = {
        "at": "<aws.scheduler.scheduled-time>",
        "arn": "<aws.scheduler.schedule-arn>",
        "id": "<aws.scheduler.execution-id>",
    }
    target = {"Arn": function, "RoleArn": role("invoker"), "Input": json.dumps(given)}
    aws.client("scheduler").create_schedule(
        **request(ScheduleExpression="cron(0 6 * * ? *)", Target=target)
    )
    wait(server, DAY)
    line = next(line for line in aws.log("note").splitlines() if line.startswith("GOT "))
    event = json.loads(line.removeprefix("GOT "))
    assert event["at"].endswith("T06:00:00Z") and len(event["id"]) == 16
    assert event["arn"] == f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/s"


@pytest.mark.slow
def test_what_the_role_may_not_do_fails_and_is_logged(
    aws: Wired, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(started(aws))
    function = {"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:none"}
    for name, target in (("pipeline", {}), ("function", function)):
        given = request(Name=name, ScheduleExpression="cron(0 6 * * ? *)")
        given["Target"] |= {"RoleArn": role("nobody"), **target}
        aws.client("scheduler").create_schedule(**given)
    assert len(wait(server, DAY)) == 2 and len(started(aws)) == before
    assert "not authorized to perform: sagemaker:StartPipelineExecution" in caplog.text
    assert "may not invoke" in caplog.text


TRANSFORM = "arn:aws:scheduler:::aws-sdk:sagemaker:createTransformJob"
# What is changed in a request, and the words of the refusal.
NOT_CREATED: dict[str, tuple[dict[str, Any], str]] = {
    "an expression that is never due": (
        {"ScheduleExpression": "cron(0 6 31 2 ? *)"},
        "sandbox does not implement a ScheduleExpression that is never due",
    ),
    "an expression": ({"ScheduleExpression": "rate(1 days)"}, "Invalid Schedule Expression"),
    "once": ({"ScheduleExpression": "at(2030-01-01T00:00:00)"}, "implement at"),
    "a time zone": ({"ScheduleExpressionTimezone": "Europe/Berlin"}, "time zone Europe/Berlin"),
    "a window": ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "FlexibleTimeWindow"),
    "a start": ({"StartDate": datetime(2030, 1, 1, tzinfo=UTC)}, "StartDate of schedules"),
    "a group": ({"GroupName": "mine"}, r"schedule groups \(mine\)"),
    "dead letters": ({"Target": {"DeadLetterConfig": {}}}, "DeadLetterConfig of a schedule"),
    "a role": ({"Target": {"RoleArn": role("tests")}}, "must allow AWS EventBridge Scheduler"),
    "another target": (
        {"Target": {"Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"}},
        "sqs:.* as target",
    ),
    "another operation": (
        {"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:sagemaker:deleteModel"}},
        "deleteModel as target",
    ),
    "no JSON": ({"Target": {"Input": "x"}}, "Invalid RequestJson"),
    "a required member": ({"Target": {"Input": '{"PipelineName": "p"}'}}, "ClientRequestToken"),
    "a wrong member": ({"Target": {"Arn": TRANSFORM, "Input": '{"X": 1}'}}, "Unknown member"),
    "an attribute": ({"Target": {"Input": '{"a": "<aws.scheduler.x>"}'}}, "no context attribute"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NOT_CREATED)
def test_what_the_scheduler_or_the_sandbox_cannot_do_is_refused(aws: Wired, case: str) -> None:
    changes, words = NOT_CREATED[case]
    with pytest.raises(ClientError, match=words) as caught:
        aws.client("scheduler").create_schedule(**request(**changes))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.slow
def test_who_makes_a_schedule_passes_its_role(server: Server) -> None:
    maker = Account(server.environment()).may("maker", allow("scheduler:CreateSchedule"))
    words = error(maker.client("scheduler").create_schedule, **request())[2]
    assert f"iam:PassRole on resource: {role('starter')}" in words


@pytest.mark.slow
def test_a_name_is_used_once_and_what_is_missing_is_reported(aws: Wired) -> None:
    scheduler = aws.client("scheduler")
    scheduler.create_schedule(**request(State="DISABLED"))
    with pytest.raises(scheduler.exceptions.ConflictException):
        scheduler.create_schedule(**request())
    for call in (scheduler.get_schedule, scheduler.delete_schedule):
        with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
            call(Name="none")
    with pytest.raises(scheduler.exceptions.ResourceNotFoundException):
        scheduler.update_schedule(**request(Name="none"))
