"""The SageMaker project of a repo: created, found in Studio, changed, upgraded and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap_case import BUCKET, Kept, Killed, Land, connected_once, items, land
from fault_injection import inject, pending
from sm_mlops import projects, regions, stacks
from sm_mlops.bootstrap import assets, catalog, plan, platform, provisional
from sm_mlops.bootstrap.plan import is_work
from sm_mlops.bootstrap.platform import Platform
from sm_mlops.bootstrap.project import Project, update
from sm_mlops.cli import sandbox_account
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow

TRUST = json.dumps(sandbox_account.TRUST)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return a sandbox with a platform of version 0.1.0 and the project."""
    return connected_once(tmp_path_factory.mktemp("connected"))


@pytest.fixture
def there(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    with kept.entered(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def alone(there: Land) -> Land:
    """Yield a platform without the project."""
    there.part(Project).undo(print)
    there.calls.clear()
    return there


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    with land(tmp_path, monkeypatch) as found:
        yield found


def act(found: Land, **options: Any) -> list[str]:
    told: list[str] = []
    found.part(Project, **options).act(told.append)
    return told


def work(found: Land, **options: Any) -> list[plan.Item]:
    return list(filter(is_work, found.part(Project, **options).look()))


def parameters(found: Land) -> dict[str, str]:
    stack = (projects.find(found.aws) or pytest.fail("no project")).stack
    assert stack is not None
    return stack.parameters


def shared(found: Land) -> dict[str, str]:
    """Return the parameters of the platform."""
    stack = stacks.describe(found.aws, platform.STACK)
    assert stack is not None
    return stack.parameters


def by_hand(found: Land, **given: str) -> None:
    """Make the project as Studio does."""
    there = platform.outputs(found.aws) or {}
    required = {"GitHubOwner": "acme", "GitHubRepository": "churn", "GitHubRepositoryId": "7"}
    found.aws.sagemaker.create_project(
        ProjectName="churn",
        ServiceCatalogProvisioningDetails={
            "ProductId": there["ProductId"],
            "ProvisioningParameters": [
                {"Key": key, "Value": value} for key, value in {**required, **given}.items()
            ],
        },
    )
    made = projects.settled(found.aws, print) or pytest.fail()
    assert made.status == "CreateCompleted", made.reason


# Made


ROLES = [f"role churn-github-{part}" for part in ("train", "staging", "production")]


def test_the_plan_of_an_empty_account_has_the_project_and_changes_nothing(empty: Land) -> None:
    found = items(empty.part(Project).look())
    assert found == dict.fromkeys(
        (
            "SageMaker project churn", "model package group churn", "code repository churn",
            "dashboard sm-mlops-churn", "role churn-pipeline", *ROLES,
        ),
        "create",
    )  # fmt: skip
    assert empty.writes == []
    assert projects.outputs(empty.aws) is None


def test_a_project_knows_its_repository_as_github_writes_it(alone: Land) -> None:
    file = alone.repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace("acme/churn", "ACME/Churn"), encoding="utf-8")
    alone.repo.configure(
        data={"path": "s3://lake/churn/", "sample": None},
        image=f"111122223333.dkr.ecr.{alone.aws.settings.project.region}.amazonaws.com/team/f:1",
        image_environment="environment.txt",
    )
    alone.repo.stage("production", Account="222233334444", Role="deploy")
    alone.again()
    alone.part(Platform).act(print)
    assert act(alone) == [
        "created      SageMaker project churn, by Service Catalog",
        "changed      model package group churn",
    ]
    made = parameters(alone)
    assert (made["GitHubOwner"], made["GitHubRepository"]) == ("acme", "churn")
    assert made["SignIn"] == "oidc"
    assert made["DeploymentAccounts"] == "222233334444"
    assert made["DataLocations"] == "arn:aws:s3:::lake,arn:aws:s3:::lake/churn/*"
    assert made["ImageRepository"].endswith(":111122223333:repository/team/f")
    assert work(alone) == []
    there = projects.outputs(alone.aws) or {}
    assert there["PipelineRoleArn"].endswith(":role/churn-pipeline")
    assert there["ProductionRoleArn"].endswith(":role/churn-github-production")


def test_platform_and_project_allow_the_keys_of_repo_and_stages_and_forget_none(
    alone: Land,
) -> None:
    kms, place = alone.aws.client("kms"), "arn:aws:kms:{}:{}:key/{}"
    former, key = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    kms.create_alias(AliasName="alias/models", TargetKeyId=former)
    here, there = (place.format("eu-west-1", alone.aws.account, name * 8) for name in "ab")
    elsewhere = place.format("eu-west-1", "222233334444", "c" * 8)
    alone.repo.configure(aws={"kms_key": "alias/models"})
    alone.repo.stage("staging", Parameters={"KmsKeyArn": here})
    alone.repo.stage("qa", Account="222233334444", Role="d", Parameters={"KmsKeyArn": elsewhere})
    alone.repo.stage("production", Account=alone.aws.account, Parameters={"KmsKeyArn": there})
    alone.again()
    alone.part(Platform).act(print)
    act(alone)
    allowed = ",".join((former, here, there))
    assert (shared(alone)["KeyArns"], parameters(alone)["KmsKeyArn"]) == (allowed, allowed)
    # What was encrypted with the former keys is still read: artifacts, champions, captured rows.
    alone.repo.configure(aws={"kms_key": key})
    alone.repo.stage("staging", Parameters={"KmsKeyArn": ""})
    alone.again()
    [item] = filter(is_work, alone.part(Platform).look())
    assert item.detail.endswith(f"KeyArns + {key}")
    alone.part(Platform).act(print)
    item, grant = work(alone)
    assert item.detail == f"KmsKeyArn {allowed},{key}"
    # For the stage in another account.
    assert (grant.what, grant.detail) == (f"key {key}", "+ account 222233334444 may read")
    act(alone)
    assert (shared(alone)["KeyArns"], parameters(alone)["KmsKeyArn"]) == (f"{allowed},{key}",) * 2
    assert work(alone) == []
    # An account that comes later may have to return to an earlier version, and one that leaves
    # reads none.
    for account, left in (("333344445555", "222233334444"), (None, "333344445555")):
        alone.repo.stage("qa", Account=account, Role=account and "d")
        alone.again()
        alone.part(Platform).act(print)
        lines = {item.what: item.detail for item in work(alone) if item.what.startswith("key ")}
        assert list(lines) == sorted([f"key {former}", f"key {key}"])
        for detail in lines.values():
            assert f"- account {left} may no longer read" in detail
            assert account is None or f"+ account {account} may read" in detail
        act(alone)
        assert work(alone) == []


def test_a_project_made_in_studio_is_accepted_as_it_is(alone: Land) -> None:
    subject = parameters_of_github(alone)
    by_hand(alone, DataLocations="arn:aws:s3:::more,arn:aws:s3:::more/*", **subject)
    # But for the connection, which could not be replaced while a stack imports it.
    [item] = work(alone)
    assert item.detail == f"ConnectionArn {connection(alone)}"
    act(alone)
    assert code_repositories(alone) == ["churn"]
    alone.calls.clear()
    assert work(alone) == []
    assert act(alone) == []
    assert alone.writes == []


def parameters_of_github(found: Land) -> dict[str, str]:
    from sm_mlops.github import subject

    there = found.hub.repository("acme/churn")
    assert there is not None
    said = subject(found.hub, there)
    number = {"GitHubRepositoryId": str(there.id)}
    return number | ({"GitHubSubject": said} if said else {})


def connection(found: Land) -> str:
    return (platform.outputs(found.aws) or {})["ConnectionArn"]


def code_repositories(found: Land) -> list[str]:
    rows = found.aws.pages("list_code_repositories", "CodeRepositorySummaryList")
    return [row["CodeRepositoryName"] for row in rows]


def address(found: Land) -> str:
    """Return where Studio clones the repository from."""
    [row] = found.aws.pages("list_code_repositories", "CodeRepositorySummaryList")
    return str(row["GitConfig"]["RepositoryUrl"])


def test_only_what_the_repo_needs_otherwise_is_changed(alone: Land) -> None:
    given = parameters_of_github(alone) | {"ConnectionArn": connection(alone)}
    by_hand(alone, DeploymentAccounts="333344445555", Vpc="yes", **given)
    alone.repo.stage("production", Account="222233334444", Role="deploy")
    alone.again()
    assert {item.what: item.detail for item in work(alone)} == {
        "SageMaker project churn": "DeploymentAccounts 222233334444",
        "model package group churn": "+ account 222233334444 may read",
        f"bucket {BUCKET}, by sm-mlops-platform": "+ account 222233334444 may read",
    }
    before = parameters(alone)
    act(alone)
    assert parameters(alone) == before | {"DeploymentAccounts": "222233334444"}
    assert work(alone) == []


def test_a_project_of_another_repository_does_not_change_hands(alone: Land) -> None:
    by_hand(alone, GitHubOwner="others")
    with pytest.raises(MlopsError, match="belongs to others/churn, not to acme/churn"):
        alone.part(Project).look()
    with pytest.raises(MlopsError, match="belongs to others/churn, not to acme/churn"):
        act(alone)


def test_a_name_in_another_case_is_corrected(alone: Land) -> None:
    by_hand(alone, GitHubOwner="Acme")
    act(alone)
    assert parameters(alone)["GitHubOwner"] == "acme"
    assert address(alone).endswith("/acme/churn.git")
    assert work(alone) == []


@pytest.mark.long
def test_a_renamed_repository_keeps_its_project_and_its_versions(alone: Land) -> None:
    act(alone)
    sagemaker = alone.aws.sagemaker
    version = sagemaker.create_model_package(ModelPackageGroupName="churn")["ModelPackageArn"]
    alone.server.github.routes.rename("acme/churn", "churn-2")
    file = alone.repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace("acme/churn", "acme/churn-2"), encoding="utf-8")
    alone.again()
    [item] = work(alone)
    assert "GitHubRepository churn-2" in item.detail
    act(alone)
    assert address(alone).endswith("/acme/churn-2.git")
    assert sagemaker.describe_model_package(ModelPackageName=version)["ModelPackageVersion"] == 1
    assert work(alone) == []
    sagemaker.delete_model_package(ModelPackageName=version)
    alone.part(Project).undo(print)
    assert code_repositories(alone) == []


