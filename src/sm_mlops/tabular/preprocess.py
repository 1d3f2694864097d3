"""Read the raw data, split it, fit the encoding on the training rows, and encode the rows.

Input:  --data: a CSV or Parquet file, or a folder of them. --data-hash: in a job, the DataHash that
        it must have. --measured-as: classes or quantity, what the gate's metric is for. `data`,
        `split` and `aws` of mlops.yaml, in this folder or the one above.
Output: in the folder --output: train/ and validation/, Parquet with float32 columns: the label
        (class index or quantity), then the features, NaN where missing; test/, Parquet with the raw
        rows and the target; preprocessor/schema.json, the fitted encoding.

You may replace this file as long as it writes these outputs. It must not know how the model is
trained or evaluated, or where it runs.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from sm_mlops.tabular import source, tables
from sm_mlops.tabular.encoding import encode
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.fitting import (
    FOLDS,
    Fitted,
    fit_column,
    target_outputs,
)
from sm_mlops.tabular.schema import Schema, feature_names
from sm_mlops.tabular.target import BadLabel, Target, read_target

TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, 3
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
CHUNK = 131_072  # rows encoded at a time
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Settings:
    """Settings of the data and its split in mlops.yaml."""

    target: str
    task: str = "auto"
    positive: str | None = None
    drop: tuple[str, ...] = ()
    validation: float = 0.15
    test: float = 0.15
    seed: int = 42
    isolated: bool = False
    measured_as: str | None = None
    threshold: float = 0.5


def main(folder: Path) -> None:
    """Run the step, whose script is in `folder`, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="file or folder of CSV or Parquet")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--data-hash", help="refuse other data than this; for jobs")
    parser.add_argument("--measured-as", choices=["classes", "quantity"])
    arguments = parser.parse_args()
    settings = read_settings(folder)
    if arguments.data_hash:
        source.verify(arguments.data, arguments.data_hash, isolated=settings.isolated)
    settings = replace(settings, measured_as=arguments.measured_as)
    preprocess(arguments.data, arguments.output, settings)


def read_settings(folder: Path) -> Settings:
    """Read mlops.yaml in `folder` or the one above. Raise DataError if it is missing or wrong."""
    path = next(
        (p for p in (folder / "mlops.yaml", folder.parent / "mlops.yaml") if p.exists()), None
    )
    if path is None:
        raise DataError(f"no mlops.yaml in {folder} or {folder.parent}")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    data, split = content.get("data") or {}, content.get("split") or {}
    if not data.get("target"):
        raise DataError(f"{path}: data.target is missing")
    task = data.get("task") or "auto"
    if task not in ("auto", "binary", "multiclass", "regression"):
        raise DataError(
            f"{path}: data.task is {task!r}; use auto, binary, multiclass or regression"
        )
    positive = data.get("positive")
    shares = {part: split.get(part, 0.15) for part in ("validation", "test")}
    for part, share in shares.items():
        if not isinstance(share, int | float) or not 0 < share < 0.9:
            raise DataError(f"{path}: split.{part} is {share!r}; use a share such as 0.15")
    if sum(shares.values()) >= 1:
        raise DataError(f"{path}: split leaves no rows for training")
    return Settings(
        target=str(data["target"]),
        task=task,
        positive=None if positive is None else str(positive),
        drop=tuple(str(name) for name in data.get("drop") or ()),
        validation=float(shares["validation"]),
        test=float(shares["test"]),
        seed=int(split.get("seed", 42)),
        isolated=bool((content.get("aws") or {}).get("network_isolation")),
        threshold=float((content.get("evaluation") or {}).get("threshold") or 0.5),
    )


