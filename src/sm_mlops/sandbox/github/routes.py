"""GitHub's REST API: repositories, their content, environments, secrets, variables and workflows.

Every route says what it needs: the permission of fine-grained tokens and Apps, the scope of classic
tokens, and the role in the repository. What is not here is answered with 501, loudly.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sm_mlops.sandbox.github.accounts import APP, INSTALLATION, Accounts, Actor
from sm_mlops.sandbox.github.answers import (
    DOCUMENTATION,
    Answer,
    Json,
    Refused,
    invalid,
    malformed,
    moment,
    not_found,
    page,
    wanted,
)
from sm_mlops.sandbox.github.git import Bare
from sm_mlops.sandbox.storage import Record, Store

if TYPE_CHECKING:
    from sm_mlops.sandbox.github.service import GitHub, Request

REPOSITORY, RUN, FORMER = "GitHubRepository", "GitHubRun", "GitHubFormerName"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LARGEST_VALUE = 48 * 1024
MOST_SECRETS, MOST_VARIABLES = 100, 500
MOST_INPUTS = 25
ROLES = ("read", "triage", "write", "maintain", "admin")
REPOSITORY_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """What a route asks of who calls it."""

    permission: tuple[str, str] | None = None
    role: str = "read"
    scope: str = "repo"
    app: bool = False


ROUTES: list[tuple[str, re.Pattern[str], str, Needs]] = []


def route(method: str, path: str, **needs: Any) -> Callable[[Any], Any]:
    """Make a method of Routes answer a path; {name} stands for one part, {name*} for the rest."""
    pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", path)
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def mark(function: Any) -> Any:
        ROUTES.append((method, re.compile(pattern), function.__name__, Needs(**needs)))
        return function

    return mark


ADMIN = {"role": "admin", "permission": ("administration", "write")}
REPO = "/repos/{owner}/{repo}"
ENVIRONMENT = f"{REPO}/environments/{{environment}}"


class Routes:
    """The answers to all routes."""

    def __init__(self, store: Store, accounts: Accounts, bare: Bare, github: GitHub) -> None:
        self.store, self.accounts, self.bare, self.github = store, accounts, bare, github

    def answer(self, request: Request, headers: dict[str, str]) -> Answer:
        """Answer a request. Raises Refused."""
        other = False
        by_number = re.match(r"/repositories/(\d+)(?=/|$)", request.path)
        if by_number:
            name = self._named(int(by_number[1]))
            request = replace(request, path=f"/repos/{name}{request.path[by_number.end() :]}")
        elif moved := self._moved(request):
            return moved
        for method, pattern, name, needs in ROUTES:
            found = pattern.fullmatch(request.path)
            if not found:
                continue
            if method != request.method:
                other = True
                continue
            parts = found.groupdict()
            function = getattr(self, name)
            if "owner" in parts and "repo" in parts:
                parts["record"] = self._allowed(request.actor, parts, needs, headers)
            else:
                _identified(request.actor, needs)
            wanted_names = inspect.signature(function).parameters
            result = function(request, **{k: v for k, v in parts.items() if k in wanted_names})
            return result if isinstance(result, Answer) else Answer(result)
        if other:
            raise not_found()
        log.error("the sandbox's GitHub does not know %s %s", request.method, request.path)
        raise Refused(501, f"The sandbox's GitHub does not know {request.method} {request.path}")

    def _named(self, number: int) -> str:
        """Return the full name of the repository with this id. Raises Refused."""
        for record in self.store.all(REPOSITORY).values():
            if record["id"] == number:
                return str(record["full_name"])
        raise not_found()

    def _moved(self, request: Request) -> Answer | None:
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

    # Who may what.

    def _allowed(
        self, actor: Actor, parts: dict[str, str], needs: Needs, headers: dict[str, str]
    ) -> Record:
        if needs.app:
            _identified(actor, needs)
        record = self._visible(actor, f"{parts['owner']}/{parts['repo']}", needs)
        if needs.app:
            return record
        if needs.permission and actor.kind in ("fine-grained", "installation"):
            name, level = needs.permission
            headers["X-Accepted-GitHub-Permissions"] = f"{name}={level}"
            if not actor.has_permission(name, level):
                raise Refused(403, f"Resource not accessible by {actor.noun}")
        if actor.kind == "classic":
            headers["X-Accepted-OAuth-Scopes"] = needs.scope
            public = not record["private"] and needs.role == "read"
            if not public and not actor.has_scope(needs.scope):
                raise not_found()
        if actor.kind == "nobody" and needs.role != "read":
            raise Refused(401, "Requires authentication")
        if actor.kind != "installation" and needs.role != "read":
            role = self._role(actor, record)
            if ROLES.index(role or "read") < ROLES.index(needs.role):
                raise Refused(403, "Must have admin rights to Repository.")
        return record

    def _visible(self, actor: Actor, name: str, needs: Needs | None = None) -> Record:
        """Return a repository. Raises Refused: what a token cannot see is not there."""
        record = self.store.get(REPOSITORY, name.lower())
        if record is None:
            raise not_found()
        if actor.kind == "app":
            if needs and needs.app:
                return record
            raise Refused(
                401,
                "A JSON web token could not be used here: use an installation access token",
            )
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
        if self._role(actor, record) is None:
            raise not_found()
        return record

    def _role(self, actor: Actor, record: Record) -> str | None:
        """Return the role of a user in a repository, None for a stranger to a private one."""
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
            record = self._visible(actor, name)
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
            role = self._role(actor, record) or "read"
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
        self._keep(record)

    # Accounts.

    @route("GET", "/rate_limit")
    def rate_limit(self, request: Request) -> Json:
        return {"resources": {}, "rate": {"limit": 5000}}

    @route("GET", "/meta")
    def meta(self, request: Request) -> Json:
        return {"verifiable_password_authentication": False}

    @route("GET", "/user", scope="", permission=None)
    def own_account(self, request: Request) -> Json:
        if request.actor.kind == "nobody":
            raise Refused(401, "Requires authentication")
        if request.actor.kind in ("app", "installation"):
            raise Refused(403, "Resource not accessible by integration")
        return self._account(request, self.accounts.account(request.actor.login))

    @route("GET", "/users/{login}")
    def user(self, request: Request, login: str) -> Json:
        return self._account(request, self.accounts.account(login))

    @route("GET", "/orgs/{login}")
    def organization(self, request: Request, login: str) -> Json:
        found = self.accounts.account(login)
        if found["type"] != "Organization":
            raise not_found()
        return self._account(request, found)

    @route("GET", "/orgs/{login}/teams/{team}")
    def team(self, request: Request, login: str, team: str) -> Json:
        found = self.accounts.account(login)["_teams"].get(team)
        if found is None or request.actor.kind == "nobody":
            raise not_found()
        if request.actor.kind == "classic" and not request.actor.has_scope("read:org"):
            raise not_found()
        return _public(found) | {"url": f"{request.api}/orgs/{login}/teams/{team}"}

    def _account(self, request: Request, record: Record) -> Json:
        login = record["login"]
        place = "orgs" if record["type"] == "Organization" else "users"
        return {
            **_public(record),
            "url": f"{request.api}/{place}/{login}",
            "html_url": f"{request.base}/{login}",
        }

    # Apps.

    @route("GET", "/app", app=True)
    def app(self, request: Request) -> Json:
        return _public(self._app(request))

    @route("GET", "/app/installations", app=True)
    def installations(self, request: Request) -> Answer:
        rows = [
            self._installation(request, row)
            for row in self.store.all(INSTALLATION).values()
            if row["app_id"] == request.actor.app
        ]
        return _paged(rows, request)

    @route("GET", "/app/installations/{installation}", app=True)
    def installation(self, request: Request, installation: str) -> Json:
        row = self.store.get(INSTALLATION, installation)
        if row is None or row["app_id"] != request.actor.app:
            raise not_found()
        return self._installation(request, row)

    @route("POST", "/app/installations/{installation}/access_tokens", app=True)
    def installation_token(self, request: Request, installation: str) -> Answer:
        if not installation.isdigit():
            raise not_found()
        token = self.accounts.installation_token(request.actor, int(installation), request.body)
        return Answer(token, 201)

    @route("GET", f"{REPO}/installation", app=True)
    def repository_installation(self, request: Request, record: Record) -> Json:
        for row in self.store.all(INSTALLATION).values():
            repositories = row["_repositories"]
            if (
                row["app_id"] == request.actor.app
                and row["_account"].lower() == record["_owner"].lower()
                and (repositories is None or record["full_name"].lower() in repositories)
            ):
                return self._installation(request, row)
        raise not_found()

    def _app(self, request: Request) -> Record:
        found = self.store.get(APP, str(request.actor.app))
        assert found is not None
        return found

    def _installation(self, request: Request, row: Record) -> Json:
        app = self._app(request)
        account = self.accounts.account(row["_account"])
        return {
            **_public(row),
            "account": self._account(request, account),
            "permissions": app["permissions"],
            "app_slug": app["slug"],
            "target_type": account["type"],
            "repository_selection": "all" if row["_repositories"] is None else "selected",
            "access_tokens_url": f"{request.api}/app/installations/{row['id']}/access_tokens",
        }

    # Repositories.

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
        if not REPOSITORY_NAME.fullmatch(name) or name in (".", ".."):
            raise Refused(
                422,
                "Repository creation failed.",
                [{"resource": "Repository", "code": "custom", "field": "name",
                  "message": "name is invalid"}],
            )  # fmt: skip
        private = bool(body.get("private", body.get("visibility") in ("private", "internal")))
        scopes = ("repo",) if private else ("repo", "public_repo")
        if actor.kind == "classic" and not actor.has_scope(*scopes):
            raise not_found()
        # A token for chosen repositories cannot be one for a repository that is yet to be.
        other = actor.owner.lower() != owner.lower() or actor.repositories is not None
        if actor.kind in ("fine-grained", "installation") and other:
            raise Refused(403, f"Resource not accessible by {actor.noun}")
        if self.store.get(REPOSITORY, f"{owner}/{name}".lower()):
            raise Refused(
                422,
                "Repository creation failed.",
                [{"resource": "Repository", "code": "custom", "field": "name",
                  "message": "name already exists on this account"}],
            )  # fmt: skip
        record = self.add(owner, name, private, body.get("description") or "")
        if actor.login and actor.kind != "installation":
            record["_collaborators"][actor.login.lower()] = "admin"
            self._keep(record)
        return Answer(self._repository(request, record), 201)

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
            # How the tokens of its workflows name it; "untold" as on older servers.
            "_subject": "numbers",
            "_collaborators": {},
            "_secrets": {},
            "_variables": {},
            "_environments": {},
            "_workflows": {},
        }
        self.bare.create(record["full_name"], record["default_branch"])
        self._keep(record)
        return record

    def rename(self, repository: str, name: str) -> None:
        """Give a repository another name; requests for the former one are led on. Raises
        Refused."""
        record = self.store.get(REPOSITORY, repository.lower())
        if record is None or not REPOSITORY_NAME.fullmatch(name):
            raise not_found()
        former, record["name"] = record["full_name"], name
        record["full_name"] = f"{record['_owner']}/{name}"
        if former.lower() != record["full_name"].lower():
            self.bare.rename(former, record["full_name"])
            self.store.delete(REPOSITORY, former.lower())
            self.store.put(FORMER, former.lower(), {"id": record["id"]})
        # Renamed ones are named by their numbers from then on.
        record["_subject"] = "numbers"
        self._keep(record)

    @route("GET", f"{REPO}/actions/oidc/customization/sub", permission=("actions", "read"))
    def subject(self, request: Request, record: Record) -> Json:
        """Source: https://docs.github.com/en/actions/reference/openid-connect-reference"""
        kind = record.get("_subject", "numbers")
        owner, number = self.accounts.account(record["_owner"]), f"@{record['id']}"
        prefix = f"repo:{record['_owner']}/{record['name']}"
        if kind == "numbers":
            prefix = f"repo:{record['_owner']}@{owner['id']}/{record['name']}{number}"
        shown: Json = {"use_default": True}
        if "_claims" in record:
            shown = {"use_default": False, "include_claim_keys": record["_claims"]}
        if kind == "untold":
            return shown
        return shown | {"use_immutable_subject": kind == "numbers", "sub_claim_prefix": prefix}

    @route("PUT", f"{REPO}/actions/oidc/customization/sub", permission=("actions", "write"))
    def change_subject(self, request: Request, record: Record) -> Answer:
        (default,) = wanted(request.body, use_default=bool)
        record.pop("_claims", None)
        if not default:
            record["_claims"] = list(request.body.get("include_claim_keys") or [])
        if "use_immutable_subject" in request.body:
            record["_subject"] = "numbers" if request.body["use_immutable_subject"] else "names"
        self._keep(record)
        return Answer({}, 201)

    @route("GET", REPO, permission=("metadata", "read"))
    def repository(self, request: Request, record: Record) -> Json:
        return self._repository(request, record)

    @route("PATCH", REPO, **ADMIN)
    def change_repository(self, request: Request, record: Record) -> Json:
        name = str(request.body.get("name") or record["name"])
        if name != record["name"]:
            self.rename(record["full_name"], name)
        known = ("description", "private", "default_branch", "archived")
        record.update({k: v for k, v in request.body.items() if k in known})
        record["visibility"] = "private" if record["private"] else "public"
        self._keep(record)
        return self._repository(request, record)

    @route("DELETE", REPO, role="admin", permission=("administration", "write"), scope="repo")
    def delete_repository(self, request: Request, record: Record) -> Answer:
        if request.actor.kind == "classic" and not request.actor.has_scope("delete_repo"):
            raise Refused(403, "Must have admin rights to Repository.")
        self.store.delete(REPOSITORY, record["full_name"].lower())
        self.bare.delete(record["full_name"])
        return Answer(status=204)

    @route("GET", "/user/repos", permission=("metadata", "read"))
    def own_repositories(self, request: Request) -> Answer:
        rows = []
        for name, record in self.store.all(REPOSITORY).items():
            try:
                self._visible(request.actor, name)
            except Refused:
                continue
            if self._role(request.actor, record) and not (
                request.actor.kind == "nobody" or record["_owner"] == ""
            ):
                rows.append(self._repository(request, record))
        return _paged(rows, request)

    @route("PUT", f"{REPO}/collaborators/{{login}}", **ADMIN)
    def add_collaborator(self, request: Request, record: Record, login: str) -> Answer:
        self.accounts.account(login)
        role = {"push": "write", "pull": "read"}.get(
            request.body.get("permission", "push"), request.body.get("permission", "push")
        )
        known = login.lower() in record["_collaborators"]
        record["_collaborators"][login.lower()] = role
        self._keep(record)
        return Answer(status=204) if known else Answer({"permissions": role}, 201)

    def _repository(self, request: Request, record: Record) -> Json:
        name = record["full_name"]
        role = self._role(request.actor, record) or "read"
        rank = ROLES.index(role) if request.actor.login else 0
        return {
            **_public(record),
            **{k: moment(record[k]) for k in ("created_at", "updated_at", "pushed_at")},
            "owner": self._account(request, self.accounts.account(record["_owner"])),
            "url": f"{request.api}/repos/{name}",
            "html_url": f"{request.base}/{name}",
            "clone_url": f"{request.base}/{name}.git",
            "permissions": {
                "admin": rank >= 4, "maintain": rank >= 3, "push": rank >= 2,
                "triage": rank >= 1, "pull": True,
            },
        }  # fmt: skip

    def _keep(self, record: Record) -> None:
        self.store.put(REPOSITORY, record["full_name"].lower(), record)

    # Content.

    @route("GET", f"{REPO}/branches", permission=("contents", "read"))
    def branches(self, request: Request, record: Record) -> Answer:
        rows = [
            {"name": name, "commit": {"sha": sha}, "protected": False}
            for name, sha in self.bare.branches(record["full_name"]).items()
        ]
        return _paged(rows, request)

    @route("GET", f"{REPO}/branches/{{branch*}}", permission=("contents", "read"))
    def branch(self, request: Request, record: Record, branch: str) -> Json:
        sha = self.bare.branches(record["full_name"]).get(branch)
        if sha is None:
            raise Refused(404, "Branch not found")
        commit = {"sha": sha, "url": f"{request.api}{request.path}"}
        return {"name": branch, "commit": commit, "protected": False}

    @route("GET", f"{REPO}/git/ref/heads/{{branch*}}", permission=("contents", "read"))
    def reference(self, request: Request, record: Record, branch: str) -> Json:
        branches = self.bare.branches(record["full_name"])
        if not branches:
            raise Refused(409, "Git Repository is empty.")
        if branch not in branches:
            raise not_found()
        target = {"type": "commit", "sha": branches[branch]}
        return {"ref": f"refs/heads/{branch}", "object": target}

    @route("GET", f"{REPO}/commits/{{ref*}}", permission=("contents", "read"))
    def commit(self, request: Request, record: Record, ref: str) -> Json:
        if not self.bare.branches(record["full_name"]):
            raise Refused(409, "Git Repository is empty.")
        sha = self.bare.commit(record["full_name"], ref)
        if sha is None:
            raise Refused(422, f"No commit found for SHA: {ref}")
        message, when = self.bare.message(record["full_name"], sha)
        return {"sha": sha, "commit": {"message": message, "committer": {"date": when}}}

    @route("GET", f"{REPO}/contents/{{path*}}", permission=("contents", "read"))
    def content(self, request: Request, record: Record, path: str) -> Json:
        ref = request.query.get("ref") or str(record["default_branch"])
        sha = self.bare.commit(record["full_name"], ref)
        if sha is None:
            raise Refused(404, f"No commit found for the ref {ref}")
        found = self.bare.read(record["full_name"], sha, path)
        if found is None:
            raise not_found()
        return {
            "type": "file",
            "encoding": "base64",
            "path": path,
            "name": path.rpartition("/")[2],
            "size": len(found),
            "content": base64.encodebytes(found).decode(),
            "url": f"{request.api}{request.path}?ref={ref}",
        }

    # Environments.

    @route("GET", f"{REPO}/environments", permission=("actions", "read"))
    def environments(self, request: Request, record: Record) -> Answer:
        rows = [
            self._environment(request, record, each) for each in record["_environments"].values()
        ]
        return _counted("environments", rows, request)

    @route("GET", ENVIRONMENT, permission=("actions", "read"))
    def environment(self, request: Request, record: Record, environment: str) -> Json:
        return self._environment(request, record, _environment(record, environment))

    @route("PUT", ENVIRONMENT, **ADMIN)
    def put_environment(self, request: Request, record: Record, environment: str) -> Json:
        body = request.body
        reviewers = body.get("reviewers") or []
        policy = body.get("deployment_branch_policy")
        wait = body.get("wait_timer", 0)
        if not isinstance(wait, int) or not 0 <= wait <= 43_200:
            raise malformed("'wait_timer' must be between 0 and 43200.")
        if not isinstance(reviewers, list) or len(reviewers) > 6:
            raise malformed("No more than 6 reviewers are allowed.")
        if policy is not None:
            protected, custom = wanted(policy, protected_branches=bool, custom_branch_policies=bool)
            if protected == custom:
                raise malformed(
                    "protected_branches and custom_branch_policies cannot have the same value."
                )
        self._check_plan(record, bool(reviewers or wait), bool(policy))
        for each in reviewers:
            kind, identity = wanted(each, type=str, id=int)
            found = self.accounts.by_id(identity, kind)
            if found is None or not self._may_review(record, found, kind):
                raise invalid("Environment", "reviewers", "invalid", f"{kind} {identity}")
        known = record["_environments"].get(environment.lower())
        now = time.time()
        found = known or {
            "id": self.accounts.next_id(), "name": environment, "created_at": now,
            "_secrets": {}, "_variables": {}, "_policies": [],
        }  # fmt: skip
        custom_before = (found.get("_policy") or {}).get("custom_branch_policies")
        if custom_before and not (policy or {}).get("custom_branch_policies"):
            found["_policies"] = []
        found |= {
            "updated_at": now,
            "_wait": wait,
            "_reviewers": reviewers,
            "_self": bool(body.get("prevent_self_review")),
            "_bypass": bool(body.get("can_admins_bypass", True)),
            "_policy": policy,
        }
        record["_environments"][environment.lower()] = found
        self._keep(record)
        return self._environment(request, record, found)

    def _check_plan(self, record: Record, protection: bool, policy: bool) -> None:
        """Refuse what private repositories have on a better plan only. Raises Refused.

        Source: https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments
        """
        plan = self.accounts.account(record["_owner"])["_plan"]
        if record["private"] and (
            (protection and plan != "enterprise") or (policy and plan == "free")
        ):
            rule = "required reviewers" if protection else "branch policy"
            raise Refused(
                422,
                "Failed to create the environment protection rule. Please ensure the billing plan "
                f"supports the {rule} protection rule.",
            )

    def _may_review(self, record: Record, found: Json, kind: str) -> bool:
        if kind == "Team":
            return found["slug"] in self.accounts.account(record["_owner"])["_teams"]
        return self._role(Actor("classic", found["login"]), record) is not None

    @route("DELETE", ENVIRONMENT, **ADMIN)
    def delete_environment(self, request: Request, record: Record, environment: str) -> Answer:
        _environment(record, environment)
        del record["_environments"][environment.lower()]
        self._keep(record)
        return Answer(status=204)

    def _environment(self, request: Request, record: Record, found: Json) -> Json:
        url = f"{request.api}/repos/{record['full_name']}/environments/{found['name']}"
        rules: list[Json] = []
        if found["_wait"]:
            rules.append({"id": found["id"], "type": "wait_timer", "wait_timer": found["_wait"]})
        if found["_reviewers"]:
            shown = []
            for each in found["_reviewers"]:
                who = self.accounts.by_id(each["id"], each["type"]) or {}
                shown.append({"type": each["type"], "reviewer": _public(who)})
            rules.append(
                {
                    "id": found["id"] + 1,
                    "type": "required_reviewers",
                    "prevent_self_review": found["_self"],
                    "reviewers": shown,
                }
            )
        if found["_policy"]:
            rules.append({"id": found["id"] + 2, "type": "branch_policy"})
        return {
            "id": found["id"],
            "name": found["name"],
            "url": url,
            "html_url": f"{request.base}/{record['full_name']}/deployments",
            "created_at": moment(found["created_at"]),
            "updated_at": moment(found["updated_at"]),
            "can_admins_bypass": found.get("_bypass", True),
            "protection_rules": rules,
            "deployment_branch_policy": found["_policy"],
        }

    @route("GET", f"{ENVIRONMENT}/deployment-branch-policies", permission=("actions", "read"))
    def branch_policies(self, request: Request, record: Record, environment: str) -> Answer:
        rows = _environment(record, environment)["_policies"]
        return _counted("branch_policies", rows, request)

    @route("POST", f"{ENVIRONMENT}/deployment-branch-policies", **ADMIN)
    def add_branch_policy(self, request: Request, record: Record, environment: str) -> Answer:
        found = _environment(record, environment)
        if not (found["_policy"] or {}).get("custom_branch_policies"):
            raise not_found()
        (name,) = wanted(request.body, name=str)
        kind = request.body.get("type", "branch")
        if any(each["name"] == name and each["type"] == kind for each in found["_policies"]):
            raise Refused(303, "See Other")
        policy = {"id": self.accounts.next_id(), "name": name, "type": kind}
        found["_policies"].append(policy)
        self._keep(record)
        return Answer(policy)

    @route("DELETE", f"{ENVIRONMENT}/deployment-branch-policies/{{policy}}", **ADMIN)
    def delete_branch_policy(
        self, request: Request, record: Record, environment: str, policy: str
    ) -> Answer:
        found = _environment(record, environment)
        kept = [each for each in found["_policies"] if str(each["id"]) != policy]
        if len(kept) == len(found["_policies"]):
            raise not_found()
        found["_policies"] = kept
        self._keep(record)
        return Answer(status=204)

    # Secrets.

    def _key(self, holder: Record, record: Record) -> Json:
        """Return the key pair of a repository or an environment."""
        if "_key" not in holder:
            from nacl.public import PrivateKey

            private = PrivateKey.generate()
            holder["_key"] = {
                "key_id": str(self.accounts.next_id() * 10**12),
                "key": base64.b64encode(bytes(private.public_key)).decode(),
                "_private": base64.b64encode(bytes(private)).decode(),
            }
            self._keep(record)
        return dict(holder["_key"])

    def secret(self, repository: str, name: str, environment: str = "") -> str:
        """Return what a secret holds, as a workflow would see it."""
        record = self.store.get(REPOSITORY, repository.lower())
        if record is None:
            raise not_found()
        holder = _environment(record, environment) if environment else record
        return _open(holder["_key"], holder["_secrets"][name.upper()]["_sealed"])

    @route(
        "GET", f"{REPO}/actions/secrets/public-key", role="write", permission=("secrets", "read")
    )
    def public_key(self, request: Request, record: Record) -> Json:
        return _public(self._key(record, record))

    @route("GET", f"{REPO}/actions/secrets", role="write", permission=("secrets", "read"))
    def secrets(self, request: Request, record: Record) -> Answer:
        return _counted("secrets", _dated(record["_secrets"]), request)

    @route("GET", f"{REPO}/actions/secrets/{{name}}", role="write", permission=("secrets", "read"))
    def one_secret(self, request: Request, record: Record, name: str) -> Json:
        return _one(record["_secrets"], name)

    @route("PUT", f"{REPO}/actions/secrets/{{name}}", role="write", permission=("secrets", "write"))
    def put_secret(self, request: Request, record: Record, name: str) -> Answer:
        return self._put_secret(request, record, record, name)

    @route(
        "DELETE", f"{REPO}/actions/secrets/{{name}}", role="write", permission=("secrets", "write")
    )
    def delete_secret(self, request: Request, record: Record, name: str) -> Answer:
        return self._remove(record, record["_secrets"], name)

    @route(
        "GET", f"{ENVIRONMENT}/secrets/public-key", role="write",
        permission=("environments", "read"),
    )  # fmt: skip
    def environment_key(self, request: Request, record: Record, environment: str) -> Json:
        return _public(self._key(_environment(record, environment), record))

    @route("GET", f"{ENVIRONMENT}/secrets", role="write", permission=("environments", "read"))
    def environment_secrets(self, request: Request, record: Record, environment: str) -> Answer:
        found = _environment(record, environment)
        return _counted("secrets", _dated(found["_secrets"]), request)

    @route(
        "GET", f"{ENVIRONMENT}/secrets/{{name}}", role="write", permission=("environments", "read")
    )
    def environment_secret(
        self, request: Request, record: Record, environment: str, name: str
    ) -> Json:
        return _one(_environment(record, environment)["_secrets"], name)

    @route(
        "PUT", f"{ENVIRONMENT}/secrets/{{name}}", role="write", permission=("environments", "write")
    )
    def put_environment_secret(
        self, request: Request, record: Record, environment: str, name: str
    ) -> Answer:
        return self._put_secret(request, _environment(record, environment), record, name)

    @route(
        "DELETE", f"{ENVIRONMENT}/secrets/{{name}}", role="write",
        permission=("environments", "write"),
    )  # fmt: skip
    def delete_environment_secret(
        self, request: Request, record: Record, environment: str, name: str
    ) -> Answer:
        return self._remove(record, _environment(record, environment)["_secrets"], name)

    def _put_secret(self, request: Request, holder: Record, record: Record, name: str) -> Answer:
        _check_name(name, "Secret")
        sealed, key_id = wanted(request.body, encrypted_value=str, key_id=str)
        key = self._key(holder, record)
        if key_id != key["key_id"]:
            raise Refused(422, "Bad request - key_id is not valid")
        if len(_open(key, sealed).encode()) > LARGEST_VALUE:
            raise Refused(422, "Secret value must be at most 48 KB")
        known = name.upper() in holder["_secrets"]
        if not known and len(holder["_secrets"]) >= MOST_SECRETS:
            raise Refused(422, f"A maximum of {MOST_SECRETS} secrets is allowed")
        now = time.time()
        before = holder["_secrets"].get(name.upper(), {"created_at": now})
        holder["_secrets"][name.upper()] = {
            "name": name.upper(),
            "created_at": before["created_at"],
            "updated_at": now,
            "_sealed": sealed,
        }
        self._keep(record)
        return Answer(status=204) if known else Answer({}, 201)

    def _remove(self, record: Record, rows: Json, name: str) -> Answer:
        if name.upper() not in rows:
            raise not_found()
        del rows[name.upper()]
        self._keep(record)
        return Answer(status=204)

    # Variables.

    def _holder(self, record: Record, environment: str | None) -> Record:
        return _environment(record, environment) if environment else record

    @route(
        "GET", f"{REPO}/actions/variables", role="write", permission=("actions_variables", "read")
    )
    @route("GET", f"{ENVIRONMENT}/variables", role="write", permission=("environments", "read"))
    def variables(self, request: Request, record: Record, environment: str = "") -> Answer:
        rows = _dated(self._holder(record, environment)["_variables"])
        return _counted("variables", rows, request)

    @route(
        "GET", f"{REPO}/actions/variables/{{name}}", role="write",
        permission=("actions_variables", "read"),
    )  # fmt: skip
    @route(
        "GET", f"{ENVIRONMENT}/variables/{{name}}", role="write",
        permission=("environments", "read"),
    )  # fmt: skip
    def variable(self, request: Request, record: Record, name: str, environment: str = "") -> Json:
        return _one(self._holder(record, environment)["_variables"], name)

    @route(
        "POST", f"{REPO}/actions/variables", role="write", permission=("actions_variables", "write")
    )
    @route("POST", f"{ENVIRONMENT}/variables", role="write", permission=("environments", "write"))
    def add_variable(self, request: Request, record: Record, environment: str = "") -> Answer:
        name, value = wanted(request.body, name=str, value=str)
        _check_name(name, "Variable")
        _check_value(value)
        rows = self._holder(record, environment)["_variables"]
        if name.upper() in rows:
            raise Refused(409, "Already exists - Variable already exists")
        if len(rows) >= MOST_VARIABLES:
            raise Refused(422, f"A maximum of {MOST_VARIABLES} variables is allowed")
        now = time.time()
        rows[name.upper()] = {
            "name": name.upper(), "value": value, "created_at": now, "updated_at": now,
        }  # fmt: skip
        self._keep(record)
        return Answer({}, 201)

    @route(
        "PATCH", f"{REPO}/actions/variables/{{name}}", role="write",
        permission=("actions_variables", "write"),
    )  # fmt: skip
    @route(
        "PATCH", f"{ENVIRONMENT}/variables/{{name}}", role="write",
        permission=("environments", "write"),
    )  # fmt: skip
    def change_variable(
        self, request: Request, record: Record, name: str, environment: str = ""
    ) -> Answer:
        rows = self._holder(record, environment)["_variables"]
        if name.upper() not in rows:
            raise not_found()
        found = rows[name.upper()]
        new = str(request.body.get("name", name)).upper()
        _check_name(new, "Variable")
        value = request.body.get("value", found["value"])
        _check_value(value)
        del rows[name.upper()]
        rows[new] = {**found, "name": new, "value": value, "updated_at": time.time()}
        self._keep(record)
        return Answer(status=204)

    @route(
        "DELETE", f"{REPO}/actions/variables/{{name}}", role="write",
        permission=("actions_variables", "write"),
    )  # fmt: skip
    @route(
        "DELETE", f"{ENVIRONMENT}/variables/{{name}}", role="write",
        permission=("environments", "write"),
    )  # fmt: skip
    def delete_variable(
        self, request: Request, record: Record, name: str, environment: str = ""
    ) -> Answer:
        return self._remove(record, self._holder(record, environment)["_variables"], name)

    # Workflows.

    def _workflows(self, record: Record) -> dict[str, Json]:
        """Return the workflows on the default branch, by path."""
        name = record["full_name"]
        sha = self.bare.commit(name, record["default_branch"])
        paths = self.bare.files(name, sha, ".github/workflows") if sha else []
        found = {}
        for path in paths:
            if not path.endswith((".yml", ".yaml")) or path.count("/") != 2:
                continue
            known = record["_workflows"].get(path)
            if known is None:
                now = time.time()
                known = {"id": self.accounts.next_id(), "state": "active", "created_at": now}
                record["_workflows"][path] = known
                self._keep(record)
            found[path] = {**known, "path": path}
        return found

    def _workflow(self, record: Record, name: str) -> Json:
        for path, found in self._workflows(record).items():
            if name in (str(found["id"]), path, path.rpartition("/")[2]):
                return found
        raise not_found()

    def _shown(self, request: Request, record: Record, found: Json) -> Json:
        full = record["full_name"]
        sha = self.bare.commit(full, record["default_branch"])
        content = _yaml(self.bare.read(full, sha or "", found["path"]) or b"")
        created = moment(found["created_at"])
        return {
            **found,
            "created_at": created,
            "updated_at": created,
            "name": str(content.get("name", found["path"])),
            "url": f"{request.api}/repos/{full}/actions/workflows/{found['id']}",
            "html_url": f"{request.base}/{full}/blob/{record['default_branch']}/{found['path']}",
        }

    @route("GET", f"{REPO}/actions/workflows", permission=("actions", "read"))
    def workflows(self, request: Request, record: Record) -> Answer:
        rows = [self._shown(request, record, each) for each in self._workflows(record).values()]
        return _counted("workflows", rows, request)

    @route("GET", f"{REPO}/actions/workflows/{{workflow}}", permission=("actions", "read"))
    def workflow(self, request: Request, record: Record, workflow: str) -> Json:
        return self._shown(request, record, self._workflow(record, workflow))

    @route(
        "PUT", f"{REPO}/actions/workflows/{{workflow}}/disable", role="write",
        permission=("actions", "write"),
    )  # fmt: skip
    def disable_workflow(self, request: Request, record: Record, workflow: str) -> Answer:
        return self._set_state(record, workflow, "disabled_manually")

    @route(
        "PUT", f"{REPO}/actions/workflows/{{workflow}}/enable", role="write",
        permission=("actions", "write"),
    )  # fmt: skip
    def enable_workflow(self, request: Request, record: Record, workflow: str) -> Answer:
        return self._set_state(record, workflow, "active")

    def _set_state(self, record: Record, workflow: str, state: str) -> Answer:
        record["_workflows"][self._workflow(record, workflow)["path"]]["state"] = state
        self._keep(record)
        return Answer(status=204)

    @route(
        "POST", f"{REPO}/actions/workflows/{{workflow}}/dispatches", role="write",
        permission=("actions", "write"),
    )  # fmt: skip
    def dispatch(self, request: Request, record: Record, workflow: str) -> Answer:
        found = self._workflow(record, workflow)
        if found["state"] != "active":
            raise Refused(422, "Cannot trigger a 'workflow_dispatch' on a disabled workflow")
        (ref,) = wanted(request.body, ref=str)
        name = record["full_name"]
        branch = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.bare.commit(name, branch)
        if sha is None:
            raise Refused(422, f"No ref found for: {ref}")
        content = self.bare.read(name, sha, found["path"])
        if content is None:
            raise Refused(
                422,
                "Workflow does not exist or does not have a workflow_dispatch trigger in this "
                f"branch: {branch}",
            )
        described = _yaml(content)
        inputs = _inputs(described, request.body.get("inputs") or {})
        now = time.time()
        run: Json = {
            "id": self.accounts.next_id() + 10**9,
            "name": str(described.get("name", found["path"])),
            "path": f"{found['path']}@{branch}",
            "workflow_id": found["id"],
            "head_branch": branch,
            "head_sha": sha,
            "event": "workflow_dispatch",
            "status": "queued",
            "conclusion": None,
            "run_number": 1 + sum(
                row["workflow_id"] == found["id"] for row in self.store.all(RUN).values()
            ),
            "run_attempt": 1,
            "created_at": now,
            "updated_at": now,
            "actor": {"login": request.actor.login},
            "_inputs": inputs,
            "_repository": name,
        }  # fmt: skip
        self.store.put(RUN, str(run["id"]), run)
        self.github.on_dispatch(run)
        if not request.body.get("return_run_details"):
            return Answer(status=204)
        shown = self._run(request, run)
        return Answer(
            {"workflow_run_id": run["id"], "run_url": shown["url"], "html_url": shown["html_url"]}
        )

    def runs_of(self, repository: str) -> list[Json]:
        """Return the runs of a repository, newest first, with the inputs they were given."""
        rows = [
            {**row, "inputs": row["_inputs"]}
            for row in self.store.all(RUN).values()
            if row["_repository"].lower() == repository.lower()
        ]
        return sorted(rows, key=lambda row: -row["id"])

    def finish(self, run: int, conclusion: str = "success") -> None:
        """End a run; nothing here runs workflows."""
        record = self.store.get(RUN, str(run))
        if record is None:
            raise not_found()
        record |= {"status": "completed", "conclusion": conclusion, "updated_at": time.time()}
        self.store.put(RUN, str(run), record)

    @route("GET", f"{REPO}/actions/runs", permission=("actions", "read"))
    @route("GET", f"{REPO}/actions/workflows/{{workflow}}/runs", permission=("actions", "read"))
    def runs(self, request: Request, record: Record, workflow: str = "") -> Answer:
        rows = self.runs_of(record["full_name"])
        if workflow:
            identity = self._workflow(record, workflow)["id"]
            rows = [row for row in rows if row["workflow_id"] == identity]
        query = request.query
        for name, member in (
            ("event", "event"), ("branch", "head_branch"), ("head_sha", "head_sha"),
        ):  # fmt: skip
            if name in query:
                rows = [row for row in rows if row[member] == query[name]]
        if "status" in query:
            rows = [row for row in rows if query["status"] in (row["status"], row["conclusion"])]
        return _counted("workflow_runs", [self._run(request, row) for row in rows], request)

    @route("GET", f"{REPO}/actions/runs/{{run}}", permission=("actions", "read"))
    def run(self, request: Request, record: Record, run: str) -> Json:
        found = self.store.get(RUN, run)
        if found is None or found["_repository"] != record["full_name"]:
            raise not_found()
        return self._run(request, found)

    def _run(self, request: Request, run: Json) -> Json:
        place = f"{run['_repository']}/actions/runs/{run['id']}"
        shown = {k: v for k, v in _public(run).items() if k != "inputs"}
        return {
            **shown,
            "created_at": moment(run["created_at"]),
            "updated_at": moment(run["updated_at"]),
            "url": f"{request.api}/repos/{place}",
            "html_url": f"{request.base}/{place}",
        }


