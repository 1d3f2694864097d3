"""Templates: read from YAML or JSON, checked for what CloudFormation refuses before it starts.

Knows the language only, neither resource types nor stacks. Wording of errors: CloudFormation's.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import yaml

from sm_mlops.sandbox.cloudformation import shapes
from sm_mlops.sandbox.cloudformation.shapes import invalid
from sm_mlops.sandbox.wire import ApiError, not_implemented

LONGEST_BODY = 51_200
LONGEST_OBJECT = 1_000_000
MOST_RESOURCES = 500
SECTIONS = (
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Rules",
    "Mappings",
    "Conditions",
    "Transform",
    "Resources",
    "Outputs",
)
PSEUDO = (
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
)
FUNCTIONS = ("GetAtt", "If", "ImportValue", "Join", "Select", "Split", "Sub")
LOGIC = ("And", "Equals", "Not", "Or")
# How many arguments each function takes.
COUNTS = {
    "And": (2, 10),
    "EachMemberEquals": (2, 2),
    "Equals": (2, 2),
    "If": (3, 3),
    "Join": (2, 2),
    "Not": (1, 1),
    "Or": (2, 10),
    "Select": (2, 2),
    "Split": (2, 2),
}
SUB = re.compile(r"\$\{(!?)([^{}]*)\}")

Json = dict[str, Any]


def malformed(function: str) -> ApiError:
    """Return the error for a function with wrong arguments."""
    return invalid(f"Template error: an Fn::{function} object has wrong arguments.")


@dataclass(frozen=True)
class Reference:
    """A place in a template that names a parameter, a pseudo parameter or a resource."""

    name: str
    attribute: str | None = None


@dataclass(frozen=True)
class Template:
    """A template that has been read and checked."""

    parameters: Json
    resources: Json
    outputs: Json
    conditions: Json
    rules: Json
    metadata: Json
    description: str | None

    def types(self) -> list[str]:
        """Return the resource types in use, in the order of their first use."""
        return list(dict.fromkeys(resource["Type"] for resource in self.resources.values()))

    def dependencies(self, logical: str) -> set[str]:
        """Return the resources that a resource names or depends on."""
        resource = self.resources[logical]
        found = {
            reference.name
            for reference in self.references(_evaluated(resource))
            if reference.name in self.resources
        }
        return found | set(listed(resource.get("DependsOn")))

    def references(self, value: Any) -> Iterator[Reference]:
        """Yield every reference in a value, including both branches of an Fn::If."""
        if isinstance(value, list):
            for item in value:
                yield from self.references(item)
        elif isinstance(value, dict):
            if len(value) == 1:
                name, argument = next(iter(value.items()))
                if name == "Ref":
                    yield Reference(str(argument))
                elif name == "Fn::GetAtt":
                    target, attribute = _attribute(argument)
                    yield Reference(target, attribute)
                elif name == "Fn::Sub":
                    yield from self._in_sub(argument)
            for item in value.values():
                if not isinstance(item, str):
                    yield from self.references(item)

    def _in_sub(self, argument: Any) -> Iterator[Reference]:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
        for literal, name in SUB.findall(text):
            if literal or name.strip() in own:
                continue
            target, _, attribute = name.strip().partition(".")
            yield Reference(target, attribute or None)


# An operation on a stack reads its template several times, at 30 ms for a large one.
@functools.lru_cache(maxsize=8)
def parse(body: str) -> Template:
    """Read and check a template; callers must not change it. Raises ApiError (ValidationError)."""
    content = _load(body)
    unknown = [name for name in content if name not in SECTIONS]
    if unknown:
        raise invalid(f"Invalid template property or properties [{', '.join(map(str, unknown))}]")
    version = content.get("AWSTemplateFormatVersion")
    if version is not None and str(version) != "2010-09-09":
        raise invalid(f"Template format error: {version} is not a supported value.")
    if not content.get("Resources"):
        raise invalid("Template format error: At least one Resources member must be defined.")
    shapes.check(content)
    for section in ("Transform", "Mappings"):
        if content.get(section):
            what = f"{section} of a template: {content[section]}"
            raise not_implemented(what, "ValidationError")
    template = Template(
        parameters=content.get("Parameters") or {},
        resources=content["Resources"],
        outputs=content.get("Outputs") or {},
        conditions=content.get("Conditions") or {},
        rules=content.get("Rules") or {},
        metadata=content.get("Metadata") or {},
        description=content.get("Description"),
    )
    _check_resources(template)
    _check_functions(template)
    _check_references(template)
    return template


def order(template: Template, logicals: set[str]) -> dict[str, set[str]]:
    """Return what each of these resources waits for, in topological order."""
    graph = {name: template.dependencies(name) & logicals for name in sorted(logicals)}
    return {name: graph[name] for name in TopologicalSorter(graph).static_order()}


def _load(body: str) -> Json:
    if body.lstrip().startswith("{"):
        try:
            content = json.loads(body, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise invalid(
                f"Template format error: JSON not well-formed. (line {error.lineno}, "
                f"column {error.colno})"
            ) from error
    else:
        try:
            content = yaml.load(body, Loader=_Loader)  # nosec B506 # a SafeLoader
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            raise invalid(
                f"Template format error: YAML not well-formed.{place} {error.problem}"
            ) from error
        except yaml.YAMLError as error:
            raise invalid(f"Template format error: YAML not well-formed. {error}") from error
    if not isinstance(content, dict):
        raise invalid("Template format error: unsupported structure.")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found: Json = {}
    for name, value in pairs:
        if name in found:
            raise invalid(f"Template error: duplicate key {name}")
        found[name] = value
    return found


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as CloudFormation reads it: short function tags, dates as text, no duplicate keys."""


