"""What rows look like in numbers, and baseline.json: what a version was trained and measured on.

Typed rows go in, a bounded number at a time, and one summary per column comes out. Memory is
bounded for any number of rows. The same rows in the same order give the same summary, whatever
the sizes of the tables. Must not know where rows come from, or when two summaries differ too much.
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sm_mlops.tabular.encoding import Floats, floats, one_chunk
from sm_mlops.tabular.metrics import decided, thinned
from sm_mlops.tabular.schema import Column, Schema

FILE = "baseline.json"
FORMAT = 1
POINTS = 1000
CATEGORIES = 200
LONGEST = 200  # characters of a category
COUNTED = 50_000  # distinct texts of a column, beyond which it is free text
BLOCK = 2048


@dataclass(frozen=True)
class Summary:
    """A column of typed rows; dates are seconds since 1970."""

    name: str
    kind: str
    """number, boolean, date or text."""
    rows: int
    missing: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    deviation: float | None = None
    points: list[float] = field(default_factory=list)
    """At most 1000 evenly spaced order statistics, min and max included (number, date)."""
    categories: dict[str, int] = field(default_factory=dict)
    """Rows of each of the 200 most frequent values, the most frequent first (boolean, text). No
    text that occurs once, and none at all of free text, in which most values are different: a name
    or an address must not be kept."""
    other: int = 0
    """Rows of other values than `categories`."""
    distinct: int | None = None
    """Different values (boolean, text); None for more than 50,000."""

    @property
    def present(self) -> int:
        """Return how many rows have a value."""
        return self.rows - self.missing


@dataclass(frozen=True)
class Predictions:
    """Predictions for the test rows: of classes, or quantities."""

    rows: int
    classes: dict[str, int] = field(default_factory=dict)
    """Rows for which each class was predicted, in the order of the schema."""
    probabilities: dict[str, list[float]] = field(default_factory=dict)
    """Of each class, evenly spaced order statistics."""
    points: list[float] = field(default_factory=list)
    """Of quantities, evenly spaced order statistics."""


@dataclass(frozen=True)
class Quality:
    """Metrics on the test rows. Which of them the gate judges is no matter of the evaluation."""

    metrics: dict[str, float]
    """All that fit the task and are defined, by name."""


@dataclass(frozen=True)
class Baseline:
    """What a version was trained on (columns) and measured on (predictions, quality)."""

    schema: Schema
    """How raw rows are read: `rows.typed` needs nothing else. Without `features`."""
    rows: int
    columns: list[Summary]
    predictions: Predictions | None = None
    quality: Quality | None = None

    def save(self, folder: Path) -> None:
        """Write `baseline.json`."""
        content = {"format": FORMAT} | asdict(self)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Baseline | None:
    """Read `baseline.json`; return None if there is none, or it is of another format."""
    file = folder / FILE
    return parsed(file.read_bytes()) if file.exists() else None


def parsed(content: bytes) -> Baseline | None:
    """Return what `baseline.json` holds; None if it is of another format."""
    raw = json.loads(content)
    if raw["format"] != FORMAT:
        return None
    schema = raw["schema"] | {"columns": [Column(**column) for column in raw["schema"]["columns"]]}
    return Baseline(
        Schema(**schema),
        raw["rows"],
        [Summary(**column) for column in raw["columns"]],
        Predictions(**raw["predictions"]) if raw["predictions"] else None,
        Quality(raw["quality"]["metrics"]) if raw["quality"] else None,
    )


class Summarizer:
    """Takes typed rows with the columns of a schema, as `rows.typed` returns them.

    A category that `before`, other summaries of these columns, have is counted however rare it is.
    """

    def __init__(self, columns: Sequence[Column], before: Sequence[Summary] = ()) -> None:
        self.rows = 0
        known = {summary.name: summary.categories for summary in before}
        self._columns = [
            _Numbers(c) if c.kind in ("number", "date") else _Values(c, known.get(c.name, {}))
            for c in columns
        ]

    def add(self, table: pa.Table) -> None:
        """Take rows."""
        self.rows += table.num_rows
        for column in self._columns:
            column.add(one_chunk(table[column.name]))

    def summaries(self) -> list[Summary]:
        """Return what all rows so far look like, by column."""
        return [column.summary() for column in self._columns]


class Predicted:
    """Takes (rows,) quantities or (rows, classes) probabilities."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.names = schema, schema.class_names or ["prediction"]
        self.decided = np.zeros(len(schema.classes), np.int64)
        self.values = Summarizer([Column(name, "number") for name in self.names])

    def add(self, values: Floats) -> None:
        """Take predictions."""
        if self.schema.classes:
            chosen = decided(values, self.schema.threshold)
            self.decided += np.bincount(chosen, minlength=len(self.decided))
        columns = [pa.array(column) for column in np.atleast_2d(values.T)]
        self.values.add(pa.Table.from_arrays(columns, self.names))

    def summary(self) -> Predictions:
        """Return what all predictions so far look like."""
        points = {summary.name: summary.points for summary in self.values.summaries()}
        if not self.schema.classes:
            return Predictions(self.values.rows, points=points["prediction"])
        classes = dict(zip(self.names, self.decided.tolist(), strict=True))
        return Predictions(self.values.rows, classes, points)


