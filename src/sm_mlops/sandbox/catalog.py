"""Service Catalog: portfolios, products and their versions, constraints, grants, and what is
provisioned from them.

Replaces moto's, which has no constraints, versions or provisioning. A product is provisioned as on
AWS: a CloudFormation stack, made with the launch role.
Source: https://docs.aws.amazon.com/servicecatalog/latest/dg/API_Reference.html
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops.sandbox import grants, policies
from sm_mlops.sandbox.services import JsonService, new_id, place
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, pick

PORTFOLIO, PRODUCT, ARTIFACT, CONSTRAINT, PROVISIONED, RECORD = (
    "CatalogPortfolio",
    "CatalogProduct",
    "CatalogArtifact",
    "CatalogConstraint",
    "CatalogProvisioned",
    "CatalogRecord",
)
SERVICE = "servicecatalog.amazonaws.com"
CAPABILITIES = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
POLL_SECONDS = 0.05
Client = Callable[[str, str, str], Any]
"""Service, region, access key."""


class Catalog(JsonService):
    """Operations of Service Catalog. Keys of records are ids."""

    service = "servicecatalog"
    codes = ("InvalidParametersException", "ResourceNotFoundException")

    def __init__(self, store: Store, client: Client) -> None:
        super().__init__(store)
        self.client = client
        self.on_idle: Callable[[], None] = lambda: None
        self.closing = threading.Event()
        self._working: set[str] = set()

    # Portfolios.

    def create_portfolio(self, params: Params, caller: Caller) -> Params:
        """CreatePortfolio."""
        identity = new_id("port")
        record = {
            "Id": identity,
            "ARN": caller.arn(f"portfolio/{identity}", "catalog"),
            **pick(params, "DisplayName", "Description", "ProviderName"),
            "CreatedTime": time.time(),
            "_tags": params.get("Tags", []),
            "_products": [],
            "_principals": [],
            **place(caller),
        }
        self.store.put(PORTFOLIO, identity, record)
        return {"PortfolioDetail": _public(record), "Tags": record["_tags"]}

    def describe_portfolio(self, params: Params, caller: Caller) -> Params:
        """DescribePortfolio."""
        found = self._portfolio(params["Id"], caller)
        return {"PortfolioDetail": _public(found), "Tags": found["_tags"], "TagOptions": []}

    def update_portfolio(self, params: Params, caller: Caller) -> Params:
        """UpdatePortfolio."""
        found = self._portfolio(params["Id"], caller)
        found |= pick(params, "DisplayName", "Description", "ProviderName")
        found["_tags"] = _retagged(found["_tags"], params)
        self.store.put(PORTFOLIO, found["Id"], found)
        return {"PortfolioDetail": _public(found), "Tags": found["_tags"]}

    def delete_portfolio(self, params: Params, caller: Caller) -> Params:
        """DeletePortfolio: only an empty one."""
        found = self._portfolio(params["Id"], caller)
        constraints = any(
            row["_portfolio"] == found["Id"] for row in self.store.all(CONSTRAINT).values()
        )
        if found["_products"] or found["_principals"] or constraints:
            raise ApiError(
                "ResourceInUseException",
                "Portfolio is in use. You must first remove its products, principals, constraints "
                "and shares.",
            )
        self.store.delete(PORTFOLIO, found["Id"])
        return {}

    def list_portfolios(self, params: Params, caller: Caller) -> Params:
        """ListPortfolios."""
        rows = [_public(row) for row in self.mine(PORTFOLIO, caller)]
        return _paged("PortfolioDetails", rows, params)

    def list_portfolios_for_product(self, params: Params, caller: Caller) -> Params:
        """ListPortfoliosForProduct."""
        self._product(params["ProductId"], caller)
        rows = [_public(row) for row in self._portfolios_of(params["ProductId"], caller)]
        return _paged("PortfolioDetails", rows, params)

    def associate_product_with_portfolio(self, params: Params, caller: Caller) -> Params:
        """AssociateProductWithPortfolio; doing it again changes nothing."""
        found = self._portfolio(params["PortfolioId"], caller)
        self._product(params["ProductId"], caller)
        if params["ProductId"] not in found["_products"]:
            found["_products"].append(params["ProductId"])
            self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def disassociate_product_from_portfolio(self, params: Params, caller: Caller) -> Params:
        """DisassociateProductFromPortfolio: not while a constraint is on the pair."""
        found = self._portfolio(params["PortfolioId"], caller)
        if params["ProductId"] not in found["_products"]:
            raise self.missing(f"Product {params['ProductId']} is not in {found['Id']}")
        if any(self._constraints(found["Id"], params["ProductId"])):
            raise ApiError(
                "ResourceInUseException",
                "Cannot disassociate a product that has constraints in the portfolio",
            )
        found["_products"].remove(params["ProductId"])
        self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def associate_principal_with_portfolio(self, params: Params, caller: Caller) -> Params:
        """AssociatePrincipalWithPortfolio; an IAM principal has to exist."""
        found = self._portfolio(params["PortfolioId"], caller)
        arn, kind = params["PrincipalARN"], params["PrincipalType"]
        if kind == "IAM" and ":role/" in arn and grants.role(arn) is None:
            raise self.invalid(f"Invalid principal ARN: {arn} does not exist")
        row = {"PrincipalARN": arn, "PrincipalType": kind}
        if row not in found["_principals"]:
            found["_principals"].append(row)
            self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def disassociate_principal_from_portfolio(self, params: Params, caller: Caller) -> Params:
        """DisassociatePrincipalFromPortfolio."""
        found = self._portfolio(params["PortfolioId"], caller)
        kept = [r for r in found["_principals"] if r["PrincipalARN"] != params["PrincipalARN"]]
        found["_principals"] = kept
        self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def list_principals_for_portfolio(self, params: Params, caller: Caller) -> Params:
        """ListPrincipalsForPortfolio."""
        found = self._portfolio(params["PortfolioId"], caller)
        return _paged("Principals", found["_principals"], params)

    def _portfolio(self, identity: str, caller: Caller) -> Record:
        found = self.one(PORTFOLIO, identity, f"Portfolio {identity}")
        if found["_place"] != [caller.account, caller.region]:
            raise self.missing(f"Portfolio {identity} not found.")
        return found

    def _portfolios_of(self, product: str, caller: Caller) -> list[Record]:
        return [row for row in self.mine(PORTFOLIO, caller) if product in row["_products"]]

    # Products and their versions.

    def create_product(self, params: Params, caller: Caller) -> Params:
        """CreateProduct, with its first version."""
        if params["ProductType"] != "CLOUD_FORMATION_TEMPLATE":
            raise self.invalid("the sandbox knows products of CLOUD_FORMATION_TEMPLATE only")
        if "ProvisioningArtifactParameters" not in params:
            raise self.invalid("ProvisioningArtifactParameters must be given")
        identity = new_id("prod")
        record = {
            "Id": identity,
            "ARN": caller.arn(f"product/{identity}", "catalog"),
            **pick(
                params, "Name", "Owner", "Description", "Distributor", "ProductType",
                "SupportDescription", "SupportEmail", "SupportUrl",
            ),
            "CreatedTime": time.time(),
            "_tags": params.get("Tags", []),
            **place(caller),
        }  # fmt: skip
        artifact = self._new_artifact(identity, params["ProvisioningArtifactParameters"], caller)
        self.store.put(PRODUCT, identity, record)
        return {
            "ProductViewDetail": _view_detail(record),
            "ProvisioningArtifactDetail": _public(artifact),
            "Tags": record["_tags"],
        }

    def describe_product_as_admin(self, params: Params, caller: Caller) -> Params:
        """DescribeProductAsAdmin."""
        found = self._product_named(params, caller)
        return {
            "ProductViewDetail": _view_detail(found),
            "ProvisioningArtifactSummaries": [
                pick(row, "Id", "Name", "Description", "CreatedTime")
                for row in self._artifacts(found["Id"])
            ],
            "Tags": found["_tags"],
            "TagOptions": [],
            "Budgets": [],
        }

    def describe_product(self, params: Params, caller: Caller) -> Params:
        """DescribeProduct, for who may use it: active versions only."""
        found = self._product_named(params, caller)
        self._check_access(found, caller)
        rows = [row for row in self._artifacts(found["Id"]) if row["Active"]]
        return {
            "ProductViewSummary": _view(found),
            "ProvisioningArtifacts": [
                pick(row, "Id", "Name", "Description", "CreatedTime", "Guidance") for row in rows
            ],
            "LaunchPaths": [{"Id": _path(p["Id"], found["Id"]), "Name": p["DisplayName"]}
                            for p in self._paths(found, caller)],
        }  # fmt: skip

    def update_product(self, params: Params, caller: Caller) -> Params:
        """UpdateProduct."""
        found = self._product(params["Id"], caller)
        found |= pick(
            params, "Name", "Owner", "Description", "Distributor", "SupportDescription",
            "SupportEmail", "SupportUrl",
        )  # fmt: skip
        found["_tags"] = _retagged(found["_tags"], params)
        self.store.put(PRODUCT, found["Id"], found)
        return {"ProductViewDetail": _view_detail(found), "Tags": found["_tags"]}

    def delete_product(self, params: Params, caller: Caller) -> Params:
        """DeleteProduct: only one that is in no portfolio."""
        found = self._product(params["Id"], caller)
        if self._portfolios_of(found["Id"], caller):
            raise ApiError(
                "ResourceInUseException", "Product is in use: it is associated with a portfolio."
            )
        for row in self._artifacts(found["Id"]):
            self.store.delete(ARTIFACT, row["Id"])
        self.store.delete(PRODUCT, found["Id"])
        return {}

    def search_products_as_admin(self, params: Params, caller: Caller) -> Params:
        """SearchProductsAsAdmin."""
        rows = self.mine(PRODUCT, caller)
        if params.get("PortfolioId"):
            inside = self._portfolio(params["PortfolioId"], caller)["_products"]
            rows = [row for row in rows if row["Id"] in inside]
        rows = [row for row in rows if _found(row, params)]
        return _paged("ProductViewDetails", [_view_detail(row) for row in rows], params)

    def search_products(self, params: Params, caller: Caller) -> Params:
        """SearchProducts: what the caller may use."""
        rows = [
            row
            for row in self.mine(PRODUCT, caller)
            if _found(row, params) and self._paths(row, caller)
        ]
        return _paged("ProductViewSummaries", [_view(row) for row in rows], params)

    def create_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """CreateProvisioningArtifact: a new version."""
        self._product(params["ProductId"], caller)
        found = self._new_artifact(params["ProductId"], params["Parameters"], caller)
        return {
            "ProvisioningArtifactDetail": _public(found),
            "Info": {"TemplateUrl": found["_url"]},
            "Status": "AVAILABLE",
        }

    def describe_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """DescribeProvisioningArtifact."""
        product = self._product_named(
            {"Id": params.get("ProductId"), "Name": params.get("ProductName")}, caller
        )
        found = self._artifact(
            product["Id"],
            params.get("ProvisioningArtifactId"),
            params.get("ProvisioningArtifactName"),
        )
        return {
            "ProvisioningArtifactDetail": _public(found),
            "Info": {"TemplateUrl": found["_url"]},
            "Status": "AVAILABLE",
        }

    def update_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """UpdateProvisioningArtifact: name, description, Active, Guidance."""
        found = self._artifact(params["ProductId"], params["ProvisioningArtifactId"])
        found |= pick(params, "Name", "Description", "Active", "Guidance")
        self.store.put(ARTIFACT, found["Id"], found)
        return {
            "ProvisioningArtifactDetail": _public(found),
            "Info": {"TemplateUrl": found["_url"]},
            "Status": "AVAILABLE",
        }

    def delete_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """DeleteProvisioningArtifact: not the last one."""
        found = self._artifact(params["ProductId"], params["ProvisioningArtifactId"])
        if len(self._artifacts(params["ProductId"])) == 1:
            raise ApiError("ResourceInUseException", "Cannot delete the last version of a product")
        self.store.delete(ARTIFACT, found["Id"])
        return {}

    def list_provisioning_artifacts(self, params: Params, caller: Caller) -> Params:
        """ListProvisioningArtifacts."""
        self._product(params["ProductId"], caller)
        rows = [_public(row) for row in self._artifacts(params["ProductId"])]
        return {"ProvisioningArtifactDetails": rows}

    def _new_artifact(self, product: str, given: Params, caller: Caller) -> Record:
        url = (given.get("Info") or {}).get("LoadTemplateFromURL")
        if not url:
            raise self.invalid("Info must have LoadTemplateFromURL")
        # The catalog keeps the template as it is now; what is at the address may change later.
        body = self._template(url, caller)
        if not given.get("DisableTemplateValidation"):
            try:
                self._cloudformation(caller).validate_template(TemplateBody=body)
            except ClientError as error:
                raise self.invalid(
                    f"Invalid templateBody. {error.response['Error'].get('Message', '')}"
                ) from error
        identity = new_id("pa")
        record = {
            "Id": identity,
            "Name": given.get("Name", identity),
            **pick(given, "Description"),
            "Type": given.get("Type", "CLOUD_FORMATION_TEMPLATE"),
            "CreatedTime": time.time(),
            "Active": True,
            "Guidance": "DEFAULT",
            "_product": product,
            "_url": url,
            "_body": body,
            **place(caller),
        }
        self.store.put(ARTIFACT, identity, record)
        return record

    def _template(self, url: str, caller: Caller) -> str:
        from sm_mlops.sandbox.cloudformation.targets import body_of

        try:
            return body_of(
                {"TemplateURL": url},
                lambda service: self.client(service, caller.region, caller.access_key),
            )
        except ApiError as error:
            raise self.invalid(error.message) from error

    def _cloudformation(self, caller: Caller, key: str = "") -> Any:
        return self.client("cloudformation", caller.region, key or caller.access_key)

    def _product(self, identity: str, caller: Caller) -> Record:
        found = self.one(PRODUCT, identity, f"Product {identity}")
        if found["_place"] != [caller.account, caller.region]:
            raise self.missing(f"Product {identity} not found.")
        return found

    def _product_named(self, params: Params, caller: Caller) -> Record:
        if params.get("Id"):
            return self._product(params["Id"], caller)
        for row in self.mine(PRODUCT, caller):
            if row["Name"] == params.get("Name"):
                return row
        raise self.missing(f"Product {params.get('Name')} not found.")

    def _artifacts(self, product: str) -> list[Record]:
        return [row for row in self.store.all(ARTIFACT).values() if row["_product"] == product]

    def _artifact(
        self, product: str, identity: str | None = None, name: str | None = None
    ) -> Record:
        rows = self._artifacts(product)
        for row in rows:
            if identity == row["Id"] or (identity is None and name == row["Name"]):
                return row
        if identity is None and name is None:
            active = [row for row in rows if row["Active"]]
            if active:
                return active[-1]
        raise self.missing(f"ProvisioningArtifact {identity or name} not found.")

    # Constraints.

    def create_constraint(self, params: Params, caller: Caller) -> Params:
        """CreateConstraint: a launch role. Others are not known here."""
        found = self._portfolio(params["PortfolioId"], caller)
        if params["ProductId"] not in found["_products"]:
            raise self.missing(f"Product {params['ProductId']} is not in {found['Id']}")
        role = self._launch_role(params, caller)
        if any(self._constraints(found["Id"], params["ProductId"])):
            raise ApiError(
                "DuplicateResourceException", "Only one LAUNCH constraint is allowed on a product"
            )
        identity = new_id("cons")
        record = {
            "ConstraintId": identity,
            "Type": params["Type"],
            **pick(params, "Description", "PortfolioId", "ProductId"),
            "Owner": caller.account,
            "_parameters": params["Parameters"],
            "_portfolio": params["PortfolioId"],
            "_role": role,
            **place(caller),
        }
        self.store.put(CONSTRAINT, identity, record)
        return _constraint(record)

    def describe_constraint(self, params: Params, caller: Caller) -> Params:
        """DescribeConstraint."""
        return _constraint(self.one(CONSTRAINT, params["Id"], f"Constraint {params['Id']}"))

    def update_constraint(self, params: Params, caller: Caller) -> Params:
        """UpdateConstraint."""
        found = self.one(CONSTRAINT, params["Id"], f"Constraint {params['Id']}")
        if "Parameters" in params:
            changed = {"Type": found["Type"], "Parameters": params["Parameters"]}
            found["_role"] = self._launch_role(changed, caller)
            found["_parameters"] = params["Parameters"]
        found |= pick(params, "Description")
        self.store.put(CONSTRAINT, found["ConstraintId"], found)
        return _constraint(found)

    def delete_constraint(self, params: Params, caller: Caller) -> Params:
        """DeleteConstraint."""
        self.one(CONSTRAINT, params["Id"], f"Constraint {params['Id']}")
        self.store.delete(CONSTRAINT, params["Id"])
        return {}

    def list_constraints_for_portfolio(self, params: Params, caller: Caller) -> Params:
        """ListConstraintsForPortfolio."""
        self._portfolio(params["PortfolioId"], caller)
        rows = [
            _public(row)
            for row in self.store.all(CONSTRAINT).values()
            if row["_portfolio"] == params["PortfolioId"]
            and params.get("ProductId") in (None, row["ProductId"])
        ]
        return _paged("ConstraintDetails", rows, params)

    def _launch_role(self, params: Params, caller: Caller) -> str:
        if params["Type"] != "LAUNCH":
            raise self.invalid("the sandbox knows LAUNCH constraints only")
        given = json.loads(params["Parameters"])
        name = given.get("LocalRoleName")
        arn = given.get("RoleArn") or f"arn:aws:iam::{caller.account}:role/{name}"
        if not grants.trusts(arn, SERVICE):
            raise self.invalid(f"Service Catalog cannot assume the launch role {arn}")
        return str(arn)

    def _constraints(self, portfolio: str, product: str) -> list[Record]:
        return [
            row
            for row in self.store.all(CONSTRAINT).values()
            if (row["_portfolio"], row["ProductId"]) == (portfolio, product)
        ]

    # Who may use a product.

    def _paths(self, product: Record, caller: Caller) -> list[Record]:
        """Return the portfolios through which a caller may launch a product. The account's own key
        is nobody's role and may."""
        who = policies.principal(caller)
        return [
            portfolio
            for portfolio in self._portfolios_of(product["Id"], caller)
            if who.endswith(":root")
            or any(
                fnmatch.fnmatchcase(who, row["PrincipalARN"].replace(":iam:::", ":iam::*:"))
                if row["PrincipalType"] == "IAM_PATTERN"
                else row["PrincipalARN"] == who
                for row in portfolio["_principals"]
            )
        ]  # fmt: skip

    def _check_access(self, product: Record, caller: Caller) -> list[Record]:
        paths = self._paths(product, caller)
        if not paths:
            raise self.missing(
                f"Product {product['Id']} not found: no launch paths for the resource"
            )
        return paths

    def list_launch_paths(self, params: Params, caller: Caller) -> Params:
        """ListLaunchPaths."""
        product = self._product(params["ProductId"], caller)
        rows = [
            {
                "Id": _path(portfolio["Id"], product["Id"]),
                "Name": portfolio["DisplayName"],
                "ConstraintSummaries": [
                    pick(row, "Type", "Description")
                    for row in self._constraints(portfolio["Id"], product["Id"])
                ],
                "Tags": portfolio["_tags"],
            }
            for portfolio in self._check_access(product, caller)
        ]
        return _paged("LaunchPathSummaries", rows, params)

    # Provisioning.

    def provision_product(self, params: Params, caller: Caller) -> Params:
        """ProvisionProduct: a stack made with the launch role."""
        product = self._product_named(
            {"Id": params.get("ProductId"), "Name": params.get("ProductName")}, caller
        )
        paths = self._check_access(product, caller)
        artifact = self._artifact(
            product["Id"],
            params.get("ProvisioningArtifactId"),
            params.get("ProvisioningArtifactName"),
        )
        if not artifact["Active"]:
            raise self.invalid(f"ProvisioningArtifact {artifact['Id']} is not active")
        # Source: https://docs.aws.amazon.com/servicecatalog/latest/dg/API_UpdateProvisioningArtifact.html
        if artifact["Guidance"] == "DEPRECATED":
            raise self.invalid(f"ProvisioningArtifact {artifact['Id']} is deprecated")
        chosen = [
            each
            for each in paths
            if params.get("PathId") in (None, _path(each["Id"], product["Id"]))
            and params.get("PathName") in (None, each["DisplayName"])
        ]
        if not chosen:
            raise self.missing(f"Path {params.get('PathId') or params.get('PathName')} not found.")
        if len(chosen) > 1:
            raise self.invalid("There is more than one launch path: PathId must be given")
        name = params["ProvisionedProductName"]
        if any(row["Name"] == name for row in self.mine(PROVISIONED, caller)):
            raise self.invalid(f"A provisioned product with the name {name} already exists")
        constraints = self._constraints(chosen[0]["Id"], product["Id"])
        role = constraints[0]["_role"] if constraints else ""
        identity = new_id("pp")
        tags = {
            tag["Key"]: tag
            for tag in (*chosen[0]["_tags"], *product["_tags"], *params.get("Tags", []))
        }
        provisioned = {
            "Id": identity,
            "Name": name,
            "Arn": caller.arn(f"stack/{name}/{identity}", "servicecatalog"),
            "Type": "CFN_STACK",
            "Status": "UNDER_CHANGE",
            "CreatedTime": time.time(),
            "ProductId": product["Id"],
            "ProvisioningArtifactId": artifact["Id"],
            "LaunchRoleArn": role,
            "_stack": f"SC-{caller.account}-{identity}",
            "_tags": list(tags.values()),
            "_key": caller.access_key,
            **place(caller),
        }
        record = self._new_record(provisioned, "PROVISION_PRODUCT", chosen[0], caller)
        self.store.put(PROVISIONED, identity, provisioned)
        given = [
            {"ParameterKey": row["Key"], "ParameterValue": row.get("Value", "")}
            for row in params.get("ProvisioningParameters", [])
        ]

        arguments = {
            "TemplateBody": artifact["_body"],
            "Parameters": given,
            "Capabilities": CAPABILITIES,
            "Tags": provisioned["_tags"],
            "NotificationARNs": params.get("NotificationArns", []),
        }
        self._begin(record, provisioned, "create_stack", arguments)
        return {"RecordDetail": _public(record)}

    def update_provisioned_product(self, params: Params, caller: Caller) -> Params:
        """UpdateProvisionedProduct: another version or other parameters."""
        provisioned = self._provisioned(params, caller)
        self._check_settled(provisioned)
        artifact = self._artifact(
            params.get("ProductId") or provisioned["ProductId"],
            params.get("ProvisioningArtifactId"),
            params.get("ProvisioningArtifactName"),
        )
        given: list[Params] = []
        for row in params.get("ProvisioningParameters", []):
            value: Params = {"ParameterValue": row.get("Value", "")}
            if row.get("UsePreviousValue"):
                value = {"UsePreviousValue": True}
            given.append({"ParameterKey": row["Key"], **value})
        provisioned |= {"Status": "UNDER_CHANGE", "ProvisioningArtifactId": artifact["Id"]}
        self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        record = self._new_record(provisioned, "UPDATE_PROVISIONED_PRODUCT", None, caller)

        arguments = {
            "TemplateBody": artifact["_body"],
            "Parameters": given,
            "Capabilities": CAPABILITIES,
        }
        self._begin(record, provisioned, "update_stack", arguments)
        return {"RecordDetail": _public(record)}

    def terminate_provisioned_product(self, params: Params, caller: Caller) -> Params:
        """TerminateProvisionedProduct."""
        provisioned = self._provisioned(params, caller)
        self._check_settled(provisioned)
        provisioned["Status"] = "UNDER_CHANGE"
        self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        record = self._new_record(provisioned, "TERMINATE_PROVISIONED_PRODUCT", None, caller)

        retain = params.get("RetainPhysicalResources")
        self._begin(record, provisioned, "" if retain else "delete_stack", {})
        return {"RecordDetail": _public(record)}

    def _check_settled(self, provisioned: Record) -> None:
        if provisioned["Status"] == "UNDER_CHANGE":
            raise ApiError(
                "InvalidStateException", f"{provisioned['Name']} is under change already"
            )

    def describe_record(self, params: Params, caller: Caller) -> Params:
        """DescribeRecord."""
        found = self.one(RECORD, params["Id"], f"Record {params['Id']}")
        return {"RecordDetail": _public(found), "RecordOutputs": found["_outputs"]}

    def list_record_history(self, params: Params, caller: Caller) -> Params:
        """ListRecordHistory, newest first."""
        wanted = params.get("SearchFilter", {})
        rows = [
            _public(row)
            for row in reversed(self.mine(RECORD, caller))
            if wanted.get("Key") != "provisionedproduct"
            or row["ProvisionedProductId"] == wanted.get("Value")
        ]
        return _paged("RecordDetails", rows, params)

    def describe_provisioned_product(self, params: Params, caller: Caller) -> Params:
        """DescribeProvisionedProduct."""
        found = self._provisioned(
            {
                "ProvisionedProductId": params.get("Id"),
                "ProvisionedProductName": params.get("Name"),
            },
            caller,
        )
        return {"ProvisionedProductDetail": _public(found), "CloudWatchDashboards": []}

    def search_provisioned_products(self, params: Params, caller: Caller) -> Params:
        """SearchProvisionedProducts: queries such as name:x, productId:x, status:AVAILABLE."""
        rows = []
        for row in self.mine(PROVISIONED, caller):
            found = {**_public(row), "PhysicalId": row.get("_stack_id", ""), "Tags": row["_tags"]}
            texts = (params.get("Filters") or {}).get("SearchQuery", [])
            if all(_queried(found, text) for text in texts):
                rows.append(found)
        answer = _paged("ProvisionedProducts", rows, params)
        return {**answer, "TotalResultsCount": len(rows)}

    def scan_provisioned_products(self, params: Params, caller: Caller) -> Params:
        """ScanProvisionedProducts."""
        rows = [_public(row) for row in self.mine(PROVISIONED, caller)]
        return _paged("ProvisionedProducts", rows, params)

    def get_provisioned_product_outputs(self, params: Params, caller: Caller) -> Params:
        """GetProvisionedProductOutputs."""
        found = self._provisioned(params, caller)
        last = self.one(RECORD, found["LastRecordId"], "Record")
        return {"Outputs": last["_outputs"]}

    def _provisioned(self, params: Params, caller: Caller) -> Record:
        identity = params.get("ProvisionedProductId")
        name = params.get("ProvisionedProductName")
        for row in self.mine(PROVISIONED, caller):
            if row["Id"] == identity or (not identity and row["Name"] == name):
                return row
        raise self.missing(f"Provisioned product {identity or name} not found.")

    def _new_record(
        self, provisioned: Record, kind: str, path: Record | None, caller: Caller
    ) -> Record:
        identity = new_id("rec")
        record = {
            "RecordId": identity,
            "ProvisionedProductName": provisioned["Name"],
            "ProvisionedProductId": provisioned["Id"],
            "ProvisionedProductType": "CFN_STACK",
            "Status": "CREATED",
            "RecordType": kind,
            "CreatedTime": time.time(),
            "UpdatedTime": time.time(),
            **pick(provisioned, "ProductId", "ProvisioningArtifactId", "LaunchRoleArn"),
            "RecordErrors": [],
            "RecordTags": provisioned["_tags"],
            "_outputs": [],
            **place(caller),
        }
        if path:
            record["PathId"] = _path(path["Id"], provisioned["ProductId"])
        provisioned["LastRecordId"] = identity
        self.store.put(RECORD, identity, record)
        return record

    # What runs.

    def _begin(
        self, record: Record, provisioned: Record, operation: str, arguments: Params
    ) -> None:
        # Written down first: a restart goes on from here.
        record |= {"_operation": operation, "_arguments": arguments}
        self.store.put(RECORD, record["RecordId"], record)
        self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        self._work(record, provisioned)

    def _work(self, record: Record, provisioned: Record) -> None:
        name = record["RecordId"]
        self._working.add(name)
        threading.Thread(
            target=self._run, args=(record, provisioned), name=name, daemon=True
        ).start()

    def _run(self, record: Record, provisioned: Record) -> None:
        try:
            self._end(record, provisioned, *self._follow(record, provisioned))
        except Exception as error:
            if not self.closing.is_set():
                self._end(record, provisioned, None, f"{type(error).__name__}: {error}")
                raise
        finally:
            self._working.discard(record["RecordId"])
            if not self.closing.is_set():
                self.on_idle()

    def _follow(self, record: Record, provisioned: Record) -> tuple[Params | None, str]:
        """Return the stack at the end and what went wrong, "" for nothing."""
        account, region = provisioned["_place"]
        caller = Caller(account, region, provisioned["_key"])
        key, role = caller.access_key, provisioned["LaunchRoleArn"]
        if role:
            if not grants.trusts(role, SERVICE):
                return None, f"Service Catalog cannot assume the launch role {role}"
            key = grants.session(role, "servicecatalog", region)["AWS_ACCESS_KEY_ID"]
        cloudformation = self._cloudformation(caller, key)
        record |= {"Status": "IN_PROGRESS", "UpdatedTime": time.time()}
        self.store.put(RECORD, record["RecordId"], record)
        name = provisioned.get("_stack_id") or provisioned["_stack"]
        # A watcher of its own: a launch role need not be allowed to describe stacks.
        watcher = self._cloudformation(Caller(account, region, ""), "")
        try:
            self._call(record, provisioned, cloudformation)
            while not self.closing.wait(POLL_SECONDS):
                stack = watcher.describe_stacks(StackName=name)["Stacks"][0]
                provisioned["_stack_id"] = name = stack["StackId"]
                self.store.put(PROVISIONED, provisioned["Id"], provisioned)
                if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                    return stack, _problem(watcher, stack)
        except ClientError as error:
            if self.closing.is_set():
                raise
            gone = "does not exist" in str(error)
            if gone and record["RecordType"].startswith("TERMINATE"):
                return None, ""
            return None, str(error.response["Error"].get("Message", error))
        raise RuntimeError("closing")

    def _call(self, record: Record, provisioned: Record, cloudformation: Any) -> None:
        """Ask CloudFormation for what a record is about, once."""
        operation = record["_operation"]
        if not operation or record.get("_asked"):
            return
        try:
            getattr(cloudformation, operation)(
                StackName=provisioned["_stack"], **record["_arguments"]
            )
        except ClientError as error:
            # A restart may come between the question and the note that it was asked.
            again = error.response["Error"]["Code"] == "AlreadyExistsException"
            if not again and "No updates are to be performed" not in str(error):
                raise
        record["_asked"] = True
        self.store.put(RECORD, record["RecordId"], record)

    def _end(self, record: Record, provisioned: Record, stack: Params | None, problem: str) -> None:
        now = time.time()
        record |= {"Status": "FAILED" if problem else "SUCCEEDED", "UpdatedTime": now}
        if problem:
            record["RecordErrors"] = [{"Code": "CFN_STACK", "Description": problem[:1000]}]
        if stack and stack.get("Outputs"):
            record["_outputs"] = [
                {
                    "OutputKey": row["OutputKey"],
                    "OutputValue": row["OutputValue"],
                    "Description": row.get("Description", ""),
                }
                for row in stack["Outputs"]
            ]
        ends = record["RecordType"] == "TERMINATE_PROVISIONED_PRODUCT" and not problem
        updates = record["RecordType"].startswith("UPDATE")
        if ends:
            self.store.delete(PROVISIONED, provisioned["Id"])
        else:
            failed = "TAINTED" if updates else "ERROR"
            provisioned["Status"] = failed if problem else "AVAILABLE"
            provisioned["StatusMessage"] = problem[:1000]
            self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        self.store.put(RECORD, record["RecordId"], record)

    def recover(self) -> None:
        """Follow what was under way before a restart."""
        for record in list(self.store.all(RECORD).values()):
            provisioned = self.store.get(PROVISIONED, record["ProvisionedProductId"])
            if record["Status"] in ("CREATED", "IN_PROGRESS") and provisioned:
                self._work(record, provisioned)

    def busy(self) -> bool:
        """Tell whether something is being provisioned."""
        return bool(self._working)


