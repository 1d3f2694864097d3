"""The resource types that the sandbox can make: one entry each in PROVIDERS, at the end.

Every call goes to the sandbox's own address, so it meets the same checks as anybody's.
To add a type whose properties are those of its create operation, an entry with `api` is enough.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sandbox.cloudformation.calls import (
    Call,
    Name,
    Provider,
    ResourceFailed,
    Tagging,
    absent_is_fine,
    document,
    handled,
    is_missing,
    pairs,
)
from sandbox.cloudformation.expressions import Made
from sandbox.cloudformation.template import Json

SAGEMAKER = Tagging("add_tags", "delete_tags", "ResourceArn")
ALARMS = Tagging("tag_resource", "untag_resource", "ResourceARN")
ROLES = Tagging("tag_role", "untag_role", "RoleName")
TOPICS = Tagging("tag_resource", "untag_resource", "ResourceArn")
QUEUES = Tagging("tag_queue", "untag_queue", "QueueUrl", as_map=True)
LOGS = Tagging("tag_resource", "untag_resource", "resourceArn", "tags", "tagKeys", as_map=True)
KEYS = Tagging("tag_resource", "untag_resource", "KeyId", key="TagKey", value="TagValue")
SSM = Tagging("add_tags_to_resource", "remove_tags_from_resource", "ResourceId")


def api(
    service: str,
    create: str,
    delete: str,
    made: Callable[[Call, Json], Made],
    gone: Callable[[Call], Json],
    *,
    name: Name | None = None,
    attributes: tuple[str, ...] = (),
    tagging: Tagging | None = None,
    again: bool = False,
    physical: Callable[[Call], str] = lambda call: call.name,
) -> Provider:
    """Return the provider of a type whose properties are the arguments of one operation.

    `made` reads Ref and attributes from the operation's answer, `gone` gives the arguments of the
    delete operation. `again`: the operation also changes what exists. Otherwise only tags can
    change, of the ARN or name that Ref returns.
    """

    def arguments(call: Call) -> Json:
        given = dict(call.properties)
        if name is not None:
            given[name.property] = call.name
        return given

    def create_one(call: Call) -> Made:
        given = arguments(call)
        if tagging is not None and call.tags:
            given[tagging.tags] = tagging.form(call.tags)
        answer = getattr(call.client(service), create)(**given)
        result = made(call, answer)
        call.made(result.ref)
        return result

    def update_one(call: Call) -> Made:
        client = call.client(service)
        answer = getattr(client, create)(**arguments(call)) if again else {}
        result = made(call, answer)
        if tagging is not None:
            tagging.apply(client, result.attributes.get("Arn", call.physical), call)
        return result

    def delete_one(call: Call) -> None:
        with absent_is_fine():
            getattr(call.client(service), delete)(**gone(call))

    return Provider(create_one, delete_one, update_one, name, attributes, physical)


def arn(call: Call, service: str, resource: str, region: bool = True) -> str:
    """Return an ARN of the call's account."""
    from sandbox.wire import partition

    place = call.region if region else ""
    return f"arn:{partition(call.region)}:{service}:{place}:{call.account}:{resource}"


def _last(call: Call) -> str:
    """Return the name at the end of a physical id that is an ARN."""
    return call.physical.rpartition("/")[2]


# SageMaker. Ref gives the ARN of models, configs and endpoints, and Fn::GetAtt their names.


def _named(kind: str) -> Callable[[Call, Json], Made]:
    def made(call: Call, answer: Json) -> Made:
        found = answer.get(f"{kind}Arn") or call.physical
        name = call.name if answer else _last(call)
        return Made(found, {f"{kind}Name": name, f"{kind}Arn": found, "Arn": found, "Id": found})

    return made


def _endpoint_create(call: Call) -> Made:
    client = call.client("sagemaker")
    given = _pick(call.properties, "EndpointConfigName")
    # The deployment config says how to change a fleet: when there is none yet, AWS ignores it.
    answer = client.create_endpoint(EndpointName=call.name, **given, **_if(Tags=pairs(call.tags)))
    call.made(answer["EndpointArn"])
    _in_service(call)
    return _endpoint(answer["EndpointArn"])


