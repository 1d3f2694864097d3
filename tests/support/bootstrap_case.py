"""A repo, an empty account and GitHub, for tests of `mlops bootstrap`."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from github_case import identify
from repos import Repo, bare_environment, make_repo
from sandbox_cases import policy
from sm_mlops import platform as package
from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import catalog, plan, project
from sm_mlops.bootstrap.by_hand import Connection
from sm_mlops.bootstrap.platform import Options, Platform
from sm_mlops.bootstrap.project import Project
from sm_mlops.cli import main as cli
from sm_mlops.github import GitHub, sign_in
from sm_mlops.sandbox import Server, client, grants
from sm_mlops.sandbox.iam import objects

OWNER, NAME, PERSON = "acme", "churn", "you"
REGION, ACCOUNT = "eu-west-1", "123456789012"
BUCKET = f"sm-mlops-{ACCOUNT}-{REGION}"
# Calls that change nothing, by how their names begin, and what only answers.
READS = ("Get", "List", "Describe", "Head", "Search", "Validate", "Simulate", "Lookup")


class Killed(BaseException):
    """The process has ended here."""


@dataclass
class Land:
    """A sandbox with a repo's account in it and the repo's owner on its GitHub. `calls` are the
    names of all operations that the parts asked AWS for."""

    server: Server
    repo: Repo
    aws: Aws
    hub: GitHub
    environment: pytest.MonkeyPatch
    calls: list[str] = field(default_factory=list)
    kill_after: int = 0
    """Kill the process, as it were, when so many writing calls have been answered; 0: never."""

    def part(self, kind: type[Any], **options: Any) -> Any:
        """Return a new part, as another process would make it."""
        chosen = Options(**options)
        if kind is Platform:
            return Platform(self.aws, chosen)
        return Project(self.aws, self.hub, chosen) if kind is Project else Connection(self.aws)

    def parts(self, **options: Any) -> list[plan.Part]:
        """Return the parts of AWS in their order."""
        return [self.part(kind, **options) for kind in (Platform, Connection, Project)]

    def act(self, **options: Any) -> list[str]:
        """Let all parts act; return what they reported."""
        told: list[str] = []
        plan.carry_out(self.parts(**options), told.append)
        return told

    def open(self, **options: Any) -> list[plan.Item]:
        """Return what is still to be done, without what is for a person."""
        return [item for item in plan.look(self.parts(**options)) if plan.is_work(item)]

    def release(self, version: str) -> None:
        """Use a tool of another version from now on."""
        self.environment.setattr(package, "version", lambda: version)

    def reword(self, name: str, before: str, after: str) -> None:
        """Use a tool with another word in one of the platform's files from now on."""
        edited = self.repo.root.parent / "edited platform"
        if edited != package.FOLDER:
            shutil.copytree(package.FOLDER, edited)
            self.environment.setattr(package, "FOLDER", edited)
        text = (edited / name).read_text(encoding="utf-8")
        assert before in text
        (edited / name).write_text(text.replace(before, after), encoding="utf-8")

    def again(self) -> None:
        """Read the repo's files again."""
        self.aws = self.account(self.repo)

    def account(self, repo: Repo) -> Aws:
        """Return the account as a repo sees it, with its calls noted."""
        aws = Aws(repo.settings(), sandbox=True)
        aws._session.events.register("before-call", self._note)
        aws._session.events.register("after-call", self._maybe_kill)
        return aws

    def _note(self, model: Any, **_: Any) -> None:
        self.calls.append(model.name)

    def _maybe_kill(self, model: Any, **_: Any) -> None:
        # The service has done it, but the answer is lost.
        written = not model.name.startswith(READS)
        if written and len(self.writes) == self.kill_after:
            self.kill_after = 0
            raise Killed(model.name)

    def be_strict(self) -> None:
        """Let AWS forbid what is missing, and see grants and roles later than they are made; go on
        as a role that may do everything, but needs a grant of Service Catalog.

        Always on: a bucket has one policy, nothing is replaced under its name, tags are checked on
        creation, and CloudFormation reads a secret that it updates."""
        for place, name, value in (
            (catalog, "POLL_SECONDS", 0.01),
            (project, "ROLE_SECONDS", 0.01),
            # As they are, to be so again afterwards.
            (objects, "AS_LISTED", objects.AS_LISTED),
            (grants, "LATE", grants.LATE),
        ):
            self.environment.setattr(place, name, value)
        self.server.integrations.be_strict()
        statement = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam = self.aws.client("iam")
        role = iam.create_role(RoleName="admin", AssumeRolePolicyDocument=policy(statement))["Role"]
        iam.put_role_policy(RoleName="admin", PolicyName="all", PolicyDocument=policy(everything))
        self.aws = self.aws.as_role(role["Arn"])

    @property
    def writes(self) -> list[str]:
        return [name for name in self.calls if not name.startswith(READS)]

    def neighbour(self, name: str) -> Land:
        """Return the same land as another repo of the same owner sees it."""
        repo = make_repo(self.repo.root.parent / name)
        file = repo.root / "pyproject.toml"
        file.write_text(
            (self.repo.root / "pyproject.toml").read_text().replace(NAME, name), encoding="utf-8"
        )
        self.server.github.routes.add(OWNER, name)
        other = Land(self.server, repo, self.aws, self.hub, self.environment)
        other.again()
        return other


