"""Policies for stages in other accounts: what is granted, and that statements of others stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from deployment_cases import Place, place
from iam_case import decision
from sm_mlops.deployment import access, stages
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow

FAR, FARTHER = "210987654321", "210987654322"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("access")) as found:
        yield found


def share(here: Place, *accounts: str, image: str = "") -> list[str]:
    """Return the lines that describe the changes."""
    grants = access.plan(here.aws, accounts, [image])
    for grant in grants:
        grant.apply()
    return [line for grant in grants for line in grant.lines]


def bucket_policy(here: Place) -> list[dict[str, Any]]:
    answer = here.aws.s3.get_bucket_policy(Bucket=here.aws.bucket)
    return list(json.loads(answer["Policy"])["Statement"])


def test_shared_once_there_is_nothing_more_to_do(here: Place) -> None:
    assert share(here, FAR, FARTHER) == 2 * [
        f"+ account {FAR} may read",
        f"+ account {FARTHER} may read",
    ]
    assert share(here, FAR, FARTHER) == []
    assert share(here) == 2 * [
        f"- account {FAR} may no longer read",
        f"- account {FARTHER} may no longer read",
    ]
    assert share(here) == []


def test_other_accounts_read_the_registry_and_approve_nothing(here: Place) -> None:
    share(here, FAR, FARTHER)
    answer = here.aws.sagemaker.get_model_package_group_policy(ModelPackageGroupName="churn")
    policy = json.loads(answer["ResourcePolicy"])
    for statement in policy["Statement"]:
        roots = [f"arn:aws:iam::{account}:root" for account in (FAR, FARTHER)]
        assert statement["Principal"]["AWS"] == roots
    version, other = (
        here.aws.arn("sagemaker", f"model-package/{name}/3") for name in ("churn", "churn-eu")
    )
    for action in ("DescribeModelPackage", "ListModelPackages", "CreateModel"):
        assert decision(policy, f"sagemaker:{action}", version, {}) is True
        assert decision(policy, f"sagemaker:{action}", other, {}) is None
    assert decision(policy, "sagemaker:UpdateModelPackage", version, {}) is None
    share(here)


def test_the_bucket_gives_models_and_not_what_they_were_trained_from(here: Place) -> None:
    share(here, FAR)
    (statement,) = bucket_policy(here)
    assert statement["Action"] in ("s3:GetObject", ["s3:GetObject"])
    roots = statement["Principal"]["AWS"]
    assert roots in (f"arn:aws:iam::{FAR}:root", [f"arn:aws:iam::{FAR}:root"])
    resource = statement["Resource"]
    assert resource in (
        f"arn:aws:s3:::{here.aws.bucket}/churn/*/model.tar.gz",
        [f"arn:aws:s3:::{here.aws.bucket}/churn/*/model.tar.gz"],
    )
    share(here)


def test_statements_of_others_and_of_other_projects_stay(here: Place) -> None:
    theirs = {
        "Sid": "TheirOwn",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{here.aws.bucket}/secret/*",
    }
    another = {
        "Sid": "SmMlopsStagesfraud",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{FAR}:root"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{here.aws.bucket}/fraud/*/model.tar.gz",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs, another]})
    here.aws.s3.put_bucket_policy(Bucket=here.aws.bucket, Policy=policy)
    try:
        share(here, FAR)
        assert [item["Sid"] for item in bucket_policy(here)] == [
            "TheirOwn",
            "SmMlopsStagesfraud",
            "SmMlopsStageschurn",
        ]
        share(here)
        assert bucket_policy(here) == [theirs, another]
    finally:
        here.aws.s3.delete_bucket_policy(Bucket=here.aws.bucket)


def test_what_is_missing_is_named_until_it_is_shared(here: Place) -> None:
    assert access.missing(here.aws, FAR) == (
        "model package group churn",
        f"bucket {here.aws.bucket}",
    )
    share(here, FAR)
    assert access.missing(here.aws, FAR) == ()
    share(here)


def test_a_key_lets_accounts_decrypt_by_way_of_s3_only(here: Place) -> None:
    key = here.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    settings = here.repo.configure(aws={"kms_key": key})
    try:
        aws = type(here.aws)(settings, sandbox=True)
        grant = next(item for item in access.plan(aws, [FAR]) if item.what.startswith("key "))
        grant.apply()
        answer = aws.client("kms").get_key_policy(KeyId=key, PolicyName="default")
        ours = json.loads(answer["Policy"])["Statement"][-1]
        assert ours["Condition"] == {
            "StringEquals": {"kms:ViaService": ["s3.eu-west-1.amazonaws.com"]}
        }
        assert len(json.loads(answer["Policy"])["Statement"]) > 1, "the owner keeps the key"
        assert not any(item.what.startswith("key ") for item in access.plan(aws, [FAR]))
    finally:
        here.repo.configure(aws={"kms_key": None})


@pytest.fixture
def image(here: Place) -> Iterator[str]:
    """Yield an image of the team's in the registry's account."""
    ecr = here.aws.client("ecr")
    ecr.create_repository(repositoryName="team/forest")
    yield f"{here.aws.account}.dkr.ecr.eu-west-1.amazonaws.com/team/forest:1.0"
    ecr.delete_repository(repositoryName="team/forest", force=True)


def image_policy(here: Place) -> list[dict[str, Any]]:
    answer = here.aws.client("ecr").get_repository_policy(repositoryName="team/forest")
    return list(json.loads(answer["policyText"])["Statement"])


def test_other_accounts_may_pull_an_image_of_the_teams_and_no_more(here: Place, image: str) -> None:
    theirs = {
        "Sid": "TheirOwn",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "ecr:BatchDeleteImage",
    }
    policy = json.dumps({"Version": "2008-10-17", "Statement": [theirs]})
    here.aws.client("ecr").set_repository_policy(repositoryName="team/forest", policyText=policy)
    assert share(here, FAR, image=image).count(f"+ account {FAR} may read") == 3
    assert share(here, FAR, image=image) == []
    assert image_policy(here) == [
        theirs,
        {
            "Sid": "SmMlopsStageschurn",
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam::{FAR}:root"]},
            "Action": [*access.PULL],
        },
    ]
    share(here, image=image)
    assert image_policy(here) == [theirs]


def test_an_image_that_is_not_shared_is_missing(here: Place, image: str) -> None:
    share(here, FAR)
    assert access.missing(here.aws, FAR, image) == ("image repository team/forest",)
    share(here, FAR, image=image)
    assert access.missing(here.aws, FAR, image) == ()
    share(here, image=image)


@pytest.mark.parametrize("name", ["xgboost-3.2-0", "{other}/team/forest:1.0", "{own}/gone:1.0"])
def test_only_images_of_the_registrys_account_are_shared(here: Place, name: str) -> None:
    host = "dkr.ecr.eu-west-1.amazonaws.com"
    image = name.format(other=f"{FARTHER}.{host}", own=f"{here.aws.account}.{host}")
    share(here, FAR)
    assert access.plan(here.aws, [FAR], [image]) == ()
    share(here)


def test_a_serverless_endpoint_cannot_use_an_image_of_another_account(
    here: Place, image: str
) -> None:
    role = f"arn:aws:iam::{FAR}:role/OrganizationAccountAccessRole"
    stage = replace(here.stage("staging"), account=FAR, role=role)
    ours, there = here.aws.account, access.enter(here.aws, stage)
    share(here, FAR, image=image)
    with pytest.raises(MlopsError, match=f"cannot use the image {image} of account {ours}"):
        access.require(here.aws, there, stage, image)
    access.require(here.aws, there, replace(stage, kind="real-time"), image)
    share(here, image=image)


def test_nor_one_of_a_third_account_in_any_account(here: Place) -> None:
    image = f"{FARTHER}.dkr.ecr.eu-west-1.amazonaws.com/team/forest:1.0"
    aws = type(here.aws)(replace(here.aws.settings, image=image), sandbox=True)
    stage = here.stage("staging")
    with pytest.raises(MlopsError, match=f"cannot use the image {image} of account {FARTHER}"):
        access.require(aws, aws, stage, image)
    access.require(aws, aws, replace(stage, kind="real-time"), image)
    # SageMaker's own are in accounts of AWS.
    access.require(aws, aws, stage, image.replace("team/forest", "sagemaker-xgboost"))


def test_another_bucket_in_the_own_account_is_refused(here: Place) -> None:
    stage = here.stage("staging")
    for bucket in ("", here.aws.bucket):
        access.require(here.aws, here.aws, replace(stage, parameters={"OutputBucket": bucket}), "")
    with pytest.raises(MlopsError, match=r"infra/staging\.json: Parameters\.OutputBucket is for"):
        access.require(here.aws, here.aws, replace(stage, parameters={"OutputBucket": "ours"}), "")


def test_a_foreign_account_without_a_role_is_refused(here: Place) -> None:
    here.repo.stage("staging", Account=FAR, Role=None)
    stage = stages.load(here.aws.settings, "staging")
    with pytest.raises(MlopsError, match=r"infra/staging\.json: Account 210987654321 is not 12345"):
        access.enter(here.aws, stage)


def test_a_role_that_leads_elsewhere_is_refused(here: Place) -> None:
    role = f"arn:aws:iam::{FARTHER}:role/OrganizationAccountAccessRole"
    here.repo.stage("staging", Account=FAR, Role=role)
    stage = stages.load(here.aws.settings, "staging")
    with pytest.raises(MlopsError, match=f"is in account {FARTHER}, but Account is {FAR}"):
        access.enter(here.aws, stage)
    here.repo.stage("staging", Account=None, Role=None)
