"""The rendered Jenkinsfile: the commands of the workflows, in their order and with their care.

Knows as much of Groovy as a Declarative pipeline needs: strings, comments and braces.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rendering import Bake, Rendered, baked
from sm_mlops import settings as mlops_settings
from workflow_judges import assert_mlops_takes, load

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Jenkins knows the base by its branch, and credentials from its store do not end after an hour.
SAID_OTHERWISE = {
    '.venv/bin/mlops review --base "origin/$CHANGE_TARGET" --output review.md': (
        ".venv/bin/mlops review --base HEAD^1 --output review.md"
    ),
    ".venv/bin/mlops run --at-most 690": ".venv/bin/mlops run --at-most 50",
    ".venv/bin/mlops deploy staging": ".venv/bin/mlops deploy staging --at-most 50",
    ".venv/bin/mlops deploy production": ".venv/bin/mlops deploy production --at-most 50",
}
JOBS = {
    "Lint and test": ("ci", "check"),
    "Train and compare with the base": ("ci", "review"),
    "Train": ("build", "train"),
    "Check": ("deploy", "check"),
    "Staging": ("deploy", "staging"),
    "Production": ("deploy", "production"),
}


@dataclass
class Block:
    """`head { ... }`: the lines directly in it, and the blocks in it by their heads, in order."""

    lines: list[str] = field(default_factory=list)
    blocks: dict[str, "Block"] = field(default_factory=dict)


def parse(text: str) -> Block:
    """Return the blocks of a Declarative pipeline. Raises ValueError for an open brace or quote."""
    bare = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    stack = [Block()]
    # A closure on one line is part of it.
    for line in filter(None, map(str.strip, bare.splitlines())):
        outside = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "", line)
        if "'" in outside or '"' in outside:
            raise ValueError(f"a quote does not close: {line}")
        if outside.endswith("{"):
            head = line.removesuffix("{").strip()
            if head in stack[-1].blocks:
                raise ValueError(f"twice: {head}")
            stack[-1].blocks[head] = Block()
            stack.append(stack[-1].blocks[head])
        elif outside == "}":
            stack.pop()
        elif outside.count("{") == outside.count("}"):
            stack[-1].lines.append(line)
        else:
            raise ValueError(f"a brace does not close: {line}")
    if len(stack) != 1:
        raise ValueError("a brace does not close")
    return stack[0]


@pytest.fixture(scope="session")
def repo(cookies_session: Any, template: Path) -> Rendered:
    """Return a render for Jenkins. Do not write into it."""
    return baked(cookies_session, template, {"ci": "jenkins", "sagemaker_project": "churn"})


@pytest.fixture(scope="session")
def pipeline(repo: Rendered) -> Block:
    return parse(repo.text("Jenkinsfile")).blocks["pipeline"]


@pytest.fixture(scope="session")
def stages(pipeline: Block) -> dict[str, Block]:
    found = {}
    for head, block in pipeline.blocks["stages"].blocks.items():
        name = re.fullmatch(r"stage\('(.+)'\)", head)
        assert name, head
        found[name[1]] = block
    return found


def commands(stage: Block) -> list[str]:
    lines = stage.blocks["steps"].lines
    return [line[4:-1] for line in lines if line.startswith("sh '") and line.endswith("'")]


@pytest.mark.parametrize("broken", ["pipeline {\n", "a {\n sh 'x\n}\n", "a {\n b { c\n}\n}\n"])
def test_a_broken_file_would_be_noticed(broken: str) -> None:
    with pytest.raises(ValueError, match="does not close"):
        parse(broken)


def test_jenkins_gets_a_jenkinsfile_and_nothing_of_github(repo: Rendered) -> None:
    assert repo.has_file("Jenkinsfile")
    assert not (repo.path / ".github").exists()


def test_github_gets_nothing_of_jenkins(default: Rendered) -> None:
    assert default.has_file(".github/dependabot.yml")
    for name, content in default.files().items():
        # Its own tests serve repos of both kinds.
        if not name.startswith("tests/"):
            assert b"jenkins" not in content.lower(), name


def test_workflows_that_a_team_brought_itself_stay(
    bake: Bake, cookies: Any, template: Path
) -> None:
    from cookiecutter.main import cookiecutter

    repo = bake(ci="jenkins")
    own = repo.path / ".github" / "workflows" / "own.yml"
    own.parent.mkdir(parents=True)
    own.write_text("name: own\n")
    cookiecutter(
        str(template),
        no_input=True,
        extra_context={"ci": "jenkins"},
        overwrite_if_exists=True,
        output_dir=str(repo.path.parent),
        config_file=str(cookies._config_file),
    )
    assert own.read_text() == "name: own\n"


def test_the_stages_are_those_of_the_workflows(stages: dict[str, Block]) -> None:
    assert [name for name in stages if name != "Ask"] == list(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_stage_has_the_commands_of_its_job(
    stages: dict[str, Block], default: Rendered, name: str
) -> None:
    workflow, job = JOBS[name]
    wanted = [step.get("run") for step in load(default, workflow)["jobs"][job]["steps"]]
    # Pull requests are commented by GitHub's own token; Jenkins keeps the report with the build.
    wanted = [said for said in wanted if said and "mlops comment" not in said]
    # An action has brought uv there; here make brings it.
    wanted = [said.removesuffix(" UV=uv").replace(" FOR=dev", "") for said in wanted]
    assert [SAID_OTHERWISE.get(said, said) for said in commands(stages[name])] == wanted


def test_every_command_is_one_that_a_person_can_run(
    stages: dict[str, Block], repo: Rendered
) -> None:
    said = [
        command
        for stage in stages.values()
        if "steps" in stage.blocks
        for command in commands(stage)
    ]
    assert_mlops_takes([words.split()[1:] for words in said if words.startswith(".venv")])
    assert len(said) == repo.text("Jenkinsfile").count("sh '")


def test_groovy_puts_nothing_into_a_script(repo: Rendered) -> None:
    text = repo.text("Jenkinsfile")
    assert "${" not in text
    assert not re.search(r"\bsh\b(?! ')", text)


def test_parameters_are_what_mlops_reads_and_nothing_is_deployed_without(
    pipeline: Block, stages: dict[str, Block]
) -> None:
    names = re.findall(r"string\(name: '(\w+)'", "\n".join(pipeline.blocks["parameters"].lines))
    assert names == ["MODEL_PACKAGE_ARN", "COMMIT", "MLOPS_SET"]
    for name, stage in stages.items():
        deploys = name in ("Check", "Staging", "Ask", "Production")
        condition = f"expression {{ {'' if deploys else '!'}params.MODEL_PACKAGE_ARN }}"
        assert condition in stage.blocks["when"].lines, name
        # Otherwise a skipped stage would still wait for its lock.
        assert "beforeOptions true" in stage.blocks["when"].lines, name


def test_the_deployed_commit_is_the_one_that_was_named_and_checked_before(
    stages: dict[str, Block],
) -> None:
    assert list(stages).index("Check") < list(stages).index("Staging")
    for name, stage in stages.items():
        if name == "Ask":
            continue
        first = stage.blocks["steps"].lines[0]
        if name in ("Staging", "Production"):
            assert first.startswith("checkout scmGit(branches: [[name: params.COMMIT]]")
        else:
            assert first == "checkout scm"


def test_a_person_is_asked_before_production_and_no_agent_waits(
    pipeline: Block, stages: dict[str, Block]
) -> None:
    assert list(stages)[-3:] == ["Staging", "Ask", "Production"]
    assert "agent none" in pipeline.lines
    ask = stages["Ask"]
    assert not any("agent" in line for line in ask.lines) and "agent" not in ask.blocks
    assert not any("lock" in line for line in ask.blocks["options"].lines)
    [step] = ask.blocks["steps"].lines
    assert step.startswith("input message: ")


def test_one_deployment_per_stage_at_a_time_and_everything_ends(stages: dict[str, Block]) -> None:
    for name, stage in stages.items():
        options = stage.blocks["options"].lines
        assert any(line.startswith("timeout(") for line in options), name
        if name in ("Train", "Staging", "Production"):
            assert f"lock(resource: 'churn-{name.lower()}')" in options


def test_credentials_come_from_jenkins_own_store_where_they_are_needed(
    pipeline: Block, stages: dict[str, Block]
) -> None:
    assert not any("credentials" in line for line in pipeline.blocks["environment"].lines)
    for name, stage in stages.items():
        found = stage.blocks.get("environment", Block()).lines
        needed = name in ("Train", "Check", "Staging", "Production")
        assert found == [
            f"{variable} = credentials('churn-{variable.lower().replace('_', '-')}')"
            for variable in CREDENTIALS * needed
        ], name


def test_region_and_project_stand_in_the_environment(pipeline: Block) -> None:
    assert pipeline.blocks["environment"].lines == [
        "AWS_REGION = 'us-east-1'",
        "PROJECT = 'churn'",
        # Made by infra/project.yml; the keys may take it and do nothing else.
        "MLOPS_ROLE = 'churn-github'",
    ]


def test_the_schedule_is_one_line_away(repo: Rendered) -> None:
    text = repo.text("Jenkinsfile")
    assert "triggers" not in "".join(parse(text).blocks["pipeline"].lines)
    switched = re.sub(r"^    // (triggers .*)$", r"    \1", text, flags=re.MULTILINE)
    [line] = [li for li in parse(switched).blocks["pipeline"].lines if li.startswith("triggers")]
    assert re.search(r"cron\(env\.BRANCH_NAME == 'main' \? 'H 3 \* \* 1' : ''\)", line)


def test_the_tool_reads_the_answer(repo: Rendered) -> None:
    assert mlops_settings.load(repo.path).project.ci == "jenkins"
