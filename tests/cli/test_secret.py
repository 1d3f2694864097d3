"""Replacing secrets: at every moment what GitHub and the trigger have lets them in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap_case import Kept, Killed, Land, connected_once, land, mlops_here
from fault_injection import inject_github
from github_case import ENVIRONMENTS, NAME, add_people, add_secrets, identify
from github_people import add_app, install
from repos import Repo, mlops
from sm_mlops import github, projects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import credential, project, rotation
from sm_mlops.bootstrap.credential import Credential
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.bootstrap.sign_in import KEY
from sm_mlops.cli.console import confirm
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub, Place
from standalone import Standalone

pytestmark = pytest.mark.slow

USERS = {part: f"churn-github-{part}" for part in ENVIRONMENTS}


# The trigger's credential.


class Case:
    """An account with a credential, GitHub with the repository, a person who rotates."""

    def __init__(self, server: Standalone, aws: Aws) -> None:
        self.server, self.aws = server, aws
        self.told: list[str] = []
        self.hub = GitHub(self.token("repo"), "GITHUB_TOKEN", Place(server.api, server.url))

    def token(self, *scopes: str) -> str:
        return self.server.github.accounts.token("ada", *scopes)

    def rotate(self, **environment: str) -> None:
        part = Credential(self.aws, self.hub, environment)
        rotation.rotate_credential(part, self.told.append)

    def value(self) -> Any:
        client = self.aws.client("secretsmanager")
        return json.loads(client.get_secret_value(SecretId=credential.SECRET)["SecretString"])


@pytest.fixture
def case(tmp_path: Path, account: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setattr(github, "BACKOFF_SECONDS", 0)
    with Standalone(tmp_path / "github") as server:
        add_people(server)
        server.github.routes.add("acme", "churn")
        add_secrets(account)
        yield Case(server, account)


def test_a_credential_is_replaced_and_the_previous_one_is_named(case: Case) -> None:
    case.rotate(MLOPS_TRIGGER_TOKEN=case.token("repo"))
    assert case.told == ["stored       trigger credential: the token from MLOPS_TRIGGER_TOKEN"]
    case.told.clear()
    new = case.token("repo")
    case.rotate(MLOPS_TRIGGER_TOKEN=new)
    assert case.value() == {"token": new}
    assert "The previous one still works. Delete it on GitHub" in case.told[1]
    assert new not in "".join(case.told)


def test_a_credential_that_does_not_work_leaves_the_previous_one_in_place(case: Case) -> None:
    good = case.token("repo")
    case.rotate(MLOPS_TRIGGER_TOKEN=good)
    for bad in ("ghp_wrong", case.token("gist")):
        with pytest.raises(MlopsError):
            case.rotate(MLOPS_TRIGGER_TOKEN=bad)
    assert case.value() == {"token": good}


def test_without_a_new_one_the_error_says_where_to_put_it(case: Case) -> None:
    with pytest.raises(MlopsError, match="there is no new trigger credential: set MLOPS_TR"):
        case.rotate()


def test_the_tag_names_a_layer_as_long_as_the_value_may_need_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two calls, the trigger has at least what it needs."""
    laid = []
    monkeypatch.setattr(
        "sm_mlops.bootstrap.platform.Platform.act", lambda self, tell: laid.append(1)
    )
    accounts = case.server.github.accounts
    made = add_app(accounts, "acme", "bot", actions="write")
    (tmp_path / "key.pem").write_text(made["private_key"])
    values = (
        str(made["id"]),
        str(install(accounts, made["id"], "acme")),
        str(tmp_path / "key.pem"),
    )
    as_app = dict(zip(credential.APP, values, strict=True))
    case.rotate(MLOPS_TRIGGER_TOKEN=case.token("repo"))

    seen: list[tuple[str, bool]] = []

    def note(model: Any, **_: Any) -> None:
        if model.name in ("TagResource", "PutSecretValue"):
            seen.append((credential.kind(case.aws), "token" in case.value()))

    case.aws.client("secretsmanager").meta.events.register("after-call", note)
    for environment in (as_app, {"MLOPS_TRIGGER_TOKEN": case.token("repo")}):
        case.rotate(**environment)
    assert seen == [("app", True), ("app", False), ("app", True), ("token", True)]
    assert laid == [1]


