"""Models cross accounts in the sandbox only where registry, bucket and role agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from endpoint_cases import BUCKET, GROUP, ROLE, TRUST, Hosting, hosting, variant
from sandbox_cases import REGION
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.decisions import base_facts
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Asked, Document, said

pytestmark = pytest.mark.slow

OTHER = "210987654321"
OTHER_ROLE = f"arn:aws:iam::{OTHER}:role/hosting"
ROOT = f"arn:aws:iam::{OTHER}:root"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("access"), REGION) as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Hosting:
    return hosting(server)


@pytest.fixture(scope="module")
def abroad(server: Server, aws: Hosting) -> Hosting:
    """The other account, through a role in it, with its own execution role."""
    arn = f"arn:aws:iam::{OTHER}:role/OrganizationAccountAccessRole"
    session = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="deploy")["Credentials"]
    other = Hosting.of(server.environment(), session)
    other.iam.create_role(RoleName="hosting", AssumeRolePolicyDocument=json.dumps(TRUST))
    return other


def statement(actions: list[str], resources: list[str], who: str = ROOT) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "share",
                    "Effect": "Allow",
                    "Principal": {"AWS": who},
                    "Action": actions,
                    "Resource": resources,
                }
            ],
        }
    )


def allow_role(abroad: Hosting) -> None:
    """Give the foreign execution role what it needs in its own account."""
    abroad.iam.put_role_policy(
        RoleName="hosting",
        PolicyName="read",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "s3:Get*",
                        "Resource": f"arn:aws:s3:::{BUCKET}/models/*",
                    },
                    {"Effect": "Allow", "Action": "logs:*", "Resource": "*"},
                ],
            }
        ),
    )


def test_a_version_is_used_abroad_where_group_bucket_and_role_allow_it(
    aws: Hosting, abroad: Hosting
) -> None:
    package = aws.package(name="shared")

    def create() -> str:
        return abroad.model(package, ExecutionRoleArn=OTHER_ROLE)

    with pytest.raises(ClientError, match="no resource-based policy allows") as caught:
        abroad.sagemaker.describe_model_package(ModelPackageName=package)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    versions = package.rpartition("/")[0] + "/*"
    aws.sagemaker.put_model_package_group_policy(
        ModelPackageGroupName=GROUP,
        ResourcePolicy=statement(["sagemaker:DescribeModelPackage"], [versions]),
    )
    found = abroad.sagemaker.describe_model_package(ModelPackageName=package)
    assert found["ModelPackageArn"] == package
    with pytest.raises(ClientError, match="sagemaker:CreateModel"):
        create()
    with pytest.raises(ClientError, match="sagemaker:UpdateModelPackage"):
        abroad.sagemaker.update_model_package(
            ModelPackageArn=package, ModelApprovalStatus="Rejected"
        )
    actions = ["sagemaker:DescribeModelPackage", "sagemaker:CreateModel"]
    aws.sagemaker.put_model_package_group_policy(
        ModelPackageGroupName=GROUP, ResourcePolicy=statement(actions, [versions])
    )
    with pytest.raises(ClientError, match="Could not access model data"):
        create()
    aws.s3.put_bucket_policy(
        Bucket=BUCKET, Policy=statement(["s3:GetObject"], [f"arn:aws:s3:::{BUCKET}/*"])
    )
    with pytest.raises(ClientError, match="Could not access model data"):
        create()
    allow_role(abroad)
    name = abroad.deploy(abroad.config(variant(create())))
    assert abroad.ask(name)["model"] == "shared"
    assert abroad.sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"].split(":")[4] == (
        OTHER
    )
    with pytest.raises(ClientError, match="not found"):
        aws.ask(name)
    assert abroad.log(name)
    with pytest.raises(ClientError, match="does not exist"):
        aws.log(name)


def test_lists_show_only_the_callers_account(aws: Hosting, abroad: Hosting) -> None:
    aws.package()
    assert abroad.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    assert not {m["ModelArn"] for m in aws.sagemaker.list_models()["Models"]} & {
        m["ModelArn"] for m in abroad.sagemaker.list_models()["Models"]
    }


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("arn:aws:iam::123456789012:role/nope", "Could not assume role .*/nope"),
        ("arn:aws:iam::123456789012:role/lambda", "allows principal 'sagemaker.amazonaws.com'"),
        (OTHER_ROLE, "Cross-account pass role is not allowed"),
        ("arn:aws:iam::123456789012:role/poor", "Could not access model data"),
        ("arn:aws:iam::123456789012:role/denied", "Could not access model data"),
    ],
)
def test_the_execution_role_must_exist_trust_sagemaker_and_be_able_to_read(
    aws: Hosting, role: str, message: str
) -> None:
    trust = json.dumps(TRUST).replace("sagemaker.", "lambda.")
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    forbidden = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}
    other = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::other/*"}
    for name, document, statements in (
        ("lambda", trust, [allowed]),
        ("poor", json.dumps(TRUST), [other]),
        ("denied", json.dumps(TRUST), [allowed, forbidden]),
    ):
        if role.endswith(f"/{name}"):
            aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
            aws.iam.put_role_policy(
                RoleName=name,
                PolicyName="p",
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
            )
    package = aws.package()
    assert aws.model(package, ExecutionRoleArn=ROLE)
    with pytest.raises(ClientError, match=message) as caught:
        aws.model(package, ExecutionRoleArn=role)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def decision(policy: Document, action: str, resource: str, role: str) -> bool | None:
    """Return what a policy says: True for Allow, False for Deny, None for nothing."""
    who = Identity("role", role, role, role.split(":")[4])
    found = said(policy, Asked(action, resource, base_facts(who, REGION), who.names()))
    return False if found.denied else (True if found.allowed else None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Action": "S3:getobject"}, True),
        ({"Action": ["s3:Put*", "s3:Get?bject"]}, True),
        ({"Action": "s3:PutObject"}, None),
        ({"Resource": "arn:aws:s3:::bucket/*/b.txt"}, True),
        ({"Resource": "arn:aws:s3:::bucket"}, None),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": [OTHER]}}, True),
        ({"Principal": {"AWS": OTHER_ROLE}}, True),
        ({"Principal": {"AWS": f"{OTHER_ROLE}s"}}, None),
        ({"Principal": {"AWS": ROLE}}, None),
        ({"Principal": {"Service": "sagemaker.amazonaws.com"}}, None),
        ({"Condition": {"StringEquals": {"aws:PrincipalAccount": OTHER}}}, True),
        ({"Condition": {"StringNotEquals": {"aws:PrincipalAccount": [OTHER]}}}, None),
        ({"Condition": {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{OTHER}:role/*"}}}, True),
        ({"Condition": {"Bool": {"aws:SecureTransport": "false"}}}, None),
        ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, None),
    ],
)
def test_policies_say_what_iam_would(change: dict[str, Any], expected: bool | None) -> None:
    base: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": ROOT},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::bucket/*",
    }
    document = {"Statement": [base | change]}
    resource = "arn:aws:s3:::bucket/a/b.txt"
    found = decision(json.dumps(document), "s3:GetObject", resource, OTHER_ROLE)
    assert found is expected


def test_a_denial_wins_over_a_permission() -> None:
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:Get*", "Resource": "arn:aws:s3:::closed/*"},
    ]

    document = {"Statement": statements}
    assert decision(document, "s3:GetObject", "arn:aws:s3:::closed/a", ROLE) is False
    assert decision(document, "s3:GetObject", "arn:aws:s3:::open/a", ROLE) is True
    assert decision(document, "s3:ListBucket", "arn:aws:s3:::closed", ROLE) is True
