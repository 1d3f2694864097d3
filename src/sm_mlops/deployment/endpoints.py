"""SageMaker endpoints: what they run, and what they have logged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sm_mlops import display, stacks
from sm_mlops.aws import ABSENT, DENIED, Aws, described, ignoring
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError, one_line

VARIANT = "AllTraffic"
BATCH = "batch only"
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
# The tag that names the configuration that `mlops smoke` has tested last.
TESTED = "tested-config"
# How long the next deployment of a workflow waits for the test of the one before.
TEST_TIME = timedelta(minutes=10)
LOG_GROUP = "/aws/sagemaker/Endpoints"


@dataclass(frozen=True)
class Endpoint:
    """`package` is the ARN of its version, empty if its model is no model package; `since` is when
    that model was created, `changed` when the endpoint was last updated.

    Of a stage that is batch only it stands for the model: `kind` is batch, `status` is BATCH.
    """

    name: str
    status: str
    reason: str
    kind: str
    config: str
    model: str
    package: str
    since: datetime
    changed: datetime

    @property
    def version(self) -> int | None:
        return int(self.package.rpartition("/")[2]) if self.package else None


def describe(aws: Aws, name: str) -> Endpoint | None:
    """Return the endpoint of this name, None if it does not exist."""
    found = _shown(aws, "describe_endpoint", EndpointName=name)
    if not found:
        return None
    # Both may be missing from the answer, or have been deleted.
    config_name = found.get("EndpointConfigName", "")
    config = _shown(aws, "describe_endpoint_config", EndpointConfigName=config_name)
    variant = config.get("ProductionVariants", [{}])[0]
    kind = "serverless" if "ServerlessConfig" in variant else "real-time"
    if "AsyncInferenceConfig" in config:
        kind = "asynchronous"
    model_name = variant.get("ModelName", "")
    model = _shown(aws, "describe_model", ModelName=model_name)
    containers = model.get("Containers") or [model.get("PrimaryContainer", {})]
    return Endpoint(
        name=name,
        status=found["EndpointStatus"],
        reason=one_line(found.get("FailureReason", "")),
        kind=kind,
        config=config_name,
        model=model_name,
        package=containers[0].get("ModelPackageName", ""),
        since=model.get("CreationTime") or found["CreationTime"],
        changed=found["LastModifiedTime"],
    )


def running(aws: Aws, name: str) -> Endpoint | None:
    """Return the endpoint of this name, or the model of a stage that is batch only, or None."""
    found = describe(aws, name)
    stack = stacks.describe(aws, name) if found is None else None
    if stack is None or stack.outputs.get("EndpointKind") != "batch":
        return found
    shown = model(aws, stack)
    if not shown:
        return None
    package, since = shown["PrimaryContainer"].get("ModelPackageName", ""), shown["CreationTime"]
    return Endpoint(name, BATCH, "", "batch", "", shown["ModelName"], package, since, since)


def model(aws: Aws, stack: stacks.Stack) -> dict[str, Any]:
    """Return the model of a stage's stack as SageMaker describes it; {} if there is none."""
    held = {item.name: item.physical for item in stacks.resources(aws, stack)}
    return _shown(aws, "describe_model", ModelName=held.get("Model", "").rpartition("/")[2])


def _shown(aws: Aws, operation: str, **request: str) -> dict[str, Any]:
    """Return the answer; {} if there is nothing of this name, or the name is empty."""
    return described(getattr(aws.sagemaker, operation), **request) if all(request.values()) else {}


def settled(aws: Aws, name: str) -> Endpoint | None:
    """Return the endpoint once it is not changing."""
    began = time.monotonic()
    while (found := describe(aws, name)) and found.status in CHANGING:
        time.sleep(display.pause(began, longest=10.0))
    return found


