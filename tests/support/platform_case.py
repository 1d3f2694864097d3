"""The templates of platform and project as CloudFormation would see them, and the roles they make.

Uses the sandbox's reading of templates, without a server and without a stack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from iam_case import Document, Identity
from infra_case import ACCOUNT, REGION, text
from infra_case import stack as endpoint_stack
from sm_mlops.platform import FOLDER
from sm_mlops.sandbox.cloudformation import parameters, schemas
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope
from sm_mlops.sandbox.cloudformation.template import Template, parse

BUCKET = f"sm-mlops-{ACCOUNT}-{REGION}"
CONNECTION = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/0a1b2c3d-4e5f"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/sm-mlops-boundary-{REGION}"
GITHUB_BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/sm-mlops-github-boundary-{REGION}"
TRAIN_BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/sm-mlops-train-boundary-{REGION}"
EXPORTS = {
    "sm-mlops-ArtifactBucket": BUCKET,
    "sm-mlops-OidcProviderArn": PROVIDER,
    "sm-mlops-ConnectionArn": CONNECTION,
    "sm-mlops-BoundaryArn": BOUNDARY,
    "sm-mlops-GitHubBoundaryArn": GITHUB_BOUNDARY,
    "sm-mlops-TrainBoundaryArn": TRAIN_BOUNDARY,
}
REPOSITORY_ID = "5678"
ASSETS = "platform/0.1.0/0123456789abcdef/"
LAKE = "arn:aws:s3:::lake,arn:aws:s3:::lake/churn/*"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
DEPLOYMENT_ACCOUNT = "222233334444"
# The account that a project is in, seen from where its stages run.
HOME = "999988887777"


@cache
def template(name: str) -> Template:
    """Return a template of the platform by its name."""
    return parse((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Stack:
    """What a template makes of one set of parameters."""

    name: str
    scope: Scope

    @property
    def resources(self) -> set[str]:
        """Return the logical names of the resources there would be."""
        return self.scope.active()

    def kind(self, logical: str) -> str:
        """Return a resource's type."""
        return str(template(self.name).resources[logical]["Type"])

    def properties(self, logical: str) -> dict[str, Any]:
        """Return a resource's properties, all functions evaluated."""
        assert logical in self.resources, f"no {logical} with these parameters"
        return schemas.conform(self.kind(logical), self.scope.properties(logical))

    def outputs(self) -> dict[str, str]:
        """Return the outputs there would be."""
        return {
            name: self.scope.resolve(output["Value"])
            for name, output in template(self.name).outputs.items()
            if "Condition" not in output or self.scope.holds(output["Condition"])
        }

    def policies(self, logical: str) -> tuple[Document, ...]:
        """Return the inline policies of a role or user, or the one of a managed policy."""
        properties = self.properties(logical)
        found = properties.get("Policies") or [properties]
        return tuple(document(item["PolicyDocument"]) for item in found)


def document(given: Any) -> Document:
    """Return a policy that a template or a schema may have as text."""
    found: Document = json.loads(given) if isinstance(given, str) else given
    return found


def platform(
    given: Mapping[str, Any] | None = None, /, *, region: str = REGION, **more: Any
) -> Stack:
    """Return the platform's stack after both steps; raises what CreateStack would answer."""
    values = {
        "TemplateVersion": "0.1.0",
        "AllowedOwners": "my-org",
        "AssetsPrefix": ASSETS,
        "FirstAssetsPrefix": ASSETS,
        **(given or {}),
        **more,
    }
    return _stack("platform", "sm-mlops-platform", values, region)


def project(
    name: str = "churn",
    given: Mapping[str, Any] | None = None,
    /,
    *,
    region: str = REGION,
    **more: Any,
) -> Stack:
    """Return a project's stack; raises what CreateStack would answer."""
    values = {
        "SageMakerProjectName": name,
        "SageMakerProjectId": "p-0123456789ab",
        "GitHubOwner": "my-org",
        "GitHubRepository": f"{name}-model",
        "GitHubRepositoryId": REPOSITORY_ID,
        **(given or {}),
        **more,
    }
    return _stack("project", f"SC-{ACCOUNT}-pp-0123456789abc", values, region)


