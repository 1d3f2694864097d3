"""Service Catalog's API: portfolios, products and their versions, constraints and grants.

Replaces moto's, which has no constraints and no versions. `provisioning` makes stacks of products.
Source: https://docs.aws.amazon.com/servicecatalog/latest/dg/API_Reference.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops.sandbox import grants, identities, policies
from sm_mlops.sandbox.services import JsonService, new_id, place
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented, pick, public

PORTFOLIO, PRODUCT, ARTIFACT, CONSTRAINT, PROVISIONED = (
    "CatalogPortfolio",
    "CatalogProduct",
    "CatalogArtifact",
    "CatalogConstraint",
    "CatalogProvisioned",
)
SERVICE = "servicecatalog.amazonaws.com"
Client = Callable[[str, str, str], Any]
"""Service, region, access key."""


class Catalog(JsonService):
    """Operations of Service Catalog. Keys of records are ids."""

    service = "servicecatalog"
    codes = ("InvalidParametersException", "ResourceNotFoundException")
    # How often a new grant is not seen yet: AWS's is eventually consistent. Tests raise it.
    late = 0

    def __init__(self, store: Store, client: Client) -> None:
        super().__init__(store)
        self._unseen: dict[str, int] = {}
        self.client = client

    # Portfolios.

    def create_portfolio(self, params: Params, caller: Caller) -> Params:
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
        return {"PortfolioDetail": public(record), "Tags": record["_tags"]}

    def delete_portfolio(self, params: Params, caller: Caller) -> Params:
        """Answer DeletePortfolio, for an empty one only."""
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
        rows = [public(row) for row in self.mine(PORTFOLIO, caller)]
        return _paged("PortfolioDetails", rows, params)

    def associate_product_with_portfolio(self, params: Params, caller: Caller) -> Params:
        """Answer AssociateProductWithPortfolio, which is idempotent."""
        found = self._portfolio(params["PortfolioId"], caller)
        self.product(params["ProductId"], caller)
        if params["ProductId"] not in found["_products"]:
            found["_products"].append(params["ProductId"])
            self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def disassociate_product_from_portfolio(self, params: Params, caller: Caller) -> Params:
        """Answer DisassociateProductFromPortfolio; refuse it while the pair has a constraint."""
        found = self._portfolio(params["PortfolioId"], caller)
        if params["ProductId"] not in found["_products"]:
            raise self.missing(f"Product {params['ProductId']} is not in {found['Id']}")
        if any(self.constraints(found["Id"], params["ProductId"])):
            raise ApiError(
                "ResourceInUseException",
                "Cannot disassociate a product that has constraints in the portfolio",
            )
        found["_products"].remove(params["ProductId"])
        self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def associate_principal_with_portfolio(self, params: Params, caller: Caller) -> Params:
        """Answer AssociatePrincipalWithPortfolio; an IAM principal has to exist."""
        found = self._portfolio(params["PortfolioId"], caller)
        arn, kind = params["PrincipalARN"], params["PrincipalType"]
        if kind != "IAM":
            raise not_implemented(f"PrincipalType {kind} of servicecatalog")
        if ":role/" in arn and identities.role(arn, caller.region) is None:
            raise self.invalid(f"Invalid principal ARN: {arn} does not exist")
        row = {"PrincipalARN": arn, "PrincipalType": kind}
        if row not in found["_principals"]:
            found["_principals"].append(row)
            self._unseen[arn] = self.late
            self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def disassociate_principal_from_portfolio(self, params: Params, caller: Caller) -> Params:
        found = self._portfolio(params["PortfolioId"], caller)
        kept = [r for r in found["_principals"] if r["PrincipalARN"] != params["PrincipalARN"]]
        found["_principals"] = kept
        self.store.put(PORTFOLIO, found["Id"], found)
        return {}

    def list_principals_for_portfolio(self, params: Params, caller: Caller) -> Params:
        found = self._portfolio(params["PortfolioId"], caller)
        return _paged("Principals", found["_principals"], params)

    def _portfolio(self, identity: str, caller: Caller) -> Record:
        return self.one(PORTFOLIO, identity, f"Portfolio {identity}", caller)

    def _portfolios_of(self, product: str, caller: Caller) -> list[Record]:
        return [row for row in self.mine(PORTFOLIO, caller) if product in row["_products"]]

    # Products and their versions.

    def create_product(self, params: Params, caller: Caller) -> Params:
        """Answer CreateProduct, with its first version."""
        if params["ProductType"] != "CLOUD_FORMATION_TEMPLATE":
            raise not_implemented(f"ProductType {params['ProductType']} of servicecatalog")
        if "ProvisioningArtifactParameters" not in params:
            raise self.invalid("ProvisioningArtifactParameters must be given")
        identity = new_id("prod")
        record = {
            "Id": identity,
            "ARN": caller.arn(f"product/{identity}", "catalog"),
            **pick(params, "Name", "Owner", "Description", "ProductType"),
            "CreatedTime": time.time(),
            "_tags": params.get("Tags", []),
            **place(caller),
        }
        artifact = self._new_artifact(identity, params["ProvisioningArtifactParameters"], caller)
        self.store.put(PRODUCT, identity, record)
        return {
            "ProductViewDetail": _view_detail(record),
            "ProvisioningArtifactDetail": public(artifact),
            "Tags": record["_tags"],
        }

    def describe_product_as_admin(self, params: Params, caller: Caller) -> Params:
        found = self.product(params["Id"], caller)
        return {"ProductViewDetail": _view_detail(found), "Tags": found["_tags"]}

    def update_product(self, params: Params, caller: Caller) -> Params:
        found = self.product(params["Id"], caller)
        found |= pick(params, "Name", "Owner", "Description")
        found["_tags"] = _retagged(found["_tags"], params)
        self.store.put(PRODUCT, found["Id"], found)
        return {"ProductViewDetail": _view_detail(found), "Tags": found["_tags"]}

    def delete_product(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteProduct; refuse it for a product in a portfolio."""
        found = self.product(params["Id"], caller)
        if self._portfolios_of(found["Id"], caller):
            raise ApiError(
                "ResourceInUseException", "Product is in use: it is associated with a portfolio."
            )
        for row in self._artifacts(found["Id"]):
            self.store.delete(ARTIFACT, row["Id"])
        self.store.delete(PRODUCT, found["Id"])
        return {}

    def search_products_as_admin(self, params: Params, caller: Caller) -> Params:
        rows = [_view_detail(row) for row in self.mine(PRODUCT, caller)]
        return _paged("ProductViewDetails", rows, params)

    def create_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """Answer CreateProvisioningArtifact: a new version."""
        self.product(params["ProductId"], caller)
        found = self._new_artifact(params["ProductId"], params["Parameters"], caller)
        return {"ProvisioningArtifactDetail": public(found), "Status": "AVAILABLE"}

    def describe_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        found = self.artifact(params["ProductId"], params["ProvisioningArtifactId"])
        return {"ProvisioningArtifactDetail": public(found), "Status": "AVAILABLE"}

    def update_provisioning_artifact(self, params: Params, caller: Caller) -> Params:
        """Answer UpdateProvisioningArtifact: name, description, Active, Guidance."""
        found = self.artifact(params["ProductId"], params["ProvisioningArtifactId"])
        found |= pick(params, "Name", "Description", "Active", "Guidance")
        self.store.put(ARTIFACT, found["Id"], found)
        return {"ProvisioningArtifactDetail": public(found), "Status": "AVAILABLE"}

    def list_provisioning_artifacts(self, params: Params, caller: Caller) -> Params:
        self.product(params["ProductId"], caller)
        rows = [public(row) for row in self._artifacts(params["ProductId"])]
        return {"ProvisioningArtifactDetails": rows}

    def _new_artifact(self, product: str, given: Params, caller: Caller) -> Record:
        from sm_mlops.sandbox.cloudformation.targets import body_of

        def client(service: str) -> Any:
            return self.client(service, caller.region, caller.access_key)

        url = (given.get("Info") or {}).get("LoadTemplateFromURL")
        if not url:
            raise self.invalid("Info must have LoadTemplateFromURL")
        # The catalog keeps a copy: the object at the address may change later.
        try:
            body = body_of({"TemplateURL": url}, client)
            client("cloudformation").validate_template(TemplateURL=url)
        except ApiError as error:
            raise self.invalid(error.message) from error
        except ClientError as error:
            raise self.invalid(
                f"Invalid templateBody. {error.response['Error'].get('Message', '')}"
            ) from error
        identity = new_id("pa")
        record = {
            "Id": identity,
            "Name": given.get("Name", identity),
            **pick(given, "Description"),
            "CreatedTime": time.time(),
            "Active": True,
            "Guidance": "DEFAULT",
            "_product": product,
            "_body": body,
            **place(caller),
        }
        self.store.put(ARTIFACT, identity, record)
        return record

    def product(self, identity: str, caller: Caller) -> Record:
        return self.one(PRODUCT, identity, f"Product {identity}", caller)

    def _artifacts(self, product: str) -> list[Record]:
        return [row for row in self.store.all(ARTIFACT).values() if row["_product"] == product]

    def artifact(self, product: str, identity: str | None) -> Record:
        """Return a version of a product, by default the newest active one."""
        for row in reversed(self._artifacts(product)):
            if identity == row["Id"] or (identity is None and row["Active"]):
                return row
        raise self.missing(f"ProvisioningArtifact {identity} not found.")

    # Constraints.

    def create_constraint(self, params: Params, caller: Caller) -> Params:
        """Answer CreateConstraint: a launch role. Other types are not implemented."""
        found = self._portfolio(params["PortfolioId"], caller)
        if params["ProductId"] not in found["_products"]:
            raise self.missing(f"Product {params['ProductId']} is not in {found['Id']}")
        role = self._launch_role(params, caller)
        if any(self.constraints(found["Id"], params["ProductId"])):
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
        return _constraint(self.one(CONSTRAINT, params["Id"], f"Constraint {params['Id']}", caller))

    def delete_constraint(self, params: Params, caller: Caller) -> Params:
        self.one(CONSTRAINT, params["Id"], f"Constraint {params['Id']}", caller)
        self.store.delete(CONSTRAINT, params["Id"])
        return {}

    def list_constraints_for_portfolio(self, params: Params, caller: Caller) -> Params:
        self._portfolio(params["PortfolioId"], caller)
        rows = [
            public(row)
            for row in self.store.all(CONSTRAINT).values()
            if row["_portfolio"] == params["PortfolioId"]
            and params.get("ProductId") in (None, row["ProductId"])
        ]
        return _paged("ConstraintDetails", rows, params)

    def _launch_role(self, params: Params, caller: Caller) -> str:
        given = json.loads(params["Parameters"])
        if params["Type"] != "LAUNCH" or list(given) != ["RoleArn"]:
            what = f"{params['Type']} constraints with {', '.join(given)}"
            raise not_implemented(f"{what} of servicecatalog")
        arn = given["RoleArn"]
        if not grants.trusts(arn, SERVICE):
            raise self.invalid(f"Service Catalog cannot assume the launch role {arn}")
        return str(arn)

    def constraints(self, portfolio: str, product: str) -> list[Record]:
        return [
            row
            for row in self.store.all(CONSTRAINT).values()
            if (row["_portfolio"], row["ProductId"]) == (portfolio, product)
        ]

    # Launch paths.

    def launch_paths(self, product: Record, caller: Caller) -> list[Record]:
        """Return the portfolios from which a caller may launch a product: all for the sandbox's
        own key. Raises ApiError if there are none."""
        who = policies.principal(caller)
        paths = [
            portfolio
            for portfolio in self._portfolios_of(product["Id"], caller)
            if who.endswith(":root")
            or any(row["PrincipalARN"] == who for row in portfolio["_principals"])
        ]
        self._unseen[who] = unseen = self._unseen.get(who, 0) - 1
        if not paths or unseen >= 0:
            raise self.missing(
                f"Product {product['Id']} not found: no launch paths for the resource"
            )
        return paths

    def list_launch_paths(self, params: Params, caller: Caller) -> Params:
        found = self.launch_paths(self.product(params["ProductId"], caller), caller)
        rows = [{"Id": row["Id"], "Name": row["DisplayName"]} for row in found]
        return _paged("LaunchPathSummaries", rows, params)

    def search_provisioned_products(self, params: Params, caller: Caller) -> Params:
        """Answer SearchProvisionedProducts: queries such as name:x or productId:x."""
        texts = (params.get("Filters") or {}).get("SearchQuery", [])
        found = [public(row) for row in self.mine(PROVISIONED, caller)]
        rows = [row for row in found if all(_queried(row, text) for text in texts)]
        return _paged("ProvisionedProducts", rows, params)


