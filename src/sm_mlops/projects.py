"""The SageMaker project of a repo: its status, its template and its stack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sm_mlops import stacks
from sm_mlops.aws import Aws, described
from sm_mlops.stacks import Stack


@dataclass(frozen=True)
class Access:
    """A role of the project for workflows, with a user of its own where CI signs in by key.

    `environment` is the one of GitHub whose jobs use it.
    """

    name: str
    environment: str

    def name_in(self, project: str) -> str:
        """Return the name of the role, and of its user."""
        return f"{project}-github-{self.name}"

    def secret_in(self, project: str) -> str:
        """Return the name of the secret with its user's key."""
        return f"sm-mlops/{project}/github-{self.name}"

    @property
    def key(self) -> str:
        """Return the logical name of its user's key in the project's stack."""
        return f"{self.name.title()}UserKey"

    def role(self, outputs: dict[str, str]) -> str:
        """Return the ARN of the role, "" without outputs of the project's stack."""
        return outputs.get(f"{self.name.title()}RoleArn", "")

    def secret(self, outputs: dict[str, str]) -> str:
        """Return the ARN of the secret with its user's key, "" if it signs in without one."""
        return outputs.get(f"{self.name.title()}UserSecretArn", "")


TRAIN = Access("train", "training")
ACCESSES = (TRAIN, Access("staging", "staging"), Access("production", "production"))


@dataclass(frozen=True)
class Found:
    """A project. `provisioned` is the ID of its Service Catalog product, empty for a template from
    S3; `template_url` is empty for one from Service Catalog."""

    status: str
    identifier: str
    provisioned: str
    template_url: str
    stack: Stack | None
    reason: str

    @property
    def moving(self) -> bool:
        """Whether an operation is in progress."""
        return self.status == "Pending" or self.status.endswith("InProgress")


def find(aws: Aws) -> Found | None:
    """Return the project of this repo, None if it does not exist."""
    name = aws.settings.project.project
    shown = described(aws.sagemaker.describe_project, ProjectName=name)
    if shown.get("ProjectStatus", "DeleteCompleted") == "DeleteCompleted":
        return None
    product = shown.get("ServiceCatalogProvisionedProductDetails", {})
    details = shown.get("TemplateProviderDetails") or [{}]
    template = details[0].get("CfnTemplateProviderDetail", {})
    detail = template.get("StackDetail", {})
    provisioned = product.get("ProvisionedProductId", "")
    name = stack_name(aws, provisioned) if provisioned else detail.get("Id", "")
    return Found(
        status=shown["ProjectStatus"],
        identifier=shown["ProjectId"],
        provisioned=provisioned,
        template_url=template.get("TemplateURL", ""),
        stack=stacks.describe(aws, name) if name else None,
        reason=product.get("ProvisionedProductStatusMessage") or detail.get("StatusMessage", ""),
    )


def stack_name(aws: Aws, provisioned_product: str) -> str:
    """Return the name of the stack of a provisioned product.

    Source: https://docs.aws.amazon.com/servicecatalog/latest/adminguide/what-is_concepts.html
    """
    return f"SC-{aws.account}-{provisioned_product}"


def outputs(aws: Aws) -> dict[str, str] | None:
    """Return the outputs of the project's stack; None if it is missing or incomplete."""
    found = find(aws)
    if found is None or found.stack is None or not found.stack.outputs.get("PipelineRoleArn"):
        return None
    return found.stack.outputs


def settled(aws: Aws, tell: Callable[[str], None]) -> Found | None:
    """Return the project; wait first while an operation is in progress."""
    found = find(aws)
    if found is not None and found.moving:
        tell(f"Waiting: project {aws.settings.project.project} is {found.status}")
        found = wait(aws)
    return found


def wait(aws: Aws) -> Found | None:
    """Return the project once no operation is in progress; None if it is deleted."""
    began = time.monotonic()
    while (found := find(aws)) and found.moving:
        time.sleep(stacks.pause(began))
    return found