@pytest.mark.long
def test_a_group_of_an_earlier_template_keeps_its_description(alone: Land) -> None:
    ours = "Versions of ${SageMakerProjectName}"
    before = "Versions trained by ${GitHubOwner}/${GitHubRepository}"
    alone.reword("project.yml", ours, before)
    alone.part(Platform).act(print)
    act(alone)
    alone.reword("project.yml", before, ours)
    # CloudFormation skips an update that changes parameters and nothing else.
    alone.reword("project.yml", "What the training pipeline of", "What training of")
    alone.release("0.2.0")
    alone.part(Platform).act(print)
    act(alone)
    group = alone.aws.sagemaker.describe_model_package_group(ModelPackageGroupName="churn")
    assert group["ModelPackageGroupDescription"] == "Versions trained by acme/churn"
    assert work(alone) == []


@pytest.mark.long
def test_the_connection_can_be_replaced_once_no_stack_imports_it(alone: Land) -> None:
    by_hand(alone, **parameters_of_github(alone))
    made = alone.aws.client("codeconnections").create_connection(
        ConnectionName="another", ProviderType="GitHub"
    )["ConnectionArn"]
    given = {"parameters": {"ConnectionArn": made}}
    alone.calls.clear()
    with pytest.raises(MlopsError, match=f"{project_stack(alone)} would lose the connection"):
        alone.part(Platform, **given).look()
    assert alone.writes == []
    act(alone)
    alone.part(Platform, **given).act(print)
    act(alone)
    assert f"/{made.rpartition('/')[2]}/acme/churn.git" in address(alone)
    assert connection(alone) == parameters(alone)["ConnectionArn"] == made
    assert work(alone) == []


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({"BucketName": "another"}, "the artifact bucket that BucketName replaces"),
        ({"OidcProviderArn": "none"}, "the OpenID Connect provider that OidcProviderArn replaces"),
    ],
    ids=["bucket", "provider"],
)
def test_what_a_project_imports_is_not_replaced(
    alone: Land, given: dict[str, str], lost: str
) -> None:
    act(alone)
    alone.calls.clear()
    with pytest.raises(MlopsError, match=f"{project_stack(alone)} would lose {lost}: leave out"):
        alone.part(Platform, parameters=given).look()
    assert alone.writes == []


