"""Each resource type: made, changed in place, brought back and deleted through its own service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
        aws = Deployer(server.url)
        aws.iam.create_policy(PolicyName="shared", PolicyDocument=json.dumps(ALLOW))
        yield aws


def principal(action: str, target: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": target}
    return {"Version": "2012-10-17", "Statement": [statement]}


def role(**more: Any) -> dict[str, Any]:
    return resource("IAM::Role", AssumeRolePolicyDocument=TRUST, **more)


Look = Callable[[Deployer, str], Any]
# Kind: properties before and after, what to look at, and what is seen each time.
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
    "IAM::Role": (
        {
            "AssumeRolePolicyDocument": TRUST,
            "Policies": [{"PolicyName": "one", "PolicyDocument": ALLOW}],
            "ManagedPolicyArns": ["arn:aws:iam::123456789012:policy/shared"],
        },
        {
            "AssumeRolePolicyDocument": TRUST,
            "Policies": [{"PolicyName": "two", "PolicyDocument": ALLOW}],
            "MaxSessionDuration": 7200,
        },
        lambda aws, name: (
            aws.iam.list_role_policies(RoleName=name)["PolicyNames"],
            len(aws.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]),
            aws.iam.get_role(RoleName=name)["Role"]["MaxSessionDuration"],
        ),
        (["one"], 1, 3600),
        (["two"], 0, 7200),
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
    "KMS::Key": (
        {"Description": "before", "EnableKeyRotation": True},
        {"Description": "after", "EnableKeyRotation": False},
        lambda aws, key: (
            aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Description"],
            aws.client("kms").get_key_rotation_status(KeyId=key)["KeyRotationEnabled"],
        ),
        ("before", True),
        ("after", False),
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
                "Rules": [{"Id": "old", "Status": "Enabled", "ExpirationInDays": 9}]
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
        {"DisplayName": "after"},
        lambda aws, arn: aws.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"][
            "DisplayName"
        ],
        "before",
        "after",
    ),
    "SQS::Queue": (
        {"VisibilityTimeout": 5},
        {"DelaySeconds": 3},
        lambda aws, url: [
            aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
                "Attributes"
            ][name]
            for name in ("VisibilityTimeout", "DelaySeconds")
        ],
        ["5", "0"],
        ["30", "3"],
    ),
    "SSM::Parameter": (
        {"Type": "String", "Value": "before"},
        {"Type": "String", "Value": "after"},
        lambda aws, name: aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"],
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


def test_resources_that_belong_to_others(aws: Deployer) -> None:
    bucket = new_name()

    def template(effect: dict[str, Any], raw: bool) -> dict[str, Any]:
        queue = {"Fn::GetAtt": ["Queue", "Arn"]}
        return {
            "Resources": {
                "Bucket": resource("S3::Bucket", BucketName=bucket),
                "BucketPolicy": resource(
                    "S3::BucketPolicy",
                    Bucket={"Ref": "Bucket"},
                    PolicyDocument=principal("s3:GetObject", f"arn:aws:s3:::{bucket}/{raw}"),
                ),
                "Queue": resource("SQS::Queue"),
                "QueuePolicy": resource(
                    "SQS::QueuePolicy",
                    Queues=[{"Ref": "Queue"}],
                    PolicyDocument=principal("sqs:SendMessage", queue),
                ),
                "Topic": resource("SNS::Topic"),
                "Subscription": resource(
                    "SNS::Subscription",
                    TopicArn={"Ref": "Topic"},
                    Protocol="sqs",
                    Endpoint=queue,
                    RawMessageDelivery=raw,
                ),
                "Role": role(),
                "Policy": resource(
                    "IAM::Policy",
                    PolicyName="inline",
                    PolicyDocument=effect,
                    Roles=[{"Ref": "Role"}],
                ),
                "Key": resource("KMS::Key"),
                "Alias": resource(
                    "KMS::Alias", AliasName=f"alias/{bucket}", TargetKeyId={"Ref": "Key"}
                ),
            }
        }

    name = aws.deploy(template(ALLOW, False), **CAPABLE)
    assert aws.stack(name)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
    stack = aws.update(name, template(DENY, True), **CAPABLE)
    assert stack["StackStatus"] == "UPDATE_COMPLETE", aws.reasons(name, "UPDATE_FAILED")
    ids = aws.physical(name)
    policy = aws.iam.get_role_policy(RoleName=ids["Role"], PolicyName="inline")["PolicyDocument"]
    assert policy["Statement"][0]["Effect"] == "Deny"
    sns = aws.client("sns")
    found = sns.get_subscription_attributes(SubscriptionArn=ids["Subscription"])["Attributes"]
    assert found["RawMessageDelivery"] == "true"
    assert "/True" in aws.s3.get_bucket_policy(Bucket=bucket)["Policy"]
    queue = aws.client("sqs").get_queue_attributes(QueueUrl=ids["Queue"], AttributeNames=["Policy"])
    assert "SendMessage" in queue["Attributes"]["Policy"]
    aliases = aws.client("kms").list_aliases(KeyId=ids["Key"])["Aliases"]
    assert [alias["AliasName"] for alias in aliases] == [f"alias/{bucket}"]
    assert aws.delete(name)["StackStatus"] == "DELETE_COMPLETE", aws.reasons(name, "DELETE_FAILED")


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


@pytest.mark.parametrize("kind", PROVIDERS)
def test_every_type_has_a_schema_that_knows_its_name(kind: str) -> None:
    name = PROVIDERS[kind].name
    if name is not None and name.property:
        assert name.property in schemas.create_only(kind)
        made = name.new("a-stack-with-a-name-that-is-rather-long" * 3, "LogicalName" * 5)
        assert len(made) <= name.longest
    if schemas.writable(kind) - schemas.create_only(kind):
        assert PROVIDERS[kind].update is not None
