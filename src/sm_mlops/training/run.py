"""Start an execution: check its parameters, upload what it needs, upsert the pipeline."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from rich import filesize

from sm_mlops import commit
from sm_mlops.aws import Aws, exists, split_s3
from sm_mlops.errors import MlopsError, hint
from sm_mlops.settings import has_local_storage, parameter_name
from sm_mlops.tabular.booster import ELSEWHERE
from sm_mlops.training import artifacts, checks
from sm_mlops.training.definition import compile_pipeline

# Set by `mlops run` alone: what they say decides whether a version may be approved and deployed.
# IAM cannot restrict the parameters of StartPipelineExecution, so who may call it by hand may still
# set them. No parameter can approve a version, and `mlops check` wants its commit to be on main.
OWN = ("Commit", "Champion", "DataHash")
WAIVER = "WaiveChampion"
LONGEST_VALUE = 1024  # of StartPipelineExecution


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
    settings = aws.settings
    compiled = compile_pipeline(settings, aws.account)
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
    say(f"data       {files}, {filesize.decimal(data.size)} at {data.uri}")
    artifacts.upload_code(aws, compiled.objects)
    ensure_model_package_group(aws)
    champion = artifacts.upload_champion(aws, waived=given.get(WAIVER) == "yes")
    say(f"champion   {'none yet' if champion.version == 'none' else f'version {champion.version}'}")
    at = commit.current(settings.root)
    say(f"commit     {at}")
    if at.endswith("-dirty"):
        say("           uncommitted changes: this version cannot be rebuilt from its commit alone")
    pipeline_version = upsert(aws, compiled.definition)
    values = {
        "DataHash": data.digest,
        "Commit": at,
        "Champion": champion.uri,
        **given,
        "InputData": data.uri,
    }
    arn: str = aws.sagemaker.start_pipeline_execution(
        PipelineName=settings.pipeline,
        PipelineVersionId=pipeline_version,
        PipelineExecutionDisplayName=f"run-{at[:7]}-{secrets.token_hex(3)}",
        PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
    )["PipelineExecutionArn"]
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
        checks.refuse_unfit(settings, artifacts.local_data(settings, chosen))
    elif settings.data.sample and (settings.root / settings.data.sample).exists():
        checks.refuse_unfit(settings, artifacts.local_data(settings, "sample"))


def _require_declared(aws: Aws, address: str) -> None:
    """Raise MlopsError unless the data is below the project's prefix or `data.path`."""
    if not address.startswith("s3://"):
        raise MlopsError(f"--set InputData: {address} is not an S3 address (s3://bucket/prefix/)")
    path = aws.settings.data.path
    allowed = [f"s3://{aws.bucket}/{aws.settings.prefix}/"]
    allowed += [path] if path.startswith("s3://") else []
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


def ensure_model_package_group(aws: Aws) -> None:
    """Create the project's model package group if it does not exist."""
    group, sagemaker = aws.settings.model_package_group, aws.sagemaker
    if not exists(sagemaker.describe_model_package_group, ModelPackageGroupName=group):
        sagemaker.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription=f"Versions of {aws.settings.project.project}",
        )


def upsert(aws: Aws, definition: str) -> int:
    """Create or update the pipeline; return the version that has this definition.

    An execution of that version has this definition, whatever others upload before it starts. Only
    UpdatePipeline names the version, so it is called even if nothing has changed.
    """
    request = {
        "PipelineName": aws.settings.pipeline,
        "PipelineDefinition": definition,
        "RoleArn": aws.settings.role_arn(aws.account),
    }
    if not exists(aws.sagemaker.describe_pipeline, PipelineName=aws.settings.pipeline):
        description = f"Trains the model of {aws.settings.project.github}"
        aws.sagemaker.create_pipeline(**request, PipelineDescription=description)
    return int(aws.sagemaker.update_pipeline(**request)["PipelineVersionId"])
