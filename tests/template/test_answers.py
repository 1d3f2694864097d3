"""Which answers render, which are refused, and what the user and the disk see of it."""

import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hooks import post_gen_project
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from answers import LONGEST, SHORTEST
from generated import default_answers, questions
from generated import regions as generated_regions
from rendering import ROOT, Bake, Rendered, Run
from sm_mlops import regions, tags
from sm_mlops.errors import MlopsError

REGIONS = json.loads(regions.FILE.read_text(encoding="utf-8"))
TEXT_FIELDS = ("project_name", "description", "author")
HOSTILE_TEXT = [
    'She said "go"',
    "It's a \\ backslash, and \\n no newline",
    '"""',
    "'''",
    "\\",
    '\\"',
    "$(touch pwned) `touch pwned` ${HOME} $$",
    "; rm -rf .",
    "&& touch pwned #",
    "a: b # c",
    "- item",
    "* item",
    "# heading #",
    "1. first",
    "> quote",
    "<script>alert(1)</script>",
    "<!-- comment",
    "[link](javascript:alert(1))",
    "![image](x)",
    "| cell | cell |",
    "~~gone~~ **bold** _thin_ __init__ `code`",
    "&amp; &lt; &#65;",
    "}} %} #}",
    "%s %(x)s {0} {x}",
    "]] = 1",
    "-rf",
    "--help",
    "../../etc",
    "C:\\temp\\new",
    "Ärger über naïve Modèle",
    "モデル",
    "🦊 fox",
    "null",
    "yes",
    "0x10",
    "=1+1",
    "@my-org/team",
    "http://example.org/?a=1&b=2",
]
REFUSED_TEXT = [
    "",
    " ",
    " padded",
    "padded ",
    "two\nlines",
    "two\r\nlines",
    "tab\there",
    "nul\0",
    "bell\a",
    "\x1b[31mred",
    "line\u2028separator",
    "next\u0085line",
    "no-break\u00a0space",
    "right-to-left\u202eoverride",
    "zero\u200bwidth",
    "lone \udc80 surrogate",
    "x" * 1000,
]
REFUSED = {
    "project_slug": [
        "",
        "My Model",
        "my_model",
        "-model",
        "model-",
        "my--model",
        "1-model",
        "CON",
        "con",
        "nul",
        "com1",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        "/absolute",
        "C:\\model",
        "a:b",
        "modèle",
        "モデル",
        "x" * 65,
        "my-model\n",
        "my model",
        "~",
        "$HOME",
        "$(touch pwned)",
        "my.model",
        "my-model/",
    ],
    "github_owner": [
        "",
        "-org",
        "org-",
        "my--org",
        "my org",
        "org/repo",
        "x" * 40,
        "org\n",
        "örg",
        "a;b",
        "@org",
    ],
    "github_repo": [
        "",
        ".",
        "..",
        "-repo",
        "a/b",
        "my repo",
        "repo.git",
        "repo.wiki",
        "x" * 101,
        "repo\n",
        "répo",
    ],
    "aws_region": [
        "",
        "us-east",
        "US-EAST-1",
        "us_east_1",
        "us-east-1a",
        "us-east-1\n",
        "-east-1",
        "eu",
        "../x",
    ],
    "sagemaker_project": [
        "",
        "-a",
        "a-",
        "1model",
        "a_b",
        "a.b",
        "a b",
        "a/b",
        "x" * 33,
        "a\n",
        "é",
        "..",
        "project!",
        "Churn",
        "platform",
        "churn-monitor",
    ],
    "github_sign_in": [
        "",
        "OIDC",
        "password",
        "oidc\n",
    ],
    "ci": [
        "",
        "github",
        "Jenkins",
        "gitlab",
        "jenkins\n",
    ],
}


def problems(answers: Mapping[str, object]) -> list[str]:
    """What the hook says to these answers, none of them from the command line."""
    return post_gen_project.problems(dict(answers), {}, {}, REGIONS)


def good() -> dict[str, str]:
    return {name: example for name, (_, _, _, example) in post_gen_project.RULES.items()}


def test_every_question_has_a_rule_a_prompt_and_is_one_of_at_most_ten() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__prompts__"]
    assert list(questions()) == list(post_gen_project.RULES) == list(prompts)
    assert len(questions()) <= 10


