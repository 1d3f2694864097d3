"""A packaged model behind an endpoint or a batch transform job: raw rows in, predictions out.

Calls the team's `features` and `predict`. Must not know what a model is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sm_mlops.tabular import responses, serving
from sm_mlops.tabular import rows as typed_rows
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.rows import Rows


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
    """Return the response to one request: a refusal for a client's fault."""
    return responses.respond(
        served.schema, lambda raw: predictions(served, raw), body, content_type, accept
    )


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
