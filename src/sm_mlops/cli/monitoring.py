"""The panel "Deploy": what the checks of deployed stages have found."""

from __future__ import annotations

import webbrowser
from datetime import UTC, datetime
from typing import Annotated

import typer

from sm_mlops import registry
from sm_mlops.aws import Aws
from sm_mlops.cli.console import TERMINAL, AsJson, connected, out, print_json, say
from sm_mlops.cli.deploy import PANEL, WhichStage
from sm_mlops.cli.training import before_following, follow_to_the_end
from sm_mlops.deployment import stages
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution
from sm_mlops.interruption import terminable
from sm_mlops.monitoring import results
from sm_mlops.monitoring.results import Result

app = typer.Typer(rich_markup_mode="markdown")
FIRST_YEAR = 2017


@app.command(rich_help_panel=PANEL)
def monitor(
    context: typer.Context,
    stage: WhichStage = "",
    run: Annotated[bool, typer.Option("--run", help="Check now, and follow it.")] = False,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --run: the end of the window, in UTC unless it says otherwise; by default "
            "the last full hour.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Download the newest report, and open it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the checks of a stage have found, or check it now.

    `monitoring` in mlops.yaml says which stages are checked, when, and against which limits. With
    `--run`, the exit code is 1 if a limit is exceeded. Labels that come later go to
    `PROJECT/labels/STAGE/` in the bucket: CSV, JSON Lines or Parquet with the columns inference_id,
    row (from 0), label.

    **Examples**

    - `mlops monitor` shows the last windows of each stage that is checked
    - `mlops monitor production --run --until 2026-11-28T06:00`
    - `mlops monitor production --report`
    """
    if run and (report or as_json):
        raise MlopsError("--run cannot be combined with --report or --json")
    if until is not None and not run:
        raise MlopsError("--until needs --run")
    moment = None if until is None else _moment(until)
    with connected(context) as aws:
        names = (stage,) if stage else aws.settings.monitoring.stages
        chosen = [stages.load(aws.settings, name) for name in names]
        if not chosen:
            raise MlopsError(
                "no stage is checked: name those to check in monitoring.stages of mlops.yaml"
            )
        if moment and moment > aws.now():
            last = f"{aws.now().astimezone(UTC):%Y-%m-%dT%H:00} UTC"
            raise MlopsError(f"--until {until} is in the future: the last full hour is {last}")
        if run:
            # A job of the sandbox does not see its clock.
            _run(aws, _only(chosen), moment or (aws.now() if aws.sandbox else None))
        elif report:
            _report(aws, _only(chosen))
        else:
            _show(aws, chosen, as_json)


def _only(chosen: list[Stage]) -> Stage:
    if len(chosen) > 1:
        raise MlopsError(f"name one stage: {', '.join(stage.name for stage in chosen)}")
    return chosen[0]


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise MlopsError(f"--until {text or repr(text)}: must be like 2026-11-28T06:00") from error
    if found.year < FIRST_YEAR:
        raise MlopsError(f"--until {text}: SageMaker has answered requests since {FIRST_YEAR}")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _show(aws: Aws, chosen: list[Stage], as_json: bool) -> None:
    found = {stage.name: results.last(aws, stage) for stage in chosen}
    if as_json:
        print_json({name: [item.content for item in items] for name, items in found.items()})
        return
    failed = results.failures(aws, found)
    for number, (name, items) in enumerate(found.items()):
        if number:
            say("")
        say(f"{name}: {results.health(items, aws.now())}")
        if name in failed:
            say(f"the {failed[name]}: {failed[name].why}")
        if items:
            out.print(results.table(items))
        else:
            say(f"check it now: {aws.command} monitor {name} --run")


def _run(aws: Aws, stage: Stage, until: datetime | None) -> None:
    from sm_mlops.monitoring.run import start

    def tell_success(_: Execution) -> None:
        window = results.window_name(until) if until else ""
        found = results.of_window(aws, stage, window) if window else _newest(aws, stage)
        if found is None:
            raise MlopsError(f"the check of {stage.name} left no result: see its log")
        out.print(results.table([found]))
        say(found.message)

    with terminable():
        try:
            arn = start(aws, stage, stage.bucket(aws.bucket), until, say)
        except KeyboardInterrupt as interruption:
            raise before_following(aws, interruption) from None
        say(f"execution  {arn}")
        try:
            follow_to_the_end(aws, arn, tell_success=tell_success)
        finally:
            say(f"report     {aws.command} monitor {stage.name} --report")


def _newest(aws: Aws, stage: Stage) -> Result | None:
    return next(iter(results.last(aws, stage, 1)), None)


def _report(aws: Aws, stage: Stage) -> None:
    found = _newest(aws, stage)
    if found is None:
        raise MlopsError(
            f"stage {stage.name} was never checked: {aws.command} monitor {stage.name} --run"
        )
    file = aws.settings.root / "reports" / f"monitor-{stage.name}-{found.name}.html"
    registry.download(aws, results.report_uri(aws, found, stage), file)
    say(str(file))
    if TERMINAL:
        webbrowser.open(file.resolve().as_uri())
