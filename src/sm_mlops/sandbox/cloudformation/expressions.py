"""Intrinsic functions, conditions and rules: what a template says, evaluated for one stack.

Computes only. A value that is known only after the change is UNKNOWN; change sets are computed with
those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.sandbox.cloudformation import parameters
from sm_mlops.sandbox.cloudformation.template import SUB, Json, Template, invalid, malformed
from sm_mlops.sandbox.wire import as_text, partition

# How change sets of AWS show it, too.
UNKNOWN = "{{changeSet:KNOWN_AFTER_APPLY}}"
GONE = object()


class Unresolved(Exception):
    """A value cannot be computed; the message is CloudFormation's."""


@dataclass(frozen=True)
class Made:
    """A resource as others see it: what Ref and Fn::GetAtt return."""

    ref: str
    attributes: dict[str, Any]


@dataclass
class Scope:
    """Everything that an expression may name.

    `made` returns a resource by logical name: None while it does not exist yet, which makes what
    refers to it UNKNOWN; `exports` are the values of Fn::ImportValue in this account and region.
    """

    template: Template
    parameters: dict[str, str]
    account: str
    region: str
    stack_id: str
    stack_name: str
    made: Callable[[str], Made | None] = lambda logical: None
    exports: dict[str, str] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    _conditions: dict[str, bool] = field(default_factory=dict)

    # Conditions and rules.

    def holds(self, condition: str) -> bool:
        if not isinstance(condition, str) or condition not in self.template.conditions:
            raise invalid(f"Template error: unresolved condition dependency: {condition}")
        if condition not in self._conditions:
            answer = self._logic(self.template.conditions[condition])
            self._conditions[condition] = answer
        return self._conditions[condition]

    def active(self) -> set[str]:
        """Return the logical names of the resources whose condition holds."""
        return {
            name
            for name, resource in self.template.resources.items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    def check_rules(self) -> None:
        """Raise ApiError for the first assertion of the template's rules that does not hold."""
        for name, rule in self.template.rules.items():
            if "RuleCondition" in rule and not self._logic(rule["RuleCondition"]):
                continue
            for assertion in rule.get("Assertions", []):
                if not self._logic(assertion["Assert"]):
                    why = assertion.get("AssertDescription", "an assertion does not hold")
                    raise invalid(f"Template validation error: Rule {name}: {why}")

    def _logic(self, expression: Any) -> bool:
        if isinstance(expression, bool):
            return expression
        if not isinstance(expression, dict) or len(expression) != 1:
            raise invalid("Template error: a condition must be an object with one function")
        name, argument = next(iter(expression.items()))
        if name == "Condition":
            return self.holds(argument)
        if name == "Fn::Equals":
            left, right = (self.resolve(item) for item in argument)
            return bool(_plain(left) == _plain(right))
        if name == "Fn::And":
            return all(self._logic(item) for item in argument)
        if name == "Fn::Or":
            return any(self._logic(item) for item in argument)
        if name == "Fn::Not":
            return not self._logic(argument[0])
        if name == "Fn::EachMemberEquals":
            members, wanted = (self.resolve(item) for item in argument)
            if not isinstance(members, list):
                raise malformed("EachMemberEquals")
            return all(item == wanted for item in members)
        raise invalid(f"Template error: {name} gives no condition")

    # Values.

    def resolve(self, value: Any) -> Any:
        """Return a value with all functions evaluated; raises Unresolved or ApiError."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not GONE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name == "Ref":
                return self._ref(argument)
            if name.startswith("Fn::"):
                function = getattr(self, f"_{name.removeprefix('Fn::').lower()}", None)
                if function is None:
                    raise invalid(f"Template error: {name} gives no value that could stand here")
                return function(argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not GONE}

    def properties(self, logical: str) -> Json:
        return dict(self.resolve(self.template.resources[logical].get("Properties") or {}))

    def _ref(self, name: str) -> Any:
        if name in self.template.parameters:
            declared = self.template.parameters[name]
            return parameters.value(declared, self.parameters[name])
        if name in self.template.resources:
            made = self._made(name)
            return UNKNOWN if made is None else made.ref
        suffix = {"aws-cn": "amazonaws.com.cn"}.get(partition(self.region), "amazonaws.com")
        return {
            "AWS::AccountId": self.account,
            "AWS::NoValue": GONE,
            "AWS::Partition": partition(self.region),
            "AWS::Region": self.region,
            "AWS::StackId": self.stack_id,
            "AWS::StackName": self.stack_name,
            "AWS::URLSuffix": suffix,
        }[name]

    def _made(self, logical: str) -> Made | None:
        resource = self.template.resources[logical]
        if "Condition" in resource and not self.holds(resource["Condition"]):
            raise invalid(
                f"Template format error: Unresolved resource dependencies [{logical}] in the "
                "Resources block of the template"
            )
        return self.made(logical)

    def _getatt(self, argument: Any) -> Any:
        logical, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        made = self._made(logical)
        if made is None:
            return UNKNOWN
        attribute = str(self.resolve(attribute))
        if attribute not in made.attributes:
            raise Unresolved(
                f"Template error: resource {logical} does not support attribute type {attribute} "
                "in Fn::GetAtt"
            )
        return made.attributes[attribute]

    def _sub(self, argument: Any) -> str:
        text, own = (argument, {}) if isinstance(argument, str) else argument

        def replace(match: Any) -> str:
            literal, name = match[1], match[2].strip()
            if literal:
                return f"${{{match[2]}}}"
            if name in own:
                found = self.resolve(own[name])
            elif "." in name:
                found = self._getatt(name)
            else:
                found = self._ref(name)
            if isinstance(found, (list, dict)) or found is GONE:
                raise invalid(
                    f"Template error: variable {name} in Fn::Sub expression does not resolve to a "
                    "string"
                )
            return _plain(found)

        return SUB.sub(replace, text)

    def _join(self, argument: Any) -> str:
        items = self.resolve(argument[1])
        if items == UNKNOWN:
            return UNKNOWN
        if not isinstance(items, list) or any(isinstance(item, (list, dict)) for item in items):
            raise malformed("Join")
        return str(argument[0]).join(_plain(item) for item in items)

    def _select(self, argument: Any) -> Any:
        index, items = self.resolve(argument[0]), self.resolve(argument[1])
        if items == UNKNOWN:
            return UNKNOWN
        if not isinstance(items, list) or not str(index).isdigit() or int(index) >= len(items):
            raise invalid(
                "Template error: Fn::Select requires a list argument with a valid index value"
            )
        return items[int(index)]

    def _split(self, argument: Any) -> Any:
        text = self.resolve(argument[1])
        if not isinstance(text, str) or not argument[0]:
            raise malformed("Split")
        return UNKNOWN if UNKNOWN in text else text.split(argument[0])

    def _if(self, argument: Any) -> Any:
        return self.resolve(argument[1] if self.holds(argument[0]) else argument[2])

    def _importvalue(self, argument: Any) -> str:
        name = self.resolve(argument)
        if not isinstance(name, str):
            raise malformed("ImportValue")
        if name not in self.exports:
            raise Unresolved(f"No export named {name} found")
        self.imported.add(name)
        return self.exports[name]


def unknown(value: Any) -> bool:
    """Tell whether a value has a part that is UNKNOWN."""
    if isinstance(value, str):
        return UNKNOWN in value
    if isinstance(value, dict):
        return any(map(unknown, value.values()))
    return isinstance(value, list) and any(map(unknown, value))


def _plain(value: Any) -> str:
    return value if isinstance(value, list) else as_text(value)  # type: ignore[return-value]
