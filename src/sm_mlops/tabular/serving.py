"""Turn the requests of an endpoint into raw rows, and predictions into its answers.

SageMaker's XGBoost image answers bare text as `text/html`, and any exception as status 500, which
counts as a server error. So answers are response objects, and a client's fault is one, too. Imports
little, because a cold start waits for it. Must not know how predictions are made.

Source: https://github.com/aws/sagemaker-containers, `_worker.py` and `_transformer.py`
"""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from sm_mlops.tabular import json_lines
from sm_mlops.tabular.encoding import Misfit, value_text
from sm_mlops.tabular.schema import Schema, label_text
from sm_mlops.tabular.text import clean_header, nearest

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
ALSO_LINES = (LINES, "application/x-jsonlines", "application/x-ndjson")
TYPES = (JSON, *ALSO_LINES, CSV)
# Characters of a reason, which may quote a value: InvokeEndpoint passes on 2,048 bytes.
LONGEST = 500
_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")
_FRAMEWORK = "sagemaker_containers.beta.framework"

csv.field_size_limit(1 << 30)  # instead of 128 kB
if _FRAMEWORK in sys.modules:
    # It would decode these types before transform_fn, with a sign for each byte that is not UTF-8.
    sys.modules[_FRAMEWORK].content_types.UTF8_TYPES.clear()


class RequestError(ValueError):
    """A fault of the client, with status 400, 406 or 415. `row` counts from 1; None is unknown."""

    def __init__(
        self, message: str, column: str | None = None, row: int | None = None, status: int = 400
    ) -> None:
        super().__init__(message)
        self.column, self.row, self.status = column, row, status


@dataclass(frozen=True)
class Predictions:
    """`values`: (rows,) quantities, or (rows, classes) probabilities in the order of `classes`.
    `threshold`: the least probability at which the second of two classes is predicted."""

    values: npt.NDArray[np.floating[Any]]
    classes: Sequence[Any]
    threshold: float = 0.5


@dataclass(frozen=True)
class Answer:
    """What the container's Response offers, where there is no container."""

    response: bytes
    status_code: int
    mimetype: str

    def get_data(self) -> bytes:
        """Return the body."""
        return self.response


@dataclass(frozen=True)
class Accepted:
    """What a client accepts: a content type, and in CSV a header."""

    kind: str = JSON
    header: bool = False


@dataclass(frozen=True)
class _Request:
    """Raw values by column. Without `names` the first row may be a header."""

    columns: list[pa.ChunkedArray]
    names: tuple[str, ...] | None
    absent: dict[str, int] = field(default_factory=dict)
    """Columns that some rows lack, and the first row that does."""


# Answers


def answer(predictions: Predictions, accepted: Accepted) -> Any:
    """Return the response with status 200."""
    if accepted.kind == CSV:
        body = _to_csv(predictions, accepted.header)
    elif accepted.kind == JSON:
        body = json.dumps({"predictions": _objects(predictions)}, ensure_ascii=False).encode()
    else:
        body = to_lines(predictions)
    return response(body, 200, accepted.kind)


def refusal(error: RequestError | Misfit) -> Any:
    """Return the response to a client's fault: JSON with `error`, `column` and `row`."""
    status = error.status if isinstance(error, RequestError) else 400
    # ASCII, because names and values may hold what is not Unicode text.
    return response(json.dumps(reason(error)).encode(), status, JSON)


def reason(error: RequestError | Misfit) -> dict[str, Any]:
    """Return a client's fault as `error`, `column` and `row`."""
    row = error.row + 1 if isinstance(error, Misfit) else error.row
    text = str(error)
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return {"error": text, "column": error.column, "row": row}


def response(body: bytes, status: int, kind: str) -> Any:
    """Return what the container sends as it is."""
    if _FRAMEWORK in sys.modules:
        framework: Any = sys.modules[_FRAMEWORK]
        return framework.worker.Response(body, status=status, mimetype=kind)
    return Answer(body, status, kind)


