"""`mlops sandbox`: the AWS on this machine, and the tour through it."""

from __future__ import annotations

from pathlib import Path

import typer

from sm_mlops.cli import tour
from sm_mlops.cli.console import load_settings, say
from sm_mlops.settings import find_root

app = typer.Typer(no_args_is_help=True, help="The AWS on this machine that --sandbox uses.")
app.command("demo")(tour.demo)


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


@app.command("reset")
def sandbox_reset() -> None:
    """Stop the sandbox and delete everything in it."""
    from sm_mlops import sandbox

    root = find_root(Path.cwd())
    sandbox.reset(root)
    say(f"Deleted {root / '.sandbox'}.")
