"""The whole loop of a model repo: from `cookiecutter` on the command line to a prediction from
production, through a worse model, a broken one and an update of the template, back to nothing.

What each part does when something fails is looked at elsewhere; here the parts meet.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cruft_case import Team
from generated import RENDERED
from rendering import Rendered, Run
from workflow_reader import Run as WorkflowRun
from workflow_reader import git
from workflow_stories import NAME, WRONG, Connected, beside, commit, replace

pytestmark = pytest.mark.slow
ARRIVES_SECONDS = 60
# Learns nothing in one tree of one split, and is let through by all but the champion.
WORSE = "GateThreshold=0 GateTolerance=0 num_boost_round=1 max_depth=1"
# SageMaker makes them for the jobs of all projects of an account, and they stay with the logs.
SHARED = ["logs /aws/sagemaker/ProcessingJobs", "logs /aws/sagemaker/TrainingJobs"]
# Service, operation, key of its rows, what names a row, and the request. Jobs and executions are
# not among them: AWS keeps them as history, and no one can delete them.
KINDS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("application-autoscaling", "describe_scalable_targets", "ScalableTargets", "ResourceId",
     {"ServiceNamespace": "sagemaker"}),
    ("application-autoscaling", "describe_scaling_policies", "ScalingPolicies", "PolicyName",
     {"ServiceNamespace": "sagemaker"}),
    ("cloudformation", "describe_stacks", "Stacks", "StackName", {}),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName", {}),
    ("codeconnections", "list_connections", "Connections", "ConnectionName", {}),
    ("events", "list_rules", "Rules", "Name", {}),
    ("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn", {}),
    ("iam", "list_policies", "Policies", "PolicyName", {"Scope": "Local"}),
    ("iam", "list_roles", "Roles", "RoleName", {}),
    ("iam", "list_users", "Users", "UserName", {}),
    ("lambda", "list_functions", "Functions", "FunctionName", {}),
    ("lambda", "list_layers", "Layers", "LayerName", {}),
    ("logs", "describe_log_groups", "logGroups", "logGroupName", {}),
    ("s3", "list_buckets", "Buckets", "Name", {}),
    ("sagemaker", "list_code_repositories", "CodeRepositorySummaryList", "CodeRepositoryName", {}),
    ("sagemaker", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", {}),
    ("sagemaker", "list_endpoints", "Endpoints", "EndpointName", {}),
    ("sagemaker", "list_model_package_groups", "ModelPackageGroupSummaryList",
     "ModelPackageGroupName", {}),
    ("sagemaker", "list_models", "Models", "ModelName", {}),
    ("sagemaker", "list_pipelines", "PipelineSummaries", "PipelineName", {}),
    ("sagemaker", "list_projects", "ProjectSummaryList", "ProjectName", {}),
    ("secretsmanager", "list_secrets", "SecretList", "Name", {"IncludePlannedDeletion": True}),
    ("servicecatalog", "list_portfolios", "PortfolioDetails", "DisplayName", {}),
    ("servicecatalog", "search_products_as_admin", "ProductViewDetails", "ProductARN", {}),
    ("servicecatalog", "search_provisioned_products", "ProvisionedProducts", "Name",
     {"AccessLevelFilter": {"Key": "Account", "Value": "self"}}),
    ("sns", "list_topics", "Topics", "TopicArn", {}),
    ("sqs", "list_queues", "QueueUrls", "", {}),
]  # fmt: skip


@dataclass
class Loop:
    """A repo with its account and its repository on the sandbox's GitHub.

    `seen` are the numbers of the runs there that have been looked at.
    """

    here: Connected
    seen: set[int] = field(default_factory=set)

    def held(self) -> list[str]:
        """Return all that is in the account."""
        found = []
        with self.here.account() as aws:
            for service, operation, key, name, request in KINDS:
                for row in getattr(aws.client(service), operation)(**request).get(key, []):
                    # The name of a project that is gone stays in the list.
                    if not isinstance(row, dict) or row.get("ProjectStatus") != "DeleteCompleted":
                        found.append(f"{service} {row[name] if name else row}")
        return sorted(found)

    def approve(self, version: int, command: str = "approve") -> WorkflowRun:
        """Approve; run on this machine what that has started on GitHub, and nothing else."""
        self.here.mlops(command, str(version))
        run = self.arrived()
        assert (run["event"], run["head_branch"]) == ("workflow_dispatch", "main")
        done = self.here.hub.dispatch("deploy", run["inputs"], branch=run["head_branch"])
        self.here.control("github.routes.finish", run["id"], done.conclusion)
        about = self.here.versions()[version]
        wanted = {"model-package-arn": about["arn"], "commit": about["commit"]}
        assert run["inputs"] == wanted == done.event.inputs
        return done

    def arrived(self) -> dict[str, Any]:
        """Return the only run that is new on GitHub."""
        until = time.monotonic() + ARRIVES_SECONDS
        while time.monotonic() < until:
            runs = self.here.control("github.routes.runs_of", NAME)
            new = [run for run in runs if run["id"] not in self.seen]
            if new:
                [run] = new
                self.seen.add(run["id"])
                return dict(run)
            time.sleep(0.2)
        pytest.fail("no run has come to GitHub")

    def answer(self, stage: str) -> dict[str, Any]:
        """Return what a stage's endpoint answers to the rows registered with its version."""
        return dict(json.loads(self.here.mlops("invoke", stage, "--json")))


