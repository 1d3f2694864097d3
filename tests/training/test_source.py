"""Preprocess refuses data that is not what its execution was started with."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from bootstrap_case import sign_in_there
from repos import Repo
from sm_mlops import executions, objects, registry
from sm_mlops.aws import Aws, split_s3
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops.sandbox import Server, grants
from sm_mlops.tabular import source
from sm_mlops.tabular.failure import DataError
from sm_mlops.training import artifacts, run

Verify = Callable[..., None]


@pytest.fixture
def lake(account: Aws) -> artifacts.Dataset:
    """Return data in S3: a folder of two files."""
    for name in ("a.csv", "2026/b.csv"):
        account.s3.put_object(Bucket=account.bucket, Key=f"lake/{name}", Body=b"a,y\n1,2\n")
    return artifacts.data_in_s3(account, f"s3://{account.bucket}/lake/")


@pytest.fixture
def verify(account: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """Return a function that downloads data as SageMaker does, and verifies it as a job does."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")

    def downloaded(data: artifacts.Dataset, wanted: str = "", isolated: bool = False) -> None:
        inputs = [{"InputName": "data", "S3Input": {"S3Uri": data.uri}}]
        (tmp_path / "config").mkdir(exist_ok=True)
        config = tmp_path / "config/processingjobconfig.json"
        config.write_text(json.dumps({"ProcessingInputs": inputs}))
        bucket, key = split_s3(data.uri)
        folder = tmp_path / "data"
        for item in account.s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]:
            file = folder / (item["Key"].removeprefix(key) or Path(key).name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(account.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
        source.verify(folder, wanted or data.digest, isolated=isolated)

    return downloaded


def test_data_that_is_what_it_was_is_accepted(
    account: Aws, lake: artifacts.Dataset, verify: Verify
) -> None:
    verify(lake)
    verify(lake, isolated=True)


def test_one_object_that_is_what_it_was_is_accepted(account: Aws, verify: Verify) -> None:
    account.s3.put_object(Bucket=account.bucket, Key="one/a.csv", Body=b"1")
    verify(artifacts.data_in_s3(account, f"s3://{account.bucket}/one/a.csv"))


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_or_an_object_is_listed_and_no_other_name_that_begins_so(
    account: Aws, lake: artifacts.Dataset, end: str
) -> None:
    for key in ("lake/2026-rejected/c.csv", "lake/a.csv.old"):
        account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"a,y\n9,9\n")
    start = f"s3://{account.bucket}/lake"
    found = source.listed(account.s3, f"{start}/2026{end}")
    assert [name for name, *_ in found] == ["b.csv"]
    assert [name for name, *_ in source.listed(account.s3, f"{start}/a.csv")] == ["a.csv"]
    assert source.listed(account.s3, f"{start}/20{end}") == []


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("key", ["lake/a.csv", "lake/c.csv"])
def test_data_of_another_size_or_name_is_refused(
    account: Aws, lake: artifacts.Dataset, verify: Verify, key: str, isolated: bool
) -> None:
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"longer\n1,2\n")
    with pytest.raises(DataError, match=r"lake/ is no longer what this execution was started with"):
        verify(lake, isolated=isolated)


def test_data_of_the_same_size_and_other_content_is_refused_where_there_is_a_network(
    account: Aws, lake: artifacts.Dataset, verify: Verify, capsys: pytest.CaptureFixture[str]
) -> None:
    account.s3.put_object(Bucket=account.bucket, Key="lake/a.csv", Body=b"a,y\n9,9\n")
    with pytest.raises(DataError, match="no longer"):
        verify(lake)
    verify(lake, isolated=True)
    assert "by file names and sizes only" in capsys.readouterr().out


def test_uploaded_data_is_compared_by_content_even_without_a_network(
    account: Aws, repo: Repo, verify: Verify
) -> None:
    (repo.root / "rows.csv").write_text("a,y\n1,2\n")
    data = artifacts.upload_data(Aws(repo.configure(data={"path": "rows.csv"})))
    verify(data, isolated=True)
    key = f"{split_s3(data.uri)[1]}rows.csv"
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"a,y\n9,9\n")
    with pytest.raises(DataError, match="no longer"):
        verify(data, isolated=True)


@pytest.mark.parametrize("wanted", ["unknown", "0" * 63, "../../etc"])
def test_an_execution_without_a_hash_is_told_to_be_started_by_the_tool(
    lake: artifacts.Dataset, verify: Verify, wanted: str
) -> None:
    with pytest.raises(DataError, match="start the execution with mlops run"):
        verify(lake, wanted)


# In the sandbox, whose jobs sign in as the pipeline's role


