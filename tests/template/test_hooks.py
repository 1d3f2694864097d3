"""The hooks as cookiecutter runs them: in a bare interpreter, with anybody's git settings."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import Environment

from answers import FINISH, NOBODY
from generated import RENDERED
from rendering import ROOT, Run, run

HOOK = ROOT / "hooks" / "post_gen_project.py"
ANSWERS = {
    "project_slug": "my-model",
    "author": "ML team",
    "github_owner": "my-org",
    "github_repo": "my-model",
}
Cookiecutter = Callable[..., Run]


def rendered(answers: dict[str, str]) -> str:
    return Environment().from_string(HOOK.read_text(encoding="utf-8")).render(cookiecutter=answers)


def test_a_hook_is_written_for_the_oldest_python_cookiecutter_runs_on() -> None:
    tree = ast.parse(HOOK.read_text(encoding="utf-8"), feature_version=(3, 9))
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert modules <= sys.stdlib_module_names


def test_a_hook_needs_nothing_but_the_interpreter(tmp_path: Path) -> None:
    from hooks import post_gen_project as hook

    answers = {name: rule[3] for name, rule in hook.RULES.items()}
    script = tmp_path / "hook.py"
    script.write_text(rendered(answers), encoding="utf-8")
    done = run("python", "-I", "-S", script, cwd=tmp_path, PATH="")
    assert done.code == 0, done.err
    assert not (tmp_path / ".git").exists()


def test_modules_in_the_temp_folder_are_not_imported(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    """Anybody on the machine may write there, and cookiecutter runs the hooks from it."""
    temp = tmp_path / "temp"
    temp.mkdir()
    for name in ("hashlib", "importlib", "json", "re", "shutil", "subprocess", "types"):
        (temp / f"{name}.py").write_text("raise SystemExit('imported from the temp folder')\n")
    done = elsewhere(TMPDIR=str(temp))
    assert done.code == 0, done.out + done.err
    assert (repo_of(tmp_path) / ".git").exists() and (repo_of(tmp_path) / "tool.txt").exists()


@pytest.mark.parametrize(
    "answer",
    ['"""', '""""', "\\", '\\"""', '"""\nx = 1\n"""', "\0", "\u2028", "\udc80", "'", "</script>"],
    ids=ascii,
)
def test_an_answer_in_a_hook_stays_data(answer: str) -> None:
    tree = ast.parse(rendered(ANSWERS | {"author": answer}))
    [context] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ANSWERS"
    ]
    assert isinstance(context, ast.Constant)
    assert json.loads(str(context.value))["author"] == answer


