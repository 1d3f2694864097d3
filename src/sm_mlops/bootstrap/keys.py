"""The access keys that GitHub signs in to AWS with: those that the project's users have, and when
the current ones came into their secrets."""

from __future__ import annotations

from datetime import datetime

from sm_mlops import projects, stacks
from sm_mlops.aws import Aws, ignoring
from sm_mlops.bootstrap.plan import Tell
from sm_mlops.errors import MlopsError


def former(aws: Aws) -> list[tuple[str, str]]:
    """Return user and ID of each access key of the project's users that is not the stack's own."""
    found = projects.find(aws)
    if found is None or found.stack is None:
        return []
    held = {each.name: each.physical for each in stacks.resources(aws, found.stack)}
    pairs: list[tuple[str, str]] = []
    for access in projects.ACCESSES:
        user = access.name_in(aws.settings.project.project)
        keys: list[str] = []
        if access.key in held:
            with ignoring("NoSuchEntity"):
                rows = aws.client("iam").list_access_keys(UserName=user)["AccessKeyMetadata"]
                keys = [row["AccessKeyId"] for row in rows]
        # Otherwise it is unknown which one is in use.
        if held.get(access.key) in keys:
            pairs += [(user, key) for key in keys if key != held[access.key]]
    return pairs


def delete_former(aws: Aws, tell: Tell) -> None:
    """Delete the previous access keys."""
    for user, key in former(aws):
        aws.client("iam").delete_access_key(UserName=user, AccessKeyId=key)
        tell(f"{'deleted':<12} previous access key of {user}")


def stored(aws: Aws, secret: str) -> datetime:
    """Return when the access key came into its secret. Read no value. Raise MlopsError."""
    with ignoring("ResourceNotFoundException"):
        # One page: versions without a label are not listed.
        found = aws.client("secretsmanager").list_secret_version_ids(SecretId=secret)
        for version in found["Versions"]:
            if "AWSCURRENT" in version.get("VersionStages", ()):
                return version["CreatedDate"]
    raise MlopsError(f"the secret {secret} of the project's user has no value")
