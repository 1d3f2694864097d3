"""Typed rows: what `features`, `fit` and `predict` get, in training and at the endpoint alike.

| kind | Arrow | pandas | missing |
|---|---|---|---|
| number | float64 | float64 | NaN |
| boolean | bool | boolean | NA |
| date | timestamp[us], UTC; a time of day is on 1970-01-01 | datetime64[us] | NaT |
| text | string, perhaps as a dictionary | object | None |

Imports pandas only for those who ask for a frame. Must not know how rows are encoded or answered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sm_mlops.tabular import encoding
from sm_mlops.tabular.encoding import Misfit
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.schema import Column, Schema

if TYPE_CHECKING:
    from pandas import DataFrame

    # A name of its own: strict type checkers let nobody import what is only imported here.
    Frame = DataFrame
else:
    Frame = Any

Features = Callable[[Frame], Frame]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.float64]

CHUNK = 131_072  # rows that are converted at a time
ARROW = {
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.timestamp("us"),
    "text": pa.string(),
}


class Rows:
    """Typed rows in memory, with the columns `schema.inputs`."""

    def __init__(self, schema: Schema, table: pa.Table, labels: Labels | None = None) -> None:
        self.schema, self._table, self._labels = schema, table, labels

    @property
    def table(self) -> pa.Table:
        """Return the rows as an Arrow table."""
        return self._table

    @cached_property
    def frame(self) -> Frame:
        """Return the rows as a pandas DataFrame."""
        return frame(self.table)

    @property
    def labels(self) -> Any:
        """Return (rows,): the index in `schema.classes` as int64, or the quantity as float64.

        Only training and validation rows have labels.
        """
        if self._labels is None:
            raise DataError("these rows have no labels: only fit gets rows with labels")
        return self._labels

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return one column."""
        return self.table[name]

    def batches(self) -> Iterator["Rows"]:
        """Yield all rows in order, a bounded number at a time."""
        for start in range(0, len(self), CHUNK):
            labels = None if self._labels is None else self._labels[start : start + CHUNK]
            yield Rows(self.schema, self.table.slice(start, CHUNK), labels)