@pytest.fixture
def sandboxed(tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    (repo.root / ".gitignore").write_text("data/\n")
    subprocess.run(["git", "-C", str(repo.root), "init", "--quiet"], check=True)
    with Server(tmp_path / "server", "eu-west-1") as server:
        sign_in_there(server, monkeypatch)
        aws = Aws(repo.settings(), sandbox=True)
        prepare(aws)
        yield aws


@pytest.mark.long
@pytest.mark.slow
def test_data_that_changes_in_place_is_trained_and_registered_under_its_own_hash(
    sandboxed: Aws,
) -> None:
    aws, folder = sandboxed, f"s3://{sandboxed.bucket}/churn/lake/"
    header, *rows = artifacts.local_data(aws.settings).read_bytes().splitlines(keepends=True)
    given = {"InputData": folder, "num_boost_round": "10", "GateThreshold": "0"}
    models, hashes, cached = [], [], []
    for content in (rows, rows[::-1], None):
        if content:
            body = b"".join([header, *content])
            aws.s3.put_object(Bucket=aws.bucket, Key="churn/lake/rows.csv", Body=body)
        arn = run.start(aws, given, print)
        ended = executions.follow(aws, arn, Console(file=io.StringIO()))
        package = aws.sagemaker.describe_model_package(ModelPackageName=ended.model_package)
        hashes.append(package["CustomerMetadataProperties"]["DataHash"])
        models.append(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])
        cached.append([step.cached for step in ended.steps if step.job])
    assert hashes[0] != hashes[1] == hashes[2] == artifacts.data_in_s3(aws, folder).digest
    assert objects.read(aws, models[0]) != objects.read(aws, models[1])
    assert models[1] == models[2]
    assert cached == [[False] * 3, [False] * 3, [True] * 3]


@pytest.mark.long
@pytest.mark.slow
def test_a_champion_that_cannot_be_scored_stops_the_run_unless_it_is_waived(sandboxed: Aws) -> None:
    aws, address = sandboxed, f"s3://{sandboxed.bucket}/churn/lake/"
    rows = artifacts.local_data(aws.settings).read_bytes()
    given = {"InputData": address, "num_boost_round": "5", "GateThreshold": "0"}

    def ended(content: bytes, **more: str) -> executions.Execution:
        aws.s3.put_object(Bucket=aws.bucket, Key="churn/lake/rows.csv", Body=content)
        arn = run.start(aws, given | more, print)
        return executions.follow(aws, arn, Console(file=io.StringIO()))

    ended(rows)
    registry.set_approval(aws, registry.version(aws, 1), "Approved", "")
    renamed = rows.replace(b"mean_radius", b"radius_mean", 1)
    stopped = ended(renamed)
    first, *_ = executions.failure(aws, stopped)
    assert first.startswith("Evaluate: champion version 1 cannot be scored: ")
    assert "column 'mean_radius' is missing" in first
    assert "mlops --sandbox run --set WaiveChampion=yes or mlops --sandbox reject 1" in first
    assert ended(renamed, WaiveChampion="yes").model_package
    said = registry.version(aws, 2).evaluation
    assert "comparison with version 1 waived: " in said and "mean_radius" in said


@pytest.mark.slow
def test_a_role_that_sagemaker_does_not_know_yet_is_waited_for(
    sandboxed: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bootstrap has just created it."""
    monkeypatch.setattr(grants, "LATE", 2)
    monkeypatch.setattr(run, "ROLE_SECONDS", 0)
    told: list[str] = []
    arn = run.start(sandboxed, {}, told.append)
    sandboxed.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert sum("cannot assume the pipeline's role yet" in line for line in told) == 2
    # One that stays unknown is SageMaker's error.
    monkeypatch.setattr(grants, "LATE", 99)
    with pytest.raises(ClientError, match="Could not assume role"):
        run.start(sandboxed, {}, print)


def preprocessed(aws: Aws, arn: str) -> executions.Step:
    """Wait for the end of Preprocess, stop the execution, and return the step."""
    while True:
        found = executions.describe(aws, arn, ("Preprocess",)).steps[0]
        if found.status == "Succeeded":
            aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
        if found.status in ("Succeeded", "Failed"):
            return found
        time.sleep(0.2)


@pytest.mark.long
@pytest.mark.slow
def test_other_data_at_the_same_address_is_no_cache_hit_and_its_old_hash_is_refused(
    sandboxed: Aws,
) -> None:
    aws = sandboxed
    rows = artifacts.local_data(aws.settings).read_bytes()
    uri = {"InputData": f"s3://{aws.bucket}/churn/lake/"}
    aws.s3.put_object(Bucket=aws.bucket, Key="churn/lake/rows.csv", Body=rows)
    first = run.start(aws, uri, print)
    assert preprocessed(aws, first).status == "Succeeded"
    again = run.start(aws, uri, print)
    assert preprocessed(aws, again).cached
    former = artifacts.data_in_s3(aws, uri["InputData"]).digest
    aws.s3.put_object(Bucket=aws.bucket, Key="churn/lake/rows.csv", Body=rows.swapcase())
    values = {**uri, "DataHash": "0" * 32 + former[32:]}
    stale = aws.sagemaker.start_pipeline_execution(
        PipelineName="churn",
        PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
    )["PipelineExecutionArn"]
    failed = preprocessed(aws, stale)
    assert failed.status == "Failed"
    assert "is no longer what this execution was started with" in executions._message(
        aws, failed, []
    )
