"""IAM's SimulatePrincipalPolicy: what somebody's policies would say, without a request.

Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.decisions import Verdict, base_facts, decide
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Value, many
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented

MEMBERS = {"PolicySourceArn", "ActionNames", "ResourceArns", "ContextEntries", "Version"}
NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


@dataclass(frozen=True)
class Result:
    """The decision about one action on one resource, as EvalDecision words it."""

    action: str
    resource: str
    decision: str


def _simulate(
    who: Identity,
    names: Iterable[str],
    resources: Iterable[str],
    context: Mapping[str, Value],
    region: str,
) -> Iterator[Result]:
    """Yield what policies say of every action on every resource, whether it exists or not.

    The request has no keys but those in `context`.
    """
    facts = base_facts(who, region).with_(dict(context))
    for action in names:
        for resource in resources:
            verdict = decide(who, action, resource, facts)
            yield Result(action, resource, _decision(verdict))


def _decision(verdict: Verdict) -> str:
    if verdict.allowed:
        return "allowed"
    return "explicitDeny" if verdict.explicit else "implicitDeny"


def answer(params: Params, caller: Caller) -> bytes:
    """Answer the API call. Raises ApiError."""
    unknown = sorted(set(params) - MEMBERS)
    if unknown:
        raise not_implemented(f"{', '.join(unknown)} of iam:SimulatePrincipalPolicy")
    results = _simulate(
        _source(params, caller),
        [str(name) for name in many(params.get("ActionNames"))],
        [str(arn) for arn in many(params.get("ResourceArns"))] or ["*"],
        {
            entry["ContextKeyName"]: _value(entry)
            for entry in many(params.get("ContextEntries"))
            if "ContextKeyName" in entry
        },
        caller.region,
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
        # moto's name for the owner of the sandbox's own key.
        return identities.administrator(caller.account, caller.region)
    elif kind == "user":
        found = identities.of_user(parts[4], caller.region, name.rpartition("/")[2])
    if found is None:
        raise ApiError("NoSuchEntity", f"Invalid Entity Arn: {arn} does not exist.", 404)
    return found


def _member(result: Result) -> str:
    return (
        f"<member><EvalActionName>{escape(result.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(result.resource)}</EvalResourceName>"
        f"<EvalDecision>{result.decision}</EvalDecision><MatchedStatements/>"
        "<MissingContextValues/></member>"
    )
