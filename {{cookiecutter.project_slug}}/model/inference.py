"""Predict from raw rows. SageMaker's inference toolkit calls model_fn, input_fn, predict_fn and
output_fn.

Requests:  text/csv, with a header or the columns in the order of schema.json;
           application/jsonlines; application/json: an object, a list of objects or of lists, or
           {"instances": [...]}. Every column that the model uses is required, but its values may be
           missing (empty, null). Other columns, such as the target, are ignored.
Responses: application/json: {"predictions": [{"prediction": ..., ...}]}; application/jsonlines: one
           such object per line; text/csv: prediction, probability, and a probability per class,
           without a header unless the client accepts `text/csv; header=present` (RFC 4180).
           `probability` is that of the positive class of two, else that of the predicted class.
Errors:    RequestError, which becomes status 400 and names column and row.

You may replace this file as long as requests and responses keep this format. It needs nothing but
the model folder.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
from sm_mlops.tabular import booster
from sm_mlops.tabular import schema as schemas
from sm_mlops.tabular.encoding import Misfit, encode, value_text
from sm_mlops.tabular.tables import clean_header, nearest

try:
    from sagemaker_inference import content_types
    from sagemaker_inference.errors import BaseInferenceToolkitError as _ToolkitError

    # The toolkit would decode these before input_fn, with status 500 for what is not UTF-8.
    content_types.UTF8_TYPES.clear()
except ImportError:

    class _ToolkitError(Exception):  # type: ignore[no-redef]
        """The error of the toolkit where that is not installed."""

        def __init__(self, status_code: int, message: str, phrase: str) -> None:
            super().__init__(status_code, message, phrase)
            self.status_code, self.message, self.phrase = status_code, message, phrase


JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
_ALSO_LINES = (LINES, "application/x-jsonlines", "application/x-ndjson")
SMALL = 2000  # rows; up to here one thread is faster than several


class RequestError(_ToolkitError, ValueError):
    """An error in the request."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(status, message, message)

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True)
class Model:
    """The booster and the schema of its rows."""

    booster: Any
    schema: schemas.Schema
    required: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """Raw rows. Without `names` the first row may be a header."""

    columns: list[pa.ChunkedArray]
    names: tuple[str, ...] | None
    absent: dict[str, int] = field(default_factory=dict)
    """Columns that some rows lack, and the first row that does."""


@dataclass(frozen=True)
class Predictions:
    """`values`: (rows,) quantities, or (rows, classes) probabilities in the order of `classes`."""

    values: npt.NDArray[np.float32]
    classes: Sequence[Any]


def model_fn(model_dir: str) -> Model:
    """Load model.ubj and schema.json."""
    folder = Path(model_dir)
    schema = schemas.load(folder)
    model = booster.load().Booster(model_file=str(folder / "model.ubj"))
    columns = schema.columns
    required = tuple(column.name for column in columns if column.features)
    return Model(model, schema, required, tuple(column.name for column in columns))


