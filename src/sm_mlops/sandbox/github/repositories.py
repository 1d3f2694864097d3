"""Routes about repositories, and how their workflows' tokens name them."""

from __future__ import annotations

import re
import time
from urllib.parse import unquote

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.github.access import REPOSITORY, ROLES, Access
from sm_mlops.sandbox.github.answers import Answer, Json, Refused, not_found, wanted
from sm_mlops.sandbox.github.routing import REPO, Request, route
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import public

FORMER = "GitHubFormerName"
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Repositories(Access):
    """Answers about repositories, and what their owner does without a request."""

    @route("POST", "/user/repos", permission=("administration", "write"))
    def create_own(self, request: Request) -> Answer:
        if request.actor.kind == "installation":
            raise Refused(403, "Resource not accessible by integration")
        return self._create(request, request.actor.login)

    @route("POST", "/orgs/{login}/repos", permission=("administration", "write"))
    def create_in_organization(self, request: Request, login: str) -> Answer:
        owner = self.accounts.account(login)
        if owner["type"] != "Organization":
            raise not_found()
        member = request.actor.login.lower() in owner["_members"]
        if request.actor.kind != "installation" and not member:
            raise not_found()
        return self._create(request, owner["login"])

    def _create(self, request: Request, owner: str) -> Answer:
        actor, body = request.actor, request.body
        (name,) = wanted(body, name=str)
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise _not_created("name is invalid")
        private = bool(body.get("private", body.get("visibility") in ("private", "internal")))
        scopes = ("repo",) if private else ("repo", "public_repo")
        if actor.kind == "classic" and not actor.has_scope(*scopes):
            raise not_found()
        # A token for selected repositories does not include a new one.
        other = actor.owner.lower() != owner.lower() or actor.repositories is not None
        if actor.kind in ("fine-grained", "installation") and other:
            raise Refused(403, f"Resource not accessible by {actor.noun}")
        if self.store.get(REPOSITORY, f"{owner}/{name}".lower()):
            raise _not_created("name already exists on this account")
        record = self.add(owner, name, private, body.get("description") or "")
        if actor.login and actor.kind != "installation":
            record["_collaborators"][actor.login.lower()] = "admin"
            self.keep(record)
        return Answer(self._shown(request, record), 201)

    def add(self, owner: str, name: str, private: bool = True, description: str = "") -> Record:
        """Make a repository without a request."""
        now = time.time()
        record: Record = {
            "id": self.accounts.next_id(),
            "name": name,
            "full_name": f"{owner}/{name}",
            "private": private,
            "visibility": "private" if private else "public",
            "description": description,
            "default_branch": "main",
            "archived": False,
            "disabled": False,
            "created_at": now,
            "updated_at": now,
            "pushed_at": now,
            "_owner": owner,
            # How the tokens of its workflows name it: by "numbers", by "names" as in older
            # repositories, "untold" as on older servers.
            "_subject": "numbers",
            "_collaborators": {},
            "_secrets": {},
            "_variables": {},
            "_environments": {},
            "_workflows": {},
        }
        self.bare.create(record["full_name"], record["default_branch"])
        self.keep(record)
        return record

    def rename(self, repository: str, name: str) -> None:
        """Rename a repository as its owner does in its settings; requests for the former name are
        redirected. Raises Refused."""
        record = self.store.get(REPOSITORY, repository.lower())
        if record is None or not NAME.fullmatch(name):
            raise not_found()
        former, record["name"] = record["full_name"], name
        record["full_name"] = f"{record['_owner']}/{name}"
        if former.lower() != record["full_name"].lower():
            self.bare.rename(former, record["full_name"])
            self.store.delete(REPOSITORY, former.lower())
            self.store.put(FORMER, former.lower(), {"id": record["id"]})
        # GitHub names renamed repositories by their numbers from then on.
        record["_subject"] = "numbers"
        self.keep(record)

    def moved(self, request: Request) -> Answer | None:
        """Return where a repository of this former name is now, None if none had the name.

        Source: https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
        """
        found = re.match(r"/repos/([^/]+/[^/]+)", request.path)
        former = self.store.get(FORMER, found[1].lower()) if found else None
        if found is None or former is None or self.store.get(REPOSITORY, found[1].lower()):
            return None
        url = f"{request.api}/repositories/{former['id']}{request.path[found.end() :]}"
        status = 301 if request.method == "GET" else 307
        return Answer({"message": "Moved Permanently", "url": url}, status, {"Location": url})

    def named(self, number: int) -> str:
        """Return the full name of the repository with this id. Raises Refused."""
        for record in self.store.all(REPOSITORY).values():
            if record["id"] == number:
                return str(record["full_name"])
        raise not_found()

    @route("GET", f"{REPO}/actions/oidc/customization/sub", permission=("actions", "read"))
    def subject(self, request: Request | None, record: Record) -> Json:
        """Return how the tokens of a repository's workflows name it.

        Source: https://docs.github.com/en/actions/reference/openid-connect-reference
        """
        kind = record.get("_subject", "numbers")
        owner, number = self.accounts.account(record["_owner"]), f"@{record['id']}"
        prefix = f"repo:{record['_owner']}/{record['name']}"
        if kind == "numbers":
            prefix = f"repo:{record['_owner']}@{owner['id']}/{record['name']}{number}"
        shown: Json = {"use_default": kind != "custom"}
        if kind == "untold":
            return shown
        return shown | {"use_immutable_subject": kind == "numbers", "sub_claim_prefix": prefix}

    @route("GET", f"{REPO}/compare/{{span}}", permission=("contents", "read"))
    def compare(self, request: Request, record: Record, span: str) -> Json:
        """Return how two commits, branches or tags differ, without the commits in between.

        Source: https://docs.github.com/en/rest/commits/commits#compare-two-commits
        """
        name, (base, dots, head) = record["full_name"], unquote(span).partition("...")
        commits = [self.bare.commit(name, each) if each else None for each in (base, head)]
        if not dots or None in commits:
            raise not_found()
        found = self.bare.ahead(name, str(commits[0]), str(commits[1]))
        if found is None:
            raise Refused(404, f"No common ancestor between {base} and {head}.")
        ahead, behind = found
        status = {(True, True): "diverged", (True, False): "ahead", (False, True): "behind"}
        return {
            "url": f"{request.api}{request.path}",
            "status": status.get((ahead > 0, behind > 0), "identical"),
            "ahead_by": ahead,
            "behind_by": behind,
            "total_commits": ahead,
            "base_commit": {"sha": commits[0]},
        }

    @route("GET", REPO, permission=("metadata", "read"))
    def repository(self, request: Request, record: Record) -> Json:
        return self._shown(request, record)

    def _shown(self, request: Request, record: Record) -> Json:
        name = record["full_name"]
        role = self.role(request.actor, record) or "read"
        rank = ROLES.index(role) if request.actor.login else 0
        return {
            **public(record),
            **{k: clock.text(record[k]) for k in ("created_at", "updated_at", "pushed_at")},
            "owner": self.shown_account(request, self.accounts.account(record["_owner"])),
            "url": f"{request.api}/repos/{name}",
            "html_url": f"{request.base}/{name}",
            "clone_url": f"{request.base}/{name}.git",
            "permissions": {
                "admin": rank >= 4, "maintain": rank >= 3, "push": rank >= 2,
                "triage": rank >= 1, "pull": True,
            },
        }  # fmt: skip

    @route("GET", f"{REPO}/branches/{{branch*}}", permission=("contents", "read"))
    def branch(self, request: Request, record: Record, branch: str) -> Json:
        sha = self.bare.branches(record["full_name"]).get(branch)
        if sha is None:
            raise Refused(404, "Branch not found")
        commit = {"sha": sha, "url": f"{request.api}{request.path}"}
        return {"name": branch, "commit": commit, "protected": False}


def _not_created(message: str) -> Refused:
    error = {"resource": "Repository", "code": "custom", "field": "name", "message": message}
    return Refused(422, "Repository creation failed.", [error])
