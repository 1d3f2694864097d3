"""Permissions in a repository, over the REST API and over git."""

from __future__ import annotations

import time

from sm_mlops.sandbox.github.accounts import Accounts, Actor
from sm_mlops.sandbox.github.answers import Json, Refused, not_found
from sm_mlops.sandbox.github.git import Bare
from sm_mlops.sandbox.github.routing import Needs, Request
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import public

REPOSITORY = "GitHubRepository"
ROLES = ("read", "triage", "write", "maintain", "admin")
NO_TOKEN = "Requires authentication"
NO_APP = "A JSON web token could not be used here: use an installation access token"


class Access:
    """The repositories and accounts that every route works on, and the checks all routes share."""

    def __init__(self, store: Store, accounts: Accounts, bare: Bare) -> None:
        self.store, self.accounts, self.bare = store, accounts, bare

    def keep(self, record: Record) -> None:
        self.store.put(REPOSITORY, record["full_name"].lower(), record)

    def allowed(
        self, actor: Actor, parts: dict[str, str], needs: Needs, headers: dict[str, str]
    ) -> Record:
        """Return the repository of a route if the actor may use the route. Raises Refused."""
        record = self.visible(actor, f"{parts['owner']}/{parts['repo']}")
        if needs.permission and actor.kind in ("fine-grained", "installation"):
            name, level = needs.permission
            headers["X-Accepted-GitHub-Permissions"] = f"{name}={level}"
            if not actor.has_permission(name, level):
                raise Refused(403, f"Resource not accessible by {actor.noun}")
        if actor.kind == "classic":
            headers["X-Accepted-OAuth-Scopes"] = needs.scope
            open_to_all = not record["private"] and needs.role == "read"
            if not open_to_all and not actor.has_scope(needs.scope):
                raise not_found()
        if actor.kind == "nobody" and needs.role != "read":
            raise Refused(401, NO_TOKEN)
        if actor.kind != "installation" and needs.role != "read":
            role = self.role(actor, record)
            if ROLES.index(role or "read") < ROLES.index(needs.role):
                raise Refused(403, "Must have admin rights to Repository.")
        return record

    def visible(self, actor: Actor, name: str) -> Record:
        """Return a repository. Raises Refused: what a token cannot see does not exist."""
        record = self.store.find(REPOSITORY, name.lower(), not_found())
        if actor.kind == "app":
            raise Refused(401, NO_APP)
        if not record["private"]:
            return record
        if actor.kind in ("fine-grained", "installation"):
            if record["_owner"].lower() != actor.owner.lower():
                raise not_found()
            if actor.repositories is not None and name.lower() not in actor.repositories:
                raise not_found()
            if actor.kind == "installation":
                return record
        if actor.kind == "classic" and not actor.has_scope("repo"):
            raise not_found()
        if self.role(actor, record) is None:
            raise not_found()
        return record

    def role(self, actor: Actor, record: Record) -> str | None:
        """Return the role of a user in a repository, None for no access to a private one."""
        login = actor.login.lower()
        owner = self.accounts.account(record["_owner"])
        if login == record["_owner"].lower() or owner["_members"].get(login) == "admin":
            return "admin"
        role = record["_collaborators"].get(login)
        if role:
            return str(role)
        if login in owner["_members"] or not record["private"]:
            return "read"
        return None

    def git_access(self, actor: Actor, name: str, pushes: bool) -> tuple[Record, dict[str, str]]:
        """Return the repository that git may use, and variables for the hook. Raises Refused."""
        if actor.kind == "nobody" and pushes:
            raise Refused(401, "Authentication required")
        try:
            record = self.visible(actor, name)
        except Refused as refused:
            if actor.kind == "nobody":
                raise Refused(401, "Authentication required") from refused
            raise Refused(404, "Repository not found.") from refused
        fine = actor.kind in ("fine-grained", "installation")
        level = "write" if pushes else "read"
        if fine and not actor.has_permission("contents", level):
            raise Refused(403, "Write access to repository not granted.")
        scopes = ("repo",) if record["private"] else ("repo", "public_repo")
        if actor.kind == "classic" and pushes and not actor.has_scope(*scopes):
            raise Refused(403, "Write access to repository not granted.")
        if pushes and actor.kind != "installation":
            role = self.role(actor, record) or "read"
            if ROLES.index(role) < ROLES.index("write"):
                raise Refused(403, f"Permission to {name}.git denied to {actor.login}.")
        may = actor.has_permission("workflows", "write") if fine else actor.has_scope("workflow")
        noun = {
            "installation": "a GitHub App",
            "fine-grained": "a Personal Access Token",
            "classic": "a Personal Access Token",
        }.get(actor.kind, "")
        right = "`workflows` permission" if fine else "`workflow` scope"
        variables = {"STANDIN_NOUN": noun, "STANDIN_RIGHT": right}
        return record, {**variables, "STANDIN_WORKFLOWS": "yes" if may else "no"}

    def pushed(self, record: Record) -> None:
        """Note a push; the first branch of an empty repository becomes the default one."""
        branches = self.bare.branches(record["full_name"])
        if branches and record["default_branch"] not in branches:
            record["default_branch"] = next(iter(branches))
            self.bare.head(record["full_name"], record["default_branch"])
        record["pushed_at"] = time.time()
        self.keep(record)

    def shown_account(self, request: Request, record: Record) -> Json:
        """Return what GitHub shows of a user or an organization."""
        login = record["login"]
        place = "orgs" if record["type"] == "Organization" else "users"
        return {
            **public(record),
            "url": f"{request.api}/{place}/{login}",
            "html_url": f"{request.base}/{login}",
        }


def identified(actor: Actor, needs: Needs) -> None:
    """Raise Refused for a caller who may not use a route outside of repositories."""
    if needs.app and actor.kind != "app":
        raise Refused(401, "A JSON web token could not be decoded")
    if not needs.app and actor.kind == "app":
        raise Refused(401, NO_APP)
    if needs.permission:
        if actor.kind == "nobody":
            raise Refused(401, NO_TOKEN)
        if actor.kind in ("fine-grained", "installation") and not actor.has_permission(
            *needs.permission
        ):
            raise Refused(403, f"Resource not accessible by {actor.noun}")
