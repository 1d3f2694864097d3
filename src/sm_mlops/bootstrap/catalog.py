"""Service Catalog as bootstrap uses it: versions of the product, and who may create projects.

Must not know stacks or SageMaker.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sm_mlops.aws import Aws, ignoring
from sm_mlops.bootstrap import assets
from sm_mlops.errors import MlopsError
from sm_mlops.projects import stack_name

CURRENT, OUTDATED = "DEFAULT", "DEPRECATED"
POLL_SECONDS = 2.0
GRANT_SECONDS = 180.0


@dataclass(frozen=True)
class ProductVersion:
    """A provisioning artifact. `guidance` is DEFAULT or DEPRECATED, from which no project can be
    created. `template` is a key in the artifact bucket, empty for a version added by hand."""

    identifier: str
    name: str
    guidance: str
    template: str
    made: datetime


def versions(aws: Aws, product: str) -> list[ProductVersion]:
    """Return the active versions of a product."""
    answer = aws.client("servicecatalog").list_provisioning_artifacts(ProductId=product)
    return [
        ProductVersion(
            item["Id"],
            item["Name"],
            item.get("Guidance", CURRENT),
            assets.template_in(item.get("Description", "")),
            item["CreatedTime"],
        )
        for item in answer["ProvisioningArtifactDetails"]
        if item.get("Active", True)
    ]


def version_with(known: Iterable[ProductVersion], template: str) -> ProductVersion | None:
    """Return the version made from the template at this key."""
    return next((item for item in known if item.template == template), None)


def newest(known: Iterable[ProductVersion]) -> ProductVersion | None:
    """Return the version that new projects are created from: an older tool adds none."""
    offered = (item for item in known if item.template and item.guidance != OUTDATED)
    return max(offered, key=lambda item: item.made, default=None)


def to_mark(known: Iterable[ProductVersion], template: str) -> Iterator[tuple[ProductVersion, str]]:
    """Yield the versions of other guidance than they need: only this template is to be offered."""
    for item in known:
        guidance = CURRENT if item.template == template else OUTDATED
        if item.template and item.guidance != guidance:
            yield item, guidance


def add_version(aws: Aws, product: str, template: str, url: str) -> None:
    """Create a version from the template at this key and address. Raise MlopsError."""
    client, name = aws.client("servicecatalog"), assets.version_of(template)
    # Content decides, so that a repeated request creates it once.
    token = hashlib.sha256(f"{product} {url}".encode()).hexdigest()[:40]
    made = client.create_provisioning_artifact(
        ProductId=product,
        IdempotencyToken=token,
        Parameters={
            "Name": name,
            # platform.yml describes the first one in the same words.
            "Description": f"Made from {template}",
            "Info": {"LoadTemplateFromURL": url},
            "Type": "CLOUD_FORMATION_TEMPLATE",
        },
    )
    identifier, status = made["ProvisioningArtifactDetail"]["Id"], made["Status"]
    while status == "CREATING":
        time.sleep(POLL_SECONDS)
        status = client.describe_provisioning_artifact(
            ProductId=product, ProvisioningArtifactId=identifier
        )["Status"]
    if status == "FAILED":
        raise MlopsError(f"Service Catalog failed to create version {name} of product {product}")


def mark(aws: Aws, product: str, item: ProductVersion, guidance: str) -> None:
    """Deprecate a version, or offer it again. Existing projects keep working."""
    aws.client("servicecatalog").update_provisioning_artifact(
        ProductId=product, ProvisioningArtifactId=item.identifier, Guidance=guidance
    )


def principal(aws: Aws) -> str:
    """Return the ARN of the signed-in role or user; empty for the sandbox's own key, which needs no
    grant. Raise MlopsError for an identity that Service Catalog refuses."""
    arn = str(aws.client("sts").get_caller_identity()["Arn"])
    service, resource = arn.split(":")[2], arn.split(":", 5)[5]
    kind, _, rest = resource.partition("/")
    if (service, kind) == ("sts", "assumed-role"):
        role = rest.partition("/")[0]
        # With its path, which the ARN of the session omits.
        return str(aws.client("iam").get_role(RoleName=role)["Role"]["Arn"])
    if (service, kind) == ("iam", "user"):
        return arn
    if aws.sandbox:
        return ""
    raise MlopsError(
        f"signed in as {resource}, which Service Catalog does not accept: sign in as a role or a "
        "user, or add --template-provider s3"
    )


def principals(aws: Aws, portfolio: str) -> list[str]:
    """Return the ARNs of those who may use the portfolio."""
    operation, key = "list_principals_for_portfolio", "Principals"
    rows = aws.pages(operation, key, "servicecatalog", PortfolioId=portfolio)
    return [str(item["PrincipalARN"]) for item in rows]


def grant(aws: Aws, portfolio: str, principal: str) -> None:
    """Let a principal use the portfolio."""
    aws.client("servicecatalog").associate_principal_with_portfolio(
        PortfolioId=portfolio, PrincipalARN=principal, PrincipalType="IAM"
    )


def await_launch_path(aws: Aws, product: str) -> None:
    """Wait until you can launch the product: a grant takes effect after a while. Raise MlopsError.

    Source: https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ListLaunchPaths.html
    """
    client, end = aws.client("servicecatalog"), time.monotonic() + GRANT_SECONDS
    while time.monotonic() < end:
        with ignoring("ResourceNotFoundException"):
            if client.list_launch_paths(ProductId=product)["LaunchPathSummaries"]:
                return
        time.sleep(POLL_SECONDS)
    raise MlopsError(
        f"you may not create projects from product {product} yet: run {aws.command} bootstrap "
        "again in a few minutes, or ask who manages Service Catalog to grant you its portfolio"
    )


def revoke(aws: Aws, portfolio: str, principal: str) -> None:
    """Revoke that right."""
    kind = "IAM_PATTERN" if ":iam:::" in principal else "IAM"
    aws.client("servicecatalog").disassociate_principal_from_portfolio(
        PortfolioId=portfolio, PrincipalARN=principal, PrincipalType=kind
    )


def provisioned(aws: Aws, product: str) -> Iterator[str]:
    """Yield the names of the stacks created from the product, by anybody."""
    for item in _search(aws, f"productId:{product}"):
        yield stack_name(aws, item["Id"])


def version_of(aws: Aws, provisioned_product: str) -> str:
    """Return the identifier of the version it was last created from, or "" if unknown."""
    found: dict[str, Any] = next(_search(aws, f"id:{provisioned_product}"), {})
    return str(found.get("ProvisioningArtifactId", ""))


def _search(aws: Aws, query: str) -> Iterator[dict[str, Any]]:
    more: dict[str, str] = {}
    while True:
        answer = aws.client("servicecatalog").search_provisioned_products(
            # Those of everybody in the account.
            AccessLevelFilter={"Key": "Account", "Value": "self"},
            Filters={"SearchQuery": [query]},
            **more,
        )
        yield from answer["ProvisionedProducts"]
        if not answer.get("NextPageToken"):
            return
        more = {"PageToken": answer["NextPageToken"]}
