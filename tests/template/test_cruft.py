"""Rendered repos follow the template with cruft: create, check, diff and update, for real."""

from pathlib import Path

import pytest

from cruft_case import Team, commit, git
from generated import RENDERED
from rendering import PIN, Rendered

pytestmark = pytest.mark.slow


@pytest.fixture
def team(tmp_path: Path, template: Path) -> Team:
    return Team(tmp_path, template)


@pytest.fixture
def following(team: Team) -> Team:
    """A team with a repo whose cruft file is committed."""
    team.create()
    commit(team.repo.path, "Follow the template")
    return team


def test_cruft_renders_the_same_bytes_as_cookiecutter(team: Team, default: Rendered) -> None:
    team.create(_tool_pin=PIN)
    files = team.repo.files()
    assert files.pop(".cruft.json")
    assert files == default.files()


def test_after_create_only_the_cruft_file_is_left_to_commit(team: Team) -> None:
    team.create()
    assert git(team.repo.path, "rev-list", "--count", "HEAD") == "1"
    assert git(team.repo.path, "status", "--porcelain") == "?? .cruft.json"


def test_the_next_steps_include_the_cruft_file(team: Team) -> None:
    done = team.cruft("create", "--no-input", str(team.template), cwd=team.folder / "work")
    [third] = [line for line in done.out.splitlines() if line.startswith("3. ")]
    assert "git add .cruft.json && git commit" in third


def test_an_unchanged_repo_is_up_to_date_and_without_difference(following: Team) -> None:
    assert following.cruft("check").code == 0
    difference = following.cruft("diff", "--exit-code")
    assert (difference.code, difference.out) == (0, "")


def test_a_local_edit_shows_in_the_difference(following: Team) -> None:
    readme = following.repo.path / "README.md"
    readme.write_text(readme.read_text() + "\nOurs.\n")
    difference = following.cruft("diff", "--exit-code")
    assert difference.code == 1 and "Ours." in difference.out


def test_an_update_brings_the_change_and_keeps_the_local_edit(following: Team) -> None:
    repo = following.repo.path
    readme = repo / "README.md"
    readme.write_text(readme.read_text() + "\nOurs.\n")
    (repo / "notes.md").write_text("Ours too.\n")
    commit(repo, "Edit")
    following.change_template(f"{RENDERED.name}/README.md", "## Every day", "## Day by day")
    following.change_template(f"{RENDERED.name}/Makefile", "show this list", "list the verbs")

    assert following.cruft("check").code == 1
    done = following.cruft("update", "--skip-apply-ask")

    assert done.code == 0, done.out + done.err
    assert "## Day by day" in readme.read_text() and "Ours." in readme.read_text()
    assert "list the verbs" in following.repo.text("Makefile")
    assert following.repo.text("notes.md") == "Ours too.\n"
    assert not list(repo.rglob("*.rej"))
    assert following.cruft("check").code == 0


def test_an_update_next_to_a_local_edit_is_a_merge_conflict_not_a_lost_change(
    following: Team,
) -> None:
    repo = following.repo.path
    edited = following.repo.text("Makefile").replace("show this list", "ours")
    (repo / "Makefile").write_text(edited)
    commit(repo, "Edit")
    following.change_template(f"{RENDERED.name}/Makefile", "show this list", "theirs")
    following.cruft("update", "--skip-apply-ask")
    makefile = following.repo.text("Makefile")
    assert "<<<<<<<" in makefile and "ours" in makefile and "theirs" in makefile
    assert not list(repo.rglob("*.rej"))


@pytest.mark.long
def test_an_update_leaves_the_history_alone(following: Team) -> None:
    before = git(following.repo.path, "log", "--format=%H")
    following.change_template(f"{RENDERED.name}/README.md", "## Start", "## Begin")
    following.cruft("update", "--skip-apply-ask")
    assert git(following.repo.path, "log", "--format=%H") == before


@pytest.mark.long
def test_answers_with_quotes_and_backslashes_survive_an_update(team: Team) -> None:
    name = 'Ada\'s "best" \\ model }} 🦊'
    team.create(project_name=name, project_slug="my-model")
    commit(team.repo.path, "Follow the template")
    heading = team.repo.text("README.md").splitlines()[0]
    team.change_template(f"{RENDERED.name}/README.md", "## Start", "## Begin")
    done = team.cruft("update", "--skip-apply-ask")
    assert done.code == 0, done.out + done.err
    readme = team.repo.text("README.md")
    assert readme.splitlines()[0] == heading and "## Begin" in readme
