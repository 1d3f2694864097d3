"""The step Preprocess: read the raw data, split it, type it, and call the team's `features`.

Input:  --data: a file of rows, or a folder of them. --data-hash: in a job, the DataHash that
        it must have. --measured-as: classes, quantity or either: what the gate's metric is for.
        `data`, `split` and `aws` of mlops.yaml, in the folder of the script or the one above.
Output: in the folder --output: train/ and validation/, Parquet with the label (class index or
        quantity), then the typed columns; test/, Parquet with the raw rows and the target;
        preprocessor/, schema.json and baseline.json, what the columns of the raw training rows
        look like. Nothing is fitted here.

Must not know how the model is trained or evaluated, or where it runs.
"""

import argparse
import ast
import inspect
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sm_mlops.tabular import baseline, checks, local, mlops_yaml, rows, source, tables
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.kinds import kind_of
from sm_mlops.tabular.numerals import MARKS, is_number, parse_number
from sm_mlops.tabular.rows import CHUNK, Features
from sm_mlops.tabular.schema import Column, Schema
from sm_mlops.tabular.target import BadLabel, Target, read_target

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, 3
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Settings:
    """Settings of the data and its split in mlops.yaml."""

    target: str
    task: str = "auto"
    positive: str | None = None
    drop: tuple[str, ...] = ()
    decimal: str | None = None
    checks: mlops_yaml.Rules = field(default_factory=dict)
    changed_columns: str = "warn"
    validation: float = 0.15
    test: float = 0.15
    seed: int = 42
    by: str | None = None
    isolated: bool = False
    measured_as: str | None = None
    threshold: float = 0.5


