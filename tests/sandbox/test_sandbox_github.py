"""The sandbox's GitHub: who it lets in, what it refuses and how, what it remembers."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from github import Auth, Github, GithubException, GithubIntegration
from nacl.public import PublicKey, SealedBox

from fault_injection import inject_github
from github_people import add_app, install, limit
from standalone import Standalone

pytestmark = pytest.mark.slow

WORKFLOW = """
name: deploy
on:
  workflow_dispatch:
    inputs:
      model-package-arn: {required: true, type: string}
      commit: {type: string, default: ""}
      mode: {type: string, default: safe}
jobs: {}
"""


class Visitor:
    """Asks with one token."""

    def __init__(self, server: Standalone, token: str = "") -> None:
        self.api, self.token = server.api, token

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        return requests.request(method, self.api + path, json=body, headers=headers, timeout=10)

    def seal(self, where: str, text: str) -> dict[str, str]:
        key = self("GET", f"{where}/secrets/public-key").json()
        sealed = SealedBox(PublicKey(base64.b64decode(key["key"]))).encrypt(text.encode())
        return {"encrypted_value": base64.b64encode(sealed).decode(), "key_id": key["key_id"]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Standalone]:
    with Standalone(tmp_path / "github") as server:
        accounts = server.github.accounts
        accounts.add("ada")
        accounts.add("bob")
        accounts.add("eve")
        accounts.add("acme", "Organization", ada="admin", bob="member")
        server.github.routes.add("acme", "churn")
        yield server


@pytest.fixture
def ada(server: Standalone) -> Visitor:
    return Visitor(server, server.github.accounts.token("ada", "repo", "workflow"))


def push(server: Standalone, token: str, folder: Path, **files: str) -> Any:
    folder.mkdir(exist_ok=True)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_TERMINAL_PROMPT": "0",
        **{
            f"GIT_{who}_{what}": f"{who}@x.y"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def git(*words: str, check: bool = True) -> Any:
        return subprocess.run(
            ["git", *words], cwd=folder, env=env, check=check, capture_output=True, text=True
        )

    git("init", "-q", "-b", "main")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git("add", "-A")
    git("commit", "-qm", "work")
    address = server.url.replace("http://", f"http://x-access-token:{token}@")
    return git("push", "-q", f"{address}/acme/churn.git", "main", check=False)


@pytest.fixture
def pushed(server: Standalone, ada: Visitor, tmp_path: Path) -> Visitor:
    done = push(server, ada.token, tmp_path / "w", **{".github/workflows/deploy.yml": WORKFLOW})
    assert done.returncode == 0, done.stderr
    return ada


# Who is let in.


def test_an_unknown_token_is_refused(server: Standalone) -> None:
    answer = Visitor(server, "ghp_wrong")("GET", "/user")
    assert answer.status_code == 401 and answer.json()["message"] == "Bad credentials"
    assert Visitor(server)("GET", "/user").json()["message"] == "Requires authentication"


def test_what_a_token_cannot_see_is_not_there(server: Standalone, ada: Visitor) -> None:
    tokens = server.github.accounts
    for token in (
        "",
        tokens.token("eve", "repo"),
        tokens.token("ada", "gist"),
        tokens.fine_grained("ada", "acme", ["other"], contents="read"),
        tokens.fine_grained("ada", "ada", None, contents="read"),
    ):
        answer = Visitor(server, token)("GET", "/repos/acme/churn")
        assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")
    assert ada("GET", "/repos/acme/churn").json()["permissions"]["admin"] is True


def test_a_classic_token_is_told_its_scopes(ada: Visitor) -> None:
    answer = ada("GET", "/repos/acme/churn")
    assert answer.headers["X-OAuth-Scopes"] == "repo, workflow"
    assert answer.headers["X-Accepted-OAuth-Scopes"] == "repo"


def test_a_fine_grained_token_needs_the_permission_of_the_route(server: Standalone) -> None:
    token = server.github.accounts.fine_grained("ada", "acme", ["churn"], secrets="read")
    asked = Visitor(server, token)
    assert asked("GET", "/repos/acme/churn/actions/secrets").status_code == 200
    answer = asked("PUT", "/repos/acme/churn/actions/secrets/A", {})
    assert answer.status_code == 403
    assert answer.json()["message"] == "Resource not accessible by personal access token"
    assert answer.headers["X-Accepted-GitHub-Permissions"] == "secrets=write"


def test_a_member_without_the_role_may_not_change_settings(server: Standalone) -> None:
    bob = Visitor(server, server.github.accounts.token("bob", "repo"))
    answer = bob("PUT", "/repos/acme/churn/environments/production", {})
    assert answer.status_code == 403 and "admin rights" in answer.json()["message"]


def test_a_request_without_user_agent_or_of_an_unknown_version_is_refused(ada: Visitor) -> None:
    assert ada("GET", "/user", **{"User-Agent": ""}).status_code == 403
    assert ada("GET", "/user", **{"X-GitHub-Api-Version": "2001-01-01"}).status_code == 400


# GitHub Apps.


def test_an_app_gets_a_token_for_its_installation_only(server: Standalone) -> None:
    accounts = server.github.accounts
    app = add_app(accounts, "acme", "trigger", actions="write")
    other = add_app(accounts, "acme", "other", actions="write")
    installation = install(accounts, app["id"], "acme", ["churn"])
    sign_in = GithubIntegration(
        auth=Auth.AppAuth(app["id"], app["private_key"]), base_url=server.api
    )
    token = sign_in.get_access_token(installation).token
    asked = Visitor(server, token)
    assert asked("GET", "/repos/acme/churn").status_code == 200
    assert asked("GET", "/repos/acme/churn/actions/secrets").status_code == 403
    stranger = GithubIntegration(
        auth=Auth.AppAuth(other["id"], other["private_key"]), base_url=server.api
    )
    with pytest.raises(GithubException) as caught:
        stranger.get_access_token(installation)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": 10_000}, "too far in the future"),
        ({"exp": -10}, "Expiration time"),
        ({"iat": 300}, "Issued at"),
        ({"key": "another"}, "could not be decoded"),
        ({"iss": "9999999"}, "could not be decoded"),
    ],
)
def test_an_app_that_signs_wrongly_is_refused(
    server: Standalone, claims: dict[str, Any], message: str
) -> None:
    accounts = server.github.accounts
    app, other = add_app(accounts, "acme", "a"), add_app(accounts, "acme", "b")
    key = other["private_key"] if "key" in claims else app["private_key"]
    now = int(time.time())
    times = {k: now + claims.get(k, default) for k, default in (("iat", -60), ("exp", 500))}
    token = jwt.encode({"iss": claims.get("iss", str(app["id"])), **times}, key, "RS256")
    answer = Visitor(server, token)("POST", "/app/installations/1/access_tokens")
    assert answer.status_code == 401 and message in answer.json()["message"]


def test_an_installation_token_expires(server: Standalone) -> None:
    accounts = server.github.accounts
    app = add_app(accounts, "acme", "trigger")
    installation = install(accounts, app["id"], "acme")
    sign_in = GithubIntegration(
        auth=Auth.AppAuth(app["id"], app["private_key"]), base_url=server.api
    )
    token = sign_in.get_access_token(installation).token
    for record in accounts.store.all("GitHubToken").values():
        record["expires"] = time.time() - 1
    assert Visitor(server, token)("GET", "/repos/acme/churn").status_code == 401


# Limits and faults.


def test_a_request_beyond_the_limit_is_refused_with_the_documented_headers(
    server: Standalone, ada: Visitor
) -> None:
    assert int(ada("GET", "/user").headers["X-RateLimit-Remaining"]) == 4999
    limit(server.github.accounts, "ada", 1)
    assert ada("GET", "/user").status_code == 200
    answer = ada("GET", "/user")
    assert answer.status_code == 403 and "rate limit exceeded" in answer.json()["message"]
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert int(answer.headers["X-RateLimit-Reset"]) > time.time()


def test_faults_meet_the_requests_they_name(server: Standalone, ada: Visitor) -> None:
    inject_github(server.github, "GET /user", 429, headers={"Retry-After": "7"}, after=1, times=2)
    codes = [ada("GET", "/user") for _ in range(4)]
    assert [answer.status_code for answer in codes] == [200, 429, 429, 200]
    assert codes[1].headers["Retry-After"] == "7"
    inject_github(server.github, "POST /user/repos", 0, acts=True)
    with pytest.raises(requests.ConnectionError):
        ada("POST", "/user/repos", {"name": "made"})
    assert ada("GET", "/repos/ada/made").status_code == 200, "only the answer was lost"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/repos/acme/churn/stargazers"),
        ("GET", "/repos/acme/churn/actions/runs"),
        ("DELETE", "/repos/acme/churn"),
        ("GET", "/repos/acme/churn/actions/variables/AWS_REGION"),
        ("GET", "/repos/acme/churn/environments/staging/variables/AWS_REGION"),
    ],
)
def test_a_route_that_is_not_implemented_is_refused_by_name(
    ada: Visitor, method: str, path: str
) -> None:
    answer = ada(method, path)
    assert answer.status_code == 501
    assert answer.json()["message"] == f"The sandbox does not implement GitHub's {method} {path}"


def test_a_token_may_be_for_a_part_of_an_installation(server: Standalone, ada: Visitor) -> None:
    accounts = server.github.accounts
    app = add_app(accounts, "acme", "trigger", contents="read")
    number = install(accounts, app["id"], "acme", ["churn", "other"])
    for name in ("churn", "other"):
        ada("POST", "/orgs/acme/repos", {"name": name, "private": True})
    app_itself = Visitor(server, Auth.AppAuth(app["id"], app["private_key"]).token)
    place = f"/app/installations/{number}/access_tokens"
    made = app_itself("POST", place, {"repositories": ["churn"]})
    assert made.status_code == 201 and made.json()["repository_selection"] == "selected"
    part = Visitor(server, made.json()["token"])
    found = [part("GET", f"/repos/acme/{name}").status_code for name in ("churn", "other")]
    assert found == [200, 404]
    assert app_itself("POST", place, {"repositories": ["third"]}).status_code == 422


# Repositories and git.


def test_a_repository_is_made_once(server: Standalone, ada: Visitor) -> None:
    made = ada("POST", "/orgs/acme/repos", {"name": "new", "private": True})
    assert made.status_code == 201 and made.json()["full_name"] == "acme/new"
    again = ada("POST", "/orgs/acme/repos", {"name": "new"})
    assert again.status_code == 422
    assert again.json()["errors"][0]["message"] == "name already exists on this account"
    eve = Visitor(server, server.github.accounts.token("eve", "repo"))
    assert eve("POST", "/orgs/acme/repos", {"name": "x"}).status_code == 404
    bad = ada("POST", "/user/repos", {})
    assert bad.status_code == 422 and '"name" wasn\'t supplied' in bad.json()["message"]


def test_git_pushes_and_fetches_with_a_token(
    server: Standalone, pushed: Visitor, tmp_path: Path
) -> None:
    branch = pushed("GET", "/repos/acme/churn/branches/main").json()
    assert len(branch["commit"]["sha"]) == 40
    address = server.url.replace("http://", f"http://x:{pushed.token}@")
    subprocess.run(
        ["git", "clone", "-q", f"{address}/acme/churn.git", str(tmp_path / "clone")], check=True
    )
    assert (tmp_path / "clone/.github/workflows/deploy.yml").read_text() == WORKFLOW


@pytest.mark.parametrize(
    ("login", "scopes", "message"),
    [
        ("ada", ["repo"], "without `workflow` scope"),
        ("bob", ["repo", "workflow"], "403"),
        ("eve", ["repo", "workflow"], "not found"),
    ],
)
def test_a_push_without_the_right_is_refused(
    server: Standalone, tmp_path: Path, login: str, scopes: list[str], message: str
) -> None:
    token = server.github.accounts.token(login, *scopes)
    done = push(server, token, tmp_path / "w", **{".github/workflows/deploy.yml": WORKFLOW})
    assert done.returncode != 0 and message in done.stderr


# Secrets and variables.


def test_a_secret_has_to_be_sealed_for_this_repository(server: Standalone, ada: Visitor) -> None:
    where = "/repos/acme/churn/actions"
    sealed = ada.seal(where, "the value")
    assert ada("PUT", f"{where}/secrets/token_A", sealed).status_code == 201
    assert ada("PUT", f"{where}/secrets/TOKEN_A", sealed).status_code == 204
    assert server.github.routes.secret("acme/churn", "TOKEN_A") == "the value"
    assert "value" not in ada("GET", f"{where}/secrets").text
    clear = {**sealed, "encrypted_value": base64.b64encode(b"the value").decode()}
    assert ada("PUT", f"{where}/secrets/B", clear).status_code == 422
    assert ada("PUT", f"{where}/secrets/B", {**sealed, "key_id": "1"}).status_code == 422
    for name in ("GITHUB_X", "1X", "A-B"):
        assert ada("PUT", f"{where}/secrets/{name}", sealed).status_code == 422
    assert ada("GET", f"{where}/secrets").json()["total_count"] == 1
    for folder in (server.github.folder.parent,):
        for file in folder.rglob("*"):
            assert not file.is_file() or b"the value" not in file.read_bytes()


def test_variables_are_added_changed_and_deleted(ada: Visitor) -> None:
    where = "/repos/acme/churn/actions/variables"
    body = {"name": "AWS_REGION", "value": "eu-west-1"}
    assert ada("POST", where, body).status_code == 201
    assert ada("POST", where, body).status_code == 409
    assert ada("PATCH", f"{where}/AWS_REGION", {"value": "x"}).status_code == 204
    assert [row["value"] for row in ada("GET", where).json()["variables"]] == ["x"]
    assert ada("PATCH", f"{where}/NO", {"value": "x"}).status_code == 404
    assert ada("DELETE", f"{where}/AWS_REGION").status_code == 204
    assert ada("GET", where).json() == {"total_count": 0, "variables": []}


def test_lists_come_in_pages_with_links(ada: Visitor) -> None:
    where = "/repos/acme/churn/actions/variables"
    for number in range(5):
        ada("POST", where, {"name": f"V{number}", "value": "x"})
    first = ada("GET", f"{where}?per_page=2")
    assert len(first.json()["variables"]) == 2 and first.json()["total_count"] == 5
    names, answer = [], first
    while True:
        names += [row["name"] for row in answer.json()["variables"]]
        if "next" not in answer.links:
            break
        answer = ada("GET", answer.links["next"]["url"].removeprefix(ada.api))
    assert names == ["V0", "V1", "V2", "V3", "V4"]


# Environments.


def test_an_environment_has_reviewers_and_branch_rules(server: Standalone, ada: Visitor) -> None:
    where = "/repos/acme/churn/environments/production"
    bob = server.github.accounts.account("bob")["id"]
    body = {
        "reviewers": [{"type": "User", "id": bob}],
        "prevent_self_review": True,
        "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
    }
    made = ada("PUT", where, body).json()
    kinds = {rule["type"]: rule for rule in made["protection_rules"]}
    assert kinds["required_reviewers"]["reviewers"][0]["reviewer"]["login"] == "bob"
    rules = f"{where}/deployment-branch-policies"
    assert ada("POST", rules, {"name": "main"}).status_code == 200
    assert ada("POST", rules, {"name": "main"}).status_code == 303
    assert [r["name"] for r in ada("GET", rules).json()["branch_policies"]] == ["main"]
    assert ada("PUT", where, {}).json()["protection_rules"] == [], "what is not named is taken away"
    assert ada("GET", rules).json()["total_count"] == 0
    assert ada("GET", "/repos/acme/churn/environments/none").status_code == 404


def test_invalid_environments_are_refused(server: Standalone, ada: Visitor) -> None:
    where = "/repos/acme/churn/environments/production"
    eve = server.github.accounts.account("eve")["id"]
    both = {"protected_branches": True, "custom_branch_policies": True}
    for body in (
        {"reviewers": [{"type": "User", "id": eve}]},
        {"reviewers": [{"type": "User", "id": 1}]},
        {"deployment_branch_policy": both},
        {"wait_timer": -1},
        {"prevent_self_review": True},
    ):
        assert ada("PUT", where, body).status_code == 422
    server.github.accounts.account("acme")["_plan"] = "free"
    answer = ada("PUT", where, {"wait_timer": 5})
    assert answer.status_code == 422 and "billing plan" in answer.json()["message"]


# Workflows.


def test_a_dispatch_starts_a_run_with_its_inputs(server: Standalone, pushed: Visitor) -> None:
    where = "/repos/acme/churn/actions/workflows/deploy.yml/dispatches"
    body: dict[str, Any] = {"ref": "main", "inputs": {"model-package-arn": "arn:x"}}
    assert pushed("POST", where, body).status_code == 204
    detailed = pushed("POST", where, {**body, "return_run_details": True})
    assert detailed.status_code == 200
    kept, first = server.github.routes.runs_of("acme/churn")
    assert (first["run_number"], kept["run_number"]) == (1, 2)
    assert kept["id"] == detailed.json()["workflow_run_id"]
    assert detailed.json()["html_url"].endswith(f"/acme/churn/actions/runs/{kept['id']}")
    assert kept["inputs"] == {"model-package-arn": "arn:x", "commit": "", "mode": "safe"}
    server.github.routes.finish(kept["id"])
    assert server.github.routes.runs_of("acme/churn")[0]["conclusion"] == "success"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "\"ref\" wasn't supplied"),
        ({"ref": "nowhere"}, "No ref found for: nowhere"),
        ({"ref": "main"}, "Required input 'model-package-arn' not provided"),
        ({"ref": "main", "inputs": {"x": "y"}}, 'Unexpected inputs provided: ["x"]'),
    ],
)  # fmt: skip
def test_a_dispatch_that_does_not_fit_the_workflow_is_refused(
    pushed: Visitor, body: Any, message: str
) -> None:
    where = "/repos/acme/churn/actions/workflows/deploy.yml/dispatches"
    answer = pushed("POST", where, body)
    assert answer.status_code == 422 and message in answer.json()["message"]


def test_a_workflow_that_is_absent_or_not_dispatchable_starts_nothing(
    server: Standalone, pushed: Visitor, tmp_path: Path
) -> None:
    other = {".github/workflows/ci.yml": "on: [push]\njobs: {}\n"}
    assert push(server, pushed.token, tmp_path / "w", **other).returncode == 0
    where = "/repos/acme/churn/actions/workflows"
    body = {"ref": "main", "inputs": {"model-package-arn": "a"}}
    assert pushed("POST", f"{where}/none.yml/dispatches", body).status_code == 404
    answer = pushed("POST", f"{where}/ci.yml/dispatches", {"ref": "main"})
    assert "does not have 'workflow_dispatch'" in answer.json()["message"]
    assert server.github.routes.runs_of("acme/churn") == []


def test_pygithub_works_with_it(server: Standalone, pushed: Visitor) -> None:
    client = Github(auth=Auth.Token(pushed.token), base_url=server.api, retry=None)
    assert client.get_user().login == "ada"
    repository = client.get_repo("acme/churn")
    repository.create_secret("A", "sealed by PyGithub")
    repository.create_variable("REGION", "eu-west-1")
    repository.create_environment("staging")
    assert server.github.routes.secret("acme/churn", "A") == "sealed by PyGithub"
    assert [each.name for each in repository.get_secrets()] == ["A"]
    assert [each.value for each in repository.get_variables()] == ["eu-west-1"]
    assert repository.get_branch("main").commit.sha


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with Standalone(tmp_path) as server:
        server.github.accounts.add("ada")
        server.github.routes.add("ada", "churn")
        token = server.github.accounts.token("ada", "repo")
    with Standalone(tmp_path) as server:
        assert Visitor(server, token)("GET", "/repos/ada/churn").status_code == 200


# Names.


def test_a_renamed_repository_is_found_by_its_old_name(server: Standalone, ada: Visitor) -> None:
    number = ada("GET", "/repos/acme/churn").json()["id"]
    server.github.routes.rename("acme/churn", "churn-2")
    moved = requests.get(
        f"{server.api}/repos/acme/churn/environments",
        headers={"Authorization": f"Bearer {ada.token}"},
        allow_redirects=False,
        timeout=10,
    )
    assert moved.status_code == 301
    assert moved.headers["Location"].endswith(f"/repositories/{number}/environments")
    assert ada("GET", "/repos/acme/churn").json()["full_name"] == "acme/churn-2"
    # Another repository may take the name.
    server.github.routes.add("acme", "churn")
    assert ada("GET", "/repos/acme/churn").json()["full_name"] == "acme/churn"


def test_new_repositories_are_named_by_numbers_in_tokens(server: Standalone, ada: Visitor) -> None:
    where = "/repos/acme/churn/actions/oidc/customization/sub"
    number = ada("GET", "/repos/acme/churn").json()["id"]
    owner = server.github.accounts.account("acme")["id"]
    shown = ada("GET", where).json()
    assert shown["sub_claim_prefix"] == f"repo:acme@{owner}/churn@{number}"
    server.github.store.all("GitHubRepository")["acme/churn"]["_subject"] = "names"
    assert ada("GET", where).json()["sub_claim_prefix"] == "repo:acme/churn"


@pytest.mark.parametrize(
    ("plan", "reviewers", "policy"),
    [("free", 422, 422), ("team", 422, 200), ("enterprise", 200, 200)],
)
def test_private_repositories_have_the_rules_of_their_plan(
    server: Standalone, ada: Visitor, plan: str, reviewers: int, policy: int
) -> None:
    server.github.accounts.account("acme")["_plan"] = plan
    where = "/repos/acme/churn/environments/production"
    who = {"type": "User", "id": server.github.accounts.account("ada")["id"]}
    custom = {"protected_branches": False, "custom_branch_policies": True}
    assert ada("PUT", where, {"reviewers": [who]}).status_code == reviewers
    assert ada("PUT", where, {"deployment_branch_policy": custom}).status_code == policy
    assert ada("PUT", where, {}).status_code == 200


def test_commits_are_compared_as_github_does(
    server: Standalone, ada: Visitor, tmp_path: Path
) -> None:
    token, folder = ada.token, tmp_path / "clone"
    push(server, token, folder, **{"a.txt": "1"})
    first = server.github.bare.commit("acme/churn", "main")
    push(server, token, folder, **{"a.txt": "2"})
    second = server.github.bare.commit("acme/churn", "main")
    place = "/repos/acme/churn/compare"

    def status(span: str) -> Any:
        return ada("GET", f"{place}/{span}?per_page=1").json().get("status")

    assert (status(f"{first}...main"), status(f"main...{first}")) == ("ahead", "behind")
    assert status(f"{second}...main") == "identical"
    for span in (f"{'f' * 40}...main", "main...", f"{first}..main", "main"):
        assert ada("GET", f"{place}/{span}").status_code == 404
    answer = ada("GET", f"{place}/{first}...main").json()
    assert (answer["ahead_by"], answer["behind_by"], answer["total_commits"]) == (1, 0, 1)
    narrow = server.github.accounts.fine_grained("ada", "acme", ["churn"], actions="read")
    assert Visitor(server, narrow)("GET", f"{place}/{first}...main").status_code == 403


def test_an_environment_has_variables_and_secrets_of_its_own(
    server: Standalone, ada: Visitor
) -> None:
    place = "/repos/acme/churn/environments/production"
    assert ada("GET", f"{place}/variables").status_code == 404
    ada("PUT", place, {})
    variable = {"name": "ROLE", "value": "own"}
    for where in ("/repos/acme/churn/actions", place):
        assert ada("POST", f"{where}/variables", variable).status_code == 201
    changed = ada("PATCH", f"{place}/variables/ROLE", {"value": "other"})
    assert changed.status_code == 204
    [own] = ada("GET", f"{place}/variables").json()["variables"]
    [of_all] = ada("GET", "/repos/acme/churn/actions/variables").json()["variables"]
    assert (own["value"], of_all["value"]) == ("other", "own")
    sealed = ada.seal(place, "canary")
    assert ada("PUT", "/repos/acme/churn/actions/secrets/KEY", sealed).status_code == 422
    assert ada("PUT", f"{place}/secrets/KEY", sealed).status_code == 201
    assert server.github.routes.secret("acme/churn", "KEY", "production") == "canary"
    assert ada("GET", "/repos/acme/churn/actions/secrets").json()["total_count"] == 0
    for what in ("variables/ROLE", "secrets/KEY"):
        assert ada("DELETE", f"{place}/{what}").status_code == 204
    narrow = server.github.accounts.fine_grained("ada", "acme", ["churn"], secrets="write")
    assert Visitor(server, narrow)("GET", f"{place}/secrets").status_code == 403
