"""`mlops sandbox`: the AWS on this machine, and the tour through it."""

from __future__ import annotations

import shlex

import typer

from ops.commands.registry import registry_table
from ops.commands.training import follow_to_the_end
from ops.console import State, connected, load_settings, out, say

app = typer.Typer(no_args_is_help=True, help="The AWS on this machine that --sandbox uses.")


@app.command("demo")
def sandbox_demo(context: typer.Context) -> None:
    """Show the whole life of a model: prepare, train, evaluate, gate, register, look."""
    from ops import registry
    from ops.run import start

    context.obj = State(sandbox=True)
    with connected(context) as aws:
        out.rule("[bold]Train, judge, register")
        started = start(aws, {}, say)
        follow_to_the_end(aws, started.arn)
        out.rule("[bold]The model registry")
        found = list(registry.versions(aws, 20))
        out.print(registry_table(found))
        root = aws.settings.root
        file = root / "reports" / f"version-{found[0].version}.html"
        registry.download(aws, registry.report_of_version(aws, found[0]), file)
    out.rule("[bold]Next")
    for line in (
        f"report      open {shlex.quote(str(file))}",
        f"commands    cd {shlex.quote(str(root))} && make setup && . .venv/bin/activate",
        "            and then mlops --help",
        "again       edit mlops.yaml or model/, then mlops --sandbox run",
        "on AWS      the same, without --sandbox",
    ):
        say(line)


@app.command("up")
def sandbox_up() -> None:
    """Start a sandbox that stays until `mlops sandbox down`."""
    import sandbox

    settings = load_settings()
    sandbox.start(settings.root, settings.project.region)
    say("The sandbox is up; stop it with mlops sandbox down.")


@app.command("down")
def sandbox_down() -> None:
    """Stop the sandbox of this repo, and the jobs that run in it. Its history stays."""
    import sandbox

    sandbox.stop(load_settings().root)
    say("The sandbox is down.")


@app.command("reset")
def sandbox_reset() -> None:
    """Stop the sandbox and forget everything in it."""
    import sandbox

    root = load_settings().root
    sandbox.reset(root)
    say(f"Removed {root / '.sandbox'}.")
