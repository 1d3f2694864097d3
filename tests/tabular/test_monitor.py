"""The monitoring job: what it finds in a stage's traffic, and what it finds again."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitor_case import (
    BUCKET,
    GROUP,
    PROJECT,
    STAGE,
    UNTIL,
    Stage,
    line,
    monitored,
    objects,
    people,
    predictions,
    probability,
    trained,
)
from sm_mlops.tabular import labels, monitor, monitor_report
from sm_mlops.tabular.baseline import Quality
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.monitor import Settings
from sm_mlops.tabular.windows import Window

pytestmark = pytest.mark.slow

render = monitor_report.render


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage with version 1; its reports hold nothing."""
    monkeypatch.setattr(monitor_report, "render", lambda result, earlier: f"{len(earlier)} before")
    with monitored(tmp_path) as made:
        made.train()
        yield made


def kinds(result: dict[str, Any]) -> set[tuple[str | None, str]]:
    return {(each["column"], each["kind"]) for each in result["violations"]}


def test_a_window_like_training_is_ok(stage: Stage) -> None:
    stage.traffic(1200)
    result = stage.check()
    assert (result["status"], result["violations"]) == ("ok", [])
    assert (result["requests"], result["rows"], result["versions"]) == (1200, 1200, {"1": 1200})
    assert result["window"] == {"start": "2026-11-27T06:00:00Z", "end": "2026-11-28T06:00:00Z"}
    assert 0 < result["worst"]["value"] < result["worst"]["limit"]
    assert stage.verdict == {"violations": 0, "message": result["message"],
                             "window": result["window"]}  # fmt: skip
    assert json.loads((stage.output / "verdict.json").read_text()) == stage.verdict
    assert "nothing above its limit in 1,200 rows" in result["message"]
    named = {each["MetricName"] for each in stage.cloudwatch.metrics}
    assert named == {"Requests", "Rows", "Violations", "Drift", "PredictionDrift"}
    assert {"Name": "Stage", "Value": STAGE} in stage.cloudwatch.metrics[0]["Dimensions"]
    assert not any("Timestamp" in each for each in stage.cloudwatch.metrics)


def test_a_window_that_drifted_names_columns_and_figures(stage: Stage) -> None:
    stage.traffic(1200, age=12, missing=0.15, plan=0.3)
    result = stage.check()
    assert result["status"] == "violation"
    assert kinds(result) == {
        ("age", "drift"), ("age", "missing"), ("plan", "new"), ("plan", "drift"),
        ("predicted class", "prediction"), ("probability of yes", "prediction"),
    }  # fmt: skip
    assert stage.verdict["violations"] == len(result["violations"]) == 6
    assert stage.measured("Violations") == [6]
    message = stage.verdict["message"]
    assert "version 1, age: population stability index 0." in message
    assert "are values that training never had (at least 1 distinct)" in message
    assert "(limit 0.15)" in message and len(message) <= 1000
    assert result["columns"][0]["name"] == result["worst"]["column"] == "plan"
    assert set(result["columns"][0]["shape"]["names"]) == {"basic", "plus", "pro", "team"}


def test_what_a_request_says_is_quoted_only_in_the_report(stage: Stage) -> None:
    stage.traffic(1200, plan=0.3)
    result = stage.check()
    assert ("plan", "new") in kinds(result)
    said = [result["message"], result["violations"], result["worst"], stage.verdict]
    assert "team" not in json.dumps(said)
    assert [t["examples"] for t in result["columns"][0]["tests"] if t["kind"] == "new"] == [
        ["team"]
    ]
    page = render({**result, "columns": [c | {"shape": {}} for c in result["columns"]]}, [])
    assert "such as &#x27;team&#x27;" in page.partition("<h2>Violations")[2]


def test_the_same_files_give_the_same_result_and_no_new_metrics(stage: Stage) -> None:
    stage.traffic(600)
    first, put = stage.check(), len(stage.cloudwatch.metrics)
    verdict = stage.verdict
    assert stage.check(UNTIL + timedelta(minutes=40)) == first
    assert (stage.verdict, len(stage.cloudwatch.metrics)) == (verdict, put)


