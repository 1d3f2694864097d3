"""Who may do what: IAM and resource policies, for the few accesses that cross accounts.

A small part of IAM's evaluation: statements with actions, resources, principals and the common
conditions. An explicit Deny wins; a condition that is not understood does not hold.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from sandbox.wire import ApiError, Caller, invalid, partition

NO_ROLE = (
    "Could not assume role {role}. Please ensure that the role exists and allows principal "
    "'sagemaker.amazonaws.com' to assume the role."
)


def principal(caller: Caller) -> str:
    """Return the ARN of who sends a request: the role behind a session, or the account."""
    from moto.sts.models import sts_backends

    backend = sts_backends[caller.account][partition(caller.region)]
    session = backend.get_assumed_role_from_access_key(caller.access_key)
    if session is not None:
        return str(session.role_arn)
    return f"arn:{partition(caller.region)}:iam::{caller.account}:root"


def decision(
    policy: str | bytes | Mapping[str, Any], action: str, resource: str, who: str, region: str
) -> bool | None:
    """Return what a policy says: True for Allow, False for Deny, None for nothing.

    `who` is the ARN of a principal; statements without Principal (of a role) hold for everybody.
    """
    document: Any = policy if isinstance(policy, Mapping) else _parsed(policy)
    answer: bool | None = None
    for statement in _list(document.get("Statement")):
        if _applies(statement, action, resource, who, region):
            if statement.get("Effect") == "Deny":
                return False
            answer = True
    return answer


def check_role(role: str, caller: Caller) -> Any:
    """Return moto's role that SageMaker is to assume for this caller. Raises ApiError when it is
    missing, of another account, or does not trust SageMaker."""
    from moto.iam.models import iam_backends

    if role.split(":")[4:5] != [caller.account]:
        raise invalid("Cross-account pass role is not allowed.")
    backend: Any = iam_backends[caller.account][partition(caller.region)]
    found = next((entry for entry in backend.get_roles() if entry.arn == role), None)
    trust = _parsed(found.assume_role_policy_document) if found is not None else {}
    services = [
        service
        for statement in _list(trust.get("Statement"))
        if statement.get("Effect") == "Allow" and isinstance(statement.get("Principal"), dict)
        for service in _list(statement["Principal"].get("Service"))
    ]
    if found is None or "sagemaker.amazonaws.com" not in services:
        raise invalid(NO_ROLE.format(role=role))
    return found


def role_may(role: Any, action: str, resource: str, region: str) -> bool | None:
    """Return what a role's own policies say of an action; see `decision`."""
    documents: list[Any] = [*role.policies.values()]
    for managed in role.managed_policies.values():
        if ":iam::aws:policy/" in managed.arn:
            # What AWS manages is not written down here; those attached are meant to suffice.
            return True
        documents.append(managed.document)
    said = [decision(document, action, resource, role.arn, region) for document in documents]
    return False if False in said else (True if True in said else None)


def may(role: Any, action: str, bucket: Any, key: str, caller: Caller) -> bool:
    """Tell whether a role may do something (s3:GetObject) with an object of moto's bucket.

    Within an account the role's policies or the bucket's suffice, across accounts it takes both. A
    role without any policy is taken to be allowed in its own account: the sandbox's own is.
    """
    resource = f"arn:{partition(caller.region)}:s3:::{bucket.name}/{key}"
    policy = bucket.policy
    bucket_says = decision(policy, action, resource, role.arn, caller.region) if policy else None
    role_says = role_may(role, action, resource, caller.region)
    if False in (bucket_says, role_says):
        return False
    if bucket.account_id == caller.account:
        bare = not role.policies and not role.managed_policies
        return bool(bucket_says or role_says or bare)
    return bool(bucket_says and role_says)


def denied(caller: Caller, action: str, resource: str) -> ApiError:
    """Return the error for what no resource policy allows."""
    return ApiError(
        "AccessDeniedException",
        f"User: {principal(caller)} is not authorized to perform: {action} on resource: {resource} "
        f"because no resource-based policy allows the {action} action",
    )


def _applies(
    statement: Mapping[str, Any], action: str, resource: str, who: str, region: str
) -> bool:
    if "Principal" in statement and not _is_principal(statement["Principal"], who):
        return False
    if "NotPrincipal" in statement and _is_principal(statement["NotPrincipal"], who):
        return False
    for name, value, ignore_case in (("Action", action, True), ("Resource", resource, False)):
        if name in statement and not _fits(value, statement[name], ignore_case):
            return False
        if f"Not{name}" in statement and _fits(value, statement[f"Not{name}"], ignore_case):
            return False
    facts = {
        "aws:principalarn": who,
        "aws:principalaccount": who.split(":")[4],
        "aws:securetransport": "true",
        "aws:requestedregion": region,
    }
    conditions = statement.get("Condition") or {}
    return all(
        _holds(operator, facts.get(key.lower()), _list(values))
        for operator, entries in conditions.items()
        for key, values in entries.items()
    )


def _is_principal(given: Any, who: str) -> bool:
    if given == "*":
        return True
    names = _list(given.get("AWS")) if isinstance(given, Mapping) else []
    account = who.split(":")[4]
    return any(
        name in ("*", who, account) or re.fullmatch(rf"arn:[\w-]+:iam::{account}:root", name)
        for name in map(str, names)
    )


def _holds(operator: str, fact: str | None, values: list[Any]) -> bool:
    name = operator.removesuffix("IfExists")
    if fact is None:
        return name != operator
    negative = name.startswith(("StringNot", "ArnNot"))
    texts = [str(value) for value in values]
    if "Like" in name or name.startswith("Arn"):
        found = _fits(fact, texts, False)
    elif name in ("StringEquals", "StringNotEquals"):
        found = fact in texts
    elif name in ("Bool", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"):
        found = fact.lower() in (text.lower() for text in texts)
    else:
        return False
    return found != negative


def _fits(value: str, patterns: Any, ignore_case: bool) -> bool:
    found: Iterable[str] = (str(pattern) for pattern in _list(patterns))
    if ignore_case:
        value, found = value.lower(), (pattern.lower() for pattern in found)
    # In policies [ is an ordinary character.
    return any(fnmatch.fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in found)


def _parsed(document: str | bytes) -> Any:
    text = document.decode() if isinstance(document, bytes) else document
    try:
        found = json.loads(unquote(text) if text.startswith("%7B") else text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
