"""The endpoint's code: every way to send rows gives the same answer, and a bad row is named."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import datasets
from model_case import PASSENGER as ROW
from model_case import Case, inference, passengers
from sm_mlops.tabular import rows as typed
from sm_mlops.tabular import serving

pytestmark = pytest.mark.slow

# What a cold start would wait for: seconds, where all that serving needs takes tenths of one.
HEAVY = (
    *("pandas", "sklearn", "matplotlib", "scipy.optimize", "scipy.stats", "pyarrow.parquet"),
    *("pyarrow.dataset", "boto3", "botocore", "flask", "sagemaker_containers", "yaml"),
    *("sm_mlops.tabular.tables", "sm_mlops.tabular.fitting", "sm_mlops.tabular.report"),
)
CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return passengers(tmp_path_factory.mktemp("passengers"))


@pytest.fixture(scope="module")
def model(case: Case) -> Any:
    return inference.model_fn(str(case.folder / "model"))


OTHER = {**ROW, "Sex": "male", "Age": None, "Cabin": None, "Name": 'O\'Neil "Jim", Mr. N2'}


def ask(model: Any, body: str | bytes, kind: str | None, accept: str | None = JSON) -> Any:
    """Return the predictions, or in another form than JSON the text of the answer."""
    reply = inference.transform_fn(model, body, kind, accept)
    assert reply.status_code == 200, reply.get_data()
    text = reply.get_data().decode()
    return json.loads(text)["predictions"] if accept == JSON else text


def refused(model: Any, body: str | bytes, kind: str | None, accept: str | None = JSON) -> Any:
    """Return status and content of the answer to a client's fault."""
    reply = inference.transform_fn(model, body, kind, accept)
    assert reply.mimetype == JSON
    content = json.loads(reply.get_data())
    assert content.keys() == {"error", "column", "row"}
    assert "\n" not in content["error"]
    return reply.status_code, content


def field(value: Any) -> str:
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def as_csv(rows: list[dict[str, Any]], header: bool) -> str:
    lines = [list(rows[0])] if header else []
    lines += [list(row.values()) for row in rows]
    return "".join(",".join(map(field, line)) + "\n" for line in lines)


@pytest.mark.slow
def test_every_way_to_send_rows_gives_the_same_answer(model: Any) -> None:
    rows = [ROW, OTHER]
    shuffled = [dict(reversed(row.items())) for row in rows]
    bodies: list[tuple[str | bytes, str]] = [
        (as_csv(rows, header=True), CSV),
        (as_csv(rows, header=False), "text/csv; charset=utf-8"),
        ("\ufeff" + as_csv(shuffled, header=True), CSV),
        (as_csv([{**row, "Survived": 1, "PassengerId": 7} for row in rows], header=True), CSV),
        (json.dumps(rows), JSON),
        (json.dumps({"instances": shuffled}), JSON),
        (json.dumps([list(row.values()) for row in rows]), JSON),
        ("\n".join(map(json.dumps, rows)).encode(), LINES),
        (
            json.dumps([{k: v if v is None else str(v) for k, v in row.items()} for row in rows]),
            JSON,
        ),
    ]
    answers = [ask(model, body, kind) for body, kind in bodies]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] != answers[0][1]
    assert ask(model, json.dumps(ROW), JSON) == answers[0][:1]


def test_answers_hold_label_and_probabilities(model: Any) -> None:
    first = ask(model, json.dumps(ROW), JSON)[0]
    assert first["prediction"] in (0, 1)
    assert first["probability"] == first["probabilities"]["1"]
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    body = json.dumps([ROW, OTHER])
    lines = ask(model, body, JSON, LINES).splitlines()
    assert [json.loads(line) for line in lines] == ask(model, body, JSON)
    plain = ask(model, body, JSON, CSV)
    headed = ask(model, body, JSON, "text/csv; header=present")
    assert headed == '"prediction","probability","probability_0","probability_1"\n' + plain
    assert float(plain.split(",")[1]) == pytest.approx(first["probability"])


