"""Service Quotas of the sandbox: the limits that AWS gives a new account, none of them raised.

Only those that model repos run into; usage is not counted here.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sm_mlops.sandbox.services import JsonService
from sm_mlops.sandbox.wire import Caller, Params, page

# Source: the quotas pages of https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html
LIMITS = {
    "sagemaker": {
        "L-E8EADE50": ("Maximum number of pipelines per account", 500),
        "L-BC8DC54C": ("Maximum number of model package groups", 250),
        "L-5CED4195": ("Maximum number of projects", 500),
    },
    "events": {"L-244521F2": ("Number of rules", 300)},
    "iam": {"L-FE177D64": ("Roles per account", 1000)},
}
SIZES = ("medium", "large", "xlarge", "2xlarge", "4xlarge")
FAMILIES = ("t2", "t3", "m4", "m5", "m6i", "m7i", "c5", "c6i", "c7i", "r5", "g4dn", "g5", "p3")
USES = ("training job", "spot training job", "processing job", "endpoint", "transform job")
INSTANCES = 4


class Quotas(JsonService):
    """Service Quotas; answers under the name requests are signed with, servicequotas."""

    service = "service-quotas"
    codes = ("IllegalArgumentException", "NoSuchResourceException")

    def list_service_quotas(self, params: Params, caller: Caller) -> Params:
        rows, more = page(self._quotas(params["ServiceCode"]), params, 100)
        return {"Quotas": rows, **more}

    def list_aws_default_service_quotas(self, params: Params, caller: Caller) -> Params:
        return self.list_service_quotas(params, caller)

    def get_service_quota(self, params: Params, caller: Caller) -> Params:
        """Answer GetServiceQuota: no quota of this account has been changed."""
        raise self.missing("The request failed because the specified quota has no applied value.")

    def get_aws_default_service_quota(self, params: Params, caller: Caller) -> Params:
        for row in self._quotas(params["ServiceCode"]):
            if row["QuotaCode"] == params["QuotaCode"]:
                return {"Quota": row}
        raise self.missing("The request failed because the specified quota does not exist.")

    def _quotas(self, code: str) -> list[dict[str, Any]]:
        if code not in LIMITS:
            raise self.missing("The request failed because the specified service does not exist.")
        known = dict(LIMITS[code])
        if code == "sagemaker":
            known |= _instances()
        return [
            {"ServiceCode": code, "QuotaCode": quota, "QuotaName": name, "Value": float(value)}
            for quota, (name, value) in known.items()
        ]


def _instances() -> dict[str, tuple[str, int]]:
    """Return the limits of instances; unlike the names, the codes are not AWS's."""
    names = [
        f"ml.{family}.{size} for {use} usage"
        for family in FAMILIES
        for size in SIZES
        for use in USES
    ]
    return {_code(name): (name, INSTANCES) for name in names}


def _code(name: str) -> str:
    return f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
