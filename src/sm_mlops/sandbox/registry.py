"""SageMaker's model registry: model package groups and versions.

Replaces moto's: moto drops most members of a version and numbers versions by counting.
"""

from __future__ import annotations

from collections.abc import Callable

from sm_mlops.sandbox import clock, wire
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, Params, invalid, not_implemented, pick

GROUP, PACKAGE = "ModelPackageGroup", "ModelPackage"
UPDATABLE = ("ModelApprovalStatus", "ApprovalDescription")
METADATA = ("CustomerMetadataProperties", "CustomerMetadataPropertiesToRemove")


class Registry:
    """Operations on model package groups and model packages. Keys of records are ARNs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.on_change: Callable[[Record, list[str]], None] = lambda package, fields: None

    def create_model_package_group(self, params: Params, caller: Caller) -> Params:
        name = params["ModelPackageGroupName"]
        arn = caller.arn(f"model-package-group/{name}")
        if self.store.get(GROUP, arn) is not None:
            raise invalid(f"Model Package Group already exists: {arn}")
        record = {
            **pick(params, "ModelPackageGroupName", "ModelPackageGroupDescription"),
            "ModelPackageGroupArn": arn,
            "CreationTime": clock.now(),
            "ModelPackageGroupStatus": "Completed",
            "_tags": params.get("Tags", []),
            "_versions": 0,
        }
        self.store.put(GROUP, arn, record)
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._group(params["ModelPackageGroupName"], caller))

    def list_model_package_groups(self, params: Params, caller: Caller) -> Params:
        """Answer ListModelPackageGroups, the oldest first unless asked otherwise."""
        rows = [
            group for arn, group in self.store.all(GROUP).items() if arn.startswith(caller.arn(""))
        ]
        rows, token = wire.listed("ListModelPackageGroups", rows, params, ascending=True)
        names = (
            "ModelPackageGroupName",
            "ModelPackageGroupArn",
            "ModelPackageGroupDescription",
            "CreationTime",
            "ModelPackageGroupStatus",
        )
        return {"ModelPackageGroupSummaryList": [pick(row, *names) for row in rows], **token}

    def delete_model_package_group(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteModelPackageGroup, for an empty one only."""
        group = self._group(params["ModelPackageGroupName"], caller)
        if any(self._versions(group)):
            raise wire.ApiError(
                "ConflictException",
                f"Model package group {group['ModelPackageGroupArn']} is not empty",
            )
        self.store.delete(GROUP, group["ModelPackageGroupArn"])
        return {}

    def put_model_package_group_policy(self, params: Params, caller: Caller) -> Params:
        group = self._group(params["ModelPackageGroupName"], caller)
        group["_policy"] = params["ResourcePolicy"]
        self.store.put(GROUP, group["ModelPackageGroupArn"], group)
        return {"ModelPackageGroupArn": group["ModelPackageGroupArn"]}

    def get_model_package_group_policy(self, params: Params, caller: Caller) -> Params:
        group = self._group(params["ModelPackageGroupName"], caller)
        if "_policy" not in group:
            raise invalid(f"Cannot find resource policy for: {group['ModelPackageGroupArn']}")
        return {"ResourcePolicy": group["_policy"]}

    def delete_model_package_group_policy(self, params: Params, caller: Caller) -> Params:
        group = self._group(params["ModelPackageGroupName"], caller)
        group.pop("_policy", None)
        self.store.put(GROUP, group["ModelPackageGroupArn"], group)
        return {}

    def create_model_package(self, params: Params, caller: Caller) -> Params:
        """Answer CreateModelPackage with the next version of a group."""
        if "ModelPackageGroupName" not in params:
            raise not_implemented("sagemaker:CreateModelPackage without ModelPackageGroupName")
        record = {
            **{k: v for k, v in params.items() if k not in ("Tags", "ClientToken")},
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "_tags": params.get("Tags", []),
        }
        with self.store.lock:
            # The time is taken with the number, so that sorting by either gives the same order.
            record["CreationTime"] = record["LastModifiedTime"] = clock.now()
            group = self._group(params["ModelPackageGroupName"], caller)
            # The number of a deleted version is never given again.
            version = group["_versions"] + 1
            name = group["ModelPackageGroupName"]
            record |= {
                "ModelPackageName": name,
                "ModelPackageGroupName": name,
                "ModelPackageVersion": version,
                "ModelPackageArn": f"{_prefix(group)}{version}",
            }
            record.setdefault("ModelApprovalStatus", "PendingManualApproval")
            # The version first: a crash in between leaves a count that the next start corrects.
            self.store.put(PACKAGE, record["ModelPackageArn"], record)
            group["_versions"] = version
            self.store.put(GROUP, group["ModelPackageGroupArn"], group)
        self.on_change(record, [])
        return {"ModelPackageArn": record["ModelPackageArn"]}

    def recover(self) -> None:
        """Correct the version count of every group, after a crash between the two writes."""
        for group in list(self.store.all(GROUP).values()):
            highest = max(
                (package["ModelPackageVersion"] for package in self._versions(group)), default=0
            )
            if highest > group["_versions"]:
                group["_versions"] = highest
                self.store.put(GROUP, group["ModelPackageGroupArn"], group)

    def describe_model_package(self, params: Params, caller: Caller) -> Params:
        return wire.public(self._package(params["ModelPackageName"], caller))

    def list_model_packages(self, params: Params, caller: Caller) -> Params:
        """Answer ListModelPackages, the oldest first unless asked otherwise."""
        if "ModelPackageGroupName" not in params:
            raise not_implemented("sagemaker:ListModelPackages without ModelPackageGroupName")
        group = self._group(params["ModelPackageGroupName"], caller)
        status = params.get("ModelApprovalStatus")
        rows = [
            row for row in self._versions(group) if status in (None, row["ModelApprovalStatus"])
        ]
        filters = ("ModelPackageGroupName", "ModelApprovalStatus")
        rows, token = wire.listed("ListModelPackages", rows, params, *filters, ascending=True)
        names = (
            "ModelPackageGroupName",
            "ModelPackageVersion",
            "ModelPackageArn",
            "ModelPackageDescription",
            "CreationTime",
            "ModelPackageStatus",
            "ModelApprovalStatus",
        )
        return {"ModelPackageSummaryList": [pick(row, *names) for row in rows], **token}

    def update_model_package(self, params: Params, caller: Caller) -> Params:
        """Answer UpdateModelPackage: approval with its comment, and customer metadata."""
        wire.only("UpdateModelPackage", params, "ModelPackageArn", *UPDATABLE, *METADATA)
        record = self._package(params["ModelPackageArn"], caller)
        with self.store.lock:
            record.update(pick(params, *UPDATABLE))
            metadata = record.get("CustomerMetadataProperties", {})
            metadata = {**metadata, **params.get("CustomerMetadataProperties", {})}
            for name in params.get("CustomerMetadataPropertiesToRemove", []):
                metadata.pop(name, None)
            if metadata or "CustomerMetadataProperties" in record:
                record["CustomerMetadataProperties"] = metadata
            record["LastModifiedTime"] = clock.now()
            self.store.put(PACKAGE, record["ModelPackageArn"], record)
        self.on_change(record, [name for name in params if name != "ModelPackageArn"])
        return {"ModelPackageArn": record["ModelPackageArn"]}

    def delete_model_package(self, params: Params, caller: Caller) -> Params:
        record = self._package(params["ModelPackageName"], caller)
        self.store.delete(PACKAGE, record["ModelPackageArn"])
        return {}

    def _versions(self, group: Record) -> list[Record]:
        prefix = _prefix(group)
        return [r for arn, r in self.store.all(PACKAGE).items() if arn.startswith(prefix)]

    def _group(self, name: str, caller: Caller) -> Record:
        arn = name if name.startswith("arn:") else caller.arn(f"model-package-group/{name}")
        return self.store.find(GROUP, arn, invalid(f"Model Package Group does not exist: {arn}"))

    def _package(self, name: str, caller: Caller) -> Record:
        arn = name if name.startswith("arn:") else caller.arn(f"model-package/{name}")
        return self.store.find(PACKAGE, arn, invalid(f"ModelPackage {arn} does not exist."))


def _prefix(group: Record) -> str:
    """Return the common prefix of the ARNs of a group's versions."""
    arn = str(group["ModelPackageGroupArn"])
    return arn.replace(":model-package-group/", ":model-package/") + "/"
