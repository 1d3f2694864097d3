"""Respond to a request: with predictions, with a refusal, or in a batch transform job line by line.

The refusal of one piece fails the whole job. So in a job with JSON Lines a row that cannot be
predicted is a line with its reason. Must not know how predictions are made.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from sm_mlops.tabular import serving
from sm_mlops.tabular.encoding import Misfit
from sm_mlops.tabular.schema import Schema
from sm_mlops.tabular.serving import Predictions, RequestError

Predict = Callable[[pa.Table], Predictions]


def respond(
    schema: Schema,
    predict: Predict,
    body: str | bytes,
    content_type: str | None,
    accept: str | None,
) -> Any:
    """Return the response to one request. `predict` raises Misfit for a value that does not fit."""
    try:
        form = serving.accepted(accept)
        if serving.in_batch() and serving.are_lines(form.kind, content_type):
            lines = [line for line in serving.text_of(body).split("\n") if line.strip()]
            return serving.response(b"".join(_answers(schema, predict, lines, 1)), 200, form.kind)
        rows = serving.rows(body, content_type, schema)
        return serving.answer(predict(rows), form)
    except (RequestError, Misfit) as error:
        return serving.refusal(error)


def _answers(schema: Schema, predict: Predict, lines: list[str], first: int) -> Iterator[bytes]:
    """Yield a line for each line, of which the first has this number.

    Halves what fails until each bad row is alone, so that a few cost little.
    """
    if not lines:
        return
    try:
        rows = serving.rows("\n".join(lines), serving.LINES, schema)
        if rows.num_rows != len(lines):
            raise RequestError("the line is not a row of values")
        yield serving.to_lines(predict(rows))
    except (RequestError, Misfit) as error:
        if len(lines) > 1:
            half = len(lines) // 2
            yield from _answers(schema, predict, lines[:half], first)
            yield from _answers(schema, predict, lines[half:], first + half)
            return
        found = serving.reason(error)
        text = found["error"].replace("row 1", f"row {first}", 1)
        yield json.dumps({**found, "error": text, "row": first}).encode() + b"\n"
