"""The panel "Deploy": deploy an approved version to a stage, and return to an earlier one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from sm_mlops import actions, registry, stacks
from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.cli.console import (
    AsJson,
    ContinueRollback,
    Yes,
    attended,
    confirm,
    connected,
    err,
    fail,
    load_settings,
    print_json,
    progress,
    say,
)
from sm_mlops.commit import require
from sm_mlops.deployment import access, merged, stages, watch
from sm_mlops.deployment.deploy import (
    Deployment,
    DeploymentFailed,
    Superseded,
    WatchFailed,
    approved,
    moment,
    rollback_target,
    unusual,
)
from sm_mlops.deployment.deploy import deploy as deploy_version
from sm_mlops.deployment.stages import Stage
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.settings import SettingsError
from sm_mlops.stacks import change_table

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Deploy"


def stage_names(incomplete: str) -> list[str]:
    """Return the names of stages for completion in the shell; none outside of a repo."""
    with suppress(SettingsError):
        return [name for name in stages.names(load_settings()) if name.startswith(incomplete)]
    return []


WhichStage = Annotated[
    str,
    typer.Argument(
        metavar="STAGE",
        help="A file of infra/, such as staging or production.",
        autocompletion=stage_names,
    ),
]
Arn = Annotated[
    str,
    typer.Option(
        envvar="MODEL_PACKAGE_ARN",
        help="The version, as in the output of mlops approve and mlops models --json.",
    ),
]


@app.command(rich_help_panel=PANEL)
def check(
    context: typer.Context,
    model_package_arn: Arn,
    commit: Annotated[
        str,
        typer.Option(
            envvar="COMMIT",
            help="Fail unless it was trained from this commit, all 40 digits.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check that a version may be deployed: that it is approved, and its commit is on main.

    Asks GitHub, with the token of GITHUB_TOKEN or `gh auth login`; a repo with Jenkins asks git. If
    the history of main was rewritten since, `mlops rollback` returns to a version all the same.

    **Example**

    - `mlops check --model-package-arn ARN`
    """
    started = moment()
    if commit:
        require(commit)
    with connected(context) as aws:
        package = approved(aws, model_package_arn, commit)
        why = merged.require(aws, package)
    actions.output("started", started)
    if as_json:
        print_json(package)
        return
    say(f"version {package.version} may be deployed: it is approved, and {why}")


