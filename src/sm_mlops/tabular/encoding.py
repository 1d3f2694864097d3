"""Parse the values of raw columns: numbers, booleans, dates, text, and what is derived from each.

Used in preprocessing and at the endpoint alike. Must not know where rows come from, or what was
fitted on them.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sm_mlops.tabular.numerals import POINT, parse_number, with_points
from sm_mlops.tabular.text import MISSING, NO_LABEL

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

BOOLEANS = {"true": 1.0, "yes": 1.0, "y": 1.0, "t": 1.0, "1": 1.0, "on": 1.0} | {
    "false": 0.0, "no": 0.0, "n": 0.0, "f": 0.0, "0": 0.0, "off": 0.0,
}  # fmt: skip
DATE_FORMATS = [
    day + time
    for day in ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d-%b-%Y",
                "%d %b %Y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y")
    for time in ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S")
] + ["%H:%M", "%H:%M:%S"]  # fmt: skip
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""The units of Arrow's times, from the coarsest."""
_TIME = r"(?:[0-9]{2}:[0-9]{2}.*|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2})"
_ZONE = rf"{_TIME}(?:[Zz]|[-+][0-9]{{2}}(?::?[0-9]{{2}})?)$"
_MILLISECONDS = r"^-?[0-9]{12,13}$"  # since 1970, as pandas' to_json writes dates
_OR = "or milliseconds since 1970"
_EARLIEST, _LATEST = 1e11, 1e13  # milliseconds that can be nothing else: from 1973 to 2286
_LONGEST = max(map(len, MISSING))
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HEX = re.compile("0[xX][0-9a-fA-F]{1,16}")
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


class Misfit(ValueError):
    """A value that does not fit its column."""

    def __init__(self, column: str, row: int, value: object, expected: str) -> None:
        self.column, self.row, self.value, self.expected = column, row, value, expected
        super().__init__(f"column '{column}', row {row + 1}: {value!r} is not {expected}")


def is_numeric(kind: pa.DataType) -> bool:
    """Return whether it is an integer, a float or a decimal."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def one_chunk(values: pa.ChunkedArray) -> pa.Array:
    """Return the column as one array with one dictionary."""
    if values.num_chunks == 1:
        return values.chunk(0)
    if pa.types.is_dictionary(values.type):
        values = values.unify_dictionaries()
    return values.combine_chunks()


def floats(array: pa.Array) -> Floats:
    """Return a numeric or boolean array as float64, NaN where null."""
    if array.type != pa.float64():
        array = array.cast(pa.float64(), safe=False)
    if array.null_count:
        array = array.fill_null(float("nan"))
    return np.asarray(array.to_numpy(zero_copy_only=False), np.float64)


def distinct(
    values: pa.ChunkedArray, missing: frozenset[str] = MISSING
) -> tuple[Codes, list[str | None]]:
    """Return codes (rows,) and the text of each code; code -1 and text None mean missing."""
    codes, written = coded(values)
    return codes, [value_text(value, missing) for value in written]


def coded(values: pa.ChunkedArray) -> tuple[Codes, list[Any]]:
    """Return codes (rows,) and the value of each code, as it is written; code -1 means null."""
    array = one_chunk(values)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes = array.indices.fill_null(-1) if array.indices.null_count else array.indices
    return codes.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.to_pylist()


def value_text(value: object, missing: frozenset[str] = MISSING) -> str | None:
    """Return a category's text: trimmed, 1.0 as "1", True as "true"; None if missing."""
    if isinstance(value, str):
        text = value.strip()
        return None if len(text) <= _LONGEST and text.lower() in missing else text
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def labels(values: pa.ChunkedArray) -> tuple[Codes, list[str | None]]:
    """Return `distinct` of a target, in which `none` is a label."""
    return distinct(values, NO_LABEL)


def numbers(
    values: pa.ChunkedArray, name: str, missing: Sequence[str] = (), decimal: str = POINT
) -> Floats:
    """Return a column of numbers, perhaps as text, as float64. Raise Misfit for other text."""
    array = one_chunk(values)
    if is_numeric(array.type) or pa.types.is_boolean(array.type):
        return floats(array)
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.int32()) if pa.types.is_time32(array.type) else array
        return floats(array.cast(pa.int64()))
    if pa.types.is_string(array.type):
        try:
            plain = array.cast(pa.float64()) if decimal == POINT else with_points(array)
            return floats(plain)
        except pa.ArrowInvalid:
            pass  # a spelling of missing, an amount, or no number: parse each
    also = {text.lower() for text in missing}

    def parse(text: str) -> float:
        if text.lower() in also:
            return float("nan")
        if _HEX.fullmatch(text):  # which Arrow reads in a CSV file as an int64
            return float((int(text, 16) + 2**63) % 2**64 - 2**63)
        return parse_number(text, decimal)

    expected = "a number" if decimal == POINT else "a number with a decimal comma"
    return _spread(pa.chunked_array([array]), name, expected, parse)


