"""Read numbers as people write them: 1,234.5, 1'234.5, 1,23,456, 1.234,5, 1 234,5, $12, 7 %.

The decimal mark is a matter of a whole column, because 1.234 alone can mean both. Must not know
where a column comes from.
"""

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

POINT, COMMA = ".", ","
MARKS = {"point": POINT, "comma": COMMA}
"""`data.decimal` of mlops.yaml."""

_BLANK = " \u00a0\u2009\u202f"


def _form(decimal: str, thousands: str, grouped_by_two: str = "") -> str:
    """Return the pattern of a number, for `re` and for RE2, which has no backreferences."""
    point = re.escape(decimal)
    groups = "|".join(
        rf"(?:{re.escape(mark)}[0-9]{{3}})+" for mark in f"{thousands}{_BLANK}'\u2019"
    )
    grouped = rf"(?:[1-9][0-9]{{0,2}}(?:{groups}){grouped_by_two})(?:{point}[0-9]*)?"
    plain = rf"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][-+]?[0-9]+)?"
    return rf"[-+]?[$€£¥₹]?[{_BLANK}]?[-+]?(?:{plain}|{grouped})[{_BLANK}]?[%€$£¥₹]?"


_TEXTS = {
    POINT: _form(POINT, COMMA, r"|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"),
    COMMA: _form(COMMA, POINT),
}
_FORMS = {decimal: re.compile(text) for decimal, text in _TEXTS.items()}
_SIMPLE = r"^[-+]?[0-9]+(?:,[0-9]+)?$"


def parse_number(text: str, decimal: str = POINT) -> float:
    """Return the number; raise ValueError for anything else."""
    plain = decimal == POINT or ("." not in text and "," not in text)
    if plain and "_" not in text:  # as in 18_25, which Python reads as 1825
        try:
            return float(text)
        except ValueError:
            pass
    text = text.strip()
    if not _FORMS[decimal].fullmatch(text):
        raise ValueError(f"not a number: {text!r}")
    kept = re.sub(rf"[^0-9eE+\-{re.escape(decimal)}]", "", text)
    return float(kept.replace(decimal, "."))


def is_number(text: str, decimal: str = POINT) -> bool:
    """Return whether `parse_number` reads the text."""
    try:
        parse_number(text, decimal)
    except ValueError:
        return False
    return True


def with_points(texts: pa.Array) -> pa.Array:
    """Return numbers with a decimal comma as float64. Raise ArrowInvalid unless all are simple."""
    if pc.all(pc.match_substring_regex(texts, _SIMPLE)).as_py() is False:
        raise pa.ArrowInvalid("not as simple as 12,5")
    return pc.replace_substring(texts, ",", ".").cast(pa.float64())


@dataclass(frozen=True)
class Evidence:
    """The first text of a column that is a number with a point only, with a comma only, and with
    either, of different value; how many are no number, and whether some are as short as 991."""

    point: str | None = None
    comma: str | None = None
    either: str | None = None
    others: int = 0
    short: bool = False

    @property
    def decimal(self) -> str | None:
        """Return the mark that the column's own texts decide on; None if they do not."""
        if bool(self.point) == bool(self.comma):
            return None
        return POINT if self.point else COMMA

    def doubts(self, decimal: str) -> bool:
        """Return whether the column may be read with this mark only if somebody says so.

        991 beside 10.998 looks like thousands: of decimals, some would have one or two digits.
        """
        return self.short and decimal in str(self.either)


def evidence(texts: pa.Array) -> Evidence:
    """Return what distinct, trimmed texts say about their decimal mark.

    Nothing, unless most of them are numbers.
    """
    head = texts.slice(0, 1000)
    if len(head) == 0 or not pc.mean(_is(head, POINT, COMMA)).as_py() > 0.5:
        return Evidence()
    point, comma = _is(texts, POINT), _is(texts, COMMA)
    marked = pc.match_substring_regex(texts, "[.,]")
    return Evidence(
        _first(texts, pc.and_not(point, comma)),
        _first(texts, pc.and_not(comma, point)),
        _first(texts, pc.and_(pc.and_(point, comma), marked)),
        len(texts) - pc.sum(pc.or_(point, comma)).as_py(),
        pc.any(pc.match_substring_regex(texts, "^[1-9][0-9]{0,2}$")).as_py(),
    )


def _is(texts: pa.Array, *decimals: str) -> pa.Array:
    pattern = "|".join(_TEXTS[decimal] for decimal in decimals)
    return pc.match_substring_regex(texts, rf"^(?:{pattern})$")


def _first(texts: pa.Array, mask: pa.Array) -> str | None:
    at = pc.index(mask, True).as_py()
    return None if at < 0 else str(texts[at].as_py())
