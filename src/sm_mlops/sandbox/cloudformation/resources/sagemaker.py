"""SageMaker's resources, scaling, alarms and dashboards as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, ResourceFailed, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json
from sm_mlops.sandbox.wire import snake_case

SAGEMAKER = Tagging("add_tags", "delete_tags", "ResourceArn")
ALARMS = Tagging("tag_resource", "untag_resource", "ResourceARN")


# SageMaker. Ref gives ARNs, Fn::GetAtt names.


def _plain(kind: str) -> Provider:
    """Return the provider of a type with the same name in all of SageMaker's operations."""

    def made(call: Call, answer: Json) -> Made:
        found = answer.get(f"{kind}Arn") or call.physical
        name = call.name if answer else calls.last_part(call)
        return Made(found, {f"{kind}Name": name, "Arn": found})

    return calls.api(
        "sagemaker",
        snake_case(f"Create{kind}"),
        snake_case(f"Delete{kind}"),
        made,
        lambda call: {f"{kind}Name": calls.last_part(call)},
        name=Name(f"{kind}Name", 63, "{logical}-{random}"),
        attributes=(f"{kind}Name",),
        tagging=SAGEMAKER,
    )


def _endpoint_create(call: Call) -> Made:
    client = call.client("sagemaker")
    given = calls.pick(call.properties, "EndpointConfigName")
    # The deployment config says how to change a fleet: when there is none yet, AWS ignores it.
    answer = client.create_endpoint(
        EndpointName=call.name, **given, **calls.present(Tags=calls.pairs(call.tags))
    )
    call.made(answer["EndpointArn"])
    _in_service(call)
    return _endpoint(answer["EndpointArn"])


def _endpoint_update(call: Call) -> Made:
    client, name = call.client("sagemaker"), calls.last_part(call)
    # A rollback may find the endpoint in the middle of the update that it reverts.
    _settled(call)
    config = call.properties["EndpointConfigName"]
    described = client.describe_endpoint(EndpointName=name)
    if described.get("EndpointConfigName") != config or described["EndpointStatus"] == "Failed":
        given = calls.pick(
            call.properties,
            "DeploymentConfig",
            "RetainAllVariantProperties",
        )
        client.update_endpoint(EndpointName=name, EndpointConfigName=config, **given)
        ended = _in_service(call)
        if ended.get("EndpointConfigName") != config:
            why = ended.get("FailureReason") or (
                "the deployment was rolled back, most likely by an alarm of its "
                "AutoRollbackConfiguration"
            )
            raise ResourceFailed(
                calls.handled(f"Endpoint {name} did not stabilize: {why}", "NotStabilized")
            )
    SAGEMAKER.apply(client, call.physical, call)
    return _endpoint(call.physical)


def _endpoint_delete(call: Call) -> None:
    client = call.client("sagemaker")
    with calls.absent_is_fine():
        _settled(call)
        client.delete_endpoint(EndpointName=calls.last_part(call))
        call.wait(lambda: _gone(call))


def _gone(call: Call) -> bool | None:
    try:
        call.client("sagemaker").describe_endpoint(EndpointName=calls.last_part(call))
    except call.client("sagemaker").exceptions.ClientError as error:
        if calls.is_missing(error):
            return True
        raise
    return None


def _endpoint(found: str) -> Made:
    name = found.rpartition("/")[2]
    return Made(found, {"EndpointName": name})


def _settled(call: Call) -> Json:
    """Wait until an endpoint is in a stable state; return its description."""
    client, name = call.client("sagemaker"), calls.last_part(call)

    def look() -> Json | None:
        described: Json = client.describe_endpoint(EndpointName=name)
        moving = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
        return None if described["EndpointStatus"] in moving else described

    return call.wait(look)


def _in_service(call: Call) -> Json:
    described = _settled(call)
    if described["EndpointStatus"] != "InService":
        why = described.get("FailureReason") or f"its status is {described['EndpointStatus']}"
        raise ResourceFailed(calls.handled(why, "NotStabilized"))
    return described


