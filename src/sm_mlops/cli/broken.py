"""A version that cannot serve, for the tour of `mlops sandbox demo`."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

from sm_mlops import objects, registry
from sm_mlops.aws import Aws
from sm_mlops.registry import Version

# Of what the registry says about a version, what it is created with.
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
BROKEN = '''"""Replaces the real inference.py, to show a deployment that fails."""


def model_fn(model_dir):
    raise RuntimeError("this inference.py cannot load its model")
'''


def register_broken_copy(aws: Aws, of: Version) -> Version:
    """Register a copy of a version, pending approval, whose inference.py raises in model_fn."""
    package: dict[str, Any] = dict(aws.sagemaker.describe_model_package(ModelPackageName=of.arn))
    container = package["InferenceSpecification"]["Containers"][0]
    archive = objects.read(aws, container["ModelDataUrl"])
    broken = f"{aws.settings.prefix}/demo/broken/model.tar.gz"
    aws.s3.put_object(Bucket=aws.bucket, Key=broken, Body=_with_broken_code(archive))
    container["ModelDataUrl"] = f"s3://{aws.bucket}/{broken}"
    arn = aws.sagemaker.create_model_package(
        ModelPackageDescription=f"Version {of.version} with an inference.py that raises",
        ModelApprovalStatus="PendingManualApproval",
        **{name: package[name] for name in _REGISTERED if name in package},
    )["ModelPackageArn"]
    return registry.version(aws, int(arn.rpartition("/")[2]))


def _with_broken_code(archive: bytes) -> bytes:
    """Return the same model.tar.gz with another code/inference.py."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as target,
    ):
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            body = content.read() if content else b""
            if member.name.removeprefix("./") == "code/inference.py":
                body = BROKEN.encode()
                member.size = len(body)
            target.addfile(member, io.BytesIO(body) if member.isfile() else None)
    return packed.getvalue()