# The access key.


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return connected_once(tmp_path_factory.mktemp("kept"), sign_in="iam-user")


def enter(kept: Kept, folder: Path, monkeypatch: pytest.MonkeyPatch, **identity: str) -> Any:
    monkeypatch.setattr(github, "BACKOFF_SECONDS", 0)
    return kept.entered(folder, monkeypatch, sign_in="iam-user", **identity)


def rotate(found: Land, yes: bool = True) -> list[str]:
    told: list[str] = []
    rotation.rotate_key(found.aws, found.hub, told.append, lambda question: confirm(question, yes))
    return told


def keys(found: Land, part: str) -> list[str]:
    """What IAM lets in."""
    rows = found.aws.client("iam").list_access_keys(UserName=USERS[part])["AccessKeyMetadata"]
    return [row["AccessKeyId"] for row in rows]


def at_github(found: Land, part: str) -> list[str]:
    name = ENVIRONMENTS[part]
    return [found.server.github.routes.secret(NAME, each, name) for each in KEY]


def in_secrets_manager(found: Land, part: str) -> list[str]:
    client = found.aws.client("secretsmanager")
    name = f"sm-mlops/churn/github-{part}"
    return list(json.loads(client.get_secret_value(SecretId=name)["SecretString"]).values())


def assert_one_key_each(found: Land) -> None:
    """Check that each user has one key, which GitHub and Secrets Manager have too."""
    for part in ENVIRONMENTS:
        assert keys(found, part) == [at_github(found, part)[0]]
        assert at_github(found, part) == in_secrets_manager(found, part)


def test_the_keys_are_replaced_everywhere(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch) as found:
        Settings(found.aws, found.hub).act(lambda line: None)
        assert_one_key_each(found)
        former = {part: keys(found, part) for part in ENVIRONMENTS}
        what = "secrets AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
        assert rotate(found) == [
            *(f"created      access key of {user}" for user in USERS.values()),
            f"set          {what} of environment training",
            f"set          {what} of environment staging",
            f"set          {what} of environment production",
            *(f"deleted      previous access key of {user}" for user in USERS.values()),
        ]
        assert_one_key_each(found)
        assert all(keys(found, part) != former[part] for part in ENVIRONMENTS)


def test_a_repo_whose_training_has_no_environment_yet_is_led_to_bootstrap(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch) as found:
        Settings(found.aws, found.hub).act(lambda line: None)
        record: Any = found.server.github.store.get("GitHubRepository", NAME)
        del record["_environments"]["training"]
        with pytest.raises(MlopsError, match="no key of environment training yet; run"):
            rotate(found)
        assert all(len(keys(found, part)) == 1 for part in ENVIRONMENTS)


def test_a_rotation_that_fails_half_way_leaves_github_a_key_that_works(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch) as found:
        Settings(found.aws, found.hub).act(lambda line: None)
        for where in ("GET */secrets/public-key", "PUT */production/secrets/AWS_ACCESS_KEY_ID"):
            before = at_github(found, "production")
            # Here all happens within the second that GitHub tells times by.
            record: Any = found.server.github.store.get("GitHubRepository", NAME)
            for holder in (record, *record["_environments"].values()):
                for each in holder["_secrets"].values():
                    each["updated_at"] -= 60
            inject_github(found.server.github, where, 422, "no")
            with pytest.raises(MlopsError):
                rotate(found)
            assert at_github(found, "production") == before
            assert before[0] in keys(found, "production")
            assert "change secrets" in " ".join(
                f"{item.todo} {item.what}" for item in Settings(found.aws, found.hub).look()
            )
            told = rotate(found)
            assert told[0] == "Continuing with keys of churn that were created earlier"
            assert not any(line.startswith("created") for line in told)
            assert_one_key_each(found)


@pytest.mark.long
def test_a_rotation_that_is_killed_at_any_call_is_finished_by_the_next(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch) as found:
        Settings(found.aws, found.hub).act(lambda line: None)
        found.calls.clear()
        rotate(found)
        writes = list(found.writes)
        assert writes == ["UpdateProject", *3 * ["DeleteAccessKey"]]
        for number in range(1, len(writes) + 1):
            found.calls.clear()
            found.kill_after = number
            with pytest.raises(Killed):
                rotate(found)
            for part in ENVIRONMENTS:
                assert at_github(found, part)[0] in keys(found, part)
            rotate(found)
            assert_one_key_each(found)