def _endpoint_update(call: Call) -> Made:
    client, name = call.client("sagemaker"), _last(call)
    # A rollback may find the endpoint in the middle of the update that it takes back.
    _settled(call)
    config = call.properties["EndpointConfigName"]
    described = client.describe_endpoint(EndpointName=name)
    if described.get("EndpointConfigName") != config or described["EndpointStatus"] == "Failed":
        given = _pick(
            call.properties,
            "DeploymentConfig",
            "ExcludeRetainedVariantProperties",
            "RetainAllVariantProperties",
            "RetainDeploymentConfig",
        )
        client.update_endpoint(EndpointName=name, EndpointConfigName=config, **given)
        ended = _in_service(call)
        if ended.get("EndpointConfigName") != config:
            why = ended.get("FailureReason") or (
                "the deployment was rolled back, most likely by an alarm of its "
                "AutoRollbackConfiguration"
            )
            raise ResourceFailed(
                handled(f"Endpoint {name} did not stabilize: {why}", "NotStabilized")
            )
    SAGEMAKER.apply(client, call.physical, call)
    return _endpoint(call.physical)


def _endpoint_delete(call: Call) -> None:
    client = call.client("sagemaker")
    with absent_is_fine():
        _settled(call)
        client.delete_endpoint(EndpointName=_last(call))
        call.wait(lambda: _gone(call))


def _gone(call: Call) -> bool | None:
    try:
        call.client("sagemaker").describe_endpoint(EndpointName=_last(call))
    except call.client("sagemaker").exceptions.ClientError as error:
        if is_missing(error):
            return True
        raise
    return None


def _endpoint(found: str) -> Made:
    name = found.rpartition("/")[2]
    return Made(found, {"EndpointName": name, "EndpointArn": found, "Id": found})


def _settled(call: Call) -> Json:
    """Wait until an endpoint is in no state that ends by itself; return what describes it."""
    client, name = call.client("sagemaker"), _last(call)

    def look() -> Json | None:
        described: Json = client.describe_endpoint(EndpointName=name)
        moving = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
        return None if described["EndpointStatus"] in moving else described

    return call.wait(look)


def _in_service(call: Call) -> Json:
    described = _settled(call)
    if described["EndpointStatus"] != "InService":
        why = described.get("FailureReason") or f"its status is {described['EndpointStatus']}"
        raise ResourceFailed(handled(why, "NotStabilized"))
    return described


# Application Auto Scaling.


def _target(call: Call, answer: Json) -> Made:
    given = call.properties
    found = "|".join(given[k] for k in ("ResourceId", "ScalableDimension", "ServiceNamespace"))
    return Made(found, {"Id": found})


def _target_key(call: Call) -> Json:
    names = ("ResourceId", "ScalableDimension", "ServiceNamespace")
    return dict(zip(names, call.physical.split("|"), strict=True))


def _policy_key(call: Call) -> Json:
    """Return what identifies a scaling policy; a template may name its target by its Ref."""
    given = call.properties
    target = given.get("ScalingTargetId")
    names = ("ResourceId", "ScalableDimension", "ServiceNamespace")
    key = dict(zip(names, target.split("|"), strict=True)) if target else _pick(given, *names)
    return {"PolicyName": given["PolicyName"], **key}


def _policy_put(call: Call) -> Made:
    given = _without(call.properties, "ScalingTargetId") | _policy_key(call)
    found = call.client("application-autoscaling").put_scaling_policy(**given)["PolicyARN"]
    call.made(found)
    return Made(found, {"Arn": found})


def _policy_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("application-autoscaling").delete_scaling_policy(**_policy_key(call))


# IAM.


