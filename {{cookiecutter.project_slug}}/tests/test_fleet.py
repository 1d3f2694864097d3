"""Fifty projects on one platform, in one account: each approval finds its own repository, no name
is another's, and what the account holds once it holds once.

What a role may do in another project is looked at in test_infra_access.py.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bootstrap_case import OWNER, PERSON, Land, land
from connected_case import COMMIT, SECRET, TRIGGER, WORKFLOW
from function_cases import until
from ops.bootstrap import platform
from ops.bootstrap.connection import Connection
from ops.bootstrap.platform import Platform
from test_sandbox_approval import commit

pytestmark = pytest.mark.slow
# Names that begin, end, or begin and end like each other, the longest, the shortest, and as many
# more as make fifty.
ALIKE = [
    "churn", "churn-eu", "churn-eu-1", "churn-eu-10", "churn-eu-2", "eu-churn", "churn-staging",
    "churn-production", "churn-pipeline", "churn-github", "churn-deploy", "churn1", "churns",
    "chur", "n", "x" * 32, "x" * 31, "sm-mlops", "model", "approvals", "0", "00",
]  # fmt: skip
NAMES = [*ALIKE, *(f"team-{number}" for number in range(1, 51 - len(ALIKE)))]
# These approve something; the others must not notice.
APPROVING = (*ALIKE[:8], "x" * 32, "sm-mlops", NAMES[-1])
# Of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, in characters
# without white space; of a role's trust what is given without a request.
INLINE, TRUST, MANAGED, NAME_OF_ROLE = 10_240, 2_048, 6_144, 64
# S3's and Lambda's own for the policy of a bucket and of a function.
OF_RESOURCE = 20 * 1024
PER_PROJECT = {
    "code repositories": 1,
    "model package groups": 1,
    "projects": 1,
    "provisioned products": 1,
    "roles": 2,
    "stacks": 1,
}


def repository(name: str) -> str:
    """A project's repository, which may be called like another project: only the registry knows."""
    swapped = {"churn": "churn-eu", "churn-eu": "churn"}
    return swapped.get(name, f"{name}-model" if name.startswith("team") else name)


