"""Fifty projects on one platform, in one account: each approval finds its own repository, no name
is another's, and what the account holds once it holds once.

What a role may do in another project is looked at in test_infra_access.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bootstrap_case import OWNER, PERSON, Land, land
from connected_case import COMMIT, SECRET, TRIGGER, WORKFLOW, commit
from function_cases import until
from sm_mlops.bootstrap import platform
from sm_mlops.bootstrap.by_hand import Connection
from sm_mlops.bootstrap.platform import Platform

pytestmark = pytest.mark.slow
# Names that begin, end, or begin and end like each other, the longest, the shortest, and as many
# more as make fifty.
ALIKE = [
    "churn", "churn-eu", "churn-eu-1", "churn-eu-10", "churn-eu-2", "eu-churn", "churn-staging",
    "churn-production", "churn-pipeline", "churn-github", "churn-deploy", "churn1", "churns",
    "chur", "n", "x" * 32, "x" * 31, "sm-mlops", "model", "approvals", "a", "a0",
]  # fmt: skip
NAMES = [*ALIKE, *(f"team-{number}" for number in range(1, 51 - len(ALIKE)))]
FEW = [*ALIKE[:8], "x" * 32, "x" * 31, "sm-mlops", "a"]
# Of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, in characters
# without white space; of a role's trust what is given without a request.
INLINE, TRUST, MANAGED, NAME_OF_ROLE = 10_240, 2_048, 6_144, 64
# S3's and Lambda's own for the policy of a bucket and of a function.
OF_RESOURCE = 20 * 1024
KINDS = ("pipeline", "github-train", "github-staging", "github-production")
PER_PROJECT = {
    "code repositories": 1,
    "model package groups": 1,
    "projects": 1,
    "provisioned products": 1,
    "roles": 4,
    "stacks": 1,
}


def repository(name: str) -> str:
    """Return a project's repository, which may have the name of another project."""
    swapped = {"churn": "churn-eu", "churn-eu": "churn"}
    return swapped.get(name, f"{name}-model" if name.startswith("team") else name)


def approving(names: list[str]) -> list[str]:
    """Return the projects in which something is approved; the others must not notice."""
    return [name for name in names if name in (*ALIKE[:8], "x" * 32, "sm-mlops", names[-1])]


@dataclass(frozen=True)
class Fleet:
    """What was seen: the account before and after there were projects (and after one was gone), the
    runs on GitHub by repository, and the policies: of all by their length, of a role in full."""

    names: list[str]
    seconds: float
    versions: dict[str, str]
    runs: dict[str, list[Any]]
    dispatches: int
    before: dict[str, set[str]]
    after: dict[str, set[str]]
    less: dict[str, set[str]]
    shared_before: dict[str, int]
    shared: dict[str, int]
    trusts: dict[str, Any]
    inline: dict[str, int]
    others: list[str]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(FEW, id="few projects", marks=pytest.mark.long),
        pytest.param(NAMES, id="fifty projects", marks=pytest.mark.long),
    ],
)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Return a fleet that the first of the processes that test in parallel creates."""
    names: list[str] = request.param
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    file = base / f"fleet of {len(names)}.pickle"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_bytes(pickle.dumps(None))
            with (
                pytest.MonkeyPatch.context() as environment,
                land(tmp_path_factory.mktemp("fleet"), environment) as here,
            ):
                file.write_bytes(pickle.dumps(made(here, names)))
    found = pickle.loads(file.read_bytes())
    assert isinstance(found, Fleet), "it has failed in another test"
    return found


def made(here: Land, names: list[str]) -> Fleet:
    """Create a platform, projects with their repositories, an approval in some of them; then delete
    a project."""
    for kind in (Platform, Connection):
        here.part(kind).act(print)
    before, shared_before = held(here), shared_policies(here)
    repositories(here, names)
    began = time.monotonic()
    provision(here, names)
    seconds = time.monotonic() - began
    versions = register(here, names)
    for name in approving(names):
        here.aws.sagemaker.update_model_package(
            ModelPackageArn=versions[name], ModelApprovalStatus="Approved"
        )
    # What has not come by then, the tests tell.
    with contextlib.suppress(TimeoutError):
        until(lambda: sum(map(len, runs(here, names).values())) >= len(approving(names)), 60)
        until(lambda: not here.server.integrations.busy(), 30)
    after, shared = held(here), shared_policies(here)
    trusts, inline = roles(here, names)
    others = platform.others(here.aws)
    here.aws.sagemaker.delete_model_package(ModelPackageName=versions["churn"])
    here.aws.sagemaker.delete_project(ProjectName="churn")
    until(lambda: statuses(here)["churn"] in ("DeleteCompleted", "DeleteFailed"), 60)
    return Fleet(
        names,
        seconds,
        versions,
        runs(here, names),
        sum("/dispatches" in label for label, _ in here.server.github.requests),
        before,
        after,
        held(here),
        shared_before,
        shared,
        trusts,
        inline,
        others,
    )


def repositories(here: Land, projects: list[str]) -> None:
    """Add them on GitHub, each with a workflow, and a token that may start all of them."""
    github = here.server.github
    names = [repository(name) for name in projects]
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


def provision(here: Land, names: list[str]) -> None:
    """Create the projects as Studio does, all at once."""
    product = (platform.outputs(here.aws) or {})["ProductId"]
    for name in names:
        found = here.hub.repository(f"{OWNER}/{repository(name)}")
        assert found
        given = {
            "GitHubOwner": OWNER,
            "GitHubRepository": repository(name),
            "GitHubRepositoryId": str(found.id),
        }
        here.aws.sagemaker.create_project(
            ProjectName=name,
            ServiceCatalogProvisioningDetails={
                "ProductId": product,
                "ProvisioningParameters": [{"Key": k, "Value": v} for k, v in given.items()],
            },
        )
    until(lambda: "CreateInProgress" not in statuses(here).values(), 300)
    assert statuses(here) == dict.fromkeys(names, "CreateCompleted")


def statuses(here: Land) -> dict[str, str]:
    rows = here.aws.pages("list_projects", "ProjectSummaryList")
    return {row["ProjectName"]: row["ProjectStatus"] for row in rows}


def register(here: Land, names: list[str]) -> dict[str, str]:
    """Register a version in each project; return their ARNs."""
    found = {}
    for name in names:
        address = f"https://github.com/{OWNER}/{repository(name)}"
        found[name] = here.aws.sagemaker.create_model_package(
            ModelPackageGroupName=name,
            ModelApprovalStatus="PendingManualApproval",
            MetadataProperties={"Repository": address, "CommitId": COMMIT},
        )["ModelPackageArn"]
    return found


def runs(here: Land, names: list[str]) -> dict[str, list[Any]]:
    """Return the inputs of all runs, by repository."""
    places = {f"{OWNER}/{repository(name)}" for name in names}
    found = {name: here.server.github.routes.runs_of(name) for name in places}
    return {name: [run["inputs"] for run in rows] for name, rows in found.items() if rows}


def held(here: Land) -> dict[str, set[str]]:
    """Return what the account holds, by kind."""
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
    """Return how long the policies are that all projects share."""
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


def roles(here: Land, names: list[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return who each project's roles trust, and the total length of their own policies."""
    iam = here.aws.client("iam")
    trusts, inline = {}, {}
    for role in (f"{name}-{kind}" for name in names for kind in KINDS):
        trusts[role] = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        inline[role] = sum(
            length(iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"])
            for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]
        )
    return trusts, inline


