"""deploy.yml: what an account has that only runs stages, and who may change what there."""

from __future__ import annotations

import dataclasses

import pytest

from access_case import Call, answering, arn, attempts, deploying, jobs, role, training
from iam_case import Identity, decision, length, listed, misfits
from infra_case import REGION
from platform_case import (
    BOUNDARY,
    BUCKET,
    EVERYTHING,
    HOME,
    KEY,
    boundary,
    deployment,
    document,
    serving,
)
from sm_mlops.sandbox.cloudformation import schemas

OUTPUT = "outputs"
MODEL = f"arn:aws:s3:::{BUCKET}/churn/executions/1/train/output/model.tar.gz"
FULL = {"OutputBucket": OUTPUT, "KeyArns": KEY}
# Read with the role of the stage in the project's own account.
AT_HOME = ("s3:", "sagemaker:DescribeModelPackage", "sagemaker:ListModelPackages")
# Of stages at home only: the pipeline that checks, and the function that trains again, are there.
WATCHED_AT_HOME = ("-drift", "-monitor", "-retrain")


def deploys(project: str = "churn", **more: str) -> Identity:
    made = deployment(project, **{**FULL, **more})
    return Identity(role(f"{project}-deploy"), made.policies("DeployRole"))


def allowed(identity: Identity, *calls: Call) -> list[str]:
    return [str(one) for one in calls if identity.may(one.action, one.resource, one.context)]


def here(project: str, stage: str) -> list[Call]:
    """Return what a deployment does in the stage's account."""
    return [
        one
        for one in deploying(project, stage)
        if not one.action.startswith(AT_HOME)
        and ":model-package/" not in one.resource
        and not one.resource.endswith(WATCHED_AT_HOME)
    ]


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        ("both", ["staging", "production"]),
        ("staging", ["staging"]),
        ("production", ["production"]),
    ],
)
def test_only_the_roles_of_its_stages_take_the_role(stages: str, names: list[str]) -> None:
    made = deployment(Stages=stages).properties("DeployRole")
    trust = document(made["AssumeRolePolicyDocument"])
    [statement] = trust["Statement"]
    # No sessions with tags of their own, either.
    assert statement["Action"] == "sts:AssumeRole"
    roles = [f"arn:aws:iam::{HOME}:role/churn-github-{name}" for name in names]
    # IAM would keep the ID of a role that is named as principal, and refuse one that is not there.
    assert statement["Principal"] == {"AWS": f"arn:aws:iam::{HOME}:root"}
    assert statement["Condition"] == {"ArnEquals": {"aws:PrincipalArn": roles}}
    assert made["RoleName"] == "churn-deploy"


@pytest.mark.parametrize("stage", ["staging", "production"])
def test_it_may_what_a_deployment_takes(stage: str) -> None:
    work = here("churn", stage)
    assert allowed(deploys(), *work) == [str(one) for one in work]
    assert allowed(deploys(Stages=stage), *work) == [str(one) for one in work]
    # SageMaker asks for the version in its own account, too.
    version = f"arn:aws:sagemaker:{REGION}:{HOME}:model-package/churn/3"
    assert deploys().may("sagemaker:CreateModel", version)
    assert not deploys().may("sagemaker:CreateModel", version.replace("churn", "churn-eu"))


def test_it_sees_whether_an_asynchronous_endpoint_has_answered() -> None:
    bucket = f"arn:aws:s3:::{OUTPUT}"
    key = "churn/async/staging/output/version-1/x.out"
    assert deploys().may("s3:GetObject", f"{bucket}/{key}")
    assert deploys().may("s3:ListBucket", bucket, {"s3:prefix": key})
    assert not deploys().may("s3:ListBucket", bucket, {"s3:prefix": "churn/batch/"})


def test_it_encrypts_requests_with_the_keys_of_its_stages_and_no_others() -> None:
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        assert deploys().may(action, KEY)
        assert not deploys().may(action, KEY.replace("1234abcd", "9999abcd"))
        assert not deploys(KeyArns="").may(action, KEY)


