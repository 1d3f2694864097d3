"""The connection to GitHub, which a person authorizes once in the AWS console."""

from __future__ import annotations

from dataclasses import dataclass

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import platform
from sm_mlops.bootstrap.plan import Item, Part, Todo

WHAT = "authorization of the GitHub connection"


def state(aws: Aws) -> dict[str, str] | None:
    """Return the platform's connection as GetConnection describes it; None without a platform."""
    arn = (platform.outputs(aws) or {}).get("ConnectionArn")
    if not arn:
        return None
    # The service was renamed; older connections have ARNs with its former name.
    return dict(aws.client(arn.split(":")[2]).get_connection(ConnectionArn=arn)["Connection"])


def remedy(aws: Aws, found: dict[str, str]) -> str:
    """Return how a person authorizes it."""
    if aws.sandbox:
        return f"mlops sandbox authorize {found['ConnectionName']}"
    arn = found["ConnectionArn"]
    region, identifier = arn.split(":")[3], arn.rpartition("/")[2]
    domain = {
        "aws-cn": "console.amazonaws.cn",
        "aws-us-gov": "console.amazonaws-us-gov.com",
    }.get(aws.settings.partition, "console.aws.amazon.com")
    return (
        f"https://{region}.{domain}/codesuite/settings/{aws.account}/{region}/"
        f"codeconnections/connections/{identifier}"
    )


@dataclass
class Connection(Part):
    """A part of the plan that only looks: AWS has no call to authorize a connection."""

    aws: Aws

    def look(self) -> list[Item]:
        found = state(self.aws)
        if found is None:
            return [Item(WHAT, Todo.PERSON, "once the platform exists")]
        if found["ConnectionStatus"] == "AVAILABLE":
            return [Item(WHAT, Todo.NOTHING)]
        detail = f"{found['ConnectionName']} is {found['ConnectionStatus']}"
        return [Item(WHAT, Todo.PERSON, detail, remedy(self.aws, found))]
