"""What bootstrap does at GitHub: repository, trigger credential, settings and first push."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fault_injection import inject_github, pending
from github_case import (
    ENVIRONMENTS,
    KEYS,
    NAME,
    ROLE,
    ROLES,
    World,
    add_people,
    add_secrets,
    commit,
    git,
    outputs_of,
)
from github_case import identify as identify_repo
from github_people import add_app, add_team, install
from repos import Repo, make_repo
from sm_mlops import github
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential, plan
from sm_mlops.bootstrap.push import Push
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox.github.answers import Refused
from sm_mlops.sandbox.github.environments import Environments
from standalone import Standalone

pytestmark = pytest.mark.slow

POLICY = {"protected_branches": False, "custom_branch_policies": True}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standalone]:
    monkeypatch.setattr(github, "BACKOFF_SECONDS", 0)
    with Standalone(tmp_path / "github") as server:
        add_people(server)
        yield server


@pytest.fixture
def world(server: Standalone, repo: Repo, account: Aws) -> World:
    """Yield a committed repo, an account with the platform's secret, and an empty GitHub."""
    commit(repo)
    add_secrets(account, key=True)
    token = server.github.accounts.token("ada", "repo", "workflow")
    given = server.github.accounts.fine_grained("ada", "acme", None, actions="write")
    return World(server, repo, account, token, {credential.TOKEN: given})


@pytest.fixture
def done(world: World) -> World:
    world.act()
    return world


def identity(world: World, login: str) -> int:
    return int(world.server.github.accounts.account(login)["id"])


def refused(world: World) -> str:
    """Return the line that ends looking or acting."""
    with pytest.raises(MlopsError) as error:
        world.looked()
        world.act()
    line = str(error.value)
    assert "\n" not in line and world.token not in line
    return line


# All of it.


def test_the_plan_names_everything_before_anything_is_there(world: World) -> None:
    assert world.looked() == [
        "create GitHub repository: private",
        "create trigger credential: the token from MLOPS_TRIGGER_TOKEN",
        "create environment training: needs no approval",
        "create environment staging: needs no approval",
        "create environment production: needs approval by ada",
        f"create variable AWS_ROLE_ARN of environment training: {ROLE}",
        f"create variable AWS_ROLE_ARN of environment staging: {ROLES['staging']}",
        f"create variable AWS_ROLE_ARN of environment production: {ROLES['production']}",
        "create branch main: pushed from here, which starts the first training",
    ]
    assert world.record() is None
    assert not [label for label in world.requests() if not label.startswith("GET")]


def test_from_nothing_everything_is_made(world: World) -> None:
    told = world.act()
    url = world.server.url
    assert told == [
        f"created      private repository {url}/acme/churn",
        "stored       trigger credential: the token from MLOPS_TRIGGER_TOKEN",
        "created      environment training: needs no approval",
        "created      environment staging: needs no approval",
        "created      environment production: needs approval by ada",
        f"set          variable AWS_ROLE_ARN of environment training to {ROLE}",
        f"set          variable AWS_ROLE_ARN of environment staging to {ROLES['staging']}",
        f"set          variable AWS_ROLE_ARN of environment production to {ROLES['production']}",
        f"added        remote origin {url}/acme/churn.git",
        f"pushed       main to {url}/acme/churn",
    ]
    ada = identity(world, "ada")
    assert world.state() == {
        "repositories": [NAME],
        "private": True,
        "variables": {},
        "secrets": {},
        "environments": {
            "training": ([], True, POLICY, ["main"]),
            "staging": ([], True, POLICY, ["main"]),
            "production": ([{"type": "User", "id": ada}], False, POLICY, ["main"]),
        },
        "of environments": {
            ENVIRONMENTS[part]: {"AWS_ROLE_ARN": role} for part, role in ROLES.items()
        },
        "branches": ["main"],
        "remote": f"{url}/acme/churn.git",
        "credential": ["token"],
    }


def test_a_second_time_nothing_is_left_to_do(done: World) -> None:
    assert {line.split()[0] for line in done.looked()} == {"exists"}
    done.server.github.requests.clear()
    assert done.act() == []
    assert not [label for label in done.requests() if not label.startswith("GET")]


FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"status": 422, "message": "no"},
    "answer lost": {"status": 502, "message": "no", "acts": True},
    "answers lost for good": {"status": 0, "times": 9, "acts": True},
}


