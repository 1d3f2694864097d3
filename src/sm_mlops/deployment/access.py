"""Stages in other accounts: working there by a role, and letting exactly those accounts read what
they deploy (the versions of this project, their artifacts, the key these are encrypted with).

Each policy keeps the statements that others wrote into it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sm_mlops.aws import Aws, error_code
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError

Policy = dict[str, Any]
GROUP_SID, STAGE_SID = "SmMlopsStages", "SmMlopsStage"
# With this one infra/platform.yml lets accounts read the models of all projects.
PLATFORM_SID = "ModelsForStagesElsewhere"


def enter(aws: Aws, stage: Stage) -> Aws:
    """The account that the stage lives in. Raises MlopsError when it cannot be worked in."""
    from botocore.exceptions import ClientError

    if not stage.role:
        if stage.account not in (None, aws.account):
            raise MlopsError(
                f"infra/{stage.name}.json: Account {stage.account} is not {aws.account}, the one "
                "signed in to: it needs a Role there that may be assumed from here"
            )
        return aws
    there = aws.as_role(stage.role)
    try:
        account = there.account
    except ClientError as error:
        if error_code(error) not in ("AccessDenied", "AccessDeniedException", "NoSuchEntity"):
            raise
        raise MlopsError(
            f"stage {stage.name}: cannot assume {stage.role}: {error.response['Error']['Message']}"
        ) from error
    if stage.account not in (None, account):
        raise MlopsError(
            f"infra/{stage.name}.json: Role {stage.role} leads to account {account}, "
            f"but Account is {stage.account}"
        )
    return there


def foreign_accounts(aws: Aws) -> tuple[str, ...]:
    """The accounts of all stages that are not the registry's own."""
    settings = aws.settings
    found = {stages.load(settings, name).account for name in stages.names(settings)}
    return tuple(sorted(account for account in found if account and account != aws.account))


@dataclass(frozen=True)
class Grant:
    """A policy as it is and as it should be; `lines` tell the difference, one per account."""

    what: str
    lines: tuple[str, ...]
    policy: Policy
    write: Callable[[str | None], Any]

    def apply(self) -> None:
        self.write(json.dumps(self.policy) if self.policy["Statement"] else None)


def plan(aws: Aws, accounts: Iterable[str]) -> tuple[Grant, ...]:
    """The policies to change so that exactly these accounts may read; those that fit are left."""
    accounts = tuple(accounts)
    found = (_group_grant(aws, accounts), _bucket_grant(aws, accounts), _key_grant(aws, accounts))
    return tuple(grant for grant in found if grant is not None and grant.lines)


def missing(aws: Aws, account: str) -> tuple[str, ...]:
    """What this account may not read yet, in words; nothing where the policies cannot be read."""
    from botocore.exceptions import ClientError

    try:
        grants = plan(aws, {*foreign_accounts(aws), account})
    except ClientError as error:
        if error_code(error) not in ("AccessDenied", "AccessDeniedException"):
            raise
        return ()
    return tuple(
        grant.what
        for grant in grants
        if any(line.startswith("+") and account in line for line in grant.lines)
    )


def _group_grant(aws: Aws, accounts: tuple[str, ...]) -> Grant | None:
    """Source: https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html"""
    from botocore.exceptions import ClientError

    group, sagemaker = aws.settings.model_package_group, aws.sagemaker
    place = f"arn:{aws.settings.partition}:sagemaker:{aws.settings.project.region}:{aws.account}"
    try:
        answer = sagemaker.get_model_package_group_policy(ModelPackageGroupName=group)
        policy = json.loads(answer["ResourcePolicy"])
    except ClientError as error:
        if error_code(error) not in ("ValidationException", "ResourceNotFound"):
            raise
        policy = _empty()
    principals = [_root(aws, account) for account in accounts]
    ours = []
    if accounts:
        for sid, actions, resource in (
            ("Group", ["DescribeModelPackageGroup"], f"{place}:model-package-group/{group}"),
            (
                "Versions",
                ["CreateModel", "DescribeModelPackage", "ListModelPackages"],
                f"{place}:model-package/{group}/*",
            ),
        ):
            ours.append(
                {
                    "Sid": GROUP_SID + sid,
                    "Effect": "Allow",
                    "Principal": {"AWS": principals},
                    "Action": [f"sagemaker:{action}" for action in actions],
                    "Resource": [resource],
                }
            )
    before = [item for item in policy["Statement"] if _sid(item).startswith(GROUP_SID)]

    def write(text: str | None) -> None:
        if text is None:
            sagemaker.delete_model_package_group_policy(ModelPackageGroupName=group)
        else:
            sagemaker.put_model_package_group_policy(
                ModelPackageGroupName=group, ResourcePolicy=text
            )

    return Grant(
        f"model package group {group}",
        _difference(_principals(before), set(accounts), _same(before, ours)),
        _with(policy, GROUP_SID, ours),
        write,
    )


