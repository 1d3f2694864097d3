"""Captured requests: which bodies and answers become rows and predictions, and which do not."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitor_case import NAMES, SCHEMA, line, objects, people, predictions, probability
from sm_mlops.tabular import baseline, captured, rows
from sm_mlops.tabular.captured import Body
from sm_mlops.tabular.schema import Column, Schema

ROWS = people(np.random.default_rng(3), 3)
FIELDS = [list(row.values()) for row in objects(ROWS)]
CSV = "\n".join(",".join("" if v is None else str(v) for v in row) for row in FIELDS)
HEADER = ",".join(NAMES)
LINES = "\n".join(json.dumps(row) for row in objects(ROWS))
FITTING = {
    "csv": ("text/csv", CSV),
    "csv with a header and CRLF": ("text/csv; charset=utf-8",
                                   f"{HEADER}\n{CSV}\n".replace("\n", "\r\n")),
    "csv in another order": ("text/csv", f"id,{','.join(reversed(NAMES))}\n" + "\n".join(
        ",".join(["7", *reversed(each.split(","))]) for each in CSV.split("\n"))),
    "csv with carriage returns": ("text/csv", CSV.replace("\n", "\r")),
    "csv with a header and carriage returns": ("text/csv", f"{HEADER}\n{CSV}".replace("\n", "\r")),
    "csv with one carriage return": ("text/csv", CSV.replace("\n", "\r", 1) + "\n"),
    "quoted csv with one carriage return": ("text/csv",
                                            CSV.replace("basic", '"basic"').replace("\n", "\r", 1)),
    "quoted csv": ("text/csv", CSV.replace("basic", '"basic"').replace("plus", '"plus"')),
    "instances": ("application/json", json.dumps({"instances": objects(ROWS)}, indent=1)),
    "an array": ("application/json", json.dumps(objects(ROWS))),
    "arrays of arrays": ("application/json", json.dumps(FIELDS)),
    "arrays below their names": ("application/json", json.dumps([NAMES, *FIELDS])),
    "blanks around names": ("application/json", json.dumps(
        [{f" {name}": value for name, value in row.items()} for row in objects(ROWS)])),
    "numbers and text mixed": ("application/json", json.dumps(
        [objects(ROWS)[0]] + [row | {"income": str(row["income"])} for row in objects(ROWS)[1:]])),
    "lines": ("application/jsonlines", f"\n{LINES}\n\n"),
    "lines of another name": ("application/x-ndjson", LINES),
    "a mark of the byte order": ("text/csv", f"\ufeff{HEADER}\n{CSV}"),
}  # fmt: skip


def answered(text: str, kind: str, **given: str) -> str:
    return line(text, predictions(probability(ROWS)), kind, "id", **given)


def table_of(lines: list[str]) -> pa.Table:
    """Return all rows, typed."""
    batch = captured.read([each.encode() for each in lines], SCHEMA)
    found = [captured.typed(SCHEMA, table) for table in batch.tables]
    assert not any(misfits for _, misfits in found)
    return pa.concat_tables([rows.conformed(table, SCHEMA.columns) for table, _ in found])


EXPECTED = rows.conformed(rows.typed(SCHEMA, pa.table(ROWS)), SCHEMA.columns)


@pytest.mark.parametrize("encoding", ["JSON", "BASE64"])
@pytest.mark.parametrize("name", FITTING)
def test_a_body_that_the_endpoint_accepts_is_read_alike(name: str, encoding: str) -> None:
    kind, body = FITTING[name]
    assert table_of([answered(body, kind, encoding=encoding)]) == EXPECTED


def test_bodies_of_all_kinds_together_are_the_rows_of_each() -> None:
    lines = [answered(body, kind) for kind, body in FITTING.values()] * 2
    batch = captured.read([each.encode() for each in lines], SCHEMA)
    assert (batch.requests, batch.refused) == (len(lines), 0)
    assert table_of(lines).num_rows == len(lines) * 3
    assert table_of(lines)["income"].to_pylist().count(ROWS["income"][0]) == len(lines)


WRONG = {
    "a refusal": line(CSV, '{"error": "row 1", "column": null, "row": 1}', "text/csv"),
    "text that is no answer": line(CSV, "<html>", "text/csv", answered="text/html"),
    "no predictions": line(CSV, '{"predictions": []}', "text/csv"),
    "other classes": line(CSV, '{"predictions": [{"probabilities": {"maybe": 1}}]}', "text/csv"),
    "half a line": answered(CSV, "text/csv")[:150],
    "no event": "[1, 2]",
    "nonsense that was answered": answered("not json", "application/json"),
    "another content type": answered("<row/>", "application/xml"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_request_without_predictions_is_refused_and_its_neighbors_count(name: str) -> None:
    good = [answered(CSV, "text/csv"), answered(LINES, "application/jsonlines")]
    lines = [good[0], WRONG[name], good[1], good[0]]
    batch = captured.read([each.encode() for each in lines], SCHEMA)
    assert (batch.requests, batch.refused) == (3, 1)
    assert sum(table.num_rows for table in batch.tables) == 9


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("application/json", predictions(probability(ROWS))),
        ("application/jsonlines", "\n".join(map(json.dumps, json.loads(
            predictions(probability(ROWS)))["predictions"]))),
        ("text/csv", "\n".join(f"x,{p},{1 - p},{p}" for p in probability(ROWS))),
        ("text/csv; header=present", '"prediction","probability","probability_no"\n' + "\n".join(
            f'"a, b",{p},{1 - p},{p}' for p in probability(ROWS))),
    ],
)  # fmt: skip
def test_answers_of_each_kind_are_probabilities_by_class(kind: str, text: str) -> None:
    [found] = captured.predictions_of([Body(kind, text)], SCHEMA)
    assert found == pytest.approx(np.stack([1 - probability(ROWS), probability(ROWS)], axis=1))


def test_answers_of_a_regression_are_quantities() -> None:
    schema = Schema("regression", "y", [], [Column("x", "number")], [], {})
    bodies = [
        Body("application/json", '{"predictions": [{"prediction": 1.5}, {"prediction": 2}]}'),
        Body("text/csv", "1.5\n2.0\n"),
        Body("text/csv", "prediction\n1.5\n2.0\n"),
    ]
    assert [found.tolist() for found in captured.predictions_of(bodies, schema)
            if found is not None] == [[1.5, 2.0]] * 3  # fmt: skip


@pytest.mark.parametrize("schema", [
    SCHEMA, replace(SCHEMA, task="regression")])  # fmt: skip
def test_predictions_of_another_shape_are_not_compared_but_their_rows_are(schema: Schema) -> None:
    own: dict[str, list[Any]] = {"usual": [0.25, 1], "wide": [[1, 2], [3, 4]], "deep": [[[1]], 2],
                                 "words": ["a", {}], "ragged": [[1], [2, 3]]}  # fmt: skip
    lines = []
    for first, second in own.values():
        found = [{"prediction": each, "probabilities": {"no": each, "yes": each}}
                 for each in (first, second)]  # fmt: skip
        lines.append(line(CSV, json.dumps({"predictions": found}), "text/csv"))
    batch = captured.read([each.encode() for each in lines], schema)
    short = Body("text/csv", "x,0.5\n")
    [values] = captured.predictions_of([short], SCHEMA)
    assert values is not None and values.shape == (0, 2)
    assert (batch.requests, batch.refused) == (5, 0)
    assert sum(table.num_rows for table in batch.tables) == 15
    assert batch.answers is not None
    assert batch.answers.counts == [2, 0, 0, 0, 0] and batch.answers.values.shape[0] == 2


def test_values_that_do_not_fit_are_missing_and_counted_and_their_neighbors_are_kept() -> None:
    raw = pa.table({"age": ["1", "old", None, "3", "old", "n/a"], "since": ["x"] * 6})
    table, misfits = captured.typed(SCHEMA, raw)
    assert table["age"].to_pylist()[:1] + table["age"].to_pylist()[3:4] == [1.0, 3.0]
    assert np.isnan(table["age"].to_numpy()[[1, 2, 4, 5]]).all()
    assert table["since"].null_count == table["plan"].null_count == 6
    assert misfits == {"age": 2, "since": 6}


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_requests_with_headers_of_their_own_are_few_tables(end: str) -> None:
    lines = []
    for number in range(60):
        order = NAMES[number % 5 :] + NAMES[: number % 5]
        kept = order[: 5 - number % 3]
        row = dict(zip(NAMES, CSV.split("\n")[0].split(","), strict=True)) | {"x": "7"}
        header = ",".join([*kept, f"extra {number}"])
        values = ",".join([*(row[name] for name in kept), "7"])
        lines.append(answered(f"{header}{end}{values}{end}", "text/csv").encode())
    batch = captured.read(lines, SCHEMA)
    assert (batch.requests, batch.refused) == (60, 0)
    assert len(batch.tables) <= 5, "each takes milliseconds"
    typed = [captured.typed(SCHEMA, table)[0] for table in batch.tables]
    plan = [value for each in typed for value in each["plan"].to_pylist()]
    dropped = [n for n in range(60) if "plan" not in (NAMES * 2)[n % 5 :][: 5 - n % 3]]
    assert (len(plan), plan.count(None)) == (60, len(dropped))
    assert set(plan) - {None} == {EXPECTED["plan"][0].as_py()}


def test_a_header_of_mostly_dropped_columns_is_one() -> None:
    """As the endpoint sees it."""
    others = [f"note {number}" for number in range(9)]
    schema = baseline.reading(replace(SCHEMA, dropped=others))
    body = "\n".join(f"{row},{'x,' * 8}x" for row in CSV.split("\n"))
    text = f"{HEADER},{','.join(others)}\n{body}\n"
    batch = captured.read([answered(text, "text/csv").encode()], schema)
    assert (batch.requests, batch.refused) == (1, 0)
    assert [table.num_rows for table in batch.tables] == [3]


def test_inputs_and_outputs_of_asynchronous_requests_are_read_by_their_form() -> None:
    for kind in ("", "binary/octet-stream"):
        for _, text in FITTING.values():
            body = captured.body_of(kind, text.encode())
            assert body is not None
            batch = captured.unpaired([body], SCHEMA, outputs=False)
            assert [table.num_rows for table in batch.tables] == [3], text
    assert captured.body_of("text/csv", b"\xff\xfe\x00") is None
