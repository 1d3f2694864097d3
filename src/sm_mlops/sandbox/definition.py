"""A pipeline definition, read and checked once: parameters, steps, their dependencies and policies.

What the sandbox does not run is refused here, when the pipeline is created.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from sm_mlops.sandbox import expressions, images
from sm_mlops.sandbox.expressions import ExpressionError
from sm_mlops.sandbox.wire import invalid, not_implemented, service_model

JOB_OPERATIONS = {
    "Processing": ("CreateProcessingJob", "DescribeProcessingJob"),
    "Training": ("CreateTrainingJob", "DescribeTrainingJob"),
    "Transform": ("CreateTransformJob", "DescribeTransformJob"),
    "RegisterModel": ("CreateModelPackage", "DescribeModelPackage"),
}
STEP_TYPES = (*JOB_OPERATIONS, "Condition", "Fail")
RETRIED_EXCEPTIONS = (
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
)
_STEP_MEMBERS = {
    "Name",
    "Type",
    "Arguments",
    "DependsOn",
    "CacheConfig",
    "RetryPolicies",
    "PropertyFiles",
}
_IMAGES = {"AppSpecification": "ImageUri", "AlgorithmSpecification": "TrainingImage"}
_DURATION = re.compile(
    r"P?(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?",
    re.IGNORECASE,
)
_SECONDS = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)


@dataclass(frozen=True)
class Parameter:
    """A declared parameter; `default` is None when a value must be given."""

    name: str
    type: str
    default: Any
    values: list[Any]


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and at which intervals, a step is retried. Times in seconds."""

    exceptions: tuple[str, ...]
    interval: float = 1
    backoff: float = 2
    attempts: int = 5
    expire_after: float | None = None


