"""Versions and reports as `mlops models` and `mlops report` show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sm_mlops import registry
from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.training.run import ensure_model_package_group

pytestmark = pytest.mark.slow


def register(aws: Aws, number: int) -> None:
    statistics = f"s3://{aws.bucket}/runs/{number}/evaluation.json"
    for name, body in (("evaluation.json", b'{"auc": 1}'), ("report.html", b"<html>")):
        aws.s3.put_object(Bucket=aws.bucket, Key=f"runs/{number}/{name}", Body=body)
    aws.sagemaker.create_model_package(
        ModelPackageGroupName="churn",
        ModelApprovalStatus="PendingManualApproval",
        ModelMetrics={
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": statistics}}
        },
        MetadataProperties={"CommitId": f"{number:040x}"},
        CustomerMetadataProperties={"Evaluation": f"auc 0.{number}"},
    )


@pytest.fixture
def versions(account: Aws) -> Aws:
    ensure_model_package_group(account)
    for number in (1, 2, 3):
        register(account, number)
    return account


def test_versions_come_newest_first_with_what_they_measured(versions: Aws) -> None:
    found = list(registry.versions(versions))
    assert [item.version for item in found] == [3, 2, 1]
    assert (found[0].evaluation, found[0].commit) == ("auc 0.3", f"{3:040x}")
    assert [item.version for item in registry.versions(versions, 2)] == [3, 2]


def test_without_a_number_the_newest_version_is_meant(versions: Aws) -> None:
    assert registry.version(versions, None).version == 3
    assert registry.version(versions, 1).version == 1


def test_a_missing_version_is_named(versions: Aws) -> None:
    with pytest.raises(MlopsError, match="no version 9"):
        registry.version(versions, 9)


def test_an_empty_registry_says_how_to_fill_it(account: Aws) -> None:
    assert list(registry.versions(account)) == []
    with pytest.raises(MlopsError, match="mlops run"):
        registry.version(account, None)


def test_the_report_is_beside_the_metrics(versions: Aws, tmp_path: Path) -> None:
    found = registry.version(versions, 2)
    file = tmp_path / "new folder" / "report.html"
    registry.download(versions, registry.report_of_version(versions, found).uri, file)
    assert file.read_text() == "<html>"
    assert registry.statistics(versions, found) == {"auc": 1}


def test_approval_is_the_registrys_own_status_with_the_comment(versions: Aws) -> None:
    registry.set_approval(versions, registry.version(versions, 2), "Approved", "looks right")
    found = registry.version(versions, 2)
    package = versions.sagemaker.describe_model_package(ModelPackageName=found.arn)
    assert (found.approval, package["ApprovalDescription"]) == ("Approved", "looks right")
    assert registry.version(versions, 3).approval == "PendingManualApproval"


def test_approving_what_is_approved_calls_nothing_that_starts_a_deployment(versions: Aws) -> None:
    registry.set_approval(versions, registry.version(versions, 1), "Approved", "")
    asked: list[dict[str, Any]] = []
    versions.sagemaker.meta.events.register(
        "provide-client-params.sagemaker.UpdateModelPackage",
        lambda params, **_: asked.append(dict(params)),
    )
    registry.set_approval(versions, registry.version(versions, 1), "Approved", "")
    assert asked == []
    registry.set_approval(versions, registry.version(versions, 1), "Approved", "on second thought")
    arn = registry.version(versions, 1).arn
    assert asked == [{"ModelPackageArn": arn, "ApprovalDescription": "on second thought"}]


def test_a_report_that_is_gone_is_named(versions: Aws, tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="does not exist"):
        registry.download(versions, f"s3://{versions.bucket}/gone.html", tmp_path / "r.html")
