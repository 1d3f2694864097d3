"""Files as rows: read in parts, written as JSON Lines for the job, joined with its answers."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sm_mlops.deployment import batch_rows
from sm_mlops.deployment.batch_rows import Part, Writer
from sm_mlops.errors import MlopsError
from sm_mlops.tabular.scoring import to_csv as evaluated

AWKWARD = ['a,b "c"\nd', "", "ü \\ / \t\x01", "NA", " x ", "007", "😀", "{}"]


def sent(rows: pa.Table) -> list[Any]:
    return [json.loads(line) for line in batch_rows.to_lines(rows).splitlines()]


def only(file: Path) -> pa.Table:
    [part] = batch_rows.parts([file])
    assert (part.file, part.first) == (file, 1)
    return part.rows


def test_csv_keeps_its_text_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "some rows.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [["id", "te,xt"], *([str(i), t] for i, t in enumerate(AWKWARD))]
        )
    rows = only(file)
    assert rows["te,xt"].to_pylist() == AWKWARD
    assert sent(rows) == [{"id": str(i), "te,xt": text} for i, text in enumerate(AWKWARD)]
    written = batch_rows.to_csv(rows, header=True).decode()
    assert list(csv.reader(io.StringIO(written, newline=""))) == [
        ["id", "te,xt"],
        *([str(i), text] for i, text in enumerate(AWKWARD)),
    ]


@pytest.mark.parametrize(
    "text", ["a;b\n1;x\n2;y\n", "a\tb\n1\tx\n2\ty\n", "\ufeffa,b\r\n1,x\r\n2,y"]
)
def test_any_dialect_of_csv_is_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    assert only(file).to_pylist() == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_parquet_keeps_its_types_and_is_sent_as_it_was_evaluated(tmp_path: Path) -> None:
    day, moment = datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31, 7, 5, 3, 120)
    rows = pa.table(
        {
            "id": pa.array([9007199254740993, None]),
            "amount": pa.array([0.1, float("nan")]),
            "single": pa.array([0.1, 5], pa.float32()),
            "flag": [True, None],
            "day": [day, None],
            "at": [moment, None],
            "zone": pa.array([moment, None], pa.timestamp("us", "Europe/Zurich")),
            "kind": pa.array(["x", "x"]).dictionary_encode(),
            "bytes": pa.array([b"b", None]),
            "wait": pa.array([5, None], pa.duration("s")),
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    read = only(tmp_path / "rows.parquet")
    assert read.schema.types == rows.schema.types
    first, second = sent(read)
    assert (first["id"], first["amount"], first["flag"]) == (9007199254740993, 0.1, True)
    assert second == {**dict.fromkeys(rows.column_names), "single": 5, "kind": "x"}
    texts = next(csv.DictReader(io.StringIO(evaluated(read.drop_columns("bytes")))))
    for name in ("day", "at", "zone", "kind", "wait"):
        assert first[name] == texts[name], name


def test_json_lines_may_have_any_values_and_lack_some(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "x": 1, "more": {"a": [1]}, "none": None},
        {"id": "2", "x": 2.5, "flag": True},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n\n".join(map(json.dumps, rows)))
    assert sent(only(file)) == [
        {"id": "1", "x": 1, "more": '{"a": [1]}', "none": None, "flag": None},
        {"id": "2", "x": 2.5, "more": None, "none": None, "flag": True},
    ]


def test_true_beside_a_number_stays_true(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 2.5}\n{"a": true}\n{"a": null}\n')
    assert only(file)["a"].to_pylist() == ["2.5", "true", None]


def test_parts_are_bounded_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_rows, "VALUES", 20)
    for name, count in (("a.csv", 25), ("b.csv", 3)):
        (tmp_path / name).write_text("i,j\n" + "".join(f"{i},0\n" for i in range(count)))
    found = batch_rows.files(tmp_path)
    shown = [[(p.file.name, p.first, p.rows.num_rows) for p in batch_rows.parts(found)]] * 2
    monkeypatch.setattr(batch_rows, "BYTES", 40)
    shown.append([(p.file.name, p.first, p.rows.num_rows) for p in batch_rows.parts(found)])
    assert shown[0] == [("a.csv", 1, 10), ("a.csv", 11, 10), ("a.csv", 21, 5), ("b.csv", 1, 3)]
    assert shown[1] == shown[2] == shown[0]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.xlsx", b"x", "rows are read from .csv, .jsonl and .parquet files"),
        ("rows.csv", b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields, but the header has 2"),
        ("rows.csv", b"a,a\n1,2\n", "'a' occurs twice"),
        ("rows.csv", b"a,prediction\n1,2\n", "the output has a column 'prediction', too"),
        ("rows.jsonl", b'{"a":1}\n\n{"a":', "line 3: not JSON"),
        ("rows.jsonl", b"[1]\n", "line 1: not an object"),
        ("rows.parquet", b"no Parquet", "rows.parquet"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MlopsError, match=words) as caught:
        list(batch_rows.parts(batch_rows.files(tmp_path / name)))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_part_is_there_before_the_rest_of_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_rows, "VALUES", 20)
    monkeypatch.setattr(batch_rows, "BYTES", 1000)
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n" * 5000 + "1,2,3\n")
    found = batch_rows.parts([tmp_path / "rows.csv"])
    assert next(found).rows.num_rows == 10
    with pytest.raises(MlopsError, match="line 5002: 3 fields, but the header has 2"):
        list(found)


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a,c\n1,2\n")
    with pytest.raises(
        MlopsError, match=r"b\.csv: its columns are not those of the first file: b, c"
    ):
        list(batch_rows.parts(batch_rows.files(tmp_path)))


GOOD = {"prediction": "2020-01-01", "probability": 0.25, "probabilities": {"a": 0.25, "b": 0.75}}
BAD = {"error": "column 'x', row 2: 'old' is not a number", "column": "x", "row": 2}


def test_answers_are_columns_and_reasons() -> None:
    body = "\n\n".join(map(json.dumps, [BAD, GOOD, GOOD])) + "\n\n"
    found = batch_rows.answers(body.encode())
    assert found.errors == [BAD, None, None]
    assert found.columns.column_names == [
        "prediction", "probability", "probability_a", "probability_b",
    ]  # fmt: skip
    assert found.columns.to_pylist()[1]["prediction"] == "2020-01-01"


@pytest.mark.parametrize("value", [1.5, 2, True, 7])
def test_labels_and_quantities_keep_their_types(value: Any) -> None:
    labels = {**GOOD, "prediction": value} if value is True or value == 7 else {"prediction": value}
    found = batch_rows.answers((json.dumps(labels) + "\n").encode())
    assert found.columns["prediction"].to_pylist() == [value]


@pytest.mark.parametrize(
    "body", [b"no JSON\n", b'{"other":1}\n', b'{"prediction":1}{"prediction":1}\n']
)
def test_other_answers_are_no_predictions(body: bytes) -> None:
    with pytest.raises(MlopsError, match="the job's output"):
        batch_rows.answers(body)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_an_output_appears_when_it_is_complete(tmp_path: Path, name: str) -> None:
    rows = pa.table({"id": ["007", "8"], "day": [datetime.date(2026, 1, 1), None], "p": [0.5, 1.0]})
    writer = Writer(tmp_path / "new" / name)
    writer.write(rows.slice(0, 1))
    assert not writer.path.exists()
    writer.write(rows.slice(1))
    writer.close()
    assert [path.name for path in writer.path.parent.iterdir()] == [name]
    if name.endswith("parquet"):
        assert pq.read_table(writer.path) == rows
        return
    text = writer.path.read_text()
    expected = {
        "out.csv": "id,day,p\n007,2026-01-01,0.5\n8,,1\n",
        "out.jsonl": '{"id":"007","day":"2026-01-01","p":0.5}\n{"id":"8","day":null,"p":1}\n',
    }
    assert text == expected[name]


def test_rows_that_fit_no_more_are_named(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "out.parquet")
    writer.write(pa.table({"x": [1]}))
    with pytest.raises(MlopsError, match=r"out\.parquet: .*write a \.csv or \.jsonl file"):
        writer.write(pa.table({"x": ["text"]}))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_line_of_a_bad_row_says_where_it_is() -> None:
    rows = pa.table({"x": ["1", "old"], "day": [None, datetime.date(2026, 1, 1)]})
    part = Part(Path("data/rows.csv"), 101, rows)
    assert json.loads(batch_rows.error_line(part, 1, BAD)) == {
        "file": "rows.csv",
        "row": 102,
        "column": "x",
        "error": "column 'x', row 102: 'old' is not a number",
        "values": {"x": "old", "day": "2026-01-01"},
    }


def test_a_bad_row_may_hold_what_json_does_not_have() -> None:
    rows = pa.table(
        {
            "b": pa.array([b"caf\xe9"]),
            "d": pa.array([datetime.timedelta(seconds=90)], pa.duration("s")),
            "n": pa.array([[datetime.date(2026, 1, 1)]]),
        }
    )
    line = batch_rows.error_line(Part(Path("rows.parquet"), 1, rows), 0, BAD)
    assert json.loads(line)["values"] == {"b": "caf\ufffd", "d": "0:01:30", "n": ["2026-01-01"]}


@pytest.mark.parametrize("name", ["o.csv", "o.parquet"])
def test_columns_in_another_order_or_missing_keep_their_values(tmp_path: Path, name: str) -> None:
    writer = Writer(tmp_path / name)
    writer.write(pa.table({"a": ["1"], "b": ["x"]}))
    writer.write(pa.table({"b": ["y"], "a": ["2"]}))
    writer.write(pa.table({"b": ["z"]}))
    with pytest.raises(MlopsError, match=r"later rows have a column 'c'.* write a \.jsonl file"):
        writer.write(pa.table({"a": ["3"], "b": ["x"], "c": ["new"]}))
    writer.close()
    rows = only(tmp_path / name).to_pylist()
    assert [row["a"] or None for row in rows] == ["1", "2", None]
    assert [row["b"] for row in rows] == ["x", "y", "z"]
