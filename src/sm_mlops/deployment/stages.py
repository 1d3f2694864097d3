"""The stages of this repo, each a file `infra/<stage>.json`: account, parameters, tags, idle cost.

Must not know AWS: reads files only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from sm_mlops import tags, templates
from sm_mlops.errors import MlopsError, hint, one_line
from sm_mlops.schedules import not_a_schedule
from sm_mlops.settings import Settings, has_local_storage

FOLDER = "infra"
TEMPLATE = "endpoint.yml"
# Set by `mlops deploy`, from the version and the repo.
OWN_PARAMETERS = ("Project", "Stage", "ModelPackageArn", "ArtifactBucket")
OWN_TAGS = (
    *("project", "stage", "model-version", "commit", "deployed-versions"),
    *("deployment-started", "tested-config"),
)
_KEYS = ("Account", "Role", "Reviewers", "Cost", "Parameters", "Batch", "Tags")
_BATCH_KEYS = ("Schedule", "Input", "Output")
# An address in S3 that can stand in JSON as it is.
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s\"\\<>{}$]+")
# Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html
_ROLE = re.compile(r"(arn:aws[a-z-]*:iam::\d{12}:role/)?[\w+=,.@/-]{1,576}", re.ASCII)
# Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-cloudformation-stack-tag.html
_TAGS = 50
# The limit for an endpoint, whose name is <project>-<stage>.
NAME_LENGTH = 63
# Each stage is an environment of GitHub; the jobs of build.yml have this one.
TAKEN = "training"
# How the names of second stacks end; see deployment/watch.py.
WATCH = "watch"
# A user, or a team as organization/team; GitHub allows six.
# Source: https://docs.github.com/en/rest/deployments/environments
_REVIEWER = re.compile(r"[a-zA-Z0-9](-?[a-zA-Z0-9_])*(/[\w.-]+)?")
_REVIEWERS = 6


@dataclass(frozen=True)
class Batch:
    """When rows of `input`, JSON Lines in S3, are predicted, and the folder of their outputs."""

    schedule: str
    input: str
    output: str


@dataclass(frozen=True)
class Stage:
    """`account` is None in the registry's account; `role` is the ARN of a role to assume, or empty.

    `kind` is real-time, serverless, asynchronous or batch, which has no endpoint; `idle_cost` is in
    US dollars a month, None if unknown, and `priced` says where and when that was the price. One of
    `reviewers`, users and teams (`my-org/ml-leads`), must approve a deployment; None stands for the
    person who connects the repo to GitHub. `batch` predicts by itself.
    """

    name: str
    stack: str
    kind: str
    account: str | None = None
    role: str = ""
    reviewers: tuple[str, ...] | None = ()
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    idle_cost: float | None = None
    priced: str = ""
    batch: Batch | None = None

    def bucket(self, default: str) -> str:
        """Return the bucket of captured data, asynchronous requests, checks and batches."""
        return self.parameters.get("OutputBucket") or default


@dataclass(frozen=True)
class Fleet:
    """The instances of an endpoint: their type, and how many it has at least and at most."""

    instance: str
    least: int
    most: int


def names(settings: Settings) -> tuple[str, ...]:
    """Return the stages in the order of deployment: staging first, production last."""
    files = (settings.root / FOLDER).glob("*.json")
    # Editors and file systems leave files whose names begin with a dot.
    found = (file.stem for file in files if not file.name.startswith("."))
    place = {"staging": 0, "production": 2}
    return tuple(sorted(found, key=lambda name: (place.get(name, 1), name)))


def load(settings: Settings, name: str) -> Stage:
    """Return a stage. Raises MlopsError with file and key if it is not valid."""
    known = names(settings)
    if name not in known:
        raise MlopsError(f"no stage {name}: {hint(name, known)} (files {FOLDER}/<stage>.json)")
    file = settings.root / FOLDER / f"{name}.json"
    place = f"{FOLDER}/{file.name}"
    if name.lower() == TAKEN:
        raise MlopsError(f"{place}: the environment {name} is for training: rename the stage")
    if name.split("-")[-1] == WATCH:
        raise MlopsError(f"{place}: names that end with {WATCH} are taken: rename the stage")
    content = _content(file, place)
    account = content.get("Account")
    if account is not None and not re.fullmatch(r"\d{12}", str(account)):
        raise MlopsError(f"{place}: Account must be 12 digits in quotes, not {account!r}")
    stack = f"{settings.project.project}-{name}"
    if len(stack) > NAME_LENGTH or not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", stack):
        raise MlopsError(
            f"{place}: its endpoint would be called {stack}, but a name has only "
            f"letters, digits and inner hyphens, at most {NAME_LENGTH}"
        )
    declared = templates.parameters(template(settings))
    check(declared["Stage"], name, f"{place}: the name {name}")
    given = _tags(content.get("Tags") or {}, place)
    parameters = _parameters(declared, content.get("Parameters") or {}, place)
    kind = parameters.get("EndpointKind", declared["EndpointKind"]["Default"])
    if kind != "serverless" and "InstanceCount" in parameters:
        # Without a maximum the endpoint keeps its size. A template's rules cannot compare numbers.
        least = parameters["InstanceCount"]
        most = parameters.setdefault("MaxInstanceCount", least)
        if float(most) < float(least):
            raise MlopsError(
                f"{place}: Parameters.MaxInstanceCount is {most}, less than InstanceCount {least}; "
                "remove it for an endpoint that keeps its size"
            )
    cost = content.get("Cost") or {}
    return Stage(
        name=name,
        stack=stack,
        kind=kind,
        account=str(account) if account is not None else None,
        role=_role(settings, account, content.get("Role"), place),
        # For files without this key: no one deploys to production without approval.
        reviewers=_reviewers(content.get("Reviewers", None if name == "production" else []), place),
        parameters=parameters,
        # A stage may have an owner of its own.
        tags={**settings.project.resource_tags(name), **given},
        idle_cost=_idle_cost(cost, place),
        priced=", ".join(str(cost[key]) for key in ("Region", "Priced") if cost.get(key)),
        batch=_batch(content.get("Batch"), place),
    )


def require_wheels(settings: Settings, stage: Stage) -> None:
    """Raise MlopsError if the stage's endpoint, without a network, would have to download packages
    of a version that is trained now."""
    declared = templates.parameters(template(settings)).get("NetworkIsolation", {})
    isolated = stage.parameters.get("NetworkIsolation", declared.get("Default")) == "true"
    if not (isolated and stage.kind != "serverless" and settings.aws.package_index):
        return
    # Imported here, because it is slow and most commands do not need it.
    from sm_mlops import requirements

    if requirements.is_needed(settings.root, settings.container):
        raise MlopsError(
            f"{FOLDER}/{stage.name}.json: without a network its endpoint cannot download "
            f"{requirements.FILE}: set aws.package_index to false in mlops.yaml, or "
            "Parameters.NetworkIsolation to false here"
        )


def _content(file: Path, place: str) -> dict[str, Any]:
    """Return what a stage's file has. Raises MlopsError for anything but its keys."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # Also for a number of thousands of digits.
        raise MlopsError(f"{place}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise MlopsError(f"{place}: must be an object with the keys {', '.join(_KEYS)}")
    for key in content:
        if key not in _KEYS:
            raise MlopsError(f"{place}: {one_line(key)} is unknown: {hint(key, _KEYS)}")
    for key in ("Cost", "Parameters", "Batch", "Tags"):
        if not isinstance(content.get(key) or {}, dict):
            raise MlopsError(f"{place}: {key} must be an object, not {content[key]!r}")
    return content


def template(settings: Settings) -> Path:
    return settings.root / FOLDER / TEMPLATE


def fleet(settings: Settings, stage: Stage) -> Fleet | None:
    """Return the instances that a stage has, None if it is serverless or batch only."""
    if stage.kind in ("serverless", "batch"):
        return None
    declared = templates.parameters(template(settings))
    instance, least, most = (
        stage.parameters.get(key) or str(declared[key].get("Default", ""))
        for key in ("InstanceType", "InstanceCount", "MaxInstanceCount")
    )
    return Fleet(instance, max(1, int(least or 0)), int(most or 0))


def stack_parameters(
    settings: Settings, stage: Stage, bucket: str, version: str, **more: str
) -> dict[str, str]:
    """Return the parameters of a stage's stack: what the tool sets, then what its file says.

    `bucket` is the artifact bucket, `version` the ARN of the model package. Leaves out what the
    template does not declare.
    """
    given = {
        "Project": settings.project.project,
        "Stage": stage.name,
        "ModelPackageArn": version,
        "ArtifactBucket": bucket,
        "OutputBucket": bucket,
        **more,
        **stage.parameters,
    }
    declared = templates.parameters(template(settings))
    return {name: value for name, value in given.items() if name in declared}


def require_own(settings: Settings, stage: Stage, had: Mapping[str, str]) -> None:
    """Raise MlopsError if the stack with these parameters belongs to another project.

    Stage `eu-qa` of project `churn` and stage `qa` of project `churn-eu` have the same name.
    """
    ours = {"Project": settings.project.project, "Stage": stage.name}
    if any(had.get(name, value) != value for name, value in ours.items()):
        raise MlopsError(
            f"stack {stage.stack} is stage {had.get('Stage')} of project {had.get('Project')}: "
            f"give {FOLDER}/{stage.name}.json another name"
        )


def _role(settings: Settings, account: Any, role: Any, place: str) -> str:
    if not role:
        return ""
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise MlopsError(f"{place}: Role must be a role's name or ARN, not {role!r}")
    if role.startswith("arn:"):
        return role
    if account is None:
        raise MlopsError(f"{place}: Role {role} needs an Account, or write it as an ARN")
    return f"arn:{settings.partition}:iam::{account}:role/{role}"


def _reviewers(given: Any, place: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise MlopsError(
            f'{place}: Reviewers must be a list such as ["ada", "my-org/ml-leads"], or null for '
            f"the person who connects the repo, not {given!r}"
        )
    for each in given:
        if not isinstance(each, str) or not _REVIEWER.fullmatch(each):
            raise MlopsError(
                f"{place}: Reviewers: {each!r} is neither a user (ada) nor a team (my-org/ml-leads)"
            )
    if len(given) > _REVIEWERS:
        raise MlopsError(
            f"{place}: Reviewers has {len(given)} entries, GitHub allows {_REVIEWERS}: use a team"
        )
    return tuple(given)


def _batch(given: dict[str, Any] | None, place: str) -> Batch | None:
    if not given:
        return None
    for key in given:
        if key not in _BATCH_KEYS:
            raise MlopsError(f"{place}: Batch.{one_line(key)} is unknown: {hint(key, _BATCH_KEYS)}")
    for key in _BATCH_KEYS:
        if not isinstance(given.get(key), str):
            raise MlopsError(f"{place}: Batch.{key} must be text, not {given.get(key)!r}")
    found = Batch(given["Schedule"], given["Input"], given["Output"])
    if wrong := not_a_schedule(found.schedule):
        raise MlopsError(f"{place}: Batch.Schedule {wrong}, not {found.schedule!r}")
    for key, address in (("Input", found.input), ("Output", found.output)):
        if not _S3.fullmatch(address):
            raise MlopsError(
                f"{place}: Batch.{key} must be like s3://bucket/folder/, a bucket of 3 to 63 "
                "characters, without spaces, quotes and the characters "
                f"\\<>{{}}$, not {address!r}"
            )
    if not found.output.endswith("/"):
        raise MlopsError(f"{place}: Batch.Output must be a folder, with / at its end")
    # A prefix matches as text: in/ is not only a folder, and in also matches in-2/.
    if found.output.startswith(found.input):
        raise MlopsError(
            f"{place}: Batch.Output is below Batch.Input: the next job would read its predictions"
        )
    return found


def _idle_cost(cost: dict[str, Any], place: str) -> float | None:
    amount = cost.get("IdlePerMonthUSD")
    if amount is None or (isinstance(amount, int | float) and not isinstance(amount, bool)):
        return amount
    raise MlopsError(f"{place}: Cost.IdlePerMonthUSD must be a number or null, not {amount!r}")


def _tags(given: Mapping[str, Any], place: str) -> dict[str, str]:
    free = _TAGS - len(OWN_TAGS) - ("owner" not in given)
    if len(given) > free:
        raise MlopsError(f"{place}: Tags has {len(given)} entries; there is room for {free}")
    for key, value in given.items():
        if key in OWN_TAGS:
            raise MlopsError(f"{place}: Tags.{key} is set by mlops deploy")
        if not tags.KEY.fullmatch(key):
            raise MlopsError(
                f"{place}: Tags.{one_line(key)}: a name has at most 128 letters, digits, spaces "
                "and _.:/=+@-, and does not begin with aws:"
            )
        if not isinstance(value, str) or not tags.VALUE.fullmatch(value):
            raise MlopsError(f"{place}: Tags.{key} must be {tags.VALUE_RULE}, not {value!r}")
    return dict(given)


def _parameters(
    declared: Mapping[str, Any], given: Mapping[str, Any], place: str
) -> dict[str, str]:
    """Return the parameters as CloudFormation expects them: text, lists joined by commas."""
    result = {}
    for name, value in given.items():
        if name in OWN_PARAMETERS:
            raise MlopsError(f"{place}: Parameters.{name} is set by mlops deploy")
        if name not in declared:
            free = [known for known in declared if known not in OWN_PARAMETERS]
            raise MlopsError(f"{place}: Parameters.{one_line(name)} is unknown: {hint(name, free)}")
        result[name] = _text(value, f"{place}: Parameters.{name}")
        if declared[name]["Type"] == "CommaDelimitedList":  # CloudFormation takes blanks away, too
            result[name] = ",".join(item.strip() for item in result[name].split(","))
        check(declared[name], result[name], f"{place}: Parameters.{name}")
    instance = result.get("InstanceType", "")
    if result.get("KmsKeyArn") and has_local_storage(instance):
        raise MlopsError(
            f"{place}: Parameters.KmsKeyArn: the local storage of {instance} takes no KMS key; "
            "choose another InstanceType, or leave KmsKeyArn empty"
        )
    return result


def _text(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # Not every service reads 2.0 or 1e-05 as a number.
        whole = isinstance(value, float) and value.is_integer()
        return format(Decimal(str(int(value) if whole else value)), "f")
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return ",".join(_text(item, place) for item in value)
    if value is None:
        raise MlopsError(f"{place} is null: remove it for the default of {FOLDER}/{TEMPLATE}")
    raise MlopsError(f"{place} must be text, a number, true, false or a list, not {value!r}")


def check(declared: Mapping[str, Any], text: str, what: str) -> None:
    """Raise MlopsError for a value that the declaration of a parameter does not allow.

    `what` begins the message. CloudFormation refuses such a value, too, but without the file name.
    """
    allowed = [_text(item, what) for item in declared.get("AllowedValues") or ()]
    if allowed and text not in allowed:
        shown = text if text.isprintable() else repr(text)
        raise MlopsError(f"{what} is {shown}: {hint(text, allowed)}")
    if declared["Type"] == "Number":
        least, most = declared.get("MinValue", -math.inf), declared.get("MaxValue", math.inf)
        if not least <= _number(text) <= most:
            limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise MlopsError(f"{what} is {text!r}; expected a number, {limits}")
    pattern = declared.get("AllowedPattern")
    rule = declared.get("ConstraintDescription") or declared.get("Description") or pattern
    items = text.split(",") if declared["Type"] == "CommaDelimitedList" else [text]
    for item in items:
        if pattern and not re.fullmatch(pattern, item):
            raise MlopsError(f"{what} is {item!r}; expected: {rule}")


def _number(text: str) -> float:
    """Return NaN, which is within no limits, for anything but a finite number."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
