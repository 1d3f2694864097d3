"""project.yml: what one model repo has, and who may take its roles."""

from __future__ import annotations

from typing import Any

import pytest

from iam_case import Identity, decision, length, listed, misfits
from infra_case import ACCOUNT, REGION
from platform_case import (
    BOUNDARY,
    BUCKET,
    CONNECTION,
    DEPLOYMENT_ACCOUNT,
    GITHUB_BOUNDARY,
    KEY,
    LAKE,
    PROVIDER,
    boundary,
    document,
    full_project,
    project,
    template,
)
from sm_mlops.platform import FOLDER
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.wire import ApiError

ALWAYS = {"ModelPackageGroup", "CodeRepository", "PipelineRole", "GitHubRole"}
KEYED = {"GitHubUser", "GitHubUserKey", "GitHubUserSecret", "GitHubUserSecretPolicy"}
SUBJECT = "repo:my-org@1234/churn-model@5678"
INLINE_LIMIT = 51_200
ISSUER = "token.actions.githubusercontent.com"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


# What there is


def test_a_project_has_two_roles_a_registry_and_a_repository() -> None:
    assert project().resources == ALWAYS


def test_a_thousand_projects_stay_within_the_quotas_of_an_account() -> None:
    kinds = sorted(item["Type"] for item in template("project").resources.values())
    assert kinds == [
        "AWS::IAM::AccessKey",
        "AWS::IAM::Role",
        "AWS::IAM::Role",
        "AWS::IAM::User",
        "AWS::SageMaker::CodeRepository",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::SecretsManager::ResourcePolicy",
        "AWS::SecretsManager::Secret",
    ]


def test_what_studio_shows_in_a_project_has_its_tags() -> None:
    for logical in ("ModelPackageGroup", "CodeRepository"):
        tags = {tag["Key"]: tag["Value"] for tag in project().properties(logical)["Tags"]}
        assert tags == {
            "project": "churn",
            "sagemaker:project-name": "churn",
            "sagemaker:project-id": "p-0123456789ab",
        }


def test_the_registry_is_named_like_the_project() -> None:
    assert project().properties("ModelPackageGroup")["ModelPackageGroupName"] == "churn"


def test_an_existing_registry_is_left_alone() -> None:
    made = project(Registry="existing")
    assert made.resources == ALWAYS - {"ModelPackageGroup"}
    assert made.outputs()["ModelPackageGroupName"] == "churn"


def test_a_higher_number_is_another_key() -> None:
    made = project(SignIn="iam-user", KeySerial=2).properties("GitHubUserKey")
    assert made["Serial"] == 2
    assert "Serial" in schemas.create_only("AWS::IAM::AccessKey")


def test_a_project_tells_what_bootstrap_needs() -> None:
    assert project(SignIn="iam-user").outputs() == {
        "ModelPackageGroupName": "churn",
        "CodeRepositoryName": "churn",
        "PipelineRoleArn": role("PipelineRole"),
        "GitHubRoleArn": role("GitHubRole"),
        "GitHubUserSecretArn": "GitHubUserSecret",
    }
    assert "GitHubUserSecretArn" not in project().outputs()


# The platform's, unless told otherwise


@pytest.mark.parametrize("service", ["codeconnections", "codestar-connections"])
def test_the_repository_is_cloned_through_the_host_that_the_connection_names(service: str) -> None:
    connection = f"arn:aws:{service}:us-east-1:{DEPLOYMENT_ACCOUNT}:connection/0a1b2c3d"
    made = project(ConnectionArn=connection).properties("CodeRepository")["GitConfig"]
    assert made == {
        "Branch": "main",
        "RepositoryUrl": f"https://{service}.us-east-1.amazonaws.com/git-http/{DEPLOYMENT_ACCOUNT}"
        "/us-east-1/0a1b2c3d/my-org/churn-model.git",
    }


