"""Stages in other accounts: assume a role there, and let exactly those accounts read what they
deploy (the versions of this project, their artifacts, the key that encrypts these).

Each policy keeps the statements of others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sm_mlops.aws import ABSENT, DENIED, Aws, error_code, ignoring
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError

Policy = dict[str, Any]
GROUP_SID, STAGE_SID = "SmMlopsStages", "SmMlopsStage"
# The platform's statement that lets accounts read the models of all projects.
PLATFORM_SID = "ModelsForStagesElsewhere"


def enter(aws: Aws, stage: Stage) -> Aws:
    """Return the account of the stage. Raises MlopsError if it cannot be used."""
    from botocore.exceptions import ClientError

    if not stage.role:
        if stage.account not in (None, aws.account):
            raise MlopsError(
                f"infra/{stage.name}.json: Account {stage.account} is not {aws.account}, the "
                "signed-in one: add a Role of that account that may be assumed from here"
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
    """Return the accounts of all stages except the registry's own."""
    settings = aws.settings
    found = {stages.load(settings, name).account for name in stages.names(settings)}
    return tuple(sorted(account for account in found if account and account != aws.account))


@dataclass(frozen=True)
class Grant:
    """A policy as it should be; `lines` describe the difference, one per account."""

    what: str
    lines: tuple[str, ...]
    policy: Policy
    write: Callable[[str | None], Any]

    def apply(self) -> None:
        self.write(json.dumps(self.policy) if self.policy["Statement"] else None)


def plan(aws: Aws, accounts: Iterable[str]) -> tuple[Grant, ...]:
    """Return the policies to change so that exactly these accounts may read."""
    accounts = tuple(accounts)
    found = [_group_grant(aws, accounts), _bucket_grant(aws, accounts)]
    if aws.settings.aws.kms_key:
        found.append(_key_grant(aws, aws.settings.aws.kms_key, accounts))
    return tuple(grant for grant in found if grant.lines)


def missing(aws: Aws, account: str) -> tuple[str, ...]:
    """Return what this account cannot read yet; nothing if the policies cannot be read."""
    grants: tuple[Grant, ...] = ()
    with ignoring(*DENIED):
        grants = plan(aws, {*foreign_accounts(aws), account})
    return tuple(
        grant.what
        for grant in grants
        if any(line.startswith("+") and account in line for line in grant.lines)
    )


