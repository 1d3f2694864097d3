"""The kind of a column: found in linear time, and the same at the endpoint as in training."""

from __future__ import annotations

import numpy as np
import pytest

from sm_mlops.tabular import kinds


class Counted(str):
    """A text that counts how often any of its kind is hashed."""

    hashed = 0

    def __hash__(self) -> int:
        Counted.hashed += 1
        return super().__hash__()


def hashes(rows: int) -> int:
    texts: list[str | None] = [Counted(f"S{i}" if i % 3 == 0 else i) for i in range(rows)]
    Counted.hashed = 0
    column = kinds._typed_text("code", np.arange(rows), texts, ".")
    assert column.kind == "text"
    return Counted.hashed


@pytest.mark.slow
def test_codes_that_are_mostly_numbers_take_linear_work() -> None:
    assert 0 < hashes(4000) <= 2.1 * hashes(2000)
