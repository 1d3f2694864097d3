"""The rendered workflows, executed by nektos/act, a judge that we did not write.

It runs them beside our reader, with programs that only note how they are called, and in
`make test-long` in earnest, with the sandbox. Both must run the same jobs and steps with the same
commands, variables, inputs of actions and conclusions. What act leaves out is the reader's alone:
reviewers, environments, OpenID Connect, patterns of branches, permissions, concurrency, a
failed part of a matrix ending the rest.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rendering import ROOT, baked, mypy_cache, once, run
from workflow_actions import checkout, configure_aws_credentials, for_act, installed, setup_uv
from workflow_file import MACHINE
from workflow_judges import PINS, SIGN_INS
from workflow_reader import SKIPPED, ActionFailed, Repository, Run, Work, git
from workflow_stories import (
    FEW_TESTS,
    NAME,
    SESSION,
    WRONG,
    Comments,
    Connected,
    Story,
    beside,
    commit,
    committed,
    replace,
    served,
)

pytestmark = pytest.mark.slow
ACT = "go install github.com/nektos/act@v0.2.89"
ACTIONS = ("actions/checkout", "aws-actions/configure-aws-credentials", "astral-sh/setup-uv")
CHECKOUT, SIGN_IN, SETUP_UV = (f"{name}@{PINS[name][1]}" for name in ACTIONS)
ROLE = "arn:aws:iam::123456789012:role/my-model-github"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:model-package/my-model/3"
KEY = {"AWS_ACCESS_KEY_ID": "AKIAOFTHEUSER0000000", "AWS_SECRET_ACCESS_KEY": "key-of-the-user"}
SIGNED_IN = dict(zip(SESSION, ("ASIAOFTHEROLE0000000", "secret", "token"), strict=True))
TOKEN = "ghs_of-the-job"
# In the place of make and mlops: notes how it is called, at which commit and with which of the
# variables that workflows and actions set, and ends as it is told to.
PROGRAM = r"""#!/bin/sh
called="${0##*/} $*"
own=$(env | grep -E '^(AWS_.*|CI|COMMIT|EXECUTION|MLOPS_.*|MODEL_PACKAGE_ARN|PROJECT)=' | sort)
run=$(env | grep -E '^GITHUB_(((BASE|HEAD)_)?REF|EVENT_NAME|REPOSITORY|RUN_ID|SHA)=' | sort)
echo "$GITHUB_JOB" $called: $(git rev-parse HEAD) $own $run ${GITHUB_TOKEN:+a token} >>"$CALLS"
case $called in
"mlops run"*) printf 'execution=it\nstatus=%s\n' "$STATUS" >>"$GITHUB_OUTPUT" ;;
esac
case $called in
"${FAILING:-nothing}"*) exit 1 ;;
esac
"""
Start = Callable[[Repository], Run]


@pytest.fixture(scope="session")
def act() -> str:
    program = shutil.which("act")
    if not program:
        pytest.skip(f"nektos/act, which is no Python package, is missing; get it: {ACT}")
    return program


def test_the_act_to_get_is_the_one_that_ci_run_installs() -> None:
    assert ACT in (ROOT / ".ci" / "run").read_text()


@dataclass
class Told:
    """What one of the two has done, by the ids of jobs: `jobs` has each run of a job, followed by
    its steps, and how they ended; `calls` what was called in it. Log and summary are act's."""

    conclusion: str
    jobs: dict[str, list[str]]
    calls: dict[str, list[str]]
    log: str = ""
    summary: str = ""