def _view_detail(record: Record) -> Params:
    return {
        "ProductViewSummary": {"ProductId": record["Id"], **pick(record, "Name", "Owner")},
        "ProductARN": record["ARN"],
    }


def _constraint(record: Record) -> Params:
    return {
        "ConstraintDetail": public(record),
        "ConstraintParameters": record["_parameters"],
        "Status": "AVAILABLE",
    }


def _retagged(tags: list[Params], params: Params) -> list[Params]:
    gone = set(params.get("RemoveTags", []))
    found = {tag["Key"]: tag for tag in (*tags, *params.get("AddTags", []))}
    return [tag for key, tag in found.items() if key not in gone]


def _queried(found: Params, text: str) -> bool:
    name, separator, value = text.partition(":")
    if not separator:
        raise not_implemented(f"the query {text!r} of servicecatalog:SearchProvisionedProducts")
    held = {member.lower(): str(value).lower() for member, value in found.items()}
    return held.get(name.lower()) == value.strip('"').lower()


def _paged(name: str, rows: list[Any], params: Params) -> Params:
    size = int(params.get("PageSize") or 20)
    start = int(params.get("PageToken") or 0)
    token = {"NextPageToken": str(start + size)} if start + size < len(rows) else {}
    return {name: rows[start : start + size], **token}
