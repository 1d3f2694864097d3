"""`mlops sandbox drift`: what happens after production, in the sandbox.

A million rows are predicted in a batch, then two days pass. On the second, the requests have
drifted: the check finds it, the alarm starts a training, and its version waits for approval.
"""

from __future__ import annotations

import io
import math
import shlex
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from sm_mlops import registry
from sm_mlops.aws import Aws
from sm_mlops.cli import batch, deploy, endpoint, monitoring, training
from sm_mlops.cli.console import Yes, attended, connected, load_settings, say
from sm_mlops.cli.sandbox import Tour, rule, sandbox_wait, tell_messages, typed
from sm_mlops.deployment import endpoints, predict, smoke, stages
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.errors import MlopsError
from sm_mlops.monitoring import results
from sm_mlops.registry import Version
from sm_mlops.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

STAGE = "production"
# What the tour needs, and how mlops.yaml has it as rendered.
WANTED = {"stages: []": f"stages: [{STAGE}]", "on_drift: false": "on_drift: true"}
BATCH = 1_000_000  # rows
MOVED = 3  # columns that drift
LONGEST_WAIT = 10.0  # seconds for a message


def drift(context: typer.Context, yes: Yes = False) -> None:
    """Show what happens after production: a batch, requests that drift, an alarm, a training.

    Needs a model in production, as `mlops sandbox demo` leaves it. Sets `monitoring.stages` and
    `retraining.on_drift` in mlops.yaml, after asking, and moves the sandbox's clock by two days.
    """
    context.obj = True
    ask = not yes and attended()
    _watch_production(load_settings(), ask)
    with connected(context) as aws:
        tour = Tour(context, aws, ask)
        if not tour.by_github:
            raise MlopsError("the tour needs GitHub Actions: the sandbox has no Jenkins")
        version = _version(aws)
        rule("Upload the pipeline of the checks" + tour.as_role("build.yml", "train"))
        tour.push()
        with tour.workflow():
            tour.typed("run")
            try:
                training.run(context)
            except typer.Exit:
                say(
                    "The tour ends here. It needs a training that succeeds: set in mlops.yaml what "
                    "the version in production was trained with, and run mlops sandbox drift again."
                )
                raise
        rule("Keep requests and check them daily" + tour.as_role("deploy.yml", STAGE))
        with tour.workflow(environment=STAGE):
            tour.typed(f"deploy {STAGE} --model-package-arn {version.arn}")
            deploy.deploy(context, STAGE, version.arn, yes=True)
            tour.typed(f"smoke {STAGE}")
            endpoint.smoke(context, STAGE, version.arn)
        rows = _rows(aws.settings)
        rule("A batch")
        _predict(context, aws, rows)
        rule("A day as in training")
        _a_day(tour, rows, "ok")
        rule("A day that has drifted")
        known, began = {run["id"] for run in tour.runs()}, tour.control("time")
        moved = _move(rows, aws.settings.data.target)
        say(f"Increased by half, in each request: {', '.join(moved)}")
        _a_day(tour, rows, "violation")
        _retrain(tour, known)
        rule("What people were told")
        typed("sandbox messages", "mlops")
        tell_messages(_messages(tour, began))
        typed(f"monitor {STAGE} --report")
        monitoring.monitor(context, STAGE, report=True)


def _watch_production(settings: Settings, ask: bool) -> None:
    """Set in mlops.yaml what the tour shows, unless it is set. Raises MlopsError if it cannot."""
    if STAGE in settings.monitoring.stages and settings.retraining.on_drift:
        return
    file = settings.root / "mlops.yaml"
    text = file.read_text(encoding="utf-8")
    said = " and ".join(WANTED.values())
    if any(text.count(line) != 1 for line in WANTED):
        raise MlopsError(f"mlops.yaml: set {said} first")
    if ask and not typer.confirm(f"Set {said} in mlops.yaml?"):
        raise typer.Exit(0)
    for line, wanted in WANTED.items():
        text = text.replace(line, wanted)
    file.write_text(text, encoding="utf-8")
    say(f"Set in mlops.yaml: {said}")


def _production(aws: Aws) -> Endpoint:
    return endpoints.serving(aws, stages.load(aws.settings, STAGE).stack, STAGE)


def _version(aws: Aws) -> Version:
    with suppress(MlopsError):
        if number := _production(aws).version:
            return registry.version(aws, number)
    raise MlopsError("no version runs in production: mlops sandbox demo brings one there")


