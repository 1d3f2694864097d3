"""What this repo is called and what `mlops.yaml` says, checked and typed, and the names from it.

Knows neither the SageMaker SDK nor boto3, so that every command may import it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HIGHER_IS_BETTER = (
    "auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "r2",
)
LOWER_IS_BETTER = ("logloss", "rmse", "mae", "mape")
TASKS = ("auto", "binary", "multiclass", "regression")
APPROVALS = ("PendingManualApproval", "Approved", "Rejected")

# Hyperparameters reach SageMaker as pipeline parameters: their names must make parameter names.
_HYPERPARAMETER = re.compile(r"[a-z][a-z0-9_]*")
# Those that each execution has beside the hyperparameters; see definition.py.
PARAMETERS = (
    *("InputData", "DataHash", "Commit", "Champion", "ApprovalStatus"),
    *("GateThreshold", "GateTolerance"),
    *("PreprocessInstanceType", "TrainInstanceType", "TrainInstanceCount", "EvaluateInstanceType"),
)
# AWS's own: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html
# and API_ProcessingStoppingCondition.html
_MOST_HOURS = {"preprocess": 216, "train": 672, "evaluate": 216}


_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "us-isof-": "aws-iso-f",
    "eu-isoe-": "aws-iso-e",
    "eusc-": "aws-eusc",
}


class SettingsError(Exception):
    """What a person wrote in `mlops.yaml` or `pyproject.toml` cannot be used, in one line."""


@dataclass(frozen=True)
class Data:
    path: str
    target: str
    sample: str | None = None
    task: str = "auto"
    positive: str | int | float | bool | None = None
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    validation: float = 0.15
    test: float = 0.15
    seed: int = 42


@dataclass(frozen=True)
class Gate:
    metric: str = "auc"
    threshold: float = 0.5
    tolerance: float = 0.0


@dataclass(frozen=True)
class Job:
    instance: str = "ml.m5.large"
    count: int = 1
    volume_gb: int = 30
    max_hours: float = 1.0


@dataclass(frozen=True)
class TrainingJob(Job):
    max_hours: float = 4.0
    spot: bool = False


@dataclass(frozen=True)
class Compute:
    preprocess: Job = field(default_factory=Job)
    train: TrainingJob = field(default_factory=TrainingJob)
    evaluate: Job = field(default_factory=Job)


@dataclass(frozen=True)
class Registry:
    approval: str = "PendingManualApproval"


@dataclass(frozen=True)
class Aws:
    role: str | None = None
    bucket: str | None = None
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    encrypt_between_containers: bool = False


@dataclass(frozen=True)
class Project:
    """`[tool.mlops]` of `pyproject.toml`: fixed when the repo was rendered."""

    project: str
    region: str
    github: str
    sign_in: str
    ci: str = "github-actions"
    template_version: str = ""
    git_host: str = "github.com"
    """Or the host of a GitHub Enterprise Server."""

    @property
    def repository(self) -> str:
        """The address of the GitHub repository."""
        return f"https://{self.git_host}/{self.github}"

    @property
    def uses_key(self) -> bool:
        """Whether CI signs in with the key of an IAM user: AWS trusts github.com's tokens, those
        of no other server, and Jenkins has none."""
        return self.sign_in == "iam-user" or self.ci == "jenkins" or self.git_host != "github.com"


@dataclass(frozen=True)
class Settings:
    """All of it.

    `hyperparameters` keeps the order of the file; values are text, as SageMaker passes them on.
    """

    root: Path
    project: Project
    data: Data
    split: Split = field(default_factory=Split)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)
    compute: Compute = field(default_factory=Compute)
    registry: Registry = field(default_factory=Registry)
    aws: Aws = field(default_factory=Aws)

    @property
    def pipeline(self) -> str:
        return self.project.project

    @property
    def model_package_group(self) -> str:
        return self.project.project

    @property
    def prefix(self) -> str:
        """Everything of this project in the bucket lives below this S3 prefix."""
        return self.project.project

    def bucket(self, account: str) -> str:
        """One bucket serves all projects of an account and region (44 of S3's 63 characters)."""
        return self.aws.bucket or f"sm-mlops-{account}-{self.project.region}"

    def role_arn(self, account: str) -> str:
        role = self.aws.role or f"{self.project.project}-pipeline"
        return (
            role if role.startswith("arn:") else f"arn:{self.partition}:iam::{account}:role/{role}"
        )

    @property
    def partition(self) -> str:
        for start, partition in _PARTITIONS.items():
            if self.project.region.startswith(start):
                return partition
        return "aws"


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds a `mlops.yaml`."""
    for folder in (start, *start.parents):
        if (folder / "mlops.yaml").is_file():
            return folder
    raise SettingsError(f"no mlops.yaml in {start} or above it: run mlops inside a model repo")


def load(root: Path) -> Settings:
    """The settings of the repo at `root`. Raises SettingsError with file, key and remedy."""
    project = _read_project(root / "pyproject.toml")
    file = root / "mlops.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as missing:
        raise SettingsError(f"{file}: no such file") from missing
    except UnicodeDecodeError as error:
        raise SettingsError(f"mlops.yaml: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise SettingsError(f"mlops.yaml{where}: {one_line(problem)}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML's, for what looks like a date or a number and is none: 2024-13-45.
        raise SettingsError(f"mlops.yaml: not valid YAML ({one_line(error)})") from error
    except RecursionError as error:
        raise SettingsError("mlops.yaml: nested too deeply") from error
    if not isinstance(content, dict):
        raise SettingsError("mlops.yaml: must be a mapping with at least data.path and data.target")

    known = {f.name for f in dataclasses.fields(Settings)} - {"root", "project"}
    _refuse_unknown(content, known, "")
    types = typing.get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name == "hyperparameters":
            values[name] = _hyperparameters(value)
        elif value is not None:
            values[name] = _build(types[name], value, name)
    if "data" not in values:
        raise SettingsError("mlops.yaml: data is missing; it needs at least path and target")
    settings = Settings(root=root, project=project, **values)
    _check(settings)
    return settings


def parameter_name(hyperparameter: str) -> str:
    """`max_depth` → `MaxDepth`: the pipeline parameter that overrides a hyperparameter."""
    return "".join(part.capitalize() for part in hyperparameter.split("_"))


def one_line(text: object) -> str:
    """What a person wrote, or what was said about it, on one line that may be printed."""
    shown = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def _read_project(file: Path) -> Project:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["mlops"]
        for key, value in table.items():
            if not isinstance(value, str):
                raise SettingsError(
                    f"pyproject.toml: [tool.mlops] {one_line(key)} must be text, not {value!r}"
                )
        return Project(**{key.replace("-", "_"): value for key, value in table.items()})
    except FileNotFoundError as missing:
        raise SettingsError(f"{file}: no such file") from missing
    except UnicodeDecodeError as error:
        raise SettingsError(f"pyproject.toml: not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"pyproject.toml: {one_line(error)}") from error
    except RecursionError as error:
        raise SettingsError("pyproject.toml: nested too deeply") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            "pyproject.toml: [tool.mlops] must hold project, region, github and sign-in"
        ) from error


def _refuse_unknown(content: dict[Any, Any], known: set[str], path: str) -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"mlops.yaml: {path}{one_line(key)} is unknown; {hint}")


def _build(kind: Any, value: Any, path: str) -> Any:
    """`value` from YAML as an instance of the dataclass `kind`."""
    if not isinstance(value, dict):
        raise SettingsError(f"mlops.yaml: {path} must be a mapping, not {value!r}")
    hints = typing.get_type_hints(kind)
    _refuse_unknown(value, set(hints), f"{path}.")
    built = {}
    for name, item in value.items():
        where = f"{path}.{name}"
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if item is not None:
                built[name] = _build(hint, item, where)
        elif item is not None:
            built[name] = _scalar(hint, item, where)
    for item in dataclasses.fields(kind):
        if item.name not in built and item.default is item.default_factory is dataclasses.MISSING:
            raise SettingsError(f"mlops.yaml: {path}.{item.name} is missing")
    return kind(**built)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """`value` if its type is what `hint` names; whole numbers pass as floats, lists as tuples."""
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise SettingsError(f"mlops.yaml: {where} must be a list, as in [a, b], not {value!r}")
        return tuple(str(_scalar(str | int | float | bool, item, where)) for item in value)
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, bool) and bool not in allowed:
        raise SettingsError(f"mlops.yaml: {where} must be a {_named(allowed)}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"mlops.yaml: {where} must be a finite number, not {value!r}")
    if isinstance(value, str):
        _refuse_no_text(value, where)
    if isinstance(value, allowed):
        return value
    if float in allowed and isinstance(value, int) and abs(value) < 1e300:
        return float(value)
    if allowed == (str,) and isinstance(value, int | float):
        return str(value)
    raise SettingsError(f"mlops.yaml: {where} must be a {_named(allowed)}, not {value!r}")


def _refuse_no_text(value: str, where: str) -> None:
    # A half of a surrogate pair, "\ud800", which no file and no request can hold.
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise SettingsError(f"mlops.yaml: {where} is no Unicode text: {value!r}")


def _named(allowed: tuple[type, ...]) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return " or ".join(names[kind] for kind in allowed if kind in names)


def _hyperparameters(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(f"mlops.yaml: hyperparameters must be a mapping, not {value!r}")
    result = {}
    for name, item in value.items():
        if not _HYPERPARAMETER.fullmatch(str(name)):
            raise SettingsError(
                f"mlops.yaml: hyperparameters.{one_line(name)}: "
                "a name has lower-case letters, digits and _"
            )
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise SettingsError(
                f"mlops.yaml: hyperparameters.{name} must be a number or text, not {item!r}"
            )
        _refuse_no_text(str(item), f"hyperparameters.{name}")
        if len(str(item)) > 2500:
            raise SettingsError(
                f"mlops.yaml: hyperparameters.{name} is longer than SageMaker's 2,500 characters"
            )
        result[str(name)] = str(item)
    return result


def _check(settings: Settings) -> None:
    """The rules between values, each refused with the key it belongs to."""

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise SettingsError(f"mlops.yaml: {one_line(message)}")

    metrics = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
    data, split, gate = settings.data, settings.split, settings.gate
    require(bool(data.path.strip()), "data.path is empty")
    require(
        data.sample is None or (bool(data.sample.strip()) and "://" not in data.sample),
        f"data.sample must be a file or folder in this repo, not {data.sample!r}",
    )
    require(bool(data.target.strip()), "data.target is empty")
    require(data.task in TASKS, f"data.task must be one of {', '.join(TASKS)}, not {data.task}")
    require(data.target not in data.drop, f"data.drop names the target {data.target}")
    for name, share in (("validation", split.validation), ("test", split.test)):
        require(0 < share < 1, f"split.{name} must be between 0 and 1, not {share}")
    require(split.validation + split.test < 1, "split leaves no rows for training")
    require(split.seed >= 0, f"split.seed must not be negative, it is {split.seed}")
    require(
        gate.metric in metrics,
        f"gate.metric must be one of {', '.join(metrics)}, not {gate.metric}",
    )
    require(gate.tolerance >= 0, f"gate.tolerance must not be negative, it is {gate.tolerance}")
    for name in ("preprocess", "train", "evaluate"):
        job = getattr(settings.compute, name)
        require(
            re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9]+", job.instance) is not None,
            f"compute.{name}.instance must be like ml.m5.large, not {job.instance}",
        )
        require(job.count >= 1, f"compute.{name}.count must be at least 1, not {job.count}")
        require(
            job.volume_gb >= 1, f"compute.{name}.volume_gb must be at least 1, not {job.volume_gb}"
        )
        most = _MOST_HOURS[name]
        require(
            0 < job.max_hours <= most,
            f"compute.{name}.max_hours must be above 0 and at most {most}, not {job.max_hours}",
        )
    for name in ("preprocess", "evaluate"):
        count = getattr(settings.compute, name).count
        require(
            count == 1, f"compute.{name}.count must be 1: the script sees all the data, not a share"
        )
    parameters = set(PARAMETERS)
    for name in settings.hyperparameters:
        require(
            parameter_name(name) not in parameters,
            f"hyperparameters.{name}: there is a pipeline parameter {parameter_name(name)} already",
        )
        parameters.add(parameter_name(name))
    require(
        settings.registry.approval in APPROVALS,
        f"registry.approval must be one of {', '.join(APPROVALS)}",
    )
    require(
        bool(settings.aws.subnets) == bool(settings.aws.security_groups),
        "aws.subnets and aws.security_groups go together: give both or neither",
    )
