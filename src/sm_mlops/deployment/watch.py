"""What runs by itself for a stage: its second stack, `platform/watch.yml`.

Schedules check it for drift, train the project again and predict rows in S3; an alarm goes off on
drift. The stack exists as long as mlops.yaml or the stage's file asks for something of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rich.console import Console

from sm_mlops import objects, stacks, templates
from sm_mlops.aws import DENIED, Aws, error_code, exists, ignoring, split_s3
from sm_mlops.deployment import endpoints, transform
from sm_mlops.deployment.stages import FOLDER as INFRA
from sm_mlops.deployment.stages import WATCH, Stage
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.platform import FOLDER
from sm_mlops.schedules import not_a_schedule
from sm_mlops.settings import Settings
from sm_mlops.stacks import Change, Outcome, Overtaken, Stack

TEMPLATE = FOLDER / "watch.yml"
CAPABILITIES = ("CAPABILITY_IAM",)
# The stage whose drift and whose schedule train again: what it runs is what users get.
LAST = "production"
# Of a schedule's name, <project>-<stage>-monitor.
NAME_LENGTH = 64
# While other runs are faster.
ATTEMPTS = 10
# Kinds of stages that cannot be checked, and why.
_UNSEEN = {
    "serverless": "a serverless endpoint captures no requests",
    "batch": "a check reads requests to an endpoint, and a stage that is batch only has none",
}
NOTHING = Outcome((), executed=False)


def stack_name(stage: Stage) -> str:
    """Return the name of a stage's second stack."""
    return f"{stage.stack}-{WATCH}"


def expressions(settings: Settings, stage: Stage) -> dict[str, str]:
    """Return the schedules that a stage should have, by their parameters; empty for none."""
    found = {
        "MonitorExpression": settings.monitoring.schedule if _monitored(settings, stage) else "",
        "RetrainExpression": (settings.retraining.schedule or "") if stage.name == LAST else "",
        "BatchExpression": stage.batch.schedule if stage.batch else "",
    }
    return {name: expression for name, expression in found.items() if expression}


def capture(settings: Settings, stage: Stage) -> dict[str, str]:
    """Return what the stage's own stack needs, so that there are requests to check."""
    if stage.kind != "real-time" or not _monitored(settings, stage):
        return {}
    return {"DataCapturePercent": str(settings.monitoring.capture)}


def problem(settings: Settings, stage: Stage) -> str:
    """Return why a wish cannot be fulfilled, as far as files show it; empty if it can."""
    place, retraining = f"{INFRA}/{stage.name}.json", settings.retraining
    monitored = _monitored(settings, stage)
    if monitored and stage.kind in _UNSEEN:
        return (
            f"mlops.yaml: monitoring.stages has {stage.name}, but {_UNSEEN[stage.kind]}: set "
            f"EndpointKind in {place} to real-time or asynchronous, or take it out"
        )
    if monitored and float(stage.parameters.get("DataCapturePercent", 1)) == 0:
        return (
            f"{place}: Parameters.DataCapturePercent is 0, but mlops.yaml has {stage.name} in "
            "monitoring.stages: remove the parameter"
        )
    if stage.name == LAST and retraining.on_drift and not monitored:
        return (
            f"mlops.yaml: retraining.on_drift follows {LAST}, which monitoring.stages does not have"
        )
    if expressions(settings, stage) and len(f"{stage.stack}-monitor") > NAME_LENGTH:
        return (
            f"{place}: a schedule would be called {stage.stack}-monitor, but a name has at most "
            f"{NAME_LENGTH} characters: shorten the stage's"
        )
    return ""


