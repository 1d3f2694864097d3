"""Checks of what the platform's stack has made, as it is now: people and services change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sm_mlops.aws import error_code
from sm_mlops.deployment.trigger import FUNCTION, QUEUE
from sm_mlops.doctor.finding import Finding, failed, ok, warning
from sm_mlops.doctor.scene import Scene

RULE = "sm-mlops-approved"
AUDIENCE = "sts.amazonaws.com"
VISIBLE = ("sagemaker:studio-visibility", "true")
KEY_DAYS = 90
# GitHub ends a fine-grained token after a year at most.
TOKEN_DAYS = 335


def drift(scene: Scene) -> Iterator[Finding]:
    """The template's version in this repo and in the platform."""
    from sm_mlops.bootstrap.platform import is_superseded, version

    there = scene.platform
    if there is None:
        return
    check = "template version"
    ours, theirs = scene.aws.settings.project.template_version, there.parameters["TemplateVersion"]
    if is_superseded(scene.aws.settings, there.parameters):
        detail = f"{ours} in both, but the platform's files of infra/ have come after this repo's"
        yield warning(check, detail, "cruft update")
    elif version(ours) == version(theirs):
        yield ok(check, f"{ours} in this repo and in the platform")
    elif version(ours) < version(theirs):
        yield warning(check, f"this repo is of {ours}, the platform of {theirs}", "cruft update")
    else:
        detail = f"this repo is of {ours}, the platform still of {theirs}"
        yield warning(check, detail, scene.bootstrap)


def connection(scene: Scene) -> Iterator[Finding]:
    from sm_mlops.bootstrap import connection

    if scene.platform is None:
        return
    check, found = "connection to GitHub", connection.state(scene.aws)
    if found is None:
        return
    if found.status == "AVAILABLE":
        yield ok(check, f"{found.name} is AVAILABLE")
        return
    pending = found.status == "PENDING"
    why = "a person has to authorise it once" if pending else "a person has to mend it"
    remedy = connection.remedy(scene.aws, found)
    yield failed(check, f"{found.name} is {found.status}: {why}", remedy)


def product(scene: Scene) -> Iterator[Finding]:
    """Whether Studio offers it, to whom, and whose rights make the project."""
    there = scene.platform
    if there is None or not there.outputs.get("ProductId"):
        return
    check, client = "Service Catalog product", scene.client("servicecatalog")
    identifier, portfolio = there.outputs["ProductId"], there.outputs["PortfolioId"]
    found = client.describe_product_as_admin(Id=identifier)
    name = found["ProductViewDetail"]["ProductViewSummary"]["Name"]
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    if tags.get(VISIBLE[0]) == VISIBLE[1]:
        yield ok(check, f"{name}, visible in Studio")
    else:
        detail = f"{name} lacks the tag {VISIBLE[0]}={VISIBLE[1]}: Studio does not offer it"
        yield failed(
            check,
            detail,
            f"aws servicecatalog update-product --id {identifier} "
            f"--add-tags Key={VISIBLE[0]},Value={VISIBLE[1]}",
        )
    yield from _grants(scene, portfolio)
    wanted = there.outputs["LaunchRoleArn"]
    constraints = [
        row
        for page in client.get_paginator("list_constraints_for_portfolio").paginate(
            PortfolioId=portfolio, ProductId=identifier
        )
        for row in page["ConstraintDetails"]
        if row["Type"] == "LAUNCH"
    ]
    roles = [_role_of(client.describe_constraint(Id=row["ConstraintId"])) for row in constraints]
    if wanted in roles:
        yield ok(check, f"launch constraint with {wanted.rpartition('/')[2]}")
    else:
        has = f"has {roles[0]}" if roles else "is not there"
        yield failed(
            check,
            f"the launch constraint {has}: projects are made with other rights",
            f"in Service Catalog, give portfolio {portfolio} a launch constraint with {wanted}",
        )