def test_without_a_platform_there_is_no_project(empty: Land) -> None:
    with pytest.raises(MlopsError, match="no platform"):
        act(empty)
    assert empty.writes == []


# The template in S3


@pytest.mark.long
def test_a_project_from_the_template_in_s3_is_the_same(alone: Land) -> None:
    assert act(alone, template_provider="s3") == [
        "created      SageMaker project churn, by the template in S3"
    ]
    assert work(alone, template_provider="s3") == []
    # Whatever it was made by, it is found.
    assert work(alone) == []
    alone.repo.stage("production", Account="222233334444", Role="deploy")
    alone.again()
    act(alone, template_provider="s3")
    assert parameters(alone)["DeploymentAccounts"] == "222233334444"
    key = assets.build().template
    tags = alone.aws.s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
    assert tags == [{"Key": "sagemaker:studio-visibility", "Value": "true"}]
    assert platform.others(alone.neighbour("eu").aws) == [project_stack(alone)]
    alone.repo.stage("production", Account=None, Role=None)
    alone.again()
    alone.part(Project).undo(print)
    assert projects.find(alone.aws) is None


def project_stack(found: Land) -> str:
    there = projects.find(found.aws)
    assert there is not None and there.stack is not None
    return there.stack.name


def description(found: Land) -> str:
    """Return what the project's template says of the pipeline's role."""
    role = found.aws.client("iam").get_role(RoleName="churn-pipeline")["Role"]
    return str(role["Description"])