def require(aws: Aws, there: Aws, stage: Stage, console: Console) -> None:
    """Raise MlopsError for a wish that cannot be fulfilled, before anything is deployed; say what
    is still missing."""
    settings, place = aws.settings, f"{INFRA}/{stage.name}.json"
    monitored, elsewhere = _monitored(settings, stage), there.account != aws.account
    why = f"its schedule in account {there.account} cannot start what is in account {aws.account}"
    if stage.name == LAST and elsewhere:
        _require_no_retraining(settings, why)
    if wrong := problem(settings, stage):
        raise MlopsError(wrong)
    if monitored and elsewhere:
        raise MlopsError(
            f"mlops.yaml: monitoring.stages has {stage.name}, but {why}: take it out, and run "
            f"{aws.command} monitor {stage.name} --run"
        )
    if stage.batch:
        if not stage.parameters.get("ExecutionRoleArn"):
            _require_places(aws, stage, place)
        _require_exact(there, stage.batch.input, place)
    if wanted := expressions(settings, stage):
        present = _require_permission(there, stage, aws.command)
        _require_future(aws, wanted, present.parameters if present else {}, place)
    if monitored:
        _tell_missing(aws, console)


def _require_permission(there: Aws, stage: Stage, command: str) -> Stack | None:
    """Return the stage's second stack. Raise MlopsError if it may not be deployed."""
    from botocore.exceptions import ClientError

    try:
        return stacks.describe(there, stack_name(stage))
    except ClientError as error:
        if error_code(error) not in DENIED:
            raise
        raise MlopsError(
            f"you may not deploy {stack_name(stage)}, the stage's schedules and alarm: the project "
            f"is older than this tool; update it with {command} bootstrap"
        ) from error


def _require_future(
    aws: Aws, wanted: Mapping[str, str], present: Mapping[str, str], place: str
) -> None:
    """Raise MlopsError for a new schedule that never fires; one that is there may have ended."""
    keys = {
        "MonitorExpression": "mlops.yaml: monitoring.schedule",
        "RetrainExpression": "mlops.yaml: retraining.schedule",
        "BatchExpression": f"{place}: Batch.Schedule",
    }
    for name, schedule in wanted.items():
        wrong = not_a_schedule(schedule, (aws.now().year, aws.now().month))
        if wrong and schedule != present.get(name):
            raise MlopsError(f"{keys[name]} {wrong}, not {schedule!r}")


def _tell_missing(aws: Aws, console: Console) -> None:
    """Say that there is no pipeline of the checks yet; nothing to who may not ask."""
    name = aws.settings.monitor_pipeline
    with ignoring(*DENIED):
        if not exists(aws.sagemaker.describe_pipeline, PipelineName=name):
            how = f"a push to main or {aws.command} run uploads it"
            tell(console, f"pipeline {name} is missing: {how}", "yellow")


def _require_no_retraining(settings: Settings, why: str) -> None:
    for key in ("schedule", "on_drift"):
        if getattr(settings.retraining, key):
            raise MlopsError(f"mlops.yaml: retraining.{key} follows {LAST}, but {why}: remove it")


def _require_places(aws: Aws, stage: Stage, place: str) -> None:
    """Raise MlopsError for rows that the role of `infra/endpoint.yml` may not read or write."""
    assert stage.batch is not None
    folder = f"s3://{stage.bucket(aws.bucket)}/{aws.settings.prefix}/batch/{stage.name}"
    for key, address, kind in (
        ("Input", stage.batch.input, "input"),
        ("Output", stage.batch.output, "output"),
    ):
        if not address.startswith(f"{folder}/{kind}/") or address == f"{folder}/{kind}/":
            raise MlopsError(
                f"{place}: Batch.{key} must be in a folder of {folder}/{kind}/, such as "
                f"{folder}/{kind}/customers/: the stage's role "
                "may use nothing else (unless Parameters.ExecutionRoleArn names another, with "
                f"the path /sm-mlops/{aws.settings.project.project}/{stage.name}/)"
            )


