"""The parameters of the platform's stack: what this repo needs and what a person has set.

Lists only grow here: each repo adds to what the others have added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sm_mlops import platform, templates
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import needs
from sm_mlops.deployment import access, stages
from sm_mlops.errors import MlopsError, hint

TEMPLATE = "platform.yml"
CONNECTION = "sm-mlops"
ISSUER = "token.actions.githubusercontent.com"
# Roles that may create projects, in slots of the template.
ROLES, SLOTS = "StudioRoleArns", 5
# Those that only bootstrap sets.
OWN = ("TemplateVersion", "AssetsPrefix", "HasLayer", "FirstAssetsPrefix")


@dataclass(frozen=True)
class Parameters:
    """`options` are those of the command line, by name."""

    aws: Aws
    options: Mapping[str, str]

    @property
    def template(self) -> Path:
        """The platform's template."""
        return platform.FOLDER / TEMPLATE

    @cached_property
    def declared(self) -> dict[str, dict[str, Any]]:
        """The parameters of the template, by name."""
        return templates.parameters(self.template)

    @cached_property
    def _given(self) -> dict[str, str]:
        """The parameters of the command line. Raise MlopsError for an illegal one."""
        free = [name for name in self.declared if name not in OWN]
        for name, value in self.options.items():
            if name not in free:
                raise MlopsError(f"--platform {name}: {hint(name, free)}")
            stages.check(self.declared[name], value, f"--platform {name}")
            if name == ROLES and len({*needs.items(value)} - {needs.FREE}) > SLOTS:
                raise MlopsError(f"--platform {name}: at most {SLOTS} roles")
        return dict(self.options)

    def wanted(self, had: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters that this repo or the command line determines.

        Args:
            had: The parameters of the platform as it is; empty if there is none.
        """
        project, wanted = self.aws.settings.project, dict(self._given)
        for name, needed in self._needed.items():
            before = wanted.get(name, had.get(name, ""))
            wanted[name] = needs.merged(before, needed, ignore_case=name == "AllowedOwners")
        if ROLES in wanted:
            wanted[ROLES] = needs.in_place(had.get(ROLES, ""), needs.items(wanted[ROLES]))
        if not had:
            wanted = self._first() | wanted
        elif had.get("OidcProviderArn") == "none" and not project.uses_key:
            wanted.setdefault("OidcProviderArn", self._oidc_provider)
        return wanted

    def changes(self, had: Mapping[str, str]) -> list[str]:
        """Return how the parameters differ from those of the platform, in words."""
        lines = []
        for name, value in self.wanted(had).items():
            declared = self.declared[name]
            now = had.get(name, str(declared.get("Default", "")))
            if value == now:
                continue
            shown = value or "empty"
            if declared["Type"] == "CommaDelimitedList":
                new, old = needs.items(value), needs.items(now)
                added = [f"+ {item}" for item in new if item not in old]
                # What a wider item covers is not taken away.
                kept = [item for item in old if any(needs.covers(wide, item) for wide in new)]
                removed = [f"- {item}" for item in old if item not in (*new, *kept, needs.FREE)]
                shown = " ".join([*added, *removed]) or shown
            lines.append(f"{name} {shown}")
        return lines

    @cached_property
    def _needed(self) -> dict[str, tuple[str, ...]]:
        return {
            "AllowedOwners": (self.aws.settings.project.github.partition("/")[0],),
            "DeploymentAccounts": access.foreign_accounts(self.aws),
            "DataLocations": needs.data_locations(self.aws),
            "KeyArns": needs.key_arns(self.aws),
        }

    def _first(self) -> dict[str, str]:
        """Return parameters that only a new platform is given. Raise MlopsError."""
        project = self.aws.settings.project
        found = {
            "BucketName": self.aws.settings.aws.bucket or "",
            "OidcProviderArn": "none" if project.uses_key else self._oidc_provider,
            "ConnectionArn": self._connection,
        }
        if project.git_host == "github.com":
            return found
        named = {"ConnectionHostArn", "ConnectionArn"} & set(self._given)
        if not named and not found["ConnectionArn"]:
            raise MlopsError(
                f"{project.git_host} needs a CodeConnections host: create one in "
                "the AWS console and pass --platform ConnectionHostArn=arn:..."
            )
        api = f"https://{project.git_host}/api/v3"
        return found | {"GitHost": project.git_host, "GitHubApiUrl": api}

    @cached_property
    def _oidc_provider(self) -> str:
        """The account's provider of GitHub; empty if the platform creates it."""
        listed = self.aws.client("iam").list_open_id_connect_providers()
        arns = [str(item["Arn"]) for item in listed["OpenIDConnectProviderList"]]
        return next((arn for arn in arns if arn.endswith(f"/{ISSUER}")), "")

    @cached_property
    def _connection(self) -> str:
        """The connection with the platform's name, which is unique in an account."""
        name = self._given.get("ConnectionName", CONNECTION)
        more: dict[str, str] = {}
        while True:
            answer = self.aws.client("codeconnections").list_connections(**more)
            for item in answer["Connections"]:
                if item["ConnectionName"] == name:
                    return str(item["ConnectionArn"])
            if not answer.get("NextToken"):
                return ""
            more = {"NextToken": answer["NextToken"]}
