"""Our policies beside what AWS publishes: what CloudFormation's handlers ask for, and which actions
and condition keys there are. Every difference has its reason here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from access_case import role
from aws_description import actions, handlers, knows
from iam_case import Document, Identity, formats, listed, overlap
from infra_case import ACCOUNT, KINDS, REGION, full
from infra_case import template as endpoint_template
from platform_case import (
    BOUNDARY,
    GITHUB_BOUNDARY,
    KEY,
    TRAIN_BOUNDARY,
    WATCHED,
    Stack,
    deployment,
    full_platform,
    full_project,
    launch,
    production,
    project,
    staging,
    template,
    watch,
)

SAGEMAKER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:sm-mlops/churn/github-train-AbCdEf"
USER = f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github-train"
ALARM = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm"


def deploys() -> Identity:
    """Return the role of a stage in another account."""
    return Identity(role("churn-deploy"), deployment().policies("DeployRole"))


# Who deploys what: infra/endpoint.yml, watch.yml and project.yml. People deploy platform.yml and
# deploy.yml.
STAGES = {
    "staging": lambda: staging("churn"),
    "production": lambda: production("churn"),
    "staging elsewhere": deploys,
    "production elsewhere": deploys,
}
LISTS = "lists all resources of a type, which the IaC generator does and no stack"
NO_MANAGED_POLICY = "the role has only policies of its own"
BOUNDARY_STAYS = "a boundary is never taken away"
REFUSED_TO_STAGES = {
    LISTS: {
        "AWS::IAM::Role": "iam:ListRoles",
        "AWS::Scheduler::Schedule": "scheduler:ListSchedules",
    },
    NO_MANAGED_POLICY: {"AWS::IAM::Role": "iam:AttachRolePolicy iam:DetachRolePolicy"},
    BOUNDARY_STAYS: {"AWS::IAM::Role": "iam:DeleteRolePermissionsBoundary"},
    "the role has no description": {"AWS::IAM::Role": "iam:UpdateRoleDescription"},
    "only for scheduled actions, and the target has none": {
        "AWS::ApplicationAutoScaling::ScalableTarget": (
            "application-autoscaling:PutScheduledAction"
            " application-autoscaling:DeleteScheduledAction"
        )
    },
    "only for targets that are functions": {
        "AWS::ApplicationAutoScaling::ScalableTarget": (
            "lambda:GetProvisionedConcurrencyConfig lambda:PutProvisionedConcurrencyConfig"
            " lambda:DeleteProvisionedConcurrencyConfig"
        )
    },
    "only for predictive scaling": {
        "AWS::ApplicationAutoScaling::ScalingPolicy": "cloudwatch:GetMetricData"
    },
}
REFUSED_TO_LAUNCH = {
    LISTS: {
        "AWS::CloudWatch::Dashboard": "cloudwatch:ListDashboards",
        "AWS::IAM::Role": "iam:ListRoles",
        "AWS::IAM::User": "iam:listUsers",
        "AWS::SageMaker::ModelPackageGroup": "sagemaker:ListModelPackageGroups",
        "AWS::SecretsManager::ResourcePolicy": "secretsmanager:ListSecrets",
        "AWS::SecretsManager::Secret": "secretsmanager:ListSecrets",
    },
    NO_MANAGED_POLICY: {
        "AWS::IAM::Role": "iam:AttachRolePolicy iam:DetachRolePolicy",
        "AWS::IAM::User": "iam:AttachUserPolicy iam:DetachUserPolicy",
    },
    BOUNDARY_STAYS: {
        "AWS::IAM::Role": "iam:DeleteRolePermissionsBoundary",
        "AWS::IAM::User": "iam:DeleteUserPermissionsBoundary",
    },
    "the user has an access key, no password": {
        "AWS::IAM::User": ("iam:CreateLoginProfile iam:DeleteLoginProfile iam:UpdateLoginProfile")
    },
    "the user is in no group": {"AWS::IAM::User": "iam:AddUserToGroup iam:RemoveUserFromGroup"},
    "the user's path never changes": {"AWS::IAM::User": "iam:UpdateUser"},
    "the secret's value is the access key": {
        "AWS::SecretsManager::Secret": "secretsmanager:GetRandomPassword"
    },
    "the secret is in one region": {
        "AWS::SecretsManager::Secret": (
            "secretsmanager:RemoveRegionsFromReplication secretsmanager:ReplicateSecretToRegions"
        )
    },
}


def resources(stage: str) -> dict[str, str]:
    """Return the ARN of a resource of each type, as a deployment to a stage makes it."""
    return {
        "AWS::ApplicationAutoScaling::ScalableTarget": (
            f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/0a1b2c"
        ),
        "AWS::ApplicationAutoScaling::ScalingPolicy": (
            f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/0a1b2c"
        ),
        "AWS::CloudWatch::Alarm": f"{ALARM}:churn-{stage}-errors",
        "AWS::IAM::Role": role(f"sm-mlops/churn/{stage}/churn-{stage}-ExecutionRole-1A2B"),
        "AWS::SageMaker::Endpoint": f"{SAGEMAKER}:endpoint/churn-{stage}",
        "AWS::SageMaker::EndpointConfig": f"{SAGEMAKER}:endpoint-config/config-1",
        "AWS::SageMaker::Model": f"{SAGEMAKER}:model/model-1",
        "AWS::Scheduler::Schedule": (
            f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/churn-{stage}-batch"
        ),
    }


OF_A_PROJECT = {
    "AWS::CloudWatch::Dashboard": f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/sm-mlops-churn",
    "AWS::IAM::AccessKey": USER,
    "AWS::IAM::Role": role("churn-github-train"),
    "AWS::IAM::User": USER,
    "AWS::SageMaker::CodeRepository": f"{SAGEMAKER}:code-repository/churn",
    "AWS::SageMaker::ModelPackageGroup": f"{SAGEMAKER}:model-package-group/churn",
    "AWS::SecretsManager::ResourcePolicy": SECRET,
    "AWS::SecretsManager::Secret": SECRET,
}


def refused(who: Identity, kind: str, resource: str, limit: str, stage: str = "") -> set[str]:
    """Return what the handlers of a type ask for and a role may not do; `limit` is the boundary of
    what is made."""
    others = {
        "iam:PassRole": resources(stage)["AWS::IAM::Role"],
        "iam:CreateServiceLinkedRole": role(
            "aws-service-role/sagemaker.application-autoscaling.amazonaws.com/AWSServiceRole"
        ),
        "cloudwatch:PutMetricAlarm": f"{ALARM}:TargetTracking-endpoint/churn-{stage}/variant/x",
    }
    others["cloudwatch:DeleteAlarms"] = others["cloudwatch:PutMetricAlarm"]
    found = set()
    for handler, permissions in handlers(kind).items():
        for asked in permissions:
            takes = formats(asked) or []
            own = any(overlap(resource, one) for one in takes)
            target = resource if own else others.get(asked, "*")
            context = request(kind, handler, asked.partition(":")[2])
            if not who.may(asked, target, {**context, "iam:PermissionsBoundary": limit}):
                found.add(asked)
    return found


def request(kind: str, handler: str, verb: str) -> dict[str, str | list[str]]:
    """Return what IAM knows of a handler's request: tags, and those the resource has already."""
    found: dict[str, str | list[str]] = {
        "iam:PassedToService": (
            "scheduler.amazonaws.com" if "Schedule" in kind else "sagemaker.amazonaws.com"
        ),
        "iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com",
        "application-autoscaling:service-namespace": "sagemaker",
    }
    tags, creates = verb.startswith("Tag") or verb == "AddTags", verb.startswith("Create")
    if verb.startswith("Untag") or verb == "DeleteTags":
        found["aws:TagKeys"] = ["commit"]
    if tags or creates:
        found["aws:RequestTag/project"] = "churn"
    if tags and handler == "create":
        found["sagemaker:TaggingAction"] = f"Create{kind.rpartition('::')[2]}"
    elif not creates:
        found["aws:ResourceTag/project"] = "churn"
    return found


