"""Names derived from a project and its stages: AWS accepts each, as its own SDK describes it, and
no two projects or stages share one.

Names of the pipeline, the roles and the bucket from the settings: test_properties_settings.py.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import platform_case
from infra_case import KINDS, full, template
from platform_case import WATCHED, platform, project, watch
from sm_mlops.bootstrap import project as sagemaker_project
from sm_mlops.deployment import destroy, stages, trigger
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox.executor import Execution
from sm_mlops.settings import Data, Project, Settings
from trigger_case import functions

ROOT = Path(__file__).resolve().parents[2]
CHECKED = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SESSION = botocore.session.get_session()
# The shape of each property, and the service whose model has it.
NAMED = {
    "AWS::CloudWatch::Alarm AlarmName": "cloudwatch AlarmName",
    "AWS::CloudWatch::Dashboard DashboardName": "cloudwatch DashboardName",
    "AWS::IAM::Role RoleName": "iam roleNameType",
    "AWS::IAM::User UserName": "iam userNameType",
    "AWS::SageMaker::CodeRepository CodeRepositoryName": "sagemaker EntityName",
    "AWS::SageMaker::Endpoint EndpointName": "sagemaker EndpointName",
    "AWS::SageMaker::EndpointConfig DestinationS3Uri": "sagemaker DestinationS3Uri",
    "AWS::SageMaker::EndpointConfig S3FailurePath": "sagemaker DestinationS3Uri",
    "AWS::SageMaker::EndpointConfig S3OutputPath": "sagemaker DestinationS3Uri",
    "AWS::SageMaker::ModelPackageGroup ModelPackageGroupName": "sagemaker EntityName",
    "AWS::Scheduler::Schedule Name": "scheduler Name",
    "AWS::SecretsManager::Secret Name": "secretsmanager NameType",
}
# These too, although they may occur twice.
SHAPES = NAMED | {
    "AWS::ApplicationAutoScaling::ScalingPolicy PolicyName": "application-autoscaling PolicyName",
    "AWS::CloudWatch::Alarm AlarmDescription": "cloudwatch AlarmDescription",
    "AWS::CloudWatch::Alarm Value": "cloudwatch DimensionValue",
    "AWS::CloudWatch::Dashboard DashboardBody": "cloudwatch DashboardBody",
    "AWS::IAM::Role Description": "iam roleDescriptionType",
    "AWS::IAM::Role Path": "iam pathType",
    "AWS::SageMaker::CodeRepository RepositoryUrl": "sagemaker GitConfigUrl",
    "AWS::Scheduler::Schedule Description": "scheduler Description",
    "AWS::Scheduler::Schedule Input": "scheduler TargetInput",
    "AWS::SageMaker::ModelPackageGroup ModelPackageGroupDescription": "sagemaker EntityDescription",
    "AWS::SecretsManager::Secret Description": "secretsmanager DescriptionType",
}
# Character classes of Java in those models, for the characters of our names.
UNICODE = {
    r"\p{Print}": "[ -~]",
    r"\p{L}\p{M}\p{Z}\p{S}\p{N}\p{P}": " -~",
}
PROJECTS = st.one_of(
    st.from_regex(r"[a-z](-*[a-z0-9]){0,31}", fullmatch=True).filter(lambda n: len(n) <= 32),
    st.sampled_from(["a", "w" * 32, f"a{'-' * 30}b"]),
)
STAGES = st.sampled_from(["staging", "production", "qa", "a", "w" * 30, "eu-west-1", "0"])
OWNERS = st.sampled_from(["a", "w" * 39, "My-Org", "octo_shortcode"])
REPOSITORIES = st.sampled_from(["a", "w" * 100, "Model.v2_x", ".github", "a-b"])


@functools.cache
def limits(service: str, shape: str) -> tuple[int, int, re.Pattern[str]]:
    known = SESSION.get_service_model(service).shape_for(shape).metadata
    pattern = known.get("pattern", ".*")
    for java, python in UNICODE.items():
        pattern = pattern.replace(java, python)
    return known.get("min", 0), known.get("max", sys.maxsize), re.compile(pattern, re.DOTALL)


def accepts(service: str, shape: str, name: str) -> bool:
    least, most, pattern = limits(service, shape)
    return least <= len(name) <= most and pattern.fullmatch(name) is not None


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a resource's properties by key, without policies and tags."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if "PolicyDocument" not in name and name not in ("Tags", "Alarms"):
                yield from texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def of_stage(name: str, stage: str) -> set[tuple[str, str]]:
    """Return the names of a stage's resources, whatever its kind, and of its second stack's."""
    found = set()
    second = watch(name, stage, **WATCHED)
    for logical in second.resources:
        about = second.kind(logical)
        found |= {(f"{about} {at}", text) for at, text in texts(second.properties(logical))}
    for kind in KINDS:
        made = full(kind, Project=name, Stage=stage)
        for logical in made.resources:
            about = template().resources[logical]["Type"]
            found |= {(f"{about} {at}", text) for at, text in texts(made.properties(logical))}
    return found


def of_project(name: str, owner: str = "my-org", repository: str = "model") -> set[tuple[str, str]]:
    made = project(
        name, {"GitHubOwner": owner, "GitHubRepository": repository, "SignIn": "iam-user"}
    )
    return {
        (f"{made.kind(logical)} {at}", text)
        for logical in made.resources
        for at, text in texts(made.properties(logical))
    }


def settings_of(name: str, region: str = "eu-west-1") -> Settings:
    return Settings(ROOT, Project(name, region, "acme/repo", "oidc"), Data("rows.csv", "y"))


def test_every_name_that_holds_the_project_is_known_here() -> None:
    odd = "zq7-x9"
    found = of_stage(odd, "staging") | of_project(odd, repository=f"{odd}-model")
    assert {at for at, text in found if odd in text} <= {*SHAPES}


@pytest.mark.slow
@CHECKED
@given(PROJECTS, STAGES, OWNERS, REPOSITORIES)
@example("w" * 32, "w" * 30, "w" * 39, "w" * 100)
def test_aws_accepts_every_name_of_every_project_and_stage(
    name: str, stage: str, owner: str, repository: str
) -> None:
    for at, text in of_stage(name, stage) | of_project(name, owner, repository):
        # `mlops deploy` refuses schedules for a stage with a longer name.
        fits = at != "AWS::Scheduler::Schedule Name" or len(f"{name}-{stage}-monitor") <= 64
        if at in SHAPES and fits:
            service, shape = SHAPES[at].split()
            assert accepts(service, shape, text), (at, text)
    stack = f"{name}-{stage}"
    # Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
    assert accepts("cloudformation", "StackName", stack)
    assert re.fullmatch("[a-zA-Z][a-zA-Z0-9-]{0,127}", stack)
    assert accepts("sts", "roleSessionNameType", f"mlops-{name}")
    assert accepts("logs", "LogGroupName", f"/aws/sagemaker/Endpoints/{stack}")
    assert accepts("sagemaker", "EndpointName", stack)


@pytest.mark.parametrize("region", sorted(SESSION.get_available_regions("sagemaker")))
def test_aws_accepts_the_platforms_names_in_every_region(region: str) -> None:
    made = platform_case._stack(
        "platform", "sm-mlops-platform", {"TemplateVersion": "0.1.0", "AllowedOwners": "x"}, region
    )
    for name in made.resources:
        if made.kind(name) == "AWS::IAM::Role":
            assert accepts("iam", "roleNameType", made.properties(name).get("RoleName", "x"))
    for name in ("Boundary", "GitHubBoundary"):
        called = made.properties(name)["ManagedPolicyName"]
        assert accepts("iam", "policyNameType", called) and region in called
    bucket = made.properties("ArtifactBucket")["BucketName"]
    assert bucket == settings_of("x", region).bucket(platform_case.ACCOUNT)
    # Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    assert re.fullmatch("[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket)


def test_aws_accepts_the_names_that_are_the_same_everywhere() -> None:
    assert accepts("lambda", "FunctionName", trigger.FUNCTION)
    assert accepts("sagemaker", "CfnTemplateName", sagemaker_project.TEMPLATE_NAME)
    made = platform()
    for logical, name, service, shape in (
        ("Trigger", "FunctionName", "lambda", "FunctionName"),
        ("ApprovedRule", "Name", "events", "RuleName"),
        ("Connection", "ConnectionName", "codeconnections", "ConnectionName"),
        ("GitHubSecret", "Name", "secretsmanager", "NameType"),
    ):
        assert accepts(service, shape, made.properties(logical)[name])
    # SQS's own model has no limits: 80 letters, digits, hyphens and underscores.
    assert re.fullmatch("[a-zA-Z0-9_-]{1,80}", made.properties("FailedApprovals")["QueueName"])


# Names that begin or end like one another, and like their suffixes.
ENDS = ("", "-staging", "-production", "-eu", "-github", "-pipeline", "-errors", "-wake-up", "1")
ALIKE = st.builds(
    lambda base, ends: f"{base}{''.join(ends)}"[:32].rstrip("-"),
    st.sampled_from(["a", "churn", "staging"]),
    st.lists(st.sampled_from(ENDS), max_size=2),
)
PLACES = st.tuples(
    ALIKE, st.sampled_from(["staging", "production", "eu", "eu-production", "errors"])
)


def unique(name: str, stage: str) -> set[tuple[str, str]]:
    """Return the names that nothing else in the account may have."""
    return {(at, text) for at, text in of_stage(name, stage) | of_project(name) if at in NAMED}


@pytest.mark.slow
@CHECKED
@given(PLACES, PLACES)
@example(("churn", "eu-production"), ("churn-eu", "production"))
@example(("churn", "staging"), ("churn-staging", "production"))
def test_no_two_stages_share_a_name_unless_the_second_is_refused(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    shared = unique(*one) & unique(*other)
    if one == other:
        return
    if one[0] == other[0]:
        shared -= of_project(one[0])
    if "-".join(one) != "-".join(other):
        assert not shared
        return
    mine = stages.Stage(name=other[1], stack="-".join(other), kind="real-time")
    with pytest.raises(MlopsError, match="another name"):
        stages.require_own(settings_of(other[0]), mine, {"Project": one[0], "Stage": one[1]})


def test_the_stages_that_every_repo_has_never_share_a_stack() -> None:
    names = {f"a{''.join(ends)}" for ends in itertools.product(ENDS, repeat=2)}
    stacks = [f"{name}-{stage}" for name in names for stage in ("staging", "production")]
    assert len({*stacks}) == len(stacks)


def test_another_projects_alarms_are_not_mistaken_for_leftovers_of_a_stage() -> None:
    """Stage `staging` of `churn`, and stage `production` of `churn-staging`."""
    alarms = [
        {"AlarmName": f"{name}-errors", "Dimensions": [{"Name": "EndpointName", "Value": name}]}
        for name in ("churn-staging", "churn-staging-production")
    ]
    there: Any = SimpleNamespace(
        sagemaker=None,
        client=lambda service: SimpleNamespace(
            describe_scalable_targets=lambda **_: {"ScalableTargets": []},
            describe_alarms=lambda **_: {"MetricAlarms": alarms},
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(destroy.endpoints, "describe", lambda *_: None)
        patch.setattr(
            there, "sagemaker", SimpleNamespace(describe_endpoint_config=None, describe_model=None)
        )
        assert [*destroy.left(there, "churn-staging", [])] == ["alarm churn-staging-errors"]


# Named with a new number each time.


@pytest.mark.slow
@CHECKED
@given(st.from_regex(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,63}", fullmatch=True))
@example("w" * 64)
@example(f"a{'-' * 50}b")
def test_the_jobs_of_any_step_have_names_that_sagemaker_accepts(step: str) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/churn/execution/abcdefghijkl"
    this, about = SimpleNamespace(arn=arn), SimpleNamespace(name=step)
    called = [Execution._job_name(this, about) for _ in range(3)]  # type: ignore[arg-type]
    for shape in ("ProcessingJobName", "TrainingJobName", "TransformJobName"):
        assert all(accepts("sagemaker", shape, name) for name in called)
    assert len({*called}) == 3


@pytest.fixture(scope="module")
def claim() -> Iterator[Any]:
    """Return where the trigger keeps track of an approval."""
    with functions() as modules:

        def key(name: str, number: str, approval: str) -> str:
            version: Any = SimpleNamespace(project=name, number=number, approval=approval)
            return str(modules.handler.claimed(version))

        yield key


APPROVALS = st.tuples(
    ALIKE, st.sampled_from(["1", "11", "999999999"]), st.sampled_from(["1", "11", "1800000000000"])
)


@CHECKED
@given(APPROVALS, APPROVALS)
@example(("a", "1", "11"), ("a", "11", "1"))
def test_each_approval_has_its_own_claim_below_its_project(
    claim: Any, one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    key = claim(*one)
    assert accepts("s3", "ObjectKey", key) and len(key.encode()) <= 1024
    assert key.startswith(f"{one[0]}/approvals/")
    assert (key == claim(*other)) is (one == other)
