"""The rendered workflows, executed: pull requests, builds and deployments of a rendered repo, with
the sandbox as AWS, and with what must stop them on their way.

Each story is told once, by whichever of the processes that test in parallel comes first; the tests
look at what it has come to.
"""

import fcntl
import json
import pickle
import re
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_workflows import PINS, SIGN_INS

from rendering import Rendered, baked, mypy_cache, shared
from workflow_actions import checkout, configure_aws_credentials, installed, set_up_uv
from workflow_reader import ActionFailed, Environment, JobRun, Repository, Run, Work, git

pytestmark = pytest.mark.slow
SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
NAME = "my-org/my-model"
# The rendered repo's own tests take minutes, and run in test_rendered.py: here these few.
FEW_TESTS = "-p no:cacheprovider tests/test_ci.py"
# What a person could read about a run. The account is masked.
ACCOUNT = "123456789012"
# Trains long enough to be handed over.
LONG = "early_stopping_rounds=2000 num_boost_round=2000"
PARTS = '" --at-most 0.0${{ matrix.part }}'
WORKFLOW_ENVIRONMENT = """
import json, sys, pathlib, sandbox
name, environment, ref, role = sys.argv[1:]
try:
    print(json.dumps(sandbox.workflow_environment(
        pathlib.Path.cwd(), name, environment=environment, ref=ref, role_arn=role)))
except sandbox.SandboxError as error:
    sys.exit(str(error))
"""
# The key of the project's user, which a person never sees: bootstrap brings it to GitHub sealed.
KEY_OF_USER = """
import boto3, os, sandbox
from sm_mlops.cli.console import apply, load_settings
settings = load_settings()
with sandbox.connect(settings.root, settings.project.region) as environment:
    apply(environment)
    name = f"sm-mlops/{settings.project.project}/github-user"
    print(boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
"""
ASSUME = """
import boto3, json, sys
answer = boto3.client("sts").assume_role(RoleArn=sys.argv[1], RoleSessionName=sys.argv[2])
print(json.dumps(answer["Credentials"], default=str))
"""
# As `mlops sandbox demo` does it, with this inference.py.
REGISTER_COPY = """
import sys, sandbox
from sm_mlops import registry
from sm_mlops.cli import broken
from sm_mlops.aws import Aws
from sm_mlops.cli.console import apply, load_settings
settings = load_settings()
broken.BROKEN = sys.argv[1] or broken.BROKEN
with sandbox.connect(settings.root, settings.project.region) as environment:
    apply(environment)
    aws = Aws(settings, sandbox=True)
    print(broken.register_broken_copy(aws, registry.version(aws, 1)).version)
"""
# Answers, and answers wrongly.
WRONG = """

_right = predict_fn


def predict_fn(data, model):
    right = _right(data, model)
    return Predictions(right.values[:, ::-1], right.classes)
"""


