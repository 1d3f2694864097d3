"""IAM's SimulatePrincipalPolicy: what a principal's policies say about actions, without a request.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.decisions import Verdict, base_facts, decide
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Value, many
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented

MEMBERS = {"PolicySourceArn", "ActionNames", "ResourceArns", "ContextEntries", "Version"}
NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


def _decision(verdict: Verdict) -> str:
    if verdict.allowed:
        return "allowed"
    return "explicitDeny" if verdict.explicit else "implicitDeny"


def answer(params: Params, caller: Caller) -> bytes:
    """Answer the API call: the request has no context keys but those given. Raises ApiError."""
    unknown = sorted(set(params) - MEMBERS)
    if unknown:
        raise not_implemented(f"{', '.join(unknown)} of iam:SimulatePrincipalPolicy")
    who = _source(params, caller)
    facts = base_facts(who, caller.region).with_(
        {
            entry["ContextKeyName"]: _value(entry)
            for entry in many(params.get("ContextEntries"))
            if "ContextKeyName" in entry
        }
    )
    rows = "".join(
        _member(action, resource, _decision(decide(who, action, resource, facts)))
        for action in map(str, many(params.get("ActionNames")))
        for resource in map(str, many(params.get("ResourceArns")) or ["*"])
    )
    return (
        f'<SimulatePrincipalPolicyResponse xmlns="{NAMESPACE}"><SimulatePrincipalPolicyResult>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{rows}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        "</SimulatePrincipalPolicyResponse>"
    ).encode()


def _value(entry: Mapping[str, Any]) -> Value:
    values = tuple(str(value) for value in many(entry.get("ContextKeyValues")))
    several = str(entry.get("ContextKeyType", "")).endswith("List")
    return values if several or len(values) != 1 else values[0]


def _source(params: Params, caller: Caller) -> Identity:
    arn = str(params.get("PolicySourceArn", ""))
    parts = arn.split(":", 5)
    if len(parts) != 6:
        raise ApiError("InvalidInput", f"{arn} is no valid ARN")
    kind, _, name = parts[5].partition("/")
    found: Identity | None = None
    if kind == "role" and identities.role(arn, caller.region) is not None:
        found = identities.of_role(arn, caller.region)
    elif arn.endswith((":user/moto", ":root")) and parts[4] == caller.account:
        # moto's name for the owner of the sandbox's own key.
        return identities.administrator(caller.account, caller.region)
    elif kind == "user":
        found = identities.of_user(parts[4], caller.region, name.rpartition("/")[2])
    if found is None:
        raise ApiError("NoSuchEntity", f"Invalid Entity Arn: {arn} does not exist.", 404)
    return found


def _member(action: str, resource: str, decision: str) -> str:
    return (
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{decision}</EvalDecision></member>"
    )
