"""Helpers for the tests of a model repo: its compiled pipeline, the trained and served model, its
stages and workflows. All of it on this machine, without an AWS account.

Public. Problems are returned as lines, so that a test can show them.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_mlops import executions, objects
from sm_mlops.aws import Aws, split_s3
from sm_mlops.cli.sandbox_account import temporary
from sm_mlops.deployment import endpoints, stages
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.predict import Refused, invoke
from sm_mlops.deployment.smoke import CSV, JSON, LINES, Sample, load_sample
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution
from sm_mlops.settings import LOWER_IS_BETTER, Gate, load

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["CSV", "JSON", "LINES", "Refused"]
ACCOUNT = "123456789012"
ROWS_A_REQUEST = 2000
LOG_LINES = 15
_ENDPOINT = "under-test"
_CODE = "/opt/ml/processing/input/code/"
_NO_LIMIT = 1e308


# The pipeline


def compiled(root: Path, hash_seed: int = 0) -> str:
    """Return the pipeline definition of the repo at `root` as JSON text.

    Compiles in another process, with this seed for the order of sets. Raises AssertionError with
    the error message.
    """
    done = subprocess.run(
        [sys.executable, "-m", "sm_mlops", "compile", "--account", ACCOUNT],
        cwd=root,
        env=_without_account() | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr.strip()
    return done.stdout


def steps(definition: str) -> dict[str, dict[str, Any]]:
    """Return the steps of a pipeline definition by name, those in conditions included."""
    return {step["Name"]: step for step in executions.steps_below(json.loads(definition)["Steps"])}


def unguarded(definition: str) -> list[str]:
    """Return the steps that register a version outside of a condition."""
    top = json.loads(definition)["Steps"]
    return [step["Name"] for step in top if step["Type"] == "RegisterModel"]


def scripts(definition: str) -> dict[str, str]:
    """Return the script of `model/` that a step runs, by step."""
    found = {}
    for name, step in steps(definition).items():
        given = step.get("Arguments") or {}
        program = (given.get("HyperParameters") or {}).get("sagemaker_program", "")
        for word in (given.get("AppSpecification") or {}).get("ContainerEntrypoint") or ():
            if isinstance(word, str) and word.startswith(_CODE):
                program = word.removeprefix(_CODE)
        if program:
            found[name] = str(program)
    return found


# The model


@dataclass
class Model:
    """A version that the repo's own pipeline trained, served by an endpoint of the sandbox.

    `gate` is the content of Evaluate's gate.json; `rows` are the test rows without the target;
    `sample` has the rows registered with the version and the predictions of the evaluation.
    """

    aws: Aws
    endpoint: Endpoint
    gate: dict[str, Any]
    rows: pa.Table
    sample: Sample

    def ask(self, body: str | bytes, content_type: str = CSV) -> Any:
        """Return the endpoint's answer as an object of JSON, or its Refused error."""
        content = body.encode() if isinstance(body, str) else body
        try:
            return json.loads(invoke(self.aws, self.endpoint, content, content_type, JSON).body)
        except Refused as refused:
            return refused

    def predict(self, rows: pa.Table) -> list[Any]:
        """Return a prediction for each row, asked as CSV. Raises AssertionError for a refusal."""
        from sm_mlops.tabular import scoring

        found: list[Any] = []
        for start in range(0, len(rows), ROWS_A_REQUEST):
            answer = self.ask(scoring.to_csv(scoring.plain(rows.slice(start, ROWS_A_REQUEST))))
            assert not isinstance(answer, Refused), answer
            found += [item["prediction"] for item in answer["predictions"]]
        return found

    def measured(self, metric: str) -> float | None:
        """Return a metric of the test rows; None where it does not exist for this task."""
        value = self.gate["metrics"][metric]["value"]
        return None if abs(value) >= _NO_LIMIT else float(value)