@dataclass
class Fleet:
    """The account before and after there were projects, and how long it took to make them."""

    land: Land
    before: dict[str, set[str]]
    policies_before: dict[str, int]
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        return self.land.aws.client(service)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A platform, fifty projects with their repositories, and an approval in some of them."""
    with (
        pytest.MonkeyPatch.context() as environment,
        land(tmp_path_factory.mktemp("fleet"), environment) as here,
    ):
        for kind in (Platform, Connection):
            here.part(kind).act(print)
        found = Fleet(here, held(here), shared_policies(here), 0)
        repositories(here)
        began = time.monotonic()
        provision(here)
        found.seconds = time.monotonic() - began
        approve(found)
        yield found


def repositories(here: Land) -> None:
    """On GitHub, each with a workflow; and a token that may start all of them."""
    github = here.server.github
    names = [repository(name) for name in NAMES]
    for name in names:
        github.routes.add(OWNER, name)
    first = f"{OWNER}/{names[0]}"
    commit(here.server, first, ".github/workflows/deploy.yml", WORKFLOW)
    for name in names[1:]:
        bare = github.bare.path(f"{OWNER}/{name}")
        shutil.rmtree(bare)
        shutil.copytree(github.bare.path(first), bare)
    token = github.accounts.fine_grained(PERSON, OWNER, names, actions="write")
    here.aws.client("secretsmanager").put_secret_value(
        SecretId=SECRET, SecretString=json.dumps({"token": token})
    )


def provision(here: Land) -> None:
    """As Studio does it, all at once."""
    product = (platform.outputs(here.aws) or {})["ProductId"]
    for name in NAMES:
        given = {"GitHubOwner": OWNER, "GitHubRepository": repository(name)}
        here.aws.sagemaker.create_project(
            ProjectName=name,
            ServiceCatalogProvisioningDetails={
                "ProductId": product,
                "ProvisioningParameters": [{"Key": k, "Value": v} for k, v in given.items()],
            },
        )
    until(lambda: "CreateInProgress" not in statuses(here).values(), 300)
    assert statuses(here) == dict.fromkeys(NAMES, "CreateCompleted")


def statuses(here: Land) -> dict[str, str]:
    rows = here.aws.pages("list_projects", "ProjectSummaryList")
    return {row["ProjectName"]: row["ProjectStatus"] for row in rows}


def approve(fleet: Fleet) -> None:
    """A version in each project; those of some are approved, all at once."""
    sagemaker = fleet.land.aws.sagemaker
    for name in NAMES:
        address = f"https://github.com/{OWNER}/{repository(name)}"
        fleet.versions[name] = sagemaker.create_model_package(
            ModelPackageGroupName=name,
            ModelApprovalStatus="PendingManualApproval",
            MetadataProperties={"Repository": address, "CommitId": COMMIT},
        )["ModelPackageArn"]
    for name in APPROVING:
        sagemaker.update_model_package(
            ModelPackageArn=fleet.versions[name], ModelApprovalStatus="Approved"
        )


def held(here: Land) -> dict[str, set[str]]:
    """What the account holds, by kind."""
    aws = here.aws

    def named(service: str, operation: str, key: str, name: str, **request: Any) -> set[str]:
        client = aws.client(service)
        if client.can_paginate(operation):
            pages = list(client.get_paginator(operation).paginate(**request))
        else:
            pages = [getattr(client, operation)(**request)]
        rows = [row for page in pages for row in page.get(key, ())]
        found = {row[name] if name else row for row in rows}
        assert len(found) == len(rows), f"{key}: two of the same name"
        return found

    # One page is enough for a hundred, and is not the default.
    everywhere = {"AccessLevelFilter": {"Key": "Account", "Value": "self"}, "PageSize": 100}
    return {
        "alarms": named("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        "buckets": named("s3", "list_buckets", "Buckets", "Name"),
        "code repositories": named(
            "sagemaker", "list_code_repositories", "CodeRepositorySummaryList", "CodeRepositoryName"
        ),
        "connections": named(
            "codeconnections", "list_connections", "Connections", "ConnectionName"
        ),
        "functions": named("lambda", "list_functions", "Functions", "FunctionName"),
        "identity providers": named(
            "iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn"
        ),
        "log groups": named("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "model package groups": named(
            "sagemaker",
            "list_model_package_groups",
            "ModelPackageGroupSummaryList",
            "ModelPackageGroupName",
        ),
        "policies": named("iam", "list_policies", "Policies", "PolicyName", Scope="Local"),
        "portfolios": named("servicecatalog", "list_portfolios", "PortfolioDetails", "Id"),
        "products": named(
            "servicecatalog", "search_products_as_admin", "ProductViewDetails", "ProductARN"
        ),
        "projects": named("sagemaker", "list_projects", "ProjectSummaryList", "ProjectName"),
        "provisioned products": named(
            "servicecatalog",
            "search_provisioned_products",
            "ProvisionedProducts",
            "Name",
            **everywhere,
        ),
        "queues": named("sqs", "list_queues", "QueueUrls", ""),
        "roles": named("iam", "list_roles", "Roles", "RoleName"),
        "rules": named("events", "list_rules", "Rules", "Name"),
        "secrets": named("secretsmanager", "list_secrets", "SecretList", "Name"),
        "stacks": named("cloudformation", "describe_stacks", "Stacks", "StackName"),
        "topics": named("sns", "list_topics", "Topics", "TopicArn"),
        "users": named("iam", "list_users", "Users", "UserName"),
    }


def shared_policies(here: Land) -> dict[str, int]:
    """How long the policies are that all projects share."""
    aws = here.aws
    bucket = aws.s3.get_bucket_policy(Bucket=aws.bucket)["Policy"]
    function = aws.client("lambda").get_policy(FunctionName=TRIGGER)["Policy"]
    secret = aws.client("secretsmanager").get_resource_policy(SecretId=SECRET)["ResourcePolicy"]
    found = {"bucket": length(bucket), "function": length(function), "secret": length(secret)}
    iam = aws.client("iam")
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        shown = iam.get_policy_version(
            PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
        )
        found[policy["PolicyName"]] = length(shown["PolicyVersion"]["Document"])
    return found


def length(policy: Any) -> int:
    """In characters, as IAM counts them."""
    content = json.loads(policy) if isinstance(policy, str) else policy
    return len(json.dumps(content, separators=(",", ":")))


def test_an_approval_reaches_its_own_repository_and_no_other(fleet: Fleet) -> None:
    github = fleet.land.server.github
    wanted = {
        f"{OWNER}/{repository(name)}": {
            "model-package-arn": fleet.versions[name],
            "commit": COMMIT,
        }
        for name in APPROVING
    }

    def runs() -> dict[str, list[Any]]:
        names = {f"{OWNER}/{repository(name)}" for name in NAMES}
        found = {name: github.routes.runs_of(name) for name in names}
        return {name: [run["inputs"] for run in rows] for name, rows in found.items() if rows}

    until(lambda: sum(map(len, runs().values())) >= len(APPROVING), 60)
    assert runs() == {name: [inputs] for name, inputs in wanted.items()}
    sent = [label for label, _ in github.requests if "/dispatches" in label]
    assert len(sent) == len(APPROVING)


def test_a_project_costs_the_account_what_is_its_own_and_nothing_that_is_shared(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    after = held(fleet.land)
    counts = {kind: len(names - fleet.before[kind]) for kind, names in after.items()}
    # The function's log, which is there from its first call on.
    counts["log groups"] = len({n for n in after["log groups"] if TRIGGER not in n})
    with capsys.disabled():
        print(f"\n{len(NAMES)} projects in {fleet.seconds:.1f} s: resources of the account")
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            share = count / len(NAMES)
            print(f"  {kind:<22} {len(fleet.before[kind]):>3} + {share:g} per project")
    assert counts == {kind: PER_PROJECT.get(kind, 0) * len(NAMES) for kind in counts}


def test_whatever_a_project_is_called_its_names_are_its_own(fleet: Fleet) -> None:
    roles = Counter(
        role for name in NAMES for role in (f"{name}-pipeline", f"{name}-github", f"{name}-deploy")
    )
    # Stacks and endpoints of its stages, and its part of the bucket.
    places = Counter(f"{name}-{stage}" for name in NAMES for stage in ("staging", "production"))
    for names in (roles, places):
        assert not [name for name, count in names.items() if count > 1]
    there = held(fleet.land)
    assert all(len(role) <= NAME_OF_ROLE for role in roles)
    assert {f"{n}-{kind}" for n in NAMES for kind in ("pipeline", "github")} <= there["roles"]
    assert there["model package groups"] == there["code repositories"] == set(NAMES)


def test_the_platform_knows_all_who_use_it(fleet: Fleet) -> None:
    users = fleet.land.part(Platform).others()
    # The repo that asks has a project itself.
    assert len(users) == len(NAMES) - 1 and len(set(users)) == len(users)


def test_what_all_projects_share_does_not_grow_with_them(fleet: Fleet) -> None:
    now = shared_policies(fleet.land)
    assert now == fleet.policies_before
    for name, size in now.items():
        assert size <= (OF_RESOURCE if name in ("bucket", "function", "secret") else MANAGED), name


def test_the_policies_of_each_project_stay_within_the_limits(fleet: Fleet) -> None:
    iam = fleet.client("iam")
    for name in NAMES:
        for role in (f"{name}-pipeline", f"{name}-github"):
            trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
            assert length(trust) <= TRUST, role
            inline = iam.list_role_policies(RoleName=role)["PolicyNames"]
            documents = [
                iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
                for policy in inline
            ]
            assert sum(map(length, documents)) <= INLINE, role


def test_each_workflow_role_trusts_its_own_repository_alone(fleet: Fleet) -> None:
    iam = fleet.client("iam")
    for name in NAMES:
        trust = iam.get_role(RoleName=f"{name}-github")["Role"]["AssumeRolePolicyDocument"]
        words = json.dumps(trust)
        others = {repository(other) for other in NAMES} - {repository(name)}
        assert f"{OWNER}/{repository(name)}:" in words, words
        assert not [other for other in others if f"{OWNER}/{other}:" in words], words


def test_a_project_goes_and_the_others_stay(fleet: Fleet) -> None:
    here, before = fleet.land, held(fleet.land)
    here.aws.sagemaker.delete_model_package(ModelPackageName=fleet.versions["churn"])
    here.aws.sagemaker.delete_project(ProjectName="churn")
    until(lambda: statuses(here)["churn"] in ("DeleteCompleted", "DeleteFailed"), 60)
    after = held(here)
    gone = {kind: names - after[kind] for kind, names in before.items() if names - after[kind]}
    assert gone.pop("stacks") and gone.pop("provisioned products")
    assert gone == {
        "code repositories": {"churn"},
        "model package groups": {"churn"},
        "roles": {"churn-pipeline", "churn-github"},
    }