def test_what_is_left_empty_is_the_platform_s() -> None:
    given = {"ConnectionArn": CONNECTION, "ArtifactBucket": BUCKET, "OidcProviderArn": PROVIDER}
    told, empty = project("churn", given), project("churn")
    for logical in ALWAYS:
        assert told.properties(logical) == empty.properties(logical)


def test_another_bucket_is_used_where_one_is_named() -> None:
    text = str(project(ArtifactBucket="mine").policies("GitHubRole"))
    assert "arn:aws:s3:::mine/churn/*" in text
    assert BUCKET not in text


# Other accounts


def test_other_accounts_read_the_registry_and_approve_nothing() -> None:
    made = project(DeploymentAccounts=[DEPLOYMENT_ACCOUNT, "333344445555"])
    policy = document(made.properties("ModelPackageGroup")["ModelPackageGroupPolicy"])
    for statement in policy["Statement"]:
        assert listed(statement["Principal"]["AWS"]) == [DEPLOYMENT_ACCOUNT, "333344445555"]
    place = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    for action in ("DescribeModelPackage", "ListModelPackages", "CreateModel"):
        version = f"{place}:model-package/churn/3"
        assert decision(policy, f"sagemaker:{action}", version, {}) is True
        other = f"{place}:model-package/churn-eu/3"
        assert decision(policy, f"sagemaker:{action}", other, {}) is None
    approve = decision(policy, "sagemaker:UpdateModelPackage", f"{place}:model-package/churn/3", {})
    assert approve is None


def test_without_other_accounts_the_registry_has_no_policy() -> None:
    assert "ModelPackageGroupPolicy" not in project().properties("ModelPackageGroup")


# Who takes the roles


def trusts(subject: str, audience: str = "sts.amazonaws.com", **parameters: Any) -> bool:
    """Return whether GitHub's token with this subject may assume the role."""
    trust = document(
        project("churn", parameters).properties("GitHubRole")["AssumeRolePolicyDocument"]
    )
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"Federated": PROVIDER}
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    facts = {f"{ISSUER}:aud": audience, f"{ISSUER}:sub": subject}
    asked = {"Statement": [{**statement, "Resource": "*"}]}
    del asked["Statement"][0]["Principal"]
    return decision(asked, "sts:AssumeRoleWithWebIdentity", "role", facts) is True


