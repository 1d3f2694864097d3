"""JSON column by column; JSON Lines also for millions of rows. Knows nothing of requests."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sm_mlops.tabular.schema import Schema


def array(values: list[Any]) -> pa.Array:
    """Return values of JSON as `pa.array` does, but raise ArrowInvalid for true beside 2.5, which
    would be 1.0."""
    found = pa.array(values)
    if pa.types.is_floating(found.type) and bool in map(type, values):
        raise pa.ArrowInvalid("true or false among numbers")
    return found


def columns(body: str, schema: Schema) -> dict[str, pa.ChunkedArray] | None:
    """Return the columns of JSON Lines fast; None where that might not be what `json` reads."""
    import pyarrow.json as pajson

    numeric = {column.name for column in schema.columns if column.kind == "number"}
    lines = body.count("\n") + (not body.endswith("\n"))
    data = body.encode("utf-8", "surrogatepass")
    try:
        head = [json.loads(line) for line in body.split("\n", 100)[:100] if line.strip()]
        # A later value of another type is an error here.
        types = {name: _type([row[name] for row in head], name in numeric) for name in head[0]}
        table = pajson.read_json(
            pa.py_buffer(data),
            pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pajson.ParseOptions(pa.schema(types), unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, ValueError, KeyError, IndexError, TypeError):
        return None
    # A name that a row lacks would be null.
    counts = ((name, table[name].null_count) for name in types)
    absent = [name for name, n in counts if n and data.count(f'"{name}":null'.encode()) != n]
    if absent or table.num_rows != lines:
        return None
    return dict(zip(types, table.columns, strict=True))


def _type(values: list[Any], numeric: bool) -> pa.DataType:
    """Return the Arrow type of JSON values. Raises KeyError for several."""
    kinds = {type(value) for value in values if value is not None} or {str}
    if kinds <= {int, float} and (numeric or float in kinds):
        return pa.float64()
    if len(kinds) > 1:
        raise KeyError(kinds)
    types = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
    return types[kinds.pop()]


def joined(parts: list[Any]) -> bytes:
    """Return columns of text, and texts between them, row after row."""
    lines = pc.binary_join_element_wise(*parts, "")
    if not len(lines):
        return b""
    whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    return bytes(pc.binary_join(whole, "")[0].as_buffer())
