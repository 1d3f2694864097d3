"""The role that a sandbox's account gives the pipeline before the repo is connected; the project's
own role of that name replaces it."""

from __future__ import annotations

from sm_mlops.aws import Aws, described, ignoring

MARK = {"Key": "sandbox", "Value": "provisional"}
POLICY = "everything"


def role_name(aws: Aws) -> str:
    """Return the name of the pipeline's role."""
    return aws.settings.role_arn(aws.account).rpartition("/")[2]


def exists(aws: Aws) -> bool:
    """Return whether the pipeline's role is the provisional one."""
    found = described(aws.client("iam").get_role, RoleName=role_name(aws))
    return bool(found) and MARK in found["Role"].get("Tags", [])


def remove(aws: Aws) -> None:
    """Delete the provisional role, if there is one."""
    if not exists(aws):
        return
    iam, name = aws.client("iam"), role_name(aws)
    with ignoring("NoSuchEntity"):
        iam.delete_role_policy(RoleName=name, PolicyName=POLICY)
    iam.delete_role(RoleName=name)