def _group_create(call: Call) -> Made:
    client, given = call.client("sagemaker"), call.properties
    found = client.create_model_package_group(
        **calls.without(given, "ModelPackageGroupPolicy"),
        **calls.present(Tags=calls.pairs(call.tags)),
    )["ModelPackageGroupArn"]
    call.made(found)
    return _group_policy(call, found)


def _group_update(call: Call) -> Made:
    SAGEMAKER.apply(call.client("sagemaker"), call.physical, call)
    return _group_policy(call, call.physical)


def _group_policy(call: Call, found: str) -> Made:
    client, name = call.client("sagemaker"), found.rpartition("/")[2]
    # With every update, whatever it changes, as AWS's handler does.
    if policy := call.properties.get("ModelPackageGroupPolicy"):
        client.put_model_package_group_policy(
            ModelPackageGroupName=name, ResourcePolicy=calls.document(policy)
        )
    else:
        client.delete_model_package_group_policy(ModelPackageGroupName=name)
    client.describe_model_package_group(ModelPackageGroupName=name)
    return Made(found, {})


# Application Auto Scaling and CloudWatch.


_TARGET = ("ResourceId", "ScalableDimension", "ServiceNamespace")


def _target(call: Call, answer: Json) -> Made:
    found = "|".join(call.properties[name] for name in _TARGET)
    return Made(found, {})


def _target_parts(found: str) -> Json:
    return dict(zip(_TARGET, found.split("|"), strict=True))


def _policy_key(call: Call) -> Json:
    """Return what identifies a scaling policy, whose template names its target by its Ref."""
    given = call.properties
    if "ScalingTargetId" not in given:
        calls.refuse(call.kind, {"ResourceId"})
    return {"PolicyName": given["PolicyName"], **_target_parts(given["ScalingTargetId"])}


def _policy_put(call: Call) -> Made:
    given = calls.without(call.properties, "ScalingTargetId") | _policy_key(call)
    found = call.client("application-autoscaling").put_scaling_policy(**given)["PolicyARN"]
    call.made(found)
    return Made(found, {})


def _alarm(call: Call, answer: Json) -> Made:
    name = call.physical or call.name
    return Made(name, {"Arn": calls.arn(call, "cloudwatch", f"alarm:{name}")})


PROVIDERS: dict[str, Provider] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": calls.api(
        "application-autoscaling",
        "register_scalable_target",
        "deregister_scalable_target",
        _target,
        lambda call: _target_parts(call.physical),
        again=True,
        physical=lambda call: _target(call, {}).ref,
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": Provider(
        _policy_put,
        calls.deletes("application-autoscaling", "delete_scaling_policy", _policy_key),
        _policy_put,
        physical=lambda call: str(call.properties["PolicyName"]),
    ),
    "AWS::CloudWatch::Alarm": calls.api(
        "cloudwatch",
        "put_metric_alarm",
        "delete_alarms",
        _alarm,
        lambda call: {"AlarmNames": [call.physical]},
        name=Name("AlarmName", 255),
        tagging=ALARMS,
        again=True,
    ),
    "AWS::CloudWatch::Dashboard": calls.api(
        "cloudwatch",
        "put_dashboard",
        "delete_dashboards",
        lambda call, answer: Made(call.physical or call.name, {}),
        lambda call: {"DashboardNames": [call.physical]},
        name=Name("DashboardName", 255),
        again=True,
    ),
    "AWS::SageMaker::CodeRepository": _plain("CodeRepository"),
    "AWS::SageMaker::Endpoint": Provider(
        _endpoint_create,
        _endpoint_delete,
        _endpoint_update,
        Name("EndpointName", 63, "{logical}-{random}"),
        ("EndpointName",),
    ),
    "AWS::SageMaker::EndpointConfig": _plain("EndpointConfig"),
    "AWS::SageMaker::Model": _plain("Model"),
    "AWS::SageMaker::ModelPackageGroup": Provider(
        _group_create,
        calls.deletes(
            "sagemaker",
            "delete_model_package_group",
            lambda call: {"ModelPackageGroupName": calls.last_part(call)},
        ),
        _group_update,
        physical=lambda call: str(call.properties["ModelPackageGroupName"]),
    ),
}