def _role_create(call: Call) -> Made:
    iam, given = call.client("iam"), call.properties
    answer = iam.create_role(
        RoleName=call.name,
        AssumeRolePolicyDocument=document(given["AssumeRolePolicyDocument"]),
        **_pick(given, "Path", "Description", "MaxSessionDuration", "PermissionsBoundary"),
        **_if(Tags=pairs(call.tags)),
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
        **_pick(given, "Path", "Description"),
        **_if(Tags=pairs(call.tags)),
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


# SNS and SQS: what is not given at creation is set as attributes.

_TOPIC = (
    "DisplayName",
    "KmsMasterKeyId",
    "SignatureVersion",
    "TracingConfig",
    "FifoTopic",
    "ContentBasedDeduplication",
)


def _topic_create(call: Call) -> Made:
    _only(call, *_TOPIC, "TopicName", "Subscription")
    sns, given = call.client("sns"), call.properties
    found = sns.create_topic(
        Name=call.name, Attributes=_texts(_pick(given, *_TOPIC)), **_if(Tags=pairs(call.tags))
    )["TopicArn"]
    call.made(found)
    for subscription in given.get("Subscription", []):
        sns.subscribe(TopicArn=found, **subscription)
    return Made(found, {"TopicArn": found, "TopicName": call.name})


def _topic_update(call: Call) -> Made:
    _only(call, *_TOPIC, "TopicName", "Subscription")
    sns, found = call.client("sns"), call.physical
    for name in _TOPIC:
        if call.changed(name):
            text = _texts({name: call.properties.get(name, "")})[name]
            sns.set_topic_attributes(TopicArn=found, AttributeName=name, AttributeValue=text)
    old, new = (each.get("Subscription", []) for each in (call.previous, call.properties))
    for subscription in new:
        if subscription not in old:
            sns.subscribe(TopicArn=found, **subscription)
    gone = [(s["Protocol"], s["Endpoint"]) for s in old if s not in new]
    for subscription in sns.list_subscriptions_by_topic(TopicArn=found)["Subscriptions"]:
        if (subscription["Protocol"], subscription["Endpoint"]) in gone:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    TOPICS.apply(sns, found, call)
    return Made(found, {"TopicArn": found, "TopicName": found.rpartition(":")[2]})


def _topic_delete(call: Call) -> None:
    sns = call.client("sns")
    with absent_is_fine():
        for subscription in sns.list_subscriptions_by_topic(TopicArn=call.physical)[
            "Subscriptions"
        ]:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
        sns.delete_topic(TopicArn=call.physical)


_SUBSCRIPTION = (
    "DeliveryPolicy",
    "FilterPolicy",
    "FilterPolicyScope",
    "RawMessageDelivery",
    "RedrivePolicy",
    "SubscriptionRoleArn",
)


def _subscription_create(call: Call) -> Made:
    _only(call, *_SUBSCRIPTION, "TopicArn", "Protocol", "Endpoint")
    given = call.properties
    found = call.client("sns").subscribe(
        **_pick(given, "TopicArn", "Protocol", "Endpoint"),
        Attributes=_texts(_pick(given, *_SUBSCRIPTION)),
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    call.made(found)
    return Made(found, {"Arn": found})


def _subscription_update(call: Call) -> Made:
    for name in _SUBSCRIPTION:
        if call.changed(name):
            call.client("sns").set_subscription_attributes(
                SubscriptionArn=call.physical,
                AttributeName=name,
                AttributeValue=_texts({name: call.properties.get(name, {})})[name],
            )
    return Made(call.physical, {"Arn": call.physical})


def _subscription_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("sns").unsubscribe(SubscriptionArn=call.physical)


_QUEUE = {
    "MessageRetentionPeriod": 345_600,
    "MaximumMessageSize": 1_048_576,
    "VisibilityTimeout": 30,
    "DelaySeconds": 0,
    "ReceiveMessageWaitTimeSeconds": 0,
    "KmsMasterKeyId": "",
    "KmsDataKeyReusePeriodSeconds": 300,
    "SqsManagedSseEnabled": True,
    "RedrivePolicy": "",
    "RedriveAllowPolicy": "",
    "FifoQueue": False,
    "ContentBasedDeduplication": False,
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}


def _queue(call: Call, url: str) -> Made:
    name = url.rpartition("/")[2]
    return Made(url, {"Arn": arn(call, "sqs", name), "QueueName": name, "QueueUrl": url})


def _queue_create(call: Call) -> Made:
    url = call.client("sqs").create_queue(
        QueueName=call.name,
        Attributes=_texts(_pick(call.properties, *_QUEUE)),
        **_if(tags=call.tags),
    )["QueueUrl"]
    call.made(url)
    return _queue(call, url)


def _queue_url(call: Call) -> str:
    with absent_is_fine():
        return str(call.client("sqs").get_queue_url(QueueName=call.name)["QueueUrl"])
    return ""


def _queue_update(call: Call) -> Made:
    changes = {
        name: call.properties.get(name, default)
        for name, default in _QUEUE.items()
        if call.changed(name)
    }
    sqs = call.client("sqs")
    if changes:
        sqs.set_queue_attributes(QueueUrl=call.physical, Attributes=_texts(changes))
    QUEUES.apply(sqs, call.physical, call)
    return _queue(call, call.physical)


def _queue_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("sqs").delete_queue(QueueUrl=call.physical)


def _queue_policy_put(call: Call) -> Made:
    found = call.physical or call.name
    call.made(found)
    text = document(call.properties["PolicyDocument"])
    for url in call.properties["Queues"]:
        call.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": text})
    _queue_policy_clear(call, set(call.previous.get("Queues", [])) - {*call.properties["Queues"]})
    return Made(found, {"Id": found})


def _queue_policy_clear(call: Call, urls: set[str]) -> None:
    for url in sorted(urls):
        with absent_is_fine():
            call.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


# S3.


def _encryption(s3: Any, bucket: str, value: Any) -> None:
    rules = [
        {
            **_pick(rule, "BucketKeyEnabled"),
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
        }
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def _lifecycle(s3: Any, bucket: str, value: Any) -> None:
    rules = []
    for index, rule in enumerate(value["Rules"]):
        known = (
            "Id",
            "Status",
            "Prefix",
            "ExpirationInDays",
            "ExpirationDate",
            "NoncurrentVersionExpirationInDays",
            "NoncurrentVersionExpiration",
            "AbortIncompleteMultipartUpload",
            "ExpiredObjectDeleteMarker",
            "Transitions",
        )
        _refuse("AWS::S3::Bucket LifecycleConfiguration", set(rule) - set(known))
        expiration = {
            **_if(Days=rule.get("ExpirationInDays"), Date=rule.get("ExpirationDate")),
            **_pick(rule, "ExpiredObjectDeleteMarker"),
        }
        noncurrent = rule.get("NoncurrentVersionExpiration") or _if(
            NoncurrentDays=rule.get("NoncurrentVersionExpirationInDays")
        )
        rules.append(
            {
                "ID": rule.get("Id", f"rule-{index + 1}"),
                "Status": rule["Status"],
                "Filter": {"Prefix": rule.get("Prefix", "")},
                **_if(
                    Expiration=expiration,
                    NoncurrentVersionExpiration=noncurrent,
                    AbortIncompleteMultipartUpload=rule.get("AbortIncompleteMultipartUpload"),
                    Transitions=[
                        {
                            "StorageClass": each["StorageClass"],
                            **_if(Days=each.get("TransitionInDays")),
                        }
                        for each in rule.get("Transitions", [])
                    ],
                ),
            }
        )
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _cors(s3: Any, bucket: str, value: Any) -> None:
    rules = [
        {
            "ExposeHeaders"
            if k == "ExposedHeaders"
            else "MaxAgeSeconds"
            if k == "MaxAge"
            else "ID"
            if k == "Id"
            else k: v
            for k, v in rule.items()
        }
        for rule in value["CorsRules"]
    ]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})


def _logging(s3: Any, bucket: str, value: Any) -> None:
    enabled = {
        "TargetBucket": value.get("DestinationBucketName", bucket),
        "TargetPrefix": value.get("LogFilePrefix", ""),
    }
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": enabled})


def _notification(s3: Any, bucket: str, value: Any) -> None:
    _refuse("AWS::S3::Bucket NotificationConfiguration", set(value) - {"EventBridgeConfiguration"})
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )


