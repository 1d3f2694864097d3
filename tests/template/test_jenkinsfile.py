"""The rendered Jenkinsfiles: the commands of the workflows, in their order and with their care.

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

FILES = ("Jenkinsfile", "Jenkinsfile.production")
# Jenkins knows the base by its branch, and credentials from its store do not end after an hour.
SAID_OTHERWISE = {
    '.venv/bin/mlops review --base "origin/$CHANGE_TARGET" --output review.md': (
        ".venv/bin/mlops review --base HEAD^1 --output review.md"
    ),
    # One job follows to the end, where GitHub hands over.
    ".venv/bin/mlops run --at-most 690": ".venv/bin/mlops run --at-most 50 --unfinished-ok",
    ".venv/bin/mlops deploy staging": ".venv/bin/mlops deploy staging --at-most 50",
    ".venv/bin/mlops deploy production": ".venv/bin/mlops deploy production --at-most 50",
}
JOBS = {
    "Lint and test": ("ci", "check"),
    "Train and compare with the base": ("ci", "review"),
    "Train": ("build", "train"),
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
def production(repo: Rendered) -> Block:
    return parse(repo.text("Jenkinsfile.production")).blocks["pipeline"]


@pytest.fixture(scope="session")
def stages(pipeline: Block, production: Block) -> dict[str, Block]:
    """Return the stages of both files."""
    found = {}
    both = [part.blocks["stages"].blocks for part in (pipeline, production)]
    for head, block in [each for one in both for each in one.items()]:
        name = re.fullmatch(r"stage\('(.+)'\)", head)
        assert name, head
        found[name[1]] = block
    return found


def commands(stage: Block, signed_in: bool | None = None) -> list[str]:
    """Return the commands of a stage, those with or without credentials alone if asked."""
    steps = stage.blocks["steps"]
    inner = [line for block in steps.blocks.values() for line in block.lines]
    lines = {True: inner, False: steps.lines, None: steps.lines + inner}[signed_in]
    return [line[4:-1] for line in lines if line.startswith("sh '") and line.endswith("'")]


@pytest.mark.parametrize("broken", ["pipeline {\n", "a {\n sh 'x\n}\n", "a {\n b { c\n}\n}\n"])
def test_a_broken_file_would_be_noticed(broken: str) -> None:
    with pytest.raises(ValueError, match="does not close"):
        parse(broken)


@pytest.mark.slow
def test_jenkins_gets_a_jenkinsfile_and_nothing_of_github(repo: Rendered) -> None:
    assert all(repo.has_file(name) for name in FILES)
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
    # A build that is aborted tells its commands so (SIGTERM): `mlops run` stops its execution.
    left_out = ("mlops comment", "mlops stop")
    wanted = [said for said in wanted if said and not any(word in said for word in left_out)]
    wanted = [said.replace(" FOR=dev", "") for said in wanted]
    if name == "Production":
        # A job of its own, so it does not take the other's word.
        wanted.insert(1, ".venv/bin/mlops check")
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
    assert len(said) == sum(repo.text(name).count("sh '") for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_groovy_puts_nothing_into_a_script(repo: Rendered, name: str) -> None:
    text = repo.text(name)
    assert "${" not in text
    assert not re.search(r"\bsh\b(?! ')", text)


def test_parameters_are_what_mlops_reads_and_nothing_is_deployed_without(
    pipeline: Block, stages: dict[str, Block]
) -> None:
    names = re.findall(r"string\(name: '(\w+)'", "\n".join(pipeline.blocks["parameters"].lines))
    assert names == ["MODEL_PACKAGE_ARN", "MLOPS_SET", "MLOPS_REASON"]
    for name in pipeline.blocks["stages"].blocks:
        stage = stages[name[7:-2]]
        deploys = "Staging" in name
        condition = f"expression {{ {'' if deploys else '!'}params.MODEL_PACKAGE_ARN }}"
        assert condition in stage.blocks["when"].lines, name
        # Otherwise a skipped stage would still wait for its lock.
        assert "beforeOptions true" in stage.blocks["when"].lines, name
        if name[7:-2] in ("Train", "Staging"):
            assert "branch 'main'" in stage.blocks["when"].lines


def test_a_push_trains_what_is_new_and_who_has_a_reason_and_a_person_what_there_is(
    repo: Rendered, stages: dict[str, Block]
) -> None:
    train = stages["Train"].blocks
    # A build that was red is repaired by any commit, not only by one of model or settings.
    assert not any("changeset" in line for block in train.values() for line in block.lines)
    assert "MLOPS_IF_CHANGED = pushed()" in train["environment"].lines
    [body] = parse(repo.text("Jenkinsfile")).blocks["def pushed()"].lines
    causes = ("hudson.triggers.TimerTrigger$TimerTriggerCause", "hudson.model.Cause$UserIdCause")
    by = " || ".join(f"currentBuild.getBuildCauses('{cause}')" for cause in causes)
    assert body == f"params.MLOPS_REASON || {by} ? 'false' : 'true'"


def test_only_what_the_job_itself_is_from_is_checked_out(
    repo: Rendered, stages: dict[str, Block]
) -> None:
    """On main that is main; the version's commit is never checked out."""
    for name, stage in stages.items():
        if name != "Ask":
            assert stage.blocks["steps"].lines[0] == "checkout scm"
    assert all("COMMIT" not in repo.text(name) for name in FILES)


