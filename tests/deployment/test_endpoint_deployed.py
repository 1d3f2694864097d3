"""infra/endpoint.yml deployed for real, in the sandbox: each kind, each way to shift traffic."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from endpoint_cases import MODEL, Hosting, hosting, tarred
from infra_case import INFRA, text
from sandbox_cases import BUCKET
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

FAILING = MODEL.replace('data == "raise"', "True")
PROJECT, STAGE = "churn", "production"
STACK = f"{PROJECT}-{STAGE}"
TWO = {"EndpointKind": "real-time", "InstanceCount": 2}
SCALED = {**TWO, "MaxInstanceCount": 4}


@dataclass(frozen=True)
class Account:
    """A sandbox in which this project may deploy."""

    world: Hosting

    def package(self, name: str, script: str = MODEL) -> str:
        """Register a version whose model answers with its name; return its ARN."""
        archive = tarred({"code/inference.py": script, "name": name})
        uri = self.world.put(f"{PROJECT}/executions/{uuid.uuid4().hex}/model.tar.gz", archive)
        return self.world.package_of(uri)

    def put(self, package: str, parameters: dict[str, Any]) -> str:
        """Create or update the stack; return the status it ends in."""
        self.begin(package, parameters)
        return self.settled()

    def begin(self, package: str, parameters: dict[str, Any]) -> None:
        """Begin to create or to update the stack."""
        stacks = self.world.client("cloudformation")
        given = {
            "Project": PROJECT,
            "Stage": STAGE,
            "ModelPackageArn": package,
            "ArtifactBucket": BUCKET,
            "OutputBucket": BUCKET,
            "BakeSeconds": 1,
            **parameters,
        }
        request = {
            "StackName": STACK,
            "TemplateBody": (INFRA / "endpoint.yml").read_text(encoding="utf-8"),
            "Parameters": [
                {"ParameterKey": name, "ParameterValue": text(value)}
                for name, value in given.items()
            ],
            "Capabilities": ["CAPABILITY_IAM"],
        }
        try:
            stacks.create_stack(**request)
        except stacks.exceptions.AlreadyExistsException:
            stacks.update_stack(**request)

    def status(self) -> str:
        """Return the stack's status, DELETE_COMPLETE when there is none."""
        stacks = self.world.client("cloudformation")
        try:
            [stack] = stacks.describe_stacks(StackName=STACK)["Stacks"]
        except ClientError:
            return "DELETE_COMPLETE"
        return str(stack["StackStatus"])

    def settled(self, seconds: float = 60) -> str:
        """Wait until nothing is in progress; return the stack's status."""
        end = time.monotonic() + seconds
        while (status := self.status()).endswith("_IN_PROGRESS"):
            if time.monotonic() > end:
                raise TimeoutError(status)
            time.sleep(0.02)
        return status

    def why(self) -> str:
        """Return the reasons of what failed, oldest first."""
        events = self.world.client("cloudformation").describe_stack_events(StackName=STACK)
        return "\n".join(
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in reversed(events["StackEvents"])
            if event["ResourceStatus"].endswith("_FAILED")
        )

    def answer(self, kind: str) -> str:
        """Return the name of the model that answers."""
        if kind != "asynchronous":
            return str(self.world.ask(STACK)["model"])
        folder = f"{PROJECT}/async/{STAGE}"
        body = f"{folder}/input/{uuid.uuid4().hex}"
        done = self.world.runtime.invoke_endpoint_async(
            EndpointName=STACK, InputLocation=self.world.put(body, "hello")
        )
        assert done["OutputLocation"].startswith(f"s3://{BUCKET}/{folder}/output/")
        assert done["FailureLocation"].startswith(f"s3://{BUCKET}/{folder}/failure/")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                return str(json.loads(self.world.read(done["OutputLocation"]))["model"])
            except self.world.s3.exceptions.NoSuchKey:
                time.sleep(0.05)
        raise TimeoutError(done["OutputLocation"])

    def instances(self) -> int:
        """Return how many instances the endpoint should have."""
        described = self.world.sagemaker.describe_endpoint(EndpointName=STACK)
        [variant] = described["ProductionVariants"]
        return int(variant["DesiredInstanceCount"])

    def targets(self) -> list[tuple[int, int]]:
        """Return the minimum and maximum of each scalable target."""
        scaling = self.world.client("application-autoscaling")
        found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [(target["MinCapacity"], target["MaxCapacity"]) for target in found]

    def delete(self) -> str:
        """Delete the stack; return the status it ends in."""
        self.world.client("cloudformation").delete_stack(StackName=STACK)
        return self.settled()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("infra")
    with Server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def world(server: Server) -> Hosting:
    return hosting(server)


