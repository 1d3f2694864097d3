"""`mlops bootstrap` as a person gives it: from an empty account to a connected repo, and back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from bootstrap_case import ACCOUNT, REGION, mlops_here
from repos import Repo, make_repo, mlops
from sm_mlops import sandbox
from sm_mlops.sandbox import client

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]
AUTHORIZE = "  authorization of the GitHub connection: mlops sandbox authorize sm-mlops"


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repo]:
    with begun(tmp_path / "repo") as repo:
        yield repo


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """Return the same, for those who change nothing."""
    with begun(tmp_path_factory.mktemp("untouched") / "repo") as repo:
        yield repo


@contextmanager
def begun(folder: Path) -> Iterator[Repo]:
    """Yield a rendered repo with its first commit, and an empty sandbox that runs."""
    repo = make_repo(folder)
    (repo.root / ".gitignore").write_text(".sandbox/\n", encoding="utf-8")
    who = ("-c", "user.name=ada", "-c", "user.email=ada@acme.org")
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-qm", "Begin"]):
        subprocess.run(["git", *words], cwd=repo.root, check=True)
    try:
        assert mlops(repo.root, "sandbox", "up").returncode == 0
        yield repo
    finally:
        sandbox.stop(repo.root)


def bootstrap(repo: Repo, *words: str, run: Run = mlops_here) -> str:
    """Return what it says; fails when it does."""
    done = run(repo.root, "--sandbox", "bootstrap", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Everything:
    """Return what an account has, as each service lists it."""

    def __init__(self, repo: Repo) -> None:
        there = sandbox.status(repo.root)
        assert there is not None
        key = client.account_key(repo.root / sandbox.FOLDER)
        session = boto3.Session(key.id, key.secret, region_name=REGION)
        self.of = lambda service: session.client(service, endpoint_url=there.url)

    def held(self) -> dict[str, list[str]]:
        """Return the names of everything there is, by kind; kinds without any are left out."""
        found: dict[str, list[str]] = {}
        for kind, (service, operation, key, name, given) in KINDS.items():
            rows = getattr(self.of(service), operation)(**given)[key]
            names = [row if not name else row[name] for row in rows]
            if names:
                found[kind] = sorted(map(str, names))
        return found


KINDS: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "stacks": ("cloudformation", "describe_stacks", "Stacks", "StackName", {}),
    "buckets": ("s3", "list_buckets", "Buckets", "Name", {}),
    "roles": ("iam", "list_roles", "Roles", "RoleName", {}),
    "users": ("iam", "list_users", "Users", "UserName", {}),
    "policies": ("iam", "list_policies", "Policies", "PolicyName", {"Scope": "Local"}),
    "providers": (
        "iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn", {},
    ),
    "secrets": (
        "secretsmanager", "list_secrets", "SecretList", "Name", {"IncludePlannedDeletion": True},
    ),
    "functions": ("lambda", "list_functions", "Functions", "FunctionName", {}),
    "layers": ("lambda", "list_layers", "Layers", "LayerName", {}),
    "rules": ("events", "list_rules", "Rules", "Name", {}),
    "logs": ("logs", "describe_log_groups", "logGroups", "logGroupName", {}),
    "topics": ("sns", "list_topics", "Topics", "TopicArn", {}),
    "alarms": ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName", {}),
    "portfolios": ("servicecatalog", "list_portfolios", "PortfolioDetails", "DisplayName", {}),
    "products": (
        "servicecatalog", "search_products_as_admin", "ProductViewDetails", "ProductARN", {},
    ),
    "provisioned": (
        "servicecatalog", "search_provisioned_products", "ProvisionedProducts", "Name", {},
    ),
    "connections": ("codeconnections", "list_connections", "Connections", "ConnectionName", {}),
    "groups": (
        "sagemaker", "list_model_package_groups", "ModelPackageGroupSummaryList",
        "ModelPackageGroupName", {},
    ),
    "repositories": (
        "sagemaker", "list_code_repositories", "CodeRepositorySummaryList",
        "CodeRepositoryName", {},
    ),
}  # fmt: skip


def test_from_an_empty_account_to_a_connected_repo_and_back_to_nothing(repo: Repo) -> None:
    account = Everything(repo)
    planned = bootstrap(repo, "--plan")
    assert re.search("^create +SageMaker project churn", planned, re.MULTILINE)
    assert account.held() == {}

    said = bootstrap(repo, "--yes", run=mlops)
    assert "created      SageMaker project churn, by Service Catalog" in said
    assert said.rstrip().endswith(AUTHORIZE)
    held = account.held()
    functions = [f"sm-mlops-{name}" for name in ("notify", "retrain", "trigger")]
    assert sorted(held["functions"]) == functions and len(held["topics"]) == 1
    assert held["groups"] == held["repositories"] == ["churn"]

    again = bootstrap(repo, "--yes")
    assert not re.search(r"^(create|change|delete) ", again, re.MULTILINE)
    assert again.rstrip().endswith(AUTHORIZE)
    assert account.held() == held
    assert mlops_here(repo.root, "sandbox", "authorize").returncode == 0
    assert bootstrap(repo, "--yes").rstrip().endswith("Nothing is left to do.")

    looked = bootstrap(repo, "--destroy", "--plan")
    assert re.search("^delete +SageMaker project churn", looked, re.MULTILINE)
    assert re.search("^delete +platform sm-mlops-platform", looked, re.MULTILINE)
    assert account.held() == held
    gone = bootstrap(repo, "--destroy", "--yes", run=mlops)
    assert "deleted      sm-mlops-platform" in gone
    assert account.held() == {}


def test_without_an_answer_nothing_is_done(untouched: Repo) -> None:
    bootstrap(untouched, "--plan")
    before = Everything(untouched).held()
    done = mlops(untouched.root, "--sandbox", "bootstrap")
    assert done.returncode == 2
    assert "stdin is not a terminal; pass --yes" in done.stderr
    assert Everything(untouched).held() == before


@pytest.mark.long
def test_what_failed_halfway_is_reported_and_continued(repo: Repo) -> None:
    trust = {"Version": "2012-10-17", "Statement": []}
    iam = Everything(repo).of("iam")
    iam.create_role(RoleName="churn-github-train", AssumeRolePolicyDocument=json.dumps(trust))
    done = mlops(repo.root, "--sandbox", "bootstrap", "--yes")
    assert done.returncode == 2
    assert "deployed     sm-mlops-platform" in done.stdout
    assert "Completed steps stay. To continue: mlops --sandbox bootstrap" in done.stdout
    assert "mlops: role churn-github-train exists already" in done.stderr
    assert "Traceback" not in done.stderr
    iam.delete_role(RoleName="churn-github-train")
    assert bootstrap(repo, "--yes").rstrip().endswith(AUTHORIZE)


def test_scripts_get_plan_and_rest_as_json(untouched: Repo) -> None:
    done = mlops(untouched.root, "--sandbox", "bootstrap", "--plan", "--json")
    found = json.loads(done.stdout)
    assert found["done"] == []
    first = found["plan"][0]
    assert (first["what"], first["todo"]) == ("platform sm-mlops-platform", "create")
    assert found["where"] == f"account {ACCOUNT} in {REGION}, repository acme/churn"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--template-provider", "git"], "--template-provider must be service-catalog or s3"),
        (["--platform", "AlarmTopicArn"], "must be NAME=VALUE, as in --platform AlarmTopicArn=arn"),
        (["--platform", "AlarmTopic=x"], "did you mean AlarmTopicArn"),
        (["--platform", f"AlarmTopicArn=ghp_{'a1' * 18}"], "argument 5 looks like a secret"),
    ],
    ids=["provider", "form", "name", "secret"],
)
def test_a_wrong_option_is_one_line(untouched: Repo, words: list[str], complaint: str) -> None:
    done = mlops(untouched.root, "--sandbox", "bootstrap", "--plan", *words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