PROVIDERS = pytest.mark.parametrize(
    "provider", ["service-catalog", pytest.param("s3", marks=pytest.mark.long)]
)


@PROVIDERS
def test_a_newer_tool_upgrades_the_project_and_an_older_one_leaves_it(
    alone: Land, provider: str
) -> None:
    act(alone, template_provider=provider)
    alone.reword("project.yml", "What the training pipeline of", "What training of")
    alone.release("0.2.0")
    [item] = work(alone, template_provider=provider)
    assert item.detail == "version 0.1.0 -> 0.2.0"
    alone.part(Platform).act(print)
    act(alone, template_provider=provider)
    assert work(alone, template_provider=provider) == []
    assert description(alone).startswith("What training of churn")
    alone.release("0.1.0")
    alone.reword("project.yml", "What training of", "Training of")
    assert work(alone, template_provider=provider) == []
    assert act(alone, template_provider=provider) == []
    assert description(alone).startswith("What training of churn")


@PROVIDERS
def test_another_template_of_the_same_version_replaces_the_projects(
    alone: Land, provider: str
) -> None:
    act(alone, template_provider=provider)
    alone.reword("project.yml", "What the training pipeline of", "Training of")
    [item] = work(alone, template_provider=provider)
    assert item.detail == "different files of 0.1.0"
    alone.part(Platform).act(print)
    act(alone, template_provider=provider)
    assert description(alone).startswith("Training of churn")
    assert work(alone, template_provider=provider) == []


@PROVIDERS
def test_an_older_tool_creates_a_project_from_the_newest_template(
    alone: Land, provider: str
) -> None:
    alone.reword("project.yml", "What the training pipeline of", "Training of")
    alone.release("0.2.0")
    alone.part(Platform).act(print)
    alone.release("0.1.0")
    # Service Catalog refuses to create anything from a deprecated version.
    act(alone, template_provider=provider)
    assert description(alone).startswith("Training of churn")
    assert work(alone, template_provider=provider) == []


@pytest.mark.long
@PROVIDERS
def test_an_older_tool_upgrades_a_project_that_is_older_still(alone: Land, provider: str) -> None:
    act(alone, template_provider=provider)
    alone.reword("project.yml", "What the training pipeline of", "Training of")
    alone.release("0.3.0")
    alone.part(Platform).act(print)
    alone.release("0.2.0")
    [item] = work(alone, template_provider=provider)
    assert item.detail == "version 0.1.0 -> 0.3.0"
    act(alone, template_provider=provider)
    assert description(alone).startswith("Training of churn")


# What was there before


