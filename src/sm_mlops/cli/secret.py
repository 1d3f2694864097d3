"""The panel "Connect": replacing secrets. No value is an argument, or ever shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from sm_mlops.console import connected, say
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws
    from sm_mlops.bootstrap.credential import Ask

app = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Replace the secrets that connect AWS and GitHub.",
)
WHAT = ("all", "trigger", "key")


@app.command()
def rotate(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="|".join(WHAT), help="Which of the two; all by default.")
    ] = WHAT[0],
) -> None:
    """Replace the trigger's credential, and the access key if GitHub signs in to AWS with one.

    The trigger's comes from a hidden question, or from MLOPS_TRIGGER_TOKEN; for a GitHub App from
    MLOPS_GITHUB_APP_ID, MLOPS_GITHUB_APP_INSTALLATION_ID and MLOPS_GITHUB_APP_KEY_FILE; for Jenkins
    from MLOPS_JENKINS_USER and MLOPS_JENKINS_TOKEN. It is tried before it is stored.

    **Examples**

    - `mlops secret rotate`
    - `mlops secret rotate key`
    """
    from sm_mlops import github
    from sm_mlops.bootstrap import rotation
    from sm_mlops.bootstrap.credential import Credential

    if what not in WHAT:
        # Not shown: it may be the new secret itself.
        raise MlopsError(
            f"what to rotate must be {', '.join(WHAT[:-1])} or {WHAT[-1]}; the new value is no "
            "argument, it is asked for, hidden"
        )
    with connected(context) as aws:
        hub = github.sign_in(os.environ, aws.settings.project.git_host)
        if what != "key":
            part = Credential(aws, hub, ask=at_terminal(), sandbox_token=sandbox_token(aws))
            rotation.rotate_credential(part, say)
        if what == "key" or (what == "all" and aws.settings.project.uses_key):
            rotation.rotate_key(aws, hub, say)


def at_terminal() -> Ask | None:
    """Return how to ask the person at the terminal; None if there is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    return lambda line: str(
        typer.prompt(line, default="", show_default=False, hide_input=True, err=True)
    ).strip()


def sandbox_token(aws: Aws) -> Callable[[], str] | None:
    """Return how to create the trigger's token in the sandbox; None outside it."""
    from sm_mlops.cli.sandbox_github import trigger_token

    return (lambda: trigger_token(aws.settings)) if aws.sandbox else None
