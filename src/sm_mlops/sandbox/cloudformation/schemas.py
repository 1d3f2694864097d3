"""AWS's schemas of resource types: checks of properties, and which changes need a new resource.

The schemas come with cfn-lint and are read as files: importing it costs seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sm_mlops.sandbox.cloudformation.template import Json
from sm_mlops.sandbox.wire import java_pattern

# What messages and Python call the types of schemas.
TYPES: dict[str, tuple[str, Any]] = {
    "string": ("String", str),
    "integer": ("Integer", int),
    "number": ("Number", (int, float)),
    "boolean": ("Boolean", bool),
    "array": ("JSONArray", list),
    "object": ("JSONObject", dict),
}


@functools.cache
def _folder() -> Path:
    found = importlib.util.find_spec("cfnlint")
    assert found is not None and found.origin, "cfn-lint is one of this repo's packages"
    return Path(found.origin).parent / "data" / "schemas"


@functools.cache
def _index() -> dict[str, str]:
    # A Python file with one dict literal: type name to the name of its schema's file. Schemas do
    # not differ between regions in what the sandbox makes.
    text = (_folder() / "providers" / "us_east_1.py").read_text(encoding="utf-8")
    return dict(re.findall(r'^\s+"([^"]+)": "([0-9a-f]+)",$', text, re.MULTILINE))


def exists(kind: str) -> bool:
    return kind in _index()


@functools.cache
def schema(kind: str) -> Json:
    path = _folder() / "resources" / f"{_index()[kind]}.json"
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def create_only(kind: str) -> set[str]:
    """Return the properties of the first level whose change needs a new resource."""
    return {path.split("/")[2] for path in schema(kind).get("createOnlyProperties", [])}


def writable(kind: str) -> set[str]:
    """Return the properties that a template may set."""
    described = schema(kind)
    read = {
        path.split("/")[2]
        for path in described.get("readOnlyProperties", [])
        if path.count("/") == 2
    }
    return set(described["properties"]) - (read - create_only(kind))


def tagged(kind: str) -> bool:
    return "Tags" in schema(kind)["properties"]


def conform(kind: str, properties: Json) -> Json:
    """Return the properties with text turned into the numbers and booleans that the schema asks
    for (and the other way round), as CloudFormation does."""
    described = schema(kind)
    converted = _convert(properties, described, described)
    assert isinstance(converted, dict)
    return converted


def violations(kind: str, properties: Json) -> list[str]:
    """Return the errors in a resource's properties, in CloudFormation's words."""
    described = schema(kind)
    allowed = writable(kind)
    found = [
        f"#: extraneous key [{name}] is not permitted" for name in properties if name not in allowed
    ]
    known = {name: value for name, value in properties.items() if name in allowed}
    found += _violations(known, described, described, "#")
    return list(dict.fromkeys(found))


def _at(shape: Json, root: Json) -> Json:
    while "$ref" in shape:
        target: Any = root
        for part in shape["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        shape = {**target, **{k: v for k, v in shape.items() if k != "$ref"}}
    return shape


def _types(shape: Json) -> list[str]:
    kind = shape.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _convert(value: Any, shape: Json, root: Json) -> Any:
    shape = _at(shape, root)
    kinds = _types(shape)
    if isinstance(value, dict):
        members = shape.get("properties", {})
        return {
            name: _convert(item, members[name], root) if name in members else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_convert(item, shape.get("items", {}), root) for item in value]
    if not kinds or _is(value, kinds):
        return value
    if isinstance(value, bool) and "string" in kinds:
        return "true" if value else "false"
    if isinstance(value, (int, float)) and "string" in kinds:
        return str(value)
    if isinstance(value, str):
        if "boolean" in kinds and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if "integer" in kinds and re.fullmatch(r"[+-]?\d+", value):
            return int(value)
        if "number" in kinds and re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", value):
            return float(value)
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        return int(value)
    return value


def _is(value: Any, kinds: list[str]) -> bool:
    for kind in kinds:
        if isinstance(value, TYPES[kind][1]) and (kind == "boolean" or not isinstance(value, bool)):
            return True
    return False


def _violations(value: Any, shape: Json, root: Json, path: str) -> list[str]:
    shape = _at(shape, root)
    kinds = _types(shape)
    if kinds and not _is(value, kinds):
        wanted = " or ".join(TYPES[kind][0] for kind in kinds)
        return [f"{path}: expected type: {wanted}, found: {_found(value)}"]
    found: list[str] = []
    if "enum" in shape and value not in shape["enum"]:
        found.append(f"{path}: {value} is not a valid enum value")
    if "const" in shape and value != shape["const"]:
        found.append(f"{path}: {value} is not a valid enum value")
    if isinstance(value, dict):
        found += _in_object(value, shape, root, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _violations(item, shape.get("items", {}), root, f"{path}/{index}")
        found += _size(len(value), shape, "Items", path)
        if shape.get("uniqueItems") and len({json.dumps(i, sort_keys=True) for i in value}) < len(
            value
        ):
            found.append(f"{path}: array items are not unique")
    elif isinstance(value, str):
        found += _size(len(value), shape, "Length", path)
        if "pattern" in shape and not java_pattern(shape["pattern"]).search(value):
            found.append(f"{path}: string [{value}] does not match pattern {shape['pattern']}")
    elif not isinstance(value, bool):
        if "minimum" in shape and value < shape["minimum"]:
            found.append(f"{path}: {value} is not greater or equal to {shape['minimum']}")
        if "maximum" in shape and value > shape["maximum"]:
            found.append(f"{path}: {value} is not less or equal to {shape['maximum']}")
    for keyword, holds in (("anyOf", any), ("oneOf", lambda oks: sum(oks) == 1)):
        choices = [choice for choice in shape.get(keyword, []) if not {"format"} >= set(choice)]
        if choices and not holds(
            [not _violations(value, choice, root, path) for choice in choices]
        ):
            found.append(f"{path}: the value matches none of the forms that {keyword} allows")
    return found


def _in_object(value: Json, shape: Json, root: Json, path: str) -> list[str]:
    found = [
        f"{path}: required key [{name}] not found"
        for name in shape.get("required", [])
        if name not in value
    ]
    members = shape.get("properties", {})
    for name, item in value.items():
        if name in members:
            found += _violations(item, members[name], root, f"{path}/{name}")
        elif path != "#" and members and shape.get("additionalProperties") is False:
            found.append(f"{path}: extraneous key [{name}] is not permitted")
    one = shape.get("requiredXor")
    if one and sum(name in value for name in one) != 1:
        found.append(f"{path}: exactly one of [{', '.join(one)}] must be given")
    for name, needed in shape.get("dependentRequired", {}).items():
        found += [
            f"{path}: property [{other}] is required"
            for other in needed
            if name in value and other not in value
        ]
    for name, excluded in shape.get("dependentExcluded", {}).items():
        found += [
            f"{path}: property [{other}] is not permitted beside [{name}]"
            for other in excluded
            if name in value and other in value
        ]
    return found


def _size(size: int, shape: Json, suffix: str, path: str) -> Iterator[str]:
    least, most = shape.get(f"min{suffix}"), shape.get(f"max{suffix}")
    text = suffix == "Length"
    found = f"{'actual' if text else 'found'}: {size}"
    if least is not None and size < least:
        yield f"{path}: expected {'minLength' if text else 'minimum item count'}: {least}, {found}"
    if most is not None and size > most:
        yield f"{path}: expected {'maxLength' if text else 'maximum item count'}: {most}, {found}"


def _found(value: Any) -> str:
    return next((name for kind, (name, _) in TYPES.items() if _is(value, [kind])), "Null")