def _bucket_grant(aws: Aws, accounts: tuple[str, ...]) -> Grant:
    """One statement per account, which the projects that share the bucket add themselves to; none
    for those that the platform lets read."""
    from botocore.exceptions import ClientError

    bucket, s3 = aws.bucket, aws.s3
    try:
        policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    except ClientError as error:
        if error_code(error) != "NoSuchBucketPolicy":
            raise
        policy = _empty()
    of_platform = [item for item in policy["Statement"] if _sid(item) == PLATFORM_SID]
    accounts = tuple(sorted(set(accounts) - _principals(of_platform)))
    # The models only: what they were trained from lies beside them.
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

    def write(text: str | None) -> None:
        if text is None:
            s3.delete_bucket_policy(Bucket=bucket)
        else:
            s3.put_bucket_policy(Bucket=bucket, Policy=text)

    return Grant(
        f"bucket {bucket}",
        _difference(had, set(accounts), _same(before, ours)),
        _with(policy, STAGE_SID, ours),
        write,
    )


def _key_grant(aws: Aws, accounts: tuple[str, ...]) -> Grant | None:
    """The key may serve other projects too: accounts are added here and never removed."""
    key = aws.settings.aws.kms_key
    if not key:
        return None
    kms = aws.client("kms")
    identifier = kms.describe_key(KeyId=key)["KeyMetadata"]["KeyId"]
    policy = json.loads(kms.get_key_policy(KeyId=identifier, PolicyName="default")["Policy"])
    before = [item for item in policy["Statement"] if _sid(item).startswith(STAGE_SID)]
    had = {_sid(item).removeprefix(STAGE_SID) for item in before}
    hosts = [f"s3.{aws.settings.project.region}.amazonaws.com"]
    if aws.settings.partition == "aws-cn":
        # Which of its two names a service goes by there is documented nowhere.
        hosts.append(f"{hosts[0]}.cn")
    added = [
        {
            **_read(aws, account, ["kms:Decrypt", "kms:DescribeKey"], ["*"]),
            "Condition": {"StringEquals": {"kms:ViaService": hosts}},
        }
        for account in accounts
        if account not in had
    ]

    def write(text: str | None) -> None:
        assert text is not None, "a key always has a policy"
        kms.put_key_policy(KeyId=identifier, PolicyName="default", Policy=text)

    return Grant(
        f"key {key}",
        _difference(had, had | set(accounts), not added),
        _with(policy, STAGE_SID, [*before, *added]),
        write,
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
    """The policy with our statements instead of those it has under the same kind of Sid."""
    others = [
        item
        for item in policy["Statement"]
        if not (_sid(item).startswith(sid) and (sid == GROUP_SID or _sid(item)[-12:].isdigit()))
    ]
    return {**policy, "Statement": [*others, *ours]}


def _principals(statements: list[Policy]) -> set[str]:
    """Account numbers that the statements name."""
    return {
        arn.split(":")[4] if arn.startswith("arn:") else arn
        for item in statements
        for arn in _list(item.get("Principal", {}).get("AWS", []))
    }


def _same(before: list[Policy], after: list[Policy]) -> bool:
    """Whether they say the same; services give a list of one back as text."""

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
    lines += [f"- account {account} may not read any more" for account in sorted(had - wanted)]
    if not lines and not same:
        lines = [f"~ account {account}: as it should be" for account in sorted(wanted)]
    return tuple(lines)