def test_versions_trained_before_stay_in_their_registry(alone: Land) -> None:
    sagemaker = alone.aws.sagemaker
    sagemaker.create_model_package_group(ModelPackageGroupName="churn")
    arn = sagemaker.create_model_package(ModelPackageGroupName="churn")["ModelPackageArn"]
    assert items(alone.part(Project).look())["model package group churn"] == "exists"
    told = act(alone)
    assert told[-1] == "changed      tags of model package group churn"
    assert parameters(alone)["Registry"] == "existing"
    assert work(alone) == []
    assert act(alone) == []
    alone.part(Project).undo(print)
    assert sagemaker.describe_model_package(ModelPackageName=arn)["ModelPackageVersion"] == 1


def test_an_existing_registry_lets_other_accounts_read(alone: Land) -> None:
    alone.aws.sagemaker.create_model_package_group(ModelPackageGroupName="churn")
    alone.repo.stage("production", Account="222233334444", Role="deploy")
    alone.again()
    alone.part(Platform).act(print)
    told = act(alone)
    assert "changed      model package group churn" in told
    policy = alone.aws.sagemaker.get_model_package_group_policy(ModelPackageGroupName="churn")
    assert "222233334444" in policy["ResourcePolicy"]
    assert work(alone) == []


@pytest.mark.long
def test_the_registrys_policy_keeps_statements_of_others(alone: Land) -> None:
    def sids() -> list[str]:
        answer = sagemaker.get_model_package_group_policy(ModelPackageGroupName="churn")
        return [item["Sid"] for item in json.loads(answer["ResourcePolicy"])["Statement"]]

    def stage(**account: str | None) -> None:
        alone.repo.stage("production", **account)
        alone.again()
        alone.part(Platform).act(print)
        act(alone)
        assert work(alone) == []

    sagemaker = alone.aws.sagemaker
    act(alone)
    theirs = {
        "Sid": "Governance",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::333344445555:root"},
        "Action": "sagemaker:ListModelPackages",
        "Resource": alone.aws.arn("sagemaker", "model-package/churn/*"),
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    sagemaker.put_model_package_group_policy(ModelPackageGroupName="churn", ResourcePolicy=policy)
    stage(Account="222233334444", Role="deploy")
    shared = ["Governance", "SmMlopsStagesGroup", "SmMlopsStagesVersions"]
    assert sids() == shared
    # CloudFormation writes the group, as its tags change.
    update(alone.aws, projects.find(alone.aws) or pytest.fail(), {"Owner": "another team"})
    assert sids() == shared
    stage(Account=None, Role=None)
    assert sids() == ["Governance"]


def test_the_sandboxs_provisional_role_is_replaced(alone: Land) -> None:
    sandbox_account.prepare(alone.aws)
    assert provisional.exists(alone.aws)
    assert "manual" not in items(alone.part(Project).look()).values()
    act(alone)
    assert not provisional.exists(alone.aws)
    # Nor does it come back.
    sandbox_account.prepare(alone.aws)
    assert not provisional.exists(alone.aws)
    assert work(alone) == []


def test_someone_elses_role_is_reported_before_anything_is_created(alone: Land) -> None:
    alone.aws.client("iam").create_role(
        RoleName="churn-github-train", AssumeRolePolicyDocument=TRUST
    )
    found = {item.what: item.remedy for item in alone.part(Project).look() if item.remedy}
    assert list(found) == ["role churn-github-train"]
    alone.calls.clear()
    with pytest.raises(MlopsError, match="delete the role churn-github-train"):
        act(alone)
    assert alone.writes == []


@PROVIDERS
def test_the_whole_bootstrap_where_aws_is_strict_and_late(empty: Land, provider: str) -> None:
    empty.be_strict()
    told = empty.act(template_provider=provider)
    assert told.count("Waiting: the launch role is not known everywhere yet") == 1
    assert (projects.find(empty.aws) or pytest.fail()).status == "CreateCompleted"
    assert empty.open(template_provider=provider) == []
    empty.part(Project).undo(print)
    empty.part(Platform).undo(print)
    assert projects.find(empty.aws) is None


def test_in_govcloud_everything_has_its_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CloudFormation lacks a type there, by the data of today.
    monkeypatch.setattr(regions, "require", lambda region: None)
    with land(tmp_path, monkeypatch, region="us-gov-west-1") as gov:
        gov.act()
        assert gov.open() == []
        there = (projects.outputs(gov.aws) or {}) | (platform.outputs(gov.aws) or {})
        arns = [value for value in there.values() if value.startswith("arn:")]
        assert len(arns) > 8
        assert not [arn for arn in arns if not arn.startswith("arn:aws-us-gov:")]
        assert address(gov).startswith("https://codeconnections.us-gov-west-1.amazonaws.com/")


# Interrupted


def test_a_project_whose_creation_failed_is_created_again(alone: Land) -> None:
    inject(alone.server, "CreateCodeRepository", "ValidationException", "no more repositories")
    with pytest.raises(MlopsError, match=r"project churn is CreateFailed: .*no more repositories"):
        act(alone)
    [first, *_] = work(alone)
    assert "now CreateFailed" in first.detail
    told = act(alone)
    assert told == [
        "deleted      SageMaker project churn",
        "created      SageMaker project churn, by Service Catalog",
    ]
    assert work(alone) == []


def test_a_change_that_failed_is_tried_again(there: Land) -> None:
    there.repo.stage("production", Account="222233334444", Role="deploy")
    there.again()
    inject(there.server, "PutRolePolicy", "ValidationException", "not today")
    with pytest.raises(MlopsError, match=r"UpdateFailed: .*not today"):
        act(there)
    assert "now UpdateFailed" in work(there)[0].detail
    act(there)
    assert work(there) == []


def test_a_project_in_progress_is_waited_for(alone: Land) -> None:
    alone.kill_after = 1
    with pytest.raises(Killed, match="CreateProject"):
        act(alone)
    told = act(alone)
    assert told[0].startswith("Waiting: project churn is CreateInProgress")
    assert alone.writes == ["CreateProject"]
    assert work(alone) == []


WRITES = (
    *("CreateChangeSet", "ExecuteChangeSet", "PutObject", "PutObject", "PutObject"),
    *("CreateChangeSet", "ExecuteChangeSet", "CreateProject"),
)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, id=f"{n}-{name}", marks=[pytest.mark.long] * (n != 7))
        for n, name in enumerate(WRITES)
    ],
)
def test_killed_after_any_call_the_next_run_ends_what_the_first_began(
    empty: Land, number: int
) -> None:
    empty.kill_after = number + 1
    with pytest.raises(Killed, match=WRITES[number]):
        empty.act()
    empty.act()
    assert empty.open() == []
    listed = empty.aws.sagemaker.list_projects()["ProjectSummaryList"]
    assert [row["ProjectName"] for row in listed] == ["churn"]
    product = (platform.outputs(empty.aws) or {})["ProductId"]
    assert [item.name for item in catalog.versions(empty.aws, product)] == ["0.1.0"]
    assert list(catalog.provisioned(empty.aws, product)) == [project_stack(empty)]
    for stack in (platform.STACK, project_stack(empty)):
        shown = empty.aws.client("cloudformation").list_change_sets(StackName=stack)
        assert [row for row in shown["Summaries"] if row["ExecutionStatus"] == "AVAILABLE"] == []