def _function(loader: Any, suffix: str, node: yaml.Node) -> Json:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix in ("Ref", "Condition"):
        return {suffix: value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


def _mapping(loader: Any, node: yaml.MappingNode) -> Json:
    loader.flatten_mapping(node)
    return _unique(
        [
            (
                loader.construct_object(key, deep=True),
                loader.construct_object(value, deep=True),
            )
            for key, value in node.value
        ]
    )


_Loader.add_multi_constructor("!", _function)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


def _check_resources(template: Template) -> None:
    if len(template.resources) > MOST_RESOURCES:
        raise invalid(
            f"Template format error: Number of resources, {len(template.resources)}, is greater "
            f"than maximum allowed, {MOST_RESOURCES}"
        )
    for section in ("parameters", "resources", "outputs", "conditions"):
        for name in getattr(template, section):
            if not re.fullmatch(r"[a-zA-Z0-9]{1,255}", str(name)):
                raise invalid(
                    f"Template format error: {section.capitalize()} name {name} is non "
                    "alphanumeric."
                )
    for name, resource in template.resources.items():
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if resource.get(key) == "Snapshot":
                raise not_implemented(f"{key} {resource[key]}", "ValidationError")
            once = ("RetainExceptOnCreate",) if key == "DeletionPolicy" else ()
            if resource.get(key, "Delete") not in ("Delete", "Retain", *once):
                raise invalid(
                    f"Template format error: Unrecognized {key} {resource[key]} for resource {name}"
                )
    for section, members in (("Resources", template.resources), ("Outputs", template.outputs)):
        for member in members.values():
            condition = member.get("Condition")
            if condition is not None and condition not in template.conditions:
                raise invalid(
                    f"Template format error: Unresolved condition dependency {condition} in the "
                    f"{section} block of the template"
                )


def _check_functions(template: Template) -> None:
    def walk(value: Any, allowed: tuple[str, ...], where: str) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item, allowed, where)
        elif isinstance(value, dict):
            for name, item in value.items():
                function = str(name).removeprefix("Fn::")
                if str(name).startswith("Fn::"):
                    if function not in allowed:
                        raise not_implemented(f"{name} in {where}", "ValidationError")
                    if len(value) > 1:
                        raise invalid(
                            f"Template format error: {name} must stand alone in its object"
                        )
                    _check_arguments(function, item, template)
                elif name == "Ref" and len(value) == 1 and not isinstance(item, str):
                    raise invalid(
                        "Template format error: Every Ref object must have a single String value."
                    )
                walk(item, allowed, where)

    for resource in template.resources.values():
        walk(resource, FUNCTIONS, "Resources")
    walk(list(template.outputs.values()), FUNCTIONS, "Outputs")
    walk(
        list(template.conditions.values()),
        (*LOGIC, "Join", "Select", "Split", "Sub", "If"),
        "Conditions",
    )
    walk(list(template.rules.values()), (*LOGIC, "EachMemberEquals"), "Rules")