# Property: what applies it, and the operation that takes it away.
_BUCKET: dict[str, tuple[Callable[[Any, str, Any], None], str]] = {
    "BucketEncryption": (_encryption, "delete_bucket_encryption"),
    "CorsConfiguration": (_cors, "delete_bucket_cors"),
    "LifecycleConfiguration": (_lifecycle, "delete_bucket_lifecycle"),
    "LoggingConfiguration": (_logging, ""),
    "NotificationConfiguration": (_notification, ""),
    "OwnershipControls": (
        lambda s3, bucket, value: s3.put_bucket_ownership_controls(
            Bucket=bucket, OwnershipControls=value
        ),
        "delete_bucket_ownership_controls",
    ),
    "PublicAccessBlockConfiguration": (
        lambda s3, bucket, value: s3.put_public_access_block(
            Bucket=bucket, PublicAccessBlockConfiguration=value
        ),
        "delete_public_access_block",
    ),
    "VersioningConfiguration": (
        lambda s3, bucket, value: s3.put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration=value
        ),
        "",
    ),
}


def _bucket_create(call: Call) -> Made:
    _only(call, *_BUCKET, "BucketName")
    s3 = call.client("s3")
    where = (
        {}
        if call.region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": call.region}}
    )
    s3.create_bucket(Bucket=call.name, **where)
    call.made(call.name)
    return _bucket_apply(call, call.name)


def _bucket_update(call: Call) -> Made:
    _only(call, *_BUCKET, "BucketName")
    return _bucket_apply(call, call.physical)