@dataclass
class Story:
    """The runs by what they show, and what was seen beside them."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> Run:
        """The only run."""
        [found] = self.runs[name]
        return found

    def jobs(self) -> Iterator[JobRun]:
        for runs in self.runs.values():
            for one in runs:
                yield from one.jobs


def told_once(factory: pytest.TempPathFactory, name: str, tell: Callable[[], Story]) -> Story:
    """A story; whoever comes while it is told waits for its end. No failed one is told again."""
    base = shared(factory)
    file = base / f"story-{name}.pickle"
    with (base / f"story-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_bytes(pickle.dumps("it has failed in another test"))
            file.write_bytes(pickle.dumps(tell()))
    story = pickle.loads(file.read_bytes())
    assert isinstance(story, Story), f"{name}: {story}"
    return story


def committed(cookies: Any, template: Path, folder: Path, **answers: str) -> Rendered:
    """A rendered repo of a person, in a git repository of its own."""
    made = baked(cookies, template, answers)
    # The next render with these cookies would take its place.
    repo = Rendered(Path(shutil.move(made.path, folder / made.path.name)))
    shutil.rmtree(repo.path / ".git", ignore_errors=True)
    git(repo.path, "init", "--quiet", "--initial-branch=main")
    commit(repo, "Render the template")
    return repo


def commit(repo: Rendered, message: str) -> None:
    git(repo.path, "add", "--all")
    git(repo.path, "commit", "--quiet", "--message", message)


def replace(repo: Rendered, name: str, old: str, new: str) -> None:
    text = repo.text(name)
    assert old in text, f"{name} has no {old}"
    (repo.path / name).write_text(text.replace(old, new), encoding="utf-8")


def hub_for(folder: Path, **options: Any) -> Repository:
    """A repository on GitHub without content, and a machine where what `make setup` makes is there:
    VENV tells make so."""
    origin, machine = folder / "origin.git", folder / "machine"
    origin.mkdir()
    machine.mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main")
    actions = {
        "actions/checkout": checkout(installed(folder / "venv")),
        "astral-sh/setup-uv": set_up_uv,
        "aws-actions/configure-aws-credentials": configure_aws_credentials(no_sign_in),
    } | options.pop("actions", {})
    hub = Repository(
        origin,
        NAME,
        machine,
        {f"{name}@{PINS[name][1]}": action for name, action in actions.items()},
        **options,
    )
    hub.machine |= {"VENV": sys.prefix, "COLUMNS": "200"}
    return hub


def no_sign_in(work: Work, given: Mapping[str, str]) -> dict[str, str]:
    raise ActionFailed("nobody signs in here")


# Pull requests.


@dataclass
class Comments:
    """GitHub as far as comments on one pull request go; `allowed` tells whose token may write."""

    allowed: Callable[[str], bool]
    bodies: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, token: str, body: str) -> tuple[int, Any]:
        if method == "GET":
            return 200, [] if "comments" in path else {"number": 7, "url": self.url + path}
        if not self.allowed(token):
            return 403, {"message": "Resource not accessible by integration"}
        self.bodies.append(body)
        return 201, {"id": 1, "body": body, "html_url": f"https://github.com/{NAME}/pull/7#1"}


@contextmanager
def served(comments: Comments) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").rpartition(" ")[2]
            text = json.loads(sent)["body"] if sent else ""
            status, content = comments.answer(self.command, self.path, token, text)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    comments.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def pulls(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A change that the gate stops, and one from a fork with a line that is not formatted."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("pulls")
        repo = committed(cookies_session, template, folder)
        hub, story = hub_for(folder), Story()
        git(repo.path, "push", "--quiet", str(hub.origin), "main")
        hub.machine |= {
            "PYTEST_ADDOPTS": FEW_TESTS,
            # Each job is on a machine of its own, all the same.
            "MYPY_CACHE_DIR": str(mypy_cache(tmp_path_factory, repo, folder)),
        }
        comments = Comments(lambda token: hub.tokens[token].get("pull-requests") == "write")
        with served(comments):
            hub.api_url = comments.url
            git(repo.path, "switch", "--quiet", "--create", "stricter")
            replace(repo, "mlops.yaml", "threshold: 0.95", "threshold: 1")
            commit(repo, "Want more")
            story.runs["stopped"] = hub.pull_request(repo.path, 7)
            story.seen["comments"] = list(comments.bodies)
            git(repo.path, "switch", "--quiet", "--create", "untidy", "main")
            replace(repo, "mlops.yaml", "max_depth: 5", "max_depth: 4")
            (repo.path / "model" / "untidy.py").write_text("x = {  }\n")
            commit(repo, "Be untidy")
            story.runs["fork"] = hub.pull_request(repo.path, 8, fork="else/my-model")
            story.seen["comments of forks"] = comments.bodies[len(story.seen["comments"]) :]
        return story

    return told_once(tmp_path_factory, "pulls", tell)


def test_a_pull_request_is_linted_and_tested(pulls: Story) -> None:
    check = pulls.run("stopped").job("check")
    assert check.result == "success", check.log
    assert "files already formatted" in check.step("Lint").log
    assert re.search(r"\d passed", check.step("Test").log), check.log


def test_a_pull_request_starts_no_other_workflow(pulls: Story) -> None:
    assert {name: [run.workflow for run in runs] for name, runs in pulls.runs.items()} == {
        "stopped": ["ci"],
        "fork": ["ci"],
    }


def test_a_pull_request_that_the_gate_stops_is_red_and_commented_all_the_same(
    pulls: Story,
) -> None:
    run = pulls.run("stopped")
    review = run.job("review")
    assert (run.conclusion, review.result) == ("failure", "failure"), review.log
    assert [step.outcome for step in review.steps][-2:] == ["failure", "success"], review.log
    [comment] = pulls.seen["comments"]
    assert review.summary.strip() in comment
    assert "mlops review of my-model" in comment and "auc" in comment


def test_a_review_compares_with_the_base_as_it_is(pulls: Story) -> None:
    for name in ("stopped", "fork"):
        run = pulls.run(name)
        base = run.event.payload["pull_request"]["base"]["sha"]
        assert f"base       {base}" in run.job("review").log


def test_a_pull_request_that_lint_stops_is_red_and_not_tested(pulls: Story) -> None:
    run = pulls.run("fork")
    check = run.job("check")
    assert (run.conclusion, check.result) == ("failure", "failure")
    assert "untidy.py" in check.step("Lint").log
    assert check.step("Test").outcome == "skipped"


def test_a_fork_s_pull_request_is_reviewed_and_its_comment_is_left_to_the_summary(
    pulls: Story,
) -> None:
    review = pulls.run("fork").job("review")
    assert review.result == "success", review.log
    assert "auc" in review.summary
    assert "see the summary" in review.step("Comment").log
    assert pulls.seen["comments of forks"] == []


# Builds and deployments.


@dataclass
class Connected:
    """A person's clone, connected with the sandbox's AWS and GitHub by `mlops bootstrap`, and what
    that has set up as the reader of workflows needs it. `answer` is the reviewer's next."""

    repo: Rendered
    hub: Repository
    answer: bool = True
    asked: list[str] = field(default_factory=list)

    def python(self, code: str, *arguments: str, **environment: str) -> str:
        done = self.repo.run(
            *("python", "-c", code, *arguments), PYTHONPATH=str(self.repo.path), **environment
        )
        if done.code != 0:
            raise ActionFailed(done.err.strip().splitlines()[-1])
        return done.out

    def mlops(self, *words: str) -> str:
        done = self.repo.run(
            *("python", "-m", "sm_mlops", "--sandbox", *words), PYTHONPATH=str(self.repo.path)
        )
        assert done.code == 0, done.out + done.err
        return done.out

    def versions(self) -> dict[int, dict[str, Any]]:
        return {one["version"]: one for one in json.loads(self.mlops("models", "--json"))}

    def deploy(self, version: int, **changes: str) -> Run:
        about = self.versions()[version]
        inputs = {"model-package-arn": about["arn"], "commit": about["commit"]}
        return self.hub.dispatch("deploy", inputs | changes)

    def sign_in(self, work: Work, given: Mapping[str, str]) -> dict[str, str]:
        """As the role that GitHub's token, or the key, may take."""
        role, key = given["role-to-assume"], given.get("aws-access-key-id")
        if key is None:
            place = (work.environment, work.event.ref)
            return self._variables(work.repository.name, *place, role)
        answer = json.loads(
            self.python(
                ASSUME,
                role,
                given["role-session-name"],
                **self.hub.machine,
                AWS_ACCESS_KEY_ID=key,
                AWS_SECRET_ACCESS_KEY=given["aws-secret-access-key"],
                AWS_DEFAULT_REGION=given["aws-region"],
            )
        )
        members = ("AccessKeyId", "SecretAccessKey", "SessionToken")
        return dict(zip(SESSION, (answer[name] for name in members), strict=True))

    def _variables(self, *arguments: str) -> dict[str, str]:
        found = json.loads(self.python(WORKFLOW_ENVIRONMENT, *arguments))
        return {name: value for name, value in found.items() if value}

    def settle(self) -> None:
        """Takes over what bootstrap has set up on GitHub."""
        signed_in = self._variables(NAME, "", "refs/heads/main", "")
        # The way to AWS is part of the machine, the right to go it is not.
        own = {name for name in signed_in if name.startswith(("GITHUB_", *SESSION)) or name == "CI"}
        own |= {"AWS_REGION", "AWS_DEFAULT_REGION"}
        self.hub.machine |= {name: signed_in[name] for name in set(signed_in) - own}
        api = f"{signed_in['GITHUB_API_URL']}/repos/{NAME}"
        token = json.loads(self.repo.text(".sandbox/github.json"))["token"]

        def ask(path: str) -> Any:
            request = urllib.request.Request(f"{api}/{path}")
            request.add_header("Authorization", f"Bearer {token}")
            with urllib.request.build_opener().open(request) as answer:
                return json.load(answer)

        for variable in ask("actions/variables")["variables"]:
            self.hub.variables[variable["name"]] = variable["value"]
        secrets = [secret["name"] for secret in ask("actions/secrets")["secrets"]]
        if secrets:
            key = json.loads(self.python(KEY_OF_USER))
            self.hub.secrets |= {name: key[name.lower()] for name in secrets}
        for found in ask("environments")["environments"]:
            self.hub.environments[found["name"]] = self._environment(found, ask)

    def _environment(self, found: Any, ask: Callable[[str], Any]) -> Environment:
        name, rules = found["name"], {rule["type"] for rule in found["protection_rules"]}

        def reviewer() -> bool:
            self.asked.append(name)
            return self.answer

        branches = None
        if "branch_policy" in rules:
            policies = ask(f"environments/{name}/deployment-branch-policies")["branch_policies"]
            branches = tuple(policy["name"] for policy in policies)
        return Environment(reviewer if "required_reviewers" in rules else None, branches)


