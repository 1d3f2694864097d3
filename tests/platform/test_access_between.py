"""Who may do what in the life of a model: each role may do what its work requires, and no role of
one project reaches another project, not even if one name begins like the other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from access_case import (
    Call,
    answering,
    arn,
    attempts,
    deciding,
    deploying,
    jobs,
    models,
    registry,
    role,
    scheduled,
    training,
)
from iam_case import Identity, decision
from infra_case import REGION
from platform_case import (
    ASSETS,
    BOUNDARY,
    BUCKET,
    DEPLOYMENT_ACCOUNT,
    EVERYTHING,
    KEY,
    document,
    full_platform,
    greedy,
    pipeline,
    platform,
    production,
    schedules,
    serving,
    staging,
    train,
)

pytestmark = pytest.mark.slow

TOOL = Path(__file__).resolve().parents[2] / "src" / "sm_mlops"
# Names that begin, or begin and end, like each other, and like a project with its stage.
PAIRS = [
    ("churn", "churn-eu"),
    ("churn-eu", "churn"),
    ("churn", "churn-staging"),
    ("churn-staging", "churn"),
    ("churn", "fraud"),
    ("a", "b"),
]
Role = Callable[[str], Identity]
ROLES: dict[str, Role] = {
    "train": train,
    "staging": staging,
    "production": production,
    "pipeline": pipeline,
    "serving": serving,
    "schedules": schedules,
    "anything a repo can make": greedy,
}


def unlimited(who: Role) -> Role:
    """Return the role without its boundary: its own policies must suffice to confine it."""
    return lambda project: dataclasses.replace(who(project), boundary=None)


# What keeps a role in is there twice, and each of the two is tested alone.
LAYERS = {
    **ROLES,
    **{
        f"{name}, by its policies": unlimited(ROLES[name])
        for name in ("train", "staging", "production", "pipeline")
    },
    "serving, by its policies": unlimited(serving),
    "schedules, by its policies": unlimited(schedules),
}


# What each may


@pytest.mark.parametrize("project", ["churn", "churn-eu", "a"])
@pytest.mark.parametrize(
    ("who", "work"),
    [
        ("train", training),
        ("staging", deploying),
        ("production", lambda project: deploying(project, "production")),
        ("pipeline", jobs),
        ("serving", answering),
        ("schedules", scheduled),
    ],
    ids=["mlops run", "to staging", "to production", "a pipeline", "an endpoint", "a schedule"],
)
def test_a_role_may_do_what_its_work_requires(
    who: str, work: Callable[[str], Iterator[Call]], project: str
) -> None:
    identity = ROLES[who](project)
    refused = [
        str(one) for one in work(project) if not identity.may(one.action, one.resource, one.context)
    ]
    assert not refused


def test_a_first_deployment_finds_nothing_instead_of_being_refused() -> None:
    for action, gone in (
        ("DescribeModel", "model/x"),
        ("DescribeEndpointConfig", "endpoint-config/x"),
    ):
        assert staging("churn").may(f"sagemaker:{action}", arn("sagemaker", gone))


def test_the_role_of_an_earlier_template_is_deleted_and_not_used_again() -> None:
    # infra/endpoint.yml created it beside the path of its stage.
    limited = {"iam:PermissionsBoundary": BOUNDARY}
    passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
    for stage, answer in (("staging", True), ("production", False)):
        earlier = role(f"sm-mlops/churn/churn-{stage}-ExecutionRole-1A2B3C")
        for action in ("GetRole", "ListRolePolicies", "DeleteRolePolicy", "DeleteRole"):
            assert staging("churn").may(f"iam:{action}", earlier, limited) is answer
        made = {**limited, "aws:RequestTag/project": "churn"}
        assert not staging("churn").may("iam:CreateRole", earlier, made)
        assert not staging("churn").may("iam:PassRole", earlier, passed)


def test_scaling_and_alarms_can_be_looked_at_and_set() -> None:
    identity = staging("churn")
    space = {"application-autoscaling:service-namespace": "sagemaker"}
    target = arn("application-autoscaling", "scalable-target/0a1b2c")
    for action in ("RegisterScalableTarget", "PutScalingPolicy", "DeregisterScalableTarget"):
        assert identity.may(f"application-autoscaling:{action}", target, space)
        other = {"application-autoscaling:service-namespace": "dynamodb"}
        assert not identity.may(f"application-autoscaling:{action}", target, other)
    # A call that says of no service.
    assert identity.may("application-autoscaling:ListTagsForResource", target)
    assert identity.may("application-autoscaling:DescribeScalableTargets", "*")
    assert identity.may("cloudwatch:DescribeAlarms", arn("cloudwatch", "alarm:*"))


def test_scaling_gets_its_own_role_and_no_other_service_does() -> None:
    service = "sagemaker.application-autoscaling.amazonaws.com"
    name = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    for asked, answer in ((service, True), ("ec2.amazonaws.com", False)):
        context = {"iam:AWSServiceName": asked}
        made = role(f"aws-service-role/{asked}/{name}")
        assert staging("churn").may("iam:CreateServiceLinkedRole", made, context) is answer


@pytest.mark.parametrize("who", ["train", "pipeline"])
def test_data_elsewhere_and_keys_are_reached_where_both_platform_and_project_say_so(
    who: str,
) -> None:
    identity = ROLES[who]("churn")
    assert identity.may("s3:ListBucket", "arn:aws:s3:::lake")
    assert not identity.may("s3:ListBucket", "arn:aws:s3:::salaries")
    assert not identity.may("s3:GetObject", "arn:aws:s3:::salaries/2026.csv")
    assert identity.may("kms:GenerateDataKey", KEY)
    assert not identity.may("kms:GenerateDataKey", KEY.replace("1234abcd", "9999abcd"))
    assert pipeline("churn").may("s3:GetObject", "arn:aws:s3:::lake/churn/x.csv")
    assert not pipeline("churn").may("s3:PutObject", "arn:aws:s3:::lake/churn/x.csv")


def test_wider_lists_of_the_platform_open_nothing_that_the_project_does_not_name() -> None:
    lake, keys = "arn:aws:s3:::lake", f"{KEY.partition('/')[0]}/*"
    [wide] = platform(DataLocations=f"{lake},{lake}/*", KeyArns=keys).policies("TrainBoundary")
    identity = dataclasses.replace(pipeline("churn"), boundary=wide)
    assert identity.may("s3:GetObject", f"{lake}/churn/x.csv")
    assert not identity.may("s3:GetObject", f"{lake}/fraud/x.csv")
    assert identity.may("kms:Decrypt", KEY)
    assert not identity.may("kms:Decrypt", KEY.replace("1234abcd", "9999abcd"))
    # A bucket whose name only begins like that of the list.
    everything = dataclasses.replace(identity, policies=(EVERYTHING,))
    assert everything.may("s3:GetObject", f"{lake}/fraud/x.csv")
    assert not everything.may("s3:GetObject", "arn:aws:s3:::lake-salaries/2026.csv")


@pytest.mark.parametrize("who", ["staging", "production"])
def test_the_role_for_other_accounts_is_taken_in_those_that_are_named(who: str) -> None:
    identity = ROLES[who]("churn")
    for account, name, answer in (
        (DEPLOYMENT_ACCOUNT, "churn-deploy", True),
        (DEPLOYMENT_ACCOUNT, "churn-eu-deploy", False),
        (DEPLOYMENT_ACCOUNT, "admin", False),
        ("999999999999", "churn-deploy", False),
    ):
        other, context = f"arn:aws:iam::{account}:role/{name}", {"aws:ResourceAccount": account}
        assert identity.may("sts:AssumeRole", other, context) is answer


# What none may

# Jobs are named after executions, which a role makes its own, and log to two groups, whoever's they
# are; the images are AWS's. The function that trains again finds out whose schedule has called it.
EVERYBODYS = re.compile(
    r"sagemaker:(Create\w+|AddTags) (processing|training)-job/pipelines-"
    r"|logs:\w+ log-group:/aws/sagemaker/(Processing|Training)Jobs"
    r"|cloudwatch:(PutMetricData|DescribeAlarms) |ecr:|servicequotas:List"
    r"|lambda:InvokeFunction function:sm-mlops-retrain$"
)


@pytest.mark.parametrize(("mine", "theirs"), PAIRS, ids=lambda name: name)
@pytest.mark.parametrize("who", LAYERS)
def test_no_role_of_one_project_reaches_what_is_another_s(who: str, mine: str, theirs: str) -> None:
    identity = LAYERS[who](mine)
    reached = [
        str(one)
        for work in (training, deploying, to_production, jobs, answering, scheduled, deciding)
        for one in work(theirs)
        if not EVERYBODYS.match(str(one)) and identity.may(one.action, one.resource, one.context)
    ]
    assert not reached


def to_production(project: str) -> Iterator[Call]:
    return deploying(project, "production")


@pytest.mark.parametrize("who", sorted(set(ROLES) - {"pipeline"}))
def test_only_the_pipeline_runs_jobs_and_registers_versions(who: str) -> None:
    identity = ROLES[who]("churn")
    found = [
        str(one)
        for one in jobs("churn")
        if re.search(
            "Create(Processing|Training)Job|CreateModelPackage|(Processing|Training)Jobs", str(one)
        )
        and identity.may(one.action, one.resource, one.context)
    ]
    assert not found


@pytest.mark.parametrize("who", ["staging", "production"])
def test_a_stage_leaves_the_other_one_alone(who: str) -> None:
    identity, other = ROLES[who]("churn"), {"staging": "production", "production": "staging"}[who]
    shared = {str(one) for one in (*registry("churn"), *models("churn"))}
    own = {str(one) for one in deploying("churn", who)}
    reached = [
        str(one)
        for one in deploying("churn", other)
        if identity.may(one.action, one.resource, one.context)
    ]
    assert set(reached) <= shared | own
    assert not any(other in one for one in reached)


def test_training_and_deploying_are_separate() -> None:
    both = {str(one) for one in registry("churn")}
    for identity, work in ((train("churn"), deploying), (staging("churn"), training)):
        reached = {
            str(one)
            for one in work("churn")
            if not one.action.startswith(("s3:Get", "s3:List"))
            and identity.may(one.action, one.resource, one.context)
        }
        assert reached <= both, reached - both
    # What the pipeline has registered is not written by who starts or deploys it.
    model = f"arn:aws:s3:::{BUCKET}/churn/executions/1/train/output/model.tar.gz"
    for who in set(ROLES) - {"pipeline"}:
        assert not ROLES[who]("churn").may("s3:PutObject", model), who


@pytest.mark.parametrize("who", LAYERS)
def test_no_role_decides_what_is_a_person_s_to_decide(who: str) -> None:
    identity = LAYERS[who]("churn")
    assert not [str(c) for c in deciding("churn") if identity.may(c.action, c.resource, c.context)]


@pytest.mark.parametrize("who", ROLES)
def test_no_boundary_lets_a_role_approve_whatever_its_policies_say(who: str) -> None:
    identity = dataclasses.replace(ROLES[who]("churn"), policies=(EVERYTHING,))
    group = arn("sagemaker", "model-package-group/churn")
    version = arn("sagemaker", "model-package/churn/3")
    for resource in (group, version):
        for action in ("CreateModelPackage", "UpdateModelPackage"):
            status = {"sagemaker:ModelApprovalStatus": "Approved"}
            assert not identity.may(f"sagemaker:{action}", resource, status)
        # The pipeline registers what a person is to look at.
        pending = {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}
        registers = identity.may("sagemaker:CreateModelPackage", resource, pending)
        assert registers is (who in ("pipeline", "train"))


def test_what_is_registered_as_rejected_or_without_a_status_is_registered() -> None:
    version = arn("sagemaker", "model-package/churn/3")
    for status in ({"sagemaker:ModelApprovalStatus": "Rejected"}, {}):
        assert pipeline("churn").may("sagemaker:CreateModelPackage", version, status)


@pytest.mark.parametrize("who", LAYERS)
def test_no_role_finds_a_way_to_more(who: str) -> None:
    identity = LAYERS[who]("churn")
    found = [str(one) for one in attempts() if identity.may(one.action, one.resource, one.context)]
    assert not found


def test_the_workflows_boundary_alone_prevents_widening_a_role() -> None:
    """Whatever mistake is made in the policies of project.yml."""
    for who in (staging, train, pipeline):
        limit = dataclasses.replace(who("churn"), policies=(EVERYTHING,))
        found = [
            str(one)
            for one in attempts()
            if one.action.startswith(("iam:", "sts:", "s3:", "secretsmanager:", "lambda:"))
            or re.search("(Stop|Describe)(Processing|Training)Job", one.action)
            if not one.action.startswith("iam:UntagRole")
            # One boundary for both stages.
            and not one.resource.endswith(("sm-mlops/churn/x", "churn-github-production"))
            and limit.may(one.action, one.resource, one.context)
        ]
        assert not found


def test_the_attempts_would_be_noticed() -> None:
    """With everything allowed and no boundary, each of them succeeds."""
    free = Identity(
        role("sm-mlops/churn/staging/x"), greedy("churn").policies, None, {"project": "churn"}
    )
    assert all(free.may(one.action, one.resource, one.context) for one in attempts())


def test_what_a_repo_makes_has_none_of_the_rights_to_deploy() -> None:
    identity = greedy("churn")
    allowed = {
        str(one)
        for one in deploying("churn")
        if identity.may(one.action, one.resource, one.context)
    }
    assert allowed == {
        f"s3:GetObject {BUCKET}/churn/executions/1/evaluate/sample-payload.tar.gz",
        f"s3:GetObject {BUCKET}/churn/async/staging/input/1",
        f"s3:PutObject {BUCKET}/churn/async/staging/input/1",
    }


# Sessions with tags of their own, and of others


def disguised(who: Role, project: str) -> Identity:
    """Return a role of churn in a session that says it is another project's."""
    return dataclasses.replace(who("churn"), tags={"project": project})