def repo_of(tmp_path: Path) -> Path:
    return tmp_path / "work" / "my-model"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def assert_pristine(repo: Path) -> None:
    """One commit on main that holds every file of the render, and nothing left to commit."""
    assert git(repo, "rev-list", "--count", "HEAD") == "1"
    assert git(repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(repo, "status", "--porcelain", "--ignored") == ""
    tracked = git(repo, "-c", "core.quotePath=false", "ls-files").splitlines()
    on_disk = [p.relative_to(repo) for p in repo.rglob("*") if p.is_file()]
    assert sorted(tracked) == sorted(str(p) for p in on_disk if p.parts[0] != ".git")


def test_the_first_commit_is_the_pristine_render(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    done = elsewhere()
    assert done.code == 0, done.err
    assert_pristine(repo_of(tmp_path))


def test_what_python_left_in_the_template_is_not_committed(
    elsewhere: Cookiecutter, template: Path, tmp_path: Path
) -> None:
    """Whoever works on a fork renders the folder in which its model was imported."""
    cache = template / RENDERED.name / "model" / "__pycache__"
    cache.mkdir()
    try:
        (cache / "train.cpython-311.pyc").write_bytes(b"\0")
        elsewhere()
    finally:
        shutil.rmtree(cache)
    assert "__pycache__" not in git(repo_of(tmp_path), "ls-files")
    assert git(repo_of(tmp_path), "status", "--porcelain") == ""


def test_three_lines_say_what_comes_next(elsewhere: Cookiecutter) -> None:
    done = elsewhere()
    first, second, third = done.out.splitlines()
    assert "cd my-model && make sandbox" in first
    assert "mlops.yaml" in second
    assert "git remote add origin https://github.com/my-org/my-model.git" in third


def test_without_an_identity_there_is_still_a_first_commit(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    elsewhere()
    assert git(repo_of(tmp_path), "log", "--format=%ae") == "template@localhost"


def test_without_even_a_name_there_is_still_a_first_commit(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    # An empty name is what git makes of an account without one, as in many containers.
    (tmp_path / "home" / ".gitconfig").write_text("[user]\nname = .\n")
    elsewhere()
    assert git(repo_of(tmp_path), "log", "--format=%an <%ae>") == "Template <template@localhost>"


def test_the_first_commit_is_made_even_if_git_must_not_guess_an_identity(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    (tmp_path / "home" / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    elsewhere()
    assert git(repo_of(tmp_path), "log", "--format=%ae") == "template@localhost"


def test_the_user_s_own_identity_signs_the_commit(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    config = tmp_path / "home" / ".gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    elsewhere()
    assert git(repo_of(tmp_path), "log", "--format=%an <%ae>") == "Ada <ada@example.org>"


def test_odd_global_git_settings_change_nothing(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for folder in ("hooks", "template/hooks"):
        (home / folder).mkdir(parents=True)
        for name in ("pre-commit", "commit-msg", "prepare-commit-msg", "post-commit"):
            hook = home / folder / name
            hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/hook-ran'\nexit 1\n")
            hook.chmod(0o755)
    (home / "ignored").write_text("*\n")
    (home / ".gitconfig").write_text(
        f"""
[user]
    signingkey = none
[commit]
    gpgsign = true
    template = {home}/missing
    verbose = true
[core]
    hooksPath = {home}/hooks
    excludesFile = {home}/ignored
    autocrlf = true
    safecrlf = true
[gpg]
    program = false
[init]
    defaultBranch = trunk
    templateDir = {home}/template
"""
    )
    done = elsewhere()
    assert done.code == 0, done.err
    assert not (tmp_path / "hook-ran").exists()
    repo = repo_of(tmp_path)
    assert git(repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(repo, "cat-file", "blob", "HEAD:README.md").startswith("# My Model")
    assert_pristine(repo)


def test_variables_of_an_outer_git_command_change_nothing(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    elsewhere(GIT_DIR=str(outer / ".git"), GIT_INDEX_FILE=str(outer / "index"))
    assert_pristine(repo_of(tmp_path))
    assert not (outer / "index").exists()


def test_without_git_the_repo_is_still_rendered(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = elsewhere(PATH=str(tmp_path / "empty"))
    assert done.code == 0, done.err
    assert not (repo_of(tmp_path) / ".git").exists()
    assert len(done.out.splitlines()) == 3


def test_a_refusal_by_git_does_not_spoil_the_render(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text("#!/bin/sh\necho 'fatal: not today'\nexit 128\n")
    fake.chmod(0o755)
    done = elsewhere(PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert done.code == 0
    assert "fatal: not today" in done.out
    assert (repo_of(tmp_path) / "README.md").exists()


def test_inside_a_repository_none_is_made(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert elsewhere().code == 0
    assert not (repo_of(tmp_path) / ".git").exists()


def test_inside_a_worktree_none_is_made(elsewhere: Cookiecutter, tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    assert elsewhere().code == 0
    assert not (repo_of(tmp_path) / ".git").exists()


def test_below_the_temp_folder_no_repository_is_made(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    assert elsewhere(TMPDIR=str(tmp_path / "work")).code == 0
    assert not (repo_of(tmp_path) / ".git").exists()


def test_below_a_link_to_the_temp_folder_no_repository_is_made(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "work")
    assert elsewhere(TMPDIR=str(tmp_path / "link")).code == 0
    assert not (repo_of(tmp_path) / ".git").exists()


def test_a_folder_with_spaces_and_accents_is_committed(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    target = tmp_path / "work" / "Nos modèles, d'été"
    target.mkdir()
    assert elsewhere(f"--output-dir={target}").code == 0
    assert_pristine(target / "my-model")


# What it offers at the end. These never reach a cloud: there are no credentials.

NOT_SIGNED_IN = "mlops: not signed in to GitHub"


def test_without_a_terminal_it_asks_nothing_and_connects_nothing(
    elsewhere: Cookiecutter,
) -> None:
    done = elsewhere(**NOBODY)
    assert len(done.out.splitlines()) == 3 and "Connect it" not in done.out


@pytest.mark.parametrize("given", ["no", " NO "])
def test_told_no_it_connects_nothing(elsewhere: Cookiecutter, given: str) -> None:
    assert len(elsewhere(SM_MLOPS_REGISTER=given, **NOBODY).out.splitlines()) == 3


def test_an_answer_it_does_not_know_is_named_and_connects_nothing(elsewhere: Cookiecutter) -> None:
    done = elsewhere(SM_MLOPS_REGISTER="sure", **NOBODY)
    assert done.code == 0
    assert "SM_MLOPS_REGISTER=sure must be yes, plan or no" in done.out


@pytest.mark.parametrize("wanted", ["yes", "plan"])
def test_an_unreachable_cloud_does_not_cost_the_rendered_repo(
    elsewhere: Cookiecutter, tmp_path: Path, wanted: str
) -> None:
    done = elsewhere(SM_MLOPS_REGISTER=wanted, **NOBODY)
    assert done.code == 0
    assert NOT_SIGNED_IN in done.err
    assert "Traceback" not in done.err
    assert FINISH in done.out
    assert_pristine(repo_of(tmp_path))


def test_below_the_temp_folder_it_connects_nothing_even_if_told_to(
    elsewhere: Cookiecutter, tmp_path: Path
) -> None:
    done = elsewhere(SM_MLOPS_REGISTER="yes", TMPDIR=str(tmp_path / "work"), **NOBODY)
    assert done.code == 0 and FINISH not in done.out and done.err == ""


def test_without_a_python_that_fits_it_says_so(
    elsewhere: Cookiecutter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hooks import post_gen_project as hook

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert hook.own_python() == "" and hook.first_python() == ""
    assert hook.bootstrap(["bootstrap"]) is False


def at_terminal(
    command: list[str], typed: bytes, folder: Path, **environment: str
) -> tuple[int, str]:
    """Exit code and all that was shown, of a command whose question is answered by `typed`."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, os.environ | environment)
    shown = b""
    try:
        while piece := os.read(terminal, 1024):
            shown += piece
            if shown.rstrip().endswith(b"[y/N]") and typed:
                os.write(terminal, typed)
                typed = b""
    except OSError:
        # This is how Linux reports the end of a terminal.
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "connects"), [(b"\n", False), (b"n\n", False), (b"\x04", False), (b"y\n", True)]
)
def test_a_person_at_the_terminal_is_asked(
    template: Path, tmp_path: Path, typed: bytes, connects: bool
) -> None:
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    code, shown = at_terminal(
        [sys.executable, "-m", "cookiecutter", "--no-input", str(template)],
        typed,
        tmp_path / "work",
        HOME=str(tmp_path / "home"),
        TMPDIR=str(tmp_path / "tmp"),
        **NOBODY,
    )
    assert code == 0, shown
    assert "Shows a plan before it creates anything. [y/N]" in shown
    assert (NOT_SIGNED_IN in shown) is connects
    assert (FINISH in shown) is connects
    assert_pristine(repo_of(tmp_path))
