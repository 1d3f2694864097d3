"""Read what an endpoint keeps of its traffic: raw rows of the requests, and the predictions.

Many requests are parsed at once; where that fails, halves of them, until a bad one is alone. What
the endpoint refused has no predictions and counts as no row. Must not know about windows or S3.

Source: "Data capture" in the SageMaker developer guide: a JSON object per line.
"""

import base64
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from sm_mlops.tabular import rows as typed_rows
from sm_mlops.tabular import serving
from sm_mlops.tabular.encoding import Floats, Misfit
from sm_mlops.tabular.rows import ARROW
from sm_mlops.tabular.schema import Column, Schema
from sm_mlops.tabular.serving import RequestError
from sm_mlops.tabular.text import clean_header

UNREADABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(csv.Error, pa.ArrowException),
)
_BARE = re.compile(r"\r(?!\n)")


@dataclass(frozen=True)
class Body:
    """What was sent or returned: its content type and its text."""

    kind: str
    text: str


@dataclass(frozen=True)
class Request:
    """One captured request; `output` is None where only requests are captured."""

    input: Body | None
    output: Body | None
    inference_id: str | None


@dataclass(frozen=True)
class Answers:
    """The predictions of some requests: (rows,) quantities or (rows, classes) probabilities."""

    values: Floats
    ids: list[str | None]
    """Of each request."""
    counts: list[int]
    """Rows of each request."""


@dataclass(frozen=True)
class Batch:
    """Some requests: raw rows, predictions, and how many were answered, refused or unreadable."""

    requests: int
    refused: int
    tables: list[pa.Table]
    answers: Answers | None


def read(lines: Sequence[bytes], schema: Schema) -> Batch:
    """Return what lines of captured files hold."""
    events = _loaded([line.decode(errors="replace") for line in lines])
    requests = [found for event in events if (found := _request(event)) is not None]
    outputs = [r for r in requests if r.output is not None]
    answered = predictions_of([r.output for r in outputs if r.output is not None], schema)
    known = [(r, v) for r, v in zip(outputs, answered, strict=True) if v is not None]
    accepted = [r for r in requests if r.output is None] + [r for r, _ in known]
    tables, unread = tables_of([r.input for r in accepted if r.input is not None], schema)
    answers = None
    if known:
        values = np.concatenate([v for _, v in known])
        answers = Answers(values, [r.inference_id for r, _ in known], [len(v) for _, v in known])
    good = len(accepted) - unread
    return Batch(good, len(lines) - good, tables, answers)


def _loaded(texts: Sequence[str]) -> list[Any]:
    """Return JSON values, None for each text that is not one; all at once if they are."""
    try:
        found = json.loads(f"[{','.join(texts)}]")
        if len(found) == len(texts):
            return list(found)
    except (ValueError, RecursionError):
        pass
    return [_value(text) for text in texts]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _request(event: Any) -> Request | None:
    """Return a line's request; None if it is damaged."""
    try:
        data = event["captureData"]
        body, answer = _body(data.get("endpointInput")), _body(data.get("endpointOutput"))
        return Request(body, answer, event["eventMetadata"].get("inferenceId"))
    except UNREADABLE:
        return None


def _body(part: dict[str, Any] | None) -> Body | None:
    if part is None:
        return None
    text = part["data"]
    if part["encoding"] == "BASE64":
        text = base64.b64decode(text).decode("utf-8-sig")
    return Body(part.get("observedContentType") or "", text.lstrip("\ufeff"))


