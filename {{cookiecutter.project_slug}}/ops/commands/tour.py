"""`mlops sandbox demo`: a version's whole way to production, by the commands a person would type,
and a version that does not get there."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.commands import deployment, registry, training
from ops.console import State, connected, out, say, tell

if TYPE_CHECKING:
    from ops.aws import Aws
    from ops.registry import Version

ROWS = "one-row.json"


def demo(
    context: typer.Context,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Do not ask; as where nobody sits at a terminal to answer."
        ),
    ] = False,
) -> None:
    """Show the whole life of a model: trained, judged, registered, approved, in production.

    And of one that fails on its way there. Pauses where a person decides.
    """
    context.obj = State(sandbox=True)
    ask = not yes and sys.stdin is not None and sys.stdin.isatty()
    with connected(context) as aws:
        _rule("Train, judge, register")
        version = _train(context)
        report = _report(aws, version)
        _rule("Approve, as in SageMaker Studio")
        _decide(f"Approve version {version.version}?", ask, aws, report)
        _typed(f"approve {version.version}")
        registry.approve(context, version.version)
        _rule("Staging: deploy, test for real")
        _deploy(context, "staging", version)
        _typed("smoke staging")
        deployment.smoke(context, "staging")
        _rule("Production, after a reviewer's word")
        _decide(f"Bring version {version.version} to production?", ask, aws, report)
        _deploy(context, "production", version)
        _typed("smoke production")
        deployment.smoke(context, "production")
        _rule("A prediction from production")
        _predict(context, aws, version)
        _rule("A version that cannot serve")
        _fail(context, aws, version)
        _rule("What runs where")
        _typed("status")
        deployment.status(context)
    _rule("Next")
    _tell_next(aws.settings.root, report)


def _train(context: typer.Context) -> Version:
    """A version registered now, or this command's end."""
    from ops import registry as versions

    _typed("run")
    training.run(context)
    with connected(context) as aws:
        return versions.version(aws, None)


def _report(aws: Aws, version: Version) -> Path:
    from ops import registry as versions

    file = aws.settings.root / "reports" / f"version-{version.version}.html"
    versions.download(aws, versions.report_of_version(aws, version), file)
    say(f"report      {file}")
    return file


def _deploy(context: typer.Context, stage: str, version: Version) -> None:
    _typed(f"deploy {stage} --model-package-arn {version.arn}")
    deployment.deploy(context, stage, version.arn)


def _predict(context: typer.Context, aws: Aws, version: Version) -> None:
    """One of the rows registered with the version, sent raw as its source delivers it."""
    from ops import smoke

    file = aws.settings.root / "reports" / ROWS
    row = smoke.load_sample(aws, version.arn).first
    file.write_text(json.dumps({"instances": [row]}), encoding="utf-8")
    shown = file.relative_to(aws.settings.root)
    _typed(f"invoke production {shlex.quote(str(shown))}")
    deployment.invoke(context, "production", str(file))


def _fail(context: typer.Context, aws: Aws, version: Version) -> None:
    """Staging refuses a version whose inference.py raises; production answers as before."""
    from ops.demo import register_broken_copy

    broken = register_broken_copy(aws, version)
    say(f"Version {broken.version} is version {version.version} with an inference.py that raises.")
    _typed(f"approve {broken.version}")
    registry.approve(context, broken.version)
    try:
        _deploy(context, "staging", broken)
    except typer.Exit as failed:
        say(f"exit code {failed.exit_code}: the workflow ends here, red, before production.")
    else:
        raise AssertionError(f"version {broken.version} must not reach staging")
    finally:
        _typed(f"reject {broken.version}")
        registry.reject(context, broken.version, "made by mlops sandbox demo: it cannot serve")
    say("Production answers as before:")
    _predict(context, aws, version)


def _decide(question: str, ask: bool, aws: Aws, report: Path) -> None:
    """Goes on after a yes. A no ends the tour, and what has been done stays."""
    if not ask:
        say(f"{question} [y/N] y")
        return
    if typer.confirm(question):
        return
    say("As you say: the tour ends here, and what is done stays done.")
    _tell_next(aws.settings.root, report)
    raise typer.Exit(0)


def _tell_next(root: Path, report: Path) -> None:
    for line in (
        f"report      open {shlex.quote(str(report))}",
        f"commands    cd {shlex.quote(str(root))} && make setup && . .venv/bin/activate",
        "            and then mlops --help",
        "again       edit mlops.yaml or model/, then mlops --sandbox run",
        "on AWS      the same, without --sandbox",
    ):
        say(line)


def _typed(command: str) -> None:
    tell(out, f"$ mlops --sandbox {command}", "bold")


def _rule(title: str) -> None:
    out.rule(f"[bold]{title}")
