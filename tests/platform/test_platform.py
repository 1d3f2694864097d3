"""platform.yml: what all model repos of an account share, and who may do what with it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from iam_case import Identity, decision, length, listed, misfits
from infra_case import ACCOUNT, REGION
from platform_case import (
    ASSETS,
    BOUNDARY,
    BUCKET,
    DEPLOYMENT_ACCOUNT,
    EVERYTHING,
    EXPORTS,
    GITHUB_BOUNDARY,
    KEY,
    LAKE,
    TRAIN_BOUNDARY,
    document,
    full_platform,
    launch,
    notify,
    platform,
    template,
    trigger,
)
from sm_mlops import templates
from sm_mlops.bootstrap.platform import THINGS
from sm_mlops.platform import FOLDER
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.template import parse
from sm_mlops.sandbox.wire import ApiError

FIRST_STEP = {
    *("ArtifactBucket", "ArtifactBucketPolicy", "OidcProvider", "Connection"),
    *("GitHubSecret", "GitHubSecretPolicy", "TriggerRole", "FailedApprovals"),
    *("FailedApprovalsPolicy", "Boundary", "TrainBoundary", "GitHubBoundary"),
    "LaunchRole",
}
SECOND_STEP = {
    *("Trigger", "TriggerLog", "TriggerRetries", "TriggerPermission", "ApprovedRule"),
    *("Retrain", "RetrainRetries", "DriftRule", "DriftPermission"),
    *("TriggerErrors", "FailedApprovalsAlarm", "Topic", "TopicPolicy"),
    *("Notify", "NotifyRole", "NotifyLog", "NotifyRetries"),
    *("WaitingRule", "TrainedRule", "FailedRule", "NotifyDriftPermission"),
    *("NotifyWaitingPermission", "NotifyTrainedPermission", "NotifyFailedPermission"),
    *("Portfolio", "Product", "ProductInPortfolio", "LaunchConstraint"),
}
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:sm-mlops/github-AbCdEf"
FAILED = f"arn:aws:sqs:{REGION}:{ACCOUNT}:sm-mlops-failed-approvals"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"
BUCKET_ARN = f"arn:aws:s3:::{BUCKET}"
STAGE = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/churn-production/1"


def sagemaker(resource: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{resource}"


def alarm(name: str) -> str:
    return f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"


def schedule(name: str) -> str:
    return f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/{name}"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


# Two steps


def test_without_code_there_is_only_what_needs_none() -> None:
    assert platform(AssetsPrefix="").resources == FIRST_STEP


def test_with_code_there_is_everything() -> None:
    assert platform().resources == FIRST_STEP | SECOND_STEP


def test_the_second_step_leaves_the_first_as_it_was() -> None:
    first, second = platform(AssetsPrefix=""), platform()
    for logical in FIRST_STEP:
        assert first.properties(logical) == second.properties(logical), logical


def test_a_stack_that_has_no_bucket_yet_can_be_made_from_a_template_sent_inline() -> None:
    sent = parse(templates.without(FOLDER / "platform.yml", "HasAssets"))
    assert sent.resources == {
        name: item for name, item in template("platform").resources.items() if name in FIRST_STEP
    }
    assert sent.parameters == template("platform").parameters
    assert "TriggerName" not in sent.outputs and "ArtifactBucket" in sent.outputs


def test_code_and_templates_are_where_no_project_writes() -> None:
    assert platform().properties("Trigger")["Code"] == {
        "S3Bucket": BUCKET,
        "S3Key": f"{ASSETS}trigger.zip",
    }
    for elsewhere in ("churn/0.1.0/", "platform", "platform/../churn/", "/platform/"):
        with pytest.raises(ApiError, match="AssetsPrefix"):
            platform(AssetsPrefix=elsewhere)


# The bucket


def test_the_bucket_is_where_repos_look_for_it() -> None:
    assert platform().properties("ArtifactBucket")["BucketName"] == BUCKET
    assert platform(BucketName="mine").properties("ArtifactBucket")["BucketName"] == "mine"


def test_the_bucket_is_private_encrypted_and_keeps_versions() -> None:
    made = platform().properties("ArtifactBucket")
    assert set(made["PublicAccessBlockConfiguration"].values()) == {True}
    assert made["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert made["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert made["VersioningConfiguration"] == {"Status": "Enabled"}


def test_old_versions_and_unfinished_uploads_expire() -> None:
    rules = platform().properties("ArtifactBucket")["LifecycleConfiguration"]["Rules"]
    rule = {item["Id"]: item for item in rules}
    assert rule["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert rule["unfinished-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    # Current versions never expire, but records of messages: a version in the registry points to
    # the others.
    expire = [item for item in rules if {"ExpirationInDays", "ExpirationDate"} & set(item)]
    assert [item["Prefix"] for item in expire] == ["platform/notices/"]


def bucket_says(action: str, resource: str, **facts: str) -> bool | None:
    policy = document(full_platform().properties("ArtifactBucketPolicy")["PolicyDocument"])
    return decision(policy, action, resource, {"aws:securetransport": "true", **facts})


def test_the_bucket_is_reached_through_tls_only() -> None:
    for resource in (BUCKET_ARN, f"{BUCKET_ARN}/churn/x"):
        refused = bucket_says("s3:GetObject", resource, **{"aws:securetransport": "false"})
        assert refused is False


def test_a_stage_in_another_account_reads_the_models_of_its_own_project_only() -> None:
    there = f"arn:aws:iam::{DEPLOYMENT_ACCOUNT}:role/sm-mlops/churn/staging/x"
    tag = {"aws:principaltag/project": "churn", "aws:principalarn": there}
    model = f"{BUCKET_ARN}/churn/executions/abc/train/output/model.tar.gz"
    assert bucket_says("s3:GetObject", model, **tag) is True
    assert bucket_says("s3:GetObject", model) is None
    for other in ("churn/data/train.csv", "churn-eu/executions/abc/train/output/model.tar.gz"):
        assert bucket_says("s3:GetObject", f"{BUCKET_ARN}/{other}", **tag) is None
    assert bucket_says("s3:PutObject", model, **tag) is None


def test_only_accounts_that_are_named_are_let_in() -> None:
    statements = document(full_platform().properties("ArtifactBucketPolicy")["PolicyDocument"])
    [let_in] = [item for item in statements["Statement"] if item["Effect"] == "Allow"]
    assert listed(let_in["Principal"]["AWS"]) == [DEPLOYMENT_ACCOUNT]
    alone = document(platform().properties("ArtifactBucketPolicy")["PolicyDocument"])
    assert [item["Effect"] for item in alone["Statement"]] == ["Deny"]


# GitHub


def test_an_existing_oidc_provider_is_used() -> None:
    there = EXPORTS["sm-mlops-OidcProviderArn"]
    made = platform(OidcProviderArn=there)
    assert "OidcProvider" not in made.resources
    assert made.outputs()["OidcProviderArn"] == there


def test_an_account_without_oidc_has_no_provider() -> None:
    made = platform(OidcProviderArn="none")
    assert "OidcProvider" not in made.resources
    assert "OidcProviderArn" not in made.outputs()


def test_the_provider_accepts_only_tokens_for_aws() -> None:
    made = platform().properties("OidcProvider")
    assert made["ClientIdList"] == ["sts.amazonaws.com"]
    assert "ThumbprintList" not in made


def test_studio_may_use_the_connection() -> None:
    made = platform().properties("Connection")
    assert made["ProviderType"] == "GitHub"
    assert {"Key": "sagemaker", "Value": "true"} in made["Tags"]


def test_an_existing_connection_is_used() -> None:
    there = EXPORTS["sm-mlops-ConnectionArn"]
    made = platform(ConnectionArn=there)
    assert "Connection" not in made.resources
    assert made.outputs()["ConnectionArn"] == there


def test_github_enterprise_server_needs_its_host_and_its_api() -> None:
    host = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:host/git-0123456789"
    server = {"GitHost": "git.example.com", "GitHubApiUrl": "https://git.example.com/api/v3"}
    made = platform(server, ConnectionHostArn=host)
    connection = made.properties("Connection")
    assert connection["HostArn"] == host
    assert "ProviderType" not in connection
    variables = made.properties("Trigger")["Environment"]["Variables"]
    assert variables["GITHUB_API"] == "https://git.example.com/api/v3"
    assert variables["GIT_HOST"] == "git.example.com"
    with pytest.raises(ApiError, match="ConnectionHostArn"):
        platform(server)
    with pytest.raises(ApiError, match="GitHubApiUrl"):
        platform(GitHost="git.example.com", ConnectionHostArn=host)


# The credential


def test_the_credential_has_no_value_in_the_template() -> None:
    made = platform().properties("GitHubSecret")
    assert not {"SecretString", "GenerateSecretString"} & set(made)
    assert not any(
        re.search("token|secret|key$", name, re.I) for name in template("platform").parameters
    )


def test_the_credential_says_how_it_is_rotated_and_has_been_the_same_since_0_1_0() -> None:
    """CloudFormation may read what it updates, and nobody who deploys the platform may."""
    assert platform().properties("GitHubSecret") == {
        "Name": "sm-mlops/github",
        "Description": 'Credential with which an approval starts a deployment - {"token"} of a '
        'machine user, or {"app_id", "installation_id", "private_key"} of a GitHub App, each with '
        'the right Actions - write; for Jenkins {"jenkins_user", "jenkins_token"}. Replace it with '
        "mlops secret rotate",
    }


def test_only_the_trigger_reads_the_credential() -> None:
    policy = document(full_platform().properties("GitHubSecretPolicy")["ResourcePolicy"])
    for who in (role("admin"), role("churn-github-train"), role("sm-mlops-launch-eu-west-1")):
        facts = {"aws:principalarn": who}
        assert decision(policy, "secretsmanager:GetSecretValue", SECRET, facts) is False
        assert decision(policy, "secretsmanager:PutSecretValue", SECRET, facts) is None
    facts = {"aws:principalarn": trigger().arn}
    assert decision(policy, "secretsmanager:GetSecretValue", SECRET, facts) is None
    assert trigger().may("secretsmanager:GetSecretValue", SECRET)


# The trigger


def test_an_approval_is_what_the_rule_waits_for() -> None:
    rule = platform().properties("ApprovedRule")
    assert rule["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelApprovalStatus": ["Approved"]},
    }
    assert "EventBusName" not in rule


def test_only_the_rule_invokes_the_function() -> None:
    made = platform()
    permission = made.properties("TriggerPermission")
    assert permission["Principal"] == "events.amazonaws.com"
    assert permission["SourceArn"].endswith(":rule/sm-mlops-approved")
    assert permission["SourceAccount"] == ACCOUNT
    [target] = made.properties("ApprovedRule")["Targets"]
    assert target["Arn"].endswith(":function:sm-mlops-trigger")


def test_the_function_runs_on_what_is_current_within_thirty_seconds() -> None:
    made = platform().properties("Trigger")
    assert (made["Architectures"], made["Runtime"]) == (["arm64"], "python3.13")
    assert (made["Handler"], made["Timeout"]) == ("handler.handler", 30)


def test_the_function_knows_the_owners_it_may_deploy_for() -> None:
    made = platform(AllowedOwners="my-org,my-team", JenkinsUrl="https://jenkins.example.com")
    assert made.properties("Trigger")["Environment"]["Variables"] == {
        "ALLOWED_OWNERS": "my-org,my-team",
        "CLAIMS_BUCKET": BUCKET,
        "CREDENTIAL_SECRET": SECRET,
        "GITHUB_API": "https://api.github.com",
        "GIT_HOST": "github.com",
        "JENKINS_URL": "https://jenkins.example.com",
        "REF": "main",
        "WORKFLOW": "deploy.yml",
    }


def test_a_token_needs_no_layer() -> None:
    assert "TriggerLayer" not in platform().resources
    assert "Layers" not in platform().properties("Trigger")
    made = platform(HasLayer=True)
    layer = made.properties("TriggerLayer")
    assert layer["Content"] == {"S3Bucket": BUCKET, "S3Key": f"{ASSETS}layer.zip"}
    function = made.properties("Trigger")
    assert layer["CompatibleArchitectures"] == function["Architectures"]
    assert layer["CompatibleRuntimes"] == [function["Runtime"]]
    assert len(function["Layers"]) == 1


def test_what_cannot_be_passed_on_is_retried_kept_and_reported() -> None:
    made = full_platform()
    retries = made.properties("TriggerRetries")
    assert retries["MaximumRetryAttempts"] == 2
    assert retries["DestinationConfig"] == {"OnFailure": {"Destination": FAILED}}
    [target] = made.properties("ApprovedRule")["Targets"]
    assert target["DeadLetterConfig"] == {"Arn": FAILED}
    for alarm, metric in (
        ("TriggerErrors", "Errors"),
        ("FailedApprovalsAlarm", "ApproximateNumberOfMessagesVisible"),
    ):
        properties = made.properties(alarm)
        assert (properties["MetricName"], float(properties["Threshold"])) == (metric, 0)
        assert properties["AlarmActions"] == properties["OKActions"] == [TOPIC]


def test_there_is_one_topic_for_messages_and_alarms() -> None:
    own, given = platform(), full_platform()
    assert not {"Topic", "TopicPolicy"} & given.resources
    for made, topic in (
        (own, f"{TOPIC.rpartition(':')[0]}:sm-mlops-notifications"),
        (given, TOPIC),
    ):
        assert made.properties("TriggerErrors")["AlarmActions"] == [topic]
        assert made.properties("Notify")["Environment"]["Variables"]["TOPIC_ARN"] == topic
        assert made.outputs()["TopicArn"] == topic
        [tells] = [
            s for s in made.policies("NotifyRole")[0]["Statement"] if s["Sid"] == "TellPeople"
        ]
        assert tells["Resource"] == topic


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
def test_messages_to_a_topic_of_yours_are_encrypted_with_a_key_of_the_platform(action: str) -> None:
    via = {"kms:ViaService": f"sns.{REGION}.amazonaws.com"}
    given, own = (
        Identity("x", made.policies("NotifyRole"))
        for made in (full_platform(), platform(KeyArns=KEY))
    )
    assert given.may(action, KEY, via)
    assert not given.may(action, KEY, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"})
    assert not given.may(action, KEY.replace("1234abcd", "9999abcd"), via)
    assert not own.may(action, KEY, via)


def test_only_alarms_of_the_account_publish_from_outside() -> None:
    made = platform()
    policy = document(made.properties("TopicPolicy")["PolicyDocument"])
    topic = made.outputs()["TopicArn"]
    alarm = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:churn-staging-errors"
    facts = {
        "aws:securetransport": "true",
        "aws:sourceaccount": ACCOUNT,
        "aws:sourcearn": alarm,
    }
    for change, answer in (
        ({}, True),
        ({"aws:sourceaccount": DEPLOYMENT_ACCOUNT}, None),
        ({"aws:sourcearn": alarm.replace(ACCOUNT, DEPLOYMENT_ACCOUNT)}, None),
        ({"aws:securetransport": "false"}, False),
    ):
        assert decision(policy, "sns:Publish", topic, facts | change) is answer


@pytest.mark.parametrize(
    ("rule", "targets"),
    [
        ("approved", ["Trigger"]),
        ("drift", ["Trigger", "Notify"]),
        ("waiting", ["Notify"]),
        ("trained", ["Notify"]),
        ("failed", ["Notify"]),
    ],
)
def test_each_rule_may_invoke_what_it_targets_and_keeps_what_it_cannot_deliver(
    rule: str, targets: list[str]
) -> None:
    made = full_platform()
    given = made.properties(f"{rule.capitalize()}Rule")
    assert given["Name"] == f"sm-mlops-{rule}"
    assert [target["Arn"].rpartition(":")[2] for target in given["Targets"]] == [
        f"sm-mlops-{name.lower()}" for name in targets
    ]
    assert {target["DeadLetterConfig"]["Arn"] for target in given["Targets"]} == {FAILED}
    arn = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/sm-mlops-{rule}"
    allowed = [
        made.properties(name)["FunctionName"]
        for name in made.resources
        if made.kind(name) == "AWS::Lambda::Permission"
        and made.properties(name)["SourceArn"] == arn
    ]
    assert sorted(allowed) == sorted(f"sm-mlops-{name.lower()}" for name in targets)
    policy = document(made.properties("FailedApprovalsPolicy")["PolicyDocument"])
    facts = {"aws:securetransport": "true", "aws:sourcearn": arn}
    assert decision(policy, "sqs:SendMessage", FAILED, facts) is True


def test_schedules_call_a_function_that_starts_no_deployment() -> None:
    made = full_platform()
    assert made.properties("Retrain")["Handler"] == "handler.scheduled"
    differing = {"FunctionName", "Description", "Handler", "Environment"}
    same = made.properties("Trigger").keys() - differing
    for name in same:
        assert made.properties("Retrain")[name] == made.properties("Trigger")[name]
    for retries in ("RetrainRetries", "NotifyRetries"):
        kept = made.properties(retries)["DestinationConfig"]
        assert kept == {"OnFailure": {"Destination": FAILED}}


def test_only_the_rules_put_into_the_queue_from_outside() -> None:
    policy = document(platform().properties("FailedApprovalsPolicy")["PolicyDocument"])
    rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/sm-mlops-approved"
    encrypted = {"aws:securetransport": "true"}
    for source, answer in ((rule, True), (f"{rule}-not", None)):
        facts = {**encrypted, "aws:sourcearn": source}
        assert decision(policy, "sqs:SendMessage", FAILED, facts) is answer
    plain = {"aws:securetransport": "false", "aws:sourcearn": rule}
    assert decision(policy, "sqs:SendMessage", FAILED, plain) is False


CLAIM = f"{BUCKET_ARN}/churn/approvals/3-1790000000000.json"


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("sagemaker:DescribeModelPackage", sagemaker("model-package/churn/3"), {}),
        ("s3:GetObject", CLAIM, {}),
        ("s3:PutObject", CLAIM, {}),
        ("s3:DeleteObject", CLAIM, {}),
        ("s3:ListBucket", BUCKET_ARN, {"s3:prefix": "churn/approvals/3-1.json"}),
        ("sqs:SendMessage", FAILED, {}),
        ("sagemaker:ListModelPackages", sagemaker("model-package-group/churn"), {}),
        ("cloudwatch:ListTagsForResource", alarm("churn-production-drift"), {}),
        ("scheduler:GetSchedule", schedule("churn-production-retrain"), {}),
        (
            "logs:PutLogEvents",
            f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/sm-mlops-trigger:log-stream:x",
            {},
        ),
    ],
    ids=lambda value: value.partition(":")[2] if isinstance(value, str) else "",
)
def test_the_function_may_do_what_it_does(
    action: str, resource: str, context: dict[str, str]
) -> None:
    assert trigger().may(action, resource, context)


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("sagemaker:UpdateModelPackage", sagemaker("model-package/churn/3"), {}),
        ("sagemaker:StartPipelineExecution", sagemaker("pipeline/churn"), {}),
        ("s3:GetObject", f"{BUCKET_ARN}/churn/executions/1/model.tar.gz", {}),
        ("s3:PutObject", f"{BUCKET_ARN}/{ASSETS}trigger.zip", {}),
        ("s3:ListBucket", BUCKET_ARN, {"s3:prefix": "churn/data/"}),
        ("s3:ListBucket", BUCKET_ARN, {}),
        ("cloudwatch:ListTagsForResource", alarm("churn-production-errors"), {}),
        ("cloudwatch:SetAlarmState", alarm("churn-production-drift"), {}),
        ("scheduler:GetSchedule", schedule("churn-production-monitor"), {}),
        ("sns:Publish", TOPIC, {}),
        ("secretsmanager:PutSecretValue", SECRET, {}),
        ("secretsmanager:GetSecretValue", SECRET.replace("github", "churn/github-train"), {}),
        ("iam:PassRole", role("churn-pipeline"), {}),
        ("sts:AssumeRole", role("churn-github-train"), {}),
        ("lambda:UpdateFunctionCode", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:x", {}),
    ],
    ids=lambda value: value.partition(":")[2] if isinstance(value, str) else "",
)
def test_the_function_may_do_nothing_else(
    action: str, resource: str, context: dict[str, str]
) -> None:
    assert not trigger().may(action, resource, context)


@pytest.mark.parametrize(
    ("action", "resource", "context", "may"),
    [
        ("sagemaker:DescribeModelPackage", sagemaker("model-package/churn/3"), {}, True),
        (
            "sagemaker:ListPipelineExecutionSteps",
            sagemaker("pipeline/churn/execution/abcdefghijkl"),
            {},
            True,
        ),
        ("cloudformation:DescribeStacks", STAGE, {}, True),
        ("s3:PutObject", f"{BUCKET_ARN}/platform/notices/0.json", {}, True),
        ("s3:GetObject", f"{BUCKET_ARN}/churn/monitor/production/2026/result.json", {}, True),
        ("s3:ListBucket", BUCKET_ARN, {"s3:prefix": "churn/monitor/production/"}, True),
        ("sns:Publish", f"arn:aws:sns:{REGION}:{ACCOUNT}:sm-mlops-notifications", {}, True),
        ("sns:Publish", TOPIC, {}, False),
        ("sns:Subscribe", f"arn:aws:sns:{REGION}:{ACCOUNT}:sm-mlops-notifications", {}, False),
        ("secretsmanager:GetSecretValue", SECRET, {}, False),
        ("s3:PutObject", f"{BUCKET_ARN}/churn/approvals/3-1.json", {}, False),
        ("s3:PutObject", f"{BUCKET_ARN}/{ASSETS}trigger.zip", {}, False),
        ("s3:GetObject", f"{BUCKET_ARN}/churn/capture/production/1.jsonl", {}, False),
        ("sagemaker:UpdateModelPackage", sagemaker("model-package/churn/3"), {}, False),
        ("cloudformation:DeleteStack", STAGE, {}, False),
    ],
    ids=lambda value: value.partition(":")[2] if isinstance(value, str) else "",
)
def test_who_tells_people_reads_and_publishes_only(
    action: str, resource: str, context: dict[str, str], may: bool
) -> None:
    assert notify().may(action, resource, context) is may


@pytest.mark.parametrize("logical", ["TriggerRole", "NotifyRole"])
def test_only_lambda_for_this_account_assumes_a_functions_role(logical: str) -> None:
    trust = document(platform().properties(logical)["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


# Service Catalog


def test_studio_shows_the_product() -> None:
    made = platform().properties("Product")
    assert {"Key": "sagemaker:studio-visibility", "Value": "true"} in made["Tags"]


def test_the_product_s_first_version_is_the_template_s() -> None:
    made = platform().properties("Product")
    [version] = made["ProvisioningArtifactParameters"]
    assert version["Name"] == "0.1.0"
    address = f"https://{BUCKET}.s3.{REGION}.amazonaws.com/{ASSETS}project.yml"
    assert version["Info"] == {"LoadTemplateFromURL": address}


def test_a_later_template_leaves_the_product_as_it_was() -> None:
    # CloudFormation deletes a version that a template lists no longer.
    later = platform(TemplateVersion="0.2.0", AssetsPrefix="platform/0.2.0/fedcba9876543210/")
    assert later.properties("Product") == platform().properties("Product")
    code = later.properties("Trigger")["Code"]["S3Key"]
    assert code == "platform/0.2.0/fedcba9876543210/trigger.zip"


def test_a_product_without_its_first_version_is_refused() -> None:
    with pytest.raises(ApiError, match="FirstAssetsPrefix"):
        platform(FirstAssetsPrefix="")


@pytest.mark.parametrize("count", range(6))
def test_up_to_five_roles_may_make_projects(count: int) -> None:
    names = [role(f"studio-{number}") for number in range(count)]
    made = platform(StudioRoleArns=names)
    grants = [logical for logical in made.resources if logical.endswith("Grant")]
    assert sorted(made.properties(one)["PrincipalARN"] for one in grants) == names
    assert not list(platform(AssetsPrefix="", StudioRoleArns=names).resources - FIRST_STEP)


def test_a_free_position_grants_nothing_and_moves_no_other_grant() -> None:
    names = [role(f"studio-{number}") for number in range(3)]
    made, after = platform(StudioRoleArns=names), platform(StudioRoleArns=["none", *names[1:]])
    assert "FirstGrant" in made.resources - after.resources
    for logical in ("SecondGrant", "ThirdGrant"):
        assert after.properties(logical) == made.properties(logical)


def test_a_project_is_made_with_the_launch_role_and_not_with_the_person_s_rights() -> None:
    made = platform()
    constraint = made.properties("LaunchConstraint")
    assert constraint["RoleArn"] == role("LaunchRole")
    assert constraint["PortfolioId"] == made.properties("ProductInPortfolio")["PortfolioId"]


def test_service_catalog_and_cloudformation_assume_the_launch_role() -> None:
    trust = document(platform().properties("LaunchRole")["AssumeRolePolicyDocument"])
    services = {item["Principal"]["Service"] for item in trust["Statement"]}
    assert services == {"servicecatalog.amazonaws.com", "cloudformation.amazonaws.com"}
    assert all(listed(item["Action"]) == ["sts:AssumeRole"] for item in trust["Statement"])


TAGGED, ASKED = {"aws:ResourceTag/project": "churn"}, {"aws:RequestTag/project": "churn"}
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/SC-{ACCOUNT}-pp-1/1"
USER = f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github-train"


@pytest.mark.parametrize("name", ["churn-github", "churn-github-production", "churn-pipeline"])
def test_the_launch_role_tags_and_names_what_it_makes(name: str) -> None:
    for limit in (BOUNDARY, TRAIN_BOUNDARY, GITHUB_BOUNDARY):
        limited = {"iam:PermissionsBoundary": limit}
        assert launch().may("iam:CreateRole", role(name), {**ASKED, **limited})
        assert launch().may("iam:UpdateAssumeRolePolicy", role(name), limited)
        assert launch().may("iam:DeleteRole", role(name), limited)
    assert launch().may("iam:TagRole", role(name), ASKED)
    for kind, operation in (
        ("model-package-group/churn", "CreateModelPackageGroup"),
        ("code-repository/churn", "CreateCodeRepository"),
    ):
        context = {**ASKED, "sagemaker:TaggingAction": operation}
        assert launch().may("sagemaker:AddTags", sagemaker(kind), context)


def test_the_launch_role_makes_and_deletes_service_catalog_s_stacks_only() -> None:
    for action in ("CreateStack", "UpdateStack", "DeleteStack", "DescribeStackEvents"):
        assert launch().may(f"cloudformation:{action}", STACK)
        for other in ("sm-mlops-platform", "churn-production"):
            stack = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{other}/1"
            assert not launch().may(f"cloudformation:{action}", stack)


def test_the_launch_role_reads_from_s3_what_service_catalog_has_marked() -> None:
    mark = {"s3:ExistingObjectTag/servicecatalog:provisioning": "true"}
    assert launch().may("s3:GetObject", "arn:aws:s3:::cf-templates/x", mark)
    assert not launch().may("s3:GetObject", f"{BUCKET_ARN}/churn/data/x.csv")


WITH = {**TAGGED, **ASKED, "iam:PermissionsBoundary": GITHUB_BOUNDARY}
OTHER_BOUNDARY = {**WITH, "iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}
ADMIN = {"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess"}


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        # A role or user without a boundary, with another one, or without a project.
        ("iam:CreateRole", role("churn-github-train"), ASKED),
        ("iam:CreateRole", role("churn-github-train"), OTHER_BOUNDARY),
        (
            "iam:CreateRole",
            role("churn-github-train"),
            {"iam:PermissionsBoundary": GITHUB_BOUNDARY},
        ),
        ("iam:CreateUser", USER, ASKED),
        ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/somebody", WITH),
        ("iam:CreateRole", role("somebody"), WITH),
        # Policies for what has no boundary.
        ("iam:PutRolePolicy", role("other-pipeline"), TAGGED),
        ("iam:PutRolePolicy", role("other-pipeline"), OTHER_BOUNDARY),
        ("iam:PutUserPolicy", USER, TAGGED),
        ("iam:PutRolePermissionsBoundary", role("churn-github-train"), OTHER_BOUNDARY),
        ("iam:DeleteRolePermissionsBoundary", role("churn-github-train"), WITH),
        ("iam:DeleteUserPermissionsBoundary", USER, WITH),
        ("iam:AttachRolePolicy", role("churn-github-train"), {**WITH, **ADMIN}),
        ("iam:AttachUserPolicy", USER, {**WITH, **ADMIN}),
        ("iam:AddUserToGroup", f"arn:aws:iam::{ACCOUNT}:group/admins", {}),
        ("iam:CreateLoginProfile", USER, {}),
        # Itself, and what holds the others.
        ("iam:PutRolePolicy", role(f"sm-mlops-launch-{REGION}"), WITH),
        ("iam:UpdateAssumeRolePolicy", role(f"sm-mlops-launch-{REGION}"), WITH),
        ("iam:CreatePolicyVersion", BOUNDARY, {}),
        ("iam:SetDefaultPolicyVersion", GITHUB_BOUNDARY, {}),
        ("iam:DeletePolicy", BOUNDARY, {}),
        # Roles of others that have such a name, and even a project's tag; and being a role.
        *(
            (f"iam:{action}", role(name), facts)
            for action in ("DeleteRole", "UpdateAssumeRolePolicy", "UpdateRole", "PutRolePolicy")
            for name in ("other-pipeline", "other-github-production")
            for facts in ({}, TAGGED, OTHER_BOUNDARY)
        ),
        # A role or user of one project made another's, or nobody's.
        ("iam:TagRole", role("churn-pipeline"), {**TAGGED, "aws:RequestTag/project": "fraud"}),
        ("iam:TagRole", role("churn-pipeline"), {"aws:RequestTag/x": "y"}),
        ("iam:TagUser", USER, {**TAGGED, "aws:RequestTag/project": "fraud"}),
        ("iam:UntagRole", role("churn-pipeline"), {**TAGGED, "aws:TagKeys": ["project"]}),
        ("iam:UntagUser", USER, {**TAGGED, "aws:TagKeys": ["x", "project"]}),
        ("iam:TagUser", f"arn:aws:iam::{ACCOUNT}:user/somebody", ASKED),
        # Registries of others made a project's.
        ("sagemaker:AddTags", sagemaker("model-package-group/others"), ASKED),
        ("sagemaker:AddTags", sagemaker("code-repository/others"), ASKED),
        ("iam:PassRole", role("churn-pipeline"), WITH),
        ("sts:AssumeRole", role("churn-github-train"), WITH),
        # What is in the registry, and the credential.
        ("sagemaker:UpdateModelPackage", sagemaker("model-package/churn/1"), TAGGED),
        ("sagemaker:DeleteModelPackageGroup", sagemaker("model-package-group/others"), {}),
        ("secretsmanager:GetSecretValue", SECRET, {}),
        ("secretsmanager:PutResourcePolicy", SECRET, {}),
    ],
    ids=lambda value: value.rpartition(":")[2] if isinstance(value, str) else "",
)
def test_the_launch_role_has_no_way_to_widen_anything(
    action: str, resource: str, context: dict[str, str]
) -> None:
    assert not launch().may(action, resource, context)


# The template as such


@pytest.mark.parametrize(
    "logical", ["Boundary", "TrainBoundary", "GitHubBoundary", "LaunchRole", "TriggerRole"]
)
def test_policies_name_actions_that_exist_with_resources_they_go_with(logical: str) -> None:
    for policy in full_platform().policies(logical):
        assert not list(misfits(policy))


@pytest.mark.parametrize(
    "logical", ["Boundary", "TrainBoundary", "GitHubBoundary", "LaunchRole", "TriggerRole"]
)
def test_policies_name_each_action_to_its_end(logical: str) -> None:
    for policy in full_platform().policies(logical):
        for statement in policy["Statement"]:
            assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
            if statement["Effect"] == "Allow":
                assert not [item for item in listed(statement["Action"]) if "*" in item]


def test_only_calls_without_a_narrower_resource_are_allowed_on_all() -> None:
    open_wide = {
        action
        for logical in ("Boundary", "TrainBoundary", "GitHubBoundary", "LaunchRole", "TriggerRole")
        for policy in full_platform().policies(logical)
        for statement in policy["Statement"]
        if "*" in listed(statement["Resource"]) and statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    }
    assert open_wide == {
        *("cloudwatch:PutMetricData", "cloudwatch:DescribeAlarms", "ecr:GetAuthorizationToken"),
        *("ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
        *("ec2:DescribeSecurityGroups", "ec2:DescribeVpcs"),
        "application-autoscaling:DescribeScalableTargets",
        "application-autoscaling:DescribeScalingPolicies",
        "application-autoscaling:DescribeScheduledActions",
        "sagemaker:ListEndpoints",
        *("servicequotas:ListServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas"),
        # Of topics with the project's tag, and of templates that Service Catalog has marked.
        *("sns:Publish", "s3:GetObject"),
        *("cloudformation:GetTemplateSummary", "cloudformation:ValidateTemplate"),
    }


LONGEST = "us-gov-west-1"


@pytest.mark.parametrize("logical", ["Boundary", "TrainBoundary", "GitHubBoundary"])
def test_a_boundary_of_the_longest_names_fits_into_a_managed_policy(logical: str) -> None:
    key = KEY.replace("arn:aws:", "arn:aws-us-gov:").replace(REGION, LONGEST)
    # One that an account's keys and data share: a second of each still fits.
    many = {"KeyArns": f"{key},{key}", "DataLocations": f"{LAKE},{LAKE}"}
    made = platform(many, region=LONGEST, BucketName="b" * 63)
    [policy] = made.policies(logical)
    text = json.dumps(policy)
    # What the platform makes itself has the names of the tests' region.
    for short, long in (("arn:aws:", "arn:aws-us-gov:"), (BUCKET, "b" * 63), (REGION, LONGEST)):
        text = text.replace(short, long)
    assert length(json.loads(text)) <= 6_144


def test_the_launch_role_of_the_longest_names_fits_into_a_role() -> None:
    made = platform(region=LONGEST, BucketName="b" * 63)
    for logical in ("LaunchRole", "TriggerRole"):
        assert length(*made.policies(logical)) <= 10_240
        assert length(document(made.properties(logical)["AssumeRolePolicyDocument"])) <= 2_048


def test_an_upgrade_replaces_no_boundary() -> None:
    """CloudFormation cannot replace what has a name, and a policy's description cannot change."""
    assert schemas.create_only("AWS::IAM::ManagedPolicy") >= {"Description", "ManagedPolicyName"}
    descriptions = {
        "Boundary": "The most that training and serving may do in model repos; made by sm-mlops",
        "TrainBoundary": "The most that training may do in model repos; made by sm-mlops",
        "GitHubBoundary": "The most that the workflows of model repos may do; made by sm-mlops",
    }
    for logical, words in descriptions.items():
        assert platform().properties(logical)["Description"] == words