def body_of(kind: str, content: bytes) -> Body | None:
    """Return the content of a file as a body; its form tells where its type does not."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if plain(kind) not in serving.TYPES:
        start = text.lstrip()
        lines = start.startswith("{") and re.search(r"\}\s*\n\s*\{", start)
        kind = serving.LINES if lines else serving.JSON if start[:1] in ("{", "[") else serving.CSV
    return Body(kind, text)


def unpaired(bodies: Sequence[Body], schema: Schema, *, outputs: bool) -> Batch:
    """Return requests without their answers, or answers without their requests."""
    if not outputs:
        tables, unread = tables_of(bodies, schema)
        return Batch(len(bodies) - unread, unread, tables, None)
    found = [values for values in predictions_of(bodies, schema) if values is not None]
    if not found:
        return Batch(0, 0, [], None)
    counts = [len(values) for values in found]
    return Batch(0, 0, [], Answers(np.concatenate(found), [None] * len(found), counts))


# Predictions


def predictions_of(bodies: Sequence[Body], schema: Schema) -> list[Floats | None]:
    """Return the predictions in each answer, as `serving.answer` writes them; None for one without
    any, such as the answer to a request that was refused."""
    classes = [] if schema.task == "regression" else schema.class_names
    kinds = [plain(body.kind) for body in bodies]
    whole = [body.text for body, kind in zip(bodies, kinds, strict=True) if kind == serving.JSON]
    loaded = iter(_loaded(whole))
    return [
        _predictions(kind, next(loaded) if kind == serving.JSON else body.text, classes)
        for body, kind in zip(bodies, kinds, strict=True)
    ]


def plain(kind: str) -> str:
    """Return a content type without its parameters."""
    return kind.partition(";")[0].strip().lower()


def _predictions(kind: str, content: Any, classes: list[str]) -> Floats | None:
    try:
        if kind == serving.CSV:
            return _from_csv(content, len(classes))
        if kind in serving.ALSO_LINES:
            found = [json.loads(line) for line in content.split("\n") if line.strip()]
        else:
            found = content["predictions"]
        if not found:
            return None
        if not classes:
            return _numbers([row["prediction"] for row in found], ())
        each = [row["probabilities"] for row in found]
        return _numbers([[shares[name] for name in classes] for shares in each], (len(classes),))
    except UNREADABLE:
        return None


def _numbers(found: Any, shape: tuple[int, ...]) -> Floats:
    """Return predictions of a shape for each row; none at all if one is not, as a team's own
    `predict` may answer: its rows count, and its predictions cannot be compared."""
    try:
        values = np.array(found, np.float64)
    except (ValueError, TypeError):
        values = np.empty(0)
    return values if values.shape[1:] == shape and len(values) else np.empty((0, *shape))


def _from_csv(text: str, classes: int) -> Floats:
    """Return quantities, or the probabilities that end each line."""
    lines = [line for line in text.splitlines() if line]
    if lines[0].lstrip('"').startswith("prediction"):
        del lines[0]
    if not classes:
        return np.array(lines, np.float64)
    found = np.array([line.rsplit(",", classes)[1:] for line in lines], np.float64)
    return _numbers(found, (classes,))


# Rows


def tables_of(bodies: Sequence[Body], schema: Schema) -> tuple[list[pa.Table], int]:
    """Return raw rows as strings or JSON's types, and how many bodies cannot be read."""
    lenient = replace(schema, optional=[column.name for column in schema.columns])
    known = {name.lower() for name in (*_names(schema), *schema.dropped, schema.target)}
    groups: dict[tuple[str, str | None], list[str]] = {}
    for body in bodies:
        kind = plain(body.kind)
        text = body.text.strip("\r\n ") if kind == serving.CSV else body.text.strip()
        header = _header(text, known) if kind == serving.CSV else ""
        groups.setdefault((kind, header), []).append(text)
    tables, unread = [], 0
    for (kind, header), texts in groups.items():
        for found in _parsed(kind, header, texts, lenient):
            if found is None:
                unread += 1
            else:
                tables.append(found)
    return _joined(tables, _names(schema)), unread


def _joined(tables: list[pa.Table], names: list[str]) -> list[pa.Table]:
    """Return the columns of these names, those of the same types as one table.

    To type and summarize a table takes milliseconds, and each client may have its own header.
    """
    alike: dict[tuple[pa.DataType, ...], list[pa.Table]] = {}
    for table in tables:
        columns = [
            table[name] if name in table.column_names else pa.nulls(table.num_rows, pa.string())
            for name in names
        ]
        types = tuple(column.type for column in columns)
        alike.setdefault(types, []).append(pa.table(columns, names))
    return [pa.concat_tables(each) for each in alike.values()]


def _parsed(
    kind: str, header: str | None, texts: list[str], schema: Schema
) -> Iterator[pa.Table | None]:
    """Yield tables, and None for each body that cannot be read."""
    try:
        if header is None:
            raise ValueError("to be read alone")
        if kind == serving.CSV:
            yield _csv_rows(header, texts, schema)
        else:
            yield _json_rows(kind, texts, schema)
        return
    except (*UNREADABLE, RecursionError):
        pass
    if len(texts) == 1:
        try:
            yield serving.rows(texts[0], kind, schema)
        except (RequestError, Misfit):
            yield None
        return
    half = len(texts) // 2
    yield from _parsed(kind, header, texts[:half], schema)
    yield from _parsed(kind, header, texts[half:], schema)


def _header(text: str, known: set[str]) -> str | None:
    """Return the first line, if it is a header of `known` names and rows follow; else nothing.

    Return None for what only the endpoint's own reading takes apart, such as rows that end with a
    bare carriage return.
    """
    if _BARE.search(text):
        return None
    first, end, _ = text.partition("\n")
    if not end:
        return ""
    try:
        fields = clean_header(next(csv.reader([first]), []))
    except csv.Error:
        return None
    return first if sum(name.lower() in known for name in fields) * 2 >= len(fields) else ""