@pytest.mark.parametrize("project", ["fraud", "churn-eu", "platform", ""])
@pytest.mark.parametrize("who", ROLES)
def test_the_tags_of_a_session_open_nothing_of_another_project(who: str, project: str) -> None:
    identity = dataclasses.replace(disguised(ROLES[who], project), policies=(EVERYTHING,))
    works = (training, deploying, to_production, jobs, answering, scheduled, deciding)
    reached = [
        str(one)
        for work in works
        for one in work(project or "fraud")
        if identity.may(one.action, one.resource, one.context)
    ]
    assert not reached
    code = f"arn:aws:s3:::{BUCKET}/{ASSETS}trigger.zip"
    assert not identity.may("s3:PutObject", code)
    assert not identity.may("iam:PassRole", role(f"{project}-pipeline"))


def test_a_tag_with_a_slash_opens_less_than_the_project_s() -> None:
    """Such a tag fits the path of a role, but below it there is only what is the project's own."""
    identity = disguised(greedy, "churn/staging")
    reached = {
        one.resource.split(":", 5)[-1]
        for work in (training, deploying, jobs, answering)
        for one in work("churn/staging")
        if not EVERYBODYS.match(str(one)) and identity.may(one.action, one.resource, one.context)
    }
    assert reached
    logs = ("Endpoints/churn/", "TransformJobs:log-stream:churn/")
    ours = (
        *(f"{BUCKET}/churn/staging/", BUCKET),
        *(f"log-group:/aws/sagemaker/{group}" for group in logs),
        "pipeline/churn/staging-monitor",  # no pipeline has a slash in its name
    )
    assert not [one for one in reached if not one.startswith(ours)]