def test_a_boundary_grants_nothing_to_a_role_without_a_project() -> None:
    [limit] = full_platform().policies("GitHubBoundary")
    nobody = Identity(role("nobody"), (EVERYTHING,), limit)
    assert not nobody.may("s3:GetObject", f"{BUCKET_ARN}/churn/data/x.csv")
    assert not nobody.may("sagemaker:StartPipelineExecution", sagemaker("pipeline/churn"))


def test_names_in_iam_differ_between_regions() -> None:
    made = full_platform()
    for logical in made.resources:
        if made.kind(logical) in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy"):
            properties = made.properties(logical)
            name = properties.get("RoleName") or properties.get("ManagedPolicyName")
            assert name is None or name.endswith(f"-{REGION}"), logical


def test_what_projects_take_from_the_platform_is_exported() -> None:
    exported = {
        output["Export"]["Name"]
        for output in template("platform").outputs.values()
        if "Export" in output
    }
    text = (FOLDER / "project.yml").read_text(encoding="utf-8")
    assert exported == set(re.findall(r"!ImportValue (\S+?)\]?\]?\]?$", text, re.MULTILINE))
    assert exported == set(EXPORTS)


def test_the_stack_says_which_version_wrote_it() -> None:
    assert platform().outputs()["TemplateVersion"] == "0.1.0"


