"""The file that trains can be asked with: converted, in pieces, and with one answer in order."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import typer
from botocore.exceptions import ClientError

from model_case import Case, inference
from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.cli import endpoint as commands
from sm_mlops.deployment import pieces, predict
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.errors import MlopsError

ENDPOINT = Endpoint(
    *("churn-staging", "InService", "", "serverless", "config", "model", ""),
    since=datetime(2026, 1, 1, tzinfo=UTC),
    changed=datetime(2026, 1, 1, tzinfo=UTC),
)
ROWS = 120
RANDOM = np.random.default_rng(0)
TABLE = pa.table(
    {
        "Größe": RANDOM.uniform(900, 5000, ROWS).round(2),
        "Ort": ["Köln", "Bonn", None, "Brühl"] * (ROWS // 4),
        "Tag": pa.array((np.arange(ROWS) * 7).astype("datetime64[D]")),
        "Preis": RANDOM.uniform(3, 60, ROWS).round(2),
    }
)


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def german_text() -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=";")
    writer.writerow(TABLE.column_names)
    for size, place, day, price in zip(*TABLE.to_pydict().values(), strict=True):
        writer.writerow([german(size), place, day, german(price)])
    return sink.getvalue()


def objects() -> list[dict[str, Any]]:
    return [{**row, "Tag": str(row["Tag"]), "more": [1]} for row in TABLE.to_pylist()]


def folder(path: Path) -> None:
    path.mkdir()
    pq.write_table(TABLE.slice(0, 50), path / "a.parquet")
    pq.write_table(TABLE.slice(50).select(TABLE.column_names[::-1]), path / "b.parquet")


WRITERS: dict[str, Callable[[Path], object]] = {
    "Parquet": lambda path: pq.write_table(TABLE, path),
    "Parquet folder": folder,
    "Feather": lambda path: feather.write_feather(TABLE, str(path)),
    "JSON": lambda path: path.write_text(json.dumps(objects())),
    "JSON Lines": lambda path: path.write_text("\n".join(map(json.dumps, objects()))),
    "German CSV": lambda path: path.write_bytes(german_text().encode("cp1252")),
    "German CSV in gzip": lambda path: path.write_bytes(gzip.compress(german_text().encode())),
    "Excel's CSV": lambda path: path.write_bytes(f"sep=;\n{german_text()}".encode("utf-8-sig")),
}


@dataclass
class Served:
    """A model behind the runtime's API, which counts the requests."""

    model: Any
    requests: int = 0

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.requests += 1
        found = inference.transform_fn(
            self.model, request["Body"], request["ContentType"], request["Accept"]
        )
        if found.status_code != 200:
            text = found.get_data().decode()
            raise ClientError(
                {  # type: ignore[typeddict-unknown-key]
                    "Error": {"Code": "ModelError", "Message": "Received client error"},
                    "OriginalStatusCode": found.status_code,
                    "OriginalMessage": text,
                },
                "InvokeEndpoint",
            )
        return {"Body": io.BytesIO(found.get_data()), "ContentType": found.mimetype}


