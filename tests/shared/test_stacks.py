"""Deploying stacks, with a CloudFormation that does what each test says."""

from __future__ import annotations

import io
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from repos import Repo
from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.stacks import StackFailed

NAME = "churn-staging"
ARN = f"arn:aws:cloudformation:eu-west-1:123456789012:stack/{NAME}/1"
NO_CHANGES = "The submitted information didn't contain changes. Submit different information."
Told = tuple[str, str, str]


class Formation:
    """A CloudFormation with one stack. `happens` has the next operation's events, one per poll."""

    def __init__(self, status: str | None = None) -> None:
        self.status = status
        self.happens: list[list[Told]] = []
        self.change_set: dict[str, Any] = {"Status": "CREATE_COMPLETE", "Changes": [_change()]}
        self.invalid: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.lag = 0
        self._events: list[dict[str, Any]] = []
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._coming: list[Told] = []
        self._change_sets: list[str] = []
        if status:
            self._tell(NAME, status, "")

    def called(self, name: str) -> list[dict[str, Any]]:
        return [request for call, request in self.calls if call == name]

    def begin(self) -> None:
        self._coming = list(self.happens.pop(0))

    def _tell(self, resource: str, status: str, reason: str) -> None:
        own = resource == NAME
        if own:
            self.status = status
        self._now += timedelta(seconds=1)
        event = {
            "EventId": str(len(self._events)),
            "Timestamp": self._now,
            "LogicalResourceId": resource,
            "PhysicalResourceId": ARN if own else resource.lower(),
            "ResourceType": stacks.STACK if own else "AWS::SageMaker::Endpoint",
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }
        self._events.insert(0, event)

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if self.lag:
            self.lag -= 1
        elif self._coming:
            self._tell(*self._coming.pop(0))
        if self.status is None or (self.status == "DELETE_COMPLETE" and StackName == NAME):
            error = {"Code": "ValidationError", "Message": f"Stack {StackName} does not exist"}
            raise ClientError({"Error": error}, "DescribeStacks")  # type: ignore[typeddict-item]
        stack = {"StackName": NAME, "StackId": ARN, "StackStatus": self.status}
        return {"Stacks": [stack]}

    def describe_stack_events(self, StackName: str) -> dict[str, Any]:
        return {"StackEvents": list(self._events)}

    def get_paginator(self, operation: str) -> Any:
        answer = getattr(self, operation)
        return SimpleNamespace(paginate=lambda **request: iter([answer(**request)]))

    def create_change_set(self, **request: Any) -> dict[str, str]:
        self.calls.append(("create_change_set", request))
        if request["ChangeSetType"] == "CREATE" and self.status in (None, "DELETE_COMPLETE"):
            self._tell(NAME, "REVIEW_IN_PROGRESS", "")
        self._change_sets.append(request["ChangeSetName"])
        return {"Id": f"arn:aws:cloudformation:eu-west-1:1:changeSet/{request['ChangeSetName']}/1"}

    # All by the names of stack and change set, because IAM knows a change set's ARN as its own.
    def describe_change_set(self, StackName: str, ChangeSetName: str) -> dict[str, Any]:
        return self.change_set

    def describe_events(self, StackName: str, ChangeSetName: str, Filters: Any) -> dict[str, Any]:
        assert Filters == {"FailedEvents": True} and ChangeSetName in self._change_sets
        return {"OperationEvents": self.invalid}

    def execute_change_set(
        self, StackName: str, ChangeSetName: str, ClientRequestToken: str
    ) -> None:
        self.calls.append(("execute_change_set", {"ClientRequestToken": ClientRequestToken}))
        self._change_sets.clear()
        self.begin()

    def delete_change_set(self, StackName: str, ChangeSetName: str) -> None:
        self._change_sets.remove(ChangeSetName)

    def list_change_sets(self, StackName: str) -> dict[str, Any]:
        return {"Summaries": [{"ChangeSetName": name} for name in self._change_sets]}

    def delete_stack(self, StackName: str) -> None:
        self.calls.append(("delete_stack", {}))
        if self.status == "REVIEW_IN_PROGRESS":
            self.status = "DELETE_COMPLETE"
            return
        self.begin()

    def continue_update_rollback(self, StackName: str) -> None:
        self.calls.append(("continue_update_rollback", {}))
        self.begin()


