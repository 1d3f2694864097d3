"""Find the format of a CSV file: delimiter, encoding, header. Yield its rows as text.

Must not know the types of its columns.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.text import clean_header

SAMPLE = 1 << 20  # bytes from which the delimiter, and the types of columns, are guessed
_BLOCK = 4 << 20
# Excel's own first line, which names the delimiter.
_SEPARATOR = re.compile(r"\s*\"?sep=(.)\"?[ ]*(?:\r\n|\r|\n)", re.IGNORECASE)

DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading a damaged gzip file raises."""

csv.field_size_limit(1 << 30)  # instead of 128 kB


@dataclass(frozen=True)
class Dialect:
    """The format of one CSV file. `skip` lines stand before its header."""

    delimiter: str
    encoding: str
    multiline: bool
    header: tuple[str, ...]
    skip: int = 0


def is_gzip(file: Path) -> bool:
    """Return whether it is compressed: by its first two bytes."""
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def opened(file: Path) -> IO[bytes]:
    """Open the file; uncompress gzip."""
    return io.BufferedReader(gzip.open(file)) if is_gzip(file) else file.open("rb")


def dialect(file: Path) -> Dialect:
    """Return the format. The whole file decides on its encoding. Raise DataError."""
    try:
        with opened(file) as stream:
            sample = stream.read(SAMPLE)
            quoted, utf8, block = False, codecs.getincrementaldecoder("utf-8")(), sample
            encoding = "utf-16" if sample.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
            while block:
                quoted = quoted or b'"' in block
                if encoding == "utf-8":
                    try:
                        utf8.decode(block)
                    except UnicodeDecodeError:
                        encoding = "cp1252"
                if quoted and encoding != "utf-8":
                    break
                block = stream.read(_BLOCK)
    except DAMAGED as error:
        raise DataError(f"{file}: damaged gzip file ({error})") from error
    text = sample.decode(encoding, errors="ignore").removeprefix("\ufeff")
    named = _SEPARATOR.match(text)
    skip = len(named[0].splitlines()) if named else 0
    text = text[named.end() :] if named else text
    if not text.strip():
        raise DataError(f"{file}: the file is empty")
    delimiter = named[1] if named else _delimiter(text)
    rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    blank, header = next((number, row) for number, row in enumerate(rows) if row)
    return Dialect(delimiter, encoding, quoted, clean_header(header), skip + blank)


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


def records(
    file: Path, form: Dialect | None = None, errors: str = "replace"
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row after the header. Slower than Arrow's reader."""
    form = form or dialect(file)
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    with io.TextIOWrapper(opened(file), encoding, errors=errors, newline="") as stream:
        for _ in range(form.skip):
            stream.readline()
        reader = csv.reader(stream, delimiter=form.delimiter)
        start, header = 1 + form.skip, True
        for row in reader:
            if row and not header:
                yield start, row
            header = header and not row
            start = reader.line_num + 1 + form.skip
