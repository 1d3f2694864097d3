"""The step Evaluate: the packaged model and the champion (the newest approved version) on the test
rows, by the library's metrics and those that the team's evaluate.py declares.

Input:  --model: model.tar.gz, or the folder it unpacks to.
        --test: a folder of raw rows with the target, as Parquet.
        --champion: a folder with champion.json ({"version": "3"}) and model.tar.gz, if it exists.
        --waive-champion: yes, to go on without the comparison if the champion cannot be scored.
        --reason: why the model was trained, for the report; "unknown" is none.
Output: in the folder --output: evaluation.json, metrics in SageMaker's model quality schema;
        gate.json, each metric, the champion's, and how much worse the model is; report.html;
        version.json, what the model was made with, for mlops models and mlops compare;
        baseline.json, what the training rows, the predictions and their quality are like; the same
        for SageMaker's registry: statistics.json, constraints.json, evaluation-constraints.json;
        sample-payload.tar.gz, some rows in every content type and the predictions for them.

Must not know the gate's thresholds or how the model was trained.
"""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sm_mlops.tabular import (
    archives,
    baseline,
    checks,
    constraints,
    install,
    local,
    metrics,
    mlops_yaml,
    scoring,
    slices,
)
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.encoding import labels, numbers
from sm_mlops.tabular.failure import MEMORY, DataError, said
from sm_mlops.tabular.schema import Schema
from sm_mlops.tabular.text import as_property

WORST = 1e308  # stands for an undefined metric, which fails every comparison


@dataclass(frozen=True)
class Settings:
    """Settings in mlops.yaml: the gate's metric, and the columns by which it is shown."""

    metric: str = "auc"
    slices: tuple[str, ...] = ()


@dataclass
class Champion:
    """The newest approved version: its predictions for the test rows, or why there are none."""

    version: str
    predicted: metrics.Floats | None = None
    why: str = ""
    threshold: float = 0.5
    """Its own, which its endpoint decides by."""
    process: subprocess.Popen[str] | None = None
    """Scores it."""


