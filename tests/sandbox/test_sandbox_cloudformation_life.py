"""Stacks across restarts, and real endpoints deployed by them."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudformation_cases import Deployer, new_name, resource, secret, text
from endpoint_cases import BROKEN, MODEL, Hosting, tarred
from infra_case import INFRA
from sandbox_cases import there
from sm_mlops import sandbox
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


@pytest.mark.own_server
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


@pytest.mark.own_server
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


@pytest.mark.own_server
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


@pytest.mark.own_server
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


@pytest.mark.own_server
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


@pytest.mark.own_server
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


def test_a_killed_sandbox_resumes_its_stacks(tmp_path: Path) -> None:
    running = sandbox.start(tmp_path, "eu-west-1")
    aws, hosting = Deployer(there(tmp_path)), Hosting(there(tmp_path)).prepare()
    slow, name = "import time\ntime.sleep(3)\n" + MODEL, new_name()
    body = text(endpoint(hosting.package(slow), name))
    aws.cfn.create_stack(StackName=name, TemplateBody=body)
    aws.wait_for(name, "Endpoint CREATE_IN_PROGRESS")
    kept = aws.deploy({"Resources": {"Queue": resource("SQS::Queue")}})
    os.kill(running.pid, signal.SIGKILL)
    try:
        running = sandbox.start(tmp_path, "eu-west-1")
        aws, hosting = Deployer(there(tmp_path)), Hosting(there(tmp_path))
        assert aws.settled(name, 60)["StackStatus"] == "ROLLBACK_COMPLETE"
        assert aws.stack(kept)["StackStatus"] == "CREATE_COMPLETE"
        assert hosting.sagemaker.list_endpoints()["Endpoints"] == []
        assert hosting.sagemaker.list_models()["Models"] == []
    finally:
        sandbox.stop(tmp_path)


# Endpoints.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("hosting"), "eu-west-1") as server:
        yield server


@pytest.fixture(scope="module")
def hosting(server: Server) -> Hosting:
    return Hosting(server.environment()).prepare()


@pytest.fixture(scope="module")
def aws(server: Server) -> Deployer:
    return Deployer(server.environment())


def endpoint(package: str, name: str, **more: Any) -> dict[str, Any]:
    """A template of an endpoint, as small as can be."""
    container = {"ModelPackageName": package}
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "InitialInstanceCount": "1",
        "InstanceType": "ml.m5.large",
    }
    return {
        "Resources": {
            "Model": resource(
                "SageMaker::Model",
                PrimaryContainer=container,
                ExecutionRoleArn="arn:aws:iam::123456789012:role/hosting",
            ),
            "Config": resource("SageMaker::EndpointConfig", ProductionVariants=[variant]),
            "Endpoint": resource(
                "SageMaker::Endpoint",
                EndpointName=name,
                EndpointConfigName={"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                **more,
            ),
        }
    }


def test_a_stack_is_complete_only_when_its_endpoint_answers(
    aws: Deployer, hosting: Hosting
) -> None:
    name = new_name()
    aws.deploy(endpoint(hosting.package(name="one"), name), name, Tags=[{"Key": "k", "Value": "v"}])
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    assert hosting.ask(name)["model"] == "one"
    arn = aws.physical(name)["Endpoint"]
    assert hosting.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    stack = aws.update(name, endpoint(hosting.package(name="two"), name))
    assert stack["StackStatus"] == "UPDATE_COMPLETE", aws.reasons(name, "UPDATE_FAILED")
    assert hosting.ask(name)["model"] == "two"
    stack = aws.delete(name)
    assert stack["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")
    for kind in ("endpoints", "endpoint_configs", "models"):
        (rows,) = (
            rows
            for key, rows in getattr(hosting.sagemaker, f"list_{kind}")().items()
            if key != "ResponseMetadata"
        )
        assert rows == []


def test_a_model_that_does_not_start_leaves_the_old_one_serving(
    aws: Deployer, hosting: Hosting
) -> None:
    name = new_name()
    aws.deploy(endpoint(hosting.package(name="good"), name), name)
    config = hosting.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    stack = aws.update(name, endpoint(hosting.package(BROKEN), name))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    why = aws.reasons(name, "UPDATE_FAILED")
    assert list(why) == ["Endpoint"]
    assert "did not pass the ping health check" in why["Endpoint"]
    assert hosting.ask(name)["model"] == "good"
    found = hosting.sagemaker.describe_endpoint(EndpointName=name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", config)
    configs = hosting.sagemaker.list_endpoint_configs()["EndpointConfigs"]
    assert [c["EndpointConfigName"] for c in configs] == [config]
    aws.delete(name)


def test_an_alarm_during_the_shift_rolls_the_stack_back(aws: Deployer, hosting: Hosting) -> None:
    name = new_name()
    alarms = aws.client("cloudwatch")
    alarms.put_metric_alarm(
        AlarmName=name,
        Namespace="n",
        MetricName="m",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    shift = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name}]},
    }
    aws.deploy(endpoint(hosting.package(name="good"), name, DeploymentConfig=shift), name)
    alarms.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    stack = aws.update(name, endpoint(hosting.package(name="worse"), name, DeploymentConfig=shift))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", aws.events(name)
    assert "HandlerErrorCode: NotStabilized" in aws.reasons(name, "UPDATE_FAILED")["Endpoint"]
    assert hosting.ask(name)["model"] == "good"
    aws.delete(name)


def test_a_first_model_that_does_not_start_leaves_nothing(aws: Deployer, hosting: Hosting) -> None:
    name = new_name()
    aws.deploy(endpoint(hosting.package(BROKEN), name), name)
    assert aws.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "did not pass the ping health check" in aws.reasons(name, "CREATE_FAILED")["Endpoint"]
    assert hosting.sagemaker.list_endpoints(NameContains=name)["Endpoints"] == []


def test_the_endpoint_of_a_stage_is_deployed_answers_and_is_deleted(
    aws: Deployer, hosting: Hosting
) -> None:
    template = (INFRA / "endpoint.yml").read_text()
    archive = hosting.put(
        f"churn/{uuid.uuid4().hex}/model.tar.gz",
        tarred({"code/inference.py": MODEL, "name": "stage"}),
    )
    packaged = hosting.archive
    hosting.archive = lambda *_, **__: archive  # type: ignore[method-assign]
    package = hosting.package()
    hosting.archive = packaged  # type: ignore[method-assign]
    values = {
        "Project": "churn",
        "Stage": "staging",
        "ModelPackageArn": package,
        "ArtifactBucket": archive.split("/")[2],
        "OutputBucket": archive.split("/")[2],
        "EndpointKind": "serverless",
    }
    request = {
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in values.items()],
    }
    aws.deploy(template, "churn-staging", **request)
    stack = aws.stack("churn-staging")
    assert stack["StackStatus"] == "CREATE_COMPLETE", aws.reasons("churn-staging", "CREATE_FAILED")
    assert hosting.ask("churn-staging")["model"] == "stage"
    assert aws.outputs("churn-staging")["ModelPackageArn"] == package
    assert aws.delete("churn-staging")["StackStatus"] == "DELETE_COMPLETE"


def test_an_unused_parameter_changes_nothing(aws: Deployer) -> None:
    template = {
        "Parameters": {"Unused": {"Type": "String", "Default": "a"}},
        "Resources": {"One": secret("x")},
    }
    name = aws.deploy(template)
    more = {"Parameters": [{"ParameterKey": "Unused", "ParameterValue": "b"}]}
    assert aws.change(name, template, **more)["Status"] == "FAILED"
