"""The panel "Deploy": predict whole files with the version of a stage."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from sm_mlops.cli.console import AsJson, connected, err, out, print_json, progress
from sm_mlops.cli.deploy import PANEL, stage_names
from sm_mlops.deployment import stages
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError
from sm_mlops.interruption import terminable

if TYPE_CHECKING:
    from sm_mlops.deployment.batch import Result

app = typer.Typer(rich_markup_mode="markdown")
Source = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A file (.csv, .jsonl, .parquet), a folder of them, or an address in S3.",
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT", help="A file with one of these endings, or a folder, here or in S3."
    ),
]
Machine = Annotated[
    str,
    typer.Option(help="Instance type of the job; by default the first that the version supports."),
]


@app.command(rich_help_panel=PANEL)
def predict(
    context: typer.Context,
    source: Source,
    target: Target,
    stage: Annotated[
        str, typer.Option(help="The stage whose version predicts.", autocompletion=stage_names)
    ] = "production",
    instance: Machine = "",
    again: Annotated[
        bool, typer.Option("--again", help="Start a new job instead of continuing an earlier one.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the job that predicts INPUT, and clean up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict whole files with the version that a stage runs, in a batch transform job.

    OUTPUT has the rows of INPUT in their order, with all columns and the predictions. Rows that
    cannot be predicted are in `<name>.errors.jsonl` beside it, with the reason; the exit code is 3
    then. After an interruption the same command continues.

    **On a schedule**, with or without an endpoint, if `infra/STAGE.json` has

    `"Batch": {"Schedule": "cron(0 5 * * ? *)", "Input": "s3://...", "Output": "s3://.../"}`

    `Input` has JSON Lines, not compressed. A folder of `Output`, named after the time, gets each
    row with its prediction, or why it has none, as `SageMakerOutput`. The stage's role reads
    folders in `PROJECT/batch/STAGE/input/` and writes to folders in `PROJECT/batch/STAGE/output/`
    of the bucket; for others, set `ExecutionRoleArn` to a role with the path
    `/sm-mlops/PROJECT/STAGE/`.

    **Examples**

    - `mlops predict customers.csv predictions.csv`
    - `mlops predict s3://lake/customers/ s3://lake/predictions/ --stage staging`
    - `mlops predict customers.csv predictions.csv --stop`
    """
    try:
        from sm_mlops.deployment import batch
    except ModuleNotFoundError as error:
        raise MlopsError(f"mlops predict needs the package {error.name}: make setup") from error
    with connected(context) as aws, terminable():
        chosen = stages.load(aws.settings, stage)
        if stop:
            tell(out, f"Stopped {batch.stop(aws, chosen, source)}")
            return
        try:
            done = batch.predict(
                *(aws, chosen, source, target, progress(as_json)), instance=instance, again=again
            )
        except (batch.Interrupted, KeyboardInterrupt) as error:
            files = f"{shlex.quote(source)} {shlex.quote(target)}"
            _tell_how_to_continue(error, f"{aws.command} predict {files} --stage {stage}")
            raise typer.Exit(130) from None
    if as_json:
        print_json(done)
    else:
        _tell(done)
    if done.errors:
        raise typer.Exit(3)


def _tell_how_to_continue(error: BaseException, command: str) -> None:
    if isinstance(error, KeyboardInterrupt):
        tell(err, f"Interrupted. To start again, or continue: {command}")
    else:
        tell(err, f"{error} goes on. To continue: {command}\nTo stop it: {command} --stop")


def _tell(done: Result) -> None:
    line = f"{done.rows - done.errors:,} of {done.rows:,} rows predicted by version "
    line += f"{done.version}: {done.output}"
    if done.errors:
        line += f"; {done.errors:,} could not be predicted: {done.errors_file}"
    tell(out, line, "yellow" if done.errors else "green")
