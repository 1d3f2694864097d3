"""A bucket that is older than the platform becomes the platform's, with all its objects.

CloudFormation imports a resource as it is and assumes the template's properties. So the stack
begins with the bucket's name alone, and its next update really sets the rest.
"""

from __future__ import annotations

import json
import secrets

from rich.console import Console

from sm_mlops import stacks
from sm_mlops.aws import Aws, error_code
from sm_mlops.errors import MlopsError

LOGICAL = "ArtifactBucket"


def exists(aws: Aws, bucket: str) -> bool:
    """Return whether there is a bucket of this name. Raise MlopsError if it is somebody else's."""
    from botocore.exceptions import ClientError

    try:
        aws.s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        # The answer to HEAD has no body, so the code is the status.
        code = error_code(error)
        if code in ("404", "NoSuchBucket"):
            return False
        if code not in ("403", "301"):
            raise
        raise MlopsError(
            f"the bucket {bucket} belongs to another account or region, or you may not see it: "
            "choose another name with --platform BucketName=... and aws.bucket in mlops.yaml"
        ) from error
    return True


def adopt(aws: Aws, stack: str, bucket: str, console: Console) -> None:
    """Create the stack from this bucket. Raise MlopsError.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources.html
    """
    from botocore.exceptions import ClientError, WaiterError

    formation = aws.client("cloudformation")
    refusal = f"CloudFormation cannot import the bucket {bucket}"
    imported = {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Delete",
        "Properties": {"BucketName": bucket},
    }
    resource = {
        "ResourceType": "AWS::S3::Bucket",
        "LogicalResourceId": LOGICAL,
        "ResourceIdentifier": {"BucketName": bucket},
    }
    # The token makes a repeated request harmless after a lost answer.
    token = f"mlops-{secrets.token_hex(6)}"
    try:
        arn = formation.create_change_set(
            StackName=stack,
            ChangeSetName=token,
            ClientToken=token,
            ChangeSetType="IMPORT",
            TemplateBody=json.dumps({"Resources": {LOGICAL: imported}}),
            ResourcesToImport=[resource],
        )["Id"]
    except ClientError as error:
        if error_code(error) != "ValidationError":
            raise
        raise MlopsError(f"{refusal}: {error.response['Error']['Message']}") from error
    # Ready within a second; the waiter's default delay is half a minute.
    try:
        formation.get_waiter("change_set_create_complete").wait(
            ChangeSetName=arn, WaiterConfig={"Delay": 1 if not aws.sandbox else 0.1}
        )
    except WaiterError as error:
        reason = error.last_response.get("StatusReason", str(error))
        formation.delete_change_set(ChangeSetName=arn)
        raise MlopsError(f"{refusal}: {reason}") from error
    since = stacks.newest_event(aws, stack)
    formation.execute_change_set(ChangeSetName=arn, ClientRequestToken=token)
    began = stacks.describe(aws, stack)
    assert began is not None
    ended, events = stacks.follow(aws, began, since, console, must_begin=True)
    if ended.status != "IMPORT_COMPLETE":
        why = next((event.reason for event in events if event.failed), ended.reason)
        raise MlopsError(f"{refusal}: {why}")
