"""What the tests of a model repo build on: the compiled pipeline, the trained and served model, the
stack of a stage, the workflows. Everything runs on this machine, without an AWS account.

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
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from sm_mlops import executions, redaction, templates
from sm_mlops.aws import Aws
from sm_mlops.cli.main import app
from sm_mlops.cli.sandbox_account import temporary
from sm_mlops.deployment import endpoints, predict, smoke, stages, watch
from sm_mlops.errors import MlopsError
from sm_mlops.settings import SANDBOX_ACCOUNT as ACCOUNT
from sm_mlops.settings import Gate, load
from sm_mlops.training import review, run

CSV, JSON, LINES = smoke.CSV, smoke.JSON, smoke.LINES
Refused = predict.Refused
_ENDPOINT = "under-test"
_CODE = "/opt/ml/processing/input/code/"
_NO_LIMIT = 1e307  # Only a metric that does not exist, 1e308, fails the gate.


def compiled(root: Path, hash_seed: int = 0) -> str:
    """Return the pipeline definition of the repo at `root` as JSON text.

    Compiles in a process of its own, whose sets and hashes are ordered by `hash_seed`, without
    whatever signs in to AWS. Raises AssertionError with what the compiler said.
    """
    unsigned = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-m", "sm_mlops", "compile", "--account", ACCOUNT],
        cwd=root,
        env=unsigned | {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr.strip()
    return done.stdout


def scripts(definition: str) -> dict[str, str]:
    """Return the script of `model/` that a step runs, by step."""
    found = {}
    for step in executions.all_steps(definition):
        given = step.get("Arguments") or {}
        program = (given.get("HyperParameters") or {}).get("sagemaker_program")
        for word in (given.get("AppSpecification") or {}).get("ContainerEntrypoint") or ():
            if isinstance(word, str) and word.startswith(_CODE):
                program = word.removeprefix(_CODE)
        if program:
            found[step["Name"]] = str(program)
    return found


@dataclass(frozen=True)
class Model:
    """A version that the repo's own pipeline trained, served by an endpoint of the sandbox.

    `sample` has rows in each content type, and the predictions that Evaluate got for them; `gate`
    is the content of its gate.json.
    """

    aws: Aws
    endpoint: endpoints.Endpoint
    sample: smoke.Sample
    gate: dict[str, Any]

    def ask(self, body: bytes, content_type: str) -> list[Any]:
        """Return the endpoint's predictions. Raises Refused with the status and the reason."""
        answer = predict.invoke(self.aws, self.endpoint, body, content_type, JSON)
        return list(json.loads(answer.body)["predictions"])


@contextmanager
def trained(root: Path, work: Path) -> Iterator[Model]:
    """Train and serve the model of the repo at `root`, in a sandbox in the folder `work`.

    On `data.sample`, or else `data.path`. The version is registered however good it is: whether it
    passes the gate is for `mlops review` to tell. Raises AssertionError with the reason and the end
    of the log if training fails, or if the gate's metric does not exist for this task.
    """
    settings = load(root)
    limit = _NO_LIMIT if settings.lower_is_better else -_NO_LIMIT
    settings = replace(settings, gate=Gate(settings.gate.metric, limit, _NO_LIMIT))
    with temporary(work, settings.project.region) as account:
        aws = account(settings)
        arn = run.start(aws, {}, lambda line: None)
        ended = executions.follow(aws, arn, Console(file=io.StringIO()))
        result = review.outcome(aws, ended)
        assert result.model_package, "\n".join(result.failure)
        yield _served(aws, result)


def _served(aws: Aws, result: review.Trained) -> Model:
    call, arn = aws.sagemaker, result.model_package
    call.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    call.create_model(
        ModelName=_ENDPOINT,
        ExecutionRoleArn=aws.settings.role_arn(aws.account),
        PrimaryContainer={"ModelPackageName": arn},
    )
    size = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    variant = {"VariantName": endpoints.VARIANT, "ModelName": _ENDPOINT, "ServerlessConfig": size}
    call.create_endpoint_config(EndpointConfigName=_ENDPOINT, ProductionVariants=[variant])
    call.create_endpoint(EndpointName=_ENDPOINT, EndpointConfigName=_ENDPOINT)
    endpoint = endpoints.settled(aws, _ENDPOINT)
    assert endpoint and endpoint.status == "InService", endpoint and endpoint.reason
    return Model(aws, endpoint, smoke.load_sample(aws, arn), result.gate or {})


