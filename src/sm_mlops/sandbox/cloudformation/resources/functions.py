"""Lambda functions, their layers and permissions, and log groups as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json

FUNCTIONS = Tagging("tag_resource", "untag_resource", "Resource", as_map=True)
LOGS = Tagging("tag_resource", "untag_resource", "resourceArn", "tags", "tagKeys", as_map=True)

_SETTINGS = (
    "Runtime",
    "Role",
    "Handler",
    "Description",
    "Timeout",
    "MemorySize",
    "Environment",
    "Layers",
    "LoggingConfig",
)
_FUNCTION = (*_SETTINGS, "FunctionName", "Code", "Architectures")
# The value of a setting that a template no longer has.
_DEFAULTS: Json = {
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "Environment": {"Variables": {}},
    "Layers": [],
    "LoggingConfig": {},
}


def _function_create(call: Call) -> Made:
    calls.only(call, *_FUNCTION)
    answer = call.client("lambda").create_function(
        FunctionName=call.name,
        Code=_object(call, "Code"),
        **calls.pick(call.properties, *_SETTINGS, "Architectures"),
        **calls.present(Tags=call.tags),
    )
    call.made(call.name)
    return Made(call.physical, {"Arn": answer["FunctionArn"]})


def _function_update(call: Call) -> Made:
    calls.only(call, *_FUNCTION)
    client, given, name = call.client("lambda"), call.properties, call.physical
    if call.changed("Code", "Architectures"):
        client.update_function_code(
            FunctionName=name, **_object(call, "Code"), **calls.pick(given, "Architectures")
        )
    changes = {key: given.get(key, _DEFAULTS.get(key)) for key in _SETTINGS if call.changed(key)}
    if changes:
        client.update_function_configuration(FunctionName=name, **changes)
    found = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    FUNCTIONS.apply(client, found, call)
    return Made(name, {"Arn": found})


def _object(call: Call, member: str) -> Json:
    """Return where the zip archive of a function or layer is."""
    code: Json = call.properties[member]
    calls.refuse(f"{call.kind} {member}", set(code) - {"S3Bucket", "S3Key"})
    return code


def _layer_create(call: Call) -> Made:
    calls.only(call, *_LAYER)
    given = {**call.properties, "Content": _object(call, "Content"), "LayerName": call.name}
    found = call.client("lambda").publish_layer_version(**given)["LayerVersionArn"]
    call.made(found)
    return Made(found, {})


_LAYER = ("LayerName", "Description", "Content", "CompatibleArchitectures", "CompatibleRuntimes")


def _layer_delete(call: Call) -> None:
    layer, _, version = call.physical.rpartition(":")
    with calls.absent_is_fine():
        call.client("lambda").delete_layer_version(
            LayerName=layer.rpartition(":")[2], VersionNumber=int(version)
        )


def _permission_create(call: Call) -> Made:
    names = ("FunctionName", "Action", "Principal", "SourceArn", "SourceAccount")
    calls.only(call, *names)
    call.client("lambda").add_permission(
        StatementId=call.name, **calls.pick(call.properties, *names)
    )
    call.made(call.name)
    return Made(call.name, {})


_INVOKE = ("FunctionName", "MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")


def _invoke_config_put(call: Call) -> Made:
    calls.only(call, *_INVOKE, "Qualifier")
    if call.properties["Qualifier"] != "$LATEST":
        calls.refuse(call.kind, {f"Qualifier {call.properties['Qualifier']}"})
    client = call.client("lambda")
    client.put_function_event_invoke_config(**calls.pick(call.properties, *_INVOKE))
    found = f"{call.properties['FunctionName']}|$LATEST"
    call.made(found)
    return Made(found, {})


def _log_group_create(call: Call) -> Made:
    calls.only(call, "LogGroupName", "RetentionInDays")
    call.client("logs").create_log_group(logGroupName=call.name, **calls.present(tags=call.tags))
    call.made(call.name)
    return _log_group(call)


def _log_group_update(call: Call) -> Made:
    calls.only(call, "LogGroupName", "RetentionInDays")
    made = _log_group(call)
    LOGS.apply(call.client("logs"), made.attributes["Arn"].removesuffix(":*"), call)
    return made


def _log_group(call: Call) -> Made:
    logs, name = call.client("logs"), call.physical
    if call.changed("RetentionInDays"):
        days = call.properties.get("RetentionInDays")
        if days:
            logs.put_retention_policy(logGroupName=name, retentionInDays=days)
        else:
            logs.delete_retention_policy(logGroupName=name)
    return Made(name, {"Arn": calls.arn(call, "logs", f"log-group:{name}:*")})


PROVIDERS: dict[str, Provider] = {
    "AWS::Lambda::EventInvokeConfig": Provider(
        _invoke_config_put,
        calls.deletes(
            "lambda",
            "delete_function_event_invoke_config",
            lambda call: calls.pick(call.properties, "FunctionName"),
        ),
        _invoke_config_put,
    ),
    "AWS::Lambda::Function": Provider(
        _function_create,
        calls.deletes("lambda", "delete_function", "FunctionName"),
        _function_update,
        Name("FunctionName"),
        ("Arn",),
    ),
    "AWS::Lambda::LayerVersion": Provider(
        _layer_create,
        _layer_delete,
        None,
        Name("LayerName", 140, "{logical}-{random}"),
    ),
    "AWS::Lambda::Permission": Provider(
        _permission_create,
        calls.deletes(
            "lambda",
            "remove_permission",
            lambda call: (
                calls.pick(call.properties, "FunctionName") | {"StatementId": call.physical}
            ),
        ),
        None,
        Name("", 100),
    ),
    "AWS::Logs::LogGroup": Provider(
        _log_group_create,
        calls.deletes("logs", "delete_log_group", "logGroupName"),
        _log_group_update,
        Name("LogGroupName", 512),
    ),
}
