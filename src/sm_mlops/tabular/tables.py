"""Read a file of rows, or a folder of such files, into one typed Arrow table.

Errors name file, row and column. Must not know about models.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from sm_mlops.tabular import formats, numerals
from sm_mlops.tabular.dialects import SAMPLE, Dialect, dialect, is_gzip, records
from sm_mlops.tabular.encoding import microseconds, one_chunk
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.formats import CSV, format_of
from sm_mlops.tabular.numerals import COMMA, POINT, parse_number
from sm_mlops.tabular.text import MISSING, NO_LABEL, nearest

STRINGS = pa.dictionary(pa.int32(), pa.string())
"""Strings that repeat: memory for each distinct value once, and four bytes per row."""

_SPELLINGS = [form for m in sorted(NO_LABEL) for form in {m, m.upper(), m.capitalize()}]
_SPELLINGS += ["NaN", "-NaN", "NaT", "N/a"]
_USUAL = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet", ".parq", ".pq")
_OTHER = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_BINARY = (".feather", ".arrow", ".ipc", ".orc", ".xlsx", ".xls", ".ods", ".zip")
_LIKE_STRINGS = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    *(pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary_view),
)
_BLOCK = 4 << 20  # bytes: larger blocks cost memory and gain no speed


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
        for endings in (_USUAL, _OTHER + _BINARY):
            some = [p for p in files if p.name.lower().endswith(endings) or not p.suffix]
            if some:
                break
        if not some:
            raise DataError(f"{path}: no CSV, Parquet, JSON, JSON Lines, Feather or ORC file in it")
        files = some
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty")
    by_format = {format_of(file): file for file in reversed(files)}
    if len(by_format) > 1:
        one, other = sorted(by_format)[:2]
        raise DataError(
            f"{path}: {one} and {other} files are mixed "
            f"({by_format[one].name}, {by_format[other].name}); keep one format"
        )
    return files


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


def read(
    files: Sequence[Path], target: str, drop: Sequence[str] = (), decimal: str | None = None
) -> pa.Table:
    """Return all rows of all files, without the columns in `drop`.

    A column has the type that holds for every row of every file, or strings where they disagree.
    The target of a CSV file is strings, so that labels keep their spelling. Numbers with a decimal
    comma stay strings, too, of which `decimal_of` knows.

    Args:
        decimal: The mark of numbers that are ambiguous: `point` or `comma`.
    """
    kind = format_of(files[0])
    forms = {f: dialect(f) for f in files} if kind == CSV else {}
    headers = {f: forms[f].header if forms else formats.columns_of(f, kind) for f in files}
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
        require(files[0], name, key, first)
    wanted = [name for name in first if name not in drop or name == target]
    if len(wanted) < 2:
        raise DataError(f"{files[0]}: no column is left to learn from beside '{target}'")
    held = set[str]()
    if forms:
        try:
            table, held = _read_csv(forms, wanted, target)
        except UnicodeError as error:
            place = files[0] if len(files) == 1 else files[0].parent
            raise DataError(
                f"{place}: some bytes are text in neither UTF-8 nor Windows-1252; save as UTF-8"
            ) from error
    else:
        table = _join([_plain(f, formats.read(f, kind, wanted)) for f in files])
    if table.num_rows == 0:
        raise DataError(f"{files[0]}: a header and no rows")
    marks = _marks(table, files[0], forms, held, decimal)
    return _settled(table, target, held, marks)


def require(file: Path, name: str, key: str, names: Sequence[str]) -> None:
    """Raise DataError if the column that `key` of mlops.yaml names is none of these."""
    if name not in names:
        raise DataError(f"{file}: no column '{name}' ({key} in mlops.yaml); {nearest(name, names)}")


def decimal_of(table: pa.Table, name: str) -> str:
    """Return the decimal mark of the numbers in a column that `read` has returned."""
    metadata = table.schema.field(name).metadata or {}
    return str(metadata.get(b"decimal", b".").decode())


def _marks(
    table: pa.Table,
    file: Path,
    forms: Mapping[Path, Dialect],
    held: set[str],
    setting: str | None,
) -> dict[str, str]:
    """Return the decimal mark of each column of texts that are numbers.

    Its own texts decide; else the setting, the other columns, or a comma that delimits fields.
    """
    found = {
        field.name: numerals.evidence(_known(table[field.name]))
        for field in table.schema
        if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type)
    }
    for name, item in found.items():
        if item.point and item.comma and item.others <= 3:
            raise DataError(
                f"{file}: column '{name}': {item.point!r} has a decimal point and {item.comma!r} "
                "a decimal comma; write them alike, or name it in data.drop of mlops.yaml"
            )
    decided = {name: item.decimal for name, item in found.items() if item.decimal}
    seen = set(decided.values())
    if forms and any(pa.types.is_floating(f.type) for f in table.schema if f.name not in held):
        seen.add(POINT)
    if not seen and any(form.delimiter == "," for form in forms.values()):
        seen.add(POINT)
    for name, item in found.items():
        if item.either and not item.decimal and not (item.point and item.comma):
            mark = numerals.MARKS[setting] if setting else next(iter(seen), POINT)
            if setting is None and (len(seen) != 1 or item.doubts(mark)):
                texts = _known(table[name])
                texts = texts.filter(pc.match_substring_regex(texts, "[.,]")).slice(0, 3)
                shown = ", ".join(map(repr, texts.to_pylist()))
                raise DataError(
                    f"{file}: column '{name}': the marks in {shown} could be decimal or thousands; "
                    "set data.decimal in mlops.yaml to point or comma"
                )
            decided[name] = mark
    return {name: mark for name, mark in decided.items() if mark}


def _known(values: pa.ChunkedArray) -> pa.Array:
    """Return the distinct, trimmed texts of a column, without spellings of a missing value."""
    array = one_chunk(values)
    array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = pc.utf8_trim_whitespace(array.dictionary.drop_null())
    return texts.filter(pc.invert(pc.is_in(pc.utf8_lower(texts), pa.array(sorted(MISSING)))))


def _settled(table: pa.Table, target: str, held: set[str], marks: Mapping[str, str]) -> pa.Table:
    """Return the table with the marks in its schema, its target with decimal points, and what was
    held as text without need as numbers."""
    for name, mark in marks.items():
        at = table.column_names.index(name)
        if name == target and mark == COMMA:
            table = table.set_column(at, name, _with_points(table[name]))
        elif mark == COMMA:
            kind = table.schema.field(name).type
            table = table.set_column(
                at, pa.field(name, kind, metadata={"decimal": mark}), table[name]
            )
        elif name in held:
            try:
                numbers = table[name].cast(pa.string()).cast(pa.float64())
            except pa.ArrowInvalid:  # 1,234.5
                continue
            table = table.set_column(at, name, numbers)
    return table


def _with_points(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a target whose numbers have decimal points, unless some texts are no numbers."""
    array = one_chunk(values.cast(STRINGS))
    try:
        texts = [_with_point(text) for text in array.dictionary.to_pylist()]
    except ValueError:
        return values
    return pa.chunked_array([pa.array(texts, pa.string()).take(array.indices)])