def input_fn(input_data: str | bytes, content_type: str | None) -> Request:
    """Parse the body. Raise RequestError with the row if it is malformed."""
    kind = (content_type or "").split(";")[0].strip().lower()
    try:
        body = input_data if isinstance(input_data, str) else bytes(input_data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 text ({error.reason})") from None
    body = body.lstrip("\ufeff")
    if kind == CSV:
        return _from_csv(body)
    if kind in (JSON, *_ALSO_LINES):
        return _from_json(body, lines=kind != JSON)
    raise RequestError(f"content type {content_type!r} is not one of {CSV}, {LINES}, {JSON}", 415)


def predict_fn(data: Request, model: Model) -> Predictions:
    """Predict all rows. Raise RequestError with column and row if they do not fit the schema."""
    table = _named(data, model)
    try:
        matrix = encode(model.schema, table)
    except Misfit as misfit:
        raise RequestError(str(misfit)) from None
    model.booster.set_param({"nthread": 1 if len(matrix) <= SMALL else 0})
    values = model.booster.inplace_predict(matrix, validate_features=False)
    if model.schema.task == "binary":
        values = np.stack([1 - values, values], axis=1)
    if model.schema.scale != 1:
        values = values.astype(np.float64) * model.schema.scale + model.schema.offset
    return Predictions(values, model.schema.classes)


def output_fn(prediction: Predictions, accept: str) -> str | tuple[str, str]:
    """Return the body, with its content type unless `accept` is exactly that."""
    for part in (accept or JSON).split(","):
        kind, *options = (word.strip().lower() for word in part.split(";"))
        if kind in ("*/*", "application/*", JSON):
            body = json.dumps({"predictions": _objects(prediction)}, ensure_ascii=False)
            return body if accept == JSON else (body, JSON)
        if kind in _ALSO_LINES:
            lines = (json.dumps(o, ensure_ascii=False) for o in _objects(prediction))
            body = "".join(f"{line}\n" for line in lines)
            return body if accept == kind else (body, kind)
        if kind in (CSV, "text/*"):
            body = _to_csv(prediction, header="header=present" in options)
            return body if accept == CSV else (body, CSV)
    raise RequestError(f"cannot respond with {accept!r}; accept {JSON}, {LINES} or {CSV}", 406)


# Requests


def _from_csv(body: str) -> Request:
    first = next((row for row in csv.reader(io.StringIO(body, newline="")) if row), None)
    if first is None:
        raise RequestError("the body holds no row")
    names = [str(i) for i in range(len(first))]
    try:
        table = pacsv.read_csv(
            pa.py_buffer(body.encode()),
            read_options=pacsv.ReadOptions(column_names=names, block_size=max(1 << 20, len(body))),
            parse_options=pacsv.ParseOptions(newlines_in_values='"' in body),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        rows = (row for row in csv.reader(io.StringIO(body, newline="")) if row)
        for number, row in enumerate(rows, 1):
            if len(row) != len(first):
                raise RequestError(
                    f"row {number}: {len(row)} fields, but the first row has {len(first)}"
                ) from None
        raise RequestError(f"the body is not CSV: {error}") from None
    return Request(table.columns, None)


def _from_json(body: str, lines: bool) -> Request:
    rows = _json_lines(body) if lines else _json(body, "the body")
    if isinstance(rows, dict):
        rows = rows["instances"] if isinstance(rows.get("instances"), list) else [rows]
    if isinstance(rows, list) and rows and not isinstance(rows[0], dict | list):
        rows = [rows]
    if not isinstance(rows, list) or not rows:
        raise RequestError("the body holds no row")
    if isinstance(rows[0], list):
        width = len(rows[0])
        for number, row in enumerate(rows, 1):
            if not isinstance(row, list) or len(row) != width:
                raise RequestError(f"row {number} is not a list of {width} values as row 1 is")
        columns = [_array(list(column), i) for i, column in enumerate(zip(*rows, strict=True), 1)]
        return Request(columns, None)
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    known, absent = set(names), dict[str, int]()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RequestError(f"row {number} is not an object of column names and values")
        if row.keys() != known:
            for name in known ^ row.keys():
                absent.setdefault(name.strip(), 1 if name in row else number)
            names = [name for name in names if name in row]
            known = known & row.keys()
    columns = [_array([row[name] for row in rows], name) for name in names]
    return Request(columns, clean_header(names), absent)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RequestError:
        raise
    except RecursionError:
        raise RequestError(f"{place} is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits among them
        raise RequestError(f"{place} is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise RequestError(f"column '{twice}' occurs twice in one row")
    return found


def _json_lines(body: str) -> list[Any]:
    rows: list[Any] = []
    # Not splitlines: JSON text may contain Unicode's line separators.
    for line in filter(str.strip, body.split("\n")):
        rows.append(_json(line, f"row {len(rows) + 1}"))
    return rows


def _array(values: list[Any], name: object) -> pa.ChunkedArray:
    try:
        array = pa.array(values)
        nested = pa.types.is_nested(array.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        nested = any(isinstance(v, list | dict) for v in values)
    else:
        if not nested:
            return pa.chunked_array([array])
    if nested:
        row = next(i for i, v in enumerate(values, 1) if isinstance(v, list | dict))
        raise RequestError(f"column '{name}', row {row}: {values[row - 1]!r} is not a single value")
    try:
        # Strings and numbers mixed: all become text.
        texts = [v if isinstance(v, str) else value_text(v) for v in values]
        return pa.chunked_array([pa.array(texts, pa.string())])
    except UnicodeEncodeError:
        row = next(i for i, v in enumerate(values, 1) if isinstance(v, str) and not _utf8(v))
        raise RequestError(
            f"column '{name}', row {row}: {values[row - 1]!r} is not Unicode text"
        ) from None


def _utf8(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _named(data: Request, model: Model) -> pa.Table:
    """Return the columns that the model uses, by name."""
    columns, names, skip = data.columns, data.names, 0
    if names is None:
        first = clean_header([str(column[0].as_py() or "") for column in columns])
        known = {*model.names, *model.schema.dropped, model.schema.target}
        known = {name.lower() for name in known}  # a misspelled header is not a row of data
        if sum(name.lower() in known for name in first) * 2 >= len(first):
            names, skip = first, 1
        elif len(columns) == len(model.names):
            names = model.names
        else:
            raise RequestError(
                f"row 1 has {len(columns)} values and no header, but the columns are "
                f"{len(model.names)}: {', '.join(model.names)}"
            )
    found = dict(zip(names, columns, strict=True))
    if len(found) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise RequestError(f"column '{twice}' occurs twice")
    for name in model.required:
        if name not in found:
            others = [n for n in names if n not in model.names]
            hint = nearest(name, others) if others else ""
            hint = f"; {hint}" if hint.startswith("did") else ""
            raise RequestError(
                f"column '{name}' is missing in row {data.absent.get(name, 1)}{hint}"
            )
    columns = [found[name].slice(skip) for name in model.required]
    if columns and len(columns[0]) == 0:
        raise RequestError("the body holds a header and no row")
    return pa.Table.from_arrays(columns, names=list(model.required))


# Responses


def _objects(prediction: Predictions) -> list[dict[str, Any]]:
    if prediction.values.ndim == 1:
        return [{"prediction": value} for value in prediction.values.tolist()]
    labels, probability = _labels(prediction)
    names = [schemas.label_text(label) for label in prediction.classes]
    return [
        {"prediction": label, "probability": p, "probabilities": dict(zip(names, row, strict=True))}
        for label, p, row in zip(
            labels, probability.tolist(), prediction.values.tolist(), strict=True
        )
    ]


def _labels(prediction: Predictions) -> tuple[list[Any], npt.NDArray[np.float32]]:
    best = prediction.values.argmax(axis=1)
    labels = [prediction.classes[i] for i in best.tolist()]
    if len(prediction.classes) == 2:
        return labels, prediction.values[:, 1]
    return labels, prediction.values[np.arange(len(best)), best]


def _to_csv(prediction: Predictions, header: bool) -> str:
    columns: dict[str, Any] = {"prediction": prediction.values}
    if prediction.values.ndim == 2:
        labels, probability = _labels(prediction)
        names = [schemas.label_text(label) for label in prediction.classes]
        columns = {"prediction": [schemas.label_text(label) for label in labels]}
        columns["probability"] = probability
        for j, name in enumerate(names):
            columns[f"probability_{name}"] = prediction.values[:, j]
    sink = io.BytesIO()
    options = pacsv.WriteOptions(include_header=header, quoting_style="needed")
    pacsv.write_csv(pa.table(columns), sink, options)
    return sink.getvalue().decode()
