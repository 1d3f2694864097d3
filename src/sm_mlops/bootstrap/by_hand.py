"""What only a person can do: authorize the connection to GitHub in the AWS console, and put the
tool where workflows can get it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import platform
from sm_mlops.bootstrap.plan import Item, Part, Todo
from sm_mlops.github import GitHub
from sm_mlops.settings import Settings
from sm_mlops.upgrade import pin as pins

WHAT = "authorization of the GitHub connection"


def connection(aws: Aws) -> dict[str, str] | None:
    """Return the platform's connection as GetConnection describes it; None without a platform."""
    arn = (platform.outputs(aws) or {}).get("ConnectionArn")
    if not arn:
        return None
    # The service was renamed; older connections have ARNs with its former name.
    return dict(aws.client(arn.split(":")[2]).get_connection(ConnectionArn=arn)["Connection"])


def how_to_authorize(aws: Aws, found: dict[str, str]) -> str:
    """Return how a person authorizes it."""
    if aws.sandbox:
        return f"mlops sandbox authorize {found['ConnectionName']}"
    arn = found["ConnectionArn"]
    region, identifier = arn.split(":")[3], arn.rpartition("/")[2]
    gov = aws.settings.partition == "aws-us-gov"
    domain = "console.amazonaws-us-gov.com" if gov else "console.aws.amazon.com"
    return (
        f"https://{region}.{domain}/codesuite/settings/{aws.account}/{region}/"
        f"codeconnections/connections/{identifier}"
    )


@dataclass
class Connection(Part):
    """A part of the plan that only looks: AWS has no call to authorize a connection."""

    aws: Aws

    def look(self) -> list[Item]:
        found = connection(self.aws)
        if found is None:
            return [Item(WHAT, Todo.PERSON, "once the platform exists")]
        if found["ConnectionStatus"] == "AVAILABLE":
            return [Item(WHAT, Todo.NOTHING)]
        detail = f"{found['ConnectionName']} is {found['ConnectionStatus']}"
        return [Item(WHAT, Todo.PERSON, detail, how_to_authorize(self.aws, found))]


@dataclass
class Tool(Part):
    """A part of the plan, empty unless the workflows of this repo need a wheel in `vendor/`."""

    settings: Settings
    hub: GitHub

    def look(self) -> list[Item]:
        problem = self.problem()
        what = "workflow access to the tool"
        how = "mlops vendor, then commit vendor/ and tool.txt"
        return [Item(what, Todo.PERSON, problem, how)] if problem else []

    def problem(self) -> str:
        """Return why workflows cannot get the tool; "" if they can, or if that is unknown.

        The token of a workflow reads the workflow's own repository and public ones. What agents of
        Jenkins can reach is unknown.
        """
        project = self.settings.project
        if project.ci == "jenkins" or not (self.settings.root / pins.FILE).exists():
            return ""
        address = pins.read(self.settings.root).address
        found = re.fullmatch(r"(\w+)://(?:\w+@)?([^/:]+)(?::\d+)?/(.+?)(?:\.git)?", address)
        if not found:
            return ""
        scheme, host, name = found.groups()
        if scheme == "ssh":
            return f"{host} is reached over SSH, and workflows have no SSH key"
        if host != project.git_host or name == project.github:
            return ""
        there = self.hub.repository(name)
        if there is not None and there.private:
            return f"{name} is private, and a workflow's token cannot clone it"
        return ""
