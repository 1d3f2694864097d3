"""Start an execution: check its parameters, upload what it needs, upsert the pipeline."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rich import filesize

from sm_mlops import commit, dates, executions, quotas, tags
from sm_mlops.aws import DENIED, Aws, exists, ignoring, split_s3
from sm_mlops.errors import MlopsError, hint
from sm_mlops.executions import Execution
from sm_mlops.interruption import answered
from sm_mlops.quotas import Need
from sm_mlops.settings import has_local_storage, parameter_name
from sm_mlops.tabular.booster import ELSEWHERE
from sm_mlops.training import artifacts, checks
from sm_mlops.training.definition import Compiled, compile_pipeline

# Set by `mlops run` alone: what they say decides whether a version may be approved and deployed.
# IAM cannot restrict the parameters of StartPipelineExecution, so who may call it by hand may still
# set them. No parameter can approve a version, and `mlops check` wants its commit to be on main.
OWN = ("Commit", "Champion", "DataHash", "Reason")
WAIVER, REASON = "WaiveChampion", "Reason"
# Of an argument of a processing job, in characters; the report of Evaluate shows the reason.
LONGEST_ARGUMENT = 256
# Of an execution without special parameters.
DESCRIPTION = re.compile(
    "Commit (?P<commit>[0-9a-f]{40}), content (?P<content>[0-9a-f]{64})"
    rf"({re.escape(executions.REASON)}.*)?"
)
LONGEST_VALUE = 1024  # of StartPipelineExecution
ROLE_SECONDS, ROLE_ATTEMPTS = 15.0, 4
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Plan:
    """What an execution would train from; `given`: the parameters that were set for it alone."""

    compiled: Compiled
    data: artifacts.Dataset
    given: dict[str, str]

    @property
    def content(self) -> str:
        """Return a hash of the definition, which names all code by its hash, and of the data."""
        named = [self.compiled.definition, self.data.uri, self.data.digest]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    @property
    def special(self) -> str:
        """Return the parameters that may make another model than main's, or empty."""
        return ", ".join(name for name in self.given if name != WAIVER)


def plan(
    aws: Aws, overrides: Mapping[str, str], say: Callable[[str], None], waive_champion: bool = False
) -> Plan:
    """Compile the pipeline, check the parameters and upload the data; see `start`."""
    compiled = compile_pipeline(aws.settings, aws.account)
    given = check_overrides(compiled.definition, overrides)
    if waive_champion and WAIVER in _defaults(compiled.definition):
        given[WAIVER] = "yes"
    # The version's DataHash must be that of the data it is trained on.
    if named := given.get("InputData"):
        _require_declared(aws, named)
    _refuse_other_storage(aws, compiled.definition, given)
    _refuse_unfit(aws, bool(named))
    data = artifacts.data_in_s3(aws, named) if named else artifacts.upload_data(aws)
    files = f"{data.files} file{'s' * (data.files != 1)}"
    place = f"{data.days[0]} to {data.days[-1]}" if data.days else data.uri
    say(f"data       {files}, {filesize.decimal(data.size)} at {place}")
    for address in data.missing:
        say(f"           nothing at {address}")
    return Plan(compiled, data, given)


def trained(aws: Aws, wanted: Plan) -> tuple[Execution, str] | None:
    """Return the execution that trains or has trained what is wanted, and its commit in the history
    of HEAD, unless a newer one of that history is of something else.

    One that failed counts if the gate stopped it: it would again. One with special parameters
    never counts.
    """
    history = commit.history(aws.settings.root)
    for item in executions.summaries(aws):
        found = DESCRIPTION.fullmatch(item.get("PipelineExecutionDescription", ""))
        if not found or found["commit"] not in history or wanted.special:
            continue
        if found["content"] != wanted.content:
            return None
        execution = executions.describe(aws, item["PipelineExecutionArn"])
        if execution.status in ("Executing", "Succeeded") or execution.judged:
            return execution, found["commit"]
    return None


def start(
    aws: Aws,
    overrides: Mapping[str, str],
    say: Callable[[str], None],
    *,
    waive_champion: bool = False,
) -> str:
    """Upsert the pipeline, start an execution of it and return its ARN.

    Args:
        overrides: Parameter or hyperparameter name → text.
        say: Called with a line for each thing done.
        waive_champion: Go on if the champion cannot be scored, where the definition allows that.

    Raises:
        MlopsError: The data, a name or a value is wrong; nothing has been started.
    """
    return launch(aws, plan(aws, overrides, say, waive_champion), say)


