"""Takes stages away, and on request the registry and the data, and then asks every service whether
anything that costs money is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from sm_mlops import executions, objects, projects, registry, stacks
from sm_mlops.aws import Aws, error_code, exists
from sm_mlops.console import tell
from sm_mlops.deployment import access, endpoints, stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.stacks import Resource, Stack

ENDPOINT = "AWS::SageMaker::Endpoint"
GROUP = "AWS::SageMaker::ModelPackageGroup"


@dataclass(frozen=True)
class Doomed:
    """A stage as it is: its stack with all it holds, None where there is none; `stray` is an
    endpoint of its name that belongs to no stack."""

    stage: Stage
    account: Aws
    stack: Stack | None
    resources: tuple[Resource, ...]
    stray: bool

    @property
    def empty(self) -> bool:
        return self.stack is None and not self.stray


@dataclass(frozen=True)
class Kept:
    """What stays: so many versions and objects, and their size in bytes."""

    versions: int
    objects: int
    size: int
    bucket: str


def chosen(aws: Aws, name: str | None) -> list[Stage]:
    """The stage of this name, or all; also those that run here though their file is gone."""
    known = stages.names(aws.settings)
    if name in known:
        return [stages.load(aws.settings, name)]
    forgotten = list(endpoints.forgotten(aws))
    if name is None:
        return [*(stages.load(aws.settings, each) for each in known), *forgotten]
    found = [stage for stage in forgotten if stage.name == name]
    return found or [stages.load(aws.settings, name)]


def look(aws: Aws, stage: Stage) -> Doomed:
    """What there is to take away. Changes nothing."""
    there = access.enter(aws, stage)
    stack = stacks.describe(there, stage.stack)
    stages.require_own(aws.settings, stage, stack.parameters if stack else {})
    found = tuple(stacks.resources(there, stack)) if stack else ()
    owned = any(item.kind == ENDPOINT and item.physical for item in found)
    stray = not owned and endpoints.describe(there, stage.stack) is not None
    return Doomed(stage, there, stack, found, stray)


def table(doomed: Iterable[Doomed]) -> Table:
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("stage", "resource", "type", "name"):
        view.add_column(heading, overflow="fold")
    for item in doomed:
        for resource in item.resources:
            view.add_row(
                item.stage.name,
                resource.name,
                resource.kind,
                resource.physical.rpartition("/")[2]
                if resource.physical.startswith("arn:")
                else resource.physical,
            )
        if item.stray:
            view.add_row(item.stage.name, "-", ENDPOINT, item.stage.stack)
    return view


def destroy(doomed: Doomed, console: Console) -> list[str]:
    """Removes the stage; returns what is left of it, which is nothing when all went well.

    Raises StackFailed with the first reason when CloudFormation could not delete it.
    """
    name, there = doomed.stage.stack, doomed.account
    if doomed.stack is not None:
        ready = _wait(there, doomed.stack, console)
        if ready is not None:
            stacks.delete(there, ready, console)
    if doomed.stray:
        there.sagemaker.delete_endpoint(EndpointName=name)
        endpoints.settled(there, name)
    return list(left(there, name, doomed.resources))


def _wait(there: Aws, stack: Stack, console: Console) -> Stack | None:
    now: Stack | None = stack
    if stack.busy:
        tell(console, f"{stack.name} is {stack.status}: waiting for that to end")
        stacks.follow(there, stack, stacks.newest_event(there, stack.arn), console)
        now = stacks.describe(there, stack.name)
    return now


# Proof


def left(there: Aws, name: str, resources: Iterable[Resource]) -> Iterator[str]:
    """What still exists of a stage, by asking each service: the resources that it had, and
    whatever else goes by its name."""
    by_kind: dict[str, list[str]] = {}
    for item in resources:
        if item.physical:
            by_kind.setdefault(item.kind, []).append(item.physical)
    sagemaker = there.sagemaker
    if endpoints.describe(there, name) is not None:
        yield f"endpoint {name}"
    for kind, operation, parameter, word in (
        ("EndpointConfig", sagemaker.describe_endpoint_config, "EndpointConfigName", "config"),
        ("Model", sagemaker.describe_model, "ModelName", "model"),
    ):
        for physical in by_kind.get(f"AWS::SageMaker::{kind}", ()):
            given = physical.rpartition("/")[2]
            if exists(operation, **{parameter: given}):
                yield f"{word} {given}"
    targets = there.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker",
        ResourceIds=[f"endpoint/{name}/variant/{endpoints.VARIANT}"],
    )
    for target in targets["ScalableTargets"]:
        yield f"scalable target {target['ResourceId']}"
    alarms = there.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{name}-")
    for alarm in alarms["MetricAlarms"]:
        # Another project's stage may be called like this one and more.
        if {"Name": "EndpointName", "Value": name} in alarm.get("Dimensions", ()):
            yield f"alarm {alarm['AlarmName']}"
    iam = there.client("iam")
    for role in by_kind.get("AWS::IAM::Role", ()):
        if exists(iam.get_role, RoleName=role):
            yield f"role {role}"


# What belongs to no stage


def executing(aws: Aws) -> list[str]:
    """ARNs of executions whose jobs are running."""
    from botocore.exceptions import ClientError

    try:
        return [
            item["PipelineExecutionArn"]
            for item in aws.pages(
                "list_pipeline_executions",
                "PipelineExecutionSummaries",
                PipelineName=aws.settings.pipeline,
            )
            if item["PipelineExecutionStatus"] not in executions.FINAL
        ]
    except ClientError as error:
        if error_code(error) not in ("ResourceNotFound", "ResourceNotFoundException"):
            raise
        return []


def stop_executions(aws: Aws, arns: Iterable[str]) -> None:
    for arn in arns:
        aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)


def kept(aws: Aws) -> Kept:
    """What the registry and the bucket hold of this project."""
    held = list(_objects(aws))
    return Kept(
        versions=sum(1 for _ in registry.versions(aws)),
        objects=len(held),
        size=sum(item.get("Size", 0) for item in held),
        bucket=f"s3://{aws.bucket}/{aws.settings.prefix}/",
    )


def _objects(aws: Aws) -> Iterator[dict[str, Any]]:
    return objects.versions(aws, aws.bucket, f"{aws.settings.prefix}/")


def delete_registry(aws: Aws) -> list[str]:
    """Removes pipeline, versions, and the group unless it is the project's, which takes it along
    when it goes and could not go without it; returns what is left."""
    from botocore.exceptions import ClientError

    settings, sagemaker = aws.settings, aws.sagemaker
    for found in list(registry.versions(aws)):
        sagemaker.delete_model_package(ModelPackageName=found.arn)
    gone = ("ValidationException", "ResourceNotFound", "ResourceNotFoundException")
    operations = [(sagemaker.delete_pipeline, {"PipelineName": settings.pipeline})]
    if not _is_projects(aws):
        group = {"ModelPackageGroupName": settings.model_package_group}
        operations.insert(0, (sagemaker.delete_model_package_group, group))
    for operation, request in operations:
        try:
            operation(**request)
        except ClientError as error:
            if error_code(error) not in gone:
                raise
    return [f"version {item.version}" for item in registry.versions(aws)]


def _is_projects(aws: Aws) -> bool:
    """Whether the model package group belongs to the SageMaker project."""
    found = projects.find(aws)
    held = stacks.resources(aws, found.stack) if found and found.stack else []
    return any(item.kind == GROUP and item.physical for item in held)


def delete_data(aws: Aws, places: Iterable[Doomed]) -> list[str]:
    """Removes all objects of this project and its endpoints' logs; returns what is left."""
    from botocore.exceptions import ClientError

    objects.delete_versions(aws, aws.bucket, f"{aws.settings.prefix}/")
    for place in places:
        try:
            place.account.client("logs").delete_log_group(
                logGroupName=f"{endpoints.LOG_GROUP}/{place.stage.stack}"
            )
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
    rest = sum(1 for _ in _objects(aws))
    return [f"{rest} objects below s3://{aws.bucket}/{aws.settings.prefix}/"] if rest else []
