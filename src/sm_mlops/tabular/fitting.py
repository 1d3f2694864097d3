"""Learns from the training rows how each raw column becomes features, and what the target is.

Sees the target of the training rows only. Must not know about files or about XGBoost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sm_mlops.tabular.encoding import (
    BOOLEANS,
    DATE_FORMATS,
    DATE_PARTS,
    Codes,
    Floats,
    booleans,
    date_part,
    distinct,
    first_number,
    is_numeric,
    labels,
    numbers,
    one_chunk,
    parse_dates,
    parse_number,
    timestamps,
    words,
)
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.schema import Column, label_text

FOLDS = 5
SMOOTHING = 10.0
MOST_CATEGORIES = 256  # beyond that, a column of strings counts as text
MOST_MEANS = 50_000  # distinct texts remembered with their mean target
MOST_WORDS = 32
LARGEST = 1e100  # of a quantity to predict: its square, summed, is still a number
MOST_OUTPUTS = 10  # classes that get a mean of their own


@dataclass(frozen=True)
class Target:
    """The label of every row: the class's index, or the quantity itself; NaN if missing."""

    task: str
    classes: list[Any]
    values: Floats


@dataclass(frozen=True)
class Fitted:
    """A column, and what replaces its encoded features in the training rows."""

    column: Column
    summary: dict[str, Any]
    train: dict[str, Floats] = field(default_factory=dict)
    """Feature to (training rows,) values computed out of fold: no row sees its own label."""


# The target


def read_target(values: pa.ChunkedArray, name: str, task: str, positive: str | None) -> Target:
    """Find the task (unless given) and the classes. DataError, or BadLabel naming a row's index."""
    codes, texts = labels(values)
    used = np.bincount(codes[codes >= 0], minlength=len(texts))
    present = [(i, t) for i, t in enumerate(texts) if t is not None and used[i]]
    if not present:
        raise DataError(f"column '{name}': the target has no value in any row")
    parsed = np.full(len(texts) + 1, np.nan)
    wrong: int | None = None
    for i, text in present:
        try:
            parsed[i] = parse_number(text)
        except ValueError:
            wrong = i
            break
    rows = int(sum(used[i] for i, _ in present))
    if task == "auto":
        boolean = pa.types.is_boolean(values.type)
        quantities = None if wrong is not None or boolean else parsed[[i for i, _ in present]]
        task = infer_task(quantities, len({label_text(t) for _, t in present}), rows)
    if task == "regression":
        if wrong is not None:
            raise BadLabel(int(np.argmax(codes == wrong)), texts[wrong] or "", "a number")
        parsed[np.isinf(parsed)] = np.nan
        if np.nanmax(np.abs(parsed), initial=0) > LARGEST:
            raise DataError(
                f"column '{name}': the target has values beyond {LARGEST:.0e}; scale it"
            )
        if len(np.unique(parsed[~np.isnan(parsed)])) < 2:
            raise DataError(f"column '{name}': the target has the same value in every row")
        return Target(task, [], parsed[codes])
    numeric = wrong is None
    named = {i: label_text(text) for i, text in present}
    names = sorted(set(named.values()))  # by text, where two numbers are one float
    if numeric:
        names.sort(key=parse_number)
    if len(names) == 1:
        raise DataError(f"column '{name}': every row has the same class '{names[0]}'")
    if len(names) > max(2, rows / 2):
        raise DataError(
            f"column '{name}': {len(names)} classes in {rows} rows are too many to learn; "
            "is data.target in mlops.yaml the right column?"
        )
    if task == "binary" and len(names) > 2:
        raise DataError(f"column '{name}': {len(names)} classes, but data.task is binary")
    count = {n: int(sum(used[i] for i, label in named.items() if label == n)) for n in names}
    if task == "binary":
        names = _positive_last(names, count, name, positive)
    index = {label: float(i) for i, label in enumerate(names)}
    table = np.full(len(texts) + 1, np.nan)
    for i, label in named.items():
        table[i] = index[label]
    classes: list[Any] = list(names)
    if all(str(int(n)) == n for n in names if n.lstrip("-").isdigit()) and numeric:
        classes = [int(n) if n.lstrip("-").isdigit() else n for n in names]
    elif pa.types.is_boolean(values.type):
        classes = [n == "true" for n in names]
    return Target(task, classes, table[codes])


class BadLabel(DataError):
    """A label that does not fit the task; `row` is its index."""

    def __init__(self, row: int, value: str, expected: str) -> None:
        self.row, self.value, self.expected = row, value, expected
        super().__init__(f"{value!r} is not {expected}")


def infer_task(quantities: Floats | None, classes: int, rows: int) -> str:
    """Infer it: two values are classes, as are texts, and up to 20 whole numbers that repeat."""
    if classes <= 2:
        return "binary"
    if quantities is None:
        return "multiclass"
    whole = bool(np.all(quantities == np.floor(quantities)))
    return "multiclass" if whole and classes <= 20 and rows >= 5 * classes else "regression"


