"""Routes about a repository's secrets, which arrive sealed, and variables."""

from __future__ import annotations

import base64
import binascii
import re
import time
from typing import Any

from sm_mlops.sandbox.github.access import REPOSITORY, Access
from sm_mlops.sandbox.github.answers import (
    Answer,
    Json,
    Refused,
    malformed,
    moment,
    not_found,
    not_implemented,
    wanted,
)
from sm_mlops.sandbox.github.routing import REPO, Request, counted, public, route
from sm_mlops.sandbox.storage import Record

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LARGEST_VALUE = 48 * 1024
MOST_SECRETS, MOST_VARIABLES = 100, 500
SECRETS, VARIABLES = f"{REPO}/actions/secrets", f"{REPO}/actions/variables"
SEE_SECRETS = {"role": "write", "permission": ("secrets", "read")}
SET_SECRETS = {"role": "write", "permission": ("secrets", "write")}
SEE_VARIABLES = {"role": "write", "permission": ("actions_variables", "read")}
SET_VARIABLES = {"role": "write", "permission": ("actions_variables", "write")}


class Settings(Access):
    """Answers about secrets and variables."""

    def secret(self, repository: str, name: str) -> str:
        """Return the value of a secret, as a workflow would see it."""
        record = self.store.get(REPOSITORY, repository.lower())
        if record is None:
            raise not_found()
        return _open(record["_key"], record["_secrets"][name.upper()]["_sealed"])

    def _key(self, record: Record) -> Json:
        """Return the key pair of a repository."""
        if "_key" not in record:
            from nacl.public import PrivateKey

            private = PrivateKey.generate()
            record["_key"] = {
                "key_id": str(self.accounts.next_id() * 10**12),
                "key": base64.b64encode(bytes(private.public_key)).decode(),
                "_private": base64.b64encode(bytes(private)).decode(),
            }
            self.keep(record)
        return dict(record["_key"])

    @route("GET", f"{SECRETS}/public-key", **SEE_SECRETS)
    def public_key(self, request: Request, record: Record) -> Json:
        return public(self._key(record))

    @route("GET", SECRETS, **SEE_SECRETS)
    def secrets(self, request: Request, record: Record) -> Answer:
        return counted("secrets", _dated(record["_secrets"]), request)

    @route("PUT", f"{SECRETS}/{{name}}", **SET_SECRETS)
    def put_secret(self, request: Request, record: Record, name: str) -> Answer:
        """Set a secret, which must be sealed for this repository."""
        _check_name(name, "Secret")
        sealed, key_id = wanted(request.body, encrypted_value=str, key_id=str)
        key = self._key(record)
        if key_id != key["key_id"]:
            raise Refused(422, "Bad request - key_id is not valid")
        if len(_open(key, sealed).encode()) > LARGEST_VALUE:
            raise Refused(422, "Secret value must be at most 48 KB")
        rows = record["_secrets"]
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

    @route("DELETE", f"{SECRETS}/{{name}}", **SET_SECRETS)
    def delete_secret(self, request: Request, record: Record, name: str) -> Answer:
        return self._remove(record, record["_secrets"], name)

    def _remove(self, record: Record, rows: Json, name: str) -> Answer:
        if name.upper() not in rows:
            raise not_found()
        del rows[name.upper()]
        self.keep(record)
        return Answer(status=204)

    @route("GET", VARIABLES, **SEE_VARIABLES)
    def variables(self, request: Request, record: Record) -> Answer:
        return counted("variables", _dated(record["_variables"]), request)

    @route("POST", VARIABLES, **SET_VARIABLES)
    def add_variable(self, request: Request, record: Record) -> Answer:
        name, value = wanted(request.body, name=str, value=str)
        _check_name(name, "Variable")
        _check_value(value)
        rows = record["_variables"]
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

    @route("PATCH", f"{VARIABLES}/{{name}}", **SET_VARIABLES)
    def change_variable(self, request: Request, record: Record, name: str) -> Answer:
        rows = record["_variables"]
        if name.upper() not in rows:
            raise not_found()
        if str(request.body.get("name", name)).upper() != name.upper():
            raise not_implemented("new name of a variable")
        found = rows[name.upper()]
        value = request.body.get("value", found["value"])
        _check_value(value)
        found |= {"value": value, "updated_at": time.time()}
        self.keep(record)
        return Answer(status=204)

    @route("DELETE", f"{VARIABLES}/{{name}}", **SET_VARIABLES)
    def delete_variable(self, request: Request, record: Record, name: str) -> Answer:
        return self._remove(record, record["_variables"], name)


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
        public(row) | {when: moment(row[when]) for when in ("created_at", "updated_at")}
        for _, row in sorted(rows.items())
    ]