def test_a_run_makes_each_call_once(empty: Land) -> None:
    empty.act()
    assert tuple(empty.writes) == WRITES


# The key of an IAM user


def test_a_higher_number_replaces_the_key_in_its_secret(alone: Land) -> None:
    file = alone.repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace('"oidc"', '"iam-user"'), encoding="utf-8")
    alone.again()
    act(alone)
    secrets = alone.aws.client("secretsmanager")
    arn = (projects.outputs(alone.aws) or {})["StagingUserSecretArn"]
    before = json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])
    found = projects.find(alone.aws)
    assert found
    update(alone.aws, found, {"KeySerial": "2"})
    after = json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])
    assert set(before.values()).isdisjoint(after.values())
    listed = alone.aws.client("iam").list_access_keys(UserName="churn-github-staging")
    # The former one works until GitHub has the new one.
    assert {key["AccessKeyId"] for key in listed["AccessKeyMetadata"]} == {
        before["aws_access_key_id"],
        after["aws_access_key_id"],
    }
    assert parameters(alone)["GitHubOwner"] == "acme"
    assert work(alone) == []


# Away again


def test_versions_and_endpoints_go_first(there: Land) -> None:
    sagemaker = there.aws.sagemaker
    arn = sagemaker.create_model_package(ModelPackageGroupName="churn")["ModelPackageArn"]
    with pytest.raises(MlopsError, match=r"holds 1 version.*destroy --all --registry"):
        there.part(Project).look_back()
    sagemaker.delete_model_package(ModelPackageName=arn)
    template = {"Resources": {"A": {"Type": "AWS::SQS::Queue"}}}
    formation = there.aws.client("cloudformation")
    formation.create_stack(StackName="churn-staging", TemplateBody=json.dumps(template))
    for again in (there.part(Project).look_back, lambda: there.part(Project).undo(print)):
        with pytest.raises(MlopsError, match=r"still deployed: staging; .*destroy --all"):
            again()
    assert projects.find(there.aws) is not None