def _with_point(text: str) -> str:
    if not re.search("[.,]", text) or text.strip().lower() in NO_LABEL:
        return text
    return str(parse_number(text, COMMA))


def where(files: Sequence[Path], index: int) -> str:
    """Return file and line (CSV) or row (other formats, from 1) of row `index` of the table."""
    kind = format_of(files[0])
    for file in files:
        if kind == CSV:
            rows = 0
            for rows, (line, _) in enumerate(records(file), 1):
                if rows == index + 1:
                    return f"{file}, line {line}"
        else:
            rows = formats.rows_of(file, kind)
            if index < rows:
                return f"{file}, row {index + 1}"
        index -= rows
    raise IndexError(index)


def _read_csv(
    forms: Mapping[Path, Dialect], wanted: Sequence[str], target: str
) -> tuple[pa.Table, set[str]]:
    """Return the table, and the columns that are texts because their points may be thousands."""
    types: dict[str, pa.DataType] = {}
    clear, held, precise = set[str](), set[str](), dict[str, pa.DataType]()
    for file, form in forms.items():
        for name, kind in _guess(file, form, wanted, clear).items():
            types[name] = _wider(types.get(name), kind)
    types[target] = STRINGS
    while True:
        try:
            tables = [_stream(file, form, wanted, types) for file, form in forms.items()]
        except _Loosen as found:
            kind = types[found.column]
            types[found.column] = _looser(kind)
            if pa.types.is_timestamp(kind) and types[found.column] == pa.string():
                precise[found.column] = kind
            continue
        table = pa.concat_tables(tables, promote_options="permissive")
        for name, kind in precise.items():
            with suppress(pa.ArrowInvalid):  # for other texts than dates
                cut = microseconds(table[name]).cast(kind)
                table = table.set_column(table.column_names.index(name), name, cut)
        floats = [name for name in wanted if pa.types.is_floating(table.schema.field(name).type)]
        unsure = [name for name in floats if name not in clear and not _has_point(table[name])]
        if not unsure:
            return table, held
        held.update(unsure)
        types.update(dict.fromkeys(unsure, STRINGS))


