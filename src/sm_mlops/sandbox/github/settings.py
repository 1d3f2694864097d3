"""Routes about secrets, which arrive sealed, and variables: a repository's and an environment's."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.github.access import REPOSITORY, Access
from sm_mlops.sandbox.github.answers import (
    Answer,
    Json,
    Refused,
    malformed,
    not_found,
    not_implemented,
    wanted,
)
from sm_mlops.sandbox.github.routing import ENVIRONMENT, REPO, Request, counted, route
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import public

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LARGEST_VALUE = 48 * 1024
MOST_SECRETS, MOST_VARIABLES = 100, 500


def both(method: str, path: str, level: str) -> Callable[[Any], Any]:
    """Make a method answer a path of the repository, and the same of each environment."""
    kind = path.partition("/")[0].replace("variables", "actions_variables")

    def mark(function: Any) -> Any:
        own = {"role": "write", "permission": (kind, level)}
        route(method, f"{REPO}/actions/{path}", **own)(function)
        own["permission"] = ("environments", level)
        return route(method, f"{ENVIRONMENT}/{path}", **own)(function)

    return mark


class Settings(Access):
    """Answers about secrets and variables."""

    def secret(self, repository: str, name: str, environment: str = "") -> str:
        """Return the value of a secret, as a workflow would see it."""
        record = self.store.find(REPOSITORY, repository.lower(), not_found())
        row = _rows(record, environment, "_secrets")[name.upper()]
        return _open(self._key(record, environment), row["_sealed"])

    def _key(self, record: Record, environment: str) -> Json:
        holder = _holder(record, environment)
        if "_key" not in holder:
            from nacl.public import PrivateKey

            private = PrivateKey.generate()
            holder["_key"] = {
                "key_id": str(self.accounts.next_id() * 10**12),
                "key": base64.b64encode(bytes(private.public_key)).decode(),
                "_private": base64.b64encode(bytes(private)).decode(),
            }
            self.keep(record)
        return dict(holder["_key"])

    @both("GET", "secrets/public-key", "read")
    def public_key(self, request: Request, record: Record, environment: str = "") -> Json:
        return public(self._key(record, environment))

    @both("GET", "secrets", "read")
    def secrets(self, request: Request, record: Record, environment: str = "") -> Answer:
        return counted("secrets", _dated(_rows(record, environment, "_secrets")), request)

    @both("PUT", "secrets/{name}", "write")
    def put_secret(
        self, request: Request, record: Record, name: str, environment: str = ""
    ) -> Answer:
        """Set a secret, which must be sealed for its repository or environment."""
        _check_name(name, "Secret")
        sealed, key_id = wanted(request.body, encrypted_value=str, key_id=str)
        key = self._key(record, environment)
        if key_id != key["key_id"]:
            raise Refused(422, "Bad request - key_id is not valid")
        if len(_open(key, sealed).encode()) > LARGEST_VALUE:
            raise Refused(422, "Secret value must be at most 48 KB")
        rows = _rows(record, environment, "_secrets")
        known = name.upper() in rows
        if not known and len(rows) >= MOST_SECRETS:
            raise Refused(422, f"A maximum of {MOST_SECRETS} secrets is allowed")
        now = time.time()
        rows[name.upper()] = {
            "name": name.upper(),
            "created_at": rows[name.upper()]["created_at"] if known else now,
            "updated_at": now,
            "_sealed": sealed,
        }
        self.keep(record)
        return Answer(status=204) if known else Answer({}, 201)

    @both("DELETE", "secrets/{name}", "write")
    @both("DELETE", "variables/{name}", "write")
    def delete(self, request: Request, record: Record, name: str, environment: str = "") -> Answer:
        rows = _rows(record, environment, f"_{request.path.split('/')[-2]}")
        if rows.pop(name.upper(), None) is None:
            raise not_found()
        self.keep(record)
        return Answer(status=204)

    @both("GET", "variables", "read")
    def variables(self, request: Request, record: Record, environment: str = "") -> Answer:
        return counted("variables", _dated(_rows(record, environment, "_variables")), request)

    @both("POST", "variables", "write")
    def add_variable(self, request: Request, record: Record, environment: str = "") -> Answer:
        name, value = wanted(request.body, name=str, value=str)
        _check_name(name, "Variable")
        _check_value(value)
        rows = _rows(record, environment, "_variables")
        if name.upper() in rows:
            raise Refused(409, "Already exists - Variable already exists")
        if len(rows) >= MOST_VARIABLES:
            raise Refused(422, f"A maximum of {MOST_VARIABLES} variables is allowed")
        now = time.time()
        rows[name.upper()] = {
            "name": name.upper(),
            "value": value,
            "created_at": now,
            "updated_at": now,
        }
        self.keep(record)
        return Answer({}, 201)

    @both("PATCH", "variables/{name}", "write")
    def change_variable(
        self, request: Request, record: Record, name: str, environment: str = ""
    ) -> Answer:
        found = _rows(record, environment, "_variables").get(name.upper())
        if found is None:
            raise not_found()
        if str(request.body.get("name", name)).upper() != name.upper():
            raise not_implemented("new name of a variable")
        value = request.body.get("value", found["value"])
        _check_value(value)
        found |= {"value": value, "updated_at": time.time()}
        self.keep(record)
        return Answer(status=204)


def _rows(record: Record, environment: str, kind: str) -> Json:
    """Return the secrets or variables of a repository or of its environment. Raises Refused."""
    rows: Json = _holder(record, environment).setdefault(kind, {})
    return rows


def _holder(record: Record, environment: str) -> Json:
    if environment and environment.lower() not in record["_environments"]:
        raise not_found()
    return record["_environments"][environment.lower()] if environment else record


def _check_name(name: str, noun: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused(
            422,
            f"{noun} names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or "
            "underscores (_). Spaces are not allowed. Must start with a letter ([a-z], [A-Z]) or "
            "underscores (_).",
        )
    if name.upper().startswith("GITHUB_"):
        raise Refused(422, f"{noun} names must not start with GITHUB_.")


def _check_value(value: Any) -> None:
    if not isinstance(value, str):
        raise malformed(f"For 'value', {value!r} is not a string.")
    if len(value.encode()) > LARGEST_VALUE:
        raise Refused(422, "Variable value must be at most 48 KB")


def _open(key: Json, sealed: str) -> str:
    """Return the text in a sealed box. Raises Refused for one that cannot be opened."""
    from nacl.exceptions import CryptoError
    from nacl.public import PrivateKey, SealedBox

    try:
        content = base64.b64decode(sealed, validate=True)
        box = SealedBox(PrivateKey(base64.b64decode(key["_private"])))
        return box.decrypt(content).decode()
    except (binascii.Error, CryptoError, ValueError) as error:
        raise Refused(
            422, "Bad request - secret was not encrypted with the repository's public key"
        ) from error


def _dated(rows: Json) -> list[Json]:
    return [
        public(row) | {when: clock.text(row[when]) for when in ("created_at", "updated_at")}
        for _, row in sorted(rows.items())
    ]
