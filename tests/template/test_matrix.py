"""Every pair of answers, rendered and judged by tools that this project did not write.

The questions are read from cookiecutter.json; other tests check what is special about one of them.
Each judge gets all renders at once. What no answer can change is judged once, in the default one.
"""

import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from allpairspy import AllPairs
from markdown_it import MarkdownIt

from answers import LONGEST, SHORTEST
from cruft_case import Team
from generated import RENDERED, questions
from rendering import PIN, ROOT, Rendered, baked, run
from workflow_judges import BIN, actionlint, schema, zizmor

pytestmark = pytest.mark.slow
NAMES = {
    "github_owner": "a-b-1_c",
    "github_repo": "_.x-.y",
    "aws_region": "ap-northeast-1",
    "sagemaker_project": "a" + "-" * 30 + "9",
    "project_slug": "x-1-y",
}
TEXT = 'She\'s "in" \\n $(x) `y` ${Z} & <b> | #1: %s é 日 🦊 }} *_a_ [l](m)'
SETTINGS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
VERBATIM: list[str] = SETTINGS["_copy_without_render"]
YAMLLINT = """
extends: default
rules:
  braces: {max-spaces-inside: 1}
  comments: {min-spaces-from-content: 1}
  comments-indentation: disable  # A commented line shows what may be switched on.
  document-start: disable
  line-length: disable
  truthy: {check-keys: false}
"""


def values(name: str) -> list[str | None]:
    """Return each choice; of a text none, the longest, the shortest and an odd one."""
    default = questions()[name]
    if isinstance(default, list):
        return list(default)
    return [None, LONGEST[name], SHORTEST[name], NAMES.get(name, TEXT)]


def combinations() -> list[dict[str, str]]:
    """Return rows in which each two values of two questions meet at least once."""
    names = list(questions())
    rows = AllPairs([values(name) for name in names])
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in rows
    ]


ROWS = combinations()


@pytest.fixture(scope="module")
def repos(cookies_session: Any, template: Path) -> list[Rendered]:
    """Return a render for each row. Do not write into it."""
    return [baked(cookies_session, template, answers) for answers in ROWS]


def is_verbatim(name: str) -> bool:
    return name.partition("/")[0] in VERBATIM


def test_every_pair_of_values_of_two_questions_is_rendered_together() -> None:
    for one, other in itertools.combinations(questions(), 2):
        wanted = set(itertools.product(values(one), values(other)))
        assert wanted <= {(row.get(one), row.get(other)) for row in ROWS}


def test_what_is_copied_is_the_same_whatever_the_answers(
    repos: list[Rendered], default: Rendered
) -> None:
    """So that the judges of Python, shell and CloudFormation need to look at it only once."""

    def copied(rendered: Rendered) -> dict[str, bytes]:
        return {name: text for name, text in rendered.files().items() if is_verbatim(name)}

    def tools(rendered: Rendered) -> dict[str, Any]:
        tables: dict[str, Any] = tomllib.loads(rendered.text("pyproject.toml"))["tool"]
        return {name: table for name, table in tables.items() if name != "mlops"}

    for repo in repos:
        assert copied(repo) == copied(default)
        assert tools(repo) == tools(default)


def test_toml_and_json_parse(repos: list[Rendered]) -> None:
    for repo in repos:
        for name, content in repo.files().items():
            if name.endswith(".toml"):
                tomllib.loads(content.decode())
            if name.endswith(".json"):
                json.loads(content)


def test_yamllint_finds_nothing(repos: list[Rendered], default: Rendered, tmp_path: Path) -> None:
    found = [(default, name) for name in default.files() if is_verbatim(name)]
    found += [(repo, name) for repo in repos for name in repo.files() if not is_verbatim(name)]
    files = [repo.path / name for repo, name in found if name.endswith((".yml", ".yaml"))]
    done = run("python", "-m", "yamllint", "--strict", "-d", YAMLLINT, *files, cwd=tmp_path)
    assert (done.code, done.out) == (0, ""), done.out


def test_there_are_files_for_github_or_for_jenkins(repos: list[Rendered]) -> None:
    for repo, answers in zip(repos, ROWS, strict=True):
        flows = [name for name in repo.files() if name.startswith(".github/workflows/")]
        if answers["ci"] == "jenkins":
            assert repo.has_file("Jenkinsfile") and not (repo.path / ".github").exists()
        else:
            assert len(flows) == 3 and not repo.has_file("Jenkinsfile")


