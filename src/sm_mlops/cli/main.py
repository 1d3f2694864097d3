"""`mlops`: all commands together, and how errors are reported.

Commands import what is slow to load, such as boto3 and the sandbox, when they are called.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from sm_mlops import version
from sm_mlops.cli import (
    batch,
    bootstrap,
    deploy,
    endpoint,
    monitoring,
    registry,
    review,
    sandbox_drift,
    status,
    training,
    upgrade,
)
from sm_mlops.cli import sandbox as sandbox_commands
from sm_mlops.cli.console import fail, say
from sm_mlops.errors import MlopsError, explained, unreachable
from sm_mlops.redaction import looks_secret

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Train, evaluate, approve and deploy this repo's model.

    Each command works on the AWS account you are signed in to, or with `--sandbox` on this
    machine only: `mlops --sandbox run` trains for real, without an account.

    **From nothing to production**

    - `mlops run` trains and registers a version that passes the quality gate
    - `mlops approve 3` approves version 3, which starts its deployment in a connected repo;
      without one, the next two commands deploy it
    - `mlops deploy staging --model-package-arn ARN`, then `mlops smoke staging`
    - `mlops deploy production --model-package-arn ARN`; back with `mlops rollback production`
    - `mlops status` shows what runs where
    """,
    rich_markup_mode="markdown",
)
for _commands in (
    *(training, registry, deploy, endpoint, batch, status, monitoring),
    *(review, bootstrap, upgrade),
):
    app.add_typer(_commands.app)
app.add_typer(bootstrap.secret, name="secret", rich_help_panel="Connect")
sandbox_commands.app.command("drift")(sandbox_drift.drift)
app.add_typer(sandbox_commands.app, name="sandbox", rich_help_panel="Sandbox")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(version())
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    sandbox: Annotated[
        bool,
        typer.Option(
            "--sandbox",
            envvar="MLOPS_SANDBOX",
            help="Use the sandbox on this machine instead of AWS.",
        ),
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the tool's version."
        ),
    ] = False,
) -> None:
    context.obj = sandbox


def main() -> None:
    """Run the command; print an error that a person can fix on one line, with exit code 2."""
    try:
        for number, text in enumerate(sys.argv[1:], 1):
            # Before an error about the argument quotes it.
            if looks_secret(text):
                raise MlopsError(
                    f"argument {number} looks like a secret, and no command takes one: revoke it, "
                    "because it is in the history of your shell; mlops secret rotate prompts for a "
                    "credential"
                )
        app(prog_name="mlops")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        line = str(error) if isinstance(error, MlopsError) else _line_for(error)
        if line is None:
            raise
        raise SystemExit(fail(line, 2).exit_code) from None


def _line_for(error: Exception) -> str | None:
    """Return one line for an error of AWS, the sandbox or the output; None for a bug."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EROFS):
        if not error.filename and sys.stdout is not None:
            # The interpreter would fail again when it flushes the buffer at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"cannot write {error.filename or 'the output'}: {error.strerror}"
    local = "sm_mlops.sandbox" in sys.modules
    if local:
        from sm_mlops import sandbox

        if isinstance(error, sandbox.SandboxError):
            return str(error)
    if "botocore" not in sys.modules:
        return None
    if local and unreachable(error):
        return "the sandbox has stopped: run the command again"
    return explained(error, os.environ.get("AWS_REGION") or "this region")
