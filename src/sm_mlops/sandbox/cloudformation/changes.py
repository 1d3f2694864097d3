"""The content of a change set: the changes from a stack to a template. Only computes; the engine
decides again for each resource once all values are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope, unknown
from sm_mlops.sandbox.cloudformation.template import Json, order
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
    """Return the resource that the scope's template wants under a logical name."""
    resource = scope.template.resources[logical]
    kind = resource["Type"]
    properties = schemas.conform(kind, scope.properties(logical))
    tags: Tags = {}
    if schemas.tagged(kind):
        own = _own_tags(properties.get("Tags", []))
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
    """Return the resource's own tags, or None when they are malformed."""
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
    return bool(schemas.create_only(kind) & set(names))


def plan(
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
        details = _details(record, want)
        if not details:
            continue
        replacement = _replacement(details, want, logical, scope, old)
        if replacement != "False":
            uncertain.add(logical)
        found.append(
            _change("Modify", logical, want.kind, Replacement=replacement, Details=details)
        )
    for logical, record in records.items():
        if logical not in active:
            found.append(_change("Remove", logical, record["ResourceType"]))
    return found


def _change(action: str, logical: str, kind: str, **more: Any) -> Params:
    change = {"Action": action, "LogicalResourceId": logical, "ResourceType": kind, **more}
    return {"Type": "Resource", "ResourceChange": change}


def _details(record: Record, want: Wanted) -> list[Params]:
    fixed = schemas.create_only(want.kind)
    targets: list[Params] = []
    for name in changed(record, want):
        recreation = "Always" if name in fixed else "Never"
        target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
        if name == "Tags":
            target = {"Attribute": "Tags", "RequiresRecreation": "Never"}
        targets.append(target)
    for attribute, now, then in (
        ("Metadata", want.metadata, record.get("_metadata")),
        ("DeletionPolicy", want.deletion, record.get("_deletion")),
        ("UpdateReplacePolicy", want.replacement, record.get("_replacement")),
    ):
        if now != then:
            targets.append({"Attribute": attribute, "RequiresRecreation": "Never"})
    return [{"Target": target} for target in targets]


def _replacement(
    details: list[Params],
    want: Wanted,
    logical: str,
    scope: Scope,
    old: Scope | None,
) -> str:
    """Return whether a change needs a new resource: "Conditional" where that depends on a value
    that is not known yet."""
    always = [d["Target"]["Name"] for d in details if d["Target"]["RequiresRecreation"] == "Always"]
    raw = scope.template.resources[logical].get("Properties", {})
    raw_before = (old.template.resources if old else {}).get(logical, {}).get("Properties", {})
    for name in always:
        direct = raw.get(name) != raw_before.get(name)
        if direct or not unknown(want.properties.get(name)) or _given(raw.get(name), scope, old):
            return "True"
    return "Conditional" if always else "False"


def _given(source: Any, scope: Scope, old: Scope | None) -> bool:
    """Tell whether a property names a parameter whose value differs from before."""
    return old is not None and any(
        reference.name in scope.parameters
        and scope.parameters[reference.name] != old.parameters.get(reference.name)
        for reference in scope.template.references(source)
    )
