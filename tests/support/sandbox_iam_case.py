"""Roles and users of a sandbox's account, and what they are refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import Wired
from sandbox_cases import policy

ACCOUNT = "123456789012"
HERE = f"arn:aws:iam::{ACCOUNT}"
WHO = f"arn:aws:sts::{ACCOUNT}:assumed-role/poor/session"
ANYBODY = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


class Account(Wired):
    """An account whose administrator makes roles and users and tries what they may."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.keys: dict[str, Any] = {}
        super().__init__(variables)

    def may(self, name: str, *statements: dict[str, Any], **more: Any) -> Account:
        """Return the account as a new role sees it that has these statements; one that the
        account may take."""
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(ANYBODY), **more)
        if statements:
            document = policy(*statements)
            self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
        return self.take(name)

    def take(self, name: str, **more: Any) -> Account:
        taken = self.client("sts").assume_role(
            RoleArn=f"{HERE}:role/{name}", RoleSessionName="session", **more
        )
        return self.as_(taken["Credentials"])

    def as_(self, keys: dict[str, Any]) -> Account:
        _ = self.logs, self.events, self.sqs  # stay the administrator's
        other = copy.copy(self)
        other.keys = {
            "aws_access_key_id": keys["AccessKeyId"],
            "aws_secret_access_key": keys["SecretAccessKey"],
            "aws_session_token": keys.get("SessionToken"),
        }
        for name in ("s3", "sagemaker", "iam", "functions"):
            other.__dict__.pop(name, None)
        return other

    def client(self, service: Any) -> Any:
        return self._session.client(service, endpoint_url=self.url, **self.keys)


def error(call: Any, **request: Any) -> tuple[str, int, str]:
    """Return code, status and message of a refusal."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    answer = caught.value.response
    told = answer["Error"]
    return told["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], told["Message"]