def launch(aws: Aws, wanted: Plan, say: Callable[[str], None], reason: str = "") -> str:
    """Upload what is planned, start an execution of it and return its ARN.

    `reason` is one line that says why, kept in the execution's description.

    A KeyboardInterrupt carries the answer to StartPipelineExecution, as `interruption` says.

    Raises:
        MlopsError: A quota does not allow it, or the champion is gone; nothing has been started.
    """
    settings, given = aws.settings, wanted.given
    quotas.require(aws, machines(wanted.compiled.definition, given))
    artifacts.upload_code(aws, wanted.compiled.objects)
    ensure_model_package_group(aws)
    champion = artifacts.upload_champion(aws, waived=given.get(WAIVER) == "yes")
    say(f"champion   {'none yet' if champion.version == 'none' else f'version {champion.version}'}")
    at = commit.current(settings.root)
    if reason:
        say(f"reason     {reason}")
    say(f"commit     {at}")
    if at.endswith("-dirty"):
        say("           uncommitted changes: this version cannot be rebuilt from its commit alone")
    pipeline_version = awaited(lambda: upsert(aws, wanted.compiled.definition), say)
    values = {
        "DataHash": wanted.data.digest,
        "Commit": at,
        "Champion": champion.uri,
        **given,
        "InputData": wanted.data.uri,
    }
    if reason and REASON in _defaults(wanted.compiled.definition):
        values[REASON] = reason[:LONGEST_ARGUMENT]
    request = {
        "PipelineName": settings.pipeline,
        "PipelineVersionId": pipeline_version,
        "PipelineExecutionDisplayName": f"run-{at[:7]}-{secrets.token_hex(3)}",
        "PipelineExecutionDescription": f"Commit {at}, "
        + (f"with {wanted.special}" if wanted.special else f"content {wanted.content}")
        + (f"{executions.REASON}{reason}" if reason else ""),
        "PipelineParameters": [{"Name": name, "Value": value} for name, value in values.items()],
    }
    begin = partial(answered, aws.sagemaker.start_pipeline_execution, **request)
    answer = awaited(begin, say)
    arn = str(answer["PipelineExecutionArn"])
    say(f"execution  {arn}")
    return arn


