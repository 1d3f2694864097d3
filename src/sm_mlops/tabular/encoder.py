"""The library's encoding: typed rows to a matrix of float32, fitted on the training rows.

Numbers and booleans stay, a date becomes its parts, a category its code, text its statistics, among
them the mean target of the rows with the same text. Must not know about any algorithm.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sm_mlops.tabular.encoded import EncodedColumn
from sm_mlops.tabular.encoding import Floats
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.rows import Rows
from sm_mlops.tabular.schema import write_json

FILE = "encoding.json"
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Training:
    """The rows that an encoding was fitted on, and what replaces its features in them."""

    rows: Rows
    replaced: dict[int, Floats]
    """Feature to (rows,) values that were computed out of fold: no row sees its own label."""


@dataclass(frozen=True)
class Encoding:
    """Fit with `Encoding.fit(train)`, then `encode(rows)`; `save` and `Encoding.load` keep it."""

    columns: list[EncodedColumn]
    summary: list[dict[str, Any]] = field(default_factory=list)
    """What each column holds in the training rows, for the report."""
    _training: _Training | None = None

    @classmethod
    def fit(cls, train: Rows) -> "Encoding":
        """Return the encoding of these rows, which are read one column at a time.

        Raises:
            DataError: No column varies.
        """
        # An endpoint has no use for it.
        from sm_mlops.tabular import fitting

        outputs = fitting.target_outputs(train.schema.task, train.labels)
        folds = np.random.default_rng(0).integers(0, fitting.FOLDS, len(train))
        columns, summary, replaced, at = [], [], dict[int, Floats](), 0
        for column in train.schema.inputs:
            values = train.column(column.name)
            found = fitting.fit_column(column.name, column.kind, values, outputs, folds)
            columns.append(found.column)
            summary.append(found.summary)
            for feature in found.column.features:
                if feature in found.train:
                    replaced[at] = found.train[feature]
                at += 1
        if not at:
            raise DataError("no column varies in the training rows: nothing to learn from")
        return cls(columns, summary, _Training(train, replaced))

    @property
    def features(self) -> list[str]:
        """Return the names of the features: unique, without the characters that XGBoost refuses."""
        wanted = [
            column.name if feature in ("value", "code") else f"{column.name}.{feature}"
            for column in self.columns
            for feature in column.features
        ]
        table = str.maketrans({"[": "(", "]": ")", "<": "("})
        names: dict[str, None] = {}
        for want in wanted:
            base = name = want.translate(table)
            number = 2
            while name in names:
                name, number = f"{base} ({number})", number + 1
            names[name] = None
        return list(names)

    @property
    def types(self) -> list[str]:
        """Return `q` (quantity) or `c` (code of a category) per feature."""
        found = [feature for column in self.columns for feature in column.features]
        return ["c" if feature == "code" else "q" for feature in found]

    @property
    def unused(self) -> list[str]:
        """Return the names of the columns without a feature."""
        return [column.name for column in self.columns if not column.features]

    def encode(self, rows: Rows) -> Matrix:
        """Return (rows, features), NaN where missing.

        For the rows that it was fitted on, means of the target come from other rows with the same
        text, so that no row sees its own label.
        """
        out, done = np.empty((len(rows), len(self.types)), np.float32), 0
        for matrix in self.batches(rows):
            out[done : done + len(matrix)] = matrix
            done += len(matrix)
        return out

    def batches(self, rows: Rows) -> Iterator[Matrix]:
        """Yield `encode`, a bounded number of rows at a time."""
        training = self._training if self._training and self._training.rows is rows else None
        size, done = len(self.types), 0
        for batch in rows.batches():
            matrix = np.empty((len(batch), size), np.float32)
            at = 0
            with np.errstate(over="ignore"):
                for column in self.columns:
                    if column.features:
                        for part in column.parts(batch.column(column.name)):
                            matrix[:, at] = part
                            at += 1
                for at, values in training.replaced.items() if training else ():
                    matrix[:, at] = values[done : done + len(batch)]
            # XGBoost refuses infinity; beyond float32 counts as missing too.
            matrix[np.isinf(matrix)] = np.nan
            done += len(batch)
            yield matrix

    def save(self, folder: Path) -> None:
        """Write encoding.json."""
        write_json(folder / FILE, {"columns": [asdict(column) for column in self.columns]})

    @classmethod
    def load(cls, folder: Path) -> "Encoding":
        """Read encoding.json."""
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls([EncodedColumn(**column) for column in content["columns"]])
