"""Credentials on every path through the commands, each told as loudly as it can be: afterwards they
are in Secrets Manager and, sealed, on GitHub, and nowhere else.

Those two are the sandbox's database here, `.sandbox/state.db` with its `-wal`, which is left out.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connected_case import COMMIT, TRIGGER, WORKFLOW, app_layer
from fault_case import NAME, OWNER, PERSON, REGION, Stage, settle, stage
from fault_injection import inject_github, pending
from function_cases import until
from github_case import git, identify
from github_people import add_app, install, revoke
from rendering import once
from sm_mlops import projects
from sm_mlops.redaction import TOKENS, looks_secret, without_tokens
from sm_mlops.sandbox.storage import DATABASE

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sm-mlops/github"
VAULT = (DATABASE, f"{DATABASE}-wal")
JENKINS = "11" + "c0ffee42" * 4
# `mlops` with all logs, the whole chain of what ended it, and a list of what it starts: forked for
# each line of standard input, so that the libraries are loaded once.
LOUD = """
import json, logging, os, sys, time, traceback
from pathlib import Path
from types import SimpleNamespace
import boto3, github
from sm_mlops import stacks
from sm_mlops.cli import main as cli
from sm_mlops import github as hub
from sm_mlops import projects
from sm_mlops.bootstrap import assets

for line in sys.stdin:
    if not os.fork():
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
words, folder, variables, layer, *files = json.loads(line)
for number, file in enumerate([os.devnull, *files[:2]]):
    os.dup2(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), number)
os.environ.clear()
os.environ.update(variables)
os.chdir(folder)
report = open(files[2], "a")
def watch(event, given):
    if event == "subprocess.Popen":
        _, arguments, _, environment = given
        environment = os.environ if environment is None else environment
        print(json.dumps([list(arguments), dict(environment)]), file=report, flush=True)
    elif event in ("os.system", "os.exec", "os.spawn", "os.posix_spawn"):
        print(json.dumps([[event, repr(given)], dict(os.environ)]), file=report, flush=True)
sys.addaudithook(watch)
boto3.set_stream_logger("")
github.enable_console_debug_logging()
assets.build_layer = lambda root: Path(layer).read_bytes()
hub.BACKOFF_SECONDS = 0
quick = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(0.02))
stacks.time = projects.time = quick
fail = cli.fail
def loud(*given):
    traceback.print_exc()
    return fail(*given)