def _change(**keys: Any) -> dict[str, Any]:
    change = {"Action": "Add", "LogicalResourceId": "Endpoint", "ResourceType": "AWS::X::Y"}
    return {"ResourceChange": change | keys}


CREATED = [
    (NAME, "CREATE_IN_PROGRESS", "User Initiated"),
    ("Endpoint", "CREATE_IN_PROGRESS", ""),
    ("Endpoint", "CREATE_COMPLETE", ""),
    (NAME, "CREATE_COMPLETE", ""),
]
UPDATED = [
    (NAME, "UPDATE_IN_PROGRESS", "User Initiated"),
    ("Endpoint", "UPDATE_COMPLETE", ""),
    (NAME, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", ""),
    (NAME, "UPDATE_COMPLETE", ""),
]
DELETED = [(NAME, "DELETE_IN_PROGRESS", "User Initiated"), (NAME, "DELETE_COMPLETE", "")]


class Driver:
    """Deploy to that stack, and keep the output."""

    def __init__(self, aws: Aws, template: Path) -> None:
        self.aws, self.template = aws, template
        self.console = Console(file=io.StringIO(), width=200)

    def deploy(self, **options: Any) -> stacks.Outcome:
        given = {"Stage": "staging", "Kept": None}
        tags = {"stage": "staging"}
        return stacks.deploy(
            *(self.aws, NAME, self.template, given, tags, ["CAPABILITY_IAM"], self.console),
            **options,
        )

    @property
    def shown(self) -> str:
        return self.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def formation(monkeypatch: pytest.MonkeyPatch) -> Formation:
    monkeypatch.setattr(stacks, "pause", lambda began: 0)
    found = Formation()
    monkeypatch.setattr(Aws, "client", lambda self, service: found)
    return found


@pytest.fixture
def driver(repo: Repo, formation: Formation) -> Driver:
    template = repo.root / "stack.yml"
    template.write_text("Resources: {}\n")
    return Driver(Aws(repo.settings()), template)


def settle(formation: Formation, status: str) -> None:
    formation._tell(NAME, status, "")


def test_a_new_stack_is_created_and_followed_to_its_end(
    driver: Driver, formation: Formation
) -> None:
    formation.happens = [CREATED]
    outcome = driver.deploy()
    assert outcome.executed
    assert formation.status == "CREATE_COMPLETE"
    request = formation.called("create_change_set")[0]
    assert request["ChangeSetType"] == "CREATE"
    assert request["Parameters"] == [
        {"ParameterKey": "Stage", "ParameterValue": "staging"},
        {"ParameterKey": "Kept", "UsePreviousValue": True},
    ]
    assert "added" in driver.shown
    assert driver.shown.index("CREATE_IN_PROGRESS") < driver.shown.index("CREATE_COMPLETE")


def test_the_changes_are_reported_by_what_they_do(driver: Driver, formation: Formation) -> None:
    settle(formation, "CREATE_COMPLETE")
    details = [{"Target": {"Attribute": "Properties", "Name": "EndpointConfigName"}}] * 2
    formation.change_set["Changes"] = [
        _change(LogicalResourceId="New"),
        _change(LogicalResourceId="Config", Action="Modify", Replacement="True"),
        _change(LogicalResourceId="Perhaps", Action="Modify", Replacement="Conditional"),
        _change(LogicalResourceId="Old", Action="Remove"),
        _change(Action="Modify", Replacement="False", Details=details),
    ]
    formation.happens = [UPDATED]
    changes = driver.deploy().changes
    assert [(item.action, item.resource) for item in changes] == [
        ("added", "New"),
        ("replaced", "Config"),
        ("maybe replaced", "Perhaps"),
        ("removed", "Old"),
        ("modified", "Endpoint"),
    ]
    assert changes[-1].because == ("EndpointConfigName",)
    assert formation.called("create_change_set")[0]["ChangeSetType"] == "UPDATE"


def test_a_stack_that_is_up_to_date_is_a_success_and_nothing_is_executed(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_COMPLETE")
    formation.change_set = {"Status": "FAILED", "StatusReason": NO_CHANGES}
    outcome = driver.deploy()
    assert (outcome.executed, outcome.changes) == (False, ())
    assert not formation.called("execute_change_set")
    assert formation.list_change_sets(NAME)["Summaries"] == []


def test_a_change_set_that_is_refused_leaves_nothing_behind(
    driver: Driver, formation: Formation
) -> None:
    formation.change_set = {"Status": "FAILED", "StatusReason": "Rule\n  failed: no subnet"}
    with pytest.raises(MlopsError, match="refuses the change set: Rule failed: no subnet"):
        driver.deploy()
    assert stacks.describe(driver.aws, NAME) is None


def test_what_cloudformation_s_validation_found_is_said(
    driver: Driver, formation: Formation
) -> None:
    words = (
        "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]"
    )
    formation.change_set = {"Status": "FAILED", "StatusReason": words}
    why = "Resource of type 'AWS::SageMaker::Endpoint' with identifier 'x' already exists."
    formation.invalid = [{"LogicalResourceId": "Endpoint", "ValidationStatusReason": why}, {}]
    with pytest.raises(MlopsError, match=f"refuses the change set: Endpoint: {why}$"):
        driver.deploy()
    assert stacks.describe(driver.aws, NAME) is None


def test_looking_only_executes_nothing_and_leaves_nothing_behind(
    driver: Driver, formation: Formation
) -> None:
    outcome = driver.deploy(execute=False)
    assert outcome.changes
    assert not outcome.executed
    assert not formation.called("execute_change_set")
    assert stacks.describe(driver.aws, NAME) is None


def test_the_earlier_status_is_not_mistaken_for_the_end(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_COMPLETE")
    formation.happens = [UPDATED]
    formation.lag = 6
    driver.deploy()
    assert "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS" in driver.shown


def test_the_first_failure_is_the_reason_and_not_what_it_broke_off(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "CREATE_COMPLETE")
    formation.happens = [
        [
            (NAME, "UPDATE_IN_PROGRESS", "User Initiated"),
            ("Alarm", "UPDATE_FAILED", "Resource update cancelled"),
            ("Endpoint", "UPDATE_FAILED", "did not pass the\nping health check"),
            ("Model", "UPDATE_FAILED", "something later"),
            (NAME, "UPDATE_ROLLBACK_IN_PROGRESS", "The following resource(s) failed"),
            (NAME, "UPDATE_ROLLBACK_COMPLETE", ""),
        ]
    ]
    with pytest.raises(StackFailed) as failed:
        driver.deploy()
    assert str(failed.value) == (
        "churn-staging is UPDATE_ROLLBACK_COMPLETE: Endpoint: did not pass the ping health check"
    )
    assert failed.value.event
    assert failed.value.event.resource == "Endpoint"


def test_a_rollback_without_a_failed_resource_gives_the_stacks_own_reason(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "CREATE_COMPLETE")
    formation.happens = [
        [
            (NAME, "UPDATE_IN_PROGRESS", "User Initiated"),
            (NAME, "UPDATE_ROLLBACK_IN_PROGRESS", "Stack update cancelled by user"),
            (NAME, "UPDATE_ROLLBACK_COMPLETE", ""),
        ]
    ]
    with pytest.raises(StackFailed, match="Stack update cancelled by user"):
        driver.deploy()


def test_what_a_clean_up_could_not_remove_is_reported(driver: Driver, formation: Formation) -> None:
    settle(formation, "CREATE_COMPLETE")
    stuck = ("Config", "DELETE_FAILED", "in use")
    formation.happens = [[*UPDATED[:-1], stuck, UPDATED[-1]]]
    outcome = driver.deploy()
    assert [(event.resource, event.reason) for event in outcome.left] == [("Config", "in use")]


def test_on_a_terminal_each_resource_is_a_line_and_a_replaced_one_is_not_called_deleted(
    driver: Driver, formation: Formation
) -> None:
    driver.console = Console(file=io.StringIO(), width=200, force_terminal=True)
    settle(formation, "CREATE_COMPLETE")
    replaced = [("Model", "UPDATE_COMPLETE", ""), *UPDATED[:-1], ("Model", "DELETE_COMPLETE", "")]
    formation.happens = [[*replaced, UPDATED[-1]]]
    driver.deploy()
    last = driver.shown.rpartition("resource")[2]
    assert [line.split()[0] for line in last.splitlines()[1:4]] == ["Model", NAME, "Endpoint"]
    assert "DELETE_COMPLETE" not in last


@pytest.mark.parametrize("status", stacks.DEAD)
def test_a_stack_that_was_never_complete_is_deleted_and_created_again(
    driver: Driver, formation: Formation, status: str
) -> None:
    settle(formation, status)
    formation.happens = [DELETED, CREATED]
    driver.deploy()
    assert formation.status == "CREATE_COMPLETE"
    assert f"{NAME} is {status}: deleting it to create it again" in driver.shown
    assert formation.called("create_change_set")[0]["ChangeSetType"] == "CREATE"


def test_looking_only_deletes_no_dead_stack(driver: Driver, formation: Formation) -> None:
    settle(formation, "ROLLBACK_COMPLETE")
    with pytest.raises(MlopsError, match="would delete and re-create it"):
        driver.deploy(execute=False)
    assert not formation.calls


def test_a_stack_that_cannot_be_deleted_says_why(driver: Driver, formation: Formation) -> None:
    settle(formation, "ROLLBACK_FAILED")
    formation.happens = [
        [
            DELETED[0],
            ("Endpoint", "DELETE_FAILED", "still being updated"),
            (NAME, "DELETE_FAILED", ""),
        ]
    ]
    with pytest.raises(StackFailed, match="DELETE_FAILED: Endpoint: still being updated"):
        driver.deploy()


def test_an_earlier_change_set_that_was_never_executed_does_not_block(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "REVIEW_IN_PROGRESS")
    formation.happens = [CREATED]
    assert driver.deploy().executed
    assert formation.called("create_change_set")[0]["ChangeSetType"] == "CREATE"


def test_the_deployment_of_another_is_waited_for_and_then_ours_begins(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_IN_PROGRESS")
    formation._coming = [("Endpoint", "UPDATE_COMPLETE", ""), (NAME, "UPDATE_COMPLETE", "")]
    formation.happens = [UPDATED]
    assert driver.deploy().executed
    assert f"{NAME} is UPDATE_IN_PROGRESS: waiting" in driver.shown


def test_a_rollback_that_failed_is_explained_with_the_commands_to_run(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_IN_PROGRESS")
    formation._tell("Model", "UPDATE_FAILED", "why it was rolled back")
    settle(formation, "UPDATE_ROLLBACK_IN_PROGRESS")
    formation._tell("Endpoint", "UPDATE_FAILED", "no capacity")
    settle(formation, "UPDATE_ROLLBACK_FAILED")
    with pytest.raises(MlopsError) as refused:
        driver.deploy()
    said = str(refused.value)
    assert "because of Endpoint (no capacity)" in said
    assert "--continue-rollback" in said
    assert f"continue-update-rollback --stack-name {NAME} --resources-to-skip Endpoint" in said
    assert not formation.calls


def test_continuing_a_rollback_comes_before_the_deployment(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_ROLLBACK_FAILED")
    back = [(NAME, "UPDATE_ROLLBACK_IN_PROGRESS", ""), (NAME, "UPDATE_ROLLBACK_COMPLETE", "")]
    formation.happens = [back, UPDATED]
    assert driver.deploy(continue_rollback=True).executed
    assert [name for name, _ in formation.calls] == [
        "continue_update_rollback",
        "create_change_set",
        "execute_change_set",
    ]


def test_a_rollback_that_fails_again_is_reported_with_its_new_reason(
    driver: Driver, formation: Formation
) -> None:
    settle(formation, "UPDATE_ROLLBACK_FAILED")
    formation.happens = [
        [
            (NAME, "UPDATE_ROLLBACK_IN_PROGRESS", ""),
            ("Endpoint", "UPDATE_FAILED", "still no capacity"),
            (NAME, "UPDATE_ROLLBACK_FAILED", ""),
        ]
    ]
    with pytest.raises(StackFailed, match="Endpoint: still no capacity"):
        driver.deploy(continue_rollback=True)


def test_a_state_without_a_way_out_names_the_command(driver: Driver, formation: Formation) -> None:
    settle(formation, "UPDATE_FAILED")
    with pytest.raises(MlopsError, match="aws cloudformation rollback-stack --stack-name churn"):
        driver.deploy()


def test_an_interruption_before_anything_began_leaves_no_change_set(
    driver: Driver, formation: Formation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(**request: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formation, "describe_change_set", interrupt)
    with pytest.raises(KeyboardInterrupt):
        driver.deploy()
    assert stacks.describe(driver.aws, NAME) is None


def test_an_interruption_while_it_begins_waits_to_know_that_it_did(
    driver: Driver, formation: Formation, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = formation.execute_change_set

    def interrupt(**request: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return execute(**request)

    formation.happens = [CREATED]
    monkeypatch.setattr(formation, "execute_change_set", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        driver.deploy()
    assert len(caught.value.args) == 1
    assert formation.called("execute_change_set")


def test_a_large_template_is_sent_without_its_comments(
    driver: Driver, formation: Formation
) -> None:
    short = """
Resources:
  A:
    Type: B
    Condition: C
    Properties:
      D: !Sub ${E}-f
      G: !GetAtt H.I.J
      K: !If [L, !Ref M, !Join [",", [!Condition N]]]
      O: !Sub
        - ${P}
        - {P: !Select [0, [!Ref Q]]}
"""
    driver.template.write_text("# said for people\n" * 4000 + short)
    formation.happens = [CREATED]
    driver.deploy()
    sent = formation.called("create_change_set")[0]["TemplateBody"]
    assert json.loads(sent)["Resources"]["A"] == {
        "Type": "B",
        "Condition": "C",
        "Properties": {
            "D": {"Fn::Sub": "${E}-f"},
            "G": {"Fn::GetAtt": ["H", "I.J"]},
            "K": {"Fn::If": ["L", {"Ref": "M"}, {"Fn::Join": [",", [{"Condition": "N"}]]}]},
            "O": {"Fn::Sub": ["${P}", {"P": {"Fn::Select": [0, [{"Ref": "Q"}]]}}]},
        },
    }


def test_a_template_beyond_the_quota_is_refused(driver: Driver) -> None:
    driver.template.write_text("x" * 60_000)
    with pytest.raises(MlopsError, match="60,002 bytes"):
        driver.deploy()


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("create_change_set", "ValidationError", "Stack:x is in UPDATE_IN_PROGRESS state"),
        ("execute_change_set", "InvalidChangeSetStatus", "cannot be executed in its status"),
        ("execute_change_set", "ChangeSetNotFound", "ChangeSet [x] does not exist"),
    ],
)
def test_the_second_of_two_callers_is_reported_as_such(
    driver: Driver,
    formation: Formation,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    code: str,
    message: str,
) -> None:
    settle(formation, "CREATE_COMPLETE")

    def refuse(**request: Any) -> None:
        error = {"Code": code, "Message": message}
        raise ClientError({"Error": error}, "X")  # type: ignore[typeddict-item]

    monkeypatch.setattr(formation, operation, refuse)
    # The operation that came first has deleted this change set.
    monkeypatch.setattr(
        formation,
        "delete_change_set",
        formation.execute_change_set,
    )
    with pytest.raises(MlopsError, match="another operation is changing"):
        driver.deploy()


def test_a_stack_that_is_gone_without_events_is_deleted(
    driver: Driver, formation: Formation, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(formation, "REVIEW_IN_PROGRESS")
    found = stacks.describe(driver.aws, NAME)
    assert found is not None
    stacks.delete(driver.aws, found, driver.console)
    assert stacks.describe(driver.aws, NAME) is None