class StoredRows(Rows):
    """The rows of a folder that Preprocess wrote; only what is asked for is read."""

    def __init__(self, schema: Schema, folder: Path) -> None:
        import pyarrow.parquet as pq

        self.schema, self.folder = schema, folder
        self._files = [pq.ParquetFile(path) for path in sorted(folder.glob("*.parquet"))]
        if not len(self):
            raise DataError(f"{folder}: no rows in Parquet files here")

    @property
    def table(self) -> pa.Table:
        """Read all rows into memory."""
        names = [column.name for column in self.schema.inputs]
        return pa.concat_tables([file.read(names, use_threads=False) for file in self._files])

    @cached_property
    def labels(self) -> Any:
        """Return the labels of all rows."""
        label = self._files[0].schema_arrow.names[0]
        return np.concatenate([file.read([label])[0].to_numpy() for file in self._files])

    def __len__(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return one column, of which the file is read alone."""
        parts = [file.read([name])[name] for file in self._files]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks])

    def batches(self) -> Iterator[Rows]:
        """Yield the row groups."""
        for file in self._files:
            for group in range(file.metadata.num_row_groups):
                read = file.read_row_group(group, use_threads=False)
                yield Rows(self.schema, read.remove_column(0), read[0].to_numpy())


def frame(table: pa.Table) -> Frame:
    """Return typed rows as a DataFrame, whose types do not depend on what the rows hold."""
    import pandas as pd

    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table[i].cast(pa.string()))
    return table.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)


# Raw rows


def typed(schema: Schema, raw: pa.Table) -> pa.Table:
    """Return raw rows, found by name, in the types of their columns.

    A column that is optional and absent, or does not fit, is missing in every row.

    Raises:
        Misfit: A value does not fit its column.
    """
    arrays = []
    for column in schema.columns:
        if column.name not in schema.optional:
            arrays.append(_typed(column, raw[column.name]))
            continue
        array = pa.nulls(raw.num_rows, ARROW[column.kind])
        if column.name in raw.column_names:
            with suppress(Misfit):
                array = _typed(column, raw[column.name])
        arrays.append(array)
    return pa.Table.from_arrays(arrays, [column.name for column in schema.columns])


def _typed(column: Column, values: pa.ChunkedArray) -> pa.Array:
    if column.kind == "number":
        return numbers(quantities(column, values))
    if column.kind == "boolean":
        if pa.types.is_boolean(values.type):
            return encoding.one_chunk(values)
        found = encoding.booleans(values, column.name)
        return pa.array(found == 1, mask=np.isnan(found))
    if column.kind == "date":
        return dates(quantities(column, values))
    codes, texts = encoding.distinct(values)
    if len(texts) > 2 * len(codes):  # a slice of a column has the dictionary of all rows
        used = np.unique(codes[codes >= 0])
        codes = np.where(codes < 0, -1, np.searchsorted(used, codes))
        texts = [texts[i] for i in used]
    # Spellings that differ only in blanks share a text: give them one code.
    unique = pa.array(texts, pa.string()).dictionary_encode()
    indices = unique.indices.take(pa.array(codes, mask=codes < 0))
    return pa.DictionaryArray.from_arrays(indices, unique.dictionary)


def quantities(column: Column, values: pa.ChunkedArray) -> encoding.Floats:
    """Return raw numbers, or raw dates as seconds since 1970; NaN where missing."""
    if column.kind == "number":
        if pa.types.is_boolean(values.type):  # true is no number, as it is none beside numbers
            values = values.cast(pa.string())
        return encoding.numbers(values, column.name, column.missing, column.decimal)
    return encoding.timestamps(values, column.name, column.format, column.zoned)


def numbers(values: npt.NDArray[np.float64]) -> pa.Array:
    """Return numbers; infinity counts as missing, because most algorithms refuse it."""
    infinite = np.isinf(values)
    return pa.array(np.where(infinite, np.nan, values) if infinite.any() else values)


def dates(seconds: npt.NDArray[np.float64]) -> pa.Array:
    """Return seconds since 1970 as dates."""
    missing = np.isnan(seconds)
    micro = np.round(np.where(missing, 0.0, seconds) * 1e6).astype(np.int64)
    return pa.array(micro, mask=missing).cast(pa.timestamp("us"))


# What the team's `features` returns


def derived(features: Features, table: pa.Table) -> pa.Table:
    """Return what `features` makes of typed rows, typed; null type for a column without a value.

    Raises:
        DataError: It returns anything but as many rows with columns of these kinds.
    """
    made: Any = features(frame(table))
    if not hasattr(made, "columns") or not hasattr(made, "iloc"):
        raise _wrong(f"it returned {type(made).__name__}, not a DataFrame")
    if len(made) != table.num_rows:
        raise _wrong(
            f"it returned {len(made)} rows for {table.num_rows}; return each row, in order, and "
            "leave out rows with data.drop or at their source"
        )
    index = made.index.to_numpy()
    shuffled = index.dtype.kind in "iu" and bool(np.any(np.diff(index) < 0))
    if shuffled and np.array_equal(np.sort(index), np.arange(len(index))):
        raise _wrong("it returned the rows in another order; .sort_index() restores it")
    names = [str(name) for name in made.columns]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise _wrong(f"it returned two columns '{twice[0]}'")
    if not names:
        raise _wrong("it returned no column")
    return pa.Table.from_arrays([_array(n, made.iloc[:, i]) for i, n in enumerate(names)], names)


def _array(name: str, values: Any) -> pa.Array:
    try:
        array = pa.Array.from_pandas(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise _wrong(f"column '{name}' holds values of several types ({error})") from error
    if isinstance(array, pa.ChunkedArray):
        array = encoding.one_chunk(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return array
    if encoding.is_numeric(kind):
        return numbers(encoding.floats(array))
    if pa.types.is_duration(kind):  # in seconds
        return numbers(encoding.floats(array.cast(pa.int64())) / encoding.PER_SECOND[kind.unit])
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return dates(encoding.timestamps(pa.chunked_array([array]), name, None))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.cast(pa.string())
    raise _wrong(f"column '{name}' holds {kind}; return numbers, booleans, dates or text")


def columns_of(table: pa.Table, known: Sequence[Column] = ()) -> list[Column]:
    """Return the columns of a table that `derived` made; the kind of one without a value is that of
    `known`, else empty.

    Raises:
        DataError: They are not the `known` ones.
    """
    kinds = {kind: name for name, kind in ARROW.items()}
    found = [Column(field.name, kinds.get(field.type, "")) for field in table.schema]
    if not known:
        return found
    here = {column.name: column.kind for column in found}
    merged = []
    for column in known:
        if column.name not in here:
            raise _wrong(f"column '{column.name}' is missing in some of the rows")
        kind = here.pop(column.name) or column.kind
        if column.kind not in ("", kind):
            raise _wrong(
                f"column '{column.name}' is {kind} in some rows and {column.kind} in others; "
                "give it the same type whatever the rows hold"
            )
        merged.append(Column(column.name, kind))
    if here:
        raise _wrong(f"column '{next(iter(here))}' is only in some of the rows")
    return merged


def conformed(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """Return the columns of a table that `derived` made, in this order and of these kinds."""
    columns_of(table, columns)
    arrays = [table[c.name].cast(ARROW[c.kind or "text"]) for c in columns]
    return pa.Table.from_arrays(arrays, [column.name for column in columns])


def _wrong(what: str) -> DataError:
    return DataError(f"features of model/preprocess.py: {what}")