def test_a_model_is_read_elsewhere_by_roles_of_its_project_only() -> None:
    policy = document(full_platform().properties("ArtifactBucketPolicy")["PolicyDocument"])
    place = f"arn:aws:iam::{DEPLOYMENT_ACCOUNT}:role"
    for who, project, answer in (
        (f"{place}/sm-mlops/churn/staging/x", "churn", True),
        (f"{place}/sm-mlops/fraud/staging/x", "churn", None),
        (f"{place}/anybody", "churn", None),
    ):
        facts = {"aws:principalarn": who, "aws:principaltag/project": project}
        facts["aws:securetransport"] = "true"
        model = f"arn:aws:s3:::{BUCKET}/churn/executions/1/train/output/model.tar.gz"
        assert decision(policy, "s3:GetObject", model, facts) is answer, who


def test_no_identity_provider_opens_a_role_that_a_repo_makes() -> None:
    model = f"arn:aws:s3:::{BUCKET}/churn/executions/1/model.tar.gz"
    assert greedy("churn").may("s3:GetObject", model)
    assert not greedy("churn").may("s3:GetObject", model, {"aws:FederatedProvider": "arn:x"})
    # Only this way do jobs of workflows get theirs.
    assert train("churn").may("s3:GetObject", model, {"aws:FederatedProvider": "arn:x"})