@contextmanager
def connected(cookies: Any, template: Path, folder: Path, sign_in: str) -> Iterator[Connected]:
    repo = committed(cookies, template, folder, github_sign_in=sign_in)
    with beside(repo, folder) as here:
        here.mlops("bootstrap", "--yes")
        here.settle()
        yield here


@contextmanager
def beside(repo: Rendered, folder: Path) -> Iterator[Connected]:
    """A repo with its sandbox, in which there is nothing yet."""
    action = configure_aws_credentials(lambda work, given: here.sign_in(work, given))
    hub = hub_for(folder, actions={"aws-actions/configure-aws-credentials": action})
    here = Connected(repo, hub)
    up = repo.run("python", "-m", "sm_mlops", "sandbox", "up", PYTHONPATH=str(repo.path))
    assert up.code == 0, up.err
    try:
        yield here
    finally:
        repo.run("python", "-m", "sm_mlops", "sandbox", "down", PYTHONPATH=str(repo.path))


@pytest.fixture(scope="session")
def life(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A repo that signs in by OpenID Connect, from its first push on."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("life")
        with connected(cookies_session, template, folder, "oidc") as here:
            return tell_life(here)

    return told_once(tmp_path_factory, "life", tell)


def tell_life(here: Connected) -> Story:
    repo, hub, story = here.repo, here.hub, Story()
    story.runs["first push"] = hub.push(repo.path)
    story.seen["versions"] = here.versions()
    (repo.path / "README.md").write_text("Another text.\n")
    commit(repo, "Say it otherwise")
    story.runs["other push"] = hub.push(repo.path)

    story.runs["not approved"] = [here.deploy(1)]
    here.mlops("approve", "1")
    story.runs["other commit"] = [here.deploy(1, commit="b" * 40)]
    story.runs["approved"] = [here.deploy(1)]
    story.seen["asked"] = list(here.asked)
    story.seen["sample"] = here.mlops("smoke", "production")

    here.answer = False
    story.runs["refused"] = [here.deploy(1)]
    here.answer = True

    story.runs["gate"] = [hub.dispatch("build", {"set": "GateThreshold=1.5"})]
    # Minutes become moments, more of them from part to part.
    replace(repo, ".github/workflows/build.yml", "run --at-most 50", "run --at-most 0")
    replace(repo, ".github/workflows/build.yml", '" --at-most 50', PARTS)
    commit(repo, "Follow for moments")
    story.runs["tiny push"] = hub.push(repo.path)
    story.runs["handed over"] = [hub.dispatch("build", {"set": LONG})]
    story.seen["versions after"] = here.versions()
    # Trained anew: from the cache it would be over before it is followed.
    late = f"{LONG} max_depth=4 GateThreshold=1.5"
    story.runs["handed over in vain"] = [hub.dispatch("build", {"set": late})]

    inference = repo.text("model/inference.py")
    for name, code in (("broken", ""), ("wrong", inference + WRONG)):
        version = here.python(REGISTER_COPY, code).split()[-1]
        here.mlops("approve", version)
        asked = len(here.asked)
        story.runs[name] = [here.deploy(int(version))]
        story.seen[f"asked for {name}"] = here.asked[asked:]
    story.seen["sample after"] = here.mlops("smoke", "production")

    git(repo.path, "switch", "--quiet", "--create", "feature")
    git(repo.path, "push", "--quiet", str(hub.origin), "feature")
    story.runs["branch"] = [hub.dispatch("build", {}, branch="feature")]
    hub.variables.clear()
    story.runs["no role"] = [hub.dispatch("build", {})]
    return story


def test_a_push_trains_judges_and_registers_and_the_summary_says_so(life: Story) -> None:
    run = life.run("first push")
    assert run.workflow == "build" and run.conclusion == "success", run.log
    assert run.job("train").outputs["status"] == "Succeeded"
    assert re.search(r"\*\*Registered version 1\*\* .*: auc 0\.\d+", run.job("train").summary)
    assert run.job("follow").result == "skipped"


def test_a_registered_version_names_the_commit_that_was_pushed(life: Story) -> None:
    [version] = life.seen["versions"].values()
    assert version["commit"] == life.run("first push").event.sha


def test_a_push_that_changes_no_model_trains_nothing(life: Story) -> None:
    assert life.runs["other push"] == []
    assert life.runs["tiny push"] == []


def test_a_build_that_the_gate_stops_is_red_and_its_summary_says_why(life: Story) -> None:
    run = life.run("gate")
    train = run.job("train")
    assert (run.conclusion, train.result) == ("failure", "failure"), run.log
    assert train.steps[-1].outcome == "failure"
    assert re.search(r"QualityGate: auc 0\.\d+ .*wanted at least 1\.5", train.summary)
    assert run.job("follow").result == "skipped"


def test_a_long_execution_is_handed_over_part_by_part_to_its_end(life: Story) -> None:
    run = life.run("handed over")
    assert run.conclusion == "success", run.log
    train, *parts = run.jobs
    assert train.outputs["status"] == "Executing" and len(parts) == 7
    assert "The execution continues" in train.summary
    assert "The execution continues" in parts[0].summary
    assert "Registered version 2" in parts[-1].summary
    assert set(life.seen["versions after"]) == {1, 2}


def test_a_long_execution_that_fails_ends_its_last_part_red_and_no_other_is_tried(
    life: Story,
) -> None:
    run = life.run("handed over in vain")
    results = [job.result for job in run.jobs]
    assert run.conclusion == "failure", run.log
    assert results[0] == "success" and results.count("failure") == 1
    failed = results.index("failure")
    assert set(results[failed + 1 :]) <= {"cancelled"}
    assert "wanted at least 1.5" in run.jobs[failed].summary


def test_an_approved_version_goes_to_staging_and_after_a_reviewer_s_word_to_production(
    life: Story,
) -> None:
    run = life.run("approved")
    assert run.conclusion == "success", run.log
    assert list(run.results) == ["Check", "Staging", "Production"]
    for stage in ("staging", "production"):
        assert f"{stage} works" in run.job(stage).step("Test the endpoint").log
    assert life.seen["asked"] == ["production"]
    assert run.title.startswith("Deploy arn:aws:sagemaker:")


@pytest.mark.parametrize(
    ("name", "why"),
    [("not approved", "not Approved"), ("other commit", "was trained from commit")],
)
def test_what_may_not_be_deployed_is_stopped_before_anything_of_its_commit_runs(
    life: Story, name: str, why: str
) -> None:
    run = life.run(name)
    assert run.conclusion == "failure"
    assert run.results == {"Check": "failure", "Staging": "skipped", "Production": "skipped"}
    assert why in run.job("check").steps[-1].log, run.log


def test_a_reviewer_who_refuses_keeps_production_as_it_is(life: Story) -> None:
    run = life.run("refused")
    assert run.results == {"Check": "success", "Staging": "success", "Production": "failure"}
    assert run.job("production").steps == () and run.conclusion == "failure"


@pytest.mark.parametrize(("name", "step"), [("broken", "Deploy"), ("wrong", "Test the endpoint")])
def test_a_model_that_staging_cannot_use_never_gets_near_production(
    life: Story, name: str, step: str
) -> None:
    run = life.run(name)
    assert run.results == {"Check": "success", "Staging": "failure", "Production": "skipped"}, (
        run.log
    )
    assert run.job("staging").step(step).outcome == "failure", run.log
    assert life.seen[f"asked for {name}"] == [], "nobody is asked about what has failed"


def test_production_answers_all_the_while(life: Story) -> None:
    for name in ("sample", "sample after"):
        assert "version 1" in life.seen[name] and "production works" in life.seen[name]


@pytest.mark.parametrize("name", ["branch", "no role"])
def test_nothing_runs_where_aws_lets_nobody_in(life: Story, name: str) -> None:
    train = life.run(name).job("train")
    assert train.step("Sign in to AWS").outcome == "failure", train.log
    assert train.steps[-1].outcome == "skipped"


@pytest.fixture(scope="session")
def keyed(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A repo that signs in with a key, from its first push to production, and once with another."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("keyed")
        with connected(cookies_session, template, folder, "iam-user") as here:
            story = Story()
            story.runs["first push"] = here.hub.push(here.repo.path)
            here.mlops("approve", "1")
            story.runs["approved"] = [here.deploy(1)]
            here.hub.secrets["AWS_ACCESS_KEY_ID"] = "AKIAGONE000000000000"
            story.runs["other key"] = [here.deploy(1)]
            return story

    return told_once(tmp_path_factory, "keyed", tell)


def test_a_key_is_enough_from_the_first_push_to_production(keyed: Story) -> None:
    for name in ("first push", "approved"):
        assert keyed.run(name).conclusion == "success", keyed.run(name).log
    assert set(keyed.run("approved").results.values()) == {"success"}


def test_a_key_that_aws_does_not_know_stops_at_the_sign_in(keyed: Story) -> None:
    run = keyed.run("other key")
    assert run.results == {"Check": "failure", "Staging": "skipped", "Production": "skipped"}
    assert run.job("check").step("Sign in to AWS").outcome == "failure"


def test_each_way_to_sign_in_has_its_story() -> None:
    assert SIGN_INS == ["oidc", "iam-user"]


@pytest.mark.parametrize("name", ["pulls", "life", "keyed"])
def test_no_job_leaves_a_process_behind(name: str, request: pytest.FixtureRequest) -> None:
    story: Story = request.getfixturevalue(name)
    for job in story.jobs():
        assert job.orphans == (), job.log


@pytest.mark.parametrize("name", ["life", "keyed"])
def test_no_log_and_no_summary_shows_the_account(name: str, request: pytest.FixtureRequest) -> None:
    story: Story = request.getfixturevalue(name)
    for job in story.jobs():
        assert ACCOUNT not in job.log + job.summary, job.log
