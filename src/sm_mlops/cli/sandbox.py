"""`mlops sandbox`: the AWS on this machine, and the tour through it.

`mlops sandbox demo` takes a model from an empty account to production with the commands that people
and workflows run, then shows a version that fails in staging.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from sm_mlops import commit
from sm_mlops import registry as versions
from sm_mlops.aws import Aws
from sm_mlops.bundle import Bundle
from sm_mlops.cli import bootstrap, deploy, endpoint, registry, status, training
from sm_mlops.cli.console import (
    AsJson,
    Yes,
    attended,
    connected,
    load_settings,
    out,
    print_json,
    say,
)
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.deployment import smoke
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.projects import TRAIN
from sm_mlops.registry import Version
from sm_mlops.settings import find_root
from sm_mlops.training import gate

START_SECONDS = 60
PAUSE_SECONDS = 0.2
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Of one command: each day may start a job of a schedule.
LONGEST_WAIT = 400 * UNITS["d"]
# The parameters of CreateModelPackage among the fields of DescribeModelPackage.
_REGISTERED = (
    "ModelPackageGroupName",
    "InferenceSpecification",
    "MetadataProperties",
    "CustomerMetadataProperties",
    "ModelMetrics",
    "DriftCheckBaselines",
    "SamplePayloadUrl",
    "Domain",
    "Task",
)
BROKEN = b'''"""Shows a deployment that fails."""


def model_fn(model_dir):
    raise RuntimeError("this inference.py cannot load its model")
'''

app = typer.Typer(no_args_is_help=True, help="The AWS on this machine that --sandbox uses.")


@app.command("demo")
def demo(context: typer.Context, yes: Yes = False) -> None:
    """Show the whole life of a model: connect, train, approve, deploy to production.

    Then show a version that fails in staging. On a terminal, asks where a person decides.
    """
    context.obj = True
    ask = not yes and attended()
    with connected(context, empty=True) as aws:
        tour = Tour(context, aws, ask)
        tour.connect()
        version = tour.train()
        report = aws.settings.root / "reports" / f"version-{version.version}.html"
        gate.download_report(aws, versions.report_of_version(aws, version), report)
        say(f"report      {report}")
        tour.decide(f"Approve version {version.version}?", report)
        tour.deploy(version, report)
        rule("A prediction from production")
        tour.predict(version)
        rule("A version that cannot serve")
        tour.fail(version)
        rule("What runs where")
        typed("status")
        status.status(context)
    rule("Next")
    _tell_next(aws.settings.root, report)


@app.command("up")
def sandbox_up() -> None:
    """Start a sandbox that runs until `mlops sandbox down`."""
    from sm_mlops import sandbox

    settings = load_settings()
    sandbox.start(settings.root, settings.project.region)
    say("The sandbox is running; stop it with mlops sandbox down.")


@app.command("down")
def sandbox_down() -> None:
    """Stop the sandbox of this repo and its running jobs. Keeps its history."""
    from sm_mlops import sandbox

    # Does not read the settings, which may have become invalid.
    sandbox.stop(find_root(Path.cwd()))
    say("The sandbox is stopped.")


@app.command("authorize")
def sandbox_authorize(
    connection: str = typer.Argument("sm-mlops", help="Name or ARN of the connection."),
) -> None:
    """Authorize a connection to GitHub, as in the AWS console."""
    from sm_mlops import sandbox

    settings = load_settings()
    with sandbox.connect(settings.root, settings.project.region):
        found = sandbox.control(settings.root, "connections.complete", connection)
    say(f"The connection {found['ConnectionName']} is {found['ConnectionStatus']}.")


@app.command("wait")
def sandbox_wait(
    duration: str = typer.Argument(help="Such as 30s, 90m, 3h or 1d."),
) -> None:
    """Move the sandbox's clock. Schedules that become due run, each at its own time.

    Signatures and tokens keep real time.
    """
    from sm_mlops import sandbox

    match = re.fullmatch("([1-9][0-9]*)([smhd])", duration)
    if match is None:
        raise MlopsError(f"{duration} is not a duration; give one such as 30s, 90m, 3h or 1d")
    seconds = int(match[1]) * UNITS[match[2]]
    if seconds > LONGEST_WAIT:
        raise MlopsError(f"{duration} is longer than {LONGEST_WAIT // UNITS['d']}d, the longest")
    settings = load_settings()
    root = settings.root
    with sandbox.connect(root, settings.project.region):
        now = sandbox.control(root, "time")
        until = now + seconds
        while now < until:
            step = sandbox.control(root, "advance", until)
            now = step["now"]
            for name, moment in step["fired"]:
                say(f"{_utc(moment)}  {name}")
            # Time stands still while what a schedule has started runs.
            while sandbox.control(root, "working"):
                time.sleep(PAUSE_SECONDS)
    say(f"{_utc(now)}  in the sandbox")


@app.command("messages")
def sandbox_messages(as_json: AsJson = False) -> None:
    """Show what the subscribers of the sandbox's topics have been sent, oldest first."""
    from sm_mlops import sandbox

    settings = load_settings()
    with sandbox.connect(settings.root, settings.project.region):
        found = sandbox.control(settings.root, "topics.messages")
    if as_json:
        print_json(found)
        return
    tell_messages(found)
    if not found:
        say("No messages.")


