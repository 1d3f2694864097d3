"""What a sandbox account needs before the repo is connected: a provisional artifact bucket and a
provisional role of the pipeline, which platform and project take the place of.
"""

from __future__ import annotations

import json

from sm_mlops.aws import Aws, error_code, exists
from sm_mlops.bootstrap import provisional

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
    iam, name = aws.client("iam"), provisional.role_name(aws)
    if not exists(iam.get_role, RoleName=name):
        iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(TRUST),
            Tags=[provisional.MARK],
        )
        iam.put_role_policy(
            RoleName=name, PolicyName=provisional.POLICY, PolicyDocument=json.dumps(EVERYTHING)
        )
