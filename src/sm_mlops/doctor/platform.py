"""Checks of what the platform's stack has created, as it is now: people and services change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sm_mlops import platform as package
from sm_mlops import projects
from sm_mlops.aws import described
from sm_mlops.bootstrap import by_hand, catalog, needs
from sm_mlops.bootstrap import credential as credentials
from sm_mlops.bootstrap.boundaries import Boundaries
from sm_mlops.bootstrap.parameters import ROLES
from sm_mlops.bootstrap.platform import is_newer, version
from sm_mlops.deployment.trigger import FUNCTION, QUEUE
from sm_mlops.doctor.quotas import NEARLY
from sm_mlops.doctor.scene import Finding, Scene, failed, ok, warning

RULE = "sm-mlops-approved"
AUDIENCE = "sts.amazonaws.com"
VISIBLE = ("sagemaker:studio-visibility", "true")
KEY_DAYS = 90
# GitHub's fine-grained tokens expire after a year at most.
TOKEN_DAYS = 335


def drift(scene: Scene) -> Iterator[Finding]:
    """Compare the versions of this tool and of the platform."""
    assert scene.platform is not None
    ours, theirs = version(package.version()), version(scene.platform.parameters["TemplateVersion"])
    if ours == theirs:
        yield ok(f"{ours}, same as the platform")
    elif ours < theirs:
        yield warning(f"{ours}, older than the platform ({theirs})", "make upgrade")
    else:
        yield warning(f"{ours}, newer than the platform ({theirs})", scene.bootstrap)


def connection(scene: Scene) -> Iterator[Finding]:
    """Check that a person has authorized the connection."""
    found = by_hand.connection(scene.aws)
    if found is None:
        return
    name, status = found["ConnectionName"], found["ConnectionStatus"]
    if status == "AVAILABLE":
        yield ok(f"{name} is AVAILABLE")
        return
    why = "authorize" if status == "PENDING" else "repair"
    detail = f"{name} is {status}: someone has to {why} it"
    yield failed(detail, by_hand.how_to_authorize(scene.aws, found))


def product(scene: Scene) -> Iterator[Finding]:
    """Check whether Studio shows it, to whom, and with whose rights projects are created."""
    client, outputs = scene.client("servicecatalog"), scene.outputs
    identifier, portfolio = outputs["ProductId"], outputs["PortfolioId"]
    found = client.describe_product_as_admin(Id=identifier)
    name = found["ProductViewDetail"]["ProductViewSummary"]["Name"]
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
    if tags.get(VISIBLE[0]) == VISIBLE[1]:
        yield ok(f"{name}, visible in Studio")
    else:
        tag = f"Key={VISIBLE[0]},Value={VISIBLE[1]}"
        yield failed(
            f"{name} lacks the tag {'='.join(VISIBLE)}, so Studio does not show it",
            f"aws servicecatalog update-product --id {identifier} --add-tags {tag}",
        )
    yield from _grants(scene, portfolio)
    wanted = outputs["LaunchRoleArn"]
    pages = client.get_paginator("list_constraints_for_portfolio")
    roles = [
        _role_of(client.describe_constraint(Id=row["ConstraintId"]))
        for page in pages.paginate(PortfolioId=portfolio, ProductId=identifier)
        for row in page["ConstraintDetails"]
        if row["Type"] == "LAUNCH"
    ]
    if wanted in roles:
        yield ok(f"launch constraint with {wanted.rpartition('/')[2]}")
    else:
        has = f"has {roles[0]}" if roles else "is missing"
        yield failed(
            f"the launch constraint {has}, so projects are created with other permissions",
            f"in Service Catalog, give portfolio {portfolio} a launch constraint with {wanted}",
        )


def _role_of(constraint: dict[str, Any]) -> str:
    parameters = json.loads(constraint.get("ConstraintParameters") or "{}")
    return str(parameters.get("RoleArn") or parameters.get("LocalRoleName") or "")


def _grants(scene: Scene, portfolio: str) -> Iterator[Finding]:
    known = catalog.principals(scene.aws, portfolio)
    if known:
        yield ok(f"granted to {', '.join(arn.rpartition(':')[2] for arn in known)}")
    lacking = sorted({*_studio_roles(scene)} - {*known})
    if lacking:
        assert scene.platform is not None
        # An option replaces the whole list.
        named = needs.merged(scene.platform.parameters.get(ROLES, ""), lacking)
        yield warning(
            f"not granted to Studio's role {', '.join(lacking)}",
            f"{scene.bootstrap} --platform {ROLES}={named}",
        )
    elif not known and not scene.aws.sandbox:
        yield warning("granted to no one", scene.bootstrap)


def _studio_roles(scene: Scene) -> Iterator[str]:
    """Yield the default execution roles of people in Studio."""
    sagemaker = scene.client("sagemaker")
    for page in sagemaker.get_paginator("list_domains").paginate():
        for item in page["Domains"]:
            found = sagemaker.describe_domain(DomainId=item["DomainId"])
            role = found.get("DefaultUserSettings", {}).get("ExecutionRole")
            if role:
                yield str(role)


def boundaries(scene: Scene) -> Iterator[Finding]:
    """Check how much space the permissions boundaries have for further data and keys."""
    assert scene.platform is not None
    parameters = scene.platform.parameters
    if is_newer(parameters):
        yield ok("not checked: a newer tool made them")
        return
    found = Boundaries(scene.aws, scene.outputs["ArtifactBucket"])
    rows = found.used(parameters)
    # The fullest; among equally full ones, the smallest.
    name, (used, most) = max(rows.items(), key=lambda row: (row[1][0] / row[1][1], -row[1][1]))
    detail = f"data and keys of all repos: {used:,} of {most:,} characters used in {name}"
    yield warning(detail, found.remedy(parameters)) if used >= NEARLY * most else ok(detail)


def launch_role(scene: Scene) -> Iterator[Finding]:
    """Check that the role exists and that Service Catalog may assume it."""
    service = "servicecatalog.amazonaws.com"
    name = scene.outputs["LaunchRoleArn"].rpartition("/")[2]
    found = described(scene.client("iam").get_role, RoleName=name)
    if not found:
        # CloudFormation does not check whether what it created still exists.
        remedy = "create it again from LaunchRole in the platform's template"
        yield failed(f"{name} does not exist: someone deleted it by hand", remedy)
    elif service in json.dumps(found["Role"]["AssumeRolePolicyDocument"]):
        yield ok(name)
    else:
        yield failed(f"{name} no longer trusts {service}", scene.bootstrap)


def workflow_sign_in(scene: Scene) -> Iterator[Finding]:
    """Check GitHub's OpenID Connect provider, or the age of the user's key."""
    return _key(scene) if scene.aws.settings.project.uses_key else _provider(scene)


def _provider(scene: Scene) -> Iterator[Finding]:
    arn = scene.outputs.get("OidcProviderArn")
    if not arn:
        detail = "the platform has no OpenID Connect provider for GitHub"
        yield failed(detail, f"{scene.bootstrap} --platform OidcProviderArn=")
        return
    found = described(
        scene.client("iam").get_open_id_connect_provider, OpenIDConnectProviderArn=arn
    )
    if not found:
        yield failed(
            "the OpenID Connect provider for GitHub does not exist",
            "aws iam create-open-id-connect-provider --url "
            f"https://token.actions.githubusercontent.com --client-id-list {AUDIENCE}",
        )
    elif AUDIENCE in found.get("ClientIDList", []):
        yield ok(f"OpenID Connect provider with audience {AUDIENCE}")
    else:
        yield failed(
            f"the OpenID Connect provider lacks the audience {AUDIENCE}",
            f"aws iam add-client-id-to-open-id-connect-provider --client-id {AUDIENCE} "
            f"--open-id-connect-provider-arn {arn}",
        )


def _key(scene: Scene) -> Iterator[Finding]:
    for access in projects.ACCESSES:
        yield from _key_of(scene, access.name_in(scene.aws.settings.project.project))


def _key_of(scene: Scene, user: str) -> Iterator[Finding]:
    rotate = f"{scene.aws.command} secret rotate"
    found = described(scene.client("iam").list_access_keys, UserName=user)
    if not found:
        yield failed(f"there is no user {user}", scene.bootstrap)
        return
    active = [key for key in found["AccessKeyMetadata"] if key["Status"] == "Active"]
    if not active:
        yield failed(f"user {user} has no active key", rotate)
        return
    age = max(_days(key["CreateDate"]) for key in active)
    shown = f"key of user {user}, {_old(age)}"
    yield warning(shown, rotate) if age > KEY_DAYS else ok(shown)


def credential(scene: Scene) -> Iterator[Finding]:
    """Check its kind and its age; only the trigger reads its value."""
    assert scene.platform is not None
    rotate = f"{scene.aws.command} secret rotate"
    found = credentials.kept(scene.aws)
    if found is None:
        yield failed(f"there is no secret {credentials.SECRET}", scene.bootstrap)
        return
    if not found:
        yield failed("it has no value: approvals cannot start deployments", scene.bootstrap)
        return
    kinds = " and ".join(found)
    shown = scene.client("secretsmanager").describe_secret(SecretId=credentials.SECRET)
    changed = shown.get("LastChangedDate")
    age = _days(changed) if changed else 0
    wanted = {"jenkins"} if scene.aws.settings.project.ci == "jenkins" else {"token", "app"}
    if not wanted & {*found}:
        yield failed(f"{kinds} only, which this repo cannot use", rotate)
    elif "token" in found and age > TOKEN_DAYS:
        yield warning(f"{kinds}, {_old(age)}; tokens expire after a year at most", rotate)
    else:
        yield ok(f"{kinds}, {_old(age)}")
    if "app" in found and scene.platform.parameters.get("HasLayer") != "true":
        detail = "a GitHub App's, but the trigger lacks the layer to sign in"
        yield failed(detail, scene.bootstrap)


def trigger(scene: Scene) -> Iterator[Finding]:
    """Check the function and its rule."""
    found = described(scene.client("lambda").get_function_configuration, FunctionName=FUNCTION)
    if not found:
        yield failed(f"there is no function {FUNCTION}", scene.bootstrap)
        return
    state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
    if state not in ("Active", "Inactive") or update == "Failed":
        why = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason given"
        detail = f"{FUNCTION} is {state}, its last update {update}: {why}"
        yield failed(detail, scene.bootstrap)
    else:
        yield ok(f"{FUNCTION}, {found['Runtime']}, {found['MemorySize']} MB")
    rule = described(scene.client("events").describe_rule, Name=RULE)
    if not rule:
        yield failed(
            f"there is no rule {RULE}: approvals cannot start deployments", scene.bootstrap
        )
    elif rule.get("State") == "DISABLED":
        detail = f"rule {RULE} is disabled: approvals cannot start deployments"
        yield failed(detail, f"aws events enable-rule --name {RULE}")
    else:
        yield ok(f"rule {RULE} is enabled")


def failed_approvals(scene: Scene) -> Iterator[Finding]:
    """Check the queue of approvals, of all projects of the account."""
    name, queue = "ApproximateNumberOfMessages", scene.outputs["FailedApprovalsUrl"]
    found = scene.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=[name])
    count = int(found["Attributes"][name])
    if not count:
        yield ok(f"none in {QUEUE}")
        return
    noun = "event" if count == 1 else "events"
    yield failed(
        f"{count} {noun} of this account led to nothing: approvals, retrainings or messages",
        f"{scene.aws.command} trigger VERSION; to list them: aws sqs receive-message --queue-url "
        f"{queue}",
    )


def subscribers(scene: Scene) -> Iterator[Finding]:
    """Check that someone gets the messages."""
    topic = scene.outputs.get("TopicArn", "")
    if not topic:
        return
    pages = scene.client("sns").get_paginator("list_subscriptions_by_topic")
    rows = [row for page in pages.paginate(TopicArn=topic) for row in page["Subscriptions"]]
    count = sum(row["SubscriptionArn"].startswith("arn:") for row in rows)
    if scene.aws.sandbox:
        yield ok("mlops sandbox messages prints what they would get")
    elif count:
        yield ok(f"{count} of {topic.rpartition(':')[2]}")
    else:
        waits = f"; {len(rows)} not confirmed" if rows else ""
        yield warning(
            f"nobody gets the messages of this account{waits}",
            f"{scene.bootstrap} --subscriber ADDRESS",
        )


def _days(moment: datetime) -> int:
    return (datetime.now(UTC) - moment).days


def _old(days: int) -> str:
    return "set today" if days < 1 else f"{days} day{'s' if days > 1 else ''} old"
