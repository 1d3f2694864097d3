"""What rows on this machine can tell before anything starts and costs: settings that do not fit
the target or the columns. Preprocess and Evaluate check the same where only they see the data.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings, own_metrics
from sm_mlops.tabular import measures
from sm_mlops.tabular.failure import DataError

MOST_BYTES = 100_000_000  # that are read for it: a second or two


def refuse_unfit(settings: Settings, rows: Path, *, trained: bool) -> None:
    """Raise MlopsError if these rows cannot be read, a column is not there, or metric or threshold
    do not fit them.

    A target that nothing can be learned from matters only where these rows are `trained` on.
    """
    if find_spec("pyarrow") is None:
        return
    try:
        _check(settings, rows, trained)
    except DataError as error:
        raise MlopsError(str(error).replace(f"{settings.root}/", "")) from error


def _check(settings: Settings, rows: Path, trained: bool) -> None:
    from sm_mlops.tabular import preprocess, slices, tables

    data, by = settings.data, settings.split.by
    files = tables.find(rows)
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        return
    dropped = [name for name in data.drop if name != by]
    table = tables.read(files, data.target, dropped, data.decimal)
    known = [name for name in table.column_names if name != data.target]
    slices.check(settings.evaluation.slices, known, data.drop)
    if by is not None:
        tables.require(files[0], by, "split.by", known)
    positive = None if data.positive is None else str(data.positive)
    wanted = preprocess.Settings(data.target, data.task, positive)
    try:
        task = preprocess.target_of(table, files, wanted).task
    except DataError:
        if trained:
            raise
        return
    _refuse(settings, task)


def _refuse(settings: Settings, task: str) -> None:
    target, metric = settings.data.target, settings.gate.metric
    kinds = (measures.OF_CLASSES, measures.OF_QUANTITIES)
    other, fitting = kinds if task == "regression" else kinds[::-1]
    fitting = (*fitting, *own_metrics(settings.root))
    if metric in other:
        raise MlopsError(
            f"mlops.yaml: gate.metric {metric} does not fit '{target}', a {task} target; choose "
            f"one of {', '.join(fitting)}, or set data.task"
        )
    if settings.evaluation.threshold != 0.5 and task != "binary":
        raise MlopsError(
            f"mlops.yaml: evaluation.threshold is for two classes, but '{target}' is a {task} "
            "target; remove it"
        )
