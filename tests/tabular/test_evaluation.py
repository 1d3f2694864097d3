"""Evaluation: metrics are right, the files have the form others rely on, champions are compared."""

import json
import shutil
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

import datasets
import monitor_formats
from hostile import HOSTILE
from model_case import Case, DataError, evaluate, inference, metrics, model_schema
from sm_mlops.tabular import baseline, figures, report, scoring
from sm_mlops.tabular.text import as_property

pytestmark = pytest.mark.slow

HIGHER = ["auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "f1",
          "r2"]  # fmt: skip
LOWER = ["logloss", "rmse", "mae", "mape"]


def strict(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path.name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_metrics_agree_with_scikit_learn(classes: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, 500)
    score = random.dirichlet(np.ones(classes), 500) + 0.3 * np.eye(classes)[truth]
    score = np.round(score / score.sum(axis=1, keepdims=True), 2) + 1e-3  # with ties
    score /= score.sum(axis=1, keepdims=True)
    found = metrics.classification(truth, score)
    label = score[:, 1] >= 0.5 if classes == 2 else score.argmax(axis=1)
    average = "binary" if classes == 2 else "macro"
    one = score[:, 1] if classes == 2 else score
    more = {} if classes == 2 else {"multi_class": "ovr"}
    expected = {
        "auc": sk.roc_auc_score(truth, one, **more),
        "average_precision": sk.average_precision_score(np.eye(classes)[truth], score)
        if classes > 2
        else sk.average_precision_score(truth, one),
        "accuracy": sk.accuracy_score(truth, label),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, label),
        "precision": sk.precision_score(truth, label, average=average),
        "recall": sk.recall_score(truth, label, average=average),
        "f1": sk.f1_score(truth, label, average=average),
        "logloss": sk.log_loss(truth, score),
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_regression_metrics_agree_with_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    truth = random.normal(size=300)
    guess = truth + random.normal(size=300)
    assert metrics.regression(truth, guess) == pytest.approx(
        {
            "r2": sk.r2_score(truth, guess),
            "rmse": sk.root_mean_squared_error(truth, guess),
            "mae": sk.mean_absolute_error(truth, guess),
            "mape": sk.mean_absolute_percentage_error(truth, guess),
        }
    )


def assert_baseline(
    found: baseline.Baseline | None, schema: model_schema.Schema, gate: dict[str, Any]
) -> None:
    assert found is not None and found.predictions is not None and found.quality is not None
    assert found.rows == gate["rows"]["train"]
    assert [(c.name, c.kind) for c in found.columns] == [(c.name, c.kind) for c in schema.columns]
    assert all(column.rows == found.rows for column in found.columns)
    assert found.predictions.rows == gate["rows"]["test"]
    assert list(found.predictions.classes) == schema.class_names
    assert sum(found.predictions.classes.values()) == gate["rows"]["test"] * bool(schema.classes)
    assert bool(found.predictions.points) == (schema.task == "regression")
    entries = gate["metrics"].items()
    assert found.quality.metrics == {
        name: entry["value"] for name, entry in entries if abs(entry["value"]) < 1e308
    }


@pytest.mark.parametrize(
    "name",
    [
        "passengers",
        "orders",
        *(pytest.param(n, marks=pytest.mark.long) for n in ("letters", "rare")),
    ],
)
def test_the_files_have_the_promised_form(tmp_path: Path, name: str) -> None:
    generate, target, task = datasets.ALL[name]
    case = Case(tmp_path)
    found = case.prepare(case.write(generate(rows=700)), target)
    case.train()
    gate = case.evaluate()
    assert gate == strict(tmp_path / "evaluation" / "gate.json")
    assert list(gate["metrics"]) == HIGHER + LOWER
    fitting = {"r2", *LOWER[1:]} if task == "regression" else {*HIGHER[:-1], "logloss"}
    for metric, entry in gate["metrics"].items():
        assert set(entry) == {"value", "champion", "worse_by", "better", "text"}
        if metric in fitting and not (name == "rare" and abs(entry["value"]) == 1e308):
            assert (
                entry["text"]
                == f"{metric} {entry['value']:.4f} on {found.data['rows']['test']} test rows"
            )
        elif metric not in fitting:
            assert entry["value"] == (-1e308 if metric in HIGHER else 1e308)
            assert entry["text"] == f"{metric} does not fit a {task} task"
    assert gate["against"] == "there is none yet"
    assert (gate["task"], gate["champion"], gate["rows"]) == (task, "none", found.data["rows"])
    assert len(gate["data_sha256"]) == 64
    assert "xgboost 3." in gate["versions"]
    quality = strict(tmp_path / "evaluation" / "evaluation.json")
    group = "regression" if task == "regression" else f"{task}_classification"
    assert list(quality) == [f"{group}_metrics"]
    for key, value in quality[f"{group}_metrics"].items():
        if key not in (
            "confusion_matrix",
            "receiver_operating_characteristic_curve",
            "precision_recall_curve",
        ):
            assert set(value) == {"value", "standard_deviation"}
    monitor_formats.refuse(group, strict(tmp_path / "evaluation" / "evaluation-constraints.json"))
    for kind in ("statistics", "constraints"):
        monitor_formats.refuse(kind, strict(tmp_path / "evaluation" / f"{kind}.json"))
    assert_baseline(baseline.load(tmp_path / "evaluation"), found, gate)
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5
    assert not {"http-equiv", "<script", "src=", "@import"} & set(page.split())


@pytest.mark.usefixtures("undrawn")
def test_missing_values_of_the_only_column_are_scored(tmp_path: Path) -> None:
    case = Case(tmp_path)
    x = [None if i % 3 == 0 else float(i % 7) for i in range(200)]
    case.prepare(case.write({"x": x, "y": ["a" if v and v > 3 else "b" for v in x]}), "y")
    case.train()
    assert case.evaluate()["metrics"]["accuracy"]["value"] > 0.9


@pytest.mark.usefixtures("undrawn")
def test_a_time_of_day_in_parquet_is_scored(tmp_path: Path) -> None:
    case = Case(tmp_path)
    hours = [i % 24 for i in range(200)]
    at = pa.array([h * 3_600_000_000 + 5 for h in hours], pa.time64("us"))
    pq.write_table(pa.table({"at": at, "y": [h > 11 for h in hours]}), tmp_path / "data.parquet")
    case.prepare(tmp_path / "data.parquet", "y")
    case.train()
    assert case.evaluate()["metrics"]["accuracy"]["value"] > 0.9


@pytest.mark.usefixtures("undrawn")
def test_the_sample_payload_holds_the_answer_to_every_form_of_its_rows(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.orders(rows=400)), "hours")
    model = case.train()
    case.evaluate()
    with tarfile.open(tmp_path / "evaluation" / "sample-payload.tar.gz") as tar:
        tar.extractall(tmp_path / "payload")
    files = {
        path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "payload").iterdir()
    }
    names = ["contract.json", "expected.json", "rows.csv", "rows.json", "rows.jsonl"]
    assert sorted(files) == names
    expected = json.loads(files["expected.json"])
    assert len(expected["predictions"]) == 20
    for name, kind in (
        ("csv", "text/csv"),
        ("jsonl", "application/jsonlines"),
        ("json", "application/json"),
    ):
        reply = inference.transform_fn(model, files[f"rows.{name}"], kind, "application/json")
        assert json.loads(reply.get_data()) == expected


