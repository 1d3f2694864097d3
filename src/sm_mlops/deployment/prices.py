"""What a stage costs while no one uses it: its instances at the hourly price of its region.

Asks AWS's price list, which is public but needs pricing:GetProducts. Where it cannot be asked, the
prices that the stage's file has are used, and the result says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.aws import DENIED, Aws, error_code
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage

HOURS_A_MONTH = 730
# The price list of all regions is in few of them. Source:
# https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
LIST_REGION = "us-east-1"
SECONDS = 3.0
# How usage types of endpoints begin, as in USE1-Host:ml.m5.large. Other kinds are billed by request
# or by job.
USAGE = {"real-time": "Host", "asynchronous": "AsyncInf"}


@dataclass(frozen=True)
class Idle:
    """US dollars a month, and in words by which prices; empty if nothing runs idle."""

    dollars: float
    prices: str = ""


@dataclass
class Prices:
    """The price list. Each price is asked once; none any more after a failure, whose reason
    `silent` has."""

    aws: Aws
    silent: str = ""
    known: dict[tuple[str, str], float | None] = field(default_factory=dict)

    def idle(self, stage: Stage) -> Idle | None:
        """Return what a stage costs idle; None if neither the price list nor its file says so."""
        settings = self.aws.settings
        fleet = stages.fleet(settings, stage)
        scales = stage.parameters.get("Autoscaling", "on") == "on"
        to_zero = stage.kind == "asynchronous" and scales
        if fleet is None or stage.kind not in USAGE or to_zero:
            return Idle(0.0)
        price = self._hourly(fleet.instance, USAGE[stage.kind])
        region = settings.project.region
        if price is not None:
            dollars = round(fleet.least * price * HOURS_A_MONTH, 2)
            return Idle(dollars, f"by AWS's price list for {region}")
        if stage.idle_cost is None:
            return None
        why = self.silent or f"AWS's price list has no price of {fleet.instance} in {region}"
        return Idle(stage.idle_cost, f"by the prices in {stages.FOLDER}/ ({stage.priced}): {why}")

    def _hourly(self, instance: str, usage: str) -> float | None:
        """Return the price of an hour of an endpoint's instance; None if it cannot be told."""
        if self.aws.sandbox:
            self.silent = "the sandbox has no price list"
        if not self.silent and (instance, usage) not in self.known:
            self.known[instance, usage] = self._ask(instance, usage)
        return self.known.get((instance, usage))

    def _ask(self, instance: str, usage: str) -> float | None:
        from botocore.exceptions import BotoCoreError, ClientError

        wanted = {"regionCode": self.aws.settings.project.region, "instanceName": instance}
        filters = [
            {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()
        ]
        try:
            client = self.aws.client("pricing", 1, region=LIST_REGION, seconds=SECONDS)
            found = client.get_products(ServiceCode="AmazonSageMaker", Filters=filters)
        except ClientError as error:
            denied = error_code(error) in DENIED
            why = "pricing:GetProducts is not allowed" if denied else error_code(error)
            self.silent = f"AWS's price list cannot be read ({why})"
            return None
        except BotoCoreError as error:
            self.silent = f"AWS's price list does not answer ({type(error).__name__})"
            return None
        return _only(f"{usage}:{instance}", map(json.loads, found["PriceList"]))


def _only(usage: str, products: Iterable[dict[str, Any]]) -> float | None:
    """Return the price on demand of a usage type, None unless there is exactly one.

    Source of the shape:
    https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html
    """
    prices = {
        float(dimension["pricePerUnit"].get("USD", 0))
        for product in products
        if re.search(rf"(^|-){re.escape(usage)}$", product["product"]["attributes"]["usagetype"])
        for term in product["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
    } - {0.0}
    return prices.pop() if len(prices) == 1 else None
