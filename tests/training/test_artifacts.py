"""What reaches S3 before an execution: data, code, champion."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.sagemaker.models import sagemaker_backends

from bootstrap_case import sign_in_there
from hostile import HOSTILE
from repos import Repo
from sm_mlops import objects
from sm_mlops.aws import Aws, split_s3
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox import Server
from sm_mlops.tabular import sample_data
from sm_mlops.training import artifacts
from sm_mlops.training.run import ensure_model_package_group


def keys(aws: Aws, prefix: str = "") -> list[str]:
    answer = aws.s3.list_objects_v2(Bucket=aws.bucket, Prefix=prefix)
    return [item["Key"] for item in answer.get("Contents", [])]


def with_data(repo: Repo, path: str) -> Aws:
    return Aws(repo.configure(data={"path": path}))


def register(aws: Aws, approval: str, model: bytes = b"model") -> int:
    """Register a version whose artifact is `model`, and return its number."""
    ensure_model_package_group(aws)
    key = f"trained/{approval}-{len(model)}/model.tar.gz"
    aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=model)
    arn = aws.sagemaker.create_model_package(
        ModelPackageGroupName=aws.settings.model_package_group,
        ModelApprovalStatus=approval,
        InferenceSpecification={
            "Containers": [{"Image": "image", "ModelDataUrl": f"s3://{aws.bucket}/{key}"}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    return int(arn.rsplit("/", 1)[-1])


def test_a_file_is_stored_under_the_hash_of_its_content(account: Aws, repo: Repo) -> None:
    (repo.root / "rows.csv").write_text("a,y\n1,2\n")
    aws = with_data(repo, "rows.csv")
    first = artifacts.upload_data(aws)
    bucket, prefix = split_s3(first.uri)
    assert keys(aws, prefix) == [f"{prefix}rows.csv"]
    assert (bucket, first.files, first.size) == (aws.bucket, 1, 8)
    assert artifacts.upload_data(aws) == first
    (repo.root / "rows.csv").write_text("a,y\n1,3\n")
    second = artifacts.upload_data(aws)
    assert second.uri != first.uri
    assert keys(aws, prefix) == [f"{prefix}rows.csv"], "what an older execution read stays"


@pytest.mark.parametrize("setting", ["path", "sample"])
@pytest.mark.parametrize("path", ["rows", "rows/a.csv", "way", "way/secret.csv", "gone.csv"])
def test_a_link_that_leads_out_of_the_data_is_not_followed(
    account: Aws, repo: Repo, tmp_path: Path, path: str, setting: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text("key\ncanary\n")
    (repo.root / "rows").mkdir()
    (repo.root / "rows" / "a.csv").symlink_to(outside / "secret.csv")
    (repo.root / "way").symlink_to(outside)
    (repo.root / "gone.csv").symlink_to(outside / "breast-cancer.csv")
    data = {"path": "s3://bucket/rows/", setting: path}
    aws = Aws(repo.configure(data=data), sandbox=setting == "sample")
    where = rf"data\.{setting} in mlops\.yaml: .* is a link to a place outside"
    with pytest.raises(MlopsError, match=where) as told:
        artifacts.upload_data(aws)
    assert str(repo.root / path) in str(told.value)
    assert keys(aws) == [] and not (outside / "breast-cancer.csv").exists()


def test_links_within_the_data_and_a_folder_elsewhere_are_read(
    account: Aws, repo: Repo, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.csv").write_text("a,y\n1,2\n")
    (elsewhere / "b.csv").symlink_to("a.csv")
    for path in (str(elsewhere), f"{elsewhere}/b.csv", "../elsewhere"):
        assert artifacts.upload_data(with_data(repo, path)).files


def test_a_folder_is_stored_with_its_files_and_without_hidden_ones(
    account: Aws, repo: Repo
) -> None:
    folder = repo.root / "two years"
    (folder / "2024").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name in ("2024/é.csv", "b.csv", ".DS_Store", ".cache/x.csv"):
        (folder / name).write_text("a,y\n1,2\n")
    aws = with_data(repo, "two years")
    _, prefix = split_s3(artifacts.upload_data(aws).uri)
    assert sorted(keys(aws, prefix)) == sorted(
        f"{prefix}{name}" for name in ("2024/é.csv", "b.csv")
    )


def test_files_with_hostile_names_keep_them_as_keys_and_reach_no_line(
    account: Aws, repo: Repo
) -> None:
    folder = repo.root / "rows"
    folder.mkdir()
    names = [
        f"{n} {text}.csv" for n, text in enumerate(HOSTILE) if not set(text) & set("/\0\ud800")
    ]
    for name in names:
        (folder / name).write_text("a,y\n1,2\n")
    data = artifacts.upload_data(with_data(repo, "rows"))
    _, prefix = split_s3(data.uri)
    assert data.uri.isprintable()
    assert data.files == len(names)
    assert artifacts.upload_data(with_data(repo, "rows")) == data
    assert len(keys(account, prefix)) == len(names)


def test_data_in_s3_is_read_where_it_is_and_its_hash_follows_its_content(
    account: Aws, repo: Repo
) -> None:
    uri = f"s3://{account.bucket}/lake/rows/"
    aws = with_data(repo, uri)
    account.s3.put_object(Bucket=account.bucket, Key="lake/rows/1.csv", Body=b"a,y\n1,2\n")
    first = artifacts.upload_data(aws)
    assert (first.uri, first.files) == (uri, 1)
    account.s3.put_object(Bucket=account.bucket, Key="lake/rows/1.csv", Body=b"a,y\n1,3\n")
    assert artifacts.upload_data(aws).digest != first.digest


def put(aws: Aws, *keys: str) -> None:
    for key in keys:
        aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=b"a,y\n1,2\n")


def test_a_folder_in_s3_is_not_a_beginning_of_names(account: Aws, repo: Repo) -> None:
    put(account, "lake/2026/a.csv", "lake/2026-rejected/a.csv", "lake/2026/")
    start = f"s3://{account.bucket}/lake/2026"
    without = artifacts.upload_data(with_data(repo, start))
    assert (without.uri, without.files) == (f"{start}/", 1)
    assert without == artifacts.data_in_s3(account, f"{start}/")
    with pytest.raises(MlopsError, match="no object and no folder"):
        artifacts.data_in_s3(account, f"s3://{account.bucket}/lake/20")


def test_a_whole_bucket_is_a_folder(account: Aws, repo: Repo) -> None:
    account.s3.create_bucket(
        Bucket="lake-all", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    account.s3.put_object(Bucket="lake-all", Key="a.csv", Body=b"a,y\n1,2\n")
    for uri in ("s3://lake-all", "s3://lake-all/"):
        assert artifacts.data_in_s3(account, uri).uri == "s3://lake-all/"


def test_an_object_in_s3_beside_one_whose_name_begins_with_its_own_is_refused(
    account: Aws,
) -> None:
    put(account, "lake/a.csv", "lake/b.csv")
    uri = f"s3://{account.bucket}/lake/a.csv"
    found = artifacts.data_in_s3(account, uri)
    assert (found.uri, found.files) == (uri, 1)
    put(account, "lake/a.csv.old")
    with pytest.raises(MlopsError, match=r"would read lake/a\.csv\.old"):
        artifacts.data_in_s3(account, uri)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.csv", "nowhere.csv does not exist"),
        ("empty", "has no files"),
        ("s3://BUCKET/nothing/here/", "no object and no folder"),
    ],
)
def test_missing_data_is_named(account: Aws, repo: Repo, path: str, said: str) -> None:
    (repo.root / "empty").mkdir()
    with pytest.raises(MlopsError, match=said):
        artifacts.upload_data(with_data(repo, path.replace("BUCKET", account.bucket)))


@pytest.mark.slow
def test_the_sample_data_is_written_on_first_use_only(repo: Repo) -> None:
    settings = repo.settings()
    assert Path(settings.data.path).name == artifacts.SAMPLE
    file = artifacts.local_data(settings)
    assert file.read_text().count("\n") > 500
    file.write_text("mine")
    assert artifacts.local_data(settings).read_text() == "mine"


@pytest.mark.slow
def test_the_sample_data_is_what_scikit_learn_loads(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    sample_data.write(tmp_path / "data" / "rows.csv")
    loaded = load_breast_cancer(as_frame=True)
    frame = loaded.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame = frame.assign(diagnosis=loaded.target_names[loaded.target])
    assert (tmp_path / "data" / "rows.csv").read_text() == frame.to_csv(index=False)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rows.csv"]


def test_a_missing_bucket_is_named_with_the_remedy(account: Aws, repo: Repo) -> None:
    (repo.root / "rows.csv").write_text("a,y\n1,2\n")
    aws = Aws(repo.configure(data={"path": "rows.csv"}, aws={"bucket": "not-there"}))
    with pytest.raises(MlopsError, match=r"not-there does not exist.*aws\.bucket"):
        artifacts.upload_data(aws)


CODE = {"churn/code/0a/preprocess.py": b"one", "churn/code/1b/source.tar.gz": b"two"}


def test_code_is_stored_under_the_keys_that_the_definition_names(account: Aws) -> None:
    artifacts.upload_code(account, CODE)
    stored = {
        key: account.s3.get_object(Bucket=account.bucket, Key=key)["Body"].read()
        for key in keys(account, "churn/code/")
    }
    assert stored == CODE


@pytest.mark.slow
def test_code_that_is_already_there_is_not_sent_again(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.upload_code(account, CODE)

    def refuse(**request: Any) -> None:
        raise AssertionError(request["Key"])

    monkeypatch.setattr(account.s3, "put_object", refuse)
    artifacts.upload_code(account, CODE)


def content(aws: Aws, key: str) -> bytes:
    return bytes(aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read())


@pytest.mark.parametrize("checksum", [{}, {"ChecksumAlgorithm": "SHA256"}], ids=["bare", "summed"])
def test_code_of_the_same_name_and_size_but_other_content_is_replaced(
    account: Aws, checksum: dict[str, Any]
) -> None:
    for key, body in CODE.items():
        account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"x" * len(body), **checksum)
    artifacts.upload_code(account, CODE)
    assert {key: content(account, key) for key in CODE} == CODE


@pytest.fixture
def sandboxed(tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """Yield an account of the sandbox, whose checksums are S3's, other than moto's."""
    with Server(tmp_path / "server", "eu-west-1") as server:
        sign_in_there(server, monkeypatch)
        aws = with_data(repo, "rows.csv")
        aws.s3.create_bucket(
            Bucket=aws.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        yield aws


@pytest.mark.slow
@pytest.mark.parametrize("part", [5, 8, 64], ids=["two parts", "one part", "whole"])
def test_data_of_the_same_name_and_size_but_other_content_is_replaced(
    sandboxed: Aws, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    aws, rows = sandboxed, b"a,y\n" * (2 << 20)
    (aws.settings.root / "rows.csv").write_bytes(rows)
    monkeypatch.setattr(objects, "PART", part << 20)
    key = f"{split_s3(artifacts.upload_data(aws).uri)[1]}rows.csv"
    head = aws.s3.head_object(Bucket=aws.bucket, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == objects.checksum(io.BytesIO(rows))
    aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=b"x" * len(rows))
    artifacts.upload_data(aws)
    assert content(aws, key) == rows
    monkeypatch.setattr(objects, "upload", lambda *_, **__: pytest.fail("sent again"))
    artifacts.upload_data(aws)


def test_without_an_approved_version_the_champion_is_a_marker(account: Aws) -> None:
    ensure_model_package_group(account)
    register(account, "PendingManualApproval")
    champion = artifacts.upload_champion(account)
    assert champion == artifacts.Champion("none", f"s3://{account.bucket}/churn/champion/none/")
    assert keys(account, "churn/champion/") == ["churn/champion/none/none.json"]


def test_the_newest_approved_version_is_the_champion(account: Aws) -> None:
    register(account, "Approved", b"old")
    version = register(account, "Approved", b"newer")
    register(account, "Rejected", b"newest")
    champion = artifacts.upload_champion(account)
    bucket, prefix = split_s3(champion.uri)
    assert champion.version == str(version)
    assert account.s3.get_object(Bucket=bucket, Key=f"{prefix}model.tar.gz")["Body"].read() == (
        b"newer"
    )
    about = account.s3.get_object(Bucket=bucket, Key=f"{prefix}champion.json")["Body"].read()
    assert json.loads(about) == {"version": str(version)}


def test_a_champion_whose_model_is_gone_is_named_and_can_be_waived(account: Aws) -> None:
    version = register(account, "Approved")
    [key] = keys(account, "trained/")
    account.s3.delete_object(Bucket=account.bucket, Key=key)
    with pytest.raises(MlopsError, match=rf"version {version}, .*/{key} does not exist; ") as gone:
        artifacts.upload_champion(account)
    assert f"mlops reject {version}" in str(gone.value)
    assert "--set WaiveChampion=yes" in str(gone.value)
    assert not keys(account, "churn/champion/")
    waived = artifacts.upload_champion(account, waived=True)
    prefix = split_s3(waived.uri)[1]
    assert keys(account, prefix) == [f"{prefix}champion.json"]
    assert prefix.endswith("-gone/")


def test_version_1_of_a_new_registry_is_not_taken_for_that_of_the_former(account: Aws) -> None:
    register(account, "Approved", b"former")
    former = artifacts.upload_champion(account)
    sagemaker_backends[account.account]["eu-west-1"].reset()
    time.sleep(1)  # A name has the time in seconds.
    register(account, "Approved", b"new life")
    champion = artifacts.upload_champion(account)
    assert (champion.version, former.version) == ("1", "1")
    assert champion.uri != former.uri
    bucket, prefix = split_s3(champion.uri)
    copy = account.s3.get_object(Bucket=bucket, Key=f"{prefix}model.tar.gz")["Body"].read()
    assert copy == b"new life"


@pytest.mark.slow
def test_a_champion_whose_copy_was_cut_off_is_copied_again(account: Aws) -> None:
    register(account, "Approved", b"whole")
    bucket, prefix = split_s3(artifacts.upload_champion(account).uri)
    half = f"{prefix}model.tar.gz"
    account.s3.delete_object(Bucket=bucket, Key=f"{prefix}champion.json")
    account.s3.put_object(Bucket=bucket, Key=half, Body=b"wh")
    artifacts.upload_champion(account)
    assert account.s3.get_object(Bucket=bucket, Key=half)["Body"].read() == b"whole"


@pytest.mark.slow
def test_uploads_are_encrypted_with_the_teams_key(account: Aws, repo: Repo) -> None:
    key = f"arn:aws:kms:eu-west-1:{'1' * 12}:key/00000000-0000-0000-0000-000000000000"
    (repo.root / "rows.csv").write_text("a,y\n1,2\n")
    aws = Aws(repo.configure(data={"path": "rows.csv"}, aws={"kms_key": key}))
    ensure_model_package_group(aws)
    artifacts.upload_data(aws)
    artifacts.upload_code(aws, CODE)
    artifacts.upload_champion(aws)
    for name in keys(aws, "churn/"):
        head = aws.s3.head_object(Bucket=aws.bucket, Key=name)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key), name