# The functions that 0.1.0 packed, around those of today.
THREE_FUNCTIONS = """

_transform = transform_fn
del transform_fn


def input_fn(body, content_type):
    return body, content_type


def predict_fn(data, model):
    return model, *data


def output_fn(prediction, accept):
    model, body, content_type = prediction
    text = _transform(model, body, content_type, accept).get_data().decode()
    return text if accept == "application/json" else (text, "text/csv")
"""


def test_a_model_without_transform_fn_is_scored_by_the_functions_of_the_first_release(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=400)), "Churn")
    case.train()
    with (tmp_path / "model/code/inference.py").open("a", encoding="utf-8") as script:
        script.write(THREE_FUNCTIONS)
    (tmp_path / "model" / baseline.FILE).unlink()
    champion = tmp_path / "champion"
    champion.mkdir()
    (champion / "champion.json").write_text('{"version": "3"}')
    case.pack(champion / "model.tar.gz")
    found = case.evaluate(champion)["metrics"]["auc"]
    assert found["champion"] == found["value"] > 0.6
    with tarfile.open(tmp_path / "evaluation" / "sample-payload.tar.gz") as tar:
        names = [name.rpartition("/")[2] for name in tar.getnames()]
    assert "expected.json" in names
    assert "contract.json" not in names
    known = baseline.load(tmp_path / "evaluation")
    assert known is not None and known.columns == [] and known.predictions is not None
    for kind in ("statistics", "constraints"):
        monitor_formats.refuse(kind, strict(tmp_path / "evaluation" / f"{kind}.json"))