def _bucket_apply(call: Call, bucket: str) -> Made:
    s3 = call.client("s3")
    for name, (put, remove) in _BUCKET.items():
        if not call.changed(name):
            continue
        if name in call.properties:
            put(s3, bucket, call.properties[name])
        elif remove:
            getattr(s3, remove)(Bucket=bucket)
    if call.tags != call.previous_tags:
        if call.tags:
            s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": pairs(call.tags)})
        else:
            s3.delete_bucket_tagging(Bucket=bucket)
    domain = f"{bucket}.s3.amazonaws.com"
    regional = f"{bucket}.s3.{call.region}.amazonaws.com"
    found = arn(call, "s3", bucket).replace(f":{call.region}:{call.account}:", ":::")
    return Made(
        bucket,
        {
            "Arn": found,
            "DomainName": domain,
            "RegionalDomainName": regional,
            "DualStackDomainName": f"{bucket}.s3.dualstack.{call.region}.amazonaws.com",
            "WebsiteURL": f"http://{bucket}.s3-website-{call.region}.amazonaws.com",
        },
    )


def _bucket_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("s3").delete_bucket(Bucket=call.physical)


def _bucket_policy_put(call: Call) -> Made:
    bucket = call.properties["Bucket"]
    call.client("s3").put_bucket_policy(
        Bucket=bucket, Policy=document(call.properties["PolicyDocument"])
    )
    call.made(bucket)
    return Made(bucket, {})


def _bucket_policy_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("s3").delete_bucket_policy(Bucket=call.physical)


# Systems Manager, CloudWatch Logs, KMS.


def _parameter_create(call: Call) -> Made:
    call.client("ssm").put_parameter(
        Name=call.name, **_without(call.properties, "Name"), **_if(Tags=pairs(call.tags))
    )
    call.made(call.name)
    return _parameter(call, call.name)


def _parameter_update(call: Call) -> Made:
    ssm = call.client("ssm")
    if any(call.changed(name) for name in {*call.properties, *call.previous}):
        ssm.put_parameter(Name=call.physical, **_without(call.properties, "Name"), Overwrite=True)
    SSM.apply(ssm, {"ResourceType": "Parameter", "ResourceId": call.physical}, call)
    return _parameter(call, call.physical)


def _parameter(call: Call, name: str) -> Made:
    return Made(name, _pick(call.properties, "Type", "Value"))


def _parameter_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("ssm").delete_parameter(Name=call.physical)


