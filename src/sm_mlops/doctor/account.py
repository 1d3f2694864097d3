"""Checks of the account: who is signed in, what that identity may do, whether there is a Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sm_mlops import projects
from sm_mlops.aws import DENIED, error_code, ignoring
from sm_mlops.bootstrap import studio
from sm_mlops.doctor.finding import Finding, failed, ok, warning
from sm_mlops.doctor.scene import Scene
from sm_mlops.errors import explained, one_line


def sign_in(scene: Scene) -> Iterator[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    region = scene.aws.settings.project.region
    try:
        who = scene.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        what, _, remedy = (explained(error, region) or one_line(error)).partition(": ")
        yield failed("AWS sign-in", what, remedy)
        return
    name = who["Arn"].split(":", 5)[5]
    shown = "the sandbox's own key" if scene.aws.sandbox else name
    yield ok("AWS sign-in", f"{shown} in account {who['Account']}, region {region}")
    if name == "root" and not scene.aws.sandbox:
        yield warning(
            "AWS sign-in",
            "this is the root user, which Service Catalog does not accept",
            "sign in as a role or a user (aws sso login, or AWS_PROFILE=...)",
        )


@dataclass(frozen=True)
class Purpose:
    """What somebody wants to do, and the actions it takes on which resources.

    `needed`: not being allowed to is a failure, not a warning.
    """

    name: str
    rights: dict[str, tuple[str, ...]]
    needed: bool = False


_SAGEMAKER = "arn:{partition}:sagemaker:{region}:{account}:"
_PLATFORM = "arn:{partition}:cloudformation:{region}:{account}:stack/sm-mlops-platform/*"
_TRIGGER = "arn:{partition}:lambda:{region}:{account}:function:sm-mlops-trigger"
_SECRET = "arn:{partition}:secretsmanager:{region}:{account}:secret:sm-mlops/github-x"
_ROLE = "arn:{partition}:iam::{account}:role/"
PURPOSES = (
    Purpose(
        "train",
        {
            _SAGEMAKER + "pipeline/{project}": (
                "sagemaker:CreatePipeline",
                "sagemaker:DescribePipeline",
                "sagemaker:StartPipelineExecution",
                "sagemaker:UpdatePipeline",
            ),
            "arn:{partition}:s3:::{bucket}/{project}/code/x": ("s3:GetObject", "s3:PutObject"),
            _ROLE + "{project}-pipeline": ("iam:PassRole",),
        },
        needed=True,
    ),
    Purpose(
        "approve",
        {
            _SAGEMAKER + "model-package/{project}/1": (
                "sagemaker:DescribeModelPackage",
                "sagemaker:UpdateModelPackage",
            )
        },
    ),
    Purpose("pass an approval on by hand", {_TRIGGER: ("lambda:InvokeFunction",)}),
    Purpose(
        "connect this repo",
        {
            _PLATFORM: ("cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet"),
            _SAGEMAKER + "project/{project}": ("sagemaker:CreateProject",),
            _ROLE + "sm-mlops-launch-{region}": ("iam:CreateRole", "iam:PutRolePolicy"),
            _SECRET: ("secretsmanager:PutSecretValue",),
        },
    ),
)
# Only for projects whose template is in S3.
STUDIO = Purpose(
    "show the template in Studio",
    {
        _SAGEMAKER + "domain/d-x": (
            "sagemaker:AddTags",
            "sagemaker:DeleteTags",
            "sagemaker:ListTags",
        ),
        "*": ("sagemaker:ListDomains",),
    },
)


def purposes(scene: Scene) -> tuple[Purpose, ...]:
    """Return what this person may want to do."""
    with ignoring(*DENIED):
        if _is_from_s3(scene):
            return (*PURPOSES, STUDIO)
    return PURPOSES


def rights(scene: Scene) -> Iterator[Finding]:
    """Check what IAM's simulator says about each purpose.

    Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
    """
    from botocore.exceptions import ClientError

    who = scene.client("sts").get_caller_identity()["Arn"]
    if who.endswith(":root"):
        yield ok("permissions", "may do everything")
        return
    try:
        principal = _principal(scene, who)
        denied = {each.name: _denied(scene, principal, each) for each in purposes(scene)}
    except ClientError as error:
        code = error_code(error)
        why = "needs iam:SimulatePrincipalPolicy" if code in DENIED else f"IAM answers {code}"
        yield warning("permissions", f"could not be simulated: {why}")
        return
    allowed = [name for name, lacking in denied.items() if not lacking]
    if allowed:
        yield ok("permissions", f"may {', '.join(allowed)}")
    needed = {each.name for each in PURPOSES if each.needed}
    for name, lacking in denied.items():
        if lacking:
            report = failed if name in needed else warning
            yield report(
                "permissions",
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


def _denied(scene: Scene, principal: str, purpose: Purpose) -> list[str]:
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
    for resource, actions in purpose.rights.items():
        answer = scene.client("iam").simulate_principal_policy(
            PolicySourceArn=principal,
            ActionNames=list(actions),
            ResourceArns=[resource.format(**place)],
            ContextEntries=[passed],
        )
        lacking += [
            str(result["EvalActionName"])
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    return lacking


def _is_from_s3(scene: Scene) -> bool:
    """Return whether the project's template is in S3."""
    found = projects.find(scene.aws)
    return found is not None and bool(found.template_url)


def domain(scene: Scene) -> Iterator[Finding]:
    """Check for a Studio, which shows the registry and the projects; nothing else needs it."""
    check, region = "Studio domain", scene.aws.settings.project.region
    found = studio.domains(scene.aws)
    if not found and scene.aws.sandbox:
        yield ok(check, "none: the sandbox has no Studio")
        return
    if not found:
        yield warning(
            check,
            f"none in {region}: approve versions with {scene.aws.command} approve",
            f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/studio",
        )
        return
    if not _is_from_s3(scene):
        yield ok(check, ", ".join(item.name for item in found))
        return
    # Studio offers a template in S3 if a tag of the domain says where it is.
    there = scene.platform
    wanted = studio.location(there.outputs["ArtifactBucket"]) if there else ""
    for item in found:
        if item.location and item.location == wanted:
            yield ok(check, f"{item.name} offers templates of {wanted}")
        elif item.location:
            detail = f"{item.name} offers templates of {item.location}, not the platform's"
            yield warning(check, detail)
        else:
            yield warning(
                check,
                f"{item.name} lacks the tag {studio.TAG}: it does not offer the template",
                f"{scene.bootstrap} --template-provider s3",
            )