@pytest.mark.long
@pytest.mark.parametrize(
    "ways", [(*FAULTS,), *((way,) for way in FAULTS)], ids=["in turn", *FAULTS]
)
def test_after_a_failure_at_any_request_the_next_run_finishes(
    ways: tuple[str, ...], tmp_path: Path, account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(github, "BACKOFF_SECONDS", 0)
    add_secrets(account, key=True)
    first = make_repo(tmp_path / "first")
    identify_repo(first, sign_in="iam-user")
    shutil.rmtree(first.root / "model")
    commit(first)
    client = account.client("secretsmanager")

    @contextmanager
    def fresh(name: str) -> Iterator[World]:
        root = tmp_path / name
        shutil.copytree(first.root, root)
        client.delete_secret(SecretId=credential.SECRET, ForceDeleteWithoutRecovery=True)
        client.create_secret(Name=credential.SECRET)
        with Standalone(tmp_path / f"github {name}") as server:
            add_people(server)
            token = server.github.accounts.token("ada", "repo", "workflow")
            outputs = outputs_of(keyed=True)
            yield World(server, Repo(root), account, token, {credential.TOKEN: token}, outputs)

    def state(world: World) -> Any:
        found = world.state()
        return {**found, "remote": found["remote"].rpartition("/_github/")[2]}

    with fresh("whole") as world:
        world.act()
        wanted, requests = state(world), sorted(set(world.requests()))
    assert len(requests) > 20
    failed = 0
    for number, request in enumerate(requests):
        with fresh(str(number)) as world:
            how = ways[number % len(ways)]
            inject_github(world.server.github, request, **FAULTS[how])
            try:
                world.act()
            except MlopsError as error:
                failed += 1
                assert "\n" not in str(error) and world.token not in str(error)
            pending(world.server.github).clear()
            world.act()
            assert state(world) == wanted, request
            assert {line.split()[0] for line in world.looked()} == {"exists"}, request
    # A lost answer alone is requested again, but git reports that it failed.
    share = 0.8 if len(ways) == 1 else 0.5
    assert failed == 2 if ways == ("answer lost",) else failed > len(requests) * share


# The repository.


def test_a_users_own_repository_is_made_as_the_users(world: World) -> None:
    identify_repo(world.repo, github="ada/churn")
    world.environment = {credential.TOKEN: world.token}
    world.act()
    assert world.record("ada/churn")["private"] is True
    assert "POST /user/repos" in world.requests()


def test_another_users_repository_cannot_be_made(world: World) -> None:
    identify_repo(world.repo, github="bob/churn")
    assert "ask bob for the repository" in refused(world)


def test_an_owner_that_does_not_exist_is_reported(world: World) -> None:
    identify_repo(world.repo, github="nobody/churn")
    assert "GitHub has no user or organization nobody: correct github" in refused(world)


def test_names_in_other_letters_are_githubs_own(world: World) -> None:
    world.server.github.routes.add("acme", "Churn")
    identify_repo(world.repo, github="ACME/CHURN")
    world.act()
    assert git(world.repo.root, "remote", "get-url", "origin").endswith("/acme/Churn.git")
    from sm_mlops.bootstrap.repository import names

    assert names(world.hub, world.aws.settings) == ("acme", "Churn")
    identify_repo(world.repo, github="ACME/New")
    assert names(world.hub, world.aws.settings) == ("acme", "New")


def test_a_renamed_repository_is_used_and_reported(done: World) -> None:
    done.server.github.routes.rename(NAME, "churn-2")
    assert "manual repository name: was acme/churn before" in done.looked()
    assert done.act() == []
    done.outputs = outputs_of(ROLES | {"train": "arn:new"})
    assert done.act() == ["set          variable AWS_ROLE_ARN of environment training to arn:new"]
    training = done.record("acme/churn-2")["_environments"]["training"]
    assert training["_variables"]["AWS_ROLE_ARN"]["value"] == "arn:new"


def test_only_an_administrator_can_set_a_repository_up(world: World) -> None:
    world.server.github.routes.add("acme", "churn")
    world.token = world.server.github.accounts.token("bob", "repo", "workflow")
    assert "bob is not an administrator of acme/churn" in refused(world)


def test_an_archived_repository_is_reported(world: World) -> None:
    world.server.github.routes.add("acme", "churn")["archived"] = True
    assert "acme/churn is archived" in refused(world)


def test_a_repository_that_the_token_cannot_see_is_not_made_again(world: World) -> None:
    world.server.github.routes.add("acme", "churn")
    tokens = world.server.github.accounts
    world.token = tokens.fine_grained("ada", "acme", ["other"], administration="write")
    assert "403" in refused(world)
    inject_github(
        world.server.github, "POST /orgs/acme/repos", 422, "name already exists on this account"
    )
    assert "exists, but the token from GITHUB_TOKEN cannot see it" in refused(world)


def test_a_token_without_the_scopes_changes_nothing(world: World) -> None:
    for scopes, lacking in (
        (["workflow"], "scope repo"),
        (["repo"], "scope workflow"),
        ([], "scopes repo and workflow"),
    ):
        world.token = world.server.github.accounts.token("ada", *scopes)
        assert f"lacks the {lacking}" in refused(world)
    assert world.record() is None


# Variables, secrets.


def test_a_variable_that_differs_is_changed(done: World) -> None:
    for part in ("training", "production"):
        variables = done.record()["_environments"][part]["_variables"]
        variables["AWS_ROLE_ARN"]["value"] = "arn:aws:iam::123456789012:role/churn-github"
    assert f"change variable AWS_ROLE_ARN of environment training: {ROLE}" in done.looked()
    assert done.act() == [
        f"set          variable AWS_ROLE_ARN of environment training to {ROLE}",
        f"set          variable AWS_ROLE_ARN of environment production to {ROLES['production']}",
    ]
    assert done.state()["of environments"]["training"] == {"AWS_ROLE_ARN": ROLE}
    assert {line.split()[0] for line in done.looked()} == {"exists"}


def test_what_an_older_version_gave_to_every_branch_is_moved(keyed: World) -> None:
    """Training used to sign in with what the repository itself has."""
    keyed.act()
    record = keyed.record()
    training = record["_environments"].pop("training")
    row = {"name": "OWN", "value": "1", "updated_at": 0.0, "created_at": 0.0}
    record["_variables"] |= training["_variables"] | {"OWN": row}
    record["_secrets"] |= training["_secrets"]
    assert not [line for line in keyed.looked() if line.startswith("delete")], "it is still used"
    told = keyed.act()
    things = ["variable AWS_ROLE_ARN", *(f"secret {name.upper()}" for name in KEYS["train"])]
    assert told[-3:] == [f"deleted      {thing}" for thing in things]
    assert (keyed.state()["variables"], keyed.state()["secrets"]) == ({"OWN": "1"}, {})
    in_the_environment = {name.upper(): value for name, value in KEYS["train"].items()}
    assert keyed.state()["of environments"]["training"] == in_the_environment | {
        "AWS_ROLE_ARN": ROLE
    }
    record["_variables"]["AWS_ROLE_ARN"] = row | {"name": "AWS_ROLE_ARN"}
    what = "delete variable AWS_ROLE_ARN: moved to the environment training, for main only"
    assert what in keyed.looked()
    assert keyed.act() == ["deleted      variable AWS_ROLE_ARN"]
    assert {line.split()[0] for line in keyed.looked()} == {"exists"}


def test_before_there_is_a_project_it_can_be_looked_at(world: World) -> None:
    world.outputs = None
    what = "create variable AWS_ROLE_ARN of environment training"
    assert f"{what}: the project's role churn-github-train" in world.looked()
    assert "no SageMaker project churn yet" in refused(world)


@pytest.fixture
def keyed(world: World) -> World:
    identify_repo(world.repo, sign_in="iam-user")
    world.outputs = outputs_of(keyed=True)
    return world


def test_the_keys_are_sealed_into_githubs_secrets(keyed: World) -> None:
    what = "secrets AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY of environment"
    user = "the key of the project's user churn-github-train"
    assert f"create {what} training: {user}" in keyed.looked()
    told, state = keyed.act(), keyed.state()
    assert state["secrets"] == {}, "the workflow of any branch could read them"
    for part, values in KEYS.items():
        name = ENVIRONMENTS[part]
        assert f"set          {what} {name}" in told
        held = state["of environments"][name]
        assert {k: v for k, v in held.items() if k != "AWS_ROLE_ARN"} == {
            name.upper(): value for name, value in values.items()
        }
        assert f"exists {what} {name}" in keyed.looked()


def test_a_key_that_is_newer_than_githubs_is_set_again(keyed: World) -> None:
    keyed.act()
    secrets = keyed.record()["_environments"]["training"]["_secrets"]
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).timestamp()
    secrets["AWS_SECRET_ACCESS_KEY"]["updated_at"] = long_ago
    what = "secrets AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY of environment training"
    assert f"change {what}: the key has been replaced" in keyed.looked()
    assert keyed.act() == [f"set          {what}"]
    assert keyed.act() == []


