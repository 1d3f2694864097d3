"""The bill can be read per project: what a stack makes has the tags project, owner and stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra_case import template as endpoint_template
from platform_case import Stack, deployment, full_platform, platform, project, template
from sm_mlops.platform import FOLDER
from sm_mlops.sandbox.cloudformation import schemas

# Types without tags, as AWS's schemas say, and why that leaves nothing out of a bill.
WITHOUT = {
    "AWS::ApplicationAutoScaling::ScalableTarget": "free, and part of an endpoint",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "free, and part of an endpoint",
    "AWS::CloudWatch::Dashboard": "billed per account; docs/cost.md has its price",
    "AWS::IAM::AccessKey": "free, and part of a user",
    "AWS::IAM::ManagedPolicy": "free",
    "AWS::Lambda::EventInvokeConfig": "free, and part of a function",
    "AWS::Lambda::LayerVersion": "free",
    "AWS::Lambda::Permission": "free, and part of a function",
    "AWS::S3::BucketPolicy": "free, and part of a bucket",
    "AWS::Scheduler::Schedule": "14 million calls a month are free; only groups have tags",
    "AWS::SNS::TopicPolicy": "free, and part of a topic",
    "AWS::SQS::QueuePolicy": "free, and part of a queue",
    "AWS::SecretsManager::ResourcePolicy": "free, and part of a secret",
    "AWS::ServiceCatalog::LaunchRoleConstraint": "free, and part of a product",
    "AWS::ServiceCatalog::PortfolioPrincipalAssociation": "free, and part of a portfolio",
    "AWS::ServiceCatalog::PortfolioProductAssociation": "free, and part of a portfolio",
}
# To update a secret, CloudFormation may read its value, which no one who deploys may.
# Service Catalog passes on the tags of portfolio and product to what a project creates.
UNTOUCHED = {"GitHubSecret", "Portfolio", "Product"}
STACKS: dict[str, tuple[Callable[[], Stack], str]] = {
    "platform": (lambda: platform(Owner="Risk", HasLayer="true"), "platform"),
    "project": (lambda: project(Owner="Risk", SignIn="iam-user"), "churn"),
    "deploy": (lambda: deployment(Owner="Risk"), "churn"),
}
STAGES = {"Staging": "staging", "Production": "production"}


def tags_of(properties: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties.get("Tags", ())}


@pytest.mark.parametrize("name", STACKS)
def test_every_resource_of_a_stack_has_the_tags_of_the_bill(name: str) -> None:
    make, whose = STACKS[name]
    stack, tagged = make(), 0
    for logical in sorted(stack.resources - UNTOUCHED):
        if stack.kind(logical) in WITHOUT:
            continue
        tagged += 1
        stage = next((each for part, each in STAGES.items() if logical.startswith(part)), None)
        wanted = {"project": whose, "owner": "Risk", **({"stage": stage} if stage else {})}
        found = tags_of(stack.properties(logical))
        assert {key: found.get(key) for key in wanted} == wanted, logical
        assert ("stage" in found) is bool(stage), logical
    assert tagged


def test_who_names_no_owner_is_unknown() -> None:
    assert tags_of(project().properties("PipelineRole"))["owner"] == "unknown"
    assert tags_of(full_platform().properties("Trigger"))["owner"] == "unknown"


def test_only_what_cannot_have_tags_has_none() -> None:
    """The resources of infra/endpoint.yml get those of their stack."""
    named = [template(file.stem) for file in FOLDER.glob("*.yml")]
    kinds = {
        one["Type"] for each in (*named, endpoint_template()) for one in each.resources.values()
    }
    assert {kind for kind in kinds if not schemas.tagged(kind)} == WITHOUT.keys() & kinds
    assert not [kind for kind in WITHOUT if schemas.tagged(kind)]
