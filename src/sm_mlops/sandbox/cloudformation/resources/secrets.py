"""Secrets and their policies as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made

SECRETS = Tagging("tag_resource", "untag_resource", "SecretId")
_SECRET = ("Name", "Description", "SecretString")


def _secret_create(call: Call) -> Made:
    calls.only(call, *_SECRET)
    found = call.client("secretsmanager").create_secret(
        Name=call.name,
        **calls.pick(call.properties, "Description", "SecretString"),
        **calls.present(Tags=calls.pairs(call.tags)),
    )["ARN"]
    call.made(found)
    return Made(found, {})


def _secret_update(call: Call) -> Made:
    calls.only(call, *_SECRET)
    client = call.client("secretsmanager")
    # What a person has put into the secret stays, unless the template's own value changes.
    names = [name for name in ("Description", "SecretString") if call.changed(name)]
    # CloudFormation's handler may read the value whatever changes.
    with calls.absent_is_fine():
        client.get_secret_value(SecretId=call.physical)
    if names:
        client.update_secret(
            SecretId=call.physical, **calls.pick(call.properties, "Description", *names)
        )
    SECRETS.apply(client, call.physical, call)
    return Made(call.physical, {})


def _secret_policy_put(call: Call) -> Made:
    given = call.properties
    found = call.client("secretsmanager").put_resource_policy(
        SecretId=given["SecretId"],
        ResourcePolicy=calls.document(given["ResourcePolicy"]),
        **calls.pick(given, "BlockPublicPolicy"),
    )["ARN"]
    call.made(found)
    return Made(found, {})


PROVIDERS: dict[str, Provider] = {
    "AWS::SecretsManager::ResourcePolicy": Provider(
        _secret_policy_put,
        calls.deletes("secretsmanager", "delete_resource_policy", "SecretId"),
        _secret_policy_put,
    ),
    "AWS::SecretsManager::Secret": Provider(
        _secret_create,
        calls.deletes(
            "secretsmanager",
            "delete_secret",
            lambda call: {"SecretId": call.physical, "ForceDeleteWithoutRecovery": True},
        ),
        _secret_update,
        Name("Name", 512, "{logical}-{random}"),
    ),
}
