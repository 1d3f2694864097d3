"""A GitHub on this machine with people, a model repo under git, and everything that could be told:
what a test of the commands towards GitHub needs.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repos import Repo
from sm_mlops import github
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential
from sm_mlops.bootstrap.credential import Credential
from sm_mlops.bootstrap.plan import Part
from sm_mlops.bootstrap.push import Push
from sm_mlops.bootstrap.repository import Repository
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.github import GitHub
from sm_mlops.sandbox import versions
from standalone import Standalone

NAME = "acme/churn"
ENVIRONMENTS = {"train": "training", "staging": "staging", "production": "production"}
ROLES = {part: f"arn:aws:iam::123456789012:role/churn-github-{part}" for part in ENVIRONMENTS}
ROLE = ROLES["train"]
SECRETS = {part: f"sm-mlops/churn/github-{part}" for part in ENVIRONMENTS}
KEYS = {
    part: {
        "aws_access_key_id": f"AKIAKEY{number}",
        "aws_secret_access_key": f"canary-aws-secret-key-{number}",
    }
    for number, part in enumerate(ENVIRONMENTS)
}


def outputs_of(roles: dict[str, str] = ROLES, keyed: bool = False) -> dict[str, str]:
    """Return the outputs of the project's stack."""
    found = {f"{part.title()}RoleArn": role for part, role in roles.items()}
    secrets = {f"{part.title()}UserSecretArn": name for part, name in SECRETS.items()}
    return found | (secrets if keyed else {})


def add_people(server: Standalone, plan: str = "enterprise") -> None:
    """Ada, who administers the organisation acme; Bob, a member; Eve, a stranger."""
    accounts = server.github.accounts
    for login in ("ada", "bob", "eve"):
        accounts.add(login, plan=plan)
    accounts.add("acme", "Organization", plan=plan, ada="admin", bob="member")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@y.z", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(repo: Repo) -> None:
    """Put the repo under git, with a workflow."""
    workflow = repo.root / ".github" / "workflows" / "deploy.yml"
    workflow.parent.mkdir(parents=True, exist_ok=True)
    workflow.write_text("on: {workflow_dispatch: {}}\njobs: {}\n", encoding="utf-8")
    git(repo.root, "init", "-q", "-b", "main")
    git(repo.root, "add", "-A")
    git(repo.root, "commit", "-qm", "Begin")


def identify(repo: Repo, **values: str) -> Any:
    """Replace keys of `[tool.mlops]`: `identify(sign_in="iam-user")`."""
    file = repo.root / "pyproject.toml"
    lines = file.read_text(encoding="utf-8").splitlines()
    for name, value in values.items():
        key = name.replace("_", "-")
        lines = [line for line in lines if not line.startswith(f"{key} = ")]
        lines.append(f'{key} = "{value}"')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return repo.settings()


@dataclass
class World:
    """A person's repo, GitHub and account. `told` is what the parts have reported."""

    server: Standalone
    repo: Repo
    account: Aws
    token: str
    environment: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] | None = field(default_factory=outputs_of)
    typed: list[str] | None = None
    told: list[str] = field(default_factory=list)
    read: tuple[bytes, ...] = ()

    @property
    def aws(self) -> Aws:
        """As another command would find it: with the files as they are now."""
        files = (self.repo.root / "pyproject.toml", self.repo.root / "mlops.yaml")
        now = tuple(file.read_bytes() for file in files)
        if now != self.read:
            self.account, self.read = Aws(self.repo.settings()), now
        return self.account

    @property
    def hub(self) -> GitHub:
        """Signed in again, as by another command."""
        variables = {
            "GITHUB_TOKEN": self.token,
            "GITHUB_API_URL": self.server.api,
            "GITHUB_SERVER_URL": self.server.url,
        }
        return github.sign_in(variables)

    def parts(self) -> list[Part]:
        aws, hub = self.aws, self.hub
        typed = self.typed
        ask = None if typed is None else lambda line: typed.pop(0)
        return [
            Repository(aws.settings, hub),
            Credential(aws, hub, self.environment, ask),
            self.settings(aws, hub),
            Push(aws.settings, hub),
        ]

    def settings(self, aws: Aws | None = None, hub: GitHub | None = None) -> Settings:
        return Settings(aws or self.aws, hub or self.hub, lambda aws: self.outputs)

    def tell(self, line: str) -> None:
        self.told.append(line)

    def looked(self) -> list[str]:
        """Return every item as "todo what: detail"."""
        return [
            f"{item.todo} {item.what}" + (f": {item.detail}" if item.detail else "")
            for part in self.parts()
            for item in part.look()
        ]

    def act(self) -> list[str]:
        """Let all parts act; return what they report."""
        self.told = []
        for part in self.parts():
            part.act(self.tell)
        return self.told

    def record(self, name: str = NAME) -> Any:
        return self.server.github.store.get("GitHubRepository", name.lower())

    def secret(self) -> Any:
        """Return what the trigger would read."""
        client = self.aws.client("secretsmanager")
        return json.loads(client.get_secret_value(SecretId=credential.SECRET)["SecretString"])

    def state(self) -> Any:
        """Return the final state, without numbers and times."""
        record = self.record()
        routes = self.server.github.routes
        return {
            "repositories": sorted(self.server.github.store.all("GitHubRepository")),
            "private": record["private"],
            "variables": {k: v["value"] for k, v in record["_variables"].items()},
            "secrets": {name: routes.secret(NAME, name) for name in record["_secrets"]},
            "environments": {
                name: (
                    each["_reviewers"],
                    each["_bypass"],
                    each["_policy"],
                    [policy["name"] for policy in each["_policies"]],
                )
                for name, each in record["_environments"].items()
            },
            "of environments": {
                name: {
                    **{k: v["value"] for k, v in each.get("_variables", {}).items()},
                    **{k: routes.secret(NAME, k, name) for k in each.get("_secrets", {})},
                }
                for name, each in record["_environments"].items()
            },
            "branches": list(self.server.github.bare.branches(NAME)),
            "remote": git(self.repo.root, "remote", "get-url", "origin"),
            "credential": sorted(self.secret()),
        }

    def requests(self) -> list[str]:
        return [label for label, _ in self.server.github.requests]


def add_secrets(aws: Aws, key: bool = False) -> None:
    """Create the secrets of platform and project: the trigger's without a value, and the keys'."""
    versions.fix()
    client = aws.client("secretsmanager")
    client.create_secret(Name=credential.SECRET)
    if key:
        for part, name in SECRETS.items():
            client.create_secret(Name=name, SecretString=json.dumps(KEYS[part]))
