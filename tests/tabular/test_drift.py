"""When a window differs from training: each check, its limit, and what chance explains."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sm_mlops.tabular import drift, rows
from sm_mlops.tabular.baseline import Predicted, Predictions, Summarizer, Summary
from sm_mlops.tabular.schema import Column, Schema

RANDOM = np.random.default_rng(0)


def summary(kind: str, values: Any, before: Summary | None = None) -> Summary:
    column = Column("x", kind)
    summarizer = Summarizer([column], [before] if before else [])
    summarizer.add(rows.typed(Schema("binary", "y", [], [column], [], {}), pa.table({"x": values})))
    return summarizer.summaries()[0]


def found(kind: str, before: Any, after: Any, mismatched: int = 0, tests: int = 100) -> set[str]:
    """Return the kinds of violations, among as many tests."""
    old = summary(kind, before)
    new = summary(kind, after, old)
    [each] = drift.columns([old], [new], {"x": mismatched}, drift.LIMITS)
    return {test.kind for test in each.tests if test.fails(tests)}


def normal(count: int, shift: float = 0.0) -> list[float]:
    return [float(value) for value in RANDOM.normal(shift, 1, count)]


def picked(count: int, **shares: float) -> list[str]:
    return [str(v) for v in RANDOM.choice(list(shares), count, p=list(shares.values()))]


def gaps(values: list[Any], share: float) -> list[Any]:
    return [None if gap else v for v, gap in
            zip(values, RANDOM.random(len(values)) < share, strict=True)]  # fmt: skip


ZEROS = [0.0] * 900 + list(np.linspace(1, 5, 100))
NAMES = [f"name {i}" for i in range(400)]
DAYS = [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(1000)]
CASES: dict[str, tuple[str, Any, Any, set[str]]] = {
    "the same distribution": ("number", normal(5000), normal(2000), set()),
    "half a standard deviation": ("number", normal(5000), normal(2000, 0.5), {"drift"}),
    "a twentieth of one, in many rows": ("number", normal(50_000), normal(50_000, 0.05), set()),
    "few training rows": ("number", normal(400), normal(500), set()),
    "a shift in few rows": ("number", normal(400), normal(8, 0.9), set()),
    "another scale": ("number", normal(3000), [v * 100 for v in normal(1000)],
                      {"drift", "outside"}),
    "mostly zero": ("number", ZEROS, ZEROS[::2], set()),
    "no longer mostly zero": ("number", ZEROS, list(np.linspace(0, 5, 800)), {"drift"}),
    "always the same": ("number", [3.0] * 500, [3.0] * 500, set()),
    "never the same again": ("number", [3.0] * 500, [4.0] * 500, {"drift", "outside"}),
    "gaps": ("number", gaps(normal(2000), 0.02), gaps(normal(2000), 0.12), {"missing"}),
    "fewer gaps": ("number", gaps(normal(2000), 0.3), normal(2000), set()),
    "nothing at all": ("number", normal(2000), pa.nulls(1000, pa.float64()), {"missing"}),
    "a new category": ("text", picked(3000, a=0.7, b=0.3), picked(1000, a=0.6, b=0.3, c=0.1),
                       {"new", "drift"}),
    "other shares": ("text", picked(3000, a=0.7, b=0.3), picked(1000, a=0.3, b=0.7), {"drift"}),
    "the same shares": ("text", picked(3000, a=0.7, b=0.3), picked(1000, a=0.7, b=0.3), set()),
    "names": ("text", NAMES, [f"other {i}" for i in range(1000)], set()),
    "codes that recur, some unseen": ("text", [f"c{int(v)}" for v in RANDOM.zipf(1.6, 3000)],
                                      [f"c{int(v)}" for v in RANDOM.zipf(1.6, 1000)], set()),
    "no ones any more": ("number", [0.0] * 50 + [1.0] * 950, [0.0] * 1000, {"drift"}),
    "below what most are": ("number", [-60.0] * 80 + [0.0] * 600 + [5.0] * 320,
                            [-60.0] * 80 + [-50.0] * 600 + [5.0] * 320, {"drift"}),
    "booleans": ("boolean", [True, False] * 500, [True] * 900 + [False] * 100, {"drift"}),
    "later dates": ("date", DAYS, [day.replace("2024", "2026") for day in DAYS], set()),
    "dates with gaps": ("date", DAYS, gaps(DAYS, 0.2), {"missing"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_column_violates_only_what_it_should(name: str) -> None:
    kind, before, after, expected = CASES[name]
    assert found(kind, before, after) == expected


def test_values_of_another_kind_violate() -> None:
    after = gaps(normal(1000), 0.1)
    assert "type" in found("number", normal(2000), after, mismatched=100)
    assert "type" not in found("number", normal(2000), after, mismatched=10)


def test_more_tests_need_more_certainty() -> None:
    before, after = [*DAYS[:900], *[None] * 100], [*DAYS[:64], *[None] * 16]
    assert found("date", before, after, tests=1) == {"missing"}
    assert found("date", before, after, tests=10) == set()


def test_a_limit_of_null_is_never_exceeded() -> None:
    old, new = summary("number", normal(1000)), summary("number", normal(1000, 3))
    for limits in ({}, {"number": None}, {"number": {"drift": None, "outside": None}}):
        [each] = drift.columns([old], [new], {}, limits)
        assert not any(test.fails(1) for test in each.tests) and each.worst == 0
        assert {t.kind: t.value for t in each.tests}["drift"] > 1


def test_a_limit_of_zero_is_exceeded_by_what_chance_does_not_explain() -> None:
    old = summary("number", normal(2000))
    zero = {"number": {"missing": 0, "outside": 0, "drift": 0}}
    for after, expected in ((gaps(normal(2000, 0.4), 0.02), {"missing", "drift"}), ([0.1], set())):
        [each] = drift.columns([old], [summary("number", after, old)], {}, zero)
        assert {test.kind for test in each.tests if test.fails(10)} == expected
        assert (each.worst > 1) == bool(expected)


def test_one_outlier_is_not_a_thousandth_of_the_rows() -> None:
    zero = {"number": {"outside": 0}}
    old = summary("number", list(range(20_000)))
    for beyond, expected in ((1, set()), (2_000, {"outside"})):
        after = summary("number", [n % 20_000 for n in range(100_000 - beyond)] + [10**6] * beyond)
        [each] = drift.columns([old], [after], {}, zero)
        assert {test.kind for test in each.tests if test.fails(90)} == expected
    [each] = drift.columns([old], [summary("number", [10**6] * 5_000)], {}, zero)
    assert [test.text[:15] for test in each.tests if test.kind == "outside"] == ["100.0% outside "]


def test_frequent_values_are_counted_among_very_many_others() -> None:
    def merchants(count: int, start: int) -> list[str]:
        return [f"top {i % 20}" if i % 5 < 3 else f"shop {start + i}" for i in range(count)]

    assert found("text", merchants(60_000, 0), merchants(200_000, 10**6), tests=90) == set()


def predictions(values: Any, classes: list[str]) -> Predictions:
    made = Predicted(Schema("binary", "y", classes, [], [], {}))
    made.add(values)
    return made.summary()


def classes(shares: Any) -> Predictions:
    p = np.asarray(shares, np.float64)
    return predictions(np.stack([1 - p, p], axis=1), ["no", "yes"])


@pytest.mark.parametrize(("shift", "names"), [
    (0.0, set()), (0.5, {"predicted class", "probability of yes"})])  # fmt: skip
def test_predicted_classes_and_their_probabilities_drift(shift: float, names: set[str]) -> None:
    before, after = classes(RANDOM.random(500)), classes(RANDOM.random(2000) * (1 - shift) + shift)
    made = drift.predictions(before, after, 0.2)
    assert {each.name for each in made if any(t.fails(len(made)) for t in each.tests)} == names


def test_predicted_quantities_drift() -> None:
    def of(shift: float) -> Predictions:
        return predictions(np.array(normal(1000, shift)), [])

    for shift, fails in ((0.0, False), (1.0, True)):
        [each] = drift.predictions(of(0.0), of(shift), 0.2)
        assert [test.fails(1) for test in each.tests] == [fails]
    assert drift.predictions(of(0.0), Predictions(0), 0.2) == []


@pytest.mark.parametrize("kind", ["number", "text", "date"])
def test_shares_before_and_after_sum_to_one(kind: str) -> None:
    values: dict[str, Any] = {"number": normal(3000), "text": picked(999, a=0.9, b=0.1),
                              "date": DAYS}  # fmt: skip
    old = summary(kind, values[kind])
    [each] = drift.columns([old], [summary(kind, values[kind], old)], {}, drift.LIMITS)
    for part in ("before", "after"):
        assert sum(each.shape[part]) == pytest.approx(1)
    assert len(each.shape.get("names", each.shape["before"])) == len(each.shape["after"])


EXTREMES = {
    "both infinitely far apart": [-1e308, 1e308],
    "as far as a float reaches": [-0.85e308, 0.85e308],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers_are_compared_and_their_distribution_can_be_drawn(name: str) -> None:
    low, high = EXTREMES[name]
    values = [*normal(1000), *[low] * 50, *[high] * 50]
    old = summary("number", values)
    [each] = drift.columns([old], [summary("number", values, old)], {}, drift.LIMITS)
    assert not any(test.fails(1) for test in each.tests)
    edges = each.shape.get("edges", [0, 1])
    assert np.isfinite(edges).all() and (np.diff(edges) > 0).all() and np.ptp(edges) < 1e300