cli.fail = loud
sys.argv = ["mlops", *words]
cli.main()
"""
TOLD = "standard error, with all logs and tracebacks"
PLACES = (
    "standard output",
    TOLD,
    "arguments of programs",
    "git's own trace",
    "files of the repo",
    "objects of git",
    "temporary files",
    "files of the home",
    "files of the sandbox",
    "stacks",
    "logs and answers of the trigger",
)


@dataclass
class World:
    """A connected repo, the credentials that were about, and where each could have got to.

    `children` are the programs that commands have started, with their variables.
    """

    stage: Stage
    folder: Path
    process: subprocess.Popen[str]
    secrets: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=lambda: dict.fromkeys(PLACES, ""))
    children: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)

    @property
    def server(self) -> Any:
        return self.stage.server

    def mlops(self, *words: str, code: int = 0, **variables: str) -> None:
        """Run it in its own process."""
        environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder / "tmp"),
            "COLUMNS": "200",
            "GITHUB_DEBUG": "1",
            "ACTIONS_STEP_DEBUG": "true",
            "RUNNER_DEBUG": "1",
            "GIT_TRACE": "1",
            "GIT_TRACE_CURL": "1",
            "GIT_TRACE_REDACT": "0",
            "GIT_CURL_VERBOSE": "1",
            **self.stage.variables,
            "HOME": str(self.folder / "home"),
            **variables,
        }
        environment = {name: value for name, value in environment.items() if value}
        out, err, report = (self.folder / name for name in ("out", "err", "report"))
        layer = str(self.folder / "layer.zip")
        order = [
            words,
            str(self.stage.repo.root),
            environment,
            layer,
            *map(str, (out, err, report)),
        ]
        assert self.process.stdin and self.process.stdout
        print(json.dumps(order), file=self.process.stdin, flush=True)
        ended = int(self.process.stdout.readline())
        self.places["standard output"] += out.read_text()
        self.places[TOLD] += err.read_text()
        for line in report.read_text().splitlines():
            arguments, given = json.loads(line)
            self.children.append((arguments, given))
            self.places["arguments of programs"] += f"{arguments}\n"
        assert ended == code, (words, out.read_text()[-2000:], err.read_text()[-4000:])
        for file in (out, err, report):
            file.unlink()

    def put(self, text: str) -> None:
        """Write the trigger's credential by hand."""
        client = self.server.client(REGION, "secretsmanager")
        client.put_secret_value(SecretId=SECRET, SecretString=text)

    def trigger(self, number: int) -> None:
        """Let the function start the deployment of a version once more, as `mlops trigger` does."""
        arn = f"arn:aws:sagemaker:{REGION}:123456789012:model-package/{NAME}/{number}"
        event = json.dumps({"detail": {"ModelPackageArn": arn, "Replay": True}})
        client = self.server.client(REGION, "lambda")
        answer = client.invoke(FunctionName=TRIGGER, Payload=event, LogType="Tail")
        self.places["logs and answers of the trigger"] += answer["Payload"].read().decode()
        assert answer.get("FunctionError"), "it has started something"

    def register(self, ci: str = "github-actions") -> int:
        """Register and approve a version, which starts its deployment; return its number."""
        client = self.server.client(REGION, "sagemaker")
        about = {"Repository": f"https://github.com/{OWNER}/{NAME}", "CommitId": COMMIT}
        made = client.create_model_package(
            ModelPackageGroupName=NAME,
            ModelApprovalStatus="Approved",
            MetadataProperties=about,
            CustomerMetadataProperties={"CI": ci},
        )
        return int(made["ModelPackageArn"].rpartition("/")[2])

    def keep_key(self, name: str) -> None:
        """Note the access keys that GitHub signs in to AWS with now."""
        client = self.server.client(REGION, "secretsmanager")
        for access in projects.ACCESSES:
            found = client.get_secret_value(SecretId=access.secret_in(NAME))
            content = json.loads(found["SecretString"])
            self.secrets[f"{name} that is for {access.name}"] = content["aws_secret_access_key"]

    def look(self) -> None:
        """Read what is left."""
        repo, home = self.stage.repo.root, self.folder / "home"
        for place, folder in {
            "files of the repo": repo,
            "temporary files": self.folder / "tmp",
            "files of the home": home,
            "files of the sandbox": self.server.folder,
        }.items():
            for file in folder.rglob("*"):
                if file.is_file() and file.name not in VAULT:
                    text = file.read_bytes().decode("latin-1")
                    self.places["git's own trace" if file.name == "trace" else place] += text
        command = ["git", "-C", str(repo), "cat-file", "--batch-all-objects", "--batch"]
        done = subprocess.run(command, capture_output=True, check=True)
        self.places["objects of git"] += done.stdout.decode("latin-1")
        self.places["stacks"] += repr(list(_stacks(self.server)))
        logs = self.server.client(REGION, "logs")
        for group in logs.describe_log_groups()["logGroups"]:
            pages = logs.get_paginator("filter_log_events")
            for page in pages.paginate(logGroupName=group["logGroupName"]):
                messages = "".join(event["message"] for event in page["events"])
                self.places["logs and answers of the trigger"] += messages


def _stacks(server: Any) -> Iterator[Any]:
    """Return all that CloudFormation, Service Catalog, SageMaker and Lambda show of stacks."""
    formation = server.client(REGION, "cloudformation")
    for stack in formation.describe_stacks()["Stacks"]:
        name = {"StackName": stack["StackName"]}
        yield stack
        yield list(formation.get_paginator("describe_stack_events").paginate(**name))
        for item in formation.list_change_sets(**name)["Summaries"]:
            yield formation.describe_change_set(ChangeSetName=item["ChangeSetId"])
    yield server.client(REGION, "servicecatalog").search_provisioned_products()
    sagemaker = server.client(REGION, "sagemaker")
    for row in sagemaker.list_projects()["ProjectSummaryList"]:
        yield sagemaker.describe_project(ProjectName=row["ProjectName"])
    functions = server.client(REGION, "lambda")
    for function in functions.list_functions()["Functions"]:
        yield functions.get_function(FunctionName=function["FunctionName"])


