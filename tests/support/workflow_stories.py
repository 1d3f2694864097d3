"""A rendered repo whose workflows run here, with the sandbox as AWS and GitHub.

A story runs once; all tests and processes look at its outcome.
"""

import io
import json
import shutil
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import github_description
from rendering import Rendered, baked
from sm_mlops import objects, registry, sandbox
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws
from sm_mlops.cli.sandbox import register_broken_copy
from workflow_actions import checkout, configure_aws_credentials, installed, setup_uv
from workflow_judges import PINS
from workflow_reader import ActionFailed, Environment, JobRun, Repository, Run, Work, git

SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
NAME = "my-org/my-model"
# All of the rendered repo's own tests run in test_rendered.py; jobs run these few.
FEW_TESTS = "-p no:cacheprovider tests/test_stages.py"
# Answers, but wrongly.
WRONG = """

_right = predict


def predict(model, rows):
    return _right(model, rows)[:, ::-1]
"""


def with_code(aws: Aws, arn: str, inference: str) -> bytes:
    """Return the model.tar.gz of a version with another code/inference.py."""
    package = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    url = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(objects.read(aws, url))) as source,
        tarfile.open(fileobj=packed, mode="w:gz") as target,
    ):
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            body = content.read() if content else b""
            if member.name.removeprefix("./") == "code/inference.py":
                body = inference.encode()
                member.size = len(body)
            target.addfile(member, io.BytesIO(body) if member.isfile() else None)
    return packed.getvalue()


@dataclass
class Story:
    """The runs by what they show, and what else was seen."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> Run:
        """Return the only run."""
        [found] = self.runs[name]
        return found

    def jobs(self) -> Iterator[JobRun]:
        for runs in self.runs.values():
            for one in runs:
                yield from one.jobs


def committed(cookies: Any, template: Path, folder: Path, **answers: str) -> Rendered:
    """Return a rendered repo in its own git repository."""
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
    """Return an empty repository on GitHub, and a machine on which VENV tells make that what
    `make setup` makes is there."""
    origin, machine = folder / "origin.git", folder / "machine"
    origin.mkdir()
    machine.mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main")
    actions = {
        "actions/checkout": checkout(installed(folder / "venv")),
        "aws-actions/configure-aws-credentials": configure_aws_credentials(no_sign_in),
        "astral-sh/setup-uv": setup_uv,
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


@dataclass
class Comments:
    """GitHub's API for comments on one pull request; `allowed` says whose token may write."""

    allowed: Callable[[str], bool]
    bodies: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
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
            given = json.loads(sent) if sent else {}
            comments.wrong += github_description.asked(self.command, self.path, given)
            text = given.get("body", "")
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
    assert comments.wrong == []


