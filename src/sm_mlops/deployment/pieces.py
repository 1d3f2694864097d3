"""Cut a file of rows, in any format that trains, into requests that an endpoint takes.

The texts of a CSV file stay as they are written, because the endpoint reads them as training did.
Must not know how an endpoint is called.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sm_mlops.errors import MlopsError
from sm_mlops.tabular import dialects, formats, tables
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.numerals import COMMA, POINT, is_number

_BATCH = 10_000  # rows of Parquet that are Python objects at a time


@dataclass(frozen=True)
class Piece:
    """One request, and where each of its rows is in the file, if that is known."""

    body: bytes
    content_type: str
    file: Path
    unit: str
    places: list[int]

    def place(self, row: int) -> str:
        """Return where a row of the request, counted from 1, is in the file."""
        known = 0 < row <= len(self.places)
        at = f"{self.unit} {self.places[row - 1]}" if known else f"row {row}"
        return f"{at} of {self.file.name}"


def cut(path: Path, most_bytes: int, most_rows: int) -> Iterator[Piece]:
    """Yield the rows of a file or folder in order. Raises MlopsError with file and row."""
    try:
        files = tables.find(path)
        kind = formats.format_of(files[0])
        for file in files:
            if kind == formats.CSV:
                yield from _of_csv(file, most_bytes, most_rows)
            elif kind in (formats.JSON, formats.LINES) and _is_request(file, most_bytes):
                yield Piece(file.read_bytes(), "application/json", file, "row", [])
            else:
                rows = enumerate(map(_line, _objects(file, kind)), 1)
                for body, places in _grouped(file, b"", rows, most_bytes, most_rows):
                    yield Piece(body, "application/jsonlines", file, "row", places)
    except DataError as error:
        raise MlopsError(str(error)) from error
    except UnicodeDecodeError as error:
        raise MlopsError(f"{path}: not text in one encoding ({error.reason}); use UTF-8") from error


def _is_request(file: Path, most_bytes: int) -> bool:
    """Return whether it is JSON that only endpoints take, such as {"instances": []} or lists."""
    if file.stat().st_size > most_bytes or dialects.is_gzip(file):
        return False
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) or (bool(found) and not isinstance(found[0], dict))


def _of_csv(file: Path, most_bytes: int, most_rows: int) -> Iterator[Piece]:
    form = dialects.dialect(file)
    header = _text([form.header])
    headless = any(is_number(name, mark) for name in form.header for mark in (POINT, COMMA))

    def rows() -> Iterator[tuple[int, bytes]]:
        for line, row in dialects.records(file, form, errors="strict"):
            if len(row) != len(form.header):
                fields = f"{len(row)} field{'s' * (len(row) != 1)}"
                raise MlopsError(
                    f"{file}, line {line}: {fields}, but the header has {len(form.header)}"
                )
            yield line, _text([row])

    count = 0
    for body, places in _grouped(file, header, rows(), most_bytes, most_rows):
        count += 1
        if headless and count > 1:
            raise MlopsError(
                f"{file}: line 1 holds numbers, so it is no header, and a file of this size is "
                "sent in pieces, which need one: write the names of the columns there"
            )
        yield Piece(body, "text/csv", file, "line", [] if headless else places)
    if not count:
        yield Piece(header, "text/csv", file, "line", [])


def _text(rows: Iterable[Iterable[str]]) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue().encode()


def _grouped(
    file: Path, head: bytes, rows: Iterable[tuple[int, bytes]], most_bytes: int, most_rows: int
) -> Iterator[tuple[bytes, list[int]]]:
    """Yield bodies that begin with `head` and are as large as allowed, and the rows' places."""
    parts, places, size = [head], list[int](), len(head)
    for place, row in rows:
        if len(head) + len(row) > most_bytes:
            raise MlopsError(
                f"{file}: the row at {place} has {len(row) >> 20} MB, but a request may have "
                f"{most_bytes >> 20} MB"
            )
        if places and (size + len(row) > most_bytes or len(places) == most_rows):
            yield b"".join(parts), places
            parts, places, size = [head], [], len(head)
        parts.append(row)
        places.append(place)
        size += len(row)
    if places:
        yield b"".join(parts), places


def _objects(file: Path, kind: str) -> Iterator[dict[str, Any]]:
    if kind in (formats.JSON, formats.LINES):
        yield from formats.objects(file, kind)
        return
    if kind == formats.PARQUET:
        formats.columns_of(file, kind)  # which raises DataError for a damaged file
        batches = pq.ParquetFile(file).iter_batches(_BATCH)
    else:
        batches = formats.read(file, kind).to_batches(_BATCH)
    for batch in batches:
        names, columns = batch.schema.names, [_simple(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _simple(column: pa.Array) -> list[Any]:
    """Return the values of a column as JSON knows them, and as training read them."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", kind.tz and "UTC"), safe=False)
    elif pa.types.is_time64(kind):
        column = column.cast(pa.time64("us"), safe=False)
    elif pa.types.is_duration(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    return list(column.to_pylist())


def _line(row: dict[str, Any]) -> bytes:
    # What is nested is no column of a model, and an endpoint would refuse it.
    flat = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
    return json.dumps(flat, ensure_ascii=False, default=_as_text).encode() + b"\n"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