def test_probabilities_of_0_and_1_alone_may_come_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [0.0, 1.0] * 20 + [0.25, 0.75] * 20
    (tmp_path / "test").mkdir()
    pq.write_table(pa.table({"x": shares, "y": ["a"] * 80}), tmp_path / "test" / "a.parquet")

    def answer(model: Any, body: str, kind: str, accept: str) -> str:
        rows = [f"a,{share}" for share in body.splitlines()[1:]]
        return "{}" if "json" in accept else "\n".join(["prediction,probability", *rows])

    model = SimpleNamespace(model_fn=lambda folder: None, transform_fn=answer)
    monkeypatch.setitem(sys.modules, "inference", model)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "argv", ["", "model", f"{tmp_path}/test", "y", f"{tmp_path}/scores"])
    monkeypatch.setattr(scoring, "ROWS", 40)
    scoring.main()
    assert pq.read_table(tmp_path / "scores.parquet")["probability"].to_pylist() == shares


def test_a_model_that_refuses_its_test_rows_fails_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=200)), "Churn")
    case.train(num_boost_round="1")
    with (tmp_path / "model/code/inference.py").open("a", encoding="utf-8") as script:
        script.write(
            "\n\ndef predict(model, rows):\n"
            "    from sm_mlops.tabular import serving\n\n"
            "    raise serving.RequestError(\"column 'x', row 1: no\", 'x', 1)\n"
        )
    with pytest.raises(
        DataError, match=r"could not score the test rows: ValueError: the model ref"
    ):
        case.evaluate()
    assert "the model refused the test rows" in capfd.readouterr().err


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("churn"))
    case.prepare(case.write(datasets.churn(rows=700)), "Churn")
    case.train()
    return case


def champion(judged: Case, tmp_path: Path) -> Path:
    folder = tmp_path / "champion"
    folder.mkdir()
    (folder / "champion.json").write_text('{"version": "3"}')
    judged.pack(folder / "model.tar.gz")
    return folder


def other(judged: Case, tmp_path: Path) -> Case:
    case = Case(tmp_path / "candidate")
    case.folder.mkdir()
    shutil.copytree(judged.folder / "out", case.folder / "out")
    return case


@pytest.mark.usefixtures("undrawn")
def test_the_gate_reports_how_much_worse_each_metric_is(judged: Case, tmp_path: Path) -> None:
    folder = champion(judged, tmp_path)
    case = other(judged, tmp_path)
    case.train(num_boost_round="1", eta="0.01", max_depth="1")
    gate = case.evaluate(folder)
    auc, loss = gate["metrics"]["auc"], gate["metrics"]["logloss"]
    assert auc["worse_by"] == pytest.approx(auc["champion"] - auc["value"])
    assert loss["worse_by"] == pytest.approx(loss["value"] - loss["champion"])
    assert auc["worse_by"] > 0 and loss["worse_by"] > 0
    assert auc["text"].endswith(f" - champion version 3: {auc['champion']:.4f}")
    assert (gate["champion"], gate["against"]) == ("3", "version 3")
    again = Case(tmp_path / "again")
    again.folder.mkdir()
    shutil.copytree(judged.folder / "out", again.folder / "out")
    shutil.copytree(judged.folder / "model", again.folder / "model")
    same = again.evaluate(folder)["metrics"]["auc"]
    assert (same["worse_by"], same["champion"]) == (0.0, same["value"])


def column_gone(data: dict[str, Any]) -> str:
    data["gone"] = [float(i % 17) for i in range(300)]
    return "Churn"


def other_classes(data: dict[str, Any]) -> str:
    data["Churn"] = [{"Yes": "gone", "No": "stays"}[value] for value in data["Churn"]]
    return "Churn"


