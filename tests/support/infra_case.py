"""The endpoint's template as CloudFormation would see it with given parameters.

Uses the sandbox's reading of templates, without a server and without a stack.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sm_mlops.sandbox.cloudformation import parameters, schemas
from sm_mlops.sandbox.cloudformation.expressions import Made, Scope
from sm_mlops.sandbox.cloudformation.template import Template, parse

INFRA = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}" / "infra"
ACCOUNT, REGION = "123456789012", "eu-west-1"
BUCKET = "sm-mlops-123456789012-eu-west-1"
PACKAGE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/churn/7"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ARTIFACT_KEY = f"arn:aws:kms:{REGION}:999999999999:key/9999abcd-12ab-34cd-56ef-1234567890ab"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/made-elsewhere"
# What `mlops deploy` says itself.
DEPLOYED = {
    "Project": "churn",
    "Stage": "production",
    "ModelPackageArn": PACKAGE,
    "ArtifactBucket": BUCKET,
    "OutputBucket": BUCKET,
}
# One of each kind, with everything on that the kind can do.
FULL: dict[str, dict[str, Any]] = {
    "real-time": {
        "InstanceCount": 2,
        "MaxInstanceCount": 4,
        "TrafficShift": "canary",
        "DataCapturePercent": 20,
        "AlarmTopicArn": TOPIC,
        "KmsKeyArn": KEY,
        "ArtifactKmsKeyArn": ARTIFACT_KEY,
        "SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
    },
    "serverless": {"AlarmTopicArn": TOPIC},
    "asynchronous": {
        "MaxInstanceCount": 3,
        "AlarmTopicArn": TOPIC,
        "KmsKeyArn": KEY,
        "ArtifactKmsKeyArn": ARTIFACT_KEY,
        "SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
    },
    "batch": {
        "KmsKeyArn": KEY,
        "ArtifactKmsKeyArn": ARTIFACT_KEY,
        "SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
    },
}
KINDS = tuple(FULL)


@cache
def template() -> Template:
    """Return the endpoint's template."""
    return parse((INFRA / "endpoint.yml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Stack:
    """What the template makes of one set of parameters."""

    scope: Scope

    @property
    def resources(self) -> set[str]:
        """Return the logical names of the resources there would be."""
        return self.scope.active()

    def properties(self, logical: str) -> dict[str, Any]:
        """Return a resource's properties, all functions evaluated."""
        assert logical in self.resources, f"no {logical} with these parameters"
        kind = template().resources[logical]["Type"]
        return schemas.conform(kind, self.scope.properties(logical))

    def everything(self) -> dict[str, dict[str, Any]]:
        """Return the properties of all resources by logical name."""
        return {logical: self.properties(logical) for logical in sorted(self.resources)}

    def outputs(self) -> dict[str, str]:
        """Return the outputs there would be."""
        return {
            name: self.scope.resolve(output["Value"])
            for name, output in template().outputs.items()
            if "Condition" not in output or self.scope.holds(output["Condition"])
        }

    def statements(self) -> list[dict[str, Any]]:
        """Return what the execution role may do, actions and resources as lists."""
        [policy] = self.properties("ExecutionRole")["Policies"]
        document = policy["PolicyDocument"]
        if isinstance(document, str):
            document = json.loads(document)
        return [
            {
                **statement,
                "Action": _list(statement["Action"]),
                "Resource": _list(statement["Resource"]),
            }
            for statement in document["Statement"]
        ]

    def resources_of(self, action: str) -> list[str]:
        """Return what the execution role may do this to."""
        return [
            resource
            for statement in self.statements()
            if action in statement["Action"]
            for resource in statement["Resource"]
        ]


def stage(name: str) -> dict[str, Any]:
    """Return a stage's file."""
    content: dict[str, Any] = json.loads((INFRA / f"{name}.json").read_text(encoding="utf-8"))
    return content


def stack(given: dict[str, Any] | None = None, /, **more: Any) -> Stack:
    """Return the stack with these parameters; raises what CreateStack would answer."""
    values = {**DEPLOYED, **(given or {}), **more}
    pairs = [{"ParameterKey": name, "ParameterValue": text(item)} for name, item in values.items()]
    bound = parameters.bind(template(), pairs, None)
    scope = Scope(
        template=template(),
        parameters=bound,
        account=ACCOUNT,
        region=REGION,
        stack_id=f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/churn-production/1",
        stack_name="churn-production",
        made=_made,
    )
    scope.check_rules()
    return Stack(scope)


def full(kind: str, **more: Any) -> Stack:
    """Return a stack of this kind with everything on that the kind can do."""
    return stack({"EndpointKind": kind, **FULL[kind]}, **more)


def text(value: Any) -> str:
    """Return a parameter's value as CloudFormation takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(text, value)) if isinstance(value, list) else str(value)


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _made(logical: str) -> Made:
    """Every resource, as if it existed."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/{logical}" if logical == "ExecutionRole" else logical
    if logical == "WakeUpScalingPolicy":
        arn = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:1:resource/sagemaker/x"
    named = {"ErrorAlarm": "errors", "LatencyAlarm": "latency"}
    ref = f"churn-production-{named[logical]}" if logical in named else arn
    if logical == "ScalableTarget":
        ref = (
            "endpoint/churn-production/variant/AllTraffic"
            "|sagemaker:variant:DesiredInstanceCount|sagemaker"
        )
    return Made(
        ref,
        {
            "Arn": arn,
            "ModelName": "model-1",
            "EndpointConfigName": "config-1",
            "EndpointName": "churn-production",
        },
    )
