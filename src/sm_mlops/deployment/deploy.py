"""Brings one approved version to one stage, by `infra/endpoint.yml`, and proves that it runs there.

What is deployed is named by its ARN; nothing here ever looks for the latest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console

from sm_mlops import registry, stacks
from sm_mlops.aws import Aws, error_code
from sm_mlops.console import tell
from sm_mlops.deployment import access, endpoints, stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.registry import Version
from sm_mlops.stacks import Stack, StackFailed

_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]+):sagemaker:(?P<region>[a-z0-9-]+):(?P<account>\d{12})"
    r":model-package/(?P<group>[^/]+)/(?P<version>\d+)"
)
CAPABILITIES = ("CAPABILITY_IAM",)
# The versions that this stage ran, in their order, for `mlops rollback`. A tag of the stack: where
# an update is rolled back, so is the tag.
TRAIL = "deployed-versions"
TAG_LENGTH = 256
LOG_LINES = 15


@dataclass(frozen=True)
class Deployment:
    """`changed` is False when the stage already ran exactly this; `planned` when it was only
    looked at."""

    stage: str
    stack: str
    endpoint: str
    kind: str
    version: int
    model_package: str
    commit: str
    changed: bool
    planned: bool
    seconds: float
    changes: tuple[dict[str, Any], ...]
    left: tuple[str, ...] = ()


class DeploymentFailed(MlopsError):
    """The stack did not get there. `log`: the last the endpoint's container said; `running`: the
    version that the stage runs nevertheless."""

    def __init__(self, message: str, log: tuple[str, ...], running: int | None) -> None:
        super().__init__(message)
        self.log, self.running = log, running


def deploy(
    aws: Aws,
    stage: Stage,
    arn: str,
    commit: str | None,
    console: Console,
    *,
    execute: bool = True,
    continue_rollback: bool = False,
    trail: tuple[int, ...] | None = None,
) -> Deployment:
    """Deploys the version `arn`; returns once the endpoint is in service with this very version.

    `trail` replaces the record of versions that ran before. Raises MlopsError for what is refused
    before anything is changed, DeploymentFailed for what began and did not succeed.
    """
    began = time.monotonic()
    package = approved(aws, arn, commit)
    there = access.enter(aws, stage)
    if there.account != aws.account:
        _require_bucket(aws, there, stage)
        _require_access(aws, there.account)
    found = stacks.describe(there, stage.stack)
    stages.require_own(aws.settings, stage, found.parameters if found else {})
    before = stacks.make_ready(
        there, stage.stack, console, continue_rollback=continue_rollback, execute=execute
    )
    if before is not None and before.status not in stacks.READY:
        before = None
    _refuse_conversion(aws, before, stage)
    _note_single_zone(stage, console)
    template = stages.template(aws.settings)
    parameters = {**_boundary(there), **_parameters(aws, stage, package)}
    tags = {
        **stage.tags,
        "project": aws.settings.project.project,
        "stage": stage.name,
        "model-version": str(package.version),
        "commit": _hash(package),
        TRAIL: _join(_longer(trail if trail is not None else read_trail(before), package.version)),
    }
    started = datetime.now().astimezone()
    try:
        unscaled = execute and _free_from_autoscaling(there, before, stage, parameters, console)
        try:
            outcome = stacks.deploy(
                *(there, stage.stack, template, parameters, tags, CAPABILITIES, console),
                execute=execute,
                continue_rollback=continue_rollback,
            )
        except Exception:
            if unscaled and before is not None:
                _scale_again(there, before, console)
            raise
    except StackFailed as failure:
        raise _with_log(there, stage, failure, started) from failure
    planned = not execute and bool(outcome.changes)
    if not planned:
        _prove(there, stage, package)
    return Deployment(
        stage=stage.name,
        stack=stage.stack,
        endpoint=stage.stack,
        kind=stage.kind,
        version=package.version,
        model_package=package.arn,
        commit=package.commit,
        changed=outcome.executed,
        planned=planned,
        seconds=round(time.monotonic() - began, 1),
        changes=tuple(vars(change) for change in outcome.changes),
        left=tuple(f"{event.resource} {event.physical}: {event.reason}" for event in outcome.left),
    )


def approved(aws: Aws, arn: str, commit: str | None = None) -> Version:
    """The version behind an ARN. Raises MlopsError, in one line, when it must not be deployed."""
    settings = aws.settings
    found = _ARN.fullmatch(arn)
    if not found:
        raise MlopsError(
            f"{arn} is not the ARN of a model package version "
            f"({aws.command} models --json lists them)"
        )
    number = int(found["version"])
    region = settings.project.region
    if found["region"] != region:
        raise MlopsError(f"version {number} is in region {found['region']}, this repo in {region}")
    # SageMaker writes the names in ARNs in lower case.
    if found["group"].lower() != settings.model_package_group.lower():
        raise MlopsError(
            f"{found['group']}/{number} is not a version of this project's group "
            f"{settings.model_package_group}"
        )
    if found["account"] != aws.account:
        raise MlopsError(
            f"version {number} is in account {found['account']}, "
            f"but you are signed in to {aws.account}"
        )
    package = registry.version(aws, number)
    if package.approval != "Approved":
        raise MlopsError(
            f"version {number} is {package.approval}, not Approved: {aws.command} approve {number}"
        )
    if commit and commit != package.commit:
        raise MlopsError(
            f"version {number} was trained from commit {package.commit or 'unknown'}, not {commit}"
        )
    return package


def _require_access(aws: Aws, account: str) -> None:
    lacking = access.missing(aws, account)
    if lacking:
        raise MlopsError(
            f"account {account} may not read {' nor '.join(lacking)} yet: {aws.command} share"
        )


def _require_bucket(aws: Aws, there: Aws, stage: Stage) -> None:
    """Other accounts may read the registry's bucket, and write into one of their own."""
    given = stage.parameters
    writes = stage.kind == "asynchronous" or float(given.get("DataCapturePercent", 0)) > 0
    if writes and not given.get("OutputBucket"):
        raise MlopsError(
            f"infra/{stage.name}.json: Parameters.OutputBucket must name a bucket of account "
            f"{there.account}: its endpoint may not write into {aws.bucket}"
        )