def told(reasons: dict[str, dict[str, str]], kind: str) -> set[str]:
    return {word for kinds in reasons.values() for word in kinds.get(kind, "").split()}


@pytest.mark.parametrize("who", STAGES)
def test_a_deployment_is_refused_nothing_that_cloudformation_asks_for_without_a_reason(
    who: str,
) -> None:
    stage = who.partition(" ")[0]
    made = (endpoint_template(), template("watch"))
    types = {one["Type"] for stack in made for one in stack.resources.values()}
    assert set(resources(stage)) == types
    for kind, resource in resources(stage).items():
        found = refused(STAGES[who](), kind, resource, BOUNDARY, stage)
        assert found == told(REFUSED_TO_STAGES, kind), kind


@pytest.mark.parametrize("limit", [TRAIN_BOUNDARY, GITHUB_BOUNDARY])
def test_a_project_is_refused_nothing_that_cloudformation_asks_for_without_a_reason(
    limit: str,
) -> None:
    assert set(OF_A_PROJECT) == {one["Type"] for one in template("project").resources.values()}
    for kind, resource in OF_A_PROJECT.items():
        assert refused(launch(), kind, resource, limit) == told(REFUSED_TO_LAUNCH, kind), kind
    # Of BlockPublicPolicy, in no handler's list.
    assert launch().may("secretsmanager:ValidateResourcePolicy", SECRET)