def _role_of(constraint: dict[str, Any]) -> str:
    parameters = json.loads(constraint.get("ConstraintParameters") or "{}")
    return str(parameters.get("RoleArn") or parameters.get("LocalRoleName") or "")


def _grants(scene: Scene, portfolio: str) -> Iterator[Finding]:
    from sm_mlops.bootstrap import catalog

    check, known = "Service Catalog product", catalog.principals(scene.aws, portfolio)
    if known:
        names = ", ".join(arn.rpartition(":")[2] for arn in known)
        yield ok(check, f"granted to {names}")
    studio = {arn for arn in _studio_roles(scene) if arn not in known}
    if studio:
        names = ", ".join(sorted(studio))
        yield warning(
            check,
            f"Studio's role may not use it: {names}",
            f"{scene.bootstrap} --platform StudioRoleArns={','.join(sorted(studio))}",
        )
    elif not known and not scene.aws.sandbox:
        yield warning(check, "granted to nobody", scene.bootstrap)


def _studio_roles(scene: Scene) -> Iterator[str]:
    """Execution roles that people have in Studio unless their profile says otherwise."""
    sagemaker = scene.client("sagemaker")
    for page in sagemaker.get_paginator("list_domains").paginate():
        for item in page["Domains"]:
            found = sagemaker.describe_domain(DomainId=item["DomainId"])
            role = found.get("DefaultUserSettings", {}).get("ExecutionRole")
            if role:
                yield str(role)


def launch_role(scene: Scene) -> Iterator[Finding]:
    there = scene.platform
    if there is None:
        return
    name = there.outputs["LaunchRoleArn"].rpartition("/")[2]
    yield from _role(scene, "launch role", name, "servicecatalog.amazonaws.com")


