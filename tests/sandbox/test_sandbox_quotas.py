"""Service Quotas in the sandbox: the limits of a new account, under AWS's own names and codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sandbox_cases import World
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quotas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Server(tmp_path_factory.mktemp("quotas"), "eu-west-1") as server:
        yield World(server.environment()).client("service-quotas")


@pytest.mark.parametrize(
    ("service", "code", "limit"),
    [("sagemaker", "L-E8EADE50", 500), ("events", "L-244521F2", 300), ("iam", "L-FE177D64", 1000)],
)
def test_a_limit_that_was_never_raised_is_the_default(
    quotas: Any, service: str, code: str, limit: int
) -> None:
    found = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]
    assert found["Value"] == limit
    with pytest.raises(ClientError, match="NoSuchResource"):
        quotas.get_service_quota(ServiceCode=service, QuotaCode=code)


def test_instances_are_found_by_the_names_that_aws_gives_their_limits(quotas: Any) -> None:
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    rows = [row for page in pages for row in page["Quotas"]]
    assert len({row["QuotaCode"] for row in rows}) == len(rows) > 200
    names = {row["QuotaName"]: row["Value"] for row in rows}
    for use in ("training job", "spot training job", "processing job", "endpoint"):
        assert names[f"ml.m5.large for {use} usage"] > 0


@pytest.mark.parametrize(("service", "code"), [("ec2", "L-1"), ("sagemaker", "L-00000000")])
def test_an_unknown_quota_is_reported_as_unknown(quotas: Any, service: str, code: str) -> None:
    with pytest.raises(ClientError, match="NoSuchResource"):
        quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
