"""Change sets of type IMPORT: existing resources that a stack takes over unchanged.

Only computes and reads; the engine records. As on AWS, a property of the template that the resource
does not have is not applied.
Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources.html
"""

from __future__ import annotations

from typing import Any

from sm_mlops.sandbox.cloudformation.ledger import Ledger
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.cloudformation.template import Template, invalid, parse
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import Caller, Params

Chosen = dict[str, str]
"""Physical ids by logical id."""


def chosen(params: Params, target: Record, stack: Record, ledger: Ledger, caller: Caller) -> Chosen:
    """Return the resources to import. Raises ApiError for what CloudFormation refuses."""
    rows = params.get("ResourcesToImport") or []
    if not rows:
        raise invalid("ResourcesToImport must be given for a change set of type IMPORT")
    parsed = parse(target["_template"])
    found = {row["LogicalResourceId"]: _physical(row, parsed) for row in rows}
    before = parse(stack["_template"]).outputs if stack["_resources"] else {}
    if parsed.outputs != before:
        raise invalid("As part of the import operation, you cannot modify or add [Outputs]")
    for logical, physical in found.items():
        if logical in stack["_resources"]:
            raise invalid(f"Resource {logical} already exists in stack {stack['StackName']}")
        for other in ledger.stacks(caller):
            rows = list(other["_resources"].values())
            if other["StackStatus"] != "DELETE_COMPLETE" and any(
                row["PhysicalResourceId"] == physical
                and row["ResourceType"] == parsed.resources[logical]["Type"]
                for row in rows
            ):
                raise invalid(
                    f"{physical} already exists in stack {other['StackId']}: it cannot be imported"
                )
    return found


def _physical(row: Params, parsed: Template) -> str:
    logical, kind = row["LogicalResourceId"], row["ResourceType"]
    resource = parsed.resources.get(logical)
    if resource is None or resource["Type"] != kind:
        raise invalid(f"Template does not have a resource {logical} of type {kind} to import")
    if "DeletionPolicy" not in resource:
        raise invalid(
            "Resources to import must have a DeletionPolicy attribute specified in the template: "
            f"[{logical}]"
        )
    provider = PROVIDERS[kind]
    if provider.exists is None or provider.name is None:
        raise invalid(f"ResourceTypes [{kind}] are not supported for Import")
    identifier: dict[str, Any] = row["ResourceIdentifier"]
    if set(identifier) != {provider.name.property}:
        raise invalid(f"{kind} is identified by [{provider.name.property}]")
    return str(identifier[provider.name.property])


def changes_of(planned: list[Params], imported: Chosen) -> list[Params]:
    """Return the changes of an import: the plan of the target with these resources taken over.

    Raises ApiError when there is anything else to do.
    """
    found = []
    for row in planned:
        change = row["ResourceChange"]
        logical = change["LogicalResourceId"]
        if logical not in imported:
            raise invalid(
                f"As part of the import operation, you cannot change other resources: [{logical}]"
            )
        found.append({**row, "ResourceChange": change | {"Action": "Import"}})
    return found
