"""How an update of an endpoint shifts its traffic, which deployments SageMaker accepts, and what
the new fleet keeps from the old one.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

from __future__ import annotations

import sys
from typing import Any

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.metrics import find_alarm
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import Caller, Params, invalid


def check_update(record: Record, pending: Record, caller: Caller) -> None:
    """Raise ApiError for an update that SageMaker refuses."""
    name, arn = record["EndpointName"], record["EndpointArn"]
    old, new = record["_deployed"]["variant"], pending["variant"]
    if "ServerlessConfig" in new and "ServerlessConfig" not in old:
        raise invalid(f'Endpoint "{arn}" is instance-based and cannot be updated to serverless.')
    if ("AsyncInferenceConfig" in record) != ("AsyncInferenceConfig" in pending):
        done = "removed from" if "AsyncInferenceConfig" in record else "added to"
        raise invalid(
            f"The AsyncInferenceConfig parameter cannot be {done} this endpoint {name}. "
            "Create a new endpoint for it."
        )
    registered = {target.resource_id.rpartition("/")[2] for target in scalable_targets(record)}
    changed = any(old.get(k) != new.get(k) for k in ("VariantName", "InstanceType"))
    if changed and old["VariantName"] in registered:
        raise invalid(
            f'The variant(s) "{old["VariantName"]}" must be deregistered as a scalable target with '
            "AWS Auto Scaling before they can be removed or have their instance type changed."
        )
    deployment = pending["deployment"]
    if not deployment:
        return
    if old["VariantName"] != new["VariantName"]:
        raise invalid(
            "The new endpoint configuration must have the same variant names as the old one for a "
            f"deployment with traffic shifting: {old['VariantName']}"
        )
    _check_deployment(deployment)
    for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", []):
        if find_alarm(alarm["AlarmName"], caller) is None:
            raise invalid(f"Could not find CloudWatch alarm {alarm['AlarmName']}.")


def _check_deployment(deployment: Params) -> None:
    members = ("BlueGreenUpdatePolicy", "AutoRollbackConfiguration")
    wire.only("UpdateEndpoint", deployment, *members)
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    kind = routing.get("Type", "ALL_AT_ONCE")
    for wanted, member, least in (("CANARY", "CanarySize", 0), ("LINEAR", "LinearStepSize", 10)):
        if (kind == wanted) != (member in routing):
            raise invalid(f"{member} must be given for traffic routing of type {wanted}, only")
        if kind == wanted:
            size = routing[member]
            if size["Type"] != "CAPACITY_PERCENT":
                raise wire.not_implemented(f"{member} of type {size['Type']}")
            if size["Value"] > 50:
                raise invalid(f"{member} must be at most 50 percent of the capacity")
            if size["Value"] < least:
                raise invalid(f"{member} must be at least {least} percent of the capacity")


def steps(deployment: Params) -> list[tuple[float, float]]:
    """Return the steps of a traffic shift: the new fleet's share, and the seconds to wait then."""
    policy = deployment.get("BlueGreenUpdatePolicy", {})
    routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE"})
    wait = float(routing.get("WaitIntervalInSeconds", 0))
    parts = []
    if routing["Type"] == "CANARY":
        parts = [routing["CanarySize"]["Value"] / 100]
    elif routing["Type"] == "LINEAR":
        size = routing["LinearStepSize"]["Value"] / 100
        parts = [size * count for count in range(1, 100) if size * count < 0.999]
    last = wait + float(policy.get("TerminationWaitInSeconds", 0))
    return [*((part, wait) for part in parts), (1.0, last)]


def retain(record: Record, pending: Record) -> None:
    """Make the new fleet keep the current instance count and capture of the old one."""
    [old], new = record["ProductionVariants"], pending["variant"]
    instances = "InitialInstanceCount" in new and "DesiredInstanceCount" in old
    if old["VariantName"] == new["VariantName"] and instances:
        new["InitialInstanceCount"] = old["DesiredInstanceCount"]
    if "DataCaptureConfig" in record["_deployed"]:
        pending["DataCaptureConfig"] = record["_deployed"]["DataCaptureConfig"]


def scalable_targets(record: Record) -> list[Any]:
    """Return moto's scalable targets of an endpoint's variant."""
    # Imported once a target is registered; it loads all of EC2: 100 MB and half a second.
    module = sys.modules.get("moto.applicationautoscaling.models")
    if module is None:
        return []
    owner = owner_of(record)
    backend: Any = module.applicationautoscaling_backends[owner.account][owner.region]
    prefix = f"endpoint/{record['EndpointName']}/variant/"
    return [
        target
        for targets in backend.targets.values()
        for resource, target in list(targets.items())
        if resource.startswith(prefix)
    ]


def owner_of(record: Record) -> Caller:
    """Return the account and region that an endpoint is in."""
    _, _, _, region, account, _ = record["EndpointArn"].split(":", 5)
    return Caller(account, region, "")