def _has_point(values: pa.ChunkedArray) -> bool:
    """Return whether a number was surely written with a decimal point: 1.234 might be 1,234."""
    numbers = np.abs(values.combine_chunks().drop_null().to_numpy(zero_copy_only=False))
    numbers = numbers[np.isfinite(numbers) & (numbers % 1 != 0)]
    thousandths = numbers * 1000
    return bool(
        np.any(
            (numbers < 1) | (numbers >= 1000) | (np.abs(thousandths - np.rint(thousandths)) > 1e-6)
        )
    )


class _Loosen(Exception):
    """A value does not fit the type of its `column`."""

    def __init__(self, column: str) -> None:
        self.column = column


def open_csv(
    file: Path, form: Dialect, block: int, convert: pacsv.ConvertOptions
) -> pacsv.CSVStreamingReader:
    """Return a reader of the rows, which holds `block` bytes at a time."""
    return pacsv.open_csv(
        pa.input_stream(str(file), compression="gzip" if is_gzip(file) else None),
        read_options=pacsv.ReadOptions(
            column_names=list(form.header),
            skip_rows=form.skip,
            skip_rows_after_names=1,
            encoding=form.encoding,
            block_size=block,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=form.delimiter, newlines_in_values=form.multiline
        ),
        convert_options=convert,
    )


def _open(
    file: Path,
    form: Dialect,
    wanted: Sequence[str],
    types: dict[str, pa.DataType] | None,
    block: int,
) -> pacsv.CSVStreamingReader:
    convert = pacsv.ConvertOptions(
        include_columns=list(wanted),
        column_types=types,
        null_values=_SPELLINGS,
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        auto_dict_encode=True,
        auto_dict_max_cardinality=1000,
    )
    return open_csv(file, form, block, convert)


