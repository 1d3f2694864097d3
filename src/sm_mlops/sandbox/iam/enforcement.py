"""The check of every request before a service answers it.

The key of the account itself is its administrator: only what a resource's policy denies is
denied to it. All others may do what policies allow, and no operation that operations.py does not
list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.decisions import ALLOWED, Verdict, base_facts, decide
from sm_mlops.sandbox.iam import actions, objects, requests
from sm_mlops.sandbox.iam.actions import Check, Place
from sm_mlops.sandbox.iam.resources import Resources, object_tags
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Facts, Value
from sm_mlops.sandbox.signatures import UNSIGNED, Unverified
from sm_mlops.sandbox.storage import Store
from sm_mlops.sandbox.wire import ApiError, Caller, partition

# Services whose denials have another code or status.
CODES = {
    **dict.fromkeys(
        ("s3", "iam", "sts", "cloudformation", "monitoring", "sqs"), ("AccessDenied", 403)
    ),
    "sns": ("AuthorizationError", 403),
    "lambda": ("AccessDeniedException", 403),
}
# Services whose resources have policies that apply to the administrator, too.
WITH_POLICIES = ("s3", "secretsmanager", "sqs", "sns", "kms", "lambda", "sagemaker")
KEY_SERVICE = "kms"


class Guard:
    """The checks of one server."""

    def __init__(self, store: Store) -> None:
        self.resources = Resources(store)

    # Requests.

    def check(self, service: str, environ: dict[str, Any], caller: Caller) -> None:
        """Raise ApiError for a request that its sender may not make."""
        if caller.access_key == UNSIGNED:
            return  # Its token decides; see sign_in.
        if caller.access_key == identities.OWNER and service not in WITH_POLICIES:
            return
        who = identities.of_key(caller.account, caller.region, caller.access_key)
        if who is None:
            raise Unverified("key", service)
        place = self._place(caller)
        needed: list[Check] | None = None
        operation = ""
        if service == "s3":
            # This header leads to the service that it names, whatever was signed for.
            if not environ.get("HTTP_X_AMZ_TARGET"):
                needed = objects.checks(environ, place.partition)
        else:
            operation, params = requests.read(service, environ)
            needed = actions.checks(service, operation, params, place)
        if needed is None:
            if who.restricted:
                raise _unknown_operation(who, service, operation)
            return
        facts = base_facts(who, caller.region)
        for check in needed:
            verdict = self.verdict(who, check, facts)
            if not verdict.allowed:
                raise denial(who, service, check, verdict)

    def _place(self, caller: Caller) -> Place:
        def look(kind: str, name: str) -> str | None:
            return self.resources.look(kind, name, caller.account, caller.region)

        return Place(partition(caller.region), caller.region, caller.account, look)

    # Decisions.

    def verdict(self, who: Identity, check: Check, facts: Facts) -> Verdict:
        service = check.resource.split(":", 3)[2] if check.resource.startswith("arn:") else ""
        policy = self.resources.policy(check.resource) if service else None
        owner = self.resources.account(check.resource, who.account)
        # Of another account's, only the registry's resources need a policy that allows it.
        abroad = service == "sagemaker" and owner != who.account
        if not who.restricted and policy is None and not abroad:
            return ALLOWED
        return decide(
            who,
            check.action,
            check.resource,
            self.facts(check, facts, owner),
            policy,
            owner=owner,
            policy_decides=service == KEY_SERVICE and policy is not None,
        )

    def facts(self, check: Check, facts: Facts, owner: str) -> Facts:
        """Return the context keys of a check: those of the request, and those of the resource."""
        arn = check.resource
        keys = ("aws:resourcetag/", "iam:resourcetag/", "secretsmanager:resourcetag/")
        tags = dict.fromkeys(keys, lambda: self.resources.tags(arn))
        more: dict[str, Value | Callable[[], Value]] = {
            "aws:ResourceAccount": None if arn == "*" else owner,
            "kms:CallerAccount": owner,
        }
        if ":iam:" in arn and arn.rpartition(":")[2].startswith(("role/", "user/")):
            more["iam:PermissionsBoundary"] = lambda: _boundary(arn)
        if arn.startswith("arn:") and arn.split(":")[2] == "s3" and "/" in arn:
            bucket, _, key = arn.split(":", 5)[5].partition("/")
            tags["s3:existingobjecttag/"] = lambda: object_tags(bucket, key)
            more["s3:ResourceAccount"] = owner
        return facts.with_({**more, **check.facts}, tags)


def _boundary(arn: str) -> str | None:
    parts = arn.split(":", 5)
    owner = identities.backend(parts[4], identities.region_of(parts[1]))
    rows: Iterable[Any] = (
        owner.roles.values() if parts[5].startswith("role/") else owner.users.values()
    )
    found = next((row for row in list(rows) if row.arn == arn), None)
    boundary: str | None = getattr(found, "permissions_boundary_arn", None)
    return boundary or None


# Errors.


def denial(who: Identity, service: str, check: Check, verdict: Verdict) -> ApiError:
    """Return a service's error for a denial."""
    code, status = CODES.get(service, ("AccessDeniedException", 400))
    resource = check.shown or check.resource
    if service == "s3":
        resource = f'"{resource}"'
    words = (
        f"User: {who.arn} is not authorized to perform: {check.action} on resource: {resource}"
        f"{verdict.words(check.action)}"
    )
    return ApiError(code, words, status)


def _unknown_operation(who: Identity, service: str, operation: str) -> ApiError:
    code, status = CODES.get(service, ("AccessDeniedException", 400))
    return ApiError(
        code,
        f"User: {who.arn} is not authorized to perform: {service}:{operation or 'unknown'}: the "
        "sandbox does not know what this operation needs, so that only its own key may call it",
        status,
    )
