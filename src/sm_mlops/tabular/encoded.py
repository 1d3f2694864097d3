"""A fitted column, and typed values of it as the numbers that an algorithm sees.

Must not know how it was fitted, or the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import encoding
from sm_mlops.tabular.encoding import Floats


@dataclass(frozen=True)
class EncodedColumn:
    """How one typed column becomes features."""

    name: str
    kind: str
    """number, boolean, date, category, text, or unused."""
    features: list[str] = field(default_factory=list)
    """In order: `value`; days, month...; `code`; mean.0, count, word.x..."""
    categories: list[str] = field(default_factory=list)
    """Code i is categories[i]; every other value has code len(categories)."""
    means: dict[str, list[float]] = field(default_factory=dict)
    """Text to [count, smoothed mean of the target per output] in the training rows."""
    prior: list[float] = field(default_factory=list)
    """The means of an unknown text."""

    def parts(self, values: pa.ChunkedArray) -> list[Floats]:
        """Return one array per feature, NaN where missing."""
        if self.kind in ("number", "boolean"):
            return [encoding.floats(encoding.one_chunk(values))]
        if self.kind == "date":
            dates = encoding.one_chunk(values)
            return [encoding.DATE_PARTS[part](dates) for part in self.features]
        codes, texts = encoding.coded(values)
        if self.kind == "category":
            code = {category: float(i) for i, category in enumerate(self.categories)}
            found = [code.get(text, float(len(code))) for text in texts]
            return [np.array([*found, np.nan])[codes]]
        return [np.append(part, np.nan)[codes] for part in self._of_texts(texts)]

    def _of_texts(self, texts: Sequence[str]) -> list[Floats]:
        wordy = any(feature.startswith("word.") for feature in self.features)
        spaced = encoding.words(texts) if wordy else []
        unseen = [0.0, *self.prior]
        rows = [self.means.get(text, unseen) for text in texts]
        known = np.array(rows, np.float64).reshape(len(texts), len(unseen))
        parts = []
        for feature in self.features:
            name, _, detail = feature.partition(".")
            if name == "mean":
                parts.append(known[:, 1 + int(detail)])
            elif name == "count":
                parts.append(np.log1p(known[:, 0]))
            elif name == "word":
                parts.append(np.array([f" {detail} " in text for text in spaced], np.float64))
            else:
                parts.append(encoding.MEASURES[name](texts))
        return parts
