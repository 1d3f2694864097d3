"""Learn from the training rows how each typed column becomes features.

Must not know about files or about any algorithm.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sm_mlops.tabular import encoding
from sm_mlops.tabular.encoded import EncodedColumn
from sm_mlops.tabular.encoding import DATE_PARTS, Codes, Floats

FOLDS = 5
SMOOTHING = 10.0
MOST_CATEGORIES = 256  # beyond that, a column of strings counts as text
MOST_MEANS = 50_000  # distinct texts that are kept with their mean target
MOST_WORDS = 32
MOST_OUTPUTS = 10  # classes with a mean of their own


@dataclass(frozen=True)
class Fitted:
    """A column, and what replaces its encoded features in the training rows."""

    column: EncodedColumn
    summary: dict[str, Any]
    train: dict[str, Floats] = field(default_factory=dict)
    """Feature to (training rows,) values computed out of fold: no row sees its own label."""


def fit_column(
    name: str, kind: str, values: pa.ChunkedArray, outputs: Floats, folds: Codes
) -> Fitted:
    """Fit the encoding of a typed column on the training rows.

    Args:
        outputs: (rows, outputs), the target as numbers, one column per class beyond two.
        folds: (rows,) of 0..FOLDS-1.
    """
    if kind == "text":
        return _fit_strings(name, *encoding.coded(values), outputs, folds)
    return _fit_date(name, values) if kind == "date" else _fit_number(name, kind, values)


def _unused(name: str, why: str, summary: dict[str, Any]) -> Fitted:
    return Fitted(EncodedColumn(name, "unused"), summary | {"kind": "unused", "note": why})


def _fit_number(name: str, kind: str, rows: pa.ChunkedArray) -> Fitted:
    values = encoding.floats(encoding.one_chunk(rows))
    finite = values[~np.isnan(values)]
    missing = 1 - len(finite) / max(len(values), 1)
    summary = {"name": name, "kind": kind, "missing": missing}
    if not len(finite):
        return _unused(name, "no value in the training rows", summary)
    low, high = float(finite.min()), float(finite.max())
    number = len(np.unique(finite[:1_000_000]))
    mean = float((finite / len(finite)).sum())  # a sum of the values may overflow
    summary |= {"distinct": number, "low": low, "high": high, "mean": mean}
    if low == high and len(finite) == len(values):
        return _unused(name, "the same in every training row", summary)
    if _numbers_rows(values, number) and high - low < 2 * len(values):
        return _unused(name, "numbers the rows", summary)
    return Fitted(EncodedColumn(name, kind, ["value"]), summary)


def _numbers_rows(values: Floats, distinct: int) -> bool:
    """Return whether these are whole numbers that grow from row to row, without a gap."""
    if not 20 < len(values) == distinct:
        return False
    return bool(np.all(np.diff(values) > 0)) and bool(np.all(values == np.floor(values)))


def _fit_date(name: str, rows: pa.ChunkedArray) -> Fitted:
    dates = encoding.one_chunk(rows)
    known = dates.drop_null()
    summary = {"name": name, "kind": "date", "missing": dates.null_count / max(len(dates), 1)}
    if not len(known):
        return _unused(name, "no value in the training rows", summary)
    found = pc.min_max(known).values()
    ends = [str(np.datetime64(end.value, "us"))[:19].replace("T", " ") for end in found]
    if all(end.endswith(" 00:00:00") for end in ends):
        ends = [end[:10] for end in ends]
    summary |= {"distinct": len(known.unique()), "low": ends[0], "high": ends[1]}
    varying = [p for p, part in DATE_PARTS.items() if len(np.unique(part(known)[:100_000])) > 1]
    if not varying and len(known) == len(dates):
        return _unused(name, "the same in every training row", summary)
    return Fitted(EncodedColumn(name, "date", varying or ["days"]), summary)


def _fit_strings(
    name: str, codes: Codes, values: list[str], outputs: Floats, folds: Codes
) -> Fitted:
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
        return _unused(name, "no value in the training rows", summary)
    if used == 1 and rows == len(codes):
        return _unused(name, "the same in every training row", summary)
    if used <= MOST_CATEGORIES and used <= max(2, rows / 2):
        rare = 2 if rows < 1000 else 5
        frequent = [i for i in order if count[i] >= rare]
        categories = sorted(values[i] for i in (frequent or order[:1]))
        return Fitted(EncodedColumn(name, "category", ["code"], categories), summary)
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
    if used < 0.9 * rows:  # values recur, so their means in the past are informative
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
        features = ["length"]  # whether there is a text at all may be informative
    if not features:
        return _unused(name, "identifies the row", summary)
    column = EncodedColumn(name, "text", features, means=means, prior=prior)
    return Fitted(column, summary, train)


def _sums(codes: Codes, size: int, outputs: Floats) -> Floats:
    seen = codes >= 0
    return np.stack(
        [np.bincount(codes[seen], outputs[seen, k], size) for k in range(outputs.shape[1])], axis=1
    )


def _out_of_fold(codes: Codes, size: int, outputs: Floats, folds: Codes) -> dict[str, Floats]:
    """Return each training row's count and means, computed from the rows of the other folds."""
    result = np.full((len(codes), 1 + outputs.shape[1]), np.nan)
    both = np.hstack([np.ones((len(codes), 1)), outputs])
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
    """Return the names of the MEASURES and words that say something about the target."""
    seen = np.flatnonzero(codes >= 0)
    if len(seen) > 100_000:
        seen = seen[:: len(seen) // 100_000 + 1]
    used, at = np.unique(codes[seen], return_inverse=True)
    texts: list[str | None] = [values[i] for i in used]
    # For texts that hardly ever repeat, such as ids, these must correlate with the target.
    repeats = len(used) < 0.9 * len(seen)
    features = []
    for feature, measure in encoding.MEASURES.items():
        values_of = measure(texts)
        known = ~np.isnan(values_of)[at]
        varies = known.sum() > len(seen) / 2 and len(np.unique(values_of[~np.isnan(values_of)])) > 1
        if varies and (repeats or _correlates(values_of[at][known], outputs[seen][known])):
            features.append(feature)
    return features + _telling_words(encoding.words(texts), at, outputs[seen])


def _correlates(values: Floats, outputs: Floats) -> bool:
    """Return whether values correlate with any output beyond chance (3 standard errors)."""
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
    deviation = np.sqrt(np.maximum(rows * share * (1 - share), 1e-9))
    for k in range(outputs.shape[1]):
        total = np.bincount(at, centred[:, k], len(spaced))
        together = np.bincount(word, total[owner], len(vocabulary))
        spread = deviation * (centred[:, k].std() + 1e-12)
        strength = np.maximum(strength, np.abs(together) / spread)
    strength[(frequency < max(5, rows / 1000)) | (share > 0.99)] = 0
    bar = 3.0 + 0.25 * np.log10(max(len(vocabulary), 1))
    best = np.lexsort((np.array(vocabulary), -strength))[:MOST_WORDS]
    return [f"word.{vocabulary[i]}" for i in best if strength[i] > bar]


def target_outputs(task: str, labels: Codes | Floats) -> Floats:
    """Return (rows, outputs): the target as a number, or one per class beyond two."""
    if task == "regression":
        low, high = np.quantile(labels, [0.001, 0.999])  # an outlier must not move every mean
        return np.clip(labels, low, high)[:, None].astype(np.float64)
    if task == "binary":
        return labels[:, None].astype(np.float64)
    frequent = np.argsort(-np.bincount(labels.astype(np.int64)), kind="stable")[:MOST_OUTPUTS]
    return np.stack([(labels == k).astype(np.float64) for k in np.sort(frequent)], axis=1)