def _problem(cloudformation: Any, stack: Params) -> str:
    if stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"):
        return ""
    events = cloudformation.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    failed = [
        f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason")
    ]
    return failed[0] if failed else f"the stack ended in {stack['StackStatus']}"


def _public(record: Record) -> Params:
    return {
        name: value
        for name, value in record.items()
        if not name.startswith("_") and value not in ("", None)
    }


def _view(record: Record) -> Params:
    shown = pick(record, "Name", "Owner", "Distributor", "SupportEmail", "SupportUrl")
    return {
        "Id": f"prodview-{record['Id'][5:]}",
        "ProductId": record["Id"],
        "Type": record["ProductType"],
        "ShortDescription": record.get("Description", ""),
        "HasDefaultPath": False,
        **shown,
    }


def _view_detail(record: Record) -> Params:
    return {
        "ProductViewSummary": _view(record),
        "Status": "AVAILABLE",
        "ProductARN": record["ARN"],
        "CreatedTime": record["CreatedTime"],
    }


def _constraint(record: Record) -> Params:
    return {
        "ConstraintDetail": _public(record),
        "ConstraintParameters": record["_parameters"],
        "Status": "AVAILABLE",
    }


def _path(portfolio: str, product: str) -> str:
    return f"lpv3-{hashlib.sha256(f'{portfolio}{product}'.encode()).hexdigest()[:13]}"


def _retagged(tags: list[Params], params: Params) -> list[Params]:
    gone = set(params.get("RemoveTags", []))
    found = {tag["Key"]: tag for tag in (*tags, *params.get("AddTags", []))}
    return [tag for key, tag in found.items() if key not in gone]


def _found(record: Record, params: Params) -> bool:
    filters = params.get("Filters") or {}
    texts = {
        "FullTextSearch": f"{record['Name']} {record.get('Description', '')}",
        "Owner": record["Owner"],
        "ProductType": record["ProductType"],
    }
    return all(
        any(value.lower() in texts.get(name, "").lower() for value in values)
        for name, values in filters.items()
    )


def _queried(found: Params, text: str) -> bool:
    name, separator, value = text.partition(":")
    if not separator:
        return text.lower() in json.dumps(found).lower()
    for member, held in found.items():
        if member.lower() == name.lower():
            return str(held).lower() == value.strip('"').lower()
    return False


def _paged(name: str, rows: list[Any], params: Params) -> Params:
    size = int(params.get("PageSize") or 20)
    start = int(params.get("PageToken") or 0)
    token = {"NextPageToken": str(start + size)} if start + size < len(rows) else {}
    return {name: rows[start : start + size], **token}
