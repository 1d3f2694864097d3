"""Stages in other accounts: assume a role there, and let exactly those accounts read the versions
of this project, their artifacts, the keys that encrypt these and the team's own images.

Other statements of a policy are kept. The policy of the platform's bucket is changed by its stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from rich.console import Console

from sm_mlops import projects, stacks
from sm_mlops.aws import ABSENT, DENIED, Aws, error_code, ignoring
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.platform import CAPABILITIES, STACK
from sm_mlops.stacks import Stack

Policy = dict[str, Any]
EMPTY: Policy = {"Version": "2012-10-17", "Statement": []}
# The prefix of the Sids of our statements.
SID = "SmMlopsStages"
# The platform's parameter of the accounts that read the models of their projects.
ACCOUNTS = "DeploymentAccounts"
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")


def enter(aws: Aws, stage: Stage) -> Aws:
    """Return the account of the stage. Raises MlopsError if it cannot be used."""
    from botocore.exceptions import ClientError

    if not stage.role:
        if stage.account not in (None, aws.account):
            raise MlopsError(
                f"infra/{stage.name}.json: Account {stage.account} is not {aws.account}, the "
                "signed-in one: add a Role of that account that this one may assume"
            )
        return aws
    there = aws.as_role(stage.role)
    try:
        account = there.account
    except ClientError as error:
        if error_code(error) not in (*DENIED, "NoSuchEntity"):
            raise
        raise MlopsError(
            f"stage {stage.name}: cannot assume {stage.role}: {error.response['Error']['Message']}"
        ) from error
    if stage.account not in (None, account):
        raise MlopsError(
            f"infra/{stage.name}.json: Role {stage.role} is in account {account}, "
            f"but Account is {stage.account}"
        )
    return there


def foreign_accounts(aws: Aws) -> tuple[str, ...]:
    """Return the accounts of all stages, without the registry's own."""
    settings = aws.settings
    found = {stages.load(settings, name).account for name in stages.names(settings)}
    return tuple(sorted(account for account in found if account and account != aws.account))


@dataclass(frozen=True)
class Grant:
    """A policy to change: `lines` describe how, `apply` does it."""

    what: str
    lines: tuple[str, ...]
    apply: Callable[[], Any]


def plan(aws: Aws, accounts: Iterable[str], images: Iterable[str] = ()) -> tuple[Grant, ...]:
    """Return the policies to change so that exactly these accounts may read and pull `images`."""
    return tuple(_grants(aws, sorted(accounts), images))


def readable(aws: Aws, accounts: Iterable[str], image: str) -> tuple[Grant, ...]:
    """Return the policies to change up to the first one that cannot be read."""
    found: list[Grant] = []
    with ignoring(*DENIED, "NoSuchBucket"):
        for grant in _grants(aws, sorted(accounts), [image]):
            found.append(grant)
    return tuple(found)


def missing(aws: Aws, account: str, image: str = "") -> tuple[str, ...]:
    """Return what this account cannot read yet, as far as the policies can be read."""
    grants = readable(aws, {*foreign_accounts(aws), account}, image)
    return tuple(grant.what for grant in grants if f"+ account {account} may read" in grant.lines)


def require(aws: Aws, there: Aws, stage: Stage, image: str) -> None:
    """Raise MlopsError if a stage in another account cannot read the version or pull its image, or
    its endpoint would write to the registry's bucket."""
    account, given = there.account, stage.parameters
    _require_own_image(aws, account, stage, image)
    if account == aws.account:
        if given.get("OutputBucket", aws.bucket) not in ("", aws.bucket):
            raise MlopsError(
                f"infra/{stage.name}.json: Parameters.OutputBucket is for stages in another "
                f"account; remove it: the roles of this one use {aws.bucket} only"
            )
        return
    captures = float(given.get("DataCapturePercent", 0)) > 0
    writes = stage.kind == "asynchronous" or stage.batch or captures
    if writes and not given.get("OutputBucket"):
        raise MlopsError(
            f"infra/{stage.name}.json: Parameters.OutputBucket must name a bucket of account "
            f"{account}: it cannot write to {aws.bucket}"
        )
    if lacking := missing(aws, account, image):
        raise MlopsError(
            f"account {account} cannot read {' or '.join(lacking)} yet: {aws.command} share"
        )


def _require_own_image(aws: Aws, account: str, stage: Stage, image: str) -> None:
    """Raise MlopsError if a serverless endpoint would use an image of the team's that is in another
    account. Source: https://github.com/aws/amazon-sagemaker-feedback/issues/181"""
    owner = image.partition(".")[0]
    if stage.kind != "serverless" or owner == account:
        return
    # An image that mlops.yaml does not name may be SageMaker's own.
    if owner == aws.account or image == aws.settings.image:
        raise MlopsError(
            f"infra/{stage.name}.json: a serverless endpoint in account {account} cannot use the "
            f"image {image} of account {owner}: set Parameters.EndpointKind to real-time"
        )


