"""Compare two summaries of the same columns: what a version was trained on, and a window of rows.

A finding needs both: a difference above its limit, and one that chance does not explain among as
many tests. So millions of rows do not alarm about nothing, and few rows not by noise. Must not know
where rows come from, or who is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from sm_mlops.tabular.baseline import Predictions, Summary
from sm_mlops.tabular.encoding import Floats
from sm_mlops.tabular.text import number

LIMITS: dict[str, Any] = {
    "number": {"missing": 0.05, "outside": 0.05, "drift": 0.15},
    "text": {"missing": 0.05, "new": 0.05, "drift": 0.15},
    "date": {"missing": 0.05},
    "prediction": 0.2,
    "quality": 0.1,
}
"""Defaults by kind of column; those of text are also for booleans.

`missing`, `outside` and `new` are shares of rows more than expected, `drift` and `prediction` are
population stability indices, `quality` is a share of the baseline's metric. A half of a standard
deviation is an index of about 0.23.
"""
CHANCE = 0.01
"""How likely one of all tests of a window may exceed its limit by chance alone."""
BINS = 10
FREQUENT = 0.01  # share of the training rows from which a category has a bin of its own
FEWEST = 5  # rows of such a category
BARS = 20
WIDEST = 1e300  # half a range that can be drawn: greater ones overflow


@dataclass(frozen=True)
class Test:
    """One comparison: the value, its limit (None: none), and how likely chance alone is."""

    __test__ = False  # for pytest

    kind: str
    """missing, type, outside, new, drift or prediction."""
    value: float
    limit: float | None
    chance: float
    text: str
    """Without values of requests: it goes into messages."""
    examples: list[str] = field(default_factory=list)

    def fails(self, tests: int) -> bool:
        """Return whether it exceeds its limit, and not by chance among so many tests."""
        above = self.limit is not None and self.value > self.limit
        return bool(above and self.chance * max(tests, 1) < CHANCE)


def ratio(value: float, limit: float) -> float:
    """Return a value in units of its limit, which may be 0."""
    return value / max(limit, 1e-9)


@dataclass(frozen=True)
class Compared:
    """One column, or one of the predictions, before (in training) and after (in the window)."""

    name: str
    kind: str
    tests: list[Test]
    shape: dict[str, Any]
    """Shares `before` and `after` of ranges (`edges`) or values (`names`)."""

    @property
    def worst(self) -> float:
        """Return the largest value in units of its limit."""
        found = (ratio(test.value, test.limit) for test in self.tests if test.limit is not None)
        return max(found, default=0.0)


def columns(
    before: Sequence[Summary],
    after: Sequence[Summary],
    mismatched: Mapping[str, int],
    limits: Mapping[str, Any],
) -> list[Compared]:
    """Return the columns of both, compared.

    Args:
        mismatched: How many values of a column do not fit its kind, which count as missing.
        limits: As in LIMITS; without a limit, nothing is a finding.
    """
    found = {summary.name: summary for summary in after}
    return [
        _column(each, found[each.name], mismatched.get(each.name, 0), limits)
        for each in before
        if each.name in found
    ]


def _column(
    before: Summary, after: Summary, mismatched: int, limits: Mapping[str, Any]
) -> Compared:
    own = limits.get("text" if before.kind == "boolean" else before.kind) or {}
    tests = []
    if after.rows:
        tests = [_missing(before, after, own), _mismatched(before, after, mismatched, own)]
    if after.present and before.present:
        if before.kind == "number":
            tests += [_outside(before, after, own), _numbers(before, after, own.get("drift"))]
        elif before.kind != "date":
            tests.append(_new(before, after, own))
            if bins := _bins(before, after):
                tests.append(_categories(*bins, limit=own.get("drift"), kind="drift"))
    shape = _shape(before, after) if after.present and before.present else {}
    return Compared(before.name, before.kind, tests, shape)


def predictions(before: Predictions, after: Predictions, limit: float | None) -> list[Compared]:
    """Return the predicted classes and their probabilities, or the quantities, compared."""
    if not before.rows or not after.rows:
        return []
    if before.points:
        if not after.points:
            return []
        old, new = (_quantities("prediction", each.points, each.rows) for each in (before, after))
        test = _numbers(old, new, limit, "prediction")
        return [Compared("prediction", "number", [test], _shape(old, new))]
    names = list(before.classes)
    counts = [np.array([each.classes.get(n, 0) for n in names], float) for each in (before, after)]
    shape = {"names": names} | dict(zip(("before", "after"), map(_shares, counts), strict=True))
    test = _categories(*counts, limit=limit, kind="prediction")
    made = [Compared("predicted class", "text", [test], shape)]
    for name in names[-1:] if len(names) == 2 else names:
        if before.probabilities.get(name) and after.probabilities.get(name):
            old, new = (_quantities(name, e.probabilities[name], e.rows) for e in (before, after))
            test = _numbers(old, new, limit, "prediction")
            made.append(Compared(f"probability of {name}", "number", [test], _shape(old, new)))
    return made


def _quantities(name: str, points: list[float], rows: int) -> Summary:
    return Summary(name, "number", rows, 0, min(points), max(points), points=points)


# Tests


def _missing(before: Summary, after: Summary, limits: Mapping[str, float]) -> Test:
    was, now = before.missing / max(before.rows, 1), after.missing / after.rows
    text = f"{now:.1%} missing, {was:.1%} in training"
    chance = _by_chance(was, before.rows, now, after.rows)
    return Test("missing", now - was, limits.get("missing"), chance, text)


def _mismatched(
    before: Summary, after: Summary, mismatched: int, limits: Mapping[str, float]
) -> Test:
    share = mismatched / after.rows
    what = {"number": "numbers", "boolean": "true or false", "date": "dates"}
    text = f"{share:.1%} of the values are not {what.get(before.kind, 'text')}"
    chance = _by_chance(0.0, before.rows, share, after.rows)
    return Test("type", share, limits.get("missing"), chance, text)


def _outside(before: Summary, after: Summary, limits: Mapping[str, float]) -> Test:
    points, low, high = np.array(after.points), before.min, before.max
    share = float(np.mean((points < low) | (points > high)))
    if len(points) < after.present:  # where an end is alone outside, it may be a single row
        alone = (points[0] < low <= points[1]) + (points[-1] > high >= points[-2])
        share -= alone / len(points)
    expected = min(1.0, 2 / (before.present + 1))  # of rows of the same distribution
    text = f"{share:.1%} outside the training range {number(low or 0)} to {number(high or 0)}"
    chance = _by_chance(expected, before.present, share, after.present)
    return Test("outside", share - expected, limits.get("outside"), chance, text)


def _new(before: Summary, after: Summary, limits: Mapping[str, float]) -> Test:
    """Test the values that are not among the frequent ones of training.

    As many as in training are expected, and as many unseen ones as training has values that occur
    once (Good and Turing's estimate).
    """
    known = sum(after.categories.get(name, 0) for name in before.categories)
    share = 1 - known / after.present
    distinct = before.present if before.distinct is None else before.distinct
    single = min(before.other, max(0, distinct - len(before.categories)))
    expected = min(1.0, (before.other + single) / before.present)
    text = f"{share:.1%} are values that are rare or absent in training"
    unknown = list[str]()
    if before.other == 0:
        unknown = [name for name in after.categories if name not in before.categories]
        text = f"{share:.1%} are values that training never had"
        text += f" (at least {len(unknown)} distinct)" if unknown else ""
    chance = _by_chance(expected, before.present, share, after.present)
    value = max(0.0, share - expected)
    return Test("new", value, limits.get("new"), chance, text, unknown[:3])


def _by_chance(was: float, rows: int, now: float, others: int) -> float:
    """Return how likely as large a rise of a share is if nothing has changed (one-sided)."""
    if now <= was or not rows or not others:
        return 1.0
    both = (was * rows + now * others) / (rows + others)
    spread = np.sqrt(both * (1 - both) * (1 / rows + 1 / others))
    return float(stats.norm.sf((now - was) / spread)) if spread > 0 else 1.0


def _numbers(before: Summary, after: Summary, limit: float | None, kind: str = "drift") -> Test:
    """Test with population stability for the size, and Kolmogorov-Smirnov for chance."""
    old, new = np.array(before.points), np.array(after.points)
    deciles = np.quantile(old, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges, times = np.unique(deciles, return_counts=True)
    # A value that many rows have gets a bin of its own, apart from what is below it.
    edges = np.union1d(edges, np.nextafter(edges[times > 1], -np.inf))
    shares = [np.diff(below(each, edges), prepend=0.0, append=1.0) for each in (old, new)]
    index = stability(shares[0] * before.present, shares[1] * after.present)
    at = np.union1d(old, new)
    apart = float(np.max(np.abs(below(old, at) - below(new, at))))
    # Points between which others lie know a share only this well.
    for points, summary in ((old, before), (new, after)):
        apart -= 1 / len(points) if len(points) < summary.present else 0.0
    sizes = before.present, after.present
    size = max(1, round(sizes[0] * sizes[1] / sum(sizes)))
    chance = float(stats.kstwo.sf(apart, size)) if apart > 0 else 1.0
    middle = [number(float(np.median(each))) for each in (new, old)]
    text = f"population stability index {index:.3f}, median {middle[0]}, {middle[1]} before"
    return Test(kind, index, limit, chance, text)


def below(points: Floats, at: Floats) -> Floats:
    """Return the share of rows at or below each value, of evenly spaced order statistics."""
    return np.searchsorted(points, at, side="right") / len(points)


def stability(before: Any, after: Any, least: float = 0.0) -> float:
    """Return the population stability index of two counts of rows by bin.

    Without what chance alone adds to it on average, which is much where rows are few. A share
    counts as `least` at least.
    """
    size = len(before)
    p, q = (np.maximum((each + 0.5) / (each.sum() + 0.5 * size), least) for each in (before, after))
    noise = (size - 1) * (1 / max(before.sum(), 1) + 1 / max(after.sum(), 1))
    return max(0.0, float(np.sum((q - p) * np.log(q / p)) - noise))


def _bins(before: Summary, after: Summary) -> tuple[Floats, Floats] | None:
    """Return the rows of each frequent category, and of all others; None for free text."""
    least = max(FEWEST, FREQUENT * before.present)
    names = [name for name, count in before.categories.items() if count >= least]
    if not names:
        return None
    counts = []
    for each in (before, after):
        own = [each.categories.get(name, 0) for name in names]
        counts.append(np.array([*own, each.present - sum(own)], float))
    return counts[0], counts[1]


def _categories(before: Floats, after: Floats, *, limit: float | None, kind: str) -> Test:
    """Test with population stability for the size, and chi-square for chance."""
    used = before + after > 0
    chance = 1.0
    if used.sum() > 1:
        chance = float(stats.chi2_contingency(np.stack([before, after])[:, used]).pvalue)
    index = stability(before, after, FREQUENT)  # new values have a limit of their own
    return Test(kind, index, limit, chance, f"population stability index {index:.3f}")


# What a reader sees


def _shape(before: Summary, after: Summary) -> dict[str, Any]:
    if before.kind not in ("number", "date"):
        both = {
            n: _of(before, n) + _of(after, n) for n in {**before.categories, **after.categories}
        }
        names = sorted(both, key=lambda name: -both[name])[:BINS]
        shares = [[_of(each, name) for name in names] for each in (before, after)]
        if max(1 - sum(each) for each in shares) > 1e-9:
            names = [*names, "all others"]
            shares = [[*each, max(0.0, 1 - sum(each))] for each in shares]
        return {"names": names, "before": shares[0], "after": shares[1]}
    old, new = np.array(before.points), np.array(after.points)
    values = np.union1d(old, new)
    if len(values) <= BINS:
        counts = [np.array([np.sum(each == value) for value in values]) for each in (old, new)]
        names = [number(float(value)) for value in values]
        return {"names": names, "before": _shares(counts[0]), "after": _shares(counts[1])}
    both = np.concatenate([old, new])
    low, high = np.quantile(both, (0.005, 0.995), method="inverted_cdf")
    if not high > low:
        low, high = values[0], values[-1]
    if high / 2 - low / 2 > WIDEST:
        return {}
    edges = np.linspace(low, high, BARS + 1)
    counts = [np.histogram(np.clip(each, low, high), edges)[0] for each in (old, new)]
    return {"edges": edges.tolist(), "before": _shares(counts[0]), "after": _shares(counts[1])}


def _of(summary: Summary, name: str) -> float:
    return summary.categories.get(name, 0) / summary.present


def _shares(counts: Any) -> list[float]:
    return [float(share) for share in counts / max(counts.sum(), 1)]
