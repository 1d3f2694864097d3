"""What projects import from the platform's stack.

CloudFormation replaces nothing that a stack imports, and finds that out in the middle of an update.
"""

from __future__ import annotations

from collections.abc import Mapping

from botocore.exceptions import ClientError

from sm_mlops.aws import Aws, error_code
from sm_mlops.errors import MlopsError

# Of the names of exports.
PREFIX = "sm-mlops-"
# The parameters that determine each export, and its name in messages.
REPLACED_BY = {
    "ConnectionArn": ("connection", "ConnectionArn", "ConnectionName", "ConnectionHostArn"),
    "ArtifactBucket": ("artifact bucket", "BucketName"),
    "OidcProviderArn": ("OpenID Connect provider", "OidcProviderArn"),
}


def importers(aws: Aws, export: str) -> list[str]:
    """Return the names of the stacks that import an output of the platform's."""
    name = f"{PREFIX}{export}"
    try:
        return list(aws.pages("list_imports", "Imports", "cloudformation", ExportName=name))
    except ClientError as error:
        unused = any(words in str(error) for words in ("not imported", "does not exist"))
        if error_code(error) != "ValidationError" or not unused:
            raise
        return []


def require_unused(aws: Aws, had: Mapping[str, str], will: Mapping[str, str]) -> None:
    """Raise MlopsError if a stack imports what other parameters are to replace."""
    for export, (what, *names) in REPLACED_BY.items():
        changed = [name for name in names if will.get(name) != had.get(name)]
        if changed and (users := importers(aws, export)):
            # `mlops bootstrap` passes the connection to projects, which then import it no longer.
            remedy = (
                f"run {aws.command} bootstrap in each of their repos first, without {changed[0]}"
                if export == "ConnectionArn"
                else f"leave out --platform {changed[0]}"
            )
            raise MlopsError(
                f"{', '.join(users)} would lose the {what} that {changed[0]} replaces: {remedy}"
            )


def require_other_name(had: Mapping[str, str], will: Mapping[str, str]) -> None:
    """Raise MlopsError if the platform's own connection is to be replaced under its name, which is
    unique in an account. Source:
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-codeconnections-connection.html
    """
    host, name = "ConnectionHostArn", "ConnectionName"
    own = not had.get("ConnectionArn") and not will.get("ConnectionArn")
    if own and will.get(host) != had.get(host) and will.get(name) == had.get(name):
        raise MlopsError(
            f"--platform {host} replaces the connection {had.get(name)}, whose name is taken until "
            f"then: add --platform {name}=... with another one"
        )
