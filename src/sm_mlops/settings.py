"""The settings of a repo, checked and typed: `mlops.yaml`, `[tool.mlops]` of `pyproject.toml`, and
the names derived from them.

Imports neither the SageMaker SDK nor boto3: every command imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sm_mlops import dates, images, schedules, tags
from sm_mlops.errors import MlopsError, hint, one_line
from sm_mlops.schedules import Monitoring, Retraining
from sm_mlops.tabular import measures, mlops_yaml
from sm_mlops.tabular.text import visible

_OWN = ", or a function of model/evaluate.py under @higher_is_better or @lower_is_better"
TASKS = ("auto", "binary", "multiclass", "regression")
SANDBOX_ACCOUNT = "123456789012"  # which AWS's documentation uses, and no one has
# A pattern of instance types; the sandbox judges by the same file.
_LOCAL_STORAGE = Path(__file__).with_name("local_storage.txt")
# Hyperparameters become pipeline parameters, so their names must make parameter names.
_HYPERPARAMETER = re.compile(r"[a-z][a-z0-9_]*")
# The other parameters of each execution; see pipeline/definition.py.
PARAMETERS = (
    *("InputData", "DataHash", "Commit", "Reason", "Champion", "WaiveChampion"),
    *("GateThreshold", "GateTolerance"),
    *("PreprocessInstanceType", "TrainInstanceType", "EvaluateInstanceType"),
)
# Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html
# and API_ProcessingStoppingCondition.html
_MOST_HOURS = {"preprocess": 216, "train": 672, "evaluate": 216}


class SettingsError(MlopsError):
    """`mlops.yaml` or `pyproject.toml` is invalid, in one line."""


@dataclass(frozen=True)
class Data:
    path: str
    target: str
    sample: str | None = None
    task: str = "auto"
    positive: str | int | float | bool | None = None
    drop: tuple[str, ...] = ()
    decimal: str | None = None
    checks: mlops_yaml.Rules = field(default_factory=dict)
    changed_columns: str = "warn"


@dataclass(frozen=True)
class Split:
    validation: float = 0.15
    test: float = 0.15
    seed: int = 42
    by: str | None = None


@dataclass(frozen=True)
class Evaluation:
    threshold: float = 0.5
    slices: tuple[str, ...] = ()


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
class Aws:
    role: str | None = None
    bucket: str | None = None
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    package_index: bool = False
    encrypt_between_containers: bool = False


@dataclass(frozen=True)
class Project:
    """`[tool.mlops]` of `pyproject.toml`: what was fixed when the repo was rendered."""

    project: str
    region: str
    github: str
    sign_in: str
    ci: str = "github-actions"
    template_version: str = ""
    git_host: str = "github.com"
    """`github.com`, or the host of a GitHub Enterprise Server."""
    owner: str = tags.NOBODY
    """The team whose bill it is: the tag `owner` of all resources."""

    @property
    def repository(self) -> str:
        """Return the URL of the GitHub repository."""
        return f"https://{self.git_host}/{self.github}"

    def resource_tags(self, stage: str = "") -> dict[str, str]:
        """Return the tags of the project's resources, or of those of one of its stages."""
        found = {"project": self.project, "owner": self.owner}
        return found | ({"stage": stage} if stage else {})

    @property
    def uses_key(self) -> bool:
        """Return whether CI signs in with the access key of an IAM user.

        AWS trusts the tokens of github.com only, and Jenkins has none.
        """
        return self.sign_in == "iam-user" or self.ci == "jenkins" or self.git_host != "github.com"


