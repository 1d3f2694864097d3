"""Answer the requests of an endpoint or a batch transform job: raw rows in, predictions out.

Requests:  text/csv, with a header or the columns in the order of schema.json;
           application/jsonlines; application/json: an object, a list of objects or of lists, or
           {"instances": [...]}. In UTF-8. Every column that the model uses is required, but its
           values may be missing (empty, null). Other columns, such as the target, are ignored.
           In a batch transform job, only the first piece of a CSV file has the file's header.
Responses: application/json: {"predictions": [{"prediction": ..., ...}]}; application/jsonlines: one
           such object per line; text/csv: prediction, probability, and a probability per class,
           without a header unless the client accepts `text/csv; header=present` (RFC 4180).
           `probability` is that of the positive class of two, else that of the predicted class.
Errors:    status 400, 406 or 415, and {"error": ..., "column": ..., "row": ...}. An exception would
           be status 500, which rings the alarms of the endpoint. In a batch transform job with
           JSON Lines, such an object is the line of a row that cannot be predicted.

You may replace this file as long as requests and responses keep this format. It needs nothing but
the model folder. SageMaker calls model_fn and transform_fn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sm_mlops.tabular import booster, responses, serving
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.encoding import encode

SMALL = 2000  # rows; up to here one thread is faster than several


@dataclass(frozen=True)
class Model:
    """The booster and the schema of its rows."""

    booster: Any
    schema: schemas.Schema


def model_fn(model_dir: str) -> Model:
    """Load model.ubj and schema.json."""
    folder = Path(model_dir)
    trained = booster.load().Booster(model_file=str(folder / "model.ubj"))
    return Model(trained, schemas.load(folder))


def transform_fn(
    model: Model, body: str | bytes, content_type: str | None, accept: str | None
) -> Any:
    """Return the response to one request."""
    return responses.respond(
        model.schema, lambda rows: predict(model, rows), body, content_type, accept
    )


def predict(model: Model, rows: pa.Table) -> serving.Predictions:
    """Predict raw rows. Raise Misfit with column and row if a value does not fit the schema."""
    matrix = encode(model.schema, rows)
    model.booster.set_param({"nthread": 1 if len(matrix) <= SMALL else 0})
    values = model.booster.inplace_predict(matrix, validate_features=False)
    if model.schema.task == "binary":
        values = np.stack([1 - values, values], axis=1)
    if model.schema.scale != 1:
        values = values.astype(np.float64) * model.schema.scale + model.schema.offset
    return serving.Predictions(values, model.schema.classes)