def _grants(aws: Aws, accounts: list[str], images: Iterable[str]) -> Iterator[Grant]:
    """Yield the policies to change."""
    looks: list[Callable[..., Grant]] = [_group_grant, _bucket_grant]
    repositories = {_repository(aws, image) for image in images} - {""}
    looks += [partial(_image_grant, repository=name) for name in sorted(repositories)]
    # Looked for last: whoever may not list the keys still sees the other policies.
    keys: Iterable[Callable[..., Grant]] = (partial(_key_grant, key=key) for key in _keys(aws))
    for look in chain(looks, keys):
        # The key may be another account's; a missing repository is reported by `mlops doctor`.
        with ignoring("NotFoundException", "RepositoryNotFoundException"):
            grant = look(aws, accounts=accounts)
            if grant.lines:
                yield grant


@contextmanager
def keeping_group_policy(aws: Aws) -> Iterator[None]:
    """Restore the policy of the model package group after an update of the project's stack.

    CloudFormation deletes it with every update of a group whose template has no policy. Source:
    https://github.com/aws-cloudformation/aws-cloudformation-resource-providers-sagemaker/blob/main/aws-sagemaker-modelpackagegroup/src/main/java/software/amazon/sagemaker/modelpackagegroup/UpdateHandler.java
    """
    policy = EMPTY
    # Most updates leave the group alone: they need no permission to read its policy.
    with ignoring(*DENIED):
        policy = _group_policy(aws)
    try:
        yield
    finally:
        if policy["Statement"] and _group_policy(aws) != policy:
            group, text = aws.settings.model_package_group, json.dumps(policy)
            aws.sagemaker.put_model_package_group_policy(
                ModelPackageGroupName=group, ResourcePolicy=text
            )


def _group_policy(aws: Aws) -> Policy:
    group = aws.settings.model_package_group
    with ignoring(*ABSENT):
        found = aws.sagemaker.get_model_package_group_policy(ModelPackageGroupName=group)
        return dict(json.loads(found["ResourcePolicy"]))
    return EMPTY


def _group_grant(aws: Aws, accounts: list[str]) -> Grant:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html"""
    group, sagemaker = aws.settings.model_package_group, aws.sagemaker
    name = {"ModelPackageGroupName": group}
    put = sagemaker.put_model_package_group_policy
    delete = sagemaker.delete_model_package_group_policy
    versions = ("CreateModel", "DescribeModelPackage", "ListModelPackages")
    return _grant(
        f"model package group {group}",
        _group_policy(aws),
        [
            _allow(
                *(aws, f"{SID}Group", accounts, ["sagemaker:DescribeModelPackageGroup"]),
                aws.arn("sagemaker", f"model-package-group/{group}"),
            ),
            _allow(
                *(aws, f"{SID}Versions", accounts, [f"sagemaker:{name}" for name in versions]),
                aws.arn("sagemaker", f"model-package/{group}/*"),
            ),
        ],
        lambda text: put(**name, ResourcePolicy=text) if text else delete(**name),
    )


def _bucket_grant(aws: Aws, accounts: list[str]) -> Grant:
    """Give the models only, not the data beside them, to the accounts."""
    bucket, s3 = aws.bucket, aws.s3
    platform = stacks.describe(aws, STACK)
    if platform and platform.outputs.get("ArtifactBucket") == bucket:
        return _platform_grant(aws, platform, accounts)
    policy = EMPTY
    with ignoring("NoSuchBucketPolicy"):
        policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    models = f"arn:{aws.settings.partition}:s3:::{bucket}/{aws.settings.prefix}/*/model.tar.gz"
    put, delete = s3.put_bucket_policy, s3.delete_bucket_policy
    return _grant(
        f"bucket {bucket}",
        policy,
        [_allow(aws, _project_sid(aws), accounts, ["s3:GetObject"], models)],
        lambda text: put(Bucket=bucket, Policy=text) if text else delete(Bucket=bucket),
    )


def _platform_grant(aws: Aws, platform: Stack, accounts: list[str]) -> Grant:
    """Add the accounts to the platform's: its stack owns the bucket's policy, and its next update
    would overwrite what anyone else writes there. Other projects may need those it has."""
    had = [item for item in platform.parameters[ACCOUNTS].split(",") if item]
    new = [account for account in accounts if account not in had]
    given = dict.fromkeys(platform.parameters) | {ACCOUNTS: ",".join([*had, *new])}
    quiet = Console(quiet=True)
    return Grant(
        f"bucket {aws.bucket}, by {platform.name}",
        tuple(f"+ account {account} may read" for account in new),
        lambda: stacks.deploy(aws, platform.name, None, given, {}, CAPABILITIES, quiet),
    )


def _repository(aws: Aws, image: str) -> str:
    """Return the ECR repository of an image of this account, "" for an image of another."""
    registry, _, path = image.partition("/")
    ours = f"{aws.account}.dkr.ecr.{aws.settings.project.region}."
    return re.split("[:@]", path)[0] if registry.startswith(ours) else ""


def _image_grant(aws: Aws, repository: str, accounts: list[str]) -> Grant:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html"""
    ecr, name, policy = aws.client("ecr"), {"repositoryName": repository}, EMPTY
    with ignoring("RepositoryPolicyNotFoundException"):
        policy = json.loads(ecr.get_repository_policy(**name)["policyText"])
    statement = _allow(aws, _project_sid(aws), accounts, [*PULL])
    put, delete = ecr.set_repository_policy, ecr.delete_repository_policy
    return _grant(
        f"image repository {repository}",
        policy,
        [statement],
        lambda text: put(**name, policyText=text) if text else delete(**name),
    )


