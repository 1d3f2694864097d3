"""Clients and the few look-ups that several commands share. boto3 is imported when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sm_mlops.settings import Settings

# Clients may be shared between threads, making them may not.
_MAKING = threading.RLock()
# How services say that there is no such thing.
ABSENT = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException", "NoSuchEntity")


@dataclass(frozen=True)
class Aws:
    """The account that this process is signed in to, seen through the settings of this repo."""

    settings: Settings
    sandbox: bool = False
    role: str = ""
    """ARN of a role to work as, or its name in the account of `source`; empty: as the signed-in
    identity."""
    source: Aws | None = None
    """Whose identity assumes the role; None: the signed-in one."""

    def client(self, service: str, attempts: int = 9) -> Any:
        """A client that makes so many attempts at a call that AWS does not answer or turns down."""
        with _MAKING:
            return self._session.client(service, config=self._config(attempts))

    def as_role(self, arn: str) -> Aws:
        """The account of this role, which may be another one."""
        return replace(self, role=arn, source=self)

    @cached_property
    def _session(self) -> Any:
        import boto3

        region = self.settings.project.region
        session = self.source._session if self.source else boto3.Session(region_name=region)
        if not self.role:
            return session
        import botocore.session
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        # Renewed by botocore: assumed from another role a session ends after an hour, which a
        # canary with its bake time can outlast.
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
        # Nobody needs a right to ask this.
        account = session.client("sts").get_caller_identity()["Account"]
        return f"arn:{self.settings.partition}:iam::{account}:role/{self.role}"

    def _config(self, attempts: int) -> Any:
        from botocore.config import Config

        retries = {"mode": "adaptive", "total_max_attempts": attempts}
        return Config(retries=retries, user_agent_extra="sm-mlops")  # type: ignore[arg-type]

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def runtime(self) -> Any:
        return self.client("sagemaker-runtime")

    @cached_property
    def account(self) -> str:
        """12 digits."""
        return str(self.client("sts").get_caller_identity()["Account"])

    @property
    def bucket(self) -> str:
        return self.settings.bucket(self.account)

    @property
    def command(self) -> str:
        """How a person calls `mlops` to reach this same account."""
        return "mlops --sandbox" if self.sandbox else "mlops"

    def pages(self, operation: str, key: str, **request: Any) -> Iterator[dict[str, Any]]:
        """The items under `key` of all pages of a SageMaker list operation."""
        for page in self.sagemaker.get_paginator(operation).paginate(**request):
            yield from page[key]


def error_code(error: Any) -> str:
    """The code of a botocore ClientError."""
    return str(error.response["Error"]["Code"])


def exists(describe: Callable[..., Any], **request: str) -> bool:
    """Whether there is what an operation describes."""
    from botocore.exceptions import ClientError

    try:
        describe(**request)
    except ClientError as error:
        if error_code(error) not in ABSENT:
            raise
        return False
    return True


def split_s3(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/key` → (`bucket`, `some/key`)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
