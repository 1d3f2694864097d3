"""Who sends a request: the role session, the IAM user or the account's administrator behind an
access key, with their policies.

Reads moto's IAM and STS (written against moto 5.2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sm_mlops.sandbox.wire import Caller, partition

ADMINISTRATOR = "administrator"
# Stands for the key of the sandbox's own account in all that is kept.
OWNER = "owner"
UNLIMITED = '{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
NOTHING = '{"Statement": []}'
AWS_MANAGED = ":iam::aws:policy/"


@dataclass(frozen=True)
class Identity:
    """A role session, a role, a user, or the administrator of an account.

    `arn` is how errors name it, `principal` what aws:PrincipalArn is. The administrator's own
    policies are not evaluated. `boundary` is a policy, or None where there is none. `tags` are
    those of the role or user and, overriding them, of the session; `transitive` are the keys that
    a next session inherits, `provider` is the ARN of what the session has signed in with.
    """

    kind: str
    arn: str
    principal: str
    account: str
    policies: tuple[str, ...] = ()
    boundary: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive: tuple[str, ...] = ()
    provider: str | None = None

    @property
    def restricted(self) -> bool:
        """Tell whether its own policies decide what it may do."""
        return self.kind != ADMINISTRATOR

    @property
    def name(self) -> str:
        return self.principal.rpartition("/")[2]

    def names(self) -> dict[str, str]:
        """Return the names that a resource policy may call it by; see policy_language.Asked."""
        place = self.principal.rpartition(":")[0]
        return {
            self.account: "account",
            f"{place}:root": "account",
            self.principal: "direct",
            self.arn: "direct",
        }


def administrator(account: str, region: str) -> Identity:
    """Return the owner of an account; in the sandbox's own, that of its key."""
    root = f"arn:{partition(region)}:iam::{account}:root"
    return Identity(ADMINISTRATOR, root, root, account)


def region_of(partition_name: str) -> str:
    """Return a region of a partition, for global resources."""
    return {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}.get(partition_name, "us-east-1")


def backend(account: str, region: str) -> Any:
    """Return moto's IAM of an account."""
    from moto.iam.models import iam_backends

    return iam_backends[account][partition(region)]


def of_key(account: str, region: str, key: str) -> Identity | None:
    """Return the identity behind an access key, None for an unknown key."""
    if key in ("", OWNER):
        return administrator(account, region)
    found = backend(account, region).access_keys.get(key)
    if found is None or found.status != "Active":
        return None
    if found.user_name is not None:
        return of_user(account, region, found.user_name)
    session = session_of(account, region, key)
    if session is None:
        return None
    who = of_role(session.role_arn, region, session.session_name)
    given = getattr(session, "sandbox", {})
    return replace(who, **{**given, "tags": {**who.tags, **given.get("tags", {})}})


def secret_of(caller: Caller) -> tuple[str, str, float | None] | None:
    """Return the secret, session token ("" for a user's) and end of a key, None for an unknown
    one."""
    found = backend(caller.account, caller.region).access_keys.get(caller.access_key)
    if found is None or found.status != "Active":
        return None
    if found.user_name is not None:
        return found.secret_access_key, "", None
    session = session_of(caller.account, caller.region, caller.access_key)
    return session and (session.secret_access_key, session.session_token, ends(session))


def ends(session: Any) -> float:
    moment: datetime = session.expiration
    return moment.replace(tzinfo=UTC).timestamp()


def session_of(account: str, region: str, key: str) -> Any:
    """Return moto's session of a temporary key, or None."""
    from moto.sts.models import sts_backends

    # Clients mostly use one of the newest.
    sessions = reversed(sts_backends[account][partition(region)].assumed_roles)
    return next((each for each in sessions if each.access_key_id == key), None)


def role(arn: str, region: str) -> Any:
    """Return moto's role of an ARN, or None."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[2] != "iam" or not parts[5].startswith("role/"):
        return None
    found = backend(parts[4], region).roles
    return next((entry for entry in list(found.values()) if entry.arn == arn), None)


def of_role(arn: str, region: str, session: str = "") -> Identity:
    """Return the identity of a role; a deleted role may do nothing."""
    parts = arn.split(":", 5)
    account, name = parts[4], arn.rpartition("/")[2]
    shown = f"arn:{parts[1]}:sts::{account}:assumed-role/{name}/{session}" if session else arn
    found = role(arn, region)
    if found is None:
        return Identity("role", shown, arn, account)
    return Identity(
        "role",
        shown,
        arn,
        account,
        policies=_policies(found),
        boundary=_boundary(found.permissions_boundary_arn, account, region),
        tags=tags_of(found.tags),
    )


def of_user(account: str, region: str, name: str) -> Identity | None:
    """Return the identity of an IAM user, None when there is none of this name."""
    owner = backend(account, region)
    found = owner.users.get(name)
    if found is None:
        return None
    return Identity(
        "user",
        found.arn,
        found.arn,
        account,
        policies=_policies(found),
        boundary=_boundary(getattr(found, "permissions_boundary_arn", None), account, region),
        tags=tags_of(owner.tagger.list_tags_for_resource(found.arn).get("Tags")),
    )


def _policies(holder: Any) -> tuple[str, ...]:
    inline = [_document(text) for text in list(holder.policies.values())]
    managed = [
        # Documents of AWS's managed policies are not available here; they allow everything.
        UNLIMITED if AWS_MANAGED in policy.arn and not document(policy) else document(policy)
        for policy in list(holder.managed_policies.values())
    ]
    return (*inline, *managed)


def _document(text: Any) -> str:
    return text if isinstance(text, str) else json.dumps(text)


def document(policy: Any) -> str:
    """Return the document of the default version of moto's managed policy."""
    version = next((v for v in policy.versions if v.is_default), None)
    return _document(version.document) if version and version.document else ""


def _boundary(arn: str | None, account: str, region: str) -> str | None:
    if not arn:
        return None
    found = backend(account, region).managed_policies.get(arn)
    if found is None:
        return UNLIMITED if AWS_MANAGED in arn else NOTHING
    return document(found) or NOTHING


def tags_of(given: Any) -> dict[str, str]:
    """Return tags in whatever form moto keeps them."""
    rows = given.values() if isinstance(given, Mapping) else given or ()
    return {row["Key"]: row["Value"] for row in rows}
