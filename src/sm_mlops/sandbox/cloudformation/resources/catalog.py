"""Service Catalog's products and CodeConnections' connections as resources of stacks."""

from __future__ import annotations

import json
import uuid

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Provider, ResourceFailed, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json

CONNECTIONS = Tagging("tag_resource", "untag_resource", "ResourceArn")


def _connection(call: Call, answer: Json) -> Made:
    if answer:
        call.made(answer["ConnectionArn"])
    call.client("codeconnections").get_connection(ConnectionArn=call.physical)
    return Made(call.physical, {"ConnectionArn": call.physical})


# Service Catalog.

CATALOG = "servicecatalog"


def _catalog_tags(call: Call) -> Json:
    """Return the arguments that change the tags of a product."""
    gone = [key for key in call.previous_tags if key not in call.tags]
    new = {k: v for k, v in call.tags.items() if call.previous_tags.get(k) != v}
    return calls.present(AddTags=calls.pairs(new), RemoveTags=gone)


def _portfolio_create(call: Call) -> Made:
    found = call.client(CATALOG).create_portfolio(
        **call.properties,
        **calls.present(Tags=calls.pairs(call.tags)),
        IdempotencyToken=str(uuid.uuid4()),
    )["PortfolioDetail"]["Id"]
    call.made(found)
    return Made(found, {})


_PRODUCT = ("Description", "Name", "Owner")


def _product_create(call: Call) -> Made:
    given = call.properties
    _check_product(call)
    [artifact] = given["ProvisioningArtifactParameters"]
    answer = call.client(CATALOG).create_product(
        **calls.pick(given, *_PRODUCT),
        ProductType="CLOUD_FORMATION_TEMPLATE",
        **calls.present(Tags=calls.pairs(call.tags)),
        ProvisioningArtifactParameters={"Type": "CLOUD_FORMATION_TEMPLATE", **artifact},
        IdempotencyToken=str(uuid.uuid4()),
    )
    found = answer["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
    call.made(found)
    return Made(found, {})


def _check_product(call: Call) -> None:
    calls.only(call, *_PRODUCT, "ProvisioningArtifactParameters", "ReplaceProvisioningArtifacts")
    if call.properties.get("ReplaceProvisioningArtifacts"):
        calls.refuse(call.kind, {"ReplaceProvisioningArtifacts"})
    if len(call.properties.get("ProvisioningArtifactParameters", ())) != 1:
        calls.refuse(call.kind, {"ProvisioningArtifactParameters, of which there must be one"})


def _content(given: Json) -> list[Json]:
    return [artifact["Info"] for artifact in given["ProvisioningArtifactParameters"]]


def _product_update(call: Call) -> Made:
    _check_product(call)
    if _content(call.properties) != _content(call.previous):
        raise ResourceFailed("The sandbox does not change the content of a product's version")
    given = calls.pick(call.properties, *_PRODUCT)
    call.client(CATALOG).update_product(Id=call.physical, **given, **_catalog_tags(call))
    return Made(call.physical, {})


def _launch_create(call: Call) -> Made:
    given = call.properties
    found = call.client(CATALOG).create_constraint(
        **calls.pick(given, "PortfolioId", "ProductId", "Description"),
        Type="LAUNCH",
        Parameters=json.dumps(calls.pick(given, "RoleArn", "LocalRoleName")),
        IdempotencyToken=str(uuid.uuid4()),
    )["ConstraintDetail"]["ConstraintId"]
    call.made(found)
    return Made(found, {})


def _unchanged(call: Call) -> Made:
    raise ResourceFailed(f"The sandbox does not change {call.kind}: no template of ours does")


PROVIDERS: dict[str, Provider] = {
    "AWS::CodeConnections::Connection": calls.api(
        "codeconnections",
        "create_connection",
        "delete_connection",
        _connection,
        "ConnectionArn",
        attributes=("ConnectionArn",),
        tagging=CONNECTIONS,
    ),
    "AWS::ServiceCatalog::CloudFormationProduct": Provider(
        _product_create,
        calls.deletes(CATALOG, "delete_product", "Id"),
        _product_update,
    ),
    "AWS::ServiceCatalog::LaunchRoleConstraint": Provider(
        _launch_create,
        calls.deletes(CATALOG, "delete_constraint", "Id"),
        _unchanged,
    ),
    "AWS::ServiceCatalog::Portfolio": Provider(
        _portfolio_create,
        calls.deletes(CATALOG, "delete_portfolio", "Id"),
        _unchanged,
    ),
    "AWS::ServiceCatalog::PortfolioPrincipalAssociation": calls.api(
        CATALOG,
        "associate_principal_with_portfolio",
        "disassociate_principal_from_portfolio",
        lambda call, answer: Made("{PrincipalARN}|{PortfolioId}".format(**call.properties), {}),
        lambda call: calls.pick(call.properties, "PortfolioId", "PrincipalARN"),
    ),
    "AWS::ServiceCatalog::PortfolioProductAssociation": calls.api(
        CATALOG,
        "associate_product_with_portfolio",
        "disassociate_product_from_portfolio",
        lambda call, answer: Made("{PortfolioId}|{ProductId}".format(**call.properties), {}),
        lambda call: calls.pick(call.properties, "PortfolioId", "ProductId"),
    ),
}
