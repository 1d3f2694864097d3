"""What teams bring: every shape of good data is read, and bad data is named in one line."""

import gzip
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datasets
from model_case import MODEL, Case, DataError, preprocess
from sm_mlops.tabular import tables, target
from sm_mlops.tabular.schema import Schema


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def kinds(case: Case) -> dict[str, str]:
    return {column.name: column.kind for column in case.encoding().columns}


def table(rows: int = 40, **columns: Any) -> dict[str, list[Any]]:
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=rows).tolist(),
        **{name: list(values) for name, values in columns.items()},
        "y": ["a", "b"] * (rows // 2),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(datasets.ALL))
def test_the_task_of_every_data_set_is_inferred(case: Case, name: str) -> None:
    generate, target, task = datasets.ALL[name]
    assert case.prepare(case.write(generate(rows=600)), target).task == task


@pytest.mark.parametrize(("name", "other"), [("churn", "quantity"), ("houses", "classes")])
def test_a_gate_metric_of_another_task_is_refused_before_anything_is_trained(
    case: Case, name: str, other: str
) -> None:
    generate, target, task = datasets.ALL[name]
    data = case.write(generate(rows=100))
    fitting = {"quantity": "classes", "classes": "quantity"}[other]
    assert case.prepare(data, target, measured_as=fitting).task == task
    with pytest.raises(
        DataError, match=rf"is a {task} target, but gate\.metric .* is for {other}: "
    ):
        case.prepare(data, target, measured_as=other)


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        ([0, 1], "binary", [0, 1]),
        ([1.0, 2.0], "binary", [1, 2]),
        (["1.0", "0.0"], "binary", [0, 1]),
        (["yes", "no"], "binary", ["no", "yes"]),
        (["True", "False"], "binary", ["False", "True"]),
        ([1, 2, 3, 4, 5, 6, 7], "multiclass", [1, 2, 3, 4, 5, 6, 7]),
        ([1.0, 2.0, 10.0], "multiclass", [1, 2, 10]),
        (["b", "a", "c"], "multiclass", ["a", "b", "c"]),
        ([0.5, 1.25, 2.0], "regression", []),
        (list(range(60)), "regression", []),
    ],
)
def test_labels_decide_the_task_and_keep_their_type(
    case: Case, labels: list[Any], task: str, classes: list[Any]
) -> None:
    rows = 420
    y = (labels * rows)[:rows]
    found = case.prepare(case.write({"x": list(range(rows, 0, -1)), "z": y, "y": y}), "y")
    assert (found.task, found.classes) == (task, classes)


def test_the_positive_class_may_be_true_however_the_data_spells_it(case: Case) -> None:
    data = case.write({"x": range(40, 0, -1), "y": ["TRUE", "FALSE"] * 20})
    assert case.prepare(data, "y", positive="False").classes == ["TRUE", "FALSE"]


def test_kinds_of_columns_are_recognized(case: Case) -> None:
    n = 60
    data = table(
        n,
        blank=[None if i % 7 == 0 else i * 3 for i in range(n)],
        spelled=["n/a" if i % 9 == 0 else f" {i / 2} " for i in range(n)],
        unknown=["unknown" if i % 9 == 0 else str(i * 7 % 50) for i in range(n)],
        amount=[f"${i},{i:03d}.50" if i else "$5" for i in range(n)],
        flag=["true", "False", "TRUE"] * 20,
        yes=["Yes", "no", ""] * 20,
        day=[f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(n)],
        stamp=[f"2024-01-{i % 28 + 1:02d} {i % 24:02d}:30:00" for i in range(n)],
        european=[f"{i % 28 + 1}.{i % 12 + 1}.2023" for i in range(n)],
        clock=[f"{i % 24:02d}:{i:02d}" for i in range(n)],
        zone=[f"2024-01-{i % 28 + 1:02d}T10:00:00+02:00" for i in range(n)],
        colour=["red", "green", "blue"] * 20,
        key=[f"u{i * 7919 % 1000:04d}-{i:03d}" for i in range(n)],
        constant=["same"] * n,
        row=range(n),
    )
    case.prepare(case.write(data), "y")
    expected = {
        "x": "number", "blank": "number", "spelled": "number", "unknown": "number",
        "amount": "number", "flag": "boolean", "yes": "boolean", "day": "date", "stamp": "date",
        "european": "date", "clock": "date", "zone": "date", "colour": "category",
        "constant": "unused", "row": "unused",
    }  # fmt: skip
    actual = kinds(case)
    assert {name: actual[name] for name in expected} == expected
    assert actual["key"] in ("text", "unused")


