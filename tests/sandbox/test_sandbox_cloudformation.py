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
    resource,
    secret,
    text,
)
from fault_injection import inject
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.cloudformation.calls import Call, Provider, ResourceFailed
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS

pytestmark = pytest.mark.slow

QUEUE = resource("SQS::Queue")
# SQS takes names of up to 80 characters: the schema has no limit, but the service does.
BROKEN = resource("SQS::Queue", QueueName="x" * 90)
GATED = resource("KMS::Key")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stacks"), "eu-west-1") as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Deployer:
    return Deployer(server.environment())


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


def queues(aws: Deployer) -> list[str]:
    found: list[str] = aws.client("sqs").list_queues().get("QueueUrls", [])
    return found


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
                "Second": secret({"Ref": "First"}),
                "First": QUEUE,
                "Third": {**secret("x"), "DependsOn": "Second"},
            },
            "Outputs": {"Queue": {"Value": {"Fn::GetAtt": ["First", "QueueName"]}}},
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
    assert aws.outputs(name)["Queue"] == aws.physical(name)["First"].rpartition("/")[2]


def test_a_failed_creation_is_rolled_back_and_the_first_failure_says_why(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Kept": QUEUE, "Bad": {**BROKEN, "DependsOn": "Kept"}}})
    stack = aws.stack(name)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    why = aws.reasons(name, "CREATE_FAILED")
    assert list(why) == ["Bad"]
    assert "HandlerErrorCode: InvalidRequest" in why["Bad"]
    assert aws.reasons(name, "ROLLBACK_IN_PROGRESS")[name] == (
        "The following resource(s) failed to create: [Bad]. Rollback requested by user."
    )
    assert aws.physical(name)["Kept"] not in queues(aws)


def test_a_stack_that_rolled_back_can_only_be_deleted(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Bad": BROKEN}})
    words = "is in ROLLBACK_COMPLETE state and can not be updated."
    for call in (aws.update, aws.change):
        code, message = refused(call, name, {"Resources": {"Good": QUEUE}})
        assert (code, message.endswith(words)) == ("ValidationError", True)
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_the_others_are_cancelled_when_one_fails(aws: Deployer, gate: threading.Event) -> None:
    bad = {**BROKEN, "DependsOn": "First"}
    name = aws.deploy({"Resources": {"Waits": GATED, "First": QUEUE, "Bad": bad, "Late": {
        **QUEUE, "DependsOn": "Bad"}}})  # fmt: skip
    why = aws.reasons(name, "CREATE_FAILED")
    assert why["Waits"] == "Resource creation cancelled"
    assert "HandlerErrorCode" in why["Bad"]
    assert list(why) == ["Bad", "Waits"]
    assert "Late CREATE_IN_PROGRESS" not in aws.events(name)


def test_a_stack_may_be_deleted_while_it_is_created(aws: Deployer, gate: threading.Event) -> None:
    name = new_name()
    body = text({"Resources": {"Waits": GATED, "One": QUEUE}})
    identity = aws.cfn.create_stack(StackName=name, TemplateBody=body)["StackId"]
    aws.wait_for(name, "Waits CREATE_IN_PROGRESS")
    aws.cfn.delete_stack(StackName=name)
    assert aws.settled(identity)["StackStatus"] == "DELETE_COMPLETE"


def test_an_unknown_type_is_refused_before_anything_happens(aws: Deployer) -> None:
    name = new_name()
    for kind, words in (
        ("AWS::SageMaker::Oracle", "Unrecognized resource types: [AWS::SageMaker::Oracle]"),
        ("AWS::EC2::Instance", "does not implement these resource types: [AWS::EC2::Instance]"),
    ):
        template = f"Resources: {{Odd: {{Type: '{kind}'}}, Good: {{Type: 'AWS::SQS::Queue'}}}}"
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
                "Bad": resource("CloudWatch::Alarm", Statistic="Words", Valeu="x", Period=["60"]),
            }
        }
    )
    why = aws.reasons(name, "CREATE_FAILED")["Bad"]
    assert why.startswith("Properties validation failed for resource Bad with message:")
    for words in (
        "#: extraneous key [Valeu] is not permitted",
        "exactly one of [Metrics, MetricName] must be given",
        "#/Period: expected type: Integer, found: JSONArray",
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
    name = aws.deploy(template, Capabilities=[needed])
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE"
    aws.delete(name)


def test_an_inline_template_has_a_limit_and_one_in_s3_a_larger(aws: Deployer) -> None:
    big = {"Resources": {"One": QUEUE}, "Metadata": {"Long": "x" * 52_000}}
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
    name = aws.deploy({"Resources": {"One": QUEUE}})
    assert refused(aws.deploy, {"Resources": {"One": QUEUE}}, name) == (
        "AlreadyExistsException",
        f"Stack [{name}] already exists",
    )
    aws.delete(name)
    aws.deploy({"Resources": {"One": QUEUE}}, name)
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE"


def test_stack_tags_reach_the_resources_and_their_own_come_first(aws: Deployer) -> None:
    tags = [{"Key": "owner", "Value": "stack"}, {"Key": "team", "Value": "a"}]
    queue = resource("SQS::Queue", Tags=[{"Key": "owner", "Value": "resource"}])
    name = aws.deploy({"Resources": {"Queue": queue}}, Tags=tags)

    def shown() -> dict[str, str]:
        answer = aws.client("sqs").list_queue_tags(QueueUrl=aws.physical(name)["Queue"])
        return dict(answer["Tags"])

    assert shown() == {"owner": "resource", "team": "a"}
    aws.update(name, Tags=[{"Key": "team", "Value": "b"}])
    assert shown() == {"owner": "resource", "team": "b"}


# Updating.


def test_an_update_makes_the_new_before_it_deletes_the_old(aws: Deployer) -> None:
    def template(name: str) -> dict[str, Any]:
        queue = resource("SQS::Queue", QueueName=name)
        return {"Resources": {"Queue": queue, "Uses": secret({"Ref": "Queue"})}}

    first, second = new_name(), new_name()
    name = aws.deploy(template(first))
    old = aws.physical(name)["Queue"]
    begun = len(aws.events(name))
    assert aws.update(name, template(second))["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.events(name)[begun:] == [
        f"{name} UPDATE_IN_PROGRESS",
        "Queue UPDATE_IN_PROGRESS",
        "Queue UPDATE_IN_PROGRESS",
        "Queue UPDATE_COMPLETE",
        "Uses UPDATE_IN_PROGRESS",
        "Uses UPDATE_COMPLETE",
        f"{name} UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "Queue DELETE_IN_PROGRESS",
        "Queue DELETE_COMPLETE",
        f"{name} UPDATE_COMPLETE",
    ]
    why = [e.get("ResourceStatusReason") for e in aws.raw_events(name)[begun:]]
    assert why[1] == (
        "Requested update requires the creation of a new physical resource; hence creating one."
    )
    left = queues(aws)
    assert (old in left, aws.physical(name)["Queue"] in left) == (False, True)


def test_a_failed_update_brings_everything_back(aws: Deployer) -> None:
    first = new_name()
    before = {
        "Resources": {
            "Changed": secret("old"),
            "Replaced": resource("SQS::Queue", QueueName=first),
            "Removed": secret("stays"),
        },
        "Outputs": {"Which": {"Value": "old"}},
    }
    after = {
        "Resources": {
            "Changed": secret("new"),
            "Replaced": resource("SQS::Queue", QueueName=new_name()),
            "Added": secret("more"),
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
    assert aws.secret(ids["Changed"]) == "old"
    shown = aws.client("secretsmanager").describe_secret(SecretId=ids["Changed"])
    assert shown["Tags"] == [{"Key": "a", "Value": "1"}]
    assert aws.secret(ids["Removed"]) == "stays"
    assert ids["Replaced"] in queues(aws)
    assert "Added DELETE_COMPLETE" in aws.events(name)
    assert "Removed DELETE_IN_PROGRESS" not in aws.events(name)
    assert aws.reasons(name, "UPDATE_ROLLBACK_IN_PROGRESS")[name] == (
        "The following resource(s) failed to create: [Bad]."
    )
    # The old template counts again: the same update is not "no change".
    assert aws.update(name, {"Resources": {"Changed": secret("newer")}})["StackStatus"] == (
        "UPDATE_COMPLETE"
    )


def test_nothing_to_change_is_reported_as_such(aws: Deployer) -> None:
    template = {"Resources": {"One": secret("x")}}
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
    name = aws.deploy({"Resources": {"One": secret("x")}})
    after = {"Resources": {"One": secret("x"), "Waits": GATED}}
    aws.cfn.update_stack(StackName=name, TemplateBody=text(after))
    code, message = refused(aws.update, name, {"Resources": {"One": secret("y")}})
    assert code == "ValidationError"
    assert message.endswith("is in UPDATE_IN_PROGRESS state and can not be updated.")
    message = refused(aws.delete, name)[1]
    assert message.endswith("cannot be deleted while in status UPDATE_IN_PROGRESS")
    gate.set()
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"


@pytest.fixture
def stuck(aws: Deployer, gate: threading.Event) -> tuple[str, str]:
    """A stack in UPDATE_ROLLBACK_FAILED, and the log group that was deleted behind its back."""

    def template(days: int) -> dict[str, Any]:
        return {
            "Resources": {
                "Group": resource("Logs::LogGroup", RetentionInDays=days),
                "Other": secret(days),
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


def test_a_failed_rollback_continues_once_the_cause_is_fixed(
    aws: Deployer, stuck: tuple[str, str]
) -> None:
    name, group = stuck
    message = refused(aws.update, name, {"Resources": {"Other": secret("x")}})[1]
    assert "is in UPDATE_ROLLBACK_FAILED state and can not be updated" in message
    aws.logs.create_log_group(logGroupName=group)
    aws.cfn.continue_update_rollback(StackName=name)
    assert aws.settled(name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    shown = aws.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert shown[0]["retentionInDays"] == 1


def test_a_stuck_stack_can_be_deleted(aws: Deployer, stuck: tuple[str, str]) -> None:
    assert aws.delete(stuck[0])["StackStatus"] == "DELETE_COMPLETE"


# Change sets.


def test_a_change_set_says_what_will_be_replaced_and_why(aws: Deployer) -> None:
    template = {
        "Parameters": {"Days": {"Type": "Number", "Default": "1"}, "Name": {"Type": "String"}},
        "Resources": {
            "Group": resource(
                "Logs::LogGroup", LogGroupName={"Ref": "Name"}, RetentionInDays={"Ref": "Days"}
            ),
            "Uses": secret({"Ref": "Group"}),
            "Gone": secret("x"),
        },
    }
    name = aws.deploy(template, Parameters=given(Name=new_name()))
    del template["Resources"]["Gone"]
    template["Resources"]["New"] = secret("y")
    shown = aws.change(name, template, Parameters=given(Name=new_name(), Days=7))
    changes = {c["ResourceChange"]["LogicalResourceId"]: c["ResourceChange"]
               for c in shown["Changes"]}  # fmt: skip
    assert {k: (v["Action"], v.get("Replacement")) for k, v in changes.items()} == {
        "Group": ("Modify", "True"),
        "Uses": ("Modify", "False"),
        "New": ("Add", None),
        "Gone": ("Remove", None),
    }
    targets = {d["Target"]["Name"]: d["Target"] for d in changes["Group"]["Details"]}
    assert targets["LogGroupName"]["RequiresRecreation"] == "Always"
    assert targets["RetentionInDays"]["RequiresRecreation"] == "Never"
    [detail] = changes["Uses"]["Details"]
    assert detail["Target"]["Name"] == "SecretString"


def test_what_follows_from_a_replacement_is_replaced_under_a_condition(aws: Deployer) -> None:
    template = {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {
            "First": resource("SQS::Queue", QueueName={"Ref": "Name"}),
            "Second": resource("SQS::Queue", QueueName={"Fn::Sub": "${First.QueueName}-b"}),
        },
    }
    name = aws.deploy(template, Parameters=given(Name=new_name()))
    shown = aws.change(name, template, Parameters=given(Name=new_name()))
    rows = [change["ResourceChange"] for change in shown["Changes"]]
    assert {row["LogicalResourceId"]: row["Replacement"] for row in rows} == {
        "First": "True",
        "Second": "Conditional",
    }


def test_a_change_set_of_type_create_makes_a_stack_to_review(aws: Deployer) -> None:
    name = new_name()
    template = {"Resources": {"One": QUEUE}}
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
    aws.change(name, {"Resources": {"One": QUEUE}}, ChangeSetType="CREATE")
    aws.cfn.delete_stack(StackName=name)
    for _ in range(100):
        try:
            aws.stack(name)
        except ClientError:
            return
        time.sleep(0.01)
    raise AssertionError("the stack is still there")


def test_outputs_alone_are_a_change(aws: Deployer) -> None:
    template: dict[str, Any] = {"Resources": {"One": secret("x")}}
    name = aws.deploy(template)
    template["Outputs"] = {"New": {"Value": "here"}}
    change_set = aws.change(name, template)
    assert (change_set["Status"], change_set["Changes"]) == ("CREATE_COMPLETE", [])
    aws.cfn.execute_change_set(ChangeSetName=change_set["ChangeSetId"])
    assert aws.settled(name)["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.outputs(name) == {"New": "here"}


# Deleting.


def test_a_stack_is_deleted_with_dependents_first(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"First": QUEUE, "Second": secret({"Ref": "First"})}})
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


def test_what_cannot_be_deleted_fails_the_deletion_until_it_can(aws: Deployer) -> None:
    bucket = new_name()
    name = aws.deploy({"Resources": {"Bucket": resource("S3::Bucket", BucketName=bucket)}})
    aws.s3.put_object(Bucket=bucket, Key="full", Body=b"x")
    stack = aws.delete(name)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [Bucket]."
    assert "not empty" in aws.reasons(name, "DELETE_FAILED")["Bucket"]
    aws.s3.delete_object(Bucket=bucket, Key="full")
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_deletion_policies_keep_resources(aws: Deployer) -> None:
    keep = {**secret("x"), "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    name = aws.deploy({"Resources": {"Kept": keep, "Gone": secret("x")}})
    ids = aws.physical(name)
    assert "Kept DELETE_SKIPPED" in aws.events(aws.delete(name)["StackId"])
    assert aws.secret(ids["Kept"]) == "x"
    assert refused(aws.secret, ids["Gone"])[0] == "ResourceNotFoundException"


def test_what_is_kept_except_on_creation_goes_with_a_creation_that_fails(aws: Deployer) -> None:
    taken, keep = (
        new_name(),
        {**resource("Logs::LogGroup"), "DeletionPolicy": "RetainExceptOnCreate"},
    )
    aws.logs.create_log_group(logGroupName=taken)
    fails = {**resource("Logs::LogGroup", LogGroupName=taken), "DependsOn": "Kept"}
    failed = aws.deploy({"Resources": {"Kept": keep, "Fails": fails}})
    assert aws.stack(failed)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Kept DELETE_COMPLETE" in aws.events(failed)
    name = aws.deploy({"Resources": {"Kept": keep, "Other": QUEUE}})
    aws.update(name, {"Resources": {"Other": QUEUE}})
    assert "Kept DELETE_SKIPPED" in aws.events(name)
    name = aws.deploy({"Resources": {"Kept": keep}})
    assert "Kept DELETE_SKIPPED" in aws.events(aws.delete(name)["StackId"])


def test_resources_already_gone_do_not_stop_a_deletion(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Group": resource("Logs::LogGroup"), "Queue": QUEUE}})
    ids = aws.physical(name)
    aws.logs.delete_log_group(logGroupName=ids["Group"])
    aws.client("sqs").delete_queue(QueueUrl=ids["Queue"])
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


# Across stacks.


def test_exports_are_shared_unique_and_held_by_their_importers(aws: Deployer) -> None:
    export = new_name()
    output = {"Value": "v1", "Export": {"Name": export}}
    template = {"Resources": {"One": QUEUE}, "Outputs": {"Out": output}}
    exporter = aws.deploy(template)
    again = aws.deploy(template)
    assert aws.stack(again)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "already exported by stack" in aws.reasons(again, "ROLLBACK_IN_PROGRESS")[again]
    importer = aws.deploy({"Resources": {"Uses": secret({"Fn::ImportValue": export})}})
    assert aws.cfn.list_imports(ExportName=export)["Imports"] == [importer]
    stack = aws.delete(exporter)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert f"as it is in use by {importer}" in stack["StackStatusReason"]
    aws.delete(importer)
    assert aws.delete(exporter)["StackStatus"] == "DELETE_COMPLETE"


def test_a_missing_export_fails_what_imports_it(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"Uses": secret({"Fn::ImportValue": "nobody"})}})
    assert aws.reasons(name, "CREATE_FAILED")["Uses"] == "No export named nobody found"


# Requests.


def test_a_repeated_request_with_its_token_does_nothing_twice(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": QUEUE}})
    change_set = aws.change(name, {"Resources": {"One": QUEUE, "Two": QUEUE}})
    execute = {"ChangeSetName": change_set["ChangeSetId"], "ClientRequestToken": "t1"}
    aws.cfn.execute_change_set(**execute)
    aws.cfn.execute_change_set(**execute)
    aws.settled(name)
    assert aws.events(name).count(f"{name} UPDATE_IN_PROGRESS") == 1
    assert aws.raw_events(name)[-1]["ClientRequestToken"] == "t1"
    another = aws.change(name, {"Resources": {"One": QUEUE}})
    execute["ChangeSetName"] = another["ChangeSetId"]
    assert refused(aws.cfn.execute_change_set, **execute)[0] == "TokenAlreadyExistsException"


@pytest.mark.parametrize(
    ("call", "code", "what"),
    [
        (lambda cfn: cfn.list_stacks(), "InvalidAction", "cloudformation:ListStacks"),
        (
            lambda cfn: cfn.create_stack(StackName="s", TemplateBody="{}", OnFailure="DELETE"),
            "ValidationError",
            "OnFailure of cloudformation:CreateStack",
        ),
        (
            lambda cfn: cfn.create_stack(
                StackName="s", TemplateBody='{"Resources": {"A": "{{resolve:ssm:x}}"}}'
            ),
            "ValidationError",
            "dynamic references",
        ),
    ],
    ids=["operation", "member", "reference"],
)
def test_what_no_caller_of_ours_uses_is_refused_by_name(
    aws: Deployer, call: Any, code: str, what: str
) -> None:
    found, message = refused(call, aws.cfn)
    assert found == code
    assert message.startswith("The sandbox does not implement")
    assert what in message


def test_requests_are_checked_against_the_service_model(aws: Deployer) -> None:
    code, message = refused(
        aws.cfn.create_stack, StackName="-bad", TemplateBody="{}", Capabilities=["CAPABILITY_ALL"]
    )
    assert code == "ValidationError"
    assert "2 validation errors detected" in message or "1 validation error" in message


def test_faults_of_the_service_reach_the_caller(aws: Deployer, server: Server) -> None:
    inject(server, "DescribeStacks", "Throttling", "Rate exceeded")
    once = Config(retries={"total_max_attempts": 1})
    client = boto3.client(
        "cloudformation",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id=aws.variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=aws.variables["AWS_SECRET_ACCESS_KEY"],
        config=once,
    )
    assert refused(client.describe_stacks) == ("Throttling", "Rate exceeded")


def test_faults_of_other_services_fail_the_resource(aws: Deployer, server: Server) -> None:
    inject(server, "CreateModelPackageGroup", "ThrottlingException", "Rate exceeded")
    group = resource("SageMaker::ModelPackageGroup", ModelPackageGroupName=new_name())
    name = aws.deploy({"Resources": {"Group": group}})
    assert aws.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Rate exceeded" in aws.reasons(name, "CREATE_FAILED")["Group"]


def test_many_events_come_in_pages(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {f"P{i}": secret("x") for i in range(40)}})
    assert len(aws.cfn.describe_stack_events(StackName=name)["StackEvents"]) == 100
    assert len(aws.events(name)) == 40 * 3 + 2


def test_accounts_do_not_see_each_others_stacks(aws: Deployer) -> None:
    name = aws.deploy({"Resources": {"One": QUEUE}})
    session = aws.client("sts").assume_role(
        RoleArn="arn:aws:iam::210987654321:role/OrganizationAccountAccessRole",
        RoleSessionName="other",
    )["Credentials"]
    other = Deployer(aws.variables, session)
    assert refused(other.stack, name)[0] == "ValidationError"
    made = other.deploy({"Resources": {"One": QUEUE}})
    assert "/210987654321/" in other.physical(made)["One"]


def test_hidden_parameters_are_not_shown(aws: Deployer) -> None:
    template = {
        "Parameters": {"Secret": {"Type": "String", "NoEcho": True}},
        "Resources": {"One": secret({"Ref": "Secret"})},
    }
    name = aws.deploy(template, Parameters=given(Secret="hush"))
    assert aws.stack(name)["Parameters"][0]["ParameterValue"] == "****"
    assert aws.secret(aws.physical(name)["One"]) == "hush"