@dataclass(frozen=True)
class Told:
    """The credentials by name, what each place and the vault hold, and the started programs."""

    secrets: dict[str, str]
    places: dict[str, str]
    vault: bytes
    children: list[tuple[list[str], dict[str, str]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Tell of a repo that signs in to AWS with a key and moves to Jenkins in the end."""
    return once(tmp_path_factory, "secrets", lambda: tell(tmp_path_factory.mktemp("secrets")))


def tell(folder: Path) -> Told:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with (
        stage(folder, sign_in="iam-user") as found,
        subprocess.Popen(
            [sys.executable, "-B", "-c", LOUD],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        world = World(found, folder, process)
        for name in ("tmp", "home"):
            (folder / name).mkdir()
        # What git itself starts, and with which arguments.
        trace = folder / "home" / "trace"
        (folder / "home" / ".gitconfig").write_text(f'[trace2]\neventTarget = "{trace}"\n')
        (folder / "layer.zip").write_bytes(app_layer())
        workflow = found.repo.root / ".github" / "workflows" / "deploy.yml"
        workflow.write_text(WORKFLOW, encoding="utf-8")
        git(found.repo.root, "commit", "-qam", "Deploy what is approved")
        world.secrets |= {
            "classic token": found.variables["GITHUB_TOKEN"],
            "secret access key of the person": found.variables["AWS_SECRET_ACCESS_KEY"],
        }
        with_actions(world)
        with_jenkins(world)
        world.look()
        vault = [world.server.folder / name for name in VAULT]
        kept = b"".join(file.read_bytes() for file in vault if file.exists())
    return Told(world.secrets, world.places, kept, world.children)


def with_actions(world: World) -> None:
    github, folder = world.server.github, world.folder
    accounts, given = github.accounts, world.stage.variables["MLOPS_TRIGGER_TOKEN"]
    app = add_app(accounts, OWNER, "trigger", actions="write")
    key = app["private_key"]
    file, broken = folder / "app.pem", folder / "broken.pem"
    file.write_text(key, encoding="utf-8")
    broken.write_text(key.replace(key.splitlines()[5], "no key"), encoding="utf-8")
    another = accounts.fine_grained(PERSON, OWNER, None, actions="write")
    useless = accounts.fine_grained(PERSON, OWNER, [], actions="write")
    world.secrets |= {
        "fine-grained token": given,
        "rotated token": another,
        "token of another repo": useless,
        # In JSON the lines of a key are one.
        "private key of the App": key.splitlines()[3],
    }
    # Refused, and cut, where each of them is sent.
    for label, status in (
        ("POST */dispatches", 401),
        ("POST */dispatches", 0),
        ("PUT */secrets/*", 403),
        ("GET */info/refs*", 0),
    ):
        inject_github(github, label, status, "no", times=4)
        world.mlops("bootstrap", "--yes", code=2)
        pending(github).clear()
    world.mlops("bootstrap", "--yes")
    world.keep_key("first key of the IAM user")
    # The connection waits for a person.
    world.mlops("doctor", code=1)
    number = world.register()
    until(lambda: github.routes.runs_of(f"{OWNER}/{NAME}"))
    settle(world.server)
    world.mlops("secret", "rotate", "all", MLOPS_TRIGGER_TOKEN=another)
    world.keep_key("second key of the IAM user")
    for wrong in (useless, f"{another}\n{key}"):
        world.mlops("secret", "rotate", "trigger", code=2, MLOPS_TRIGGER_TOKEN=wrong)
    # An App, wrongly and rightly.
    installed = str(install(accounts, app["id"], OWNER, [NAME]))
    for installation, source, code in (
        ("1", file, 2),
        (installed, broken, 2),
        (installed, file, 0),
    ):
        world.mlops(
            *("secret", "rotate", "trigger"),
            code=code,
            MLOPS_TRIGGER_TOKEN="",
            MLOPS_GITHUB_APP_ID=str(app["id"]),
            MLOPS_GITHUB_APP_INSTALLATION_ID=installation,
            MLOPS_GITHUB_APP_KEY_FILE=str(source),
        )
    world.mlops("trigger", str(number))
    # What the trigger says of credentials that do not do.
    app_of = {"app_id": app["id"], "installation_id": installed, "private_key": key}
    for text in (
        *map(json.dumps, ({"token": f"{given} {another}"}, [given])),
        *map(json.dumps, (app_of | {"private_key": key[:-200]}, app_of | {"installation_id": "1"})),
        *(f'{{"token": "{given}', key),
    ):
        world.put(text)
        world.trigger(number)
    revoke(accounts, given)
    world.put(json.dumps({"token": given}))
    world.mlops("trigger", str(number), code=2)
    # The wrong place for a secret.
    world.mlops("bootstrap", "--plan", "--platform", another, code=2)
    world.mlops("secret", "rotate", "trigger", another, code=2)


def with_jenkins(world: World) -> None:
    """Jenkins has an address at which nothing answers as Jenkins would."""
    world.secrets["token of Jenkins"] = JENKINS
    world.stage.variables["MLOPS_TRIGGER_TOKEN"] = ""
    user: dict[str, Any] = {"MLOPS_JENKINS_USER": PERSON, "MLOPS_JENKINS_TOKEN": JENKINS}
    identify(world.stage.repo, ci="jenkins")
    address = f"JenkinsUrl={world.server.url}/jenkins"
    world.mlops("bootstrap", "--yes", "--platform", address, **user)
    world.mlops("secret", "rotate", "trigger", **user)
    # One look at its log is enough.
    events = world.server.client(REGION, "events")
    for rule in events.list_rules()["Rules"]:
        events.disable_rule(Name=rule["Name"])
    number = world.register("jenkins")
    world.mlops("trigger", str(number), code=2)
    world.put(json.dumps({"jenkins_user": PERSON, "jenkins_token": [JENKINS]}))
    world.trigger(number)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_left_in(told: Told, place: str) -> None:
    text = told.places[place]
    for name, value in told.secrets.items():
        at = text.find(value)
        assert at < 0, (name, text[max(at - 300, 0) : at])
    # Those that GitHub made for the App, which are not known here.
    assert not re.search(r"gh[opsur]_\w{16}|github_pat_\w{16}", text)


@pytest.mark.slow
def test_the_vault_holds_the_secrets(told: Told) -> None:
    """Otherwise nothing above could fail."""
    # GitHub keeps no token as it is, and not all of these got as far as Secrets Manager.
    absent = {"classic token", "secret access key of the person", "token of another repo"}
    for name, value in told.secrets.items():
        assert value.encode() in told.vault or name in absent, name


@pytest.mark.slow
def test_every_place_that_could_leak_has_content(told: Told) -> None:
    assert [place for place in PLACES if not told.places[place]] == ["temporary files"]
    assert "botocore.endpoint" in told.places[TOLD] and "Traceback" in told.places[TOLD]
    assert '"remote-http"' in told.places["git's own trace"]
    trigger = told.places["logs and answers of the trigger"]
    assert "401" in trigger and '"started": true' in trigger


@pytest.mark.slow
def test_only_the_push_is_given_a_token(told: Told) -> None:
    assert any("push" in arguments for arguments, _ in told.children)
    for arguments, environment in told.children:
        assert not set(TOKENS) & set(environment), arguments
        if "push" not in arguments:
            assert not set(told.secrets.values()) & set(environment.values()) - {
                told.secrets["secret access key of the person"]
            }, arguments


@pytest.mark.slow
def test_no_command_starts_a_program_with_all_it_was_given() -> None:
    """Each says which variables, so that whoever adds one thinks of tokens."""
    for file in (ROOT / "src" / "sm_mlops").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess."):
                assert "env" in {each.arg for each in node.keywords}, (file, node.lineno)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("ghp_" + "a1B2" * 9, True),
        ("AlarmTopicArn=github_pat_" + "a1B2" * 9, True),
        ("-----BEGIN RSA PRIVATE KEY-----", True),
        ("AKIA" + "A1B2" * 4, True),
        (JENKINS, True),
        ("https://ada:word@jenkins.example.com", True),
        ("arn:aws:sns:eu-west-1:123456789012:alarms", False),
        ("https://jenkins.example.com:8443/job/11", False),
        ("sm-mlops-123456789012-eu-west-1", False),
        ("ghp_note", False),
    ],
)
def test_a_secret_is_distinguished_from_an_address(text: str, secret: bool) -> None:
    assert looks_secret(text) is secret


def test_other_programs_get_no_token() -> None:
    given = {"PATH": "/bin", **dict.fromkeys(TOKENS, "x")}
    assert without_tokens(given) == {"PATH": "/bin"}
