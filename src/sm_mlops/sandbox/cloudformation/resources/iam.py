"""IAM's roles and policies as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation.calls import (
    Call,
    Name,
    Provider,
    Tagging,
    absent_is_fine,
    arn,
    document,
    pairs,
    pick,
    present,
)
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json

ROLES = Tagging("tag_role", "untag_role", "RoleName")


# IAM.


def _role_create(call: Call) -> Made:
    iam, given = call.client("iam"), call.properties
    answer = iam.create_role(
        RoleName=call.name,
        AssumeRolePolicyDocument=document(given["AssumeRolePolicyDocument"]),
        **pick(given, "Path", "Description", "MaxSessionDuration", "PermissionsBoundary"),
        **present(Tags=pairs(call.tags)),
    )["Role"]
    call.made(call.name)
    _role_policies(call, {})
    return Made(call.name, {"Arn": answer["Arn"], "RoleId": answer["RoleId"]})


def _role_update(call: Call) -> Made:
    iam, given, name = call.client("iam"), call.properties, call.physical
    if call.changed("AssumeRolePolicyDocument"):
        iam.update_assume_role_policy(
            RoleName=name, PolicyDocument=document(given["AssumeRolePolicyDocument"])
        )
    if call.changed("Description", "MaxSessionDuration"):
        iam.update_role(
            RoleName=name,
            Description=given.get("Description", ""),
            MaxSessionDuration=given.get("MaxSessionDuration", 3600),
        )
    if call.changed("PermissionsBoundary"):
        boundary = given.get("PermissionsBoundary")
        if boundary:
            iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=boundary)
        else:
            iam.delete_role_permissions_boundary(RoleName=name)
    _role_policies(call, call.previous)
    ROLES.apply(iam, name, call)
    answer = iam.get_role(RoleName=name)["Role"]
    return Made(name, {"Arn": answer["Arn"], "RoleId": answer["RoleId"]})


def _role_policies(call: Call, before: Json) -> None:
    iam, name = call.client("iam"), call.physical
    old, new = (set(each.get("ManagedPolicyArns", [])) for each in (before, call.properties))
    for policy in sorted(new - old):
        iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    for policy in sorted(old - new):
        with absent_is_fine():
            iam.detach_role_policy(RoleName=name, PolicyArn=policy)
    inline, kept = before.get("Policies", []), call.properties.get("Policies", [])
    for policy in kept:
        iam.put_role_policy(
            RoleName=name,
            PolicyName=policy["PolicyName"],
            PolicyDocument=document(policy["PolicyDocument"]),
        )
    for gone in {p["PolicyName"] for p in inline} - {p["PolicyName"] for p in kept}:
        with absent_is_fine():
            iam.delete_role_policy(RoleName=name, PolicyName=gone)


def _role_delete(call: Call) -> None:
    iam, name = call.client("iam"), call.physical
    with absent_is_fine():
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        for policy_name in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy_name)
        iam.delete_role(RoleName=name)


_HOLDERS = (
    ("Roles", "role", "RoleName"),
    ("Users", "user", "UserName"),
    ("Groups", "group", "GroupName"),
)


def _inline_put(call: Call) -> Made:
    iam, given = call.client("iam"), call.properties
    found = call.physical or call.name
    call.made(found)
    text = document(given["PolicyDocument"])
    for members, noun, argument in _HOLDERS:
        for holder in given.get(members, []):
            getattr(iam, f"put_{noun}_policy")(
                **{argument: holder}, PolicyName=given["PolicyName"], PolicyDocument=text
            )
    if call.previous:
        _inline_remove(call, call.previous, keep=given)
    return Made(found, {"Id": found})


def _inline_remove(call: Call, given: Json, keep: Json) -> None:
    iam = call.client("iam")
    for members, noun, argument in _HOLDERS:
        for holder in given.get(members, []):
            same = keep.get("PolicyName") == given["PolicyName"]
            if not (same and holder in keep.get(members, [])):
                with absent_is_fine():
                    getattr(iam, f"delete_{noun}_policy")(
                        **{argument: holder}, PolicyName=given["PolicyName"]
                    )


def _managed_create(call: Call) -> Made:
    iam, given = call.client("iam"), call.properties
    found = iam.create_policy(
        PolicyName=call.name,
        PolicyDocument=document(given["PolicyDocument"]),
        **pick(given, "Path", "Description"),
        **present(Tags=pairs(call.tags)),
    )["Policy"]
    call.made(found["Arn"])
    _managed_holders(call, found["Arn"], {})
    return Made(found["Arn"], {"PolicyArn": found["Arn"], "PolicyId": found["PolicyId"]})


def _managed_update(call: Call) -> Made:
    iam, found = call.client("iam"), call.physical
    if call.changed("PolicyDocument"):
        versions = iam.list_policy_versions(PolicyArn=found)["Versions"]
        if len(versions) >= 5:  # IAM's limit: the oldest that is not in use makes room.
            oldest = next(v for v in reversed(versions) if not v["IsDefaultVersion"])
            iam.delete_policy_version(PolicyArn=found, VersionId=oldest["VersionId"])
        iam.create_policy_version(
            PolicyArn=found,
            PolicyDocument=document(call.properties["PolicyDocument"]),
            SetAsDefault=True,
        )
    _managed_holders(call, found, call.previous)
    answer = iam.get_policy(PolicyArn=found)["Policy"]
    return Made(found, {"PolicyArn": found, "PolicyId": answer["PolicyId"]})


def _managed_holders(call: Call, found: str, before: Json) -> None:
    iam = call.client("iam")
    for members, noun, argument in _HOLDERS:
        old, new = set(before.get(members, [])), set(call.properties.get(members, []))
        for holder in sorted(new - old):
            getattr(iam, f"attach_{noun}_policy")(**{argument: holder}, PolicyArn=found)
        for holder in sorted(old - new):
            with absent_is_fine():
                getattr(iam, f"detach_{noun}_policy")(**{argument: holder}, PolicyArn=found)


def _managed_delete(call: Call) -> None:
    iam, found = call.client("iam"), call.physical
    with absent_is_fine():
        holders = iam.list_entities_for_policy(PolicyArn=found)
        for members, noun, argument in _HOLDERS:
            for holder in holders.get(f"Policy{members}", []):
                getattr(iam, f"detach_{noun}_policy")(
                    **{argument: holder[argument]}, PolicyArn=found
                )
        for version in iam.list_policy_versions(PolicyArn=found)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=found, VersionId=version["VersionId"])
        iam.delete_policy(PolicyArn=found)


PROVIDERS: dict[str, Provider] = {
    "AWS::IAM::ManagedPolicy": Provider(
        _managed_create,
        _managed_delete,
        _managed_update,
        Name("ManagedPolicyName", 128),
        ("PolicyArn", "PolicyId"),
        lambda call: arn(
            call, "iam", f"policy{call.properties.get('Path', '/')}{call.name}", region=False
        ),
    ),
    "AWS::IAM::Policy": Provider(
        _inline_put,
        lambda call: _inline_remove(call, call.properties, keep={}),
        _inline_put,
        Name("", 128),
        ("Id",),
    ),
    "AWS::IAM::Role": Provider(
        _role_create, _role_delete, _role_update, Name("RoleName"), ("Arn", "RoleId")
    ),
}