def test_github_accepts_the_workflows_and_no_checker_finds_a_fault(
    repos: list[Rendered], tmp_path: Path
) -> None:
    folders = [repo.path / ".github" for repo in repos if repo.has_file(".github/dependabot.yml")]
    flows = [file for folder in folders for file in sorted((folder / "workflows").iterdir())]
    assert len(flows) == 3 * len(folders) > 0
    for done in (
        schema(tmp_path, "github-workflows", *flows),
        schema(tmp_path, "dependabot", *(folder / "dependabot.yml" for folder in folders)),
        # No answer is in a script: shellcheck sees them all in test_workflows.py.
        actionlint(tmp_path, *flows, shellcheck=""),
        zizmor(*folders),
    ):
        assert done.code == 0, done.out + done.err


def test_nothing_of_jinja_is_left(repos: list[Rendered]) -> None:
    for repo, answers in zip(repos, ROWS, strict=True):
        for name, content in repo.files().items():
            text = content.decode()
            # Following the template takes cookiecutter itself.
            assert name == "requirements.lock" or "cookiecutter" not in text.lower(), name
            if not is_verbatim(name):
                text = re.sub(r"\$\{\{ [\w.!=&|'() -]+ \}\}", "", text)
                for answer in answers.values():
                    text = text.replace(answer, "").replace(re.escape(answer), "")
                marks = [mark for mark in ("{{", "{%", "%}", "{#", "#}") if mark in text]
                assert not marks, name


def assert_cruft_renders_the_same(
    repo: Rendered, answers: dict[str, str], folder: Path, template: Path
) -> None:
    team = Team(folder, template)
    team.create(**answers, _tool_pin=PIN)
    [made] = (folder / "work").iterdir()
    files = Rendered(made).files()
    assert files.pop(".cruft.json")
    assert files == repo.files()


@pytest.mark.parametrize("row", range(2))
def test_rendered_by_cruft_it_has_the_same_bytes(
    row: int, repos: list[Rendered], tmp_path: Path, template: Path
) -> None:
    assert_cruft_renders_the_same(repos[row], ROWS[row], tmp_path, template)


@pytest.mark.long
@pytest.mark.parametrize("row", range(2, len(ROWS)))
def test_rendered_by_cruft_every_row_has_the_same_bytes(
    row: int, repos: list[Rendered], tmp_path: Path, template: Path
) -> None:
    assert_cruft_renders_the_same(repos[row], ROWS[row], tmp_path, template)


