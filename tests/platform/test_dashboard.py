"""The dashboard of a project: what CloudWatch accepts, with metrics that somebody puts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from infra_case import ACCOUNT
from platform_case import launch, project
from sm_mlops.sandbox.cloudwatch import check
from sm_mlops.sandbox.wire import ApiError

GRID = 24
# What SageMaker publishes of an endpoint's variant, and what the tool and its jobs do.
# Source: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
PUBLISHED = {
    "AWS/SageMaker": {"Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"},
    "sm-mlops": {"Drift", "PredictionDrift", "Quality", "Version"},
}
DIMENSIONS = {
    "AWS/SageMaker": {"EndpointName": "churn-{}", "VariantName": "AllTraffic"},
    "sm-mlops": {"Project": "churn", "Stage": "{}"},
}


def body(**given: str) -> dict[str, Any]:
    return dict(json.loads(project(**given).properties("MetricsDashboard")["DashboardBody"]))


def metrics() -> Iterator[tuple[str, str, dict[str, str], dict[str, Any]]]:
    """Yield namespace, name, dimensions and options of each metric."""
    for widget in body()["widgets"]:
        for row in widget["properties"]["metrics"]:
            options = row[-1] if isinstance(row[-1], dict) else {}
            words = [word for word in row if isinstance(word, str)]
            if words:
                yield words[0], words[1], dict(zip(words[2::2], words[3::2], strict=True)), options


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_cloudwatch_accepts_it_and_it_shows_the_project_s_region(region: str) -> None:
    made = body(region=region)
    check("PutDashboard", {"DashboardBody": json.dumps(made)})
    assert {widget["properties"]["region"] for widget in made["widgets"]} == {region}
    del made["widgets"][0]["properties"]["region"]
    with pytest.raises(ApiError, match="'region'"):
        check("PutDashboard", {"DashboardBody": json.dumps(made)})


def test_no_widget_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in body()["widgets"]:
        x, y, width, height = (widget[key] for key in ("x", "y", "width", "height"))
        cells = {(x + i, y + j) for i in range(width) for j in range(height)}
        assert x + width <= GRID and not taken & cells
        taken |= cells


def test_each_metric_is_one_that_is_published_of_both_stages() -> None:
    seen: dict[str, set[tuple[str, str]]] = {"staging": set(), "production": set()}
    for namespace, name, dimensions, _ in metrics():
        [stage] = [
            each
            for each in seen
            if dimensions == {key: text.format(each) for key, text in DIMENSIONS[namespace].items()}
        ]
        seen[stage].add((namespace, name))
    wanted = {(space, name) for space, names in PUBLISHED.items() for name in names}
    assert seen == {"staging": wanted, "production": wanted}


def test_an_expression_uses_the_metrics_of_its_widget() -> None:
    found = 0
    for widget in body()["widgets"]:
        rows = [row[-1] for row in widget["properties"]["metrics"] if isinstance(row[-1], dict)]
        ids = {row["id"] for row in rows if "id" in row}
        for text in (row["expression"] for row in rows if "expression" in row):
            found += 1
            assert set(re.findall(r"\b[a-z]\w*\b", text)) <= ids, text
    assert found


def test_it_can_be_switched_off() -> None:
    assert "MetricsDashboard" not in project(Dashboard="no").resources


def test_the_role_that_makes_it_may_tag_it_as_cloudformation_does() -> None:
    kind = "AWS::CloudWatch::Dashboard"
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-central-1", kind).schema
    assert schema["tagging"]["cloudFormationSystemTags"]
    dashboard = f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/sm-mlops-churn"
    for action in ("ListTagsForResource", "PutDashboard", "TagResource", "UntagResource"):
        assert launch().may(f"cloudwatch:{action}", dashboard)
        assert not launch().may(f"cloudwatch:{action}", dashboard.replace("sm-mlops-", "their-"))
