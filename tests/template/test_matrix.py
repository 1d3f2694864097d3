"""Every pair of answers, rendered and judged by tools that this project did not write.

The questions are read from cookiecutter.json; what is special about one of them is for the other
tests. What no answer can change is judged once, in the default render.
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
from test_answers import LONGEST, SHORTEST
from test_cruft import Team

from generated import RENDERED, questions
from rendering import ROOT, Rendered, baked, run
from workflow_judges import BIN, actionlint, schema, zizmor

pytestmark = pytest.mark.slow
NAMES = {
    "github_owner": "a-b-1_c",
    "github_repo": "_.x-.y",
    "aws_region": "us-gov-west-1",
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
    """The answers to try: each choice; of a text none, the longest, the shortest, an odd one."""
    default = questions()[name]
    if isinstance(default, list):
        return list(default)
    return [None, LONGEST[name], SHORTEST[name], NAMES.get(name, TEXT)]


def combinations() -> list[dict[str, str]]:
    """Rows in which each two values of two questions meet at least once."""
    names = list(questions())
    rows = AllPairs([values(name) for name in names])
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in rows
    ]


ROWS = combinations()


@pytest.fixture(scope="module", params=range(len(ROWS)))
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    return ROWS[request.param]


@pytest.fixture(scope="module")
def repo(answers: dict[str, str], cookies_session: Any, template: Path) -> Rendered:
    return baked(cookies_session, template, answers)


@pytest.fixture(scope="module")
def pristine(cookies_session: Any, template: Path) -> Rendered:
    """A render in which nothing ever ran."""
    return baked(cookies_session, template, {})


def is_verbatim(name: str) -> bool:
    return name.partition("/")[0] in VERBATIM


def test_each_two_values_of_two_questions_are_rendered_together() -> None:
    for one, other in itertools.combinations(questions(), 2):
        wanted = set(itertools.product(values(one), values(other)))
        assert wanted <= {(row.get(one), row.get(other)) for row in ROWS}


def test_what_is_copied_is_the_same_whatever_the_answers(
    repo: Rendered, pristine: Rendered
) -> None:
    """So that the judges of Python, shell and CloudFormation need to look at it only once."""

    def copied(rendered: Rendered) -> dict[str, bytes]:
        return {name: text for name, text in rendered.files().items() if is_verbatim(name)}

    assert copied(repo) == copied(pristine)
    for table in ("ruff", "mypy", "pytest", "hatch", "uv"):
        ours, theirs = (tomllib.loads(r.text("pyproject.toml"))["tool"] for r in (repo, pristine))
        assert ours[table] == theirs[table]


def test_its_files_parse_and_yamllint_finds_nothing(repo: Rendered) -> None:
    for name, content in repo.files().items():
        if name.endswith((".toml", ".lock")) and not name.endswith("requirements.lock"):
            tomllib.loads(content.decode())
        if name.endswith(".json"):
            json.loads(content)
    files = [name for name in repo.files() if name.endswith((".yml", ".yaml"))]
    done = repo.run("python", "-m", "yamllint", "--strict", "-d", YAMLLINT, *files)
    assert (done.code, done.out) == (0, ""), done.out


def test_github_takes_its_workflows_and_no_judge_finds_a_fault(repo: Rendered) -> None:
    flows = [name for name in repo.files() if name.startswith(".github/workflows/")]
    if 'ci = "jenkins"' in repo.text("pyproject.toml"):
        assert repo.has_file("Jenkinsfile") and not (repo.path / ".github").exists()
        return
    assert len(flows) == 3
    for done in (
        schema(repo.path, "github-workflows", *flows),
        schema(repo.path, "dependabot", ".github/dependabot.yml"),
        actionlint(repo.path, *flows),
        zizmor(repo.path / ".github"),
    ):
        assert done.code == 0, done.out + done.err


def test_nothing_of_jinja_is_left(repo: Rendered, answers: dict[str, str]) -> None:
    for name, content in repo.files().items():
        text = content.decode()
        assert "cookiecutter" not in text.lower(), name
        if not is_verbatim(name):
            text = re.sub(r"\$\{\{ [\w.!=&|'() -]+ \}\}", "", text)
            for answer in answers.values():
                text = text.replace(answer, "").replace(re.escape(answer), "")
            marks = [mark for mark in ("{{", "{%", "%}", "{#", "#}") if mark in text]
            assert not marks, name


def test_rendered_by_cruft_it_has_the_same_bytes(
    repo: Rendered, answers: dict[str, str], tmp_path: Path, template: Path
) -> None:
    team = Team(tmp_path, template)
    team.create(**answers)
    [folder] = (tmp_path / "work").iterdir()
    files = Rendered(folder).files()
    assert files.pop(".cruft.json")
    assert files == repo.files()


def test_every_link_of_its_readme_leads_somewhere(repo: Rendered) -> None:
    text = repo.text("README.md")
    tokens = [
        child
        for token in MarkdownIt("commonmark").enable("table").parse(text)
        for child in token.children or ()
    ]
    links = {str(token.attrs[k]) for token in tokens for k in ("href", "src") if k in token.attrs}
    assert links
    anchors = {slug(line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not re.match(r"https?://", link):
            assert (repo.path / unquote(link.partition("#")[0])).exists(), link


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
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
    declared = {name for name in SETTINGS if not re.match(r"__|_(copy|jinja|template)", name)}
    # Private ones derive others; Jinja's own method updates them.
    inner = set(re.findall(r"cookiecutter\.(\w+)", json.dumps(SETTINGS)))
    assert used - {"_template_version"} <= declared | {"update"}
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
    """The shell of each recipe, as make would hand it to a shell, with its variables as words."""
    text = makefile.read_text(encoding="utf-8").replace("\\\n", " \\\n")
    lines = re.sub(r" \\\n\t?", " ", text).splitlines()
    found = [line.lstrip("\t@-") for line in lines if line.startswith("\t")]
    return [re.sub(r"\$[({](\w+)[)}]|\$@", "word", line).replace("$$", "$") for line in found]


@pytest.mark.parametrize("makefile", makefiles(), ids=["template", "rendered"])
def test_shellcheck_finds_nothing_in_the_recipes(makefile: Path, tmp_path: Path) -> None:
    found = recipes(makefile)
    assert len(found) > 5
    script = tmp_path / "recipes.sh"
    script.write_text("#!/bin/sh\n" + "\n".join(f"(\n{recipe}\n)" for recipe in found) + "\n")
    done = run(BIN / "shellcheck", "--severity=style", script, cwd=tmp_path)
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