def _note_single_zone(stage: Stage, console: Console) -> None:
    subnets = [name for name in stage.parameters.get("SubnetIds", "").split(",") if name]
    count = int(stage.parameters.get("InstanceCount", 1))
    if len(subnets) == 1 and count > 1:
        tell(
            console,
            f"note: all {count} instances of {stage.stack} will be in the one zone of {subnets[0]}",
        )


def _refuse_conversion(aws: Aws, before: Stack | None, stage: Stage) -> None:
    """What UpdateEndpoint refuses, said before minutes have gone by: of all changes of kind only
    that of a serverless endpoint to a real-time one is possible.

    Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-update.html and,
    for asynchronous ones, https://github.com/aws/sagemaker-python-sdk/pull/3124
    """
    had = before.outputs.get("EndpointKind", stage.kind) if before else stage.kind
    if had != stage.kind and (had, stage.kind) != ("serverless", "real-time"):
        raise MlopsError(
            f"{stage.stack} is {had}, and SageMaker makes no such endpoint {stage.kind}: "
            f"{aws.command} destroy {stage.name} first"
        )


def _parameters(aws: Aws, stage: Stage, package: Version) -> dict[str, str | None]:
    declared = stages.template_parameters(stages.template(aws.settings))
    own = {
        "Project": aws.settings.project.project,
        "Stage": stage.name,
        "ModelPackageArn": package.arn,
        "ArtifactBucket": aws.bucket,
        "OutputBucket": aws.bucket,
        **_artifact_key(aws),
    }
    return {name: value for name, value in {**own, **stage.parameters}.items() if name in declared}


def _boundary(there: Aws) -> dict[str, str | None]:
    """The permissions boundary of infra/platform.yml, where the account has it: without it the
    role of the workflows may make no role for an endpoint."""
    from botocore.exceptions import ClientError

    settings = there.settings
    name = f"sm-mlops-boundary-{settings.project.region}"
    arn = f"arn:{settings.partition}:iam::{there.account}:policy/{name}"
    declared = stages.template_parameters(stages.template(settings))
    if "PermissionsBoundaryArn" not in declared:
        return {}
    try:
        there.client("iam").get_policy(PolicyArn=arn)
    except ClientError as error:
        # Who may not look may make roles without it, or is told by IAM.
        if error_code(error) not in ("NoSuchEntity", "AccessDenied"):
            raise
        return {}
    return {"PermissionsBoundaryArn": arn}


def _artifact_key(aws: Aws) -> dict[str, str]:
    """The key that training has encrypted model.tar.gz with, which the endpoint's role needs."""
    key = aws.settings.aws.kms_key
    if not key:
        return {}
    if ":key/" not in key:
        # Policies name a key by its ARN, mlops.yaml perhaps by its id or an alias.
        key = aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"]
    return {"ArtifactKmsKeyArn": key}


def _hash(package: Version) -> str:
    """The commit to check out for this version; with changes nobody committed there is none."""
    return package.commit if re.fullmatch("[0-9a-f]{7,64}", package.commit) else "unknown"


# Autoscaling


def _free_from_autoscaling(
    there: Aws,
    before: Stack | None,
    stage: Stage,
    parameters: Mapping[str, str | None],
    console: Console,
) -> bool:
    """Takes the endpoint out of autoscaling where the update to come would be refused otherwise:
    the instance type of a variant cannot change while it is a scalable target.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html
    """
    if before is None or "Autoscaling" not in before.parameters:
        return False
    declared = stages.template_parameters(stages.template(there.settings))
    wanted = parameters.get("InstanceType") or declared["InstanceType"].get("Default")
    if before.parameters.get("InstanceType") == wanted or not _scalable(there, stage.stack):
        return False
    tell(console, f"InstanceType changes: taking {stage.stack} out of autoscaling first")
    _set_autoscaling(there, before, "off", console)
    return True


