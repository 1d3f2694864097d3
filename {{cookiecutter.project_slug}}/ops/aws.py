"""Clients and the few look-ups that several commands share. boto3 is imported when first needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.settings import Settings


@dataclass(frozen=True)
class Aws:
    """The account that this process is signed in to, seen through the settings of this repo."""

    settings: Settings
    sandbox: bool = False

    def client(self, service: str) -> Any:
        return self._session.client(service, config=self._config)

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.Session(region_name=self.settings.project.region)

    @cached_property
    def _config(self) -> Any:
        from botocore.config import Config

        return Config(retries={"mode": "adaptive", "max_attempts": 8}, user_agent_extra="sm-mlops")

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

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


def split_s3(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/key` → (`bucket`, `some/key`)."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
