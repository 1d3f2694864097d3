"""Objects in S3: read one, upload what differs, list and delete those below a prefix.

Neither a name nor a size says what an object holds: others may write to the bucket, too.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from sm_mlops.aws import DENIED, NO_OBJECT, Aws, ignoring, split_s3
from sm_mlops.errors import MlopsError

# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
BATCH = 1000
# Uploads of this size and more consist of several parts.
PART = 64 * 1024 * 1024


def exists(aws: Aws, uri: str) -> bool:
    """Return whether an object exists, or True to a caller who may not list.

    To one who may list a prefix only, S3 may report a missing object as forbidden.
    """
    with ignoring(*DENIED):
        return first(aws, uri, 1) == [split_s3(uri)[1]]
    return True


def first(aws: Aws, uri: str, most: int) -> list[str]:
    """Return keys that begin with the key of an address, in their order: itself first, if there."""
    bucket, key = split_s3(uri)
    found = aws.s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=most)
    return [item["Key"] for item in found.get("Contents", ())]


def find(aws: Aws, uri: str) -> bytes | None:
    """Return the content of an object, None if it does not exist."""
    with ignoring(*NO_OBJECT, "NoSuchBucket"):
        return read(aws, uri) if exists(aws, uri) else None
    return None


def read(aws: Aws, uri: str) -> bytes:
    bucket, key = split_s3(uri)
    return bytes(aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def put(aws: Aws, bucket: str, key: str, content: bytes, **more: str) -> None:
    """Upload an object, of which S3 checks and keeps the SHA-256."""
    aws.s3.put_object(Bucket=bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256", **more)


def upload(aws: Aws, bucket: str, key: str, file: Path, **more: str) -> None:
    """Upload a file of any size in the same way."""
    from boto3.s3.transfer import TransferConfig

    parts = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    arguments = {"ChecksumAlgorithm": "SHA256", **more}
    aws.s3.upload_file(str(file), bucket, key, ExtraArgs=arguments, Config=parts)


def encryption(key: str | None) -> dict[str, str]:
    """Return the arguments of an upload that is encrypted with this KMS key, if there is one."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes as AWS writes it, in base64."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def checksum(content: IO[bytes]) -> str:
    """Return the SHA-256 that S3 keeps of an upload in parts of `PART` bytes.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    parts, size = [], 0
    while part := content.read(PART):
        parts.append(hashlib.sha256(part).digest())
        size += len(part)
    if size < PART:
        return base64.b64encode(parts[0] if parts else hashlib.sha256().digest()).decode()
    return f"{sha256(b''.join(parts))}-{len(parts)}"


def has(aws: Aws, bucket: str, key: str, content: IO[bytes]) -> bool:
    """Return whether an object that exists holds exactly this content.

    S3 computes the checksum itself; an object uploaded without one is read.
    """
    found = aws.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    there = found.get("ChecksumSHA256")
    if there is None:
        there = checksum(aws.s3.get_object(Bucket=bucket, Key=key)["Body"])
    return bool(there == checksum(content))


def listed(aws: Aws, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    return aws.pages("list_objects_v2", "Contents", "s3", Bucket=bucket, Prefix=prefix)


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
