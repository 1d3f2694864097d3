"""What this repo's settings need of the platform and of its project, as parameters of stacks."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sm_mlops import dates, images
from sm_mlops.aws import Aws, split_s3
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError

# Marks an unused position of a list.
FREE = "none"
# A comma separates the items of a parameter, and *, ? and $ mean more in the ARNs of policies.
# Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutRolePolicy.html
_NOT_IN_POLICIES = re.compile(r"[^ -~\u00a1-\u00ff]|[,*?$]")


def items(text: str) -> tuple[str, ...]:
    """Return the items of a list parameter."""
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def joined(values: Iterable[str]) -> str:
    """Return a list parameter of these items, each once."""
    return ",".join(dict.fromkeys(values))


def merged(had: str, needed: Iterable[str], ignore_case: bool = False) -> str:
    """Return the list with missing items added at its end, without those that a wildcard covers."""
    known = items(had)
    seen = {item.lower() for item in known} if ignore_case else set(known)
    new = (item for item in needed if (item.lower() if ignore_case else item) not in seen)
    found = (*known, *new)
    return joined(
        item for item in found if not any(covers(wide, item) for wide in found if wide != item)
    )


def covers(wide: str, item: str) -> bool:
    """Return whether an ARN that ends with a star includes another one, as IAM reads it."""
    return wide.endswith("*") and item.startswith(wide[:-1])


def widened(had: str) -> str:
    """Return a list of ARNs that allows whatever this one does, with whole buckets instead of their
    folders, and all keys of an account and region instead of each."""
    return merged("", (re.sub("/.*", "/*", item) for item in items(had)))


def in_place(had: str, wanted: Iterable[str]) -> str:
    """Return the list with what stays at the position it had, and FREE where it has a gap."""
    new = list(dict.fromkeys(wanted))
    places = [item if item in new else FREE for item in items(had)]
    for item in new:
        if item not in places:
            free = places.index(FREE) if FREE in places else len(places)
            places[free : free + 1] = [item]
    while places and places[-1] == FREE:
        places.pop()
    return ",".join(places)


def data_locations(aws: Aws) -> tuple[str, ...]:
    """Return the ARNs of the bucket and of the objects that data.path names; none if they are local
    or in this project's part of the artifact bucket. Raise MlopsError for another project's part.
    """
    path = dates.fixed(aws.settings.data.path)
    if not path.startswith("s3://"):
        return ()
    bucket, key = split_s3(path)
    if bucket == aws.bucket:
        if key.startswith(f"{aws.settings.prefix}/"):
            return ()
        raise MlopsError(
            f"mlops.yaml: data.path {path} is in the artifact bucket, where a project reads only "
            f"under its own name: s3://{bucket}/{aws.settings.prefix}/"
        )
    if odd := _NOT_IN_POLICIES.search(key):
        raise MlopsError(
            f"mlops.yaml: data.path has {odd[0]!r}, which the policies of roles cannot name: "
            "rename the folder, or name one above it"
        )
    arn = f"arn:{aws.settings.partition}:s3:::{bucket}"
    if not key or key.endswith("/") or path != aws.settings.data.path:
        return arn, f"{arn}/{key}*"
    # One file, or a folder whose name lacks its slash.
    return arn, f"{arn}/{key}", f"{arn}/{key}/*"


def key_arns(aws: Aws) -> tuple[str, ...]:
    """Return the ARNs of the keys in mlops.yaml, where an alias is resolved, and in the stages.

    That of a stage in another account belongs to the KeyArns of its deploy.yml.
    """
    settings, found = aws.settings, []
    if key := settings.aws.kms_key:
        found.append(str(aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"]))
    for stage in (stages.load(settings, name) for name in stages.names(settings)):
        if stage.account in (None, aws.account):
            found.append(stage.parameters.get("KmsKeyArn", ""))
    return tuple(dict.fromkeys(filter(None, found)))


def image_repository(aws: Aws) -> str:
    """Return the ARN of the ECR repository of an image of the team's; empty for SageMaker's own."""
    name, settings = aws.settings.image, aws.settings
    if name in images.known():
        return ""
    place, region = images.address(name), settings.project.region
    registry = name.partition(".")[0]
    return f"arn:{settings.partition}:ecr:{region}:{registry}:repository/{place['repository']}"
