"""Read the target: the task, the classes, and the label of every row.

Must not know about other columns or how they are encoded.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import encoding
from sm_mlops.tabular.encoding import Floats
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.numerals import is_number, parse_number
from sm_mlops.tabular.schema import label_text

LARGEST = 1e100  # quantity to predict: the sum of squares is still finite


@dataclass(frozen=True)
class Target:
    """The label of every row: the class's index, or the quantity itself; NaN if missing."""

    task: str
    classes: list[Any]
    values: Floats


def read_target(values: pa.ChunkedArray, name: str, task: str, positive: str | None) -> Target:
    """Return the target; infer the task if it is `auto`.

    Raises:
        DataError: Nothing can be learned from this column.
        BadLabel: The task is regression and a label is not a number.
    """
    codes, texts = encoding.labels(values)
    used = np.bincount(codes[codes >= 0], minlength=len(texts))
    present = {i: text for i, text in enumerate(texts) if text is not None and used[i]}
    if not present:
        raise DataError(f"column '{name}': the target has no value in any row")
    wrong = next((i for i, text in present.items() if not is_number(text)), None)
    quantities = None if wrong is not None else np.array([*map(parse_number, present.values())])
    count: Counter[str] = Counter()
    for i, text in present.items():
        count[label_text(text)] += int(used[i])
    if task == "auto":
        boolean = pa.types.is_boolean(values.type)
        task = infer_task(None if boolean else quantities, len(count), count.total())
    table = np.full(len(texts) + 1, np.nan)
    if task == "regression":
        if wrong is not None:
            raise BadLabel(int(np.argmax(codes == wrong)), present[wrong], "a number")
        table[list(present)] = quantities
        table[np.isinf(table)] = np.nan
        if np.nanmax(np.abs(table), initial=0) > LARGEST:
            raise DataError(f"column '{name}': the target exceeds {LARGEST:.0e}; scale it")
        if len(np.unique(table[~np.isnan(table)])) < 2:
            raise DataError(f"column '{name}': the target has the same value in every row")
        return Target(task, [], table[codes])
    names = sorted(count)  # by text, where two numbers are one float
    if quantities is not None:
        names.sort(key=parse_number)
    _check_classes(names, count.total(), name, task)
    if task == "binary":
        names = _positive_last(names, count, name, positive)
    for i, text in present.items():
        table[i] = names.index(label_text(text))
    classes: list[Any] = list(names)
    if quantities is not None:
        # All numbers or all text: clients and metrics compare them.
        whole = [int(n) for n in names if n.lstrip("-").isdigit()]
        if [str(number) for number in whole] == names:
            classes = list(whole)
    elif pa.types.is_boolean(values.type):
        classes = [n == "true" for n in names]
    return Target(task, classes, table[codes])


def _check_classes(names: list[str], rows: int, target: str, task: str) -> None:
    if len(names) == 1:
        raise DataError(f"column '{target}': every row has the same class '{names[0]}'")
    if len(names) > max(2, rows / 2):
        raise DataError(
            f"column '{target}': {len(names)} classes in {rows} rows are too many to learn; "
            "is data.target in mlops.yaml the right column?"
        )
    if task == "binary" and len(names) > 2:
        raise DataError(f"column '{target}': {len(names)} classes, but data.task is binary")


class BadLabel(DataError):
    """A label that does not fit the task; `row` is its index."""

    def __init__(self, row: int, value: str, expected: str) -> None:
        self.row, self.value, self.expected = row, value, expected
        super().__init__(f"{value!r} is not {expected}")


def infer_task(quantities: Floats | None, classes: int, rows: int) -> str:
    """Return the task: two values are classes, and so are texts and up to 20 recurring integers."""
    if classes <= 2:
        return "binary"
    if quantities is None:
        return "multiclass"
    whole = bool(np.all(quantities == np.floor(quantities)))
    return "multiclass" if whole and classes <= 20 and rows >= 5 * classes else "regression"


def _positive_last(
    names: list[str], count: dict[str, int], target: str, positive: str | None
) -> list[str]:
    """Return the names, the positive class last: the configured one, 1 or true, or the rarer."""
    if positive is not None:
        text = label_text(positive)
        alike = [name for name in names if name.lower() == text.lower()]
        text = alike[0] if len(alike) == 1 else text  # true is True in YAML
        if text not in names:
            raise DataError(
                f"column '{target}': no class '{text}' (data.positive in mlops.yaml); "
                f"there are: {', '.join(names)}"
            )
        return [n for n in names if n != text] + [text]
    lower = [n.lower() for n in names]
    if all(n in encoding.BOOLEANS for n in lower):
        return sorted(names, key=lambda n: encoding.BOOLEANS[n.lower()])
    if all(is_number(n) for n in names):
        return names
    return sorted(names, key=lambda n: -count[n])
