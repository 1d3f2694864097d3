"""What a stage costs idle, by AWS's price list or, in words, by the prices of its file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import Stubber

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.deployment import stages
from sm_mlops.deployment.prices import LIST_REGION, SECONDS, Prices
from sm_mlops.deployment.status import Running, idle

FILTERS = [
    {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"},
    {"Type": "TERM_MATCH", "Field": "instanceName", "Value": "ml.m5.large"},
]
REQUEST = {"ServiceCode": "AmazonSageMaker", "Filters": FILTERS}
REALTIME = {"EndpointKind": "real-time", "InstanceType": "ml.m5.large", "InstanceCount": 3}
FILE = {"IdlePerMonthUSD": 168.5, "Region": "us-east-1", "Priced": "2026-11-22"}


def product(usage: str, dollars: str) -> str:
    """Return an entry as GetProducts does: JSON text."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": dollars}}
    return json.dumps(
        {
            "product": {"attributes": {"usagetype": usage, "instanceName": "ml.m5.large"}},
            "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
        }
    )


ANSWER = {
    "FormatVersion": "aws_v1",
    "PriceList": [
        product("EU-Host:ml.m5.large", "0.1280000000"),
        product("EU-AsyncInf:ml.m5.large", "0.1290000000"),
        product("EU-Train:ml.m5.large", "0.9000000000"),
        product("EU-Host:ml.m5.large.extra", "0.8000000000"),
        product("EU-Host:ml.m5.large", "0.0000000000"),
    ],
}


def stage(repo: Repo, kind: str = "real-time", **more: Any) -> stages.Stage:
    repo.stage("qa", Cost=FILE, Parameters={**REALTIME, "EndpointKind": kind, **more})
    return stages.load(repo.settings(), "qa")


@pytest.fixture
def asked(account: Aws) -> Stubber:
    """Return what answers for the price list; it has no other answers than a test adds."""
    client = account.client("pricing", 1, region=LIST_REGION, seconds=SECONDS)
    assert client.meta.region_name == LIST_REGION
    stub = Stubber(client)
    stub.activate()
    return stub


@pytest.mark.parametrize(
    ("kind", "more", "dollars"),
    [
        ("real-time", {}, 3 * 0.128 * 730),
        ("asynchronous", {"Autoscaling": "off"}, 3 * 0.129 * 730),
    ],
)
def test_a_stage_costs_its_instances_at_the_price_of_its_region(
    account: Aws, repo: Repo, asked: Stubber, kind: str, more: dict[str, str], dollars: float
) -> None:
    asked.add_response("get_products", ANSWER, REQUEST)
    prices = Prices(account)
    for _ in range(2):  # The second is not asked.
        cost = prices.idle(stage(repo, kind, **more))
        assert cost is not None and cost.dollars == pytest.approx(dollars, abs=0.01)
        assert cost.prices == "by AWS's price list for eu-west-1"


@pytest.mark.parametrize("kind", ["serverless", "asynchronous", "batch"])
def test_what_runs_nothing_costs_nothing_and_is_not_asked(
    account: Aws, repo: Repo, asked: Stubber, kind: str
) -> None:
    cost = Prices(account).idle(replace(stage(repo), kind=kind))
    assert cost is not None and (cost.dollars, cost.prices) == (0, "")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("AccessDeniedException", "AWS's price list cannot be read (pricing:GetProducts is not"),
        ("UnrecognizedClientException", "cannot be read (UnrecognizedClientException)"),
    ],
)
def test_where_the_list_cannot_be_read_the_file_s_prices_are_used_and_that_is_said(
    account: Aws, repo: Repo, asked: Stubber, code: str, why: str
) -> None:
    asked.add_client_error("get_products", code)
    prices = Prices(account)
    for _ in range(2):  # It is not asked again.
        cost = prices.idle(stage(repo))
        assert cost is not None and cost.dollars == 168.5
        assert cost.prices.startswith("by the prices in infra/ (us-east-1, 2026-11-22): ")
        assert why in cost.prices


def test_no_network_is_as_honest(
    account: Aws, repo: Repo, asked: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(**_: object) -> None:
        raise ConnectTimeoutError(endpoint_url="https://api.pricing")

    monkeypatch.setattr(asked.client, "get_products", silent)
    cost = Prices(account).idle(stage(repo))
    assert cost is not None and cost.prices.endswith("does not answer (ConnectTimeoutError)")


@pytest.mark.parametrize("rows", [[], ["0.1", "0.2"]])
def test_no_single_price_is_none(account: Aws, repo: Repo, asked: Stubber, rows: list[str]) -> None:
    listed = [product("EU-Host:ml.m5.large", dollars) for dollars in rows]
    asked.add_response("get_products", {**ANSWER, "PriceList": listed}, REQUEST)
    cost = Prices(account).idle(stage(repo))
    assert cost is not None and cost.dollars == 168.5
    assert "has no price of ml.m5.large in eu-west-1" in cost.prices


def test_the_sandbox_is_not_asked_and_a_file_without_cost_says_nothing(
    account: Aws, repo: Repo, asked: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = replace(account, sandbox=True)
    for each in (play, account):
        cost = Prices(each).idle(stage(repo))
        assert cost is not None and cost.prices.endswith("the sandbox has no price list")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    repo.stage("qa", Cost={})
    assert Prices(play).idle(stages.load(repo.settings(), "qa")) is None


def test_status_adds_up_what_runs_by_the_same_prices() -> None:
    rows = [
        Running("staging", "1", "InService", idle_cost=74.46, prices="by the list"),
        Running("production", "1", "InService", idle_cost=167.9, prices="by the list"),
        Running("batch", "1", "InService", idle_cost=0.0),
        Running("other", "1", "not deployed"),
    ]
    assert idle(rows) == ["242 USD a month, by the list"]
    rows[1] = replace(rows[1], prices="by the file")
    assert idle(rows) == [
        "staging: 74 USD a month, by the list",
        "production: 168 USD a month, by the file",
    ]
