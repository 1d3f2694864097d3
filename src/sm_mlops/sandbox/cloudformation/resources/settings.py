"""Parameters of Systems Manager, log groups and KMS keys as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation.calls import (
    Call,
    Name,
    Provider,
    ResourceFailed,
    Tagging,
    absent_is_fine,
    arn,
    document,
    handled,
    only,
    pairs,
    pick,
    present,
    without,
)
from sm_mlops.sandbox.cloudformation.expressions import Made

LOGS = Tagging("tag_resource", "untag_resource", "resourceArn", "tags", "tagKeys", as_map=True)
KEYS = Tagging("tag_resource", "untag_resource", "KeyId", key="TagKey", value="TagValue")
SSM = Tagging("add_tags_to_resource", "remove_tags_from_resource", "ResourceId")


# Systems Manager, CloudWatch Logs, KMS.


def _parameter_create(call: Call) -> Made:
    call.client("ssm").put_parameter(
        Name=call.name, **without(call.properties, "Name"), **present(Tags=pairs(call.tags))
    )
    call.made(call.name)
    return _parameter(call, call.name)


def _parameter_update(call: Call) -> Made:
    ssm = call.client("ssm")
    if any(call.changed(name) for name in {*call.properties, *call.previous}):
        ssm.put_parameter(Name=call.physical, **without(call.properties, "Name"), Overwrite=True)
    SSM.apply(ssm, {"ResourceType": "Parameter", "ResourceId": call.physical}, call)
    return _parameter(call, call.physical)


def _parameter(call: Call, name: str) -> Made:
    return Made(name, pick(call.properties, "Type", "Value"))


def _parameter_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("ssm").delete_parameter(Name=call.physical)


def _log_group_create(call: Call) -> Made:
    only(call, "LogGroupName", "RetentionInDays", "KmsKeyId", "LogGroupClass")
    given = call.properties
    call.client("logs").create_log_group(
        logGroupName=call.name,
        **present(
            kmsKeyId=given.get("KmsKeyId"), logGroupClass=given.get("LogGroupClass"), tags=call.tags
        ),
    )
    call.made(call.name)
    return _log_group(call)


def _log_group_update(call: Call) -> Made:
    logs, name = call.client("logs"), call.physical
    if call.changed("KmsKeyId"):
        key = call.properties.get("KmsKeyId")
        if key:
            logs.associate_kms_key(logGroupName=name, kmsKeyId=key)
        else:
            logs.disassociate_kms_key(logGroupName=name)
    made = _log_group(call)
    LOGS.apply(logs, made.attributes["Arn"].removesuffix(":*"), call)
    return made


def _log_group(call: Call) -> Made:
    logs, name = call.client("logs"), call.physical
    if call.changed("RetentionInDays"):
        days = call.properties.get("RetentionInDays")
        if days:
            logs.put_retention_policy(logGroupName=name, retentionInDays=days)
        else:
            logs.delete_retention_policy(logGroupName=name)
    return Made(name, {"Arn": arn(call, "logs", f"log-group:{name}:*")})


def _log_group_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("logs").delete_log_group(logGroupName=call.physical)


_KEY = (
    "Description",
    "KeySpec",
    "KeyUsage",
    "MultiRegion",
    "Origin",
    "BypassPolicyLockoutSafetyCheck",
)


def _key_create(call: Call) -> Made:
    given = call.properties
    policy = present(Policy=given.get("KeyPolicy") and document(given["KeyPolicy"]))
    tags = present(Tags=KEYS.form(call.tags) if call.tags else None)
    found = call.client("kms").create_key(**pick(given, *_KEY), **policy, **tags)["KeyMetadata"]
    call.made(found["KeyId"])
    return _key_settings(call, found["KeyId"])


def _key_update(call: Call) -> Made:
    kms, key = call.client("kms"), call.physical
    fixed = [n for n in ("KeySpec", "KeyUsage", "MultiRegion", "Origin") if call.changed(n)]
    if fixed:
        raise ResourceFailed(
            handled(f"You cannot change {', '.join(fixed)} of a KMS key", "NotUpdatable")
        )
    if call.changed("Description"):
        kms.update_key_description(KeyId=key, Description=call.properties.get("Description", ""))
    if call.changed("KeyPolicy"):
        kms.put_key_policy(
            KeyId=key, PolicyName="default", Policy=document(call.properties["KeyPolicy"])
        )
    KEYS.apply(kms, key, call)
    return _key_settings(call, key)


def _key_settings(call: Call, key: str) -> Made:
    kms = call.client("kms")
    if call.changed("EnableKeyRotation"):
        turn = call.properties.get("EnableKeyRotation")
        (kms.enable_key_rotation if turn else kms.disable_key_rotation)(KeyId=key)
    if call.changed("Enabled"):
        enabled = call.properties.get("Enabled", True)
        (kms.enable_key if enabled else kms.disable_key)(KeyId=key)
    return Made(key, {"Arn": arn(call, "kms", f"key/{key}"), "KeyId": key})


def _key_delete(call: Call) -> None:
    kms = call.client("kms")
    with absent_is_fine():
        state = kms.describe_key(KeyId=call.physical)["KeyMetadata"]["KeyState"]
        if state != "PendingDeletion":
            days = call.properties.get("PendingWindowInDays", 30)
            kms.schedule_key_deletion(KeyId=call.physical, PendingWindowInDays=days)


def _alias_create(call: Call) -> Made:
    call.client("kms").create_alias(**call.properties)
    call.made(call.properties["AliasName"])
    return Made(call.properties["AliasName"], {})


def _alias_update(call: Call) -> Made:
    call.client("kms").update_alias(**call.properties)
    return Made(call.physical, {})


def _alias_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("kms").delete_alias(AliasName=call.physical)


PROVIDERS: dict[str, Provider] = {
    "AWS::KMS::Alias": Provider(
        _alias_create,
        _alias_delete,
        _alias_update,
        physical=lambda call: str(call.properties["AliasName"]),
    ),
    "AWS::KMS::Key": Provider(_key_create, _key_delete, _key_update, attributes=("Arn", "KeyId")),
    "AWS::Logs::LogGroup": Provider(
        _log_group_create,
        _log_group_delete,
        _log_group_update,
        Name("LogGroupName", 512),
        ("Arn",),
    ),
    "AWS::SSM::Parameter": Provider(
        _parameter_create,
        _parameter_delete,
        _parameter_update,
        Name("Name", 2048),
        ("Type", "Value"),
    ),
}
