"""Faults on demand: every call of every service can be made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import Wired
from sandbox import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("faults"), "eu-west-1") as server:
        yield server


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
    "GetCallerIdentity": lambda aws: aws.client("sts").get_caller_identity(),
    "DescribeStacks": lambda aws: aws.client("cloudformation").describe_stacks(),
    "CreateQueue": lambda aws: aws.sqs.create_queue(QueueName="q"),
    "DescribeAlarms": lambda aws: aws.client("cloudwatch").describe_alarms(),
}


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_fails_as_asked(server: Server, operation: str) -> None:
    server.inject(operation, "Injected", status=418)
    with pytest.raises(ClientError) as caught:
        CALLS[operation](Wired(server.url))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 418
    assert caught.value.response["Error"]["Code"] == "Injected"
    assert not server.faulty(), "the fault is used up"


def test_other_calls_pass(server: Server, tmp_path: Path) -> None:
    server.inject("CreateBucket", "Injected")
    Wired(server.url).s3.list_buckets()
    assert server.faulty()