# Actions and keys

# In every request, as IAM's reference of global keys says, and in every token of a provider.
GLOBAL = {
    *("aws:federatedprovider", "aws:principalarn", "aws:resourceaccount", "aws:securetransport"),
    *("aws:sourceaccount", "aws:sourcearn"),
    *("token.actions.githubusercontent.com:aud", "token.actions.githubusercontent.com:sub"),
}


@cache
def stacks() -> dict[str, Stack]:
    """Return our stacks with everything on, by the names of their templates."""
    return {
        "platform.yml": full_platform(),
        "project.yml": full_project("churn"),
        "project.yml with keys": project("churn", SignIn="iam-user"),
        "deploy.yml": deployment(OutputBucket="outputs", KeyArns=KEY),
        "watch.yml": watch(**WATCHED),
    }


def statements(value: Any) -> Iterator[Document]:
    """Yield the statements of all policies in a resource's properties."""
    if isinstance(value, str) and '"Statement"' in value:
        value = json.loads(value)
    if isinstance(value, dict):
        yield from value.get("Statement", ())
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from statements(item)


def policies() -> Iterator[tuple[str, Document]]:
    """Yield each statement of each template, identity or resource policy, and whose it is."""
    for name, stack in stacks().items():
        for logical in sorted(stack.resources):
            yield from ((f"{name}: {logical}", s) for s in statements(stack.properties(logical)))
    for kind in KINDS:
        yield from ((f"endpoint.yml: {kind}", s) for s in full(kind).statements())


def unknown() -> Iterator[str]:
    """Yield the actions that do not exist, and keys that no request of an action has."""
    for whose, statement in policies():
        for name in listed(statement["Action"]):
            if "*" not in name and name not in actions():
                yield f"{whose}: {name} is no action of AWS, or aws.json has to be renewed"
            for operator, entries in statement.get("Condition", {}).items():
                # What may be absent may be asked of several actions at once.
                for key in entries if not operator.endswith("IfExists") else ():
                    if key.lower() not in GLOBAL and not knows(name, key):
                        yield f"{whose}: {name} has no {key}"


def test_every_action_exists_and_its_requests_have_the_keys_of_its_conditions() -> None:
    assert len(list(policies())) > 150
    assert sorted(set(unknown())) == []
    assert not knows("application-autoscaling:ListTagsForResource", "iam:PassedToService")
    assert "s3:GetObjects" not in actions()


# What an action depends on in some requests, and in none of ours.
UNNEEDED = {
    "only for a list of all stacks, and each request names one": (
        "cloudformation:DescribeStacks -> cloudformation:ListStacks"
    ),
    "AWS's policy for jobs in a VPC lacks it": "ec2:CreateNetworkInterface -> ec2:CreateTags",
}


def test_whoever_may_do_something_may_do_what_it_depends_on() -> None:
    """AWS names actions that the caller of another one needs, too."""
    found = set()
    for stack in stacks().values():
        for logical in stack.resources:
            if stack.kind(logical) == "AWS::IAM::Role":
                own = [*statements(stack.properties(logical)["Policies"])]
                allowed = {
                    name for s in own if s["Effect"] == "Allow" for name in listed(s["Action"])
                }
                found |= {
                    f"{name} -> {needed}"
                    for name in allowed
                    # Service Quotas reads other services' limits with these, SageMaker's without.
                    if not name.startswith("servicequotas:")
                    for needed in set(actions()[name]["dependent"]) - allowed
                }
    assert found == set(UNNEEDED.values())
