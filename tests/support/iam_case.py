"""What IAM would say: policies of an identity and its permissions boundary, evaluated for tests.

Stricter than the sandbox's evaluation: an operator that is not known is an error, not a no. Each
decision is compared with the sandbox's.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sm_mlops.sandbox.iam.operations import SERVICES
from sm_mlops.sandbox.policy_language import Asked, Facts, said

Document = Mapping[str, Any]
Context = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Identity:
    """A role or user: its ARN, what its own policies and its boundary say, and its tags."""

    arn: str
    policies: tuple[Document, ...]
    boundary: Document | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def may(self, action: str, resource: str, context: Context | None = None) -> bool:
        """Tell whether its policies allow this, and its boundary does, too."""
        facts = {
            "aws:principalarn": self.arn,
            **{f"aws:principaltag/{key}".lower(): value for key, value in self.tags.items()},
            **{key.lower(): value for key, value in (context or {}).items()},
        }
        own = [decision(document, action, resource, facts) for document in self.policies]
        if False in own or True not in own:
            return False
        return self.boundary is None or decision(self.boundary, action, resource, facts) is True


def decision(document: Document, action: str, resource: str, facts: Context) -> bool | None:
    """Return what a policy says: True for Allow, False for Deny, None for nothing."""
    answer: bool | None = None
    for statement in document["Statement"]:
        if _applies(statement, action, resource, facts):
            if statement["Effect"] == "Deny":
                answer = False
                break
            answer = True
    if not any("Principal" in statement for statement in document["Statement"]):
        values = {key: tuple(one) if isinstance(one, list) else one for key, one in facts.items()}
        found = said(document, Asked(action, resource, Facts(values)))
        assert answer is (False if found.denied else True if found.allowed else None)
    return answer


def _applies(statement: Document, action: str, resource: str, facts: Context) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    assert not unknown, f"the evaluation knows no {unknown}"
    if not any(_like(action.lower(), item.lower()) for item in listed(statement["Action"])):
        return False
    patterns = [_filled(item, facts) for item in listed(statement["Resource"])]
    if not any(pattern is not None and _like(resource, pattern) for pattern in patterns):
        return False
    return all(
        _holds(operator, facts.get(key.lower()), [_filled(str(one), facts) for one in listed(item)])
        for operator, entries in statement.get("Condition", {}).items()
        for key, item in entries.items()
    )


def _filled(text: str, facts: Context) -> str | None:
    """Return a policy's text with its variables; None if the request has no such value."""

    def value(found: re.Match[str]) -> str:
        fact = facts[found[1].lower()]
        assert isinstance(fact, str)
        return fact

    try:
        return re.sub(r"\$\{([^}]+)\}", value, text)
    except KeyError:
        return None


def _holds(operator: str, fact: str | list[str] | None, wanted: list[str | None]) -> bool:
    name = operator.removeprefix("ForAllValues:").removesuffix("IfExists")
    if name == "Null":
        return wanted == [str(fact is None).lower()] or wanted == [str(fact is None)]
    if fact is None:
        # Of no value, all have any property; without IfExists, a missing key does not hold.
        return operator != name or "Not" in name
    texts = [item for item in wanted if item is not None]
    facts = listed(fact)
    if name in ("StringEquals", "StringNotEquals"):
        found = [item in texts for item in facts]
    elif name in ("StringLike", "ArnLike", "ArnNotLike", "ArnEquals"):
        found = [any(_like(item, text) for text in texts) for item in facts]
    elif name == "Bool":
        found = [item.lower() in [text.lower() for text in texts] for item in facts]
    else:
        raise AssertionError(f"the evaluation knows no {operator}")
    if "Not" in name:
        found = [not item for item in found]
    return all(found)


def _like(text: str, pattern: str) -> bool:
    # In policies [ is an ordinary character.
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def listed(value: Any) -> list[str]:
    """Return one or many as many."""
    return list(value) if isinstance(value, list) else [value]


def length(*documents: Document) -> int:
    """Return the characters that IAM counts: all but white space."""
    return sum(len(json.dumps(document, separators=(",", ":"))) for document in documents)


# What AWS knows: each service's actions and the resources they go with, as cfn-lint has them.


@functools.cache
def _services() -> dict[str, Any]:
    found = importlib.util.find_spec("cfnlint")
    assert found is not None and found.origin
    file = Path(found.origin).parent / "data" / "AdditionalSpecs" / "Policies.json"
    services: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return services


def formats(action: str) -> list[str] | None:
    """Return patterns of the ARNs that an action goes with: none for an action that takes only *,
    None for an unknown action."""
    service, _, name = action.partition(":")
    known = _services().get(service, {})
    entry = known.get("Actions", {}).get(name.lower())
    if entry is None:
        return None
    return [
        re.sub(r"\$\{[^}]+\}|\.\*", "*", pattern)
        for kind in entry.get("Resources", [])
        for pattern in known["Resources"].get(kind, {}).get("ARNFormats", ["*"])
    ]


def misfits(document: Document) -> Iterator[str]:
    """Yield unknown actions, and actions with resources that they do not apply to."""
    for statement in document["Statement"]:
        if statement["Effect"] == "Deny" and statement["Action"] == "*":
            continue
        arns = [re.sub(r"\$\{[^}]+\}", "x", arn) for arn in listed(statement["Resource"])]
        used = set()
        for action in listed(statement["Action"]):
            takes = formats(action)
            if takes is None:
                yield f"{statement['Sid']}: {action} is not an action"
                continue
            fitting = {arn for arn in arns if any(overlap(arn, one) for one in takes)}
            used |= fitting
            if not fitting and arns != ["*"]:
                yield f"{statement['Sid']}: {action} goes with none of {arns}"
        if arns != ["*"]:
            for arn in sorted(set(arns) - used):
                yield f"{statement['Sid']}: no action goes with {arn}"


@functools.cache
def overlap(left: str, right: str) -> bool:
    """Whether some text fits both patterns."""
    if not left or not right:
        return not (left + right).strip("*")
    if left[0] == "*":
        return overlap(left[1:], right) or overlap(left, right[1:])
    if right[0] == "*":
        return overlap(left, right[1:]) or overlap(left[1:], right)
    return left[0] == right[0] and overlap(left[1:], right[1:])


def tabled(service: str) -> list[str]:
    """Return the operations of a service that the sandbox's table has."""
    table = SERVICES[service].table if service in SERVICES else {}
    return [name for names in table.values() for name in names.split()]