def main(folder: Path) -> None:
    """Run the step, whose script is in `folder`, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="model.tar.gz or its folder")
    parser.add_argument("--test", type=Path, required=True, help="folder of raw rows as Parquet")
    parser.add_argument("--champion", type=Path, help="folder of the champion, if there is one")
    parser.add_argument("--waive-champion", choices=["no", "yes"], default="no")
    parser.add_argument("--reason", default="unknown", help="why it was trained, for the report")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    given = parser.parse_args(sys.argv[1:] or local.arguments(folder, "evaluate"))
    waived = given.waive_champion == "yes"
    settings = read_settings(folder)
    with tempfile.TemporaryDirectory() as work:
        evaluate(
            *(given.model, given.test, given.champion, given.output, Path(work), settings),
            waived=waived,
            reason="" if given.reason == "unknown" else given.reason,
        )


def read_settings(folder: Path) -> Settings:
    """Return the settings in mlops.yaml of `folder` or the one above, where there is one."""
    _, content = mlops_yaml.beside(folder)
    gate, own = content.get("gate") or {}, content.get("evaluation") or {}
    names = tuple(str(name) for name in own.get("slices") or ())
    return Settings(gate.get("metric") or Settings.metric, names)


def evaluate(
    model: Path,
    test: Path,
    champion: Path | None,
    output: Path,
    work: Path,
    settings: Settings,
    *,
    waived: bool = False,
    reason: str = "",
) -> None:
    """Run the step; `work` is a folder for temporary files.

    Raise DataError if the champion cannot be scored and that is not `waived`.
    """
    folder = unpack(model, work / "candidate")
    schema = schemas.load(folder)
    slices.check(settings.slices, [column.name for column in schema.columns], schema.dropped)
    explained = work / "contributions.json"
    candidate = start_scoring(folder, test, schema.target, work / "scores", explained)
    against = start_champion(champion, test, schema, work)
    from sm_mlops.tabular import report  # the plotting library loads while the models score

    truth = read_truth(test, schema)
    predicted = judge_candidate(model, candidate, work, schema, len(truth))
    if against is not None:
        judge_champion(against, work, schema, len(truth))
        if not waived:
            require_scored(against)
        compare_columns(schema, against.version, [champion, work / "champion"])
    own = own_metrics(schema, truth, test, work / "scores.parquet")
    other = {}
    if against is not None and against.predicted is not None:
        other = own_metrics(schema, truth, test, work / "rival.parquet")
    gate = judge(schema, truth, predicted, against, own, other)
    versions = read_json(folder / "versions.json").items()
    gate["versions"] = as_property(" ".join(f"{name} {number}" for name, number in versions))
    quality = metrics.model_quality(
        schema.task, truth, predicted, schema.class_names, own, schema.threshold
    )
    sliced = by_slice(settings, test, schema, truth, predicted, own, work / "scores.parquet")
    if sliced:
        quality["slices"] = sliced
    output.mkdir(parents=True, exist_ok=True)
    notes = read_json(folder / "training.json")
    known = completed(baseline.load(folder), schema, predicted, gate)
    known.save(output)
    files = {"evaluation": quality, "gate": gate, "version": carried(schema, notes, settings)}
    for name, content in (files | constraints.files(known, quality)).items():
        schemas.write_json(output / f"{name}.json", content)
    pack(work / "scores.sample", output / "sample-payload.tar.gz")
    drivers = read_json(explained)
    page = report.render(
        schema, truth, predicted, gate, notes, against, sliced, drivers, reason=reason
    )
    (output / "report.html").write_text(page, encoding="utf-8")
    for name in metrics.fitting(schema.task):
        print(gate["metrics"][name]["text"])


def require_scored(champion: Champion) -> None:
    """Raise DataError if the champion could not be scored."""
    if champion.why:
        raise DataError(
            f"champion version {champion.version} cannot be scored: {champion.why}; to go on "
            "without the comparison, mlops run --set WaiveChampion=yes or mlops reject "
            f"{champion.version}"
        )


def compare_columns(schema: Schema, version: str, folders: Iterable[Path | None]) -> None:
    """Add to the checks what differs from the columns of the champion, which is in a folder."""
    for folder in folders:
        if folder is not None and (folder / schemas.FILE).exists():
            changes = checks.against(schema, read_json(folder / schemas.FILE), version)
            schema.data["checks"] = [*schema.data.get("checks", ()), *changes]
            return


def unpack(model: Path, folder: Path) -> Path:
    """Return the folder of the model: `model` itself, or `folder` with model.tar.gz unpacked."""
    archive = model / "model.tar.gz" if model.is_dir() else model
    if not archive.exists():
        if (model / schemas.FILE).exists():
            return model
        raise DataError(f"{model}: no model.tar.gz here")
    try:
        archives.unpack(archive, folder)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{archive}: not a readable archive ({error})") from error
    if not (folder / schemas.FILE).exists():
        raise DataError(f"{archive}: contains no {schemas.FILE}")
    return folder


def start_scoring(
    folder: Path, test: Path, target: str, output: Path, explained: Path | None = None
) -> subprocess.Popen[str]:
    """Start scoring.py for the model in `folder`; `explained` is for the candidate only."""
    command = [*install.launcher(folder), scoring.__file__]
    command += [str(folder), str(test), target, str(output)]
    command += [str(explained)] if explained else []
    # A model's code may call AWS, here with the rights of the job.
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=dict(os.environ))


def why_not(process: subprocess.Popen[str], errors: str) -> str:
    """Return why a process failed that has ended and wrote these errors; empty if it did not."""
    if process.returncode == 0:
        return ""
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}; {MEMORY}"
    return said(errors.splitlines())[:300] or "no reason given"


def judge_candidate(
    model: Path, process: subprocess.Popen[str], work: Path, schema: Schema, rows: int
) -> metrics.Floats:
    """Return the model's predictions. Raise DataError unless each row has one."""
    _, errors = process.communicate()
    sys.stderr.write(errors)
    if why := why_not(process, errors):
        raise DataError(f"the model could not score the test rows: {why}")
    predicted = read_scores(work / "scores.parquet", schema)
    if predicted is None or len(predicted) != rows:
        raise DataError(f"{model}: code/inference.py did not return one prediction per test row")
    return predicted