@dataclass
class Connected:
    """A clone connected to the sandbox's AWS and GitHub by `mlops bootstrap`, and what that has
    set up, as the reader of workflows needs it. `answer` is what the reviewer says next."""

    repo: Rendered
    hub: Repository
    answer: bool = True
    asked: list[str] = field(default_factory=list)

    def variables(self) -> dict[str, str]:
        """Return what leads AWS clients to the sandbox; variables with "" are to be removed."""
        settings = mlops_settings.load(self.repo.path)
        with sandbox.connect(settings.root, settings.project.region) as variables:
            return variables

    @contextmanager
    def account(self) -> Iterator[Aws]:
        """Yield the sandbox's account; this process is signed in to it for the block."""
        settings = mlops_settings.load(self.repo.path)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables().items():
                if value:
                    patch.setenv(name, value)
                else:
                    patch.delenv(name, raising=False)
            yield Aws(settings, sandbox=True)

    def control(self, call: str, *arguments: Any, **named: Any) -> Any:
        """Do in the sandbox what a person would at a console."""
        return sandbox.control(self.repo.path, call, *arguments, **named)

    def copy_of_version_1(self, inference: str = "") -> int:
        """Register a copy with this inference.py; by default as `mlops sandbox demo` does."""
        with self.account() as aws:
            first = registry.version(aws, 1)
            archive = with_code(aws, first.arn, inference) if inference else b""
            return register_broken_copy(aws, first, archive).version

    def mlops(self, *words: str) -> str:
        """Return what a command says in the sandbox. Raises AssertionError."""
        done = self.repo.run("python", "-m", "sm_mlops", "--sandbox", *words)
        assert done.code == 0, done.out + done.err
        return done.out

    def versions(self) -> dict[int, dict[str, Any]]:
        return {one["version"]: one for one in json.loads(self.mlops("models", "--json"))}

    def deploy(self, version: int, **changes: str) -> Run:
        about = self.versions()[version]
        inputs = {"model-package-arn": about["arn"], "commit": about["commit"]}
        return self.hub.dispatch("deploy", inputs | changes)

    def sign_in(self, work: Work, given: Mapping[str, str]) -> dict[str, str]:
        """Sign in to the role that GitHub's token, or the key, may assume."""
        role, key = given["role-to-assume"], given.get("aws-access-key-id")
        if key is None:
            return self._variables(
                work.repository.name, work.environment, work.event.ref, role, work.run.workflow.name
            )
        sts = boto3.Session().client(
            "sts",
            region_name=given["aws-region"],
            endpoint_url=self.hub.machine["AWS_ENDPOINT_URL"],
            aws_access_key_id=key,
            aws_secret_access_key=given["aws-secret-access-key"],
        )
        try:
            answer = sts.assume_role(RoleArn=role, RoleSessionName=given["role-session-name"])
        except ClientError as error:
            raise ActionFailed(str(error)) from error
        found = answer["Credentials"]
        values = (found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
        return dict(zip(SESSION, values, strict=True))

    def _variables(
        self, name: str, environment: str, ref: str, role: str, workflow: str = "build"
    ) -> dict[str, str]:
        place = {"environment": environment, "ref": ref, "role_arn": role}
        place["workflow"] = f"{workflow}.yml"
        try:
            found = sandbox.workflow_environment(self.repo.path, name, **place)
        except sandbox.SandboxError as error:
            raise ActionFailed(str(error)) from error
        return {name: value for name, value in found.items() if value}

    def _key_of_user(self, part: str) -> dict[str, str]:
        """Return the key of one of the project's users, which bootstrap brings to GitHub sealed."""
        with self.account() as aws:
            name = f"sm-mlops/{aws.settings.project.project}/github-{part}"
            text = aws.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
        found: dict[str, str] = json.loads(text)
        return found

    def settle(self) -> None:
        """Copy what bootstrap has set up on GitHub."""
        signed_in = self._variables(NAME, "training", "refs/heads/main", "")
        # The way to AWS is part of the machine, the right to go it is not.
        own = {name for name in signed_in if name.startswith(("GITHUB_", *SESSION)) or name == "CI"}
        own |= {"AWS_REGION", "AWS_DEFAULT_REGION"}
        self.hub.machine |= {name: signed_in[name] for name in set(signed_in) - own}
        self.hub.api_url = signed_in["GITHUB_API_URL"]
        [self.hub.mirror] = (self.repo.path / ".sandbox").rglob("my-model.git")
        self.hub.new_token = self._new_token
        api = f"{self.hub.api_url}/repos/{NAME}"
        token = self.repo.text(".sandbox/github-token")

        def ask(path: str) -> Any:
            request = urllib.request.Request(f"{api}/{path}")
            request.add_header("Authorization", f"Bearer {token}")
            with urllib.request.build_opener().open(request) as answer:
                return json.load(answer)

        for variable in ask("actions/variables")["variables"]:
            self.hub.variables[variable["name"]] = variable["value"]
        assert not ask("actions/secrets")["secrets"], "any branch could read them"
        for found in ask("environments")["environments"]:
            name = found["name"]
            here = self.hub.environments[name] = self._environment(found, ask)
            for variable in ask(f"environments/{name}/variables")["variables"]:
                here.variables[variable["name"]] = variable["value"]
            if ask(f"environments/{name}/secrets")["secrets"]:
                key = self._key_of_user("train" if name == "training" else name)
                here.secrets |= {name.upper(): value for name, value in key.items()}

    def _new_token(self) -> str:
        """Return a token of a job, which may read the repository on the sandbox's GitHub."""
        owner, name = NAME.split("/")
        made = self.control(
            "github.accounts.fine_grained", "you", owner, [name], contents="read", metadata="read"
        )
        return str(made)

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
    """Yield a repo with its sandbox, which is still empty."""
    action = configure_aws_credentials(lambda work, given: here.sign_in(work, given))
    hub = hub_for(folder, actions={"aws-actions/configure-aws-credentials": action})
    here = Connected(repo, hub)
    up = repo.run("python", "-m", "sm_mlops", "sandbox", "up")
    assert up.code == 0, up.err
    try:
        yield here
    finally:
        repo.run("python", "-m", "sm_mlops", "sandbox", "down")