@dataclass(frozen=True)
class Step:
    """A step with everything that decides when and how it runs."""

    name: str
    type: str
    arguments: dict[str, Any]
    dependencies: frozenset[str]
    branch: tuple[str, bool] | None
    """The condition step that must come out so for this step to run at all."""
    cache_seconds: float | None
    """How old a result may be to be used again; None when caching is off."""
    retries: tuple[RetryPolicy, ...]
    property_files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name: (name of the output, path in it)."""


@dataclass(frozen=True)
class Definition:
    """A checked pipeline definition."""

    parameters: dict[str, Parameter]
    steps: dict[str, Step]


def parse(text: str) -> Definition:
    """Read a definition. Raises ApiError naming what is wrong or not supported.

    The SDK puts a PipelineExperimentConfig into every definition; nothing here tracks experiments.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise invalid(f"Unable to parse pipeline definition: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("Steps"), list):
        raise invalid("Pipeline definition must be an object with a list of Steps")
    if document.get("Version") != "2020-12-01":
        raise invalid(f"Pipeline definition version {document.get('Version')!r} is not supported")
    parameters = {}
    for declared in document.get("Parameters") or []:
        parameter = _parameter(declared)
        if parameter.name in parameters:
            raise invalid(f"Parameter names must be unique: '{parameter.name}' occurs twice")
        parameters[parameter.name] = parameter
    steps: dict[str, Step] = {}
    _read_steps(document["Steps"], None, steps)
    definition = Definition(parameters, steps)
    _check_references(definition)
    _check_cycles(definition)
    return definition


def require_images(definition: Definition) -> None:
    """Raise ApiError if a job or a version of it has an image that cannot run here."""
    for step in definition.steps.values():
        jobs = (step.arguments.get(name) or {} for name in _IMAGES)
        named = [job.get(key) for job, key in zip(jobs, _IMAGES.values(), strict=True)]
        version = step.arguments.get("InferenceSpecification") or {}
        named += [container.get("Image") for container in version.get("Containers") or []]
        for image in named:
            try:
                if isinstance(image, str):
                    images.find(image)
            except images.ImageError as error:
                raise invalid(f"Step '{step.name}': {error}") from error


def _parameter(declared: dict[str, Any]) -> Parameter:
    name, kind = declared.get("Name"), declared.get("Type")
    if not isinstance(name, str) or kind not in ("String", "Integer", "Float", "Boolean"):
        raise invalid(f"Parameter {name!r} has type {kind!r}; use String, Integer, Float, Boolean")
    values = [convert(name, kind, value) for value in declared.get("EnumValues") or []]
    default = declared.get("DefaultValue")
    if default is not None:
        default = convert(name, kind, default)
        if values and default not in values:
            raise invalid(f"Default value of parameter '{name}' is not one of {values}")
    return Parameter(name, kind, default, values)


def convert(name: str, kind: str, value: Any) -> Any:
    """Return a parameter's value in its type; values of StartPipelineExecution arrive as text."""
    try:
        if kind == "String" and isinstance(value, str):
            return value
        if kind == "Integer" and not isinstance(value, bool | float):
            return int(value)
        if kind == "Float" and not isinstance(value, bool):
            return float(value)
        if kind == "Boolean" and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    except (TypeError, ValueError):
        pass
    raise invalid(f"Value {value!r} of parameter '{name}' is not of type {kind}")


def bind(definition: Definition, given: list[dict[str, str]]) -> dict[str, Any]:
    """Return the value of every parameter of an execution. Raises ApiError for wrong or missing
    ones."""
    values = {name: parameter.default for name, parameter in definition.parameters.items()}
    seen = set()
    for item in given:
        name = item["Name"]
        if name not in values:
            raise invalid(f"Unknown parameter '{name}': it is not in the pipeline definition")
        if name in seen:
            raise invalid(f"Parameter '{name}' is given twice")
        seen.add(name)
        parameter = definition.parameters[name]
        values[name] = convert(name, parameter.type, item["Value"])
        if parameter.values and values[name] not in parameter.values:
            raise invalid(f"Value {item['Value']!r} of '{name}' is not one of {parameter.values}")
    absent = sorted(name for name, value in values.items() if value is None)
    if absent:
        raise invalid(f"Parameters without a value: {', '.join(absent)}")
    return values


def _read_steps(
    raw_steps: list[dict[str, Any]], branch: tuple[str, bool] | None, steps: dict[str, Step]
) -> None:
    for raw in raw_steps:
        step = _step(raw, branch)
        if step.name in steps:
            raise invalid(f"Step names must be unique: '{step.name}' occurs twice")
        steps[step.name] = step
        if step.type == "Condition":
            _read_steps(step.arguments.get("IfSteps") or [], (step.name, True), steps)
            _read_steps(step.arguments.get("ElseSteps") or [], (step.name, False), steps)


def _step(raw: dict[str, Any], branch: tuple[str, bool] | None) -> Step:
    name, kind = raw.get("Name"), raw.get("Type")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9\-_]{1,64}", name):
        raise invalid(f"Step name {name!r} must match [A-Za-z0-9\\-_]{{1,64}}")
    if kind not in STEP_TYPES:
        raise invalid(
            f"Step '{name}' has type '{kind}', which the sandbox does not run "
            f"(it runs {', '.join(STEP_TYPES)})"
        )
    unknown = set(raw) - _STEP_MEMBERS
    if unknown:
        raise invalid(f"Step '{name}' has members not known here: {', '.join(sorted(unknown))}")
    arguments = raw.get("Arguments") or {}
    looked_at = arguments
    if kind == "Condition":
        _check_conditions(name, arguments.get("Conditions"))
        looked_at = {"Conditions": arguments["Conditions"]}
    elif kind == "Fail" and "ErrorMessage" not in arguments:
        raise invalid(f"Step '{name}' of type Fail needs Arguments.ErrorMessage")
    try:
        dependencies = set(raw.get("DependsOn") or []) | expressions.references(looked_at)
    except ExpressionError as error:
        raise invalid(f"Step '{name}': {error}") from error
    return Step(
        name=name,
        type=kind,
        arguments=arguments,
        dependencies=frozenset(dependencies | ({branch[0]} if branch else set())),
        branch=branch,
        cache_seconds=_cache(name, kind, raw.get("CacheConfig")),
        retries=tuple(_retry(name, kind, policy) for policy in raw.get("RetryPolicies") or []),
        property_files=_property_files(name, raw),
    )


def _property_files(name: str, raw: dict[str, Any]) -> dict[str, tuple[str, str]]:
    outputs = {
        output.get("OutputName")
        for output in (
            ((raw.get("Arguments") or {}).get("ProcessingOutputConfig") or {}).get("Outputs") or []
        )
    }
    files = {}
    for item in raw.get("PropertyFiles") or []:
        if item["OutputName"] not in outputs:
            raise invalid(
                f"Property file '{item['PropertyFileName']}' of step '{name}' names output "
                f"'{item['OutputName']}', which the step does not have"
            )
        files[item["PropertyFileName"]] = (item["OutputName"], item["FilePath"])
    return files


def _cache(name: str, kind: str, config: dict[str, Any] | None) -> float | None:
    if not config or not config.get("Enabled"):
        return None
    if kind not in ("Processing", "Training"):
        raise invalid(f"Step '{name}' of type {kind} cannot be cached here")
    if "ExpireAfter" not in config:
        return float("inf")
    return _duration(name, str(config["ExpireAfter"]))


def _duration(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise invalid(f"CacheConfig.ExpireAfter {text!r} of step '{name}' is no ISO 8601 duration")
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), _SECONDS, strict=True))


