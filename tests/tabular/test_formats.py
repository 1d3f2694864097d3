"""Files of data are recognized by their content: read, or refused in one line without its bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_case import Case, DataError
from sm_mlops.deployment import pieces
from sm_mlops.errors import MlopsError
from sm_mlops.tabular import tables

TABLE = pa.table(
    {
        "power": pa.array([(i * 37) % 101 for i in range(40)]),
        "origin": pa.array(["x", "y", None, "z"] * 10),
        "day": pa.array([f"2024-01-{i % 28 + 1:02d}" for i in range(40)]).cast(pa.date32()),
        "mpg": pa.array([i / 4 for i in range(40)]),
    }
)
OBJECTS = [{**row, "day": str(row["day"])} for row in TABLE.to_pylist()]
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS).encode()
EXPORT = "; export it as CSV or Parquet"
UNPACK = "; unpack it, and name the file or folder inside"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "Parquet": lambda path: pq.write_table(TABLE, path),
    "Feather": lambda path: feather.write_feather(TABLE, str(path)),
    "Feather 1": lambda path: feather.write_feather(
        TABLE.set_column(2, "day", TABLE["day"].cast(pa.string())), str(path), version=1
    ),
    "ORC": lambda path: orc.write_table(TABLE, str(path)),
    "JSON Lines": lambda path: path.write_bytes(LINES),
    "JSON Lines in gzip": lambda path: path.write_bytes(gzip.compress(LINES)),
    "JSON": lambda path: path.write_text(json.dumps(OBJECTS)),
    "indented JSON": lambda path: path.write_text(json.dumps(OBJECTS, indent=2)),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["rows", "rows.csv"])
def test_what_arrow_can_read_is_read_whatever_its_name(case: Case, kind: str, name: str) -> None:
    path = case.folder / name
    WRITERS[kind](path)
    found = case.prepare(path, "mpg")
    assert [(c.name, c.kind) for c in found.columns] == [
        ("power", "number"),
        ("origin", "text"),
        ("day", "date"),
    ]
    assert case.encoding().summary[0]["missing"] == 0
    assert found.data["rows"]["train"] == 28


def archive(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        for name in names:
            packed.writestr(name, "\x01\x02<a/>")
    return sink.getvalue()


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("rows.csv"))
    return sink.getvalue()


REFUSED = {
    "workbook": (archive("[Content_Types].xml", "xl/workbook.xml"), f"an Excel workbook{EXPORT}"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), f"an old Excel .*{EXPORT}"),
    "zip": (archive("rows.csv"), f"a zip archive{UNPACK}"),
    "damaged zip": (archive("rows.csv")[:40], f"a zip archive{UNPACK}"),
    "tar": (tar(), f"a tar archive{UNPACK}"),
    "tar in gzip": (gzip.compress(tar()), f"a tar archive{UNPACK}"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\x01", f"a PDF document{EXPORT}"),
    "HTML": (b"\n<!DOCTYPE html><html>", f"an HTML page{EXPORT}"),
    "XML": (b"\xef\xbb\xbf<?xml version='1.0'?>", f"an XML file{EXPORT}"),
    "Parquet in gzip": (gzip.compress(b"PAR1\0"), f"Parquet, compressed with gzip{UNPACK}"),
    "other": (b"\x07\x00\x1b[2J", f"neither text nor a known format{EXPORT}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_formats_are_named(case: Case, name: str) -> None:
    content, said = REFUSED[name]
    path = case.folder / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"rows\.csv is {said}$") as error:
        case.prepare(path, "mpg")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"mpg": {"0": 1, "1": 2}, "x": {"0": 3, "1": 4}}', 'to_json\\(orient="records"\\)'),
        ('{\n "mpg": 3\n}\n', 'to_json\\(orient="records"\\)'),
        ("[[1, 2], [3, 4]]", "row 1: not an object"),
        ('{"a": 1, "mpg": 2}\n{"a": \n', "line 2: not JSON"),
        ('[{"a": 1, "mpg": 2}', "not JSON"),
        ('{"a": 1, "mpg": 2}\n{"a": "x\x1b", "mpg": 2}\n', "line 2: not JSON"),
        ('{"a": 1, "mpg": 2}\n{"a": "x", "mpg": 2}\n', "row 2: column 'a' is 'x' there, but 1 in"),
        ('[{"a": 2.5, "mpg": 2}, {"a": true, "mpg": 2}]', "row 2: column 'a' is 'True' there"),
        ('[{"a": 1}, {"a": 2.5}, {"a": true, "mpg": 2}]', "row 3: column 'a' is 'True' there"),
        ('[{"a": 1.5}, {"a": 2}, {"a": 9007199254740993}]', "row 2: column 'a' is '2' there, but"),
        ('{"a": [1], "mpg": 2}\n', "column 'a' is nested"),
    ],
)
def test_json_that_is_not_rows_is_named(case: Case, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        case.prepare(case.text(content, "rows.json"), "mpg")
    assert str(error.value).isprintable()


@pytest.mark.slow
def test_a_name_with_blanks_around_it_is_refused_before_anything_is_trained(case: Case) -> None:
    file = case.folder / "data.parquet"
    pq.write_table(pa.table({" age": [1, 2] * 20, "y": ["a", "b"] * 20}), file)
    with pytest.raises(DataError, match=r"data\.parquet: the column name ' age' has blanks around"):
        case.prepare(file, "y")


def test_texts_of_json_are_not_numbers_in_some_rows_only(case: Case) -> None:
    many = "".join(
        json.dumps({"a": str(i) if i >= 65_536 else i, "mpg": i}) + "\n" for i in range(70_010)
    )
    with pytest.raises(DataError, match="a column changes its type between rows"):
        case.prepare(case.text(many, "rows.jsonl"), "mpg")


def test_a_folder_of_csv_files_may_hold_a_json_file_about_them(case: Case) -> None:
    case.text("x,y\n1,2\n", "rows/a.csv")
    case.text('{"about": {}}', "rows/about.json")
    assert [file.name for file in tables.find(case.folder / "rows")] == ["a.csv"]
    (case.folder / "rows" / "a.csv").rename(case.folder / "a.csv")
    assert [file.name for file in tables.find(case.folder / "rows")] == ["about.json"]


def test_excels_own_first_line_names_the_delimiter(case: Case) -> None:
    rows = "".join(f"{i % 7},5;{'ab'[i % 2]}\r\n" for i in range(40))
    found = case.prepare(case.text(f"\ufeffsep=;\r\na|b;y\r\n{rows}"), "y")
    assert [column.name for column in found.columns] == ["a|b"]
    with pytest.raises(DataError, match=r"line 43: 1 field, but the header has 2"):
        case.prepare(case.text(f"sep=;\na|b;y\n{rows}7\n"), "y")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("start", ["\n", "\r\n\r\n", "sep=;\n\n", "\nsep=;\r\n"])
def test_blank_lines_may_stand_before_the_header(case: Case, start: str, encoding: str) -> None:
    path = case.folder / "data.csv"
    path.write_bytes((start + "a;y\n" + "1;b\n2;c\n" * 20).encode(encoding))
    read = tables.read([path], "y")
    assert (read.num_rows, read["a"].to_pylist()[:2]) == (40, [1, 2])
    line = start.count("\n") + 4
    assert tables.where([path], 2) == f"{path}, line {line}"


@pytest.mark.slow
def test_the_end_of_a_file_decides_about_its_encoding(case: Case) -> None:
    text = "farbe,y\n" + "rot,a\nblau,b\n" * 100_000 + "grün,a\n" * 200
    path = case.folder / "data.csv"
    path.write_bytes(text.encode("cp1252"))
    case.prepare(path, "y")
    assert case.encoding().columns[0].categories == ["blau", "grün", "rot"]


STARTS = [
    *(b"", b"x,y\n1,a\n2,b\n", b"sep=;\nx;y\n", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b\x08\0"),
    *(b"PAR1\0", b"ARROW1\0\0", b"FEA1\0", b"ORC\0", b"\xff\xff\xff\xff\0", b"PK\x03\x04\0"),
    *(b'{"x": 1, "y": 2}\n', b'[{"x": 1, "y": 2},', b"[[", b'{"x": {"0": 1}}', b"[" * 100_000),
]


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.sampled_from(STARTS),
    st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
    st.sampled_from(["rows.csv", "rows.json", "rows", "rows.parquet"]),
)
def test_any_bytes_are_read_or_refused_in_one_printable_line(
    case: Case, start: bytes, rest: bytes, name: str
) -> None:
    for file in case.folder.iterdir():
        file.unlink()
    path = case.folder / name
    path.write_bytes(start + rest)
    for read in (
        lambda: tables.read(tables.find(path), "y"),
        lambda: list(pieces.cut(path, 100_000, 10)),
    ):
        try:
            read()
        except (DataError, MlopsError) as error:
            assert str(error).isprintable()
