"""The packed model behind the worker of SageMaker's own image: content types and status codes as a
client of an endpoint or a batch transform job sees them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import datasets
from model_case import Case
from worker_case import Worker, worker

pytestmark = pytest.mark.slow

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
TEXT = f"{CSV}; charset=utf-8"  # how the framework marks every text


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = Case(tmp_path_factory.mktemp("passengers"))
    case.prepare(case.write(datasets.passengers(rows=300)), "Survived", drop=("PassengerId",))
    case.train(num_boost_round="5")
    return case.folder / "model"


@pytest.fixture(scope="module")
def server(packed: Path) -> Iterator[Worker]:
    with worker([packed]) as found:
        yield found


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    columns = datasets.passengers(rows=6)
    names = [name for name in columns if name not in ("Survived", "PassengerId")]
    values = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(["" if v is None else v for v in row.values()] for row in rows)
    return sink.getvalue().encode()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (LINES, LINES),
        (CSV, TEXT),
        ("text/csv; header=present", TEXT),
        ("text/csv;charset=UTF-8", TEXT),
        ("text/html, application/json;q=0.2, text/csv;q=0.7", TEXT),
        ("*/*;q=0.1, application/jsonlines", LINES),
    ],
)
def test_every_accept_header_gets_a_body_of_its_type(
    server: Worker, rows: list[dict[str, Any]], accept: str | None, kind: str
) -> None:
    headers = {"Content-Type": JSON} | ({} if accept is None else {"Accept": accept})
    reply = server.ask(json.dumps(rows).encode(), headers)
    assert (reply.status, reply.kind) == (200, kind)
    text = reply.body.decode()
    if kind == JSON:
        assert len(json.loads(text)["predictions"]) == len(rows)
    else:
        assert len(text.splitlines()) == len(rows) + ("header" in (accept or ""))


@pytest.mark.parametrize(
    ("body", "kind", "accept", "status", "error"),
    [
        (b"x", "image/png", "*/*", 415, "content type 'image/png' is not one of"),
        (b"x", "text/csv; charset=utf-16", "*/*", 415, "send UTF-8"),
        (b"{}", JSON, "image/png", 406, "cannot respond with 'image/png'"),
        (b"[" * 100_000, JSON, "*/*", 400, "nested too deeply"),
        (b"a,b\n1\n", CSV, CSV, 400, "row 2: 1 fields"),
        ('{"a": "é"}'.encode("latin-1"), JSON, JSON, 400, "not UTF-8"),
        (b"Sex,\xff\n", CSV, CSV, 400, "not UTF-8"),
        (b"", LINES, LINES, 400, "the body holds no row"),
    ],
)
def test_a_client_s_fault_is_answered_with_its_reason_as_json(
    server: Worker, body: bytes, kind: str, accept: str, status: int, error: str
) -> None:
    reply = server.ask(body, {"Content-Type": kind, "Accept": accept})
    assert (reply.status, reply.kind) == (status, JSON)
    assert error in json.loads(reply.body)["error"]


@pytest.mark.parametrize("accept", ["*/*", CSV])
def test_a_bad_row_is_named(server: Worker, rows: list[dict[str, Any]], accept: str) -> None:
    body = json.dumps([rows[0], {**rows[1], "Age": "old"}]).encode()
    reply = server.ask(body, {"Content-Type": JSON, "Accept": accept})
    assert (reply.status, reply.kind) == (400, JSON)
    assert json.loads(reply.body) == {
        "error": "column 'Age', row 2: 'old' is not a number",
        "column": "Age",
        "row": 2,
    }


@pytest.mark.parametrize("kind", [CSV, LINES])
def test_a_batch_transform_job_gets_a_line_for_each_row(
    packed: Path, rows: list[dict[str, Any]], kind: str
) -> None:
    """Lines of the file as AWS cuts it: with a piece per line, the header is a piece, too."""
    if kind == CSV:
        lines = as_csv(rows).splitlines(keepends=True)
    else:
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
    lines[-1] = lines[-1].rstrip(b"\n")
    headers = {"Content-Type": kind, "Accept": kind}
    with worker([packed], SAGEMAKER_BATCH="true") as server:
        whole = server.ask(b"\n".join(lines), headers)
        single = [server.ask(line, headers) for line in lines]
    assert {reply.status for reply in (whole, *single)} == {200}
    answers = whole.body.splitlines(keepends=True)
    assert len(answers) == len(rows)
    assert [reply.body for reply in single] == [*[b""] * (kind == CSV), *answers]


def test_a_bad_row_of_a_batch_transform_job_is_a_line_and_no_failure(
    packed: Path, rows: list[dict[str, Any]]
) -> None:
    lines = [json.dumps(row) for row in (rows[0], {**rows[1], "Age": "old"}, rows[1])]
    with worker([packed], SAGEMAKER_BATCH="true") as server:
        body = "\n".join(lines).encode()
        reply = server.ask(body, {"Content-Type": LINES, "Accept": LINES})
    assert (reply.status, reply.kind) == (200, LINES)
    answers = [json.loads(line) for line in reply.body.splitlines()]
    assert [set(answer) == {"error", "column", "row"} for answer in answers] == [False, True, False]
    assert answers[1]["row"] == 2
