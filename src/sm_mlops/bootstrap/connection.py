"""The connection to GitHub, which a person authorizes once in the AWS console."""

from __future__ import annotations

from dataclasses import dataclass

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import platform
from sm_mlops.bootstrap.plan import Item, Tell, Todo

WHAT = "authorization of the connection to GitHub"


@dataclass(frozen=True)
class State:
    """`status` is PENDING, AVAILABLE or ERROR."""

    name: str
    arn: str
    status: str


def state(aws: Aws) -> State | None:
    """Return the platform's connection; None if there is no platform."""
    arn = (platform.outputs(aws) or {}).get("ConnectionArn")
    if not arn:
        return None
    # The service was renamed; older connections have ARNs with its former name.
    client = aws.client(arn.split(":")[2])
    found = client.get_connection(ConnectionArn=arn)["Connection"]
    return State(found["ConnectionName"], arn, found["ConnectionStatus"])


def remedy(aws: Aws, found: State) -> str:
    """Return how a person authorizes it."""
    if aws.sandbox:
        return f"mlops sandbox authorize {found.name}"
    region = found.arn.split(":")[3]
    domain = {
        "aws-cn": "console.amazonaws.cn",
        "aws-us-gov": "console.amazonaws-us-gov.com",
    }.get(aws.settings.partition, "console.aws.amazon.com")
    identifier = found.arn.rpartition("/")[2]
    return (
        f"https://{region}.{domain}/codesuite/settings/{aws.account}/{region}/"
        f"codeconnections/connections/{identifier}"
    )


@dataclass
class Connection:
    """A part of the plan that only looks."""

    aws: Aws

    def look(self) -> list[Item]:
        found = state(self.aws)
        if found is None:
            return [Item(WHAT, Todo.PERSON, "once the platform exists")]
        if found.status == "AVAILABLE":
            return [Item(WHAT, Todo.NOTHING)]
        detail = f"{found.name} is {found.status}"
        return [Item(WHAT, Todo.PERSON, detail, remedy(self.aws, found))]

    def act(self, tell: Tell) -> None:
        """Do nothing: AWS has no call for it."""