def tell_messages(found: list[dict[str, Any]]) -> None:
    """Print messages, as `mlops sandbox messages` does."""
    for message in found:
        to = ", ".join(message["To"]) or "nobody"
        rule(f"{_utc(message['Time'])}  {message['TopicArn'].rpartition(':')[2]}, to {to}")
        say(f"Subject: {message['Subject']}")
        say(message["Message"])


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


@app.command("reset")
def sandbox_reset() -> None:
    """Stop the sandbox and delete everything in it."""
    from sm_mlops import sandbox

    root = find_root(Path.cwd())
    sandbox.reset(root)
    say(f"Deleted {root / '.sandbox'}.")


@dataclass
class Tour:
    """The tour through the account of the sandbox. `ask` says whether to ask a person."""

    context: typer.Context
    aws: Aws
    ask: bool

    @property
    def by_github(self) -> bool:
        return self.aws.settings.project.ci == "github-actions"

    def control(self, function: str, *arguments: Any) -> Any:
        """Call a function of the running sandbox; return its result."""
        from sm_mlops import sandbox

        return sandbox.control(self.aws.settings.root, function, *arguments)

    def connect(self) -> None:
        rule("Connect AWS and GitHub")
        typed("bootstrap")
        bootstrap.bootstrap(self.context, yes=not self.ask)
        rule("Authorize the connection, as in the AWS console")
        typed("sandbox authorize", "mlops")
        sandbox_authorize("sm-mlops")

    def train(self) -> Version:
        """Train; return the version, or end the command if none is registered."""
        self.push()
        rule("Train, evaluate, register" + self.as_role("build.yml", "train"))
        with self.workflow():
            self.typed("run")
            training.run(self.context)
        return versions.version(self.aws, None)

    def push(self) -> None:
        """Bring the repo's commit to main of the sandbox's GitHub, as a merge does."""
        from sm_mlops import github
        from sm_mlops.bootstrap.push import Push

        if self.by_github and re.fullmatch("[0-9a-f]{40}", commit.current(self.aws.settings.root)):
            hub = github.sign_in(os.environ, self.aws.settings.project.git_host)
            Push(self.aws.settings, hub, sandbox=True).bring_head()

    def deploy(self, version: Version, report: Path) -> None:
        run = self.approve(version)
        self.to_stage("staging", version, run)
        rule("Production, after approval" + self.as_role("deploy.yml", "production"))
        self.decide(f"Deploy version {version.version} to production?", report)
        self.to_stage("production", version, run)
        self.finish(run, "success")

    def approve(self, version: Version) -> dict[str, Any] | None:
        """Approve, as in SageMaker Studio; return the run that this starts on GitHub."""
        rule("Approve, as in SageMaker Studio")
        typed(f"approve {version.version}")
        known = {run["id"] for run in self.runs()}
        registry.approve(self.context, version.version)
        why = "" if self.by_github else "the sandbox has no Jenkins"
        if self.by_github and not re.fullmatch("[0-9a-f]{40}", version.commit):
            why = f"its commit is {version.commit}, which nobody can review"
        if why:
            say(f"This starts no run: {why}. The run would do this:")
            return None
        run = self.started_run(lambda inputs: inputs.get("model-package-arn") == version.arn, known)
        rule("EventBridge, Lambda, GitHub")
        say(f"event       SageMaker Model Package State Change: {version.arn}, Approved")
        say("function    sm-mlops-trigger")
        say(f"run         {run['name']} number {run['run_number']} of {run['_repository']}")
        rule("Staging: check, deploy, test" + self.as_role("deploy.yml", "staging"))
        return run

    def started_run(
        self, wanted: Callable[[dict[str, str]], bool], known: set[int]
    ) -> dict[str, Any]:
        """Wait for a new run with such inputs. Raises MlopsError if none is started."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            for run in self.runs():
                if run["id"] not in known and wanted(run["inputs"]):
                    return run
            time.sleep(0.1)
        raise MlopsError("this started no workflow: mlops --sandbox doctor shows what is missing")

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of this repo on the sandbox's GitHub."""
        return list(self.control("github.routes.runs_of", self.aws.settings.project.github))

    def finish(self, run: dict[str, Any] | None, conclusion: str) -> None:
        if run is not None:
            self.control("github.routes.finish", run["id"], conclusion)

    def to_stage(self, stage: str, version: Version, run: dict[str, Any] | None) -> None:
        with self.workflow(run, stage):
            if run and stage == "staging":
                self.typed("check")
                deploy.check(self.context, version.arn, version.commit)
            self.typed(f"deploy {stage}" + ("" if run else f" --model-package-arn {version.arn}"))
            deploy.deploy(self.context, stage, version.arn, yes=True)
            self.typed(f"smoke {stage}")
            endpoint.smoke(self.context, stage, version.arn)

    def predict(self, version: Version) -> None:
        """Send one of the raw rows registered with the version."""
        file = self.aws.settings.root / "reports" / "one-row.json"
        row = smoke.load_sample(self.aws, version.arn).first
        file.write_text(json.dumps({"instances": [row]}), encoding="utf-8")
        shown = file.relative_to(self.aws.settings.root)
        typed(f"invoke production {shlex.quote(str(shown))}")
        endpoint.invoke(self.context, "production", str(file))

    def fail(self, version: Version) -> None:
        """Deploy a version whose inference.py raises: staging fails, production is unchanged."""
        broken = register_broken_copy(self.aws, version)
        number = broken.version
        say(f"Version {number} is version {version.version} with an inference.py that raises.")
        run = self.approve(broken)
        try:
            self.to_stage("staging", broken, run)
        except typer.Exit as failed:
            say(f"exit code {failed.exit_code}: the workflow fails here, before production.")
        else:
            raise AssertionError(f"version {number} must not reach staging")
        finally:
            self.finish(run, "failure")
            typed(f"reject {number}")
            registry.reject(self.context, number, "created by mlops sandbox demo: it cannot serve")
        say("Production answers as before:")
        self.predict(version)

    def decide(self, question: str, report: Path) -> None:
        """End the tour unless the answer is yes; completed steps stay."""
        if not self.ask:
            say(f"{question} [y/N] y")
        elif not typer.confirm(question):
            say("The tour ends here; completed steps stay.")
            _tell_next(self.aws.settings.root, report)
            raise typer.Exit(0)

    @contextmanager
    def workflow(
        self, run: dict[str, Any] | None = None, environment: str = TRAIN.environment
    ) -> Iterator[None]:
        """Run the block as a job of GitHub Actions, with the permissions of its role."""
        from sm_mlops import sandbox

        if not self.by_github:
            yield
            return
        settings = self.aws.settings
        variables = sandbox.workflow_environment(
            settings.root,
            settings.project.github,
            environment=environment,
            workflow="build.yml" if environment == TRAIN.environment else "deploy.yml",
        )
        if run is not None:
            variables |= {"MODEL_PACKAGE_ARN": run["inputs"]["model-package-arn"]}
        before = {name: os.environ.get(name, "") for name in variables}
        apply(variables)
        self.context.obj = False
        try:
            yield
        finally:
            self.context.obj = True
            apply(before)

    def typed(self, command: str) -> None:
        """Print a command of a workflow."""
        typed(command, "mlops" if self.by_github else "mlops --sandbox")

    def as_role(self, workflow: str, part: str) -> str:
        role = f"{self.aws.settings.project.project}-github-{part}"
        return f": {workflow}, as role {role}" if self.by_github else ""


