"""Signing in to GitHub, and how its errors are reported."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from urllib3 import HTTPSConnectionPool
from urllib3.exceptions import ReadTimeoutError

from fault_injection import inject_github
from github_case import NAME, add_people
from github_people import add_app, install, limit
from sm_mlops import github
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, GitHubError, Place
from standalone import Standalone


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standalone]:
    monkeypatch.setattr(github, "BACKOFF_SECONDS", 0)
    with Standalone(tmp_path / "github") as server:
        add_people(server)
        server.github.routes.add("acme", "churn")
        yield server


@pytest.fixture
def hub(server: Standalone) -> GitHub:
    return signed_in(server, "repo", "workflow")


def signed_in(server: Standalone, *scopes: str, login: str = "ada") -> GitHub:
    token = server.github.accounts.token(login, *scopes)
    return GitHub(token, "GITHUB_TOKEN", Place(server.api, server.url))


def told(hub: GitHub) -> str:
    """Return the error when GitHub does not show the repository."""
    with pytest.raises(GitHubError) as refused:
        hub.repository(NAME)
    line = str(refused.value)
    assert "\n" not in line and hub.token not in line
    return line


# The token.


def test_the_token_is_the_first_of_two_variables_and_gh(tmp_path: Path) -> None:
    gh = tmp_path / "gh"
    gh.write_text('#!/bin/sh\necho "gho_$4"\n')
    gh.chmod(0o755)
    every = {"GITHUB_TOKEN": "a", "GH_TOKEN": "b", "PATH": str(tmp_path)}
    assert (github.sign_in(every).token, github.sign_in(every).origin) == ("a", "GITHUB_TOKEN")
    assert github.sign_in({**every, "GITHUB_TOKEN": " "}).token == "b"
    by_gh = github.sign_in({"PATH": str(tmp_path)})
    assert (by_gh.token, by_gh.origin) == ("gho_github.com", "gh auth login")
    assert github.sign_in({"PATH": str(tmp_path)}, "ghe.acme.com").token == "gho_ghe.acme.com"


def test_without_a_token_the_permissions_it_needs_are_listed(tmp_path: Path) -> None:
    gh = tmp_path / "gh"
    gh.write_text("#!/bin/sh\nexit 1\n")
    gh.chmod(0o755)
    for path in (str(tmp_path), str(tmp_path / "empty")):
        with pytest.raises(MlopsError) as refused:
            github.sign_in({"PATH": path})
        line = str(refused.value)
        assert "gh auth login --scopes repo,workflow" in line
        assert "Administration, Actions, Contents, Environments, Secrets, Variables" in line


@pytest.mark.parametrize("token", ["ghp_1 ghp_2", "ghp_1\n-----BEGIN", "ghp_\u00e4", ""])
def test_a_malformed_token_is_neither_sent_nor_shown(token: str) -> None:
    with pytest.raises(MlopsError, match="MLOPS_TRIGGER_TOKEN: a token must be") as refused:
        GitHub(token, "MLOPS_TRIGGER_TOKEN")
    assert "ghp_" not in str(refused.value)


def test_github_enterprise_server_has_its_api_below_a_path() -> None:
    assert github.place({}) == Place("https://api.github.com", "https://github.com")
    own = github.place({}, "ghe.acme.com")
    assert own == Place("https://ghe.acme.com/api/v3", "https://ghe.acme.com")
    given = {"GITHUB_API_URL": "http://x/api/v3/", "GITHUB_SERVER_URL": "http://x"}
    assert github.place(given, "ghe.acme.com") == Place("http://x/api/v3", "http://x")


def test_missing_scopes_are_named_and_how_to_add_them(server: Standalone) -> None:
    hub = signed_in(server, "repo", "gist")
    hub.require("repo")
    with pytest.raises(MlopsError, match="GITHUB_TOKEN lacks the scope workflow: add to it at"):
        hub.require("repo", "workflow")
    hub.origin = "gh auth login"
    with pytest.raises(MlopsError, match="workflow and read:org: gh auth refresh --scopes work"):
        hub.require("workflow", "read:org")
    signed_in(server, "admin:org").require("read:org")


def test_a_fine_grained_token_has_no_scopes_to_lack(server: Standalone) -> None:
    token = server.github.accounts.fine_grained("ada", "acme", None)
    hub = GitHub(token, "GH_TOKEN", Place(server.api, server.url))
    hub.require("repo", "workflow")
    assert hub.person.scopes is None and hub.person.login == "ada"


def test_the_token_of_an_app_belongs_to_no_person(server: Standalone) -> None:
    accounts = server.github.accounts
    app = add_app(accounts, "acme", "bot", actions="write")
    number = install(accounts, app["id"], "acme")
    from sm_mlops.sandbox.github.accounts import Actor

    token = accounts.installation_token(Actor("app", app=app["id"]), number, {})["token"]
    assert GitHub(token, "GITHUB_TOKEN", Place(server.api, server.url)).person.login == ""


# Repositories.


def test_a_repository_has_the_name_that_github_writes(server: Standalone, hub: GitHub) -> None:
    server.github.routes.add("acme", "Risk-Model")
    found = hub.repository("ACME/risk-model")
    assert found is not None and found.full_name == "acme/Risk-Model"
    assert hub.repository("acme/none") is None


def test_a_renamed_repository_is_found_by_its_old_name(server: Standalone, hub: GitHub) -> None:
    server.github.routes.rename(NAME, "Churn-2")
    found = hub.repository(NAME)
    assert found is not None and found.full_name == "acme/Churn-2"


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("numbers", "repo:acme@{owner}/churn@{number}"),
        ("names", "repo:acme/churn"),
        ("untold", ""),
    ],
)
def test_the_subject_is_the_one_github_reports(
    server: Standalone, hub: GitHub, kind: str, prefix: str
) -> None:
    record: Any = server.github.store.get("GitHubRepository", NAME)
    record["_subject"] = kind
    owner = server.github.accounts.account("acme")["id"]
    found = hub.repository(NAME)
    assert found is not None
    wanted = prefix.format(owner=owner, number=record["id"])
    assert github.subject(hub, found) == wanted


def test_a_customized_subject_which_no_role_trusts_is_refused_where_tokens_are_needed(
    server: Standalone, hub: GitHub
) -> None:
    record: Any = server.github.store.get("GitHubRepository", NAME)
    record["_subject"] = "custom"
    found = hub.repository(NAME)
    assert found is not None
    with pytest.raises(MlopsError, match=r"gh api -X PUT repos/acme/churn/actions/oidc/.* -F use_"):
        github.subject(hub, found)
    assert github.subject(hub, found, needed=False) == "repo:acme/churn"


def test_a_server_that_knows_no_subjects_names_repositories(
    server: Standalone, hub: GitHub
) -> None:
    found = hub.repository(NAME)
    assert found is not None
    inject_github(server.github, "GET *customization/sub", 404, "Not Found")
    assert github.subject(hub, found) == ""


# Errors.


@pytest.mark.parametrize(
    ("status", "message", "headers", "also_said"),
    [
        (401, "Bad credentials", {}, "the token from GITHUB_TOKEN is wrong, has expired"),
        (403, "Resource not accessible", {"X-Accepted-GitHub-Permissions": "secrets=write"},
         "the token from GITHUB_TOKEN needs secrets=write"),
        (403, "Must have admin rights", {}, "does not allow this, or you may not do it"),
        (403, "Resource protected by organization SAML enforcement",
         {"X-GitHub-SSO": "required; url=https://github.com/orgs/acme/sso?x=1"},
         "single sign-on: https://github.com/orgs/acme/sso?x=1"),
        (410, "Gone", {}, "410 Gone"),
        (429, "Slow down", {}, "in a few minutes"),
        (403, "wait", {"Retry-After": "900"}, "in 15 minutes"),
        (403, "You have exceeded a secondary rate limit", {"Retry-After": "3600"}, "60 minutes"),
        (503, "Unavailable", {"Retry-After": "120"}, "in 2 minutes"),
        (500, "Server Error", {}, "500 Server Error; run the same command again"),
        (0, "", {}, "cannot reach GitHub at 127.0.0.1"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_that_says_what_to_do(
    server: Standalone,
    hub: GitHub,
    status: int,
    message: str,
    headers: dict[str, str],
    also_said: str,
) -> None:
    inject_github(server.github, "GET /repos/*", status, message, headers, times=99)
    assert also_said in told(hub)


def test_an_exhausted_limit_is_reported_with_its_end(server: Standalone, hub: GitHub) -> None:
    limit(server.github.accounts, "ada", 0, 1500)
    assert "in 25 minutes" in told(hub)


@pytest.mark.slow
def test_an_unreachable_github_is_reported_with_its_host() -> None:
    hub = GitHub("ghp_x", "GH_TOKEN", Place("http://127.0.0.1:9/api/v3"))
    assert "cannot reach GitHub at 127.0.0.1:9 to show acme/churn: " in told(hub)


def test_a_github_that_says_nothing_is_reported_without_names_of_python() -> None:
    silent = ReadTimeoutError(HTTPSConnectionPool("api.github.com"), "/user", "Read timed out.")
    with pytest.raises(GitHubError) as told, GitHub("ghp_x", "GH_TOKEN").doing("show acme/churn"):
        raise requests.ReadTimeout(silent)
    assert str(told.value) == (
        "cannot reach GitHub at api.github.com to show acme/churn: Read timed out; run the same "
        "command again"
    )


def test_a_short_wait_is_waited_for(server: Standalone, hub: GitHub, caplog: Any) -> None:
    inject_github(server.github, "GET /repos/*", 403, "slow down", {"Retry-After": "1"})
    began = time.monotonic()
    assert hub.repository(NAME) is not None
    assert time.monotonic() - began >= 1
    assert "GitHub asks to wait 1 seconds" in caplog.text


def test_a_failure_that_passes_is_not_reported(server: Standalone, hub: GitHub) -> None:
    inject_github(server.github, "GET /repos/*", 502, "Bad Gateway", times=2)
    assert hub.repository(NAME) is not None


# What must not be shown.


def test_no_log_shows_tokens_or_what_is_sent(
    server: Standalone, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = signed_in(server, "repo")
    for name in ("", "github", "github.Requester", "urllib3", "requests", "ops"):
        caplog.set_level(logging.DEBUG, name)
    found = hub.repository(NAME)
    assert found is not None
    found.create_variable("NAME", "canary-value")
    found.create_secret("SECRET", "canary-secret")
    inject_github(server.github, "GET /repos/*", 403, "no", times=9)
    told(hub)
    heard = caplog.text + repr(hub) + "".join(capfd.readouterr())
    for secret in (hub.token, "canary", "Authorization", "encrypted_value"):
        assert secret not in heard