@app.command(rich_help_panel=PANEL)
def deploy(
    context: typer.Context,
    stage: WhichStage,
    model_package_arn: Arn,
    started: Annotated[
        str,
        typer.Option(
            envvar="DEPLOYMENT_STARTED",
            metavar="TIME",
            help="When the approved run began, as mlops check outputs it. Deploy nothing if the "
            "stage has received a version since whose run began later.",
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    yes: Yes = False,
    continue_rollback: ContinueRollback = False,
    at_most: Annotated[
        float | None,
        typer.Option(
            "--at-most",
            metavar="MINUTES",
            min=0,
            help="Stop following after this time, with exit code 1; the deployment continues.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deploy an approved version to a stage, and wait until its endpoint runs this version.

    The version is named by its ARN: nothing ever deploys "the latest". Deploying the running
    version again changes nothing, unless infra/ has changed. Waits while the stage is busy; in
    GitHub Actions, also until the version before it has been tested. At a terminal, asks before it
    changes production. Ctrl-C stops following, not the deployment.

    **Examples**

    - `mlops deploy staging --model-package-arn arn:aws:sagemaker:...:model-package/churn/3`
    - `mlops deploy production --model-package-arn ARN --dry-run`
    - `mlops --sandbox deploy staging --model-package-arn ARN` on this machine only
    """
    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        if stage == "production" and not dry_run and attended():
            version = approved(aws, model_package_arn)
            for line in unusual(aws, chosen, version):
                tell(err, f"version {version.version} {line}", "yellow")
            confirm(f"Deploy version {version.version} to production?", yes)
        _carry_out(
            *(aws, chosen, model_package_arn, as_json),
            at_most=at_most,
            started=_checked(started),
            in_turn=actions.running(),
            execute=not dry_run,
            continue_rollback=continue_rollback,
        )


@app.command(rich_help_panel=PANEL)
def rollback(
    context: typer.Context,
    stage: WhichStage,
    to: Annotated[
        int | None,
        typer.Option(help="The version to return to; by default the one that ran before."),
    ] = None,
    yes: Yes = False,
    continue_rollback: ContinueRollback = False,
    as_json: AsJson = False,
) -> None:
    """Return a stage to the version that ran before, by a deployment.

    Each stage records the versions it ran. If the previous one is unknown or no longer approved,
    name a version with --to.

    **Examples**

    - `mlops rollback production`
    - `mlops rollback production --to 2 --yes`
    """
    console = progress(as_json)
    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        back = rollback_target(aws, chosen, to)
        line = f"{stage} runs version {back.running} and returns to version {back.version}."
        if yes:
            tell(console, line)
        confirm(f"{line} Continue?", yes)
        _carry_out(
            *(aws, chosen, back.arn, as_json),
            continue_rollback=continue_rollback,
            back=back,
        )
        again = f"another deployment of version {back.running}"
        tell(console, f"to prevent {again}: {aws.command} reject {back.running}")


def _checked(started: str) -> str:
    """Return a time as `mlops check` outputs it. Raises MlopsError for another text."""
    try:
        # Jenkins tells times in milliseconds.
        if started.isdecimal():
            return moment(datetime.fromtimestamp(int(started) / 1000, UTC))
        return moment(datetime.fromisoformat(started)) if started else ""
    except (ValueError, OverflowError, OSError):
        raise MlopsError(f"--started must be a time such as {moment()}, not {started!r}") from None


def _carry_out(
    aws: Aws,
    stage: Stage,
    arn: str,
    as_json: bool,
    at_most: float | None = None,
    **options: Any,
) -> None:
    """Deploy and print the result; exit with code 1 after a failure. `options` are deploy's."""
    try:
        names = (stage.stack, watch.stack_name(stage))
        with interruptible(access.enter(aws, stage), *names), _at_most(at_most, stage.name):
            done = deploy_version(aws, stage, arn, progress(as_json), **options)
    except Superseded as other:
        actions.summary(f"### {stage.name}: not deployed\n\n{other}.")
        raise fail(str(other)) from None
    except DeploymentFailed as failure:
        _tell_failure(aws, stage.name, failure)
        if as_json:
            result = {"stage": stage.name, "error": str(failure)}
            print_json({**result, "running": failure.running, "log": failure.log})
        raise typer.Exit(1) from None
    _tell_deployment(aws, done, progress(as_json), as_json)


@contextmanager
def interruptible(aws: Aws, *names: str, cancellable: bool = True) -> Iterator[None]:
    """Exit on Ctrl-C with code 130, and say whether CloudFormation has begun and continues."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        busy = ""
        # An older project's role may not ask about the second stack.
        with ignoring(*DENIED):
            known = (stacks.describe(aws, name) for name in names)
            busy = next((stack.name for stack in known if stack and stack.busy), "")
        lines = [
            "\nCloudFormation continues.",
            "follow it   run the same command again",
            f"look at it  {aws.command} status",
        ]
        if not interruption.args and not busy:
            lines[:2] = [f"\nCloudFormation does not change {names[0]}: nothing is in progress."]
        elif cancellable and not aws.sandbox:
            name = busy or names[0]
            lines.append(f"cancel it   aws cloudformation cancel-update-stack --stack-name {name}")
        for line in lines:
            tell(err, line)
        raise typer.Exit(130) from None


class _TimeIsUp(BaseException):
    """Interrupts like Ctrl-C."""


@contextmanager
def _at_most(minutes: float | None, stage: str) -> Iterator[None]:
    """Exit with code 1 after this time, before a job's credentials expire.

    The operation of CloudFormation continues.
    """
    if minutes is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    # Zero would mean never.
    signal.setitimer(signal.ITIMER_REAL, max(60 * minutes, 0.001))
    try:
        yield
    except _TimeIsUp:
        line = (
            f"{stage} is not deployed after {minutes:g} minutes; CloudFormation continues. Run "
            "the command again (in CI: re-run the failed job) to follow it to its end"
        )
        actions.summary(f"### {stage}: still in progress\n\n{line}.")
        raise fail(line) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _tell_failure(aws: Aws, stage: str, failure: DeploymentFailed) -> None:
    tell(err, f"mlops: {failure}", "red")
    if isinstance(failure, WatchFailed):
        actions.summary(f"### {stage}: deployed in part\n\n{actions.fenced(str(failure))}")
        return
    if failure.log:
        tell(err, "the last lines of its container's log:")
        for line in failure.log:
            tell(err, f"  {line}")
        tell(err, f"all of it   {aws.command} logs --stage {stage}")
    runs = f"still runs version {failure.running}" if failure.running else "runs nothing"
    tell(err, f"{stage} {runs}")
    details = f"\n\n{actions.fenced(*failure.log)}" if failure.log else ""
    why = actions.fenced(str(failure))
    actions.summary(f"### {stage}: not deployed\n\n{why}\n\n{stage} {runs}{details}")


def _tell_deployment(aws: Aws, done: Deployment, console: Console, as_json: bool) -> None:
    if as_json:
        print_json(done)
    if done.planned:
        console.print(change_table(done.changes))
        tell(console, "Nothing was changed: this was a dry run.")
        return
    line = f"{done.stage} is unchanged: it already runs version {done.version}"
    if done.changed:
        how = "deployed" if done.kind == "batch" else "in service"
        line = f"{done.stage} runs version {done.version}, {how} after {done.seconds:.0f} s"
    tell(console, line, "green")
    where = "no endpoint" if done.kind == "batch" else f"Endpoint {actions.code(done.endpoint)}"
    if done.kind == "batch":
        tell(console, f"use it      {aws.command} predict ROWS OUTPUT --stage {done.stage}")
    else:
        tell(console, f"endpoint    {done.endpoint} ({done.kind})")
        tell(console, f"test it     {aws.command} smoke {done.stage}")
        tell(console, f"call it     {aws.command} invoke {done.stage} rows.csv")
    for item in done.left:
        tell(console, f"not deleted {item}")
    commit = f" from commit {actions.code(done.commit)}" if done.commit else ""
    actions.summary(f"### {done.stage}\n\n{line}{commit}\n\n{where}")
    actions.output("endpoint", done.endpoint)


@app.command(rich_help_panel=PANEL)
def share(context: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Allow exactly the accounts in infra/*.json to read what they deploy.

    Changes this project's statements in the policies of the model package group, the artifact
    bucket, the key and the ECR repository of an image of your own. The accounts that may read the
    platform's bucket only grow, because other projects may need them. Run it again when a stage
    moves to another account.

    **Example**

    - `mlops share`
    """
    console = progress(as_json)
    with connected(context) as aws:
        accounts = access.foreign_accounts(aws)
        images = {aws.settings.image, *(found.image for found in registry.versions(aws))}
        grants = access.plan(aws, accounts, images)
        for grant in grants:
            tell(console, grant.what)
            for line in grant.lines:
                tell(console, f"  {line}")
        if grants:
            confirm("Change these policies?", yes)
        for grant in grants:
            grant.apply()
    if as_json:
        changed = {grant.what: grant.lines for grant in grants}
        print_json({"accounts": accounts, "changed": changed})
    else:
        say(f"{len(grants)} policies changed. May read: {', '.join(accounts) or 'no account'}.")
