"""A packaged model behind an endpoint or a batch transform job: raw rows in, predictions out.

Calls the team's `features` and `predict`. Must not know what a model is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import rows as typed_rows
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular import serving
from sm_mlops.tabular.encoding import Misfit
from sm_mlops.tabular.rows import Rows
from sm_mlops.tabular.serving import RequestError


@dataclass(frozen=True)
class Served:
    """What `load` of the team's train.py returned, and what its rows look like."""

    model: Any
    schema: schemas.Schema
    predict: Callable[[Any, Rows], Any]
    features: typed_rows.Features

    def contributions(self, raw: pa.Table) -> dict[str, Any]:
        """Return what moves the predictions of raw rows, if the model tells; else nothing."""
        tell = getattr(self.model, "contributions", None)
        return dict(tell(next(prepared(self, raw)))) if tell else {}


def load(
    model_dir: str,
    load: Callable[[Path], Any],
    predict: Callable[[Any, Rows], Any],
    features: typed_rows.Features,
) -> Served:
    """Return the model in a folder that Train wrote."""
    folder = Path(model_dir)
    return Served(load(folder), schemas.load(folder), predict, features)


def respond(served: Served, body: str | bytes, content_type: str | None, accept: str | None) -> Any:
    """Return the response to one request: a refusal for a client's fault.

    The refusal of one piece fails a whole batch transform job. So in a job with JSON Lines a row
    that cannot be predicted is a line with its reason.
    """
    try:
        form = serving.accepted(accept)
        if serving.in_batch() and serving.are_lines(form.kind, content_type):
            lines = [line for line in serving.text_of(body).split("\n") if line.strip()]
            return serving.response(b"".join(_answers(served, lines, 1)), 200, form.kind)
        rows = serving.rows(body, content_type, served.schema)
        return serving.answer(predictions(served, rows), form)
    except (RequestError, Misfit) as error:
        return serving.refusal(error)


def _answers(served: Served, lines: list[str], first: int) -> Iterator[bytes]:
    """Yield a line for each line, of which the first has this number.

    Halves what fails until each bad row is alone, so that a few cost little.
    """
    if not lines:
        return
    try:
        rows = serving.rows("\n".join(lines), serving.LINES, served.schema)
        if rows.num_rows != len(lines):
            raise RequestError("the line is not a row of values")
        yield serving.to_lines(predictions(served, rows))
    except (RequestError, Misfit) as error:
        if len(lines) > 1:
            half = len(lines) // 2
            yield from _answers(served, lines[:half], first)
            yield from _answers(served, lines[half:], first + half)
            return
        found = serving.reason(error)
        text = found["error"].replace("row 1", f"row {first}", 1)
        yield json.dumps({**found, "error": text, "row": first}).encode() + b"\n"


def predictions(served: Served, raw: pa.Table) -> serving.Predictions:
    """Predict raw rows. Raise Misfit with column and row if a value does not fit the schema."""
    schema = served.schema
    parts = [checked(served.predict(served.model, rows), rows) for rows in prepared(served, raw)]
    if not parts:
        parts.append(np.empty((0, len(schema.classes)) if schema.classes else 0))
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return serving.Predictions(values, schema.classes, schema.threshold)


def prepared(served: Served, raw: pa.Table) -> Iterator[Rows]:
    """Yield raw rows as `predict` gets them, a bounded number at a time; none at all for none,
    which many algorithms refuse.

    Raises:
        Misfit: A value does not fit its column.
    """
    schema = served.schema
    for rows in Rows(schema, typed_rows.typed(schema, raw)).batches():
        if schema.features is not None:
            made = typed_rows.derived(served.features, rows.table)
            rows = Rows(schema, typed_rows.conformed(made, schema.features))
        yield rows


def checked(values: Any, rows: Rows) -> Any:
    """Return predictions as an array. Raise ValueError for those that are not what is expected."""
    values = np.asarray(values)
    classes = len(rows.schema.classes)
    shape = (len(rows), classes) if classes else (len(rows),)
    if values.shape != shape or values.dtype.kind not in "fiu":
        what = "probabilities, a column per class" if classes else "quantities"
        raise ValueError(
            f"predict of model/train.py returned {values.dtype} of shape {values.shape} for "
            f"{len(rows)} rows; return {what}, of shape {shape}"
        )
    return values.astype(np.float64) if values.dtype.kind != "f" else values
