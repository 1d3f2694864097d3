"""EventBridge rules, schedules, topics and queues as resources of stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Name, Provider, ResourceFailed, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json

RULES = Tagging("tag_resource", "untag_resource", "ResourceARN")
TOPICS = Tagging("tag_resource", "untag_resource", "ResourceArn")
QUEUES = Tagging("tag_queue", "untag_queue", "QueueUrl", as_map=True)

_RULE = ("Name", "Description", "EventPattern", "Targets")


def _rule_create(call: Call) -> Made:
    return _rule_put(call, call.name, calls.present(Tags=calls.pairs(call.tags)))


def _rule_update(call: Call) -> Made:
    made = _rule_put(call, call.physical, {})
    events = call.client("events")
    kept = {target["Id"] for target in call.properties.get("Targets", [])}
    gone = [t["Id"] for t in call.previous.get("Targets", []) if t["Id"] not in kept]
    if gone:
        events.remove_targets(Rule=call.physical, Ids=gone)
    RULES.apply(events, made.attributes["Arn"], call)
    return made


def _rule_put(call: Call, name: str, tags: Json) -> Made:
    calls.only(call, *_RULE)
    events, given = call.client("events"), dict(call.properties)
    if "EventPattern" in given:
        given["EventPattern"] = calls.document(given["EventPattern"])
    found = events.put_rule(**calls.without(given, "Targets", "Name"), Name=name, **tags)["RuleArn"]
    call.made(name)
    if given.get("Targets"):
        answer = events.put_targets(Rule=name, Targets=given["Targets"])
        if answer["FailedEntryCount"]:
            raise ResourceFailed(
                calls.handled(json.dumps(answer["FailedEntries"]), "InvalidRequest")
            )
    return Made(name, {"Arn": found})


def _rule_delete(call: Call) -> None:
    events, name = call.client("events"), call.physical
    with calls.absent_is_fine():
        rows = events.list_targets_by_rule(Rule=name)["Targets"]
        if rows:
            events.remove_targets(Rule=name, Ids=[row["Id"] for row in rows])
        events.delete_rule(Name=name)


# A queue's attributes and their defaults.
_QUEUE = {"MessageRetentionPeriod": 345_600, "SqsManagedSseEnabled": True}


def _queue(call: Call, url: str) -> Made:
    name = url.rpartition("/")[2]
    return Made(url, {"Arn": calls.arn(call, "sqs", name), "QueueName": name})


def _queue_create(call: Call) -> Made:
    calls.only(call, "QueueName", *_QUEUE)
    url = call.client("sqs").create_queue(
        QueueName=call.name,
        Attributes=calls.texts(calls.pick(call.properties, *_QUEUE)),
        **calls.present(tags=call.tags),
    )["QueueUrl"]
    call.made(url)
    return _queue(call, url)


def _queue_url(call: Call) -> str:
    with calls.absent_is_fine():
        return str(call.client("sqs").get_queue_url(QueueName=call.name)["QueueUrl"])
    return ""


def _queue_update(call: Call) -> Made:
    calls.only(call, "QueueName", *_QUEUE)
    changes = {
        name: call.properties.get(name, default)
        for name, default in _QUEUE.items()
        if call.changed(name)
    }
    sqs = call.client("sqs")
    if changes:
        sqs.set_queue_attributes(QueueUrl=call.physical, Attributes=calls.texts(changes))
    QUEUES.apply(sqs, call.physical, call)
    return _queue(call, call.physical)


def _queue_policy_put(call: Call) -> Made:
    found = call.physical or call.name
    call.made(found)
    text = calls.document(call.properties["PolicyDocument"])
    for url in call.properties["Queues"]:
        call.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": text})
    _queue_policy_clear(call, set(call.previous.get("Queues", [])) - {*call.properties["Queues"]})
    return Made(found, {})


def _queue_policy_clear(call: Call, urls: set[str]) -> None:
    for url in sorted(urls):
        with calls.absent_is_fine():
            call.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


# Schedules.

_SCHEDULE = (
    "ScheduleExpression",
    "ScheduleExpressionTimezone",
    "State",
    "Description",
    "Target",
    "FlexibleTimeWindow",
    "GroupName",
)


def _schedule_put(operation: str) -> Callable[[Call], Made]:
    def put(call: Call) -> Made:
        calls.only(call, "Name", *_SCHEDULE)
        name = call.physical or call.name
        given = {"Name": name, **calls.pick(call.properties, *_SCHEDULE)}
        getattr(call.client("scheduler"), operation)(**given)
        call.made(name)
        return Made(name, {})

    return put


# Topics.

_TOPIC = {"DisplayName": "", "KmsMasterKeyId": ""}


def _topic_arn(call: Call) -> str:
    return calls.arn(call, "sns", call.name)


def _topic_create(call: Call) -> Made:
    calls.only(call, "TopicName", *_TOPIC)
    sns = call.client("sns")
    with calls.absent_is_fine():
        sns.get_topic_attributes(TopicArn=_topic_arn(call))
        raise ResourceFailed(calls.handled(f"Topic already exists: {call.name}", "AlreadyExists"))
    arn = sns.create_topic(
        Name=call.name,
        Attributes=calls.pick(call.properties, *_TOPIC),
        **calls.present(Tags=calls.pairs(call.tags)),
    )["TopicArn"]
    call.made(arn)
    return Made(arn, {})


def _topic_update(call: Call) -> Made:
    calls.only(call, "TopicName", *_TOPIC)
    sns, arn = call.client("sns"), call.physical
    for name, default in _TOPIC.items():
        if call.changed(name):
            value = call.properties.get(name, default)
            sns.set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=value)
    TOPICS.apply(sns, arn, call)
    return Made(arn, {})


def _topic_policy_put(call: Call) -> Made:
    found = call.physical or call.name
    call.made(found)
    _topic_policies(call, call.properties["Topics"], call.properties["PolicyDocument"])
    _topic_policy_clear(call, set(call.previous.get("Topics", [])) - {*call.properties["Topics"]})
    return Made(found, {})


def _topic_policies(call: Call, topics: Iterable[str], document: Any) -> None:
    for arn in topics:
        call.client("sns").set_topic_attributes(
            TopicArn=arn, AttributeName="Policy", AttributeValue=calls.document(document)
        )


def _topic_policy_clear(call: Call, topics: set[str]) -> None:
    """Give topics the policy that a new one has."""
    for arn in sorted(topics):
        own = {
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": ["SNS:Publish", "SNS:Subscribe", "SNS:GetTopicAttributes"],
            "Resource": arn,
            "Condition": {"StringEquals": {"AWS:SourceOwner": call.account}},
        }
        with calls.absent_is_fine():
            _topic_policies(call, [arn], {"Version": "2008-10-17", "Statement": [own]})


PROVIDERS: dict[str, Provider] = {
    "AWS::Events::Rule": Provider(_rule_create, _rule_delete, _rule_update, Name("Name"), ("Arn",)),
    "AWS::Scheduler::Schedule": Provider(
        _schedule_put("create_schedule"),
        calls.deletes("scheduler", "delete_schedule", "Name"),
        _schedule_put("update_schedule"),
        Name("Name"),
    ),
    "AWS::SNS::Topic": Provider(
        _topic_create,
        calls.deletes("sns", "delete_topic", "TopicArn"),
        _topic_update,
        Name("TopicName", 256),
        physical=_topic_arn,
    ),
    "AWS::SNS::TopicPolicy": Provider(
        _topic_policy_put,
        lambda call: _topic_policy_clear(call, set(call.properties["Topics"])),
        _topic_policy_put,
        Name("", 128),
    ),
    "AWS::SQS::Queue": Provider(
        _queue_create,
        calls.deletes("sqs", "delete_queue", "QueueUrl"),
        _queue_update,
        Name("QueueName", 80),
        ("Arn", "QueueName"),
        _queue_url,
    ),
    "AWS::SQS::QueuePolicy": Provider(
        _queue_policy_put,
        lambda call: _queue_policy_clear(call, set(call.properties["Queues"])),
        _queue_policy_put,
        Name("", 128),
    ),
}