@pytest.mark.parametrize(("stage", "other"), [("staging", "production"), ("production", "staging")])
def test_it_changes_the_stages_that_run_there(stage: str, other: str) -> None:
    stages = {one for one in allowed(deploys(Stages=stage), *here("churn", other)) if other in one}
    assert not stages


@pytest.mark.slow
def test_it_reaches_nothing_of_another_project_and_finds_no_way_to_more() -> None:
    for project in ("churn-eu", "fraud"):
        works = (*here(project, "staging"), *training(project), *jobs(project))
        assert not [one for one in allowed(deploys(), *works) if not one.startswith("ecr:")]
    assert not allowed(deploys(), *attempts())


def test_what_it_creates_has_the_boundary_of_that_account() -> None:
    made = deployment(**FULL)
    [limit] = made.policies("PermissionsBoundary")
    assert (
        made.properties("PermissionsBoundary")["ManagedPolicyName"] == BOUNDARY.rpartition("/")[2]
    )
    sids = {item["Sid"] for item in boundary()["Statement"]}
    assert {item["Sid"] for item in limit["Statement"]} == sids - {"Schedules"}
    own = dataclasses.replace(serving("churn"), boundary=limit)
    own_bucket = (f"{BUCKET}/churn/async", f"{BUCKET}/churn/batch")
    elsewhere = [
        one for one in answering("churn") if not any(place in one.resource for place in own_bucket)
    ]
    assert allowed(own, *elsewhere) == [str(one) for one in elsewhere]
    greedy = dataclasses.replace(own, policies=(EVERYTHING,))
    for place in ("async", "batch"):
        answer = f"arn:aws:s3:::{OUTPUT}/churn/{place}/staging/output/1"
        assert greedy.may("s3:PutObject", answer)
    assert not greedy.may("s3:PutObject", MODEL)
    assert not greedy.may("s3:GetObject", f"arn:aws:s3:::{BUCKET}/churn/data/x.csv")
    assert not allowed(greedy, *here("churn", "staging"))


@pytest.mark.parametrize("project", ["fraud", "churn-eu"])
def test_the_tags_of_a_session_open_nothing_there_either(project: str) -> None:
    [limit] = deployment(**FULL).policies("PermissionsBoundary")
    own = dataclasses.replace(serving("churn"), boundary=limit, policies=(EVERYTHING,))
    assert own.may("s3:GetObject", MODEL)
    disguised = dataclasses.replace(own, tags={"project": project})
    assert not disguised.may("s3:GetObject", MODEL.replace("/churn/", f"/{project}/"))
    assert not disguised.may("s3:GetObject", MODEL)


def test_the_boundary_is_there_once_and_stays() -> None:
    made = deployment(Boundary="existing")
    assert made.resources == {"DeployRole"}
    assert made.outputs() == {"DeployRoleArn": role("DeployRole")}


@pytest.mark.parametrize("logical", ["DeployRole", "PermissionsBoundary"])
def test_its_policies_are_what_aws_takes(logical: str) -> None:
    made = deployment("p" * 32, region="us-gov-west-1", **FULL)
    for policy in made.policies(logical):
        assert not list(misfits(policy))
    assert not list(schemas.violations(made.kind(logical), made.properties(logical)))
    longest = length(*made.policies(logical))
    assert longest <= (10_240 if logical == "DeployRole" else 6_144)


def test_a_version_is_approved_at_home() -> None:
    [limit] = deployment(**FULL).policies("PermissionsBoundary")
    version, status = arn("sagemaker", "model-package/churn/3"), "sagemaker:modelapprovalstatus"
    for action in ("CreateModelPackage", "UpdateModelPackage"):
        assert decision(limit, f"sagemaker:{action}", version, {status: "Approved"}) is False
    granted = {
        action
        for policy in (*deployment().policies("DeployRole"), limit)
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    }
    assert not granted & {"sagemaker:CreateModelPackage", "sagemaker:UpdateModelPackage"}
