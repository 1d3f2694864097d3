"""Recognize what a file of data is by its content, and read what is not CSV.

Must not know which columns are wanted.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sm_mlops.tabular import json_lines
from sm_mlops.tabular.dialects import DAMAGED, opened
from sm_mlops.tabular.failure import DataError

CSV, PARQUET, ARROW, ORC, JSON, LINES = "CSV", "Parquet", "Arrow", "ORC", "JSON", "JSON Lines"
_HEAD = 4096
_BATCH = 65_536  # rows of JSON that are Python objects at a time
_EXPORT = "export it as CSV or Parquet"
_UNPACK = "unpack it, and name the file or folder inside"
_BINARY = {b"PAR1": PARQUET, b"ARROW1": ARROW, b"FEA1": ARROW, b"ORC": ORC}
_REFUSED = {
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook or Office document", _EXPORT),
    b"%PDF": ("a PDF document", _EXPORT),
    b"SQLite format 3": ("an SQLite database", _EXPORT),
    b"\x89HDF": ("an HDF5 file", _EXPORT),
    b"BZh": ("compressed with bzip2", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", _UNPACK),
    b"\xfd7zXZ": ("compressed with xz", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
}
_BY_COLUMN = 'JSON of something else than rows; pandas writes rows with to_json(orient="records")'
_ZIPPED = {
    "xl/": ("an Excel workbook", _EXPORT),
    "word/": ("a Word document", _EXPORT),
    "content.xml": ("an OpenDocument file", _EXPORT),
}


def format_of(file: Path) -> str:
    """Return the format of a file. Raise DataError for one that cannot be read as rows."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
        inner = head
        if head.startswith(b"\x1f\x8b"):
            with opened(file) as stream:
                inner = stream.read(_HEAD)
    except DAMAGED as error:
        raise DataError(f"{file}: damaged gzip file ({error})") from error
    what = _refused(file, inner)
    if what:
        raise DataError(f"{file} is {what[0]}; {what[1]}")
    binary = b"\0" in inner and not inner.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not binary:
        return _text_format(inner)
    found = next((kind for magic, kind in _BINARY.items() if inner.startswith(magic)), None)
    if found is None:
        raise DataError(f"{file} is neither text nor a known format; {_EXPORT}")
    if inner is not head:
        raise DataError(f"{file} is {found}, compressed with gzip; {_UNPACK}")
    return found


def _refused(file: Path, head: bytes) -> tuple[str, str] | None:
    """Return what a file is that holds no rows, and what to do about it."""
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            names = []
        for start, what in _ZIPPED.items():
            if any(name.startswith(start) for name in names):
                return what
        return "a zip archive", _UNPACK
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", _EXPORT
    if text.startswith(b"<?xml"):
        return "an XML file", _EXPORT
    return next((what for magic, what in _REFUSED.items() if head.startswith(magic)), None)


def _text_format(head: bytes) -> str:
    text = head.decode("utf-8", errors="replace").removeprefix("\ufeff").lstrip()
    if re.match(r"\[\s*[\[{\]]", text):
        return JSON
    if not re.match(r'\{\s*["}]', text):
        return CSV
    line, end, _ = text.partition("\n")
    return JSON if end and not line.rstrip().endswith("}") else LINES


def columns_of(file: Path, kind: str) -> tuple[str, ...]:
    """Return the names of the columns of a file that is not CSV. Raise DataError for a name that
    requests could not have, because blanks around names are left out there."""
    if kind == PARQUET:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, kind, error) from error
    else:
        names = read(file, kind).column_names
    if odd := [name for name in names if name != name.strip()]:
        raise DataError(f"{file}: the column name {odd[0]!r} has blanks around it: rename it")
    return tuple(names)


def rows_of(file: Path, kind: str) -> int:
    """Return the number of rows of a file that is not CSV."""
    return int(pq.ParquetFile(file).metadata.num_rows if kind == PARQUET else len(read(file, kind)))


def read(file: Path, kind: str, columns: list[str] | None = None) -> pa.Table:
    """Return the columns of a file that is not CSV: all of them, or these."""
    try:
        if kind == PARQUET:
            return pq.ParquetFile(file).read(columns=columns)
        if kind == ORC:
            from pyarrow import orc

            return orc.ORCFile(file).read(columns=columns)
        if kind == ARROW:
            from pyarrow import feather

            return feather.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, kind, error) from error
    table = _read_json(file, kind)
    return table.select(columns) if columns else table


def _unreadable(file: Path, kind: str, error: Exception) -> DataError:
    return DataError(f"{file}: not a readable {kind} file ({error})")


def _read_json(file: Path, kind: str) -> pa.Table:
    tables = [_json_table(file, start, rows) for start, rows in _batches(file, kind)]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{file}: a column changes its type between rows ({error})") from error


def _batches(file: Path, kind: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    every, start = objects(file, kind), 1
    while rows := list(islice(every, _BATCH)):
        yield start, rows
        start += len(rows)
    if start == 1:
        raise DataError(f"{file}: the file holds no row")


def objects(file: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON file: an array of objects, or an object per line."""
    rows = _lines(file) if kind == LINES else _array(file)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{file}, row {number}: not an object of column names and values")
        if number == 1 and row and all(isinstance(value, dict) for value in row.values()):
            raise DataError(f"{file}: {_BY_COLUMN}")
        yield row


def _lines(file: Path) -> Iterator[Any]:
    with opened(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError, *DAMAGED) as error:
                    raise DataError(f"{file}, line {number}: not JSON ({error})") from error


def _array(file: Path) -> list[Any]:
    try:
        with opened(file) as stream:
            found = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError, *DAMAGED) as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    if not isinstance(found, list):
        raise DataError(f"{file}: {_BY_COLUMN}")
    return found


def _json_table(file: Path, start: int, rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = json_lines.array(values)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise _mixed(file, name, start, values) from error
    return pa.table(columns)


def _mixed(file: Path, name: str, start: int, values: list[Any]) -> DataError:
    """Return the error for the first value of another type than those before it."""
    known = [(row, v) for row, v in enumerate(values, start) if v is not None]
    first = known[0][1]
    others = [k for k in known if type(k[1]) is not type(first)]
    # A float beside an integer is none, unless the integer is too large for one.
    wrong = [k for k in others if {type(k[1]), type(first)} != {int, float}]
    row, value = (*wrong, *others, known[0])[0]
    return DataError(
        f"{file}, row {row}: column '{name}' is {str(value)[:40]!r} there, but {first!r} in row "
        f"{known[0][0]}; write numbers, texts and true or false alike in all rows"
    )
