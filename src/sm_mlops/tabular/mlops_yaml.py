"""Load mlops.yaml as it reads, as YAML 1.2 does: yes, no, on and off are text, 1e-2 is a number.

The tool and the jobs load the file alike. Must not know what the settings are for.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from sm_mlops.tabular.failure import DataError

Rules = dict[str, dict[str, Any]]
"""`data.checks`: by column, by name of the check."""

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


class Number(float):
    """A float, and how it is written: a column may be called 1.10."""

    def __new__(cls, text: str) -> "Number":
        """Parse the text."""
        number = super().__new__(cls, text.replace("_", "").replace(".inf", "inf"))
        number.text = text  # type: ignore[attr-defined]
        return number

    def __str__(self) -> str:
        return str(self.text)  # type: ignore[attr-defined]

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        """Return what a copy is made of."""
        return (str(self),)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, in which no key may be twice: the first one would be lost."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key.value in [other.value for other in keys[:number]]:
                problem = f"{key.value} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> float:
        """Return a float."""
        text = str(self.construct_scalar(node))
        return float("nan") if text.lower() == ".nan" else Number(text)


_WHOLE = "(?:0|[1-9][0-9_]*)"
for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", f"[-+]?{_WHOLE}", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(?:{_WHOLE}\.[0-9]*|\.[0-9]+|{_WHOLE}(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def load(text: str) -> Any:
    """Return the content. Raise yaml.YAMLError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def beside(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return mlops.yaml and its content: in jobs it is in the folder of the scripts, in a repo one
    above. None and nothing without one. Raise DataError if it is not YAML."""
    for path in (folder / "mlops.yaml", folder.parent / "mlops.yaml"):
        if path.exists():
            try:
                return path, load(path.read_text(encoding="utf-8")) or {}
            except yaml.YAMLError as error:
                raise DataError(f"{path}{complaint(error)}") from error
    return None, {}


def complaint(error: yaml.YAMLError) -> str:
    """Return where in the file the error is, if that is known, and what it is."""
    mark = getattr(error, "problem_mark", None)
    where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or "not valid YAML"
    return f"{where}: {' '.join(str(problem).split())}"


def flag(value: Any) -> bool | None:
    """Return whether a setting is on; None for what is neither true nor false."""
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


def column_checks(content: Any) -> Rules:
    """Return `data.checks`. Raise ValueError with what is wrong."""
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError("data.checks must be checks by column, as in {age: {min: 0, max: 120}}")
    read: Rules = {}
    for column, given in content.items():
        read[str(column)] = {}
        for name, value in given.items():
            where = f"data.checks.{column}.{name}"
            if name in ("min", "max", "missing"):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ValueError(f"{where} must be a number, not {value!r}")
                value = float(value)
                if not math.isfinite(value) or (name == "missing" and not 0 <= value <= 1):
                    kind = "a share from 0 to 1" if name == "missing" else "a finite number"
                    raise ValueError(f"{where} must be {kind}, not {value:g}")
            elif name in ("unique", "stop"):
                if flag(value) is None:
                    raise ValueError(f"{where} must be true or false, not {value!r}")
                value = flag(value)
            elif name != "allowed":
                raise ValueError(
                    f"{where} is unknown; there are: min, max, allowed, unique, missing, stop"
                )
            elif not isinstance(value, list):
                raise ValueError(f"{where} must be a list, as in [a, b], not {value!r}")
            else:
                value = [str(item) if isinstance(item, Number) else item for item in value]
            read[str(column)][str(name)] = value
    return read