def check_overrides(definition: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return `overrides` by the parameters' own names. Raise MlopsError for the first bad one."""
    parameters = {item["Name"]: item for item in json.loads(definition)["Parameters"]}
    checked = {}
    for name, value in overrides.items():
        known = name if name in parameters else parameter_name(name)
        if known not in parameters:
            meant = parameter_name(ELSEWHERE.get(name, name))
            raise MlopsError(f"--set {name}: no such parameter; {hint(meant, parameters)}")
        if known in OWN:
            raise MlopsError(
                f"--set {name}: {known} cannot be set; mlops run takes it from repo and registry"
            )
        parameter = parameters[known]
        kind = {"Integer": int, "Float": float}.get(parameter["Type"], str)
        try:
            # JSON has neither inf nor nan.
            if kind is not str and not math.isfinite(kind(value)):
                raise ValueError(value)
        except ValueError as error:
            number = "number" if kind is float else "whole number"
            raise MlopsError(f"--set {name}: {value!r} is not a {number}") from error
        allowed = parameter.get("EnumValues")
        if allowed and value not in allowed:
            raise MlopsError(f"--set {name}: {value!r} is not one of {', '.join(allowed)}")
        if not 0 < len(value) <= LONGEST_VALUE:
            wrong = f"longer than {LONGEST_VALUE} characters" if value else "empty"
            raise MlopsError(f"--set {name}: the value is {wrong}")
        checked[known] = value
    return checked


def _defaults(definition: str) -> dict[str, Any]:
    return {item["Name"]: item.get("DefaultValue") for item in json.loads(definition)["Parameters"]}


def _refuse_other_storage(aws: Aws, definition: str, given: Mapping[str, str]) -> None:
    """Raise MlopsError for an instance type to which the definition's volume key does not fit."""
    defaults = _defaults(definition)
    for name, value in given.items():
        usual = str(defaults[name])
        if (
            aws.settings.aws.kms_key
            and name.endswith("InstanceType")
            and has_local_storage(value) != has_local_storage(usual)
        ):
            raise MlopsError(
                f"--set {name}: one of {usual} and {value} has local storage, which takes no "
                "aws.kms_key; change compute in mlops.yaml instead"
            )


def _refuse_unfit(aws: Aws, elsewhere: bool) -> None:
    """Raise MlopsError for settings that the rows on this machine, or their sample, refute."""
    settings, chosen = aws.settings, artifacts.chosen(aws)
    if not elsewhere and not getattr(settings.data, chosen).startswith("s3://"):
        checks.refuse_unfit(settings, artifacts.local_data(settings, chosen), trained=True)
    elif settings.data.sample and (settings.root / settings.data.sample).exists():
        checks.refuse_unfit(settings, artifacts.local_data(settings, "sample"), trained=False)


def _require_declared(aws: Aws, address: str) -> None:
    """Raise MlopsError unless the data is below the project's prefix or `data.path`."""
    if not address.startswith("s3://"):
        raise MlopsError(f"--set InputData: {address} is not an S3 address (s3://bucket/prefix/)")
    path = aws.settings.data.path
    allowed = [f"s3://{aws.bucket}/{aws.settings.prefix}/"]
    # Of a path with dates, any day.
    allowed += [dates.fixed(path)] if path.startswith("s3://") else []
    if dates.fixed(path) != path and address.startswith(dates.fixed(path)):
        return
    bucket, key = split_s3(address)
    for place in allowed:
        there, prefix = split_s3(place)
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        if bucket == there and (key == prefix or key.startswith(folder)):
            return
    raise MlopsError(
        f"--set InputData: {address} is neither below {allowed[0]} nor data.path of mlops.yaml; "
        "to train on other data, change data.path"
    )


def machines(definition: str, given: Mapping[str, str]) -> Iterator[Need]:
    """Yield what each job of the pipeline needs; no two of the same pipeline add up."""
    values = {**_defaults(definition), **given}
    for step in executions.all_steps(definition):
        arguments = step.get("Arguments") or {}
        processing = arguments.get("ProcessingResources", {}).get("ClusterConfig")
        cluster = processing or arguments.get("ResourceConfig")
        if not cluster or step["Type"] not in ("Processing", "Training"):
            continue
        use = "processing job" if processing else "training job"
        if arguments.get("EnableManagedSpotTraining"):
            use = f"spot {use}"
        instance, count = cluster.get("InstanceType"), cluster.get("InstanceCount")
        if isinstance(instance, dict):
            instance = values.get(instance["Get"].removeprefix("Parameters."))
        name, least = quotas.name(str(instance), use), count if isinstance(count, int) else 1
        yield Need(f"step {step['Name']}", name, least, "compute in mlops.yaml")


def ensure_model_package_group(aws: Aws) -> None:
    """Create the project's model package group if it does not exist."""
    group, sagemaker = aws.settings.model_package_group, aws.sagemaker
    if not exists(sagemaker.describe_model_package_group, ModelPackageGroupName=group):
        sagemaker.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription=f"Versions of {aws.settings.project.project}",
            Tags=tags.rows(aws.settings.project.resource_tags()),
        )


def awaited(attempt: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """Return what `attempt` returns; repeat it while SageMaker cannot assume a role that is new.

    A role that nobody trusts gets the service's own error after that. Source (of "eventual
    consistency"): https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
    """
    from botocore.exceptions import ClientError

    for _ in range(ROLE_ATTEMPTS - 1):
        try:
            return attempt()
        except ClientError as error:
            if "assume role" not in str(error):
                raise
            say("waiting    SageMaker cannot assume the pipeline's role yet")
            time.sleep(ROLE_SECONDS)
    return attempt()


def upsert(aws: Aws, definition: str, name: str = "", purpose: str = "") -> int:
    """Create or update a pipeline, by default that of the training; return the version that has
    this definition.

    An execution of that version has this definition, whatever others upload before it starts. Only
    UpdatePipeline names the version, so it is called even if nothing has changed.
    """
    request = {
        "PipelineName": name or aws.settings.pipeline,
        "PipelineDefinition": definition,
        "RoleArn": aws.settings.role_arn(aws.account),
    }
    own = tags.rows(aws.settings.project.resource_tags())
    if not exists(aws.sagemaker.describe_pipeline, PipelineName=request["PipelineName"]):
        description = purpose or f"Trains the model of {aws.settings.project.github}"
        aws.sagemaker.create_pipeline(**request, PipelineDescription=description, Tags=own)
    updated = aws.sagemaker.update_pipeline(**request)
    # A project that an older tool has made lets its workflow tag nothing.
    with ignoring(*DENIED):
        aws.sagemaker.add_tags(ResourceArn=updated["PipelineArn"], Tags=own)
    return int(updated["PipelineVersionId"])
