"""Several runs towards one stage: every approved version has its turn, and none overtakes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployment_cases import BROKEN, Place, place
from sm_mlops import stacks
from sm_mlops.deployment import deploy, destroy, endpoints, smoke
from sm_mlops.deployment.deploy import STARTED, Superseded, moment
from sm_mlops.stacks import Overtaken

pytestmark = pytest.mark.slow
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
# When two approvals started their runs.
EARLIER, LATER = (moment(NOW + timedelta(seconds=each)) for each in (0, 2))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("runs")) as found:
        yield found


@pytest.fixture(scope="module")
def versions(here: Place) -> list[str]:
    return [here.register(offset=number) for number in range(3)]


def running(here: Place, stack: str) -> int | None:
    found = endpoints.describe(here.aws, stack)
    return found.version if found else None


def test_two_approvals_in_their_order_are_both_deployed(here: Place, versions: list[str]) -> None:
    stage = here.stage("inorder")
    here.deploy(stage, versions[0], started=EARLIER)
    here.deploy(stage, versions[1], started=LATER)
    assert running(here, stage.stack) == 2


def test_the_earlier_of_two_approvals_never_follows_the_later(
    here: Place, versions: list[str]
) -> None:
    stage = here.stage("overtaken")
    here.deploy(stage, versions[1], started=LATER)
    with pytest.raises(Superseded, match=r"version 1 is superseded by version 2, approved later"):
        here.deploy(stage, versions[0], started=EARLIER)
    assert running(here, stage.stack) == 2
    # Its approval again starts another run.
    here.deploy(stage, versions[0], started=moment(NOW + timedelta(seconds=4)))
    assert running(here, stage.stack) == 1


def test_a_person_is_never_superseded(here: Place, versions: list[str]) -> None:
    stage = here.stage("byhand")
    here.deploy(stage, versions[1], started=LATER)
    here.deploy(stage, versions[0])
    assert running(here, stage.stack) == 1


def test_the_running_version_again_is_not_superseded_and_keeps_its_time(
    here: Place, versions: list[str]
) -> None:
    stage = here.stage("again")
    here.deploy(stage, versions[1], started=LATER)
    assert not here.deploy(stage, versions[1], started=EARLIER).changed
    tags = stacks.describe(here.aws, stage.stack).tags  # type: ignore[union-attr]
    assert tags[STARTED] == LATER


def test_a_changed_stage_file_reaches_its_stage_without_training(
    here: Place, versions: list[str]
) -> None:
    here.deploy(here.stage("changed", ServerlessMemoryMB=1024), versions[0])
    stage = here.stage("changed", ServerlessMemoryMB=2048)
    done = here.deploy(stage, versions[0], started=EARLIER)
    assert done.changed and done.version == 1
    assert "EndpointConfig" in {change.resource for change in done.changes}
    assert deploy.read_trail(stacks.describe(here.aws, stage.stack)) == (1,)


def test_a_run_waits_for_the_test_of_the_one_before(here: Place, versions: list[str]) -> None:
    stage = here.stage("tested")
    here.deploy(stage, versions[0], in_turn=True)
    done: list[Any] = []
    second = threading.Thread(
        target=lambda: done.append(here.deploy(stage, versions[1], in_turn=True))
    )
    second.start()
    try:
        for _ in range(600):
            if "tested is being tested by another run: waiting" in here.shown:
                break
            second.join(0.05)
        assert second.is_alive() and running(here, stage.stack) == 1
        assert smoke.passed(smoke.smoke(here.aws, stage, versions[0]))
    finally:
        smoke.smoke(here.aws, stage, versions[0])
        second.join(60)
    assert [each.version for each in done] == [2]
    # By hand, nobody is waited for.
    assert here.deploy(stage, versions[0]).changed


@pytest.mark.long
def test_a_test_that_never_comes_is_not_waited_for_long(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = here.stage("untested")
    here.deploy(stage, versions[0])
    assert endpoints.untested(here.aws, stage.stack)
    with monkeypatch.context() as patch:
        patch.setattr(endpoints, "TEST_TIME", timedelta(0))
        assert here.deploy(stage, versions[1], in_turn=True).changed
    # Nor if the endpoint changes all the time, because it scales.
    monkeypatch.setattr(endpoints, "untested", lambda *_: "the configuration")
    monkeypatch.setattr(endpoints, "TEST_TIME", timedelta(seconds=1))
    assert here.deploy(stage, versions[0], in_turn=True).changed
    assert here.shown.count("untested is being tested by another run: waiting") == 1


def test_an_endpoint_that_scales_is_waited_for_before_it_is_changed(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageMaker refuses to update or delete one that is Updating."""
    stage = here.stage("scaling")
    here.deploy(stage, versions[0])
    asked: list[str] = []
    shown = endpoints.describe

    def describe(aws: Any, name: str) -> Any:
        asked.append(name)
        found = shown(aws, name)
        return replace(found, status="Updating") if found and len(asked) < 3 else found

    monkeypatch.setattr(endpoints, "describe", describe)
    assert here.deploy(stage, versions[1]).changed
    assert "scaling is Updating: waiting" in here.shown and len(asked) > 3
    doomed = destroy.look(here.aws, stage)
    asked.clear()
    delete = stacks.delete

    def deleting(*given: Any) -> None:
        asked.append("deleted")
        delete(*given)

    monkeypatch.setattr(stacks, "delete", deleting)
    assert destroy.destroy(doomed, here.console) == []
    assert asked.index("deleted") == 3