def stage_problems(root: Path, name: str) -> list[str]:
    """Return the problems of `infra/<name>.json`, and of endpoint.yml with its parameters.

    Applies the rules of the stage file, of the template, and of cfn-lint.
    """
    from cfnlint.api import lint
    from cfnlint.context.parameters import ParameterSet

    from sm_mlops.sandbox.cloudformation import parameters, template
    from sm_mlops.sandbox.cloudformation.expressions import Scope
    from sm_mlops.sandbox.wire import ApiError

    settings = load(root)
    try:
        stage = stages.load(settings, name)
        stages.require_wheels(settings, stage)
    except MlopsError as error:
        return [str(error)]
    if wrong := watch.problem(settings, stage):
        return [wrong]
    region, group = settings.project.region, settings.model_package_group
    version = f"arn:{settings.partition}:sagemaker:{region}:{ACCOUNT}:model-package/{group}/1"
    given = stages.stack_parameters(settings, stage, settings.bucket(ACCOUNT), version)
    declared = templates.parameters(stages.template(settings))
    text = stages.template(settings).read_text(encoding="utf-8")
    try:
        parsed = template.parse(text)
        pairs = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
        bound = parameters.bind(parsed, pairs, None)
        stack = f"arn:{settings.partition}:cloudformation:{region}:{ACCOUNT}:stack/{stage.stack}/1"
        Scope(parsed, bound, ACCOUNT, region, stack, stage.stack).check_rules()
    except ApiError as error:
        if "does not implement" not in str(error):  # AWS may know what the sandbox does not
            return [f"infra/{name}.json: {error}"]
    values = {
        key: value.split(",") if "List" in declared[key]["Type"] else value
        for key, value in given.items()
    }
    # Its lists of what other regions have lag behind AWS by years.
    config = {"regions": ["us-east-1"], "parameters": [ParameterSet(None, values)]}
    return [
        f"infra/endpoint.yml, as {name}: line {found.linenumber}: {found.rule.id} {found.message}"
        for found in lint(text, config=config)
    ]


def workflow_problems(root: Path) -> list[str]:
    """Return the problems of the workflows in `.github/`, or of the Jenkinsfile.

    By GitHub's schema, by the commands and options that `mlops` has, by region and project of
    pyproject.toml, and by actionlint if it is installed.
    """
    workflows = sorted((root / ".github" / "workflows").glob("*.y*ml"))
    files = [*workflows, *root.glob("Jenkinsfile*")]
    found = [line for file in files for line in _command_problems(root, file)]
    schema = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    linters = [[sys.executable, *schema]]
    if actionlint := shutil.which("actionlint"):
        linters.append([actionlint])
    for linter in linters if workflows else ():
        done = redaction.run([*linter, *map(str, workflows)], root)
        if done.returncode != 0:
            found += [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return found


def _command_problems(root: Path, file: Path) -> Iterator[str]:
    text, project = file.read_text(encoding="utf-8"), load(root).project
    ours = "mlops" in text  # a workflow of the team's may be about another project
    for variable, right in (("AWS_REGION", project.region), ("PROJECT", project.project)):
        pattern = rf"^ *{variable}(?: =|:) [\"']?([^\"'\s$]+)"
        for value in re.findall(pattern, text, re.MULTILINE):
            if ours and value != right:
                yield f"{file.name}: {variable} is {value}, in pyproject.toml it is {right}"
    for line in re.findall(r"(?:bin/|run: +|sh ['\"])(mlops +[^|;&>)\n]+)", text):
        if problem := _usage_problem(line):
            yield f"{file.name}: {line.strip()}: {problem}"


def _usage_problem(line: str) -> str:
    """Return what `mlops` would say about its command or its options, empty if nothing."""
    words = re.sub(r"['\"]", "", line).split()[1:]
    command: Any = typer.main.get_command(app)
    try:
        while words:
            context = command.context_class(command)
            _, words, _ = command.make_parser(context).parse_args(words)
            if not words or not hasattr(command, "resolve_command"):
                break
            _, command, words = command.resolve_command(context, words)
    except typer.TyperException as error:
        return error.format_message()
    return ""
