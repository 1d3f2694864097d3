"""Find the kind of a raw column from all its rows: number, boolean, date or text.

Must not know the target, nor how a column is encoded.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sm_mlops.tabular import encoding
from sm_mlops.tabular.encoding import Codes
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.numerals import POINT, is_number
from sm_mlops.tabular.schema import Column


def kind_of(name: str, values: pa.ChunkedArray, decimal: str = POINT) -> Column:
    """Return the column. Raise DataError if it is empty in every row."""
    array = encoding.one_chunk(values)
    kind = array.type
    empty = array.null_count == len(array)
    if encoding.is_numeric(kind) or pa.types.is_duration(kind):
        column = Column(name, "number")
    elif pa.types.is_boolean(kind):
        column = Column(name, "boolean")
    elif pa.types.is_temporal(kind):
        time = pa.types.is_time(kind)
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        column = Column(
            name, "date", format="%H:%M:%S" if time else None, zoned=None if time else zoned
        )
    else:
        codes, texts = encoding.distinct(pa.chunked_array([array]))
        empty = not any(texts)
        column = _typed_text(name, codes, texts, decimal)
    if empty:
        raise DataError(
            f"column '{name}' is empty in every row; fill it, or name it in data.drop of mlops.yaml"
        )
    return column


def _typed_text(name: str, codes: Codes, texts: list[str | None], decimal: str) -> Column:
    """Return a column of numbers, booleans or dates that are written as text, else of text."""
    known = [text for text in texts if text is not None]
    sample = known[:1000]
    numeric = sum(is_number(text, decimal) for text in sample) / max(len(sample), 1)
    if numeric > 0.5:
        others = {text for text in known if not is_number(text, decimal)}
        strange = [i for i, text in enumerate(texts) if text in others]
        if not others or (
            len(others) <= 3
            and len(known) >= 10 * len(others)
            and np.isin(codes, strange).mean() < 0.5
        ):
            return Column(name, "number", missing=sorted(others), decimal=decimal)
    spellings = {text.lower() for text in known}
    meanings = {encoding.BOOLEANS.get(text) for text in spellings} - {None}
    if known and len(meanings) == len(spellings):
        return Column(name, "boolean")
    if sum(any(c.isdigit() for c in t) for t in sample) == len(sample):
        probe, everything = pa.array(sample, pa.string()), pa.array(known, pa.string())
        _refuse_some_zones(name, everything)
        for form in (None, *encoding.DATE_FORMATS):
            if all(encoding.parse_dates(t, form).null_count == 0 for t in (probe, everything)):
                clock = form is not None and form.startswith("%H")
                zoned = None if clock else bool(pc.any(encoding.has_zone(everything)).as_py())
                return Column(name, "date", format=form, zoned=zoned)
    return Column(name, "text")


def _refuse_some_zones(name: str, texts: pa.Array) -> None:
    """Raise DataError for dates of which some have a time zone and others have none."""
    zoned = encoding.has_zone(texts)
    parts = texts.filter(zoned), texts.filter(pc.invert(zoned))
    if all(len(part) and encoding.parse_dates(part, None).null_count == 0 for part in parts):
        one, other = (part[0].as_py() for part in parts)
        raise DataError(
            f"column '{name}': {one!r} has a time zone and {other!r} has none; write all dates "
            "alike, or name it in data.drop of mlops.yaml"
        )
