"""Roles that AWS services assume: trust and sessions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import identities, policies
from sm_mlops.sandbox.wire import partition

YEAR = 365 * 24 * 3600


def trusts(arn: str, service: str) -> bool:
    """Tell whether a role exists and lets a service of its own account take it."""
    parts = arn.split(":", 5)
    region = identities.region_of(parts[1]) if len(parts) == 6 else ""
    found = identities.role(arn, region)
    if found is None:
        return False
    source = f"arn:{parts[1]}:{service.partition('.')[0]}:{region}:{parts[4]}:sandbox"
    return policies.trusted(found, service, source)


# How often services do not see a role that a caller of theirs has just made.
LATE = 0
_ASKED: Counter[tuple[str, str]] = Counter()


def unseen(arn: str, service: str) -> bool:
    """Tell whether a service does not know a role yet: IAM is eventually consistent."""
    found = identities.role(arn, identities.region_of(arn.split(":")[1]))
    if found is None or _ASKED[found.id, service] >= LATE:
        return False
    _ASKED[found.id, service] += 1
    return True


def sees(arn: str, service: str) -> bool:
    """Tell whether a service can take a role yet."""
    return not unseen(arn, service) and trusts(arn, service)


_KEEP: list[Callable[..., None]] = []


def on_session(keep: Callable[..., None]) -> None:
    """Register a function to call with "iam" and "sts" when a service has assumed a role."""
    _KEEP[:] = [keep]


def session(arn: str, name: str, region: str) -> dict[str, str]:
    """Return credentials of a role that a service works with, as the environment variables of a
    process. A service has one session of a role, which survives a restart.

    It lasts for a year: on AWS the service would renew it."""
    from moto.sts.models import sts_backends

    backend: Any = sts_backends[arn.split(":")[4]][partition(region)]
    wanted: Any = (arn, name, "", {})
    made = next(
        (
            each
            for each in backend.assumed_roles
            if (each.role_arn, each.session_name, each.policy, getattr(each, "sandbox", {}))
            == wanted
            and identities.ends(each) > time.time() + YEAR / 2
        ),
        None,
    )
    if made is None:
        made = backend.assume_role(region, name, arn, "", YEAR, "")
        for keep in _KEEP:
            keep("iam", "sts")
    return {
        "AWS_ACCESS_KEY_ID": made.access_key_id,
        "AWS_SECRET_ACCESS_KEY": made.secret_access_key,
        "AWS_SESSION_TOKEN": made.session_token,
    }
