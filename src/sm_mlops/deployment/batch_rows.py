"""Rows of files for batch prediction: read in parts, send as JSON Lines, join with the answers.

Holds one part in memory. Values keep what they are in the file: text of CSV stays text. Must not
know AWS.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from sm_mlops.errors import MlopsError, one_line
from sm_mlops.tabular import json_lines, tables
from sm_mlops.tabular.dialects import dialect
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.scoring import as_json

CSV, LINES, PARQUET = ".csv", ".jsonl", ".parquet"
FORMATS = {
    **dict.fromkeys((CSV, ".tsv", ".txt"), CSV),
    **dict.fromkeys((LINES, ".ndjson"), LINES),
    **dict.fromkeys((PARQUET, ".parq", ".pq"), PARQUET),
}
# Values of a part: 100,000 rows of 20 columns. Bytes of a block of text, and of a part that is
# complete with fewer values.
VALUES, BYTES, LARGEST = 2_000_000, 32 << 20, 256 << 20
OWN = ("prediction", "probability")


@dataclass(frozen=True)
class Part:
    """Rows of one file, of which the first has the number `first`, counted from 1."""

    file: Path
    first: int
    rows: pa.Table


def format_of(path: Path) -> str:
    """Return .csv, .jsonl or .parquet by a file's name, empty for another one."""
    name = path.name.lower().removesuffix(".gz")
    return FORMATS.get(Path(name).suffix, "")


def files(path: Path) -> list[Path]:
    """Return the file, or those of a folder sorted by name. Raises MlopsError."""
    if not path.exists():
        raise MlopsError(f"{path}: no such file or folder")
    inside = (
        p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith((".", "_"))
    )
    found = [p for p in inside if format_of(p)] if path.is_dir() else [path]
    if not all(map(format_of, found)) or not found:
        what = "no such file in this folder" if path.is_dir() else "the name has another ending"
        raise MlopsError(f"{path}: {what}: rows are read from .csv, .jsonl and .parquet files")
    return found


def parts(found: Iterable[Path]) -> Iterator[Part]:
    """Yield the rows of the files in their order, the same parts each time. Raises MlopsError."""
    known: set[str] | None = None
    for file in found:
        first = 1
        try:
            for rows in _tables(file):
                names = rows.column_names
                _check_names(file, names)
                known = known or set(names)
                if format_of(file) != LINES and set(names) != known:
                    odd = ", ".join(sorted(set(names) ^ known))
                    raise MlopsError(f"{file}: its columns are not those of the first file: {odd}")
                yield Part(file, first, rows)
                first += rows.num_rows
        except (DataError, pa.ArrowException, OSError, EOFError, ValueError) as error:
            text = one_line(error)
            raise MlopsError(text if str(file) in text else f"{file}: {text}") from error


