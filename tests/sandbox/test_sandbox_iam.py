"""Who may call what in the sandbox, how denials are worded, and how roles are taken."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import archive
from iam_case import tabled
from sandbox_cases import BUCKET, GROUP, REGION, policy, register
from sandbox_iam_case import ACCOUNT, ANYBODY, HERE, WHO, Account, allow, deny, error
from sm_mlops.sandbox import SandboxError, Server, workflow_environment
from sm_mlops.sandbox.iam import actions, objects
from sm_mlops.sandbox.iam.requests import tree

pytestmark = pytest.mark.slow

ISSUER = "token.actions.githubusercontent.com"
PLACE = f"{REGION}:{ACCOUNT}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("iam"), REGION) as server:
        Account(server.environment()).prepare()
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Account:
    return Account(server.environment())


@pytest.fixture(scope="module")
def poor(aws: Account) -> Account:
    """Return the account as seen by a user without permissions."""
    return aws.may("poor")


# Service, operation, request; the action and the resource that the denial names, its code.
DENIALS: dict[str, tuple[str, dict[str, Any], str, str, str, int]] = {
    "sagemaker.describe_model": (
        "sagemaker",
        {"ModelName": "m"},
        "sagemaker:DescribeModel",
        f"arn:aws:sagemaker:{PLACE}:model/m",
        "AccessDeniedException",
        400,
    ),
    "sagemaker.list_models": (
        "sagemaker",
        {},
        "sagemaker:ListModels",
        "*",
        "AccessDeniedException",
        400,
    ),
    "invoke_endpoint": (
        "sagemaker-runtime",
        {"EndpointName": "e", "Body": b"x"},
        "sagemaker:InvokeEndpoint",
        f"arn:aws:sagemaker:{PLACE}:endpoint/e",
        "AccessDeniedException",
        400,
    ),
    "put_object": (
        "s3",
        {"Bucket": BUCKET, "Key": "a/ü b+c", "Body": b"x" * 100_000},
        "s3:PutObject",
        f'"arn:aws:s3:::{BUCKET}/a/ü b+c"',
        "AccessDenied",
        403,
    ),
    "list_objects_v2": (
        "s3",
        {"Bucket": BUCKET},
        "s3:ListBucket",
        f'"arn:aws:s3:::{BUCKET}"',
        "AccessDenied",
        403,
    ),
    "get_role": ("iam", {"RoleName": "r"}, "iam:GetRole", "role r", "AccessDenied", 403),
    "create_role": (
        "iam",
        {"RoleName": "r", "Path": "/p/", "AssumeRolePolicyDocument": "{}"},
        "iam:CreateRole",
        f"{HERE}:role/p/r",
        "AccessDenied",
        403,
    ),
    "describe_stacks": (
        "cloudformation",
        {"StackName": "s"},
        "cloudformation:DescribeStacks",
        f"arn:aws:cloudformation:{PLACE}:stack/s/*",
        "AccessDenied",
        403,
    ),
    "filter_log_events": (
        "logs",
        {"logGroupName": "/a"},
        "logs:FilterLogEvents",
        f"arn:aws:logs:{PLACE}:log-group:/a:log-stream:",
        "AccessDeniedException",
        400,
    ),
    "put_metric_data": (
        "cloudwatch",
        {"Namespace": "n", "MetricData": []},
        "cloudwatch:PutMetricData",
        "*",
        "AccessDenied",
        403,
    ),
    "register_scalable_target": (
        "application-autoscaling",
        {
            "ServiceNamespace": "sagemaker",
            "ResourceId": "endpoint/e/variant/v",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        },
        "application-autoscaling:RegisterScalableTarget",
        f"arn:aws:application-autoscaling:{PLACE}:scalable-target/*",
        "AccessDeniedException",
        400,
    ),
    "get_secret_value": (
        "secretsmanager",
        {"SecretId": "s"},
        "secretsmanager:GetSecretValue",
        f"arn:aws:secretsmanager:{PLACE}:secret:s",
        "AccessDeniedException",
        400,
    ),
    "invoke": (
        "lambda",
        {"FunctionName": "f"},
        "lambda:InvokeFunction",
        f"arn:aws:lambda:{PLACE}:function:f",
        "AccessDeniedException",
        403,
    ),
    "put_rule": (
        "events",
        {"Name": "r", "EventPattern": "{}"},
        "events:PutRule",
        f"arn:aws:events:{PLACE}:rule/r",
        "AccessDeniedException",
        400,
    ),
    "send_message": (
        "sqs",
        {"QueueUrl": f"http://127.0.0.1/{ACCOUNT}/q", "MessageBody": "m"},
        "sqs:SendMessage",
        f"arn:aws:sqs:{PLACE}:q",
        "AccessDenied",
        403,
    ),
    "publish": (
        "sns",
        {"TopicArn": f"arn:aws:sns:{PLACE}:t", "Message": "m"},
        "sns:Publish",
        f"arn:aws:sns:{PLACE}:t",
        "AuthorizationError",
        403,
    ),
    "create_topic": (
        "sns",
        {"Name": "t"},
        "sns:CreateTopic",
        f"arn:aws:sns:{PLACE}:t",
        "AuthorizationError",
        403,
    ),
    "unsubscribe": (
        "sns",
        {"SubscriptionArn": f"arn:aws:sns:{PLACE}:t:1"},
        "sns:Unsubscribe",
        "*",
        "AuthorizationError",
        403,
    ),
    "delete_schedule": (
        "scheduler",
        {"Name": "s"},
        "scheduler:DeleteSchedule",
        f"arn:aws:scheduler:{PLACE}:schedule/default/s",
        "AccessDeniedException",
        400,
    ),
    "put_dashboard": (
        "cloudwatch",
        {"DashboardName": "d", "DashboardBody": "{}"},
        "cloudwatch:PutDashboard",
        f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/d",
        "AccessDenied",
        403,
    ),
    "list_provisioning_artifacts": (
        "servicecatalog",
        {"ProductId": "prod-1"},
        "servicecatalog:ListProvisioningArtifacts",
        f"arn:aws:catalog:{PLACE}:product/prod-1",
        "AccessDeniedException",
        400,
    ),
    "get_connection": (
        "codeconnections",
        {"ConnectionArn": f"arn:aws:codeconnections:{PLACE}:connection/1"},
        "codeconnections:GetConnection",
        f"arn:aws:codeconnections:{PLACE}:connection/1",
        "AccessDeniedException",
        400,
    ),
    "describe_key": (
        "kms",
        {"KeyId": "k"},
        "kms:DescribeKey",
        f"arn:aws:kms:{PLACE}:key/k",
        "AccessDeniedException",
        400,
    ),
    "get_service_quota": (
        "service-quotas",
        {"ServiceCode": "sagemaker", "QuotaCode": "L-1"},
        "servicequotas:GetServiceQuota",
        "*",
        "AccessDeniedException",
        400,
    ),
}


def test_a_request_signed_for_s3_reaches_no_other_service(aws: Account) -> None:
    def elsewhere(request: Any, **_: Any) -> None:
        request.headers["X-Amz-Target"] = "SageMaker.ListModelPackageGroups"

    aws.s3.put_object(Bucket=BUCKET, Key="x", Body=b"x")
    reader = aws.may("reader-elsewhere", allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*"))
    reader.s3.meta.events.register("before-sign.s3.GetObject", elsewhere)
    assert error(reader.s3.get_object, Bucket=BUCKET, Key="x")[1] == 403


@pytest.mark.parametrize("name", DENIALS)
def test_a_service_denies_in_its_own_words(poor: Account, name: str) -> None:
    service, request, action, resource, code, status = DENIALS[name]
    call = getattr(poor.client(service), name.rpartition(".")[2])
    assert error(call, **request) == (
        code,
        status,
        f"User: {WHO} is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action",
    )


def test_after_a_denial_the_connection_goes_on(poor: Account) -> None:
    for _ in range(3):
        error(poor.s3.put_object, Bucket=BUCKET, Key="k", Body=b"x" * 300_000)
        assert error(poor.s3.head_object, Bucket=BUCKET, Key="k")[:2] == ("403", 403)
    assert poor.client("sts").get_caller_identity()["Arn"] == WHO


def test_an_operation_that_the_table_does_not_know_is_denied_and_says_so(aws: Account) -> None:
    rich = aws.may("rich", allow("*"))
    message = error(rich.client("ec2").describe_vpcs)[2]
    assert "the sandbox does not know what this operation needs" in message
    assert error(rich.sagemaker.describe_user_profile, DomainId="d", UserProfileName="u")[0] == (
        "AccessDeniedException"
    )


def test_a_request_cannot_pass_for_one_of_another_service(aws: Account, server: Server) -> None:
    reader = aws.may("logreader", allow("logs:*"))
    client = reader.client("logs")

    def other(request: Any, **_: Any) -> None:
        request.headers.replace_header("X-Amz-Target", "SageMaker.ListModels")

    client.meta.events.register("before-sign.cloudwatch-logs.DescribeLogGroups", other)
    assert "unknown" in error(client.describe_log_groups)[2]


def test_credentials_that_iam_does_not_know_are_refused(aws: Account) -> None:
    stranger = aws.as_({"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "x"})
    assert error(stranger.sagemaker.list_models)[0] == "UnrecognizedClientException"
    assert error(stranger.iam.list_roles)[0] == "InvalidClientTokenId"
    assert error(stranger.s3.list_buckets)[0] == "InvalidAccessKeyId"


def test_a_request_without_a_signature_reaches_nothing(aws: Account, server: Server) -> None:
    aws.put("public.txt", "x")
    for url in (f"{server.url}/{BUCKET}/public.txt", f"{server.url}/{BUCKET}?list-type=2"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code == 403


# Objects.


def test_a_missing_object_is_reported_only_to_those_who_may_list(
    aws: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = aws.may("blind", allow("s3:GetObject"))
    assert error(blind.s3.get_object, Bucket=BUCKET, Key="a/none")[0] == "AccessDenied"
    condition = {"StringLike": {"s3:prefix": "a/*"}}
    seeing = aws.may("seeing", allow("s3:GetObject"), allow("s3:ListBucket", Condition=condition))
    assert error(seeing.s3.get_object, Bucket=BUCKET, Key="a/none")[0] == "NoSuchKey"
    assert error(seeing.s3.get_object, Bucket=BUCKET, Key="b/none")[0] == "AccessDenied"
    monkeypatch.setattr(objects, "AS_LISTED", False)
    assert error(seeing.s3.get_object, Bucket=BUCKET, Key="a/none")[0] == "AccessDenied"


def test_listing_is_distinguished_by_its_prefix(aws: Account) -> None:
    condition = {"StringLike": {"s3:prefix": "a/*"}}
    lister = aws.may("lister", allow("s3:ListBucket", Condition=condition))
    lister.s3.list_objects_v2(Bucket=BUCKET, Prefix="a/")
    for more in ({}, {"Prefix": "a"}, {"Prefix": "b/"}):
        assert error(lister.s3.list_objects_v2, Bucket=BUCKET, **more)[0] == "AccessDenied"


def test_each_object_of_a_deletion_is_asked_for(aws: Account) -> None:
    aws.put("mine/x", "x")
    aws.put("theirs/x", "x")
    cleaner = aws.may("cleaner", allow("s3:DeleteObject", f"arn:aws:s3:::{BUCKET}/mine/*"))

    def delete(*keys: str) -> Any:
        rows = [{"Key": key} for key in keys]
        return cleaner.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": rows})

    assert error(lambda: delete("mine/x", "theirs/x"))[0] == "AccessDenied"
    assert aws.read(f"s3://{BUCKET}/theirs/x") == b"x"
    assert delete("mine/x")["Deleted"]


def test_a_copy_needs_read_and_write_access_and_tags_need_their_own(aws: Account) -> None:
    aws.put("from/x", "x")
    writer = aws.may("writer", allow("s3:PutObject"))
    source = {"Bucket": BUCKET, "Key": "from/x"}
    words = error(writer.s3.copy_object, Bucket=BUCKET, Key="to/x", CopySource=source)[2]
    assert "s3:GetObject" in words and "from/x" in words
    words = error(writer.s3.put_object, Bucket=BUCKET, Key="to/x", Tagging="a=b")[2]
    assert "s3:PutObjectTagging" in words


def test_tags_of_objects_decide(aws: Account) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key="t/yes", Body=b"x", Tagging="open=true")
    aws.s3.put_object(Bucket=BUCKET, Key="t/no", Body=b"x")
    condition = {"StringEquals": {"s3:ExistingObjectTag/open": "true"}}
    reader = aws.may("tagreader", allow("s3:GetObject", Condition=condition))
    reader.s3.get_object(Bucket=BUCKET, Key="t/yes")
    assert error(reader.s3.get_object, Bucket=BUCKET, Key="t/no")[0] == "AccessDenied"


def test_the_policy_of_a_bucket_applies_to_everyone_and_tls_counts_as_used(aws: Account) -> None:
    bucket = "policied"
    where = {"LocationConstraint": REGION}
    aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    reader = aws.may("named")
    every = {"Principal": "*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    tls = {"Bool": {"aws:SecureTransport": False}}
    document = policy(
        {"Effect": "Deny", "Action": "s3:*", **every, "Condition": tls},
        {"Effect": "Deny", "Action": "s3:PutObject", **every,
         "Resource": f"arn:aws:s3:::{bucket}/sealed/*"},
        {"Effect": "Allow", "Action": "s3:GetObject", **every,
         "Principal": {"AWS": f"{HERE}:role/named"}},
    )  # fmt: skip
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=document)
    aws.s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    words = error(aws.s3.put_object, Bucket=bucket, Key="sealed/a", Body=b"x")[2]
    assert words.endswith("with an explicit deny in a resource-based policy")
    assert reader.s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"x"
    assert error(reader.s3.put_object, Bucket=bucket, Key="a", Body=b"x")[0] == "AccessDenied"


# What is passed on, and what is tagged.


def test_a_role_is_passed_to_a_service_only_by_those_who_may(aws: Account) -> None:
    target = aws.role_for("passed")
    maker = aws.may(
        "maker",
        allow("sagemaker:*"),
        allow("iam:PassRole", target, Condition={"StringEquals": {"iam:PassedToService": "x.y"}}),
    )
    request = {"PipelineName": "p", "PipelineDefinition": "{}", "RoleArn": target}
    words = error(maker.sagemaker.create_pipeline, **request)[2]
    assert f"iam:PassRole on resource: {target} " in words
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    passer = aws.may(
        "passer", allow("sagemaker:*"), allow("iam:PassRole", target, Condition=condition)
    )
    assert error(passer.sagemaker.create_pipeline, **request)[0] == "ValidationException"
    code = {"ZipFile": archive(handler="")}
    function = aws.may("functioner", allow("lambda:*"))
    words = error(
        function.functions.create_function,
        FunctionName="f", Runtime="python3.13", Role=target, Handler="h.h", Code=code,
    )[2]  # fmt: skip
    assert "iam:PassRole" in words


def test_tags_at_creation_need_a_permission_that_may_cover_only_creation(aws: Account) -> None:
    condition = {"StringEquals": {"sagemaker:TaggingAction": "CreateModelPackageGroup"}}
    tags = [{"Key": "project", "Value": "churn"}]
    request = {"ModelPackageGroupName": "tagged", "Tags": tags}
    plain = aws.may("plain", allow("sagemaker:CreateModelPackageGroup"))
    assert "sagemaker:AddTags" in error(plain.sagemaker.create_model_package_group, **request)[2]
    tagger = aws.may(
        "tagger",
        allow("sagemaker:CreateModelPackageGroup"),
        allow("sagemaker:AddTags", Condition=condition),
    )
    arn = tagger.sagemaker.create_model_package_group(**request)["ModelPackageGroupArn"]
    assert "sagemaker:AddTags" in error(tagger.sagemaker.add_tags, ResourceArn=arn, Tags=tags)[2]


def test_a_stack_is_tagged_by_who_may_tag_it_with_that_operation(aws: Account) -> None:
    stack = f"arn:aws:cloudformation:{PLACE}:stack/tagged-stack/*"
    tags = [{"Key": "project", "Value": "churn"}]
    request = {
        "StackName": "tagged-stack",
        "ChangeSetName": "first",
        "ChangeSetType": "CREATE",
        "TemplateBody": '{"Resources": {"A": {"Type": "AWS::S3::Bucket"}}}',
    }
    creates = allow("cloudformation:CreateChangeSet", stack)
    plain = aws.may("changes", creates).client("cloudformation")
    words = error(plain.create_change_set, **request, Tags=tags)[2]
    assert "cloudformation:TagResource" in words and "stack/tagged-stack/" in words
    for operation, refused in (("CreateStack", True), ("CreateChangeSet", False)):
        by = {"StringEquals": {"cloudformation:CreateAction": operation}}
        tagging = allow("cloudformation:TagResource", stack, Condition=by)
        tagger = aws.may(f"tags-by-{operation}", creates, tagging).client("cloudformation")
        if refused:
            assert "TagResource" in error(tagger.create_change_set, **request, Tags=tags)[2]
        else:
            assert tagger.create_change_set(**request, Tags=tags)["Id"]


def test_a_model_of_a_version_elsewhere_takes_a_permission_on_the_version(aws: Account) -> None:
    version = f"arn:aws:sagemaker:{REGION}:210987654321:model-package/churn/3"
    role = f"{HERE}:role/poor"
    request = {
        "ModelName": "abroad",
        "ExecutionRoleArn": role,
        "PrimaryContainer": {"ModelPackageName": version},
    }
    own = allow("sagemaker:CreateModel", f"arn:aws:sagemaker:{PLACE}:model/*")
    maker = aws.may("modelmaker", own, allow("iam:PassRole", role))
    words = error(maker.sagemaker.create_model, **request)[2]
    assert f"sagemaker:CreateModel on resource: {version}" in words
    assert "no identity-based policy" in words


def test_tags_of_resources_and_requests_decide(aws: Account) -> None:
    owner = aws.may(
        "owner",
        allow(
            ["sagemaker:CreateModelPackageGroup", "sagemaker:AddTags"],
            Condition={"StringEquals": {"aws:RequestTag/project": "${aws:PrincipalTag/project}"}},
        ),
        allow(
            "sagemaker:DeleteModelPackageGroup",
            Condition={"StringEquals": {"aws:ResourceTag/project": "${aws:PrincipalTag/project}"}},
        ),
        Tags=[{"Key": "project", "Value": "churn"}],
    )

    def create(name: str, project: str) -> Any:
        tags = [{"Key": "project", "Value": project}]
        return owner.sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=tags)

    create("own", "churn")
    assert error(lambda: create("other", "fraud"))[0] == "AccessDeniedException"
    assert error(owner.sagemaker.delete_model_package_group, ModelPackageGroupName=GROUP)[0] == (
        "AccessDeniedException"
    )
    owner.sagemaker.delete_model_package_group(ModelPackageGroupName="own")


def test_a_boundary_must_be_on_the_role_that_is_changed(aws: Account) -> None:
    limit = aws.iam.create_policy(PolicyName="limit", PolicyDocument=policy(allow("s3:*")))
    arn = limit["Policy"]["Arn"]
    condition = {"StringEquals": {"iam:PermissionsBoundary": arn}}
    maker = aws.may(
        "rolemaker", allow(["iam:CreateRole", "iam:PutRolePolicy"], Condition=condition)
    )
    request = {"RoleName": "made", "AssumeRolePolicyDocument": policy(ANYBODY)}
    assert error(maker.iam.create_role, **request)[0] == "AccessDenied"
    maker.iam.create_role(**request, PermissionsBoundary=arn)
    document = policy(allow("*"))
    maker.iam.put_role_policy(RoleName="made", PolicyName="p", PolicyDocument=document)
    put = {"RoleName": "poor", "PolicyName": "p", "PolicyDocument": document}
    assert error(maker.iam.put_role_policy, **put)[0] == "AccessDenied"
    made = aws.take("made")
    made.s3.list_buckets()
    assert error(made.sagemaker.list_models)[2].endswith(
        "because no permissions boundary allows the sagemaker:ListModels action"
    )


def test_a_key_is_used_only_by_those_its_policy_and_their_own_allow(aws: Account) -> None:
    kms = aws.client("kms")
    alone = {"Effect": "Allow", "Principal": {"AWS": f"{HERE}:role/keeper"}, "Action": "kms:*",
             "Resource": "*"}  # fmt: skip
    owner = {**alone, "Principal": {"AWS": f"{HERE}:root"}}
    keeper = aws.may("keeper")
    other = aws.may("otherkeeper", allow("kms:*"))
    closed = kms.create_key(Policy=policy(alone))["KeyMetadata"]["Arn"]
    shared = kms.create_key(Policy=policy(owner))["KeyMetadata"]["Arn"]
    keeper.client("kms").describe_key(KeyId=closed)
    assert "no resource-based policy" in error(other.client("kms").describe_key, KeyId=closed)[2]
    other.client("kms").describe_key(KeyId=shared)
    assert error(keeper.client("kms").describe_key, KeyId=shared)[0] == "AccessDeniedException"
    writer = aws.may("encrypter", allow("s3:PutObject"))
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": shared}
    words = error(writer.s3.put_object, Bucket=BUCKET, Key="e", Body=b"x", **encrypted)[2]
    assert "kms:GenerateDataKey" in words


# Taking roles.


def test_a_role_is_assumed_only_by_those_it_trusts_and_who_may(aws: Account, poor: Account) -> None:
    def role(name: str, trust: dict[str, Any]) -> str:
        made = aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
        return str(made["Role"]["Arn"])

    def take(who: Account, arn: str) -> tuple[str, int, str] | None:
        call, given = who.client("sts").assume_role, {"RoleArn": arn, "RoleSessionName": "again"}
        try:
            call(**given)
        except ClientError:
            return error(call, **given)
        return None

    open_role = role("open", ANYBODY)
    named = role("named-trust", {**ANYBODY, "Principal": {"AWS": f"{HERE}:role/poor"}})
    service = role("service", {**ANYBODY, "Principal": {"Service": "lambda.amazonaws.com"}})
    may = aws.may("taker", allow("sts:AssumeRole"))
    assert take(may, open_role) is None and take(aws, open_role) is None
    assert take(poor, open_role) == (
        "AccessDenied",
        403,
        f"User: {WHO} is not authorized to perform: sts:AssumeRole on resource: {open_role} "
        "because no identity-based policy allows the sts:AssumeRole action",
    )
    assert take(poor, named) is None, "in one account a trust policy that names the role suffices"
    for who in (aws, may, poor):
        for arn in (service, f"{HERE}:role/none", "arn:aws:iam::210987654321:role/none"):
            assert take(who, arn) is not None
    assert take(aws, service) == (
        "AccessDenied",
        403,
        f"User: {HERE}:root is not authorized to perform: sts:AssumeRole on resource: {service}",
    )


def test_an_external_id_must_fit_and_a_session_policy_is_refused_by_name(aws: Account) -> None:
    condition = {"StringEquals": {"sts:ExternalId": "secret"}}
    trust = policy({**ANYBODY, "Condition": condition})
    aws.iam.create_role(RoleName="external", AssumeRolePolicyDocument=trust)
    document = policy(allow("sagemaker:*"))
    aws.iam.put_role_policy(RoleName="external", PolicyName="p", PolicyDocument=document)
    assert error(lambda: aws.take("external"))[0] == "AccessDenied"
    taken = aws.take("external", ExternalId="secret")
    taken.sagemaker.list_models()
    assert "no identity-based policy" in error(taken.s3.list_buckets)[2]
    words = error(lambda: aws.take("external", ExternalId="secret", Policy=document))[2]
    assert words == "The sandbox does not implement session policies of sts:AssumeRole"
    assert error(lambda: aws.take("external", ExternalId="secret", DurationSeconds=7200))[0] == (
        "ValidationError"
    )


def test_the_administrator_enters_other_accounts_with_the_organizations_role(
    aws: Account, poor: Account
) -> None:
    arn = "arn:aws:iam::210987654321:role/OrganizationAccountAccessRole"
    given = {"RoleArn": arn, "RoleSessionName": "in"}
    assert error(poor.client("sts").assume_role, **given)[0] == "AccessDenied"
    there = aws.as_(aws.client("sts").assume_role(**given)["Credentials"])
    assert there.client("sts").get_caller_identity()["Account"] == "210987654321"
    there.iam.create_role(RoleName="x", AssumeRolePolicyDocument=policy(ANYBODY))
    assert error(there.s3.get_object, Bucket=BUCKET, Key="x")[0] == "AccessDenied"


def test_a_users_policies_stay_within_the_boundary_and_the_key_can_be_revoked(
    aws: Account,
) -> None:
    limit = aws.iam.create_policy(PolicyName="user-limit", PolicyDocument=policy(allow("s3:*")))
    arn = limit["Policy"]["Arn"]
    aws.iam.create_user(UserName="ann", PermissionsBoundary=arn)
    document = policy(
        allow("s3:ListBucket", Condition={"StringEquals": {"s3:prefix": "${aws:username}/"}}),
        allow("sagemaker:ListModels"),
    )
    aws.iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=document)
    key = aws.iam.create_access_key(UserName="ann")["AccessKey"]
    ann = aws.as_(key)
    ann.s3.list_objects_v2(Bucket=BUCKET, Prefix="ann/")
    assert error(ann.s3.list_objects_v2, Bucket=BUCKET, Prefix="bob/")[2].startswith(
        f"User: {HERE}:user/ann is not authorized"
    )
    assert "no permissions boundary" in error(ann.sagemaker.list_models)[2]
    aws.iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert error(ann.sagemaker.list_models)[0] == "UnrecognizedClientException"


# GitHub.


@pytest.fixture(scope="module")
def github(server: Server, aws: Account) -> str:
    """The ARN of a role for the workflows of acme/churn, on main and for staging."""
    server.github.accounts.add("acme", "Organization")
    record = server.github.routes.add("acme", "churn")
    server.github.routes.add("acme", "fraud")
    provider = aws.iam.create_open_id_connect_provider(
        Url=f"https://{ISSUER}", ClientIDList=["sts.amazonaws.com"]
    )["OpenIDConnectProviderArn"]
    owner = server.github.accounts.account("acme")["id"]
    prefix = f"repo:acme@{owner}/churn@{record['id']}"
    trust = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                f"{ISSUER}:aud": "sts.amazonaws.com",
                f"{ISSUER}:sub": [f"{prefix}:ref:refs/heads/main", f"{prefix}:environment:staging"],
            }
        },
    }
    made = aws.iam.create_role(RoleName="workflows", AssumeRolePolicyDocument=policy(trust))
    return str(made["Role"]["Arn"])


def test_a_job_signs_in_as_the_role_that_trusts_its_repository(
    server: Server, aws: Account, github: str
) -> None:
    sign_in = server.integrations.workflows.environment
    for more in ({}, {"environment": "staging"}):
        found = sign_in("acme/churn", role_arn=github, **more)
        assert found["GITHUB_REPOSITORY"] == "acme/churn"
        job = aws.as_(
            {
                "AccessKeyId": found["AWS_ACCESS_KEY_ID"],
                "SecretAccessKey": found["AWS_SECRET_ACCESS_KEY"],
                "SessionToken": found["AWS_SESSION_TOKEN"],
            }
        )
        identity = job.client("sts").get_caller_identity()["Arn"]
        assert identity.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/workflows/")
    for repository, more in (
        ("acme/churn", {"ref": "refs/heads/side"}),
        ("acme/churn", {"environment": "production"}),
        ("acme/churn", {"ref": "refs/pull/1/merge"}),
        ("acme/fraud", {}),
    ):
        with pytest.raises(Exception, match="Not authorized to perform sts:AssumeRoleWithWebI"):
            sign_in(repository, role_arn=github, **more)


def test_a_token_says_which_workflow_of_which_repository_asks(server: Server) -> None:
    record = server.github.routes.add("acme", "claims")
    token = server.iam.tokens.mint(record, "repo:x", "staging", workflow="deploy.yml", actor="ada")
    claims = server.iam.tokens.verify(token)
    assert claims["job_workflow_ref"] == (
        "acme/claims/.github/workflows/deploy.yml@refs/heads/main"
    )
    assert (claims["workflow"], claims["environment"]) == ("deploy", "staging")
    assert (claims["repository_id"], claims["actor"]) == (str(record["id"]), "ada")
    assert "environment" not in server.iam.tokens.verify(server.iam.tokens.mint(record, "repo:x"))


def test_a_trust_policy_may_ask_for_the_claims_of_a_token(
    server: Server, aws: Account, github: str
) -> None:
    trust = json.loads(
        json.dumps(aws.iam.get_role(RoleName="workflows")["Role"]["AssumeRolePolicyDocument"])
    )
    claims = trust["Statement"][0]["Condition"]["StringEquals"]
    claims[f"{ISSUER}:job_workflow_ref"] = "acme/churn/.github/workflows/deploy.yml@refs/heads/main"
    claims[f"{ISSUER}:environment"] = "staging"
    made = aws.iam.create_role(RoleName="narrow", AssumeRolePolicyDocument=json.dumps(trust))
    sign_in = server.integrations.workflows.environment
    role = {"role_arn": made["Role"]["Arn"]}
    assert sign_in("acme/churn", environment="staging", workflow="deploy.yml", **role)
    for more in (
        {"environment": "staging"},
        {"workflow": "deploy.yml"},
        {"environment": "staging", "workflow": "ci.yml"},
    ):
        with pytest.raises(Exception, match="Not authorized to perform sts:AssumeRoleWithWebI"):
            sign_in("acme/churn", **role, **more)


def test_a_token_that_github_has_not_made_or_that_has_ended_is_refused(
    server: Server, aws: Account, github: str
) -> None:
    sts = aws.client("sts")
    tokens, record = server.iam.tokens, server.github.routes.add("acme", "tokens")

    def refused(token: str, role: str = github) -> tuple[str, str]:
        given = {"RoleArn": role, "RoleSessionName": "job", "WebIdentityToken": token}
        code, _, message = error(sts.assume_role_with_web_identity, **given)
        return code, message

    good = tokens.mint(record, "repo:x")
    assert refused(good)[0] == "AccessDenied"
    assert refused(good[:-8] + "AAAAAAAA")[0] == "InvalidIdentityToken"
    assert refused("no.token.at.all")[0] == "InvalidIdentityToken"
    assert refused(tokens.mint(record, "repo:x", seconds=-10))[0] == "ExpiredTokenException"
    assert refused(tokens.mint(record, "repo:x", audience="https://x")) == (
        "InvalidIdentityToken",
        "Incorrect token audience",
    )
    elsewhere = "arn:aws:iam::210987654399:role/workflows"
    assert refused(good, elsewhere) == (
        "InvalidIdentityToken",
        f"No OpenIDConnect provider found in your account for https://{ISSUER}",
    )


def test_a_repository_with_a_key_signs_in_by_the_key(server: Server, aws: Account) -> None:
    from nacl.public import PublicKey, SealedBox

    aws.iam.create_user(UserName="ci")
    document = policy(allow("sts:AssumeRole", f"{HERE}:role/by-key"))
    aws.iam.put_user_policy(UserName="ci", PolicyName="p", PolicyDocument=document)
    trust = {**ANYBODY, "Principal": {"AWS": f"{HERE}:user/ci"}}
    aws.iam.create_role(RoleName="by-key", AssumeRolePolicyDocument=policy(trust))
    key = aws.iam.create_access_key(UserName="ci")["AccessKey"]
    assert error(aws.as_(key).s3.list_buckets)[0] == "AccessDenied"
    routes = server.github.routes
    server.github.accounts.add("acme", "Organization")
    record = routes.add("acme", "keyed")
    public = PublicKey(base64.b64decode(routes._key(record, "")["key"]))
    for name, value in (
        ("AWS_ACCESS_KEY_ID", key["AccessKeyId"]),
        ("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"]),
    ):
        sealed = base64.b64encode(SealedBox(public).encrypt(value.encode())).decode()
        record["_secrets"][name] = {"_sealed": sealed}
    record["_variables"]["AWS_ROLE_ARN"] = {"value": f"{HERE}:role/by-key"}
    found = server.integrations.workflows.environment("acme/keyed")
    assert found["AWS_ACCESS_KEY_ID"] != key["AccessKeyId"]


def test_the_environment_of_a_job_is_asked_for_from_another_process(
    server: Server, github: str
) -> None:
    from sm_mlops.sandbox import client

    client.write_record(server.folder, server.port, server.token, server.region)
    found = workflow_environment(server.root, "acme/churn", role_arn=github)
    assert found["AWS_ENDPOINT_URL"] == server.url and found["AWS_SESSION_TOKEN"]
    with pytest.raises(SandboxError, match="Not authorized to perform"):
        workflow_environment(server.root, "acme/churn", ref="refs/heads/x", role_arn=github)
    with pytest.raises(SandboxError, match="no repository acme/none"):
        workflow_environment(server.root, "acme/none", role_arn=github)


# Session tags.

TAGGING = {**ANYBODY, "Action": ["sts:AssumeRole", "sts:TagSession"]}
LIMITED = allow(
    ["s3:ListBucket", "sts:*"], Condition={"StringEquals": {"aws:PrincipalTag/project": "churn"}}
)


def tagged(aws: Account, name: str, project: str, trust: dict[str, Any]) -> None:
    aws.iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=policy(trust),
        Tags=[{"Key": "project", "Value": project}],
    )
    aws.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(LIMITED))


def test_the_tags_of_a_session_override_those_of_its_role(aws: Account) -> None:
    tagged(aws, "overridden", "fraud", TAGGING)
    assert error(aws.take("overridden").s3.list_objects_v2, Bucket=BUCKET)[0] == "AccessDenied"
    mine = aws.take("overridden", Tags=[{"Key": "Project", "Value": "churn"}])
    assert "KeyCount" in mine.s3.list_objects_v2(Bucket=BUCKET)
    # Only transitive tags reach the next session.
    tagged(aws, "next", "fraud", TAGGING)
    assert error(mine.take("next").s3.list_objects_v2, Bucket=BUCKET)[0] == "AccessDenied"
    handed = aws.take(
        "overridden", Tags=[{"Key": "project", "Value": "churn"}], TransitiveTagKeys=["project"]
    )
    assert "KeyCount" in handed.take("next").s3.list_objects_v2(Bucket=BUCKET)
    again = {"RoleArn": f"{HERE}:role/next", "RoleSessionName": "session"}
    code = error(
        handed.client("sts").assume_role, **again, Tags=[{"Key": "project", "Value": "x"}]
    )[0]
    assert code == "InvalidParameterValue"


def test_tags_of_a_session_take_a_permission_in_trust_and_policy(aws: Account) -> None:
    tagged(aws, "untagged", "churn", ANYBODY)
    tags = [{"Key": "project", "Value": "fraud"}]
    asked = {"RoleArn": f"{HERE}:role/untagged", "RoleSessionName": "session", "Tags": tags}
    assert "sts:TagSession" in error(aws.client("sts").assume_role, **asked)[2]
    tagged(aws, "taggable", "churn", TAGGING)
    asked["RoleArn"] = f"{HERE}:role/taggable"
    plain = aws.may("assumes", allow("sts:AssumeRole"))
    assert "sts:TagSession" in error(plain.client("sts").assume_role, **asked)[2]
    only = {"StringEquals": {"aws:RequestTag/project": "churn"}}
    some = aws.may("tags", allow("sts:AssumeRole"), allow("sts:TagSession", Condition=only))
    assert "sts:TagSession" in error(some.client("sts").assume_role, **asked)[2]
    some.client("sts").assume_role(**{**asked, "Tags": [{"Key": "project", "Value": "churn"}]})


def test_a_session_knows_with_what_it_has_signed_in(
    server: Server, aws: Account, github: str
) -> None:
    signed = {"Null": {"aws:FederatedProvider": "false"}}
    document = policy(allow("s3:ListBucket", Condition=signed))
    aws.iam.put_role_policy(RoleName="workflows", PolicyName="p", PolicyDocument=document)
    found = server.integrations.workflows.environment("acme/churn", role_arn=github)
    job = aws.as_(
        {
            "AccessKeyId": found["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": found["AWS_SECRET_ACCESS_KEY"],
            "SessionToken": found["AWS_SESSION_TOKEN"],
        }
    )
    assert "KeyCount" in job.s3.list_objects_v2(Bucket=BUCKET)
    other = aws.may("not-federated", allow("s3:ListBucket", Condition=signed))
    assert error(other.s3.list_objects_v2, Bucket=BUCKET)[0] == "AccessDenied"


# Simulation.


def test_policies_can_be_asked_without_a_request(aws: Account) -> None:
    limit = aws.iam.create_policy(PolicyName="sim-limit", PolicyDocument=policy(allow("s3:*")))
    aws.may(
        "simulated",
        allow(["s3:*", "sagemaker:*"]),
        deny("s3:DeleteObject"),
        PermissionsBoundary=limit["Policy"]["Arn"],
    )
    found = aws.iam.simulate_principal_policy(
        PolicySourceArn=f"{HERE}:role/simulated",
        ActionNames=["s3:GetObject", "s3:DeleteObject", "sagemaker:ListModels", "iam:GetRole"],
        ResourceArns=["arn:aws:s3:::b/x"],
    )["EvaluationResults"]
    shown = [(row["EvalActionName"], row["EvalDecision"]) for row in found]
    assert shown == [
        ("s3:GetObject", "allowed"),
        ("s3:DeleteObject", "explicitDeny"),
        ("sagemaker:ListModels", "implicitDeny"),
        ("iam:GetRole", "implicitDeny"),
    ]


def test_a_simulation_takes_context_and_knows_the_administrator(aws: Account) -> None:
    condition = {"StringEquals": {"aws:RequestTag/project": "churn"}}
    aws.may("conditional", allow("iam:CreateRole", Condition=condition))

    def decision(source: str, *values: str) -> str:
        entry = {
            "ContextKeyName": "aws:RequestTag/project",
            "ContextKeyValues": list(values),
            "ContextKeyType": "string",
        }
        answer = aws.iam.simulate_principal_policy(
            PolicySourceArn=source,
            ActionNames=["iam:CreateRole"],
            ContextEntries=[entry] if values else [],
        )
        return str(answer["EvaluationResults"][0]["EvalDecision"])

    role = f"{HERE}:role/conditional"
    assert (decision(role), decision(role, "churn"), decision(role, "x")) == (
        "implicitDeny",
        "allowed",
        "implicitDeny",
    )
    me = aws.client("sts").get_caller_identity()["Arn"]
    assert decision(me) == "allowed"
    source = f"{HERE}:role/none"
    code = error(aws.iam.simulate_principal_policy, PolicySourceArn=source, ActionNames=["a:B"])[0]
    assert code == "NoSuchEntity"


# What services do for roles.


def test_a_job_reads_and_writes_with_the_rights_of_its_role_and_logs_so(aws: Account) -> None:
    own = f"arn:aws:s3:::{BUCKET}"
    objects = allow(["s3:GetObject", "s3:ListBucket"], [own, f"{own}/*"])
    logs = allow("logs:*")
    reader = aws.role_for("job-reader", objects, logs)
    request = aws.processing("print('hello')", RoleArn=reader)
    job = aws.process(request)
    assert job["ProcessingJobStatus"] == "Completed", "it has written nothing"
    log = aws.logs.filter_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=job["ProcessingJobName"]
    )
    assert [row["message"] for row in log["events"]] == ["hello"]
    write = "import os; open(os.environ['SAGEMAKER_BASE_DIR'] + '/processing/output/out/x', 'w')"
    failed = aws.process(aws.processing(write, RoleArn=reader))
    assert failed["ProcessingJobStatus"] == "Failed"
    assert f"{reader} is not authorized to perform: s3:PutObject" in failed["FailureReason"]
    blind = aws.role_for("job-blind", logs)
    failed = aws.process(aws.processing("", RoleArn=blind))
    assert "s3:ListBucket" in failed["FailureReason"]
    silent = aws.role_for("job-silent", objects)
    job = aws.process(aws.processing("print('hello')", RoleArn=silent))
    log = aws.logs.filter_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=job["ProcessingJobName"]
    )
    assert job["ProcessingJobStatus"] == "Completed" and log["events"] == []
    with pytest.raises(ClientError, match="Could not assume role"):
        aws.process(aws.processing("", RoleArn=f"{HERE}:role/none"))


def test_an_execution_calls_sagemaker_as_the_pipelines_role(aws: Account) -> None:
    weak = aws.role_for("weak-pipeline", allow("sagemaker:DescribeModelPackage"))
    definition = {
        "Version": "2020-12-01",
        "Steps": [{"Name": "Register", "Type": "RegisterModel", "Arguments": register("s3://b/m")}],
    }
    aws.sagemaker.create_pipeline(
        PipelineName="weak", PipelineDefinition=json.dumps(definition), RoleArn=weak
    )
    arn = aws.sagemaker.start_pipeline_execution(PipelineName="weak")["PipelineExecutionArn"]
    ended = aws.wait(arn)
    assert ended.status == "Failed"
    reason = ended.steps["Register"]["FailureReason"]
    assert "assumed-role/weak-pipeline/SageMaker is not authorized to perform: " in reason
    assert "sagemaker:CreateModelPackage" in reason


# The table.


def test_forms_become_members() -> None:
    form = {
        "Tags.member.1.Key": "a",
        "Tags.member.1.Value": "1",
        "Tags.member.2.Key": "b",
        "Attributes.entry.1.key": "k",
        "Name": "n",
    }
    assert tree(form) == {
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b"}],
        "Attributes": [{"key": "k"}],
        "Name": "n",
    }


@pytest.mark.parametrize("service", sorted(actions.SERVICES))
def test_every_operation_of_the_table_is_one_of_the_service(service: str) -> None:
    from sm_mlops.sandbox.iam.requests import MODELS
    from sm_mlops.sandbox.wire import service_model

    names = set(service_model(MODELS.get(service, service)).operation_names)
    if service == "sagemaker":
        names |= {"InvokeEndpoint", "InvokeEndpointAsync"}
    assert set(tabled(service)) - names == set()


def test_every_operation_answered_here_is_in_the_table(server: Server) -> None:
    known = set(tabled("sagemaker"))
    assert set(server._operations) - known == set()


@pytest.mark.parametrize("service", sorted(set(actions.SERVICES) - {"sts"}))
def test_actions_and_resources_go_together_as_aws_says(service: str) -> None:
    from iam_case import formats, overlap

    about = actions.SERVICES[service]
    place = actions.Place("aws", REGION, ACCOUNT)
    for operation in tabled(service):
        for check in actions.checks(service, operation, {}, place) or []:
            if check.action.partition(":")[0] != about.prefix:
                continue
            takes = formats(check.action)
            assert takes is not None, f"{check.action} is not an action"
            if check.resource != "*":
                assert any(overlap(check.resource, one) for one in takes), check


def test_a_policy_is_read_once_for_many_decisions(server: Server, aws: Account) -> None:
    from sm_mlops.sandbox import identities, policy_language
    from sm_mlops.sandbox.decisions import base_facts

    aws.may("often", allow("sagemaker:InvokeEndpoint"))
    check = actions.Check("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{PLACE}:endpoint/e")
    policy_language._read.cache_clear()
    for _ in range(50):
        who = identities.of_role(f"{HERE}:role/often", REGION, "s")
        assert server.iam.guard.verdict(who, check, base_facts(who, REGION)).allowed
    assert policy_language._read.cache_info().misses == 1


def test_a_simulation_refuses_by_name_what_it_does_not_weigh(aws: Account) -> None:
    aws.may("simulated-more")
    code, _, message = error(
        aws.iam.simulate_principal_policy,
        PolicySourceArn=f"{HERE}:role/simulated-more",
        ActionNames=["s3:GetObject"],
        PolicyInputList=[policy(allow("*"))],
    )
    assert (code, message) == (
        "NotImplemented",
        "The sandbox does not implement PolicyInputList of iam:SimulatePrincipalPolicy",
    )
