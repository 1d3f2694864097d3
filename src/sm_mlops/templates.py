"""CloudFormation templates as files: their parameters, and their text as a request takes it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sm_mlops.errors import MlopsError

# Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
BODY_BYTES = 51_200


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads the short forms of CloudFormation's functions as the long ones, which JSON has."""

    def function(self, name: str, node: yaml.Node) -> dict[str, Any]:
        """Return `!Sub text` as {"Fn::Sub": text}."""
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = self.construct_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            value = self.construct_sequence(node, deep=True)
        else:
            value = self.construct_mapping(node, deep=True)
        if name == "GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _Loader.function)


@lru_cache(maxsize=8)  # parsing takes a tenth of a second
def _content(text: str) -> Any:
    return yaml.load(text, _Loader)  # nosec B506 # a SafeLoader


def parameters(file: Path) -> dict[str, dict[str, Any]]:
    """Return the `Parameters` of a template by name. Raise MlopsError if it cannot be read."""
    return _section(file, "Parameters")


def resources(file: Path) -> dict[str, dict[str, Any]]:
    """Return the `Resources` of a template by name. Raise MlopsError if it cannot be read."""
    return _section(file, "Resources")


def _section(file: Path, name: str) -> dict[str, dict[str, Any]]:
    try:
        return dict(_content(file.read_text(encoding="utf-8")).get(name) or {})
    except FileNotFoundError as missing:
        raise MlopsError(f"{file}: no such file") from missing
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", "not YAML")
        raise MlopsError(f"{file.name}{where}: {problem}") from error


def body(file: Path) -> str:
    """Return a template as a request takes it: a long one as JSON, without comments and indents.

    Raise MlopsError if it is too long all the same.
    """
    text = file.read_text(encoding="utf-8")
    if len(text.encode()) > BODY_BYTES:
        text = _compact(file, _content(text))
    return text


def without(file: Path, condition: str) -> str:
    """Return a template, as a request takes it, without what exists only under this condition, or
    under another that includes it. Raise MlopsError if it is too long."""
    whole = dict(_content(file.read_text(encoding="utf-8")))
    conditions = whole.get("Conditions", {})
    gone = {condition}
    gone |= {
        name
        for name, test in conditions.items()
        if {"Condition": condition} in test.get("Fn::And", ())
    }
    for section in ("Resources", "Outputs"):
        whole[section] = {
            name: item for name, item in whole[section].items() if item.get("Condition") not in gone
        }
    return _compact(file, whole)


def _compact(file: Path, content: Any) -> str:
    text = json.dumps(content, separators=(",", ":"))
    if len(text.encode()) > BODY_BYTES:
        raise MlopsError(
            f"{file.name} has {len(text.encode()):,} bytes without its comments; CloudFormation "
            f"allows {BODY_BYTES:,}"
        )
    return text
