"""The model registry in the sandbox answers as SageMaker does, where moto does not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox_cases import BUCKET, ROLE, World, register, world
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Server(tmp_path_factory.mktemp("registry"), "eu-west-1") as server:
        yield world(server)


@pytest.fixture
def group(aws: World) -> str:
    name = f"group-{uuid.uuid4().hex[:8]}"
    aws.sagemaker.create_model_package_group(
        ModelPackageGroupName=name, ModelPackageGroupDescription="d"
    )
    return name


def add(aws: World, group: str, **more: Any) -> str:
    """Register a version and return its ARN."""
    request = register(f"s3://{BUCKET}/model.tar.gz", **more) | {"ModelPackageGroupName": group}
    return str(aws.sagemaker.create_model_package(**request)["ModelPackageArn"])


def versions(aws: World, group: str, **options: Any) -> list[int]:
    answer = aws.sagemaker.list_model_packages(ModelPackageGroupName=group, **options)
    return [row["ModelPackageVersion"] for row in answer["ModelPackageSummaryList"]]


@pytest.mark.parametrize("text", ["auc 0.9, on 85 rows", "auc 0.9; 85", "(auc)", "a" * 257])
def test_a_property_that_the_registry_refuses_is_refused(aws: World, group: str, text: str) -> None:
    with pytest.raises(ClientError, match="failed to satisfy constraint"):
        add(aws, group, CustomerMetadataProperties={"Evaluation": text})


def test_a_property_may_have_letters_of_any_language(aws: World, group: str) -> None:
    add(aws, group, CustomerMetadataProperties={"Évaluation": "größer als 0.9 日本語"})


def test_a_version_keeps_everything_it_was_registered_with(aws: World, group: str) -> None:
    quality, data = (
        {"Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/{name}.json"}}
        for name in ("evaluation", "statistics")
    )
    given = {
        "ModelApprovalStatus": "PendingManualApproval",
        "ModelPackageDescription": "first",
        "ModelMetrics": {"ModelQuality": quality},
        "DriftCheckBaselines": {"ModelQuality": quality, "ModelDataQuality": data},
        "MetadataProperties": {"CommitId": "abc", "Repository": "https://github.com/a/b"},
        "CustomerMetadataProperties": {"data": "sha"},
        "SamplePayloadUrl": f"s3://{BUCKET}/sample.tar.gz",
        "Domain": "MACHINE_LEARNING",
        "Task": "CLASSIFICATION",
    }
    arn = add(aws, group, **given)
    described = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    assert {name: described[name] for name in given} == given
    assert described["ModelPackageVersion"] == 1
    assert described["ModelPackageGroupName"] == group
    assert described["ModelPackageStatus"] == "Completed"
    assert arn.endswith(f":model-package/{group}/1")


def test_versions_are_listed_oldest_first_unless_asked_otherwise(aws: World, group: str) -> None:
    for _ in range(3):
        add(aws, group)
    assert versions(aws, group) == [1, 2, 3]
    assert versions(aws, group, SortOrder="Descending") == [3, 2, 1]
    assert versions(aws, group, SortBy="CreationTime", SortOrder="Descending") == [3, 2, 1]
    assert versions(aws, group, SortOrder="Descending", MaxResults=1) == [3]


def test_versions_come_in_pages(aws: World, group: str) -> None:
    for _ in range(5):
        add(aws, group)
    pages = aws.sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group, PaginationConfig={"PageSize": 2}
    )
    found = [[r["ModelPackageVersion"] for r in page["ModelPackageSummaryList"]] for page in pages]
    assert found == [[1, 2], [3, 4], [5]]


def test_approval_is_kept_with_its_comment_and_filtered_by(aws: World, group: str) -> None:
    arn = add(aws, group)
    add(aws, group)
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="looks good"
    )
    described = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["ModelApprovalStatus"] == "Approved"
    assert described["ApprovalDescription"] == "looks good"
    assert described["LastModifiedTime"] > described["CreationTime"]
    assert versions(aws, group, ModelApprovalStatus="Approved") == [1]
    assert versions(aws, group, ModelApprovalStatus="PendingManualApproval") == [2]


def test_customer_metadata_is_merged_and_removed(aws: World, group: str) -> None:
    arn = add(aws, group, CustomerMetadataProperties={"a": "1", "b": "2"})
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn,
        CustomerMetadataProperties={"b": "3", "c": "4"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    described = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["CustomerMetadataProperties"] == {"b": "3", "c": "4"}


def test_the_number_of_a_deleted_version_is_not_given_again(aws: World, group: str) -> None:
    add(aws, group)
    second = add(aws, group)
    aws.sagemaker.delete_model_package(ModelPackageName=second)
    assert add(aws, group).endswith("/3")
    with pytest.raises(ClientError, match="does not exist"):
        aws.sagemaker.describe_model_package(ModelPackageName=second)


def test_only_an_empty_group_can_be_deleted(aws: World, group: str) -> None:
    arn = add(aws, group)
    with pytest.raises(ClientError, match="is not empty"):
        aws.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    aws.sagemaker.delete_model_package(ModelPackageName=arn)
    aws.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    with pytest.raises(ClientError, match="does not exist"):
        aws.sagemaker.describe_model_package_group(ModelPackageGroupName=group)


def test_a_group_has_a_policy_and_tags(aws: World, group: str) -> None:
    client = aws.sagemaker
    arn = client.describe_model_package_group(ModelPackageGroupName=group)["ModelPackageGroupArn"]
    client.put_model_package_group_policy(ModelPackageGroupName=group, ResourcePolicy="{}")
    policy = client.get_model_package_group_policy(ModelPackageGroupName=group)
    assert policy["ResourcePolicy"] == "{}"
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "l", "Value": "w"}])
    client.delete_tags(ResourceArn=arn, TagKeys=["k"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "l", "Value": "w"}]


def test_tags_of_what_the_sandbox_does_not_keep_are_refused_by_name(aws: World) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:experiment/e"
    with pytest.raises(ClientError, match=f"does not implement sagemaker tags of {arn}"):
        aws.sagemaker.list_tags(ResourceArn=arn)


def test_tags_of_what_moto_answers_still_work(aws: World) -> None:
    arn = aws.sagemaker.create_domain(
        DomainName="d",
        AuthMode="IAM",
        DefaultUserSettings={"ExecutionRole": ROLE},
        SubnetIds=["subnet-1"],
        VpcId="vpc-1",
        Tags=[],
    )["DomainArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    tags = aws.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "a", "Value": "b"}]


def test_a_version_of_no_group_is_refused(aws: World) -> None:
    with pytest.raises(ClientError, match="Model Package Group does not exist") as caught:
        add(aws, "nope")
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_a_package_without_a_group_is_refused_by_name(aws: World) -> None:
    with pytest.raises(ClientError, match="does not implement sagemaker:CreateModelPackage with"):
        aws.sagemaker.create_model_package(ModelPackageName="alone")
    with pytest.raises(ClientError, match="does not implement sagemaker:ListModelPackages with"):
        aws.sagemaker.list_model_packages()


def test_versions_registered_at_the_same_time_get_different_numbers(aws: World, group: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add(aws, group), range(16)))
    assert versions(aws, group, MaxResults=100) == list(range(1, 17))