def _scale_again(there: Aws, before: Stack, console: Console) -> None:
    """Never in the way of the error that made this necessary: a deployment does it as well."""
    tell(console, f"putting {before.name} back into autoscaling")
    try:
        _set_autoscaling(there, before, before.parameters["Autoscaling"], console)
    except MlopsError as error:
        tell(console, f"it stays out of autoscaling until the next deployment: {error}")


def _set_autoscaling(there: Aws, before: Stack, value: str, console: Console) -> None:
    same: dict[str, str | None] = dict.fromkeys(before.parameters)
    parameters = {**same, "Autoscaling": value}
    stacks.deploy(there, before.name, None, parameters, before.tags, CAPABILITIES, console)


def _scalable(there: Aws, endpoint: str) -> bool:
    answer = there.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker",
        ResourceIds=[f"endpoint/{endpoint}/variant/{endpoints.VARIANT}"],
    )
    return bool(answer["ScalableTargets"])


# Proof, or what went wrong


def _prove(there: Aws, stage: Stage, package: Version) -> None:
    """Raises MlopsError unless the endpoint is in service with this very version."""
    found = endpoints.settled(there, stage.stack)
    again = f"{there.command} destroy {stage.name}, then deploy again"
    if found is None:
        raise MlopsError(f"the stack is complete, but it has no endpoint {stage.stack}: {again}")
    if found.status != "InService":
        why = f" ({found.reason})" if found.reason else ""
        raise MlopsError(f"the stack is complete, but its endpoint is {found.status}{why}: {again}")
    if found.package != package.arn:
        runs = f"version {found.version}" if found.version else f"model {found.model}"
        raise MlopsError(
            f"the stack is complete, but its endpoint runs {runs}, which somebody else put there: "
            f"{_bring_back(there, stage)}, then deploy again"
        )


def _bring_back(there: Aws, stage: Stage) -> str:
    """CloudFormation does not look at what was changed behind its back; this takes no endpoint
    out of service."""
    stack = stacks.describe(there, stage.stack)
    assert stack is not None
    found = {item.name: item.physical for item in stacks.resources(there, stack)}
    config = found["EndpointConfig"].rpartition("/")[2]
    return (
        f"aws sagemaker update-endpoint --endpoint-name {stage.stack} "
        f"--endpoint-config-name {config}"
    )


def _with_log(
    there: Aws, stage: Stage, failure: StackFailed, started: datetime
) -> DeploymentFailed:
    log: list[str] = []
    if failure.event and failure.event.kind == "AWS::SageMaker::Endpoint":
        log = endpoints.log_lines(there, stage.stack, started)[-LOG_LINES:]
    found = endpoints.describe(there, stage.stack)
    running = found.version if found and found.status == "InService" else None
    return DeploymentFailed(str(failure), tuple(log), running)


# The way back


def read_trail(stack: Stack | None) -> tuple[int, ...]:
    """The versions that a stage ran, the one it runs now last."""
    text = stack.tags.get(TRAIL, "") if stack else ""
    return tuple(int(word) for word in text.split() if word.isdigit())


def _longer(trail: tuple[int, ...], version: int) -> tuple[int, ...]:
    return trail if trail[-1:] == (version,) else (*trail, version)


def _join(trail: tuple[int, ...]) -> str:
    words = [str(number) for number in trail]
    while len(text := " ".join(words)) > TAG_LENGTH:
        words.pop(0)
    return text


@dataclass(frozen=True)
class WayBack:
    """The version to return to, and the trail that the stage has then."""

    running: int
    arn: str
    version: int
    trail: tuple[int, ...]


def way_back(aws: Aws, stage: Stage, to: int | None) -> WayBack:
    """What `mlops rollback` would deploy: the version that ran before, or the one named.

    Raises MlopsError where that is not known or not approved any more: nothing is guessed.
    """
    from sm_mlops import registry

    there = access.enter(aws, stage)
    running = endpoints.serving(there, stage.stack, stage.name).version
    if running is None:
        raise MlopsError(f"{stage.stack} runs no version of the registry")
    trail = read_trail(stacks.describe(there, stage.stack))
    # What was put there by other means has no place in the trail.
    before = _until(trail, running) if running in trail else ()
    number = to if to is not None else next(iter(before[::-1]), None)
    choices = [
        found.version
        for found in registry.versions(aws)
        if found.approval == "Approved" and found.version != running
    ]
    hint = (
        f"name one with --to (approved: {', '.join(map(str, choices))})"
        if choices
        else "no other version is approved"
    )
    if number is None:
        raise MlopsError(
            f"stage {stage.name} runs version {running} and has no record of one before: {hint}"
        )
    if number == running:
        raise MlopsError(f"stage {stage.name} runs version {running} already")
    found = registry.version(aws, number)
    if found.approval != "Approved":
        which = "the version before, " if to is None else ""
        raise MlopsError(f"{which}version {number}, is {found.approval}: {hint}")
    before = (*_until(before, number), number) if number in before else (*before, number)
    return WayBack(running, found.arn, number, before)


def _until(trail: tuple[int, ...], version: int) -> tuple[int, ...]:
    """What ran before this version did so for the last time."""
    return trail[: len(trail) - 1 - trail[::-1].index(version)]