def register_broken_copy(aws: Aws, of: Version, archive: bytes = b"") -> Version:
    """Register a copy of a version, pending approval, whose model.tar.gz is `archive`.

    By default it has an inference.py that raises.
    """
    files = Bundle("inference.py", (("code/inference.py", BROKEN),))
    package: dict[str, Any] = dict(aws.sagemaker.describe_model_package(ModelPackageName=of.arn))
    container = package["InferenceSpecification"]["Containers"][0]
    # Its own key each time: an artifact that is written again is not deployed.
    broken = f"{aws.settings.prefix}/demo/{secrets.token_hex(4)}/model.tar.gz"
    aws.s3.put_object(Bucket=aws.bucket, Key=broken, Body=archive or files.tar_gz())
    container["ModelDataUrl"] = f"s3://{aws.bucket}/{broken}"
    arn = aws.sagemaker.create_model_package(
        ModelPackageDescription=f"Version {of.version} with an inference.py that raises",
        ModelApprovalStatus="PendingManualApproval",
        **{name: package[name] for name in _REGISTERED if name in package},
    )["ModelPackageArn"]
    return versions.version(aws, int(arn.rpartition("/")[2]))


def _tell_next(root: Path, report: Path) -> None:
    for line in (
        f"report      open {shlex.quote(str(report))}",
        f"commands    cd {shlex.quote(str(root))} && make setup && . .venv/bin/activate",
        "            then mlops --help",
        "next run    edit mlops.yaml or model/, commit, then mlops --sandbox run",
        "own data    the same, after mlops sandbox reset, which forgets this model",
        "on AWS      mlops bootstrap, then the same commands without --sandbox",
    ):
        say(line)


def typed(command: str, program: str = "mlops --sandbox") -> None:
    """Print a command that a person types."""
    tell(out, f"$ {program} {command}", "bold")


def rule(title: str) -> None:
    """Print the title of what follows."""
    out.rule(f"[bold]{title}")
