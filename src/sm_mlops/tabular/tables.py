"""Read CSV or Parquet, a file or a folder of files, into one typed Arrow table.

Errors name file, row and column. Must not know about models.
"""

import csv
import gzip
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.text import NO_LABEL, clean_header, nearest

STRINGS = pa.dictionary(pa.int32(), pa.string())
"""Strings that repeat: memory for each distinct value once, and four bytes per row."""

_SPELLINGS = [form for m in sorted(NO_LABEL) for form in {m, m.upper(), m.capitalize()}]
_SPELLINGS += ["NaN", "-NaN", "NaT", "N/a"]
_CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET = (".parquet", ".parq", ".pq")
_SAMPLE = 1 << 20  # bytes from which a CSV file's dialect and types are guessed
_BLOCK = 4 << 20  # bytes: larger blocks cost memory and gain no speed

csv.field_size_limit(1 << 30)  # instead of 128 kB


@dataclass(frozen=True)
class Dialect:
    """The format of one CSV file."""

    delimiter: str
    encoding: str
    multiline: bool
    decimal: str
    header: tuple[str, ...]


def find(path: Path) -> list[Path]:
    """Return the data files at `path`, sorted by name. Raise DataError for none or two formats."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; see data.path in mlops.yaml")
    if path.is_file():
        files = [path]
    else:
        parts = sorted(path.rglob("*"))
        files = [p for p in parts if not any(s[0] in "._" for s in p.relative_to(path).parts)]
        for file in files:
            if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
                raise DataError(f"{file}: a link that leads out of {path}; put the file there")
        files = [p for p in files if p.is_file()]
        files = [p for p in files if p.name.lower().endswith(_CSV + _PARQUET) or not p.suffix]
        if not files:
            raise DataError(f"{path}: no .csv, .tsv or .parquet file in this folder")
    by_format = {is_parquet(file): file for file in reversed(files)}
    if len(by_format) > 1:
        raise DataError(
            f"{path}: CSV and Parquet files are mixed "
            f"({by_format[False].name}, {by_format[True].name}); keep one format"
        )
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty")
    return files


def is_parquet(file: Path) -> bool:
    """Return whether it is Parquet: by its name, else by its first four bytes."""
    if file.name.lower().endswith(_PARQUET + _CSV):
        return file.name.lower().endswith(_PARQUET)
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def sha256(path: Path, files: Sequence[Path]) -> str:
    """Return what `sha256sum` prints for a file; for a folder, the hash of all such lines."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if path.is_file():
        return digests[0]
    names = [file.relative_to(path).as_posix() for file in files]
    lines = "".join(f"{d}  {n}\n" for d, n in zip(digests, names, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def read(files: Sequence[Path], target: str, drop: Sequence[str] = ()) -> pa.Table:
    """Return all rows of all files, without the columns in `drop`.

    A column has the type that holds for every row of every file, or strings where they disagree.
    The target of a CSV file is strings, so that labels keep their spelling.
    """
    headers = {f: _parquet_header(f) if is_parquet(f) else _dialect(f).header for f in files}
    first = headers[files[0]]
    for file, header in headers.items():
        for name in (*first, *header):
            if header.count(name) > 1:
                raise DataError(f"{file}: the column name '{name}' occurs twice in the header")
            if name not in header:
                raise DataError(f"{file}: column '{name}' of {files[0].name} is missing here")
            if name not in first:
                raise DataError(f"{file}: column '{name}' is not in {files[0].name}")
    for name, key in [(target, "data.target"), *((d, "data.drop") for d in drop)]:
        if name not in first:
            hint = nearest(name, first)
            raise DataError(f"{files[0]}: no column '{name}' ({key} in mlops.yaml); {hint}")
    wanted = [name for name in first if name not in drop or name == target]
    if len(wanted) < 2:
        raise DataError(f"{files[0]}: no column is left to learn from beside '{target}'")
    if is_parquet(files[0]):
        table = _join([_read_parquet(file, wanted) for file in files])
    else:
        table = _read_csv(files, wanted, target)
    if table.num_rows == 0:
        raise DataError(f"{files[0]}: a header and no rows")
    return table


def where(files: Sequence[Path], index: int) -> str:
    """Return file and line (CSV) or row (Parquet, from 1) of row `index` of the table."""
    for file in files:
        if is_parquet(file):
            rows = pq.ParquetFile(file).metadata.num_rows
            if index < rows:
                return f"{file}, row {index + 1}"
        else:
            rows = 0
            for line, _ in _records(file):
                if rows == index:
                    return f"{file}, line {line}"
                rows += 1
        index -= rows
    raise IndexError(index)


def _dialect(file: Path) -> Dialect:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        sample = stream.read(_SAMPLE)
        quoted = b'"' in sample
        while not quoted and (block := stream.read(1 << 22)):
            quoted = b'"' in block
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        try:
            sample[:-4].decode("utf-8") if len(sample) == _SAMPLE else sample.decode("utf-8")
            encoding = "utf-8"
        except UnicodeDecodeError:
            encoding = "cp1252"
    text = sample.decode(encoding, errors="ignore").removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{file}: the file is empty")
    delimiter = _delimiter(text)
    rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    header = next(row for row in rows if row)
    edge = rf"[{delimiter}\r\n]"
    comma, point = (re.search(rf"{edge}-?\d+{mark}\d+{edge}", text) for mark in (",", r"\."))
    decimal = "," if delimiter != "," and comma and not point else "."
    return Dialect(delimiter, encoding, quoted, decimal, clean_header(header))


def _delimiter(text: str) -> str:
    """Return the delimiter that gives most lines as many fields as the header, and many of them."""
    lines = text[:65536].splitlines(keepends=True)
    lines = lines[:-1] if len(text) > 65536 and len(lines) > 1 else lines
    best = (",", 0.0, 1)
    for delimiter in (",", ";", "\t", "|"):
        counts = [len(row) for row in csv.reader(lines[:200], delimiter=delimiter) if row]
        agree = sum(c == counts[0] for c in counts) / len(counts)
        if counts[0] > 1 and (
            agree > best[1] + 0.2 or (agree > best[1] - 0.2 and counts[0] > best[2])
        ):
            best = (delimiter, agree, counts[0])
    return best[0]


def _read_csv(files: Sequence[Path], wanted: Sequence[str], target: str) -> pa.Table:
    dialects = {file: _dialect(file) for file in files}
    types: dict[str, pa.DataType] = {}
    for file in files:
        for name, kind in _guess(file, dialects[file], wanted).items():
            types[name] = _wider(types.get(name), kind)
    types[target] = STRINGS
    while True:
        try:
            tables = [_stream(file, dialects[file], wanted, types) for file in files]
            table = pa.concat_tables(tables, promote_options="permissive")
            return _with_points(table, target) if dialects[files[0]].decimal == "," else table
        except _Loosen as found:
            if found.column:
                types[found.column] = _looser(types[found.column])
            else:
                dialects = {f: replace(d, encoding="cp1252") for f, d in dialects.items()}


def _with_points(table: pa.Table, target: str) -> pa.Table:
    """Return the table with decimal points in its target if that is numbers with a comma."""
    text = table[target].cast(pa.string())
    if not pc.all(pc.match_substring_regex(text, r"^\s*-?\d+(,\d+)?\s*$")).as_py():
        return table
    numbers = pc.replace_substring(text, ",", ".")
    return table.set_column(table.column_names.index(target), target, numbers)


class _Loosen(Exception):
    """A value does not fit the type of its `column`, or, without one, the encoding of the file."""

    def __init__(self, column: str = "") -> None:
        self.column = column


def _open(
    file: Path,
    dialect: Dialect,
    wanted: Sequence[str],
    types: dict[str, pa.DataType] | None,
    block: int,
) -> pacsv.CSVStreamingReader:
    return pacsv.open_csv(
        pa.input_stream(str(file), compression="gzip" if file.suffix == ".gz" else None),
        read_options=pacsv.ReadOptions(
            column_names=list(dialect.header),
            skip_rows_after_names=1,
            encoding=dialect.encoding,
            block_size=block,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=dialect.multiline
        ),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(wanted),
            column_types=types,
            null_values=_SPELLINGS,
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            auto_dict_encode=True,
            auto_dict_max_cardinality=1000,
            decimal_point=dialect.decimal,
        ),
    )


def _guess(file: Path, dialect: Dialect, wanted: Sequence[str]) -> dict[str, pa.DataType]:
    """Return types that hold for the first block; strings that repeat become a dictionary."""
    try:
        batch = _open(file, dialect, wanted, None, _SAMPLE).read_next_batch()
    except StopIteration:
        return {}
    except pa.ArrowInvalid:  # a malformed row, which reading everything reports
        return dict.fromkeys(wanted, STRINGS)
    types = {field.name: field.type for field in batch.schema}
    for name, kind in types.items():
        if pa.types.is_null(kind):
            types[name] = STRINGS
        elif pa.types.is_string(kind):
            distinct = len(batch[name].unique())
            types[name] = STRINGS if distinct <= max(1000, batch.num_rows // 4) else kind
    return types


def _stream(
    file: Path, dialect: Dialect, wanted: Sequence[str], types: dict[str, pa.DataType]
) -> pa.Table:
    block = _BLOCK
    while True:
        try:
            reader = _open(file, dialect, wanted, types, block)
            return pa.Table.from_batches(list(reader), reader.schema)
        except pa.ArrowInvalid as error:
            text = str(error)
            column = re.search(r"In CSV column #(\d+)", text)
            if "straddling" in text and block < 1 << 30:
                block *= 8
            elif "UTF8" in text and dialect.encoding == "utf-8":
                raise _Loosen from error
            elif column and "onversion error" in text:
                name = list(wanted)[int(column[1])]
                if types[name] in (STRINGS, pa.string()):
                    raise
                raise _Loosen(name) from error
            elif "Empty CSV" in text:
                return pa.table({name: pa.array([], types.get(name, STRINGS)) for name in wanted})
            else:
                count = len(dialect.header)
                for line, row in _records(file, dialect):
                    if len(row) != count:
                        fields = f"{len(row)} field{'s' * (len(row) != 1)}"
                        text = f"{file}, line {line}: {fields}, but the header has {count}"
                        raise DataError(text) from error
                raise DataError(f"{file}: {text}") from error


def _records(file: Path, dialect: Dialect | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row after the header. Slow: for error messages only."""
    dialect = dialect or _dialect(file)
    opened = gzip.open if file.suffix == ".gz" else open
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    with opened(file, "rt", encoding=encoding, errors="replace", newline="") as stream:
        reader = csv.reader(stream, delimiter=dialect.delimiter)
        start, header = 1, True
        for row in reader:
            if row and not header:
                yield start, row
            header = header and not row
            start = reader.line_num + 1


_WIDER: list[list[pa.DataType]] = [
    [pa.int64(), pa.float64()],
    [pa.date32(), pa.timestamp("s"), pa.timestamp("ns")],
    [pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC")],
]


def _looser(kind: pa.DataType) -> pa.DataType:
    for ladder in _WIDER:
        if kind in ladder[:-1]:
            return ladder[ladder.index(kind) + 1]
    return STRINGS


def _wider(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other:
        return other
    if pa.string() in (one, other) and STRINGS in (one, other):
        return pa.string()
    for ladder in _WIDER:
        if one in ladder and other in ladder:
            return ladder[max(ladder.index(one), ladder.index(other))]
    return STRINGS


def _parquet_header(file: Path) -> tuple[str, ...]:
    try:
        return tuple(pq.read_schema(file).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error


def _read_parquet(file: Path, wanted: Sequence[str]) -> pa.Table:
    try:
        table = pq.ParquetFile(file).read(columns=list(wanted)).select(list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error})") from error
    for i, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
            table = table.set_column(i, field.name, table[i].cast(kind.value_type))
        elif pa.types.is_binary(kind) or pa.types.is_large_string(kind):
            try:
                table = table.set_column(i, field.name, table[i].cast(pa.string()))
            except pa.ArrowInvalid as error:
                raise DataError(f"{file}: column '{field.name}' holds bytes, not text") from error
        elif pa.types.is_nested(kind):
            raise DataError(
                f"{file}: column '{field.name}' is nested ({kind}); flatten or drop it (data.drop)"
            )
    return table


def _join(tables: list[pa.Table]) -> pa.Table:
    first = tables[0].column_names
    tables = [table.select(first) for table in tables]
    for at, name in enumerate(first):
        kinds = {table.schema.field(name).type for table in tables} - {pa.null()}
        numbers = all(pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds)
        if len(kinds) > 1 and not numbers:
            tables = [t.set_column(at, name, t[name].cast(pa.string())) for t in tables]
    return pa.concat_tables(tables, promote_options="permissive")