def _positive_last(
    names: list[str], count: dict[str, int], target: str, positive: str | None
) -> list[str]:
    """Put the class last whose probability is reported: as configured; of 0/1, false/true the
    latter; else the rarer one."""
    if positive is not None:
        text = label_text(positive)
        if text not in names:
            raise DataError(
                f"column '{target}': no class '{text}' (data.positive in mlops.yaml); "
                f"there are: {', '.join(names)}"
            )
        return [n for n in names if n != text] + [text]
    lower = [n.lower() for n in names]
    if all(n in BOOLEANS for n in lower):
        return sorted(names, key=lambda n: BOOLEANS[n.lower()])
    if all(_is_number(n) for n in names):
        return names
    return sorted(names, key=lambda n: -count[n])


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


# The columns


def fit_column(
    name: str,
    values: pa.ChunkedArray,
    train: npt.NDArray[np.bool_],
    outputs: Floats,
    folds: Codes,
) -> Fitted:
    """Find the kind of a column (from all rows), and what it needs (from the training rows).

    outputs: (training rows, outputs), the target as numbers, one column per class beyond two;
    folds: (training rows,) of 0..FOLDS-1. DataError for a column without any value.
    """
    array = one_chunk(values)
    kind = array.type
    if array.null_count == len(array) or pa.types.is_null(kind):
        raise DataError(
            f"column '{name}' is empty in every row; fill it, or name it in data.drop of mlops.yaml"
        )
    keep = pa.array(train)
    if is_numeric(kind) or pa.types.is_duration(kind):
        return _fit_number(Column(name, "number"), pa.chunked_array([array.filter(keep)]))
    if pa.types.is_boolean(kind):
        return _fit_number(Column(name, "boolean"), pa.chunked_array([array.filter(keep)]))
    if pa.types.is_temporal(kind):
        form = "%H:%M:%S" if pa.types.is_time(kind) else None
        return _fit_date(Column(name, "date", format=form), pa.chunked_array([array.filter(keep)]))
    codes, texts = distinct(pa.chunked_array([array]))
    known = [t for t in texts if t is not None]
    if not known:
        raise DataError(
            f"column '{name}' is empty in every row; fill it, or name it in data.drop of mlops.yaml"
        )
    rows = pa.chunked_array([array.filter(keep)])
    column = _typed_text(name, known, codes, texts)
    if column.kind == "number":
        return _fit_number(column, rows)
    if column.kind == "boolean":
        return _fit_number(column, rows)
    if column.kind == "date":
        return _fit_date(column, rows)
    return _fit_strings(name, codes[train], texts, outputs, folds)


def _typed_text(name: str, known: list[str], codes: Codes, texts: list[str | None]) -> Column:
    """Find numbers, booleans or dates written as text; else return a column of kind text."""
    sample = known[:1000]
    numeric = sum(map(_is_number, sample)) / len(sample)
    if numeric > 0.5:
        others = sorted({t for t in known if not _is_number(t)})
        if not others:
            return Column(name, "number")
        strange = {i for i, t in enumerate(texts) if t in set(others)}
        share = np.isin(codes, list(strange)).mean()
        if len(others) <= 3 and len(known) >= 10 * len(others) and share < 0.5:
            return Column(name, "number", missing=others)
    if {t.lower() for t in known} <= set(BOOLEANS) and len({t.lower() for t in known}) <= 2:
        values = {BOOLEANS[t.lower()] for t in known}
        if len(values) == len({t.lower() for t in known}):
            return Column(name, "boolean")
    if sum(any(c.isdigit() for c in t) for t in sample) == len(sample):
        probe = pa.array(sample, pa.string())
        for form in (None, *DATE_FORMATS):
            if parse_dates(probe, form).null_count == 0:
                everything = pa.array(known, pa.string())
                if parse_dates(everything, form).null_count == 0:
                    return Column(name, "date", format=form)
    return Column(name, "text")


def _unused(column: Column, why: str, summary: dict[str, Any]) -> Fitted:
    return Fitted(
        Column(column.name, "unused", why=why), {**summary, "kind": "unused", "note": why}
    )