def accepted(header: str | None) -> Accepted:
    """Return the answer's form for an Accept header; among equals the one that is named first.

    Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept

    Raises:
        RequestError: Status 406.
    """
    ranges = [_range(part) for part in (header or "").split(",") if part.strip(" \t;")]
    ranges = ranges or [("*/*", {}, 1.0)]
    best: tuple[float, int, Accepted] | None = None
    for kind in TYPES:
        # The narrowest range decides about a type.
        fitting = [
            (_narrowness(name, kind), -place, quality, options)
            for place, (name, options, quality) in enumerate(ranges)
            if _narrowness(name, kind) and options.get("charset", "utf-8") in _UTF8
        ]
        if fitting:
            _, place, quality, options = max(fitting, key=lambda found: found[:2])
            found = Accepted(kind, options.get("header") == "present")
            if quality > 0 and (best is None or (quality, place) > best[:2]):
                best = quality, place, found
    if best is None:
        raise RequestError(
            f"cannot respond with {header!r}; accept {JSON}, {LINES} or {CSV}", status=406
        )
    return best[2]


def _range(part: str) -> tuple[str, dict[str, str], float]:
    """Return name, parameters and quality of a media range; quality 0 for one that is malformed."""
    name, *words = (word.strip().lower() for word in part.split(";"))
    options = {k.strip(): v.strip().strip('"') for k, _, v in (w.partition("=") for w in words)}
    try:
        quality = float(options.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return name, options, quality if quality <= 1 else 0.0


def _narrowness(name: str, kind: str) -> int:
    """Return 3 if a range names the type, 2 if it names its main type, 1 for all; else 0."""
    names = ("*/*", f"{kind.partition('/')[0]}/*", kind)
    return names.index(name) + 1 if name in names else 0


def _objects(predictions: Predictions) -> list[dict[str, Any]]:
    if predictions.values.ndim == 1:
        return [{"prediction": value} for value in predictions.values.tolist()]
    labels, probability = _labels(predictions)
    names = [label_text(label) for label in predictions.classes]
    return [
        {"prediction": label, "probability": p, "probabilities": dict(zip(names, row, strict=True))}
        for label, p, row in zip(
            labels, probability.tolist(), predictions.values.tolist(), strict=True
        )
    ]


def _labels(predictions: Predictions) -> tuple[list[Any], npt.NDArray[np.floating[Any]]]:
    values, classes = predictions.values, predictions.classes
    if len(classes) == 2:
        positive = values[:, 1] >= predictions.threshold
        return [classes[i] for i in positive.astype(int).tolist()], values[:, 1]
    best = values.argmax(axis=1)
    return [classes[i] for i in best.tolist()], values[np.arange(len(best)), best]


def to_lines(predictions: Predictions) -> bytes:
    """Return JSON Lines, made column by column: a batch has millions."""
    values = predictions.values
    if not np.isfinite(values).all():
        return b"".join(json.dumps(row).encode() + b"\n" for row in _objects(predictions))
    if values.ndim == 1:
        return json_lines.joined(['{"prediction": ', _number_texts(values), "}\n"])
    labels, probability = _labels(predictions)
    texts = [json.dumps(label, ensure_ascii=False) for label in predictions.classes]
    text = dict(zip(predictions.classes, texts, strict=True))
    parts = ['{"prediction": ', pa.array([text[label] for label in labels], pa.string())]
    parts += [', "probability": ', _number_texts(probability), ', "probabilities": {']
    for j, label in enumerate(predictions.classes):
        name = json.dumps(label_text(label), ensure_ascii=False)
        parts += [f"{', ' if j else ''}{name}: ", _number_texts(values[:, j])]
    return json_lines.joined([*parts, "}}\n"])


def _number_texts(values: npt.NDArray[np.floating[Any]]) -> pa.Array:
    return pa.array(values.astype(np.float64)).cast(pa.string())


def _to_csv(predictions: Predictions, header: bool) -> bytes:
    columns: dict[str, Any] = {"prediction": predictions.values}
    if predictions.values.ndim == 2:
        labels, probability = _labels(predictions)
        names = [label_text(label) for label in predictions.classes]
        columns = {"prediction": [label_text(label) for label in labels]}
        columns["probability"] = probability
        for j, name in enumerate(names):
            columns[f"probability_{name}"] = predictions.values[:, j]
    sink = io.BytesIO()
    options = pacsv.WriteOptions(include_header=header, quoting_style="needed")
    pacsv.write_csv(pa.table(columns), sink, options)
    return sink.getvalue()


# Requests


def rows(body: str | bytes, content_type: str | None, schema: Schema) -> pa.Table:
    """Return the raw rows of a request: the columns of the schema, by name.

    Raises:
        RequestError: Status 415 for another content type, 400 for a body that cannot be read or
            does not have these columns.
    """
    kind, options, _ = _range(content_type or "")
    if kind not in TYPES:
        raise RequestError(
            f"content type {content_type!r} is not one of {CSV}, {LINES}, {JSON}", status=415
        )
    if options.get("charset", "utf-8") not in _UTF8:
        raise RequestError(f"content type {content_type!r}: send UTF-8", status=415)
    text = text_of(body)
    if kind in ALSO_LINES and in_batch() and (found := json_lines.columns(text, schema)):
        return _named(_Request(list(found.values()), clean_header(list(found))), schema)
    request = _from_csv(text) if kind == CSV else _from_json(text, schema, lines=kind != JSON)
    return _named(request, schema)


def text_of(body: str | bytes) -> str:
    """Return the text of a body. Raises RequestError."""
    try:
        text = body if isinstance(body, str) else bytes(body).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 text ({error.reason})") from None
    return text.lstrip("\ufeff")


def in_batch() -> bool:
    """Return whether this is a batch transform job, by the variable that SageMaker sets."""
    return os.environ.get("SAGEMAKER_BATCH") == "true"


def are_lines(*kinds: str | None) -> bool:
    """Return whether all these content types are JSON Lines."""
    return all(_range(kind or "")[0] in ALSO_LINES for kind in kinds)


def _from_csv(body: str) -> _Request:
    first = next((row for row in csv.reader(io.StringIO(body, newline="")) if row), None)
    if first is None:
        raise RequestError("the body holds no row")
    names, content = [str(i) for i in range(len(first))], body.encode()
    # Threads would find one block only, and Arrow's abort many a process that then ends.
    reading = pacsv.ReadOptions(
        column_names=names, block_size=max(1 << 20, len(content)), use_threads=False
    )
    try:
        table = pacsv.read_csv(
            pa.py_buffer(content),
            read_options=reading,
            parse_options=pacsv.ParseOptions(newlines_in_values='"' in body),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        lines = (row for row in csv.reader(io.StringIO(body, newline="")) if row)
        for number, row in enumerate(lines, 1):
            if len(row) != len(first):
                raise RequestError(
                    f"row {number}: {len(row)} fields, but the first row has {len(first)}",
                    row=number,
                ) from None
        raise RequestError(f"the body is not CSV: {error}") from None
    return _Request(table.columns, None)


def _from_json(body: str, schema: Schema, lines: bool) -> _Request:
    found = _json_lines(body) if lines else _json(body, "the body")
    if isinstance(found, dict):
        found = found["instances"] if isinstance(found.get("instances"), list) else [found]
    if isinstance(found, list) and found and not isinstance(found[0], dict | list):
        found = [found]
    if not isinstance(found, list) or not found:
        raise RequestError("the body holds no row")
    if isinstance(found[0], list):
        width = len(found[0])
        for number, row in enumerate(found, 1):
            if not isinstance(row, list) or len(row) != width:
                raise RequestError(
                    f"row {number} is not a list of {width} values as row 1 is", row=number
                )
        marks = [column.decimal for column in schema.columns]
        marks = marks if len(marks) == width else ["."] * width
        columns = [
            as_column(list(column), i, marks[i - 1])
            for i, column in enumerate(zip(*found, strict=True), 1)
        ]
        return _Request(columns, None)
    names = list(found[0]) if isinstance(found[0], dict) else []
    known, absent = set(names), dict[str, int]()
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise RequestError(
                f"row {number} is not an object of column names and values", row=number
            )
        if row.keys() != known:
            for name in known ^ row.keys():
                absent.setdefault(name.strip(), 1 if name in row else number)
            names = [name for name in names if name in row]
            known = known & row.keys()
    decimal = {column.name: column.decimal for column in schema.columns}
    columns = [
        as_column([row[name] for row in found], name, decimal.get(name.strip(), "."))
        for name in names
    ]
    return _Request(columns, clean_header(names), absent)


def _json(text: str, place: str, row: int | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RequestError as error:
        raise RequestError(str(error), error.column, row) from None
    except RecursionError:
        raise RequestError(f"{place} is nested too deeply", row=row) from None
    except ValueError as error:  # a number of thousands of digits among them
        raise RequestError(f"{place} is not JSON: {error}", row=row) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise RequestError(f"column '{twice}' occurs twice in one row", twice)
    return found


def _json_lines(body: str) -> list[Any]:
    found: list[Any] = []
    # Not splitlines: JSON text may contain Unicode's line separators.
    for line in filter(str.strip, body.split("\n")):
        number = len(found) + 1
        found.append(_json(line, f"row {number}", number))
    return found


def as_column(values: list[Any], name: object, decimal: str) -> pa.ChunkedArray:
    try:
        array = json_lines.array(values)
        nested = pa.types.is_nested(array.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        nested = any(isinstance(v, list | dict) for v in values)
    else:
        if not nested:
            return pa.chunked_array([array])
    if nested:
        row = next(i for i, v in enumerate(values, 1) if isinstance(v, list | dict))
        raise _unfit(values, name, row, "a single value")
    try:
        # Strings and numbers mixed: all become text, as it is written in this column.
        texts = [
            v if isinstance(v, str) else (value_text(v) or "").replace(".", decimal) for v in values
        ]
        return pa.chunked_array([pa.array(texts, pa.string())])
    except UnicodeEncodeError:
        row = next(i for i, v in enumerate(values, 1) if isinstance(v, str) and not _utf8(v))
        raise _unfit(values, name, row, "Unicode text") from None


def _unfit(values: list[Any], name: object, row: int, expected: str) -> RequestError:
    message = f"column '{name}', row {row}: {values[row - 1]!r} is not {expected}"
    return RequestError(message, str(name), row)


def _utf8(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _named(request: _Request, schema: Schema) -> pa.Table:
    """Return the columns of the schema, by name."""
    all_names = tuple(column.name for column in schema.columns)
    names, skip = request.names, 0
    if names is None:
        names, skip = _header(request, schema, all_names)
    found = dict(zip(names, request.columns, strict=True))
    if len(found) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise RequestError(f"column '{twice}' occurs twice", twice)
    required = [name for name in all_names if name not in schema.optional]
    for name in required:
        if name not in found:
            others = [n for n in names if n not in all_names]
            hint = nearest(name, others) if others else ""
            hint = f"; {hint}" if hint.startswith("did") else ""
            row = request.absent.get(name, 1)
            raise RequestError(f"column '{name}' is missing in row {row}{hint}", name, row)
    wanted = [name for name in all_names if name in found]
    columns = [found[name].slice(skip) for name in wanted]
    # A piece of a batch transform job may be the header alone; a refusal would fail the job.
    if columns and len(columns[0]) == 0 and not in_batch():
        raise RequestError("the body holds a header and no row")
    return pa.Table.from_arrays(columns, names=wanted)


def _header(
    request: _Request, schema: Schema, all_names: tuple[str, ...]
) -> tuple[tuple[str, ...], int]:
    """Return the names of unnamed columns, and how many rows they take: 1 for a header."""
    columns = request.columns
    first = clean_header([str(column[0].as_py() or "") for column in columns])
    known = {*all_names, *schema.dropped, schema.target}
    known = {name.lower() for name in known}  # a misspelled header is not a row of data
    if sum(name.lower() in known for name in first) * 2 >= len(first):
        return first, 1
    if len(columns) == len(all_names):
        return all_names, 0
    raise RequestError(
        f"row 1 has {len(columns)} values and no header, but the columns are "
        f"{len(all_names)}: {', '.join(all_names)}",
        row=1,
    )
