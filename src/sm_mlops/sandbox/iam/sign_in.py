"""Who may assume a role: AssumeRole by the role's trust policy and the caller's policies,
AssumeRoleWithWebIdentity by a token of GitHub.

moto creates a session without any check, even for a role that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.decisions import Verdict, base_facts, decide
from sm_mlops.sandbox.iam.actions import Check, request_tags, tags_given
from sm_mlops.sandbox.iam.enforcement import denial
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Asked, Facts, Value, many, said
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented, partition

# The role that AWS Organizations creates in each account of an organization.
DOOR = "OrganizationAccountAccessRole"
# The claims of GitHub's tokens that are context keys; others no policy can ask for. Source:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html
CLAIMS = (
    *("aud", "sub", "actor", "actor_id", "environment", "job_workflow_ref", "ref"),
    *("repository", "repository_id", "repository_owner_id", "workflow"),
)
Verify = Callable[[str], dict[str, Any]]
"""Returns the claims of a token. Raises ValueError, for one that has ended TimeoutError."""


def check_assume_role(params: Params, caller: Caller) -> dict[str, Any]:
    """Return what the session has of its own, as members of an Identity. Raise ApiError when the
    caller may not assume the role."""
    if params.get("Policy") or params.get("PolicyArns"):
        raise not_implemented("session policies of sts:AssumeRole")
    arn = str(params.get("RoleArn", ""))
    who = identities.of_key(caller.account, caller.region, caller.access_key)
    if who is None:
        raise ApiError(
            "InvalidClientTokenId", "The security token included in the request is invalid.", 403
        )
    if arn.endswith(f":role/{DOOR}") and not who.restricted:
        _open(arn, who, caller)
    tags, transitive = _session_tags(params, who)
    facts = base_facts(who, caller.region).with_(
        {
            **request_tags(params),
            "sts:TransitiveTagKeys": transitive or None,
            "sts:ExternalId": params.get("ExternalId"),
            "sts:RoleSessionName": params.get("RoleSessionName"),
            "aws:ResourceAccount": arn.split(":")[4] if arn.count(":") >= 5 else None,
        },
        {"aws:resourcetag/": lambda: _tags(arn, caller.region)},
    )
    # Tags that a former session hands on take the same permission as those of the request.
    for action in ("sts:AssumeRole", "sts:TagSession") if tags else ("sts:AssumeRole",):
        verdict = _verdict(who, action, arn, facts, caller.region)
        if not verdict.allowed:
            raise denial(who, "sts", Check(action, arn), verdict)
    _check_duration(params, arn, caller.region)
    return {"tags": tags, "transitive": transitive}


def _session_tags(params: Params, who: Identity) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the tags of a session, and which of them its own next session inherits.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
    """
    given = tags_given(params)
    if again := {key.lower() for key in given} & {key.lower() for key in who.transitive}:
        raise ApiError(
            "InvalidParameterValue",
            f"One of the specified transitive tag keys can't be set: {min(again)}",
        )
    inherited = {key: value for key, value in who.tags.items() if key in who.transitive}
    keys = tuple(map(str, many(params.get("TransitiveTagKeys"))))
    return {**inherited, **given}, (*who.transitive, *keys)


def _verdict(who: Identity, action: str, arn: str, facts: Facts, region: str) -> Verdict:
    role = identities.role(arn, region)
    trust = role.assume_role_policy_document if role is not None else identities.NOTHING
    owner = arn.split(":")[4] if arn.count(":") >= 5 else who.account
    verdict = decide(who, action, arn, facts, trust, owner=owner, policy_decides=True)
    if verdict.why == "resource-based" and not verdict.explicit:
        # AWS does not tell whether it was the role's trust policy.
        return Verdict(False, why="trust")
    return verdict


def _tags(arn: str, region: str) -> dict[str, str]:
    role = identities.role(arn, region)
    return identities.tags_of(role.tags) if role is not None else {}


def _check_duration(params: Params, arn: str, region: str) -> None:
    role = identities.role(arn, region)
    longest = int(getattr(role, "max_session_duration", None) or 3600)
    if int(params.get("DurationSeconds") or 0) > longest:
        raise ApiError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )


def _open(arn: str, who: Identity, caller: Caller) -> None:
    account = arn.split(":")[4]
    owner = identities.backend(account, caller.region)
    if account == who.account or any(role.name == DOOR for role in list(owner.roles.values())):
        return
    statement = {"Effect": "Allow", "Principal": {"AWS": who.arn}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = owner.create_role(DOOR, trust, "/", None, "The administrator's way in", [], "43200")
    made.policies["AdministratorAccess"] = identities.UNLIMITED


def check_web_identity(params: Params, region: str, host: str, verify: Verify) -> dict[str, Any]:
    """Return what the session has of its own, as members of an Identity. Raise ApiError when a
    token from `host` does not let its bearer assume the role."""
    arn = str(params.get("RoleArn", ""))
    account = arn.split(":")[4] if arn.count(":") >= 5 else ""
    try:
        claims = verify(str(params.get("WebIdentityToken", "")))
    except TimeoutError as error:
        raise ApiError("ExpiredTokenException", str(error)) from error
    except ValueError as error:
        raise ApiError("InvalidIdentityToken", str(error)) from error
    provider = f"arn:{partition(region)}:iam::{account}:oidc-provider/{host}"
    known = identities.backend(account, region).open_id_providers if account else {}
    if provider not in known:
        raise ApiError(
            "InvalidIdentityToken",
            f"No OpenIDConnect provider found in your account for https://{host}",
        )
    if claims["aud"] not in known[provider].client_id_list:
        raise ApiError("InvalidIdentityToken", "Incorrect token audience")
    values: dict[str, Value] = {
        **{f"{host}:{name}": str(claims[name]) for name in CLAIMS if name in claims},
        "aws:FederatedProvider": provider,
        "aws:SecureTransport": "true",
        "aws:RequestedRegion": region,
        "sts:RoleSessionName": params.get("RoleSessionName"),
    }
    role = identities.role(arn, region)
    action = "sts:AssumeRoleWithWebIdentity"
    asked = Asked(action, arn, Facts(values), {provider: "federated"})
    trust = said(role.assume_role_policy_document if role else identities.NOTHING, asked)
    if trust.denied or not trust.allowed:
        raise ApiError("AccessDenied", f"Not authorized to perform {action}", 403)
    _check_duration(params, arn, region)
    return {"provider": provider}