def _fit_number(column: Column, rows: pa.ChunkedArray) -> Fitted:
    if column.kind == "boolean":
        values = booleans(rows, column.name)
    else:
        values = numbers(rows, column.name, column.missing)
    finite = values[np.isfinite(values)]
    summary = {"name": column.name, "kind": column.kind, **_missing(values)}
    if not len(finite):
        return _unused(column, "no value in the training rows", summary)
    low, high = float(finite.min()), float(finite.max())
    number = len(np.unique(finite[:1_000_000]))
    summary |= {"distinct": number, "low": low, "high": high, "mean": float(finite.mean())}
    if low == high and len(finite) == len(values):
        return _unused(column, "the same in every training row", summary)
    whole = column.kind == "number" and pa.types.is_integer(rows.type)
    steps = np.diff(values) if whole and len(values) == number > 20 else np.zeros(1)
    if bool(np.all(steps > 0)) and high - low < 2 * len(values):
        return _unused(column, "numbers the rows", summary)
    return Fitted(_with(column, ["value"]), summary)


def _fit_date(column: Column, rows: pa.ChunkedArray) -> Fitted:
    seconds = timestamps(rows, column.name, column.format)
    known = seconds[~np.isnan(seconds)]
    summary = {"name": column.name, "kind": "date", **_missing(seconds)}
    if not len(known):
        return _unused(column, "no value in the training rows", summary)
    ends = [str(np.datetime64(int(s), "s")).replace("T", " ") for s in (known.min(), known.max())]
    if all(end.endswith(" 00:00:00") for end in ends):
        ends = [end[:10] for end in ends]
    summary |= {"distinct": len(np.unique(known)), "low": ends[0], "high": ends[1]}
    varying = [p for p in DATE_PARTS if len(np.unique(date_part(known, p)[:100_000])) > 1]
    if not varying and len(known) == len(seconds):
        return _unused(column, "the same in every training row", summary)
    return Fitted(_with(column, varying or ["days"]), summary)


def _with(column: Column, features: list[str], **more: Any) -> Column:
    return Column(**{**column.__dict__, "features": features, **more})


def _missing(values: Floats) -> dict[str, Any]:
    return {"missing": float(np.isnan(values).mean()) if len(values) else 0.0}


def _fit_strings(
    name: str, codes: Codes, texts: list[str | None], outputs: Floats, folds: Codes
) -> Fitted:
    """Fit a column of strings; `codes` are those of the training rows, into `texts`."""
    # Spellings that differ in blanks only share a text: give them one code.
    index: dict[str, int] = {}
    same = [-1 if t is None else index.setdefault(t, len(index)) for t in texts]
    codes = np.array([*same, -1], np.int64)[codes]
    values = list(index)
    count = np.bincount(codes[codes >= 0], minlength=len(values))
    used, rows = int((count > 0).sum()), int(count.sum())
    order = np.argsort(-count, kind="stable")
    summary = {
        "name": name,
        "kind": "category",
        "missing": 1 - rows / max(len(codes), 1),
        "distinct": used,
        "top": [[values[i][:40], int(count[i])] for i in order[:3] if count[i]],
    }
    if used == 0:
        return _unused(Column(name, "text"), "no value in the training rows", summary)
    if used == 1 and rows == len(codes):
        return _unused(Column(name, "text"), "the same in every training row", summary)
    if used <= MOST_CATEGORIES and used <= max(2, rows / 2):
        rare = 2 if rows < 1000 else 5
        frequent = [i for i in order if count[i] >= rare]
        categories = sorted(values[i] for i in (frequent or order[:1]))
        column = Column(name, "category", features=["code"], categories=categories)
        return Fitted(column, summary)
    return _fit_text(name, values, codes, count, outputs, folds, {**summary, "kind": "text"})


def _fit_text(
    name: str,
    values: list[str],
    codes: Codes,
    count: Codes,
    outputs: Floats,
    folds: Codes,
    summary: dict[str, Any],
) -> Fitted:
    features: list[str] = []
    means: dict[str, list[float]] = {}
    prior: list[float] = []
    train: dict[str, Floats] = {}
    rows, used = int(count.sum()), int((count > 0).sum())
    if used < 0.9 * rows:  # values come again, so what happened to them before says something
        prior = [float(m) for m in outputs.mean(axis=0)]
        train = _out_of_fold(codes, len(values), outputs, folds)
        full = _sums(codes, len(values), outputs)
        kept = [i for i in np.argsort(-count, kind="stable")[:MOST_MEANS] if count[i] > 1]
        for i in kept:
            smooth = (full[i] + SMOOTHING * np.array(prior)) / (count[i] + SMOOTHING)
            means[values[i]] = [float(count[i]), *(float(f"{m:.7g}") for m in smooth)]
        features += [f"mean.{k}" for k in range(outputs.shape[1])] + ["count"]
    features += _text_features(values, codes, outputs)
    if not features and rows < len(codes):
        features = ["length"]  # whether there is a text at all may say something
    column = Column(name, "text", features=features, means=means, prior=prior)
    if not features:
        return _unused(column, "identifies the row", summary)
    return Fitted(column, summary, train)


def _sums(codes: Codes, size: int, outputs: Floats) -> Floats:
    seen = codes >= 0
    return np.stack(
        [np.bincount(codes[seen], outputs[seen, k], size) for k in range(outputs.shape[1])], axis=1
    )