def _keys(aws: Aws) -> Iterator[str]:
    """Yield the ARNs of the keys that may encrypt versions: of earlier ones, by former keys."""
    found = projects.find(aws)
    named = found.stack.parameters.get("KmsKeyArn", "") if found and found.stack else ""
    arns = set()
    for key in {aws.settings.aws.kms_key or "", *named.split(",")} - {""}:
        with ignoring("NotFoundException"):
            about = aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]
            if not about["KeyState"].startswith("Pending"):
                arns.add(str(about["Arn"]))
    yield from sorted(arns)


def _key_grant(aws: Aws, key: str, accounts: list[str]) -> Grant:
    kms = aws.client("kms")
    policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    hosts = [f"s3.{aws.settings.project.region}.amazonaws.com"]
    statement = _allow(aws, _project_sid(aws), accounts, ["kms:Decrypt", "kms:DescribeKey"], "*")
    statement["Condition"] = {"StringEquals": {"kms:ViaService": hosts}}
    return _grant(
        f"key {key}",
        policy,
        [statement],
        # A key always has statements.
        lambda text: kms.put_key_policy(KeyId=key, PolicyName="default", Policy=text),
    )


def _project_sid(aws: Aws) -> str:
    """Return the Sid of this project in policies that several projects share.

    A Sid has letters and digits only; the names of projects have no capitals.
    """
    return SID + aws.settings.project.project.replace("-", "Z")


def _allow(
    aws: Aws, sid: str, accounts: list[str], actions: list[str], resource: str = ""
) -> Policy:
    """Return a statement; without a resource for the policy of an ECR repository, which takes
    none."""
    roots = [f"arn:{aws.settings.partition}:iam::{account}:root" for account in accounts]
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": roots},
        "Action": actions,
        **({"Resource": resource} if resource else {}),
    }


def _grant(
    what: str, policy: Policy, ours: list[Policy], write: Callable[[str | None], Any]
) -> Grant:
    """Return the policy with our statements in place of those with the same Sids."""
    sids = [item["Sid"] for item in ours]
    before = [item for item in policy["Statement"] if item.get("Sid") in sids]
    others = [item for item in policy["Statement"] if item.get("Sid") not in sids]
    # A statement needs a principal.
    ours = [item for item in ours if item["Principal"]["AWS"]]
    had, wanted = _principals(before), _principals(ours)
    lines = [f"+ account {account} may read" for account in sorted(wanted - had)]
    lines += [f"- account {account} may no longer read" for account in sorted(had - wanted)]
    if not lines and sorted(map(_comparable, before)) != sorted(map(_comparable, ours)):
        lines = [f"~ account {account}: statement corrected" for account in sorted(wanted)]
    text = json.dumps({**policy, "Statement": [*others, *ours]}) if others or ours else None
    return Grant(what, tuple(lines), lambda: write(text))


def _comparable(statement: Policy) -> str:
    """Return a statement in one form: services return a list of one as text, and sort lists."""
    lists = {name: sorted(_list(statement.get(name, ()))) for name in ("Action", "Resource")}
    principal = sorted(_principals([statement]))
    return json.dumps({**statement, **lists, "Principal": principal}, sort_keys=True)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _principals(statements: list[Policy]) -> set[str]:
    """Return the account numbers that the statements name."""
    return {
        arn.split(":")[4] if arn.startswith("arn:") else arn
        for item in statements
        for arn in _list(item.get("Principal", {}).get("AWS", []))
    }
