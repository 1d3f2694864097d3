"""The panel "Review": compare a change with its base, and comment on the pull request."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sm_mlops import actions
from sm_mlops.cli.console import load_settings, out, say
from sm_mlops.cli.sandbox_account import temporary
from sm_mlops.errors import MlopsError, one_line

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Review"


@app.command(rich_help_panel=PANEL)
def review(
    base: Annotated[str, typer.Option(help="Branch or commit to compare with.")] = "main",
    output: Annotated[
        Path | None, typer.Option(help="File for the report; by default it is printed.")
    ] = None,
) -> None:
    """Train the base and your working tree, each with its own code, and compare them.

    Runs in a temporary sandbox, on the same rows. The exit code is 1 if the gate stops your change.
    In GitHub Actions the report is also added to the summary.
    """
    from sm_mlops.training import review as reviews
    from sm_mlops.training import review_report

    try:
        settings = load_settings()
        sandbox = partial(temporary, region=settings.project.region)
        result = reviews.review(settings, base, out, sandbox)
    except Exception as error:
        # The comment on the pull request shows it, too, instead of that of an earlier commit.
        known = isinstance(error, MlopsError)
        why = str(error) if known else f"{type(error).__name__}: {one_line(error)}"
        report = review_report.refused(_project(), base, why)
        _publish(report, output)
        raise
    report = review_report.markdown(result)
    _publish(report, output)
    say(report if output is None else f"report     {output}")
    raise typer.Exit(0 if result.passed else 1)


def _publish(report: str, output: Path | None) -> None:
    actions.summary(report)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report, encoding="utf-8")


@app.command(rich_help_panel=PANEL)
def comment(
    file: Annotated[Path, typer.Option(help="The report, as mlops review writes it.")],
) -> None:
    """Post a report on the pull request of this job: one comment, updated every time.

    Needs GITHUB_TOKEN in GitHub Actions. A pull request from a fork gets no comment.
    """
    from sm_mlops.training import comment as comments

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MlopsError(f"--file {file}: cannot read it: {error}") from error
    at = comments.place(os.environ)
    if at.fork:
        say(f"#{at.number} is from {at.fork}, whose token cannot comment: see the summary")
        return
    say(comments.post(text, at, _project()))


def _project() -> str:
    """Return the project's name, even if the settings cannot be read: ci.yml sets it, too."""
    return os.environ.get("PROJECT") or load_settings().project.project
