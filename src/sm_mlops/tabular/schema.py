"""What raw rows look like, as plain JSON: written by Preprocess, read by all other steps.

Must not know how columns are encoded, or anything about files of rows or algorithms.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "schema.json"


@dataclass(frozen=True)
class Column:
    """One column and how its values are written in raw rows."""

    name: str
    kind: str
    """number, boolean, date or text."""
    missing: list[str] = field(default_factory=list)
    """Spellings of a missing value besides text.MISSING (number)."""
    decimal: str = "."
    """The decimal mark of numbers that are written as text; the other one marks thousands."""
    format: str | None = None
    """strptime format of dates that are not ISO 8601."""
    zoned: bool | None = None
    """Whether dates have a time zone; None for times of day."""


@dataclass(frozen=True)
class Schema:
    """The task, the target and the columns. Nothing here is fitted."""

    task: str
    """binary, multiclass or regression."""
    target: str
    classes: list[Any]
    """Labels in class order, as returned (str, int, bool); the positive one last."""
    columns: list[Column]
    """The raw columns in the order of the file, without the target and the dropped ones."""
    dropped: list[str]
    data: dict[str, Any]
    """About the data: sha256, and rows and classes per part."""
    features: list[Column] | None = None
    """The columns that the team's `features` returns; None while it returns its rows unchanged."""
    optional: list[str] = field(default_factory=list)
    """Columns that the library's encoding does not use, so that a request may lack them."""

    def save(self, folder: Path) -> None:
        """Write `schema.json`."""
        write_json(folder / FILE, asdict(self))

    @property
    def inputs(self) -> list[Column]:
        """Return the columns that `fit` and `predict` get."""
        return self.columns if self.features is None else self.features

    @property
    def threshold(self) -> float:
        """Return the least probability at which the positive class of two is predicted."""
        return float(self.data.get("threshold", 0.5))

    @property
    def class_names(self) -> list[str]:
        """Return the labels as text."""
        return [label_text(label) for label in self.classes]

    def class_text(self, text: str) -> str:
        """Return a raw label as in `class_names`: with numeric classes, `007` is class 7, and with
        boolean ones, `True` is class `true`."""
        number = bool(self.classes) and all(type(label) is int for label in self.classes)
        name = label_text(text)
        if number and name:  # a float would not hold integers beyond 2**53
            if name.lstrip("+-").isdigit():
                return str(int(name))
            value = float(name)
            return str(int(value)) if value.is_integer() else name
        boolean = all(isinstance(label, bool) for label in self.classes)
        return name.lower() if boolean else name


def load(folder: Path) -> Schema:
    """Read `schema.json`."""
    raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
    for name in ("columns", "features"):
        if raw[name] is not None:
            raw[name] = [Column(**column) for column in raw[name]]
    return Schema(**raw)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, without NaN; make the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def label_text(label: object) -> str:
    """Return a label as text: 1, 1.0 and "1.0" are the same label, and so are True and "true"."""
    if isinstance(label, bool):
        return str(label).lower()
    return re.sub(r"^(-?\d+)\.0*$", r"\1", str(label).strip())