@pytest.fixture
def account(world: Hosting) -> Iterator[Account]:
    found = Account(world)
    yield found
    found.delete()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("serverless", {}),
        ("real-time", {"InstanceCount": 2, "TrafficShift": "canary", "ShiftPercent": 50}),
        ("real-time", {"InstanceCount": 2, "TrafficShift": "linear", "ShiftPercent": 50}),
        ("real-time", {"MaxInstanceCount": 3}),
        ("asynchronous", {"InstanceCount": 2, "MaxInstanceCount": 3, "TrafficShift": "canary"}),
        ("asynchronous", {"InstanceCount": 2, "MaxInstanceCount": 3, "TrafficShift": "linear"}),
        ("asynchronous", {}),
    ],
    ids=lambda value: (
        value.get("TrafficShift", "all-at-once") if isinstance(value, dict) else value
    ),
)
def test_a_version_is_deployed_answers_and_is_replaced_by_the_next(
    account: Account, kind: str, parameters: dict[str, Any]
) -> None:
    given = {"EndpointKind": kind, **parameters}
    assert account.put(account.package("one"), given) == "CREATE_COMPLETE", account.why()
    assert account.answer(kind) == "one"
    assert account.put(account.package("two"), given) == "UPDATE_COMPLETE", account.why()
    assert account.answer(kind) == "two"
    sagemaker = account.world.sagemaker
    assert len(sagemaker.list_models()["Models"]) == 1
    assert len(sagemaker.list_endpoint_configs()["EndpointConfigs"]) == 1


def test_nothing_is_left_of_a_deleted_stack(account: Account) -> None:
    package = account.package("one")
    assert account.put(package, SCALED) == "CREATE_COMPLETE", account.why()
    assert account.delete() == "DELETE_COMPLETE"
    world = account.world
    assert not world.sagemaker.list_endpoints()["Endpoints"]
    assert not world.sagemaker.list_endpoint_configs()["EndpointConfigs"]
    assert not world.sagemaker.list_models()["Models"]
    assert not world.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert not account.targets()
    # Those of the test itself.
    roles = {role["RoleName"] for role in world.iam.list_roles()["Roles"]}
    assert roles == {"hosting", "tests"}


def test_a_new_version_keeps_the_instances_that_autoscaling_has_added(account: Account) -> None:
    assert account.put(account.package("one"), SCALED) == "CREATE_COMPLETE", account.why()
    assert account.targets() == [(2, 4)]
    account.world.scale(STACK, 3)
    assert account.put(account.package("two"), SCALED) == "UPDATE_COMPLETE", account.why()
    assert account.instances() == 3


def test_the_instance_type_changes_in_two_updates_that_keep_the_instances(
    account: Account,
) -> None:
    package, larger = account.package("one"), {**SCALED, "InstanceType": "ml.m5.xlarge"}
    assert account.put(package, SCALED) == "CREATE_COMPLETE", account.why()
    account.world.scale(STACK, 3)
    assert account.put(package, larger) == "UPDATE_ROLLBACK_COMPLETE"
    assert account.put(package, {**SCALED, "Autoscaling": "off"}) == "UPDATE_COMPLETE"
    assert (account.targets(), account.instances()) == ([], 3)
    assert account.put(package, larger) == "UPDATE_COMPLETE", account.why()
    assert (account.targets(), account.instances()) == ([(2, 4)], 3)


def test_a_version_that_cannot_answer_is_rolled_back_by_its_alarm(account: Account) -> None:
    given = {**TWO, "TrafficShift": "canary", "ShiftPercent": 50, "BakeSeconds": 600}
    assert account.put(account.package("one"), given) == "CREATE_COMPLETE", account.why()
    account.begin(account.package("two", script=FAILING), given)
    refused = 0
    while account.status().endswith("_IN_PROGRESS"):
        try:
            assert account.answer("real-time") == "one"
        except account.world.runtime.exceptions.ModelError:
            refused += 1
        time.sleep(0.02)
    assert account.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert refused
    assert f"{STACK}-errors" in account.why()
    assert account.answer("real-time") == "one"


def test_a_combination_that_cannot_work_makes_no_stack(account: Account) -> None:
    with pytest.raises(ClientError, match="DataCapturePercent"):
        account.put(account.package("one"), {"EndpointKind": "serverless", "DataCapturePercent": 5})
