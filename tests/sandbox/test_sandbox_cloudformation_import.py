"""Change sets of type IMPORT: a bucket that is there becomes a stack's, as it is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloudformation_cases import Deployer, new_name, resource, secret
from sandbox_cases import REGION
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("import"), "eu-west-1") as server:
        yield server


@pytest.fixture
def aws(server: Server) -> Deployer:
    return Deployer(server.environment())


@pytest.fixture
def bucket(aws: Deployer) -> str:
    name = f"mine-{uuid.uuid4().hex[:8]}"
    aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.s3.put_object(Bucket=name, Key="kept", Body=b"x")
    return name


def template(bucket: str, **properties: Any) -> dict[str, Any]:
    made = resource("S3::Bucket", BucketName=bucket, **properties)
    return {"Resources": {"Bucket": {**made, "DeletionPolicy": "Delete"}}}


def wanted(bucket: str) -> dict[str, Any]:
    row = {
        "ResourceType": "AWS::S3::Bucket",
        "LogicalResourceId": "Bucket",
        "ResourceIdentifier": {"BucketName": bucket},
    }
    return {"ChangeSetType": "IMPORT", "ResourcesToImport": [row]}


def bring(aws: Deployer, name: str, bucket: str, **properties: Any) -> dict[str, Any]:
    found = aws.change(name, template(bucket, **properties), **wanted(bucket))
    assert found["Status"] == "CREATE_COMPLETE", found["StatusReason"]
    [change] = found["Changes"]
    assert change["ResourceChange"]["Action"] == "Import"
    aws.cfn.execute_change_set(ChangeSetName=found["ChangeSetId"])
    return aws.settled(name)


def test_a_bucket_is_imported_into_a_new_stack_with_its_objects(aws: Deployer, bucket: str) -> None:
    name = new_name()
    assert bring(aws, name, bucket)["StackStatus"] == "IMPORT_COMPLETE"
    assert aws.physical(name) == {"Bucket": bucket}
    assert aws.events(name) == [
        f"{name} REVIEW_IN_PROGRESS",
        f"{name} IMPORT_IN_PROGRESS",
        "Bucket IMPORT_IN_PROGRESS",
        "Bucket IMPORT_COMPLETE",
        f"{name} IMPORT_COMPLETE",
    ]
    assert aws.read(f"s3://{bucket}/kept") == b"x"


def test_an_import_changes_nothing_of_the_bucket_and_the_next_update_does(
    aws: Deployer, bucket: str
) -> None:
    name, versions = new_name(), {"VersioningConfiguration": {"Status": "Enabled"}}
    bring(aws, name, bucket)
    updated = aws.update(name, template(bucket, **versions))
    assert updated["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    # Believed to be so from the import on, and so never done.
    other, believed = f"{bucket}-b", new_name()
    aws.s3.create_bucket(Bucket=other, CreateBucketConfiguration={"LocationConstraint": REGION})
    bring(aws, believed, other, **versions)
    with pytest.raises(ClientError, match="No updates"):
        aws.update(believed, template(other, **versions))
    assert "Status" not in aws.s3.get_bucket_versioning(Bucket=other)


def test_an_imported_bucket_is_deleted_with_the_stack(aws: Deployer, bucket: str) -> None:
    name = new_name()
    bring(aws, name, bucket)
    aws.s3.delete_object(Bucket=bucket, Key="kept")
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="404"):
        aws.s3.head_bucket(Bucket=bucket)


def test_a_missing_bucket_leaves_the_stack_unchanged(aws: Deployer, bucket: str) -> None:
    name, absent = new_name(), f"absent-{uuid.uuid4().hex[:8]}"
    assert bring(aws, name, absent)["StackStatus"] == "IMPORT_ROLLBACK_COMPLETE"
    assert aws.physical(name) == {}
    assert "is missing" in aws.reasons(name, "IMPORT_FAILED")["Bucket"]
    assert bring(aws, name, bucket)["StackStatus"] == "IMPORT_COMPLETE"


def test_a_bucket_of_another_stack_cannot_be_taken_from_it(aws: Deployer, bucket: str) -> None:
    bring(aws, new_name(), bucket)
    with pytest.raises(ClientError, match="already exists in stack"):
        aws.change(new_name(), template(bucket), **wanted(bucket))


def test_nothing_else_is_done_in_an_import(aws: Deployer, bucket: str) -> None:
    content = template(bucket)
    content["Resources"]["New"] = secret("x")
    found = aws.change(new_name(), content, **wanted(bucket))
    assert found["Status"] == "FAILED"
    assert "[New]" in found["StatusReason"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t["Resources"]["Bucket"].pop("DeletionPolicy"), "DeletionPolicy"),
        (lambda t: t.update(Outputs={"A": {"Value": "b"}}), "Outputs"),
        (lambda t: t["Resources"].update(Bucket=secret("x")), "of type AWS::S3::Bucket"),
    ],
    ids=["policy", "outputs", "type"],
)
def test_what_cannot_be_imported_is_refused(
    aws: Deployer, bucket: str, change: Any, complaint: str
) -> None:
    content = template(bucket)
    change(content)
    with pytest.raises(ClientError, match=complaint):
        aws.change(new_name(), content, **wanted(bucket))