def test_the_result_is_there_when_the_metrics_ring_an_alarm_and_they_are_put_again_after_a_kill(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.traffic(600)
    seen = []

    def die(**metrics: Any) -> None:
        seen.append(stage.result(UNTIL)["message"])
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(stage.cloudwatch, "put_metric_data", die)
        stage.check()
    assert "nothing above its limit in 600 rows" in seen[0]
    stage.check()
    assert stage.measured("Rows") == [600]


def test_other_limits_judge_the_same_files_again(stage: Stage) -> None:
    stage.traffic(600)
    stage.check()
    stage.settings = Settings(limits={})
    assert stage.check()["worst"] is None and len(stage.measured("Rows")) == 2
    stage.settings = Settings()
    stage.check(UNTIL + timedelta(days=1))
    assert stage.result(UNTIL)["worst"] is None  # a window before the newest keeps its verdict


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_result_that_is_none_is_checked_again(
    stage: Stage, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.traffic(600)
    stage.check()
    key = next(each["Key"] for each in stage.stored("monitor") if "result.json" in each["Key"])
    stage.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    assert stage.check()["rows"] == 600
    assert f"{key} is not the result of a check (" in capsys.readouterr().out


def test_limits_of_zero_are_limits(stage: Stage) -> None:
    stage.settings = Settings(
        limits={"number": {"missing": 0}, "prediction": 0, "quality": 0}, metric="logloss"
    )
    stage.label(stage.traffic(900, missing=0.2, age=15, wrong=0.9))
    result = stage.check()
    assert {kind for _, kind in kinds(result)} == {"missing", "prediction", "quality"}
    assert result["worst"]["limit"] == 0
    assert min(stage.measured("Drift") + stage.measured("PredictionDrift")) > 1
    page = render({**result, "columns": [], "predictions": []}, [])
    assert "<td>0.0%" in page.partition("<h2>Quality")[2]


def test_late_files_belong_to_their_hour(stage: Stage) -> None:
    stage.traffic(600)
    stage.check()
    tomorrow = UNTIL + timedelta(days=1)
    stage.traffic(600, "2026/11/28/07")
    stage.traffic(900, "2026/11/27/23", age=15)
    late = stage.check(tomorrow)
    assert (late["rows"], late["violations"]) == (600, [])
    before = stage.result(UNTIL)
    assert before["rows"] == 1500 and ("age", "drift") in kinds(before)
    assert stage.verdict["violations"] == len(before["violations"])
    assert (
        "late files or labels: window to 2026-11-28T06Z: version 1, age"
        in (stage.verdict["message"])
    )
    assert stage.measured("Violations")[-1] == len(before["violations"])
    dated = [each for each in stage.cloudwatch.metrics if "Timestamp" in each]
    assert {each["Timestamp"] for each in dated} == {datetime(2026, 11, 28, 6, tzinfo=UTC)}
    stage.check(tomorrow)
    assert stage.verdict["violations"] == 0 and len(stage.measured("Rows")) == 3


def test_a_check_of_an_old_window_does_not_change_the_alarm(stage: Stage) -> None:
    stage.put(f"{PROJECT}/monitor/{STAGE}/2099-01-01T00Z/result.json", "{}")  # by mistake
    stage.traffic(600)
    stage.check()
    assert not any("Timestamp" in each for each in stage.cloudwatch.metrics)
    for days, dated in ((1, [6]), (14, [])):
        before = UNTIL - timedelta(days=days)
        stage.traffic(900, f"{before - timedelta(hours=2):%Y/%m/%d/%H}", age=15)
        put = len(stage.cloudwatch.metrics)
        assert stage.check(before)["status"] == "violation" and stage.verdict["violations"]
        found = [m for m in stage.cloudwatch.metrics[put:] if m["MetricName"] == "Violations"]
        assert [m["Timestamp"].hour for m in found] == dated


def test_what_is_listed_does_not_grow_with_windows_and_hours(stage: Stage) -> None:
    versions = ["1", *map(str, range(20, 30))]
    for version in versions:
        stage.traffic(1, "2026/01/02/03", version=version)
    listed = list[dict[str, Any]]()

    def note(params: dict[str, Any], **_: Any) -> None:
        if "MaxKeys" not in params:  # not of one object, which is about to be read
            listed.append(dict(params))

    stage.s3.meta.events.register("before-parameter-build.s3.ListObjectsV2", note)
    for day in range(3):
        for hour in (7, 8, 23):
            stage.traffic(1, f"2026/11/{25 + day}/{hour:02}")
        stage.traffic(1, f"2026/11/{26 + day}/06")  # belongs to the next window
        listed.clear()
        assert stage.check(UNTIL + timedelta(days=day - 2))["rows"] == 3 + (day > 0)
        # Labels, results before and after, asynchronous inputs and outputs, versions; of each its
        # endpoints, their variants and files.
        assert len(listed) == 6 + 3 * len(versions)
        assert sum("2026/11/2" in each.get("StartAfter", "") for each in listed) == len(versions)


def test_windows_that_had_no_result_are_not_made_up(stage: Stage) -> None:
    stage.traffic(600, "2026/11/24/07")
    stage.traffic(600)
    stage.check()
    folder = f"{PROJECT}/monitor/{STAGE}/2026-11-28T06Z"
    assert [each["Key"] for each in stage.stored("monitor")] == [
        f"{folder}/report.html",
        f"{folder}/result.json",
    ]


def test_each_version_is_compared_with_its_own_baseline(stage: Stage) -> None:
    stage.train("12", seed=9)
    stage.traffic(700)
    stage.traffic(700, version="12", income=1)
    result = stage.check()
    assert result["versions"] == {"1": 700, "12": 700}
    assert {each["version"] for each in result["violations"]} == {"12"}
    assert ("income", "drift") in kinds(result)


STATES = {
    "nothing": ([], "no requests", "no requests were captured"),
    "one row": ([("1", 1)], "too few rows", ": 1 row, too few to judge; "
                "monitoring.min_rows is 500"),
    "few rows": ([("1", 499)], "too few rows", ": 499 rows, too few to judge; "
                 "monitoring.min_rows is 500"),
    "two versions": ([("1", 300), ("3", 499)], "too few rows", ": no version answered 500 rows "
                     "(1: 300, 3: 499)"),
    "no baseline": ([("2", 700)], "no baseline", ": version 2, which answered 700 requests, has no "
                    "baseline to compare with"),
    "a deleted version": ([("7", 1)], "no baseline", ": version 7, which answered 1 request, has"),
    "two without": ([("2", 3), ("7", 3)], "no baseline", ": versions 2, 7, which answered 6 "
                    "requests, have no baseline"),
    "one with and one without": ([("1", 600), ("2", 30)], "ok", "600 rows; version 2 has no "
                                 "baseline and is not judged"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_what_cannot_be_judged_says_why_and_is_no_violation(stage: Stage, name: str) -> None:
    traffic, status, text = STATES[name]
    stage.sagemaker.versions |= {"2": None, "3": stage.sagemaker.versions["1"]}
    for version, count in traffic:
        stage.traffic(count, version=version, age=0 if status == "ok" else 30)
    result = stage.check()
    assert (result["status"], result["violations"]) == (status, [])
    assert text in result["message"] and stage.verdict["violations"] == 0
    # What nobody has judged says nothing to the alarm.
    assert stage.measured("Violations") == ([0] if status == "ok" else [])
    if not result["columns"]:  # without figures
        assert monitor_report.STATES[status] in render(result, [])


def test_refused_requests_and_lines_in_pieces_are_no_rows(stage: Stage) -> None:
    stage.traffic(600)
    body = "1,2,3"
    stage.capture([line(body, '{"error": "x"}', "text/csv")] * 30 + ["{", ""])
    result = stage.check()
    assert (result["requests"], result["refused"], result["rows"]) == (600, 31, 600)


def test_a_window_of_refused_requests_says_so(stage: Stage) -> None:
    stage.capture([line("1,2,3", '{"error": "x"}', "text/csv")])
    result = stage.check()
    assert (result["status"], result["refused"]) == ("no requests", 1)
    assert result["message"].endswith(": all requests (1) were refused or cannot be read")
    page = render({**result, "columns": []}, [])
    assert "All requests were refused" in page and "No requests were captured" not in page


def test_columns_are_judged_where_no_prediction_can_be(stage: Stage) -> None:
    rows = objects(people(stage.random, 600, age=15))
    answer = json.dumps({"predictions": [{"probabilities": {"no": [1], "yes": [0]}}] * 600})
    stage.capture([line(json.dumps({"instances": rows}), answer, inference_id="a")])
    stage.label([("a", "yes")])
    result = stage.check()
    assert (result["rows"], result["predictions"], result["quality"]) == (600, [], [])
    assert ("age", "drift") in kinds(result)


# Labels


def test_labels_of_our_ids_find_their_window_and_its_quality(stage: Stage) -> None:
    good = stage.traffic(600)
    stage.check()
    assert stage.result(UNTIL)["quality"] == []
    stage.label(good)
    tomorrow = UNTIL + timedelta(days=1)
    stage.traffic(600, "2026/11/28/07")
    stage.check(tomorrow)
    [quality] = stage.result(UNTIL)["quality"]
    assert (quality["metric"], quality["rows"], quality["violates"]) == ("auc", 600, False)
    assert quality["value"] == pytest.approx(quality["baseline"], abs=0.05)
    assert stage.measured("Quality") == [quality["value"]]


def test_a_worse_model_is_found_as_soon_as_its_labels_arrive(stage: Stage) -> None:
    bad = stage.traffic(600, wrong=0.8)
    assert stage.check()["status"] == "ok"
    stage.label(bad)
    stage.check(UNTIL + timedelta(days=1))
    assert kinds(stage.result(UNTIL)) == {(None, "quality")}
    assert stage.verdict["violations"] == 1 and "auc 0." in stage.verdict["message"]
    assert stage.measured("Violations")[-1] == 1


@pytest.mark.parametrize(("count", "judged"), [(49, False), (60, True)])
def test_few_labels_do_not_alarm(stage: Stage, count: int, judged: bool) -> None:
    stage.label(stage.traffic(600, wrong=0.3)[:count])
    [quality] = stage.check()["quality"]
    assert ("violates" in quality) is judged and not quality.get("violates")
    assert judged or "49 labelled rows are too few to judge" in quality["text"]


def test_labels_by_row_in_each_format_and_corrected_ones(stage: Stage) -> None:
    found = people(stage.random, 600)
    p = probability(found)
    body = json.dumps({"instances": objects(found)})
    stage.capture([line(body, predictions(p), inference_id="theirs")])
    truth = ["yes" if each else "no" for each in stage.random.random(600) < p]
    known = pa.table({"inference_id": ["theirs"] * 600, "row": range(600), "label": truth})
    start = f"{PROJECT}/labels/{STAGE}/"
    sink = pa.BufferOutputStream()
    pq.write_table(known.slice(0, 300), sink)
    stage.s3.put_object(Bucket=BUCKET, Key=f"{start}a/1.parquet", Body=sink.getvalue().to_pybytes())
    lines = "".join(f"{json.dumps(row)}\n" for row in known.slice(300).to_pylist())
    stage.put(f"{start}b/2.jsonl", lines)
    stage.put(f"{start}readme.txt", "not labels")
    [quality] = stage.check()["quality"]
    assert quality["rows"] == 600 and not quality["violates"]
    turned = [f"theirs,{i},{'no' if each == 'yes' else 'yes'}" for i, each in enumerate(truth)]
    lines = "\n".join(["inference_id,row,label", *turned, "theirs,,", "other,,yes"])
    stage.put(f"{start}z.csv", lines)
    [turned_quality] = stage.check()["quality"]
    assert turned_quality["violates"]
    assert turned_quality["value"] == pytest.approx(1 - quality["value"])


def test_of_too_many_labels_the_same_sample_is_kept_whatever_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labels, "MOST", 100)
    files = [
        "inference_id,label\n" + "".join(f"2026112707-{n}-{i},yes\n" for i in range(300))
        for n in range(3)
    ]
    kept = []
    for order in (files, files[::-1], [*files, files[0]]):
        found = labels.Labels(Window.ending(UNTIL, 24))
        for text in order:
            labels.add([found], "x.csv", io.BytesIO(text.encode()))
        kept.append((found.digest, len(found.keys)))
    assert kept[0] == kept[1] == kept[2] and 30 < kept[0][1] <= 100


@pytest.mark.parametrize("name", ["4500012345-10", "1764403200-7f", "2026139907-1", "abc-1"])
def test_ids_of_others_are_looked_for_in_each_window(name: str) -> None:
    found = labels.Labels(Window.ending(UNTIL, 24))
    labels.add([found], "x.csv", io.BytesIO(f"inference_id,label\n{name},yes\n".encode()))
    assert len(found.keys) == 1


def test_texts_of_json_lines_stay_as_they_are_where_they_look_like_times() -> None:
    rows = [{"inference_id": "2026-11-27", "label": "2026-11-27 06:00", "row": i} for i in (0, 1)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    of_csv = "".join(f"{','.join(map(str, row.values()))}\n" for row in rows)
    found = [labels.Labels(Window.ending(UNTIL, 24)) for _ in range(2)]
    labels.add(found[:1], "x.jsonl", io.BytesIO(lines.encode()))
    labels.add(found[1:], "x.csv", io.BytesIO(f"inference_id,label,row\n{of_csv}".encode()))
    assert found[0].texts.to_pylist() == ["2026-11-27 06:00"] * 2
    assert found[0].digest == found[1].digest


def test_a_file_of_labels_that_cannot_be_read_is_named_and_the_others_are_read(
    stage: Stage,
) -> None:
    found = stage.traffic(600)
    stage.label(found[:300], "a.csv")
    rest = "".join(f"{i},{label},0.0\n" for i, label in found[300:])
    start = f"{PROJECT}/labels/{STAGE}/"
    stage.put(f"{start}z.CSV", f"inference_id,label,row\n{rest}")
    stage.put(f"{start}day.csv", "id,label\n1,yes\n")
    stage.put(f"{start}mixed.jsonl", '{"inference_id": "a", "label": 1}\n{"inference_id": [2]}\n')
    stage.put(f"{start}twice.csv", "inference_id,label,label\na,yes,no\n")
    stage.put(f"{start}half.csv", "inference_id,label,row\na,yes,0.5\n")
    stage.put(f"{start}none.parquet", "no parquet")
    for row in ("-1", "nan", "inf"):
        stage.put(f"{start}{row}.csv", f"inference_id,label,row\n{found[0][0]},no,{row}\n")
    result = stage.check()
    assert result["quality"][0]["rows"] == 600
    assert result["status"] == "ok" and len(result["unread"]) == 8
    for row in ("-1", "nan", "inf", "half"):
        value = "0.5" if row == "half" else row
        said = f"labels in {start}{row}.csv were not read: a row is {value}; rows count from 0"
        assert said in result["unread"]
    message = stage.verdict["message"]
    assert f"labels in {start}day.csv were not read: no column 'inference_id'" in message
    assert all("\n" not in each and len(each) < 400 for each in result["unread"])
    stage.check()
    assert len(stage.measured("Rows")) == 1
    stage.s3.delete_object(Bucket=BUCKET, Key=f"{start}day.csv")
    assert len(stage.check()["unread"]) == 7
    assert "labels/production/half.csv" in render(
        stage.result(UNTIL) | {"columns": [], "predictions": []}, []
    )


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda n: f"{n / 8:.3f}", id="point"),
        pytest.param(lambda n: f"{n / 8:.3f}".replace(".", ","), id="comma"),
    ],
)
def test_quantities_are_read_with_the_decimal_mark_that_their_file_shows(
    written: Callable[[int], str],
) -> None:
    known = trained()
    quantities = replace(
        known,
        schema=replace(known.schema, task="regression", classes=[]),
        quality=Quality({"rmse": 1.0}),
    )
    # 1,250 alone could be a thousand: 12,500 and 0,125 say that it is not.
    found = labels.Labelled([np.arange(100) / 8], [pa.array([*map(written, range(100))])])
    quality = found.quality(quantities, "rmse", None)
    assert quality and (quality["rows"], quality["value"]) == (100, 0.0)


@pytest.mark.parametrize("written", [str, lambda label: str(label).lower()])
def test_labels_of_true_and_false_may_be_written_as_pandas_does(
    written: Callable[[bool], str],
) -> None:
    known = trained()
    flags = replace(known, schema=replace(known.schema, classes=[False, True]))
    texts = [written(i % 2 == 1) for i in range(100)]
    shares = np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1))
    quality = labels.Labelled([shares], [pa.array(texts)]).quality(flags, "auc", None)
    assert quality and (quality["rows"], quality["value"]) == (100, 1.0)