@dataclass(frozen=True)
class Settings:
    """`mlops.yaml` and `[tool.mlops]`.

    `hyperparameters` keeps the order of the file; values are text, as SageMaker passes them.
    """

    root: Path
    project: Project
    data: Data
    split: Split = field(default_factory=Split)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    gate: Gate = field(default_factory=Gate)
    compute: Compute = field(default_factory=Compute)
    monitoring: Monitoring = field(default_factory=Monitoring)
    retraining: Retraining = field(default_factory=Retraining)
    aws: Aws = field(default_factory=Aws)
    image: str = images.DEFAULT
    image_environment: str | None = None

    @cached_property
    def container(self) -> images.Image:
        """Return the image of jobs and endpoints. Raises MlopsError for its file of packages."""
        return images.find(self.image, self.root / (self.image_environment or ""))

    @property
    def lower_is_better(self) -> bool:
        """Return whether lower values of the gate's metric are better."""
        return self.gate.metric in measures.LOWER or own_metrics(self.root).get(
            self.gate.metric, False
        )

    @property
    def pipeline(self) -> str:
        return self.project.project

    @property
    def monitor_pipeline(self) -> str:
        return f"{self.project.project}-monitor"

    @property
    def model_package_group(self) -> str:
        return self.project.project

    @property
    def prefix(self) -> str:
        """Return the prefix of all objects of this project in the bucket."""
        return self.project.project

    def bucket(self, account: str) -> str:
        """Return the artifact bucket, which all projects of the account and region share."""
        return self.aws.bucket or f"sm-mlops-{account}-{self.project.region}"

    def role_arn(self, account: str) -> str:
        """Return the ARN of the pipeline's role; in the sandbox, `aws.role` is of its account."""
        role = self.aws.role or f"{self.project.project}-pipeline"
        if role.startswith("arn:") and account != SANDBOX_ACCOUNT:
            return role
        name = role.partition(":role/")[2] or role
        return f"arn:{self.partition}:iam::{account}:role/{name}"

    @property
    def partition(self) -> str:
        return "aws-us-gov" if self.project.region.startswith("us-gov-") else "aws"


def find_root(start: Path) -> Path:
    """Return the nearest folder with a `mlops.yaml`, at `start` or above."""
    for folder in (start, *start.parents):
        if (folder / "mlops.yaml").is_file():
            return folder
    raise SettingsError(f"no mlops.yaml in {start} or above it: run mlops inside a model repo")


def load(root: Path, *, without: tuple[str, ...] = ()) -> Settings:
    """Return the settings of the repo at `root`; the sections `without` are as if they were not
    there. Raises SettingsError with file, key and remedy."""
    project = _read_project(root / "pyproject.toml")
    content = _read_yaml(root / "mlops.yaml")
    _require(
        "registry" not in content,
        "registry.approval is gone: remove it; each version waits for a person's approval",
    )
    types = typing.get_type_hints(Settings)
    _refuse_unknown(content, set(types) - {"root", "project"}, "")
    values: dict[str, Any] = {}
    for name, value in content.items():
        if value is not None and name not in without:
            values[name] = _typed(types[name], value, name)
    _require("data" in values, "data is missing; it needs at least path and target")
    settings = Settings(root=root, project=project, **values)
    _check(settings)
    _check_compute(settings)
    return settings


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise SettingsError(f"{file}: no such file") from missing
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file.name}: not UTF-8 text (byte {error.start})") from error


def _read_yaml(file: Path) -> dict[Any, Any]:
    text = _text(file)
    try:
        content = mlops_yaml.load(text)
    except yaml.YAMLError as error:
        raise SettingsError(one_line(f"mlops.yaml{mlops_yaml.complaint(error)}")) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # PyYAML raises these for an invalid date or number such as 2024-13-45.
        raise SettingsError(f"mlops.yaml: not valid YAML ({one_line(error)})") from error
    except RecursionError as error:
        raise SettingsError("mlops.yaml: nested too deeply") from error
    if not isinstance(content, dict):
        raise _invalid("must be a mapping with at least data.path and data.target")
    return content


def has_local_storage(instance: str) -> bool:
    """Return whether an instance type has storage of its own, which takes no KMS key.

    Source: `volume_size_supported` of the SageMaker SDK, and VolumeKmsKeyId in
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
    """
    return bool(re.match(_LOCAL_STORAGE.read_text(encoding="utf-8").strip(), instance))


def parameter_name(hyperparameter: str) -> str:
    """Return the pipeline parameter that overrides a hyperparameter: `max_depth` → `MaxDepth`."""
    return "".join(part.capitalize() for part in hyperparameter.split("_"))


