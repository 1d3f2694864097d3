"""`mlops`: each command is a few lines here, its work in the module that it imports.

Those imports stand inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.errors import MlopsError, explained
from pipeline import settings as mlops_settings

if TYPE_CHECKING:
    from ops.aws import Aws
    from ops.executions import Execution
    from ops.registry import Version

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""The life of this repo's model: train it, judge it, register it, look at it.

    Each command works on the AWS account you are signed in to, or with `--sandbox` on this
    machine alone: `mlops --sandbox run` trains for real, without an account.
    """,
    rich_markup_mode="markdown",
)
sandbox_app = typer.Typer(no_args_is_help=True, help="The AWS on this machine that --sandbox uses.")
app.add_typer(sandbox_app, name="sandbox")

# Into a file or a CI log, where no terminal sets the width, tables keep their lines whole.
# (A process may have been started without any standard output.)
TERMINAL = sys.stdout is not None and sys.stdout.isatty()
WIDTH = None if TERMINAL else 120
out = Console(soft_wrap=True, width=WIDTH)
err = Console(stderr=True, soft_wrap=True)


def say(line: str) -> None:
    """Prints a line as it is: names of files, columns and labels may hold brackets."""
    out.print(line, markup=False, highlight=False)


@dataclass
class State:
    sandbox: bool


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
) -> None:
    context.obj = State(sandbox=sandbox)


def load_settings() -> mlops_settings.Settings:
    return mlops_settings.load(mlops_settings.find_root(Path.cwd()))


@contextmanager
def connected(context: typer.Context) -> Iterator[Aws]:
    """The account to work on: the one signed in to, or the sandbox while the block lasts."""
    from ops.aws import Aws

    settings = load_settings()
    if not context.obj.sandbox:
        yield Aws(settings)
        return
    # Only this branch, and the commands of `mlops sandbox`, ever import the sandbox.
    import sandbox
    from ops.sandbox_account import prepare

    with sandbox.connect(settings.root, settings.project.region) as environment:
        apply(environment)
        aws = Aws(settings, sandbox=True)
        prepare(aws)
        yield aws


