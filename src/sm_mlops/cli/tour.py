"""`mlops sandbox demo`: a model's whole way from an empty account to production, by the commands
that a person and the workflows would type, and a version that does not get there."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sm_mlops.cli import bootstrap, deployment, registry, training
from sm_mlops.console import State, apply, connected, out, say, tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws
    from sm_mlops.registry import Version

ROWS = "one-row.json"
ARRIVES_SECONDS = 60


def demo(
    context: typer.Context,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Do not ask; as where nobody sits at a terminal to answer."
        ),
    ] = False,
) -> None:
    """Show the whole life of a model: account and repo connected, trained, approved, in production.

    And of one that fails on its way there. Pauses where a person decides.
    """
    context.obj = State(sandbox=True)
    ask = not yes and sys.stdin is not None and sys.stdin.isatty()
    with connected(context, empty=True) as aws:
        tour = Tour(context, aws, ask)
        tour.connect()
        version = tour.train()
        report = _report(aws, version)
        tour.decide(f"Approve version {version.version}?", report)
        tour.deploy(version, report)
        _rule("A prediction from production")
        tour.predict(version)
        _rule("A version that cannot serve")
        tour.fail(version)
        _rule("What runs where")
        tour.person("status")
        deployment.status(context)
    _rule("Next")
    _tell_next(aws.settings.root, report)


@dataclass
class Tour:
    """The account of the sandbox, and whether somebody is there to be asked."""

    context: typer.Context
    aws: Aws
    ask: bool

    @property
    def by_github(self) -> bool:
        return self.aws.settings.project.ci == "github-actions"

    def connect(self) -> None:
        # It holds this command.
        from sm_mlops.cli.sandbox import sandbox_authorise

        _rule("Connect AWS and GitHub")
        self.person("bootstrap")
        bootstrap.bootstrap(self.context, yes=not self.ask)
        _rule("Authorise the connection, as in the console of AWS")
        _typed("sandbox authorise", "mlops")
        sandbox_authorise("sm-mlops")

    def train(self) -> Version:
        """A version registered now, or this command's end."""
        from sm_mlops import registry as versions

        _rule("Train, judge, register" + self._as("build.yml"))
        with self.workflow():
            self.typed("run")
            training.run(self.context)
        return versions.version(self.aws, None)

    def deploy(self, version: Version, report: Path) -> None:
        run = self.approve(version)
        if run is not None:
            with self.workflow(run):
                self.typed("check")
                deployment.check(self.context, version.arn, version.commit)
        self.to_stage("staging", version, run)
        _rule("Production, after a reviewer's word")
        self.decide(f"Bring version {version.version} to production?", report)
        self.to_stage("production", version, run)
        self.finish(run, "success")

    def approve(self, version: Version) -> dict[str, Any] | None:
        """Approves, as in SageMaker Studio; returns the run that this has started on GitHub."""
        _rule("Approve, as in SageMaker Studio")
        self.person(f"approve {version.version}")
        known = {run["id"] for run in self.runs()}
        registry.approve(self.context, version.version)
        if not self.by_github or not re.fullmatch("[0-9a-f]{40}", version.commit):
            why = (
                f"its commit is {version.commit}, which nobody can check out"
                if self.by_github
                else "Jenkins is not in the sandbox"
            )
            say(f"No run of its own: {why}. What it would do:")
            return None
        run = self.arrived(version, known)
        _rule("EventBridge, Lambda, GitHub")
        say(f"event       SageMaker Model Package State Change: {version.arn}, Approved")
        say(f"function    {self.line_of_function(version)}")
        say(f"run         {run['name']} number {run['run_number']} of {run['_repository']}")
        _rule("Staging: deploy, test for real" + self._as("deploy.yml"))
        return run

    def arrived(self, version: Version, known: set[int]) -> dict[str, Any]:
        """The run that was started for this version. Raises MlopsError if none comes."""
        until = time.monotonic() + ARRIVES_SECONDS
        while time.monotonic() < until:
            for run in self.runs():
                named = run["inputs"].get("model-package-arn")
                if named == version.arn and run["id"] not in known:
                    return run
            time.sleep(0.1)
        raise MlopsError(
            "the approval reached no workflow: mlops --sandbox doctor tells what is missing"
        )

    def runs(self) -> list[dict[str, Any]]:
        """The runs of this repo on the sandbox's GitHub, the newest first."""
        from sm_mlops import sandbox

        settings = self.aws.settings
        found = sandbox.control(settings.root, "github.routes.runs_of", settings.project.github)
        return sorted(found, key=lambda run: -int(run["id"]))

    def line_of_function(self, version: Version) -> str:
        """What the trigger has written into its log."""
        logs = self.aws.client("logs")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            events = logs.filter_log_events(logGroupName="/aws/lambda/sm-mlops-trigger")["events"]
            for event in reversed(events):
                line = str(event["message"]).strip()
                if line.startswith('{"started": true') and version.arn in line:
                    return line
            time.sleep(0.1)
        return "sm-mlops-trigger"

    def finish(self, run: dict[str, Any] | None, conclusion: str) -> None:
        from sm_mlops import sandbox

        if run is not None:
            sandbox.control(self.aws.settings.root, "github.routes.finish", run["id"], conclusion)

    def to_stage(self, stage: str, version: Version, run: dict[str, Any] | None) -> None:
        with self.workflow(run, stage):
            self.typed(f"deploy {stage}" + ("" if run else f" --model-package-arn {version.arn}"))
            deployment.deploy(self.context, stage, version.arn, version.commit if run else "")
            self.typed(f"smoke {stage}")
            deployment.smoke(self.context, stage, version.arn)

    def predict(self, version: Version) -> None:
        """One of the rows registered with the version, sent raw as its source delivers it."""
        from sm_mlops.deployment import smoke

        file = self.aws.settings.root / "reports" / ROWS
        row = smoke.load_sample(self.aws, version.arn).first
        file.write_text(json.dumps({"instances": [row]}), encoding="utf-8")
        shown = file.relative_to(self.aws.settings.root)
        self.person(f"invoke production {shlex.quote(str(shown))}")
        deployment.invoke(self.context, "production", str(file))

    def fail(self, version: Version) -> None:
        """Staging refuses a version whose inference.py raises; production answers as before."""
        from sm_mlops.cli.demo import register_broken_copy

        broken = register_broken_copy(self.aws, version)
        number = broken.version
        say(f"Version {number} is version {version.version} with an inference.py that raises.")
        run = self.approve(broken)
        try:
            self.to_stage("staging", broken, run)
        except typer.Exit as failed:
            say(f"exit code {failed.exit_code}: the workflow ends here, red, before production.")
        else:
            raise AssertionError(f"version {number} must not reach staging")
        finally:
            self.finish(run, "failure")
            self.person(f"reject {number}")
            registry.reject(self.context, number, "made by mlops sandbox demo: it cannot serve")
        say("Production answers as before:")
        self.predict(version)

    def decide(self, question: str, report: Path) -> None:
        """Goes on after a yes. A no ends the tour, and what has been done stays."""
        if not self.ask:
            say(f"{question} [y/N] y")
            return
        if typer.confirm(question):
            return
        say("As you say: the tour ends here, and what is done stays done.")
        _tell_next(self.aws.settings.root, report)
        raise typer.Exit(0)

    # Who works

    @contextmanager
    def workflow(self, run: dict[str, Any] | None = None, environment: str = "") -> Iterator[None]:
        """Works as a job of GitHub Actions does, with the rights of the repo's role and no more."""
        from sm_mlops import sandbox

        if not self.by_github:
            yield
            return
        settings = self.aws.settings
        variables = sandbox.workflow_environment(
            settings.root, settings.project.github, environment=environment
        )
        if run is not None:
            variables |= {
                "MODEL_PACKAGE_ARN": run["inputs"]["model-package-arn"],
                "COMMIT": run["inputs"]["commit"],
            }
        before = {name: os.environ.get(name, "") for name in variables}
        apply(variables)
        self.context.obj = State(sandbox=False)
        try:
            yield
        finally:
            self.context.obj = State(sandbox=True)
            apply(before)

    def typed(self, command: str) -> None:
        """Shows a command of a workflow."""
        _typed(command, "mlops" if self.by_github else "mlops --sandbox")

    def person(self, command: str) -> None:
        """Shows a command of a person."""
        _typed(command, "mlops --sandbox")

    def _as(self, workflow: str) -> str:
        role = f"{self.aws.settings.project.project}-github"
        return f": {workflow}, as role {role}" if self.by_github else ""


def _report(aws: Aws, version: Version) -> Path:
    from sm_mlops import registry as versions

    file = aws.settings.root / "reports" / f"version-{version.version}.html"
    versions.download(aws, versions.report_of_version(aws, version), file)
    say(f"report      {file}")
    return file


def _tell_next(root: Path, report: Path) -> None:
    for line in (
        f"report      open {shlex.quote(str(report))}",
        f"commands    cd {shlex.quote(str(root))} && make setup && . .venv/bin/activate",
        "            and then mlops --help",
        "again       edit mlops.yaml or model/, commit, then mlops --sandbox run",
        "on AWS      mlops bootstrap, and from there all of it without --sandbox",
    ):
        say(line)


def _typed(command: str, program: str) -> None:
    tell(out, f"$ {program} {command}", "bold")


def _rule(title: str) -> None:
    out.rule(f"[bold]{title}")
