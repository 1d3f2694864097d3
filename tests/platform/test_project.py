"""project.yml: what one model repo has, and who may take its roles."""

from __future__ import annotations

from typing import Any

import pytest

from iam_case import Identity, decision, length, listed, misfits
from infra_case import ACCOUNT, REGION
from platform_case import (
    BUCKET,
    CONNECTION,
    DEPLOYMENT_ACCOUNT,
    GITHUB_BOUNDARY,
    KEY,
    LAKE,
    PROVIDER,
    REPOSITORY_ID,
    TRAIN_BOUNDARY,
    boundary,
    document,
    full_project,
    project,
    template,
)
from sm_mlops.platform import FOLDER
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.wire import ApiError

WORKFLOW_ROLES = ("TrainRole", "StagingRole", "ProductionRole")
ROLES = ("PipelineRole", *WORKFLOW_ROLES)
ALWAYS = {"ModelPackageGroup", "CodeRepository", "MetricsDashboard", *ROLES}
WHO = ("Train", "Staging", "Production")
KEYED = {
    f"{who}{kind}" for who in WHO for kind in ("User", "UserKey", "UserSecret", "UserSecretPolicy")
}
SUBJECT = "repo:my-org@1234/churn-model@5678"
# Of a template that Service Catalog or SageMaker reads from S3.
LIMIT = 460_800
ISSUER = "token.actions.githubusercontent.com"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


# What there is


def test_a_project_has_four_roles_a_registry_and_a_repository() -> None:
    assert project().resources == ALWAYS


def test_a_thousand_projects_stay_within_the_quotas_of_an_account() -> None:
    kinds = sorted(item["Type"] for item in template("project").resources.values())
    assert kinds == [
        "AWS::CloudWatch::Dashboard",
        *["AWS::IAM::AccessKey"] * 3,
        *["AWS::IAM::Role"] * 4,
        *["AWS::IAM::User"] * 3,
        "AWS::SageMaker::CodeRepository",
        "AWS::SageMaker::ModelPackageGroup",
        *["AWS::SecretsManager::ResourcePolicy"] * 3,
        *["AWS::SecretsManager::Secret"] * 3,
    ]


