"""What others do to a GitHub: teams, Apps and their installations, limits, revoked tokens."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa

from sm_mlops.sandbox.github.accounts import ACCOUNT, APP, INSTALLATION, TOKEN, Accounts, full_names


def add_team(accounts: Accounts, organization: str, slug: str, members: list[str]) -> Any:
    """Add a team."""
    record = accounts.account(organization)
    team = {"id": accounts.next_id(), "slug": slug, "name": slug, "_members": members}
    record["_teams"][slug] = team
    accounts.store.put(ACCOUNT, organization.lower(), record)
    return team


def add_app(accounts: Accounts, owner: str, slug: str, **permissions: str) -> dict[str, Any]:
    """Register a GitHub App. Returns {"id", "client_id", "private_key"}."""
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(
        form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
    )
    made = {"id": accounts.next_id(), "client_id": f"Iv23li{secrets.token_hex(7)}"}
    record = {
        **made,
        "slug": slug,
        "name": slug,
        "_owner": owner,
        "permissions": {"metadata": "read", **permissions},
        "_key": public.decode(),
    }
    accounts.store.put(APP, str(made["id"]), record)
    private = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption()
    )
    return {**made, "private_key": private.decode()}


def install(
    accounts: Accounts, app: int, account: str, repositories: list[str] | None = None
) -> int:
    """Install an App in an account; return the installation's id."""
    identity = accounts.next_id()
    record = {
        "id": identity,
        "app_id": app,
        "_account": account,
        "_repositories": full_names(account, repositories),
    }
    accounts.store.put(INSTALLATION, str(identity), record)
    return identity


def limit(accounts: Accounts, login: str, remaining: int, seconds: float = 3600) -> None:
    """Limit an account to this many requests until the limit is lifted."""
    accounts._limits[login.lower()] = [remaining, time.time() + seconds, 5000]


def revoke(accounts: Accounts, token: str) -> None:
    """Make a token invalid."""
    accounts.store.delete(TOKEN, hashlib.sha256(token.encode()).hexdigest())