def mlops_here(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `mlops` as `conftest.mlops` does, but in this process, which has everything imported."""
    # With a buffer of bytes below, as a process has.
    said, told = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: Any = 0
    with (
        chdir(folder),
        patch.dict(os.environ, bare_environment(folder) | environment, clear=True),
        patch.object(sys, "argv", ["mlops", *arguments]),
        redirect_stdout(said),
        redirect_stderr(told),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    texts = []
    for stream in (said, told):
        stream.seek(0)
        texts.append(stream.read())
    return subprocess.CompletedProcess(arguments, code, *texts)


def items(found: list[plan.Item]) -> dict[str, str]:
    """Return what becomes of each thing."""
    return {item.what: str(item.todo) for item in found}


@contextmanager
def land(
    folder: Path, environment: pytest.MonkeyPatch, token: str = "", **identity: str
) -> Iterator[Land]:
    """Start a sandbox and sign in to its account and its GitHub; with a token, the sandbox has been
    there before. `identity` are values of `[tool.mlops]`."""
    repo = make_repo(folder / NAME)
    identify(repo, **identity)
    # What is waited for is done in a moment here; asking more often would only slow it down.
    environment.setattr(stacks, "pause", lambda began: 0.06)
    region = identity.get("region", REGION)
    with Server(folder / "server", region) as server:
        sign_in_there(server, environment, region)
        if not token:
            server.github.accounts.add(PERSON)
            server.github.accounts.add(OWNER, "Organization", **{PERSON: "admin"})
            server.github.routes.add(OWNER, NAME)
            token = server.github.accounts.token(PERSON, "repo", "workflow", "read:org")
        environment.setenv("GITHUB_TOKEN", token)
        found = Land(server, repo, Aws(repo.settings()), sign_in(os.environ), environment)
        found.release("0.1.0")
        found.again()
        yield found


@dataclass(frozen=True)
class Kept:
    """A sandbox that was left, to be entered again and again from how it was."""

    folder: Path
    token: str

    @contextmanager
    def entered(
        self, folder: Path, environment: pytest.MonkeyPatch, **identity: str
    ) -> Iterator[Land]:
        """Enter a copy."""
        shutil.copytree(self.folder / "server", folder / "server")
        with land(folder, environment, self.token, **identity) as found:
            yield found


def connected_once(folder: Path, **identity: str) -> Kept:
    """Make platform and project, and leave."""
    with (
        pytest.MonkeyPatch.context() as environment,
        land(folder, environment, **identity) as found,
    ):
        found.act()
        return Kept(folder, found.hub.token)


def sign_in_there(server: Server, environment: pytest.MonkeyPatch, region: str = REGION) -> None:
    """Lead the AWS clients and GitHub's of this process to a server."""
    port = int(server.url.rpartition(":")[2])
    variables: Mapping[str, str] = client.environment(server.folder, port, region)
    for name, value in variables.items():
        if value:
            environment.setenv(name, value)
        else:
            environment.delenv(name, raising=False)
