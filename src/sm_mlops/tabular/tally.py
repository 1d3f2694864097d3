"""What one version answered in a window, counted batch by batch, and judged against its baseline.

Must not know where batches come from, or what other versions answered.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sm_mlops.tabular import captured, drift
from sm_mlops.tabular.baseline import Baseline, Predicted, Summarizer
from sm_mlops.tabular.captured import Batch
from sm_mlops.tabular.drift import Compared, Test
from sm_mlops.tabular.labels import Labelled, Labels

SHAPES = 12  # columns whose distribution a result has


class Tally:
    """The requests, rows, predictions and labels of one version."""

    def __init__(self, version: str, baseline: Baseline | None, labels: Labels) -> None:
        self.version, self.baseline, self.labels = version, baseline, labels
        self.requests = self.refused = self.rows = 0
        self.mismatched: Counter[str] = Counter()
        self.labelled = Labelled()
        if baseline is None:
            return
        self.columns = Summarizer(baseline.schema.columns, baseline.columns)
        self.predicted = Predicted(baseline.schema)

    def add(self, batch: Batch) -> None:
        """Take a batch of captured requests."""
        assert self.baseline is not None
        self.requests += batch.requests
        self.refused += batch.refused
        for table in batch.tables:
            typed, mismatched = captured.typed(self.baseline.schema, table)
            self.rows += typed.num_rows
            self.mismatched.update(mismatched)
            self.columns.add(typed)
        if batch.answers is not None:
            self.predicted.add(batch.answers.values)
            self.labelled.add(batch.answers, self.labels)

    def judged(self, limits: Mapping[str, Any], metric: str) -> dict[str, Any]:
        """Return columns, predictions, quality and violations, as a result shows them."""
        columns, predicted, quality = list[Compared](), list[Compared](), None
        if (known := self.baseline) is not None:
            quality = self.labelled.quality(known, metric, limits.get("quality"))
            if self.requests:
                found = self.columns.summaries()
                columns = drift.columns(known.columns, found, self.mismatched, limits)
            if self.requests and known.predictions is not None:
                answered = self.predicted.summary()
                predicted = drift.predictions(known.predictions, answered, limits.get("prediction"))
        tests = sum(test.limit is not None for c in (*columns, *predicted) for test in c.tests)
        violations = [
            _violation(self.version, each.name, test)
            for each in (*columns, *predicted)
            for test in each.tests
            if test.fails(tests)
        ]
        if quality and (test := quality.pop("test")) is not None:
            quality |= {"worse_by": test.value, "limit": test.limit, "violates": test.fails(1)}
            if test.fails(1):
                violations.append(_violation(self.version, None, test))
        return {
            "columns": self._shown(columns, tests),
            "predictions": self._shown(predicted, tests),
            "quality": quality and {"version": self.version, **quality},
            "violations": violations,
        }

    def _shown(self, found: list[Compared], tests: int) -> list[dict[str, Any]]:
        ranked = sorted(found, key=lambda each: -each.worst)
        return [
            {
                "version": self.version,
                "name": each.name,
                "kind": each.kind,
                "worst": each.worst,
                "tests": [asdict(t) | {"violates": t.fails(tests)} for t in each.tests],
                "shape": each.shape if place < SHAPES else {},
            }
            for place, each in enumerate(ranked)
        ]


def _violation(version: str, column: str | None, test: Test) -> dict[str, Any]:
    place = f"version {version}" if column is None else f"version {version}, {column}"
    return {
        "version": version,
        "kind": test.kind,
        "column": column,
        "value": test.value,
        "limit": test.limit,
        "text": f"{place}: {test.text} (limit {test.limit:g})",
    }