SUBJECTS = ["repo:my-org/churn-model", SUBJECT]
PLACES = ["ref:refs/heads/main", "environment:staging", "environment:production"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_workflows_on_main_and_in_the_environments_assume_the_role(
    subject: str, place: str
) -> None:
    assert trusts(f"{subject}:{place}")
    assert trusts(f"{subject}:{place}", GitHubSubject=subject)


@pytest.mark.parametrize(
    "subject",
    [
        "{0}:pull_request",
        "{0}:ref:refs/heads/Main",
        "{0}:ref:refs/heads/main2",
        "{0}:ref:refs/heads/feature/main",
        "{0}:ref:refs/tags/main",
        "{0}:environment:Production",
        "{0}:environment:dev",
        "{0}",
        "x{0}:ref:refs/heads/main",
    ],
)
@pytest.mark.parametrize("repository", SUBJECTS)
def test_nothing_else_of_the_repository_does(repository: str, subject: str) -> None:
    assert not trusts(subject.format(repository))
    assert not trusts(subject.format(repository), GitHubSubject=repository)


@pytest.mark.parametrize(
    "subject",
    [
        "repo:my-org/other:ref:refs/heads/main",
        "repo:my-org/churn-model-eu:ref:refs/heads/main",
        "repo:my-org@1/other@2:ref:refs/heads/main",
        "repo:my-org-2/churn-model:ref:refs/heads/main",
        "repo:my-org-2@1/churn-model@2:ref:refs/heads/main",
        "repo:evil@1/my-org@2/churn-model@3:ref:refs/heads/main",
        "repo:my-org@1/churn-model-eu@2:ref:refs/heads/main",
    ],
)
def test_no_other_repository_assumes_the_role(subject: str) -> None:
    assert not trusts(subject)
    assert not trusts(subject, GitHubSubject=SUBJECT)


def test_taking_over_the_repositorys_name_does_not_give_the_role() -> None:
    for stranger in ("repo:my-org@999/churn-model@888", "repo:my-org/churn-model"):
        assert not trusts(f"{stranger}:ref:refs/heads/main", GitHubSubject=SUBJECT)


def test_a_token_for_someone_else_is_not_accepted() -> None:
    assert not trusts(f"{SUBJECT}:ref:refs/heads/main", audience="https://github.com/my-org")


def test_github_enterprise_server_signs_in_with_a_key() -> None:
    with pytest.raises(ApiError, match="iam-user"):
        project(GitHost="git.example.com")
    assert project(GitHost="git.example.com", SignIn="iam-user").resources >= KEYED


def test_sessions_last_an_hour() -> None:
    for logical in ("PipelineRole", "GitHubRole"):
        assert project().properties(logical)["MaxSessionDuration"] == 3600


def test_only_sagemaker_acting_for_this_account_assumes_the_pipelines_role() -> None:
    trust = document(project().properties("PipelineRole")["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}


def test_every_role_has_its_boundary_and_the_tag_that_the_boundary_relies_on() -> None:
    made = project(SignIn="iam-user")
    limits = {
        "PipelineRole": BOUNDARY,
        "GitHubRole": GITHUB_BOUNDARY,
        "GitHubUser": GITHUB_BOUNDARY,
    }
    for logical, limit in limits.items():
        properties = made.properties(logical)
        assert properties["PermissionsBoundary"] == limit
        assert properties["Tags"] == [{"Key": "project", "Value": "churn"}]


def test_the_roles_are_where_repos_look_for_them() -> None:
    made = project()
    assert made.properties("PipelineRole")["RoleName"] == "churn-pipeline"
    assert made.properties("GitHubRole")["RoleName"] == "churn-github"
    assert not any("Path" in made.properties(one) for one in ("PipelineRole", "GitHubRole"))


# Where OpenID Connect is not possible


def test_there_is_a_key_only_where_one_is_asked_for() -> None:
    assert project(SignIn="iam-user").resources == ALWAYS | KEYED


def test_a_key_opens_the_role_and_nothing_else() -> None:
    made = project(SignIn="iam-user")
    trust = document(made.properties("GitHubRole")["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github"}
    user = Identity(
        f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github",
        made.policies("GitHubUser"),
        boundary("GitHubBoundary"),
        {"project": "churn"},
    )
    assert user.may("sts:AssumeRole", role("churn-github"))
    assert not user.may("sts:AssumeRole", role("churn-eu-github"))
    assert not user.may("s3:GetObject", f"arn:aws:s3:::{BUCKET}/churn/data/x.csv")
    [only] = [item for policy in user.policies for item in policy["Statement"]]
    assert listed(only["Action"]) == ["sts:AssumeRole"]


def test_the_key_is_kept_in_secrets_manager_and_shown_nowhere() -> None:
    made = project(SignIn="iam-user")
    assert "made-by-iam" in made.properties("GitHubUserSecret")["SecretString"]
    assert "mlops secret rotate" in made.properties("GitHubUserSecret")["Description"]
    assert not [text for text in made.outputs().values() if "made-by-iam" in text]


@pytest.mark.parametrize(
    "who", ["churn-github", "churn-pipeline", "sm-mlops/churn/anything", "churn-eu-github"]
)
def test_no_role_of_a_repo_reads_the_key(who: str) -> None:
    made = project(SignIn="iam-user").properties("GitHubUserSecretPolicy")
    policy = document(made["ResourcePolicy"])
    facts = {"aws:principalarn": role(who)}
    assert decision(policy, "secretsmanager:GetSecretValue", "secret", facts) is False
    admin = {"aws:principalarn": role("admin")}
    assert decision(policy, "secretsmanager:GetSecretValue", "secret", admin) is None


# The template as such


@pytest.mark.parametrize("logical", ["PipelineRole", "GitHubRole"])
def test_policies_name_actions_that_exist_with_resources_they_go_with(logical: str) -> None:
    for policy in full_project("churn").policies(logical):
        assert not list(misfits(policy))


@pytest.mark.parametrize("logical", ["PipelineRole", "GitHubRole"])
def test_policies_name_each_action_to_its_end(logical: str) -> None:
    for policy in full_project("churn").policies(logical):
        for statement in policy["Statement"]:
            assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
            assert not [item for item in listed(statement["Action"]) if "*" in item]


def test_only_calls_without_a_narrower_resource_are_allowed_on_all() -> None:
    open_wide = {
        action
        for logical in ("PipelineRole", "GitHubRole")
        for policy in full_project("churn").policies(logical)
        for statement in policy["Statement"]
        if "*" in listed(statement["Resource"])
        for action in listed(statement["Action"])
    }
    assert open_wide == {
        *("cloudwatch:PutMetricData", "cloudwatch:DescribeAlarms", "ecr:GetAuthorizationToken"),
        *("ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
        *("ec2:DescribeSecurityGroups", "ec2:DescribeVpcs"),
        "application-autoscaling:DescribeScalableTargets",
        "application-autoscaling:DescribeScalingPolicies",
        "sagemaker:ListEndpoints",
    }


@pytest.mark.parametrize("logical", ["PipelineRole", "GitHubRole"])
def test_the_policies_of_the_longest_names_fit_into_a_role(logical: str) -> None:
    given = {"DataLocations": LAKE, "KmsKeyArn": KEY, "DeploymentAccounts": DEPLOYMENT_ACCOUNT}
    made = project("p" * 32, given, Vpc="yes", region="ap-southeast-1")
    assert length(*made.policies(logical)) <= 10_240


def test_the_template_can_be_sent_inline() -> None:
    assert (FOLDER / "project.yml").stat().st_size <= INLINE_LIMIT


def test_resources_are_what_aws_accepts() -> None:
    for made in (full_project("churn"), project(SignIn="iam-user")):
        for logical in made.resources:
            assert not list(schemas.violations(made.kind(logical), made.properties(logical)))


def test_sagemaker_alone_fills_in_the_project_and_only_github_must_be_told() -> None:
    needed = {name for name, p in template("project").parameters.items() if "Default" not in p}
    assert needed == {
        *("SageMakerProjectName", "SageMakerProjectId", "GitHubOwner", "GitHubRepository")
    }


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        # Its prefix in the bucket would be that of the platform's code.
        ({"SageMakerProjectName": "platform"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "Churn"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "1churn"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "churn-"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "churn*"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "c" * 33}, "SageMakerProjectName"),
        ({"GitHubOwner": "my-org/*"}, "GitHubOwner"),
        ({"GitHubOwner": "*"}, "GitHubOwner"),
        ({"GitHubRepository": "*"}, "GitHubRepository"),
        ({"GitHubRepository": "churn:pull_request"}, "GitHubRepository"),
        ({"GitHubSubject": "repo:my-org/*"}, "GitHubSubject"),
        ({"GitHubSubject": "repo:my-org/churn:ref:refs/heads/x"}, "GitHubSubject"),
        ({"SignIn": "none"}, "SignIn"),
        ({"OidcProviderArn": PROVIDER.replace("token", "evil")}, "OidcProviderArn"),
        ({"DeploymentAccounts": "*"}, "DeploymentAccounts"),
        ({"DataLocations": "*"}, "DataLocations"),
        ({"KmsKeyArn": "alias/mine"}, "KmsKeyArn"),
        ({"ConnectionArn": "sm-mlops"}, "ConnectionArn"),
        ({"ArtifactBucket": "bucket/*"}, "ArtifactBucket"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_by_name(parameters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint):
        project("churn", parameters)


def test_a_name_that_only_begins_like_the_platform_s_is_fine() -> None:
    assert project("platform-team").resources == ALWAYS
