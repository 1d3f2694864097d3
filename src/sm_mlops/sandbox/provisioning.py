"""Provisioned products of Service Catalog: CloudFormation stacks, made with the launch role.

Only SageMaker's projects call this; Service Catalog's own operations are not implemented.
Source: https://docs.aws.amazon.com/servicecatalog/latest/adminguide/constraints-launch.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops.sandbox import grants
from sm_mlops.sandbox.catalog import PROVISIONED, SERVICE, Catalog, Client
from sm_mlops.sandbox.services import new_id, place
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, partition

RECORD = "CatalogRecord"
CAPABILITIES = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
# Service Catalog's own account, whose bucket everybody may read whose own policies allow it.
OWNER = "000000000000"
READABLE = json.dumps(
    {
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
        ]
    }
)
POLL_SECONDS = 0.05


class Provisioning:
    """Provisioned products and the records of what was done to them. Keys of records are ids."""

    def __init__(self, store: Store, catalog: Catalog, client: Client) -> None:
        self.store, self.catalog, self.client = store, catalog, client
        self.on_idle: Callable[[], None] = lambda: None
        self.closing = threading.Event()
        self._working: set[str] = set()

    def create(
        self, details: Params, name: str, parameters: Params, tags: list[Params], caller: Caller
    ) -> Record:
        """Start to create the stack of a version of a product; return the record. Raises ApiError.

        `details` names the product and, optionally, the version.
        """
        product = self.catalog.product(details["ProductId"], caller)
        paths = self.catalog.launch_paths(product, caller)
        artifact = self.catalog.artifact(product["Id"], details.get("ProvisioningArtifactId"))
        if not artifact["Active"]:
            raise self.catalog.invalid(f"ProvisioningArtifact {artifact['Id']} is not active")
        # Source: https://docs.aws.amazon.com/servicecatalog/latest/dg/API_UpdateProvisioningArtifact.html
        if artifact["Guidance"] == "DEPRECATED":
            raise self.catalog.invalid(f"ProvisioningArtifact {artifact['Id']} is deprecated")
        if len(paths) > 1:
            raise self.catalog.invalid("There is more than one launch path: PathId must be given")
        constraints = self.catalog.constraints(paths[0]["Id"], product["Id"])
        identity = new_id("pp")
        merged = {tag["Key"]: tag for tag in (*paths[0]["_tags"], *product["_tags"], *tags)}
        provisioned = {
            "Id": identity,
            "Name": name,
            "Status": "UNDER_CHANGE",
            "CreatedTime": time.time(),
            "ProductId": product["Id"],
            "ProvisioningArtifactId": artifact["Id"],
            **({"LaunchRoleArn": constraints[0]["_role"]} if constraints else {}),
            "_stack": f"SC-{caller.account}-{identity}",
            "_tags": list(merged.values()),
            "_key": caller.access_key,
            **place(caller),
        }
        arguments = {
            "_body": artifact["_body"],
            "Parameters": as_parameters(parameters),
            "Capabilities": CAPABILITIES,
            "Tags": provisioned["_tags"],
        }
        return self._begin(provisioned, "create_stack", arguments)

    def update(
        self, identity: str, version: str | None, parameters: Params, caller: Caller
    ) -> Record:
        """Start to update a provisioned product to another version or other parameters (None keeps
        a value); return the record. Raises ApiError."""
        provisioned = self._settled(identity, caller)
        artifact = self.catalog.artifact(provisioned["ProductId"], version)
        provisioned["ProvisioningArtifactId"] = artifact["Id"]
        arguments = {
            "_body": artifact["_body"],
            "Parameters": as_parameters(parameters),
            "Capabilities": CAPABILITIES,
        }
        return self._begin(provisioned, "update_stack", arguments)

    def delete(self, identity: str, caller: Caller) -> Record | None:
        """Start to delete a provisioned product; return the record, None if it no longer exists.
        Raises ApiError."""
        if self.store.get(PROVISIONED, identity) is None:
            return None
        return self._begin(self._settled(identity, caller), "delete_stack", {})

    def _settled(self, identity: str, caller: Caller) -> Record:
        provisioned = self.catalog.one(
            PROVISIONED, identity, f"Provisioned product {identity}", caller
        )
        if provisioned["Status"] == "UNDER_CHANGE":
            raise ApiError(
                "InvalidStateException", f"{provisioned['Name']} is under change already"
            )
        return provisioned

    # Running operations.

    def _begin(self, provisioned: Record, operation: str, arguments: Params) -> Record:
        # Saved first, so that a restart resumes from here.
        record = {
            "RecordId": new_id("rec"),
            "ProvisionedProductId": provisioned["Id"],
            "Status": "CREATED",
            "RecordErrors": [],
            "_operation": operation,
            "_arguments": arguments,
            "_place": provisioned["_place"],
        }
        provisioned["Status"] = "UNDER_CHANGE"
        self.store.put(RECORD, record["RecordId"], record)
        self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        self._work(record, provisioned)
        return record

    def _work(self, record: Record, provisioned: Record) -> None:
        name = record["RecordId"]
        self._working.add(name)
        threading.Thread(
            target=self._run, args=(record, provisioned), name=name, daemon=True
        ).start()

    def _run(self, record: Record, provisioned: Record) -> None:
        try:
            self._end(record, provisioned, self._follow(record, provisioned))
        except Exception as error:
            if not self.closing.is_set():
                self._end(record, provisioned, f"{type(error).__name__}: {error}")
                raise
        finally:
            self._working.discard(record["RecordId"])
            if not self.closing.is_set():
                self.on_idle()

    def _follow(self, record: Record, provisioned: Record) -> str:
        """Wait until the stack's operation ends; return what went wrong, "" for nothing."""
        region, key = provisioned["_place"][1], provisioned["_key"]
        role = provisioned.get("LaunchRoleArn")
        if role:
            if not grants.sees(role, SERVICE):
                return f"Access denied while assuming the role {role}"
            key = grants.session(role, "servicecatalog", region)["AWS_ACCESS_KEY_ID"]
        cloudformation = self.client("cloudformation", region, key)
        record["Status"] = "IN_PROGRESS"
        self.store.put(RECORD, record["RecordId"], record)
        name = provisioned.get("_stack_id") or provisioned["_stack"]
        # A separate client: a launch role need not be allowed to describe stacks.
        watcher = self.client("cloudformation", region, "")
        try:
            self._call(record, provisioned, cloudformation)
            while not self.closing.wait(POLL_SECONDS):
                stack = watcher.describe_stacks(StackName=name)["Stacks"][0]
                provisioned["_stack_id"] = name = stack["StackId"]
                self.store.put(PROVISIONED, provisioned["Id"], provisioned)
                if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                    return problem(watcher, stack)
        except ClientError as error:
            if self.closing.is_set():
                raise
            gone = "does not exist" in str(error)
            if gone and record["_operation"] == "delete_stack":
                return ""
            return str(error.response["Error"].get("Message", error))
        raise RuntimeError("closing")

    def _call(self, record: Record, provisioned: Record, cloudformation: Any) -> None:
        """Send the request of a record to CloudFormation, once."""
        operation = record["_operation"]
        if record.get("_asked"):
            return
        try:
            arguments = dict(record["_arguments"])
            if body := arguments.pop("_body", ""):
                arguments["TemplateURL"] = hosted(body, provisioned)
            getattr(cloudformation, operation)(StackName=provisioned["_stack"], **arguments)
        except ClientError as error:
            # A restart may come between the request and its record.
            again = error.response["Error"]["Code"] == "AlreadyExistsException"
            if not again and "No updates are to be performed" not in str(error):
                raise
        record["_asked"] = True
        self.store.put(RECORD, record["RecordId"], record)

    def _end(self, record: Record, provisioned: Record, why: str) -> None:
        record["Status"] = "FAILED" if why else "SUCCEEDED"
        if why:
            record["RecordErrors"] = [{"Code": "CFN_STACK", "Description": why[:1000]}]
        if record["_operation"] == "delete_stack" and not why:
            self.store.delete(PROVISIONED, provisioned["Id"])
        else:
            failed = "TAINTED" if record["_operation"] == "update_stack" else "ERROR"
            provisioned["Status"] = failed if why else "AVAILABLE"
            provisioned["StatusMessage"] = why[:1000]
            self.store.put(PROVISIONED, provisioned["Id"], provisioned)
        self.store.put(RECORD, record["RecordId"], record)

    def recover(self) -> None:
        for record in list(self.store.all(RECORD).values()):
            provisioned = self.store.get(PROVISIONED, record["ProvisionedProductId"])
            if record["Status"] in ("CREATED", "IN_PROGRESS") and provisioned:
                self._work(record, provisioned)

    def busy(self) -> bool:
        return bool(self._working)


