"""Whatever is sent to an endpoint, its packed model predicts or says what is wrong with it: a
request is never answered with a server's error.

Through the worker of SageMaker's own image. A failure names its seed; `payload` makes the same
request of it again.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import datasets
from model_case import Case
from worker_case import Worker, worker

SEED = 20_240
SLOWEST = 30.0  # CPU seconds; a payload of 100,000 columns takes minutes in quadratic time
CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
TYPES = [
    *(CSV, JSON, LINES) * 25,
    *("text/csv; charset=utf-8", "TEXT/CSV", "application/json;", "application/x-ndjson"),
    *("application/octet-stream", "text/plain", "image/png", "", ";", "text/csv\ufeff", "é", "*/*"),
    None,
]
ACCEPTS = [
    *(JSON, CSV, LINES, "*/*") * 15,
    *("text/csv; header=present", "application/json, text/csv", "text/html, */*;q=0.1"),
    *("application/json;q=0.3, text/csv;q=0.8", "*/*;q=0, text/csv", "text/csv; charset=utf-8"),
    *("text/html", "", ",", ";;", "application/xml", "é", "null", "text/csv;q=x", "*/*;q=-1"),
    None,
]
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        1e308,
        -1e308,
        1e-320,
        10**30,
        10**400,
        -(2**63),
        2**64,
        2**53,
    ),
    *(float("nan"), float("inf"), -0.0, "", " ", "NaN", "inf", "-Infinity", "null", "None", "NA"),
    *("1e999", "0x10", "1_000", "1,5", "$ 1,234.50 ", "٣", "½", "-", "+", ".", "1.2.3", "1e", "%"),
    *("1.234,5", "1'234.5", "1\u202f234,5", "1,23,456", "1,234", "1.234.567", "12,5", "1 234"),
    *(1386979200000, -1386979200000, "1386979200000", 1386979200, "2021-01-01T00:00:00-08:00"),
    *("2021-02-30", "2021-01-01T00:00:00Z", "0000-00-00", "9999-12-31 23:59:60", "1677-01-01"),
    *("-1-01-01", "2021-01-01T00:00:00+25:00", "24:61", "12/31/2021", "true", "yes", "2"),
    *(
        "é",
        "\u2028",
        "\x00",
        "\x1f",
        "\ud800",
        "🙂" * 3,
        "a" * 5000,
        '"',
        "'",
        '""',
        "a\nb",
        "a\r\nb",
    ),
    *([], {}, [1], {"a": 1}, [[]], {"instances": []}, [None], b"x".hex()),
]
INSERTS = [
    "\x00",
    '"',
    ",",
    "\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    ":",
    "\\",
    "\ufeff",
    "é",
    "\ud83d",
    "9",
]


@dataclass
class Endpoint:
    """One of the worker's models, and rows that fit it."""

    worker: Worker
    number: int
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Endpoint]]:
    """Make one model per task, with columns of every kind."""
    folders, rows_of = [], []
    for name, rows in (("passengers", 500), ("orders", 600), ("rare", 200)):
        generate, target, _ = datasets.ALL[name]
        case, data = Case(tmp_path_factory.mktemp(name)), generate(rows=rows)
        case.prepare(case.write(data), target)
        case.train(num_boost_round="5")
        folders.append(case.folder / "model")
        few = {column: values[:20] for column, values in data.items() if column != target}
        rows_of.append(
            [dict(zip(few, row, strict=True)) for row in zip(*few.values(), strict=True)]
        )
    with worker(folders) as found:
        yield [Endpoint(found, number, rows) for number, rows in enumerate(rows_of)]


def check(endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> int:
    """Return the status of the answer, which must be a good one."""
    reply = endpoint.worker.ask(body, headers, endpoint.number)
    assert reply.seconds < SLOWEST
    answer = reply.body.decode()
    if reply.status == 200:
        assert predictions(reply.kind.partition(";")[0], answer) >= 1
        return 200
    assert reply.status in (400, 406, 415), answer
    assert reply.kind == JSON
    content = strict(answer)
    assert content.keys() == {"error", "column", "row"}
    assert content["error"].strip()
    assert len(content["error"]) <= 500
    assert content["row"] is None or content["row"] >= 1
    return reply.status


def predictions(kind: str, answer: str) -> int:
    """Return how many a well-formed answer holds."""
    if kind == JSON:
        return len(strict(answer)["predictions"])
    if kind == CSV:
        rows = list(csv.reader(io.StringIO(answer)))
        assert len({len(row) for row in rows}) == 1
        return len(rows)
    assert kind in (LINES, "application/x-jsonlines", "application/x-ndjson")
    return len([strict(line) for line in answer.splitlines()])


def strict(text: str) -> Any:
    """Parse JSON without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


# Requests.


def payload(seed: int, good: list[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers: rows that fit, changed in places, as text that may be damaged."""
    draw = random.Random(seed)
    rows: list[Any] = [dict(draw.choice(good)) for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))]
    for _ in range(draw.choice([0, 0, 0, 1, 1, 2, 5])):
        if rows:
            spoil(draw, rows)
    kind = draw.choice(TYPES)
    form = kind if draw.random() < 0.8 else draw.choice(TYPES)
    text = written(draw, rows, (form or "").lower())
    for _ in range(draw.choice([0, 0, 0, 0, 1, 3])):
        text = damaged(draw, text)
    body = encoded(draw, text)
    headers = {"Content-Type": kind, "Accept": draw.choice(ACCEPTS)}
    return body, {name: value for name, value in headers.items() if value is not None}