def test_what_studio_shows_in_a_project_has_its_tags() -> None:
    for logical in ("ModelPackageGroup", "CodeRepository"):
        tags = {tag["Key"]: tag["Value"] for tag in project().properties(logical)["Tags"]}
        tags.pop("connection", None)
        assert tags == {
            "project": "churn",
            "owner": "unknown",
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
    made = project(SignIn="iam-user", KeySerial=2)
    assert [made.properties(f"{who}UserKey")["Serial"] for who in WHO] == [2, 2, 2]
    assert "Serial" in schemas.create_only("AWS::IAM::AccessKey")


def test_a_project_tells_what_bootstrap_needs() -> None:
    assert project(SignIn="iam-user").outputs() == {
        "ModelPackageGroupName": "churn",
        "CodeRepositoryName": "churn",
        "PipelineRoleArn": role("PipelineRole"),
        **{f"{who}RoleArn": role(f"{who}Role") for who in WHO},
        **{f"{who}UserSecretArn": f"{who}UserSecret" for who in WHO},
    }
    assert not [name for name in project().outputs() if "Secret" in name]


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
    for logical in ALWAYS - {"CodeRepository"}:
        assert told.properties(logical) == empty.properties(logical)
    made = [one.properties("CodeRepository") for one in (told, empty)]
    assert [each.pop("Tags")[-1]["Value"] for each in made] == [CONNECTION, "imported"]
    assert made[0] == made[1]


def test_another_bucket_is_used_where_one_is_named() -> None:
    text = str([project(ArtifactBucket="mine").policies(one) for one in ROLES])
    assert "arn:aws:s3:::mine/churn/*" in text
    assert BUCKET not in text


# Other accounts


def test_the_stack_does_not_own_the_policy_of_the_registry() -> None:
    made = project(DeploymentAccounts=[DEPLOYMENT_ACCOUNT])
    assert "ModelPackageGroupPolicy" not in made.properties("ModelPackageGroup")


# Who takes the roles


Claims = dict[str, str]
SUBJECTS = ["repo:my-org/churn-model", SUBJECT]
ENVIRONMENTS = {"Train": "training", "Staging": "staging", "Production": "production"}


def token(who: str, subject: str = SUBJECT, **other: str) -> Claims:
    """Return the claims of the job that a role is for, and others."""
    claims = {
        "aud": "sts.amazonaws.com",
        "sub": f"{subject}:environment:{ENVIRONMENTS[who]}",
        "environment": ENVIRONMENTS[who],
        "ref": "refs/heads/main",
        "repository_id": REPOSITORY_ID,
        "job_workflow_ref": (
            "my-org/churn-model/.github/workflows/"
            f"{'build' if who == 'Train' else 'deploy'}.yml@refs/heads/main"
        ),
    }
    return {name: value for name, value in {**claims, **other}.items() if value}


def trusts(who: str, claims: Claims, subject: str = SUBJECT) -> bool:
    """Return whether GitHub's token with these claims may assume the role."""
    made = project("churn", GitHubSubject=subject).properties(f"{who}Role")
    trust = document(made["AssumeRolePolicyDocument"])
    assert length(trust) <= 2048
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"Federated": PROVIDER}
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    # A missing claim satisfies neither of these, as it would a ForAllValues or a Null.
    assert set(statement["Condition"]) == {"StringEquals"}
    facts = {f"{ISSUER}:{name}": value for name, value in claims.items()}
    asked = {"Statement": [{**statement, "Resource": "*"}]}
    del asked["Statement"][0]["Principal"]
    return decision(asked, "sts:AssumeRoleWithWebIdentity", "role", facts) is True


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("who", WHO)
def test_the_job_that_a_role_is_for_takes_it(who: str, subject: str) -> None:
    assert trusts(who, token(who, subject), subject)
    if "@" not in subject:
        # Without a subject it is the repository's name.
        assert trusts(who, token(who, subject), "")


@pytest.mark.parametrize("other", WHO)
@pytest.mark.parametrize("who", WHO)
def test_the_jobs_of_the_other_roles_do_not(who: str, other: str) -> None:
    assert trusts(who, token(other)) is (who == other)


WORKFLOWS = "my-org/churn-model/.github/workflows"
PLACES = [f"environment:{name}" for name in ENVIRONMENTS.values()]


@pytest.mark.parametrize(
    "claims",
    [
        # Another branch, a tag, a pull request; main's file on another branch, and without one.
        {"ref": "refs/heads/side"},
        {"ref": "refs/tags/main"},
        {"ref": "refs/pull/1/merge"},
        {"ref": "refs/heads/Main"},
        {"ref": ""},
        # Another workflow, or the same one as another branch has it.
        {"job_workflow_ref": f"{WORKFLOWS}/ci.yml@refs/heads/main"},
        {"job_workflow_ref": f"{WORKFLOWS}/deploy.yml@refs/heads/side"},
        {"job_workflow_ref": f"{WORKFLOWS}/build.yml@refs/heads/side"},
        {"job_workflow_ref": "my-org/other/.github/workflows/deploy.yml@refs/heads/main"},
        {"job_workflow_ref": ""},
        # Another repository, whatever it calls itself.
        {"repository_id": "9"},
        {"repository_id": ""},
        {"aud": "https://github.com/my-org"},
        *(
            {"sub": f"{subject}:{place}"}
            for place in (*PLACES, "ref:refs/heads/main", "pull_request", "environment:dev")
            for subject in (
                "repo:my-org/other",
                "repo:my-org/churn-model-eu",
                "repo:my-org-2/churn-model",
                "repo:my-org@1/other@2",
                "repo:my-org@999/churn-model@888",
                "repo:evil@1/my-org@2/churn-model@3",
                "repo:my-org/churn-model",
                "x" + SUBJECT,
            )
        ),
        {"sub": f"{SUBJECT}:pull_request"},
        {"sub": f"{SUBJECT}:ref:refs/heads/main"},
        {"sub": SUBJECT},
    ],
    ids=lambda claims: " ".join(f"{name} {value}" for name, value in claims.items()),
)
@pytest.mark.parametrize("who", WHO)
def test_no_other_token_does(who: str, claims: Claims) -> None:
    assert not trusts(who, token(who, **claims))


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("environment", ["", "dev", "Production", "Training"])
def test_a_role_takes_a_job_in_its_environment(who: str, environment: str) -> None:
    assert not trusts(who, token(who, environment=environment))


