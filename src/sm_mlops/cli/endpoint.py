"""The panel "Deploy": test and call the endpoint of a stage."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sm_mlops import actions
from sm_mlops.aws import Aws
from sm_mlops.cli.console import AsJson, connected, err, on_terminal, out, print_json
from sm_mlops.cli.deploy import PANEL, WhichStage
from sm_mlops.deployment import access, endpoints, predict, stages
from sm_mlops.deployment import smoke as smoke_test
from sm_mlops.deployment.smoke import Check
from sm_mlops.display import tell
from sm_mlops.errors import MlopsError

app = typer.Typer(rich_markup_mode="markdown")


@app.command(rich_help_panel=PANEL)
def smoke(
    context: typer.Context,
    stage: WhichStage,
    model_package_arn: Annotated[
        str,
        typer.Option(
            envvar="MODEL_PACKAGE_ARN", help="Fail unless the endpoint runs this version."
        ),
    ] = "",
    tolerance: Annotated[
        float, typer.Option(min=0, help="Tolerance: absolute up to 1, relative above.")
    ] = 1e-4,
    latency_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MILLISECONDS",
            help="Limit for the median latency of one row; by default 2000, none if asynchronous.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test a stage's endpoint with the rows registered with its version.

    Sends them in each content type, compares the answers with the evaluation, measures the latency
    and sends rows that must be refused. The exit code is 1 if a check fails. For a stage
    that is batch only, it checks that the stage has the version's model, and predicts nothing.

    **Examples**

    - `mlops smoke staging`
    - `mlops smoke production --latency-limit 200 --json`
    """
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
        print_json({"stage": stage, "passed": good, "checks": checks})
    else:
        out.print(smoke_test.table(checks))
        failed = sum(item.passed is False for item in checks)
        line = f"{stage}: {failed} of {len(checks)} checks failed"
        if not failed:
            line = f"{stage} works" if good else f"{stage}: no rows to check it with"
        if good and checks[-1].name == smoke_test.PREDICTIONS:
            line = f"{stage} has its model; nothing was predicted"
        tell(out if good else err, line, "green" if good else "red")
        if failed and chosen.kind != "batch":
            tell(err, f"try it      {aws.command} invoke {stage}")
            tell(err, f"its log     {aws.command} logs --stage {stage}")
    _summarize(stage, good, checks)
    if not good:
        raise typer.Exit(1)


def _summarize(stage: str, good: bool, checks: list[Check]) -> None:
    marks = {True: "✅", False: "❌", None: "not checked"}
    rows = [
        f"| {marks[item.passed]} | {item.name} | {actions.code(item.detail)} |" for item in checks
    ]
    head = [f"### {stage} {'works' if good else 'fails its test'}", "", "| | check | result |"]
    actions.summary("\n".join([*head, "|---|---|---|", *rows]))


@app.command(rich_help_panel=PANEL)
def invoke(
    context: typer.Context,
    stage: WhichStage,
    file: Annotated[
        str,
        typer.Argument(
            help="Rows to predict: a file or folder in any format that trains, or - for standard "
            "input; by default the rows registered with the version.",
        ),
    ] = "",
    content_type: Annotated[
        str,
        typer.Option(
            help="Send the file as it is, in one request, as this type. By default it is "
            "converted, and cut into pieces that fit the endpoint's limit.",
        ),
    ] = "",
    accept: Annotated[
        str,
        typer.Option(
            help="Content type of the answer: application/json; application/jsonlines or text/csv, "
            "which are printed piece by piece."
        ),
    ] = "application/json",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The answer with endpoint, version, time and inference IDs."),
    ] = False,
) -> None:
    """Call a stage's endpoint with your own rows, and print the answer.

    Takes the files that training takes: CSV in any dialect, Parquet, JSON, Feather, ORC. A target
    column is ignored. All rows get one answer, in their order; an error names the row of the file.
    Each request has an inference ID, by which `mlops monitor` finds labels that come later.

    **Examples**

    - `mlops invoke staging rows.csv`
    - `mlops invoke staging data/2026 --accept application/jsonlines > predictions.jsonl`
    - `head -3 rows.csv | mlops invoke production - --accept text/csv`
    """
    with connected(context) as aws, _spooled(file) as path:
        chosen = stages.load(aws.settings, stage)
        if file and not path.exists():
            raise MlopsError(f"{file}: no such file or folder")
        there = access.enter(aws, chosen)
        endpoint = endpoints.serving(there, chosen.stack, stage)
        if not file:
            body, kind = _registered(aws, endpoint, stage), content_type or smoke_test.JSON
            answer = predict.invoke(there, endpoint, body, kind, accept)
        elif content_type:
            answer = predict.invoke(there, endpoint, path.read_bytes(), content_type, accept)
        else:
            answers = predict.in_pieces(there, endpoint, path, accept)
            answer = _followed(answers, keep=as_json)
    if as_json:
        _print_json(endpoint, answer)
    elif answer.body:
        sys.stdout.buffer.write(answer.body.removesuffix(b"\n") + b"\n")


def _registered(aws: Aws, endpoint: endpoints.Endpoint, stage: str) -> bytes:
    """Return the rows that are registered with the version of an endpoint, as JSON."""
    if not endpoint.package:
        raise MlopsError(f"{stage} runs no version of the registry: name a file with rows")
    return smoke_test.load_sample(aws, endpoint.package).bodies[smoke_test.JSON]


def _print_json(endpoint: endpoints.Endpoint, answer: predict.Answer) -> None:
    text = answer.body.decode("utf-8", "replace")
    is_json = answer.content_type.split(";")[0].strip() == "application/json"
    print_json(
        {
            "endpoint": endpoint.name,
            "version": endpoint.version,
            "content_type": answer.content_type,
            "milliseconds": round(answer.seconds * 1000, 1),
            "requests": answer.requests,
            "answer": json.loads(text) if is_json else text,
        }
    )


@contextmanager
def _spooled(file: str) -> Iterator[Path]:
    """Yield the path of the file, which for standard input is a temporary one."""
    if file != "-":
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        yield path


def _followed(answers: Iterator[tuple[predict.Answer, int]], keep: bool) -> predict.Answer:
    """Return the answers as one; or print each as it comes, unless it is JSON or to `keep`, and
    return an empty one. Say how far it came when it is interrupted."""
    found, done, kept = list[predict.Answer](), 0, "none is printed: see --accept text/csv"
    shows = on_terminal(sys.stderr)
    try:
        for answer, rows in answers:
            done += rows
            if keep or answer.content_type.split(";")[0].strip() == "application/json":
                found.append(answer)
            else:
                kept = "their predictions are printed"
                shows = shows and not on_terminal(sys.stdout)
                sys.stdout.buffer.write(answer.body.removesuffix(b"\n") + b"\n")
                sys.stdout.buffer.flush()
            if shows and done:
                sys.stderr.write(f"\r{done:,} rows predicted")
                sys.stderr.flush()
    except KeyboardInterrupt:
        tell(err, f"\ninterrupted after {done:,} rows; {kept}")
        raise typer.Exit(130) from None
    except MlopsError as error:
        if not done:
            raise
        raise MlopsError(f"{error}; {done:,} rows before it were predicted, {kept}") from error
    finally:
        if shows and done:
            sys.stderr.write("\n")
    return predict.joined(found) if found else predict.Answer(b"", "", 0.0)