@contextmanager
def trained(root: Path, work: Path) -> Iterator[Model]:
    """Train and serve the model of the repo at `root`, in a sandbox in the folder `work`.

    Trains on `data.sample`, or else `data.path`, and registers the version even if the gate would
    stop it: `mlops review` checks the gate. Raises AssertionError with the end of the log.
    """
    from rich.console import Console

    from sm_mlops.training import run

    settings = load(root)
    limit = _NO_LIMIT if settings.gate.metric in LOWER_IS_BETTER else -_NO_LIMIT
    open_gate = Gate(settings.gate.metric, limit, _NO_LIMIT)
    with temporary(work, settings.project.region) as account:
        aws = account(replace(settings, gate=open_gate))
        try:
            started = run.start(aws, {}, lambda line: None)
        except MlopsError as error:
            raise AssertionError(str(error)) from None
        done = executions.follow(aws, started.arn, Console(file=io.StringIO()))
        assert done.status == "Succeeded", "\n".join(_failure(aws, done))
        yield _served(aws, done)


def _failure(aws: Aws, execution: Execution) -> Iterator[str]:
    yield executions.failure(aws, execution)[0]
    for step in execution.steps:
        if step.status == "Failed" and step.job:
            yield from executions.log_lines(aws, step)[-LOG_LINES:]


