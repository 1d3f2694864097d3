"""The model registry as a person reads it: versions, their metrics, their reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sm_mlops import objects
from sm_mlops.aws import ABSENT, NO_OBJECT, Aws, ignoring, split_s3
from sm_mlops.errors import MlopsError
from sm_mlops.executions import describe


@dataclass(frozen=True)
class Version:
    """A model package version.

    `evaluation` is the gate's metric in words, `statistics` the S3 URI of all metrics.
    """

    version: int
    arn: str
    approval: str
    created: datetime
    evaluation: str
    commit: str
    statistics: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "created": self.created.isoformat()}


def versions(aws: Aws, limit: int | None = None) -> Iterator[Version]:
    """Yield all versions of this project, the newest first."""
    with ignoring(*ABSENT):
        for item in islice(summaries(aws), limit):
            yield _version(aws, item["ModelPackageArn"])


def summaries(aws: Aws, **wanted: str) -> Iterator[dict[str, Any]]:
    """Yield what ListModelPackages says of this project's versions, the newest first.

    `wanted` are further parameters of ListModelPackages.
    """
    return aws.pages(
        "list_model_packages",
        "ModelPackageSummaryList",
        ModelPackageGroupName=aws.settings.model_package_group,
        SortBy="CreationTime",
        SortOrder="Descending",
        **wanted,
    )


def version(aws: Aws, number: int | None) -> Version:
    """Return version `number`, by default the newest. Raises MlopsError if it does not exist."""
    group = aws.settings.model_package_group
    if number is None:
        newest = next(versions(aws, 1), None)
        if newest is None:
            raise MlopsError(f"{group} has no version yet: train one with {aws.command} run")
        return newest
    with ignoring(*ABSENT):
        return _version(aws, aws.arn("sagemaker", f"model-package/{group}/{number}"))
    raise MlopsError(f"{group} has no version {number}: see {aws.command} models")


def _version(aws: Aws, arn: str) -> Version:
    package = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    metadata = package.get("CustomerMetadataProperties", {})
    metrics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
    return Version(
        version=package["ModelPackageVersion"],
        arn=package["ModelPackageArn"],
        approval=package.get("ModelApprovalStatus", ""),
        created=package["CreationTime"],
        evaluation=metadata.get("Evaluation", ""),
        commit=package.get("MetadataProperties", {}).get("CommitId", ""),
        statistics=metrics.get("S3Uri", ""),
    )


def set_approval(aws: Aws, found: Version, approval: str, comment: str) -> None:
    """Set the version's status to `Approved` or `Rejected`, as Studio does."""
    description = {"ApprovalDescription": comment} if comment else {}
    aws.sagemaker.update_model_package(
        ModelPackageArn=found.arn, ModelApprovalStatus=approval, **description
    )


def report_of_version(aws: Aws, found: Version) -> str:
    """Return the S3 URI of the report beside the version's metrics."""
    if not found.statistics:
        raise MlopsError(f"version {found.version} has no metrics, so it has no report")
    return f"{found.statistics.rpartition('/')[0]}/report.html"


def report_of_execution(aws: Aws, arn: str) -> str:
    """Return the S3 URI of the report that the Evaluate step wrote, whatever the gate said."""
    step = next((step for step in describe(aws, arn).steps if step.name == "Evaluate"), None)
    if step is None or step.status != "Succeeded" or not step.job:
        raise MlopsError(
            f"execution {arn.rsplit('/', 1)[-1]} has no report: its Evaluate step did not finish"
        )
    job = aws.sagemaker.describe_processing_job(ProcessingJobName=step.job)
    uri = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    return f"{uri.rstrip('/')}/report.html"


def download(aws: Aws, uri: str, file: Path) -> None:
    bucket, key = split_s3(uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    with ignoring(*NO_OBJECT):
        aws.s3.download_file(bucket, key, str(file))
        return
    raise MlopsError(f"{uri} does not exist")


def statistics(aws: Aws, found: Version) -> dict[str, Any]:
    """Return `evaluation.json` of a version, in the format of SageMaker's model quality schema."""
    content: dict[str, Any] = json.loads(objects.read(aws, found.statistics))
    return content