def _check_names(file: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise MlopsError(f"{file}: the column name '{name}' occurs twice")
        if name in OWN or name.startswith("probability_"):
            raise MlopsError(f"{file}: the output has a column '{name}', too: rename or drop it")


def _tables(file: Path) -> Iterator[pa.Table]:
    if format_of(file) == LINES:
        return _from_lines(file)
    return _sized(_from_parquet(file) if format_of(file) == PARQUET else _from_csv(file))


def _sized(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows in tables of a size that depends on the number of columns only."""
    held: list[pa.Table] = []
    for table in tables:
        size = max(1, VALUES // max(1, table.num_columns))
        whole = pa.concat_tables([*held, table])
        while whole.num_rows >= size:
            yield whole.slice(0, size)
            whole = whole.slice(size)
        if whole.nbytes > LARGEST:
            yield whole
            whole = whole.slice(0, 0)
        held = [whole]
    if held and held[0].num_rows:
        yield held[0]


def _from_csv(file: Path) -> Iterator[pa.Table]:
    if file.stat().st_size == 0:
        return
    form = dialect(file)
    texts = pacsv.ConvertOptions(
        column_types=dict.fromkeys(form.header, pa.string()),
        null_values=[],
        strings_can_be_null=False,
    )
    try:
        for batch in tables.open_csv(file, form, BYTES, texts):
            yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise tables.malformed(file, form, error) from error


def _from_parquet(file: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as stored:
        for batch in stored.iter_batches():
            yield pa.Table.from_batches([batch])


def _from_lines(file: Path) -> Iterator[pa.Table]:
    packed = file.name.lower().endswith(".gz")
    with gzip.open(file) if packed else file.open("rb") as opened:
        stream: Any = opened
        before = 0
        while lines := stream.readlines(BYTES):
            numbered = enumerate(lines, before + 1)
            rows = [_object(file, number, line) for number, line in numbered if line.strip()]
            before += len(lines)
            if rows:
                names = dict.fromkeys(name for row in rows for name in row)
                yield pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise MlopsError(f"{file}, line {number}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise MlopsError(f"{file}, line {number}: not an object of column names and values")
    return found


def _column(values: list[Any]) -> pa.Array:
    """Return JSON values as an array: as JSON text where they are nested or of several types."""
    try:
        array = json_lines.array(values)
        if not pa.types.is_nested(array.type):
            return array.cast(pa.string()) if pa.types.is_null(array.type) else array
    except (pa.ArrowException, OverflowError):
        pass
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())


# Rows as text, column by column: there are millions.


def to_lines(rows: pa.Table) -> bytes:
    """Return JSON Lines with every column of every row."""
    texts: list[Any] = []
    for column in rows.column_names:
        name = json.dumps(column, ensure_ascii=False)
        texts += [f"{',' if texts else '{'}{name}:", _json(rows[column])]
    return json_lines.joined([*texts, "}\n"])


def to_csv(rows: pa.Table, header: bool = False) -> bytes:
    """Return CSV that quotes what needs it, with an empty field for a missing value."""
    texts: list[Any] = []
    for name in rows.column_names:
        texts += [*([","] if texts else []), _field(_text(rows[name]).fill_null(""))]
    names = _field(pa.array(rows.column_names)).to_pylist() if header else []
    return (",".join(names) + "\n").encode() * header + json_lines.joined([*texts, "\n"])


def _field(texts: pa.Array) -> pa.Array:
    special = pc.match_substring_regex(texts, r'[",\r\n]')
    if not pc.any(special).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(special, quoted, texts)


def _json(column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    texts = _text(column)
    if pa.types.is_floating(kind):
        finite = pc.is_finite(column.combine_chunks().cast(pa.float64()))
        texts = pc.if_else(finite, texts, pa.scalar(None, pa.string()))
    if not number and not pa.types.is_boolean(kind):
        texts = _quoted(texts)
    return texts.fill_null("null")


def _quoted(texts: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(texts, r'[\\"\x00-\x1f]')).as_py():
        for character in ("\\", '"', *map(chr, range(32))):
            texts = pc.replace_substring(texts, character, json.dumps(character)[1:-1])
    return pc.binary_join_element_wise('"', texts, '"', "")


def _text(column: pa.ChunkedArray) -> pa.Array:
    """Return the values as text, as Arrow writes them to CSV, where the model was evaluated."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of no chunk
        array = pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_nested(kind):
        return pa.array([v if v is None else json.dumps(v, default=str) for v in array.to_pylist()])
    if pa.types.is_duration(kind):
        array = array.cast(pa.int64())
    elif pa.types.is_float16(kind):
        array = array.cast(pa.float32())
    return array.cast(pa.string())


# What the job answered.


@dataclass(frozen=True)
class Answers:
    """Of each row the prediction's columns, null where there is a reason in `errors` instead."""

    columns: pa.Table
    errors: list[dict[str, Any] | None]


def answers(body: bytes) -> Answers:
    """Return what a part's output holds. Raises MlopsError if those are no predictions."""
    example = next((line for line in body.split(b"\n") if line.startswith(b'{"prediction"')), b"")
    count = sum(1 for line in body.split(b"\n") if line.strip())
    fields = [("error", pa.string()), ("column", pa.string()), ("row", pa.int64())]
    try:
        if example:
            fields += _types(json.loads(example)).items()
        table = pajson.read_json(
            pa.py_buffer(body),
            pajson.ReadOptions(use_threads=False, block_size=len(body) + 1),
            pajson.ParseOptions(pa.schema(fields)),
        )
    except ValueError as error:
        raise MlopsError(f"the job's output is not JSON Lines: {one_line(error)}") from error
    if table.num_rows != count or not (example or table["error"].null_count == 0):
        raise MlopsError("the job's output has lines that are neither a prediction nor a reason")
    errors: list[dict[str, Any] | None] = [None] * count
    if table["error"].null_count < count:
        errors = [
            e if e["error"] else None for e in table.select(list(dict(fields[:3]))).to_pylist()
        ]
    columns = table.drop_columns([name for name, _ in fields[:3]])
    if "probabilities" in columns.column_names:
        nested = columns["probabilities"].combine_chunks()
        columns = columns.drop_columns(["probabilities"])
        for field in nested.type:
            values = pc.struct_field(nested, [nested.type.get_field_index(field.name)])
            columns = columns.append_column(f"probability_{field.name}", values)
    return Answers(columns, errors)


def _types(example: dict[str, Any]) -> dict[str, pa.DataType]:
    """Return types for a prediction's members: a date-like label is text, not a time."""
    label = example["prediction"]
    kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    if "probabilities" not in example:
        return {"prediction": pa.string() if isinstance(label, str) else pa.float64()}
    each = [pa.field(name, pa.float64()) for name in example["probabilities"]]
    return {
        "prediction": kinds.get(type(label), pa.string()),
        "probability": pa.float64(),
        "probabilities": pa.struct(each),
    }


# What is written.


class Writer:
    """Writes rows to a file of any format, which appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, path.with_name(f".{path.name}.part")
        self._file: IO[bytes] | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._names: list[str] = []

    def write(self, rows: pa.Table) -> None:
        """Add rows. Raises MlopsError if they do not fit those before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if format_of(self.path) != LINES:
            rows = self._aligned(rows)
        if format_of(self.path) == PARQUET:
            self._parquet = self._parquet or pq.ParquetWriter(self._part, rows.schema)
            try:
                schema = self._parquet.schema
                self._parquet.write_table(rows.cast(schema))
            except (pa.ArrowException, ValueError) as error:
                raise MlopsError(
                    f"{self.path}: rows have other types than those before ({one_line(error)}): "
                    "write a .csv or .jsonl file"
                ) from error
            return
        begins = self._file is None
        self._file = self._file or self._part.open("wb")
        form = to_csv(rows, begins) if format_of(self.path) == CSV else to_lines(rows)
        self._file.write(form)

    def _aligned(self, rows: pa.Table) -> pa.Table:
        """Return the rows with the columns of the first ones, in their order."""
        self._names = self._names or rows.column_names
        for name in rows.column_names:
            if name not in self._names:
                raise MlopsError(
                    f"{self.path}: later rows have a column '{name}', which the first ones lack: "
                    "write a .jsonl file"
                )
        for name in self._names:
            if name not in rows.column_names:
                rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
        return rows.select(self._names)

    def close(self) -> None:
        """Give the file its name, if there is one."""
        for opened in (self._file, self._parquet):
            if opened is not None:
                opened.close()
                self._part.replace(self.path)

    def discard(self) -> None:
        """Delete what is not complete."""
        for opened in (self._file, self._parquet):
            if opened is not None:
                opened.close()
        self._part.unlink(missing_ok=True)


def _shown(value: Any) -> Any:
    """Return a value for JSON, as text where JSON has nothing like it."""
    if isinstance(value, list | dict):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return as_json(value)
    except (TypeError, ValueError):
        return str(value)


def error_line(part: Part, index: int, reason: dict[str, Any]) -> str:
    """Return the line of a row that could not be predicted: where it is, why, and its values."""
    number = part.first + index
    found = {
        "file": part.file.name,
        "row": number,
        "column": reason["column"],
        "error": reason["error"].replace(f"row {reason['row']}", f"row {number}", 1),
    }
    [row] = part.rows.slice(index, 1).to_pylist()
    values = {name: _shown(value) for name, value in row.items()}
    return json.dumps({**found, "values": values}, ensure_ascii=False, default=str) + "\n"