def pipelines(land: Land) -> None:
    """Make the pipelines, as `mlops run` does where stages are checked."""
    there = projects.outputs(land.aws)
    assert there is not None
    step = {"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "not today"}}
    for name in ("churn", "churn-monitor"):
        land.aws.sagemaker.create_pipeline(
            PipelineName=name,
            RoleArn=there["PipelineRoleArn"],
            PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": [step]}),
        )


def test_the_pipelines_are_deleted_with_the_project(there: Land) -> None:
    pipelines(there)
    part = there.part(Project)
    assert items(part.look_back())["SageMaker pipeline churn"] == "delete"
    told: list[str] = []
    part.undo(told.append)
    assert told[:2] == [
        f"deleted      SageMaker pipeline {name}" for name in ("churn", "churn-monitor")
    ]
    assert there.aws.sagemaker.list_pipelines()["PipelineSummaries"] == []
    assert part.look_back() == []


def test_a_leftover_pipeline_is_deleted_without_a_project(there: Land) -> None:
    pipelines(there)
    there.aws.sagemaker.delete_project(ProjectName="churn")
    projects.wait(there.aws)
    part = there.part(Project)
    kept = items(part.look_back())
    assert kept == {f"SageMaker pipeline {name}": "delete" for name in ("churn", "churn-monitor")}
    part.undo(print)
    assert part.look_back() == []


def test_while_a_training_runs_nothing_is_deleted(
    there: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sm_mlops.deployment import destroy

    pipelines(there)
    monkeypatch.setattr(destroy, "executing", lambda aws: ["arn:of:an:execution"])
    for again in (there.part(Project).look_back, lambda: there.part(Project).undo(print)):
        with pytest.raises(MlopsError, match=r"a training or check is running; .*destroy --all"):
            again()
    assert there.aws.sagemaker.list_pipelines()["PipelineSummaries"]


def test_calls_whose_answers_were_lost_are_made_once(
    alone: Land,
) -> None:
    there = alone
    for operation in ("CreateProject", "DeleteProject"):
        inject(there.server, operation, status=0, acts=True)
    there.part(Project).act(print)
    assert projects.find(there.aws) is not None
    there.part(Project).undo(print)
    assert projects.find(there.aws) is None
    assert not pending(there.server)


def test_what_was_deleted_by_hand_does_not_prevent_the_deletion_of_the_rest(there: Land) -> None:
    sagemaker = there.aws.sagemaker
    sagemaker.delete_model_package_group(ModelPackageGroupName="churn")
    sagemaker.delete_code_repository(CodeRepositoryName="churn")
    # As Studio does: the launch role may delete nothing that has no project's tag.
    sagemaker.delete_project(ProjectName="churn")
    ended = projects.wait(there.aws)
    assert ended is not None and ended.status == "DeleteFailed"
    told: list[str] = []
    there.part(Project).undo(told.append)
    assert told == [
        "restored     model package group churn, to be deleted with the project",
        "restored     code repository churn, to be deleted with the project",
        "deleted      SageMaker project churn",
    ]
    assert there.part(Project).look_back() == []
    assert sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    assert sagemaker.list_code_repositories()["CodeRepositorySummaryList"] == []


def test_a_deletion_is_finished_by_the_next_run(there: Land) -> None:
    there.kill_after = len(there.writes) + 1
    with pytest.raises(Killed, match="DeleteProject"):
        there.part(Project).undo(print)
    there.part(Project).undo(print)
    assert there.part(Project).look_back() == []
    assert there.writes.count("DeleteProject") == 1
