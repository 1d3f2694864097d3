"""The decision of IAM from identity policies, permissions boundary and resource policies.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Asked, Document, Facts, Said, Value, said

Why = Literal["", "identity-based", "resource-based", "boundary", "trust"]


@dataclass(frozen=True)
class Verdict:
    """Whether a request is allowed, and if not, what kind of policy denies or does not allow it."""

    allowed: bool
    explicit: bool = False
    why: Why = ""

    def words(self, action: str) -> str:
        """Return the end of AWS's sentence about a denial."""
        if self.why == "trust":
            return ""
        kind = "permissions boundary" if self.why == "boundary" else f"{self.why} policy"
        if self.explicit:
            article = "an" if kind.startswith("i") else "a"
            return f" with an explicit deny in {article} {kind}"
        return f" because no {kind} allows the {action} action"


ALLOWED = Verdict(True)


def decide(
    who: Identity,
    action: str,
    resource: str,
    facts: Facts,
    policy: Document | None = None,
    *,
    owner: str = "",
    policy_decides: bool = False,
) -> Verdict:
    """Return whether an identity may do something with a resource.

    `policy` is the resource's own, `owner` its account ("" for the caller's). With `policy_decides`
    (keys, the trust policies of roles) nothing is allowed that the resource's policy does not allow
    or leave to the account.
    """
    asked = Asked(action, resource, facts, who.names())
    of_resource = said(policy, asked) if policy is not None else Said()
    if of_resource.denied:
        return Verdict(False, True, "resource-based")
    abroad = owner not in ("", who.account)
    if not who.restricted:
        refused = (abroad or policy_decides) and not of_resource.allowed
        return Verdict(False, False, "resource-based") if refused else ALLOWED
    own = [said(document, asked) for document in who.policies]
    limit = said(who.boundary, asked) if who.boundary is not None else None
    if any(each.denied for each in own):
        return Verdict(False, True, "identity-based")
    if limit is not None and limit.denied:
        return Verdict(False, True, "boundary")
    by_identity = any(each.allowed for each in own)
    # In its own account a policy that names the caller suffices; one that names the account leaves
    # it to the caller's own policies, and of keys and roles it must do at least that.
    named = bool(of_resource.allowed - {"account"})
    left_to_it = bool(of_resource.allowed)
    if (abroad or policy_decides) and not left_to_it:
        return Verdict(False, False, "resource-based" if by_identity else "identity-based")
    if not by_identity and (abroad or not named):
        return Verdict(False, False, "identity-based")
    # A boundary does not limit what a policy grants a user by ARN; it does for a role.
    if named and not abroad and who.kind == "user" and "direct" in of_resource.allowed:
        return ALLOWED
    if limit is not None and not limit.allowed:
        return Verdict(False, False, "boundary")
    return ALLOWED


def base_facts(who: Identity, region: str) -> Facts:
    """Return the context keys that every request has. The sandbox counts as reached over TLS."""
    kinds = {"role": "AssumedRole", "user": "User"}
    user_id = who.arn.rpartition("/")[2] if who.kind == "role" else who.name
    values: dict[str, Value] = {
        "aws:PrincipalArn": who.principal,
        "aws:PrincipalAccount": who.account,
        "aws:PrincipalType": kinds.get(who.kind, "Account"),
        "aws:PrincipalIsAWSService": "false",
        "aws:ViaAWSService": "false",
        "aws:userid": user_id,
        "aws:username": who.name if who.kind == "user" else None,
        "aws:FederatedProvider": who.provider,
        "aws:SecureTransport": "true",
        "aws:RequestedRegion": region,
    }
    return Facts(values, {"aws:principaltag/": lambda: who.tags})
