"""The permissions that a request to S3 needs, by its method, path and query.

Source:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

from sm_mlops.sandbox import replies
from sm_mlops.sandbox.iam import resources
from sm_mlops.sandbox.iam.actions import Check
from sm_mlops.sandbox.policy_language import Value

# Settings of a bucket, by the word in the query: actions for reading, writing and deleting.
SETTINGS = {
    "cors": ("GetBucketCORS", "PutBucketCORS", "PutBucketCORS"),
    "encryption": ("GetEncryptionConfiguration", *["PutEncryptionConfiguration"] * 2),
    "lifecycle": ("GetLifecycleConfiguration", *["PutLifecycleConfiguration"] * 2),
    "location": ("GetBucketLocation", "", ""),
    "ownershipControls": ("GetBucketOwnershipControls", *["PutBucketOwnershipControls"] * 2),
    "policy": ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"),
    "publicAccessBlock": ("GetBucketPublicAccessBlock", *["PutBucketPublicAccessBlock"] * 2),
    "tagging": ("GetBucketTagging", "PutBucketTagging", "PutBucketTagging"),
    "uploads": ("ListBucketMultipartUploads", "", ""),
    "versioning": ("GetBucketVersioning", "PutBucketVersioning", ""),
    "versions": ("ListBucketVersions", "", ""),
}
OBJECT_SETTINGS = {"tagging": ("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging")}
# What says more about a listing, an object or an upload; any other word of a query is unknown.
DETAILS = {
    *("continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker"),
    *("list-type", "marker", "max-keys", "prefix", "start-after", "version-id-marker"),
    *("delete", "partNumber", "uploadId", "uploads", "versionId", "x-id"),
}
# The same for a version that is named.
OF_VERSIONS = re.compile(r"(?<=Object)(?=$|Tagging$)")
# Whether S3 checks as if a missing key were listed (https://github.com/ceph/ceph/pull/68577), or
# without a prefix: public sources disagree.
AS_LISTED = True
VERBS = {"GET": 0, "HEAD": 0, "PUT": 1, "POST": 1, "DELETE": 2}


def place(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Return bucket and key of a request."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"]
    bucket, _, key = unquote(str(raw).partition("?")[0]).lstrip("/").partition("/")
    return bucket, key


def checks(environ: dict[str, Any], partition: str) -> list[Check] | None:
    """Return what a request needs, None for one that is unknown by its query; one that is unknown
    by its method needs an action that no policy allows."""
    bucket, key = place(environ)
    query = {
        name: values[0]
        for name, values in parse_qs(
            environ.get("QUERY_STRING", ""), keep_blank_values=True
        ).items()
    }
    if not bucket:
        return [Check("s3:ListAllMyBuckets", "*")]
    arn = f"arn:{partition}:s3:::{bucket}"
    if not set(query) <= {*DETAILS, *(OBJECT_SETTINGS if key else SETTINGS)}:
        return None
    facts: dict[str, Value] = {"s3:prefix": query.get("prefix")}
    if key:
        return _of_object(environ, query, arn, key, facts)
    return _of_bucket(environ, query, arn, facts)


def _of_bucket(
    environ: dict[str, Any], query: Mapping[str, str], arn: str, facts: dict[str, Value]
) -> list[Check]:
    method = environ["REQUEST_METHOD"]
    if method == "POST" and "delete" in query:
        return [
            Check("s3:DeleteObjectVersion" if version else "s3:DeleteObject", f"{arn}/{key}", facts)
            for key, version in _to_delete(environ)
        ]
    word = next((name for name in SETTINGS if name in query), None)
    if word is not None:
        action = SETTINGS[word][VERBS[method]] if method in VERBS else ""
        return [Check(f"s3:{action or 'Unknown'}", arn, facts)]
    action = {
        "GET": "ListBucket",
        "HEAD": "ListBucket",
        "PUT": "CreateBucket",
        "DELETE": "DeleteBucket",
        "POST": "PutObject",
    }.get(method, "Unknown")
    return [Check(f"s3:{action}", f"{arn}/*" if method == "POST" else arn, facts)]


def _of_object(
    environ: dict[str, Any], query: Mapping[str, str], arn: str, key: str, facts: dict[str, Value]
) -> list[Check]:
    method, target = environ["REQUEST_METHOD"], f"{arn}/{key}"

    def one(action: str) -> Check:
        if "versionId" in query:
            action = OF_VERSIONS.sub("Version", action)
        return Check(f"s3:{action}", target, facts)

    word = next((name for name in OBJECT_SETTINGS if name in query), None)
    if word is not None:
        action = OBJECT_SETTINGS[word][VERBS[method]] if method in VERBS else ""
        return [one(action or "Unknown")]
    if "uploadId" in query and method in ("GET", "DELETE"):
        return [one("ListMultipartUploadParts" if method == "GET" else "AbortMultipartUpload")]
    if method in ("GET", "HEAD"):
        return _reading(one("GetObject"), arn, key, query.get("versionId"))
    if method == "DELETE":
        return [one("DeleteObject")]
    if method not in ("PUT", "POST"):
        return [one("Unknown")]
    found = [one("PutObject")]
    if "HTTP_X_AMZ_TAGGING" in environ:
        found.append(one("PutObjectTagging"))
    if environ.get("HTTP_X_AMZ_ACL", "private") != "private":
        found.append(one("PutObjectAcl"))
    source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).lstrip("/").partition("?")[0]
    if source:
        bucket, _, name = source.partition("/")
        base = f"{arn.rpartition(':')[0]}:{bucket}"
        found += _reading(Check("s3:GetObject", f"{base}/{name}", facts), base, name, None)
    return [*found, *_encrypting(environ, arn)]


def _reading(check: Check, arn: str, key: str, version: str | None) -> list[Check]:
    """Return what reading needs; only a caller who may list sees that an object is missing."""
    bucket = arn.rpartition(":")[2]
    found = resources.s3_object(bucket, key, version)
    if found is None:
        if resources.bucket(bucket) is None:
            return [check]
        prefix: dict[str, Value] = {"s3:prefix": key} if AS_LISTED else {}
        return [check, Check("s3:ListBucket", arn, prefix, shown=check.resource)]
    encrypted = getattr(found, "kms_key_id", None)
    return [check, *_using_key(encrypted, "kms:Decrypt", arn)]


def _encrypting(environ: Mapping[str, Any], arn: str) -> list[Check]:
    key = environ.get("HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_AWS_KMS_KEY_ID")
    return _using_key(key, "kms:GenerateDataKey", arn)


def _using_key(key: Any, action: str, arn: str) -> list[Check]:
    if not key or ":alias/aws/" in str(key) or not str(key).startswith("arn:"):
        return []  # AWS's own keys are open to the whole account.
    region = str(key).split(":")[3]
    return [Check(action, str(key), {"kms:ViaService": f"s3.{region}.amazonaws.com"})]


def _to_delete(environ: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        found = ElementTree.fromstring(replies.read(environ))  # nosec B314 # signed request
    except ElementTree.ParseError:
        return []

    def text(item: ElementTree.Element, name: str) -> str:
        return next((c.text or "" for c in item if c.tag.rpartition("}")[2] == name), "")

    rows = [item for item in found if item.tag.rpartition("}")[2] == "Object"]
    return [(text(item, "Key"), text(item, "VersionId")) for item in rows]
