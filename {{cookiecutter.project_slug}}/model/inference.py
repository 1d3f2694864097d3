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
           be status 500, which sets off the endpoint's alarms. In a batch transform job with
           JSON Lines, such an object is the line of a row that cannot be predicted.

You may replace this file as long as requests and responses keep this format. SageMaker calls
model_fn and transform_fn.
By itself: python model/inference.py predicts a few test rows, after preprocess.py and train.py,
which it runs first.
"""

from pathlib import Path
from typing import Any

from sm_mlops.tabular import inference

from preprocess import features
from train import load, predict


def model_fn(model_dir: str) -> Any:
    """Load the model and the schema of its rows."""
    return inference.load(model_dir, load, predict, features)


def transform_fn(
    model: Any, body: str | bytes, content_type: str | None, accept: str | None
) -> Any:
    """Return the response to one request."""
    return inference.respond(model, body, content_type, accept)


if __name__ == "__main__":
    from sm_mlops.tabular import local
    from sm_mlops.tabular.failure import run

    run(local.ask, Path(__file__).parent)
