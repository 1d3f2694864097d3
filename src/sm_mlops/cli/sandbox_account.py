"""What `mlops run` needs in a sandbox account before bootstrap: a provisional artifact bucket and
pipeline role. The platform and the project replace them.
"""

from __future__ import annotations

import json

from sm_mlops.aws import NO_OBJECT, Aws, exists, ignoring
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
    iam, name = aws.client("iam"), provisional.role_name(aws)
    if not exists(iam.get_role, RoleName=name):
        trust, tags = json.dumps(TRUST), [provisional.MARK]
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=tags)
        iam.put_role_policy(
            RoleName=name, PolicyName=provisional.POLICY, PolicyDocument=json.dumps(EVERYTHING)
        )


def _has_bucket(aws: Aws) -> bool:
    with ignoring(*NO_OBJECT, "NoSuchBucket"):
        aws.s3.head_bucket(Bucket=aws.bucket)
        return True
    return False