def other_target(data: dict[str, Any]) -> str:
    return "SeniorCitizen"


def quantity(data: dict[str, Any]) -> str:
    data["Churn"] = [float(i) for i in range(300)]
    return "Churn"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (column_gone, "column 'gone' is missing"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (
                (other_classes, "its predictions have other classes"),
                (other_target, "it predicts 'SeniorCitizen', a binary task"),
                (quantity, "it predicts 'Churn', a regression task"),
            )
        ),
    ],
)
def test_a_champion_that_cannot_be_scored_stops_the_run_unless_that_is_waived(
    judged: Case, tmp_path: Path, change: Any, why: str
) -> None:
    old = Case(tmp_path / "old")
    old.folder.mkdir()
    data = datasets.churn(rows=300)
    target = change(data)
    old.prepare(old.write(data), target)
    old.train()
    folder = champion(old, tmp_path)
    case = other(judged, tmp_path)
    case.train()
    with pytest.raises(DataError, match="champion version 3 cannot be scored: ") as stopped:
        case.evaluate(folder)
    assert why in str(stopped.value) and "\n" not in str(stopped.value)
    assert "mlops run --set WaiveChampion=yes or mlops reject 3" in str(stopped.value)
    assert not (case.folder / "evaluation").exists()
    entry = case.evaluate(folder, waived=True)["metrics"]["auc"]
    assert (entry["champion"], entry["worse_by"]) == (None, 0.0)
    assert "comparison with version 3 waived" in entry["text"]
    # As the registry takes it.
    assert as_property(why) in entry["text"]
    page = (case.folder / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "The comparison with version 3 was waived" in page


def test_a_champion_without_its_model_stops_the_run_too(judged: Case, tmp_path: Path) -> None:
    folder = champion(judged, tmp_path)
    (folder / "model.tar.gz").unlink()
    case = other(judged, tmp_path)
    case.train()
    with pytest.raises(DataError, match=r"version 3 cannot be scored: .* no model\.tar\.gz here"):
        case.evaluate(folder)


def test_a_champion_whose_metric_is_undefined_does_not_lose_in_silence(judged: Case) -> None:
    schema = model_schema.load(judged.folder / "model")
    truth, predicted = np.array([0, 1] * 10), np.array([[0.6, 0.4], [0.3, 0.7]] * 10)
    gate = evaluate.judge(
        schema, truth, predicted, evaluate.Champion("3", predicted * np.nan), {}, {}
    )
    assert gate["metrics"]["logloss"]["worse_by"] == 1e308


def test_the_report_escapes_names_and_is_the_same_every_time(tmp_path: Path) -> None:
    case = Case(tmp_path)
    data = datasets.rare(rows=200)
    data["<script>alert(1)</script>"] = data.pop("x")
    data["kind"] = [f"<b>{k}</b> $x$ & co" for k in data["kind"]]
    case.prepare(case.write(data), "kind")
    case.train()
    pages = []
    for _ in range(2):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        case.evaluate()
        files = (tmp_path / "evaluation").iterdir()
        pages.append({p.name: p.read_bytes() for p in files if p.name != "sample-payload"})
    assert pages[0] == pages[1]
    page = pages[0]["report.html"].decode()
    assert "<script>alert" not in page
    assert "<b>a</b>" not in page


def test_the_report_shows_hostile_names_and_values_and_obeys_none(tmp_path: Path) -> None:
    # A lone surrogate is in no file.
    texts = [text for text in HOSTILE if "\ud800" not in text]
    case = Case(tmp_path)
    data = datasets.rare(rows=60 * len(texts))
    rows = len(data["kind"])
    data["kind"] = [texts[i % len(texts)] for i in range(rows)]
    for number, text in enumerate(texts):
        data[f"{number} {text}"] = [f"{text}{i % 3}" for i in range(rows)]
    pq.write_table(pa.table(data), tmp_path / "data.parquet")
    case.prepare(tmp_path / "data.parquet", "kind")
    case.train(num_boost_round="2")
    case.evaluate()
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert [c for c in page if not c.isprintable() and c != "\n"] == []
    seen = Seen()
    seen.feed(page)
    assert not {"script", "img", "a"} & seen.tags
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert r"\u202e" in page and r"\x1b" in page


class Seen(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def registry_takes(text: str) -> bool:
    """Return whether botocore's model of CreateModelPackage allows a text in the metadata."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    rule = model.shape_for("CustomerMetadataValue").metadata
    # The pattern ends in a repeated `$`, which says the length once more.
    legal = regex.fullmatch(rule["pattern"].partition("$")[0], text)
    return legal is not None and rule["min"] <= len(text) <= rule["max"]


@given(st.text(min_size=1))
@example("\ud800")
@example("é" * 300)
@example("fix(api): a; b, [c] {d} #1 — 50 %\n\nSigned-off-by: A <a@b>")
@example("feature/ümläut_été")
@example("https://user:token@host/path?query=1&x=[2]#part")
def test_any_message_becomes_a_property_that_the_registry_takes(message: str) -> None:
    assert registry_takes(as_property(message))


@pytest.mark.parametrize("why", HOSTILE)
def test_the_text_of_a_version_is_one_that_the_registry_takes(judged: Case, why: str) -> None:
    schema = model_schema.load(judged.folder / "model")
    truth = np.array([0, 1] * 10)
    predicted = np.array([[0.6, 0.4], [0.3, 0.7]] * 10)
    champion = evaluate.Champion("3", None, why * 20)
    gate = evaluate.judge(schema, truth, predicted, champion, {}, {})
    for entry in gate["metrics"].values():
        assert registry_takes(entry["text"])


def test_a_model_that_fails_to_load_says_where(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.prepare(case.write(datasets.churn(rows=200)), "Churn")
    case.train(num_boost_round="1")
    script = tmp_path / "model/code/inference.py"
    script.write_text(script.read_text(encoding="utf-8") + "\n\nimport nothing\n", encoding="utf-8")
    line = script.read_text(encoding="utf-8").splitlines().index("import nothing") + 1
    with pytest.raises(
        DataError, match=rf"No module named 'nothing' \(inference\.py, line {line}\)"
    ):
        case.evaluate()


def test_the_report_shows_own_metrics_and_checks(judged: Case) -> None:
    schema = model_schema.load(judged.folder / "model")
    schema.data["checks"] = [
        {"column": "tenure", "check": "range", "text": "1 row below 0 <b>", "stops": False},
        {"column": "", "check": "rows", "text": "too few", "stops": True},
    ]
    truth, predicted = np.array([0, 1] * 10), np.array([[0.6, 0.4], [0.3, 0.7]] * 10)
    gate = evaluate.judge(schema, truth, predicted, None, {}, {})
    own = {"value": 12345.0, "champion": 13000.0, "worse_by": 0.0, "text": "cost 12345"}
    gate["metrics"] |= {"cost": own, "net_gain": {**own, "worse_by": 5.0}}
    gate["metrics"]["profit"] = {**own, "champion": None, "better": "higher"}
    assert "Reason for this training" not in report.render(schema, truth, predicted, gate, {})
    page = report.render(
        schema, truth, predicted, gate | {"champion": "3"}, {}, reason="drift of <b>"
    )
    assert "<p>Reason for this training: drift of &lt;b&gt;</p>" in page
    assert "<small>profit</small><strong>12,345</strong><em>higher is better</em>" in page
    assert "<small>R²</small>" not in page
    assert "<small>cost</small><strong>12,345</strong>" in page
    assert "<span class=worse>worse than version 3</span> (13,000)" in page
    assert "<span class=muted>1 row below 0 &lt;b&gt;</span>" in page
    assert page.index("<span class=worse>too few</span>") < page.index("1 row below 0")


NUMBER = {"name": "built", "kind": "number", "missing": 0}
ZONED = model_schema.Column("built", "date", zoned=True)


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (NUMBER | {"low": 1875, "high": 2010, "mean": 1954.2}, "1875 … 2010, mean 1954"),
        (NUMBER | {"low": 880, "high": 16e3, "mean": 8800.4}, "880 … 16,000, mean 8,800"),
        (NUMBER | {"distinct": 4, "top": [["a", 3], ["b", 2], ["c", 1]]}, "c (1), 1 more"),
        (NUMBER | {"low": "2026-04-18 08:00:00", "high": "2026-04-19 09:00:00"}, "09:00:00 UTC"),
        (NUMBER | {"low": "2026-04-18", "high": "2026-04-19"}, "2026-04-18 … 2026-04-19"),
    ],
)
def test_the_report_describes_a_column(item: dict[str, Any], shown: str) -> None:
    schema = model_schema.Schema("binary", "y", [0, 1], [ZONED], [], {})
    assert report._columns(schema, [item]).endswith(f"{shown}</tr></table></div>")


def test_the_groups_of_a_calibration_are_counted() -> None:
    truth = np.arange(60.0)
    assert "4 equal groups" in "".join(figures.of_quantities(truth, truth, "x"))


def test_the_numbers_of_a_confusion_matrix_can_be_read_in_every_cell() -> None:
    drawn: Any = plt.figure().add_subplot()
    matrix = np.array([[0, 100], [15, 85], [30, 70], [45, 55]])
    matrix = np.pad(matrix, ((0, 0), (0, 2)))
    figures._confusion(matrix, list("abcd"), drawn)
    shades = {(p.get_y() + 0.5, p.get_x() + 0.5): p.get_alpha() for p in drawn.patches}
    for text in (text for text in drawn.texts if text.get_text()):
        x, y = text.get_position()
        over = np.array(to_rgb(figures.BLUE)) * shades[y, x] + 1 - shades[y, x]
        light, dark = sorted((luminance(over), luminance(to_rgb(text.get_color()))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.5, (text.get_text(), shades[y, x])


def luminance(color: Any) -> float:
    """Return the relative luminance of a color, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("cautious"))
    case.prepare(case.write(datasets.churn(rows=700)), "Churn", threshold=0.2)
    case.train()
    return case


def test_labels_are_decided_by_the_threshold_in_metrics_report_and_endpoint(
    cautious: Case, judged: Case
) -> None:
    gate, usual = cautious.evaluate(), judged.evaluate()
    own, other = ({k: v["value"] for k, v in g["metrics"].items()} for g in (gate, usual))
    assert own["auc"] == other["auc"] and own["logloss"] == other["logloss"]
    assert own["recall"] > other["recall"]
    folder = cautious.folder / "evaluation"
    quality = strict(folder / "evaluation.json")["binary_classification_metrics"]
    hit = quality["confusion_matrix"]["1"]
    assert hit["1"] / (hit["0"] + hit["1"]) == own["recall"] == quality["recall"]["value"]
    model = inference.model_fn(str(cautious.folder / "model"))
    rows = pq.read_table(cautious.folder / "out" / "test" / "part-0.parquet").to_pylist()
    body = "".join(json.dumps({**row, "Churn": None}) + "\n" for row in rows)
    reply = inference.transform_fn(model, body, "application/jsonlines", "application/json")
    answers = json.loads(reply.get_data())["predictions"]
    assert {a["prediction"] for a in answers if 0.2 <= a["probability"] < 0.5} == {"Yes"}
    assert {a["prediction"] for a in answers if a["probability"] < 0.2} == {"No"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "0.2 (chosen)" in page and "predicts <b>Yes</b> at a probability of 0.2 or more" in page


@pytest.mark.usefixtures("undrawn")
def test_a_champion_keeps_its_own_threshold(cautious: Case, judged: Case, tmp_path: Path) -> None:
    gate = judged.evaluate(champion(cautious, tmp_path))
    recall = gate["metrics"]["recall"]
    assert recall["champion"] == cautious.evaluate()["metrics"]["recall"]["value"]
    assert recall["worse_by"] > 0


def test_a_threshold_trades_precision_for_recall() -> None:
    truth = np.array([True, False, True, False])
    precision, recall, share = metrics.trade(
        truth, np.array([0.9, 0.6, 0.4, 0.1]), np.array([0.0, 0.4, 0.6, 0.95])
    )
    assert precision[:3].tolist() == [0.5, 2 / 3, 0.5] and np.isnan(precision[3])
    assert recall.tolist() == [1, 1, 0.5, 0]
    assert share.tolist() == [1, 0.75, 0.5, 0]


def test_a_threshold_for_more_than_two_classes_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with pytest.raises(
        DataError, match=r"a multiclass target, but evaluation\.threshold .* remove"
    ):
        case.prepare(case.write(datasets.rare()), "kind", threshold=0.3)
