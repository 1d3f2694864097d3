"""Each resource type: made, changed in place, brought back and deleted through its own service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloudformation_cases import TRUST, Deployer, new_name, resource
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS

pytestmark = pytest.mark.slow

CAPABLE: dict[str, Any] = {"Capabilities": ["CAPABILITY_NAMED_IAM"]}
ALLOW = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}],
}
DENY = json.loads(json.dumps(ALLOW).replace("Allow", "Deny"))
ALARM = {
    "MetricName": "m",
    "Namespace": "n",
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "ComparisonOperator": "GreaterThanThreshold",
}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    with Server(tmp_path_factory.mktemp("providers"), "eu-west-1") as server:
        yield Deployer(server.environment())


def principal(action: str, target: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": target}
    return {"Version": "2012-10-17", "Statement": [statement]}


def graph(title: str) -> str:
    widget = {"type": "metric", "properties": {"title": title, "metrics": [], "region": "r"}}
    return json.dumps({"widgets": [widget]})


def to(address: str) -> dict[str, str]:
    return {"Protocol": "email", "Endpoint": address}


def endpoints(aws: Deployer, topic: str) -> list[str]:
    rows = aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    return sorted(row["Endpoint"] for row in rows)


Look = Callable[[Deployer, str], Any]
# Kind: properties before and after, what to read, and its value each time.
IN_PLACE: dict[str, tuple[dict[str, Any], dict[str, Any], Look, Any, Any]] = {
    "CloudWatch::Alarm": (
        {**ALARM, "Threshold": 1},
        {**ALARM, "Threshold": "2.5"},
        lambda aws, name: aws.client("cloudwatch").describe_alarms(AlarmNames=[name])[
            "MetricAlarms"
        ][0]["Threshold"],
        1.0,
        2.5,
    ),
    "CloudWatch::Dashboard": (
        {"DashboardBody": graph("before")},
        {"DashboardBody": graph("after")},
        lambda aws, name: aws.client("cloudwatch").get_dashboard(DashboardName=name)[
            "DashboardBody"
        ],
        graph("before"),
        graph("after"),
    ),
    "IAM::Role": (
        {
            "AssumeRolePolicyDocument": TRUST,
            "Policies": [{"PolicyName": "one", "PolicyDocument": ALLOW}],
        },
        {
            "AssumeRolePolicyDocument": TRUST,
            "Policies": [{"PolicyName": "two", "PolicyDocument": ALLOW}],
            "MaxSessionDuration": 7200,
        },
        lambda aws, name: (
            aws.iam.list_role_policies(RoleName=name)["PolicyNames"],
            aws.iam.get_role(RoleName=name)["Role"]["MaxSessionDuration"],
        ),
        (["one"], 3600),
        (["two"], 7200),
    ),
    "IAM::ManagedPolicy": (
        {"PolicyDocument": ALLOW},
        {"PolicyDocument": DENY},
        lambda aws, arn: aws.iam.get_policy_version(
            PolicyArn=arn,
            VersionId=aws.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"],
        )["PolicyVersion"]["Document"]["Statement"][0]["Effect"],
        "Allow",
        "Deny",
    ),
    "Logs::LogGroup": (
        {"RetentionInDays": 7},
        {},
        lambda aws, name: aws.logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0].get(
            "retentionInDays"
        ),
        7,
        None,
    ),
    "S3::Bucket": (
        {
            "VersioningConfiguration": {"Status": "Enabled"},
            "PublicAccessBlockConfiguration": {"BlockPublicAcls": True},
            "LifecycleConfiguration": {
                "Rules": [
                    {
                        "Id": "old",
                        "Status": "Enabled",
                        "NoncurrentVersionExpiration": {"NoncurrentDays": 9},
                    }
                ]
            },
        },
        {
            "VersioningConfiguration": {"Status": "Suspended"},
            "PublicAccessBlockConfiguration": {"BlockPublicAcls": True},
            "BucketEncryption": {
                "ServerSideEncryptionConfiguration": [
                    {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
                ]
            },
        },
        lambda aws, name: aws.s3.get_bucket_versioning(Bucket=name)["Status"],
        "Enabled",
        "Suspended",
    ),
    "SNS::Topic": (
        {"DisplayName": "before"},
        {},
        lambda aws, arn: aws.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"][
            "DisplayName"
        ],
        "before",
        "",
    ),
    "SQS::Queue": (
        {"MessageRetentionPeriod": 600},
        {"SqsManagedSseEnabled": False},
        lambda aws, url: [
            aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
                "Attributes"
            ][name]
            for name in ("MessageRetentionPeriod", "SqsManagedSseEnabled")
        ],
        ["600", "true"],
        ["345600", "false"],
    ),
    "SecretsManager::Secret": (
        {"SecretString": "before"},
        {"SecretString": "after"},
        lambda aws, name: aws.secret(name),
        "before",
        "after",
    ),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_resource_is_changed_in_place_brought_back_and_deleted(aws: Deployer, kind: str) -> None:
    before, after, look, then, now = IN_PLACE[kind]
    name = aws.deploy({"Resources": {"It": resource(kind, **before)}}, **CAPABLE)
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    physical = aws.physical(name)["It"]
    assert look(aws, physical) == then
    bad = {**resource("SQS::Queue", QueueName="x" * 90), "DependsOn": "It"}
    failed = {"Resources": {"It": resource(kind, **after), "Bad": bad}}
    stack = aws.update(name, failed, **CAPABLE)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", aws.reasons(name, "UPDATE_FAILED")
    assert "It UPDATE_COMPLETE" in aws.events(name)
    assert (aws.physical(name)["It"], look(aws, physical)) == (physical, then)
    aws.update(name, {"Resources": {"It": resource(kind, **after)}}, **CAPABLE)
    assert (aws.physical(name)["It"], look(aws, physical)) == (physical, now)
    stack = aws.delete(name)
    assert stack["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")


def test_resources_that_belong_to_other_resources_are_created(aws: Deployer) -> None:
    bucket = new_name()

    def template(key: str) -> dict[str, Any]:
        queue = {"Fn::GetAtt": ["Queue", "Arn"]}
        return {
            "Resources": {
                "Bucket": resource("S3::Bucket", BucketName=bucket),
                "BucketPolicy": resource(
                    "S3::BucketPolicy",
                    Bucket={"Ref": "Bucket"},
                    PolicyDocument=principal("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}"),
                ),
                "Queue": resource("SQS::Queue"),
                "QueuePolicy": resource(
                    "SQS::QueuePolicy",
                    Queues=[{"Ref": "Queue"}],
                    PolicyDocument=principal("sqs:SendMessage", queue),
                ),
            }
        }

    name = aws.deploy(template("first"), **CAPABLE)
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    stack = aws.update(name, template("second"), **CAPABLE)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", aws.reasons(name, "UPDATE_FAILED")
    ids = aws.physical(name)
    assert "/second" in aws.s3.get_bucket_policy(Bucket=bucket)["Policy"]
    queue = aws.client("sqs").get_queue_attributes(QueueUrl=ids["Queue"], AttributeNames=["Policy"])
    assert "SendMessage" in queue["Attributes"]["Policy"]
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")


def test_a_topic_and_its_policy(aws: Deployer) -> None:
    def template(action: str) -> dict[str, Any]:
        topic = {"Ref": "Topic"}
        return {
            "Resources": {
                "Topic": resource("SNS::Topic"),
                "Policy": resource(
                    "SNS::TopicPolicy", Topics=[topic], PolicyDocument=principal(action, topic)
                ),
            }
        }

    name = aws.deploy(template("sns:Publish"), Tags=[{"Key": "a", "Value": "1"}])
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    sns, topic = aws.client("sns"), aws.physical(name)["Topic"]
    assert sns.list_tags_for_resource(ResourceArn=topic)["Tags"] == [{"Key": "a", "Value": "1"}]
    assert aws.update(name, template("sns:Subscribe"))["StackStatus"] == "UPDATE_COMPLETE"
    shown = sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    assert "sns:Subscribe" in shown and "sns:Publish" not in shown
    again = resource("SNS::Topic", TopicName=topic.rpartition(":")[2])
    taken = aws.deploy({"Resources": {"Again": again}})
    assert "AlreadyExists" in aws.reasons(taken, "CREATE_FAILED")["Again"]
    bare = {"Resources": {"Topic": resource("SNS::Topic")}}
    assert aws.update(name, bare)["StackStatus"] == "UPDATE_COMPLETE"
    assert "SourceOwner" in sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")


def test_a_schedule_and_its_role(aws: Deployer) -> None:
    trusting = json.loads(json.dumps(TRUST).replace("sagemaker.", "scheduler."))

    def template(expression: str, **more: Any) -> dict[str, Any]:
        start = {"PipelineName": "p", "ClientRequestToken": "<aws.scheduler.execution-id>" * 2}
        return {
            "Resources": {
                "Role": resource("IAM::Role", AssumeRolePolicyDocument=trusting),
                "It": resource(
                    "Scheduler::Schedule",
                    ScheduleExpression=expression,
                    FlexibleTimeWindow={"Mode": "OFF"},
                    Target={
                        "Arn": "arn:aws:scheduler:::aws-sdk:sagemaker:startPipelineExecution",
                        "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                        "Input": json.dumps(start),
                    },
                    **more,
                ),
            }
        }

    name = aws.deploy(template("cron(0 6 * * ? *)", State="DISABLED"), **CAPABLE)
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    schedule, scheduler = aws.physical(name)["It"], aws.client("scheduler")
    assert scheduler.get_schedule(Name=schedule)["State"] == "DISABLED"
    stack = aws.update(name, template("cron(0 7 ? * MON *)"), **CAPABLE)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", aws.reasons(name, "UPDATE_FAILED")
    found = scheduler.get_schedule(Name=schedule, GroupName="default")
    assert (found["State"], found["ScheduleExpression"]) == ("ENABLED", "cron(0 7 ? * MON *)")
    assert [row["Name"] for row in scheduler.list_schedules()["Schedules"]] == [schedule]
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")
    assert scheduler.list_schedules()["Schedules"] == []


def test_a_model_package_group_and_its_policy(aws: Deployer) -> None:
    group = new_name()

    def template(**more: Any) -> dict[str, Any]:
        return {
            "Resources": {
                "Group": resource(
                    "SageMaker::ModelPackageGroup", ModelPackageGroupName=group, **more
                )
            }
        }

    shared = principal("sagemaker:DescribeModelPackage", "*")
    name = aws.deploy(template(ModelPackageGroupPolicy=shared), Tags=[{"Key": "a", "Value": "1"}])
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    found = aws.sagemaker.get_model_package_group_policy(ModelPackageGroupName=group)
    assert json.loads(found["ResourcePolicy"]) == shared
    arn = aws.physical(name)["Group"]
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    aws.update(name, template(), Tags=[{"Key": "b", "Value": "2"}])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    # AWS deletes what somebody else has put, with an update of anything.
    text = json.dumps(shared)
    aws.sagemaker.put_model_package_group_policy(ModelPackageGroupName=group, ResourcePolicy=text)
    aws.update(name, template(), Tags=[{"Key": "c", "Value": "3"}])
    with pytest.raises(ClientError, match="Cannot find resource policy"):
        aws.sagemaker.get_model_package_group_policy(ModelPackageGroupName=group)
    # Its description cannot change, and a second group cannot have its name.
    stack = aws.update(name, template(ModelPackageGroupDescription="x"))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "already exists" in aws.reasons(name, "UPDATE_FAILED")["Group"]
    assert aws.sagemaker.describe_model_package_group(ModelPackageGroupName=group)
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_properties_that_the_sandbox_does_not_apply_fail_loudly(aws: Deployer) -> None:
    website = {"IndexDocument": "index.html"}
    name = aws.deploy({"Resources": {"Site": resource("S3::Bucket", WebsiteConfiguration=website)}})
    assert aws.reasons(name, "CREATE_FAILED")["Site"] == (
        "The sandbox does not apply these properties of AWS::S3::Bucket: WebsiteConfiguration"
    )


def test_what_exists_already_is_not_taken_over(aws: Deployer) -> None:
    taken = new_name()
    aws.logs.create_log_group(logGroupName=taken)
    name = aws.deploy({"Resources": {"Logs": resource("Logs::LogGroup", LogGroupName=taken)}})
    assert "HandlerErrorCode: AlreadyExists" in aws.reasons(name, "CREATE_FAILED")["Logs"]
    found = aws.logs.describe_log_groups(logGroupNamePrefix=taken)["logGroups"]
    assert [group["logGroupName"] for group in found] == [taken]


def test_a_bucket_s_policy_is_not_taken_over(aws: Deployer) -> None:
    bucket = new_name().lower()
    aws.s3.create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    theirs = principal("s3:GetObject", f"arn:aws:s3:::{bucket}/*")
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(theirs))
    ours = principal("s3:PutObject", f"arn:aws:s3:::{bucket}/*")
    policy = resource("S3::BucketPolicy", Bucket=bucket, PolicyDocument=ours)
    name = aws.deploy({"Resources": {"Policy": policy}})
    why = f"The bucket policy already exists on bucket {bucket}."
    assert why in aws.reasons(name, "CREATE_FAILED")["Policy"]
    assert json.loads(aws.s3.get_bucket_policy(Bucket=bucket)["Policy"]) == theirs


@pytest.mark.parametrize("kind", PROVIDERS)
def test_every_type_has_a_schema_that_knows_its_name(kind: str) -> None:
    name = PROVIDERS[kind].name
    if name is not None and name.property:
        assert name.property in schemas.create_only(kind)
        made = name.new("a-stack-with-a-name-that-is-rather-long" * 3, "LogicalName" * 5)
        assert len(made) <= name.longest
    if schemas.writable(kind) - schemas.create_only(kind):
        assert PROVIDERS[kind].update is not None
