"""`mlops trigger`: pass on an approval by hand, with the platform's own function."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from connected_case import COMMIT, NAME, OWNER, REGION, TRIGGER, Connected, connect
from fault_injection import inject, inject_github, pending
from function_cases import until
from repos import Repo, make_repo
from sm_mlops import platform, registry
from sm_mlops.cli.main import app
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.deployment import trigger
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

RULE = "sm-mlops-approved"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    before = dict(os.environ)
    repo: Repo = make_repo(tmp_path_factory.mktemp("repo") / "churn")
    with Server(tmp_path_factory.mktemp("account"), REGION) as server:
        apply(server.environment())
        try:
            found = connect(server, repo)
            # The registry's own events would start deployments beside those by hand.
            found.aws.client("events").disable_rule(Name=RULE)
            yield found
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(autouse=True)
def signed_in(account: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    account.token()
    monkeypatch.chdir(account.aws.settings.root)


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["trigger", *words])


def refusal(*words: str) -> str:
    done = call(*words)
    assert isinstance(done.exception, MlopsError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


def address(run: dict[str, Any]) -> str:
    return f"{os.environ['AWS_ENDPOINT_URL']}/_github/{OWNER}/{NAME}/actions/runs/{run['id']}"


def number(arn: str) -> str:
    return arn.rpartition("/")[2]


def test_it_starts_the_deployment_again_and_says_where_to_follow_it(account: Connected) -> None:
    arn = account.register("Approved")
    for _ in range(2):
        before = len(account.runs())
        done = call(number(arn))
        assert done.exit_code == 0, done.exception
        assert len(account.runs()) == before + 1
        assert account.runs()[0]["inputs"] == {"model-package-arn": arn, "commit": COMMIT}
        assert f"follow it   {address(account.runs()[0])}" in done.output
        started = f"Started the deployment of version {number(arn)}, commit {COMMIT[:7]}"
        assert started in done.output


def test_for_scripts_it_is_json(account: Connected) -> None:
    arn = account.register("Approved")
    assert json.loads(call(number(arn), "--json").output) == {
        "version": int(number(arn)),
        "model_package_arn": arn,
        "repository": f"{OWNER}/{NAME}",
        "commit": COMMIT,
        "run": address(account.runs()[0]),
        "cleared": 0,
    }


def test_an_error_of_github_is_one_line_without_the_credential(account: Connected) -> None:
    token = account.token()
    arn = account.register("Approved")
    inject_github(account.server.github, "POST */dispatches", 503, times=1)
    told = refusal(number(arn))
    assert "/dispatches: 503" in told and "aws logs tail" in told
    assert token not in told
    assert call(number(arn)).exit_code == 0


@pytest.mark.long
def test_a_failed_approval_leaves_the_queue_when_it_is_started_by_hand(account: Connected) -> None:
    queues = account.aws.client("sqs")
    url = queues.get_queue_url(QueueName=trigger.QUEUE)["QueueUrl"]

    def waiting() -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = queues.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(count) for count in found.values())

    inject_github(account.server.github, "POST */dispatches", 503, times=3)
    arn, other = account.register(), account.register("Approved")
    account.aws.client("events").enable_rule(Name=RULE)
    account.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    until(lambda: waiting() == 1, seconds=120)
    account.aws.client("events").disable_rule(Name=RULE)
    bodies: list[Any] = [{"detail": {"ModelPackageArn": other}}, {"detail": None}, []]
    for body in bodies:
        queues.send_message(QueueUrl=url, MessageBody=json.dumps(body))
    done = call(number(arn))
    assert "Deleted 1 failed approval of this version from the queue" in done.output
    assert waiting() == 3, "those of others stay"


@pytest.mark.parametrize("status", ["Rejected", "PendingManualApproval"])
def test_a_version_that_is_not_approved_is_refused_before_the_function_is_called(
    account: Connected, status: str
) -> None:
    arn = account.register(status)
    before = len(account.runs())
    assert f"is {status}, not Approved" in refusal(number(arn))
    assert len(account.runs()) == before


def test_what_the_function_will_not_deploy_is_reported_with_its_reason(account: Connected) -> None:
    arn = account.register("Approved", Repository="https://github.com/strangers/churn")
    assert "started nothing: repositories of strangers are not allowed" in refusal(number(arn))
    arn = account.register("Approved", CommitId=f"{COMMIT}-dirty")
    assert "which nobody can review" in refusal(number(arn))


def test_a_version_that_does_not_exist_is_refused_in_one_line(account: Connected) -> None:
    assert "churn has no version 999" in refusal("999")


def test_without_a_platform_it_says_how_to_create_one(
    account: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger, "FUNCTION", "nobody")
    version = registry.version(account.aws, int(number(account.register("Approved"))))
    with pytest.raises(MlopsError, match="no function nobody in eu-west-1: mlops bootstrap"):
        trigger.replay(account.aws, version)


def test_a_call_that_aws_does_not_answer_is_not_made_twice(account: Connected) -> None:
    version = registry.version(account.aws, int(number(account.register("Approved"))))
    inject(account.server, "Invoke", "ServiceException", status=500, times=2)
    try:
        with pytest.raises(ClientError, match="ServiceException"):
            trigger.replay(account.aws, version)
        assert pending(account.server), "the second one is left"
    finally:
        pending(account.server).clear()


def test_the_names_are_those_of_the_platform() -> None:
    text = (platform.FOLDER / "platform.yml").read_text(encoding="utf-8")
    assert f"FunctionName: {trigger.FUNCTION}\n" in text and trigger.FUNCTION == TRIGGER
    assert f"QueueName: {trigger.QUEUE}\n" in text