def apply(environment: dict[str, str]) -> None:
    """Sets these variables for this process; an empty value removes one."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


@app.command("compile")
def compile_command(
    context: typer.Context,
    account: Annotated[
        str, typer.Option(help="Account number to compile for; by default the one signed in to.")
    ] = "",
) -> None:
    """Print the pipeline definition as JSON. Writes nothing, anywhere.

    Without a sign-in the account is twelve zeros: enough to read and to compare definitions.
    """
    from pipeline.definition import compile_pipeline

    settings = load_settings()
    if not account and not context.obj.sandbox:
        account = _signed_in_account(settings)
    sys.stdout.write(compile_pipeline(settings, account or "0" * 12))


def _signed_in_account(settings: mlops_settings.Settings) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    from ops.aws import Aws

    try:
        return Aws(settings).account
    except (BotoCoreError, ClientError):
        return ""


@app.command()
def run(
    context: typer.Context,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A pipeline parameter or hyperparameter for this execution.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the execution to its end.")] = True,
) -> None:
    """Train, judge and register: update the pipeline, start it, follow it.

    Ctrl-C stops following, not the execution. The exit code is 0 when a version was registered.
    """
    from ops.run import start

    overrides = _pairs(values or [])
    with connected(context) as aws:
        started = start(aws, overrides, say)
        if not wait:
            _say_how_to_follow(aws, started.arn)
            return
        _follow_to_the_end(aws, started.arn)


def _pairs(values: list[str]) -> dict[str, str]:
    pairs = {}
    for item in values:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise MlopsError(f"--set {item}: write it as NAME=VALUE, for example --set max_depth=4")
        pairs[name.strip()] = value
    return pairs


def _say_how_to_follow(aws: Aws, arn: str) -> None:
    identifier = arn.rsplit("/", 1)[-1]
    say(f"follow it   {aws.command} follow {identifier}")
    say(f"stop it     {aws.command} stop {identifier}")


def _follow_to_the_end(aws: Aws, arn: str) -> None:
    from ops import executions

    try:
        execution = executions.follow(aws, arn, out)
    except KeyboardInterrupt:
        say("\nThe execution goes on without you.")
        _say_how_to_follow(aws, arn)
        raise typer.Exit(130) from None
    _tell_end(aws, execution)


def _tell_end(aws: Aws, execution: Execution) -> None:
    from ops import executions, registry

    if execution.status == "Succeeded":
        if execution.model_package:
            found = registry.version(aws, int(execution.model_package.rsplit("/", 1)[-1]))
            out.print(f"[green]Registered version {found.version}[/] ({found.approval})")
            say(f"measured    {found.evaluation}")
            say(f"look at it  {aws.command} report {found.version}")
        return
    for number, line in enumerate(executions.failure(aws, execution)):
        err.print(line, style="red" if number == 0 else None, markup=False, highlight=False)
    if any(step.name == "Evaluate" and step.status == "Succeeded" for step in execution.steps):
        err.print(
            f"report: {aws.command} report --execution {execution.identifier}", highlight=False
        )
    raise typer.Exit(1)


WhichExecution = Annotated[
    str | None, typer.Argument(help="ARN or last part of it; the newest by default.")
]


@app.command()
def follow(
    context: typer.Context,
    execution: WhichExecution = None,
) -> None:
    """Follow an execution to its end. The exit code is 0 when it succeeds."""
    from ops import executions

    with connected(context) as aws:
        _follow_to_the_end(aws, executions.find(aws, execution))


@app.command()
def stop(
    context: typer.Context,
    execution: WhichExecution = None,
) -> None:
    """Stop an execution and its running jobs."""
    from ops import executions

    with connected(context) as aws:
        arn = executions.find(aws, execution)
        status = executions.describe(aws, arn).status
        if status in executions.FINAL:
            raise MlopsError(f"execution {arn.rsplit('/', 1)[-1]} is already {status}")
        aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
        say(f"stopping {arn}")


@app.command()
def logs(
    context: typer.Context,
    step: Annotated[
        str | None,
        typer.Argument(help="Name of a step; by default the one that failed, or the last."),
    ] = None,
    execution: Annotated[
        str | None, typer.Option(help="ARN or last part of it; the newest by default.")
    ] = None,
) -> None:
    """Print the log of a step's job."""
    from ops import executions

    with connected(context) as aws:
        found = executions.describe(aws, executions.find(aws, execution))
        executions.logs(aws, found, step, say)


@app.command()
def models(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts, with all metrics.")] = False,
) -> None:
    """List the registered versions with metric, status and commit."""
    from ops import registry

    with connected(context) as aws:
        found = list(registry.versions(aws, limit))
        if as_json:
            out.print_json(
                data=[
                    {**item.as_json(), "metrics": registry.statistics(aws, item)} for item in found
                ]
            )
            return
        if not found:
            say(f"No version yet: train one with {aws.command} run")
            return
        out.print(registry_table(found))


def registry_table(found: list[Version]) -> Table:
    view = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("version", "status", "created", "commit", "evaluation"):
        view.add_column(heading)
    for item in found:
        commit = item.commit[:7] + ("-dirty" if item.commit.endswith("-dirty") else "")
        created = item.created.astimezone().strftime("%Y-%m-%d %H:%M")
        view.add_row(str(item.version), item.approval, created, commit, escape(item.evaluation))
    return view


Comment = Annotated[
    str, typer.Option(help="Why, for those who look at the version later; 1,024 characters.")
]


@app.command()
def approve(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="A version, as mlops models lists them.")],
    comment: Comment = "",
) -> None:
    """Approve a version: from now on a new one must not be worse."""
    _set_approval(context, version, "Approved", comment)


