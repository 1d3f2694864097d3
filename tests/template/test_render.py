"""What a rendered repo looks like: complete, clean, and the same each time."""

import ast
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from generated import RENDERED, TREE, questions, tree
from rendering import ROOT, Bake, Rendered, baked, mypy_cache
from sm_mlops.cli.main import app
from workflow_judges import assert_mlops_takes
from workflow_stories import replace

CHOICES = [
    (name, choice)
    for name, default in questions().items()
    if isinstance(default, list)
    for choice in default
]
ANSWERS = {
    "project_name": "Churn Prediction",
    "author": "Data Science",
    "github_owner": "acme",
    "github_repo": "churn",
    "aws_region": "eu-central-1",
    "sagemaker_project": "churn-eu",
}
# What the README names and the first command or a person makes.
LATER = {".sandbox/", "data/", "model/requirements.txt"}
SUFFIXES = {".json", ".lock", ".production", ".py", ".toml", ".txt", ".yaml", ".yml"}


@pytest.fixture(scope="session", params=[{}, *({n: c} for n, c in CHOICES)], ids=str)
def combination(request: pytest.FixtureRequest, cookies_session: Any, template: Path) -> Rendered:
    """The default render, and one for each value of each choice."""
    return baked(cookies_session, template, request.param)


def test_the_rendered_tree_is_the_committed_listing(default: Rendered) -> None:
    assert tree(default.path) == TREE.read_text(encoding="utf-8"), "run: make generate"


@pytest.mark.parametrize(
    "name", ["mlops.yaml", "Makefile", "pyproject.toml", "requirements.lock", "README.md"]
)
def test_the_rendered_repo_has_its_main_files(default: Rendered, name: str) -> None:
    assert default.has_file(name)


def test_the_readmes_name_only_commands_that_exist(combination: Rendered) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for readme in (combination.text("README.md"), (ROOT / "README.md").read_text(encoding="utf-8")):
        named = set(re.findall(r"\bmlops (?:--sandbox )?([a-z]+)\b", readme))
        assert len(named) > 1 and not named - set(commands)


def test_the_readme_of_a_repo_is_short(combination: Rendered) -> None:
    lines = combination.text("README.md").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 200


def test_each_command_in_the_readme_of_a_repo_can_be_run_as_it_stands(
    combination: Rendered,
) -> None:
    readme, targets = combination.text("README.md"), combination.text("Makefile")
    found = re.findall(r"(?m)(?:^|`)mlops (?:--sandbox )?([a-z][^`#\n]*)", readme)
    assert len(found) > 10
    assert_mlops_takes(shlex.split(line) for line in found if "--help" not in line)
    for target in re.findall(r"(?m)(?:^|`)make ([a-z-]+)", readme):
        assert f"\n{target}: " in targets, target


def test_the_readme_of_a_repo_names_only_files_that_exist(combination: Rendered) -> None:
    for name in re.findall(r"`((?:[\w.-]*/)*[\w.-]*)`", combination.text("README.md")):
        if name not in LATER and ("/" in name or Path(name).suffix in SUFFIXES):
            assert list(combination.path.glob(f"**/{name}")), name


def test_answers_appear_where_they_are_used(bake: Bake) -> None:
    repo = bake(**ANSWERS)
    project = tomllib.loads(repo.text("pyproject.toml"))
    assert repo.path.name == project["project"]["name"] == "churn-prediction"
    assert project["project"]["authors"] == [{"name": "Data Science"}]
    mlops = project["tool"]["mlops"]
    assert (mlops["project"], mlops["region"]) == ("churn-eu", "eu-central-1")
    assert (mlops["github"], mlops["sign-in"]) == ("acme/churn", "oidc")
    assert mlops["owner"] == "Data Science"
    readme = repo.text("README.md")
    assert all(answer in readme for answer in ANSWERS.values())
    assert "my-model" not in "".join(repo.text(n) for n in ("README.md", "pyproject.toml"))


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_each_choice_is_recorded(bake: Bake, name: str, choice: str) -> None:
    assert f'"{choice}"' in bake(**{name: choice}).text("pyproject.toml")


@pytest.mark.slow
def test_nothing_of_the_template_is_left_in_a_render(combination: Rendered) -> None:
    verbatim = json.loads((ROOT / "cookiecutter.json").read_text())["_copy_without_render"]
    for name, content in combination.files().items():
        text = content.decode()
        # The lock has it: cruft, which `make upgrade` calls, is built on it.
        assert "cookiecutter" not in text.lower() or name == "requirements.lock", name
        if name.startswith(".github/"):
            text = re.sub(r"\$\{\{ [\w.!=&|'() -]+ \}\}", "", text)
        if name not in verbatim and name.partition("/")[0] not in verbatim:
            assert not any(mark in text for mark in ("{{", "}}", "{%", "%}", "{#", "#}")), name