def test_a_metric_of_the_teams_own_is_replaced_by_the_librarys(stage: Stage) -> None:
    stage.settings = Settings(metric="cost")
    stage.label(stage.traffic(600))
    assert [each["metric"] for each in stage.check()["quality"]] == ["auc"]


# Asynchronous


def test_an_asynchronous_stage_is_read_from_its_inputs_and_outputs(stage: Stage) -> None:
    for i in range(8):
        found = people(stage.random, 100, age=15)
        start = f"{PROJECT}/async/{STAGE}"
        rows = "\n".join(json.dumps(row) for row in objects(found))
        stage.put(f"{start}/input/{i}", rows, ContentType="application/jsonlines")
        stage.put(f"{start}/output/version-1/{i}.out", predictions(probability(found)))
    # Not before the last object was put: a full hour may have passed meanwhile.
    now = datetime.now(UTC)
    result = stage.check(now + timedelta(hours=1))
    assert (result["requests"], result["rows"]) == (8, 800)
    assert {("age", "drift"), ("predicted class", "prediction")} <= kinds(result)
    assert stage.check(now + timedelta(hours=26))["status"] == "no requests"


# The command line


def test_the_job_starts_from_the_command_line(
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage.traffic(120)
    code = tmp_path / "code"
    code.mkdir()
    (code / "mlops.yaml").write_text("monitoring: {window_hours: 48, min_rows: 100}\n")
    clients = {"s3": stage.s3, "sagemaker": stage.sagemaker, "cloudwatch": stage.cloudwatch}
    monkeypatch.setattr(boto3.Session, "client", lambda self, name: clients[name])
    words = {"--bucket": BUCKET, "--prefix": PROJECT, "--stage": STAGE, "--group": GROUP,
             "--until": "2026-11-28T06:10:00Z", "--output": str(tmp_path / "out"),
             "--region": "us-east-1"}  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["monitor.py", *(w for pair in words.items() for w in pair)])
    monitor.main(code)
    printed = capsys.readouterr().out
    assert printed.startswith("production, 48 hours to 2026-11-28T06Z: nothing above its limit")
    assert (tmp_path / "out/report.html").read_text() == "0 before"


