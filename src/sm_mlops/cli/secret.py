"""The panel "Connect": replace secrets. A value is never an argument, and never shown."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sm_mlops.cli.console import at_terminal, connected, say
from sm_mlops.errors import MlopsError

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
        str, typer.Argument(metavar="|".join(WHAT), help="Which one; all by default.")
    ] = WHAT[0],
) -> None:
    """Replace the trigger's credential, and the access key if GitHub signs in to AWS with one.

    Prompts for the trigger's credential, or reads it from MLOPS_TRIGGER_TOKEN; for a GitHub App
    from MLOPS_GITHUB_APP_ID, MLOPS_GITHUB_APP_INSTALLATION_ID and MLOPS_GITHUB_APP_KEY_FILE; for
    Jenkins from MLOPS_JENKINS_USER and MLOPS_JENKINS_TOKEN. Tries it before storing it.

    **Examples**

    - `mlops secret rotate`
    - `mlops secret rotate key`
    """
    from sm_mlops import github
    from sm_mlops.bootstrap import rotation
    from sm_mlops.bootstrap.credential import Credential
    from sm_mlops.cli.sandbox_account import token_source

    if what not in WHAT:
        # The text is not shown: it may be the new secret itself.
        raise MlopsError(
            f"what to rotate must be {', '.join(WHAT[:-1])} or {WHAT[-1]}; the new value is not an "
            "argument, you are prompted for it"
        )
    with connected(context) as aws:
        hub = github.sign_in(os.environ, aws.settings.project.git_host)
        if what != "key":
            part = Credential(aws, hub, ask=at_terminal(), sandbox_token=token_source(aws))
            rotation.rotate_credential(part, say)
        if what == "key" or (what == "all" and aws.settings.project.uses_key):
            rotation.rotate_key(aws, hub, say)