def preprocess(data: Path, output: Path, settings: Settings) -> Schema:
    """Run the step. Raise DataError if the data cannot be learned from."""
    files = tables.find(data)
    table = tables.read(files, settings.target, settings.drop)
    target = _target(table, files, settings)
    found = "quantity" if target.task == "regression" else "classes"
    if settings.measured_as not in (None, found):
        raise DataError(
            f"{data}: column '{settings.target}' is a {target.task} target, but gate.metric of "
            f"mlops.yaml is for {settings.measured_as}: choose another metric, or set data.task"
        )
    if settings.threshold != 0.5 and target.task != "binary":
        raise DataError(
            f"{data}: column '{settings.target}' is a {target.task} target, but "
            "evaluation.threshold of mlops.yaml is for two classes; remove it"
        )
    part = split(target, settings)
    train = part == TRAIN
    rows = np.flatnonzero(train)
    outputs = target_outputs(target, rows)
    folds = np.random.default_rng(settings.seed).integers(0, FOLDS, len(rows))
    fitted = []
    for name in table.column_names:
        if name != settings.target:
            try:
                fitted.append(fit_column(name, table[name], train, outputs, folds))
            except DataError as error:
                raise DataError(f"{data}: {error}") from error
    schema = _schema(settings, target, fitted, table)
    if schema.task == "regression":
        offset, scale = _standard(target.values[rows])
        schema = replace(schema, offset=offset, scale=scale)
    if not schema.features:
        raise DataError(f"{data}: no column varies, so there is nothing to learn from")
    schema.data.update(sha256=tables.sha256(data, files), files=len(files), **_counts(part, target))
    parts = {name: getattr(settings, name) for name in ("validation", "test", "seed")}
    schema.data.update(threshold=settings.threshold, split=parts)
    _write(table, target, part, schema, fitted, output)
    schema.save(output / "preprocessor")
    counts = schema.data["rows"]
    print(
        f"{schema.task}: {len(schema.columns)} columns, {len(schema.features)} features, "
        f"{counts['train']} training, {counts['validation']} validation, {counts['test']} test rows"
    )
    if counts["without_label"]:
        print(f"{counts['without_label']} rows without a label in '{settings.target}' are left out")
    return schema


def _target(table: pa.Table, files: list[Path], settings: Settings) -> Target:
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


def _standard(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return offset and scale of the target; 0 and 1 unless float32 (7 digits) loses its spread.

    Seconds since 1970 are such a target. All others stay as they are, because some objectives need
    positive labels.
    """
    offset = float(values.mean())
    far = float(np.abs(values - offset).max()) or 1.0
    spread = far * float(np.sqrt(np.mean(((values - offset) / far) ** 2)))  # squares may overflow
    if float(np.abs(values).max()) < 1e4 * spread and 1e-10 < spread < 1e15:
        return 0.0, 1.0
    return offset, spread or 1.0


def _schema(settings: Settings, target: Target, fitted: list[Fitted], table: pa.Table) -> Schema:
    wanted, types = [], []
    for item in fitted:
        column = item.column
        for feature in column.features:
            wanted.append(
                column.name if feature in ("value", "code") else f"{column.name}.{feature}"
            )
            types.append("c" if feature == "code" else "q")
    return Schema(
        task=target.task,
        target=settings.target,
        classes=target.classes,
        columns=[item.column for item in fitted],
        dropped=list(settings.drop),
        features=feature_names(wanted),
        types=types,
        data={"summary": [item.summary for item in fitted]},
    )


def _write(
    table: pa.Table,
    target: Target,
    part: npt.NDArray[np.int8],
    schema: Schema,
    fitted: list[Fitted],
    output: Path,
) -> None:
    """Encode and write in chunks of rows, to keep memory low."""
    replaced = _replacements(fitted)
    label = feature_names([*schema.features, schema.target])[-1]
    encoded = pa.schema([(name, pa.float32()) for name in (label, *schema.features)])
    codes = [n for n, kind in zip(schema.features, schema.types, strict=True) if kind == "c"]
    raw = pa.schema([f.remove_metadata() for f in table.schema])
    writers = {}
    for name, code in PARTS.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        path = output / name / "part-0.parquet"
        writers[code] = (
            pq.ParquetWriter(path, raw, compression="zstd", compression_level=1)
            if code == TEST
            else pq.ParquetWriter(path, encoded, compression="none", use_dictionary=codes)
        )
    done = 0
    for start, chunk in _chunks(table):
        here = part[start : start + chunk.num_rows]
        matrix = encode(schema, chunk, order="F")
        labels = (target.values[start : start + chunk.num_rows] - schema.offset) / schema.scale
        labels = labels.astype(np.float32)
        for code in (TRAIN, VALIDATION):
            mask = here == code
            rows = int(mask.sum())
            if not rows:
                continue
            columns = [labels[mask], *(matrix[mask, j] for j in range(matrix.shape[1]))]
            if code == TRAIN:
                for j, values in replaced.items():
                    columns[1 + j] = values[done : done + rows].astype(np.float32)
                done += rows
            arrays = [pa.array(column) for column in columns]
            writers[code].write_table(pa.Table.from_arrays(arrays, schema=encoded))
        if np.any(here == TEST):
            writers[TEST].write_table(chunk.filter(pa.array(here == TEST)).cast(raw))
    for writer in writers.values():
        writer.close()


def _replacements(fitted: list[Fitted]) -> dict[int, npt.NDArray[np.float64]]:
    found, at = {}, 0
    for item in fitted:
        for feature in item.column.features:
            if feature in item.train:
                found[at] = item.train[feature]
            at += 1
    return found


def _chunks(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    for start in range(0, table.num_rows, CHUNK):
        yield start, table.slice(start, CHUNK)
