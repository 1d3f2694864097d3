"""The versions of this project in the Model Registry, their metrics and their reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sm_mlops import executions, objects
from sm_mlops.aws import ABSENT, NO_OBJECT, Aws, ignoring, split_s3
from sm_mlops.errors import MlopsError


@dataclass(frozen=True)
class Version:
    """A model package version. `evaluation` describes the gate's metric, `statistics` is the S3 URI
    of all metrics, `artifacts` has those of its model.tar.gz, `execution` is the ARN of its own,
    `metadata` is what else the pipeline registered."""

    version: int
    arn: str
    approval: str
    created: datetime
    evaluation: str
    commit: str
    statistics: str
    artifacts: tuple[str, ...] = ()
    execution: str = ""
    image: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def versions(aws: Aws, limit: int | None = None) -> Iterator[Version]:
    """Yield the versions of this project, newest first."""
    with ignoring(*ABSENT):
        for item in islice(summaries(aws), limit):
            yield _version(aws, item["ModelPackageArn"])


def summaries(aws: Aws, **parameters: str) -> Iterator[dict[str, Any]]:
    """Yield the items of ListModelPackages for this project, newest first."""
    return aws.pages(
        "list_model_packages",
        "ModelPackageSummaryList",
        ModelPackageGroupName=aws.settings.model_package_group,
        SortBy="CreationTime",
        SortOrder="Descending",
        **parameters,
    )


def version(aws: Aws, number: int | None) -> Version:
    """Return a version by its number, or the newest. Raises MlopsError if it does not exist."""
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
    containers = package.get("InferenceSpecification", {}).get("Containers", ())
    origin = package.get("MetadataProperties", {})
    metrics = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {})
    return Version(
        version=package["ModelPackageVersion"],
        arn=package["ModelPackageArn"],
        approval=package.get("ModelApprovalStatus", ""),
        created=package["CreationTime"],
        evaluation=metadata.get("Evaluation", ""),
        commit=origin.get("CommitId", ""),
        execution=origin.get("GeneratedBy", ""),
        statistics=metrics.get("S3Uri", ""),
        artifacts=tuple(
            container["ModelDataUrl"] for container in containers if "ModelDataUrl" in container
        ),
        image=containers[0].get("Image", "") if containers else "",
        metadata=metadata,
    )


def set_approval(aws: Aws, found: Version, approval: str, comment: str) -> None:
    """Set the version's status to `Approved` or `Rejected`, as Studio does.

    A version that has this status already keeps it: setting it again would start a deployment.
    """
    status = {} if found.approval == approval else {"ModelApprovalStatus": approval}
    description = {"ApprovalDescription": comment} if comment else {}
    if status or description:
        aws.sagemaker.update_model_package(ModelPackageArn=found.arn, **status, **description)


@dataclass(frozen=True)
class Report:
    """A report: its S3 URI, the ARN of the execution whose gate judged the model, and a name."""

    uri: str
    execution: str
    name: str


def newest_report(aws: Aws) -> Report:
    """Return the report of the newest execution that evaluated a model, registered or not."""
    for item in executions.summaries(aws):
        if (found := _evaluated(aws, item["PipelineExecutionArn"])) is not None:
            return found
    return report_of_version(aws, version(aws, None))


def report_of_version(aws: Aws, found: Version) -> Report:
    """Return a version's report, which is beside its metrics."""
    if not found.statistics:
        raise MlopsError(f"version {found.version} has no metrics, so it has no report")
    folder = found.statistics.rpartition("/")[0]
    return Report(f"{folder}/report.html", found.execution, f"version-{found.version}")


def report_of_execution(aws: Aws, arn: str) -> Report:
    """Return the report of an execution's Evaluate step, whether or not the gate passed."""
    if (found := _evaluated(aws, arn)) is not None:
        return found
    name = arn.rsplit("/", 1)[-1]
    if f":pipeline/{aws.settings.monitor_pipeline}/" in arn:
        raise MlopsError(f"execution {name} is a check: {aws.command} monitor STAGE --report")
    raise MlopsError(f"execution {name} has no report: its Evaluate step did not finish")


def _evaluated(aws: Aws, arn: str) -> Report | None:
    execution = executions.describe(aws, arn)
    step = next((step for step in execution.steps if step.name == "Evaluate"), None)
    if step is None or step.status != "Succeeded" or not step.job:
        return None
    job = aws.sagemaker.describe_processing_job(ProcessingJobName=step.job)
    uri = job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    number = execution.model_package.rpartition("/")[2]
    name = f"version-{number}" if number else execution.identifier
    return Report(f"{uri.rstrip('/')}/report.html", arn, name)


def download(aws: Aws, uri: str, file: Path) -> None:
    bucket, key = split_s3(uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    with ignoring(*NO_OBJECT):
        if objects.exists(aws, uri):
            aws.s3.download_file(bucket, key, str(file))
            return
    raise MlopsError(f"{uri} does not exist")


def statistics(aws: Aws, found: Version) -> dict[str, Any]:
    """Return `evaluation.json` of a version, in the format of SageMaker's model quality schema."""
    return dict(json.loads(objects.read(aws, found.statistics)))