def test_resources_are_what_aws_accepts() -> None:
    made = full_platform()
    for logical in made.resources:
        assert not list(schemas.violations(made.kind(logical), made.properties(logical))), logical


@pytest.mark.parametrize("name", ["platform", "project"])
def test_every_parameter_is_described_labeled_bounded_and_in_one_group(name: str) -> None:
    found = template(name)
    form = found.metadata["AWS::CloudFormation::Interface"]
    grouped = [one for group in form["ParameterGroups"] for one in group["Parameters"]]
    assert sorted(grouped) == sorted(found.parameters) == sorted(form["ParameterLabels"])
    for parameter, declared in found.parameters.items():
        assert declared["Description"], parameter
        assert {"AllowedPattern", "AllowedValues", "MaxValue"} & set(declared), parameter


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"TemplateVersion": "latest"}, "TemplateVersion"),
        ({"AllowedOwners": "my-org,*"}, "AllowedOwners"),
        ({"AllowedOwners": ""}, "AllowedOwners"),
        ({"GitHubApiUrl": "api.github.com"}, "GitHubApiUrl"),
        ({"OidcProviderArn": "arn:aws:iam::1:oidc-provider/evil.example.com"}, "OidcProviderArn"),
        ({"ConnectionName": "n" * 33}, "ConnectionName"),
        ({"DataLocations": "arn:aws:s3:::*"}, "DataLocations"),
        ({"DataLocations": "arn:aws:s3:::a*"}, "DataLocations"),
        ({"DataLocations": "arn:aws:s3:::lake-*/churn/*"}, "DataLocations"),
        ({"KeyArns": "*"}, "KeyArns"),
        ({"KeyArns": KEY.replace(ACCOUNT, "*")}, "KeyArns"),
        ({"DeploymentAccounts": "12345"}, "DeploymentAccounts"),
        ({"StudioRoleArns": "somebody"}, "StudioRoleArns"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_by_name(parameters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint):
        platform(parameters)


def test_the_plan_lists_each_boundary() -> None:
    kinds = {name: item["Type"] for name, item in template("platform").resources.items()}
    boundaries = {name for name, kind in kinds.items() if kind == "AWS::IAM::ManagedPolicy"}
    assert len(boundaries) == 3 and boundaries <= THINGS.keys()
