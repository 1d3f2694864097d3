"""Whether a policy lets an AWS service act: resource policies of functions and queues, and the
policies of execution roles.

Adds to `policies`, which knows people's and roles' accesses, the service as principal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandbox import policies
from sandbox.wire import partition


def service_may(
    policy: str | Mapping[str, Any] | None,
    service: str,
    action: str,
    resource: str,
    source: str,
) -> bool:
    """Tell whether a resource's policy allows a service (events.amazonaws.com) an action.

    `source` is the ARN of what the service acts for, compared with aws:SourceArn.
    """
    if not policy:
        return False
    document: Any = json.loads(policy) if isinstance(policy, str) else policy
    facts = {"aws:sourcearn": source, "aws:sourceaccount": source.split(":")[4]}
    answer = False
    for statement in policies._list(document.get("Statement")):
        if not _applies(statement, service, action, resource, facts):
            continue
        if statement.get("Effect") == "Deny":
            return False
        answer = True
    return answer


def _applies(
    statement: Mapping[str, Any], service: str, action: str, resource: str, facts: dict[str, str]
) -> bool:
    who = statement.get("Principal")
    named = policies._list(who.get("Service")) if isinstance(who, Mapping) else []
    if who != "*" and service not in named:
        return False
    if not policies._fits(action, statement.get("Action"), True):
        return False
    if not policies._fits(resource, statement.get("Resource"), False):
        return False
    return all(
        policies._holds(operator, facts.get(key.lower()), policies._list(values))
        for operator, entries in (statement.get("Condition") or {}).items()
        for key, values in entries.items()
    )


def role(arn: str) -> Any:
    """Return moto's role of an ARN, or None."""
    from moto.iam.models import iam_backends

    parts = arn.split(":")
    if len(parts) != 6 or parts[2] != "iam":
        return None
    backend: Any = iam_backends[parts[4]][parts[1]]
    return next((entry for entry in backend.get_roles() if entry.arn == arn), None)


def trusts(arn: str, service: str) -> bool:
    """Tell whether a role exists and lets a service take it."""
    found = role(arn)
    if found is None:
        return False
    document = policies._parsed(found.assume_role_policy_document)
    return any(
        statement.get("Effect") == "Allow"
        and isinstance(statement.get("Principal"), Mapping)
        and service in policies._list(statement["Principal"].get("Service"))
        for statement in policies._list(document.get("Statement"))
    )


def role_may(arn: str, action: str, resource: str, region: str) -> bool:
    """Tell whether a role's own policies allow an action; a role without policies may nothing."""
    found = role(arn)
    return found is not None and policies.role_may(found, action, resource, region) is True


def session(arn: str, name: str, region: str) -> dict[str, str]:
    """Return credentials of a role, as the environment variables of a process."""
    from moto.sts.models import sts_backends

    backend: Any = sts_backends[arn.split(":")[4]][partition(region)]
    made = backend.assume_role(region, name, arn, "", 3600, "")
    return {
        "AWS_ACCESS_KEY_ID": made.access_key_id,
        "AWS_SECRET_ACCESS_KEY": made.secret_access_key,
        "AWS_SESSION_TOKEN": made.session_token,
    }
