"""Stacks in the sandbox: every status and event that a deployment can meet, in AWS's words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from cloudformation_cases import (
    TRUST,
    Deployer,
    given,
    new_name,
    parameter,
    resource,
    text,
)
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.cloudformation import engine
from sm_mlops.sandbox.cloudformation.calls import Call, Provider, ResourceFailed
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS

pytestmark = pytest.mark.slow

TOPIC = resource("SNS::Topic")
# SQS takes names of up to 80 characters: the schema knows no limit, the service does.
BROKEN = resource("SQS::Queue", QueueName="x" * 90)
GATED = resource("KMS::Key")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stacks"), "eu-west-1") as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Deployer:
    return Deployer(server.url)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """GATED resources wait for this event, and then fail."""
    event = threading.Event()

    def create(call: Call) -> Made:
        call.wait(lambda: event.is_set() or None)
        raise ResourceFailed("as the test wants it")

    monkeypatch.setitem(PROVIDERS, "AWS::KMS::Key", Provider(create, lambda call: None))
    return event


def role(**more: Any) -> dict[str, Any]:
    return resource("IAM::Role", AssumeRolePolicyDocument=TRUST, **more)


def refused(call: Any, *arguments: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(*arguments, **more)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


# Creating.


def test_a_stack_is_created_in_the_order_of_its_references(aws: Deployer) -> None:
    name = aws.deploy(
        {
            "Resources": {
                "Second": parameter({"Ref": "First"}),
                "First": TOPIC,
                "Third": {**parameter("x"), "DependsOn": "Second"},
            },
            "Outputs": {"Topic": {"Value": {"Fn::GetAtt": ["First", "TopicName"]}}},
        }
    )
    assert aws.events(name) == [
        f"{name} CREATE_IN_PROGRESS",
        "First CREATE_IN_PROGRESS",
        "First CREATE_IN_PROGRESS",
        "First CREATE_COMPLETE",
        "Second CREATE_IN_PROGRESS",
        "Second CREATE_IN_PROGRESS",
        "Second CREATE_COMPLETE",
        "Third CREATE_IN_PROGRESS",
        "Third CREATE_IN_PROGRESS",
        "Third CREATE_COMPLETE",
        f"{name} CREATE_COMPLETE",
    ]
    assert aws.outputs(name)["Topic"] == aws.physical(name)["First"].rpartition(":")[2]


def test_a_failed_creation_is_rolled_back_and_the_first_failure_says_why(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Kept": TOPIC, "Bad": {**BROKEN, "DependsOn": "Kept"}}})
    stack = aws.stack(name)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    why = aws.reasons(name, "CREATE_FAILED")
    assert list(why) == ["Bad"]
    assert "HandlerErrorCode: InvalidRequest" in why["Bad"]
    assert aws.reasons(name, "ROLLBACK_IN_PROGRESS")[name] == (
        "The following resource(s) failed to create: [Bad]. Rollback requested by user."
    )
    topics = [t["TopicArn"] for t in aws.client("sns").list_topics()["Topics"]]
    assert aws.physical(name)["Kept"] not in topics


def test_a_stack_that_rolled_back_can_only_be_deleted(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Bad": BROKEN}})
    words = "is in ROLLBACK_COMPLETE state and can not be updated."
    for call in (aws.update, aws.change):
        code, message = refused(call, name, {"Resources": {"Good": TOPIC}})
        assert (code, message.endswith(words)) == ("ValidationError", True)
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


@pytest.mark.parametrize(
    ("choice", "status"),
    [
        ({"OnFailure": "DO_NOTHING"}, "CREATE_FAILED"),
        ({"DisableRollback": True}, "CREATE_FAILED"),
        ({"OnFailure": "DELETE"}, "DELETE_COMPLETE"),
    ],
)
def test_what_follows_a_failed_creation_can_be_chosen(
    aws: Deployer, choice: dict[str, Any], status: str
) -> None:
    template = '{"Resources": {"Bad": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {}}}}'
    name = new_name()
    identity = aws.cfn.create_stack(
        StackName=name, TemplateBody=template, Capabilities=["CAPABILITY_IAM"], **choice
    )["StackId"]
    assert aws.settled(identity)["StackStatus"] == status


def test_the_others_are_cancelled_when_one_fails(aws: Deployer, gate: threading.Event) -> None:
    bad = {**BROKEN, "DependsOn": "First"}
    name = aws.deploy({"Resources": {"Waits": GATED, "First": TOPIC, "Bad": bad, "Late": {
        **TOPIC, "DependsOn": "Bad"}}})  # fmt: skip
    why = aws.reasons(name, "CREATE_FAILED")
    assert why["Waits"] == "Resource creation cancelled"
    assert "HandlerErrorCode" in why["Bad"]
    assert list(why) == ["Bad", "Waits"]
    assert "Late CREATE_IN_PROGRESS" not in aws.events(name)


def test_a_stack_may_be_deleted_while_it_is_created(aws: Deployer, gate: threading.Event) -> None:
    name = new_name()
    body = text({"Resources": {"Waits": GATED, "One": TOPIC}})
    identity = aws.cfn.create_stack(StackName=name, TemplateBody=body)["StackId"]
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    aws.cfn.delete_stack(StackName=name)
    assert aws.settled(identity)["StackStatus"] == "DELETE_COMPLETE"


def test_a_creation_has_as_much_time_as_it_is_given(
    aws: Deployer, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MINUTE", 0.1)
    name = aws.deploy({"Resources": {"Waits": GATED}}, TimeoutInMinutes=1)
    assert aws.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "exceeded the specified timeout" in aws.reasons(name, "ROLLBACK_IN_PROGRESS")[name]


def test_an_unknown_type_is_refused_before_anything_happens(aws: Deployer) -> None:
    name = new_name()
    for kind, words in (
        ("AWS::SageMaker::Oracle", "Unrecognized resource types: [AWS::SageMaker::Oracle]"),
        ("AWS::EC2::Instance", "The sandbox cannot make resources of these types"),
    ):
        template = f"Resources: {{Odd: {{Type: '{kind}'}}, Good: {{Type: 'AWS::SNS::Topic'}}}}"
        for call in (aws.deploy, aws.change):
            more = {"ChangeSetType": "CREATE"} if call == aws.change else {}
            arguments = (name, template) if call == aws.change else (template, name)
            code, message = refused(call, *arguments, **more)
            assert code == "ValidationError"
            assert words in message
    assert refused(aws.stack, name)[1] == f"Stack with id {name} does not exist"


def test_wrong_properties_fail_the_resource_in_the_words_of_its_schema(aws: Deployer) -> None:
    name = aws.deploy(
        {
            "Resources": {
                "Bad": resource("SSM::Parameter", Type="Words", Valeu="x", Tier=["Standard"]),
            }
        }
    )
    why = aws.reasons(name, "CREATE_FAILED")["Bad"]
    assert why.startswith("Properties validation failed for resource Bad with message:")
    for words in (
        "#: extraneous key [Valeu] is not permitted",
        "#: required key [Value] not found",
        "#/Type: Words is not a valid enum value",
        "#/Tier: expected type: String, found: JSONArray",
    ):
        assert words in why


def test_text_becomes_numbers_and_booleans_where_the_schema_wants_them(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Logs": resource("Logs::LogGroup", RetentionInDays="30")}})
    group = aws.logs.describe_log_groups(logGroupNamePrefix=aws.physical(name)["Logs"])
    assert group["logGroups"][0]["retentionInDays"] == 30


@pytest.mark.parametrize(
    ("properties", "given_", "needed"),
    [
        ({}, [], "CAPABILITY_IAM"),
        ({"RoleName": "named-role"}, ["CAPABILITY_IAM"], "CAPABILITY_NAMED_IAM"),
    ],
)
def test_roles_need_a_capability(
    aws: Deployer, properties: dict[str, str], given_: list[str], needed: str
) -> None:
    template = {"Resources": {"Role": role(**properties)}}
    assert refused(aws.deploy, template, Capabilities=given_) == (
        "InsufficientCapabilitiesException",
        f"Requires capabilities : [{needed}]",
    )
    summary = aws.cfn.get_template_summary(TemplateBody=text(template))
    assert summary["Capabilities"] == [needed]
    name = aws.deploy(template, Capabilities=[needed])
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE"
    aws.delete(name)


def test_an_inline_template_has_a_limit_and_one_in_s3_a_larger(aws: Deployer) -> None:
    big = {"Resources": {"One": TOPIC}, "Metadata": {"Long": "x" * 52_000}}
    assert "less than or equal to 51200" in refused(aws.deploy, big)[1]
    aws.s3.create_bucket(
        Bucket="templates", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    name = new_name()
    aws.s3.put_object(Bucket="templates", Key="a/b.json", Body=text(big))
    url = "https://templates.s3.eu-west-1.amazonaws.com/a/b.json"
    aws.cfn.create_stack(StackName=name, TemplateURL=url)
    assert aws.settled(name)["StackStatus"] == "CREATE_COMPLETE"


def test_names_are_unique_until_the_stack_is_deleted(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": TOPIC}})
    assert refused(aws.deploy, {"Resources": {"One": TOPIC}}, name) == (
        "AlreadyExistsException",
        f"Stack [{name}] already exists",
    )
    aws.delete(name)
    aws.deploy({"Resources": {"One": TOPIC}}, name)
    shown = aws.cfn.list_stacks()["StackSummaries"]
    statuses = [stack["StackStatus"] for stack in shown if stack["StackName"] == name]
    assert statuses == ["CREATE_COMPLETE", "DELETE_COMPLETE"]


def test_stack_tags_reach_the_resources_and_their_own_come_first(aws: Deployer) -> None:
    tags = [{"Key": "owner", "Value": "stack"}, {"Key": "team", "Value": "a"}]
    topic = resource("SNS::Topic", Tags=[{"Key": "owner", "Value": "resource"}])
    name = aws.deploy({"Resources": {"Topic": topic}}, Tags=tags)

    def shown() -> dict[str, str]:
        answer = aws.client("sns").list_tags_for_resource(ResourceArn=aws.physical(name)["Topic"])
        return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}

    assert shown() == {"owner": "resource", "team": "a"}
    aws.update(name, Tags=[{"Key": "team", "Value": "b"}])
    assert shown() == {"owner": "resource", "team": "b"}


# Updating.


def test_an_update_makes_the_new_before_it_deletes_the_old(aws: Deployer) -> None:
    def template(display: str, name: str) -> dict[str, Any]:
        topic = resource("SNS::Topic", TopicName=name)
        return {"Resources": {"Topic": topic, "Uses": parameter({"Ref": "Topic"})}}

    first, second = new_name(), new_name()
    name = aws.deploy(template("x", first))
    old = aws.physical(name)["Topic"]
    begun = len(aws.events(name))
    assert aws.update(name, template("x", second))["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.events(name)[begun:] == [
        f"{name} UPDATE_IN_PROGRESS",
        "Topic UPDATE_IN_PROGRESS",
        "Topic UPDATE_IN_PROGRESS",
        "Topic UPDATE_COMPLETE",
        "Uses UPDATE_IN_PROGRESS",
        "Uses UPDATE_COMPLETE",
        f"{name} UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "Topic DELETE_IN_PROGRESS",
        "Topic DELETE_COMPLETE",
        f"{name} UPDATE_COMPLETE",
    ]
    why = [e.get("ResourceStatusReason") for e in aws.raw_events(name)[begun:]]
    assert why[1] == (
        "Requested update requires the creation of a new physical resource; hence creating one."
    )
    topics = [t["TopicArn"] for t in aws.client("sns").list_topics()["Topics"]]
    assert (old in topics, aws.physical(name)["Topic"] in topics) == (False, True)


def test_a_failed_update_brings_everything_back(aws: Deployer) -> None:
    first = new_name()
    before = {
        "Resources": {
            "Changed": parameter("old"),
            "Replaced": resource("SNS::Topic", TopicName=first),
            "Removed": parameter("stays"),
        },
        "Outputs": {"Which": {"Value": "old"}},
    }
    after = {
        "Resources": {
            "Changed": parameter("new"),
            "Replaced": resource("SNS::Topic", TopicName=new_name()),
            "Added": parameter("more"),
            "Bad": {**BROKEN, "DependsOn": ["Changed", "Replaced", "Added"]},
        },
        "Outputs": {"Which": {"Value": "new"}},
    }
    name = aws.deploy(before, Tags=[{"Key": "a", "Value": "1"}])
    ids = aws.physical(name)
    stack = aws.update(name, after, Tags=[{"Key": "a", "Value": "2"}])
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stack["Tags"] == [{"Key": "a", "Value": "1"}]
    assert aws.outputs(name) == {"Which": "old"}
    assert aws.physical(name) == ids
    ssm = aws.client("ssm")
    assert ssm.get_parameter(Name=ids["Changed"])["Parameter"]["Value"] == "old"
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=ids["Changed"])
    assert tags["TagList"] == [{"Key": "a", "Value": "1"}]
    assert ssm.get_parameter(Name=ids["Removed"])["Parameter"]["Value"] == "stays"
    topics = [t["TopicArn"] for t in aws.client("sns").list_topics()["Topics"]]
    assert [t for t in topics if t == ids["Replaced"]] == [ids["Replaced"]]
    assert "Added DELETE_COMPLETE" in aws.events(name)
    assert "Removed DELETE_IN_PROGRESS" not in aws.events(name)
    assert aws.reasons(name, "UPDATE_ROLLBACK_IN_PROGRESS")[name] == (
        "The following resource(s) failed to create: [Bad]."
    )
    # The old template counts again: the same update is not "no change".
    assert aws.update(name, {"Resources": {"Changed": parameter("newer")}})["StackStatus"] == (
        "UPDATE_COMPLETE"
    )


def test_nothing_to_change_is_said_so(aws: Deployer) -> None:
    template = {"Resources": {"One": parameter("x")}}
    name = aws.deploy(template)
    assert refused(aws.update, name, template) == (
        "ValidationError",
        "No updates are to be performed.",
    )
    change_set = aws.change(name, template)
    assert (change_set["Status"], change_set["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert change_set["StatusReason"].startswith("The submitted information didn't contain changes")
    code, _ = refused(aws.cfn.execute_change_set, ChangeSetName=change_set["ChangeSetId"])
    assert code == "InvalidChangeSetStatus"


def test_a_custom_named_resource_is_not_replaced(aws: Deployer) -> None:
    fixed = new_name()
    template = {"Resources": {"Role": role(RoleName=fixed)}}
    name = aws.deploy(template, Capabilities=["CAPABILITY_NAMED_IAM"])
    moved = {"Resources": {"Role": role(RoleName=fixed, Path="/elsewhere/")}}
    stack = aws.update(name, moved, Capabilities=["CAPABILITY_NAMED_IAM"])
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert aws.reasons(name, "UPDATE_FAILED")["Role"] == (
        "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
        f"Rename {fixed} and update the stack again."
    )
    aws.delete(name)


def test_a_stack_in_progress_refuses_updates(aws: Deployer, gate: threading.Event) -> None:
    name = aws.deploy({"Resources": {"One": parameter("x")}})
    after = {"Resources": {"One": parameter("x"), "Waits": GATED}}
    aws.cfn.update_stack(StackName=name, TemplateBody=text(after))
    code, message = refused(aws.update, name, {"Resources": {"One": parameter("y")}})
    assert code == "ValidationError"
    assert message.endswith("is in UPDATE_IN_PROGRESS state and can not be updated.")
    message = refused(aws.delete, name)[1]
    assert message.endswith("cannot be deleted while in status UPDATE_IN_PROGRESS")
    gate.set()
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def test_without_rollback_an_update_stays_failed_until_it_is_rolled_back(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": parameter("old")}})
    after = {"Resources": {"One": parameter("new"), "Bad": {**BROKEN, "DependsOn": "One"}}}
    assert aws.update(name, after, DisableRollback=True)["StackStatus"] == "UPDATE_FAILED"
    parameter_name = aws.physical(name)["One"]
    ssm = aws.client("ssm")
    assert ssm.get_parameter(Name=parameter_name)["Parameter"]["Value"] == "new"
    aws.cfn.rollback_stack(StackName=name)
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert ssm.get_parameter(Name=parameter_name)["Parameter"]["Value"] == "old"


def test_a_failed_update_can_be_mended_instead(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": parameter("old")}})
    after = {"Resources": {"One": parameter("new"), "Two": {**BROKEN, "DependsOn": "One"}}}
    assert aws.update(name, after, DisableRollback=True)["StackStatus"] == "UPDATE_FAILED"
    after["Resources"]["Two"] = resource("SQS::Queue", QueueName=new_name())
    assert aws.update(name, after)["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.physical(name)["Two"].startswith("http")


@pytest.fixture
def stuck(aws: Deployer, gate: threading.Event) -> tuple[str, str]:
    """A stack in UPDATE_ROLLBACK_FAILED, and the log group that was deleted behind its back."""

    def template(days: int) -> dict[str, Any]:
        return {
            "Resources": {
                "Group": resource("Logs::LogGroup", RetentionInDays=days),
                "Other": parameter(days),
            }
        }  # fmt: skip

    name = aws.deploy(template(1))
    group = aws.physical(name)["Group"]
    after = template(7)
    after["Resources"]["Waits"] = {**GATED, "DependsOn": "Group"}
    aws.cfn.update_stack(StackName=name, TemplateBody=text(after))
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    aws.logs.delete_log_group(logGroupName=group)
    gate.set()
    stack = aws.settled(name)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to update: [Group]."
    return name, group


def test_a_rollback_that_failed_goes_on_when_the_cause_is_gone(
    aws: Deployer, stuck: tuple[str, str]
) -> None:
    name, group = stuck
    message = refused(aws.update, name, {"Resources": {"Other": parameter("x")}})[1]
    assert "is in UPDATE_ROLLBACK_FAILED state and can not be updated" in message
    aws.logs.create_log_group(logGroupName=group)
    aws.cfn.continue_update_rollback(StackName=name)
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    shown = aws.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert shown[0]["retentionInDays"] == 1


def test_a_rollback_can_skip_what_cannot_be_rolled_back(
    aws: Deployer, stuck: tuple[str, str]
) -> None:
    name, _ = stuck
    more = {"StackName": name, "ResourcesToSkip": ["Other"]}
    assert "[Other]" in refused(aws.cfn.continue_update_rollback, **more)[1]
    aws.cfn.continue_update_rollback(StackName=name, ResourcesToSkip=["Group"])
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


def test_a_stuck_stack_can_be_deleted(aws: Deployer, stuck: tuple[str, str]) -> None:
    assert aws.delete(stuck[0])["StackStatus"] == "DELETE_COMPLETE"


def test_the_user_can_cancel_an_update(aws: Deployer, gate: threading.Event) -> None:
    name = aws.deploy({"Resources": {"One": parameter("old")}})
    assert refused(aws.cfn.cancel_update_stack, StackName=name) == (
        "ValidationError",
        "CancelUpdateStack cannot be called from current stack status",
    )
    after = {"Resources": {"One": parameter("new"), "Waits": {**GATED, "DependsOn": "One"}}}
    aws.cfn.update_stack(StackName=name, TemplateBody=text(after))
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    aws.cfn.cancel_update_stack(StackName=name)
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert aws.reasons(name, "UPDATE_ROLLBACK_IN_PROGRESS")[name] == "User Initiated"
    value = aws.client("ssm").get_parameter(Name=aws.physical(name)["One"])["Parameter"]["Value"]
    assert value == "old"


def test_a_stack_policy_protects_what_it_names(aws: Deployer) -> None:
    policy = (
        '{"Statement": [{"Effect": "Allow", "Action": "Update:*", "Principal": "*", '
        '"Resource": "*"}, {"Effect": "Deny", "Action": "Update:Modify", "Principal": "*", '
        '"Resource": "LogicalResourceId/Fixed"}]}'
    )
    name = aws.deploy(
        {"Resources": {"Fixed": parameter("a"), "Free": parameter("a")}}, StackPolicyBody=policy
    )
    assert aws.cfn.get_stack_policy(StackName=name)["StackPolicyBody"] == policy
    free = {"Resources": {"Fixed": parameter("a"), "Free": parameter("b")}}
    assert aws.update(name, free)["StackStatus"] == "UPDATE_COMPLETE"
    both = {"Resources": {"Fixed": parameter("b"), "Free": parameter("b")}}
    assert aws.update(name, both)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert aws.reasons(name, "UPDATE_FAILED")["Fixed"] == (
        "Action denied by stack policy: Statement [#2] does not allow [Update:Modify] for "
        "resource [Fixed]"
    )


# Change sets.


def test_a_change_set_says_what_will_be_replaced_and_why(aws: Deployer) -> None:
    template = {
        "Parameters": {"Days": {"Type": "Number", "Default": "1"}, "Name": {"Type": "String"}},
        "Resources": {
            "Group": resource(
                "Logs::LogGroup", LogGroupName={"Ref": "Name"}, RetentionInDays={"Ref": "Days"}
            ),
            "Uses": parameter({"Fn::GetAtt": ["Group", "Arn"]}),
            "Gone": parameter("x"),
        },
    }
    name = aws.deploy(template, Parameters=given(Name=new_name()))
    del template["Resources"]["Gone"]
    template["Resources"]["New"] = parameter("y")
    shown = aws.change(name, template, Parameters=given(Name=new_name(), Days=7))
    changes = {c["ResourceChange"]["LogicalResourceId"]: c["ResourceChange"]
               for c in shown["Changes"]}  # fmt: skip
    assert {k: (v["Action"], v.get("Replacement")) for k, v in changes.items()} == {
        "Group": ("Modify", "True"),
        "Uses": ("Modify", "False"),
        "New": ("Add", None),
        "Gone": ("Remove", None),
    }
    causes = {d["Target"]["Name"]: d for d in changes["Group"]["Details"]}
    assert causes["LogGroupName"]["Target"]["RequiresRecreation"] == "Always"
    assert (
        causes["RetentionInDays"]["CausingEntity"],
        causes["RetentionInDays"]["Evaluation"],
    ) == (
        "Days",
        "Static",
    )
    assert causes["RetentionInDays"]["Target"]["AfterValue"] == "7"
    [detail] = changes["Uses"]["Details"]
    assert (detail["Evaluation"], detail["ChangeSource"], detail["CausingEntity"]) == (
        "Dynamic",
        "ResourceAttribute",
        "Group.Arn",
    )


def test_a_change_set_of_type_create_makes_a_stack_to_review(aws: Deployer) -> None:
    name = new_name()
    template = {"Resources": {"One": TOPIC}}
    assert refused(aws.change, name, template)[1] == f"Stack [{name}] does not exist"
    first = aws.change(name, template, ChangeSetType="CREATE")
    second = aws.change(name, template, ChangeSetType="CREATE")
    assert aws.stack(name)["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert first["Changes"][0]["ResourceChange"]["Action"] == "Add"
    aws.cfn.execute_change_set(ChangeSetName=second["ChangeSetId"])
    assert aws.settled(name)["StackStatus"] == "CREATE_COMPLETE"
    # Executing one deletes the others.
    code, _ = refused(aws.cfn.describe_change_set, ChangeSetName=first["ChangeSetId"])
    assert code == "ChangeSetNotFound"
    code, message = refused(aws.change, name, template, ChangeSetType="CREATE")
    assert "already exists and cannot be created again" in message


def test_a_reviewed_stack_can_be_deleted(aws: Deployer) -> None:
    name = new_name()
    aws.change(name, {"Resources": {"One": TOPIC}}, ChangeSetType="CREATE")
    aws.cfn.delete_stack(StackName=name)
    for _ in range(100):
        try:
            aws.stack(name)
        except ClientError:
            return
        time.sleep(0.01)
    raise AssertionError("the stack is still there")


def test_outputs_alone_are_a_change(aws: Deployer) -> None:
    template: dict[str, Any] = {"Resources": {"One": parameter("x")}}
    name = aws.deploy(template)
    template["Outputs"] = {"New": {"Value": "here"}}
    change_set = aws.change(name, template)
    assert (change_set["Status"], change_set["Changes"]) == ("CREATE_COMPLETE", [])
    aws.cfn.execute_change_set(ChangeSetName=change_set["ChangeSetId"])
    assert aws.settled(name)["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.outputs(name) == {"New": "here"}


# Deleting.


def test_a_stack_is_deleted_dependents_first(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"First": TOPIC, "Second": parameter({"Ref": "First"})}})
    begun = len(aws.events(name))
    stack = aws.delete(name)
    assert aws.events(stack["StackId"])[begun:] == [
        f"{name} DELETE_IN_PROGRESS",
        "Second DELETE_IN_PROGRESS",
        "Second DELETE_COMPLETE",
        "First DELETE_IN_PROGRESS",
        "First DELETE_COMPLETE",
        f"{name} DELETE_COMPLETE",
    ]
    assert refused(aws.stack, name)[1] == f"Stack with id {name} does not exist"
    aws.cfn.delete_stack(StackName=name)


def test_what_cannot_be_deleted_fails_the_deletion_and_may_be_retained(aws: Deployer) -> None:
    bucket = new_name()
    name = aws.deploy({"Resources": {"Bucket": resource("S3::Bucket", BucketName=bucket)}})
    aws.s3.put_object(Bucket=bucket, Key="full", Body=b"x")
    stack = aws.delete(name)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [Bucket]."
    assert "not empty" in aws.reasons(name, "DELETE_FAILED")["Bucket"]
    assert aws.delete(name, RetainResources=["Bucket"])["StackStatus"] == "DELETE_COMPLETE"
    assert aws.s3.get_object(Bucket=bucket, Key="full")["Body"].read() == b"x"


def test_deletion_policies_keep_resources(aws: Deployer) -> None:
    keep = {**parameter("x"), "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    name = aws.deploy({"Resources": {"Kept": keep, "Gone": parameter("x")}})
    ids = aws.physical(name)
    assert "Kept DELETE_SKIPPED" in aws.events(aws.delete(name)["StackId"])
    ssm = aws.client("ssm")
    assert ssm.get_parameters(Names=list(ids.values()))["InvalidParameters"] == [ids["Gone"]]


def test_termination_protection_holds_until_it_is_taken_away(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": TOPIC}}, EnableTerminationProtection=True)
    assert refused(aws.delete, name) == (
        "ValidationError",
        f"Stack [{name}] cannot be deleted while TerminationProtection is enabled",
    )
    aws.cfn.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_what_is_gone_already_does_not_stop_a_deletion(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Group": resource("Logs::LogGroup"), "Topic": TOPIC}})
    ids = aws.physical(name)
    aws.logs.delete_log_group(logGroupName=ids["Group"])
    aws.client("sns").delete_topic(TopicArn=ids["Topic"])
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


# Across stacks.


def test_exports_are_shared_unique_and_held_by_their_importers(aws: Deployer) -> None:
    export = new_name()
    output = {"Value": "v1", "Export": {"Name": export}}
    template = {"Resources": {"One": TOPIC}, "Outputs": {"Out": output}}
    exporter = aws.deploy(template)
    again = aws.deploy(template)
    assert aws.stack(again)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "already exported by stack" in aws.reasons(again, "ROLLBACK_IN_PROGRESS")[again]
    importer = aws.deploy({"Resources": {"Uses": parameter({"Fn::ImportValue": export})}})
    assert aws.cfn.list_imports(ExportName=export)["Imports"] == [importer]
    assert export in [e["Name"] for e in aws.cfn.list_exports()["Exports"]]
    stack = aws.delete(exporter)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert f"as it is in use by {importer}" in stack["StackStatusReason"]
    aws.delete(importer)
    assert aws.delete(exporter)["StackStatus"] == "DELETE_COMPLETE"


def test_a_missing_export_fails_what_imports_it(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Uses": parameter({"Fn::ImportValue": "nobody"})}})
    assert aws.reasons(name, "CREATE_FAILED")["Uses"] == "No export named nobody found"


# Requests.


def test_a_repeated_request_with_its_token_does_nothing_twice(aws: Deployer) -> None:
    name, template = new_name(), '{"Resources": {"One": {"Type": "AWS::SNS::Topic"}}}'
    request = {"StackName": name, "TemplateBody": template, "ClientRequestToken": "t1"}
    first = aws.cfn.create_stack(**request)["StackId"]
    assert aws.cfn.create_stack(**request)["StackId"] == first
    aws.settled(name)
    assert {e["ClientRequestToken"] for e in aws.raw_events(name)} == {"t1"}
    change_set = aws.change(name, {"Resources": {"One": TOPIC, "Two": TOPIC}})
    execute = {"ChangeSetName": change_set["ChangeSetId"], "ClientRequestToken": "t2"}
    aws.cfn.execute_change_set(**execute)
    aws.cfn.execute_change_set(**execute)
    aws.settled(name)
    execute["ClientRequestToken"] = "t1"
    assert refused(aws.cfn.execute_change_set, **execute)[0] == "TokenAlreadyExistsException"
    aws.cfn.delete_stack(StackName=name, ClientRequestToken="t3")
    aws.cfn.delete_stack(StackName=name, ClientRequestToken="t3")


def test_requests_are_checked_against_the_service_model(aws: Deployer) -> None:
    code, message = refused(
        aws.cfn.create_stack, StackName="-bad", TemplateBody="{}", Capabilities=["CAPABILITY_ALL"]
    )
    assert code == "ValidationError"
    assert "2 validation errors detected" in message or "1 validation error" in message


def test_faults_of_the_service_reach_the_caller(aws: Deployer, server: Server) -> None:
    server.inject("DescribeStacks", "Throttling", "Rate exceeded")
    once = Config(retries={"total_max_attempts": 1})
    client = boto3.client(
        "cloudformation",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id="AKIASANDBOX000000000",
        aws_secret_access_key="sandbox",
        config=once,
    )
    assert refused(client.describe_stacks) == ("Throttling", "Rate exceeded")


def test_faults_of_other_services_fail_the_resource(aws: Deployer, server: Server) -> None:
    server.inject("CreateModelPackageGroup", "ThrottlingException", "Rate exceeded")
    group = resource("SageMaker::ModelPackageGroup", ModelPackageGroupName=new_name())
    name = aws.deploy({"Resources": {"Group": group}})
    assert aws.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Rate exceeded" in aws.reasons(name, "CREATE_FAILED")["Group"]


def test_many_events_come_in_pages(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {f"P{i}": parameter("x") for i in range(40)}})
    assert len(aws.cfn.describe_stack_events(StackName=name)["StackEvents"]) == 100
    assert len(aws.events(name)) == 40 * 3 + 2


def test_accounts_do_not_see_each_others_stacks(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": TOPIC}})
    session = aws.client("sts").assume_role(
        RoleArn="arn:aws:iam::210987654321:role/OrganizationAccountAccessRole",
        RoleSessionName="other",
    )["Credentials"]
    other = Deployer(aws.url, session)
    assert refused(other.stack, name)[0] == "ValidationError"
    made = other.deploy({"Resources": {"One": TOPIC}})
    assert ":210987654321:" in other.physical(made)["One"]


def test_the_template_comes_back_as_it_was_given(aws: Deployer) -> None:
    body = "# a remark\nResources:\n  One:\n    Type: AWS::SNS::Topic\n"
    name = aws.deploy(body)
    assert aws.cfn.get_template(StackName=name)["TemplateBody"] == body


def test_hidden_parameters_are_not_shown(aws: Deployer) -> None:
    template = {
        "Parameters": {"Secret": {"Type": "String", "NoEcho": True}},
        "Resources": {"One": parameter({"Ref": "Secret"})},
    }
    name = aws.deploy(template, Parameters=given(Secret="hush"))
    assert aws.stack(name)["Parameters"][0]["ParameterValue"] == "****"
    value = aws.client("ssm").get_parameter(Name=aws.physical(name)["One"])["Parameter"]["Value"]
    assert value == "hush"


def test_dynamic_references_are_resolved_when_the_resource_is_made(aws: Deployer) -> None:
    aws.client("ssm").put_parameter(Name="/there", Value="from ssm", Type="String")
    aws.client("secretsmanager").create_secret(Name="login", SecretString='{"user": "ann"}')
    name = aws.deploy(
        {
            "Resources": {
                "One": parameter("{{resolve:ssm:/there}} and "
                                 "{{resolve:secretsmanager:login:SecretString:user}}"),
                "Two": parameter("{{resolve:ssm:/nowhere}}"),
            }
        },
        OnFailure="DO_NOTHING",
    )  # fmt: skip
    ids = aws.physical(name)
    value = aws.client("ssm").get_parameter(Name=ids["One"])["Parameter"]["Value"]
    assert value == "from ssm and ann"
    assert "Two" in aws.reasons(name, "CREATE_FAILED")