def _identified(actor: Actor, needs: Needs) -> None:
    """Refuse what a route outside of repositories does not let in. Raises Refused."""
    if needs.app and actor.kind != "app":
        raise Refused(401, "A JSON web token could not be decoded")
    if not needs.app and actor.kind == "app":
        raise Refused(
            401, "A JSON web token could not be used here: use an installation access token"
        )
    if needs.permission:
        if actor.kind == "nobody":
            raise Refused(401, "Requires authentication")
        if actor.kind in ("fine-grained", "installation") and not actor.has_permission(
            *needs.permission
        ):
            raise Refused(403, f"Resource not accessible by {actor.noun}")


def _environment(record: Record, name: str) -> Json:
    found: Json | None = record["_environments"].get(name.lower())
    if found is None:
        raise not_found()
    return found


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
    """Return the text in a sealed box. Raises Refused: GitHub takes nothing it cannot open."""
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


def _yaml(content: bytes) -> Json:
    import yaml

    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _inputs(described: Json, given: Any) -> Json:
    """Return the inputs of a run, defaults included. Raises Refused for what does not fit."""
    # YAML 1.1 reads the word `on` as true.
    events = described.get("on", described.get(True, {}))  # type: ignore[call-overload]
    if isinstance(events, str):
        events = {events: None}
    if isinstance(events, list):
        events = dict.fromkeys(events)
    if not isinstance(events, dict) or "workflow_dispatch" not in events:
        raise Refused(422, "Workflow does not have 'workflow_dispatch' trigger")
    if not isinstance(given, dict):
        raise malformed(f"For 'inputs', {given!r} is not an object.")
    if len(given) > MOST_INPUTS:
        raise malformed(f"For 'inputs', more than {MOST_INPUTS} properties are given.")
    known = (events["workflow_dispatch"] or {}).get("inputs") or {}
    unexpected = [name for name in given if name not in known]
    if unexpected:
        shown = ", ".join(f'"{name}"' for name in unexpected)
        raise Refused(422, f"Unexpected inputs provided: [{shown}]")
    found = {}
    for name, rule in known.items():
        rule = rule or {}
        value = given.get(name, rule.get("default"))
        if rule.get("required") and value in (None, ""):
            raise Refused(422, f"Required input '{name}' not provided")
        choices = rule.get("options") or []
        if value is not None and rule.get("type") == "choice" and value not in choices:
            raise Refused(
                422,
                f"Provided value '{value}' for input '{name}' not in the list of allowed values",
            )
        found[name] = value
    return found


def _public(record: Json) -> Json:
    return {name: value for name, value in record.items() if not name.startswith("_")}


def _dated(rows: Json) -> list[Json]:
    return [_one(rows, name) for name in sorted(rows)]


def _one(rows: Json, name: str) -> Json:
    found = rows.get(name.upper())
    if found is None:
        raise not_found()
    times = {name: moment(found[name]) for name in ("created_at", "updated_at")}
    return _public(found) | times


def _paged(rows: list[Json], request: Request) -> Answer:
    shown, headers = page(rows, request.query, f"{request.api}{request.path}")
    return Answer(shown, 200, headers)


def _counted(name: str, rows: list[Json], request: Request) -> Answer:
    shown, headers = page(rows, request.query, f"{request.api}{request.path}")
    return Answer({"total_count": len(rows), name: shown}, 200, headers)


__all__ = ["DOCUMENTATION", "Routes"]
