"""Accounts, tokens, Apps and their installations, with their permissions.

Tokens are kept as hashes and App keys as public keys: nothing secret of a user is in the state.
Source: https://docs.github.com/en/rest/authentication and
https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.github.answers import Json, Refused, not_found, not_implemented
from sm_mlops.sandbox.storage import Record, Store

ACCOUNT, TOKEN, APP, INSTALLATION = (
    "GitHubAccount",
    "GitHubToken",
    "GitHubApp",
    "GitHubInstallation",
)
TOKEN_SECONDS = 3600
LONGEST_JWT = 600
# Scopes that include others.
INCLUDED = {
    "repo": ("public_repo", "repo:status", "repo_deployment", "repo:invite"),
    "admin:org": ("write:org", "read:org"),
    "write:org": ("read:org",),
    "user": ("read:user", "user:email"),
}
LEVELS = ("read", "write", "admin")


@dataclass(frozen=True)
class Actor:
    """Who sends a request. `kind`: nobody, classic, fine-grained, installation or app."""

    kind: str
    login: str = ""
    scopes: frozenset[str] = frozenset()
    permissions: Json = field(default_factory=dict)
    owner: str = ""
    repositories: frozenset[str] | None = None
    """The only repositories (full names, lower case) it may use; None for all of the owner."""
    app: int = 0

    @property
    def noun(self) -> str:
        return "integration" if self.kind == "installation" else "personal access token"

    def headers(self) -> dict[str, str]:
        """Return the headers with the scopes of a classic token."""
        if self.kind != "classic":
            return {}
        return {"X-OAuth-Scopes": ", ".join(sorted(self.scopes))}

    def has_scope(self, *scopes: str) -> bool:
        held = {*self.scopes, *(low for top in self.scopes for low in INCLUDED.get(top, ()))}
        return bool(held & set(scopes))

    def has_permission(self, name: str, level: str) -> bool:
        """Tell whether a fine-grained token or an App has a permission at this level."""
        held = self.permissions.get(name)
        return held in LEVELS and LEVELS.index(held) >= LEVELS.index(level)


class Accounts:
    """Users, organizations and their credentials; safe for threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._limits: dict[str, list[float]] = {}

    # Setup by tests or the sandbox's user.

    def add(self, login: str, kind: str = "User", plan: str = "enterprise", **roles: str) -> Json:
        """Add a user or an Organization; `roles` are members: login="admin" or "member".

        `plan`: free, pro, team or enterprise.
        """
        known = self.store.get(ACCOUNT, login.lower())
        if known is not None:
            return known
        record = {
            "login": login,
            "id": self.next_id(),
            "type": kind,
            "_plan": plan,
            "_members": {name.lower(): role for name, role in roles.items()},
            "_teams": {},
        }
        self.store.put(ACCOUNT, login.lower(), record)
        return record

    def token(self, login: str, *scopes: str) -> str:
        """Return a new classic personal access token with these scopes."""
        return self._new(
            "ghp_", {"kind": "classic", "login": self.account(login)["login"], "scopes": scopes}
        )

    def fine_grained(
        self, login: str, owner: str, repositories: list[str] | None = None, **permissions: str
    ) -> str:
        """Return a new fine-grained token for an owner's repositories (names; None: all)."""
        return self._new(
            "github_pat_",
            {
                "kind": "fine-grained",
                "login": self.account(login)["login"],
                "owner": owner,
                "repositories": full_names(owner, repositories),
                "permissions": {"metadata": "read", **permissions},
            },
        )

    # Looking up.

    def account(self, login: str) -> Json:
        """Return an account. Raises Refused."""
        return self.store.find(ACCOUNT, login.lower(), not_found())

    def by_id(self, identity: Any, kind: str) -> Json | None:
        """Return a user or a team ("User", "Team") by its id, None if there is none."""
        for record in self.store.all(ACCOUNT).values():
            if kind == "Team":
                for team in record["_teams"].values():
                    if team["id"] == identity:
                        return dict(team)
            elif record["type"] == "User" and record["id"] == identity:
                return record
        return None

    def next_id(self) -> int:
        """Return a number that no other object has."""
        with self.store.lock:
            record = self.store.get("GitHubCount", "") or {"last": 1000}
            record["last"] += 1
            self.store.put("GitHubCount", "", record)
            return int(record["last"])

    def actor(self, authorization: str) -> Actor:
        """Return who an Authorization header says it is. Raises Refused."""
        if not authorization:
            return Actor("nobody")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token).decode().partition(":")[2]
            except ValueError as error:
                raise _bad() from error
        elif scheme.lower() not in ("bearer", "token"):
            raise _bad()
        if token.count(".") == 2:
            return self._app(token)
        record = self.store.get(TOKEN, _hash(token))
        if record is None or record.get("expires", time.time() + 1) < time.time():
            raise _bad()
        repositories = record.get("repositories")
        return Actor(
            record["kind"],
            record.get("login", ""),
            frozenset(record.get("scopes", ())),
            record.get("permissions", {}),
            record.get("owner", ""),
            None if repositories is None else frozenset(repositories),
            record.get("app", 0),
        )

    def _app(self, token: str) -> Actor:
        """Check an App's JSON web token: RS256, at most ten minutes, not from the future."""
        import jwt

        try:
            claimed = str(jwt.decode(token, options={"verify_signature": False}).get("iss"))
            record = next(
                app
                for app in self.store.all(APP).values()
                if claimed in (str(app["id"]), app["client_id"])
            )
        except (jwt.InvalidTokenError, StopIteration) as error:
            raise Refused(401, "A JSON web token could not be decoded") from error
        try:
            found = jwt.decode(
                token, record["_key"], ["RS256"], options={"require": ["exp", "iat"]}, leeway=0
            )
        except jwt.ExpiredSignatureError as error:
            raise Refused(
                401, "'Expiration time' claim ('exp') must be a numeric value representing the "
                "future time at which the assertion expires"
            ) from error  # fmt: skip
        except jwt.ImmatureSignatureError as error:
            raise Refused(
                401, "'Issued at' claim ('iat') must be an Integer representing the time that the "
                "assertion was issued"
            ) from error  # fmt: skip
        except jwt.InvalidTokenError as error:
            raise Refused(401, "A JSON web token could not be decoded") from error
        # GitHub compares with its own clock and allows for a minute of difference.
        if found["exp"] > time.time() + LONGEST_JWT + 60:
            raise Refused(401, "'Expiration time' claim ('exp') is too far in the future")
        return Actor("app", app=int(record["id"]))

    def installation_token(self, actor: Actor, identity: int, body: Json) -> Json:
        """Return a new token with all the permissions of an installation or some of them."""
        record = self.store.get(INSTALLATION, str(identity))
        if record is None or record["app_id"] != actor.app:
            raise not_found()
        for name in sorted(set(body) - {"permissions", "repositories"}):
            raise not_implemented(f"{name} of an installation's new token")
        app = self.store.get(APP, str(actor.app))
        assert app is not None
        permissions = app["permissions"]
        for name, level in (body.get("permissions") or {}).items():
            if not Actor("app", permissions=permissions).has_permission(name, level):
                raise Refused(
                    422,
                    "The permissions requested are not granted to this installation.",
                )
        granted = body.get("permissions") or permissions
        within = record["_repositories"]
        wanted = full_names(record["_account"], body.get("repositories")) or within
        if wanted is not within and within is not None and not set(wanted) <= set(within):
            raise Refused(
                422,
                "There is at least one repository that does not exist or is not accessible to the "
                "parent installation.",
            )
        expires = time.time() + TOKEN_SECONDS
        token = self._new(
            "ghs_",
            {
                "kind": "installation",
                "login": f"{app['slug']}[bot]",
                "owner": record["_account"],
                "repositories": wanted,
                "permissions": {"metadata": "read", **granted},
                "expires": expires,
                "app": actor.app,
            },
        )
        selection = "all" if wanted is None else "selected"
        return {
            "token": token,
            "expires_at": clock.text(expires),
            "permissions": granted,
            "repository_selection": selection,
        }

    def _new(self, prefix: str, record: Record) -> str:
        token = prefix + secrets.token_hex(18)
        self.store.put(TOKEN, _hash(token), {**record, "scopes": list(record.get("scopes", ()))})
        return token

    # Limits.

    def count(self, actor: Actor) -> dict[str, str]:
        """Count a request; return the headers about limits. Raises Refused when none is left."""
        name = actor.login.lower() or f"app {actor.app}"
        allowed = 60 if actor.kind == "nobody" else 5000
        with self._lock:
            state = self._limits.get(name)
            if state is None or state[1] < time.time():
                state = self._limits[name] = [allowed, time.time() + 3600, allowed]
            exhausted = state[0] <= 0
            state[0] = max(state[0] - 1, 0)
            headers = {
                "X-RateLimit-Limit": str(int(state[2])),
                "X-RateLimit-Remaining": str(int(state[0])),
                "X-RateLimit-Reset": str(int(state[1])),
            }
        if exhausted:
            whose = f"user ID {name}" if actor.login else "127.0.0.1"
            raise Refused(403, f"API rate limit exceeded for {whose}.", headers=headers)
        return headers


def _bad() -> Refused:
    return Refused(401, "Bad credentials")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def full_names(owner: str, names: list[str] | None) -> list[str] | None:
    """Return names of an owner's repositories as they are kept, None for all of them."""
    if names is None:
        return None
    return [f"{owner}/{name.rpartition('/')[2]}".lower() for name in names]