def _require_exact(there: Aws, address: str, place: str) -> None:
    """Raise MlopsError if a job would read more than an object or a folder: its prefix is text."""
    _, key = split_s3(address)
    if key.endswith("/"):
        return
    with ignoring(*DENIED, "NoSuchBucket"):
        if others := [name for name in objects.first(there, address, 2) if name != key]:
            raise MlopsError(
                f"{place}: Batch.Input: each job would read {others[0]}, too, because its name "
                f"begins with {key}: end the name of a folder with /, or move one of them"
            )


def deploy(
    aws: Aws,
    there: Aws,
    stage: Stage,
    boundary: Mapping[str, str],
    console: Console,
    *,
    execute: bool = True,
    continue_rollback: bool = False,
) -> Outcome:
    """Create, update or delete the second stack of a stage whose own one is up to date.

    Its model is that of the stage's stack now: another run may have been faster. Raises MlopsError.
    """
    name, found = stack_name(stage), None
    wanted = expressions(aws.settings, stage)
    # An older project's role may not ask; if something is wanted, `require` has refused it.
    with ignoring(*DENIED):
        found = stacks.describe(there, name)
    if not wanted:
        return _remove(there, found, console, execute) if found else NOTHING
    declared = templates.parameters(TEMPLATE)
    defaults = {key: str(one["Default"]) for key, one in declared.items() if "Default" in one}
    parameters = {**defaults, **wanted, **boundary, **_parameters(aws, there, stage)}
    tags = dict(stage.tags)
    if (
        found
        and found.status in stacks.DONE
        and (found.parameters, found.tags) == (parameters, tags)
    ):
        return NOTHING
    for attempt in range(ATTEMPTS):
        try:
            return stacks.deploy(
                *(there, name, TEMPLATE, parameters, tags, CAPABILITIES, console),
                execute=execute,
                continue_rollback=continue_rollback,
            )
        except Overtaken:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _remove(there: Aws, stack: Stack, console: Console, execute: bool) -> Outcome:
    held = stacks.resources(there, stack)
    changes = tuple(Change("removed", item.name, item.kind) for item in held)
    if execute and (settled := stacks.settle(there, stack, console)):
        console.print(stacks.change_table(changes))
        stacks.delete(there, settled, console)
    return Outcome(changes, executed=execute)


def _parameters(aws: Aws, there: Aws, stage: Stage) -> dict[str, str]:
    settings = aws.settings
    on_drift = settings.retraining.on_drift and stage.name == LAST
    topic = stage.parameters.get("AlarmTopicArn", "")
    # The platform's trigger sends a message about drift there, which the alarm would repeat.
    if topic == there.arn("sns", "sm-mlops-notifications"):
        topic = ""
    found = {
        "Project": settings.project.project,
        "Stage": stage.name,
        "Owner": stage.tags["owner"],
        "Template": hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()[:12],
        "OutputBucket": stage.bucket(aws.bucket),
        "RetrainOnDrift": "true" if on_drift else "false",
        "CoolDownDays": str(settings.retraining.cool_down_days),
        "AlarmTopicArn": topic,
    }
    return found | (_batch(aws, there, stage) if stage.batch else {})


def _batch(aws: Aws, there: Aws, stage: Stage) -> dict[str, str]:
    assert stage.batch is not None
    own = stacks.describe(there, stage.stack)
    model = endpoints.model(there, own) if own else {}
    package = model.get("PrimaryContainer", {}).get("ModelPackageName", "")
    machine = transform.machine(aws, stage, package) if package else None
    found = {
        "BatchInput": stage.batch.input,
        "BatchOutput": stage.batch.output,
        "ModelName": model.get("ModelName", ""),
        "ModelArn": model.get("ModelArn", ""),
        "ModelVersion": package.rpartition("/")[2],
    }
    if machine is None:
        return found
    return found | {
        "BatchInstanceType": machine.instance,
        "BatchRequests": str(machine.requests),
        "BatchKmsKeyArn": machine.key,
        "BatchVolumeKmsKeyArn": machine.volume_key,
    }


def _monitored(settings: Settings, stage: Stage) -> bool:
    return stage.name in settings.monitoring.stages
