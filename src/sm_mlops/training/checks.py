"""What rows on this machine can tell before anything starts and costs: settings that do not fit
the target or the columns. Preprocess and Evaluate check the same where only they see the data.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings
from sm_mlops.tabular import measures

MOST_BYTES = 100_000_000  # that are read for it: a second or two


def refuse_unfit(settings: Settings, rows: Path) -> None:
    """Raise MlopsError if metric or threshold do not fit these rows, or a column is not there.

    Rows that cannot be read are left to Preprocess, which names file and line.
    """
    if find_spec("pyarrow") is None:
        return
    from sm_mlops.tabular import slices, tables
    from sm_mlops.tabular.failure import DataError
    from sm_mlops.tabular.target import read_target

    data, by = settings.data, settings.split.by
    try:
        files = tables.find(rows)
        if sum(file.stat().st_size for file in files) > MOST_BYTES:
            return
        dropped = [name for name in data.drop if name != by]
        table = tables.read(files, data.target, dropped, data.decimal)
        positive = None if data.positive is None else str(data.positive)
        task = read_target(table[data.target], data.target, data.task, positive).task
    except DataError:
        return
    _refuse(settings, task)
    try:
        known = [name for name in table.column_names if name != data.target]
        slices.check(settings.evaluation.slices, known, data.drop)
        if by is not None:
            tables.require(files[0], by, "split.by", known)
    except DataError as error:
        raise MlopsError(str(error)) from error


def _refuse(settings: Settings, task: str) -> None:
    target, metric = settings.data.target, settings.gate.metric
    kinds = (measures.OF_CLASSES, measures.OF_QUANTITIES)
    other, fitting = kinds if task == "regression" else kinds[::-1]
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
