"""`mlops predict`: files with the version that a stage runs, continued after interruptions."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployment_cases import BATCH, SUM, Place, place
from repos import mlops_ended
from sm_mlops import objects
from sm_mlops.aws import Aws
from sm_mlops.deployment import batch, batch_rows, endpoints, transform
from sm_mlops.deployment.batch import Result
from sm_mlops.deployment.stages import Stage
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow
OFFERED = ["ml.m5.xlarge", "ml.m5.large"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("batch")) as found:
        yield found


@pytest.fixture(scope="module")
def deployed(here: Place) -> Stage:
    found = here.stage("qa")
    here.deploy(found, here.register(BATCH, offset=10))
    return found


@pytest.fixture
def stage(here: Place, deployed: Stage) -> Stage:
    """Return a stage that runs version 1, of whose predictions nothing is left in S3."""
    objects.delete_versions(here.aws, here.aws.bucket, folder_of(here))
    return deployed


def folder_of(here: Place) -> str:
    return f"{here.aws.settings.prefix}/batch/qa/"


def run(here: Place, stage: Stage, source: Path | str, target: Path | str, **more: Any) -> Result:
    return batch.predict(here.aws, stage, str(source), str(target), here.console, **more)


def left(here: Place) -> list[str]:
    """Return what predicting with the stage `qa` has left in S3."""
    return [item["Key"] for item in objects.versions(here.aws, here.aws.bucket, folder_of(here))]


def jobs(here: Place) -> list[dict[str, Any]]:
    return list(here.aws.pages("list_transform_jobs", "TransformJobSummaries"))


ROWS = [
    {"id": "007", "note": 'a,b "c"\nd', "a": "1", "b": "2"},
    {"id": "8", "note": "", "a": "0.5", "b": "1"},
    {"id": "009", "note": "é", "a": "3", "b": "1"},
]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_get_their_predictions_in_their_order_and_keep_their_columns(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    source, target = write(tmp_path / "some rows.csv", ROWS), tmp_path / "out.csv"
    done = run(here, stage, source, target)
    assert (done.rows, done.errors, done.version, done.errors_file) == (3, 0, 1, "")
    predictions = ["13", "11.5", "14"]
    expected = [{**row, "prediction": p} for row, p in zip(ROWS, predictions, strict=True)]
    assert read(target) == expected
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["out.csv", "some rows.csv"]
    assert left(here) == []


def test_the_job_is_the_one_that_the_version_and_its_rows_need(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    arn = here.register(BATCH)
    here.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    done = run(here, stage, write(tmp_path / "rows.csv", ROWS[:1]), tmp_path / "out.csv")
    told = here.aws.sagemaker.describe_transform_job(TransformJobName=done.job)
    endpoint = here.aws.sagemaker.describe_endpoint(EndpointName=stage.stack)
    config = here.aws.sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )
    assert told["ModelName"] == config["ProductionVariants"][0]["ModelName"]
    assert told["TransformResources"] == {"InstanceType": "ml.m5.large", "InstanceCount": 1}
    assert told["MaxConcurrentTransforms"] * told["MaxPayloadInMB"] <= 100
    tags = here.aws.sagemaker.list_tags(ResourceArn=told["TransformJobArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "owner": "unknown", "project": "churn", "stage": "qa", "model-version": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "processors"),
    [("ml.m5.large", 2), ("ml.m5.xlarge", 4), ("ml.c6i.2xlarge", 8), ("ml.m5.24xlarge", 96)],
)
def test_each_processor_gets_a_request(kind: str, processors: int) -> None:
    assert transform._processors(kind) == processors


def test_bad_rows_are_in_a_file_of_their_own_with_the_number_in_the_input(
    here: Place, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_rows, "VALUES", 8)  # two rows a part
    rows = [*ROWS, {**ROWS[0], "a": "old"}, ROWS[1], {**ROWS[2], "a": ""}]
    write(tmp_path / "rows.csv", rows)
    words = ["predict", str(tmp_path / "rows.csv"), str(tmp_path / "out.csv"), "--stage", "qa"]
    done = here.command(*words)
    assert done.returncode == 3, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("4 of 6 rows predicted by version 1: ")
    assert "; 2 could not be predicted: " in last and last.endswith("out.errors.jsonl")
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["007", "8", "009", "8"]
    lines = (tmp_path / "out.errors.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "file": "rows.csv",
            "row": number,
            "column": "a",
            "error": f"column 'a', row {number}: no number",
            "values": rows[number - 1],
        }
        for number in (4, 6)
    ]
    # Corrected rows leave no reasons behind.
    write(tmp_path / "rows.csv", ROWS)
    result = here.command(*words, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["errors"] == 0
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_parquet_keeps_its_dates_and_types(here: Place, stage: Stage, tmp_path: Path) -> None:
    days = [datetime.date(2026, 1, 1), None]
    rows = pa.table({"id": [7, 8], "day": days, "a": [0.5, 1], "b": pa.array([1, 2], pa.int8())})
    pq.write_table(rows, tmp_path / "rows.parquet")
    run(here, stage, tmp_path / "rows.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.drop_columns("prediction") == rows
    assert found["prediction"].to_pylist() == [11.5, 13.0]


def test_a_folder_is_predicted_file_by_file_or_into_one(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    folder = tmp_path / "my rows"
    write(folder / "a.csv", ROWS[:2])
    write(folder / "de ep" / "b.csv", [{**ROWS[2], "a": "old"}, ROWS[2]])
    done = run(here, stage, folder, f"{tmp_path}/all of it/")
    assert (done.rows, done.errors) == (4, 1)
    out = tmp_path / "all of it"
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert made == ["a.csv", "de ep/b.csv", "errors.jsonl"]
    [line] = (out / "errors.jsonl").read_text().splitlines()
    assert (json.loads(line)["file"], json.loads(line)["row"]) == ("b.csv", 1)
    run(here, stage, folder, tmp_path / "one.jsonl")
    found = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in found] == [13, 11.5, 14]


def test_rows_in_s3_are_predicted_into_s3(here: Place, stage: Stage, tmp_path: Path) -> None:
    bucket, s3 = here.aws.bucket, here.aws.s3
    for name in ("lake/in/a.csv", "lake/in/b b.csv", "lake/in-other/c.csv"):
        s3.upload_file(str(write(tmp_path / "rows.csv", ROWS)), bucket, name)
    done = run(here, stage, f"s3://{bucket}/lake/in", f"s3://{bucket}/lake/out/")
    assert done.rows == 6
    keys = {item["Key"] for item in objects.listed(here.aws, bucket, "lake/out/")}
    assert keys == {"lake/out/a.csv", "lake/out/b b.csv"}
    bad = write(tmp_path / "rows.csv", [{**ROWS[0], "a": "old"}, ROWS[1]])
    s3.upload_file(str(bad), bucket, "lake/bad.csv")
    done = run(here, stage, f"s3://{bucket}/lake/bad.csv", f"s3://{bucket}/lake/good.parquet")
    assert done.errors_file == f"s3://{bucket}/lake/good.errors.jsonl"
    keys = {item["Key"] for item in objects.listed(here.aws, bucket, "lake/good")}
    assert keys == {"lake/good.parquet", "lake/good.errors.jsonl"}


def interrupted(here: Place, words: list[str]) -> tuple[int, str]:
    """Press Ctrl-C while the job runs; return exit code and output."""
    signed_in: Any = here.signed_in()
    return mlops_ended(
        here.repo.root, lambda line: line.startswith("Predicted 0"), *words, **signed_in
    )


@pytest.mark.long
def test_an_interrupted_command_says_how_to_go_on_and_then_does(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    source = write(tmp_path / "my rows.csv", [{**ROWS[0], "wait": str(go)}])
    words = ["predict", str(source), str(tmp_path / "out.csv"), "--stage", "qa"]
    before = len(jobs(here))
    code, said = interrupted(here, words)
    assert code == 130, said
    assert f"To continue: mlops predict '{source}'" in said.replace("\n", " ")
    assert "To stop it: mlops predict" in said and "--stop" in said
    assert not (tmp_path / "out.csv").exists()
    # Who wants a new job is told of the one that runs.
    with pytest.raises(MlopsError, match=r"still predicts these rows: end it with --stop first"):
        run(here, stage, source, tmp_path / "out.csv", again=True)
    go.touch()
    done = here.command(*words)
    assert done.returncode == 0, done.stderr
    assert "Continuing with churn-batch-" in done.stdout and "Uploaded" not in done.stdout
    assert [row["prediction"] for row in read(tmp_path / "out.csv")] == ["13"]
    assert len(jobs(here)) == before + 1


def test_a_finished_job_is_used_unless_again_is_said(
    here: Place, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv"

    def disk_full(*_: Any) -> Any:
        raise MlopsError("no space")

    with monkeypatch.context() as broken:
        broken.setattr(batch, "_join", disk_full)
        with pytest.raises(MlopsError):
            run(here, stage, source, target)
    before = jobs(here)[0]["TransformJobName"]
    with monkeypatch.context() as broken:
        broken.setattr(batch, "_delete", lambda *_: None)
        assert run(here, stage, source, target).job == before
    number = int(before.rpartition("-")[2])
    again = run(here, stage, source, target, again=True)
    assert again.job == f"{before.rpartition('-')[0]}-{number + 1}"
    assert "1 of 1 parts were there" in here.shown
    # Other rows are another job.
    other = run(here, stage, write(source, ROWS[:2]), target)
    assert other.job.rpartition("-")[0] != before.rpartition("-")[0]


@pytest.mark.parametrize(
    ("change", "words"), [("fewer", "outputs of .* are gone"), ("more", "more rows than there are")]
)
def test_outputs_of_others_are_not_taken_for_one_s_own(
    here: Place,
    stage: Stage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    words: str,
) -> None:
    keys = batch.Place.keys

    def changed(place: batch.Place, prefix: str) -> dict[str, str]:
        found = keys(place, prefix)
        if "/output/" not in prefix or not found:
            return found
        return {} if change == "fewer" else {**found, "part-000002.jsonl.gz": "x"}

    source, target = write(tmp_path / f"{change}.csv", ROWS), tmp_path / "out.csv"
    with monkeypatch.context() as broken:
        broken.setattr(batch.Place, "keys", changed)
        with pytest.raises(MlopsError, match=words):
            run(here, stage, source, target)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    assert run(here, stage, source, target, again=True).rows == 3


@pytest.mark.long
def test_a_job_is_stopped_and_nothing_of_it_is_left(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", [{**ROWS[0], "wait": str(tmp_path / "never")}])
    words = ["predict", str(source), str(tmp_path / "out.csv"), "--stage", "qa"]
    interrupted(here, words)
    assert left(here)
    done = here.command(*words, "--stop")
    assert done.returncode == 0 and "Stopped churn-batch-" in done.stdout, done.stderr
    assert left(here) == []
    assert jobs(here)[0]["TransformJobStatus"] == "Stopped"
    done = here.command(*words, "--stop")
    assert done.returncode == 2 and "no job predicts" in done.stderr
    # The same command starts another, which here is not waited for.
    (tmp_path / "never").touch()
    assert here.command(*words).returncode == 0


def test_what_others_left_is_deleted_after_a_week(
    here: Place, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"{folder_of(here)}input/0123456789abcdef/part-000001.jsonl.gz"
    here.aws.s3.put_object(Bucket=here.aws.bucket, Key=key, Body=b"")
    source = write(tmp_path / "rows.csv", ROWS)
    run(here, stage, source, tmp_path / "out.csv")
    assert left(here) == [key]
    monkeypatch.setattr(batch, "LEFT", datetime.timedelta(0))
    run(here, stage, source, tmp_path / "out.csv")
    assert left(here) == []


@pytest.mark.usefixtures("stage")  # its version is the first
def test_a_version_that_refuses_bad_rows_is_named_with_what_to_do(
    here: Place, tmp_path: Path
) -> None:
    found = here.stage("older")
    here.deploy(found, here.register(SUM))
    run(here, found, write(tmp_path / "good.csv", ROWS), tmp_path / "out.csv")
    bad = write(tmp_path / "bad.csv", [*ROWS, {**ROWS[0], "a": "old"}])
    words = r"refuses a whole request for one bad row .*deploy a version that was trained with this"
    with pytest.raises(MlopsError, match=words) as caught:
        run(here, found, bad, tmp_path / "bad.out.csv")
    assert "could not convert string" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "target", "words"),
    [
        ("", "out.csv", r"rows\.csv: no rows"),
        ("a,b\n", "out.csv", r"rows\.csv: no rows"),
        ("a,b\n1,2\n", "out.xlsx", r"write a \.csv, \.jsonl or \.parquet file, or a folder"),
        ("a,b\n1,2\n", "rows.csv", r"the output would replace the input"),
        ("a,b\n1,2\n", "out.csv.gz", r"leave out \.gz"),
        ("a,b\n1,2,3\n", "out.csv", r"rows\.csv"),
    ],
)
def test_nothing_is_started_for_what_cannot_end_well(
    here: Place, stage: Stage, tmp_path: Path, content: str, target: str, words: str
) -> None:
    (tmp_path / "rows.csv").write_text(content)
    before = len(jobs(here))
    with pytest.raises(MlopsError, match=words):
        run(here, stage, tmp_path / "rows.csv", tmp_path / target)
    assert len(jobs(here)) == before


def test_a_stage_without_an_endpoint_is_named(here: Place, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.csv", ROWS)
    with pytest.raises(MlopsError, match="stage none has no endpoint churn-none yet: deploy"):
        run(here, here.stage("none"), source, tmp_path / "out.csv")
    with pytest.raises(MlopsError, match="no such object or folder in S3"):
        run(here, here.stage("none"), f"s3://{here.aws.bucket}/nothing/", tmp_path / "out.csv")


def test_what_is_wrong_in_s3_is_named_by_its_address(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    bucket = here.aws.bucket
    here.aws.s3.put_object(Bucket=bucket, Key="wrong/in/rows.jsonl", Body=b'{"a": 1}\n[]\n')
    for source in ("wrong/in/rows.jsonl", "wrong/in/"):
        with pytest.raises(MlopsError) as raised:
            run(here, stage, f"s3://{bucket}/{source}", tmp_path / "out" / "rows.csv")
        assert str(raised.value).startswith(f"s3://{bucket}/wrong/in/rows.jsonl, line 2: not an")
        assert not (tmp_path / "out").exists()


def test_a_role_of_before_is_named(here: Place, stage: Stage, tmp_path: Path) -> None:
    """Its stack was deployed with an endpoint.yml that knew no batches."""
    source = write(tmp_path / "rows.csv", ROWS)
    endpoint = endpoints.serving(here.aws, stage.stack, stage.name)
    model = here.aws.sagemaker.describe_model(ModelName=endpoint.model)
    role = model["ExecutionRoleArn"].rpartition("/")[2]
    iam = here.aws.client("iam")
    before = iam.get_role_policy(RoleName=role, PolicyName="endpoint")["PolicyDocument"]
    kept = json.loads(json.dumps(before["Statement"]).replace("/batch/", "/other/"))
    iam.put_role_policy(
        RoleName=role,
        PolicyName="endpoint",
        PolicyDocument=json.dumps({**before, "Statement": kept}),
    )
    try:
        words = r"may not use churn/batch/qa/: deploy the stage again with the current infra"
        with pytest.raises(MlopsError, match=words):
            run(here, stage, source, tmp_path / "out.csv")
    finally:
        text = json.dumps(before)
        iam.put_role_policy(RoleName=role, PolicyName="endpoint", PolicyDocument=text)


def test_a_stage_in_another_account_needs_a_bucket_there(
    here: Place, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Aws):
        account = "222233334444"

    monkeypatch.setattr(batch.access, "enter", lambda aws, _: Elsewhere(aws.settings, sandbox=True))
    with pytest.raises(MlopsError, match=r"infra/qa\.json: Parameters\.OutputBucket must name"):
        run(here, stage, write(tmp_path / "rows.csv", ROWS), tmp_path / "out.csv")


def test_no_output_takes_the_place_of_an_input_or_of_another_output(
    here: Place, stage: Stage, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("x.csv", "x.tsv", "errors.jsonl", "out.errors.jsonl"):
        content = "a,b\n1,2\n" if name[0] == "x" else '{"a": 1, "b": 2}\n'
        (folder / name).write_text(content)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("taken/x.csv", "o.errors.jsonl"):
        (tmp_path / name).mkdir(parents=True)
    long = tmp_path / f"{'i' * 249}.csv"
    long.write_text("a,b\n1,2\n")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    there = left(here)
    cases: list[tuple[Path, Path | str, str]] = [
        (folder, folder / "x.csv", "would replace the input x.csv"),
        (folder / "out.errors.jsonl", folder / "out.csv", "would replace the input out.errors"),
        (folder, f"{tmp_path}/out/", "two outputs would be named"),
        (folder / "x.csv", f"{folder}/", "would replace the input x.csv"),
        (folder / "x.csv", tmp_path / "file" / "o.csv", "cannot write here"),
        (folder / "x.csv", tmp_path / "link" / "o.csv", "cannot write here"),
        (folder / "x.csv", tmp_path / "circle" / "o.csv", "cannot write here: [A-Z]"),
        (folder / "x.csv", tmp_path / f"{'o' * 245}.csv", "cannot write here: File name too long"),
        (folder / "x.csv", tmp_path / "o\0.csv", "cannot write here: embedded null"),
        (folder / "x.csv", "", "^OUTPUT: write a .csv"),
        (folder / "x.csv", "s3://", "^s3://: write a .csv"),
        (folder / "x.csv", "s3:///o.csv", "^s3:///o.csv: write a .csv"),
        (folder / "x.csv", f"{'o' * 300}.csv", "cannot write here: File name too long"),
        (folder / "x.csv", f"{tmp_path}/taken/", "x.csv is a folder: rename it"),
        (folder / "x.csv", tmp_path / "o.csv", "o.errors.jsonl is a folder: rename it"),
        (long, f"{tmp_path}/out/", "cannot write here: File name too long"),
    ]
    for source, target, said in cases:
        with pytest.raises(MlopsError, match=said):
            run(here, stage, source, target)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert left(here) == there