@dataclass(frozen=True)
class _Moments:
    """How many numbers, their mean, and the sum of squared distances from it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def joined(self, values: Floats) -> "_Moments":
        if not len(values):
            return self
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers such as 1e300
            count, mean = self.count + len(values), values.mean()
            step, share = mean - self.mean, len(values) / count
            squares = np.sum((values - mean) ** 2) + step * step * self.count * share
            return _Moments(count, self.mean + step * share, self.squares + squares)


class _Numbers:
    """A column of numbers or dates.

    Keeps blocks of 2048 sorted values. Two blocks of equal weight become one of twice the weight,
    which has every second value of both. Of many rows only one in two, four, eight or sixteen, at
    random, is put into a block, with as much more weight, because sorting costs the most. So all
    values are kept up to 4095, and beyond that the rank of a point is off by 0.4 percent at most.
    """

    def __init__(self, column: Column) -> None:
        self.name, self.kind = column.name, column.kind
        self.rows = self.missing = 0
        self.least, self.greatest = np.inf, -np.inf
        self.moments = _Moments()
        self.waiting = np.empty(0)
        self.taken = 0
        self.blocks: list[Floats | None] = []
        self.skips: list[int] = []
        self.random = np.random.default_rng(0)  # nosec B311 # a sample

    def add(self, array: pa.Array) -> None:
        if pa.types.is_timestamp(array.type):
            values = floats(array.cast(pa.int64())) / 1e6
        else:
            values = floats(array)
        gaps = np.isnan(values)
        missing = int(np.count_nonzero(gaps))
        self.rows += len(values)
        self.missing += missing
        if missing == len(values):
            return
        known = values[~gaps] if missing else values
        self.least, self.greatest = min(self.least, known.min()), max(self.greatest, known.max())
        known = np.concatenate([self.waiting, known])
        start = 0
        while len(known) - start >= (size := BLOCK << self._level):
            self._take(known[start : start + size])
            start += size
        self.waiting = known[start:].copy()

    @property
    def _level(self) -> int:
        """Return the power of two of the rows of which one is put into the next block."""
        return min(4, self.taken // 32)

    def _take(self, values: Floats) -> None:
        self.moments = self.moments.joined(values)
        level = self._level
        if level:
            each = self.random.integers(1 << level, size=BLOCK)
            values = values.reshape(BLOCK, -1)[np.arange(BLOCK), each]
        self.taken += 1
        self._carry(np.sort(values), level)

    def _carry(self, block: Floats, level: int) -> None:
        while True:
            if level == len(self.blocks):
                self.blocks.append(None)
                self.skips.append(0)
            other = self.blocks[level]
            if other is None:
                self.blocks[level] = block
                return
            both = np.sort(np.concatenate([other, block]), kind="stable")
            block = both[self.skips[level] :: 2].copy()
            self.skips[level] = 1 - self.skips[level]
            self.blocks[level] = None
            level += 1

    def summary(self) -> Summary:
        present = self.rows - self.missing
        if not present:
            return Summary(self.name, self.kind, self.rows, self.missing)
        moments = self.moments.joined(self.waiting)
        return Summary(
            *(self.name, self.kind, self.rows, self.missing),
            *(float(self.least), float(self.greatest)),
            mean=_finite(moments.mean),
            deviation=_finite(np.sqrt(moments.squares / present)),
            points=self._points(present),
        )

    def _points(self, present: int) -> list[float]:
        kept = [(self.waiting, 1)]
        kept += [(b, 1 << level) for level, b in enumerate(self.blocks) if b is not None]
        values = np.concatenate([block for block, _ in kept])
        weights = np.concatenate([np.full(len(block), weight) for block, weight in kept])
        order = np.argsort(values, kind="stable")
        ends = np.cumsum(weights[order])
        points = values[order][np.searchsorted(ends, thinned(present, POINTS), side="right")]
        points[-1] = self.greatest
        points[0] = self.least
        return [float(point) for point in points]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class _Values:
    """A column of booleans or text."""

    def __init__(self, column: Column, known: Collection[str]) -> None:
        self.name, self.kind, self.known = column.name, column.kind, known
        self.rows = self.missing = 0
        self.counts: Counter[str] = Counter()
        self.complete = True  # until there are too many values: then only known ones are counted

    def add(self, array: pa.Array) -> None:
        self.rows += len(array)
        self.missing += array.null_count
        if not (self.complete or self.known):
            return
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        codes = array.indices.drop_null().to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(array.dictionary))
        used = np.flatnonzero(counts)
        if not self.complete or len(used) > COUNTED:
            self._keep_known()
            names = pa.array(sorted(self.known), pa.string())
            places = pc.index_in(names, value_set=array.dictionary.cast(pa.string()))
            for name, place in zip(names.to_pylist(), places.to_pylist(), strict=True):
                if place is not None:
                    self.counts[name] += int(counts[place])
        else:
            values = array.dictionary.take(pa.array(used)).cast(pa.string())
            texts = pc.utf8_slice_codeunits(values, 0, LONGEST + 1)
            # to_pylist takes twenty times as long as to_numpy.
            for text, count in zip(texts.to_numpy(zero_copy_only=False), counts[used], strict=True):
                self.counts[text] += int(count)
            if len(self.counts) > COUNTED:
                self._keep_known()

    def _keep_known(self) -> None:
        self.complete = False
        self.counts = Counter({n: self.counts[n] for n in self.known if n in self.counts})

    def summary(self) -> Summary:
        present = self.rows - self.missing
        categories = self._categories(present)
        return Summary(
            *(self.name, self.kind, self.rows, self.missing),
            categories=categories,
            other=present - sum(categories.values()),
            distinct=len(self.counts) if self.complete else None,
        )

    def _categories(self, present: int) -> dict[str, int]:
        found = {name: self.counts[name] for name in self.known if name in self.counts}
        if not self.complete:
            return found
        text = self.kind == "text"
        if not (text and 2 * len(self.counts) > present):
            ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES]
            found |= {t: n for t, n in ranked if len(t) <= LONGEST and n > int(text)}
        return found


def of(schema: Schema, summarizer: Summarizer) -> Baseline:
    """Return the baseline of the rows that a summarizer took, without predictions and quality."""
    return Baseline(reading(schema), summarizer.rows, summarizer.summaries())


def reading(schema: Schema) -> Schema:
    """Return of a schema what reading requests and judging answers takes."""
    known = {key: schema.data[key] for key in ("threshold",) if key in schema.data}
    return replace(schema, data=known, features=None)