@pytest.mark.parametrize(("text", "end"), [
    ("2026-11-28T06:59:59Z", "2026-11-28T06Z"),
    ("2026-11-28T06:59:59", "2026-11-28T06Z"),
    ("2026-11-28T01:30:00-05:00", "2026-11-28T06Z"),
])  # fmt: skip
def test_a_window_ends_at_the_full_hour_in_utc(text: str, end: str) -> None:
    assert Window.ending(monitor.moment(text), 24).name == end


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="--until is 'noon'"):
        monitor.moment("noon")


# The report


@pytest.mark.slow
def test_the_report_of_a_real_set_of_files_shows_trend_columns_and_hostile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monitored(tmp_path) as stage:
        stage.train()
        with monkeypatch.context() as patched:
            patched.setattr(monitor_report, "render", lambda result, earlier: "")
            for day in (26, 27):
                stage.traffic(520, f"2026/11/{day - 1}/08")
                stage.check(UNTIL - timedelta(days=28 - day))
        stage.label(stage.traffic(520, age=12))
        result = stage.check()
    page = (stage.output / "report.html").read_text()
    assert "Over 3 windows" in page and "Something is above its limit" in page
    assert page.index("<h2>Violations") < page.index("<h2>Over 3") < page.index(">All columns<")
    assert "population stability index" in page and page.count("<svg") > 8
    assert not re.search(r"(src|href)=\W*http", page)
    result["columns"][0]["name"] = result["violations"][0]["column"] = "<script>$x$\u202e"
    hostile = monitor_report.render(result, [])
    assert "<script>" not in hostile and "\u202e" not in hostile
