"""Checks of who is signed in to AWS and GitHub, and of what that identity may do in AWS."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError

from sm_mlops.aws import DENIED, error_code, ignoring
from sm_mlops.bootstrap.platform import S3
from sm_mlops.doctor import parts
from sm_mlops.doctor.scene import Finding, Scene, failed, ok, warning
from sm_mlops.errors import MlopsError, explained, one_line
from sm_mlops.github import SCOPES, GitHubError


def sign_in(scene: Scene) -> Iterator[Finding]:
    """Check who is signed in to AWS."""
    region = scene.aws.settings.project.region
    try:
        who = scene.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        what, _, remedy = (explained(error, region) or one_line(error)).partition(": ")
        yield failed(what, remedy)
        return
    name = who["Arn"].split(":", 5)[5]
    shown = "the sandbox's own key" if scene.aws.sandbox else name
    yield ok(f"{shown} in account {who['Account']}, region {region}")
    if name == "root" and not scene.aws.sandbox:
        yield warning(
            "this is the root user, which Service Catalog does not accept",
            "sign in as a role or a user (aws sso login, or AWS_PROFILE=...)",
        )


def github_sign_in(scene: Scene) -> Iterator[Finding]:
    """Check whose token it is, and whether it has the scopes that bootstrap needs."""
    hub = scene.hub
    if hub is None:
        what, _, remedy = str(scene.sign_in_problem).partition(": ")
        yield failed(what, remedy)
        return
    person = hub.person
    name = person.login or "a GitHub App"
    try:
        hub.require(*SCOPES)
    except GitHubError:
        raise
    except MlopsError as error:
        what, _, remedy = str(error).partition(": ")
        yield failed(f"{name}: {what}", remedy)
        return
    scopes = (
        "fine-grained or from an App" if person.scopes is None else "scopes " + ", ".join(SCOPES)
    )
    yield ok(f"{name}, from {hub.origin} ({scopes})")


_SAGEMAKER = "arn:{partition}:sagemaker:{region}:{account}:"
_PLATFORM = "arn:{partition}:cloudformation:{region}:{account}:stack/sm-mlops-platform/*"
_TRIGGER = "arn:{partition}:lambda:{region}:{account}:function:sm-mlops-trigger"
_SECRET = "arn:{partition}:secretsmanager:{region}:{account}:secret:sm-mlops/github-x"
_ROLE = "arn:{partition}:iam::{account}:role/"

Rights = dict[str, tuple[str, ...]]
"""Actions by the resource they are for."""

# Not to be allowed this one is a failure, the others are warnings.
TRAIN = "train"
PURPOSES: dict[str, Rights] = {
    TRAIN: {
        _SAGEMAKER + "pipeline/{project}": (
            "sagemaker:CreatePipeline",
            "sagemaker:DescribePipeline",
            "sagemaker:StartPipelineExecution",
            "sagemaker:UpdatePipeline",
        ),
        "arn:{partition}:s3:::{bucket}/{project}/code/x": ("s3:GetObject", "s3:PutObject"),
        _ROLE + "{project}-pipeline": ("iam:PassRole",),
    },
    "approve": {
        _SAGEMAKER + "model-package/{project}/1": (
            "sagemaker:DescribeModelPackage",
            "sagemaker:UpdateModelPackage",
        )
    },
    "start a deployment again (mlops trigger)": {_TRIGGER: ("lambda:InvokeFunction",)},
    "connect this repo": {
        _PLATFORM: ("cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet"),
        _SAGEMAKER + "project/{project}": ("sagemaker:CreateProject",),
        _ROLE + "sm-mlops-launch-{region}": ("iam:CreateRole", "iam:PutRolePolicy"),
        _SECRET: ("secretsmanager:PutSecretValue",),
    },
}
# Only for projects whose template is in S3.
STUDIO: dict[str, Rights] = {
    "show the template in Studio": {
        _SAGEMAKER + "domain/d-x": (
            "sagemaker:AddTags",
            "sagemaker:DeleteTags",
            "sagemaker:ListTags",
        ),
        "*": ("sagemaker:ListDomains",),
    }
}


def purposes(scene: Scene) -> dict[str, Rights]:
    """Return what this person may want to do, and the rights it takes."""
    with ignoring(*DENIED):
        if parts.options(scene).template_provider == S3:
            return PURPOSES | STUDIO
    return PURPOSES


def rights(scene: Scene) -> Iterator[Finding]:
    """Check what IAM's simulator says about each purpose.

    Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
    """
    who = scene.client("sts").get_caller_identity()["Arn"]
    if who.endswith(":root"):
        yield ok("may do everything")
        return
    try:
        principal = _principal(scene, who)
        lacks = {name: denied(scene, principal, needed) for name, needed in purposes(scene).items()}
    except ClientError as error:
        code = error_code(error)
        why = "needs iam:SimulatePrincipalPolicy" if code in DENIED else f"IAM returned {code}"
        yield warning(f"could not be simulated: {why}")
        return
    allowed = [name for name, lacking in lacks.items() if not lacking]
    if allowed:
        yield ok(f"may {', '.join(allowed)}")
    for name, lacking in lacks.items():
        if lacking:
            report = failed if name == TRAIN else warning
            yield report(
                f"may not {name}: lacks {', '.join(lacking)}",
                "ask your account's administrator if this is your task",
            )


def _principal(scene: Scene, who: str) -> str:
    """Return the role behind a session, which policies are attached to."""
    if ":assumed-role/" not in who:
        return who
    name = who.split("/")[1]
    with ignoring(*DENIED):
        # With its path, which the session's ARN lacks.
        return str(scene.client("iam").get_role(RoleName=name)["Role"]["Arn"])
    return f"arn:{scene.aws.settings.partition}:iam::{scene.aws.account}:role/{name}"


def denied(scene: Scene, principal: str, needed: Rights) -> list[str]:
    """Return the actions that IAM's simulator does not allow a role or user."""
    aws = scene.aws
    place = {
        "partition": aws.settings.partition,
        "region": aws.settings.project.region,
        "account": aws.account,
        "project": aws.settings.project.project,
        "bucket": aws.bucket,
    }
    passed = {
        "ContextKeyName": "iam:PassedToService",
        "ContextKeyType": "string",
        "ContextKeyValues": ["sagemaker.amazonaws.com"],
    }
    lacking = []
    for resource, action in ((key, each) for key, actions in needed.items() for each in actions):
        # One by one: IAM refuses actions together that need different information.
        answer = scene.client("iam").simulate_principal_policy(
            PolicySourceArn=principal,
            ActionNames=[action],
            ResourceArns=[resource.format(**place)],
            ContextEntries=[passed],
        )
        if any(result["EvalDecision"] != "allowed" for result in answer["EvaluationResults"]):
            lacking.append(action)
    return lacking