def _read_project(file: Path) -> Project:
    text = _text(file)
    try:
        table = tomllib.loads(text)["tool"]["mlops"]
        for key, value in table.items():
            if not isinstance(value, str):
                raise SettingsError(
                    f"pyproject.toml: [tool.mlops] {one_line(key)} must be text, not {value!r}"
                )
        if table["project"].endswith("-monitor"):
            raise SettingsError(f"pyproject.toml: [tool.mlops] project {schedules.TAKEN}")
        if wrong := tags.problem(table.get("owner", tags.NOBODY)):
            raise SettingsError(f"pyproject.toml: [tool.mlops] {wrong}")
        project = Project(**{key.replace("-", "_"): value for key, value in table.items()})
        if project.uses_key and (project.sign_in, project.ci) == ("oidc", "github-actions"):
            raise SettingsError(
                f"pyproject.toml: [tool.mlops] AWS trusts no tokens of {project.git_host}: render "
                "again with github_sign_in=iam-user, whose workflows sign in by key"
            )
        return project
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
            more = f" {schedules.BY_KIND}" if path == "monitoring.limits." else ""
            raise _invalid(f"{path}{key} is unknown; {hint(str(key), sorted(known))}{more}")


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Return `value` from YAML as the type of its setting."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if hint == mlops_yaml.Rules:
        try:
            return mlops_yaml.column_checks(value)
        except ValueError as error:
            raise _invalid(str(error)) from error
    return _hyperparameters(value) if hint == dict[str, str] else _scalar(hint, value, where)


