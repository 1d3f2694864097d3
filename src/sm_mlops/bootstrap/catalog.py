"""Service Catalog as bootstrap uses it: versions of the product, and who may make projects of it.

Must not know of stacks nor of SageMaker.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sm_mlops.aws import Aws
from sm_mlops.bootstrap import assets
from sm_mlops.errors import MlopsError

NEWEST, OUTDATED = "DEFAULT", "DEPRECATED"
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class ProductVersion:
    """A provisioning artifact. `guidance` is DEFAULT or DEPRECATED: of an outdated one no new
    project can be made. `template` is the key of its template in the artifact bucket, which says
    version and content; empty for one that somebody has made by hand."""

    identifier: str
    name: str
    guidance: str
    template: str
    made: datetime


def versions(aws: Aws, product: str) -> list[ProductVersion]:
    """The active ones."""
    answer = aws.client("servicecatalog").list_provisioning_artifacts(ProductId=product)
    return [
        ProductVersion(
            item["Id"],
            item["Name"],
            item.get("Guidance", NEWEST),
            assets.template_in(item.get("Description", "")),
            item["CreatedTime"],
        )
        for item in answer["ProvisioningArtifactDetails"]
        if item.get("Active", True)
    ]


def version_with(known: Iterable[ProductVersion], template: str) -> ProductVersion | None:
    """The one of this template."""
    return next((item for item in known if item.template == template), None)


def newest(known: Iterable[ProductVersion]) -> ProductVersion | None:
    """The one that new projects are made of: somebody may have added others by hand."""
    from packaging.version import Version

    ours = [item for item in known if item.template and item.guidance != OUTDATED]
    return max(
        ours,
        key=lambda item: (Version(assets.version_of(item.template)), item.made),
        default=None,
    )


def outdated(known: Iterable[ProductVersion], template: str) -> list[ProductVersion]:
    """Those to be marked so once this template's is the newest, and are not marked yet."""
    return [
        item
        for item in known
        if item.template and item.template != template and item.guidance != OUTDATED
    ]


def name_for(known: Iterable[ProductVersion], template: str) -> str:
    """How the version of this template is called, or will be: after the template's version, with a
    part of its digest where that name is another content's already."""
    known = list(known)
    if found := version_with(known, template):
        return found.name
    version = assets.version_of(template)
    if all(item.name != version for item in known):
        return version
    # As PEP 440 writes a local version, which the version may have one of itself.
    digest = assets.content_of(template.rpartition("/")[0])
    return f"{version}{'.' if '+' in version else '+'}{digest[:8]}"


def add_version(aws: Aws, product: str, name: str, template: str, url: str) -> None:
    """Makes a version from the template at this key and address. Raises MlopsError."""
    client = aws.client("servicecatalog")
    # The same for the same content: asked for twice, it is made once.
    token = hashlib.sha256(f"{product} {name} {url}".encode()).hexdigest()[:40]
    made = client.create_provisioning_artifact(
        ProductId=product,
        IdempotencyToken=token,
        Parameters={
            "Name": name,
            # As infra/platform.yml describes the first one.
            "Description": f"Version {assets.version_of(template)} of the template, {template}",
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
        raise MlopsError(f"Service Catalog could not make version {name} of the product {product}")


def mark(aws: Aws, product: str, item: ProductVersion, guidance: str) -> None:
    """Marks a version as outdated, or not so any more; projects made of it go on."""
    aws.client("servicecatalog").update_provisioning_artifact(
        ProductId=product, ProvisioningArtifactId=item.identifier, Guidance=guidance
    )


# Who may use it


def principal(aws: Aws) -> str:
    """ARN of the role or user that is signed in, as a portfolio knows it; empty for the sandbox's
    own key, which needs no grant.

    Raises MlopsError for who cannot use Service Catalog.
    """
    arn = str(aws.client("sts").get_caller_identity()["Arn"])
    service, resource = arn.split(":")[2], arn.split(":", 5)[5]
    kind, _, rest = resource.partition("/")
    if (service, kind) == ("sts", "assumed-role"):
        role = rest.partition("/")[0]
        # With its path, which the session's ARN leaves out.
        return str(aws.client("iam").get_role(RoleName=role)["Role"]["Arn"])
    if (service, kind) == ("iam", "user"):
        return arn
    if aws.sandbox:
        return ""
    raise MlopsError(
        f"signed in as {resource}, which Service Catalog does not know: sign in as a role or a "
        "user, or add --template-provider s3"
    )


def principals(aws: Aws, portfolio: str) -> list[str]:
    """ARNs of those who may use what is in the portfolio."""
    pages = aws.client("servicecatalog").get_paginator("list_principals_for_portfolio")
    return [
        str(item["PrincipalARN"])
        for page in pages.paginate(PortfolioId=portfolio)
        for item in page["Principals"]
    ]


def grant(aws: Aws, portfolio: str, principal: str) -> None:
    aws.client("servicecatalog").associate_principal_with_portfolio(
        PortfolioId=portfolio, PrincipalARN=principal, PrincipalType="IAM"
    )


def revoke(aws: Aws, portfolio: str, principal: str) -> None:
    kind = "IAM_PATTERN" if ":iam:::" in principal else "IAM"
    aws.client("servicecatalog").disassociate_principal_from_portfolio(
        PortfolioId=portfolio, PrincipalARN=principal, PrincipalType=kind
    )


# What was made of it


def provisioned(aws: Aws, product: str) -> Iterator[str]:
    """Names of the stacks that were made of the product, by anybody."""
    for item in _search(aws, f"productId:{product}"):
        yield stack_name(aws, item["Id"])


def stack_name(aws: Aws, provisioned_product: str) -> str:
    """The stack of a provisioned product.

    Source: https://docs.aws.amazon.com/servicecatalog/latest/adminguide/what-is_concepts.html
    """
    return f"SC-{aws.account}-{provisioned_product}"


def version_of(aws: Aws, provisioned_product: str) -> str:
    """Identifier of the version that it was last made of; empty where nothing is known."""
    for item in _search(aws, f"id:{provisioned_product}"):
        return str(item.get("ProvisioningArtifactId", ""))
    return ""


def _search(aws: Aws, query: str) -> Iterator[dict[str, Any]]:
    more: dict[str, str] = {}
    while True:
        answer = aws.client("servicecatalog").search_provisioned_products(
            # Those of all people, not only one's own.
            AccessLevelFilter={"Key": "Account", "Value": "self"},
            Filters={"SearchQuery": [query]},
            **more,
        )
        yield from answer["ProvisionedProducts"]
        if not answer.get("NextPageToken"):
            return
        more = {"PageToken": answer["NextPageToken"]}
