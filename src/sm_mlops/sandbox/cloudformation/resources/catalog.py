"""Service Catalog's products and CodeConnections' connections as resources of stacks."""

from __future__ import annotations

import json
import uuid

from sm_mlops.sandbox.cloudformation import calls
from sm_mlops.sandbox.cloudformation.calls import Call, Provider, ResourceFailed, Tagging
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json

CONNECTIONS = Tagging("tag_resource", "untag_resource", "ResourceArn")
_CONNECTION = ("ConnectionArn", "ConnectionStatus", "OwnerAccountId")


def _connection(call: Call, answer: Json) -> Made:
    if answer:
        call.made(answer["ConnectionArn"])
    client = call.client("codeconnections")
    found = client.get_connection(ConnectionArn=call.physical)["Connection"]
    return Made(call.physical, calls.pick(found, *_CONNECTION))


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
    return Made(found, {"Id": found, "PortfolioName": call.properties["DisplayName"]})


_PRODUCT = ("Description", "Name", "Owner")


def _product_create(call: Call) -> Made:
    client, given = call.client(CATALOG), call.properties
    _check_product(call)
    artifacts = given.get("ProvisioningArtifactParameters", [])
    answer = client.create_product(
        **calls.pick(given, *_PRODUCT),
        ProductType="CLOUD_FORMATION_TEMPLATE",
        **calls.present(Tags=calls.pairs(call.tags)),
        ProvisioningArtifactParameters=_artifact(artifacts[0]),
        IdempotencyToken=str(uuid.uuid4()),
    )
    found = answer["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
    call.made(found)
    for each in artifacts[1:]:
        client.create_provisioning_artifact(
            ProductId=found, Parameters=_artifact(each), IdempotencyToken=str(uuid.uuid4())
        )
    return _product(call, found)


def _check_product(call: Call) -> None:
    calls.only(call, *_PRODUCT, "ProvisioningArtifactParameters", "ReplaceProvisioningArtifacts")
    if call.properties.get("ReplaceProvisioningArtifacts"):
        calls.refuse(call.kind, {"ReplaceProvisioningArtifacts"})


def _product_update(call: Call) -> Made:
    _check_product(call)
    client, given, product = call.client(CATALOG), call.properties, call.physical
    client.update_product(Id=product, **calls.pick(given, *_PRODUCT), **_catalog_tags(call))
    old = call.previous.get("ProvisioningArtifactParameters", [])
    new = given.get("ProvisioningArtifactParameters", [])
    rows = client.list_provisioning_artifacts(ProductId=product)["ProvisioningArtifactDetails"]
    ids = {row["Name"]: row["Id"] for row in rows}
    same = [key for key in map(_key, new) if key in map(_key, old)]
    # New versions first: a product is never without one.
    gone = [ids[each["Name"]] for each in old if _key(each) not in same and each["Name"] in ids]
    for each in new:
        if _key(each) not in same:
            client.create_provisioning_artifact(
                ProductId=product, Parameters=_artifact(each), IdempotencyToken=str(uuid.uuid4())
            )
    # What the template no longer lists is deleted: ReplaceProvisioningArtifacts only decides
    # whether the versions that stay keep their ids.
    for identity in gone:
        with calls.absent_is_fine():
            client.delete_provisioning_artifact(ProductId=product, ProvisioningArtifactId=identity)
    return _product(call, product)


def _key(artifact: Json) -> tuple[str, str]:
    return artifact.get("Name", ""), artifact["Info"].get("LoadTemplateFromURL", "")


def _artifact(given: Json) -> Json:
    return {"Type": "CLOUD_FORMATION_TEMPLATE", **given}


def _product(call: Call, found: str) -> Made:
    rows = call.client(CATALOG).list_provisioning_artifacts(ProductId=found)
    details = rows["ProvisioningArtifactDetails"]
    return Made(
        found,
        {
            "Id": found,
            "ProductName": call.properties["Name"],
            "ProvisioningArtifactIds": ",".join(row["Id"] for row in details),
            "ProvisioningArtifactNames": ",".join(row["Name"] for row in details),
        },
    )


def _launch_create(call: Call) -> Made:
    given = call.properties
    found = call.client(CATALOG).create_constraint(
        **calls.pick(given, "PortfolioId", "ProductId", "Description"),
        Type="LAUNCH",
        Parameters=json.dumps(calls.pick(given, "RoleArn", "LocalRoleName")),
        IdempotencyToken=str(uuid.uuid4()),
    )["ConstraintDetail"]["ConstraintId"]
    call.made(found)
    return Made(found, {"Id": found})


def _unchanged(call: Call) -> Made:
    raise ResourceFailed(f"The sandbox does not change {call.kind}: no template of ours does")


PROVIDERS: dict[str, Provider] = {
    "AWS::CodeConnections::Connection": calls.api(
        "codeconnections",
        "create_connection",
        "delete_connection",
        _connection,
        "ConnectionArn",
        attributes=_CONNECTION,
        tagging=CONNECTIONS,
    ),
    "AWS::ServiceCatalog::CloudFormationProduct": Provider(
        _product_create,
        calls.deletes(CATALOG, "delete_product", "Id"),
        _product_update,
        attributes=("Id", "ProductName", "ProvisioningArtifactIds", "ProvisioningArtifactNames"),
    ),
    "AWS::ServiceCatalog::LaunchRoleConstraint": Provider(
        _launch_create,
        calls.deletes(CATALOG, "delete_constraint", "Id"),
        _unchanged,
        attributes=("Id",),
    ),
    "AWS::ServiceCatalog::Portfolio": Provider(
        _portfolio_create,
        calls.deletes(CATALOG, "delete_portfolio", "Id"),
        _unchanged,
        attributes=("Id", "PortfolioName"),
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
