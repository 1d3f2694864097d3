"""IAM's SimulatePrincipalPolicy: what somebody's policies would say, without a request. Source:
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from sm_mlops.sandbox.iam import identities
from sm_mlops.sandbox.iam.decide import Verdict, base_facts, decide
from sm_mlops.sandbox.iam.identities import Identity
from sm_mlops.sandbox.iam.language import Value, many
from sm_mlops.sandbox.wire import ApiError, Caller, Params

NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


@dataclass(frozen=True)
class Result:
    """The decision about one action on one resource, as EvalDecision words it."""

    action: str
    resource: str
    decision: str
    boundary: bool | None
    """Whether the permissions boundary allows it; None where there is none."""


def simulate(
    who: Identity,
    names: Iterable[str],
    resources: Iterable[str] = ("*",),
    context: Mapping[str, Value] | None = None,
    region: str = "us-east-1",
    policy: str | None = None,
) -> list[Result]:
    """Return what policies say of every action on every resource, whether it exists or not.

    `policy` is that of the resource. The request has no keys but those in `context`.
    """
    facts = base_facts(who, region, time.time()).with_(dict(context or {}))
    found = []
    for action in names:
        for resource in resources:
            verdict = decide(who, action, resource, facts, policy)
            found.append(Result(action, resource, _decision(verdict), _boundary(who, verdict)))
    return found


def _decision(verdict: Verdict) -> str:
    if verdict.allowed:
        return "allowed"
    return "explicitDeny" if verdict.explicit else "implicitDeny"


def _boundary(who: Identity, verdict: Verdict) -> bool | None:
    return None if who.boundary is None else verdict.why != "boundary"


def answer(params: Params, caller: Caller) -> bytes:
    """Answer the API call. Raises ApiError."""
    results = simulate(
        _source(params, caller),
        [str(name) for name in many(params.get("ActionNames"))],
        [str(arn) for arn in many(params.get("ResourceArns"))] or ["*"],
        {
            entry["ContextKeyName"]: _value(entry)
            for entry in many(params.get("ContextEntries"))
            if "ContextKeyName" in entry
        },
        caller.region,
        params.get("ResourcePolicy"),
    )
    rows = "".join(_member(result) for result in results)
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
        # How moto names whoever has the sandbox's own key.
        return identities.administrator(caller.account, caller.region)
    elif kind == "user":
        found = identities.of_user(parts[4], caller.region, name.rpartition("/")[2])
    if found is None:
        raise ApiError("NoSuchEntity", f"Invalid Entity Arn: {arn} does not exist.", 404)
    further = tuple(str(text) for text in many(params.get("PolicyInputList")))
    limits = many(params.get("PermissionsBoundaryPolicyInputList"))
    return Identity(
        found.kind,
        found.arn,
        found.principal,
        found.account,
        found.policies + further,
        str(limits[0]) if limits else found.boundary,
        None,
        found.tags,
    )


def _member(result: Result) -> str:
    boundary = ""
    if result.boundary is not None:
        allowed = str(result.boundary).lower()
        boundary = (
            "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>"
            f"{allowed}</AllowedByPermissionsBoundary></PermissionsBoundaryDecisionDetail>"
        )
    return (
        f"<member><EvalActionName>{escape(result.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(result.resource)}</EvalResourceName>"
        f"<EvalDecision>{result.decision}</EvalDecision><MatchedStatements/>"
        f"<MissingContextValues/>{boundary}</member>"
    )