def test_jenkins_is_told_what_it_needs_and_github_gets_no_settings(world: World) -> None:
    identify_repo(world.repo, ci="jenkins", sign_in="iam-user")
    world.environment = {"MLOPS_JENKINS_USER": "ci", "MLOPS_JENKINS_TOKEN": "canary-jenkins"}
    looked = world.looked()
    assert looked[2] == (
        "manual Jenkins credentials churn-train-key-id and churn-train-key-secret in the folder of "
        "the multibranch pipeline: "
        "the key of the project's user churn-github-train, as secret texts"
    )
    assert looked[4].startswith(
        "manual Jenkins credentials churn-production-key-id and churn-production-key-secret in the "
        "folder churn-production alone: "
    )
    assert looked[5].startswith("manual Jenkins job churn-production/deploy: ")
    world.act()
    assert world.secret() == {"jenkins_user": "ci", "jenkins_token": "canary-jenkins"}
    assert not world.record()["_environments"] and not world.record()["_variables"]


# Environments.


def reviewers(world: World, stage: str) -> list[Any]:
    found = world.record()["_environments"][stage]["_reviewers"]
    return [(each["type"], each["id"]) for each in found]


def test_users_and_teams_are_asked(world: World) -> None:
    team = add_team(world.server.github.accounts, "acme", "leads", ["bob"])["id"]
    world.token = world.server.github.accounts.token("ada", "repo", "workflow", "read:org")
    world.repo.stage("production", Reviewers=["bob", "acme/leads"])
    world.act()
    assert reviewers(world, "production") == [("User", identity(world, "bob")), ("Team", team)]
    assert "exists environment production: needs approval by bob, leads" in world.looked()


