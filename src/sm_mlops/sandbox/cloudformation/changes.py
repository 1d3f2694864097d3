"""What has to change to get from a stack as it is to a template: the content of a change set.

Computes only. The engine decides anew, resource by resource, when all values are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, unknown
from sm_mlops.sandbox.cloudformation.template import Json, Template, order
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import Params

Tags = dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """A resource as a template asks for it. `properties` have no tags: those are in `tags`,
    together with the stack's."""

    kind: str
    properties: Json
    tags: Tags
    metadata: Any
    deletion: str | None
    replacement: str | None
    depends: list[str]


def wanted(scope: Scope, logical: str, stack_tags: Tags) -> Wanted:
    """Return what the scope's template asks for under a logical name."""
    resource = scope.template.resources[logical]
    kind = resource["Type"]
    properties = schemas.conform(kind, scope.properties(logical))
    tags: Tags = {}
    if schemas.tag_property(kind):
        own = _own_tags(properties.get("Tags") or {})
        if own is not None:  # Otherwise they stay for the schema to refuse.
            properties.pop("Tags", None)
            tags = {**stack_tags, **own}
    return Wanted(
        kind=kind,
        properties=properties,
        tags=tags,
        metadata=scope.resolve(resource.get("Metadata")),
        deletion=resource.get("DeletionPolicy"),
        replacement=resource.get("UpdateReplacePolicy"),
        depends=sorted(scope.template.dependencies(logical)),
    )


def _own_tags(given: Any) -> Tags | None:
    """Return the tags of a resource's own; None if they have not the form of tags."""
    if isinstance(given, dict):
        return {str(key): str(value) for key, value in given.items()}
    if not isinstance(given, list):
        return None
    if any(not isinstance(tag, dict) or set(tag) != {"Key", "Value"} for tag in given):
        return None
    return {str(tag["Key"]): str(tag["Value"]) for tag in given}


def changed(record: Record, want: Wanted) -> list[str]:
    """Return the properties of the first level that differ, "Tags" among them."""
    old = record["_properties"]
    names = [
        name
        for name in sorted({*old, *want.properties})
        if old.get(name) != want.properties.get(name)
    ]
    return [*names, *(["Tags"] if record["_tags"] != want.tags else [])]


def needs_replacement(kind: str, names: list[str]) -> bool:
    """Tell whether a change of these properties needs a new resource."""
    return bool(schemas.create_only(kind) & set(names))


def plan(
    before: Template | None,
    records: dict[str, Record],
    scope: Scope,
    old: Scope | None,
    stack_tags: Tags,
) -> list[Params]:
    """Return the changes of a change set, as DescribeChangeSet shows them.

    `records` are the stack's resources and `old` is the scope of its template; both are empty for a
    new stack.
    """
    uncertain: set[str] = set()

    def made(logical: str) -> Made | None:
        record = records.get(logical)
        if record is None or logical in uncertain:
            return None
        return Made(record["_ref"], record["_attributes"])

    scope.made = made
    active = scope.active()
    found: list[Params] = []
    for logical in order(scope.template, active):
        want = wanted(scope, logical, stack_tags)
        record = records.get(logical)
        if record is None:
            uncertain.add(logical)
            found.append(_change("Add", logical, want.kind))
            continue
        details = _details(record, want, logical, before, scope, old)
        if not details:
            continue
        replacement = _replacement(details)
        if replacement != "False":
            uncertain.add(logical)
        found.append(
            _change(
                "Modify",
                logical,
                want.kind,
                PhysicalResourceId=record.get("PhysicalResourceId"),
                Replacement=replacement,
                Scope=sorted({detail["Target"]["Attribute"] for detail in details}),
                Details=details,
            )
        )
    for logical, record in records.items():
        if logical not in active:
            action = "Delete" if record.get("_deletion") in (None, "Delete") else "Retain"
            found.append(
                _change(
                    "Remove",
                    logical,
                    record["ResourceType"],
                    PhysicalResourceId=record.get("PhysicalResourceId"),
                    PolicyAction=action,
                )
            )
    return found


def _change(action: str, logical: str, kind: str, **more: Any) -> Params:
    change = {
        "Action": action,
        "LogicalResourceId": logical,
        "ResourceType": kind,
        "Scope": [],
        "Details": [],
        **{name: value for name, value in more.items() if value is not None},
    }
    return {"Type": "Resource", "ResourceChange": change}


def _details(
    record: Record,
    want: Wanted,
    logical: str,
    before: Template | None,
    scope: Scope,
    old: Scope | None,
) -> list[Params]:
    details: list[Params] = []
    raw = scope.template.resources[logical]
    raw_before = (before.resources if before else {}).get(logical, {})
    fixed = schemas.create_only(want.kind)
    for name in changed(record, want):
        value = want.properties.get(name)
        target: Params = {"Attribute": "Properties", "Name": name}
        target["RequiresRecreation"] = "Always" if name in fixed else "Never"
        if name == "Tags":
            target, value = {"Attribute": "Tags", "RequiresRecreation": "Never"}, want.tags
        source = raw.get("Properties", {}).get(name)
        direct = source != raw_before.get("Properties", {}).get(name) or name == "Tags"
        causes = [] if name == "Tags" else _causes(source, scope, old)
        if direct or not causes:
            causes.append({"ChangeSource": "DirectModification", "Evaluation": "Static"})
        if unknown(value) and not any(c["Evaluation"] == "Dynamic" for c in causes):
            causes[-1]["Evaluation"] = "Dynamic"
        details += [{"Target": target, **cause} for cause in causes]
    for attribute, now, then in (
        ("Metadata", want.metadata, record.get("_metadata")),
        ("DeletionPolicy", want.deletion, record.get("_deletion")),
        ("UpdateReplacePolicy", want.replacement, record.get("_replacement")),
    ):
        if now != then:
            details.append(
                {
                    "Target": {"Attribute": attribute, "RequiresRecreation": "Never"},
                    "ChangeSource": "DirectModification",
                    "Evaluation": "Static",
                }
            )
    return details


def _causes(source: Any, scope: Scope, old: Scope | None) -> list[Params]:
    causes: list[Params] = []
    for reference in dict.fromkeys(scope.template.references(source)):
        name = reference.name
        if name in scope.parameters:
            if old and scope.parameters[name] != old.parameters.get(name):
                causes.append(
                    {
                        "ChangeSource": "ParameterReference",
                        "Evaluation": "Static",
                        "CausingEntity": name,
                    }
                )
        elif name in scope.template.resources and scope.made(name) is None:
            causes.append(
                {
                    "ChangeSource": "ResourceAttribute"
                    if reference.attribute
                    else "ResourceReference",
                    "Evaluation": "Dynamic",
                    "CausingEntity": str(reference),
                }
            )
    return causes


def _replacement(details: list[Params]) -> str:
    always = [d for d in details if d["Target"]["RequiresRecreation"] == "Always"]
    if any(detail["Evaluation"] == "Static" for detail in always):
        return "True"
    return "Conditional" if always else "False"
