"""Upload the pipeline that checks stages, and start a check."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime

from sm_mlops import quotas, stacks
from sm_mlops.aws import Aws, exists
from sm_mlops.deployment import access
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.interruption import answered
from sm_mlops.settings import Settings
from sm_mlops.training import artifacts
from sm_mlops.training.definition import Compiled, quiet_sdk
from sm_mlops.training.run import awaited, machines, upsert


def compile_monitor(settings: Settings, account: str) -> Compiled:
    """Return the pipeline of the checks and its code, the same bytes for the same repo."""
    with quiet_sdk(settings.project.region):
        from sm_mlops.monitoring.definition import pipeline
        from sm_mlops.pipeline import Repo, compiling

        repo = Repo(settings, account)
        with compiling():
            text = pipeline(repo).definition()
    return Compiled(json.dumps(json.loads(text), indent=2) + "\n", repo.objects)


def upload(aws: Aws, say: Callable[[str], None]) -> None:
    """Upload the pipeline of the checks, which starts with its code and limits from now on."""
    compiled = compile_monitor(aws.settings, aws.account)
    quotas.require(aws, machines(compiled.definition, {}))
    artifacts.upload_code(aws, compiled.objects)
    pipeline = aws.settings.monitor_pipeline
    purpose = f"Checks the deployed stages of {aws.settings.project.github}"
    awaited(lambda: upsert(aws, compiled.definition, pipeline, purpose), say)
    say(f"monitor    pipeline {pipeline} uploaded")


def start(
    aws: Aws, stage: Stage, bucket: str, until: datetime | None, say: Callable[[str], None]
) -> str:
    """Start a check of the window before `until`, by default before now; return its ARN.

    Upload the pipeline if there is none: stages that are only checked by hand are in no list.
    Raise MlopsError if the stage is not deployed.
    """
    pipeline = aws.settings.monitor_pipeline
    if not deployed(aws, stage):
        raise MlopsError(
            f"stage {stage.name} is not deployed, so there is nothing to check: "
            f"{aws.command} deploy {stage.name} --model-package-arn ARN"
        )
    if not exists(aws.sagemaker.describe_pipeline, PipelineName=pipeline):
        upload(aws, say)
    moment = until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if until else "now"
    values = {"Stage": stage.name, "Bucket": bucket, "Until": moment}
    answer = answered(
        aws.sagemaker.start_pipeline_execution,
        PipelineName=pipeline,
        PipelineExecutionDisplayName=f"check-{secrets.token_hex(4)}",
        PipelineExecutionDescription=f"Stage {stage.name} until {moment}, started by hand",
        PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
    )
    return str(answer["PipelineExecutionArn"])


def deployed(aws: Aws, stage: Stage) -> bool:
    """Return whether a stage has its stack."""
    return stacks.describe(access.enter(aws, stage), stage.stack) is not None
