"""What a SageMaker endpoint is running, as the service itself says, and what it has logged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sm_mlops import stacks
from sm_mlops.aws import Aws, error_code
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError

VARIANT = "AllTraffic"
CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
LOG_GROUP = "/aws/sagemaker/Endpoints"


@dataclass(frozen=True)
class Endpoint:
    """`package` is the ARN of the model package version it serves, empty if it serves another
    kind of model; `since` is when that model was made for it."""

    name: str
    arn: str
    status: str
    reason: str
    kind: str
    config: str
    model: str
    package: str
    since: datetime
    instances: int | None

    @property
    def version(self) -> int | None:
        return int(self.package.rpartition("/")[2]) if self.package else None


def describe(aws: Aws, name: str) -> Endpoint | None:
    """The endpoint of this name; None when there is none."""
    found = _or_none(aws, "describe_endpoint", EndpointName=name)
    if found is None:
        return None
    # Botocore's model of the answer promises no configuration, and it may be gone.
    config_name = found.get("EndpointConfigName", "")
    config = config_name and _or_none(
        aws, "describe_endpoint_config", EndpointConfigName=config_name
    )
    variant = (config or {}).get("ProductionVariants", [{}])[0]
    model_name = variant.get("ModelName", "")
    model = (_or_none(aws, "describe_model", ModelName=model_name) if model_name else None) or {}
    containers = model.get("Containers") or [model.get("PrimaryContainer", {})]
    running = found.get("ProductionVariants", [{}])[0]
    return Endpoint(
        name=name,
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        reason=" ".join(found.get("FailureReason", "").split()),
        kind=_kind(config or {}, variant),
        config=config_name,
        model=model_name,
        package=containers[0].get("ModelPackageName", ""),
        since=model.get("CreationTime") or found["CreationTime"],
        instances=running.get("CurrentInstanceCount"),
    )


def _kind(config: dict[str, Any], variant: dict[str, Any]) -> str:
    if "AsyncInferenceConfig" in config:
        return "asynchronous"
    return "serverless" if "ServerlessConfig" in variant else "real-time"


def _or_none(aws: Aws, operation: str, **request: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        found: dict[str, Any] = getattr(aws.sagemaker, operation)(**request)
    except ClientError as error:
        # SageMaker answers ValidationException for what is not there.
        if error_code(error) in ("ValidationException", "ResourceNotFound") and (
            "could not find" in str(error).lower() or "not exist" in str(error).lower()
        ):
            return None
        raise
    return found


def settled(aws: Aws, name: str) -> Endpoint | None:
    """The endpoint when nothing changes it any more; as the service needs minutes, so does this."""
    began = time.monotonic()
    while True:
        found = describe(aws, name)
        if found is None or found.status not in CHANGING:
            return found
        time.sleep(min(10.0, max(0.2, (time.monotonic() - began) / 30)))


def serving(aws: Aws, name: str, stage: str) -> Endpoint:
    """The endpoint of a stage that can be called now. Raises MlopsError with what to do."""
    found = describe(aws, name)
    if found is None:
        raise MlopsError(
            f"stage {stage} has no endpoint {name} yet: deploy to it with "
            f"{aws.command} deploy {stage} --model-package-arn ARN"
        )
    # Updating means that the fleet before goes on answering.
    if found.status not in ("InService", "Updating", "SystemUpdating", "RollingBack"):
        why = f": {found.reason}" if found.reason else ""
        raise MlopsError(f"endpoint {name} is {found.status}{why}")
    return found


def forgotten(aws: Aws) -> Iterator[Stage]:
    """Stages of this project that have an endpoint in this account and no file in infra/."""
    project, known = aws.settings.project.project, stages.names(aws.settings)
    prefix = f"{project}-"
    for item in aws.pages("list_endpoints", "Endpoints", NameContains=prefix):
        stage = item["EndpointName"].removeprefix(prefix)
        if not item["EndpointName"].startswith(prefix) or stage in known:
            continue
        # Another project's name may begin like this one's.
        stack = stacks.describe(aws, item["EndpointName"])
        had = stack.parameters if stack else {}
        if (had.get("Project"), had.get("Stage")) == (project, stage):
            yield Stage(stage, item["EndpointName"], had.get("EndpointKind", ""))


def log_lines(aws: Aws, name: str, since: datetime | None = None) -> list[str]:
    """What the endpoint's containers have written, the oldest line first; [] without a log."""
    from botocore.exceptions import ClientError

    start = {"startTime": int(since.timestamp() * 1000)} if since else {}
    pages = (
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=f"{LOG_GROUP}/{name}", **start)
    )
    try:
        return [event["message"].rstrip("\n") for page in pages for event in page["events"]]
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        return []