def _guess(
    file: Path, form: Dialect, wanted: Sequence[str], clear: set[str]
) -> dict[str, pa.DataType]:
    """Return types that hold for the first block; strings that repeat become a dictionary.

    Add to `clear` the numbers that were surely written with a decimal point.
    """
    try:
        batch = _open(file, form, wanted, None, SAMPLE).read_next_batch()
    except StopIteration:
        return {}
    except pa.ArrowInvalid:  # a malformed row, which reading everything reports
        return dict.fromkeys(wanted, STRINGS)
    types = {field.name: field.type for field in batch.schema}
    for name, kind in types.items():
        if pa.types.is_null(kind):
            types[name] = STRINGS
        elif pa.types.is_timestamp(kind) and kind.unit == "ns":  # which end in the year 2262
            types[name] = pa.timestamp("us", kind.tz)
        elif pa.types.is_string(kind):
            distinct = len(batch[name].unique())
            types[name] = STRINGS if distinct <= max(1000, batch.num_rows // 4) else kind
    floats = [name for name, kind in types.items() if pa.types.is_floating(kind)]
    if floats:
        texts = dict.fromkeys(floats, pa.string())
        written = _open(file, form, floats, texts, SAMPLE).read_next_batch()
        clear.update(
            n for n in floats if numerals.evidence(_known(pa.chunked_array([written[n]]))).point
        )
    return types


def _stream(
    file: Path, form: Dialect, wanted: Sequence[str], types: dict[str, pa.DataType]
) -> pa.Table:
    block = _BLOCK
    while True:
        try:
            reader = _open(file, form, wanted, types, block)
            return pa.Table.from_batches(list(reader), reader.schema)
        except pa.ArrowInvalid as error:
            text = str(error)
            column = re.search(r"In CSV column #(\d+)", text)
            if "straddling" in text and block < 1 << 30:
                block *= 8
            elif column and "onversion error" in text:
                name = form.header[int(column[1])]
                if types[name] in (STRINGS, pa.string()):
                    raise
                raise _Loosen(name) from error
            elif "Empty CSV" in text:
                return pa.table({name: pa.array([], types.get(name, STRINGS)) for name in wanted})
            else:
                raise malformed(file, form, error) from error


def malformed(file: Path, form: Dialect, error: pa.ArrowInvalid) -> DataError:
    """Return why a file cannot be read, and the line of the first ragged row."""
    count = len(form.header)
    for line, row in records(file, form):
        if len(row) != count:
            fields = f"{len(row)} field{'s' * (len(row) != 1)}"
            return DataError(f"{file}, line {line}: {fields}, but the header has {count}")
    return DataError(f"{file}: {error}")


_WIDER: list[list[pa.DataType]] = [
    [pa.int64(), pa.float64()],
    [pa.date32(), pa.timestamp("s"), pa.timestamp("us")],
    [pa.timestamp("s", "UTC"), pa.timestamp("us", "UTC")],
]


def _looser(kind: pa.DataType) -> pa.DataType:
    for ladder in _WIDER:
        if kind in ladder[:-1]:
            return ladder[ladder.index(kind) + 1]
    # Dates with more than six digits of a second: few of them are the same.
    return pa.string() if pa.types.is_timestamp(kind) else STRINGS


def _wider(one: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    if one is None or one == other:
        return other
    if pa.string() in (one, other) and STRINGS in (one, other):
        return pa.string()
    for ladder in _WIDER:
        if one in ladder and other in ladder:
            return ladder[max(ladder.index(one), ladder.index(other))]
    return STRINGS


def _plain(file: Path, table: pa.Table) -> pa.Table:
    """Return the table of a file that is not CSV with fewer types. Raise DataError for others."""
    for i, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and not pa.types.is_string(kind.value_type):
            kind = kind.value_type
            table = table.set_column(i, field.name, table[i].cast(kind))
        if any(like(kind) for like in _LIKE_STRINGS):
            try:
                table = table.set_column(i, field.name, table[i].cast(pa.string()))
            except pa.ArrowInvalid as error:
                raise DataError(f"{file}: column '{field.name}' holds bytes, not text") from error
        elif pa.types.is_nested(kind):
            raise DataError(
                f"{file}: column '{field.name}' is nested ({kind}); flatten or drop it (data.drop)"
            )
    return table


def _cast(tables: list[pa.Table], at: int, kind: pa.DataType) -> list[pa.Table]:
    # Integers beyond 2**53 are rounded, and so are spans below a microsecond.
    safe = pa.types.is_string(kind)
    return [t.set_column(at, t.column_names[at], t[at].cast(kind, safe=safe)) for t in tables]


def _join(tables: list[pa.Table]) -> pa.Table:
    first = tables[0].column_names
    tables = [table.select(first) for table in tables]
    for at, name in enumerate(first):
        kinds = {table.schema.field(name).type for table in tables} - {pa.null()}
        numbers = all(pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds)
        if len(kinds) < 2:
            continue
        if all(pa.types.is_duration(k) for k in kinds):
            tables = _cast(tables, at, pa.duration("us"))
        elif not numbers:
            tables = _cast(tables, at, pa.string())
        elif any(pa.types.is_floating(k) for k in kinds):
            tables = _cast(tables, at, pa.float64())
    return pa.concat_tables(tables, promote_options="permissive")