def _log_group_create(call: Call) -> Made:
    _only(call, "LogGroupName", "RetentionInDays", "KmsKeyId", "LogGroupClass")
    given = call.properties
    call.client("logs").create_log_group(
        logGroupName=call.name,
        **_if(
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
    policy = _if(Policy=given.get("KeyPolicy") and document(given["KeyPolicy"]))
    tags = _if(Tags=KEYS.form(call.tags) if call.tags else None)
    found = call.client("kms").create_key(**_pick(given, *_KEY), **policy, **tags)["KeyMetadata"]
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


# Arguments.


def _pick(given: Json, *names: str) -> Json:
    return {name: given[name] for name in names if name in given}


def _without(given: Json, *names: str) -> Json:
    return {name: value for name, value in given.items() if name not in names}


def _if(**given: Any) -> Json:
    return {name: value for name, value in given.items() if value}


def _texts(given: Json) -> dict[str, str]:
    """Return attributes as the services that take text only want them."""
    return {
        name: value
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, (dict, list))
        else str(value).lower()
        for name, value in given.items()
    }


def _only(call: Call, *names: str) -> None:
    _refuse(call.kind, set(call.properties) - set(names))


def _refuse(where: str, names: set[str]) -> None:
    if names:
        raise ResourceFailed(
            f"The sandbox does not apply these properties of {where}: {', '.join(sorted(names))}"
        )


def _alarm(call: Call, answer: Json) -> Made:
    name = call.physical or call.name
    return Made(name, {"Arn": arn(call, "cloudwatch", f"alarm:{name}")})


def _group_create(call: Call) -> Made:
    client, given = call.client("sagemaker"), call.properties
    found = client.create_model_package_group(
        **_without(given, "ModelPackageGroupPolicy"), **_if(Tags=pairs(call.tags))
    )["ModelPackageGroupArn"]
    call.made(found)
    return _group_policy(call, found)


def _group_update(call: Call) -> Made:
    SAGEMAKER.apply(call.client("sagemaker"), call.physical, call)
    return _group_policy(call, call.physical)


def _group_policy(call: Call, found: str) -> Made:
    client, name = call.client("sagemaker"), found.rpartition("/")[2]
    if call.changed("ModelPackageGroupPolicy"):
        policy = call.properties.get("ModelPackageGroupPolicy")
        if policy:
            client.put_model_package_group_policy(
                ModelPackageGroupName=name, ResourcePolicy=document(policy)
            )
        else:
            client.delete_model_package_group_policy(ModelPackageGroupName=name)
    described = client.describe_model_package_group(ModelPackageGroupName=name)
    return Made(
        found,
        {
            "ModelPackageGroupArn": found,
            "ModelPackageGroupStatus": described["ModelPackageGroupStatus"],
            "CreationTime": described["CreationTime"].isoformat(),
        },
    )


def _group_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("sagemaker").delete_model_package_group(ModelPackageGroupName=_last(call))


PROVIDERS: dict[str, Provider] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": api(
        "application-autoscaling",
        "register_scalable_target",
        "deregister_scalable_target",
        _target,
        _target_key,
        attributes=("Id",),
        again=True,
        physical=lambda call: _target(call, {}).ref,
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": Provider(
        _policy_put,
        _policy_delete,
        _policy_put,
        attributes=("Arn",),
        physical=lambda call: str(call.properties["PolicyName"]),
    ),
    "AWS::CloudWatch::Alarm": api(
        "cloudwatch",
        "put_metric_alarm",
        "delete_alarms",
        _alarm,
        lambda call: {"AlarmNames": [call.physical]},
        name=Name("AlarmName", 255),
        attributes=("Arn",),
        tagging=ALARMS,
        again=True,
    ),
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
    "AWS::S3::Bucket": Provider(
        _bucket_create,
        _bucket_delete,
        _bucket_update,
        Name("BucketName", 63, lower=True),
        ("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL"),
    ),
    "AWS::S3::BucketPolicy": Provider(
        _bucket_policy_put,
        _bucket_policy_delete,
        _bucket_policy_put,
        physical=lambda call: str(call.properties["Bucket"]),
    ),
    "AWS::SNS::Subscription": Provider(
        _subscription_create, _subscription_delete, _subscription_update, attributes=("Arn",)
    ),
    "AWS::SNS::Topic": Provider(
        _topic_create,
        _topic_delete,
        _topic_update,
        Name("TopicName", 256),
        ("TopicArn", "TopicName"),
        lambda call: arn(call, "sns", call.name),
    ),
    "AWS::SQS::Queue": Provider(
        _queue_create,
        _queue_delete,
        _queue_update,
        Name("QueueName", 80),
        ("Arn", "QueueName", "QueueUrl"),
        _queue_url,
    ),
    "AWS::SQS::QueuePolicy": Provider(
        _queue_policy_put,
        lambda call: _queue_policy_clear(call, set(call.properties["Queues"])),
        _queue_policy_put,
        Name("", 128),
        ("Id",),
    ),
    "AWS::SSM::Parameter": Provider(
        _parameter_create,
        _parameter_delete,
        _parameter_update,
        Name("Name", 2048),
        ("Type", "Value"),
    ),
    "AWS::SageMaker::Endpoint": Provider(
        _endpoint_create,
        _endpoint_delete,
        _endpoint_update,
        Name("EndpointName", 63, "{logical}-{random}"),
        ("EndpointName", "EndpointArn"),
    ),
    "AWS::SageMaker::EndpointConfig": api(
        "sagemaker",
        "create_endpoint_config",
        "delete_endpoint_config",
        _named("EndpointConfig"),
        lambda call: {"EndpointConfigName": _last(call)},
        name=Name("EndpointConfigName", 63, "{logical}-{random}"),
        attributes=("EndpointConfigName", "EndpointConfigArn", "Id"),
        tagging=SAGEMAKER,
    ),
    "AWS::SageMaker::Model": api(
        "sagemaker",
        "create_model",
        "delete_model",
        _named("Model"),
        lambda call: {"ModelName": _last(call)},
        name=Name("ModelName", 63, "{logical}-{random}"),
        attributes=("ModelName", "ModelArn", "Id"),
        tagging=SAGEMAKER,
    ),
    "AWS::SageMaker::ModelPackageGroup": Provider(
        _group_create,
        _group_delete,
        _group_update,
        attributes=("ModelPackageGroupArn", "ModelPackageGroupStatus", "CreationTime"),
        physical=lambda call: str(call.properties["ModelPackageGroupName"]),
    ),
}