def test_subject_and_names_have_to_agree() -> None:
    """An organization may choose the subjects of its tokens: they alone prove nothing."""
    other = "repo:my-org/other"
    for who in WHO:
        assert not trusts(who, token(who, other), SUBJECT)
        assert not trusts(who, token(who, SUBJECT), other)
        # A subject like ours in the token of another repository.
        elsewhere = token(who, repository_id="9", job_workflow_ref="my-org/other/x@refs/heads/main")
        assert not trusts(who, elsewhere)


def test_oidc_needs_the_number_of_the_repository() -> None:
    with pytest.raises(ApiError, match="GitHubRepositoryId"):
        project(GitHubRepositoryId="")
    assert project(GitHubRepositoryId="", SignIn="iam-user").resources >= KEYED


def test_github_enterprise_server_signs_in_with_a_key() -> None:
    with pytest.raises(ApiError, match="iam-user"):
        project(GitHost="git.example.com")
    assert project(GitHost="git.example.com", SignIn="iam-user").resources >= KEYED


def test_sessions_last_an_hour() -> None:
    for logical in ROLES:
        assert project().properties(logical)["MaxSessionDuration"] == 3600


def test_only_sagemaker_acting_for_this_account_assumes_the_pipelines_role() -> None:
    trust = document(project().properties("PipelineRole")["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}


def test_every_role_has_its_boundary_and_the_tag_that_the_boundary_relies_on() -> None:
    made = project(SignIn="iam-user")
    limits = {
        "PipelineRole": TRAIN_BOUNDARY,
        **{f"Train{kind}": TRAIN_BOUNDARY for kind in ("Role", "User")},
        **{f"{who}{kind}": GITHUB_BOUNDARY for who in WHO[1:] for kind in ("Role", "User")},
    }
    for logical, limit in limits.items():
        properties = made.properties(logical)
        assert properties["PermissionsBoundary"] == limit
        assert properties["Tags"][0] == {"Key": "project", "Value": "churn"}


def test_the_roles_are_where_repos_look_for_them() -> None:
    made = project()
    assert made.properties("PipelineRole")["RoleName"] == "churn-pipeline"
    for who in WHO:
        assert made.properties(f"{who}Role")["RoleName"] == f"churn-github-{who.lower()}"
    assert not any("Path" in made.properties(one) for one in ROLES)


# Where OpenID Connect is not possible


def test_there_is_a_key_only_where_one_is_asked_for() -> None:
    assert project(SignIn="iam-user").resources == ALWAYS | KEYED


@pytest.mark.parametrize("who", WHO)
def test_a_key_opens_its_role_and_nothing_else(who: str) -> None:
    made, name = project(SignIn="iam-user"), f"churn-github-{who.lower()}"
    trust = document(made.properties(f"{who}Role")["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    assert statement["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/{name}"}
    # No session with tags of its own.
    assert statement["Action"] == "sts:AssumeRole"
    user = Identity(
        f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/{name}",
        made.policies(f"{who}User"),
        boundary("TrainBoundary" if who == "Train" else "GitHubBoundary"),
        {"project": "churn"},
    )
    others = {f"churn-github-{other.lower()}" for other in WHO} | {f"churn-eu-{name[6:]}"}
    for other in others:
        assert user.may("sts:AssumeRole", role(other)) is (other == name)
    assert not user.may("s3:GetObject", f"arn:aws:s3:::{BUCKET}/churn/data/x.csv")
    [only] = [item for policy in user.policies for item in policy["Statement"]]
    assert listed(only["Action"]) == ["sts:AssumeRole"]


@pytest.mark.parametrize("who", WHO)
def test_the_key_is_kept_in_secrets_manager_and_told_nowhere(who: str) -> None:
    made = project(SignIn="iam-user")
    secret = made.properties(f"{who}UserSecret")
    assert secret["Name"] == f"sm-mlops/churn/github-{who.lower()}"
    assert "made-by-iam" in secret["SecretString"]
    assert "mlops secret rotate" in secret["Description"]
    assert not [text for text in made.outputs().values() if "made-by-iam" in text]


@pytest.mark.parametrize(
    "name",
    [
        *("churn-github-train", "churn-github-staging", "churn-github-production"),
        *("churn-pipeline", "sm-mlops/churn/staging/anything", "churn-eu-github-train"),
    ],
)
@pytest.mark.parametrize("who", WHO)
def test_no_role_of_a_repo_reads_a_key(who: str, name: str) -> None:
    made = project(SignIn="iam-user").properties(f"{who}UserSecretPolicy")
    policy = document(made["ResourcePolicy"])
    facts = {"aws:principalarn": role(name)}
    assert decision(policy, "secretsmanager:GetSecretValue", "secret", facts) is False
    admin = {"aws:principalarn": role("admin")}
    assert decision(policy, "secretsmanager:GetSecretValue", "secret", admin) is None


# The template as such


@pytest.mark.parametrize("logical", ROLES)
def test_policies_name_actions_that_exist_with_resources_they_go_with(logical: str) -> None:
    for policy in full_project("churn").policies(logical):
        assert not list(misfits(policy))


@pytest.mark.parametrize("logical", ROLES)
def test_policies_name_each_action_to_its_end(logical: str) -> None:
    for policy in full_project("churn").policies(logical):
        for statement in policy["Statement"]:
            assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
            assert not [item for item in listed(statement["Action"]) if "*" in item]


@pytest.mark.parametrize("logical", WORKFLOW_ROLES)
def test_a_workflow_updates_no_version(logical: str) -> None:
    """The boundary denies it, too."""
    effects = {
        statement["Effect"]
        for policy in full_project("churn").policies(logical)
        for statement in policy["Statement"]
        if "sagemaker:UpdateModelPackage" in listed(statement["Action"])
    }
    assert effects <= {"Deny"}


def test_only_calls_without_a_narrower_resource_are_allowed_on_all() -> None:
    open_wide = {
        action
        for logical in ROLES
        for policy in full_project("churn").policies(logical)
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
        "application-autoscaling:ListTagsForResource",
        "sagemaker:ListEndpoints",
        *("servicequotas:ListServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas"),
    }


def test_the_pipeline_pulls_sagemakers_images_and_the_one_that_mlops_yaml_names() -> None:
    def pulled(**given: str) -> set[str]:
        found = {
            str(resource)
            for policy in project(**given).policies("PipelineRole")
            for statement in policy["Statement"]
            if "ecr:BatchGetImage" in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        }
        return {arn.partition(":repository/")[2] for arn in found}

    sagemakers = {"sagemaker-xgboost", "sagemaker-scikit-learn"}
    assert pulled() == sagemakers
    own = "arn:aws:ecr:us-east-1:111122223333:repository/team/forest"
    assert pulled(ImageRepository=own) == {*sagemakers, "team/forest"}


@pytest.mark.parametrize("logical", ROLES)
def test_each_role_may_use_every_key_of_the_project(logical: str) -> None:
    keys = [KEY, KEY.replace("1234abcd", "9999abcd")]
    used = [
        statement["Resource"]
        for policy in project(KmsKeyArn=",".join(keys)).policies(logical)
        for statement in policy["Statement"]
        if "kms:Decrypt" in listed(statement["Action"])
    ]
    assert used == [keys]


# Of mlops.yaml, of both stages, and a former one.
@pytest.mark.parametrize(
    ("region", "partition", "keys"),
    [("us-gov-west-1", "aws-us-gov", 1), ("ap-southeast-1", "aws", 4)],
)
@pytest.mark.parametrize("logical", ROLES)
def test_the_policies_of_the_longest_names_fit_into_a_role(
    logical: str, region: str, partition: str, keys: int
) -> None:
    key = KEY.replace(REGION, region).replace("arn:aws:", f"arn:{partition}:")
    given = {"DataLocations": LAKE, "DeploymentAccounts": DEPLOYMENT_ACCOUNT}
    given["KmsKeyArn"] = ",".join(key.replace("1234abcd", name * 8) for name in "abcd"[:keys])
    given["ImageRepository"] = f"arn:aws:ecr:us-gov-west-1:{'1' * 12}:repository/{'r' * 256}"
    names = {"GitHubOwner": "o" * 39, "GitHubRepository": "r" * 100, "ArtifactBucket": "b" * 63}
    subject = {"GitHubSubject": f"repo:{'o' * 39}@{'1' * 20}/{'r' * 100}@{'1' * 20}"}
    made = project("p" * 32, {**given, **names, **subject}, Vpc="yes", region=region)
    assert all(f"arn:{partition}:" in str(policy) for policy in made.policies(logical))
    assert length(*made.policies(logical)) <= 10_240
    assert length(document(made.properties(logical)["AssumeRolePolicyDocument"])) <= 2_048


def test_the_template_can_be_read_from_s3() -> None:
    assert (FOLDER / "project.yml").stat().st_size <= LIMIT


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
        # The pipeline that checks project churn.
        ({"SageMakerProjectName": "churn-monitor"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "Churn"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "1churn"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "churn-"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "churn*"}, "SageMakerProjectName"),
        ({"SageMakerProjectName": "c" * 33}, "SageMakerProjectName"),
        ({"GitHubOwner": "my-org/*"}, "GitHubOwner"),
        ({"GitHubOwner": "*"}, "GitHubOwner"),
        ({"GitHubRepository": "*"}, "GitHubRepository"),
        ({"GitHubRepository": "churn:pull_request"}, "GitHubRepository"),
        ({"GitHubRepositoryId": "*"}, "GitHubRepositoryId"),
        ({"GitHubRepositoryId": "my-org/churn"}, "GitHubRepositoryId"),
        ({"GitHubSubject": "repo:my-org/*"}, "GitHubSubject"),
        ({"GitHubSubject": "repo:my-org/churn:ref:refs/heads/x"}, "GitHubSubject"),
        ({"SignIn": "none"}, "SignIn"),
        ({"OidcProviderArn": PROVIDER.replace("token", "evil")}, "OidcProviderArn"),
        ({"DeploymentAccounts": "*"}, "DeploymentAccounts"),
        ({"DataLocations": "*"}, "DataLocations"),
        ({"KmsKeyArn": "alias/mine"}, "KmsKeyArn"),
        ({"ImageRepository": "arn:aws:ecr:us-east-1:111122223333:repository/*"}, "ImageRepository"),
        ({"ConnectionArn": "sm-mlops"}, "ConnectionArn"),
        ({"ArtifactBucket": "bucket/*"}, "ArtifactBucket"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_by_name(parameters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint):
        project("churn", parameters)


@pytest.mark.parametrize("name", ["platform-team", "monitor", "churn-monitored"])
def test_a_name_that_is_only_like_a_reserved_one_is_fine(name: str) -> None:
    assert project(name).resources == ALWAYS