def test_two_runs_at_once_are_both_deployed_and_tested(here: Place, versions: list[str]) -> None:
    stage = here.stage("atonce")
    here.deploy(stage, versions[0])
    tested: list[bool] = []

    def run(arn: str) -> None:
        here.deploy(stage, arn, in_turn=True)
        tested.append(smoke.passed(smoke.smoke(here.aws, stage, arn)))

    smoke.smoke(here.aws, stage, versions[0])
    threads = [threading.Thread(target=run, args=(arn,)) for arn in versions[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert tested == [True, True]
    trail = deploy.read_trail(stacks.describe(here.aws, stage.stack))
    assert trail in ((1, 2, 3), (1, 3, 2))


@pytest.mark.parametrize("noticed", [True, False], ids=["is told", "finds out"])
def test_a_run_that_was_overtaken_looks_at_the_stage_anew(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    stage = here.stage("anew" if noticed else "later")
    here.deploy(stage, versions[0], started=EARLIER)
    update, calls = stacks.deploy, 0

    def faster(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            # Another run has just begun and ended.
            monkeypatch.setattr(stacks, "deploy", update)
            here.deploy(stage, versions[1], started=LATER)
            if noticed:
                raise Overtaken("another operation is changing churn-anew")
        return update(*arguments, **options)

    monkeypatch.setattr(stacks, "deploy", faster)
    with pytest.raises(Superseded):
        here.deploy(stage, versions[2], started=EARLIER)
    assert running(here, stage.stack) == 2


def test_a_rollback_overwrites_no_version_that_came_after_it_was_decided(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, update = here.stage("back"), stacks.deploy
    for arn in versions[:2]:
        here.deploy(stage, arn)
    back = deploy.rollback_target(here.aws, stage, None)

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(stacks, "deploy", update)
        here.deploy(stage, versions[2])
        return update(*arguments, **options)

    monkeypatch.setattr(stacks, "deploy", slow)
    with pytest.raises(Superseded, match="back was not changed: it received version 3 meanwhile"):
        here.deploy(stage, back.arn, back=back)
    assert deploy.read_trail(stacks.describe(here.aws, stage.stack)) == (1, 2, 3)


def test_of_two_first_deployments_at_once_the_later_one_stays(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, update = here.stage("first"), stacks.deploy

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(stacks, "deploy", update)
        here.deploy(stage, versions[2], started=LATER)
        return update(*arguments, **options)

    monkeypatch.setattr(stacks, "deploy", slow)
    with pytest.raises(Superseded):
        here.deploy(stage, versions[1], started=EARLIER)
    assert running(here, stage.stack) == 3


@pytest.mark.long
@pytest.mark.parametrize("value", ["off", "on"])
def test_a_change_of_autoscaling_keeps_what_another_run_deployed_meanwhile(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Before the update, or after it failed."""
    kind = {"EndpointKind": "real-time", "MaxInstanceCount": 3, "BakeSeconds": 0}
    name = f"scaled-{value}"
    stage = here.stage(name, **kind, InstanceType="ml.m5.large")
    here.deploy(stage, versions[0], started=EARLIER)
    larger = here.stage(name, **kind, InstanceType="ml.m5.xlarge")
    switch = deploy._Run._set_autoscaling

    def slow(run: Any, before: Any, wanted: str) -> None:
        if wanted == value:
            monkeypatch.setattr(deploy._Run, "_set_autoscaling", switch)
            here.deploy(stage, versions[2], started=LATER)
        switch(run, before, wanted)

    monkeypatch.setattr(deploy._Run, "_set_autoscaling", slow)
    arn = here.register(BROKEN) if value == "on" else versions[1]
    with pytest.raises(deploy.DeploymentFailed if value == "on" else Superseded):
        here.deploy(larger, arn, started=EARLIER)
    found = stacks.describe(here.aws, stage.stack)
    assert found is not None and running(here, stage.stack) == 3
    assert deploy.read_trail(found) == (1, 3) and found.tags[STARTED] == LATER


def test_the_command_ends_red_and_says_how_to_return(here: Place, versions: list[str]) -> None:
    stage = here.stage("command")
    here.deploy(stage, versions[1], started=LATER)
    words = ("deploy", "command", "--model-package-arn", versions[0])
    done = here.command(*words, DEPLOYMENT_STARTED=EARLIER)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "command was not changed: version 1 is superseded by version 2" in done.stderr
    assert "mlops rollback command --to 1" in done.stderr
    done = here.command(*words, DEPLOYMENT_STARTED="yesterday")
    assert done.returncode == 2 and "--started must be a time such as" in done.stderr


def test_who_may_not_read_the_tags_of_an_endpoint_does_not_wait(
    here: Place, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = here.stage("unread")
    here.deploy(stage, versions[0])
    assert endpoints.untested(here.aws, stage.stack)

    def denied(*_: object, **__: object) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListTags")

    monkeypatch.setattr(type(here.aws), "pages", denied)
    assert not endpoints.untested(here.aws, stage.stack)