def _served(aws: Aws, execution: Execution) -> Model:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arn, role = execution.model_package, aws.settings.role_arn(aws.account)
    call, name = aws.sagemaker, {"EndpointName": _ENDPOINT}
    call.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    call.create_model(
        ModelName=_ENDPOINT, ExecutionRoleArn=role, PrimaryContainer={"ModelPackageName": arn}
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": _ENDPOINT,
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
    }
    call.create_endpoint_config(EndpointConfigName=_ENDPOINT, ProductionVariants=[variant])
    call.create_endpoint(EndpointConfigName=_ENDPOINT, **name)
    call.get_waiter("endpoint_in_service").wait(
        **name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    endpoint = endpoints.describe(aws, _ENDPOINT)
    assert endpoint is not None
    outputs = _outputs(aws, execution)
    found = objects.listed(aws, *split_s3(outputs["test"] + "/"))
    keys = sorted(item["Key"] for item in found if item["Key"].endswith(".parquet"))
    rows = pa.concat_tables(
        pq.read_table(io.BytesIO(objects.read(aws, f"s3://{aws.bucket}/{key}"))) for key in keys
    )
    target = [name for name in rows.column_names if name == aws.settings.data.target]
    gate = json.loads(objects.read(aws, f"{outputs['evaluation']}/gate.json"))
    return Model(aws, endpoint, gate, rows.drop_columns(target), load_sample(aws, arn))


def _outputs(aws: Aws, execution: Execution) -> dict[str, str]:
    """Return the S3 URI of each output of the processing steps by name."""
    jobs = [step.job for step in execution.steps if step.kind == "ProcessingJob" and step.job]
    shown = [aws.sagemaker.describe_processing_job(ProcessingJobName=job) for job in jobs]
    return {
        output["OutputName"]: output["S3Output"]["S3Uri"].rstrip("/")
        for job in shown
        for output in job.get("ProcessingOutputConfig", {}).get("Outputs", ())
    }


# Stages and workflows


def stage_problems(root: Path, name: str) -> list[str]:
    """Return the problems of `infra/<name>.json`, and of endpoint.yml with its parameters.

    Applies the rules of the stage file, of the template, and of cfn-lint.
    """
    from sm_mlops.sandbox.cloudformation import parameters, template
    from sm_mlops.sandbox.cloudformation.expressions import Scope
    from sm_mlops.sandbox.wire import ApiError

    try:
        settings = load(root)
        stage = stages.load(settings, name)
    except MlopsError as error:
        return [str(error)]
    region, project = settings.project.region, settings.project.project
    place = f"arn:{settings.partition}:sagemaker:{region}:{ACCOUNT}"
    values = {
        "Project": project,
        "Stage": name,
        "ModelPackageArn": f"{place}:model-package/{project.lower()}/1",
        "ArtifactBucket": settings.bucket(ACCOUNT),
        "OutputBucket": settings.bucket(ACCOUNT),
        **stage.parameters,
    }
    text = stages.template(settings).read_text(encoding="utf-8")
    declared = stages.template_parameters(stages.template(settings))
    values = {key: value for key, value in values.items() if key in declared}
    pairs = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
    try:
        parsed = template.parse(text)
        bound = parameters.bind(parsed, pairs, None)
        stack = f"arn:{settings.partition}:cloudformation:{region}:{ACCOUNT}:stack/{stage.stack}/1"
        Scope(parsed, bound, ACCOUNT, region, stack, stage.stack).check_rules()
    except ApiError as error:
        return [f"infra/{name}.json: {error}"]
    typed = tuple(
        (key, tuple(value.split(",")) if "List" in declared[key]["Type"] else value)
        for key, value in values.items()
        if key != "Stage"
    )
    return [f"infra/endpoint.yml, as {name}: {line}" for line in _cfn_lint(text, typed)]


@cache
def _cfn_lint(text: str, values: tuple[tuple[str, Any], ...]) -> list[str]:
    """Return cfn-lint's findings in a template with these parameters; kept: it takes a second."""
    from cfnlint import ConfigMixIn
    from cfnlint.api import decode_str
    from cfnlint.context.parameters import ParameterSet
    from cfnlint.runner import Runner

    lists = {key: list(item) if isinstance(item, tuple) else item for key, item in values}
    content, errors = decode_str(text)
    if not errors:
        config = ConfigMixIn(
            [],
            # Its data about other regions is years behind AWS.
            regions=["us-east-1"],
            parameters=[ParameterSet(source=None, parameters=lists)],
        )
        errors = list(Runner(config).validate_template(content))
    return [f"line {found.linenumber}: {found.rule.id} {found.message}" for found in errors]


def workflow_problems(root: Path) -> list[str]:
    """Return the problems of the workflows in `.github/`, or of the Jenkinsfile.

    Checks GitHub's schema, the options of each `mlops` command, region and project; and runs
    actionlint if it is installed.
    """
    workflows = sorted((root / ".github" / "workflows").glob("*.y*ml"))
    files = [*workflows, *(file for file in [root / "Jenkinsfile"] if file.is_file())]
    found = [problem for file in files for problem in _command_problems(root, file)]
    if workflows:
        schema = ("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")
        found += _said(root, sys.executable, *schema, *map(str, workflows))
    if workflows and (actionlint := shutil.which("actionlint")):
        found += _said(root, actionlint, *map(str, workflows))
    return found


def _command_problems(root: Path, file: Path) -> Iterator[str]:
    text, project, name = file.read_text(encoding="utf-8"), load(root).project, file.name
    for variable, right in (("AWS_REGION", project.region), ("PROJECT", project.project)):
        pattern = rf"^ *{variable}(?: =|:) [\"']?([^\"'\s]+)"
        for value in re.findall(pattern, text, re.MULTILINE):
            if value != right:
                yield f"{name}: {variable} is {value}, in pyproject.toml it is {right}"
    for line in re.findall(r"(?:bin/|run: +|sh ['\"])mlops +(.+)", text):
        words = line.split()
        command = next((word for word in words if not word.startswith("-")), "").strip("'\"")
        known = _options(command)
        if known is None:
            yield f"{name}: mlops has no command {command}"
            continue
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", line):
            if option not in known:
                yield f"{name}: mlops {command} has no option {option}"


@cache
def _options(command: str) -> frozenset[str] | None:
    """Return the options of a command of `mlops`, global ones included; None if unknown."""
    import typer

    from sm_mlops.cli.main import app

    group: Any = typer.main.get_command(app)
    if command not in group.commands:
        return None
    found = group.commands[command]
    parts = [group, found, *getattr(found, "commands", {}).values()]
    opts = {option for part in parts for parameter in part.params for option in parameter.opts}
    return frozenset({"--help", *opts})


def _said(root: Path, *command: str) -> list[str]:
    """Return the output lines of a linter that fails."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def _without_account() -> dict[str, str]:
    """Return the environment without a sign-in to AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {"AWS_EC2_METADATA_DISABLED": "true"}
