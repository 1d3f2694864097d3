"""Services that speak AWS's JSON protocol and do not use moto.

An operation without a method is refused by name. Knows no service.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
from typing import Any

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params

TOKEN = "RequestToken"
LETTERS = string.ascii_lowercase + string.digits


class JsonService:
    """Operations are methods: CreateConnection is create_connection(params, caller)."""

    service = ""
    codes = ("ValidationException", "ResourceNotFoundException")
    """The service's codes for an invalid request and for a missing resource."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def answer(self, operation: str, body: bytes, caller: Caller) -> Params:
        """Answer an operation. Raises ApiError."""
        method = getattr(self, wire.snake_case(operation), None)
        if operation not in wire.service_operations(self.service) or method is None:
            raise wire.not_implemented(f"{self.service}:{operation}", "UnknownOperationException")
        params = json.loads(body or b"{}")
        try:
            wire.check(operation, params, self.service)
        except ApiError as error:
            raise self.invalid(error.message) from error
        token = params.get("IdempotencyToken")
        key = f"{self.service}:{caller.account}:{caller.region}:{operation}:{token}"
        if token is not None:
            known = self.store.get(TOKEN, key)
            digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
            if known is not None:
                if known["Request"] != digest:
                    raise self.invalid("the idempotency token was used for another request")
                return dict(known["Answer"])
        answer: Params = method(params, caller)
        if token is not None:
            self.store.put(TOKEN, key, {"Request": digest, "Answer": answer})
        return answer

    def invalid(self, message: str) -> ApiError:
        return ApiError(self.codes[0], message)

    def missing(self, message: str) -> ApiError:
        return ApiError(self.codes[1], message)

    def one(self, kind: str, key: str, what: str, caller: Caller) -> Record:
        """Return a record of the caller's account and region. Raises ApiError."""
        found = self.store.get(kind, key)
        if found is None or found["_place"] != [caller.account, caller.region]:
            raise self.missing(f"{what} not found.")
        return found

    def mine(self, kind: str, caller: Caller) -> list[Record]:
        """Return the records of the caller's account and region, oldest first."""
        return [
            row
            for row in list(self.store.all(kind).values())
            if row["_place"] == [caller.account, caller.region]
        ]


def new_id(prefix: str, length: int = 13) -> str:
    """Return a new id such as prod-abcdefghijklm."""
    return f"{prefix}-{''.join(secrets.choice(LETTERS) for _ in range(length))}"


def place(caller: Caller) -> dict[str, Any]:
    """Return the member of a record that holds its account and region."""
    return {"_place": [caller.account, caller.region]}
