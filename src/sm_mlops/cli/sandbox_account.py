"""Accounts of the sandbox: what `mlops run` needs there before bootstrap, and temporary ones.

The platform and the project replace the provisional artifact bucket and pipeline role.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sm_mlops.aws import NO_OBJECT, Aws, exists, ignoring
from sm_mlops.bootstrap import provisional
from sm_mlops.settings import Settings

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
# For an account on this machine that has nothing else.
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
        arn = aws.settings.role_arn(aws.account)
        path = arn.partition(":role")[2].removesuffix(name)
        iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=trust, Tags=tags)
        iam.put_role_policy(
            RoleName=name, PolicyName=provisional.POLICY, PolicyDocument=json.dumps(EVERYTHING)
        )


def apply(environment: dict[str, str]) -> None:
    """Set these variables for this process; an empty value removes one."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@contextmanager
def temporary(work: Path, region: str) -> Iterator[Callable[[Settings], Aws]]:
    """Run a sandbox in the folder `work`; yield a function that returns its account for a repo.

    Restores the environment of this process afterwards.
    """
    from sm_mlops import sandbox

    def account(settings: Settings) -> Aws:
        aws = Aws(settings, sandbox=True)
        prepare(aws)
        return aws

    before = dict(os.environ)
    try:
        with sandbox.connect(work, region) as environment:
            apply(environment)
            yield account
    finally:
        sandbox.stop(work)
        os.environ.clear()
        os.environ.update(before)


def _has_bucket(aws: Aws) -> bool:
    with ignoring(*NO_OBJECT, "NoSuchBucket"):
        aws.s3.head_bucket(Bucket=aws.bucket)
        return True
    return False