def test_missing_values_and_unseen_categories_are_scored(model: Any) -> None:
    rows = [
        dict.fromkeys(ROW),
        {**ROW, "Embarked": "Z", "Cabin": "never seen", "Name": ""},
        {**ROW, "Age": "NA", "Fare": " n/a "},
    ]
    for answer in ask(model, json.dumps(rows), JSON):
        assert 0 < answer["probability"] < 1


@pytest.mark.parametrize(
    ("body", "kind", "pattern"),
    [
        (json.dumps([ROW, {**ROW, "Age": "old"}]), JSON, r"column 'Age', row 2: 'old' is not"),
        (as_csv([ROW, {**ROW, "Fare": "x"}], header=True), CSV, r"column 'Fare', row 2: 'x'"),
        (json.dumps({k: v for k, v in ROW.items() if k != "Sex"}), JSON, "'Sex' is missing in row"),
        (json.dumps([ROW, {"Age": 3}]), JSON, r"column 'Pclass' is missing in row 2"),
        (json.dumps({**ROW, "Age": [1]}), JSON, r"column 'Age', row 1: \[1\] is not"),
        (as_csv([{k.lower(): v for k, v in ROW.items()}], header=True), CSV, "column 'Pclass'|9"),
        ("1,2,3\n", CSV, r"row 1 has 3 values and no header, but the columns are 9: Pclass"),
        (as_csv([ROW], header=False) + "1,2\n", CSV, r"row 2: 2 fields, but the first row has 9"),
        (json.dumps([[1, 2], [1]]), JSON, r"row 2 is not a list of 2 values"),
        (json.dumps(ROW) + "\n{oops\n", LINES, r"row 2 is not JSON"),
        ("{", JSON, "the body is not JSON"),
        ("", CSV, "the body holds no row"),
        ("[]", JSON, "the body holds no row"),
        ('["a", {}]', JSON, "row 1"),
        (as_csv([ROW], header=True).splitlines()[0], CSV, "a header and no row"),
        (b"\xff\xfe\x00", LINES, "not UTF-8"),
        ("[" * 100_000, JSON, "the body is nested too deeply"),
        ('{"Age": ' + "9" * 5000 + "}", LINES, "row 1 is not JSON: .*digits"),
        (json.dumps(ROW) + "," + json.dumps(ROW), LINES, "row 1 is not JSON"),
        (json.dumps(ROW)[:-1] + ', "Age": 3}', JSON, "column 'Age' occurs twice in one row"),
        (json.dumps([ROW, {**ROW, "Sex": "\ud800"}]), JSON, r"'Sex', row 2: '\\ud800' is not Uni"),
        (json.dumps([ROW, {**ROW, "Sex": ["male"]}]), JSON, r"'Sex', row 2: \['male'\] is not a s"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_named(model: Any, body: Any, kind: str, pattern: str) -> None:
    status, content = refused(model, body, kind)
    assert status == 400
    assert re.search(pattern, content["error"]), content
    named = re.search(r"column '(.+?)'", content["error"])
    assert content["column"] == (named[1] if named else None)
    numbered = re.search(r"\brow (\d+)", content["error"])
    row = int(numbered[1]) if numbered else None
    assert content["row"] == row or "instead" in content["error"]


@pytest.mark.slow
def test_a_row_gets_the_same_score_whatever_is_beside_it(tmp_path: Path) -> None:
    size = [1, 2, 3, "XL"] * 50
    case = Case(tmp_path)
    case.prepare(case.write({"size": size, "y": [s in (1, "XL") for s in size]}), "y")
    model = case.train()
    alone = ask(model, '{"size": 1.0}', JSON)
    assert alone[0]["probability"] > 0.5
    assert ask(model, '[{"size": 1.0}, {"size": "2"}]', JSON)[:1] == alone


def test_a_header_in_another_case_is_not_a_row_of_data(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.prepare(case.write({"a": list("uvw") * 40, "b": list("xy") * 60, "y": [1, 0] * 60}), "y")
    _, content = refused(case.train(), "A,B\nu,x\n", CSV)
    assert re.search(r"column 'a' is missing.*mean 'A'", content["error"])


@pytest.mark.parametrize(("value", "fits"), [(1, True), (0.0, True), (None, True), (7, False)])
def test_a_boolean_given_as_a_number_is_0_or_1(tmp_path: Path, value: Any, fits: bool) -> None:
    case = Case(tmp_path)
    flags = [True, False] * 60
    case.prepare(case.write({"flag": flags, "y": flags}), "y")
    model, body = case.train(), json.dumps({"flag": value})
    if fits:
        assert len(ask(model, body, JSON)) == 1
    else:
        _, content = refused(model, body, JSON)
        assert "'flag', row 1: 7.0 is not true" in content["error"]


@pytest.mark.slow
@pytest.mark.parametrize("beside", [[], [2.5], [2], [None], ["2,5"]])
@pytest.mark.parametrize("kind", [JSON, LINES])
def test_true_is_no_number_whatever_is_beside_it(model: Any, beside: list[Any], kind: str) -> None:
    rows = [{**ROW, "Age": age} for age in [*beside, True]]
    body = json.dumps(rows) if kind == JSON else "".join(f"{json.dumps(row)}\n" for row in rows)
    status, content = refused(model, body, kind)
    said = "'2,5' is not a number" if "2,5" in beside else "'true' is not a number"
    assert (status, said in content["error"]) == (400, True), content


def test_a_date_may_be_the_nan_of_json(tmp_path: Path) -> None:
    case = Case(tmp_path)
    days = [f"2020-01-{1 + i % 28:02}" for i in range(120)]
    case.prepare(case.write({"day": days, "y": [d > "2020-01-14" for d in days]}), "y")
    model = case.train()
    assert ask(model, '{"day": NaN}', JSON) == ask(model, '{"day": null}', JSON)


def test_texts_may_be_long_and_hold_any_line_separator(model: Any) -> None:
    long = {**ROW, "Name": "a" * 200_000}
    assert ask(model, as_csv([long], header=False), CSV) == ask(model, json.dumps(long), JSON)
    odd = {**ROW, "Name": "Fam1, Mrs.\u2028N1\x85"}
    lines = json.dumps(odd, ensure_ascii=False) + "\r\n"
    assert ask(model, lines, LINES) == ask(model, json.dumps(odd), JSON)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        *((None, JSON), ("", JSON), (",", JSON), ("*/*", JSON), ("application/*", JSON)),
        *(("text/*", CSV), ("TEXT/CSV", CSV), ("application/x-ndjson", "application/x-ndjson")),
        ("text/html, */*;q=0.1", JSON),
        ("text/csv, application/json", CSV),
        ("text/csv;q=0.5, application/jsonlines;q=0.8", LINES),
        ("*/*, application/json;q=0", LINES),
        ("*/*;q=0.3, text/*;q=0.9, text/csv;q=0.1", JSON),
        ("text/csv; header=present; charset=utf-8", CSV),
        ('text/csv; header="absent"; q=1', CSV),
        ("text/csv; charset=latin-1, application/json;q=0.1", JSON),
        ("text/csv;q=high, application/json;q=0.1", JSON),
    ],
)  # fmt: skip
def test_the_best_of_what_a_client_accepts_is_sent(
    model: Any, accept: str | None, kind: str
) -> None:
    reply = inference.transform_fn(model, json.dumps(ROW), JSON, accept)
    assert (reply.status_code, reply.mimetype) == (200, kind)
    assert reply.mimetype == kind


@pytest.mark.parametrize(
    "accept", ["image/png", "text/csv;q=0", "text/csv; charset=latin-1", "*/*;q=0", "null", "é"]
)
def test_what_cannot_be_sent_is_refused(model: Any, accept: str) -> None:
    status, content = refused(model, json.dumps(ROW), JSON, accept)
    assert status == 406
    assert f"cannot respond with {accept!r}; accept {JSON}, {LINES} or {CSV}" == content["error"]


def test_a_reason_is_short_however_long_the_value_is(model: Any) -> None:
    status, content = refused(model, json.dumps({**ROW, "Age": "x" * 100_000}), JSON)
    assert (status, content["column"], content["row"]) == (400, "Age", 1)
    assert len(content["error"]) == serving.LONGEST
    assert re.fullmatch(r"column 'Age', row 1: 'x+\.\.\.", content["error"])


@pytest.mark.parametrize("kind", ["image/png", "text/csv; charset=utf-16", "", None])
def test_other_content_types_are_refused(model: Any, kind: str | None) -> None:
    status, content = refused(model, json.dumps(ROW), kind)
    assert status == 415
    assert f"content type {kind!r}" in content["error"]


@pytest.mark.parametrize("kind", [CSV, LINES])
def test_the_pieces_of_a_batch_are_answered_line_for_line(model: Any, kind: str) -> None:
    rows = [ROW, OTHER, ROW, {**OTHER, "Fare": 5}, ROW]
    if kind == CSV:
        lines = as_csv(rows, header=True).splitlines(keepends=True)
        bodies = ["".join(lines[:3]), lines[3] + "\n\r\n" + lines[4], lines[5].rstrip("\n")]
    else:
        lines = [json.dumps(row) + "\n" for row in rows]
        bodies = ["".join(lines[:2]), lines[2] + "\n\r\n" + lines[3], lines[4].rstrip("\n")]
    whole = ask(model, json.dumps(rows), JSON, kind).splitlines(keepends=True)
    pieces = [ask(model, body, kind, kind).splitlines(keepends=True) for body in bodies]
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert [line for piece in pieces for line in piece] == whole


def test_a_header_alone_is_no_fault_in_a_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = as_csv([ROW], header=True).splitlines()[0] + "\n"
    assert refused(model, body, CSV)[0] == 400
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")  # as batch transform sets it
    assert ask(model, body, CSV, CSV) == ""


@pytest.mark.parametrize("name", sorted(datasets.ALL))
def test_the_endpoint_encodes_raw_rows_exactly_as_preparation_did(
    tmp_path: Path, name: str
) -> None:
    generate, target, _ = datasets.ALL[name]
    case, data = Case(tmp_path), generate(rows=400)
    found = case.prepare(case.write(data), target)
    raw = {
        tuple(str(v) for v in row): row for row in zip(*data.values(), strict=True)
    }  # every row, in file order
    names = list(data)
    rows = [dict(zip(names, row, strict=True)) for row in raw.values()]
    body = as_csv([{k: v for k, v in row.items() if k != target} for row in rows], header=True)
    encoding, asked = case.encoding(), typed.typed(found, serving.rows(body, CSV, found))
    encoded = encoding.encode(typed.Rows(found, asked))
    expected = encoding.encode(case.rows("validation"))
    have = {row.tobytes() for row in encoded}
    assert len(expected) > 20
    assert all(row.tobytes() in have for row in expected)


@pytest.mark.slow
def test_the_packed_code_needs_nothing_but_the_model_folder_and_imports_little(case: Case) -> None:
    script = (
        "import json, sys; sys.path.insert(0, 'code'); import inference as i;"
        "m = i.model_fn('.');"
        f"loaded = [name for name in {HEAVY} if name in sys.modules];"
        "assert not loaded, loaded;"
        # The first array imports pandas, as the image's own serving code has done by then.
        f"r = i.transform_fn(m, {json.dumps(ROW)!r}, 'application/json', None);"
        "print(r.get_data().decode())"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=case.folder / "model", capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "predictions" in json.loads(run.stdout)