def test_what_a_repo_makes_gets_no_data_and_no_key_of_its_own_choice() -> None:
    for identity in (greedy("churn"), serving("churn")):
        for action in ("GetObject", "ListBucket"):
            assert not identity.may(f"s3:{action}", "arn:aws:s3:::lake")
            assert not identity.may(f"s3:{action}", "arn:aws:s3:::lake/churn/x.csv")
        assert not identity.may("kms:Decrypt", KEY)
    # S3 decides first whether the object is the role's own.
    through = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    assert greedy("churn").may("kms:Decrypt", KEY, through)


# What the code calls

SERVICES = {
    "sagemaker": "sagemaker",
    "sagemaker-runtime": "sagemaker",
    "cloudformation": "cloudformation",
    "application-autoscaling": "application-autoscaling",
    "cloudwatch": "cloudwatch",
    "logs": "logs",
    "iam": "iam",
    "s3": "s3",
    "kms": "kms",
}
# Of which service an operation is called that several have.
SHARED = {"tag_resource": "logs"}
# Where the action is called otherwise than the operation.
RENAMED = {
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:HeadObject": "s3:GetObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:HeadBucket": "s3:ListBucket",
}
# Done by people with their own permissions: approve, predict whole files, share, destroy a project,
# and the platform.
PEOPLES = {
    *("sagemaker:UpdateModelPackage", "sagemaker:CreateModelPackageGroup"),
    *("sagemaker:GetModelPackageGroupPolicy", "sagemaker:PutModelPackageGroupPolicy"),
    *("sagemaker:DeleteModelPackageGroupPolicy", "sagemaker:DeleteModelPackage"),
    *("sagemaker:DeleteModelPackageGroup", "sagemaker:DeletePipeline"),
    *("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
    *("s3:DeleteObject", "logs:DeleteLogGroup", "sagemaker:DescribeProject"),
    *("kms:GetKeyPolicy", "kms:PutKeyPolicy"),
    *("sagemaker:CreateTransformJob", "sagemaker:DescribeTransformJob"),
    *("sagemaker:ListTransformJobs", "sagemaker:StopTransformJob"),
}
# The code of the commands that workflows run, and what it imports; a review trains in the sandbox.
WORKFLOWS = (
    *sorted(file for file in (TOOL / "training").glob("*.py") if file.name != "review.py"),
    *sorted((TOOL / "deployment").glob("*.py")),
    *sorted(TOOL.glob("*.py")),
)


def called() -> set[str]:
    """Return the IAM actions of the operations whose names occur in the code that workflows run."""
    words = {
        word
        for file in WORKFLOWS
        for word in re.findall(r"[a-z][a-z0-9_]+", file.read_text(encoding="utf-8"))
    }
    session = botocore.session.get_session()
    found = set()
    for service, prefix in SERVICES.items():
        for operation in session.get_service_model(service).operation_names:
            name = xform_name(operation)
            # One word, such as search, is too common to tell.
            if "_" in name and name in words and SHARED.get(name, service) == service:
                action = f"{prefix}:{operation}"
                found.add(RENAMED.get(action, action))
    return found


def test_every_call_of_the_code_is_allowed_or_a_person_s() -> None:
    allowed = {
        action
        for who in (train, staging, production)
        for policy in who("churn").policies
        for statement in policy["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    assert "sagemaker:StartPipelineExecution" in called()
    assert sorted(called() - allowed - PEOPLES) == []
    # What is denied is listed, too.
    assert not allowed & PEOPLES - {"sagemaker:UpdateModelPackage"}
