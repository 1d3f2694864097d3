"""The panel "Deploy": an approved version into a stage, tested, called, taken back, taken away."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from sm_mlops.console import confirm, connected, err, load_settings, out, say, tell
from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from sm_mlops.aws import Aws
    from sm_mlops.deployment.deploy import Deployment, DeploymentFailed
    from sm_mlops.deployment.destroy import Doomed
    from sm_mlops.deployment.smoke import Check
    from sm_mlops.deployment.status import Status

app = typer.Typer(rich_markup_mode="markdown")
PANEL = "Deploy"


def _stage_names(incomplete: str) -> list[str]:
    """For the shell's completion, which must stay silent where there is no repo."""
    from sm_mlops.deployment import stages
    from sm_mlops.settings import SettingsError

    try:
        known = stages.names(load_settings())
    except SettingsError:
        return []
    return [name for name in known if name.startswith(incomplete)]


WhichStage = Annotated[
    str,
    typer.Argument(
        metavar="STAGE",
        help="A file of infra/, such as staging or production.",
        autocompletion=_stage_names,
        show_default=False,
    ),
]
Arn = Annotated[
    str,
    typer.Option(
        envvar="MODEL_PACKAGE_ARN",
        help="The version, as mlops approve and mlops models --json name it.",
        show_default=False,
    ),
]
Commit = Annotated[
    str,
    typer.Option(
        envvar="COMMIT",
        help="Refuse the version unless it was trained from this commit.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="For scripts: the result as JSON, progress on stderr.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ContinueRollback = Annotated[
    bool,
    typer.Option(
        "--continue-rollback",
        help="First bring a stack out of UPDATE_ROLLBACK_FAILED, once its cause is mended.",
    ),
]


def _progress(as_json: bool) -> Console:
    """Where progress goes: standard output belongs to the result when a script reads it."""
    return err if as_json else out


@app.command(rich_help_panel=PANEL)
def check(
    context: typer.Context,
    model_package_arn: Arn,
    commit: Annotated[
        str,
        typer.Option(
            envvar="COMMIT",
            help="The commit it was trained from, 40 digits.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that a version may be deployed, before the commit it names is checked out.

    It is Approved, of this project, account and region, and the commit is its own. `mlops deploy`
    checks the same.

    **Example**

    - `mlops check --model-package-arn ARN --commit 3f2c9ab...`
    """
    from sm_mlops.commit import require
    from sm_mlops.deployment.deploy import approved

    require(commit)
    with connected(context) as aws:
        package = approved(aws, model_package_arn, commit)
    if as_json:
        out.print_json(data=package.as_json())
        return
    say(f"version {package.version} may be deployed, trained from commit {package.commit}")


@app.command(rich_help_panel=PANEL)
def deploy(
    context: typer.Context,
    stage: WhichStage,
    model_package_arn: Arn,
    commit: Commit = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    continue_rollback: ContinueRollback = False,
    at_most: Annotated[
        float | None,
        typer.Option(
            "--at-most",
            metavar="MINUTES",
            min=0,
            help="Stop following after so long, with exit code 1; the deployment goes on.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deploy an approved version to a stage, and follow it until its endpoint answers.

    The version is named by its ARN: nothing ever deploys "the latest". Shows the changes, makes
    them, and ends well only when the endpoint is in service with this very version. Deploying what
    runs already changes nothing. Ctrl-C stops following, not the deployment.

    **Examples**

    - `mlops deploy staging --model-package-arn arn:aws:sagemaker:...:model-package/churn/3`
    - `mlops deploy production --model-package-arn ARN --dry-run`
    - `mlops --sandbox deploy staging --model-package-arn ARN` on this machine alone
    """
    from sm_mlops.deployment import stages
    from sm_mlops.deployment.deploy import deploy as deploy_version

    console = _progress(as_json)
    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        with _interruptible(aws, chosen.stack), _at_most(at_most, stage):
            done = _or_fail(
                aws,
                stage,
                lambda: deploy_version(
                    aws,
                    chosen,
                    model_package_arn,
                    commit or None,
                    console,
                    execute=not dry_run,
                    continue_rollback=continue_rollback,
                ),
                as_json,
            )
        _tell_deployment(aws, done, console, as_json)


@contextmanager
def _interruptible(aws: Aws, stack: str, *, cancellable: bool = True) -> Iterator[None]:
    """Ctrl-C leaves; what CloudFormation has begun it brings to its end."""
    try:
        yield
    except KeyboardInterrupt:
        lines = [
            "\nNothing is stopped by this: what CloudFormation has begun goes on without you.",
            "go on following   the same command again",
            f"look at it        {aws.command} status",
        ]
        if cancellable and not aws.sandbox:
            lines.append(
                f"call it off       aws cloudformation cancel-update-stack --stack-name {stack}"
            )
        for line in lines:
            tell(err, line)
        raise typer.Exit(130) from None


class _TimeIsUp(KeyboardInterrupt):
    """Ends what is under way as Ctrl-C does."""


@contextmanager
def _at_most(minutes: float | None, stage: str) -> Iterator[None]:
    """Leaves the block after so many minutes, with exit code 1: a job ends before its credentials.

    What CloudFormation has begun it brings to its end.
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
        from sm_mlops import actions

        line = (
            f"{stage} is not there after {minutes:g} minutes; CloudFormation goes on without this "
            "command. Run it again (in CI: the job that failed) to see it through"
        )
        actions.summary(f"### {stage}: still under way\n\n{line}.")
        tell(err, f"mlops: {line}", "red")
        raise typer.Exit(1) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _or_fail(aws: Aws, stage: str, work: Callable[[], Deployment], as_json: bool) -> Deployment:
    """What `work` returns; a deployment that failed is told with its log, and exit code 1."""
    from sm_mlops.deployment.deploy import DeploymentFailed

    try:
        return work()
    except DeploymentFailed as failure:
        _tell_failure(aws, stage, failure)
        if as_json:
            out.print_json(
                data={
                    "stage": stage,
                    "error": str(failure),
                    "running": failure.running,
                    "log": list(failure.log),
                }
            )
        raise typer.Exit(1) from None


def _tell_failure(aws: Aws, stage: str, failure: DeploymentFailed) -> None:
    from sm_mlops import actions

    tell(err, f"mlops: {failure}", "red")
    if failure.log:
        tell(err, "the last its container said:")
        for line in failure.log:
            tell(err, f"  {line}")
        tell(err, f"all of it   {aws.command} logs --stage {stage}")
    still = (
        f"{stage} still runs version {failure.running}"
        if failure.running
        else f"{stage} runs nothing"
    )
    tell(err, still)
    log = "".join(f"{line}\n" for line in failure.log)
    details = f"\n\n```\n{log}```" if log else ""
    actions.summary(f"### {stage}: not deployed\n\n{failure}\n\n{still}{details}")


def _tell_deployment(aws: Aws, done: Deployment, console: Console, as_json: bool) -> None:
    from sm_mlops import actions

    if as_json:
        out.print_json(data=asdict(done))
    if done.planned:
        from sm_mlops import stacks

        console.print(stacks.change_table(stacks.Change(**item) for item in done.changes))
        tell(console, "Nothing was changed: this was a dry run.")
        return
    if not done.changed:
        line = f"{done.stage} is unchanged: it runs version {done.version} already"
    else:
        line = f"{done.stage} runs version {done.version}, in service after {done.seconds:.0f} s"
    tell(console, line, "green")
    tell(console, f"endpoint    {done.endpoint} ({done.kind})")
    tell(console, f"test it     {aws.command} smoke {done.stage}")
    tell(console, f"call it     {aws.command} invoke {done.stage} rows.csv")
    for item in done.left:
        tell(console, f"left over   {item}")
    commit = f" from commit `{done.commit}`" if done.commit else ""
    actions.summary(f"### {done.stage}\n\n{line}{commit}\n\nEndpoint `{done.endpoint}`")
    actions.output("endpoint", done.endpoint)


@app.command(rich_help_panel=PANEL)
def rollback(
    context: typer.Context,
    stage: WhichStage,
    to: Annotated[
        int | None,
        typer.Option(help="A version to return to; by default the one that ran before this one."),
    ] = None,
    yes: Yes = False,
    continue_rollback: ContinueRollback = False,
    as_json: AsJson = False,
) -> None:
    """Return a stage to the version that it ran before, by the same way as a deployment.

    Each stage remembers which versions it ran. The one before must still be approved; where that
    is not so, or not known, a version has to be named with --to.

    **Examples**

    - `mlops rollback production`
    - `mlops rollback production --to 2 --yes`
    """
    from sm_mlops.deployment import stages
    from sm_mlops.deployment.deploy import deploy as deploy_version
    from sm_mlops.deployment.deploy import way_back

    console = _progress(as_json)
    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        back = way_back(aws, chosen, to)
        line = f"{stage} runs version {back.running} and returns to version {back.version}."
        if yes:
            tell(console, line)
        confirm(f"{line} Go on?", yes)
        with _interruptible(aws, chosen.stack):
            done = _or_fail(
                aws,
                stage,
                lambda: deploy_version(
                    aws,
                    chosen,
                    back.arn,
                    None,
                    console,
                    continue_rollback=continue_rollback,
                    trail=back.trail,
                ),
                as_json,
            )
        _tell_deployment(aws, done, console, as_json)
        again = f"so that nobody deploys version {back.running} again"
        tell(console, f"{again}: {aws.command} reject {back.running}")


@app.command(rich_help_panel=PANEL)
def smoke(
    context: typer.Context,
    stage: WhichStage,
    model_package_arn: Annotated[
        str,
        typer.Option(
            envvar="MODEL_PACKAGE_ARN",
            help="Fail unless the endpoint runs this version.",
            show_default=False,
        ),
    ] = "",
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far a number may be off, relative above 1.")
    ] = 1e-4,
    latency_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MILLISECONDS",
            help="What one row may take at most in the median, network included. "
            "By default 2000; an asynchronous endpoint has no limit.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test a stage's endpoint for real, with the rows registered with its version.

    Sends them in each content type, compares form and values of the answers with the evaluation's,
    measures the latency and sends rows that must be refused. The exit code is 1 if a check fails.

    **Examples**

    - `mlops smoke staging`
    - `mlops smoke production --latency-limit 200 --json`
    """
    from sm_mlops.deployment import smoke as smoke_test
    from sm_mlops.deployment import stages

    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        checks = smoke_test.smoke(
            aws,
            chosen,
            model_package_arn or None,
            tolerance=tolerance,
            latency_limit=latency_limit,
        )
    good = smoke_test.passed(checks)
    if as_json:
        out.print_json(
            data={"stage": stage, "passed": good, "checks": [asdict(item) for item in checks]}
        )
    else:
        out.print(smoke_test.table(checks))
        failed = sum(item.passed is False for item in checks)
        line = f"{stage} works" if good else f"{stage}: {failed} of {len(checks)} checks failed"
        if not good and not failed:
            line = f"{stage}: there was nothing to check it with"
        tell(out if good else err, line, "green" if good else "red")
    _summarise_checks(stage, good, checks)
    if not good:
        raise typer.Exit(1)


def _summarise_checks(stage: str, good: bool, checks: list[Check]) -> None:
    from sm_mlops import actions

    marks = {True: "✅", False: "❌", None: "not checked"}
    rows = [
        f"| {marks[item.passed]} | {item.name} | {item.detail.replace('|', '&#124;')} |"
        for item in checks
    ]
    head = [f"### {stage} {'works' if good else 'fails its test'}", "", "| | check | seen |"]
    actions.summary("\n".join([*head, "|---|---|---|", *rows]))


@app.command(rich_help_panel=PANEL)
def invoke(
    context: typer.Context,
    stage: WhichStage,
    file: Annotated[
        str,
        typer.Argument(
            help="Rows to predict (.csv, .json, .jsonl), or - for standard input; by default "
            "the rows registered with the version.",
            show_default=False,
        ),
    ] = "",
    content_type: Annotated[
        str, typer.Option(help="By default by the file's name; text/csv for standard input.")
    ] = "",
    accept: Annotated[
        str, typer.Option(help="Form of the answer: application/json, text/csv...")
    ] = "application/json",
    as_json: Annotated[
        bool, typer.Option("--json", help="The answer with endpoint, version and time around it.")
    ] = False,
) -> None:
    """Call a stage's endpoint with rows of your own; prints just what it answers.

    **Examples**

    - `mlops invoke staging rows.csv`
    - `head -3 rows.csv | mlops invoke production - --accept text/csv`
    """
    from sm_mlops.deployment import access, endpoints, predict, smoke, stages

    with connected(context) as aws:
        chosen = stages.load(aws.settings, stage)
        body = _rows(file) if file else None
        there = access.enter(aws, chosen)
        endpoint = endpoints.serving(there, chosen.stack, stage)
        if body is None:
            if not endpoint.package:
                raise MlopsError(f"{stage} runs no version of the registry: name a file with rows")
            body = smoke.load_sample(aws, endpoint.package).bodies[smoke.JSON]
            kind = content_type or smoke.JSON
        else:
            suffix = Path(file).suffix.lower() if file != "-" else ".csv"
            kind = content_type or predict.CONTENT_TYPES.get(suffix, "")
        if not kind:
            known = ", ".join(predict.CONTENT_TYPES)
            raise MlopsError(
                f"{file}: is none of {known}: name its form with --content-type, as in text/csv"
            )
        answer = predict.invoke(there, endpoint, body, kind, accept)
    if not as_json:
        sys.stdout.buffer.write(answer.body)
        if not answer.body.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        return
    import json

    text = answer.body.decode("utf-8", "replace")
    is_json = answer.content_type.split(";")[0].strip() == "application/json"
    out.print_json(
        data={
            "endpoint": endpoint.name,
            "version": endpoint.version,
            "content_type": answer.content_type,
            "milliseconds": round(answer.seconds * 1000, 1),
            "answer": json.loads(text) if is_json else text,
        }
    )


def _rows(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise MlopsError(f"{file}: {error.strerror}") from error


@app.command(rich_help_panel=PANEL)
def status(
    context: typer.Context,
    stage: Annotated[
        str, typer.Argument(help="Only this one.", autocompletion=_stage_names, show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show on one screen what runs where, what waits for approval, what was trained last.

    **Examples**

    - `mlops status`
    - `mlops status --json | jq '.stages[] | {stage, version, state}'`
    """
    from sm_mlops.deployment.status import status as look

    with connected(context) as aws:
        found = look(aws, stage or None)
    if as_json:
        out.print_json(data=found.as_json())
        return
    _tell_status(aws, found)


def _tell_status(aws: Aws, found: Status) -> None:
    from sm_mlops.commit import short
    from sm_mlops.deployment.status import LISTED, table

    out.print(table(found.stages))
    say("")
    for number, version in enumerate(found.pending[:LISTED]):
        head = "to approve  " if number == 0 else "            "
        commit = short(version.commit)
        say(f"{head}version {version.version}  {version.evaluation}  commit {commit}")
    if len(found.pending) > LISTED:
        say(f"            and {len(found.pending) - LISTED} more: {aws.command} models")
    if not found.pending:
        say("to approve  nothing")
    last = found.execution
    if last is None:
        say(f"trained     never: {aws.command} run")
        return
    reason = f"  {last['reason']}" if last["reason"] else ""
    identifier = last["arn"].rpartition("/")[2]
    started = datetime.fromisoformat(last["started"]).astimezone().strftime("%Y-%m-%d %H:%M")
    say(f"trained     {started}  {identifier}  {last['status']}{reason}")


@app.command(rich_help_panel=PANEL)
def destroy(
    context: typer.Context,
    stage: Annotated[
        str,
        typer.Argument(
            metavar="[STAGE]",
            help="A file of infra/, such as staging.",
            autocompletion=_stage_names,
            show_default=False,
        ),
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="All stages, and executions that are running.")
    ] = False,
    registry: Annotated[
        bool,
        typer.Option("--registry", help="With --all: the pipeline and all versions, too."),
    ] = False,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="With --all and --registry: everything of this project in the bucket, and the "
            "endpoints' logs.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take a stage away, and prove that nothing of it that costs money is left.

    Shows what goes and what stays, and asks. The registry and the data stay unless you say
    otherwise: a stage can be deployed again at any time.

    **Examples**

    - `mlops destroy staging`
    - `mlops destroy --all --yes`
    - `mlops destroy --all --registry --data` the end of the project
    """
    from sm_mlops.deployment.destroy import chosen, look

    if bool(stage) == everything:
        raise MlopsError("name a stage, or --all of them")
    if (registry or data) and not everything:
        raise MlopsError("--registry and --data go with --all: they belong to all stages")
    if data and not registry:
        raise MlopsError("--data needs --registry: versions without their artifacts are of no use")
    with connected(context) as aws:
        doomed = [look(aws, each) for each in chosen(aws, stage or None)]
        _destroy(aws, doomed, everything, registry, data, yes, as_json)


def _destroy(
    aws: Aws,
    doomed: list[Doomed],
    everything: bool,
    registry: bool,
    data: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from sm_mlops.deployment import destroy as work

    console = _progress(as_json)
    present = [item for item in doomed if not item.empty]
    executing = work.executing(aws) if everything else []
    kept = work.kept(aws)
    if present:
        console.print(work.table(present))
    for item in present:
        if item.stage.idle_cost is not None:
            tell(
                console,
                f"saves       {item.stage.name}: {item.stage.idle_cost:.0f} USD a month when idle",
            )
    for arn in executing:
        tell(console, f"stops       execution {arn.rpartition('/')[2]}")
    plural = "" if kept.versions == 1 else "s"
    versions = f"pipeline and {kept.versions} version{plural} in the registry"
    objects = f"{kept.objects} objects, {kept.size / 1e6:.1f} MB, at {kept.bucket}"
    tell(console, f"{'removes ' if registry else 'keeps   '}    {versions}")
    tell(console, f"{'removes ' if data else 'keeps   '}    {objects}")
    nothing = not (present or executing or registry)
    if nothing:
        names = ", ".join(item.stage.name for item in doomed)
        tell(console, f"Nothing to take away, not deployed: {names}")
    else:
        confirm("Remove this for good?", yes)
    left: list[str] = []
    work.stop_executions(aws, executing)
    # Those without a stack, too: what somebody made beside it costs as much.
    for item in doomed:
        with _interruptible(aws, item.stage.stack, cancellable=False):
            left += [f"{item.stage.name}: {name}" for name in work.destroy(item, console)]
    if registry:
        left += work.delete_registry(aws)
    if data:
        left += work.delete_data(aws, doomed)
    if as_json:
        out.print_json(
            data={
                "removed": [item.stage.name for item in present],
                "left": left,
                "kept": {
                    "versions": 0 if registry else kept.versions,
                    "objects": 0 if data else kept.objects,
                },
            }
        )
    if left:
        tell(err, f"mlops: still there: {'; '.join(left)}", "red")
        raise typer.Exit(1)
    everything_gone = "no endpoint, configuration, model, scalable target, alarm or role"
    tell(console, f"Nothing is left: {everything_gone}.", "green")


@app.command(rich_help_panel=PANEL)
def share(context: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let the accounts named in infra/*.json, and only those, read what they deploy.

    Writes into the policies of the model package group, the artifact bucket and the key, beside
    what others wrote there. Done once, and again when a stage moves to another account.

    **Example**

    - `mlops share`
    """
    from sm_mlops.deployment import access

    console = _progress(as_json)
    with connected(context) as aws:
        accounts = access.foreign_accounts(aws)
        grants = access.plan(aws, accounts)
        for grant in grants:
            tell(console, grant.what)
            for line in grant.lines:
                tell(console, f"  {line}")
        if grants:
            confirm("Change these policies?", yes)
        for grant in grants:
            grant.apply()
    if as_json:
        out.print_json(
            data={"accounts": list(accounts), "changed": {g.what: list(g.lines) for g in grants}}
        )
    elif grants:
        say(f"{len(grants)} policies changed")
    elif accounts:
        say(f"Nothing to do: {', '.join(accounts)} may read already.")
    else:
        say(f"Nothing to do: all stages are in this account, {aws.account}.")