def test_every_prompt_of_a_free_answer_gives_an_example_the_rules_accept() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__prompts__"]
    for name, prompt in prompts.items():
        if isinstance(prompt, str):
            example = prompt.rpartition("for example ")[2]
            assert problems(good() | {name: example}) == []


def test_the_examples_in_the_refusals_are_accepted() -> None:
    assert problems(good()) == []


@pytest.mark.parametrize(
    ("field", "answer"), [(f, a) for f in REFUSED for a in REFUSED[f]], ids=ascii
)
def test_a_bad_name_is_refused_in_one_line_with_field_and_example(field: str, answer: str) -> None:
    [line] = problems(good() | {field: answer})
    assert line.startswith(f"{field}: must ") and "for example" in line
    assert line.isascii() and line.isprintable() and len(line) < 300


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize(
    "answer", [*REFUSED_TEXT, "{{ 7 * 7 }}", "{% raw %}", "{# x #}"], ids=ascii
)
def test_text_that_cannot_be_shown_or_would_run_is_refused(field: str, answer: str) -> None:
    [line] = problems(good() | {field: answer})
    assert line.startswith(f"{field}: must ") and line.isascii() and line.isprintable()


@pytest.mark.parametrize("answer", [None, 1, 1.5, True, ["a"], {"a": 1}])
def test_an_answer_that_is_not_text_is_refused(answer: object) -> None:
    lines = problems(dict.fromkeys(post_gen_project.RULES, answer))
    assert [line.partition(":")[0] for line in lines] == list(post_gen_project.RULES)


def test_a_missing_answer_is_refused() -> None:
    assert len(problems({})) == len(post_gen_project.RULES)


def names_of(repo: Rendered) -> dict[str, Any]:
    """The names a rendered repo uses on AWS, from its own code."""
    code = (
        "import json, pathlib, sm_mlops.settings as s; x = s.load(pathlib.Path.cwd());"
        "print(json.dumps({'pipeline': x.pipeline, 'group': x.model_package_group,"
        "'prefix': x.prefix, 'bucket': x.bucket('1' * 12), 'role': x.role_arn('1' * 12)}))"
    )
    done = repo.run("python", "-c", code)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def allows(service: str, shape: str, name: str) -> bool:
    """Whether botocore's model of a service admits `name` for `shape`."""
    limits = botocore.session.get_session().get_service_model(service).shape_for(shape).metadata
    fits = limits.get("min", 0) <= len(name) <= limits.get("max", 10**6)
    return fits and bool(re.fullmatch(limits.get("pattern", ".*"), name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "answers",
    [{}, LONGEST, SHORTEST, {"sagemaker_project": "a" + "-" * 30 + "9"}],
    ids=["default", "longest", "shortest", "hyphens"],
)
def test_aws_accepts_every_name_of_a_rendered_repo(bake: Bake, answers: dict[str, str]) -> None:
    repo = bake(**answers)
    names = names_of(repo)
    project = tomllib.loads(repo.text("pyproject.toml"))["tool"]["mlops"]["project"]
    assert allows("sagemaker", "PipelineName", names["pipeline"])
    assert allows("sagemaker", "ProjectEntityName", project)
    assert allows("sagemaker", "EntityName", names["group"])
    assert allows("iam", "roleNameType", names["role"].rpartition("/")[2])
    assert allows("iam", "arnType", names["role"])
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", names["bucket"])


@pytest.mark.parametrize("project", ["w" * 32, "platforms", "monitor", "a", "a" + "-" * 30 + "9"])
def test_a_legal_project_leaves_room_for_the_names_of_its_deployment(project: str) -> None:
    assert problems(good() | {"sagemaker_project": project}) == []
    assert allows("sagemaker", "ProjectEntityName", project)
    assert allows("sagemaker", "EndpointName", f"{project}-production")
    assert allows("iam", "roleNameType", f"{project}-production-pipeline")
    assert allows("lambda", "FunctionName", f"{project}-production")
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-using-console-create-stack-parameters.html
    assert re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,127}", f"{project}-production")