def _check_arguments(function: str, argument: Any, template: Template) -> None:
    if function in COUNTS:
        least, most = COUNTS[function]
        if not isinstance(argument, list) or not least <= len(argument) <= most:
            raise malformed(function)
        if function in ("If", "Join", "Split") and not isinstance(argument[0], str):
            raise malformed(function)
    if function == "If" and argument[0] not in template.conditions:
        raise invalid(f"Template error: unresolved condition dependency: {argument[0]} in Fn::If")
    if function == "Sub":
        good = isinstance(argument, str) or (
            isinstance(argument, list)
            and len(argument) == 2
            and isinstance(argument[0], str)
            and isinstance(argument[1], dict)
        )
        if not good:
            raise malformed("Sub")
    if function == "GetAtt":
        _attribute(argument)


def _attribute(argument: Any) -> tuple[str, str]:
    if isinstance(argument, str):
        argument = argument.split(".", 1)
    if not isinstance(argument, list) or len(argument) != 2 or not isinstance(argument[0], str):
        raise malformed("GetAtt")
    return argument[0], str(argument[1])


def _check_references(template: Template) -> None:
    _refuse_unknown(template, template.resources, "Resources", template.resources)
    outputs = {name: output.get("Value") for name, output in template.outputs.items()}
    _refuse_unknown(template, outputs, "Outputs", template.resources)
    _refuse_unknown(template, template.conditions, "Conditions", {})
    _refuse_unknown(template, template.rules, "Rules", {})
    for name, resource in template.resources.items():
        missing = [d for d in listed(resource.get("DependsOn")) if d not in template.resources]
        if missing:
            raise invalid(
                f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] "
                "in the Resources block of the template"
            )
        if name in template.parameters:
            raise invalid(f"Template format error: Parameter and resource share the name {name}")
    try:
        order(template, set(template.resources))
    except CycleError as error:
        names = sorted(set(error.args[1]))
        raise invalid(f"Circular dependency between resources: [{', '.join(names)}]") from error
    conditions = {name: set(_conditions_in(value)) for name, value in template.conditions.items()}
    for name, needed in conditions.items():
        unknown = needed - set(template.conditions)
        if unknown:
            raise invalid(
                f"Template format error: Unresolved condition dependency {min(unknown)} in the "
                f"Conditions block of the template ({name})"
            )
    try:
        TopologicalSorter(conditions).prepare()
    except CycleError as error:
        raise invalid("Template format error: Circular dependencies for condition") from error


def _refuse_unknown(template: Template, values: Json, section: str, resources: Json) -> None:
    found: set[str] = set()
    for reference in template.references(
        [_evaluated(value) if section == "Resources" else value for value in values.values()]
    ):
        known = reference.name in resources
        if reference.attribute is None:
            known = known or reference.name in (*template.parameters, *PSEUDO)
        if not known:
            found.add(reference.name)
    if found:
        raise invalid(
            f"Template format error: Unresolved resource dependencies [{', '.join(sorted(found))}] "
            f"in the {section} block of the template"
        )


def _evaluated(resource: Json) -> list[Any]:
    return [resource.get("Properties"), resource.get("Metadata")]


def _conditions_in(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _conditions_in(item)
    elif isinstance(value, dict):
        if list(value) == ["Condition"]:
            yield str(value["Condition"])
        for name, item in value.items():
            if name == "Fn::If" and isinstance(item, list) and item:
                yield str(item[0])
            yield from _conditions_in(item)


def listed(value: Any) -> list[str]:
    """Return a string or a list of strings as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
