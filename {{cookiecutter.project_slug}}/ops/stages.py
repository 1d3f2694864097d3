"""The stages of this repo: each file `infra/<stage>.json` is one, with its account, the parameters
of its stack and what it costs while nobody calls it.

Reads files only; knows no AWS.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ops.errors import MlopsError
from pipeline.settings import Settings

FOLDER = "infra"
TEMPLATE = "endpoint.yml"
# Set by `mlops deploy` itself from the version and the repo.
OWN_PARAMETERS = ("Project", "Stage", "ModelPackageArn", "ModelVersion", "Commit", "ArtifactBucket")
_KEYS = ("Account", "Role", "Cost", "Parameters", "Tags")
# Of an endpoint, which is named <project>-<stage>.
NAME_LENGTH = 63


@dataclass(frozen=True)
class Stage:
    """`account` is None where the registry is; `role` an ARN, or empty: as signed in.

    `kind` is real-time, serverless or asynchronous; `cost` holds IdlePerMonthUSD, Because, Priced
    and Region.
    """

    name: str
    stack: str
    kind: str
    account: str | None = None
    role: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def idle_cost(self) -> float | None:
        """US dollars a month while nobody calls it; None where the file does not say."""
        amount = self.cost.get("IdlePerMonthUSD")
        return None if amount is None else float(amount)


def names(settings: Settings) -> tuple[str, ...]:
    """The stages in the order a version passes them: staging is first, production last."""
    found = (file.stem for file in (settings.root / FOLDER).glob("*.json"))
    place = {"staging": 0, "production": 2}
    return tuple(sorted(found, key=lambda name: (place.get(name, 1), name)))


def load(settings: Settings, name: str) -> Stage:
    """A stage, checked. Raises MlopsError naming file, key and what was probably meant."""
    known = names(settings)
    if name not in known:
        raise MlopsError(f"no stage {name}: {_hint(name, known)} (files {FOLDER}/<stage>.json)")
    file = settings.root / FOLDER / f"{name}.json"
    place = f"{FOLDER}/{file.name}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MlopsError(f"{place}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise MlopsError(f"{place}: must be an object with the keys {', '.join(_KEYS)}")
    for key in content:
        if key not in _KEYS:
            raise MlopsError(f"{place}: {key} is unknown: {_hint(key, _KEYS)}")
    for key in ("Cost", "Parameters", "Tags"):
        if not isinstance(content.get(key) or {}, dict):
            raise MlopsError(f"{place}: {key} must be an object, not {content[key]!r}")
    account = content.get("Account")
    if account is not None and not re.fullmatch(r"\d{12}", str(account)):
        raise MlopsError(f"{place}: Account must be 12 digits in quotes, not {account!r}")
    stack = f"{settings.project.project}-{name}"
    if len(stack) > NAME_LENGTH or not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", stack):
        raise MlopsError(
            f"{place}: its endpoint would be called {stack}, but a name has at most "
            f"{NAME_LENGTH} letters, digits and hyphens"
        )
    declared = template_parameters(template(settings))
    parameters = _parameters(declared, content.get("Parameters") or {}, place)
    default = declared.get("EndpointKind", {}).get("Default", "")
    return Stage(
        name=name,
        stack=stack,
        kind=parameters.get("EndpointKind", default),
        account=str(account) if account is not None else None,
        role=_role(settings, account, content.get("Role"), place),
        parameters=parameters,
        tags={str(key): str(value) for key, value in (content.get("Tags") or {}).items()},
        cost=content.get("Cost") or {},
    )


def template(settings: Settings) -> Path:
    return settings.root / FOLDER / TEMPLATE


def template_parameters(file: Path) -> dict[str, dict[str, Any]]:
    """The `Parameters` of a CloudFormation template by name."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Template)
    except FileNotFoundError as missing:
        raise MlopsError(f"{file}: no such file") from missing
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", "not YAML")
        raise MlopsError(f"{file.name}{where}: {problem}") from error
    return dict(content.get("Parameters") or {})


class _Template(yaml.SafeLoader):
    """YAML with CloudFormation's short forms (!Ref, !Sub...), which are of no interest here."""


_Template.add_multi_constructor("!", lambda loader, suffix, node: None)


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"


def _role(settings: Settings, account: Any, role: Any, place: str) -> str:
    if not role:
        return ""
    if str(role).startswith("arn:"):
        return str(role)
    if account is None:
        raise MlopsError(f"{place}: Role {role} needs an Account, or write it as an ARN")
    return f"arn:{settings.partition}:iam::{account}:role/{role}"


def _parameters(
    declared: Mapping[str, Any], given: Mapping[str, Any], place: str
) -> dict[str, str]:
    """As CloudFormation takes them: text, lists joined by commas."""
    result = {}
    for name, value in given.items():
        if name in OWN_PARAMETERS:
            raise MlopsError(f"{place}: Parameters.{name} is set by mlops deploy itself")
        if name not in declared:
            free = [known for known in declared if known not in OWN_PARAMETERS]
            raise MlopsError(f"{place}: Parameters.{name} is unknown: {_hint(name, free)}")
        text = _text(value, f"{place}: Parameters.{name}")
        allowed = [_text(item, "") for item in declared[name].get("AllowedValues") or ()]
        if allowed and text not in allowed:
            raise MlopsError(f"{place}: Parameters.{name} is {text}: {_hint(text, allowed)}")
        result[name] = text
    return result


def _text(value: Any, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item, place) for item in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise MlopsError(f"{place} must be text, a number, true, false or a list, not {value!r}")
