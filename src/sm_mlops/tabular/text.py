"""Content is only content: what a terminal, a log or a browser would obey is shown instead.

For names, values and messages from outside: data, files, logs, AWS, GitHub.
"""

import unicodedata

LONGEST_PROPERTY = 256


def visible(text: object, keep: str = "") -> str:
    r"""Return text with escapes such as \x1b and \u202e for characters that control, reorder or
    hide others, except for those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in str(text))


def as_property(text: str) -> str:
    """Return text as a version's metadata may hold it: letters, digits, spaces and a few signs.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModelPackage.html
    """
    legal = "".join(
        c if c in "_.:/=+-@" or unicodedata.category(c)[0] in "LNZ" else "_" for c in visible(text)
    )
    return legal if len(legal) <= LONGEST_PROPERTY else f"{legal[: LONGEST_PROPERTY - 3]}..."
