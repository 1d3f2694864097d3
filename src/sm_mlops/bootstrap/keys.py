"""The access key that GitHub signs in to AWS with: those the project's user has, and when the
current one came into its secret."""

from __future__ import annotations

from datetime import datetime

from sm_mlops import projects, stacks
from sm_mlops.aws import Aws, ignoring
from sm_mlops.bootstrap.plan import Tell
from sm_mlops.errors import MlopsError


def user(aws: Aws) -> str:
    """Return the name of the project's user."""
    return f"{aws.settings.project.project}-github"


def former(aws: Aws) -> list[str]:
    """Return the access keys of the project's user other than the stack's own."""
    found = projects.find(aws)
    if found is None or found.stack is None:
        return []
    held = [each for each in stacks.resources(aws, found.stack) if each.name == "GitHubUserKey"]
    if not held:
        return []
    keys: list[str] = []
    with ignoring("NoSuchEntity"):
        rows = aws.client("iam").list_access_keys(UserName=user(aws))["AccessKeyMetadata"]
        keys = [row["AccessKeyId"] for row in rows]
    # Otherwise it is unknown which one is in use.
    return [key for key in keys if key != held[0].physical] if held[0].physical in keys else []


def delete_former(aws: Aws, tell: Tell) -> None:
    """Delete the previous access keys."""
    for key in former(aws):
        aws.client("iam").delete_access_key(UserName=user(aws), AccessKeyId=key)
        tell(f"{'deleted':<12} previous access key of {user(aws)}")


def stored(aws: Aws, outputs: dict[str, str]) -> datetime:
    """Return when the access key came into its secret. Read no value. Raise MlopsError."""
    secret = outputs["GitHubUserSecretArn"]
    with ignoring("ResourceNotFoundException"):
        # One page: versions without a label are not listed.
        found = aws.client("secretsmanager").list_secret_version_ids(SecretId=secret)
        for version in found["Versions"]:
            if "AWSCURRENT" in version.get("VersionStages", ()):
                return version["CreatedDate"]
    raise MlopsError(f"the secret {secret} of the project's user has no value")