@pytest.mark.slow
def test_a_parquet_folder_with_every_type_is_read(case: Case) -> None:
    n = 80
    random = np.random.default_rng(0)
    columns = {
        "small": pa.array(random.integers(0, 9, n), pa.int8()),
        "gaps": pa.array([None if i % 5 == 0 else i % 13 for i in range(n)], pa.int64()),
        "single": pa.array(random.normal(size=n).astype("f4")),
        "exact": pa.array([f"{i % 17}.25" for i in range(n)]).cast(pa.decimal128(9, 2)),
        "flag": pa.array([i % 3 == 0 for i in range(n)]),
        "when": pa.array(np.arange(n).astype("datetime64[h]").astype("datetime64[s]")),
        "day": pa.array(np.arange(n).astype("datetime64[D]")),
        "exactly": pa.array(np.arange(n) * 1_000_000_007, pa.timestamp("ns", "Europe/Berlin")),
        "levels": pa.array(["p", "q"] * (n // 2)).dictionary_encode(),
        "large": pa.array(["u", "v", None, "w"] * (n // 4), pa.large_string()),
        "label": pa.array([i % 2 == 0 for i in range(n)]),
    }
    whole = pa.table(columns)
    folder = case.folder / "parts"
    folder.mkdir()
    pq.write_table(whole.slice(0, 30), folder / "a.parquet")
    pq.write_table(whole.slice(30).select(whole.column_names[::-1]), folder / "b.parquet")
    (folder / "_SUCCESS").touch()
    found = case.prepare(folder, "label")
    assert found.classes == [False, True]
    assert kinds(case) == {
        "small": "number", "gaps": "number", "single": "number", "exact": "number",
        "flag": "boolean", "when": "date", "day": "date", "exactly": "date",
        "levels": "category", "large": "category",
    }  # fmt: skip
    case.train()
    assert case.evaluate()["metrics"]["accuracy"]["value"] >= 0


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_found(case: Case, delimiter: str) -> None:
    path = case.write(table(text=["a, b", "c"] * 20), delimiter)
    case.prepare(path, "y")
    assert kinds(case) == {"x": "number", "text": "category"}


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("key,y\ncanary,1\n")
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "b.csv").symlink_to("a.csv")
    assert len(tables.find(folder)) == 2
    (folder / "c.csv").symlink_to("../secret.csv")
    with pytest.raises(DataError, match=rf"{folder}/c\.csv: a link that leads out of {folder};"):
        tables.find(folder)


def test_european_numbers_are_read(case: Case) -> None:
    lines = "".join(f"{i},5;{i % 3};{i % 17},{i}\n" for i in range(40))
    found = case.prepare(case.text("x;k;y\n" + lines), "y")
    summary = case.encoding().summary[0]
    assert (summary["kind"], found.task) == ("number", "regression")
    assert summary["high"] % 1 == 0.5


def test_quotes_newlines_a_byte_order_mark_and_crlf_are_read(case: Case) -> None:
    lines = "".join(f'"{i}","say ""{i % 4}"",\r\nthen",{"ab"[i % 2]}\r\n' for i in range(40))
    found = case.prepare(case.text('\ufeff"first one",said,y\r\n' + lines), "y")
    assert [c.name for c in found.columns] == ["first one", "said"]
    assert case.encoding().columns[1].categories[0] == 'say "0",\r\nthen'


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_other_encodings_are_read(case: Case, encoding: str) -> None:
    path = case.folder / "data.csv"
    path.write_bytes(("farbe,y\n" + "grün,a\nweiß,b\n" * 20).encode(encoding))
    case.prepare(path, "y")
    assert case.encoding().columns[0].categories == ["grün", "weiß"]


def test_compressed_files_and_types_that_change_between_files_are_read(case: Case) -> None:
    folder = case.folder / "parts"
    folder.mkdir()
    with gzip.open(folder / "1.csv.gz", "wt") as stream:
        stream.write("a,b,y\n" + "1,2020-01-01,u\n3,2020-02-01,v\n" * 20)
    (folder / "2.csv").write_text("y,b,a\n" + "u,2020-01-01 10:00:00,1.5\nv,,\n" * 20)
    case.prepare(folder, "y")
    assert kinds(case) == {"a": "number", "b": "date"}


def test_a_surprise_far_down_the_file_changes_the_type(case: Case) -> None:
    rows = 60_000
    x = [str(i % 50) for i in range(rows)]
    x[-1] = "0.5"
    z = ["1"] * rows
    z[-2:] = ["many", "few"]
    case.prepare(case.write({"x": x, "z": z, "y": ["a", "b"] * (rows // 2)}), "y")
    assert kinds(case)["x"] == "number"


@pytest.mark.parametrize("dropped", [[], ["id"]])
def test_a_surprise_after_a_dropped_column_or_in_another_order_is_of_its_own_column(
    case: Case, dropped: list[str]
) -> None:
    rows = 100_000
    x = ["12345678"] * rows
    x[-1] = "unknown"
    z, y = ["12345671", "12345672"] * (rows // 2), ["a", "b"] * (rows // 2)
    folder = case.folder / "parts"
    folder.mkdir()
    for name, columns in (
        ("1.csv", {"id": z, "x": x, "z": z}),
        ("2.csv", {"z": z, "id": z, "x": x}),
    ):
        case.write({**columns, "y": y}).rename(folder / name)
    case.prepare(folder, "y", drop=dropped)
    assert (kinds(case)["x"], kinds(case)["z"]) == ("category", "number")


@pytest.mark.parametrize("labels", [["+1", "-1"], ["1", "1.5", "2"], ["1", "2"], ["007", "8"]])
def test_classes_are_all_numbers_or_all_text(labels: list[str]) -> None:
    values = pa.chunked_array([labels * 20])
    classes = target.read_target(values, "y", "multiclass", None).classes
    assert [type(name) for name in classes] == [int if labels == ["1", "2"] else str] * len(labels)


@pytest.mark.parametrize("text", ["0.9", "inf", "nan", "1e400"])
def test_a_label_between_two_classes_is_none(text: str) -> None:
    found = Schema("binary", "y", [0, 1], [], [], {})
    assert found.class_text(text) == text
    assert found.class_text("1.0") == "1"


@pytest.mark.slow
def test_names_xgboost_refuses_are_served(case: Case) -> None:
    data = table(
        80,
        **{"a[0] <kg>": range(0, 160, 2), "a(0) (kg>": [3, 1, 2, 5] * 20, "größe €": [1, 2] * 40},
    )
    case.prepare(case.write(data), "y")
    names = case.encoding().features
    assert not set("[]<") & set("".join(names))
    assert len(set(names)) == len(names)
    model = case.train().model
    assert set(model.booster.get_score()) <= set(names)


def test_rows_without_a_label_are_left_out(case: Case) -> None:
    data = table(40)
    data["y"][3] = data["y"][8] = ""
    found = case.prepare(case.write(data), "y")
    assert found.data["rows"] == {"train": 26, "validation": 6, "test": 6, "without_label": 2}


ROWS = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40))
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "a target that is not there": (
        f"x,y\n{ROWS}", {"target": "Y "}, r"data\.csv: no column 'Y ' .*did you mean 'y'\?",
    ),
    "a dropped column that is not there": (
        f"x,y\n{ROWS}", {"drop": ("xx",)}, r"no column 'xx' \(data\.drop in mlops\.yaml\)",
    ),
    "a name with control characters": (
        f"x\x1b[2J,y\n{ROWS}", {"target": "z"}, r"there are: x\\x1b\[2J, y$",
    ),
    "an empty file": ("", {}, r"data\.csv: the file is empty"),
    "blank lines only": ("\n\n", {}, r"data\.csv: the file is empty"),
    "a header and no rows": ("x,y\n", {}, r"data\.csv: a header and no rows"),
    "one class only": ("x,y\n" + "1,a\n2,a\n" * 20, {}, r"data\.csv: .*'y': .*same class 'a'"),
    "an empty column": (
        "x,z,y\n" + "1,,a\n2,NA,b\n" * 20, {}, r"data\.csv: column 'z' is empty in every row",
    ),
    "a class for every row": (
        "x,y\n" + "".join(f"{i % 7},name {i}\n" for i in range(40)), {},
        r"data\.csv: column 'y': 40 classes in 40 rows are too many",
    ),
    "an empty target": ("x,y\n" + "1,\n2,\n" * 20, {}, r"data\.csv: column 'y': .*no value"),
    "a short row": (
        f"x,y\n{ROWS}7\n", {}, r"data\.csv, line 42: 1 field, but the header has 2",
    ),
    "a long row": (
        f"x,y\n1,a\n2,b,c\n{ROWS}", {}, r"data\.csv, line 3: 3 fields, but the header has 2",
    ),
    "text in a numeric target": (
        "x,y\n" + "1,1.5\n2,2.5\n" * 9 + "3,cheap\n", {"task": "regression"},
        r"data\.csv, line 20: column 'y' is 'cheap', not a number",
    ),
    "the same target everywhere": (
        "x,y\n" + "1,1.5\n2,1.5\n" * 9, {"task": "regression"}, r"'y': .*same value in every row",
    ),
    "duplicate column names": (
        "x,x,y\n1,2,a\n", {}, r"data\.csv: the column name 'x' occurs twice in the header",
    ),
    "too few rows": ("x,y\n1,a\n2,b\n3,a\n", {}, r"data\.csv: 3 rows .*too few"),
    "no column but the target": ("y\na\nb\n", {}, r"no column is left to learn from"),
    "constant columns only": ("x,y\n" + "1,a\n1,b\n" * 20, {}, r"no column varies"),
    "more classes than the task": (
        "x,y\n" + "1,a\n2,b\n3,c\n" * 20, {"task": "binary"}, r"3 classes, but .* is binary",
    ),
    "a positive class that is not there": (
        f"x,y\n{ROWS}", {"positive": "c"}, r"no class 'c' \(data\.positive in .*a, b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_named_in_one_line(case: Case, name: str) -> None:
    content, settings, pattern = BAD[name]
    path = case.text(content)
    with pytest.raises(DataError, match=pattern) as error:
        case.prepare(path, **{"target": "y", **settings})
        case.encoding()
    assert "\n" not in str(error.value)


def test_files_that_are_missing_or_not_parquet_are_named(case: Case) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file or folder"):
        case.prepare(case.folder / "none.csv", "y")
    with pytest.raises(DataError, match=r"p\.parquet: not a readable Parquet file"):
        case.prepare(case.text("PAR1\0 and no more", "p.parquet"), "y")
    with pytest.raises(
        DataError, match="no CSV, Parquet, JSON, JSON Lines, Feather or ORC file in it"
    ):
        case.text("notes", "folder/readme.md")
        case.prepare(case.folder / "folder", "y")


def test_nested_columns_mixed_formats_and_other_schemas_are_named(case: Case) -> None:
    folder = case.folder / "parts"
    folder.mkdir()
    pq.write_table(pa.table({"x": [[1], [2]], "y": ["a", "b"]}), folder / "a.parquet")
    with pytest.raises(DataError, match=r"column 'x' is nested \(list<element: int64>\)"):
        case.prepare(folder, "y")
    (folder / "b.csv").write_text("x,y\n1,a\n")
    with pytest.raises(DataError, match=r"mixed \(b\.csv, a\.parquet\)"):
        case.prepare(folder, "y")
    (folder / "a.parquet").unlink()
    (folder / "c.csv").write_text("y,z\n1,a\n")
    with pytest.raises(DataError, match=r"c\.csv: column 'x' of b\.csv is missing here"):
        case.prepare(folder, "y")


@pytest.mark.slow
def test_a_data_error_ends_the_job_with_code_2_and_its_line_as_the_reason(case: Case) -> None:
    code = case.folder / "code"
    code.mkdir()
    for script in MODEL.glob("*.py"):
        (code / script.name).write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    (code / "mlops.yaml").write_text("data: {target: price, task: auto}\n")
    path = case.text("x,prise\n1,2\n")
    done = subprocess.run(
        [sys.executable, code / "preprocess.py", "--data", path, "--output", case.folder],
        capture_output=True,
        text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(case.folder / "base")},
    )  # fmt: skip
    line = f"{path}: no column 'price' (data.target in mlops.yaml); did you mean 'prise'?"
    assert (done.returncode, done.stderr) == (2, f"error: {line}\n")
    output = case.folder / "base" / "output"
    assert {name: (output / name).read_text() for name in ("failure", "message")} == {
        "failure": line,
        "message": line,
    }


def split_of(values: list[float], task: str = "binary", **settings: Any) -> np.ndarray:
    target = preprocess.Target(task, [0, 1] if task == "binary" else [], np.array(values))
    return preprocess.split(target, preprocess.Settings("y", **settings))


def test_the_split_is_stratified_complete_and_the_same_every_time() -> None:
    values = [1.0] * 13 + [0.0] * 987
    part = split_of(values)
    assert np.array_equal(part, split_of(values))
    assert not np.array_equal(part, split_of(values, seed=7))
    assert np.bincount(part).tolist() == [700, 150, 150]
    assert [int(np.sum(part[:13] == p)) for p in (0, 1, 2)] == [9, 2, 2]


def test_a_class_of_one_or_two_rows_is_trained_on_and_one_of_three_is_in_every_part() -> None:
    for seed in range(20):
        values = np.array([0.0] * 60 + [1.0] + [2.0] * 2 + [3.0] * 3)
        target = preprocess.Target("multiclass", [0, 1, 2, 3], values)
        part = preprocess.split(target, preprocess.Settings("y", seed=seed))
        assert part[60] == preprocess.TRAIN
        assert preprocess.TRAIN in part[61:63]
        assert set(part[63:]) == {0, 1, 2}


def test_no_part_is_empty_however_few_the_rows_of_a_class() -> None:
    for seed in range(20):
        target = preprocess.Target("multiclass", list(range(5)), np.repeat(np.arange(5.0), 2))
        part = preprocess.split(target, preprocess.Settings("y", seed=seed))
        assert set(part) == {0, 1, 2}


def test_labels_beyond_the_integers_of_a_float_stay_apart(case: Case) -> None:
    labels = [2**53, 2**53 + 1, 2**53 + 3] * 20
    found = case.prepare(case.write({"x": [i % 7 for i in range(60)], "y": labels}), "y")
    assert found.classes == [2**53, 2**53 + 1, 2**53 + 3]
    assert [found.class_text(str(label)) for label in found.classes] == found.class_names
    assert found.class_text("007") == "7"


def test_a_malformed_row_is_named_behind_a_long_text(case: Case) -> None:
    long = f'"{"word " * 40_000}",a\n'
    with pytest.raises(DataError, match=r"data\.csv, line 22: 3 fields"):
        case.prepare(case.text("x,y\n" + long * 20 + "1,a,2\n"), "y")


def test_none_is_a_label_and_a_missing_feature(case: Case) -> None:
    data = table(40, z=["none", "3", "4", "5"] * 10)
    data["y"] = ["none", "mild"] * 20
    found = case.prepare(case.write(data), "y")
    assert found.classes == ["mild", "none"]
    assert kinds(case)["z"] == "number"


@pytest.mark.slow
def test_preparing_twice_gives_the_same_bytes(case: Case) -> None:
    path = case.write(datasets.orders(rows=300))
    written = []
    for _ in range(2):
        case.prepare(path, "hours")
        out = case.folder / "out"
        written.append({p.name + p.parent.name: p.read_bytes() for p in out.rglob("*.*")})
    assert written[0] == written[1]


@pytest.mark.slow
def test_nothing_is_fitted_on_validation_or_test_rows(case: Case) -> None:
    data = datasets.orders(rows=400)
    case.prepare(case.write(data), "hours")
    before = case.encoding()
    part = split_part(case, data)
    for i, p in enumerate(part):
        if p != preprocess.TRAIN:
            data["note"][i] = "unheard of"
            data["weight [kg] <gross>"][i] = 99.0
    case.prepare(case.write(data), "hours")
    after = case.encoding()
    assert after.columns == before.columns
    assert after.summary == before.summary


def split_part(case: Case, data: dict[str, list[Any]]) -> np.ndarray:
    target = preprocess.Target("regression", [], np.array(data["hours"], float))
    return preprocess.split(target, preprocess.Settings("hours"))


@pytest.mark.slow
def test_the_schema_is_strict_json(case: Case) -> None:
    case.prepare(case.write(datasets.passengers(rows=200)), "Survived")
    text = (case.folder / "out" / "preprocessor" / "schema.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


# The split in the order of a column


DAYS = [f"2024-0{1 + i // 28}-{1 + i % 28:02}" for i in range(100)]


def ordered(**more: list[Any]) -> dict[str, list[Any]]:
    """Return 100 rows, one a day and the latest first."""
    return {"day": DAYS[::-1], "x": [*range(100)], "y": ["a", "b"] * 50} | more


def parts_of(case: Case, column: str) -> dict[str, list[Any]]:
    """Return the values of a column in each part."""
    tables = {p: pq.read_table(case.folder / "out" / p) for p in ("train", "validation", "test")}
    return {name: sorted(table[column].to_pylist()) for name, table in tables.items()}


def test_the_earliest_rows_train_and_the_latest_test(case: Case) -> None:
    found = case.prepare(case.write(ordered()), "y", by="day", validation=0.2, test=0.1)
    assert parts_of(case, "x") == {
        "train": [*range(30, 100)], "validation": [*range(10, 30)], "test": [*range(10)],
    }  # fmt: skip
    assert found.data["split"]["by"] == "day"


@pytest.mark.parametrize(("split", "by"), [("{by: day}", "day"), ("{by: null}", None), ("", None)])
def test_the_column_that_orders_is_read_from_mlops_yaml(
    case: Case, split: str, by: str | None
) -> None:
    case.text(f"data: {{target: y}}\nsplit: {split}\n", "mlops.yaml")
    assert preprocess.read_settings(case.folder).by == by


def test_a_column_that_is_dropped_may_order_the_rows(case: Case) -> None:
    path = case.write(ordered())
    found = case.prepare(path, "y", by="day", drop=("day",))
    assert [column.name for column in found.columns] == ["x"]
    assert max(parts_of(case, "x")["test"]) == 14
    assert "day" not in pq.read_table(case.folder / "out" / "test").column_names


def test_rows_of_one_moment_stay_together_and_no_part_is_empty() -> None:
    values = np.arange(100.0) % 2
    target = preprocess.Target("binary", [0, 1], values)
    settings = preprocess.Settings("y", by="t")
    for cuts in ([60, 90], [10, 20], [50, 98], [2, 4]):
        order = np.searchsorted(cuts, np.arange(100.0), side="right").astype(float)
        part = preprocess.split_by(target, order, settings)
        assert part.tolist() == order.tolist()  # three moments are three parts
    order = np.repeat(np.arange(20.0), 5)
    part = preprocess.split_by(target, order, settings)
    assert np.bincount(part).tolist() == [70, 15, 15]


def test_rows_without_a_label_do_not_count(case: Case) -> None:
    data = ordered()
    data["y"][:20], data["day"][0] = [None] * 20, None
    case.prepare(case.write(data), "y", by="day")
    assert parts_of(case, "x")["test"] == [*range(20, 32)]


@pytest.mark.parametrize(
    ("change", "by", "line"),
    [
        ({}, "days", r"no column 'days' \(split.by in mlops.yaml\); did you mean 'day'\?"),
        ({"day": [None, *DAYS[1:]]}, "day", r"data\.csv, line 2: column 'day' has no value, .*1 s"),
        ({"day": ["soon", "late"] * 50}, "day", "column 'day' holds text, but split.by .* a date"),
        ({"day": [1, 2] * 50}, "day", "column 'day' has 2 different values; three parts need thr"),
        (
            {"y": ["a"] * 20 + ["a", "b"] * 40},
            "day",
            "split.by .* leaves no row of class 'b' among the 15 test rows; choose other shares",
        ),
    ],
)
def test_rows_that_cannot_be_split_in_order_are_refused_in_one_line(
    case: Case, change: dict[str, list[Any]], by: str, line: str
) -> None:
    with pytest.raises(DataError, match=line) as refused:
        case.prepare(case.write(ordered(**change)), "y", by=by)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "read"),
    [
        (pa.array([2**60, 1]), pa.array([1.5, None]), [2.0**60, 1.0, 1.5, None]),
        (pa.array([2**60, 1]), pa.array([None, None]), [2**60, 1, None, None]),
        (pa.array([1, 2], pa.int8()), pa.array([300, 4]), [1, 2, 300, 4]),
        (pa.array([1, 2], pa.duration("s")), pa.array([3, 4000], pa.duration("ms")),
         [timedelta(milliseconds=n) for n in (1000, 2000, 3, 4000)]),
        (pa.array([1, 2], pa.duration("s")), pa.array([None, None]),
         [timedelta(seconds=1), timedelta(seconds=2), None, None]),
    ],
)  # fmt: skip
def test_numbers_and_spans_of_several_files_keep_their_values(
    case: Case, one: pa.Array, other: pa.Array, read: list[Any]
) -> None:
    files = [case.folder / "a.parquet", case.folder / "b.parquet"]
    for file, values in zip(files, (one, other), strict=True):
        pq.write_table(pa.table({"x": values, "y": ["a", "b"]}), file)
    assert tables.read(files, "y")["x"].to_pylist() == read