def main(folder: Path) -> None:
    """Run the step, whose script is in `folder`, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="file of rows, or folder of them")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--data-hash", help="refuse other data than this; for jobs")
    parser.add_argument("--measured-as", choices=["classes", "quantity", "either"])
    arguments = parser.parse_args(sys.argv[1:] or local.arguments(folder, "preprocess"))
    settings = read_settings(folder)
    if arguments.data_hash:
        source.verify(arguments.data, arguments.data_hash, isolated=settings.isolated)
    settings = replace(settings, measured_as=arguments.measured_as)
    preprocess(arguments.data, arguments.output, settings, hook(folder))


def hook(folder: Path) -> Features | None:
    """Return `features` of the script preprocess.py; None while it returns its rows unchanged."""
    features: Any = getattr(local.script(folder, "preprocess"), "features", None)
    if not callable(features):
        raise DataError("model/preprocess.py: no function features; see its first lines")
    return None if unchanged(features) else features


def unchanged(features: Any) -> bool:
    """Return whether the source of a function is `return`, its only argument, and nothing else."""
    try:
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(features))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return False
    if not isinstance(function, ast.FunctionDef) or function.decorator_list:
        return False
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    names = [argument.arg for argument in function.args.args]
    return [ast.unparse(line) for line in body] == [f"return {name}" for name in names]


def read_settings(folder: Path) -> Settings:
    """Read mlops.yaml in `folder` or the one above. Raise DataError if it is missing or wrong."""
    path, content = mlops_yaml.beside(folder)
    if path is None:
        raise DataError(f"no mlops.yaml in {folder} or {folder.parent}")
    data, split = content.get("data") or {}, content.get("split") or {}
    if not data.get("target"):
        raise DataError(f"{path}: data.target is missing")
    task = data.get("task") or "auto"
    if task not in ("auto", "binary", "multiclass", "regression"):
        raise DataError(
            f"{path}: data.task is {task!r}; use auto, binary, multiclass or regression"
        )
    if data.get("decimal") not in (None, *MARKS):
        raise DataError(f"{path}: data.decimal is {data['decimal']!r}; use point or comma")
    try:
        rules = mlops_yaml.column_checks(data.get("checks"))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    positive = data.get("positive")
    shares = {}
    for part in ("validation", "test"):
        share = split.get(part, 0.15)
        if not is_number(str(share)) or not 0 < parse_number(str(share)) < 0.9:
            raise DataError(f"{path}: split.{part} is {share!r}; use a share such as 0.15")
        shares[part] = parse_number(str(share))
    if sum(shares.values()) >= 1:
        raise DataError(f"{path}: split leaves no rows for training")
    return Settings(
        target=str(data["target"]),
        task=task,
        positive=None if positive is None else str(positive),
        drop=tuple(str(name) for name in data.get("drop") or ()),
        decimal=data.get("decimal"),
        checks=rules,
        changed_columns=data.get("changed_columns") or "warn",
        validation=shares["validation"],
        test=shares["test"],
        seed=int(split.get("seed", 42)),
        by=None if split.get("by") is None else str(split["by"]),
        isolated=bool(mlops_yaml.flag((content.get("aws") or {}).get("network_isolation"))),
        threshold=parse_number(str((content.get("evaluation") or {}).get("threshold") or 0.5)),
    )


def preprocess(
    data: Path, output: Path, settings: Settings, features: Features | None = None
) -> Schema:
    """Run the step. Raise DataError if the data cannot be learned from."""
    files = tables.find(data)
    dropped = [name for name in settings.drop if name != settings.by]
    table = tables.read(files, settings.target, dropped, settings.decimal)
    marks = {name: tables.decimal_of(table, name) for name in table.column_names}
    warnings = checks.check(table, settings.checks, marks, lambda row: tables.where(files, row))
    for warning in warnings:
        print(f"warning: {warning['text']}")
    target = target_of(table, files, settings)
    found = "quantity" if target.task == "regression" else "classes"
    if settings.measured_as not in (None, "either", found):
        raise DataError(
            f"{data}: column '{settings.target}' is a {target.task} target, but gate.metric of "
            f"mlops.yaml is for {settings.measured_as}: choose another metric, or set data.task"
        )
    if settings.threshold != 0.5 and target.task != "binary":
        raise DataError(
            f"{data}: column '{settings.target}' is a {target.task} target, but "
            "evaluation.threshold of mlops.yaml is for two classes; remove it"
        )
    part = _parts(table, files, target, marks, settings)
    table = table.drop_columns([name for name in settings.drop if name not in dropped])
    schema = Schema(
        task=target.task,
        target=settings.target,
        classes=target.classes,
        columns=[
            _column(data, name, table[name], marks[name])
            for name in table.column_names
            if name != settings.target
        ],
        dropped=list(settings.drop),
        data={
            "sha256": tables.sha256(data, files),
            "files": len(files),
            "checks": warnings,
            "changed_columns": settings.changed_columns,
            "threshold": settings.threshold,
            "split": {key: getattr(settings, key) for key in ("validation", "test", "seed", "by")},
            **_counts(part, target),
        },
    )
    schema, trained_on = _write(table, target, part, schema, features, output)
    schema.save(output / "preprocessor")
    trained_on.save(output / "preprocessor")
    counts = schema.data["rows"]
    made = "" if schema.features is None else f", {len(schema.features)} after features"
    print(
        f"{schema.task}: {len(schema.columns)} columns{made}, {counts['train']} training, "
        f"{counts['validation']} validation, {counts['test']} test rows"
    )
    if counts["without_label"]:
        print(f"{counts['without_label']} rows without a label in '{settings.target}' are left out")
    return schema


def _column(data: Path, name: str, values: pa.ChunkedArray, decimal: str) -> Column:
    try:
        return kind_of(name, values, decimal)
    except DataError as error:
        raise DataError(f"{data}: {error}") from error


def target_of(table: pa.Table, files: list[Path], settings: Settings) -> Target:
    """Return the target of rows that `tables.read` read. Raise DataError, which names the place."""
    try:
        target = read_target(
            table[settings.target], settings.target, settings.task, settings.positive
        )
    except BadLabel as bad:
        place = tables.where(files, bad.row)
        raise DataError(
            f"{place}: column '{settings.target}' is {bad.value!r}, not {bad.expected}"
        ) from bad
    except DataError as error:
        raise DataError(f"{files[0].parent if len(files) > 1 else files[0]}: {error}") from error
    labelled = int((~np.isnan(target.values)).sum())
    if labelled < FEWEST_ROWS:
        raise DataError(
            f"{files[0]}: {labelled} rows with a label are too few to train, validate and test on; "
            f"at least {FEWEST_ROWS} are needed"
        )
    return target


def _parts(
    table: pa.Table, files: list[Path], target: Target, marks: dict[str, str], settings: Settings
) -> npt.NDArray[np.int8]:
    """Return the part of each row: by the order of a column if there is `split.by`, else random."""
    name = settings.by
    if name is None:
        return split(target, settings)
    tables.require(files[0], name, "split.by", table.column_names)
    column = _column(files[0], name, table[name], marks[name])
    if column.kind not in ("number", "date"):
        raise DataError(
            f"{files[0]}: column '{name}' holds {column.kind}, but split.by of mlops.yaml orders "
            "rows by a date or a number"
        )
    order = rows.quantities(column, table[name])
    missing = np.flatnonzero(~np.isfinite(order) & ~np.isnan(target.values))
    if len(missing):
        raise DataError(
            f"{tables.where(files, int(missing[0]))}: column '{name}' has no value, but split.by "
            f"of mlops.yaml orders rows by it ({len(missing)} such rows); fill it or leave them out"
        )
    return split_by(target, order, settings)


def split_by(
    target: Target, order: npt.NDArray[np.float64], settings: Settings
) -> npt.NDArray[np.int8]:
    """Return the part of each row: the first in this order train, the last test.

    Rows of equal order stay together, so a share is met as nearly as they allow. Raise DataError if
    they do not make three parts, or a part lacks a class.
    """
    labelled = np.flatnonzero(~np.isnan(target.values))
    labelled = labelled[np.argsort(order[labelled], kind="stable")]
    starts = np.flatnonzero(np.diff(order[labelled])) + 1
    place = f"split.by of mlops.yaml: column '{settings.by}'"
    if len(starts) < 2:
        raise DataError(f"{place} has {len(starts) + 1} different values; three parts need three")
    first_test = len(labelled) * (1 - settings.test)
    tested = starts[1:][np.argmin(np.abs(starts[1:] - first_test))]
    before = starts[starts < tested]
    first_validation = first_test - len(labelled) * settings.validation
    validated = before[np.argmin(np.abs(before - first_validation))]
    part = np.full(len(target.values), LEFT_OUT, np.int8)
    for code, here in enumerate(np.split(labelled, [validated, tested])):
        part[here] = code
    for name, code in PARTS.items():
        found = set(target.values[part == code])
        lacking = [label for i, label in enumerate(target.classes) if i not in found]
        if lacking:
            raise DataError(
                f"{place} leaves no row of class '{lacking[0]}' among the {np.sum(part == code)} "
                f"{name} rows; choose other shares, or use rows of a longer time"
            )
    return part


def split(target: Target, settings: Settings) -> npt.NDArray[np.int8]:
    """Return the part of each row: random by seed, stratified by class or quantile of the target.

    Rows are ordered by stratum, at random within it, and each part takes them at even distances:
    its share is exact in total, and within one row in each class. A class of three or more rows is
    in every part; a rarer one is in the training rows first.
    """
    labelled = np.flatnonzero(~np.isnan(target.values))
    values = target.values[labelled]
    if target.task == "regression":
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        strata = ranks * min(10, len(values) // 10) // len(values)
    else:
        strata = values.astype(np.int64)
    random = np.random.default_rng(settings.seed).permutation(len(values))
    order = random[np.argsort(strata[random], kind="stable")]
    chosen = np.full(len(values), TRAIN, np.int8)
    chosen[_evenly(len(values), settings.test)] = TEST
    rest = np.flatnonzero(chosen == TRAIN)
    chosen[rest[_evenly(len(rest), settings.validation / (1 - settings.test))]] = VALIDATION
    sorted_strata = strata[order]
    for stratum in np.flatnonzero(
        np.bincount(strata) <= 10 / min(settings.test, settings.validation)
    ):
        here = np.flatnonzero(sorted_strata == stratum)
        for need, enough in ((TRAIN, 1), (TEST, 3), (VALIDATION, 3)):
            if len(here) >= enough and not np.any(chosen[here] == need):
                spare = max(PARTS.values(), key=lambda p: int(np.sum(chosen[here] == p)))
                chosen[here[np.argmax(chosen[here] == spare)]] = need
    for need in (TEST, VALIDATION):
        if not np.any(chosen == need):
            common = np.bincount(sorted_strata[chosen == TRAIN]).argmax()
            chosen[np.argmax((chosen == TRAIN) & (sorted_strata == common))] = need
    part = np.full(len(target.values), LEFT_OUT, np.int8)
    part[labelled[order]] = chosen
    return part


def _evenly(size: int, share: float) -> npt.NDArray[np.bool_]:
    """Return (size,) with True at `share` of the places, evenly spaced, at least once."""
    steps = np.floor(np.arange(1, size + 1) * share + 0.5)
    taken = np.diff(steps, prepend=np.floor(0.5)) > 0
    if not taken.any():
        taken[size // 2] = True
    return taken


def _counts(part: npt.NDArray[np.int8], target: Target) -> dict[str, Any]:
    rows = {name: int(np.sum(part == code)) for name, code in PARTS.items()}
    rows["without_label"] = int(np.sum(part == LEFT_OUT))
    shares = {
        name: np.bincount(
            target.values[part == code].astype(np.int64), minlength=len(target.classes)
        ).tolist()
        for name, code in PARTS.items()
        if target.classes
    }
    return {"rows": rows, "classes": shares}


def _write(
    table: pa.Table,
    target: Target,
    part: npt.NDArray[np.int8],
    schema: Schema,
    features: Features | None,
    output: Path,
) -> tuple[Schema, baseline.Baseline]:
    """Type and write in chunks of rows, to keep memory low. Return the schema with `features`, and
    the baseline of the training rows."""
    folders = {code: output / name for name, code in PARTS.items()}
    raw = pa.schema([field.remove_metadata() for field in table.schema])
    test = _writer(folders[TEST], raw, compression="zstd", compression_level=1)
    typed = {code: _TypedWriter(folders[code], schema) for code in (TRAIN, VALIDATION)}
    columns = list[Column]()
    summarizer = baseline.Summarizer(schema.columns)
    for start in range(0, table.num_rows, CHUNK):
        chunk, here = table.slice(start, CHUNK), part[start : start + CHUNK]
        everything = rows.typed(schema, chunk)
        for code, writer in typed.items():
            mask = here == code
            if np.any(mask):
                made = everything.filter(pa.array(mask))
                if code == TRAIN:
                    summarizer.add(made)
                if features is not None:
                    made = rows.derived(features, made)
                    columns = rows.columns_of(made, columns)
                writer.write(target.values[start : start + CHUNK][mask], made, columns)
        if np.any(here == TEST):
            test.write_table(chunk.filter(pa.array(here == TEST)).cast(raw))
    test.close()
    columns = [replace(column, kind=column.kind or "text") for column in columns]
    for writer in typed.values():
        writer.close(columns)
    found = schema if features is None else replace(schema, features=columns)
    return found, baseline.of(schema, summarizer)


def _writer(folder: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    folder.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(folder / "part-0.parquet", schema, **options)


class _TypedWriter:
    """Writes labels and typed rows, as soon as each column has had a value that shows its kind."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder, self.schema = folder, schema
        self.writer: pq.ParquetWriter | None = None
        self.waiting: list[tuple[npt.NDArray[np.float64], pa.Table]] = []

    def write(self, labels: npt.NDArray[np.float64], made: pa.Table, columns: list[Column]) -> None:
        """Take rows; `columns` are those that `features` returned, if it is used."""
        self.waiting.append((labels, made))
        if all(column.kind for column in columns):
            self._flush(columns)

    def close(self, columns: list[Column]) -> None:
        """Write what waits, and end the file."""
        self._flush(columns)
        if self.writer:
            self.writer.close()

    def _flush(self, columns: list[Column]) -> None:
        for labels, made in self.waiting:
            if columns:
                made = rows.conformed(made, columns)
            label = pa.array(labels.astype(np.int64) if self.schema.classes else labels)
            name = self.schema.target
            while name in made.column_names:
                name += "_"
            made = made.add_column(0, name, label)
            if self.writer is None:
                texts = [f.name for f in made.schema if not pa.types.is_primitive(f.type)]
                self.writer = _writer(
                    self.folder, made.schema, compression="none", use_dictionary=texts
                )
            self.writer.write_table(made)
        self.waiting = []