def deployment(name: str = "churn", /, *, region: str = REGION, **more: Any) -> Stack:
    """Return the stack that a project has in another account."""
    values = {"Project": name, "Account": HOME, "ArtifactBucket": BUCKET, "Stages": "both", **more}
    return _stack("deploy", f"{name}-deploy", values, region)


# A stage for which everything runs that can run by itself.
WATCHED = {
    "MonitorExpression": "rate(1 day)",
    "RetrainExpression": "cron(0 6 1 * ? *)",
    "BatchExpression": "cron(30 5 * * ? *)",
    "BatchInput": f"s3://{BUCKET}/churn/batch/production/input/customers/",
    "BatchOutput": f"s3://{BUCKET}/churn/batch/production/output/customers/",
    "BatchKmsKeyArn": KEY,
    "BatchVolumeKmsKeyArn": KEY,
    "ModelName": "Model-1a2b3c",
    "ModelArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/model-1a2b3c",
    "ModelVersion": "7",
    "AlarmTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
    "PermissionsBoundaryArn": BOUNDARY,
}


def watch(name: str = "churn", stage: str = "production", /, **more: Any) -> Stack:
    """Return the second stack of a stage, with nothing on but what is given."""
    values = {"Project": name, "Stage": stage, "OutputBucket": BUCKET, "Template": "0" * 12}
    return _stack("watch", f"{name}-{stage}-watch", {**values, **more})


def _stack(name: str, stack_name: str, values: Mapping[str, Any], region: str = REGION) -> Stack:
    pairs = [{"ParameterKey": key, "ParameterValue": text(item)} for key, item in values.items()]
    bound = parameters.bind(template(name), pairs, None)
    scope = Scope(
        template=template(name),
        parameters=bound,
        account=ACCOUNT,
        region=region,
        stack_id=f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{stack_name}/1",
        stack_name=stack_name,
        made=lambda logical: _made(name, logical),
        exports=EXPORTS,
    )
    scope.check_rules()
    return Stack(name, scope)


def _made(name: str, logical: str) -> Made:
    """Return every resource, as if it existed."""
    kind = template(name).resources[logical]["Type"]
    role, user = (
        f"arn:aws:iam::{ACCOUNT}:role/",
        f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github-",
    )
    refs = {
        "ArtifactBucket": BUCKET,
        "Boundary": BOUNDARY,
        "GitHubBoundary": GITHUB_BOUNDARY,
        "TrainBoundary": TRAIN_BOUNDARY,
        "GitHubSecret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:sm-mlops/github-AbCdEf",
        "Trigger": "sm-mlops-trigger",
        "Retrain": "sm-mlops-retrain",
        "Notify": "sm-mlops-notify",
        "Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:sm-mlops-notifications",
        "TriggerLayer": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:sm-mlops-github-app:1",
        "Portfolio": "port-0123456789abc",
        "Product": "prod-0123456789abc",
        "FailedApprovals": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/sm-mlops-failed-approvals",
    }
    arns = {
        "AWS::S3::Bucket": f"arn:aws:s3:::{BUCKET}",
        "AWS::IAM::Role": role + logical,
        "AWS::IAM::User": user + logical.removesuffix("User").lower(),
        "AWS::IAM::OIDCProvider": PROVIDER,
        "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:sm-mlops-failed-approvals",
        "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{refs.get(logical)}",
        "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{_rule(logical)}",
    }
    return Made(
        refs.get(logical, logical),
        {
            "Arn": arns.get(kind, logical),
            "ConnectionArn": CONNECTION,
            "RegionalDomainName": f"{BUCKET}.s3.{REGION}.amazonaws.com",
            "QueueName": "sm-mlops-failed-approvals",
            "CodeRepositoryName": "churn",
            "SecretAccessKey": "made-by-iam",
        },
    )


