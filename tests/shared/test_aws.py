"""The identity whose permissions a command uses."""

from __future__ import annotations

import json
from dataclasses import replace

import boto3
import pytest

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.settings import Project

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}


def who(aws: Aws) -> str:
    return str(aws.client("sts").get_caller_identity()["Arn"])


@pytest.fixture
def roles(account: Aws) -> None:
    for name in ("churn-github", "elsewhere"):
        boto3.client("iam", region_name="eu-west-1").create_role(
            RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST)
        )


def test_a_role_named_without_its_account_is_one_of_the_account_signed_in_to(
    repo: Repo, roles: None
) -> None:
    aws = Aws(repo.settings(), role="churn-github")
    assert who(aws) == f"arn:aws:sts::{aws.account}:assumed-role/churn-github/mlops-churn"


def test_a_role_elsewhere_is_assumed_as_the_role_that_was_assumed_before(
    repo: Repo, roles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Aws(repo.settings(), role="churn-github")
    second = first.as_role(f"arn:aws:iam::{first.account}:role/elsewhere")
    assert "/elsewhere/" in who(second)
    assert second.source is first and "/churn-github/" in who(first)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({}, False),
        ({"sign_in": "iam-user"}, True),
        ({"ci": "jenkins"}, True),
        ({"git_host": "git.acme.org"}, True),
    ],
)
def test_a_key_is_used_where_aws_cannot_trust_the_server(
    repo: Repo, change: dict[str, str], key: bool
) -> None:
    project: Project = replace(repo.settings().project, **change)
    assert project.uses_key is key
    assert project.repository == f"https://{change.get('git_host', 'github.com')}/acme/churn"
