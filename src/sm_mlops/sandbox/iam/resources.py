"""What IAM needs to know about resources: tags, resource policies, and the ARN behind a name.

Reads moto's backends (written against moto 5.2) and the sandbox's own records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sm_mlops.sandbox import identities
from sm_mlops.sandbox.cloudformation.ledger import STACK
from sm_mlops.sandbox.registry import GROUP
from sm_mlops.sandbox.storage import Store
from sm_mlops.sandbox.tags import KINDS

Tags = Mapping[str, str]


class Resources:
    """Look-ups by ARN, empty for what does not exist."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._tags: dict[str, Callable[[list[str]], Tags]] = {
            "cloudformation": self._stack_tags,
            "cloudwatch": _tagged_in("cloudwatch"),
            "events": _tagged_in("events"),
            "iam": _iam_tags,
            "lambda": _function_tags,
            "s3": _bucket_tags,
            "sagemaker": self._sagemaker_tags,
            "secretsmanager": _secret_tags,
            "sns": _topic_tags,
            "sqs": _queue_tags,
        }

    def tags(self, arn: str) -> Tags:
        parts = arn.split(":", 5)
        look = self._tags.get(parts[2]) if len(parts) == 6 else None
        return look(parts) if look else {}

    def _sagemaker_tags(self, parts: list[str]) -> Tags:
        kind = KINDS.get(parts[5].partition("/")[0])
        record = self.store.get(kind, ":".join(parts)) if kind else None
        return identities.tags_of((record or {}).get("_tags"))

    def _stack_tags(self, parts: list[str]) -> Tags:
        return identities.tags_of((self.store.get(STACK, ":".join(parts)) or {}).get("Tags"))

    def look(self, kind: str, name: str, account: str, region: str) -> str | None:
        """Return the ARN of a resource by name, or None."""
        if kind in ("role", "user"):
            owner = identities.backend(account, region)
            rows = owner.roles.values() if kind == "role" else owner.users.values()
            return next((str(row.arn) for row in list(rows) if row.name == name), None)
        if kind == "stack":
            for stack in list(self.store.all(STACK).values()):
                place = (stack["StackName"], stack["_account"], stack["_region"])
                gone = stack["StackStatus"] == "DELETE_COMPLETE"
                if place == (name, account, region) and not gone:
                    return str(stack["StackId"])
            return None
        if kind == "secret":
            secret = _secret(account, region, name)
            return str(secret.arn) if secret else None
        if kind == "key":
            return _key_arn(name, account, region)
        return None

    def policy(self, arn: str) -> str | None:
        """Return a resource's policy; for a version, that of its group."""
        parts = arn.split(":", 5)
        if len(parts) != 6:
            return None
        service, resource = parts[2], parts[5]
        if service == "s3":
            found = bucket(resource.partition("/")[0])
            policy = found.policy if found is not None else None
            return policy.decode() if isinstance(policy, bytes) else policy
        if service == "secretsmanager":
            secret = _secret(parts[4], parts[3], arn)
            return secret.policy if secret else None
        if service == "sqs":
            queue = _moto("sqs", parts[4], parts[3]).queues.get(resource)
            return _text(getattr(queue, "policy", None) or getattr(queue, "_policy_json", None))
        if service == "sns":
            topic = _moto("sns", parts[4], parts[3]).topics.get(arn)
            return topic.policy if topic else None
        if service == "kms":
            key = _moto("kms", parts[4], parts[3]).keys.get(resource.partition("/")[2])
            return key.policy if key else None
        if service == "lambda":
            function = _function(parts)
            return _text({"Statement": function.policy.statements}) if function else None
        if service == "sagemaker" and resource.startswith("model-package"):
            name = resource.split("/")[1] if "/" in resource else ""
            group = ":".join([*parts[:5], f"model-package-group/{name}"])
            return (self.store.get(GROUP, group) or {}).get("_policy")
        return None

    def account(self, arn: str, otherwise: str) -> str:
        parts = arn.split(":", 5)
        if len(parts) == 6 and parts[2] == "s3":
            found = bucket(parts[5].partition("/")[0])
            return str(found.account_id) if found is not None else otherwise
        return parts[4] if len(parts) == 6 and parts[4] else otherwise


