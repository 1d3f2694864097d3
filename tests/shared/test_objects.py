"""Objects that may be missing, for a role that may list its own prefix only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap_case import ACCOUNT, BUCKET, REGION, land
from sm_mlops import objects, registry
from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox.iam import objects as sandbox_objects

pytestmark = pytest.mark.slow

HERE = f"s3://{BUCKET}/churn"


@pytest.fixture(params=[True, False], ids=["as listed", "without a prefix"])
def reader(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Aws]:
    """Yield the account as a role of a project sees it; S3 checks a missing key in either way."""
    monkeypatch.setattr(sandbox_objects, "AS_LISTED", request.param)
    with land(tmp_path, monkeypatch) as found:
        s3, iam = found.aws.s3, found.aws.client("iam")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key="churn/model.tar.gz.more", Body=b"more")
        s3.put_object(Bucket=BUCKET, Key="churn/there", Body=b"1")
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "sts:AssumeRole",
        }
        version = "2012-10-17"
        role = iam.create_role(
            RoleName="reader",
            AssumeRolePolicyDocument=json.dumps({"Version": version, "Statement": trust}),
        )["Role"]
        listing = {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "*",
            "Condition": {"StringLike": {"s3:prefix": "churn/*"}},
        }
        reading = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
        policy = json.dumps({"Version": version, "Statement": [listing, reading]})
        iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=policy)
        yield found.aws.as_role(role["Arn"])


def test_a_missing_object_is_missing_and_not_forbidden(reader: Aws, tmp_path: Path) -> None:
    assert objects.find(reader, f"{HERE}/model.tar.gz") is None
    assert objects.find(reader, f"{HERE}/there") == b"1"
    with pytest.raises(MlopsError, match="does not exist"):
        registry.download(reader, f"{HERE}/report.html", tmp_path / "report.html")
