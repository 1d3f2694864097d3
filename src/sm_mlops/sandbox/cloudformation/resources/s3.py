"""S3 buckets as resources of stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, ResourceFailed
from sm_mlops.sandbox.cloudformation.expressions import Made


def _encryption(s3: Any, bucket: str, value: Any) -> None:
    rules = [
        {
            **calls.pick(rule, "BucketKeyEnabled"),
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
        }
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


_RULE = ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")


def _lifecycle(s3: Any, bucket: str, value: Any) -> None:
    rules = []
    for index, rule in enumerate(value["Rules"]):
        plain = {"Id", "Status", "Prefix", "ExpiredObjectDeleteMarker", "ExpirationInDays"}
        known = {*plain, *_RULE}
        calls.refuse("AWS::S3::Bucket LifecycleConfiguration", set(rule) - known)
        expires = calls.pick(rule, "ExpiredObjectDeleteMarker")
        expires |= {"Days": rule["ExpirationInDays"]} if "ExpirationInDays" in rule else {}
        rules.append(
            {
                "ID": rule.get("Id", f"rule-{index + 1}"),
                "Status": rule["Status"],
                "Filter": {"Prefix": rule.get("Prefix", "")},
                **calls.present(Expiration=expires),
                **calls.pick(rule, *_RULE),
            }
        )
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _cors(s3: Any, bucket: str, value: Any) -> None:
    for rule in value["CorsRules"]:
        known = {"AllowedHeaders", "AllowedMethods", "AllowedOrigins"}
        calls.refuse("AWS::S3::Bucket CorsConfiguration", set(rule) - known)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": value["CorsRules"]})


def _plain(operation: str, member: str) -> Callable[[Any, str, Any], None]:
    """Return a function that passes a property on as it is."""
    return lambda s3, bucket, value: getattr(s3, operation)(Bucket=bucket, **{member: value})


# Property: what applies it, and the operation that takes it away.
_BUCKET: dict[str, tuple[Callable[[Any, str, Any], None], str]] = {
    "BucketEncryption": (_encryption, "delete_bucket_encryption"),
    "CorsConfiguration": (_cors, "delete_bucket_cors"),
    "LifecycleConfiguration": (_lifecycle, "delete_bucket_lifecycle"),
    "OwnershipControls": (
        _plain("put_bucket_ownership_controls", "OwnershipControls"),
        "delete_bucket_ownership_controls",
    ),
    "PublicAccessBlockConfiguration": (
        _plain("put_public_access_block", "PublicAccessBlockConfiguration"),
        "delete_public_access_block",
    ),
    "VersioningConfiguration": (_plain("put_bucket_versioning", "VersioningConfiguration"), ""),
}


def _bucket_create(call: Call) -> Made:
    calls.only(call, *_BUCKET, "BucketName")
    s3 = call.client("s3")
    region = {} if call.region == "us-east-1" else {"LocationConstraint": call.region}
    s3.create_bucket(Bucket=call.name, **calls.present(CreateBucketConfiguration=region))
    call.made(call.name)
    return _bucket_apply(call, call.name)


def _bucket_update(call: Call) -> Made:
    calls.only(call, *_BUCKET, "BucketName")
    return _bucket_apply(call, call.physical)


def _bucket_apply(call: Call, bucket: str) -> Made:
    s3 = call.client("s3")
    for name, (put, remove) in _BUCKET.items():
        if not call.changed(name):
            continue
        if name in call.properties:
            put(s3, bucket, call.properties[name])
        elif remove:
            getattr(s3, remove)(Bucket=bucket)
    if call.tags != call.previous_tags:
        if call.tags:
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": calls.pairs(call.tags)})
        else:
            s3.delete_bucket_tagging(Bucket=bucket)
    found = calls.arn(call, "s3", bucket).replace(f":{call.region}:{call.account}:", ":::")
    regional = f"{bucket}.s3.{call.region}.amazonaws.com"
    return Made(bucket, {"Arn": found, "RegionalDomainName": regional})


def _bucket_exists(call: Call) -> bool:
    try:
        call.client("s3").head_bucket(Bucket=call.physical)
    except ClientError as error:
        # To HEAD there is no body that could name the error.
        if error.response["Error"]["Code"] not in ("404", "403", "NoSuchBucket"):
            raise
        return False
    return True


def _bucket_policy_create(call: Call) -> Made:
    bucket = call.properties["Bucket"]
    with calls.absent_is_fine():
        call.client("s3").get_bucket_policy(Bucket=bucket)
        why = f"The bucket policy already exists on bucket {bucket}."
        raise ResourceFailed(calls.handled(why, "AlreadyExists"))
    return _bucket_policy_put(call)


def _bucket_policy_put(call: Call) -> Made:
    bucket = call.properties["Bucket"]
    call.client("s3").put_bucket_policy(
        Bucket=bucket, Policy=calls.document(call.properties["PolicyDocument"])
    )
    call.made(bucket)
    return Made(bucket, {})


PROVIDERS: dict[str, Provider] = {
    "AWS::S3::Bucket": Provider(
        _bucket_create,
        calls.deletes("s3", "delete_bucket", "Bucket"),
        _bucket_update,
        Name("BucketName", 63, lower=True),
        ("Arn", "RegionalDomainName"),
        exists=_bucket_exists,
    ),
    "AWS::S3::BucketPolicy": Provider(
        _bucket_policy_create,
        calls.deletes("s3", "delete_bucket_policy", "Bucket"),
        _bucket_policy_put,
        physical=lambda call: str(call.properties["Bucket"]),
    ),
}