@given(st.text(st.sampled_from("aA1-_. é"), max_size=40))
def test_the_project_rule_admits_nothing_sagemaker_refuses(project: str) -> None:
    refused = problems(good() | {"sagemaker_project": project})
    assert refused or allows("sagemaker", "ProjectEntityName", project)


def test_regions_are_accepted_that_have_everything() -> None:
    known = [region for region, lacking in REGIONS.items() if not lacking]
    assert {"us-east-1", "eu-central-1"} < set(known)
    for region in known:
        assert problems(good() | {"aws_region": region}) == []
        regions.require(region)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("eu-central-2", "has no CodeConnections; choose one of eu-central-1, eu-north-1"),
        ("mx-central-1", "has no SageMaker image of XGBoost 3.2-0 and no Service Catalog and no"),
        ("cn-north-1", "has no CodeConnections; choose one of ap-northeast-1"),
        ("us-gov-west-1", "has no AWS::CodeConnections::Connection in CloudFormation; choose"),
        ("eu-moon-1", "is not known; choose one of eu-central-1"),
    ],
)
def test_a_region_that_lacks_something_is_refused_with_what_it_lacks(
    region: str, words: str
) -> None:
    [line] = problems(good() | {"aws_region": region})
    assert line.startswith(f"aws_region: {region} {words}")
    with pytest.raises(MlopsError, match=f"the region {region} {words.partition(';')[0]}"):
        regions.require(region)


def test_a_render_is_refused_where_a_service_is_missing(elsewhere: Callable[..., Run]) -> None:
    done = elsewhere("aws_region=mx-central-1")
    assert done.code == 1
    assert "aws_region: mx-central-1 has no SageMaker image of XGBoost" in done.err


@pytest.mark.slow
def test_the_regions_are_those_of_the_sdks() -> None:
    assert regions.FILE.read_text(encoding="utf-8") == generated_regions(), "run: make generate"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Churn Prediction", "churn-prediction"),
        ("Modèle prévision", "modele-prevision"),
        ("R&D / C++ (v2)", "r-d-c-v2"),
        ("2nd model", "model-2nd-model"),
        ("!!!", "model"),
        ("W" * 64, "w" * 58),
        ("a" * 57 + " b", "a" * 57),
        ("  ", "model"),
    ],
)
def test_a_slug_is_derived_from_the_name(name: str, slug: str) -> None:
    assert default_answers(project_name=name)["project_slug"] == slug


def test_the_default_project_is_not_named_like_a_pipeline_of_checks() -> None:
    answers = default_answers(project_name="Fraud Monitor")
    assert (answers["project_slug"], answers["sagemaker_project"]) == ("fraud-monitor", "fraud")


def test_the_default_project_is_cut_to_what_sagemaker_allows_and_keeps_no_last_hyphen(
    bake: Bake,
) -> None:
    repo = bake(project_name="a" * 31 + " " + "b" * 20)
    assert tomllib.loads(repo.text("pyproject.toml"))["tool"]["mlops"]["project"] == "a" * 31


@pytest.mark.parametrize(
    "field", [*TEXT_FIELDS, "github_owner", "github_repo", "sagemaker_project"]
)
@pytest.mark.parametrize(
    "answer",
    [
        "{{ 'a' }}",
        *(pytest.param(a, marks=pytest.mark.long) for a in ("{% set x = 1 %}x", "{# gone #}x")),
    ],
)
def test_jinja_on_the_command_line_is_refused_as_it_was_given(
    elsewhere: Callable[..., Run], field: str, answer: str
) -> None:
    done = elsewhere(f"{field}={answer}", "project_slug=my-model")
    assert done.code == 1
    [line] = [line for line in done.err.splitlines() if line.startswith(f"{field}: ")]
    assert line.endswith(f"got {answer!a}")


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "slug",
    [
        *("", "..", "../../up/and/up", "a/b/c", "{tmp}/absolute/path", "-x"),
        *(
            pytest.param(slug, marks=pytest.mark.long)
            for slug in (
                *(" ", ".", "../up", "!", "x" * 5000, "a\nb", "モデル", '"', "\\", "My Model"),
            )
        ),
        *("$(touch pwned)", "con", "{{ 'A' }}"),
    ],
    ids=lambda slug: ascii(slug)[:30],
)
def test_a_refused_slug_leaves_nothing_on_disk(
    elsewhere: Callable[..., Run], tmp_path: Path, slug: str
) -> None:
    before = everything_below(tmp_path)
    done = elsewhere(f"project_slug={slug.format(tmp=tmp_path) if '{tmp}' in slug else slug}")
    assert done.code == 1
    assert len([line for line in done.err.splitlines() if line.startswith("project_slug: ")]) == 1
    left = everything_below(tmp_path) - before
    # Cookiecutter's own: the answers for --replay, and its copies of the hooks in the temp folder.
    assert {p for p in left if not p.startswith(("home", "tmp"))} == set()


