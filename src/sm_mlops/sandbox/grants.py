"""Whether a policy lets an AWS service act: resource policies of functions and queues, and the
policies of execution roles.

Adds to `policies`, which knows people's and roles' accesses, the service as principal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sm_mlops.sandbox import policies
from sm_mlops.sandbox.iam import identities
from sm_mlops.sandbox.iam.language import Asked, Facts, said
from sm_mlops.sandbox.wire import partition


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
    facts = Facts(
        {
            "aws:SourceArn": source,
            "aws:SourceAccount": source.split(":")[4],
            "aws:PrincipalIsAWSService": "true",
            "aws:SecureTransport": "true",
        }
    )
    found = said(policy, Asked(action, resource, facts, {service: "service"}))
    return bool(found.allowed) and not found.denied


def role(arn: str) -> Any:
    """Return moto's role of an ARN, or None."""
    parts = arn.split(":")
    if len(parts) != 6 or parts[2] != "iam":
        return None
    return identities.role(arn, _region(parts[1]))


def _region(partition_name: str) -> str:
    return {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}.get(partition_name, "us-east-1")


def trusts(arn: str, service: str) -> bool:
    """Tell whether a role exists and lets a service of its own account take it."""
    found = role(arn)
    if found is None:
        return False
    _, name, _, _, account, _ = arn.split(":", 5)
    prefix = service.partition(".")[0]
    source = f"arn:{name}:{prefix}:{_region(name)}:{account}:sandbox"
    return policies.trusted(found, service, source)


def role_may(arn: str, action: str, resource: str, region: str) -> bool:
    """Tell whether a role's own policies and its boundary allow an action."""
    return role(arn) is not None and policies.role_may(arn, action, resource, region)


class _Kept:
    """Makes what moto's services hold durable; the server sets it."""

    keep: Callable[..., None] = staticmethod(lambda *services: None)


def on_session(keep: Callable[..., None]) -> None:
    """Call this with "iam" and "sts" whenever a service has taken a role."""
    _Kept.keep = staticmethod(keep)


def session(arn: str, name: str, region: str) -> dict[str, str]:
    """Return credentials of a role that a service works with, as the environment variables of a
    process. A service has one session of a role, which survives a restart."""
    from moto.sts.models import sts_backends

    backend: Any = sts_backends[arn.split(":")[4]][partition(region)]
    wanted = (arn, name, "")
    made = next(
        (
            each
            for each in backend.assumed_roles
            if (each.role_arn, each.session_name, each.policy) == wanted
        ),
        None,
    )
    if made is None:
        made = backend.assume_role(region, name, arn, "", 3600, "")
        _Kept.keep("iam", "sts")
    return {
        "AWS_ACCESS_KEY_ID": made.access_key_id,
        "AWS_SECRET_ACCESS_KEY": made.secret_access_key,
        "AWS_SESSION_TOKEN": made.session_token,
    }