def _role(scene: Scene, check: str, name: str, service: str) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        found = scene.client("iam").get_role(RoleName=name)["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        detail = f"{name} is gone: somebody has deleted it by hand"
        # CloudFormation does not look whether what it has made is still there.
        yield failed(check, detail, "make it again as infra/platform.yml has it (LaunchRole)")
        return
    if service in json.dumps(found["AssumeRolePolicyDocument"]):
        yield ok(check, name)
    else:
        yield failed(check, f"{name} does not trust {service} any more", scene.bootstrap)


def workflow_sign_in(scene: Scene) -> Iterator[Finding]:
    """GitHub's OpenID Connect provider, or the age of the user's key."""
    if scene.aws.settings.project.uses_key:
        yield from _key(scene)
    else:
        yield from _provider(scene)


def _provider(scene: Scene) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    there, check = scene.platform, "sign-in of the workflows"
    if there is None:
        return
    arn = there.outputs.get("OidcProviderArn")
    if not arn:
        detail = "the platform has no OpenID Connect provider of GitHub"
        yield failed(check, detail, f"{scene.bootstrap} --platform OidcProviderArn=")
        return
    try:
        found = scene.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        detail = "the OpenID Connect provider of GitHub is gone"
        yield failed(check, detail, _make_provider())
        return
    if AUDIENCE in found.get("ClientIDList", []):
        yield ok(check, f"OpenID Connect provider with audience {AUDIENCE}")
        return
    yield failed(
        check,
        f"the OpenID Connect provider lacks the audience {AUDIENCE}",
        f"aws iam add-client-id-to-open-id-connect-provider --client-id {AUDIENCE} "
        f"--open-id-connect-provider-arn {arn}",
    )


def _make_provider() -> str:
    return (
        "aws iam create-open-id-connect-provider --url https://token.actions.githubusercontent.com "
        f"--client-id-list {AUDIENCE}"
    )


def _key(scene: Scene) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    check, user = "sign-in of the workflows", f"{scene.aws.settings.project.project}-github"
    try:
        keys = scene.client("iam").list_access_keys(UserName=user)["AccessKeyMetadata"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        yield failed(check, f"there is no user {user}", scene.bootstrap)
        return
    active = [key for key in keys if key["Status"] == "Active"]
    if not active:
        yield failed(check, f"user {user} has no active key", f"{scene.aws.command} secret rotate")
        return
    age = max(_days(key["CreateDate"]) for key in active)
    shown = f"key of user {user}, {_old(age)}"
    if age > KEY_DAYS:
        yield warning(check, shown, f"{scene.aws.command} secret rotate")
    else:
        yield ok(check, shown)


def credential(scene: Scene) -> Iterator[Finding]:
    """Whether there is one, of which kind and how old; nobody but the trigger reads it."""
    from sm_mlops.bootstrap import credential

    if scene.platform is None:
        return
    check, rotate = "credential of the trigger", f"{scene.aws.command} secret rotate"
    found = credential.kept(scene.aws)
    if found is None:
        yield failed(check, f"there is no secret {credential.SECRET}", scene.bootstrap)
        return
    if not found.kinds:
        yield failed(check, "it has no value: approvals start nothing", scene.bootstrap)
        return
    kinds = " and ".join(found.kinds)
    shown = scene.client("secretsmanager").describe_secret(SecretId=credential.SECRET)
    changed = shown.get("LastChangedDate")
    age = _days(changed) if changed else 0
    wanted = {"jenkins"} if scene.aws.settings.project.ci == "jenkins" else {"token", "app"}
    if not wanted & {*found.kinds}:
        yield failed(check, f"{kinds} only, which this repo cannot use", rotate)
    elif "token" in found.kinds and age > TOKEN_DAYS:
        yield warning(check, f"{kinds}, {_old(age)}: tokens end after a year at most", rotate)
    else:
        yield ok(check, f"{kinds}, {_old(age)}")
    if "app" in found.kinds and scene.platform.parameters.get("HasLayer") != "true":
        detail = "a GitHub App's, but the trigger has no layer to sign in with"
        yield failed(check, detail, scene.bootstrap)


def trigger(scene: Scene) -> Iterator[Finding]:
    """The function and its rule."""
    from botocore.exceptions import ClientError

    if scene.platform is None:
        return
    check = "trigger"
    try:
        found = scene.client("lambda").get_function_configuration(FunctionName=FUNCTION)
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        yield failed(check, f"there is no function {FUNCTION}", scene.bootstrap)
        return
    state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
    if state not in ("Active", "Inactive") or update == "Failed":
        why = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason given"
        detail = f"{FUNCTION} is {state}, its last update {update}: {why}"
        yield failed(check, detail, scene.bootstrap)
    else:
        yield ok(check, f"{FUNCTION}, {found['Runtime']}, {found['MemorySize']} MB")
    try:
        rule = scene.client("events").describe_rule(Name=RULE)
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        yield failed(check, f"there is no rule {RULE}: approvals start nothing", scene.bootstrap)
        return
    if rule.get("State") == "DISABLED":
        detail = f"rule {RULE} is disabled: approvals start nothing"
        yield failed(check, detail, f"aws events enable-rule --name {RULE}")
    else:
        yield ok(check, f"rule {RULE} is enabled")


def failed_approvals(scene: Scene) -> Iterator[Finding]:
    """Of all projects of the account."""
    there = scene.platform
    if there is None:
        return
    check, name = "failed approvals", "ApproximateNumberOfMessages"
    found = scene.client("sqs").get_queue_attributes(
        QueueUrl=there.outputs["FailedApprovalsUrl"], AttributeNames=[name]
    )
    count = int(found["Attributes"][name])
    if not count:
        yield ok(check, f"none in {QUEUE}")
        return
    noun = "approval" if count == 1 else "approvals"
    yield failed(
        check,
        f"{count} {noun} of this account could not be passed on",
        f"{scene.aws.command} trigger VERSION; which ones: aws sqs receive-message --queue-url "
        f"{there.outputs['FailedApprovalsUrl']}",
    )


def _days(moment: datetime) -> int:
    return (datetime.now(UTC) - moment).days


def _old(days: int) -> str:
    return "set today" if days < 1 else f"{days} day{'s' if days > 1 else ''} old"
