"""An endpoint as read from SageMaker's answers, even incomplete ones."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from repos import Repo
from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.deployment import endpoints
from sm_mlops.stacks import Stack

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class SageMaker:
    """A SageMaker with one endpoint and nothing else."""

    def __init__(self, **answer: Any) -> None:
        self.answer: dict[str, Any] = {"EndpointArn": "arn", "EndpointStatus": "Failed"}
        self.answer |= {"CreationTime": NOW, "LastModifiedTime": NOW}
        self.answer |= answer
        self.names: list[str] = []

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        return self.answer

    def describe_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:
        if not EndpointConfigName.isalnum():
            raise refused("1 validation error detected: must satisfy regular expression pattern")
        raise refused(f'Could not find endpoint configuration "arn:{EndpointConfigName}".')

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_endpoints"
        return self

    def paginate(self, NameContains: str) -> list[dict[str, Any]]:
        found = [name for name in self.names if NameContains in name]
        return [{"Endpoints": [{"EndpointName": name} for name in found]}]


def refused(message: str) -> ClientError:
    error = {"Code": "ValidationException", "Message": message}
    return ClientError({"Error": error}, "Describe")  # type: ignore[typeddict-item]


def aws(repo: Repo, service: SageMaker, monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.setattr(Aws, "client", lambda *_: service)
    return Aws(repo.settings())


@pytest.mark.parametrize("answer", [{}, {"EndpointConfigName": "gone"}])
def test_a_failed_endpoint_without_a_configuration_can_be_described(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, answer: dict[str, str]
) -> None:
    service = SageMaker(FailureReason="no\ncapacity", **answer)
    found = endpoints.describe(aws(repo, service, monkeypatch), "churn-qa")
    assert found is not None
    assert (found.status, found.reason, found.version) == ("Failed", "no capacity", None)


def test_a_stage_of_this_project_whose_file_is_gone_is_found(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stack(name: str, project: str, stage: str) -> Stack:
        given = {"Project": project, "Stage": stage, "EndpointKind": "serverless"}
        return Stack(name, "arn", "CREATE_COMPLETE", parameters=given)

    made = {
        "churn-bulk": stack("churn-bulk", "churn", "bulk"),
        "churn-bulk-watch": stack("churn-bulk-watch", "churn", "bulk"),
        "churn-half-watch": stack("churn-half-watch", "churn", "half"),
        "churn-qa": stack("churn-qa", "churn", "qa"),
        "churn-staging": stack("churn-staging", "churn", "staging"),
        "churn-eu-qa": stack("churn-eu-qa", "churn-eu", "qa"),
        "big-churn-qa": stack("big-churn-qa", "big-churn", "qa"),
    }
    service = SageMaker()
    service.names = [*(n for n in made if "bulk" not in n and "half" not in n), "churn-by-hand"]
    monkeypatch.setattr(stacks, "describe", lambda aws, name: made.get(name))
    monkeypatch.setattr(stacks, "names", lambda aws: [*made][::-1])
    account = aws(repo, service, monkeypatch)

    def found(name: str = "") -> list[tuple[str, str, str]]:
        return [(s.name, s.stack, s.kind) for s in endpoints.forgotten(account, name)]

    qa = ("qa", "churn-qa", "serverless")
    # A stage that is batch only has no endpoint, and its schedule may outlive its model.
    bulk, half = (("bulk", "churn-bulk", "serverless"), ("half", "churn-half", "serverless"))
    assert found() == [bulk, half, qa]
    assert found("half") == [half]
    assert [found(name) for name in ("bulk-watch", "eu-qa", "staging")] == [[], [], []]

    def refuse(aws: Aws) -> None:
        error: Any = {"Code": "AccessDenied", "Message": "not authorized"}
        raise ClientError({"Error": error}, "DescribeStacks")

    monkeypatch.setattr(stacks, "names", refuse)
    assert found() == [qa]