def _out_of_fold(codes: Codes, size: int, outputs: Floats, folds: Codes) -> dict[str, Floats]:
    """Compute each training row's count and means from the rows of the other folds alone."""
    result = np.full((len(codes), 1 + outputs.shape[1]), np.nan)
    ones = np.ones((len(codes), 1))
    both = np.hstack([ones, outputs])
    everything = _sums(codes, size, both)
    totals, seen = both.sum(axis=0), codes >= 0
    for fold in range(FOLDS):
        here = folds == fold
        inside = here & seen
        rest = everything - _sums(np.where(here, codes, -1), size, both)
        away = totals - both[here].sum(axis=0)
        prior = away[1:] / max(away[0], 1.0)
        mean = (rest[:, 1:] + SMOOTHING * prior) / (rest[:, :1] + SMOOTHING)
        known = np.log1p(rest[:, :1] * FOLDS / (FOLDS - 1))
        result[inside] = np.hstack([known, mean])[codes[inside]]
    named = {f"mean.{k}": result[:, 1 + k] for k in range(outputs.shape[1])}
    return {**named, "count": result[:, 0]}


def _text_features(values: list[str], codes: Codes, outputs: Floats) -> list[str]:
    """Return length, word count, first number, and the words that go together with the target."""
    seen = np.flatnonzero(codes >= 0)
    if len(seen) > 100_000:
        seen = seen[:: len(seen) // 100_000 + 1]
    used, at = np.unique(codes[seen], return_inverse=True)
    texts: list[str | None] = [values[i] for i in used]
    spaced = words(texts)
    candidates = {
        "number": first_number(texts),
        "length": np.array([len(t or "") for t in texts], np.float64),
        "words": np.array([len((t or "").split()) for t in texts], np.float64),
    }
    # Of texts that hardly ever repeat, such as ids, these must show that they say something.
    repeats = len(used) < 0.9 * len(seen)
    features = []
    for feature, values_of in candidates.items():
        known = ~np.isnan(values_of)[at]
        varies = known.sum() > len(seen) / 2 and len(np.unique(values_of[~np.isnan(values_of)])) > 1
        if varies and (repeats or _correlates(values_of[at][known], outputs[seen][known])):
            features.append(feature)
    return features + _telling_words(spaced, at, outputs[seen])


def _correlates(values: Floats, outputs: Floats) -> bool:
    """Return whether values go together with any output beyond chance (3 standard errors)."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = [abs(np.corrcoef(ranks, outputs[:, k])[0, 1]) for k in range(outputs.shape[1])]
    return bool(np.nanmax([*found, 0.0]) * np.sqrt(len(values)) > 3)


def _telling_words(spaced: list[str], at: Codes, outputs: Floats) -> list[str]:
    """Return up to MOST_WORDS words whose presence correlates with an output far beyond chance."""
    rows = len(at)
    index: dict[str, int] = {}
    pairs = [
        (i, index.setdefault(token, len(index)))
        for i, text in enumerate(spaced)
        for token in set(text.split())
    ]
    vocabulary = list(index)
    if not pairs:
        return []
    owner, word = np.array(pairs).T
    frequency = np.bincount(word, np.bincount(at, minlength=len(spaced))[owner], len(vocabulary))
    centred = outputs - outputs.mean(axis=0)
    strength = np.zeros(len(vocabulary))
    share = frequency / rows
    for k in range(outputs.shape[1]):
        total = np.bincount(at, centred[:, k], len(spaced))
        together = np.bincount(word, total[owner], len(vocabulary))
        spread = np.sqrt(np.maximum(rows * share * (1 - share), 1e-9)) * (
            centred[:, k].std() + 1e-12
        )
        strength = np.maximum(strength, np.abs(together) / spread)
    strength[(frequency < max(5, rows / 1000)) | (share > 0.99)] = 0
    bar = 3.0 + 0.25 * np.log10(max(len(vocabulary), 1))
    best = np.lexsort((np.array(vocabulary), -strength))[:MOST_WORDS]
    return [f"word.{vocabulary[i]}" for i in best if strength[i] > bar]


def target_outputs(target: Target, train: Sequence[int] | Codes) -> Floats:
    """Return (training rows, outputs) to take means of: the target, or one per class beyond two."""
    values = target.values[train]
    if target.task == "regression":
        low, high = np.quantile(values, [0.001, 0.999])  # one wild value must not move every mean
        return np.clip(values, low, high)[:, None]
    if target.task == "binary":
        return values[:, None]
    frequent = np.argsort(-np.bincount(values.astype(np.int64)), kind="stable")[:MOST_OUTPUTS]
    return np.stack([(values == k).astype(np.float64) for k in np.sort(frequent)], axis=1)
