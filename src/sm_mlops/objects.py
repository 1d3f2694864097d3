"""Objects in S3: read one, list those below a prefix, delete all versions of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sm_mlops.aws import Aws, ignoring, split_s3
from sm_mlops.errors import MlopsError

# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
BATCH = 1000


def read(aws: Aws, uri: str) -> bytes:
    bucket, key = split_s3(uri)
    return bytes(aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def listed(aws: Aws, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    for page in aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", ())


def versions(aws: Aws, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield all versions of objects, and delete markers: a versioned bucket bills them, too.

    Yield nothing if the bucket does not exist.
    """
    pages = aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    with ignoring("NoSuchBucket"):
        for page in pages:
            yield from page.get("Versions", ())
            yield from page.get("DeleteMarkers", ())


def delete_versions(aws: Aws, bucket: str, prefix: str = "") -> int:
    """Delete every version of every object; return how many. Raises MlopsError."""
    found = list(versions(aws, bucket, prefix))
    for start in range(0, len(found), BATCH):
        rows = [
            {"Key": item["Key"], "VersionId": item["VersionId"]}
            for item in found[start : start + BATCH]
        ]
        answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": rows, "Quiet": True})
        for problem in answer.get("Errors", ()):
            raise MlopsError(f"cannot delete {problem['Key']}: {problem['Message']}")
    return len(found)
