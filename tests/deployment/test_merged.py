"""What may be deployed: versions whose commit is on main."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployment_cases import Place, place
from github_case import git
from sm_mlops import registry
from sm_mlops.deployment import merged
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow


class History:
    """A repository on the sandbox's GitHub: two commits on main, a branch, and one of elsewhere."""

    def __init__(self, here: Place, folder: Path) -> None:
        self.here, github = here, here.server.github
        github.accounts.add("ada")
        github.accounts.add("acme", "Organization", ada="admin")
        github.routes.add("acme", "churn")
        self.clone = folder / "clone"
        self.bare = str(github.bare.path("acme/churn"))
        self.clone.mkdir()
        git(self.clone, "init", "-q", "-b", "main")
        self.first, self.second = self.commit("first"), self.commit("second")
        self.push("main")
        git(self.clone, "switch", "-qc", "feature")
        self.unmerged = self.commit("unmerged")
        self.push("feature")
        git(self.clone, "switch", "-q", "main")

    def commit(self, text: str) -> str:
        (self.clone / "file").write_text(text, encoding="utf-8")
        git(self.clone, "add", "file")
        git(self.clone, "commit", "-qm", text)
        return git(self.clone, "rev-parse", "HEAD")

    def push(self, branch: str) -> None:
        git(self.clone, "push", "-qf", self.bare, branch)

    def version(self, commit: str) -> registry.Version:
        arn = self.here.register(MetadataProperties={"CommitId": commit})
        return registry.version(self.here.aws, int(arn.rpartition("/")[2]))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with place(tmp_path_factory.mktemp("merged")) as found:
        yield History(found, tmp_path_factory.mktemp("history"))


@pytest.fixture
def signed_in(history: History, monkeypatch: pytest.MonkeyPatch) -> str:
    """The token of a job: for this repository, and to read only."""
    accounts = history.here.server.github.accounts
    token = str(accounts.fine_grained("ada", "acme", ["churn"], contents="read", metadata="read"))
    monkeypatch.setenv("GITHUB_TOKEN", token)
    return token


def test_a_commit_of_main_may_be_deployed(history: History, signed_in: str) -> None:
    for commit in (history.first, history.second):
        assert merged.require(history.here.aws, history.version(commit)) == "its commit is on main"


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ("unmerged", r"which is not on main \(behind\): merge it, then train main"),
        ("f" * 40, "which is not on main .GitHub knows no such commit"),
        ("dirty", "uncommitted changes"),
        ("unknown", "uncommitted changes or outside of git"),
    ],
)
def test_what_was_never_merged_is_refused(
    history: History, signed_in: str, commit: str, said: str
) -> None:
    sha = {"unmerged": history.unmerged, "dirty": f"{history.first}-dirty"}.get(commit, commit)
    with pytest.raises(MlopsError, match=said) as refused:
        merged.require(history.here.aws, history.version(sha))
    assert "\n" not in str(refused.value)


def test_a_branch_beside_main_is_refused(history: History, signed_in: str) -> None:
    git(history.clone, "switch", "-qc", "beside", history.first)
    aside = history.commit("beside")
    history.push("beside")
    git(history.clone, "switch", "-q", "main")
    with pytest.raises(MlopsError, match=r"not on main \(diverged\)"):
        merged.require(history.here.aws, history.version(aside))


def test_a_tag_called_main_is_not_main(history: History, signed_in: str) -> None:
    git(history.clone, "push", "-qf", history.bare, f"{history.unmerged}:refs/tags/main")
    try:
        with pytest.raises(MlopsError, match="not on main"):
            merged.require(history.here.aws, history.version(history.unmerged))
    finally:
        git(history.clone, "push", "-q", history.bare, ":refs/tags/main")


def test_what_somebody_deployed_to_one_stage_by_hand_goes_no_further(
    history: History, signed_in: str
) -> None:
    version = history.version(history.unmerged)
    history.here.deploy(history.here.stage("staging"), version.arn)
    with pytest.raises(MlopsError, match="not on main"):
        merged.require(history.here.aws, version)


def test_the_command_refuses_before_anything_is_deployed(history: History, signed_in: str) -> None:
    here = history.here
    version = history.version(history.unmerged)
    done = here.command("check", "--model-package-arn", version.arn)
    assert done.returncode == 2
    assert "is not on main" in done.stderr and done.stderr.count("\n") == 1
    good = history.version(history.first)
    arguments = ("check", "--model-package-arn", good.arn)
    done = here.command(*arguments, COMMIT=history.second)
    assert done.returncode == 2 and f"was trained from commit {history.first}" in done.stderr
    done = here.command(*arguments)
    assert "may be deployed: it is approved, and its commit is on main" in done.stdout, done.stderr


def test_jenkins_asks_its_own_full_clone(history: History, tmp_path: Path) -> None:
    clone = tmp_path / "jenkins"
    subprocess.run(["git", "clone", "-q", history.bare, str(clone)], check=True)
    aws = history.here.aws
    settings = replace(aws.settings, root=clone)
    jenkins = type(aws)(settings, sandbox=True)
    assert merged._ask_git(jenkins, history.first) == "ahead"
    assert "no history" in merged._ask_git(jenkins, history.unmerged)
    shallow = tmp_path / "shallow"
    address = Path(history.bare).as_uri()
    subprocess.run(["git", "clone", "-q", "--depth=1", address, str(shallow)], check=True)
    settings = replace(aws.settings, root=shallow)
    with pytest.raises(MlopsError, match="no full clone"):
        merged._ask_git(type(aws)(settings, sandbox=True), history.first)