def _group_grant(aws: Aws, accounts: tuple[str, ...]) -> Grant:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html"""
    group, sagemaker = aws.settings.model_package_group, aws.sagemaker
    policy = _empty()
    with ignoring(*ABSENT):
        answer = sagemaker.get_model_package_group_policy(ModelPackageGroupName=group)
        policy = json.loads(answer["ResourcePolicy"])
    read = ("CreateModel", "DescribeModelPackage", "ListModelPackages")
    ours = [
        {
            "Sid": GROUP_SID + sid,
            "Effect": "Allow",
            "Principal": {"AWS": [_root(aws, account) for account in accounts]},
            "Action": [f"sagemaker:{action}" for action in actions],
            "Resource": [aws.arn("sagemaker", resource)],
        }
        for sid, actions, resource in (
            ("Group", ("DescribeModelPackageGroup",), f"model-package-group/{group}"),
            ("Versions", read, f"model-package/{group}/*"),
        )
        if accounts
    ]
    before = [item for item in policy["Statement"] if _sid(item).startswith(GROUP_SID)]
    name = {"ModelPackageGroupName": group}
    put, delete = (
        sagemaker.put_model_package_group_policy,
        sagemaker.delete_model_package_group_policy,
    )
    return Grant(
        f"model package group {group}",
        _difference(_principals(before), set(accounts), _same(before, ours)),
        _with(policy, GROUP_SID, ours),
        lambda text: put(**name, ResourcePolicy=text) if text else delete(**name),
    )


def _bucket_grant(aws: Aws, accounts: tuple[str, ...]) -> Grant:
    """Return one statement per account, to which each project that shares the bucket adds itself;
    none for accounts that the platform lets read."""
    bucket, s3 = aws.bucket, aws.s3
    policy = _empty()
    with ignoring("NoSuchBucketPolicy"):
        policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    of_platform = [item for item in policy["Statement"] if _sid(item) == PLATFORM_SID]
    accounts = tuple(sorted(set(accounts) - _principals(of_platform)))
    # The models only, not the data beside them.
    resource = f"arn:{aws.settings.partition}:s3:::{bucket}/{aws.settings.prefix}/*/model.tar.gz"
    had, ours, before = set(), [], []
    for item in policy["Statement"]:
        account = _sid(item).removeprefix(STAGE_SID)
        if not (_sid(item).startswith(STAGE_SID) and account.isdigit()):
            continue
        before.append(item)
        rest = [name for name in _list(item["Resource"]) if name != resource]
        if resource in _list(item["Resource"]):
            had.add(account)
        if account not in accounts and rest:
            ours.append({**item, "Resource": rest})
        elif account in accounts:
            ours.append(_read(aws, account, ["s3:GetObject"], [*rest, resource]))
    known = {_sid(item) for item in before}
    for account in accounts:
        if STAGE_SID + account not in known:
            ours.append(_read(aws, account, ["s3:GetObject"], [resource]))
    put, delete = s3.put_bucket_policy, s3.delete_bucket_policy
    return Grant(
        f"bucket {bucket}",
        _difference(had, set(accounts), _same(before, ours)),
        _with(policy, STAGE_SID, ours),
        lambda text: put(Bucket=bucket, Policy=text) if text else delete(Bucket=bucket),
    )


def _key_grant(aws: Aws, key: str, accounts: tuple[str, ...]) -> Grant:
    """Add accounts, remove none: other projects may use the key, too."""
    kms = aws.client("kms")
    identifier = kms.describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
    policy = json.loads(kms.get_key_policy(KeyId=identifier, PolicyName="default")["Policy"])
    before = [item for item in policy["Statement"] if _sid(item).startswith(STAGE_SID)]
    had = {_sid(item).removeprefix(STAGE_SID) for item in before}
    hosts = [f"s3.{aws.settings.project.region}.amazonaws.com"]
    if aws.settings.partition == "aws-cn":
        # Which of the two names applies there is not documented.
        hosts.append(f"{hosts[0]}.cn")
    added = [
        {
            **_read(aws, account, ["kms:Decrypt", "kms:DescribeKey"], ["*"]),
            "Condition": {"StringEquals": {"kms:ViaService": hosts}},
        }
        for account in accounts
        if account not in had
    ]
    return Grant(
        f"key {key}",
        _difference(had, had | set(accounts), not added),
        _with(policy, STAGE_SID, [*before, *added]),
        # A key always has statements.
        lambda text: kms.put_key_policy(KeyId=identifier, PolicyName="default", Policy=text),
    )


def _read(aws: Aws, account: str, actions: list[str], resources: list[str]) -> Policy:
    return {
        "Sid": STAGE_SID + account,
        "Effect": "Allow",
        "Principal": {"AWS": _root(aws, account)},
        "Action": actions,
        "Resource": sorted(resources),
    }


def _root(aws: Aws, account: str) -> str:
    return f"arn:{aws.settings.partition}:iam::{account}:root"


def _empty() -> Policy:
    return {"Version": "2012-10-17", "Statement": []}


def _sid(statement: Policy) -> str:
    return str(statement.get("Sid", ""))


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _with(policy: Policy, sid: str, ours: list[Policy]) -> Policy:
    """Return the policy with our statements in place of those with the same kind of Sid."""
    others = [
        item
        for item in policy["Statement"]
        if not (_sid(item).startswith(sid) and (sid == GROUP_SID or _sid(item)[-12:].isdigit()))
    ]
    return {**policy, "Statement": [*others, *ours]}


def _principals(statements: list[Policy]) -> set[str]:
    """Return the account numbers that the statements name."""
    return {
        arn.split(":")[4] if arn.startswith("arn:") else arn
        for item in statements
        for arn in _list(item.get("Principal", {}).get("AWS", []))
    }


def _same(before: list[Policy], after: list[Policy]) -> bool:
    """Return whether they are equivalent; services return a list of one as text."""

    def plain(item: Policy) -> str:
        flat = {
            name: sorted(_list(value)) if name in ("Action", "Resource") else value
            for name, value in item.items()
        }
        flat["Principal"] = sorted(_principals([item]))
        return json.dumps(flat, sort_keys=True)

    return sorted(map(plain, before)) == sorted(map(plain, after))


def _difference(had: set[str], wanted: set[str], same: bool) -> tuple[str, ...]:
    lines = [f"+ account {account} may read" for account in sorted(wanted - had)]
    lines += [f"- account {account} may no longer read" for account in sorted(had - wanted)]
    if not lines and not same:
        lines = [f"~ account {account}: statement corrected" for account in sorted(wanted)]
    return tuple(lines)