def test_every_link_of_the_readme_leads_somewhere(repos: list[Rendered]) -> None:
    for repo in repos:
        text = repo.text("README.md")
        tokens = [
            child
            for token in MarkdownIt("commonmark").enable("table").parse(text)
            for child in token.children or ()
        ]
        links = {str(t.attrs[k]) for t in tokens for k in ("href", "src") if k in t.attrs}
        assert links
        anchors = {slug(line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        for link in links:
            if link.startswith("#"):
                assert link[1:] in anchors, link
            elif not re.match(r"https?://", link):
                assert (repo.path / unquote(link.partition("#")[0])).exists(), link


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_each_value_of_each_choice_changes_something(cookies_session: Any, template: Path) -> None:
    for name, default in questions().items():
        if isinstance(default, list):
            renders = [
                baked(cookies_session, template, {name: choice}).files() for choice in default
            ]
            for one, other in itertools.combinations(renders, 2):
                assert one != other, name


@pytest.mark.parametrize("name", [n for n, d in questions().items() if not isinstance(d, list)])
def test_each_text_is_used(
    name: str, default: Rendered, cookies_session: Any, template: Path
) -> None:
    other = baked(cookies_session, template, {name: LONGEST[name]})
    assert other.files() != default.files() or other.path.name != default.path.name


def test_each_variable_is_declared_and_each_declared_one_is_used(template: Path) -> None:
    places = [*(template / "hooks").glob("*.py"), *(template / "templates").iterdir()]
    places += [p for p in (template / RENDERED.name).rglob("*") if p.is_file()]
    used: set[str] = set()
    for place in places:
        relative = place.relative_to(template).as_posix()
        used |= set(re.findall(r"cookiecutter\.(\w+)", relative))
        inside = relative.removeprefix(f"{RENDERED.name}/")
        if not relative.startswith(RENDERED.name) or not is_verbatim(inside):
            used |= set(
                re.findall(r"cookiecutter\.(?!json)(\w+)", place.read_text(encoding="utf-8"))
            )
    hook = (template / "hooks" / "post_gen_project.py").read_text(encoding="utf-8")
    used |= set(re.findall(r"answers(?:\.get\(|\[)['\"](\w+)", hook))
    declared = {name for name in SETTINGS if not re.match(r"__|_(copy|jinja|template)", name)}
    # Private ones derive others; Jinja's own method updates them.
    inner = set(re.findall(r"cookiecutter\.(\w+)", json.dumps(SETTINGS)))
    own = {"_commit", "_output_dir", "_repo_dir", "_template", "update"}
    assert used - own - {"_template_version", "__project_slug_given"} <= declared
    assert declared <= used | inner


# What no answer changes.


def test_no_account_and_no_person_is_named(default: Rendered) -> None:
    for name, content in default.files().items():
        if name.startswith("tests/") or name == "requirements.lock":
            continue
        text = content.decode()
        # The sandbox's own account, which is nobody's: documentation uses it.
        assert set(re.findall(r"(?<![\w.])\d{12}(?![\w.])", text)) <= {"123456789012"}, name
        mails = re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text)
        assert not [m for m in mails if not re.search(r"example\.(org|com)$|localhost", m)], name


def makefiles() -> list[Path]:
    return [ROOT / "Makefile", RENDERED / "Makefile"]


def recipes(makefile: Path) -> list[str]:
    """Return the shell of each recipe and variable as make would pass it on, names as words."""
    text = makefile.read_text(encoding="utf-8").replace("\\\n", " \\\n")
    lines = re.sub(r" \\\n\t?", " ", text).splitlines()
    found = [line.lstrip("\t@-") for line in lines if line.startswith("\t")]
    found += [line.partition(" = ")[2] for line in lines if re.match(r"\w+ = .*&&", line)]
    names = re.compile(r"\$[({](\w+)[)}]|\$@|\$\((?:call|if|foreach) [^()]*(?:\([^()]*\)[^()]*)*\)")
    return [names.sub("word", names.sub("word", line)).replace("$$", "$") for line in found]


@pytest.mark.parametrize("makefile", makefiles(), ids=["template", "rendered"])
def test_shellcheck_finds_nothing_in_the_recipes(makefile: Path, tmp_path: Path) -> None:
    found = recipes(makefile)
    assert len(found) > 5
    script = tmp_path / "recipes.sh"
    script.write_text("#!/bin/sh\n" + "\n".join(f"(\n{recipe}\n)" for recipe in found) + "\n")
    # `a && b || c`: c runs when b fails, too, as the recipes mean it.
    options = ("--severity=style", "--exclude=SC2015")
    done = run(BIN / "shellcheck", *options, script, cwd=tmp_path)
    assert done.code == 0, done.out


def test_shellcheck_would_find_a_fault_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("bad:\n\t@cd $$(cat x) && \\\n\t  rm -r $$PLACE/*\n")
    script = tmp_path / "recipes.sh"
    script.write_text("#!/bin/sh\n" + "\n".join(recipes(tmp_path / "Makefile")))
    assert "SC2115" in run(BIN / "shellcheck", script, cwd=tmp_path).out


def test_shellcheck_finds_nothing_in_the_check_of_the_template() -> None:
    done = run(BIN / "shellcheck", ROOT / ".ci" / "run", cwd=ROOT)
    assert done.code == 0, done.out


def test_shellcheck_finds_nothing_in_what_jenkins_runs(
    cookies_session: Any, template: Path, tmp_path: Path
) -> None:
    repo = baked(cookies_session, template, {"ci": "jenkins"})
    commands = re.findall(r"^\s*sh '((?:[^'\\]|\\.)*)'", repo.text("Jenkinsfile"), re.MULTILINE)
    assert len(commands) > 8
    script = tmp_path / "jenkins.sh"
    script.write_text("#!/bin/sh\nset -e\n" + "\n".join(commands) + "\n")
    done = run(BIN / "shellcheck", script, cwd=tmp_path)
    assert done.code == 0, done.out


def test_the_judges_read_what_they_are_given(tmp_path: Path) -> None:
    """So that their silence means something."""
    (tmp_path / "bad.yml").write_text("a: [1,2\nb:   {  x: 1}\n")
    command = ("python", "-m", "yamllint", "--strict", "-d", YAMLLINT, tmp_path / "bad.yml")
    assert run(*command, cwd=tmp_path).code == 1
    assert yaml.safe_load(YAMLLINT)["extends"] == "default"
