"""Checks of the account: who is signed in, what she may do, whether there is a Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sm_mlops import projects
from sm_mlops.aws import error_code
from sm_mlops.doctor.finding import Finding, failed, ok, warning
from sm_mlops.doctor.scene import DENIED, Scene


def sign_in(scene: Scene) -> Iterator[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    from sm_mlops.errors import explained

    region = scene.aws.settings.project.region
    try:
        who = scene.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        line = explained(error, region) or " ".join(str(error).split())
        what, _, remedy = line.partition(": ")
        yield failed("AWS sign-in", what, remedy)
        return
    name = who["Arn"].split(":", 5)[5]
    shown = "the sandbox's own key" if scene.aws.sandbox else name
    yield ok("AWS sign-in", f"{shown} in account {who['Account']}, region {region}")
    if name == "root" and not scene.aws.sandbox:
        yield warning(
            "AWS sign-in",
            "that is the account's root, which Service Catalog does not know",
            "sign in as a role or a user (aws sso login, or AWS_PROFILE=...)",
        )


@dataclass(frozen=True)
class Purpose:
    """What somebody wants to do, and by which actions on which resource (of the partition, region,
    account and project that are filled in)."""

    name: str
    needed: bool
    rights: tuple[tuple[str, tuple[str, ...]], ...]
    s3_only: bool = False
    """Whether only projects whose template is in S3 have this purpose."""


_SAGEMAKER = "arn:{partition}:sagemaker:{region}:{account}:"
_PURPOSES = (
    Purpose(
        "train",
        True,
        (
            (
                _SAGEMAKER + "pipeline/{project}",
                (
                    "sagemaker:CreatePipeline",
                    "sagemaker:DescribePipeline",
                    "sagemaker:StartPipelineExecution",
                    "sagemaker:UpdatePipeline",
                ),
            ),
            ("arn:{partition}:s3:::{bucket}/{project}/code/x", ("s3:GetObject", "s3:PutObject")),
            ("arn:{partition}:iam::{account}:role/{project}-pipeline", ("iam:PassRole",)),
        ),
    ),
    Purpose(
        "approve",
        False,
        (
            (
                _SAGEMAKER + "model-package/{project}/1",
                ("sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"),
            ),
        ),
    ),
    Purpose(
        "pass an approval on by hand",
        False,
        (
            (
                "arn:{partition}:lambda:{region}:{account}:function:sm-mlops-trigger",
                ("lambda:InvokeFunction",),
            ),
        ),
    ),
    Purpose(
        "connect this repo",
        False,
        (
            (
                "arn:{partition}:cloudformation:{region}:{account}:stack/sm-mlops-platform/*",
                ("cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet"),
            ),
            (_SAGEMAKER + "project/{project}", ("sagemaker:CreateProject",)),
            (
                "arn:{partition}:iam::{account}:role/sm-mlops-launch-{region}",
                ("iam:CreateRole", "iam:PutRolePolicy"),
            ),
            (
                "arn:{partition}:secretsmanager:{region}:{account}:secret:sm-mlops/github-x",
                ("secretsmanager:PutSecretValue",),
            ),
        ),
    ),
    Purpose(
        "show the template in Studio",
        False,
        (
            (
                _SAGEMAKER + "domain/d-x",
                ("sagemaker:AddTags", "sagemaker:DeleteTags", "sagemaker:ListTags"),
            ),
            ("*", ("sagemaker:ListDomains",)),
        ),
        s3_only=True,
    ),
)


def purposes(scene: Scene) -> list[Purpose]:
    """What this person may want to do. Who may not see the project, has not made it."""
    from botocore.exceptions import ClientError

    try:
        from_s3 = _is_from_s3(scene)
    except ClientError as error:
        if error_code(error) not in DENIED:
            raise
        from_s3 = False
    return [each for each in _PURPOSES if from_s3 or not each.s3_only]


def rights(scene: Scene) -> Iterator[Finding]:
    """What IAM's simulator says of each purpose.

    Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
    """
    from botocore.exceptions import ClientError

    who = scene.client("sts").get_caller_identity()["Arn"]
    if who.endswith(":root"):
        yield ok("permissions", "may do everything")
        return
    try:
        principal = _principal(scene, who)
        denied = {each: _denied(scene, principal, each) for each in purposes(scene)}
    except ClientError as error:
        why = "needs iam:SimulatePrincipalPolicy"
        if error_code(error) not in DENIED:
            why = f"IAM says {error_code(error)}"
        yield warning("permissions", f"could not be simulated: {why}")
        return
    may = [purpose.name for purpose, lacking in denied.items() if not lacking]
    if may:
        yield ok("permissions", f"may {', '.join(may)}")
    for purpose, lacking in denied.items():
        if lacking:
            tell = failed if purpose.needed else warning
            yield tell(
                "permissions",
                f"may not {purpose.name}: lacks {', '.join(lacking)}",
                "have your account's administrator allow it, if that is yours to do",
            )


def _principal(scene: Scene, who: str) -> str:
    """The role behind a session, which is what policies belong to."""
    from botocore.exceptions import ClientError

    if ":assumed-role/" not in who:
        return who
    name = who.split("/")[1]
    try:
        # With its path, which the session's ARN leaves out.
        return str(scene.client("iam").get_role(RoleName=name)["Role"]["Arn"])
    except ClientError as error:
        if error_code(error) not in DENIED:
            raise
    return f"arn:{scene.aws.settings.partition}:iam::{scene.aws.account}:role/{name}"


def _denied(scene: Scene, principal: str, purpose: Purpose) -> list[str]:
    aws = scene.aws
    words = {
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
    for resource, actions in purpose.rights:
        answer = scene.client("iam").simulate_principal_policy(
            PolicySourceArn=principal,
            ActionNames=list(actions),
            ResourceArns=[resource.format(**words)],
            ContextEntries=[passed],
        )
        lacking += [
            str(result["EvalActionName"])
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    return lacking


def _is_from_s3(scene: Scene) -> bool:
    """Whether the project's template is there."""
    made = projects.find(scene.aws)
    return made is not None and bool(made.template_url)


def domain(scene: Scene) -> Iterator[Finding]:
    """Studio: the registry and the projects can be seen there; nothing else needs it."""
    from sm_mlops.bootstrap import studio

    check, region = "Studio domain", scene.aws.settings.project.region
    found = studio.domains(scene.aws)
    if not found and scene.aws.sandbox:
        yield ok(check, "none: the sandbox has no Studio")
        return
    if not found:
        yield warning(
            check,
            f"none in {region}: versions are approved with {scene.aws.command} approve only",
            f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/studio",
        )
        return
    if not _is_from_s3(scene):
        yield ok(check, ", ".join(item.name for item in found))
        return
    # Of a project whose template is in S3, Studio offers the template where the domain says so.
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
