"""The fitted encoding as plain JSON: written by preprocess.py, read by all other steps.

Must not know how it is fitted, or anything about files of rows or XGBoost.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "schema.json"


@dataclass(frozen=True)
class Column:
    """One column of the raw rows, and how it becomes features."""

    name: str
    kind: str
    """number, boolean, date, category, text, or unused."""
    features: list[str] = field(default_factory=list)
    """In order: `value`; days, month...; `code`; mean.0, count, word.x..."""
    missing: list[str] = field(default_factory=list)
    """Spellings of a missing value besides text.MISSING (number)."""
    format: str | None = None
    """strptime format of dates that are not ISO 8601."""
    categories: list[str] = field(default_factory=list)
    """Code i is categories[i]; every other value has code len(categories)."""
    means: dict[str, list[float]] = field(default_factory=dict)
    """Text to [count, smoothed mean of the target per output] in the training rows."""
    prior: list[float] = field(default_factory=list)
    """The means of an unknown text."""
    why: str = ""


@dataclass(frozen=True)
class Schema:
    """The task, the target and the columns, fitted on the training rows."""

    task: str
    """binary, multiclass or regression."""
    target: str
    classes: list[Any]
    """Labels in class order, as returned (str, int, bool); the positive one last."""
    columns: list[Column]
    """In the order of the file, without the target and the dropped columns."""
    dropped: list[str]
    features: list[str]
    """Names of the encoded features, unique and without the characters that XGBoost refuses."""
    types: list[str]
    """Per feature: `q` (quantity) or `c` (code of a category)."""
    data: dict[str, Any]
    """About the data: sha256, rows per part, and a summary of the training rows per column."""
    offset: float = 0.0
    scale: float = 1.0
    """A quantity is trained on as (quantity - offset) / scale, where float32 lacks precision."""

    def save(self, folder: Path) -> None:
        """Write `schema.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @property
    def threshold(self) -> float:
        """Return the least probability at which the positive class of two is predicted."""
        return float(self.data.get("threshold", 0.5))

    @property
    def class_names(self) -> list[str]:
        """Return the labels as text."""
        return [label_text(label) for label in self.classes]

    def class_text(self, text: str) -> str:
        """Return a raw label as in `class_names`: with numeric classes, `007` is class 7."""
        number = bool(self.classes) and all(type(label) is int for label in self.classes)
        name = label_text(text)
        if number and name:  # a float would not hold integers beyond 2**53
            return str(int(name if name.lstrip("+-").isdigit() else float(name)))
        return name


def load(folder: Path) -> Schema:
    """Read `schema.json`."""
    raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Schema(**{**raw, "columns": [Column(**column) for column in raw["columns"]]})


def label_text(label: object) -> str:
    """Return a label as text: 1, 1.0 and "1.0" are the same label, and so are True and "true"."""
    if isinstance(label, bool):
        return str(label).lower()
    return re.sub(r"^(-?\d+)\.0*$", r"\1", str(label).strip())


def feature_names(wanted: Sequence[str]) -> list[str]:
    """Return unique names without `[`, `]` and `<`, which XGBoost refuses."""
    table = str.maketrans({"[": "(", "]": ")", "<": "("})
    names: dict[str, None] = {}
    for want in wanted:
        base = name = want.translate(table)
        number = 2
        while name in names:
            name, number = f"{base} ({number})", number + 1
        names[name] = None
    return list(names)
