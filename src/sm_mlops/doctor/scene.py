"""What the checks share: clients, what is known of the platform, and the words for what could not
be looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sm_mlops import stacks
from sm_mlops.aws import Aws, error_code
from sm_mlops.doctor.finding import Finding, failed, warning
from sm_mlops.errors import MlopsError, explained
from sm_mlops.github import GitHub, GitHubError
from sm_mlops.stacks import Stack

ATTEMPTS = 3
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "UnauthorizedOperation",
)


class Unknown(Exception):
    """The platform could not be looked at."""


class Scene:
    """Of one examination; safe for threads once `look_ahead` has returned."""

    def __init__(self, aws: Aws, environment: Mapping[str, str]) -> None:
        self.aws, self.environment = aws, environment
        self.hub: GitHub | None = None
        self.sign_in_problem: MlopsError | None = None
        self._stack: Stack | None = None
        self.problem: Exception | None = None
        from sm_mlops import github

        try:
            self.hub = github.sign_in(environment, aws.settings.project.git_host)
        except MlopsError as error:
            self.sign_in_problem = error

    @property
    def bootstrap(self) -> str:
        """The command that mends most things."""
        return f"{self.aws.command} bootstrap"

    def client(self, service: str) -> Any:
        """A client that gives up early: others wait to be looked at."""
        return self.aws.client(service, attempts=ATTEMPTS)

    def look_ahead(self) -> None:
        """Looks at the platform, for all checks that need it."""
        from botocore.exceptions import BotoCoreError, ClientError

        from sm_mlops.bootstrap.platform import STACK

        try:
            self._stack = stacks.describe(self.aws, STACK)
        except (BotoCoreError, ClientError) as error:
            self.problem = error

    @property
    def platform(self) -> Stack | None:
        """Its stack, None where there is none or only a beginning. Raises Unknown."""
        if self.problem is not None:
            raise Unknown
        stack = self._stack
        return stack if stack and stack.outputs.get("ArtifactBucket") else None


def told(check: str, error: Exception, region: str) -> Finding | None:
    """What becomes of an error of AWS or GitHub in a check; None when it is a bug."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError) and error_code(error) in DENIED:
        return warning(check, f"not looked at: you lack the right {lacking(error)}")
    if isinstance(error, GitHubError) and not error.status:
        return warning(check, f"not looked at: {error}")
    if isinstance(error, MlopsError):
        return failed(check, str(error))
    if isinstance(error, BotoCoreError | ClientError):
        line = explained(error, region) or " ".join(str(error).split())
        return warning(check, f"not looked at: {line}")
    return None


def lacking(error: Any) -> str:
    """The action that an error of AWS refuses, as policies name it."""
    message = error.response["Error"].get("Message", "")
    found = re.search(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z0-9]+)", message)
    return found[1] if found else str(error.operation_name)
