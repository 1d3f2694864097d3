"""A bucket that was made before the platform becomes the platform's, with all that is in it.

CloudFormation imports a resource as it is and believes the template's properties to be there. So
the stack begins with the bucket's name alone; its next update then really sets the rest.
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
    """Raises MlopsError when the name is somebody else's."""
    from botocore.exceptions import ClientError

    try:
        aws.s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        # An answer to HEAD has no body that could name the error.
        code = error_code(error)
        if code in ("404", "NoSuchBucket"):
            return False
        if code not in ("403", "301"):
            raise
        raise MlopsError(
            f"the bucket {bucket} is another account's or another region's, or may not be seen "
            "from here: name another one with --platform BucketName=..., and as aws.bucket in "
            "mlops.yaml"
        ) from error
    return True


def adopt(aws: Aws, stack: str, bucket: str, console: Console) -> None:
    """Makes the stack of this bucket. Raises MlopsError.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources.html
    """
    from botocore.exceptions import ClientError, WaiterError

    formation = aws.client("cloudformation")
    content = {
        "Resources": {
            LOGICAL: {
                "Type": "AWS::S3::Bucket",
                "DeletionPolicy": "Delete",
                "Properties": {"BucketName": bucket},
            }
        }
    }
    resource = {
        "ResourceType": "AWS::S3::Bucket",
        "LogicalResourceId": LOGICAL,
        "ResourceIdentifier": {"BucketName": bucket},
    }
    # Asked for twice, because the first answer got lost, it is made once.
    token = f"mlops-{secrets.token_hex(6)}"
    try:
        arn = formation.create_change_set(
            StackName=stack,
            ChangeSetName=token,
            ClientToken=token,
            ChangeSetType="IMPORT",
            TemplateBody=json.dumps(content),
            ResourcesToImport=[resource],
        )["Id"]
    except ClientError as error:
        if error_code(error) != "ValidationError":
            raise
        why = error.response["Error"]["Message"]
        raise MlopsError(f"the bucket {bucket} cannot become the platform's: {why}") from error
    # Computed within a second; the waiter's own pause is half a minute.
    try:
        formation.get_waiter("change_set_create_complete").wait(
            ChangeSetName=arn, WaiterConfig={"Delay": 1 if not aws.sandbox else 0.1}
        )
    except WaiterError as error:
        reason = error.last_response.get("StatusReason", str(error))
        formation.delete_change_set(ChangeSetName=arn)
        raise MlopsError(f"the bucket {bucket} cannot become the platform's: {reason}") from error
    since = stacks.newest_event(aws, stack)
    formation.execute_change_set(ChangeSetName=arn, ClientRequestToken=token)
    began = stacks.describe(aws, stack)
    assert began is not None
    ended, events = stacks.follow(aws, began, since, console, must_begin=True)
    if ended.status != "IMPORT_COMPLETE":
        why = next((event.reason for event in events if event.failed), ended.reason)
        raise MlopsError(f"the bucket {bucket} cannot become the platform's: {why}")
