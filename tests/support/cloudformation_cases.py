"""Stacks for tests: deployed, waited for, and their events as short lines."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import boto3

from endpoint_cases import TRUST as TRUST
from sandbox_cases import REGION, World


class Deployer(World):
    """A world that deploys templates, in the account of these credentials."""

    def __init__(self, variables: Mapping[str, str], credentials: Any = None) -> None:
        super().__init__(variables)
        if credentials:
            _ = self.s3, self.sagemaker, self.logs, self.iam  # stay the administrator's
            self._session = boto3.session.Session(
                aws_access_key_id=credentials["AccessKeyId"],
                aws_secret_access_key=credentials["SecretAccessKey"],
                aws_session_token=credentials["SessionToken"],
                region_name=REGION,
            )
        self.cfn = self.client("cloudformation")

    def deploy(self, template: Any, name: str | None = None, **more: Any) -> str:
        """Create a stack, wait for it, and return its name."""
        name = name or new_name()
        self.cfn.create_stack(StackName=name, TemplateBody=text(template), **more)
        self.settled(name)
        return name

    def update(self, name: str, template: Any = None, **more: Any) -> dict[str, Any]:
        """Update a stack and return what it is at the end."""
        body = {"TemplateBody": text(template)} if template else {"UsePreviousTemplate": True}
        self.cfn.update_stack(StackName=name, **body, **more)
        return self.settled(name)

    def delete(self, name: str, **more: Any) -> dict[str, Any]:
        """Delete a stack and return what it is at the end."""
        identity = self.stack(name)["StackId"]
        self.cfn.delete_stack(StackName=name, **more)
        return self.settled(identity)

    def stack(self, name: str) -> dict[str, Any]:
        """Return what DescribeStacks answers."""
        return dict(self.cfn.describe_stacks(StackName=name)["Stacks"][0])

    def settled(self, name: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until no operation runs; return the stack."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stack = self.stack(name)
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                return stack
            time.sleep(0.01)
        raise TimeoutError(f"{name} is still {stack['StackStatus']}: {self.events(name)}")

    def wait_for(self, name: str, event: str, seconds: float = 10) -> None:
        """Wait until a stack has an event."""
        end = time.monotonic() + seconds
        while event not in self.events(name):
            if time.monotonic() > end:
                raise TimeoutError(f"no {event} among {self.events(name)}")
            time.sleep(0.01)

    def change(self, name: str, template: Any = None, **more: Any) -> dict[str, Any]:
        """Create a change set and return what describes it when it is done."""
        body = {"TemplateBody": text(template)} if template else {"UsePreviousTemplate": True}
        made = self.cfn.create_change_set(
            StackName=name, ChangeSetName=f"c-{uuid.uuid4().hex[:8]}", **body, **more
        )
        while True:
            found = self.cfn.describe_change_set(ChangeSetName=made["Id"])
            if found["Status"] != "CREATE_IN_PROGRESS":
                return dict(found)
            time.sleep(0.01)

    def events(self, name: str) -> list[str]:
        """Return the events, oldest first, as "<logical id> <status>"."""
        return [f"{e['LogicalResourceId']} {e['ResourceStatus']}" for e in self.raw_events(name)]

    def raw_events(self, name: str) -> list[dict[str, Any]]:
        """Return the events, oldest first."""
        found: list[dict[str, Any]] = []
        for page in self.cfn.get_paginator("describe_stack_events").paginate(StackName=name):
            found += page["StackEvents"]
        return found[::-1]

    def reasons(self, name: str, status: str) -> dict[str, str]:
        """Return the reasons of the events with a status, by logical id."""
        return {
            e["LogicalResourceId"]: e.get("ResourceStatusReason", "")
            for e in self.raw_events(name)
            if e["ResourceStatus"] == status
        }

    def physical(self, name: str) -> dict[str, str]:
        """Return the physical ids by logical id."""
        rows = self.cfn.list_stack_resources(StackName=name)["StackResourceSummaries"]
        return {row["LogicalResourceId"]: row.get("PhysicalResourceId", "") for row in rows}

    def secret(self, name: str) -> str:
        """Return the value of a secret."""
        answer = self.client("secretsmanager").get_secret_value(SecretId=name)
        return str(answer["SecretString"])

    def outputs(self, name: str) -> dict[str, str]:
        """Return the outputs."""
        return {o["OutputKey"]: o["OutputValue"] for o in self.stack(name).get("Outputs", [])}


def new_name() -> str:
    """Return the name of a new stack."""
    return f"s-{uuid.uuid4().hex[:8]}"


def text(template: Any) -> str:
    """Return a template's text; tests write it as text or as an object."""
    return template if isinstance(template, str) else json.dumps(template)


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    """Return a resource of a template."""
    return {"Type": f"AWS::{kind}", "Properties": properties}


def secret(value: Any, **more: Any) -> dict[str, Any]:
    """Return a secret: the simplest resource that can be changed in place."""
    return resource("SecretsManager::Secret", SecretString=value, **more)


def given(**values: Any) -> list[dict[str, Any]]:
    """Return parameters of a request."""
    return [{"ParameterKey": k, "ParameterValue": str(v)} for k, v in values.items()]