def _rows(settings: Settings) -> pd.DataFrame:
    """Return the rows that train in the sandbox, as text."""
    import pandas as pd

    from sm_mlops.deployment import pieces

    path = settings.root / (settings.data.sample or settings.data.path)
    frames = []
    for piece in pieces.cut(path, 1 << 30, 1 << 30):
        body = io.BytesIO(piece.body)
        if piece.content_type == "text/csv":
            frames.append(pd.read_csv(body, dtype=str, keep_default_na=False))
        else:
            frames.append(pd.read_json(body, lines=True, dtype=False))
    return pd.concat(frames, ignore_index=True)


def _move(rows: pd.DataFrame, target: str) -> list[str]:
    """Raise some columns of numbers by half; return their names."""
    import pandas as pd

    moved: list[str] = []
    for name in rows.columns.drop(target, errors="ignore"):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        if numbers.notna().mean() > 0.9 and numbers.nunique() > 10 and len(moved) < MOVED:
            rows[name] = numbers * 1.5
            moved.append(str(name))
    if not moved:
        raise MlopsError("the tour moves numbers, but no column of the rows holds any")
    return moved


def _predict(context: typer.Context, aws: Aws, rows: pd.DataFrame) -> None:
    """Predict a million rows, drawn from those that train, in a batch transform job."""
    import pandas as pd

    few = rows.drop(columns=aws.settings.data.target, errors="ignore")
    for name in few.columns:
        with suppress(ValueError):  # text stays text
            few[name] = pd.to_numeric(few[name])
    many = few.sample(BATCH, replace=True, random_state=1, ignore_index=True)
    file = aws.settings.root / "reports" / "batch.parquet"
    file.parent.mkdir(exist_ok=True)
    many.to_parquet(file)
    shown = str(file.relative_to(aws.settings.root))
    target = f"s3://{aws.bucket}/{aws.settings.prefix}/scored/batch.parquet"
    typed(f"predict {shown} {target} --stage {STAGE}")
    batch.predict(context, shown, target, STAGE)


def _ask(aws: Aws, rows: pd.DataFrame) -> None:
    """Ask production for predictions of the rows, as often as a check needs them."""
    serving = _production(aws)
    file = aws.settings.root / "reports" / "requests.csv"
    file.parent.mkdir(exist_ok=True)
    rows.to_csv(file, index=False)
    shown = shlex.quote(str(file.relative_to(aws.settings.root)))
    asked = math.ceil(aws.settings.monitoring.min_rows / len(rows))
    for _ in range(asked):
        typed(f"invoke {STAGE} {shown}")
        answered = sum(count for _, count in predict.in_pieces(aws, serving, file, smoke.JSON))
        say(f"{answered:,} predictions")


def _a_day(tour: Tour, rows: pd.DataFrame, expected: str) -> None:
    """Ask for predictions and let a day pass. Raises MlopsError if its check finds another than
    the expected status."""
    began = tour.control("time")
    _ask(tour.aws, rows)
    typed("sandbox wait 1d", "mlops")
    sandbox_wait("1d")
    typed(f"monitor {STAGE}")
    monitoring.monitor(tour.context, STAGE)
    [newest] = results.last(tour.aws, stages.load(tour.aws.settings, STAGE), 1)
    if newest.end.timestamp() < began:
        raise MlopsError("the check left no result: mlops sandbox messages has the reason")
    if newest.status != expected:
        raise MlopsError(f"the tour expects the check to end with {expected}: {newest.message}")


def _messages(tour: Tour, began: float) -> list[dict[str, Any]]:
    """Return the messages since then, once the one about the new version is there."""
    until = time.monotonic() + LONGEST_WAIT
    while True:
        found = [each for each in tour.control("topics.messages") if each["Time"] > began]
        if time.monotonic() > until or any("waits" in each["Subject"] for each in found):
            return found
        time.sleep(0.2)


def _retrain(tour: Tour, known: set[int]) -> None:
    """Run the training that the alarm has started."""
    rule("CloudWatch, EventBridge, Lambda, GitHub")
    try:
        run = tour.started_run(lambda inputs: bool(inputs.get("reason")), known)
    except MlopsError as error:
        days = tour.aws.settings.retraining.cool_down_days
        raise MlopsError(
            f"the alarm started no training. If one ran in the last {days} days: "
            f"mlops sandbox wait {days}d, then run the tour again. Otherwise "
            "mlops --sandbox doctor shows what is missing"
        ) from error
    reason = run["inputs"]["reason"]
    say(f"alarm       {tour.aws.settings.project.project}-{STAGE}-drift")
    say("function    sm-mlops-trigger")
    say(f"run         {run['name']} number {run['run_number']} of {run['_repository']}")
    say(f"reason      {reason}")
    rule("Train again" + tour.as_role("build.yml", "train"))
    with tour.workflow():
        tour.typed(f"run --reason {shlex.quote(reason)}")
        training.run(tour.context, reason=reason)
    tour.finish(run, "success")