@dataclass
class Both:
    """A repository whose workflows our reader rehearses, and act rehearses or really runs."""

    act: str
    folder: Path
    origin: Path
    variables: dict[str, str] = field(default_factory=lambda: {"AWS_ROLE_ARN": ROLE})
    secrets: dict[str, str] = field(default_factory=lambda: dict(KEY))
    token: str = TOKEN
    count: int = 0

    def rehearsal(self, failing: str = "", status: str = "Succeeded") -> dict[str, str]:
        """Return the variables of a machine whose programs do nothing.

        Calls that begin with `failing` fail, among them sign-in; `mlops run` ends with `status`.
        """
        folder = self._folder()
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("make", "mlops"):
            (programs / name).write_text(PROGRAM)
            (programs / name).chmod(0o755)
        return machine(folder, programs.parent, SIGNED_IN) | {
            "FAILING": failing,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "STATUS": status,
        }

    def read(self, start: Start, machine: Mapping[str, str]) -> tuple[Run, Told]:
        """Return what the reader does in a rehearsal."""
        calls = Path(machine["CALLS"])

        def sign_in(work: Work, given: Mapping[str, str]) -> dict[str, str]:
            with calls.open("a") as file:
                file.write(f"{work.job.id} sign-in {json.dumps(dict(given))}\n")
            if machine["FAILING"] == "sign-in":
                raise ActionFailed("nobody is let in")
            return SIGNED_IN

        actions = {
            CHECKOUT: checkout(Path(machine["ENVIRONMENT"])),
            SIGN_IN: configure_aws_credentials(sign_in),
            SETUP_UV: setup_uv,
        }
        about = (dict(machine), self.variables, self.secrets)
        hub = Repository(self.origin, NAME, self._folder(), actions, *about, count=self.count)
        found = start(hub)
        self.count = hub.count
        jobs: dict[str, list[str]] = {}
        for job in found.jobs:
            told = jobs.setdefault(job.id, [])
            told.append(SKIPPED if job.result == SKIPPED else f"{job.name}: {job.result}")
            told += [f"  {step.name}: {step.outcome}" for step in job.steps]
        return found, Told(found.conclusion, jobs, _calls(calls), found.log)

    def perform(self, run: Run, machine: Mapping[str, str], **about: str) -> Told:
        """Return what act does with the event of a run.

        A dispatched one names its workflow; otherwise act has to find the workflow.
        """
        folder, event = self._folder(), run.event
        clone, payload = folder / "clone", folder / "event.json"
        clone.mkdir()
        git(clone, "init", "--quiet")
        git(clone, "fetch", "--quiet", self.origin.as_uri(), event.sha)
        git(clone, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        payload.write_text(json.dumps(dict(event.payload)))
        dispatched = event.name == "workflow_dispatch"
        actions = dict(zip((CHECKOUT, SIGN_IN, SETUP_UV), map(str, for_act(folder)), strict=True))
        about |= {"GITHUB_REPOSITORY": NAME, "GITHUB_RUN_ID": str(7_000_000_000 + self.count)}
        command = [
            *(self.act, event.name, "--directory", clone, "--eventpath", payload),
            *(("--workflows", f".github/workflows/{run.workflow}.yml") if dispatched else ()),
            *("--platform", f"{MACHINE}=-self-hosted", "--concurrent-jobs", "1"),
            *("--json", "--verbose", "--no-cache-server", "--no-skip-checkout"),
            *_each("--local-repository", actions),
            *_each("--env", about),
            *_each("--var", self.variables),
            *_each("--secret", self.secrets | {"GITHUB_TOKEN": self.token}),
        ]
        own = bare(folder) | {"ORIGIN": self.origin.as_uri()}
        done = subprocess.run(
            command, env=own | dict(machine), capture_output=True, text=True, check=False
        )
        jobs, log, summary = _acted(done.stdout)
        conclusion = "failure" if done.returncode else "success"
        calls = _calls(Path(machine["CALLS"]))
        # What it says there as JSON is about itself.
        errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        return Told(conclusion, jobs, calls, "\n".join([log, *errors]), summary)

    def _folder(self) -> Path:
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        return folder


def both_of(act: str, folder: Path) -> Both:
    """Return an empty repository."""
    origin = folder / "both.git"
    origin.mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main")
    (folder / "both").mkdir()
    return Both(act, folder / "both", origin)


def bare(home: Path) -> dict[str, str]:
    """Return the variables of a new machine on which act does not look for a newer version.

    It gives its jobs a terminal, as GitHub does not.
    """
    own = {"ACT_DISABLE_VERSION_CHECK": "1", "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}
    return own | {"PATH": os.environ["PATH"]}


def machine(folder: Path, environment: Path, signed_in: Mapping[str, str]) -> dict[str, str]:
    """Return what the actions for act read: where .venv is, and what signing in sets."""
    region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
    lines = {name: signed_in[name] for name in SESSION if signed_in[name]} | region
    (folder / "session").write_text("".join(f"{name}={lines[name]}\n" for name in lines))
    (folder / "calls").touch()
    files = {"CALLS": str(folder / "calls"), "SESSION": str(folder / "session")}
    return files | {"ENVIRONMENT": str(environment), "FAILING": ""}


def _each(option: str, values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (option, f"{name}={value}")]


def _acted(output: str) -> tuple[dict[str, list[str]], str, str]:
    """Return jobs, log and summary of what act writes."""
    jobs: dict[str, dict[str, list[str]]] = {}
    log, summary = [], []
    for line in output.splitlines():
        about: dict[str, Any] = json.loads(line) if line.startswith("{") else {"msg": line + "\n"}
        if about.get("raw_output") or len(about) == 1:
            log.append(about["msg"])
        if about.get("command") == "summary":
            summary.append(about["content"])
        if "jobID" not in about:
            continue
        told = jobs.setdefault(about["jobID"], {}).setdefault(about["job"], [])
        # A step of a composite action has its own id after the one of the action's step.
        if about.get("stage") == "Main" and "stepResult" in about and len(about["stepID"]) == 1:
            told.append(f"  {about['step']}: {about['stepResult']}")
        elif about.get("jobResult") == SKIPPED:
            told.append(SKIPPED)
        elif "jobResult" in about:
            name = about["job"].strip().partition("/")[2]
            name = re.sub(r"-\d+$", "", name) if about["matrix"] else name
            told.insert(0, f"{name}: {about['jobResult']}")
    found = {job: [line for told in runs.values() for line in told] for job, runs in jobs.items()}
    # A matrix that is skipped counts once: it is skipped before it is looked at.
    found = {job: [SKIPPED] if set(told) == {SKIPPED} else told for job, told in found.items()}
    return found, "".join(log), "".join(summary)


def _calls(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        job, _, call = line.partition(" ")
        if call.startswith("sign-in "):
            given = json.loads(call.removeprefix("sign-in "))
            # For act, an input that is not given is an empty one.
            call = f"sign-in { ({name: given[name] for name in sorted(given) if given[name]}) }"
        found.setdefault(job, []).append(call)
    file.write_text("")
    return found


# Whether act can read them.


@pytest.mark.parametrize("sign_in", SIGN_INS)
def test_act_finds_the_workflows_valid(
    sign_in: str, act: str, cookies: Any, template: Path, tmp_path: Path
) -> None:
    repo = baked(cookies, template, {"github_sign_in": sign_in})
    command = (act, "--validate", "--strict", "--directory", repo.path)
    assert run(*command, cwd=tmp_path, **bare(tmp_path)).code == 0
    replace(repo, ".github/workflows/deploy.yml", "needs: staging", "need: staging")
    done = run(*command, cwd=tmp_path, **bare(tmp_path))
    assert done.code != 0 and "need" in done.err


# Rehearsals.


@dataclass(frozen=True)
class Case:
    """What happens, which calls fail then, and what `mlops run` comes to."""

    event: str
    failing: str = ""
    status: str = "Succeeded"
    sign_in: str = "oidc"


CASES = {
    "a pull request": Case("pull"),
    "a pull request that cannot be set up": Case("pull", "make setup"),
    "a pull request that lint stops": Case("pull", "make lint"),
    "a pull request that the gate stops": Case("pull", "mlops review"),
    "a pull request that cannot be commented on": Case("pull", "mlops comment"),
    "a push": Case("push"),
    "a push with a key": Case("push", sign_in="iam-user"),
    "a push that nobody lets in": Case("push", "sign-in"),
    "a push that the gate stops": Case("push", "mlops run", "Failed"),
    "a push whose training is lost sight of": Case("push", "mlops run", "Executing"),
    "a push that trains for hours": Case("push", status="Executing"),
    "a build with parameters": Case("build"),
    "a deployment": Case("deploy"),
    "a deployment with a key": Case("deploy", sign_in="iam-user"),
    "a deployment that may not be": Case("deploy", "mlops check"),
    "a deployment that fails in staging": Case("deploy", "mlops deploy staging"),
    "a deployment that fails its test in staging": Case("deploy", "mlops smoke staging"),
    "a deployment that fails in production": Case("deploy", "mlops deploy production"),
    "a deployment that fails its test in production": Case("deploy", "mlops smoke production"),
}


@pytest.fixture(scope="session")
def workflows(cookies_session: Any, template: Path) -> dict[str, dict[str, str]]:
    """Return the texts of the workflows for each way to sign in, by file name."""
    found = {}
    for sign_in in SIGN_INS:
        repo = baked(cookies_session, template, {"github_sign_in": sign_in})
        files = (repo.path / ".github" / "workflows").iterdir()
        found[sign_in] = {file.name: file.read_text() for file in files}
    return found


def started(event: str, folder: Path, origin: Path, workflows: Mapping[str, str]) -> Start:
    """Return an event in a repository with these workflows and nothing to run."""
    clone = folder / "clone"
    (clone / ".github" / "workflows").mkdir(parents=True)
    for name, text in workflows.items():
        (clone / ".github" / "workflows" / name).write_text(text)
    git(clone, "init", "--quiet", "--initial-branch=main")

    def changed(text: str) -> str:
        (clone / "mlops.yaml").write_text(text)
        git(clone, "add", "--all")
        git(clone, "commit", "--quiet", "--message", text)
        return git(clone, "rev-parse", "HEAD")

    trained = changed("trained")
    changed("later")
    if event == "push":
        return lambda hub: hub.push(clone)[0]
    git(clone, "push", "--quiet", str(origin), "main")
    if event == "pull":
        git(clone, "switch", "--quiet", "--create", "asked-for")
        changed("asked for")
        return lambda hub: hub.pull_request(clone, 7)[0]
    inputs = {
        "build": {"set": "max_depth=4 GateThreshold=0.9"},
        "deploy": {"model-package-arn": ARN, "commit": trained},
    }
    return lambda hub: hub.dispatch(event, inputs[event])


@pytest.mark.parametrize("name", CASES)
def test_act_and_our_reader_do_the_same(
    name: str, act: str, workflows: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    case = CASES[name]
    both = both_of(act, tmp_path)
    start = started(case.event, tmp_path, both.origin, workflows[case.sign_in])
    machine = both.rehearsal(case.failing, case.status)
    found, read = both.read(start, machine)
    acted = both.perform(found, machine)
    assert acted.jobs == read.jobs, acted.log
    assert acted.calls == read.calls
    assert acted.conclusion == read.conclusion == ("failure" if case.failing else "success")


# In earnest.


@pytest.fixture(scope="session")
def life(
    act: str, cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    """Tell of a first push to production, and of what is stopped on its way.

    As pairs of what the reader has rehearsed and what act has done.
    """

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("act")
        repo = committed(cookies_session, template, folder)
        with beside(repo, folder) as here:
            return tell_life(both_of(act, folder), folder, here)

    return once(tmp_path_factory, "act", tell)


def tell_life(both: Both, folder: Path, here: Connected) -> Story:
    seen: dict[str, Any] = {"versions before": here.versions()}
    variables = here.variables()
    # The way to AWS is part of the machine, the right to go it is not.
    way = {name: value for name, value in variables.items() if value and name not in SESSION}
    in_earnest = machine(folder, folder / "venv", variables) | way
    in_earnest |= {"VENV": sys.prefix, "COLUMNS": "200"}

    def perform(name: str, start: Start, failing: str = "", status: str = "Succeeded") -> None:
        found, read = both.read(start, both.rehearsal(failing, status))
        api = variables["GITHUB_API_URL"]
        seen[name] = read, both.perform(found, in_earnest, GITHUB_API_URL=api)

    def deployed(version: Mapping[str, Any]) -> Start:
        inputs = {"model-package-arn": version["arn"], "commit": version["commit"]}
        return lambda hub: hub.dispatch("deploy", inputs)

    perform("push", lambda hub: hub.push(here.repo.path)[0])
    seen["pushed"] = git(here.repo.path, "rev-parse", "HEAD")
    # Where it is asked whether a version's commit was merged.
    here.control("github.routes.add", *NAME.split("/"))
    [github] = (here.repo.path / ".sandbox").rglob("my-model.git")
    git(here.repo.path, "push", "--quiet", str(github), "main")
    both.token = here.repo.text(".sandbox/github-token")
    late = {"set": "GateThreshold=1.5"}
    perform("gate", lambda hub: hub.dispatch("build", late), "mlops run", "Failed")
    seen["versions"] = here.versions()
    here.mlops("approve", "1")
    perform("deployment", deployed(seen["versions"][1]))
    wrong = here.copy_of_version_1(here.repo.text("model/inference.py") + WRONG)
    here.mlops("approve", str(wrong))
    perform("wrong", deployed(here.versions()[wrong]), "mlops smoke staging")
    stages = json.loads(here.mlops("status", "--json"))["stages"]
    seen["stages"] = {stage["stage"]: stage["version"] for stage in stages}
    return Story(seen=seen)


@pytest.fixture(scope="session")
def pull(
    act: str, cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    """Tell of a pull request that the gate stops, as the reader rehearses it and act runs it."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("act-pull")
        repo = committed(cookies_session, template, folder)
        comments = Comments(lambda token: token == TOKEN)
        both = both_of(act, folder)
        with served(comments):
            git(repo.path, "push", "--quiet", str(both.origin), "main")
            git(repo.path, "switch", "--quiet", "--create", "stricter")
            replace(repo, "mlops.yaml", "threshold: 0.95", "threshold: 1")
            commit(repo, "Want more")
            found, read = both.read(
                lambda hub: hub.pull_request(repo.path, 7)[0], both.rehearsal("mlops review")
            )
            in_earnest = machine(folder, installed(folder / "venv"), SIGNED_IN)
            cache = str(mypy_cache(tmp_path_factory, repo, folder))
            in_earnest |= {"VENV": sys.prefix, "COLUMNS": "200"}
            in_earnest |= {"PYTEST_ADDOPTS": FEW_TESTS, "MYPY_CACHE_DIR": cache}
            acted = both.perform(found, in_earnest, GITHUB_API_URL=comments.url)
        return Story(seen={"pull": (read, acted), "comments": comments.bodies})

    return once(tmp_path_factory, "act-pull", tell)


def acted(story: Story, name: str) -> Told:
    told: Told = story.seen[name][1]
    return told


@pytest.mark.long
@pytest.mark.parametrize("name", ["push", "gate", "deployment", "wrong"])
def test_in_earnest_act_runs_what_our_reader_says(life: Story, name: str) -> None:
    read, told = life.seen[name]
    assert told.jobs == read.jobs, told.log
    assert told.conclusion == read.conclusion


@pytest.mark.long
def test_a_pull_request_that_the_gate_stops_runs_as_our_reader_says(pull: Story) -> None:
    read, told = pull.seen["pull"]
    assert told.jobs == read.jobs, told.log
    assert told.conclusion == read.conclusion == "failure"


@pytest.mark.long
def test_a_pull_request_is_linted_tested_reviewed_and_commented_on(pull: Story) -> None:
    told = acted(pull, "pull")
    assert "files already formatted" in told.log and re.search(r"\d passed", told.log), told.log
    assert "auc" in told.summary
    [comment] = pull.seen["comments"]
    assert "mlops review of my-model" in comment and "auc" in comment


@pytest.mark.long
def test_a_push_registers_a_version_of_its_commit(life: Story) -> None:
    assert "**Registered version 1**" in acted(life, "push").summary
    assert life.seen["versions before"] == {}
    version = life.seen["versions"][1]
    assert (version["version"], version["commit"]) == (1, life.seen["pushed"])


@pytest.mark.long
def test_what_the_gate_stops_is_not_registered(life: Story) -> None:
    assert "wanted at least 1.5" in acted(life, "gate").summary
    assert set(life.seen["versions"]) == {1}


@pytest.mark.long
def test_a_deployment_goes_to_staging_and_then_to_production(life: Story) -> None:
    summary = acted(life, "deployment").summary
    order = [summary.index(f"### {stage} works") for stage in ("staging", "production")]
    assert order == sorted(order)


@pytest.mark.long
def test_a_version_that_fails_its_test_in_staging_leaves_production_as_it_is(life: Story) -> None:
    assert "### staging fails its test" in acted(life, "wrong").summary
    assert life.seen["stages"] == {"staging": 2, "production": 1}
