"""What a sandbox account needs before the repo is connected: a provisional artifact bucket and a
provisional role of the pipeline, which platform and project take the place of.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from sm_mlops.aws import Aws, error_code

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
# Of this account, which is on this machine and holds nothing else.
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def prepare(aws: Aws) -> None:
    """Creates what is missing; does nothing the second time, nor where platform and project are."""
    from botocore.exceptions import ClientError

    region = aws.settings.project.region
    # us-east-1 is S3's default and refuses to be named.
    where = (
        {}
        if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    try:
        aws.s3.head_bucket(Bucket=aws.bucket)
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchBucket"):
            raise
        aws.s3.create_bucket(Bucket=aws.bucket, **where)
    if _role(aws) is None:
        iam, name = aws.client("iam"), _name(aws)
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST), Tags=[MARK])
        iam.put_role_policy(
            RoleName=name, PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING)
        )


def is_provisional(aws: Aws) -> bool:
    """Whether the pipeline's role is the one that `prepare` has made."""
    return MARK in (_role(aws) or {}).get("Tags", [])


def make_way(aws: Aws) -> None:
    """Removes the provisional role, for the project's own of that name."""
    if not is_provisional(aws):
        return
    iam, name = aws.client("iam"), _name(aws)
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.delete_role_policy(RoleName=name, PolicyName="everything")
    iam.delete_role(RoleName=name)


def _name(aws: Aws) -> str:
    return aws.settings.role_arn(aws.account).rpartition("/")[2]


def _role(aws: Aws) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        found: dict[str, Any] = aws.client("iam").get_role(RoleName=_name(aws))["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        return None
    return found
