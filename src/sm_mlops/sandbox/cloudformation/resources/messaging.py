"""SNS topics and SQS queues as resources of stacks."""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation.calls import (
    Call,
    Name,
    Provider,
    Tagging,
    absent_is_fine,
    arn,
    document,
    only,
    pairs,
    pick,
    present,
    texts,
)
from sm_mlops.sandbox.cloudformation.expressions import Made

TOPICS = Tagging("tag_resource", "untag_resource", "ResourceArn")
QUEUES = Tagging("tag_queue", "untag_queue", "QueueUrl", as_map=True)


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
    only(call, *_TOPIC, "TopicName", "Subscription")
    sns, given = call.client("sns"), call.properties
    found = sns.create_topic(
        Name=call.name, Attributes=texts(pick(given, *_TOPIC)), **present(Tags=pairs(call.tags))
    )["TopicArn"]
    call.made(found)
    for subscription in given.get("Subscription", []):
        sns.subscribe(TopicArn=found, **subscription)
    return Made(found, {"TopicArn": found, "TopicName": call.name})


def _topic_update(call: Call) -> Made:
    only(call, *_TOPIC, "TopicName", "Subscription")
    sns, found = call.client("sns"), call.physical
    for name in _TOPIC:
        if call.changed(name):
            text = texts({name: call.properties.get(name, "")})[name]
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
    only(call, *_SUBSCRIPTION, "TopicArn", "Protocol", "Endpoint")
    given = call.properties
    found = call.client("sns").subscribe(
        **pick(given, "TopicArn", "Protocol", "Endpoint"),
        Attributes=texts(pick(given, *_SUBSCRIPTION)),
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
                AttributeValue=texts({name: call.properties.get(name, {})})[name],
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
        Attributes=texts(pick(call.properties, *_QUEUE)),
        **present(tags=call.tags),
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
        sqs.set_queue_attributes(QueueUrl=call.physical, Attributes=texts(changes))
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


PROVIDERS: dict[str, Provider] = {
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
}
