"""From an approval to a run on GitHub: registry, rule, function, secret and GitHub together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connected_case import commit
from fault_injection import inject_github
from function_cases import MAY, Wired, until
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

TRIGGER = """
import json, os, urllib.error, urllib.request
import boto3

def handler(event, context):
    arn = event["detail"]["ModelPackageArn"]
    package = boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)
    if package["ModelApprovalStatus"] != "Approved":
        return "not approved"
    secret = boto3.client("secretsmanager").get_secret_value(SecretId="sm-mlops/github")
    repository = package["MetadataProperties"]["Repository"].removeprefix("https://github.com/")
    body = {"ref": "main", "inputs": {"model-package-arn": arn}}
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API']}/repos/{repository}/actions/workflows/deploy.yml/dispatches",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {secret['SecretString']}", "User-Agent": "trigger"},
    )
    with urllib.request.urlopen(request) as answer:
        return answer.status
"""
WORKFLOW = """
on:
  workflow_dispatch:
    inputs:
      model-package-arn: {required: true, type: string}
jobs: {}
"""
APPROVED = {"source": ["aws.sagemaker"], "detail": {"ModelApprovalStatus": ["Approved"]}}


class Account(Wired):
    """An account whose approvals start runs on the sandbox's GitHub."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.environment())
        self.github = server.github

    def connect(self, server: Server) -> Account:
        self.prepare()
        accounts = server.github.accounts
        accounts.add("ada")
        accounts.add("acme", "Organization", ada="admin")
        server.github.routes.add("acme", "churn")
        commit(server, "acme/churn", ".github/workflows/deploy.yml", WORKFLOW)
        token = accounts.fine_grained("ada", "acme", ["churn"], actions="write")
        self.client("secretsmanager").create_secret(Name="sm-mlops/github", SecretString=token)
        policy = json.loads(json.dumps(MAY))
        policy["Statement"][0]["Action"] += ["sagemaker:*", "secretsmanager:*"]
        self.dead = self.queue("dead")
        function = self.function(
            "trigger",
            TRIGGER,
            Role=self.role("trigger", policy),
            Timeout=20,
            MemorySize=256,
            # The address on the internet: the sandbox leads it to its own GitHub.
            Environment={"Variables": {"GITHUB_API": "https://api.github.com"}},
        )
        self.functions.put_function_event_invoke_config(
            FunctionName="trigger", DestinationConfig={"OnFailure": {"Destination": self.dead}}
        )
        self.permit("trigger", self.rule("approved", APPROVED, function))
        return self

    def approved(self) -> str:
        metadata = {"Repository": "https://github.com/acme/churn", "CommitId": "abc"}
        arn = self.version(MetadataProperties=metadata)
        self.approve(arn)
        return arn

    def runs(self) -> list[dict[str, Any]]:
        return self.github.routes.runs_of("acme/churn")

    def dispatches(self) -> list[int]:
        return [status for label, status in self.github.requests if "/dispatches" in label]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "eu-west-1") as server:
        yield server


def test_an_approval_starts_the_workflow_with_the_approved_version(server: Server) -> None:
    account = Account(server).connect(server)
    arn = account.approved()
    run = until(account.runs)[0]
    assert run["inputs"] == {"model-package-arn": arn}
    assert run["event"] == "workflow_dispatch" and run["head_branch"] == "main"
    assert account.github.accounts.actor("").kind == "nobody"
    assert "ghp_" not in account.log("trigger") and "github_pat_" not in account.log("trigger")


def test_a_github_that_fails_once_is_asked_again(server: Server) -> None:
    account = Account(server).connect(server)
    inject_github(server.github, "POST */dispatches", 429, headers={"Retry-After": "1"})
    account.approved()
    until(lambda: account.dispatches() == [429, 204])
    assert len(account.runs()) == 1 and account.messages(account.dead) == []


def test_a_github_that_keeps_failing_leaves_the_event_in_the_dead_letters(server: Server) -> None:
    account = Account(server).connect(server)
    inject_github(server.github, "POST */dispatches", 503, times=3)
    arn = account.approved()
    letter = until(lambda: account.messages(account.dead))[0]
    assert json.loads(letter["Body"])["requestPayload"]["detail"]["ModelPackageArn"] == arn
    assert account.dispatches() == [503, 503, 503] and account.runs() == []


def test_after_a_restart_on_another_port_approvals_still_arrive(tmp_path: Path) -> None:
    with Server(tmp_path / "x", "eu-west-1") as server:
        Account(server).connect(server)
    with Server(tmp_path / "x", "eu-west-1") as server:
        account = Account(server)
        account.approved()
        assert len(until(account.runs)) == 1
