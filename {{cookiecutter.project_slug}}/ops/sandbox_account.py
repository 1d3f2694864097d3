"""Prepares a fresh sandbox account: the artifact bucket and the role of the pipeline."""

from __future__ import annotations

import json

from ops.aws import Aws, error_code


def prepare(aws: Aws) -> None:
    """Creates what is missing; does nothing the second time."""
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
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    iam = aws.client("iam")
    name = aws.settings.role_arn(aws.account).rpartition("/")[2]
    try:
        iam.get_role(RoleName=name)
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
