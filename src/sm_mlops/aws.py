"""Clients and look-ups that several commands share. boto3 is imported when first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sm_mlops.errors import MlopsError, explained, one_line
from sm_mlops.settings import Settings

# Clients may be shared between threads; creating them may not.
_CREATING = threading.RLock()
# How services say that a resource does not exist; S3 has codes of its own.
ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException", "NoSuchEntity")
NO_OBJECT = ("NoSuchKey", "404")
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "UnauthorizedOperation",
)


def _signed_in(region: str) -> Any:
    """Return a session that has its credentials. Raises what `explained` words, else MlopsError.

    A profile may run a program, read files and ask services, each of which fails in its own way.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(region_name=region)
        if found := session.get_credentials():
            found.get_frozen_credentials()
    except Exception as error:
        if explained(error, region):
            raise
        profile = os.environ.get("AWS_PROFILE")
        of = f" as profile {profile}" if profile else ""
        kind = "" if isinstance(error, BotoCoreError) else f"{type(error).__name__}: "
        said = one_line(error)
        # A program may fail without a word.
        said += " it failed without a message" if said.endswith(":") else ""
        raise MlopsError(f"cannot sign in to AWS{of}: {kind}{said}") from error
    return session


@dataclass(frozen=True)
class Aws:
    """The account that this process is signed in to, with the settings of this repo."""

    settings: Settings
    sandbox: bool = False
    role: str = ""
    """The role to assume: an ARN, a name in the account of `source`, or empty."""
    source: Aws | None = None
    """The identity that assumes the role; None for the signed-in one."""
    ahead: float = 0.0
    """Seconds by which the clock of the sandbox is ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def client(
        self, service: str, attempts: int = 9, *, region: str = "", seconds: float = 60
    ) -> Any:
        """Return the client that tries a throttled or unanswered call up to `attempts` times.

        `region` is by default the project's; `seconds` limits each wait for the service.
        """
        from botocore.config import Config

        key = (service, attempts, region, seconds)
        with _CREATING:
            if key not in self._clients:
                config = Config(
                    retries={"mode": "adaptive", "total_max_attempts": attempts},
                    user_agent_extra="sm-mlops",
                    connect_timeout=seconds,
                    read_timeout=seconds,
                )
                new = self._session.client(service, config=config, region_name=region or None)
                self._clients[key] = new
            return self._clients[key]

    @cached_property
    def _clients(self) -> dict[tuple[str, int, str, float], Any]:
        return {}

    def as_role(self, arn: str) -> Aws:
        """Return the account of a role, which this identity assumes."""
        return replace(self, role=arn, source=self)

    @cached_property
    def _session(self) -> Any:
        region = self.settings.project.region
        session = self.source._session if self.source else _signed_in(region)
        if not self.role:
            return session
        import boto3
        import botocore.session
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        # botocore renews it: a session of a chained role ends after an hour, and a canary with
        # its bake time can take longer.
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=session.client,
            source_credentials=session.get_credentials(),
            role_arn=self._role_arn(session),
            extra_args={"RoleSessionName": f"mlops-{self.settings.project.project}"},
        )
        core = botocore.session.get_session()
        core._credentials = DeferredRefreshableCredentials(  # type: ignore[attr-defined]
            method="assume-role", refresh_using=fetcher.fetch_credentials
        )
        return boto3.Session(region_name=region, botocore_session=core)

    def _role_arn(self, session: Any) -> str:
        if self.role.startswith("arn:"):
            return self.role
        # This call needs no permission.
        account = session.client("sts").get_caller_identity()["Account"]
        return f"arn:{self.settings.partition}:iam::{account}:role/{self.role}"

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def runtime(self) -> Any:
        # A container may take 60 seconds: whoever gives up before sends the request again.
        return self.client("sagemaker-runtime", attempts=3, seconds=75)

    @cached_property
    def account(self) -> str:
        """Return the account number, 12 digits."""
        return str(self.client("sts").get_caller_identity()["Account"])

    @property
    def bucket(self) -> str:
        return self.settings.bucket(self.account)

    @property
    def command(self) -> str:
        """Return how to call `mlops` for this same account."""
        return "mlops --sandbox" if self.sandbox else "mlops"

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource in this account and region."""
        settings = self.settings
        place = f"{settings.partition}:{service}:{settings.project.region}:{self.account}"
        return f"arn:{place}:{resource}"

    def pages(
        self, operation: str, key: str, service: str = "sagemaker", **request: Any
    ) -> Iterator[Any]:
        """Yield the items under `key` of all pages of an operation that lists."""
        for page in self.client(service).get_paginator(operation).paginate(**request):
            yield from page.get(key, ())

    def log_lines(self, group: str, **request: Any) -> list[str]:
        """Return the messages of a CloudWatch log group, oldest first; [] without the group."""
        pages = self.client("logs").get_paginator("filter_log_events")
        with ignoring("ResourceNotFoundException"):
            return [
                event["message"].rstrip("\n")
                for page in pages.paginate(logGroupName=group, **request)
                for event in page["events"]
            ]
        return []


def error_code(error: Any) -> str:
    """Return the code of a botocore ClientError."""
    return str(error.response["Error"]["Code"])


@contextmanager
def ignoring(*codes: str) -> Iterator[None]:
    """Suppress AWS's errors with these codes, as contextlib.suppress does with exceptions."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error_code(error) not in codes:
            raise


def described(describe: Callable[..., Any], **request: str) -> dict[str, Any]:
    """Return what a describing operation answers; {} if the resource does not exist."""
    with ignoring(*ABSENT):
        return dict(describe(**request))
    return {}


def exists(describe: Callable[..., Any], **request: str) -> bool:
    """Return whether the resource that an operation describes exists."""
    return bool(described(describe, **request))


def split_s3(uri: str) -> tuple[str, str]:
    """Return bucket and key: `s3://bucket/some/key` → (`bucket`, `some/key`)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
