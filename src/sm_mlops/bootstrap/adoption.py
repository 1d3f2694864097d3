"""A bucket that is older than the platform becomes the platform's, with all its objects.

CloudFormation imports a resource as it is and assumes the template's properties. So the stack
begins with the bucket's name alone, and its next update sets the other properties.
"""

from __future__ import annotations

import json

from rich.console import Console

from sm_mlops import stacks
from sm_mlops.aws import Aws, ignoring
from sm_mlops.errors import MlopsError

LOGICAL, KIND = "ArtifactBucket", "AWS::S3::Bucket"


def exists(aws: Aws, bucket: str) -> bool:
    """Return whether the bucket exists. Raise MlopsError if it belongs to someone else."""
    # The answer to HEAD has no body, so the code is the status.
    with ignoring("404", "NoSuchBucket"):
        with ignoring("403", "301"):
            aws.s3.head_bucket(Bucket=bucket)
            return True
        raise MlopsError(
            f"the bucket {bucket} belongs to another account or region, or you have no access to "
            "it: choose another name with --platform BucketName=... and aws.bucket in mlops.yaml"
        )
    return False


def require_without_policy(aws: Aws, bucket: str) -> None:
    """Raise MlopsError if the bucket has a policy: CloudFormation creates none beside it, and the
    platform's would replace it."""
    with ignoring("NoSuchBucketPolicy"):
        found = json.loads(aws.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
        names = ", ".join(item.get("Sid") or f"{item['Effect']} without a Sid" for item in found)
        raise MlopsError(
            f"the bucket {bucket} has a policy that the platform's would replace ({names}): delete "
            f"it with aws s3api delete-bucket-policy --bucket {bucket}, or choose another name "
            "with --platform BucketName=... and aws.bucket in mlops.yaml"
        )


def adopt(aws: Aws, stack: str, bucket: str, console: Console) -> None:
    """Create the stack from this bucket. Raise MlopsError.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources.html
    """
    name = {"BucketName": bucket}
    resource = {"Type": KIND, "DeletionPolicy": "Delete", "Properties": name}
    imported = {"ResourceType": KIND, "LogicalResourceId": LOGICAL, "ResourceIdentifier": name}
    template = json.dumps({"Resources": {LOGICAL: resource}})
    stacks.deploy(aws, stack, template, {}, {}, (), console, imports=(imported,))