def test_a_team_needs_a_scope_that_is_named(world: World) -> None:
    add_team(world.server.github.accounts, "acme", "leads", ["bob"])
    world.repo.stage("production", Reviewers=["acme/leads"])
    assert "lacks the scope read:org" in refused(world)


def test_a_reviewer_that_github_does_not_know_is_reported_with_the_file(world: World) -> None:
    world.repo.stage("production", Reviewers=["zoe"])
    line = refused(world)
    assert "infra/production.json: Reviewers: this token cannot see a GitHub user zoe" in line
    assert world.record() is None


def test_a_reviewer_without_access_is_reported(world: World) -> None:
    world.repo.stage("production", Reviewers=["eve"])
    line = refused(world)
    assert "Reviewers in infra/production.json need read access to the repository" in line


def test_production_without_approval_is_reported_loudly(world: World) -> None:
    world.repo.stage("production", Reviewers=[])
    words = "needs NO approval: the registry's is the only gate"
    assert f"create environment production: {words}" in world.looked()
    assert f"created      environment production: {words}" in world.act()
    assert f"exists environment production: {words}" in world.looked()


def test_a_github_that_does_not_know_the_bypass_gets_every_other_rule(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As GitHub Enterprise Server, which neither takes nor shows it."""
    check, shown = Environments._check, Environments._environment

    def refuse(self: Environments, record: Any, body: Any) -> None:
        if "can_admins_bypass" in body:
            raise Refused(422, 'Invalid request.\n\n"can_admins_bypass" is not a permitted key.')
        check(self, record, body)

    def hide(self: Environments, *words: Any) -> Any:
        return {k: v for k, v in shown(self, *words).items() if k != "can_admins_bypass"}

    monkeypatch.setattr(Environments, "_check", refuse)
    monkeypatch.setattr(Environments, "_environment", hide)
    world.act()
    assert reviewers(world, "production")
    assert {line.split()[0] for line in world.looked()} == {"exists"}


def test_existing_reviewers_stay_if_no_others_are_named(done: World) -> None:
    """Whoever runs it next does not take the place of the first."""
    bob = identity(done, "bob")
    environment = done.record()["_environments"]["production"]
    environment["_reviewers"] = [{"type": "User", "id": bob}]
    assert "exists environment production: needs approval by bob" in done.looked()
    environment["_bypass"] = True
    assert "change environment production: no bypass for administrators" in done.looked()
    done.act()
    assert reviewers(done, "production") == [("User", bob)]
    assert environment["_bypass"] is False


def test_who_may_not_approve_their_own_is_not_asked_where_nobody_is(done: World) -> None:
    """GitHub refuses to prevent self-review without a reviewer."""
    environment = done.record()["_environments"]["production"]
    environment["_self"] = True
    done.repo.stage("production", Reviewers=[])
    done.act()
    assert reviewers(done, "production") == [] and environment["_self"] is False


def test_an_environment_with_other_settings_is_changed_and_keeps_the_rest(
    done: World,
) -> None:
    staging = done.record()["_environments"]["staging"]
    row = {"name": "A", "value": "1", "updated_at": 0.0, "created_at": 0.0}
    staging.update(_wait=30, _policy=None, _policies=[])
    staging["_variables"]["A"] = row
    production = done.record()["_environments"]["production"]
    production["_policies"].append({"id": 7, "name": "release/*", "type": "branch"})
    production["_policies"].append({"id": 8, "name": "v*", "type": "tag"})
    done.repo.stage("production", Reviewers=["bob"])
    looked = done.looked()
    assert "change environment staging: main only" in looked
    assert "change environment production: needs approval by bob, main only" in looked
    done.act()
    assert done.state()["environments"]["staging"][3] == ["main"]
    assert done.record()["_environments"]["staging"]["_wait"] == 30
    assert done.state()["of environments"]["staging"]["A"] == "1"
    assert done.state()["environments"]["production"][3] == ["main"]
    assert reviewers(done, "production") == [("User", identity(done, "bob"))]
    assert done.act() == []


def test_an_environment_of_no_stage_is_reported_and_left_alone(done: World) -> None:
    (done.repo.root / "infra" / "staging.json").unlink()
    line = "exists environment staging: kept: belongs to no stage here"
    assert line in done.looked()
    done.act()
    assert "staging" in done.record()["_environments"]
    part = done.settings()
    shown = {item.what: str(item.todo) for item in part.look_back()}
    assert shown["environment staging"] == "exists"
    assert shown["environment production"] == "delete"
    part.undo(done.tell)
    assert list(done.record()["_environments"]) == ["staging"]


def test_every_stage_has_an_environment(world: World) -> None:
    world.repo.stage("qa", Account=None, Parameters={})
    world.act()
    assert list(world.record()["_environments"]) == ["training", "staging", "qa", "production"]


@pytest.mark.parametrize(
    ("plan_name", "stays", "lacking"),
    [
        ("team", POLICY, "needs approval by ada, no bypass for administrators"),
        ("free", None, "needs approval by ada, no bypass for administrators, main only"),
    ],
)
def test_rules_beyond_githubs_plan_are_left_to_a_person(
    world: World, plan_name: str, stays: Any, lacking: str
) -> None:
    world.server.github.accounts.account("acme")["_plan"] = plan_name
    told = world.act()
    why = f"production is NOT SET UP: the GitHub plan of acme does not allow {lacking}"
    assert f"environment {why}" in told
    assert world.record()["_environments"]["production"]["_policy"] == stays
    # Without a role, no job deploys there unasked.
    assert world.state()["of environments"] == {
        "training": {"AWS_ROLE_ARN": ROLE},
        "staging": {"AWS_ROLE_ARN": ROLES["staging"]},
        "production": {},
    }
    looked = [line for line in world.looked() if not line.startswith("exists")]
    assert looked[-1].startswith("manual environment production: NOT SET UP")
    assert looked[-1].endswith(lacking)
    assert not [line for line in looked if not line.startswith("manual")]
    assert world.act() == []
    remedy = next(i.remedy for i in world.settings().look() if i.what == "environment production")
    assert remedy.endswith(
        'set "Reviewers": [] in infra/production.json if the registry\'s approval is to be the '
        "only gate"
    )
    # What is refused today may be allowed tomorrow.
    world.server.github.accounts.account("acme")["_plan"] = "enterprise"
    told = world.act()
    assert "changed      environment production: needs approval by ada" in told
    role = ROLES["production"]
    assert f"set          variable AWS_ROLE_ARN of environment production to {role}" in told
    assert {line.split()[0] for line in world.looked()} == {"exists"}
    assert list(world.record()["_variables"]) == []


def test_a_plan_without_environments_does_not_stop_the_rest(world: World) -> None:
    inject_github(world.server.github, "PUT */environments/*", 404, "Not Found", times=99)
    told = world.act()
    assert "pushed       main" in told[-1]
    assert any("production is NOT SET UP" in line for line in told)
    assert world.record()["_environments"] == {}
    # Nothing is left that the command could do.
    left = [line for line in world.looked() if not line.startswith("exists")]
    assert [line.split()[0] for line in left] == ["manual"] * 3
    remedy = next(i.remedy for i in world.settings().look() if i.what == "environment training")
    assert remedy.startswith("change to GitHub Pro, Team or Enterprise or make the repository")


@pytest.mark.parametrize("plan_name", ["team", "free"])
def test_production_without_reviewers_is_set_up_once_its_file_says_so(
    world: World, plan_name: str
) -> None:
    world.server.github.accounts.account("acme")["_plan"] = plan_name
    world.act()
    assert not world.state()["of environments"]["production"]
    world.repo.stage("production", Reviewers=[])
    role = ROLES["production"]
    assert f"set          variable AWS_ROLE_ARN of environment production to {role}" in world.act()
    # The file is asked from now on, and nobody is told to do anything.
    [line] = [line for line in world.looked() if "environment production: needs" in line]
    assert line.startswith(
        "exists environment production: needs NO approval: the registry's is the only gate"
    )
    assert ("by the trust of its role" in line) == (plan_name == "free")
    assert world.act() == []


def test_a_public_repository_has_reviewers_on_every_plan(world: World) -> None:
    world.server.github.accounts.account("acme")["_plan"] = "free"
    world.server.github.routes.add("acme", "churn", private=False)
    world.act()
    assert reviewers(world, "production") == [("User", identity(world, "ada"))]


# The trigger credential.


def app(world: World, folder: Path, repositories: list[str] | None = None, **rights: str) -> None:
    accounts = world.server.github.accounts
    made = add_app(accounts, "acme", "deployer", **rights)
    number = install(accounts, made["id"], "acme", repositories)
    (folder / "key.pem").write_text(made["private_key"])
    values = (str(made["id"]), str(number), str(folder / "key.pem"))
    world.environment = dict(zip(credential.APP, values, strict=True))


def test_a_github_app_is_tried_and_stored(world: World, tmp_path: Path) -> None:
    app(world, tmp_path, actions="write")
    world.act()
    assert sorted(world.secret()) == ["app_id", "installation_id", "private_key"]
    assert world.secret()["private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert credential.kind(world.aws) == "app"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rights": {"actions": "read"}}, "permissions requested are not granted"),
        ({"repositories": ["other"]}, "cannot see acme/churn: give it this repository"),
        ({"MLOPS_GITHUB_APP_INSTALLATION_ID": "1"}, "404 Not Found"),
        ({"MLOPS_GITHUB_APP_ID": "1"}, "401 A JSON web token could not be decoded"),
        ({"MLOPS_GITHUB_APP_KEY_FILE": "pyproject.toml"}, "holds no private key of a GitHub App"),
        ({"MLOPS_GITHUB_APP_KEY_FILE": "none"}, "cannot read none: No such file"),
        ({"MLOPS_GITHUB_APP_ID": ""}, "is set, but MLOPS_GITHUB_APP_ID is not; set both"),
    ],
)
def test_an_app_that_may_not_start_workflows_is_not_stored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, told: str
) -> None:
    monkeypatch.chdir(world.repo.root)
    rights = change.pop("rights", {"actions": "write"})
    app(world, tmp_path, change.pop("repositories", None), **rights)
    world.environment |= change
    line = refused(world)
    assert told in line and "PRIVATE" not in line
    assert credential.kind(world.aws) == "none"


def test_a_token_that_may_not_start_workflows_is_not_stored(world: World) -> None:
    tokens = world.server.github.accounts
    tokens.account("acme")["_members"]["bob"] = "member"
    for given, told in (
        ("ghp_wrong", "401 Bad credentials"),
        (tokens.fine_grained("ada", "acme", None), "needs actions=write"),
        (tokens.fine_grained("ada", "acme", ["other"], actions="write"), "cannot see acme/churn"),
        (tokens.token("ada", "workflow"), "cannot see acme/churn"),
        (tokens.token("bob", "repo"), "takes the role write"),
    ):
        world.environment = {credential.TOKEN: given}
        line = refused(world)
        assert told in line and given not in line
        assert credential.kind(world.aws) == "none"


def test_a_classic_token_without_repo_is_refused_for_a_public_repository_too(world: World) -> None:
    world.server.github.routes.add("acme", "churn", private=False)
    world.environment = {credential.TOKEN: world.server.github.accounts.token("ada", "gist")}
    assert "lacks the scope repo" in refused(world)


def test_trying_a_credential_starts_nothing(done: World) -> None:
    inject_github(done.server.github, "POST *", 500)
    assert done.server.github.routes.runs_of(NAME) == []


def test_without_a_terminal_it_is_left_to_a_person_and_the_rest_is_done(world: World) -> None:
    world.environment = {}
    assert (
        "manual trigger credential: approvals cannot start deployments without it" in world.looked()
    )
    told = world.act()
    assert not [line for line in told if "credential" in line]
    assert "pushed" in told[-1]
    item = next(item for part in world.parts() for item in part.look() if item.remedy)
    assert "run mlops secret rotate at a terminal, or first set MLOPS_TRIGGER_TOKEN" in item.remedy


def test_a_person_is_asked_without_being_shown(world: World) -> None:
    world.environment, good = {}, world.environment[credential.TOKEN]
    world.typed = ["ghp_wrong", good]
    told = world.act()
    assert "Actions: read and write" in told[1] and "Press Enter to use the token" in told[1]
    assert "401" in told[2]
    assert world.secret() == {"token": good} and world.typed == []


def test_enter_uses_the_token_of_the_sign_in(world: World) -> None:
    world.environment, world.typed = {}, [""]
    assert "stored       trigger credential: the token from GITHUB_TOKEN" in world.act()
    assert world.secret() == {"token": world.token}


def test_a_credential_by_hand_counts_as_a_token(world: World) -> None:
    client = world.aws.client("secretsmanager")
    client.put_secret_value(SecretId=credential.SECRET, SecretString="{}")
    [shown] = [line for line in world.looked() if line.startswith("exists trigger credential")]
    assert shown.endswith(f"token; all repos of the account share it: it has to reach {NAME}")
    assert credential.kind(world.aws) == "token"


def test_jenkins_misses_its_part_of_a_credential(done: World) -> None:
    identify_repo(done.repo, ci="jenkins", sign_in="iam-user")
    line = "manual Jenkins user and token in it: it has only token"
    assert line in done.looked()


def test_without_a_platform_there_is_no_credential(
    server: Standalone, repo: Repo, account: Aws
) -> None:
    commit(repo)
    token = server.github.accounts.token("ada", "repo", "workflow")
    world = World(server, repo, account, token, {credential.TOKEN: token})
    assert "create trigger credential: the token from MLOPS_TRIGGER_TOKEN" in world.looked()
    assert credential.kind(world.aws) == "none"
    assert "create the platform first" in refused(world)


# The push.


def test_no_other_origin_is_pushed_to(world: World) -> None:
    git(world.repo.root, "remote", "add", "origin", "https://u:canary@github.com/acme/other.git")
    line = refused(world)
    assert "the remote origin of this repo is https://github.com/acme/other.git, not" in line
    assert "canary" not in line
    assert world.server.github.bare.branches(NAME) == {} if world.record() else True


def test_after_a_push_whose_answer_was_lost_nothing_is_left_to_do(world: World) -> None:
    inject_github(world.server.github, "POST */git-receive-pack", 0, acts=True)
    assert "cannot push main" in refused(world)
    assert "exists branch main" in world.looked()
    assert world.act() == []
    assert git(world.repo.root, "config", "branch.main.remote").strip() == "origin"
    assert git(world.repo.root, "config", "branch.main.merge").strip() == "refs/heads/main"


@pytest.mark.parametrize(
    "origin", ["git@github.com:acme/churn.git", "ssh://git@work/ACME/churn", "{url}/Acme/Churn/"]
)
def test_an_origin_that_is_the_same_repository_stays(world: World, origin: str) -> None:
    origin = origin.format(url=world.server.url)
    git(world.repo.root, "remote", "add", "origin", origin)
    assert "added" not in " ".join(world.act())
    assert git(world.repo.root, "remote", "get-url", "origin") == origin
    assert world.server.github.bare.branches(NAME)["main"] == git(
        world.repo.root, "rev-parse", "main"
    )


def test_main_has_to_be_the_default_branch(done: World) -> None:
    assert [line for line in done.looked() if "default branch" in line] == []
    git(done.repo.root, "push", "-q", str(done.server.github.bare.path(NAME)), "main:master")
    record = done.record()
    done.server.github.routes.keep(record | {"default_branch": "master"})
    (line,) = [line for line in done.looked() if "default branch" in line]
    assert "is master; GitHub starts deploy.yml of this one alone" in line


def test_git_knows_afterwards_where_main_belongs(done: World) -> None:
    assert git(done.repo.root, "status", "-sb").splitlines()[0] == "## main...origin/main"


def test_commits_on_github_are_left_alone(done: World) -> None:
    git(done.repo.root, "commit", "-q", "--allow-empty", "-m", "Later")
    before = done.server.github.bare.branches(NAME)
    assert "exists branch main" in done.looked()
    done.act()
    assert done.server.github.bare.branches(NAME) == before


def test_main_is_pushed_while_another_branch_is_checked_out(world: World) -> None:
    main = git(world.repo.root, "rev-parse", "main")
    git(world.repo.root, "checkout", "-qb", "work")
    git(world.repo.root, "commit", "-q", "--allow-empty", "-m", "Work")
    world.act()
    assert world.server.github.bare.branches(NAME) == {"main": main}


def unprepare(root: Path, how: str, branch: str = "main") -> None:
    """Leave the repo on `master`, or without git, or with a git that has no commit yet."""
    if how == "master":
        git(root, "branch", "-m", "master")
    else:
        shutil.rmtree(root / ".git")
    if how == "no commit":
        git(root, "init", "-q", "-b", branch)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("no git", "this folder is not a git repository"),
        ("no commit", "there is no commit on main"),
        ("master", "there is no commit on main"),
        ("inside", "this folder is part of another repository"),
    ],
)
def test_what_git_lacks_is_left_to_a_person(
    world: World, tmp_path: Path, how: str, told: str
) -> None:
    unprepare(world.repo.root, how)
    if how == "inside":
        git(tmp_path, "init", "-q")
    assert any(line.startswith(f"manual branch main: {told}") for line in world.looked())
    assert "pushed" not in " ".join(world.act())


@pytest.mark.parametrize("how", ["no git", "no commit", "master"])
def test_the_commands_that_it_names_are_enough(world: World, how: str) -> None:
    root = world.repo.root
    unprepare(root, how, branch="trunk")
    push = Push(world.aws.settings, world.hub)
    [item] = push.look()
    commands = item.remedy.removesuffix(", then mlops bootstrap")
    [item] = Push(world.aws.settings, world.hub, sandbox=True).look()
    assert item.remedy == f"{commands}, then mlops --sandbox bootstrap"
    identity = {
        f"GIT_{who}_{what}": "a@b.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    subprocess.run(
        ["sh", "-ec", commands],
        cwd=root,
        check=True,
        env=os.environ | identity,
        capture_output=True,
    )
    [item] = push.look()
    assert item.todo is plan.Todo.CREATE


def test_a_machine_without_git_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert world.looked()[-1] == "manual branch main: git is not installed"


def test_a_token_that_may_not_change_workflows_is_reported(world: World) -> None:
    rights = dict.fromkeys(
        ("administration", "actions", "contents", "environments", "secrets", "actions_variables"),
        "write",
    )
    world.token = world.server.github.accounts.fine_grained("ada", "acme", None, **rights)
    assert "it needs the scope workflow (classic) or the permission Workflows" in refused(world)
    world.token = world.server.github.accounts.fine_grained(
        "ada", "acme", None, **{**rights, "contents": "read"}
    )
    assert "the scope repo (classic) or the permission Contents: write" in refused(world)
    world.token = world.server.github.accounts.fine_grained(
        "ada", "acme", None, **rights, workflows="write"
    )
    world.act()
    assert {line.split()[0] for line in world.looked()} == {"exists"}


def test_someone_elses_commits_are_not_overwritten(world: World) -> None:
    aws, hub = world.aws, world.hub
    world.act()
    git(world.repo.root, "commit", "-q", "--amend", "-m", "Other")
    push = Push(aws.settings, hub)
    with pytest.raises(MlopsError, match="someone else has pushed other commits there first"):
        push._push(f"{world.server.url}/acme/churn.git")


def test_in_the_sandbox_the_repos_own_configuration_is_not_touched(world: World) -> None:
    git(world.repo.root, "remote", "add", "origin", "https://github.com/somebody/else.git")
    before = (world.repo.root / ".git" / "config").read_text()
    parts = world.parts()
    parts[-1] = Push(world.aws.settings, world.hub, sandbox=True)
    plan.carry_out(parts, world.tell)
    assert (world.repo.root / ".git" / "config").read_text() == before
    assert "main" in world.server.github.bare.branches(NAME)


# Deleting it.


def test_what_was_created_is_deleted_and_the_repository_stays(
    keyed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a SageMaker project there is no user with a key.
    monkeypatch.setattr("sm_mlops.bootstrap.keys.former", lambda aws: [])
    keyed.act()
    parts = keyed.parts()
    shown = [(str(item.todo), item.what) for item in plan.look_back(parts)]
    assert shown == [
        ("delete", "environment training"),
        ("delete", "environment staging"),
        ("delete", "environment production"),
        ("manual", "GitHub repository"),
    ]
    inject_github(keyed.server.github, "DELETE */environments/staging", 422, "no")
    with pytest.raises(MlopsError):
        plan.take_back(parts, keyed.tell)
    left = plan.take_back(keyed.parts(), keyed.tell)
    assert [item.what for item in left] == ["GitHub repository"]
    assert "to delete it" in left[0].remedy
    record = keyed.record()
    assert not (record["_variables"] or record["_secrets"] or record["_environments"])
    assert keyed.server.github.bare.branches(NAME)


# What must not be shown.


def test_no_secret_is_found_anywhere_afterwards(
    keyed: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another test, or a library that it imported, may have set the level of any of them.
    for name in ("", *logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, name)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    # These are loud on purpose.
    trace = tmp_path / "trace"
    for name in ("GIT_TRACE", "GIT_TRACE_CURL", "GIT_TRACE_PACKET"):
        monkeypatch.setenv(name, str(trace))
    monkeypatch.setenv("GIT_TRACE_REDACT", "0")
    arguments = watch_arguments(monkeypatch)
    given = keyed.environment[credential.TOKEN]
    texts = []
    for where in ("POST /orgs/*", "PUT */secrets/*", "PUT */environments/*", "GET */info/refs"):
        inject_github(keyed.server.github, where, 422, "no")
        with pytest.raises(MlopsError) as error:
            keyed.act()
        texts += traceback.format_exception(error.value)
    texts += keyed.act()
    texts += keyed.looked()
    texts += [repr(part) for part in keyed.parts()]
    texts += [*capfd.readouterr(), caplog.text, *arguments]
    texts += [trace.read_text(errors="replace") if trace.exists() else ""]
    texts += [
        path.read_bytes().decode("latin-1") for path in keyed.repo.root.rglob("*") if path.is_file()
    ]
    everything = "\n".join(texts)
    basic = base64.b64encode(f"x-access-token:{keyed.token}".encode()).decode()
    secrets = [key["aws_secret_access_key"] for key in KEYS.values()]
    for secret in (keyed.token, basic, given, *secrets):
        at = everything.find(secret)
        assert at < 0, everything[max(at - 300, 0) : at]
    # Otherwise nothing above could fail.
    assert "botocore.endpoint" in caplog.text
    assert list(temporary.rglob("*")) == []


def watch_arguments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of every process started from now on, and of their children."""
    seen: list[str] = []
    real = subprocess.Popen.__init__

    def begin(self: Any, arguments: Any, *rest: Any, **more: Any) -> None:
        seen.append(json.dumps([str(each) for each in arguments]))
        real(self, arguments, *rest, **more)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                seen.append((folder / "cmdline").read_bytes().decode("latin-1"))
            except OSError:
                continue

    monkeypatch.setattr(subprocess.Popen, "__init__", begin)
    assert os.name == "posix"
    return seen