def test_jenkins_keeps_the_previous_keys_until_a_person_says_it_has_the_new_ones(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch, ci="jenkins") as found:
        told = rotate(found, yes=False)
        assert "Copy the new keys from the secrets sm-mlops/churn/github-train" in told[-1]
        # As after an interruption, when nobody has read that.
        with pytest.raises(MlopsError, match=r"Jenkins must have those of the secrets .* --yes"):
            rotate(found, yes=False)
        assert all(len(keys(found, part)) == 2 for part in ENVIRONMENTS)
        deleted = [line for line in rotate(found) if line.startswith("deleted")]
        assert len(deleted) == 3
        for part in ENVIRONMENTS:
            assert keys(found, part) == in_secrets_manager(found, part)[:1]


def test_a_key_that_is_still_being_made_is_waited_for(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch) as found:
        Settings(found.aws, found.hub).act(lambda line: None)
        real = found.server.client

        def slowly(*words: Any, **more: Any) -> Any:
            time.sleep(0.3)
            return real(*words, **more)

        # What the stack's own calls are made with.
        monkeypatch.setattr(found.server, "client", slowly)
        found.kill_after = len(found.writes) + 1
        with pytest.raises(Killed):
            rotate(found)
        moving = projects.find(found.aws)
        assert moving is not None and moving.moving
        found.calls.clear()
        told = rotate(found)
        assert told[0].startswith("Waiting: ") and "UpdateProject" not in found.calls
        assert_one_key_each(found)


def test_jenkins_gets_the_key_from_a_person_before_the_previous_one_is_deleted(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch, ci="jenkins") as found:
        told = rotate(found)
        assert told[-1].startswith(
            "Copy the new keys from the secrets sm-mlops/churn/github-train, sm-mlops/churn/github-"
        )
        assert all(len(keys(found, part)) == 2 for part in ENVIRONMENTS)
        assert rotate(found)[1:] == [
            f"deleted      previous access key of {user}" for user in USERS.values()
        ]
        for part in ENVIRONMENTS:
            assert keys(found, part) == in_secrets_manager(found, part)[:1]


def test_an_interrupted_rotation_does_not_keep_the_project_from_being_deleted(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with enter(kept, tmp_path, monkeypatch, ci="jenkins") as found:
        rotate(found)
        told: list[str] = []
        Settings(found.aws, found.hub).undo(told.append)
        assert told == [f"deleted      previous access key of {user}" for user in USERS.values()]
        found.part(project.Project).undo(told.append)
        assert told[-1] == "deleted      SageMaker project churn"


# The command.


def test_a_project_without_a_key_has_none_to_rotate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with land(tmp_path, monkeypatch) as found:
        with pytest.raises(MlopsError, match="there is no SageMaker project churn yet"):
            rotate(found)
        monkeypatch.setattr(projects, "outputs", lambda aws: {"PipelineRoleArn": "x"})
        with pytest.raises(MlopsError, match="project churn signs in without a key"):
            rotate(found)


def test_the_command_refuses_in_one_line(repo: Repo) -> None:
    for arguments, told in (
        (["secret", "rotate", "cat"], "mlops: what to rotate must be all, trigger or key; "),
        (["secret", "rotate"], "mlops: not signed in to GitHub: gh auth login --scopes"),
        (["--sandbox", "secret", "rotate"], "mlops: there is no platform in this account yet; "),
        (["--sandbox", "secret", "rotate", "key"], "mlops: there is no SageMaker project churn"),
    ):
        done = mlops_here(repo.root, *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(told), done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_the_sandbox_has_its_own_github(repo: Repo) -> None:
    """No person's own token is used or stored there."""
    identify(repo, github="Somebody/Else")
    done = mlops(repo.root, "--sandbox", "doctor", GITHUB_TOKEN="canary-token", GH_TOKEN="canary-2")
    assert "you, from GITHUB_TOKEN (scopes repo, workflow)" in done.stdout + done.stderr
    file = repo.root / ".sandbox" / "github-token"
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    mlops(repo.root, "--sandbox", "doctor", GITHUB_TOKEN="canary-token")
    assert file.read_text() == token
    for path in repo.root.rglob("*"):
        assert not path.is_file() or b"canary-" not in path.read_bytes()
    assert "canary-" not in done.stdout + done.stderr
