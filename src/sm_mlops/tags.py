"""The tags by which a bill can be read: project, stage and owner.

The owner is `owner` in `[tool.mlops]` of pyproject.toml. Must not know AWS's clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Source: https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
KEY = re.compile(r"(?!aws:)[\w .:/=+@-]{1,128}", re.IGNORECASE)
VALUE = re.compile(r"[\w .:/=+@-]{1,256}")
VALUE_RULE = "text of 1 to 256 letters, digits, spaces and _.:/=+@-"
# Of repos and stacks that name no owner.
NOBODY = "unknown"


def problem(owner: str) -> str:
    """Return what is wrong with an owner, empty if nothing is."""
    if VALUE.fullmatch(owner):
        return ""
    return f"owner becomes a tag in AWS: it must be {VALUE_RULE}, not {owner!r}"


def rows(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as most of AWS's services expect them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
