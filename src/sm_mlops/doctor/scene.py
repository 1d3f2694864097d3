"""What the checks share: clients, the platform's stack, findings, and how errors are reported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table

from sm_mlops import display, github, stacks
from sm_mlops.aws import DENIED, Aws, error_code
from sm_mlops.bootstrap.platform import STACK
from sm_mlops.errors import MlopsError, explained, one_line
from sm_mlops.github import GitHub, GitHubError
from sm_mlops.stacks import Stack

ATTEMPTS = 3


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of the table. `check` is set when a check has returned; `remedy` is a command or a
    URL."""

    check: str
    state: State
    detail: str
    remedy: str = ""


def ok(detail: str) -> Finding:
    return Finding("", State.OK, detail)


def warning(detail: str, remedy: str = "") -> Finding:
    return Finding("", State.WARNING, detail, remedy)


def failed(detail: str, remedy: str = "") -> Finding:
    return Finding("", State.FAILED, detail, remedy)


class Unknown(Exception):
    """The platform could not be read."""


class Scene:
    """The account and GitHub of one examination; thread-safe once `look_ahead` has returned."""

    def __init__(self, aws: Aws, environment: Mapping[str, str]) -> None:
        self.aws, self.environment = aws, environment
        self.hub: GitHub | None = None
        self.sign_in_problem: MlopsError | None = None
        self._stack: Stack | None = None
        self.problem: Exception | None = None
        try:
            self.hub = github.sign_in(environment, aws.settings.project.git_host)
        except MlopsError as error:
            self.sign_in_problem = error

    @property
    def bootstrap(self) -> str:
        """The command that fixes most things."""
        return f"{self.aws.command} bootstrap"

    def client(self, service: str) -> Any:
        """Return a client that gives up early: other checks are waiting."""
        return self.aws.client(service, attempts=ATTEMPTS)

    def look_ahead(self) -> None:
        """Read the platform's stack, for all checks that need it."""
        try:
            self._stack = stacks.describe(self.aws, STACK)
        except (BotoCoreError, ClientError) as error:
            self.problem = error

    @property
    def platform(self) -> Stack | None:
        """Its stack, None if it does not exist or is incomplete. Raise Unknown."""
        if self.problem is not None:
            raise Unknown
        stack = self._stack
        return stack if stack and stack.outputs.get("ArtifactBucket") else None

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs of the platform's stack. Raise Unknown."""
        return self.platform.outputs if self.platform else {}


def explain(error: Exception, region: str) -> Finding:
    """Return the finding for an error of AWS or GitHub in a check. Raise a bug again."""
    if isinstance(error, ClientError) and error_code(error) in DENIED:
        return warning(f"not checked: you lack the permission {lacking(error)}")
    if isinstance(error, GitHubError) and not error.status:
        return warning(f"not checked: {error}")
    if isinstance(error, MlopsError):
        return failed(str(error))
    if isinstance(error, BotoCoreError | ClientError):
        return warning(f"not checked: {explained(error, region) or one_line(error)}")
    raise error


def lacking(error: Any) -> str:
    """Return the action that an error of AWS refuses, as policies name it."""
    message = error.response["Error"].get("Message", "")
    found = re.search(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z0-9]+)", message)
    return found[1] if found else str(error.operation_name)


def table(findings: Iterable[Finding]) -> Table:
    """Return the table of all findings, each remedy below its finding."""
    view = display.table()
    for heading in ("", "check"):
        view.add_column(heading, no_wrap=True)
    # Folded, not cut: it has URLs and commands to copy.
    view.add_column("", overflow="fold")
    for item in findings:
        view.add_row(display.colored(item.state), item.check, item.detail)
        if item.remedy:
            view.add_row("", "", f"-> {item.remedy}")
    return view
