"""Names, values and messages from outside: data, files, logs, AWS, GitHub.

Content is only content: what a terminal, a log or a browser would obey is shown instead.
"""

import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches

NO_LABEL = frozenset(
    ("", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "#null!", "\\n", "?")
)
"""Spellings that always mean a missing value, in lower case and trimmed."""

MISSING = NO_LABEL | {"none", "nil", "missing", "-", "--", "."}
"""Spellings of a missing value in a feature; `none` may be a label."""

LONGEST_PROPERTY = 256


def visible(text: object, keep: str = "") -> str:
    r"""Return text with escapes such as \x1b and \u202e for characters that control, reorder or
    hide others, except for those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in str(text))


def number(value: float, beside: float = 0) -> str:
    """Return a number to read, beside others of at most `beside`: thousands are grouped where one
    reaches 10,000, so that years are not."""
    if abs(value) >= 1e6 or 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if max(abs(value), beside) >= 10_000 else f"{value:.0f}"
    digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 4
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def metric_text(value: float) -> str:
    """Return the value of a metric to read."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 10 else number(value)


def as_property(text: str) -> str:
    """Return text as a version's metadata may hold it: letters, digits, spaces and a few signs.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
    """
    legal = "".join(
        c if c in "_.:/=+-@" or unicodedata.category(c)[0] in "LNZ" else "_" for c in visible(text)
    )
    return legal if len(legal) <= LONGEST_PROPERTY else f"{legal[: LONGEST_PROPERTY - 3]}..."


def nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint for a name that is not in `names`: the likely one, or the first few names."""
    lower = {n.lower(): n for n in names}
    close = get_close_matches(name.lower(), list(lower), n=1)
    if close:
        return f"did you mean '{lower[close[0]]}'?"
    shown = ", ".join(list(names)[:12]) + (", ..." if len(names) > 12 else "")
    return f"there are: {shown}"


def clean_header(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names without surrounding blanks; one without a name (an index) is numbered."""
    return tuple(name.strip() or f"unnamed_{i}" for i, name in enumerate(names))
