"""Policy checks that services make themselves: roles that they assume, and objects across accounts.

Requests are checked in `iam`; this is for what services then do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.decisions import base_facts, decide
from sm_mlops.sandbox.policy_language import Asked, Facts, said
from sm_mlops.sandbox.wire import Caller, invalid, partition

NO_ROLE = (
    "Could not assume role {role}. Please ensure that the role exists and allows principal "
    "'sagemaker.amazonaws.com' to assume the role."
)


def principal(caller: Caller) -> str:
    """Return the ARN of who sends a request: the role behind a session, a user, or the account."""
    found = identities.of_key(caller.account, caller.region, caller.access_key)
    if found is None:
        found = identities.administrator(caller.account, caller.region)
    return found.principal


def check_role(role: str, caller: Caller) -> Any:
    """Return moto's role that SageMaker is to assume for this caller. Raises ApiError when it is
    missing, of another account, or does not trust SageMaker."""
    if role.split(":")[4:5] != [caller.account]:
        raise invalid("Cross-account pass role is not allowed.")
    found = identities.role(role, caller.region)
    source = caller.arn("sandbox")
    if found is None or not trusted(found, "sagemaker.amazonaws.com", source):
        raise invalid(NO_ROLE.format(role=role))
    return found


def trusted(role: Any, service: str, source: str) -> bool:
    """Tell whether a role lets a service assume it for a resource (aws:SourceArn)."""
    document = role.assume_role_policy_document
    return service_may(document, service, "sts:AssumeRole", str(role.arn), source)


def service_may(
    policy: str | Mapping[str, Any], service: str, action: str, resource: str, source: str
) -> bool:
    """Tell whether a resource's policy allows a service (events.amazonaws.com) an action.

    `source` is the ARN of what the service acts for, compared with aws:SourceArn.
    """
    facts = Facts(
        {
            "aws:SourceArn": source,
            "aws:SourceAccount": source.split(":")[4],
            # In the policy that a new topic has.
            "aws:SourceOwner": source.split(":")[4],
            "aws:PrincipalIsAWSService": "true",
            "aws:SecureTransport": "true",
        }
    )
    found = said(policy, Asked(action, resource, facts, {service: "service"}))
    return bool(found.allowed) and not found.denied


def role_may(arn: str, action: str, resource: str, region: str) -> bool:
    """Tell whether a role's policies and its boundary allow something in its own account."""
    who = identities.of_role(arn, region, "service")
    return decide(who, action, resource, base_facts(who, region)).allowed


def may(role: Any, action: str, bucket: Any, key: str, caller: Caller, prefix: str = "") -> bool:
    """Tell whether a role may do something with an object of moto's bucket, or, with no key, with
    the bucket (s3:ListBucket of a prefix).

    Within an account the role's policies or the bucket's suffice, across accounts it takes both.
    """
    resource = f"arn:{partition(caller.region)}:s3:::{bucket.name}"
    resource = f"{resource}/{key}" if key else resource
    who = identities.of_role(role.arn, caller.region, "SageMaker")
    facts = base_facts(who, caller.region).with_(
        {"s3:prefix": prefix or None, "aws:ResourceAccount": str(bucket.account_id)}
    )
    policy = bucket.policy or None
    return decide(who, action, resource, facts, policy, owner=str(bucket.account_id)).allowed