@app.command()
def reject(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="A version, as mlops models lists them.")],
    comment: Comment = "",
) -> None:
    """Reject a version; an approved one is no champion any more."""
    _set_approval(context, version, "Rejected", comment)


def _set_approval(context: typer.Context, number: int, approval: str, comment: str) -> None:
    from ops import registry

    if len(comment) > 1024:
        raise MlopsError(f"--comment has {len(comment)} characters; the registry keeps 1024")
    with connected(context) as aws:
        found = registry.version(aws, number)
        registry.set_approval(aws, found, approval, comment)
    was = "still" if found.approval == approval else f"now, after {found.approval},"
    say(f"Version {found.version} is {was} {approval}: {found.evaluation}")


@app.command()
def report(
    context: typer.Context,
    version: Annotated[int | None, typer.Argument(help="The newest by default.")] = None,
    execution: Annotated[
        str | None,
        typer.Option(help="Instead of a version: an execution, also one the gate stopped."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; reports/... by default.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser.")
    ] = TERMINAL,
) -> None:
    """Write the evaluation report of a version to a file and open it."""
    from ops import executions, registry

    with connected(context) as aws:
        if execution:
            arn = executions.find(aws, execution)
            uri, name = registry.report_of_execution(aws, arn), arn.rsplit("/", 1)[-1]
        else:
            found = registry.version(aws, version)
            uri, name = registry.report_of_version(aws, found), f"version-{found.version}"
        file = output or aws.settings.root / "reports" / f"{name}.html"
        registry.download(aws, uri, file)
    say(str(file))
    if show:
        import webbrowser

        webbrowser.open(file.resolve().as_uri())


@sandbox_app.command("demo")
def sandbox_demo(context: typer.Context) -> None:
    """Show the whole life of a model: prepare, train, evaluate, gate, register, look."""
    from ops import registry
    from ops.run import start

    context.obj = State(sandbox=True)
    with connected(context) as aws:
        out.rule("[bold]Train, judge, register")
        started = start(aws, {}, say)
        _follow_to_the_end(aws, started.arn)
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


@sandbox_app.command("up")
def sandbox_up() -> None:
    """Start a sandbox that stays until `mlops sandbox down`."""
    import sandbox

    settings = load_settings()
    sandbox.start(settings.root, settings.project.region)
    say("The sandbox is up; stop it with mlops sandbox down.")


@sandbox_app.command("down")
def sandbox_down() -> None:
    """Stop the sandbox of this repo, and the jobs that run in it. Its history stays."""
    import sandbox

    sandbox.stop(load_settings().root)
    say("The sandbox is down.")


@sandbox_app.command("reset")
def sandbox_reset() -> None:
    """Stop the sandbox and forget everything in it."""
    import sandbox

    root = load_settings().root
    sandbox.reset(root)
    say(f"Removed {root / '.sandbox'}.")


def main() -> None:
    """Entry point: what a person can mend is one line and exit code 2, a bug a traceback."""
    try:
        app(prog_name="mlops")
    except (MlopsError, mlops_settings.SettingsError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        line = _line_for(error)
        if line is None:
            raise
        _refuse(line)


def _line_for(error: Exception) -> str | None:
    """What to tell for an error of AWS, the sandbox or the output; None when it is a bug."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EROFS):
        if not error.filename and sys.stdout is not None:
            # What is left in its buffer would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"cannot write {error.filename or 'the output'}: {error.strerror}"
    local = "sandbox" in sys.modules
    if local:
        import sandbox

        if isinstance(error, sandbox.SandboxError):
            return str(error)
    if "botocore" not in sys.modules:
        return None
    if local:
        from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

        if isinstance(error, EndpointConnectionError | ConnectionClosedError):
            return "the sandbox has ended: start the command again"
    return explained(error, os.environ.get("AWS_REGION") or "this region")


def _refuse(line: str) -> None:
    err.print(f"mlops: {line}", style="red", markup=False, highlight=False)
    raise SystemExit(2) from None