def _names(schema: Schema) -> list[str]:
    return [column.name for column in schema.columns]


def _csv_rows(header: str, texts: list[str], schema: Schema) -> pa.Table:
    """Return the rows of CSV bodies with the same header, or all without one."""
    names = _names(schema)
    if header:
        fields = clean_header(next(csv.reader([header.strip("\r")])))
        bodies = [text[len(header) + 1 :] for text in texts]
    else:
        fields, bodies = tuple(names), texts
    body = "\n".join(bodies).encode()
    if len(set(fields)) < len(fields):
        raise ValueError("a column occurs twice")
    table = pacsv.read_csv(
        pa.py_buffer(body),
        read_options=pacsv.ReadOptions(
            column_names=fields, block_size=max(1 << 20, len(body)), use_threads=False
        ),
        parse_options=pacsv.ParseOptions(newlines_in_values=b'"' in body),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(fields, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return table


def _json_rows(kind: str, texts: list[str], schema: Schema) -> pa.Table:
    """Return the rows of JSON bodies: objects, or lists in the order of the columns."""
    names = _names(schema)
    if kind == serving.JSON:
        found = json.loads(f"[{','.join(texts)}]")
        if len(found) != len(texts):
            raise ValueError("a body is not one JSON value")
        objects = [row for body in found for row in _instances(body)]
    else:
        lines = [line for text in texts for line in text.split("\n") if line.strip()]
        objects = json.loads(f"[{','.join(lines)}]")
    if objects and all(isinstance(row, list) for row in objects):
        if any(len(row) != len(names) or row[0] == names[0] for row in objects):
            raise ValueError("rows of another width, or a header")
        objects = [dict(zip(names, row, strict=True)) for row in objects]
    keys = dict.fromkeys(key for row in objects[:100] for key in row)
    if any(key != key.strip() for key in keys):
        objects = [{key.strip(): value for key, value in row.items()} for row in objects]
    decimal = {column.name: column.decimal for column in schema.columns}
    columns = [
        serving.as_column([row.get(name) for row in objects], name, decimal[name]) for name in names
    ]
    return pa.Table.from_arrays(columns, names=names)


def _instances(body: Any) -> list[Any]:
    if isinstance(body, dict):
        found = body.get("instances")
        return found if isinstance(found, list) else [body]
    if body and not isinstance(body[0], dict | list):
        return [body]
    return list(body)


# Types


def typed(schema: Schema, raw: pa.Table) -> tuple[pa.Table, Counter[str]]:
    """Return raw rows in the types of their columns, and how many values of each do not fit.

    Such a value is missing, and so is a column that is absent: the encoding may do without it.
    """
    arrays, misfits = [], Counter[str]()
    for column in schema.columns:
        if column.name not in raw.column_names:
            arrays.append(pa.nulls(raw.num_rows, ARROW[column.kind]))
            continue
        values = raw[column.name]
        try:
            arrays.append(_typed(schema, column, values))
        except Misfit:
            array, misfits[column.name] = _fitting(schema, column, values)
            arrays.append(array)
    return pa.Table.from_arrays(arrays, _names(schema)), misfits


def _typed(schema: Schema, column: Column, values: pa.ChunkedArray) -> pa.Array:
    alone = replace(schema, columns=[column], optional=[])
    return typed_rows.typed(alone, pa.table({column.name: values}))[0].combine_chunks()


def _fitting(schema: Schema, column: Column, values: pa.ChunkedArray) -> tuple[pa.Array, int]:
    """Return a column without the values that do not fit, and how many these are."""
    coded = values.combine_chunks().dictionary_encode()
    distinct = coded.dictionary
    good = np.zeros(len(distinct) + 1, bool)

    def find(start: int, end: int) -> None:
        try:
            _typed(schema, column, pa.chunked_array([distinct.slice(start, end - start)]))
        except Misfit:
            if end - start > 1:
                half = (start + end) // 2
                find(start, half)
                find(half, end)
            return
        good[start:end] = True

    find(0, len(distinct))
    codes = coded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    fits = good[codes]
    present = codes < len(distinct)
    kept = coded.dictionary_decode().filter(pa.array(fits))
    made = _typed(schema, column, pa.chunked_array([kept])) if fits.any() else None
    places = np.cumsum(fits) - 1
    if made is None:
        return pa.nulls(len(codes), ARROW[column.kind]), int(present.sum())
    return made.take(pa.array(places, mask=~fits)), int((present & ~fits).sum())