def _build(kind: Any, value: Any, path: str) -> Any:
    """Return `value` from YAML as an instance of the dataclass `kind`."""
    if not isinstance(value, dict):
        raise _invalid(f"{path} must be a mapping, not {value!r}")
    hints = typing.get_type_hints(kind)
    _refuse_unknown(value, set(hints), f"{path}.")
    built = {}
    for name, item in value.items():
        if item is not None:
            built[name] = _typed(hints[name], item, f"{path}.{name}")
    for item in dataclasses.fields(kind):
        if item.name not in built and item.default is item.default_factory is dataclasses.MISSING:
            raise _invalid(f"{path}.{item.name} is missing")
    return kind(**built)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Return `value` if it is of type `hint`; an integer as a float, a list as a tuple."""
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _invalid(f"{where} must be a list, as in [a, b], not {value!r}")
        return tuple(str(_scalar(str | int | float | bool, item, where)) for item in value)
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, str) and str not in allowed:
        value = _unquoted(value, allowed)
    if isinstance(value, mlops_yaml.Number):
        value = str(value) if str in allowed and math.isfinite(value) else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(f"{where} must be a finite number, not {value!r}")
    # Half of a surrogate pair, "\ud800", cannot be written to a file or request.
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise _invalid(f"{where} is not valid Unicode: {value!r}")
    if not isinstance(value, bool) or bool in allowed:
        if isinstance(value, allowed):
            return value
        if float in allowed and isinstance(value, int) and abs(value) < 1e300:
            return float(value)
        if allowed == (str,) and isinstance(value, int | float):
            return str(value)
    whole = "a number" if float in allowed else "a whole number"
    names = {int: whole, float: whole, str: "text", bool: "true or false"}
    expected = " or ".join(dict.fromkeys(name for kind, name in names.items() if kind in allowed))
    raise _invalid(f"{where} must be {expected}, not {value!r}")


def _unquoted(text: str, allowed: tuple[Any, ...]) -> Any:
    """Return the flag or number that is written as text, such as yes or "1e-2"; else the text."""
    if bool in allowed:
        found = mlops_yaml.flag(text)
        return text if found is None else found
    with contextlib.suppress(ValueError):
        return float(text) if float in allowed else int(text)
    return text


def _hyperparameters(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _invalid(f"hyperparameters must be a mapping, not {value!r}")
    result: dict[str, str] = {}
    for name, item in value.items():
        where = f"hyperparameters.{name}"
        _require(bool(_HYPERPARAMETER.fullmatch(str(name))), f"{where}: use only a-z, 0-9 and _")
        parameter, taken = parameter_name(name), (*PARAMETERS, *map(parameter_name, result))
        message = f"{where}: there is already a pipeline parameter {parameter}"
        _require(parameter not in taken, message)
        text = str(_scalar(str | float | int, item, where))
        _require(len(text) <= 2500, f"{where} is longer than SageMaker's 2,500 characters")
        result[name] = text
    return result


def _invalid(message: str) -> SettingsError:
    return SettingsError(f"mlops.yaml: {visible(' '.join(message.splitlines()))}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _invalid(message)


def _refuse(problem: str | None) -> None:
    _require(not problem, problem or "")


def own_metrics(root: Path) -> dict[str, bool]:
    """Return the metrics that model/evaluate.py declares, and whether lower is better."""
    try:
        return measures.declared(root / "model" / "evaluate.py")
    except ValueError as error:
        raise SettingsError(one_line(error)) from error


def _check(settings: Settings) -> None:
    """Check the rules that types cannot express."""
    metrics: tuple[str, ...] = (*measures.HIGHER, *measures.LOWER)
    data, split, gate, aws = settings.data, settings.split, settings.gate, settings.aws
    region, infra = settings.project.region, settings.root / "infra"
    _refuse(images.problem(settings.image, settings.image_environment, region))
    _require(bool(data.path.strip()), "data.path is empty")
    wrong = dates.problem(data.path, isolated=aws.network_isolation)
    _require(not wrong, f"data.path: {wrong}")
    _refuse(aws.bucket and dates.not_a_bucket(aws.bucket, "aws.bucket: "))
    _require(
        data.sample is None or (bool(data.sample.strip()) and "://" not in data.sample),
        f"data.sample must be a file or folder in this repo, not {data.sample!r}",
    )
    _require(bool(data.target.strip()), "data.target is empty")
    _require(data.target not in data.drop, f"data.drop names the target {data.target}")
    for column in data.checks:
        _require(column not in data.drop, f"data.checks.{column}: data.drop leaves {column} out")
    own = {} if gate.metric in metrics else own_metrics(settings.root)
    for key, value, allowed in (
        ("data.task", data.task, TASKS),
        ("data.decimal", data.decimal, ("point", "comma")),
        ("data.changed_columns", data.changed_columns, ("warn", "stop")),
        ("gate.metric", gate.metric, (*metrics, *own)),
    ):
        if value is not None and value not in allowed:
            listed = ", ".join(allowed) + (_OWN if key == "gate.metric" else "")
            near = get_close_matches(value, allowed, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise _invalid(f"{key} must be one of {listed}, not {value}{meant}")
    quantity = data.task == "regression"
    fitting = [*(measures.OF_QUANTITIES if quantity else measures.OF_CLASSES), *own]
    _require(
        data.task == "auto" or gate.metric in fitting,
        f"gate.metric {gate.metric} does not fit data.task {data.task}; "
        f"choose one of {', '.join(fitting)}",
    )
    threshold = settings.evaluation.threshold
    _require(0 < threshold < 1, f"evaluation.threshold must be between 0 and 1, not {threshold:g}")
    _require(
        threshold == 0.5 or data.task in ("auto", "binary"),
        f"evaluation.threshold is for two classes, but data.task is {data.task}; remove it",
    )
    for name, share in (("validation", split.validation), ("test", split.test)):
        _require(0 < share < 1, f"split.{name} must be between 0 and 1, not {share}")
    _require(split.validation + split.test < 1, "split leaves no rows for training")
    _require(split.by != data.target, f"split.by names the target {data.target}")
    _require(split.seed >= 0, f"split.seed must not be negative, not {split.seed}")
    _require(gate.tolerance >= 0, f"gate.tolerance must not be negative, not {gate.tolerance}")
    _require(
        bool(aws.subnets) == bool(aws.security_groups),
        "aws.subnets and aws.security_groups go together: set both or neither",
    )
    isolated = aws.network_isolation
    _refuse(schedules.problem(settings.monitoring, settings.retraining, infra, isolated))


def _check_compute(settings: Settings) -> None:
    for name, most in _MOST_HOURS.items():
        job, key = getattr(settings.compute, name), f"compute.{name}"
        _require(
            re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9]+", job.instance) is not None,
            f"{key}.instance must be like ml.m5.large, not {job.instance}",
        )
        _require(
            job.count == 1,
            f"{key}.count must be 1, not {job.count}: one machine does the work, "
            "and the others would be paid for being idle; choose a larger instance",
        )
        _require(job.volume_gb >= 1, f"{key}.volume_gb must be at least 1, not {job.volume_gb}")
        _require(
            0 < job.max_hours <= most,
            f"{key}.max_hours must be above 0 and at most {most}, not {job.max_hours}",
        )