def hosted(body: str, provisioned: Record) -> str:
    """Put a template into the bucket that Service Catalog owns and return its address.

    Source: https://docs.aws.amazon.com/servicecatalog/latest/adminguide/constraints-launch.html
    """
    from moto.s3.models import s3_backends

    region = provisioned["_place"][1]
    backend = s3_backends[OWNER][partition(region)]
    name = f"servicecatalog-{region}"
    if name not in backend.buckets:
        backend.create_bucket(name, region).policy = READABLE.encode()
    made = backend.put_object(name, f"{provisioned['Id']}.yml", body.encode())
    backend.tagger.tag_resource(made.arn, [{"Key": "servicecatalog:provisioning", "Value": "true"}])
    return f"https://{name}.s3.{region}.amazonaws.com/{made.name}"


def as_parameters(given: Params) -> list[Params]:
    """Return CloudFormation's form of parameters; None keeps a value."""
    return [
        {"ParameterKey": key, "UsePreviousValue": True}
        if value is None
        else {"ParameterKey": key, "ParameterValue": value}
        for key, value in given.items()
    ]


def problem(cloudformation: Any, stack: Params) -> str:
    """Return why a stack's operation failed, "" when it succeeded."""
    if stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"):
        return ""
    events = cloudformation.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    failed = [
        f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason")
    ]
    return failed[0] if failed else f"the stack ended in {stack['StackStatus']}"
