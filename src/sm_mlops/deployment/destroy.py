"""Delete stages, and on request the registry and the data; then ask each service whether anything
billable remains.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sm_mlops import display, executions, objects, projects, registry, stacks
from sm_mlops.aws import ABSENT, DENIED, Aws, exists, ignoring
from sm_mlops.deployment import access, endpoints, stages, watch
from sm_mlops.deployment.stages import Stage
from sm_mlops.display import tell
from sm_mlops.stacks import Resource, Stack

ENDPOINT = "AWS::SageMaker::Endpoint"
GROUP = "AWS::SageMaker::ModelPackageGroup"


@dataclass(frozen=True)
class Deletion:
    """A stage to delete. `stray` is True if an endpoint of its name belongs to no stack.

    `stacks` has its stacks in the order of deletion, `resources` what they consist of.
    """

    stage: Stage
    account: Aws
    stacks: tuple[Stack, ...]
    resources: tuple[Resource, ...]
    stray: bool

    @property
    def empty(self) -> bool:
        return not self.stacks and not self.stray


@dataclass(frozen=True)
class Kept:
    """What is kept by default: numbers of versions and objects, the objects' size in bytes."""

    versions: int
    objects: int
    size: int
    bucket: str


def chosen(aws: Aws, name: str | None) -> list[Stage]:
    """Return the stage of this name, or all, among them those that run here without a file."""
    known = stages.names(aws.settings)
    if name in known:
        return [stages.load(aws.settings, name)]
    forgotten = list(endpoints.forgotten(aws, name or ""))
    if name is None:
        return [*(stages.load(aws.settings, each) for each in known), *forgotten]
    return forgotten or [stages.load(aws.settings, name)]


def look(aws: Aws, stage: Stage) -> Deletion:
    """Return the stacks and the resources of a stage."""
    there = access.enter(aws, stage)
    second = None
    # An older project's role may not even ask.
    with ignoring(*DENIED):
        second = stacks.describe(there, watch.stack_name(stage))
    present = tuple(filter(None, (second, stacks.describe(there, stage.stack))))
    for stack in present:
        stages.require_own(aws.settings, stage, stack.parameters)
    found = tuple(item for stack in present for item in stacks.resources(there, stack))
    owned = any(item.kind == ENDPOINT and item.physical for item in found)
    stray = not owned and endpoints.describe(there, stage.stack) is not None
    return Deletion(stage, there, present, found, stray)


def table(deletions: Iterable[Deletion]) -> Table:
    view = display.table("stage", "resource", "type", "name")
    for column in view.columns:
        column.overflow = "fold"
    for item in deletions:
        for resource in item.resources:
            name = resource.physical
            short = name.rpartition("/")[2] if name.startswith("arn:") else name
            view.add_row(item.stage.name, resource.name, resource.kind, short)
        if item.stray:
            view.add_row(item.stage.name, "-", ENDPOINT, item.stage.stack)
    return view


def destroy(deletion: Deletion, console: Console) -> list[str]:
    """Delete the stage; return what remains of it. Raises StackFailed."""
    name, there = deletion.stage.stack, deletion.account
    for stack in deletion.stacks:
        settled = stacks.settle(there, stack, console)
        if settled is not None:
            _await(there, name, console)
            stacks.delete(there, settled, console)
    if deletion.stray:
        _await(there, name, console)
        there.sagemaker.delete_endpoint(EndpointName=name)
        endpoints.settled(there, name)
    return list(left(there, name, deletion.resources))


def _await(there: Aws, name: str, console: Console) -> None:
    """Wait while the endpoint changes, as when it scales: SageMaker deletes none then."""
    found = endpoints.describe(there, name)
    if found and found.status in endpoints.CHANGING:
        tell(console, f"{name} is {found.status}: waiting")
        endpoints.settled(there, name)


def left(there: Aws, name: str, resources: Iterable[Resource]) -> Iterator[str]:
    """Yield what still exists of a stage: its resources, and others with its name."""
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
    for target in endpoints.scalable_targets(there, name):
        yield f"scalable target {target['ResourceId']}"
    alarms = there.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{name}-")
    ours = by_kind.get("AWS::CloudWatch::Alarm", ())
    for alarm in alarms["MetricAlarms"]:
        # The name of another project's stage may begin with this one's.
        watches = {"Name": "EndpointName", "Value": name} in alarm.get("Dimensions", ())
        if watches or alarm["AlarmName"] in ours:
            yield f"alarm {alarm['AlarmName']}"
    for schedule in by_kind.get("AWS::Scheduler::Schedule", ()):
        if exists(there.client("scheduler").get_schedule, Name=schedule):
            yield f"schedule {schedule}"
    iam = there.client("iam")
    for role in by_kind.get("AWS::IAM::Role", ()):
        if exists(iam.get_role, RoleName=role):
            yield f"role {role}"


def executing(aws: Aws) -> list[str]:
    """Return the ARNs of running executions, of trainings and of checks."""
    return [
        item["PipelineExecutionArn"]
        for pipeline in (aws.settings.pipeline, aws.settings.monitor_pipeline)
        for item in executions.summaries(aws, pipeline)
        if item["PipelineExecutionStatus"] not in executions.FINAL
    ]


def stop(aws: Aws, running: Iterable[str], console: Console, wait: bool) -> None:
    """Stop executions. `wait` for their end: a pipeline cannot be deleted before."""
    for arn in running:
        aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    began, told = time.monotonic(), False
    while wait and executing(aws):
        if not told:
            display.tell(console, "Waiting until running executions have stopped")
        told = True
        time.sleep(display.pause(began, longest=10.0))


def kept(aws: Aws) -> Kept:
    """Return what the registry and the bucket have of this project."""
    held = list(objects.versions(aws, aws.bucket, f"{aws.settings.prefix}/"))
    return Kept(
        versions=sum(1 for _ in registry.versions(aws)),
        objects=len(held),
        size=sum(item.get("Size", 0) for item in held),
        bucket=f"s3://{aws.bucket}/{aws.settings.prefix}/",
    )


def delete_registry(aws: Aws) -> list[str]:
    """Delete the pipelines, all versions and their group; return what remains.

    A group of the SageMaker project is kept: deleting the project deletes it, and fails without it.
    """
    settings, sagemaker = aws.settings, aws.sagemaker
    for found in list(registry.versions(aws)):
        sagemaker.delete_model_package(ModelPackageName=found.arn)
    project = projects.find(aws)
    held = stacks.resources(aws, project.stack) if project and project.stack else []
    if not any(item.kind == GROUP and item.physical for item in held):
        with ignoring(*ABSENT):
            group = settings.model_package_group
            sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    for pipeline in (settings.pipeline, settings.monitor_pipeline):
        with ignoring(*ABSENT):
            sagemaker.delete_pipeline(PipelineName=pipeline)
    return [f"version {item.version}" for item in registry.versions(aws)]


def delete_data(aws: Aws, deletions: Iterable[Deletion]) -> list[str]:
    """Delete all objects of this project and the logs of its endpoints; return what remains."""
    prefix = f"{aws.settings.prefix}/"
    objects.delete_versions(aws, aws.bucket, prefix)
    for item in deletions:
        with ignoring("ResourceNotFoundException"):
            item.account.client("logs").delete_log_group(
                logGroupName=f"{endpoints.LOG_GROUP}/{item.stage.stack}"
            )
    rest = sum(1 for _ in objects.versions(aws, aws.bucket, prefix))
    return [f"{rest} objects below s3://{aws.bucket}/{prefix}"] if rest else []