def _spread(
    values: pa.ChunkedArray, name: str, expected: str, parse: Callable[[str], float]
) -> Floats:
    """Apply `parse` once to each distinct text; a Misfit names the first row it cannot read."""
    codes, texts = distinct(values)
    table = np.full(len(texts) + 1, np.nan)
    for i, text in enumerate(texts):
        if text is not None:
            try:
                table[i] = parse(text)
            except (ValueError, KeyError):
                row = int(np.argmax(codes == i))
                raise Misfit(name, row, text, expected) from None
    return table[codes]


def booleans(values: pa.ChunkedArray, name: str) -> Floats:
    """Return a column of true and false, perhaps as text or 0 and 1, as float64."""
    if pa.types.is_boolean(values.type) or is_numeric(values.type):
        found = numbers(values, name)
        bad = np.flatnonzero((found != 0) & (found != 1) & ~np.isnan(found))
        if len(bad):
            raise Misfit(name, int(bad[0]), float(found[bad[0]]), "true or false")
        return found
    return _spread(values, name, "true or false", lambda text: BOOLEANS[text.lower()])


def timestamps(
    values: pa.ChunkedArray, name: str, form: str | None, zoned: bool | None = None
) -> Floats:
    """Return seconds since 1970-01-01 UTC (of a time of day: since midnight), NaN where missing.

    Args:
        zoned: Whether the dates have a time zone; None for either.

    Raises:
        Misfit: A value is no date, or has a zone where the column has none, or lacks it.
    """
    array = one_chunk(values)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string(kind):
        trimmed = pc.utf8_trim_whitespace(array)
        known = pc.is_in(pc.utf8_lower(trimmed), pa.array(sorted(MISSING)))
        text = pc.if_else(known, pa.scalar(None, pa.string()), trimmed)
        array = _parsed(text, name, form, zoned)
    elif pa.types.is_time(kind):
        whole = array.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
        return floats(whole) / PER_SECOND[kind.unit]
    elif is_numeric(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        numbers = floats(array)
        size = np.abs(numbers)
        dates = (size >= _EARLIEST) & (size < _LATEST) & (not _is_clock(form))
        bad = np.flatnonzero(~np.isnan(numbers) & ~dates)
        if len(bad):
            raise _no_date(name, int(bad[0]), array, zoned)
        return numbers / 1e3
    elif (
        zoned is not None
        and array.null_count < len(array)
        and zoned != (pa.types.is_timestamp(kind) and kind.tz is not None)
    ):
        raise _no_date(name, pc.index(array.is_valid(), True).as_py(), array, zoned)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    micro = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    return floats(micro.cast(pa.int64())) / 1e6


def _parsed(text: pa.Array, name: str, form: str | None, zoned: bool | None) -> pa.Array:
    """Return texts as timestamps. Raise Misfit for the first that is none of this column."""
    number = pc.match_substring_regex(text, "^$" if _is_clock(form) else _MILLISECONDS)
    dates = pc.if_else(number, pa.scalar(None, pa.string()), text)
    if zoned is not None:  # Arrow parses dates with zones, or dates without
        other = pc.index(pc.equal(has_zone(dates), not zoned), True).as_py()
        if other >= 0:
            raise _no_date(name, other, text, zoned)
    array = parse_dates(dates, form)
    if pc.any(number).as_py():
        count = pc.if_else(number, text, pa.scalar(None, pa.string())).cast(pa.int64())
        array = pc.coalesce(array.cast(pa.timestamp("us")), count.cast(pa.timestamp("ms")))
    bad = pc.index(pc.and_(text.is_valid(), array.is_null()), True).as_py()
    if bad >= 0:
        raise _no_date(name, _first_bad(dates, form, bad), text, zoned)
    return array


def _first_bad(text: pa.Array, form: str | None, start: int) -> int:
    """Return the first text from `start` that is no date: one may keep Arrow from parsing all."""

    def fails(end: int) -> bool:
        part = text.slice(start, end - start)
        return bool(parse_dates(part, form).null_count > part.null_count)

    # Together they fail, or this would not be called; the last is the answer then.
    return start + bisect_left(range(start + 1, len(text)), True, key=fails)


def _is_clock(form: str | None) -> bool:
    return form is not None and form.startswith("%H")


def has_zone(text: pa.Array) -> pa.Array:
    """Return whether each text ends in a time and its zone, such as Z or +02:00."""
    return pc.match_substring_regex(text, _ZONE)


def _no_date(name: str, row: int, values: pa.Array, zoned: bool | None) -> Misfit:
    expected = {
        None: "a date or a time of day",
        True: f"a date with a time zone, such as 2026-04-18T08:52:00Z, {_OR}",
        False: f"a date without a time zone, such as 2026-04-18 or 2026-04-18T08:52:00, {_OR}",
    }[zoned]
    return Misfit(name, row, values[row].as_py(), expected)


def parse_dates(text: pa.Array, form: str | None) -> pa.Array:
    """Parse ISO 8601 dates or timestamps, or those of `form`; null where a text is neither."""
    if form is not None and _is_clock(form):
        # Of a CSV file Arrow has read times with and without seconds, or fractions of them.
        clock = pc.binary_join_element_wise("1970-01-01", text, " ")
        return pc.coalesce(_iso(clock), _iso(text))
    if form is None:
        return _iso(text)
    parsed = _strptime(text, form, "s")
    return parsed if parsed.null_count == text.null_count else pc.coalesce(parsed, _iso(text))


def microseconds(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return dates cut to microseconds: the range of nanoseconds is only 1677 to 2262."""
    return pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]{1,3}", r"\1")


def _iso(text: pa.Array) -> pa.Array:
    found = _stamps(text)
    if found is None and not (cut := microseconds(text)).equals(text):
        found = _stamps(cut)
    if found is not None:
        return found
    formats = ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]
    return pc.coalesce(*(_strptime(text, form, "us") for form in formats))


def _stamps(text: pa.Array) -> pa.Array | None:
    for zone in (None, "UTC"):
        try:
            return text.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            continue
    return None


def _strptime(text: pa.Array, form: str, unit: str) -> pa.Array:
    """Parse dates of a format; null for a day that its month does not have, such as 30 February,
    which Arrow takes for one of the next month."""
    found = pc.strptime(text, format=form, unit=unit, error_is_null=True)
    early = pc.less_equal(pc.day(found), 3).fill_null(False)
    # Arrow, too, lets blanks stand or lack between the parts.
    before = re.escape(form.partition("%d")[0]).replace("\\ ", r"\s*")
    before = re.sub("%[bB]", r"\\s*[A-Za-z]+", re.sub("%[Ym]", r"\\s*[0-9]+", before))
    match = pc.extract_regex(text.filter(early), rf"^\s*{before}\s*(?P<day>[0-9]+)")
    days = pc.struct_field(match, "day")
    moved = pc.not_equal(days.cast(pa.int64()), pc.day(found.filter(early)))
    if not pc.any(moved).as_py():
        return found
    wrong = pc.replace_with_mask(pa.array(np.zeros(len(text), bool)), early, moved)
    return pc.if_else(wrong, pa.scalar(None, found.type), found)


DATE_PARTS: dict[str, Callable[[pa.Array], Floats]] = {
    "days": lambda dates: floats(dates.cast(pa.int64())) / 86400e6,
    "month": lambda dates: floats(pc.month(dates)),
    "day": lambda dates: floats(pc.day(dates)),
    "weekday": lambda dates: floats(pc.day_of_week(dates)),
    "hour": lambda dates: floats(pc.hour(dates)),
}
"""Features of dates: days since 1970, month 1-12, day, weekday 0-6 (from Monday), hour."""


def words(texts: Sequence[str | None]) -> list[str]:
    """Return texts in lower case, with blanks around runs of letters and digits: ` c 85 `."""
    return [f" {' '.join(_WORD.findall(text.lower()))} " if text else "  " for text in texts]


def _first_number(texts: Sequence[str | None]) -> Floats:
    found = [_DIGITS.search(text or "") for text in texts]
    return np.array([np.nan if match is None else float(match[0]) for match in found], np.float64)


MEASURES: dict[str, Callable[[Sequence[str | None]], Floats]] = {
    "number": _first_number,
    "length": lambda texts: np.array([len(text or "") for text in texts], np.float64),
    "words": lambda texts: np.array([len((text or "").split()) for text in texts], np.float64),
}
"""Features of one text by itself: the first number in it (NaN without one), characters, words."""