def _retry(name: str, kind: str, policy: dict[str, Any]) -> RetryPolicy:
    if kind not in JOB_OPERATIONS:
        raise invalid(f"Step '{name}' of type {kind} cannot have RetryPolicies")
    kinds = policy.get("ExceptionType") or []
    unknown = [kind for kind in kinds if kind not in RETRIED_EXCEPTIONS]
    if unknown or not kinds:
        raise invalid(
            f"RetryPolicies of step '{name}': ExceptionType {unknown or kinds} is not one of "
            f"{', '.join(RETRIED_EXCEPTIONS)}"
        )
    expire = policy.get("ExpireAfterMin")
    attempts = policy.get("MaxAttempts")
    if attempts is None:
        # Without a count the policy's time limit alone decides.
        attempts = 5 if expire is None else 1_000_000
    return RetryPolicy(
        exceptions=tuple(kinds),
        interval=float(policy.get("IntervalSeconds", 1)),
        backoff=float(policy.get("BackoffRate", 2)),
        attempts=int(attempts),
        expire_after=None if expire is None else float(expire) * 60,
    )


def _check_conditions(name: str, conditions: Any) -> None:
    if not isinstance(conditions, list) or not conditions:
        raise invalid(f"Condition step '{name}' needs a list of Conditions")
    for condition in conditions:
        kind = condition.get("Type")
        if kind not in expressions.COMPARISONS:
            raise not_implemented(f"a condition of type {kind!r} (step '{name}')")
        if not {"LeftValue", "RightValue"} <= set(condition):
            raise invalid(f"Condition {kind} in step '{name}' needs LeftValue, RightValue")


def _check_references(definition: Definition) -> None:
    for step in definition.steps.values():
        for other in sorted(step.dependencies):
            if other not in definition.steps:
                raise invalid(f"Step '{step.name}' depends on '{other}', which is not a step")
        arguments = step.arguments
        if step.type == "Condition":
            arguments = {"Conditions": arguments["Conditions"]}
        try:
            for expression in expressions.walk(arguments):
                _check_expression(expression, definition)
        except ExpressionError as error:
            raise invalid(f"Step '{step.name}': {error}") from error


def _check_expression(expression: dict[str, Any], definition: Definition) -> None:
    name, body = next(iter(expression.items()))
    if name not in expressions.FUNCTIONS:
        known = ", ".join(expressions.FUNCTIONS)
        raise ExpressionError(f"function {name!r} is not known; known are {known}")
    if name == "Std:Join":
        if not isinstance(body, dict) or not isinstance(body.get("Values"), list):
            raise ExpressionError("Std:Join needs On and Values")
        return
    if name == "Std:JsonGet":
        _check_json_get(body)
        return
    if not isinstance(body, str):
        raise ExpressionError("Get needs a path")
    root, target, rest = expressions.split_get(body)
    if root == "Parameters" and target not in definition.parameters:
        raise ExpressionError(f"parameter '{target}' is not defined")
    if root == "Execution" and target not in expressions.EXECUTION_VARIABLES:
        raise ExpressionError(f"execution variable '{target}' is not known")
    if root == "Steps":
        _check_property(body, definition.steps.get(target), target, rest)


def _check_json_get(body: Any) -> None:
    if not isinstance(body, dict) or "Path" not in body:
        raise ExpressionError("Std:JsonGet needs Path and PropertyFile")
    if "S3Uri" in body:
        raise not_implemented("Std:JsonGet with S3Uri")
    reference = (body.get("PropertyFile") or {}).get("Get", "")
    root, _, rest = expressions.split_get(reference)
    if root != "Steps" or len(rest) != 2 or rest[0] != "PropertyFiles":
        raise ExpressionError(
            f"Std:JsonGet: {reference!r} is not Steps.<step>.PropertyFiles.<name>"
        )


def _check_property(path: str, step: Step | None, target: str, rest: list[str | int]) -> None:
    if step is None:
        raise ExpressionError(f"{path} names step '{target}', which does not exist")
    if rest[:1] == ["PropertyFiles"]:
        if len(rest) != 2 or rest[1] not in step.property_files:
            raise ExpressionError(f"{path}: step '{target}' has no such property file")
        return
    if step.type == "Condition" and rest == ["Outcome"]:
        return
    if step.type not in JOB_OPERATIONS or not rest:
        raise ExpressionError(f"{path}: a step of type {step.type} has no such property")
    describe = JOB_OPERATIONS[step.type][1]
    shape: Shape | None = service_model().operation_model(describe).output_shape
    for token in rest:
        if isinstance(shape, StructureShape):
            shape = shape.members.get(str(token))
        elif isinstance(shape, ListShape):
            shape = shape.member
        else:
            shape = shape.value if isinstance(shape, MapShape) else None
        if shape is None:
            raise ExpressionError(f"{path} leads nowhere: {describe} answers no such member")


def _check_cycles(definition: Definition) -> None:
    graph = {name: step.dependencies for name, step in definition.steps.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise invalid(f"Steps depend on each other in a circle: {names}") from error