def test_all_bad_answers_are_reported_at_once(elsewhere: Callable[..., Run]) -> None:
    bad = ("author= ", "aws_region=moon", "github_owner=a b", "sagemaker_project=1")
    done = elsewhere(*bad)
    lines = [line.partition(":")[0] for line in done.err.splitlines()]
    assert done.code == 1
    assert [name for name in lines if name in questions()] == [
        "author",
        "github_owner",
        "aws_region",
        "sagemaker_project",
    ]


def test_refused_answers_in_a_repo_that_was_there_before_can_be_taken_back(
    elsewhere: Callable[..., Run], tmp_path: Path
) -> None:
    repo = tmp_path / "work" / "my-model"
    assert elsewhere().code == 0
    done = elsewhere("--overwrite-if-exists", "aws_region=moon")
    assert done.code == 1 and "see `git status`" in done.err
    subprocess.run(["git", "restore", "."], cwd=repo, check=True)
    left = subprocess.run(["git", "status", "--porcelain"], cwd=repo, stdout=subprocess.PIPE)
    assert left.stdout == b"" and "moon" not in (repo / "pyproject.toml").read_text()


def heading_and_text(markdown: str) -> tuple[str, str]:
    """First heading and the whole text of a Markdown document, as a reader sees them."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    inline = [shown(t.children or []) for t in tokens if t.type == "inline"]
    return inline[0], "\n".join(inline)


def shown(tokens: list[Any]) -> str:
    parts = {
        "text": lambda t: t.content,
        "softbreak": lambda t: " ",
        "text_special": lambda t: t.content,
    }
    return "".join(
        parts.get(t.type, lambda t: t.content if t.type == "code_inline" else "")(t) for t in tokens
    )


@pytest.mark.slow
@pytest.mark.parametrize("answer", HOSTILE_TEXT)
def test_any_text_arrives_unchanged_where_people_and_programs_read_it(
    bake: Bake, answer: str
) -> None:
    repo = bake(project_name=answer, description=answer, author=answer, project_slug="my-model")
    project = tomllib.loads(repo.text("pyproject.toml"))["project"]
    heading, text = heading_and_text(repo.text("README.md"))
    assert project["description"] == project["authors"][0]["name"] == heading == answer
    # A tag may have fewer characters.
    owner = tomllib.loads(repo.text("pyproject.toml"))["tool"]["mlops"]["owner"]
    assert len(owner) == len(answer) and tags.VALUE.fullmatch(owner)
    assert text.count(answer) >= 3
    assert not list(repo.path.parent.rglob("pwned"))


@pytest.mark.parametrize("answers", [LONGEST, SHORTEST], ids=["longest", "shortest"])
def test_the_longest_and_the_shortest_answers_render(bake: Bake, answers: dict[str, str]) -> None:
    project = tomllib.loads(bake(**answers).text("pyproject.toml"))
    assert project["project"]["name"] == answers["project_slug"]
    assert project["tool"]["mlops"]["region"] == answers["aws_region"]


@pytest.mark.parametrize(
    ("field", "length"), [(f, len(a)) for f, a in LONGEST.items() if f != "aws_region"]
)
def test_one_character_more_than_the_longest_is_refused(field: str, length: int) -> None:
    assert post_gen_project.RULES[field][1] == length
    assert problems(good() | {field: "w" * (length + 1)})


def test_answers_given_together_do_not_hide_each_other() -> None:
    for first, second in itertools.combinations(post_gen_project.RULES, 2):
        assert len(problems(good() | {first: "", second: ""})) == 2
