"""Stacks across restarts of their sandbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudformation_cases import Deployer, new_name, resource, secret, text
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.cloudformation.calls import Call, Provider, ResourceFailed
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS

pytestmark = pytest.mark.slow

GATED = resource("KMS::Key")
ALLOW = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}],
}


def restart(root: Path) -> Server:
    return Server(root, "eu-west-1", stop_grace=0.5)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Creating GATED resources never ends and cannot be cancelled; deleting them is quick."""
    end = threading.Event()

    def create(call: Call) -> Made:
        end.wait(30)
        raise ResourceFailed("the test is over")

    monkeypatch.setitem(PROVIDERS, "AWS::KMS::Key", Provider(create, lambda call: None))
    yield
    end.set()


def kill(server: Server) -> None:
    """Leave a server as a kill does: what runs writes nothing more."""
    server.stacks.end()
    server.close()


def test_stacks_and_what_they_made_are_there_after_a_restart(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        name = aws.deploy({"Resources": {"Logs": resource("Logs::LogGroup")}})
        before, events = aws.physical(name), aws.events(name)
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        assert (aws.physical(name), aws.events(name)) == (before, events)
        after = {"Resources": {"Logs": resource("Logs::LogGroup", RetentionInDays=7)}}
        assert aws.update(name, after)["StackStatus"] == "UPDATE_COMPLETE"
        assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_a_creation_that_was_interrupted_is_rolled_back(tmp_path: Path, slow: None) -> None:
    server = restart(tmp_path).start()
    aws, name = Deployer(server.environment()), new_name()
    logs = resource("Logs::LogGroup")
    body = text({"Resources": {"Logs": logs, "Waits": {**GATED, "DependsOn": "Logs"}}})
    aws.cfn.create_stack(StackName=name, TemplateBody=body)
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    group = aws.physical(name)["Logs"]
    kill_soon(server)
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        assert aws.settled(name)["StackStatus"] == "ROLLBACK_COMPLETE"
        why = aws.reasons(name, "ROLLBACK_IN_PROGRESS")[name]
        assert why.startswith("The sandbox ended while this operation was running.")
        assert not aws.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]


def test_an_update_that_was_interrupted_is_rolled_back(tmp_path: Path, slow: None) -> None:
    server = restart(tmp_path).start()
    aws = Deployer(server.environment())
    before = {"Resources": {"Logs": resource("Logs::LogGroup", RetentionInDays=7)}}
    name = aws.deploy(before)
    after = {
        "Resources": {
            "Logs": resource("Logs::LogGroup", RetentionInDays=30),
            "Waits": {**GATED, "DependsOn": "Logs"},
        }
    }
    aws.cfn.update_stack(StackName=name, TemplateBody=text(after))
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    group = aws.physical(name)["Logs"]
    kill_soon(server)
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
        found = aws.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        assert found[0]["retentionInDays"] == 7


def test_what_a_killed_sandbox_may_have_started_is_found_again(tmp_path: Path, slow: None) -> None:
    kinds = {
        "Queue": resource("SQS::Queue"),
        "Policy": resource("IAM::ManagedPolicy", PolicyDocument=ALLOW),
        "Secret": secret("x"),
        "Group": resource("SageMaker::ModelPackageGroup", ModelPackageGroupName="begun"),
    }
    waits = {"Waits": {**GATED, "DependsOn": list(kinds)}}
    server = restart(tmp_path).start()
    aws, name = Deployer(server.environment()), new_name()
    body = text({"Resources": {**kinds, **waits}})
    aws.cfn.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    # As if the kill had come between the services' answers and the engine's note of them.
    [stack] = server.store.all("Stack").values()
    for logical in kinds:
        record = stack["_resources"][logical]
        record |= {"PhysicalResourceId": "", "ResourceStatus": "CREATE_IN_PROGRESS"}
    server.stacks.ledger.save(stack)
    kill_soon(server)
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        assert aws.settled(name)["StackStatus"] == "ROLLBACK_COMPLETE"
        assert "QueueUrls" not in aws.client("sqs").list_queues()
        assert not aws.iam.list_policies(Scope="Local")["Policies"]
        assert not aws.client("secretsmanager").list_secrets()["SecretList"]
        assert not aws.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]


def test_a_rollback_after_a_kill_leaves_alone_what_was_never_its_own(
    tmp_path: Path, slow: None
) -> None:
    server = restart(tmp_path).start()
    aws, name = Deployer(server.environment()), new_name()
    aws.client("secretsmanager").create_secret(Name="theirs", SecretString="x")
    taken = secret("y", Name="theirs")
    body = text({"Resources": {"Waits": GATED, "Taken": taken}})
    aws.cfn.create_stack(StackName=name, TemplateBody=body)
    aws.wait_for(name, "Taken CREATE_FAILED")
    kill_soon(server)
    with restart(tmp_path) as server:
        aws = Deployer(server.environment())
        assert aws.settled(name)["StackStatus"] == "ROLLBACK_COMPLETE"
        assert aws.secret("theirs") == "x"


def kill_soon(server: Server) -> None:
    """Kill without the five seconds that an orderly end gives what does not listen."""
    server.stacks._threads.clear()
    kill(server)


def test_the_server_stays_while_a_stack_is_changed(tmp_path: Path, slow: None) -> None:
    server = restart(tmp_path).start()
    server._standing = False
    aws, name = Deployer(server.environment()), new_name()
    aws.cfn.create_stack(StackName=name, TemplateBody=text({"Resources": {"Waits": GATED}}))
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    server.end_if_idle()
    time.sleep(0.1)
    assert not server.ended.is_set()
    kill_soon(server)
