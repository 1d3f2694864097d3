"""What `mlops run` needs in a sandbox account before bootstrap: a provisional artifact bucket and
pipeline role. The platform and the project replace them.
"""

from __future__ import annotations

import json
from typing import Any

from sm_mlops.aws import NO_OBJECT, Aws, ignoring

MARK = {"Key": "sandbox", "Value": "provisional"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
# In an account that is on this machine and holds nothing else.
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def prepare(aws: Aws) -> None:
    """Create what is missing; nothing if the platform and the project exist."""
    if not _has_bucket(aws):
        region = aws.settings.project.region
        # us-east-1 is S3's default and must not be named.
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        aws.s3.create_bucket(Bucket=aws.bucket, **({} if region == "us-east-1" else place))
    if _role(aws) is None:
        iam, name = aws.client("iam"), _name(aws)
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST), Tags=[MARK])
        iam.put_role_policy(
            RoleName=name, PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING)
        )


def is_provisional(aws: Aws) -> bool:
    """Return whether the pipeline's role is the one that `prepare` creates."""
    return MARK in (_role(aws) or {}).get("Tags", [])


def free_name(aws: Aws) -> None:
    """Delete the provisional role: the project creates one of that name."""
    if not is_provisional(aws):
        return
    iam, name = aws.client("iam"), _name(aws)
    with ignoring("NoSuchEntity"):
        iam.delete_role_policy(RoleName=name, PolicyName="everything")
    iam.delete_role(RoleName=name)


def _has_bucket(aws: Aws) -> bool:
    with ignoring(*NO_OBJECT, "NoSuchBucket"):
        aws.s3.head_bucket(Bucket=aws.bucket)
        return True
    return False


def _name(aws: Aws) -> str:
    return aws.settings.role_arn(aws.account).rpartition("/")[2]


def _role(aws: Aws) -> dict[str, Any] | None:
    with ignoring("NoSuchEntity"):
        found: dict[str, Any] = aws.client("iam").get_role(RoleName=_name(aws))["Role"]
        return found
    return None
