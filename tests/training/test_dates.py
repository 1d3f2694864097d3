"""Dates in data.path: which addresses they stand for, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from repos import Repo
from sm_mlops import dates, settings, templates
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import needs
from sm_mlops.errors import MlopsError
from sm_mlops.platform import FOLDER
from sm_mlops.tabular import source
from sm_mlops.tabular.failure import DataError
from sm_mlops.training import artifacts, run

NEW_YEAR = date(2027, 1, 2)


@pytest.mark.parametrize(
    ("path", "addresses"),
    [
        ("data/{today}.csv", ["data/{today}.csv"]),
        ("s3://lake/churn/", ["s3://lake/churn/"]),
        ("s3://lake/day={today}/", ["s3://lake/day=2027-01-02/"]),
        ("s3://lake/day={today-3}/", ["s3://lake/day=2026-12-30/"]),
        ("s3://lake/{today-2:%Y/%m/%d}/x.csv", ["s3://lake/2026/12/31/x.csv"]),
        ("s3://lake/{today-3:%Y..%m}/", ["s3://lake/2026..12/"]),
        ("s3://lake/{today:year=%Y}/{today:day=%j}/", ["s3://lake/year=2027/day=002/"]),
        (
            "s3://lake/{today-2..today:%Y/%m/%d}/",
            ["s3://lake/2026/12/31/", "s3://lake/2027/01/01/", "s3://lake/2027/01/02/"],
        ),
        (
            "s3://lake/v={today}/{today-2..today-1}.csv",
            ["s3://lake/v=2027-01-02/2026-12-31.csv", "s3://lake/v=2027-01-02/2027-01-01.csv"],
        ),
    ],
)
def test_a_path_stands_for_the_addresses_of_its_days(path: str, addresses: list[str]) -> None:
    assert dates.problem(path) == ""
    assert list(dates.addresses(path, NEW_YEAR)) == addresses
    assert dates.is_window(path) is (len(addresses) > 1)


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("{yesterday}", "{yesterday} is no date; write {today}, {today-1} or {today-6..today}"),
        ("{today+1}", "{today+1} is no date"),
        ("{today", "{today/ is no date"),
        ("today}", "} is no date"),
        ("{today:%H}", "{today:%H} is no date"),
        ("{today..today-6}", "{today..today-6} names 0 days; write the earlier first"),
        (
            "{today-999..today}",
            "{today-999..today} names 1000 days; write the earlier first, at most 366",
        ),
        ("{today-1..today}/{today-2..today}", "only one {...} may name several days"),
    ],
)
def test_a_date_that_cannot_be_read_is_refused_in_one_line(
    repo: Repo, date: str, said: str
) -> None:
    file = repo.root / "mlops.yaml"
    text = file.read_text()
    before = next(line for line in text.splitlines() if line.startswith("  path:"))
    file.write_text(text.replace(before, f'  path: "s3://lake/{date}/"'))
    with pytest.raises(MlopsError) as told:
        settings.load(repo.root)
    assert f"mlops.yaml: data.path: {said}" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("path", "bucket"), [("s3://b/rows/", "b"), ("s3:///rows/", ""), ("s3://my lake/", "my lake")]
)
def test_what_is_no_name_of_a_bucket_is_refused(path: str, bucket: str) -> None:
    assert dates.problem(path) == (
        f"{bucket!r} is not the name of a bucket, which has 3 to 63 letters, digits, dots and "
        "hyphens"
    )
    assert dates.problem("s3://Old_lake.1/") == ""


@pytest.mark.parametrize("path", ["https://ada:t0ken@host/rows.csv", "s3://ada:t0ken@lake/rows/"])
def test_an_address_that_is_not_read_is_refused_and_not_shown(path: str) -> None:
    said = dates.problem(path)
    assert said and "ada" not in said and "t0ken" not in said


@pytest.fixture
def dated(account: Aws) -> Callable[[str], Aws]:
    """Return the account with this data.path, on a day to which its clock was moved."""
    noon = datetime(NEW_YEAR.year, NEW_YEAR.month, NEW_YEAR.day, 12, tzinfo=UTC)
    object.__setattr__(account, "ahead", (noon - datetime.now(UTC)).total_seconds())

    def made(path: str) -> Aws:
        object.__setattr__(account.settings.data, "path", path)
        return account

    return made


def test_a_day_that_is_not_there_is_named(dated: Callable[[str], Aws]) -> None:
    aws = dated("data/none.csv")
    aws = dated(f"s3://{aws.bucket}/churn/days/{{today}}/")
    with pytest.raises(MlopsError, match=r"no object and no folder .*/churn/days/2027-01-02/"):
        artifacts.upload_data(aws)
    dated(f"s3://{aws.bucket}/churn/days/{{today-1..today}}/")
    with pytest.raises(MlopsError, match=r"no object at any day from .*2027-01-01/ to .*01-02/"):
        artifacts.upload_data(aws)


def put(aws: Aws, name: str, body: bytes) -> None:
    aws.s3.put_object(Bucket=aws.bucket, Key=f"churn/days/{name}", Body=body)


def test_a_window_is_hashed_by_content_and_read_by_the_job(
    dated: Callable[[str], Aws], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3

    aws = dated("data/none.csv")
    aws = dated(f"s3://{aws.bucket}/churn/days/{{today-2..today:%Y/%m/%d}}/")
    put(aws, "2026/12/30/x.csv", b"too early")
    put(aws, "2026/12/31/a.csv", b"a\n1\n")
    put(aws, "2027/01/02/a.csv", b"a\n2\n")
    put(aws, "2027/01/02/part/b.csv", b"a\n3\n")
    found = artifacts.upload_data(aws)
    assert (found.files, found.size) == (3, 12)
    place = f"s3://{aws.bucket}/churn/days"
    assert found.days == (f"{place}/2026/12/31/", f"{place}/2027/01/02/")
    assert found.missing == (f"{place}/2027/01/01/",)
    assert artifacts.upload_data(aws) == found
    arn = run.start(aws, {}, print)
    assert artifacts.trained_on(aws, arn) == f"{place}/2026/12/31/ to {place}/2027/01/02/, 2 days"

    job = tmp_path / "data"
    job.mkdir()
    bucket, _, key = found.uri.removeprefix("s3://").partition("/")
    monkeypatch.setattr(source, "_location", lambda: found.uri)
    monkeypatch.setattr(boto3, "client", lambda *_, **__: aws.s3)
    aws.s3.download_file(bucket, key + source.WINDOW, str(job / source.WINDOW))
    named = (job / source.WINDOW).read_text()
    assert json.loads(named) == {"addresses": list(found.days)}
    source.verify(job, found.digest)
    assert {p.relative_to(job).as_posix(): p.read_bytes() for p in job.rglob("*.*")} == {
        "2026/12/31/a.csv": b"a\n1\n",
        "2027/01/02/a.csv": b"a\n2\n",
        "2027/01/02/part/b.csv": b"a\n3\n",
    }
    # A file that came after the execution had started, and one of a day that had none.
    put(aws, "2027/01/01/late.csv", b"a\n4\n")
    assert artifacts.upload_data(aws).digest != found.digest
    put(aws, "2027/01/02/late.csv", b"a\n4\n")
    (job / source.WINDOW).write_text(named)
    with pytest.raises(DataError, match="no longer what this execution was started with"):
        source.verify(job, found.digest)


@pytest.mark.parametrize("name", ["../../code/preprocess.py", "a/../../../x.csv", "/etc/x.csv"])
def test_an_object_whose_name_leaves_its_folder_is_refused_by_run_and_by_the_job(
    dated: Callable[[str], Aws], tmp_path: Path, name: str
) -> None:
    aws = dated("data/none.csv")
    aws = dated(f"s3://{aws.bucket}/churn/days/day={{today-1..today}}/")
    key, job = f"day=2027-01-02/{name}", tmp_path / "data"
    put(aws, key, b"a\n1\n")
    with pytest.raises(MlopsError, match=f"days/{key} would be written outside of its folder"):
        artifacts.upload_data(aws)
    job.mkdir()
    days = {"addresses": [f"s3://{aws.bucket}/churn/days/day=2027-01-02/"]}
    (job / source.WINDOW).write_text(json.dumps(days))
    with pytest.raises(DataError, match="outside of its folder: rename the object"):
        source._download(aws.s3, job, "0" * 64)
    assert list(job.iterdir()) == [job / source.WINDOW]


def test_the_project_may_read_any_day_and_nothing_beside_them(
    dated: Callable[[str], Aws],
) -> None:
    aws = dated("s3://lake/churn/day={today}/")
    arn = "arn:aws:s3:::lake"
    assert needs.data_locations(aws) == (arn, f"{arn}/churn/day=*")
    run._require_declared(aws, "s3://lake/churn/day=2026-01-01/")
    with pytest.raises(MlopsError, match="neither below"):
        run._require_declared(aws, "s3://lake/churn/other/")


@pytest.mark.parametrize(
    "key", ["customers.parquet", "v1.2", "Kunden Verträge/", "dt=2026-01-01T00:00+01/", "a&b@c.csv"]
)
def test_a_project_may_read_what_the_path_names_be_it_a_file_or_a_folder(
    dated: Callable[[str], Aws], key: str
) -> None:
    found = needs.data_locations(dated(f"s3://lake/{key}"))
    assert f"arn:aws:s3:::lake/{key.rstrip('/')}/*" in found
    for template in ("platform.yml", "project.yml"):
        declared = templates.parameters(FOLDER / template)["DataLocations"]
        assert all(re.fullmatch(declared["AllowedPattern"], arn) for arn in found)


@pytest.mark.parametrize("key", ["データ/", "a,b/", "what?/", "${x}/"])
def test_a_path_that_no_policy_can_name_is_refused(dated: Callable[[str], Aws], key: str) -> None:
    with pytest.raises(MlopsError, match=r"^mlops\.yaml: data\.path has .* policies"):
        needs.data_locations(dated(f"s3://lake/{key}"))


def test_several_days_need_a_job_with_a_network(repo: Repo) -> None:
    file = repo.root / "mlops.yaml"
    text = file.read_text().replace("network_isolation: false", "network_isolation: true")
    before = next(line for line in text.splitlines() if line.startswith("  path:"))
    file.write_text(text.replace(before, "  path: s3://lake/{today-6..today}/"))
    with pytest.raises(MlopsError, match=r"cannot be combined with aws\.network_isolation"):
        settings.load(repo.root)
