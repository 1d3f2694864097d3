"""A version that cannot serve, for the tour of `mlops sandbox demo`."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from sm_mlops import registry
from sm_mlops.aws import Aws
from sm_mlops.registry import Version

# The parameters of CreateModelPackage among the fields of DescribeModelPackage.
_REGISTERED = (
    "ModelPackageGroupName",
    "InferenceSpecification",
    "MetadataProperties",
    "CustomerMetadataProperties",
    "ModelMetrics",
    "SamplePayloadUrl",
    "Domain",
    "Task",
)
BROKEN = b'''"""Shows a deployment that fails."""


def model_fn(model_dir):
    raise RuntimeError("this inference.py cannot load its model")
'''


def register_broken_copy(aws: Aws, of: Version, archive: bytes = b"") -> Version:
    """Register a copy of a version, pending approval, whose model.tar.gz is `archive`.

    By default it has an inference.py that raises.
    """
    package: dict[str, Any] = dict(aws.sagemaker.describe_model_package(ModelPackageName=of.arn))
    container = package["InferenceSpecification"]["Containers"][0]
    broken = f"{aws.settings.prefix}/demo/broken/model.tar.gz"
    aws.s3.put_object(Bucket=aws.bucket, Key=broken, Body=archive or _archive())
    container["ModelDataUrl"] = f"s3://{aws.bucket}/{broken}"
    arn = aws.sagemaker.create_model_package(
        ModelPackageDescription=f"Version {of.version} with an inference.py that raises",
        ModelApprovalStatus="PendingManualApproval",
        **{name: package[name] for name in _REGISTERED if name in package},
    )["ModelPackageArn"]
    return registry.version(aws, int(arn.rpartition("/")[2]))


def _archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(BROKEN)
        tar.addfile(member, io.BytesIO(BROKEN))
    return packed.getvalue()
