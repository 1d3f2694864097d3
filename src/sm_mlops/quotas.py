"""Service Quotas: how many instances of a type an account may use, by AWS's names.

Names and codes: https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.errors import MlopsError

# Without an answer AWS decides when the job or endpoint starts.
_NO_ANSWER = (*DENIED, "TooManyRequestsException", "ThrottlingException", "NoSuchResourceException")


@dataclass(frozen=True)
class Need:
    """What `who`, such as "step Train", needs at once; `setting` is where it is set."""

    who: str
    name: str
    count: int
    setting: str


def name(instance: str, use: str) -> str:
    """Return the name of a quota: `ml.m5.large`, `training job` → its name in AWS."""
    return f"{instance} for {use} usage"


def increase(service: str, code: str, region: str) -> str:
    """Return the URL at which to request an increase."""
    console = f"https://{region}.console.aws.amazon.com/servicequotas/home"
    return f"{console}/services/{service}/quotas/{code}"


def rows(client: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """Return quotas by name: each instance type has another code. There are thousands, so stop at
    the last one that is wanted."""
    names = set(wanted)
    found: dict[str, Any] = {}
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        for page in client.get_paginator(operation).paginate(ServiceCode="sagemaker"):
            for row in page["Quotas"]:
                if row["QuotaName"] in names:
                    found.setdefault(row["QuotaName"], row)
            if len(found) == len(names):
                return found
    return found


def require(aws: Aws, needs: Iterable[Need]) -> None:
    """Raise MlopsError for the first need that no quota allows, even if nothing else runs.

    Without an answer, such as without the permission to ask, nothing is refused.
    """
    needs = list(needs)
    found: dict[str, Any] = {}
    with ignoring(*_NO_ANSWER):
        found = rows(aws.client("service-quotas", attempts=3), {need.name for need in needs})
    for need in needs:
        row = found.get(need.name)
        if row is not None and need.count > row["Value"]:
            region = aws.settings.project.region
            raise MlopsError(
                f"{need.who} needs {need.count}, but the quota {need.name} of account "
                f"{aws.account} in {region} is {row['Value']:.0f}: request an increase at "
                f"{increase('sagemaker', row['QuotaCode'], region)}, or change {need.setting}"
            )
