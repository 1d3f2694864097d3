"""Checks of the account's quotas: how much is used, and whether a run of this repo fits.

Names and codes: https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sm_mlops import quotas
from sm_mlops.aws import DENIED, ignoring
from sm_mlops.deployment import stages
from sm_mlops.doctor.scene import Finding, Scene, explain, failed, ok, warning
from sm_mlops.quotas import increase

NEARLY = 0.8


@dataclass(frozen=True)
class Quota:
    """How many of something an account may have; `operation` shows what it has, under `key`."""

    noun: str
    service: str
    code: str
    operation: str
    key: str


COUNTED = (
    Quota("pipelines", "sagemaker", "L-E8EADE50", "list_pipelines", "PipelineSummaries"),
    Quota(
        "model package groups",
        "sagemaker",
        "L-BC8DC54C",
        "list_model_package_groups",
        "ModelPackageGroupSummaryList",
    ),
    Quota("SageMaker projects", "sagemaker", "L-5CED4195", "list_projects", "ProjectSummaryList"),
    Quota("EventBridge rules", "events", "L-244521F2", "list_rules", "Rules"),
    Quota("IAM roles", "iam", "L-FE177D64", "get_account_summary", "Roles"),
)


def counts(scene: Scene) -> Iterator[Finding]:
    """Check each quota by itself: one that may not be read does not hide the others."""
    region = scene.aws.settings.project.region
    for quota in COUNTED:
        try:
            used, limit = _usage(scene, quota)
        except Exception as error:
            yield warning(f"{quota.noun}: {explain(error, region).detail}")
            continue
        detail = f"{quota.noun}: {used} of {limit:.0f} used"
        remedy = increase(quota.service, quota.code, region)
        if used >= limit:
            yield failed(detail, remedy)
        elif used >= NEARLY * limit:
            yield warning(detail, remedy)
        else:
            yield ok(detail)


def _usage(scene: Scene, quota: Quota) -> tuple[int, float]:
    """Return how many there are, and the account's own quota, or AWS's default."""
    client = scene.client(quota.service)
    if quota.service == "iam":
        summary = client.get_account_summary()["SummaryMap"]
        return summary["Roles"], summary["RolesQuota"]
    pages = client.get_paginator(quota.operation).paginate()
    used = sum(len(page[quota.key]) for page in pages)
    client = scene.client("service-quotas")
    request = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    with ignoring("NoSuchResourceException"):
        return used, client.get_service_quota(**request)["Quota"]["Value"]
    return used, client.get_aws_default_service_quota(**request)["Quota"]["Value"]


def needed(scene: Scene) -> dict[str, int]:
    """Return how many instances a run and the stages need, by the names of the quotas."""
    settings = scene.aws.settings
    found: Counter[str] = Counter()
    compute = settings.compute
    training = "spot training job" if compute.train.spot else "training job"
    found[quotas.name(compute.train.instance, training)] += 1
    # They run one after the other.
    for job in (compute.preprocess, compute.evaluate):
        found[quotas.name(job.instance, "processing job")] = 1
    for name in stages.names(settings):
        stage = stages.load(settings, name)
        if not stage.account and (fleet := stages.fleet(settings, stage)):
            # A deployment needs twice as many: the old ones stay until the new ones took over.
            found[quotas.name(fleet.instance, "endpoint")] += max(2 * fleet.least, fleet.most)
    return dict(found)


def instances(scene: Scene) -> Iterator[Finding]:
    """Check the quotas of the instance types in mlops.yaml and infra/*.json."""
    wanted = needed(scene)
    rows = quotas.rows(scene.client("service-quotas"), wanted)
    used = _used(scene, rows)
    region = scene.aws.settings.project.region
    for name, count in wanted.items():
        row = rows.get(name)
        if row is None:
            yield warning(f"{name}: AWS has no quota with that name in {region}")
            continue
        limit, busy = float(row["Value"]), used.get(name)
        detail = f"{name}: needs {count} of {limit:.0f}"
        detail += f", {busy:.0f} in use" if busy is not None else ""
        remedy = increase("sagemaker", row["QuotaCode"], region)
        if count > limit:
            yield failed(detail, remedy)
        elif count + (busy or 0) > limit:
            yield warning(detail, remedy)
        else:
            yield ok(detail)


def _used(scene: Scene, rows: dict[str, Any]) -> dict[str, float]:
    """Return the recent usage that CloudWatch has; nothing without the permission to read it.

    Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-Quotas-Visualize-Alarms.html
    """
    measured = {name: row["UsageMetric"] for name, row in rows.items() if row.get("UsageMetric")}
    if not measured:
        return {}
    queries = [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": metric["MetricNamespace"],
                    "MetricName": metric["MetricName"],
                    "Dimensions": [
                        {"Name": key, "Value": value}
                        for key, value in metric["MetricDimensions"].items()
                    ],
                },
                "Period": 300,
                "Stat": metric.get("MetricStatisticRecommendation", "Maximum"),
            },
        }
        for number, metric in enumerate(measured.values())
    ]
    now = datetime.now(UTC)
    with ignoring(*DENIED):
        results = scene.client("cloudwatch").get_metric_data(
            MetricDataQueries=queries,
            StartTime=now - timedelta(minutes=30),
            EndTime=now + timedelta(minutes=5),
        )["MetricDataResults"]
        latest = {row["Id"]: row["Values"][0] for row in results if row["Values"]}
        # AWS has no data for what is not used.
        return {name: latest.get(f"q{number}", 0.0) for number, name in enumerate(measured)}
    return {}