@pytest.mark.long
def test_from_cookiecutter_to_production_and_back_to_nothing(
    elsewhere: Callable[..., Run], template: Path, tmp_path: Path
) -> None:
    rendered = elsewhere()
    assert rendered.code == 0, rendered.err
    repo = Rendered(tmp_path / "work" / "my-model")
    with beside(repo, tmp_path) as here:
        loop = Loop(here)
        assert loop.held() == []
        connect(loop)
        train(loop)
        deploy(loop)
        refuse_a_worse_one(loop)
        stop_a_broken_one(loop)
        go_back(loop)
        follow_the_template(loop, template, tmp_path / "team")
        destroy(loop)


def connect(loop: Loop) -> None:
    """Bootstrap where AWS is strict and late; the repository that it has pushed is the one that the
    reader works on."""
    here = loop.here
    here.control("be_strict")
    told = here.mlops("bootstrap", "--yes")
    assert "deployed     sm-mlops-platform" in told, told
    assert "Waiting: the launch role is not known everywhere yet" in told, told
    here.mlops("sandbox", "authorize", "sm-mlops")
    here.settle()
    [here.hub.origin] = (here.repo.path / ".sandbox").rglob("my-model.git")
    assert git(here.hub.origin, "rev-parse", "main") == git(here.repo.path, "rev-parse", "HEAD")
    assert here.versions() == {}


def train(loop: Loop) -> None:
    """Push a first change: it is built, evaluated and registered."""
    here = loop.here
    replace(here.repo, "mlops.yaml", "max_depth: 5", "max_depth: 4")
    commit(here.repo, "Grow smaller trees")
    [build] = here.hub.push(here.repo.path)
    assert (build.workflow, build.conclusion) == ("build", "success"), build.log
    assert "Registered version 1" in build.job("train").summary
    [version] = here.versions().values()
    assert (version["commit"], version["approval"]) == (build.event.sha, "PendingManualApproval")
    no_orphans(build)


def deploy(loop: Loop) -> None:
    run = loop.approve(1)
    assert run.conclusion == "success", run.log
    assert list(run.results) == ["Staging", "Production"]
    assert loop.here.asked == ["production"]
    for stage in ("staging", "production"):
        assert f"{stage} works" in run.job(stage).step("Test the endpoint").log
    predicts(loop, "production", 1)
    no_orphans(run)


def refuse_a_worse_one(loop: Loop) -> None:
    run = loop.here.hub.dispatch("build", {"set": WORSE})
    assert run.conclusion == "failure"
    assert "worse than the champion (version 1)" in run.log, run.log
    assert set(loop.here.versions()) == {1}
    no_orphans(run)


def stop_a_broken_one(loop: Loop) -> None:
    """Deploy a version that answers wrongly: only the smoke test can tell."""
    here = loop.here
    assert here.copy_of_version_1(here.repo.text("model/inference.py") + WRONG) == 2
    here.asked.clear()
    run = loop.approve(2)
    assert run.results == {"Staging": "failure", "Production": "skipped"}
    assert run.job("staging").step("Test the endpoint").outcome == "failure", run.log
    assert here.asked == []
    assert loop.answer("staging")["version"] == 2
    predicts(loop, "production", 1)
    no_orphans(run)


def go_back(loop: Loop) -> None:
    """Deploy the good version, which is still approved, again: it takes the broken one's place."""
    loop.here.mlops("reject", "2")
    run = loop.approve(1, "trigger")
    assert run.conclusion == "success", run.log
    assert loop.here.asked == ["production"]
    for stage in ("staging", "production"):
        predicts(loop, stage, 1)
    no_orphans(run)


def follow_the_template(loop: Loop, template: Path, folder: Path) -> None:
    """Move the template by a commit, and the repo after it."""
    repo = loop.here.repo
    folder.mkdir()
    team = Team(folder, template)
    team.repo = repo
    linked = team.cruft("link", "--no-input", "--default-config", str(team.template))
    assert linked.code == 0, linked.out + linked.err
    commit(repo, "Follow the template")
    team.change_template(f"{RENDERED.name}/Makefile", "show this list", "list the verbs")
    team.change_template(f"{RENDERED.name}/mlops.yaml", "tolerance: 0.01", "tolerance: 0.02")
    assert team.cruft("check").code == 1
    updated = team.cruft("update", "--skip-apply-ask")
    assert updated.code == 0, updated.out + updated.err
    assert "list the verbs" in repo.text("Makefile")
    # The person's own change beside the template's.
    assert {"  tolerance: 0.02", "  max_depth: 4"} <= set(repo.text("mlops.yaml").splitlines())
    commit(repo, "Update from the template")
    loop.here.mlops("compile")
    assert "Nothing is left to do." in loop.here.mlops("bootstrap", "--yes")
    predicts(loop, "production", 1)


def destroy(loop: Loop) -> None:
    here = loop.here
    here.mlops("destroy", "--all", "--registry", "--data", "--yes")
    here.mlops("bootstrap", "--destroy", "--yes")
    assert loop.held() == SHARED


def predicts(loop: Loop, stage: str, version: int) -> None:
    """Check that a stage answers with this version."""
    answer = loop.answer(stage)
    assert answer["version"] == version
    predictions = answer["answer"]["predictions"]
    assert predictions and all(predictions)


def no_orphans(run: WorkflowRun) -> None:
    for job in run.jobs:
        assert job.orphans == (), job.log
