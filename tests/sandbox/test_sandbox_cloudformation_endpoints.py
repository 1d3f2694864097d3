"""Real endpoints deployed by stacks."""

from __future__ import annotations

import os
import signal
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

pytestmark = pytest.mark.slow


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


@pytest.mark.long
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
        TreatMissingData="ignore",
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