def bucket(name: str) -> Any:
    """Return moto's bucket, or None."""
    from moto.s3.models import s3_backends

    place = s3_backends.bucket_accounts.get(name)
    if place is None:
        return None
    partition, account = place
    return s3_backends[account][partition].buckets.get(name)


def s3_object(bucket_name: str, key: str, version: str | None = None) -> Any:
    """Return moto's object, or None."""
    found = bucket(bucket_name)
    if found is None:
        return None
    if version is None:
        value = found.keys.get(key)
        return value if value is not None and hasattr(value, "contentsize") else None
    return next((v for v in found.keys.getlist(key, []) if str(v.version_id) == version), None)


def object_tags(bucket_name: str, key: str) -> Tags:
    value = s3_object(bucket_name, key)
    return {} if value is None else _s3_tags(bucket(bucket_name), value.arn)


def _s3_tags(owner: Any, arn: str) -> Tags:
    from moto.s3.models import s3_backends

    tagger = s3_backends[owner.account_id][owner.partition].tagger
    tags: Tags = tagger.get_tag_dict_for_resource(arn)
    return tags


def _moto(service: str, account: str, region: str) -> Any:
    from moto.backends import get_backend

    backends: Any = get_backend(service)  # type: ignore[call-overload]
    return backends[account][region]


def _tagged_in(service: str) -> Callable[[list[str]], Tags]:
    def look(parts: list[str]) -> Tags:
        tagger = _moto(service, parts[4], parts[3]).tagger
        tags: Tags = tagger.get_tag_dict_for_resource(":".join(parts))
        return tags

    return look


def _iam_tags(parts: list[str]) -> Tags:
    arn = ":".join(parts)
    owner = identities.backend(parts[4], identities.region_of(parts[1]))
    if parts[5].startswith("role/"):
        found = next((role for role in list(owner.roles.values()) if role.arn == arn), None)
        return identities.tags_of(found.tags) if found else {}
    if parts[5].startswith("user/"):
        return identities.tags_of(owner.tagger.list_tags_for_resource(arn).get("Tags"))
    policy = owner.managed_policies.get(arn)
    return identities.tags_of(policy.tags) if policy else {}


def _key_arn(name: str, account: str, region: str) -> str | None:
    backend = _moto("kms", account, region)
    if name in backend.keys:
        return str(backend.keys[name].arn)
    for key in list(backend.keys.values()):
        if name in key.aliases:
            return str(key.arn)
    return None


def _function(parts: list[str]) -> Any:
    name = parts[5].split(":")[1] if ":" in parts[5] else ""
    backend = _moto("lambda", parts[4], parts[3])
    return next((f for f in backend.list_functions() if f.function_name == name), None)


def _function_tags(parts: list[str]) -> Tags:
    found = _function(parts)
    return dict(found.tags) if found else {}


def _bucket_tags(parts: list[str]) -> Tags:
    found = bucket(parts[5])
    return {} if found is None else _s3_tags(found, found.arn)


def _secret(account: str, region: str, name: str) -> Any:
    secrets = _moto("secretsmanager", account, region).secrets
    return next(
        (s for s in list(secrets.values()) if name in (s.arn, s.name) or _part_of(name, s.arn)),
        None,
    )


def _part_of(name: str, arn: str) -> bool:
    # An ARN may be given without the six random letters at its end.
    return name.startswith("arn:") and arn.rpartition("-")[0] == name


def _secret_tags(parts: list[str]) -> Tags:
    found = _secret(parts[4], parts[3], ":".join(parts))
    return identities.tags_of(found.tags) if found else {}


def _topic_tags(parts: list[str]) -> Tags:
    topic = _moto("sns", parts[4], parts[3]).topics.get(":".join(parts))
    return dict(topic._tags) if topic else {}


def _queue_tags(parts: list[str]) -> Tags:
    queue = _moto("sqs", parts[4], parts[3]).queues.get(parts[5])
    return dict(queue.tags) if queue else {}


def _text(policy: Any) -> str | None:
    if not policy:
        return None
    return policy if isinstance(policy, str) else json.dumps(policy)