def note_test(aws: Aws, endpoint: Endpoint) -> None:
    """Record that the endpoint was tested as it is; nothing without the permission to tag it."""
    tags = [{"Key": TESTED, "Value": endpoint.config}]
    with ignoring(*DENIED, *ABSENT):
        aws.sagemaker.add_tags(ResourceArn=_arn(aws, endpoint), Tags=tags)


def untested(aws: Aws, name: str) -> str:
    """Return the configuration of an endpoint that changed a short time ago, if it was not tested
    since; "" otherwise. To SageMaker, scaling is a change, too."""
    found = describe(aws, name)
    if found is None or datetime.now(UTC) - found.changed > TEST_TIME:
        return ""
    # Who may not read the tags does not wait.
    tags = {TESTED: found.config}
    with ignoring(*DENIED, *ABSENT):
        rows = aws.pages("list_tags", "Tags", ResourceArn=_arn(aws, found))
        tags = {row["Key"]: row["Value"] for row in rows}
    return found.config if tags.get(TESTED) != found.config else ""


def _arn(aws: Aws, endpoint: Endpoint) -> str:
    return aws.arn("sagemaker", f"endpoint/{endpoint.name}")


def serving(aws: Aws, name: str, stage: str, *, batch: bool = False) -> Endpoint:
    """Return the endpoint of a stage; with `batch`, the model of one that is batch only, too.

    Raises MlopsError if it cannot be called.
    """
    found = running(aws, name)
    if found is None:
        raise MlopsError(
            f"stage {stage} has no endpoint {name} yet: deploy to it with "
            f"{aws.command} deploy {stage} --model-package-arn ARN"
        )
    if found.kind == "batch":
        if batch:
            return found
        raise MlopsError(
            f"stage {stage} is batch only and has no endpoint to call: {aws.command} predict INPUT "
            f"OUTPUT --stage {stage}"
        )
    # During an update the old fleet answers.
    if found.status not in ("InService", "Updating", "SystemUpdating", "RollingBack"):
        why = f": {found.reason}" if found.reason else ""
        raise MlopsError(f"endpoint {name} is {found.status}{why}")
    return found


def forgotten(aws: Aws, name: str = "") -> Iterator[Stage]:
    """Yield stages of this project that have a stack in this account but no file; with `name`, at
    most that one."""
    project, told = aws.settings.project.project, set(stages.names(aws.settings))
    prefix = f"{project}-"
    names = [f"{prefix}{name}", f"{prefix}{name}-{stages.WATCH}"] if name else _names(aws, prefix)
    for each in names:
        stack = stacks.describe(aws, each)
        stage = stack.parameters.get("Stage", "") if stack else ""
        if stack is None or stage in told or (name and stage != name):
            continue
        own = f"{prefix}{stage}"
        # The name of another project may begin with this one's.
        ours = stack.parameters.get("Project") == project
        if ours and stack.name in (own, f"{own}-{stages.WATCH}"):
            told.add(stage)
            yield Stage(stage, own, stack.parameters.get("EndpointKind", ""))


def _names(aws: Aws, prefix: str) -> list[str]:
    """Return the names of stacks that begin so; for who may not list stacks, those of endpoints."""
    rows = aws.pages("list_endpoints", "Endpoints", NameContains=prefix)
    found = [row["EndpointName"] for row in rows]
    with ignoring(*DENIED):
        found = stacks.names(aws)
    # A stage's own stack comes before its second one.
    return sorted(name for name in found if name.startswith(prefix))


def scalable_targets(aws: Aws, name: str) -> list[dict[str, Any]]:
    """Return the endpoint's registrations with Application Auto Scaling."""
    answer = aws.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{name}/variant/{VARIANT}"]
    )
    return list(answer["ScalableTargets"])


def log_lines(aws: Aws, name: str, since: datetime | None = None) -> list[str]:
    """Return the log of the endpoint's containers, oldest first; [] if there is none."""
    start = {"startTime": int(since.timestamp() * 1000)} if since else {}
    return aws.log_lines(f"{LOG_GROUP}/{name}", **start)
