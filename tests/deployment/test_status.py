"""`mlops status`: each state of a stage, even of one that cannot be read."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from repos import Repo
from sm_mlops import executions, registry, stacks
from sm_mlops.aws import Aws
from sm_mlops.cli.console import print_json
from sm_mlops.cli.status import _tell_status
from sm_mlops.deployment import access, endpoints, prices, status
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.registry import Version
from sm_mlops.stacks import Stack

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/"


def version(number: int, approval: str = "Approved") -> Version:
    return Version(number, f"{ARN}{number}", approval, NOW, "auc 0.9", "abcdef0123" * 4, "")


def endpoint(number: int, state: str = "InService", reason: str = "") -> Endpoint:
    return Endpoint(
        *("churn-staging", state, reason, "serverless", "config", "model"),
        package=f"{ARN}{number}",
        since=NOW,
        changed=NOW,
    )


@pytest.fixture
def world(
    repo: Repo, account: Aws, monkeypatch: pytest.MonkeyPatch
) -> tuple[Aws, list[Version], dict[str, Endpoint], dict[str, Stack]]:
    """Versions, endpoints and stacks by name, for tests to fill."""
    versions: list[Version] = []
    running: dict[str, Endpoint] = {}
    made: dict[str, Stack] = {}

    def never(aws: Aws, identifier: str | None) -> str:
        raise MlopsError("no execution yet")

    monkeypatch.setattr(executions, "find", never)
    monkeypatch.setattr(prices.Prices, "_ask", lambda *_: None)
    monkeypatch.setattr(endpoints, "forgotten", lambda aws: iter(()))
    monkeypatch.setattr(registry, "versions", lambda aws: iter(versions))
    monkeypatch.setattr(endpoints, "describe", lambda aws, name: running.get(name))
    monkeypatch.setattr(stacks, "describe", lambda aws, name: made.get(name))
    return account, versions, running, made


World = tuple[Aws, list[Version], dict[str, Endpoint], dict[str, Stack]]


def staging(world: World, state: Endpoint | None, stack: str = "UPDATE_COMPLETE") -> status.Running:
    aws, _, running, made = world
    if state:
        running["churn-staging"] = state
        made["churn-staging"] = Stack("churn-staging", "arn", stack)
    return status.status(aws).stages[0]


def test_a_project_without_anything_is_reported_as_such(world: World) -> None:
    found = status.status(world[0])
    assert [(row.stage, row.state, row.version) for row in found.stages] == [
        ("staging", "not deployed", None),
        ("production", "not deployed", None),
    ]
    assert (found.pending, found.execution) == ((), None)


@pytest.mark.parametrize(
    ("stack", "state", "note"),
    [
        ("UPDATE_COMPLETE", "endpoint gone", "its stack is there: mlops destroy staging, then dep"),
        ("ROLLBACK_COMPLETE", "not deployed", "stack ROLLBACK_COMPLETE"),
        ("CREATE_IN_PROGRESS", "not deployed", "stack CREATE_IN_PROGRESS"),
    ],
)
def test_a_stack_without_an_endpoint_is_told_from_one_that_never_had_it(
    world: World, stack: str, state: str, note: str
) -> None:
    world[3]["churn-staging"] = Stack("churn-staging", "arn", stack)
    row = staging(world, None)
    assert (row.state, row.note[: len(note)]) == (state, note)


def test_a_stage_shows_version_time_commit_and_cost(world: World) -> None:
    world[1].append(version(3))
    row = staging(world, endpoint(3))
    assert (row.version, row.since, row.commit[:7]) == (3, NOW, "abcdef0")
    assert (row.idle_cost, row.note) == (74.46, "newest approved")


def test_a_newer_approved_version_is_reported_and_an_unapproved_one_is_not(world: World) -> None:
    world[1].extend([version(5, "PendingManualApproval"), version(4), version(3)])
    assert staging(world, endpoint(3)).note == "version 4 is approved"
    assert [item.version for item in status.status(world[0]).pending] == [5]


def test_a_version_that_was_rejected_while_it_runs_is_reported(world: World) -> None:
    world[1].append(version(3, "Rejected"))
    assert staging(world, endpoint(3)).note == "is now Rejected"


def test_a_version_that_is_gone_from_the_registry_is_reported(world: World) -> None:
    assert staging(world, endpoint(3)).note == "its version is no longer in the registry"


def test_a_failed_deployment_is_reported_without_its_old_reason(world: World) -> None:
    world[1].append(version(3))
    row = staging(world, endpoint(3, reason="no ping"), "UPDATE_ROLLBACK_COMPLETE")
    assert row.note == "the last deployment failed, newest approved"
    row = staging(world, endpoint(3, "Failed", "no ping"))
    assert (row.state, row.note) == ("Failed", "newest approved, no ping")


def test_schedules_and_an_alarm_that_could_not_be_deployed_are_reported(world: World) -> None:
    second = Stack("churn-staging-watch", "arn", "ROLLBACK_COMPLETE")
    world[3][second.name] = second
    assert "stack churn-staging-watch ROLLBACK_COMPLETE" in staging(world, endpoint(1)).note


def test_an_account_that_cannot_be_entered_is_a_row_and_the_others_are_shown(
    world: World, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.stage("far", Account="210987654321", Role="deployer", Parameters={})
    entered = access.enter

    def enter(aws: Aws, stage: Stage) -> Aws:
        if stage.account:
            raise MlopsError("stage far: cannot assume the role [x]")
        return entered(aws, stage)

    monkeypatch.setattr(access, "enter", enter)
    rows = status.status(world[0]).stages
    assert [row.stage for row in rows] == ["staging", "far", "production"]
    assert (rows[1].account, rows[1].state) == ("210987654321", "unknown")
    console = Console(file=io.StringIO(), width=200)
    console.print(status.table(rows))
    assert "cannot assume the role [x]" in console.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(MlopsError, match="cannot assume"):
        status.status(world[0], "far")


def test_a_refusal_in_another_account_is_a_row_and_in_ours_an_error(
    world: World, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.stage("far", Account="210987654321", Role="deployer", Parameters={})

    def describe(aws: Aws, name: str) -> None:
        if name == "churn-far":
            error = {"Code": "AccessDeniedException", "Message": "no"}
            raise ClientError({"Error": error}, "DescribeEndpoint")  # type: ignore[typeddict-item]

    monkeypatch.setattr(access, "enter", lambda aws, stage: aws)
    monkeypatch.setattr(endpoints, "describe", describe)
    row = status.status(world[0]).stages[1]
    assert (row.state, "AWS refused DescribeEndpoint" in row.note) == ("unknown", True)
    repo.stage("far", Account=None, Role=None)
    with pytest.raises(ClientError):
        status.status(world[0])


@pytest.mark.slow
def test_a_stage_whose_file_is_gone_is_still_shown_with_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world[1].append(version(3))
    world[2]["churn-qa"] = endpoint(3)
    world[3]["churn-qa"] = Stack("churn-qa", "arn", "CREATE_COMPLETE")
    gone = Stage("qa", "churn-qa", "serverless")
    monkeypatch.setattr(endpoints, "forgotten", lambda aws: iter((gone,)))
    row = status.status(world[0]).stages[-1]
    assert (row.stage, row.state, row.version) == ("qa", "InService", 3)
    assert row.note == "has no infra/qa.json: mlops destroy qa, newest approved"
    assert len(status.status(world[0], "staging").stages) == 1


def test_a_narrow_terminal_keeps_what_matters_most(world: World) -> None:
    world[1].append(version(3))
    staging(world, endpoint(3, "UpdateRollbackFailed"))
    console = Console(file=io.StringIO(), width=60)
    console.print(status.table(status.status(world[0]).stages))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in shown for word in ("staging", "version", "UpdateRollbackFailed"))


def test_the_last_training_is_shown_with_its_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/churn/execution/abcdefghijkl"
    row = {"PipelineExecutionArn": arn}
    monkeypatch.setattr(executions, "summaries", lambda aws: iter([row]))
    described = {
        "PipelineExecutionStatus": "Succeeded",
        "CreationTime": NOW,
        "PipelineExecutionDescription": "Commit 0, content 0. Reason: drift in production",
    }
    sagemaker = world[0].sagemaker
    monkeypatch.setattr(sagemaker, "describe_pipeline_execution", lambda **_: described)
    _tell_status(world[0], status.status(world[0]))
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0].endswith("abcdefghijkl  Succeeded")
    assert last[1] == "because     drift in production"


def test_all_of_it_is_json(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world[1].append(version(3))
    staging(world, endpoint(3))
    print_json(status.status(world[0]))
    told = json.loads(capsys.readouterr().out)
    assert told["stages"][0]["since"] == NOW.isoformat()
    assert told["stages"][0]["version"] == 3
