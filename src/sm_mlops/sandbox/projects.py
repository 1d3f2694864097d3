"""SageMaker projects and code repositories.

A project is what Service Catalog provisions, or a CloudFormation stack from a template in S3.
Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProject.html
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops.sandbox import grants, wire
from sm_mlops.sandbox.provisioning import CAPABILITIES, RECORD, Provisioning, as_parameters, problem
from sm_mlops.sandbox.services import new_id
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, Params, invalid, not_implemented, pick, public

PROJECT, REPOSITORY = "Project", "CodeRepository"
POLL_SECONDS = 0.05
# The parameters that SageMaker sets once, when it creates the project.
KEPT: Params = {"SageMakerProjectName": None, "SageMakerProjectId": None}
MOVING = ("Pending", "CreateInProgress", "DeleteInProgress", "UpdateInProgress")


class Projects:
    """Operations on projects and code repositories. Keys of records are ARNs."""

    def __init__(
        self, store: Store, provisioning: Provisioning, client: Callable[..., Any]
    ) -> None:
        self.store, self.provisioning, self.client = store, provisioning, client
        self.on_idle: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._working: set[str] = set()

    def create_project(self, params: Params, caller: Caller) -> Params:
        name, details = params["ProjectName"], params.get("ServiceCatalogProvisioningDetails")
        providers = params.get("TemplateProviders")
        if bool(details) == bool(providers):
            raise invalid(
                "Exactly one of ServiceCatalogProvisioningDetails and TemplateProviders must be "
                "given"
            )
        arn = caller.arn(f"project/{name}")
        known = self.store.get(PROJECT, arn)
        if known is not None and known["ProjectStatus"] != "DeleteCompleted":
            raise invalid(f"Project already exists: {arn}")
        identity = f"p-{new_id('x', 12)[2:]}"
        record = {
            "ProjectArn": arn,
            "ProjectName": name,
            "ProjectId": identity,
            **pick(params, "ProjectDescription"),
            "ProjectStatus": "CreateInProgress",
            "CreationTime": time.time(),
            "_tags": params.get("Tags", []),
            "_key": caller.access_key,
        }
        own = {"SageMakerProjectName": name, "SageMakerProjectId": identity}
        tags = [
            {"Key": "sagemaker:project-name", "Value": name},
            {"Key": "sagemaker:project-id", "Value": identity},
            *record["_tags"],
        ]
        if details:
            record["ServiceCatalogProvisioningDetails"] = details
            given = own | _values(details.get("ProvisioningParameters", []))
            self._provision(record, details, given, tags, caller)
        else:
            assert providers is not None
            self._stack(record, providers, own, tags, caller)
        self.store.put(PROJECT, arn, record)
        self._work(arn)
        return {"ProjectArn": arn, "ProjectId": identity}

    def _provision(
        self, record: Record, details: Params, given: Params, tags: list[Params], caller: Caller
    ) -> None:
        try:
            name = f"{record['ProjectName']}-{record['ProjectId']}"
            made = self.provisioning.create(details, name, given, tags, caller)
        except wire.ApiError as error:
            raise invalid(f"Cannot provision the product: {error.message}") from error
        record["_record"] = made["RecordId"]
        record["ServiceCatalogProvisionedProductDetails"] = pick(made, "ProvisionedProductId")

    def _stack(
        self,
        record: Record,
        providers: list[Params],
        own: Params,
        tags: list[Params],
        caller: Caller,
    ) -> None:
        if len(providers) != 1 or "CfnTemplateProvider" not in providers[0]:
            raise invalid("TemplateProviders must hold one CfnTemplateProvider")
        provider = providers[0]["CfnTemplateProvider"]
        role = provider.get("RoleARN")
        if role and not grants.sees(role, "cloudformation.amazonaws.com"):
            raise invalid(f"Role {role} is invalid or cannot be assumed by CloudFormation")
        given = own | _values(provider.get("Parameters", []))
        name = f"sagemaker-{record['ProjectName']}-{record['ProjectId']}"
        try:
            made = self.client("cloudformation", caller.region, caller.access_key).create_stack(
                StackName=name,
                **({"RoleARN": role} if role else {}),
                TemplateURL=provider["TemplateURL"],
                Parameters=as_parameters(given),
                Capabilities=CAPABILITIES,
                Tags=tags,
            )
        except ClientError as error:
            raise invalid(error.response["Error"].get("Message", str(error))) from error
        record["_stack"] = made["StackId"]
        shown = pick(provider, "TemplateName", "TemplateURL", "RoleARN", "Parameters")
        detail = {**shown, "StackDetail": {"Name": name, "Id": made["StackId"]}}
        record["TemplateProviderDetails"] = [{"CfnTemplateProviderDetail": detail}]

    def describe_project(self, params: Params, caller: Caller) -> Params:
        return public(self._project(params["ProjectName"], caller))

    def list_projects(self, params: Params, caller: Caller) -> Params:
        found = self.store.all(PROJECT).items()
        rows = [row for arn, row in found if arn.startswith(caller.arn(""))]
        rows, token = wire.listed("ListProjects", rows, params, ascending=True)
        names = (
            "ProjectName", "ProjectDescription", "ProjectArn", "ProjectId", "CreationTime",
            "ProjectStatus",
        )  # fmt: skip
        return {"ProjectSummaryList": [pick(row, *names) for row in rows], **token}

    def update_project(self, params: Params, caller: Caller) -> Params:
        given = set(params) - {"ProjectName"}
        providers = params.get("TemplateProvidersToUpdate")
        if given not in (
            {"ServiceCatalogProvisioningUpdateDetails"},
            {"TemplateProvidersToUpdate"},
        ):
            raise not_implemented(f"{', '.join(sorted(given))} of sagemaker:UpdateProject")
        record = self._project(params["ProjectName"], caller)
        if record["ProjectStatus"] in MOVING:
            raise invalid(f"Project {record['ProjectName']} is in status {record['ProjectStatus']}")
        update = params.get("ServiceCatalogProvisioningUpdateDetails")
        if update:
            shown = record["ServiceCatalogProvisionedProductDetails"]
            values = KEPT | _values(update.get("ProvisioningParameters", []))
            made = self.provisioning.update(
                shown["ProvisionedProductId"], update.get("ProvisioningArtifactId"), values, caller
            )
            record |= {"_record": made["RecordId"], "ProjectStatus": "UpdateInProgress"}
        elif providers and self._update_stack(record, providers, caller):
            record["ProjectStatus"] = "UpdateInProgress"
        self.store.put(PROJECT, record["ProjectArn"], record)
        if record["ProjectStatus"] == "UpdateInProgress":
            self._work(record["ProjectArn"])
        return {"ProjectArn": record["ProjectArn"]}

    def _update_stack(self, record: Record, providers: list[Params], caller: Caller) -> bool:
        """Start to update a project's stack; return whether anything differs."""
        if "_stack" not in record or set(providers[0]) != {"CfnTemplateProvider"}:
            raise invalid(f"Project {record['ProjectName']} has no template provider of this kind")
        provider = providers[0]["CfnTemplateProvider"]
        detail = record["TemplateProviderDetails"][0]["CfnTemplateProviderDetail"]
        given = _values(provider.get("Parameters", []))
        try:
            self.client("cloudformation", caller.region, caller.access_key).update_stack(
                StackName=record["_stack"],
                TemplateURL=provider["TemplateURL"],
                Parameters=as_parameters(given) + as_parameters(KEPT),
                Capabilities=CAPABILITIES,
                **pick(detail, "RoleARN"),
            )
        except ClientError as error:
            message = error.response["Error"].get("Message", str(error))
            if "No updates are to be performed" in message:
                return False
            raise invalid(message) from error
        detail |= pick(provider, "TemplateName", "TemplateURL", "Parameters")
        return True

    def delete_project(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteProject, with what was provisioned for it."""
        record = self._project(params["ProjectName"], caller)
        if record["ProjectStatus"] in MOVING or record["ProjectStatus"] == "DeleteCompleted":
            raise invalid(f"Project {record['ProjectName']} is in status {record['ProjectStatus']}")
        shown = record.get("ServiceCatalogProvisionedProductDetails")
        if shown:
            try:
                made = self.provisioning.delete(shown["ProvisionedProductId"], caller)
            except wire.ApiError as error:
                raise invalid(error.message) from error
            record["_record"] = made["RecordId"] if made else ""
        else:
            self.client("cloudformation", caller.region, record["_key"]).delete_stack(
                StackName=record["_stack"]
            )
        record |= {"ProjectStatus": "DeleteInProgress"}
        self.store.put(PROJECT, record["ProjectArn"], record)
        self._work(record["ProjectArn"])
        return {}

    def _project(self, name: str, caller: Caller) -> Record:
        arn = caller.arn(f"project/{name}")
        return self.store.find(PROJECT, arn, invalid(f"Project {name} does not exist."))

    # What runs.

    def _work(self, arn: str) -> None:
        self._working.add(arn)
        threading.Thread(target=self._follow, args=(arn,), name=arn, daemon=True).start()

    def _follow(self, arn: str) -> None:
        try:
            while not self._closing.wait(POLL_SECONDS):
                record = self.store.get(PROJECT, arn)
                assert record is not None
                ended, problem = self._look(record)
                if ended:
                    self._end(record, problem)
                    return
        except Exception:
            if not self._closing.is_set():
                raise
        finally:
            self._working.discard(arn)
            if not self._closing.is_set():
                self.on_idle()

    def _look(self, record: Record) -> tuple[bool, str]:
        """Return whether the operation has ended, and what went wrong."""
        if record.get("_record"):
            found = self.store.get(RECORD, record["_record"])
            assert found is not None
            if found["Status"] not in ("SUCCEEDED", "FAILED"):
                return False, ""
            return True, "; ".join(row["Description"] for row in found["RecordErrors"])
        if "_stack" not in record:
            return True, ""
        region = record["ProjectArn"].split(":")[3]
        cloudformation = self.client("cloudformation", region, record["_key"])
        stack = cloudformation.describe_stacks(StackName=record["_stack"])["Stacks"][0]
        if stack["StackStatus"].endswith("_IN_PROGRESS"):
            return False, ""
        return True, problem(cloudformation, stack)

    def _end(self, record: Record, problem: str) -> None:
        begun = record["ProjectStatus"].removesuffix("InProgress")
        record["ProjectStatus"] = f"{begun}{'Failed' if problem else 'Completed'}"
        shown = record.get("ServiceCatalogProvisionedProductDetails")
        if shown is not None:
            shown["ProvisionedProductStatusMessage"] = problem
        for row in record.get("TemplateProviderDetails", []):
            row["CfnTemplateProviderDetail"]["StackDetail"]["StatusMessage"] = problem[:1024]
        self.store.put(PROJECT, record["ProjectArn"], record)

    def recover(self) -> None:
        for arn, record in list(self.store.all(PROJECT).items()):
            if record["ProjectStatus"] in MOVING:
                self._work(arn)

    def busy(self) -> bool:
        return bool(self._working)

    def close(self) -> None:
        self._closing.set()

    # Code repositories.

    def create_code_repository(self, params: Params, caller: Caller) -> Params:
        arn = caller.arn(f"code-repository/{params['CodeRepositoryName'].lower()}")
        if self.store.get(REPOSITORY, arn) is not None:
            raise invalid(f"Cannot create already existing code repository: {arn}")
        record = {
            "CodeRepositoryName": params["CodeRepositoryName"],
            "CodeRepositoryArn": arn,
            "GitConfig": params["GitConfig"],
            "CreationTime": time.time(),
            "_tags": params.get("Tags", []),
        }
        self.store.put(REPOSITORY, arn, record)
        return {"CodeRepositoryArn": arn}

    def describe_code_repository(self, params: Params, caller: Caller) -> Params:
        return public(self._repository(params, caller))

    def delete_code_repository(self, params: Params, caller: Caller) -> Params:
        self.store.delete(REPOSITORY, self._repository(params, caller)["CodeRepositoryArn"])
        return {}

    def list_code_repositories(self, params: Params, caller: Caller) -> Params:
        found = self.store.all(REPOSITORY).items()
        rows = [public(row) for arn, row in found if arn.startswith(caller.arn(""))]
        rows.sort(key=lambda row: row["CodeRepositoryName"])
        rows, token = wire.page(rows, params)
        return {"CodeRepositorySummaryList": rows, **token}

    def _repository(self, params: Params, caller: Caller) -> Record:
        name = params["CodeRepositoryName"].lower()
        arn = caller.arn(f"code-repository/{name}")
        return self.store.find(REPOSITORY, arn, invalid(f"Cannot find CodeRepository: {name}"))


def _values(rows: list[Params]) -> Params:
    return {row["Key"]: row.get("Value", "") for row in rows}