def test_rendered_text_is_tidy(combination: Rendered) -> None:
    for name, content in combination.files().items():
        text = content.decode()
        assert "\r" not in text and "\t" not in text.replace("\n\t", "\n"), name
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert not any(line != line.rstrip() for line in text.splitlines()), name
        blank = 3 if name.endswith(".py") else 2
        assert "\n" * (blank + 1) not in text, name


def test_rendered_configuration_parses(combination: Rendered) -> None:
    for name, content in combination.files().items():
        if name.endswith(".toml"):
            tomllib.loads(content.decode())
        # Templates have CloudFormation's own tags; cfn-lint reads them in test_infra.py.
        if name.endswith((".yml", ".yaml")) and not name.startswith("infra/"):
            assert yaml.safe_load(content)
        if name.endswith(".json"):
            json.loads(content)


@pytest.mark.slow
def test_the_rendered_repo_is_clean_for_its_own_formatter_and_linter(combination: Rendered) -> None:
    for command in (("format", "--check"), ("check",)):
        done = combination.run("python", "-m", "ruff", *command, "--no-cache", ".")
        assert done.code == 0, done.out + done.err


@pytest.mark.slow
def test_a_team_may_have_shorter_lines(default: Rendered, tmp_path: Path) -> None:
    repo = Rendered(shutil.copytree(default.path, tmp_path / "repo"))
    replace(repo, "pyproject.toml", "line-length = 100", "line-length = 79")
    for command in (("check", "--fix"), ("format",), ("check",)):
        done = repo.run("python", "-m", "ruff", *command, "--no-cache", ".")
        assert done.code == 0, done.out + done.err


def test_the_tool_defines_what_the_rendered_repo_imports(default: Rendered) -> None:
    """A strict type checker admits nothing else."""
    found = {
        (node.module, alias.name)
        for name, content in default.files().items()
        if name.endswith(".py")
        for node in ast.walk(ast.parse(content))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sm_mlops.")
        for alias in node.names
    }
    assert ("sm_mlops.tabular.rows", "Frame") in found
    assert not {(module, name) for module, name in found if name in only_imported(str(module))}


def only_imported(module: str) -> set[str]:
    """Return the names that a module imports and, without an `as` that repeats them, keeps."""
    found = importlib.util.find_spec(module)
    assert found and found.origin
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(Path(found.origin).read_bytes()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if alias.asname != alias.name
    }


@pytest.mark.slow
def test_the_rendered_repo_is_clean_for_its_own_type_checker(
    default: Rendered, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = mypy_cache(tmp_path_factory, default, tmp_path)
    done = default.run("python", "-m", "mypy", "--cache-dir", str(cache), ".")
    assert done.code == 0, done.out + done.err


def test_the_templates_pyproject_is_toml_before_rendering() -> None:
    """Tools read this file unrendered, so it must be TOML too."""
    assert tomllib.loads((RENDERED / "pyproject.toml").read_text())["tool"]["pytest"]


def test_rendering_twice_gives_the_same_bytes(bake: Bake, default: Rendered) -> None:
    assert bake().files() == default.files()


def test_verbatim_folders_arrive_byte_for_byte(default: Rendered, template: Path) -> None:
    verbatim = json.loads((ROOT / "cookiecutter.json").read_text())["_copy_without_render"]
    files = default.files()
    for name in verbatim:
        source = template / RENDERED.name / name
        for original in [source] if source.is_file() else source.rglob("*"):
            if original.is_file():
                path = original.relative_to(template / RENDERED.name)
                assert files[path.as_posix()] == original.read_bytes()


def test_everything_that_holds_no_answer_is_copied_verbatim(template: Path) -> None:
    verbatim = json.loads((ROOT / "cookiecutter.json").read_text())["_copy_without_render"]
    source = template / RENDERED.name
    for file in source.rglob("*"):
        if file.is_file() and file.relative_to(source).parts[0] not in verbatim:
            text = file.read_text(encoding="utf-8")
            assert "{{ cookiecutter." in text or len(text) < 1000, f"{file} costs rendering time"


def test_rendering_again_over_a_repo_keeps_what_ran_there(
    bake: Bake, cookies: Any, template: Path
) -> None:
    from cookiecutter.main import cookiecutter

    repo = bake()
    (repo.path / ".sandbox").mkdir()
    (repo.path / ".sandbox" / "state").write_text("history")
    cookiecutter(
        str(template),
        no_input=True,
        overwrite_if_exists=True,
        output_dir=str(repo.path.parent),
        config_file=str(cookies._config_file),
    )
    assert repo.text(".sandbox/state") == "history"
