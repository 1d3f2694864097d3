"""A bucket that is older than the platform becomes the platform's, with all its objects.

CloudFormation imports a resource as it is and assumes the template's properties. So the stack
begins with the bucket's name alone, and its next update sets the other properties.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.console import Console

from sm_mlops import stacks
from sm_mlops.aws import Aws, ignoring
from sm_mlops.errors import MlopsError

LOGICAL, KIND = "ArtifactBucket", "AWS::S3::Bucket"
# Settings that the template sets as a whole: the operation that reads them, their member in its
# answer, the member that names one of them, and the error if there are none.
SETTINGS = (
    ("lifecycle rule", "lifecycle_configuration", "Rules", "ID", "NoSuchLifecycleConfiguration"),
    ("CORS rule", "cors", "CORSRules", "AllowedOrigins", "NoSuchCORSConfiguration"),
    ("tag", "tagging", "TagSet", "Key", "NoSuchTagSet"),
)
NO_ENCRYPTION = "ServerSideEncryptionConfigurationNotFoundError"


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


def require_plain(aws: Aws, bucket: str) -> None:
    """Raise MlopsError if the bucket has settings: CloudFormation would replace them silently."""
    if others := sorted({f"{kind} {name}" for kind, name in _settings(aws, bucket)}):
        raise MlopsError(
            f"the bucket {bucket} has settings that the platform's would replace "
            f"({', '.join(others)}): remove them, or choose another name with --platform "
            "BucketName=... and aws.bucket in mlops.yaml"
        )


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


def _settings(aws: Aws, bucket: str) -> Iterator[tuple[str, str]]:
    """Yield kind and name of what was set for the bucket, without S3's defaults and AWS's tags."""
    for kind, setting, member, key, absent in SETTINGS:
        with ignoring(absent):
            for item in getattr(aws.s3, f"get_bucket_{setting}")(Bucket=bucket)[member]:
                names = item.get(key) or "without an ID"
                for name in [names] if isinstance(names, str) else names:
                    if not name.startswith("aws:"):
                        yield kind, name
    with ignoring(NO_ENCRYPTION):
        found = aws.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        for rule in found["Rules"]:
            name = rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]
            if name != "AES256":
                yield "encryption", name


def adopt(aws: Aws, stack: str, bucket: str, console: Console) -> None:
    """Create the stack from this bucket. Raise MlopsError.

    Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources.html
    """
    name = {"BucketName": bucket}
    resource = {"Type": KIND, "DeletionPolicy": "Delete", "Properties": name}
    imported = {"ResourceType": KIND, "LogicalResourceId": LOGICAL, "ResourceIdentifier": name}
    template = json.dumps({"Resources": {LOGICAL: resource}})
    stacks.deploy(aws, stack, template, {}, {}, (), console, imports=(imported,))