def spoil(draw: random.Random, rows: list[Any]) -> None:
    """Change one value, key or row."""
    at = draw.randrange(len(rows))
    row, how = rows[at], draw.random()
    if how < 0.1 or not isinstance(row, dict) or not row:
        rows[at] = copy.deepcopy(draw.choice([*ODD, list(good_values(row)), {}]))
        return
    name = draw.choice(list(row))
    if how < 0.75:
        row[name] = copy.deepcopy(draw.choice(ODD))
    elif how < 0.85:
        del row[name]
    elif how < 0.95:
        other = draw.choice(["", " ", name.lower(), name + " ", "é", "x" * 300, "Survived", "0"])
        row[other] = row.pop(name)
    else:
        row[draw.choice(["more", "instances", "", "\ud800"])] = copy.deepcopy(draw.choice(ODD))


def good_values(row: Any) -> list[Any]:
    return list(row.values()) if isinstance(row, dict) else [row]


def written(draw: random.Random, rows: list[Any], form: str) -> str:
    if "csv" in form:
        return as_csv(draw, rows)
    if "lines" in form or "ndjson" in form:
        return draw.choice(["\n", "\r\n", "\n\n"]).join(json.dumps(r) for r in rows)
    shapes: list[Callable[[], Any]] = [
        lambda: rows,
        lambda: rows[0] if rows else {},
        lambda: {"instances": rows},
        lambda: [good_values(row) for row in rows],
        lambda: {"instances": [good_values(row) for row in rows]},
        lambda: {"data": rows},
        lambda: draw.choice(ODD[:40]),
    ]
    content = draw.choice(shapes)()
    for _ in range(draw.choice([*[0] * 40, 1, 2, 2000])):
        content = [content] if draw.random() < 0.5 else {"instances": content}
    try:
        return json.dumps(content, ensure_ascii=draw.random() < 0.5)
    except RecursionError:
        return "[" * 5000


def as_csv(draw: random.Random, rows: list[Any]) -> str:
    sink = io.StringIO()
    dialect = csv.unix_dialect if draw.random() < 0.5 else csv.excel  # all is quoted, or little
    writer = csv.writer(sink, dialect, delimiter=draw.choice(",,,,,,;\t"))
    if rows and isinstance(rows[0], dict) and draw.random() < 0.6:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if v is None else v for v in good_values(row)])
    return sink.getvalue()


def damaged(draw: random.Random, text: str) -> str:
    """Cut it, double it, or add a character, at a random place."""
    at = draw.randrange(len(text) + 1)
    how = draw.randrange(5)
    if how == 0:
        return text[:at]
    if how == 1:
        return text[:at] + text[at + draw.randrange(1, 4) :]
    if how == 2:
        return text + text[at:]
    return text[:at] + draw.choice(INSERTS) * draw.choice([1, 1, 2, 500]) + text[at:]


def encoded(draw: random.Random, text: str) -> bytes:
    if draw.random() < 0.05:
        return text.encode(draw.choice(["utf-16", "utf-32", "cp1252", "utf-8-sig"]), "ignore")
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    if body and draw.random() < 0.05:
        body[draw.randrange(len(body))] = draw.randrange(256)
    return bytes(body)


@pytest.mark.slow
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_payloads_are_predicted_or_refused_with_a_reason(
    endpoints: list[Endpoint], count: int
) -> None:
    statuses: Counter[int] = Counter()
    for seed in range(SEED, SEED + count):
        endpoint = endpoints[seed % len(endpoints)]
        body, headers = payload(seed, endpoint.rows)
        try:
            statuses[check(endpoint, body, headers)] += 1
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {headers} {body[:500]!r}: {str(error)[-1500:]}")
    print(dict(statuses))
    # Neither mostly nonsense nor mostly harmless.
    assert statuses[200] > count / 10
    assert statuses[400] > count / 10


@pytest.mark.slow
@settings(max_examples=200)
@given(st.sampled_from([CSV, JSON, LINES]), st.one_of(st.binary(), st.text().map(str.encode)))
@example(JSON, b"[" * 100_000)
@example(JSON, b'{"a":' * 100_000)
@example(LINES, b"9" * 5000)
@example(CSV, b'"' * 100_001)
@example(CSV, b"a," * 100_000)
@example(CSV, b"\n" * 100_000)
@example(CSV, "\ufeff".encode() * 3)
@example(JSON, b"[" + b"{}," * 50_000 + b"{}]")
def test_any_bytes_are_predicted_or_refused_with_a_reason(
    endpoints: list[Endpoint], kind: str, body: bytes
) -> None:
    for endpoint in endpoints:
        check(endpoint, body, {"Content-Type": kind, "Accept": "*/*"})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data())
def test_any_value_in_any_column_is_predicted_or_refused_with_a_reason(
    endpoints: list[Endpoint], data: st.DataObject
) -> None:
    endpoint = data.draw(st.sampled_from(endpoints))
    rows = [dict(row) for row in endpoint.rows[:2]]
    name = data.draw(st.sampled_from(list(rows[0])))
    rows[data.draw(st.integers(0, 1))][name] = data.draw(VALUES)
    body = json.dumps(rows).encode()
    check(endpoint, body, {"Content-Type": JSON, "Accept": data.draw(st.sampled_from([JSON, CSV]))})
