"""CodeConnections: connections to GitHub that stay PENDING until a person completes them."""

from __future__ import annotations

import uuid

from sm_mlops.sandbox.services import JsonService, place
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import Caller, Params, page, pick, public

CONNECTION = "CodeConnection"


class Connections(JsonService):
    """Operations on connections. Keys of records are ARNs."""

    service = "codeconnections"
    codes = ("InvalidInputException", "ResourceNotFoundException")

    def create_connection(self, params: Params, caller: Caller) -> Params:
        if bool(params.get("ProviderType")) == bool(params.get("HostArn")):
            raise self.invalid("Exactly one of ProviderType and HostArn must be given")
        if any(
            row["ConnectionName"] == params["ConnectionName"]
            for row in self.mine(CONNECTION, caller)
        ):
            raise self.invalid(
                f"A connection with the name {params['ConnectionName']} already exists"
            )
        arn = caller.arn(f"connection/{uuid.uuid4()}", self.service)
        record = {
            "ConnectionName": params["ConnectionName"],
            "ConnectionArn": arn,
            # The sandbox has no hosts: any ARN is that of a GitHub Enterprise Server.
            "ProviderType": params.get("ProviderType", "GitHubEnterpriseServer"),
            **pick(params, "HostArn"),
            "OwnerAccountId": caller.account,
            "ConnectionStatus": "PENDING",
            "_tags": params.get("Tags", []),
            **place(caller),
        }
        self.store.put(CONNECTION, arn, record)
        return {"ConnectionArn": arn, "Tags": record["_tags"]}

    def complete(self, name: str) -> Record:
        """Do what a person does in the console: connect to GitHub. `name` may be an ARN."""
        for arn, record in self.store.all(CONNECTION).items():
            if name in (arn, record["ConnectionName"]):
                record["ConnectionStatus"] = "AVAILABLE"
                self.store.put(CONNECTION, arn, record)
                return record
        raise self.missing(f"Connection {name} not found.")

    def get_connection(self, params: Params, caller: Caller) -> Params:
        return {"Connection": public(self._one(params["ConnectionArn"], caller))}

    def list_connections(self, params: Params, caller: Caller) -> Params:
        rows = [
            public(row)
            for row in self.mine(CONNECTION, caller)
            if params.get("ProviderTypeFilter") in (None, row["ProviderType"])
        ]
        rows, token = page(rows, params, 100)
        return {"Connections": rows, **token}

    def delete_connection(self, params: Params, caller: Caller) -> Params:
        self._one(params["ConnectionArn"], caller)
        self.store.delete(CONNECTION, params["ConnectionArn"])
        return {}

    def _one(self, arn: str, caller: Caller) -> Record:
        return self.one(CONNECTION, arn, f"Connection {arn}", caller)
