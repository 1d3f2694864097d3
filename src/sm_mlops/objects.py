"""Objects in S3: read one, list those below a prefix, and take away all their versions.

Must not know what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sm_mlops.aws import Aws, error_code, split_s3
from sm_mlops.errors import MlopsError

# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
AT_ONCE = 1000


def read(aws: Aws, uri: str) -> bytes:
    bucket, key = split_s3(uri)
    content: bytes = aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def listed(aws: Aws, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    for page in aws.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", ())


def versions(aws: Aws, bucket: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """All versions of all objects, and the marks of their deletion: a bucket that keeps old ones
    bills them as well. Nothing where there is no such bucket."""
    from botocore.exceptions import ClientError

    pages = aws.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    try:
        for page in pages:
            yield from page.get("Versions", ())
            yield from page.get("DeleteMarkers", ())
    except ClientError as error:
        if error_code(error) != "NoSuchBucket":
            raise


def delete_versions(aws: Aws, bucket: str, prefix: str = "") -> int:
    """Takes away every version of every object; returns how many. Raises MlopsError."""
    found = list(versions(aws, bucket, prefix))
    for some in _batches(found):
        rows = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in some]
        answer = aws.s3.delete_objects(Bucket=bucket, Delete={"Objects": rows, "Quiet": True})
        for problem in answer.get("Errors", ()):
            raise MlopsError(f"cannot delete {problem['Key']}: {problem['Message']}")
    return len(found)


def _batches(found: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(found), AT_ONCE):
        yield found[start : start + AT_ONCE]