def length(policy: Any) -> int:
    """Return the characters that IAM counts."""
    content = json.loads(policy) if isinstance(policy, str) else policy
    return len(json.dumps(content, separators=(",", ":")))


def test_an_approval_reaches_its_own_repository_and_no_other(fleet: Fleet) -> None:
    assert fleet.runs == {
        f"{OWNER}/{repository(name)}": [
            {"model-package-arn": fleet.versions[name], "commit": COMMIT}
        ]
        for name in approving(fleet.names)
    }
    assert fleet.dispatches == len(approving(fleet.names))


def test_a_project_costs_the_account_what_is_its_own_and_nothing_that_is_shared(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    counts = {kind: len(names - fleet.before[kind]) for kind, names in fleet.after.items()}
    # The functions' logs, which are there from their first calls on.
    counts["log groups"] = len({n for n in fleet.after["log groups"] if "/sm-mlops-" not in n})
    lines = [f"{len(fleet.names)} projects in {fleet.seconds:.1f} s; resources of the account:"]
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        lines.append(
            f"  {kind:<22} {len(fleet.before[kind])} + {count / len(fleet.names):g} per project"
        )
    record_property("shown", "\n".join(lines))
    assert counts == {kind: PER_PROJECT.get(kind, 0) * len(fleet.names) for kind in counts}


def test_whatever_a_project_is_called_its_names_are_its_own(fleet: Fleet) -> None:
    names = Counter(
        role for name in fleet.names for role in (f"{name}-{kind}" for kind in (*KINDS, "deploy"))
    )
    # Stacks and endpoints of its stages.
    places = Counter(
        f"{name}-{stage}" for name in fleet.names for stage in ("staging", "production")
    )
    for found in (names, places):
        assert not [name for name, count in found.items() if count > 1]
    assert all(len(role) <= NAME_OF_ROLE for role in names)
    assert set(fleet.trusts) <= fleet.after["roles"]
    assert fleet.after["model package groups"] == set(fleet.names)
    assert fleet.after["code repositories"] == set(fleet.names)


def test_the_platform_knows_all_who_use_it(fleet: Fleet) -> None:
    # The repo that asks has a project itself.
    assert len(fleet.others) == len(set(fleet.others)) == len(fleet.names) - 1


def test_what_all_projects_share_does_not_grow_with_them(fleet: Fleet) -> None:
    assert fleet.shared == fleet.shared_before
    for name, size in fleet.shared.items():
        assert size <= (OF_RESOURCE if name in ("bucket", "function", "secret") else MANAGED), name


def test_the_policies_of_each_project_stay_within_the_limits(fleet: Fleet) -> None:
    for role, size in fleet.inline.items():
        assert size <= INLINE, role
        assert length(fleet.trusts[role]) <= TRUST, role


def test_each_workflow_role_trusts_its_own_repository_alone(fleet: Fleet) -> None:
    for name in fleet.names:
        for kind in KINDS[1:]:
            words = json.dumps(fleet.trusts[f"{name}-{kind}"])
            named = {other for other in fleet.names if f"{OWNER}/{repository(other)}:" in words}
            assert named == {name}, words


def test_a_project_is_deleted_and_the_others_stay(fleet: Fleet) -> None:
    gone = {kind: fleet.after[kind] - names for kind, names in fleet.less.items()}
    assert len(gone.pop("stacks")) == len(gone.pop("provisioned products")) == 1
    assert {kind: names for kind, names in gone.items() if names} == {
        "code repositories": {"churn"},
        "model package groups": {"churn"},
        "roles": {f"churn-{kind}" for kind in KINDS},
    }
