"""The panel "Train": compile the pipeline, run it, and follow its executions."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, NoReturn

import typer

from sm_mlops import actions, commit, executions, registry
from sm_mlops.aws import Aws
from sm_mlops.cli.console import connected, err, fail, load_settings, out, pairs, say
from sm_mlops.deployment import access, endpoints, stages
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError, one_line, unreachable
from sm_mlops.executions import Execution
from sm_mlops.interruption import Terminated, terminable

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Train"
LONGEST_REASON = 1000
UNCHANGED = "the model is unchanged: data and code are those of an earlier training"

AtMost = Annotated[
    float | None,
    typer.Option(
        "--at-most",
        metavar="MINUTES",
        min=0,
        help="Stop following after this time, with exit code 3; the execution continues.",
    ),
]
Unfinished = Annotated[
    bool,
    typer.Option(
        "--unfinished-ok",
        envvar="MLOPS_UNFINISHED_OK",
        help="Exit with code 0 after --at-most, because another job follows the execution.",
    ),
]


@app.command("compile", rich_help_panel=PANEL)
def compile_command(
    account: Annotated[
        str, typer.Option(help="The account in ARNs and bucket names; 12 digits.")
    ] = "0" * 12,
) -> None:
    """Print the pipeline definition as JSON. Needs no sign-in and writes nothing."""
    from sm_mlops.training.definition import compile_pipeline

    sys.stdout.write(compile_pipeline(load_settings(), account).definition)


@app.command(rich_help_panel=PANEL)
def run(
    context: typer.Context,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            envvar="MLOPS_SET",
            help="A pipeline parameter or hyperparameter of this execution.",
        ),
    ] = None,
    reason: Annotated[
        str,
        typer.Option(
            envvar="MLOPS_REASON",
            help="Reason for the training, kept with the execution; one line.",
        ),
    ] = "",
    wait: Annotated[bool, typer.Option(help="Follow the execution to its end.")] = True,
    at_most: AtMost = None,
    unfinished_ok: Unfinished = False,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            envvar="MLOPS_IF_CHANGED",
            help="Train only if no execution of this commit's history has trained the same code, "
            "settings and data; with --set, always.",
        ),
    ] = False,
) -> None:
    """Train, evaluate and register: update the pipeline, start it and follow it.

    Ctrl-C stops following, and the execution continues. SIGTERM, which CI sends to a job that it
    ends, stops both.
    The exit code is 0 if a version was registered.
    `--set WaiveChampion=yes` registers a version although the champion cannot be scored.
    """
    from sm_mlops.monitoring.run import upload
    from sm_mlops.training.run import launch, plan, trained

    until = _clock(at_most)
    overrides = pairs("--set", "max_depth=4", values)
    why = one_line(reason)
    if len(why) > LONGEST_REASON:
        raise MlopsError(f"--reason has {len(why)} characters; at most {LONGEST_REASON}")
    if why.startswith("-"):
        raise MlopsError("--reason begins with a hyphen, and jobs would take it for an option")
    with connected(context) as aws, terminable():
        if aws.settings.aws.package_index:
            for name in stages.names(aws.settings):
                stages.require_wheels(aws.settings, stages.load(aws.settings, name))
        try:
            wanted = plan(aws, overrides, say)
            if aws.settings.monitoring.stages:
                upload(aws, say)
            if if_changed and (found := trained(aws, wanted)):
                if not _continues(aws, *found):
                    return
                arn = found[0].arn
            else:
                arn = launch(aws, wanted, say, why)
        except KeyboardInterrupt as interruption:
            raise before_following(aws, interruption) from None
        until = until if wait else time.monotonic()
        follow_to_the_end(aws, arn, until, unfinished_ok or not wait)


def _continues(aws: Aws, found: Execution, of: str) -> bool:
    """Say that `found`, of the commit `of`, trains the same; return whether it is HEAD's and still
    runs: a job that is started again ends as its execution does. Raise Exit if the gate stopped it.
    """
    head = commit.current(aws.settings.root)
    at = commit.short(head)
    number = found.model_package.rpartition("/")[2]
    how = f"version {number}" if number else "stopped by the gate" if found.judged else found.status
    line = f"nothing to train: commit {at} holds what execution {found.identifier} ({how})"
    line += " was trained from"
    say(line)
    actions.summary(line[0].upper() + line[1:])
    if found.judged and of == head:
        raise fail("the gate has stopped this commit")
    return of == head and found.status not in executions.FINAL


def _say_how_to_follow(aws: Aws, identifier: str) -> None:
    say("The execution continues.")
    say(f"follow it   {aws.command} follow {identifier}")
    say(f"stop it     {aws.command} stop {identifier}")


def before_following(aws: Aws, interruption: KeyboardInterrupt) -> typer.Exit:
    """Say whether an execution was started; return the end of the command."""
    if interruption.args == (None,):
        say(f"\nIt is not known whether an execution was started: see {aws.command} status")
    elif interruption.args:
        arn = str(interruption.args[0]["PipelineExecutionArn"])
        say(f"\nexecution  {arn}")
        return _interrupted(aws, arn, interruption)
    else:
        say("\nNothing was started.")
    return typer.Exit(130)


def _interrupted(aws: Aws, arn: str, interruption: KeyboardInterrupt) -> typer.Exit:
    """Stop an execution if a CI ends this job, else leave it; return the end of the command."""
    say("")
    if isinstance(interruption, Terminated):
        _stop(aws, arn)
        return typer.Exit(128 + signal.SIGTERM)
    _say_how_to_follow(aws, arn.rsplit("/", 1)[-1])
    return typer.Exit(130)


def _stop(aws: Aws, arn: str) -> None:
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    say(f"stopping {arn}")


def _clock(minutes: float | None) -> float | None:
    """Return the reading of `time.monotonic` after this time, None for no limit."""
    return None if minutes is None else time.monotonic() + 60 * minutes


def follow_to_the_end(
    aws: Aws,
    arn: str,
    until: float | None = None,
    unfinished_ok: bool = False,
    tell_success: Callable[[Execution], None] | None = None,
) -> None:
    """Follow, tell the end, and exit with code 1 unless it succeeded, 3 if it is not known."""
    identifier = arn.rsplit("/", 1)[-1]
    # Without the account number: GitHub drops outputs with masked values. A job that is cancelled
    # has it, too.
    actions.output("execution", identifier)
    try:
        execution = executions.follow(aws, arn, out, until=until)
    except KeyboardInterrupt as interruption:
        raise _interrupted(aws, arn, interruption) from None
    except Exception as error:
        # Such as credentials that have expired. A sandbox's executions end with it.
        if not (aws.sandbox and unreachable(error)):
            _say_how_to_follow(aws, identifier)
        raise
    ended = execution.status in executions.FINAL
    actions.output("status", execution.status if ended else "Executing")
    if ended and execution.status == "Succeeded":
        (tell_success or partial(_tell_success, aws))(execution)
        return
    if ended:
        _tell_failure(aws, execution)
    _say_how_to_follow(aws, identifier)
    actions.summary(f"The execution continues: `{aws.command} follow {identifier}`")
    if not unfinished_ok:
        raise typer.Exit(3)


def _tell_success(aws: Aws, execution: Execution) -> None:
    if not execution.model_package:
        say(f"{execution.pipeline} succeeded without registering a version")
        return
    found = registry.version(aws, int(execution.model_package.rsplit("/", 1)[-1]))
    line = f"Registered version {found.version}"
    tell(out, f"{line} ({found.approval})", "green")
    say(f"evaluation  {found.evaluation}")
    if execution.unchanged:
        say(f"cache       {UNCHANGED}")
        line += f"; {UNCHANGED}"
    say(f"look at it  {aws.command} report {found.version}")
    actions.summary(f"**{line}** ({found.approval}): {actions.code(found.evaluation)}")


def _tell_failure(aws: Aws, execution: Execution) -> NoReturn:
    why = executions.failure(aws, execution)
    actions.summary(f"**Execution {execution.status}**\n\n{actions.fenced(*why)}")
    for number, line in enumerate(why):
        tell(err, line, "red" if number == 0 else None)
    if any(step.name == "Evaluate" and step.status == "Succeeded" for step in execution.steps):
        tell(err, f"report: {aws.command} report {execution.identifier}")
    raise typer.Exit(1)


WhichExecution = Annotated[
    str | None, typer.Argument(help="ARN or its last part; the newest by default.")
]


@app.command(rich_help_panel=PANEL)
def follow(
    context: typer.Context,
    execution: WhichExecution = None,
    at_most: AtMost = None,
    unfinished_ok: Unfinished = False,
) -> None:
    """Follow an execution to its end. The exit code is 0 if it succeeds."""
    until = _clock(at_most)
    with connected(context) as aws:
        follow_to_the_end(aws, executions.find(aws, execution), until, unfinished_ok)


@app.command(rich_help_panel=PANEL)
def stop(context: typer.Context, execution: WhichExecution = None) -> None:
    """Stop an execution and its running jobs."""
    with connected(context) as aws:
        arn = executions.find(aws, execution)
        status = executions.describe(aws, arn).status
        if status in executions.FINAL:
            raise MlopsError(f"execution {arn.rsplit('/', 1)[-1]} is already {status}")
        _stop(aws, arn)


@app.command(rich_help_panel=PANEL)
def logs(
    context: typer.Context,
    step: Annotated[
        str | None,
        typer.Argument(help="Name of a step; by default the failed one, or the last."),
    ] = None,
    execution: Annotated[
        str | None, typer.Option(help="ARN or its last part; the newest by default.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Instead of a step: the endpoint of this stage.")
    ] = None,
) -> None:
    """Print the log of a step's job, or of a stage's endpoint.

    **Examples**

    - `mlops logs Train`
    - `mlops logs --stage staging`
    """
    why = ""
    if stage and (step or execution):
        raise MlopsError("--stage cannot be combined with a step or --execution")
    with connected(context) as aws:
        if stage:
            chosen = stages.load(aws.settings, stage)
            lines = endpoints.log_lines(access.enter(aws, chosen), chosen.stack)
            if not lines:
                raise MlopsError(f"{endpoints.LOG_GROUP}/{chosen.stack} has no log yet")
        else:
            found = executions.describe(aws, executions.find(aws, execution))
            lines, source, why = executions.logs(aws, found, step)
            if source:
                tell(err, f"from the cache: the log of execution {source.rsplit('/', 1)[-1]}")
    for line in lines:
        say(line)
    if why:
        tell(err, why, "red")
