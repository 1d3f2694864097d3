"""What cannot be changed in place and has a fixed name cannot be changed at all: CloudFormation
would have to create a second one of that name. No parameter that may change is part of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import infra_case
from platform_case import template
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.template import Template

TEMPLATES = {name: template(name) for name in ("project", "platform", "deploy")}
TEMPLATES["endpoint"] = infra_case.template()
# Properties that name a resource, where its identity is not what it belongs to.
NAMES = (
    "AlarmName", "BucketName", "CodeRepositoryName", "ConnectionName", "EndpointConfigName",
    "EndpointName", "FunctionName", "LogGroupName", "ManagedPolicyName", "ModelName",
    "ModelPackageGroupName", "Name", "PolicyName", "QueueName", "RoleName", "UserName",
)  # fmt: skip
# A layer's versions have numbers, and a user's keys IDs of their own.
NUMBERED = ("AWS::IAM::AccessKey", "AWS::Lambda::LayerVersion")
# UpdateCodeRepository takes a SecretArn and nothing else; the schema does not say so.
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateCodeRepository.html
FIXED = {"AWS::SageMaker::CodeRepository": {"GitConfig"}}
# What they say of a stack never changes: another value is another project, stage or account.
# RegistryDescription is what the group has, by definition.
SAME = {
    "project": {"SageMakerProjectName", "SageMakerProjectId", "RegistryDescription"},
    "platform": set[str](),
    "deploy": {"Project", "Account"},
    "endpoint": {"Project", "Stage"},
}


def parameters(known: Template, value: object) -> set[str]:
    """Return the parameters that a value depends on, conditions included."""
    found = {each.name for each in known.references(value) if each.name in known.parameters}
    for name in conditions(value):
        found |= parameters(known, known.conditions[name])
    return found


def conditions(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from conditions(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Fn::If":
                yield str(item[0])
            elif key == "Condition" and isinstance(item, str):
                yield item
            yield from conditions(item)


def stuck(name: str) -> list[str]:
    """Return what no update could change: resource, property and the parameters it depends on."""
    known, found = TEMPLATES[name], []
    for logical, resource in known.resources.items():
        kind, given = resource["Type"], resource.get("Properties", {})
        own = next((given[each] for each in NAMES if each in given), None)
        if own is None or kind in NUMBERED:
            continue
        # Whoever changes the rest can give it another name, too.
        if parameters(known, own) - SAME[name]:
            continue
        for each in sorted(schemas.create_only(kind) | FIXED.get(kind, set())):
            if changing := parameters(known, given.get(each)) - SAME[name]:
                found.append(f"{logical}.{each}: {', '.join(sorted(changing))}")
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_may_change_is_no_part_of_what_cannot_be_replaced(name: str) -> None:
    assert stuck(name) == []


def test_such_a_part_would_be_found() -> None:
    known = TEMPLATES["project"]
    group = known.resources["ModelPackageGroup"]["Properties"]
    before = group["ModelPackageGroupDescription"]
    group["ModelPackageGroupDescription"] = {"Fn::If": ["HasKey", {"Ref": "GitHubOwner"}, "x"]}
    try:
        assert stuck("project") == [
            "ModelPackageGroup.ModelPackageGroupDescription: GitHubOwner, KmsKeyArn"
        ]
    finally:
        group["ModelPackageGroupDescription"] = before
