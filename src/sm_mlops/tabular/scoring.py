"""Request a packaged model's predictions for the test rows, as a client of the endpoint does.

Runs in a process of its own, because each model brings its own code. Must not import other modules
of this package.
"""

import importlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

ROWS = 50_000  # per request; with 20 columns about 10 MB of CSV
SAMPLE = 20
EXPLAINED = 1000  # rows at most
CSV, JSON = "text/csv", "application/json"


def main() -> None:
    """Read MODEL_DIR TEST_DIR TARGET OUTPUT [EXPLAINED]; write OUTPUT.parquet, the predictions,
    OUTPUT.sample/, and EXPLAINED, what moves them, if the model can tell."""
    model_dir, test, target, output, *explained = sys.argv[1:]
    sys.path[0] = str(Path(model_dir) / "code")  # instead of this file's folder
    inference: Any = importlib.import_module("inference")
    model = inference.model_fn(model_dir)

    def answer(body: str, kind: str, accept: str) -> str:
        return answered(inference, model, body, kind, accept)

    writer: pq.ParquetWriter | None = None
    for path in sorted(Path(test).glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(ROWS):
            rows = plain(pa.Table.from_batches([batch]).drop_columns([target]))
            if writer is None:
                if explained and hasattr(model, "contributions"):
                    explain(model, rows, Path(explained[0]))
                write_sample(rows.slice(0, SAMPLE), Path(f"{output}.sample"), answer)
                if hasattr(inference, "transform_fn"):
                    # The smoke test of a version without it expects no reason for a refusal.
                    Path(f"{output}.sample", "contract.json").write_text('{"errors": "json"}\n')
            reply = answer(to_csv(rows), CSV, f"{CSV}; header=present")
            scores = pacsv.read_csv(
                io.BytesIO(reply.encode()),
                read_options=pacsv.ReadOptions(block_size=max(1 << 20, 2 * len(reply))),
                convert_options=pacsv.ConvertOptions(
                    column_types={"prediction": pa.string()}, strings_can_be_null=False
                ),
            )
            # Of 0 and 1 alone, they are read as integers.
            types = [
                (f.name, pa.float64() if f.name.startswith("probability") else f.type)
                for f in scores.schema
            ]
            writer = writer or pq.ParquetWriter(f"{output}.parquet", pa.schema(types))
            writer.write_table(scores.cast(writer.schema))
    if writer is not None:
        writer.close()


def explain(model: Any, rows: pa.Table, file: Path) -> None:
    """Write what the model says about its predictions for some of the rows, or why it cannot."""
    at = range(0, rows.num_rows, -(-rows.num_rows // EXPLAINED))
    try:
        found = model.contributions(rows.take(list(at)))
    except Exception as error:  # the report alone needs it, and a good model must not fail for it
        found = {"why": f"{type(error).__name__}: {error}"}
    file.write_text(json.dumps(found), encoding="utf-8")


def answered(inference: Any, model: Any, body: str, kind: str, accept: str) -> str:
    """Return the body of an answer: of transform_fn, or of the functions that 0.1.0 packed."""
    if not hasattr(inference, "transform_fn"):
        request = inference.input_fn(body, kind)
        result = inference.output_fn(inference.predict_fn(request, model), accept)
        return str(result[0] if isinstance(result, tuple) else result)
    result = inference.transform_fn(model, body, kind, accept)
    if isinstance(result, tuple):
        result = result[0]
    text = result if isinstance(result, str | bytes) else result.get_data()
    text = text if isinstance(text, str) else text.decode()
    if getattr(result, "status_code", 200) != 200:
        raise ValueError(f"the model refused the test rows: {text}")
    return text


def plain(rows: pa.Table) -> pa.Table:
    """Return the rows in types that Arrow can write as CSV."""
    for i, column in enumerate(rows.schema):
        if pa.types.is_dictionary(column.type):
            rows = rows.set_column(i, column.name, rows[i].cast(column.type.value_type))
        elif pa.types.is_duration(column.type):
            rows = rows.set_column(i, column.name, rows[i].cast(pa.int64()))
        elif pa.types.is_float16(column.type):
            rows = rows.set_column(i, column.name, rows[i].cast(pa.float32()))
    return rows


def to_csv(rows: pa.Table) -> str:
    """Return CSV with a header. A missing value is an empty field, quoted in a single column."""
    if rows.num_columns == 1:
        rows = rows.set_column(0, rows.column_names[0], rows[0].cast(pa.string()).fill_null(""))
    sink = io.BytesIO()
    pacsv.write_csv(rows, sink)
    return sink.getvalue().decode()


def write_sample(rows: pa.Table, folder: Path, answer: Any) -> None:
    """Write the rows in every content type of the endpoint, and the predictions for them."""
    folder.mkdir(parents=True)
    objects = [{name: as_json(v) for name, v in row.items()} for row in rows.to_pylist()]
    body = json.dumps({"instances": objects}, ensure_ascii=False)
    lines = "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)
    (folder / "rows.csv").write_text(to_csv(rows), encoding="utf-8")
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    (folder / "rows.json").write_text(body + "\n", encoding="utf-8")
    expected = json.dumps(json.loads(answer(body, JSON, JSON)), indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(expected + "\n", encoding="utf-8")


def as_json(value: Any) -> Any:
    """Return dates as text, decimals as numbers, NaN as null."""
    if value is None or value != value:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if abs(value) != float("inf") else None
    return value.isoformat() if hasattr(value, "isoformat") else float(value)


if __name__ == "__main__":
    main()
    # As failure.leave does, which must not be imported here.
    sys.stdout.flush()
    os._exit(0)