def start_champion(folder: Path | None, test: Path, schema: Schema, work: Path) -> Champion | None:
    """Start to score the champion; return None if there is none."""
    if folder is None or not (folder / "champion.json").exists():
        return None
    version = str(read_json(folder / "champion.json")["version"])
    try:
        folder = unpack(folder, work / "champion")
    except DataError as error:
        return Champion(version, why=str(error))
    # Of its schema, which may be of an older template, only what every template has.
    own = read_json(folder / schemas.FILE)
    kinds = own["task"] == "regression", schema.task == "regression"
    if own["target"] != schema.target or kinds[0] != kinds[1]:
        return Champion(version, why=f"it predicts '{own['target']}', a {own['task']} task")
    process = start_scoring(folder, test, schema.target, work / "rival")
    threshold = own.get("data", {}).get("threshold", 0.5)
    return Champion(version, threshold=threshold, process=process)


def judge_champion(champion: Champion, work: Path, schema: Schema, rows: int) -> None:
    """Set the champion's predictions, or why there are none."""
    if champion.process is None:
        return
    _, errors = champion.process.communicate()
    champion.why = why_not(champion.process, errors)
    if not champion.why:
        champion.predicted = read_scores(work / "rival.parquet", schema)
        if champion.predicted is None or len(champion.predicted) != rows:
            champion.predicted, champion.why = None, "its predictions have other classes"


def read_truth(test: Path, schema: Schema) -> Any:
    """Return (rows,) class indices or quantities of the test rows."""
    paths = sorted(test.glob("*.parquet"))
    if not paths:
        raise DataError(f"{test}: no test rows in Parquet files here")
    parts = [pq.read_table(path, columns=[schema.target])[0] for path in paths]
    if schema.task == "regression":
        return np.concatenate([numbers(part, schema.target) for part in parts])
    index = {name: i for i, name in enumerate(schema.class_names)}
    found = []
    for part in parts:
        codes, texts = labels(part)
        lookup = [index.get(schema.class_text(text or ""), -1) for text in texts]
        found.append(np.array([*lookup, -1], np.int64)[codes])
    truth = np.concatenate(found)
    if np.any(truth < 0):
        raise DataError(f"{test}: a label in '{schema.target}' is not a class of the model")
    return truth


def read_scores(path: Path, schema: Schema) -> metrics.Floats | None:
    """Return (rows,) quantities or (rows, classes) probabilities; None if the classes differ."""
    table = pq.read_table(path)
    if schema.task == "regression":
        if len(table.column_names) > 1:
            return None
        return numbers(table["prediction"], "prediction")
    wanted = [f"probability_{name}" for name in schema.class_names]
    if set(wanted) != {name for name in table.column_names if name.startswith("probability_")}:
        return None
    return np.stack([numbers(table[name], name) for name in wanted], axis=1)


def own_metrics(
    schema: Schema, truth: Any, test: Path, scores: Path, chosen: metrics.Bools | None = None
) -> dict[str, float]:
    """Return the team's own metrics for the predictions that scoring.py wrote, or some of them."""

    def frames() -> tuple[Any, Any, Any]:
        raw = pq.read_table(test).drop_columns([schema.target])
        predicted = pq.read_table(scores)
        answers = predicted["prediction"]
        frame = predicted.to_pandas()
        if schema.task == "regression":
            labels, frame["prediction"] = truth, numbers(answers, "prediction")
        else:
            label = dict(zip(schema.class_names, schema.classes, strict=True))
            frame["prediction"] = [label[text] for text in answers.to_pylist()]
            labels = np.array(schema.classes)[truth]
        rows = slice(None) if chosen is None else chosen
        frames = frame[rows], scoring.plain(raw).to_pandas()[rows]
        return labels[rows], *(each.reset_index(drop=True) for each in frames)

    return metrics.own(frames)


def by_slice(
    settings: Settings,
    test: Path,
    schema: Schema,
    truth: Any,
    predicted: metrics.Floats,
    own: dict[str, float],
    scores: Path,
) -> dict[str, Any] | None:
    """Return the gate's metric by slice; None if there are no slices."""
    if not settings.slices:
        return None
    whole = metrics.measured(schema.task, truth, predicted, schema.threshold) | own
    metric = settings.metric if settings.metric in whole else next(iter(whole))

    def of(rows: metrics.Bools) -> float:
        if metric in own:
            with suppress(DataError):  # it may not be made for so few rows
                return own_metrics(schema, truth, test, scores, rows)[metric]
            return float("nan")
        return metrics.measured(schema.task, truth[rows], predicted[rows], schema.threshold)[metric]

    columns = slices.measured(test, settings.slices, schema, of)
    value = whole[metric] if np.isfinite(whole[metric]) else None
    return {"metric": metric, "value": value, "columns": columns}