def _rule(logical: str) -> str:
    return f"sm-mlops-{logical.removesuffix('Rule').lower()}"


# Who there is


def boundary(logical: str = "Boundary") -> Document:
    """Return one of the platform's two boundaries."""
    [found] = full_platform().policies(logical)
    return found


@cache
def full_platform() -> Stack:
    """Return a platform with everything on."""
    return platform(
        HasLayer=True,
        DataLocations=LAKE,
        KeyArns=KEY,
        DeploymentAccounts=DEPLOYMENT_ACCOUNT,
        AlarmTopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
        StudioRoleArns=f"arn:aws:iam::{ACCOUNT}:role/studio",
    )


@cache
def full_project(name: str) -> Stack:
    """Return a project with everything on that its own policies depend on."""
    return project(
        name, DataLocations=LAKE, KmsKeyArn=KEY, Vpc="yes", DeploymentAccounts=DEPLOYMENT_ACCOUNT
    )


def _identity(name: str, role: str, policies: tuple[Document, ...], limit: str) -> Identity:
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    return Identity(arn, policies, boundary(limit), {"project": name})


def train(name: str) -> Identity:
    """Return the role that a project's workflow trains with."""
    policies = full_project(name).policies("TrainRole")
    return _identity(name, f"{name}-github-train", policies, "TrainBoundary")


def staging(name: str, stage: str = "staging") -> Identity:
    """Return the role that a project's workflow deploys to a stage with."""
    policies = full_project(name).policies(f"{stage.capitalize()}Role")
    return _identity(name, f"{name}-github-{stage}", policies, "GitHubBoundary")


def production(name: str) -> Identity:
    """Return the role that a project's workflow deploys to production with."""
    return staging(name, "production")


def pipeline(name: str) -> Identity:
    """Return the role that a project's pipeline and jobs work with."""
    policies = full_project(name).policies("PipelineRole")
    return _identity(name, f"{name}-pipeline", policies, "TrainBoundary")


def serving(name: str, stage: str = "staging") -> Identity:
    """Return the role that an endpoint works with, as infra/endpoint.yml makes it."""
    made = endpoint_stack(
        Project=name,
        Stage=stage,
        EndpointKind="asynchronous",
        ArtifactBucket=BUCKET,
        PermissionsBoundaryArn=BOUNDARY,
    )
    [policy] = made.properties("ExecutionRole")["Policies"]
    return _identity(
        name,
        f"sm-mlops/{name}/{stage}/{name}-{stage}-ExecutionRole-1",
        (document(policy["PolicyDocument"]),),
        "Boundary",
    )


EVERYTHING: Document = {
    "Statement": [{"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}]
}


def greedy(name: str) -> Identity:
    """Return the most that a repo can make: a role whose own policy allows everything."""
    return _identity(name, f"sm-mlops/{name}/staging/anything", (EVERYTHING,), "Boundary")


def schedules(name: str) -> Identity:
    """Return the role of a stage's schedules."""
    policies = watch(name, **WATCHED).policies("ExecutionRole")
    role = f"sm-mlops/{name}/production/{name}-production-watch-ExecutionRole-1"
    return _identity(name, role, policies, "Boundary")


def launch() -> Identity:
    """Return the role that makes projects."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/sm-mlops-launch-{REGION}"
    return Identity(arn, full_platform().policies("LaunchRole"))


def trigger() -> Identity:
    """Return the role of the trigger's function."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/TriggerRole"
    return Identity(arn, full_platform().policies("TriggerRole"))


def notify() -> Identity:
    """Return the role of the function that tells people."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/NotifyRole"
    return Identity(arn, platform().policies("NotifyRole"))
