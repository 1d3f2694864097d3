"""Faults on demand: every call of every service can be made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from fault_injection import inject, pending
from function_cases import Wired
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("faults"), "eu-west-1") as server:
        yield server


@pytest.fixture(autouse=True)
def without_former_faults(server: Server) -> None:
    pending(server).clear()


OBJECT = {"Bucket": "there-is-none", "Key": "k"}
CALLS: dict[str, Callable[[Wired], Any]] = {
    "CreateSecret": lambda aws: aws.client("secretsmanager").create_secret(Name="s"),
    "CreateRole": lambda aws: aws.iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}"),
    "PutRule": lambda aws: aws.events.put_rule(Name="r", EventPattern='{"source": ["a"]}'),
    "ListFunctions": lambda aws: aws.functions.list_functions(),
    "GetFunctionConfiguration": lambda aws: aws.functions.get_function_configuration(
        FunctionName="f"
    ),
    "PublishLayerVersion": lambda aws: aws.functions.publish_layer_version(
        LayerName="l", Content={"ZipFile": b"x"}
    ),
    "CreateConnection": lambda aws: aws.client("codeconnections").create_connection(
        ConnectionName="c", ProviderType="GitHub"
    ),
    "CreatePortfolio": lambda aws: aws.client("servicecatalog").create_portfolio(
        DisplayName="p", ProviderName="us"
    ),
    "CreateProject": lambda aws: aws.sagemaker.create_project(ProjectName="p"),
    "CreateBucket": lambda aws: aws.s3.create_bucket(
        Bucket="b", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    ),
    "PutBucketPolicy": lambda aws: aws.s3.put_bucket_policy(Bucket="b", Policy="{}"),
    "PutObject": lambda aws: aws.s3.put_object(**OBJECT, Body=b"x"),
    "CopyObject": lambda aws: aws.s3.copy_object(**OBJECT, CopySource="a/b"),
    "GetCallerIdentity": lambda aws: aws.client("sts").get_caller_identity(),
    "DescribeStacks": lambda aws: aws.client("cloudformation").describe_stacks(),
    "CreateQueue": lambda aws: aws.sqs.create_queue(QueueName="q"),
    "DescribeAlarms": lambda aws: aws.client("cloudwatch").describe_alarms(),
}


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_fails_as_asked(server: Server, operation: str) -> None:
    inject(server, operation, "Injected", status=418)
    with pytest.raises(ClientError) as caught:
        CALLS[operation](Wired(server.environment()))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 418
    assert caught.value.response["Error"]["Code"] == "Injected"
    assert not pending(server), "the fault is used up"


def test_other_calls_pass(server: Server, tmp_path: Path) -> None:
    inject(server, "CreateBucket", "Injected")
    Wired(server.environment()).s3.list_buckets()
    assert pending(server)


@pytest.mark.parametrize("acts", [False, True])
def test_a_connection_is_cut_before_or_after_the_call_was_carried_out(
    server: Server, acts: bool
) -> None:
    name = f"cut-{acts}".lower()
    secrets, storage, sagemaker = (
        server.client("eu-west-1", service) for service in ("secretsmanager", "s3", "sagemaker")
    )
    where = {"LocationConstraint": "eu-west-1"}
    for operation, call in {
        "CreateSecret": lambda: secrets.create_secret(Name=name),
        "CreateModelPackageGroup": lambda: sagemaker.create_model_package_group(
            ModelPackageGroupName=name
        ),
        "CreateBucket": lambda: storage.create_bucket(Bucket=name, CreateBucketConfiguration=where),
    }.items():
        inject(server, operation, status=0, acts=acts)
        with pytest.raises(HTTPClientError):
            call()
    assert not pending(server)
    assert (name in [item["Name"] for item in secrets.list_secrets()["SecretList"]]) is acts
    assert (name in [item["Name"] for item in storage.list_buckets()["Buckets"]]) is acts
    groups = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert (name in [item["ModelPackageGroupName"] for item in groups]) is acts


def test_any_call_is_counted_and_only_one_client_s(server: Server) -> None:
    inject(server, "*", "NotForUs", agent="somebody-else")
    inject(server, "*", "Injected", after=1, agent="Botocore/")
    iam = server.client("eu-west-1", "iam")
    iam.list_roles()
    with pytest.raises(ClientError, match="Injected"):
        iam.list_users()
    iam.list_users()
    assert pending(server), "nobody else has called"


def test_what_has_no_body_fails_and_leaves_the_connection_as_it_was(server: Server) -> None:
    storage = server.client("eu-west-1", "s3")
    inject(server, "HeadBucket", "Injected", status=500)
    with pytest.raises(ClientError, match="500"):
        storage.head_bucket(Bucket="b")
    storage.list_buckets()