def test_production_is_a_job_of_its_own_that_names_who_approves(
    pipeline: Block, production: Block, stages: dict[str, Block]
) -> None:
    assert list(stages)[-3:] == ["Staging", "Ask", "Production"]
    assert "production" not in "".join(stages["Staging"].blocks["steps"].lines[:-1])
    start = stages["Staging"].blocks["steps"].lines[-1]
    assert start.startswith("build job: '/churn-production/deploy', wait: false, parameters: [")
    started = re.findall(r"string\(name: '(\w+)'", start)
    declared = "\n".join(production.blocks["parameters"].lines)
    assert started == re.findall(r"string\(name: '(\w+)'", declared)
    [step] = stages["Ask"].blocks["steps"].lines
    assert step.startswith("input message: ") and step.endswith("submitter: 'churn-production'")


def test_no_agent_waits_for_a_person(production: Block, stages: dict[str, Block]) -> None:
    assert "agent none" in production.lines
    ask = stages["Ask"]
    assert not any("agent" in line for line in ask.lines) and "agent" not in ask.blocks
    assert not any("lock" in line for line in ask.blocks["options"].lines)


def test_one_deployment_per_stage_at_a_time_and_everything_ends(stages: dict[str, Block]) -> None:
    for name, stage in stages.items():
        options = stage.blocks["options"].lines
        assert any(line.startswith("timeout(") for line in options), name
        if name in ("Train", "Staging", "Production"):
            assert f"lock(resource: 'churn-{name.lower()}')" in options


def test_nothing_but_mlops_runs_with_credentials(stages: dict[str, Block]) -> None:
    """Set-up, lint and tests run code of packages and of branches."""
    for name, stage in stages.items():
        assert not any(
            "credentials" in line for line in stage.blocks.get("environment", Block()).lines
        )
        part = {"Train": "train", "Staging": "staging", "Production": "production"}.get(name)
        assert list(stage.blocks["steps"].blocks) == [
            f"withCredentials([string(credentialsId: 'churn-{part}-key-id', "
            "variable: 'AWS_ACCESS_KEY_ID'), "
            f"string(credentialsId: 'churn-{part}-key-secret', variable: 'AWS_SECRET_ACCESS_KEY')])"
        ] * bool(part), name
        assert all(said.startswith(".venv/bin/mlops ") for said in commands(stage, signed_in=True))
        for said in commands(stage, signed_in=False):
            assert said.startswith("make ") or "mlops review" in said, name


def test_each_part_has_the_role_of_its_own(
    pipeline: Block, production: Block, stages: dict[str, Block]
) -> None:
    region = ["AWS_REGION = 'us-east-1'", "PROJECT = 'churn'"]
    assert pipeline.blocks["environment"].lines == region
    role = "MLOPS_ROLE = 'churn-github-{}'".format
    assert production.blocks["environment"].lines == [*region, role("production")]
    for name in ("Train", "Staging"):
        assert role(name.lower()) in stages[name].blocks["environment"].lines


def test_the_tool_reads_the_answer(repo: Rendered) -> None:
    assert mlops_settings.load(repo.path).project.ci == "jenkins"