@pytest.fixture(scope="module", params=["German CSV", "Parquet"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a model that was trained on the rows in one format."""
    case = Case(tmp_path_factory.mktemp("model"))
    path = case.folder / "rows"
    WRITERS[request.param](path)
    case.prepare(path, "Preis")
    return case.train(num_boost_round="5"), request.param


@pytest.fixture
def ask(repo: Repo, model: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    served = Served(model[0])
    monkeypatch.setattr(Aws, "runtime", served)
    aws = Aws(repo.settings())

    def asked(path: Path, accept: str = "application/json") -> Iterator[tuple[predict.Answer, int]]:
        served.requests = 0
        return predict.in_pieces(aws, ENDPOINT, path, accept)

    asked.served = served  # type: ignore[attr-defined]
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_what_trains_can_be_asked_with(
    ask: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "rows"
    WRITERS[name](path)
    if model[1] == "Parquet" and "CSV" in name:
        with pytest.raises(predict.Refused, match="is not a number"):  # with a decimal comma
            list(ask(path))
        return
    whole = predict.joined([answer for answer, _ in ask(path)])
    monkeypatch.setitem(predict.PIECE_ROWS, "serverless", 7)
    cut = predict.joined([answer for answer, _ in ask(path)])
    assert ask.served.requests >= ROWS / 7
    assert json.loads(cut.body) == json.loads(whole.body)
    assert len(json.loads(cut.body)["predictions"]) == ROWS


@pytest.mark.parametrize("accept", ["text/csv; header=present", "application/jsonlines"])
def test_the_answers_are_one_with_one_header(
    ask: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    path = tmp_path / "rows"
    WRITERS[model[1]](path)
    whole = predict.joined([answer for answer, _ in ask(path, accept)])
    monkeypatch.setitem(predict.PIECE_ROWS, "serverless", 7)
    cut = predict.joined([answer for answer, _ in ask(path, accept)])
    assert ask.served.requests >= ROWS / 7
    assert cut.body == whole.body
    assert len(cut.body.splitlines()) == ROWS + ("csv" in accept)


def test_an_error_names_the_row_of_the_file(
    ask: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(predict.PIECE_ROWS, "serverless", 7)
    path = tmp_path / "rows.csv"
    lines = ["Größe,Ort,Tag"] + ["1,Bonn,2024-01-01"] * ROWS
    lines[100] = "1,Bonn,soon"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        predict.Refused, match=r"'Tag', line 101 of rows\.csv: 'soon' is not a date"
    ):
        list(ask(path))
    lines[50] = "1,Bonn"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(MlopsError, match=r"rows\.csv, line 51: 2 fields, but the header has 3"):
        list(ask(path))


def test_pieces_are_at_most_as_large_as_a_request(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"{i},{'x' * (i % 90)}" for i in range(500)]
    path.write_text("\n".join(["number,text", *rows]) + "\n")
    found = list(pieces.cut(path, 1000, 1 << 31))
    assert all(len(piece.body) <= 1000 for piece in found)
    assert all(piece.body.startswith(b"number,text\n") for piece in found)
    assert [line for piece in found for line in piece.body.decode().splitlines()[1:]] == rows
    with pytest.raises(MlopsError, match="the row at 2 has 0 MB"):
        list(pieces.cut(path, 12, 1 << 31))


def test_a_file_without_a_header_is_one_request_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("1,a\n2,b\n")
    (only,) = pieces.cut(path, 1000, 1000)
    assert (only.body, only.place(2)) == (b"1,a\n2,b\n", "row 2 of rows.csv")
    path.write_text("1,a\n2,b\n3,c\n")
    with pytest.raises(MlopsError, match="line 1 holds numbers, so it is no header"):
        list(pieces.cut(path, 1000, 1))


@pytest.mark.parametrize("text", ['{"instances": [{"a": 1}]}', '{"a": 1}', "[[1, 2], [3, 4]]"])
def test_json_that_only_an_endpoint_takes_is_sent_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    (only,) = pieces.cut(path, 1000, 1)
    assert (only.body.decode(), only.content_type) == (text, "application/json")


@pytest.mark.parametrize("kind", ["text/csv", "application/json"])
def test_progress_is_shown_on_a_terminal_unless_predictions_are_printed_there(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    answers = [(predict.Answer(b'{"predictions": [1]}', kind, 0.1), 1200)] * 2
    for both in (False, True):
        monkeypatch.setattr(commands, "on_terminal", lambda s, both=both: both or s is sys.stderr)
        commands._followed(iter(answers), keep=False)
        assert ("2,400 rows predicted" in capfd.readouterr().err) != (both and kind == "text/csv")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MlopsError("gone")])
@pytest.mark.parametrize("kind", ["text/csv", "application/json"])
def test_an_interrupted_run_says_how_far_it_came(
    capfdbinary: pytest.CaptureFixture[bytes], error: BaseException, kind: str
) -> None:
    def answers() -> Iterator[tuple[predict.Answer, int]]:
        yield predict.Answer(b"1\n2\n", kind, 0.1), 2
        raise error

    with pytest.raises((typer.Exit, MlopsError)) as ended:
        commands._followed(answers(), keep=False)
    out, told = capfdbinary.readouterr()
    assert out == (b"1\n2\n" if kind == "text/csv" else b"")
    said = told.decode() + str(ended.value)
    assert "after 2 rows" in said or "gone; 2 rows before it were predicted" in said
    assert ("are printed" in said) == (kind == "text/csv")