def judge(
    schema: Schema,
    truth: Any,
    predicted: metrics.Floats,
    champion: Champion | None,
    own_metrics: dict[str, float],
    other_metrics: dict[str, float],
) -> dict[str, Any]:
    """Return the content of gate.json, except the versions."""
    own = metrics.measured(schema.task, truth, predicted, schema.threshold) | own_metrics
    other = {}
    if champion is not None and champion.predicted is not None:
        other = (
            metrics.measured(schema.task, truth, champion.predicted, champion.threshold)
            | other_metrics
        )
    fitting = metrics.fitting(schema.task)
    table = {}
    for name in metrics.names():
        higher = not metrics.is_lower_better(name)
        worst = -WORST if higher else WORST
        entry: dict[str, Any] = {"value": worst, "champion": None, "worse_by": 0.0}
        entry["better"] = "higher" if higher else "lower"
        if name not in fitting:
            entry["text"] = f"{name} does not fit a {schema.task} task"
        elif not np.isfinite(own[name]):
            entry["text"] = f"{name} is undefined on these {len(truth)} test rows"
        else:
            entry["value"] = own[name]
            entry["text"] = f"{name} {own[name]:.4f} on {len(truth)} test rows"
            if other and np.isfinite(other[name]):
                loss = other[name] - own[name] if higher else own[name] - other[name]
                entry["champion"], entry["worse_by"] = other[name], max(0.0, loss)
                entry["text"] += f" - champion version {champion.version}: {other[name]:.4f}"  # type: ignore[union-attr]
            elif champion is not None and champion.predicted is None:
                entry["text"] += f" - comparison with version {champion.version} waived"
                entry["text"] += f": {champion.why}"
            elif champion is not None:
                entry["worse_by"] = WORST  # no comparison is no pass
                entry["text"] += f" - undefined for champion version {champion.version}"
            entry["text"] = as_property(entry["text"])
        table[name] = entry
    return {
        "task": schema.task,
        "champion": champion.version if champion else "none",
        "against": f"version {champion.version}" if champion else "there is none yet",
        "data_sha256": schema.data["sha256"],
        "rows": schema.data["rows"],
        "metrics": table,
    }


def carried(schema: Schema, notes: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what a version carries about itself: its settings by name, and its learning curve."""
    parameters = notes.get("parameters", {})
    found = {
        **{f"hyperparameters.{name}": parameters[name] for name in sorted(parameters)},
        "data.target": schema.target,
        "data.task": schema.task,
        "data.classes": len(schema.classes) or None,
        "data.positive": schema.class_names[1] if schema.task == "binary" else None,
        "data.columns": [column.name for column in schema.columns],
        "data.drop": schema.dropped,
        **{f"data.rows.{part}": count for part, count in schema.data["rows"].items()},
        **{f"split.{name}": value for name, value in schema.data.get("split", {}).items()},
        "evaluation.threshold": schema.threshold if schema.task == "binary" else None,
        "evaluation.slices": list(settings.slices),
    }
    found.pop("hyperparameters.nthread", None)  # of the machine
    curve = {name: notes[name] for name in ("metric", "rounds", "best_round", "curve") if notes}
    return {"settings": found, "training": curve}


def completed(
    trained_on: baseline.Baseline | None,
    schema: Schema,
    predicted: metrics.Floats,
    gate: dict[str, Any],
) -> baseline.Baseline:
    """Return the baseline of the training rows, which an older model lacks, with predictions and
    their quality."""
    predictions = baseline.Predicted(schema)
    predictions.add(predicted)
    values = {name: gate["metrics"][name]["value"] for name in metrics.fitting(schema.task)}
    defined = {name: float(value) for name, value in values.items() if abs(value) < WORST}
    return baseline.Baseline(
        baseline.reading(schema),
        trained_on.rows if trained_on else 0,
        trained_on.columns if trained_on else [],
        predictions.summary(),
        baseline.Quality(defined),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file, {} without one."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def pack(folder: Path, archive: Path) -> None:
    """Pack the files of a folder as .tar.gz; equal files give equal bytes."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
