"""CodeConnections: connections to GitHub that stay PENDING until a person completes them.

Its former name, CodeStar Connections, is answered as well; ARNs tell by which name one was made.
"""

from __future__ import annotations

import uuid

from sm_mlops.sandbox.services import JsonService, place
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, Caller, Params, page, pick

CONNECTION, HOST = "CodeConnection", "CodeConnectionHost"


class Connections(JsonService):
    """Operations on connections and hosts. Keys of records are ARNs."""

    service = "codeconnections"
    codes = ("InvalidInputException", "ResourceNotFoundException")

    def create_connection(self, params: Params, caller: Caller) -> Params:
        """CreateConnection."""
        if bool(params.get("ProviderType")) == bool(params.get("HostArn")):
            raise self.invalid("Exactly one of ProviderType and HostArn must be given")
        if any(row["ConnectionName"] == params["ConnectionName"] for row in self._all(caller)):
            raise self.invalid(
                f"A connection with the name {params['ConnectionName']} already exists"
            )
        provider = params.get("ProviderType")
        if params.get("HostArn"):
            provider = self.one(HOST, params["HostArn"], "Host")["ProviderType"]
        arn = caller.arn(f"connection/{uuid.uuid4()}", self.service)
        record = {
            "ConnectionName": params["ConnectionName"],
            "ConnectionArn": arn,
            "ProviderType": provider,
            "OwnerAccountId": caller.account,
            "ConnectionStatus": "PENDING",
            **pick(params, "HostArn"),
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
        """GetConnection."""
        return {"Connection": _public(self._one(params["ConnectionArn"], caller))}

    def list_connections(self, params: Params, caller: Caller) -> Params:
        """ListConnections."""
        rows = [
            _public(row)
            for row in self._all(caller)
            if params.get("ProviderTypeFilter") in (None, row["ProviderType"])
            and params.get("HostArnFilter") in (None, row.get("HostArn"))
        ]
        rows, token = page(rows, params, 100)
        return {"Connections": rows, **token}

    def delete_connection(self, params: Params, caller: Caller) -> Params:
        """DeleteConnection."""
        self._one(params["ConnectionArn"], caller)
        self.store.delete(CONNECTION, params["ConnectionArn"])
        return {}

    def create_host(self, params: Params, caller: Caller) -> Params:
        """CreateHost: an installed GitHub Enterprise Server."""
        arn = caller.arn(f"host/{params['Name']}-{uuid.uuid4().hex[:8]}", self.service)
        shown = pick(params, "Name", "ProviderType", "ProviderEndpoint", "VpcConfiguration")
        record = {**shown, "HostArn": arn, "Status": "PENDING", **place(caller)}
        self.store.put(HOST, arn, {**record, "_tags": params.get("Tags", [])})
        return {"HostArn": arn, "Tags": params.get("Tags", [])}

    def get_host(self, params: Params, caller: Caller) -> Params:
        """GetHost."""
        found = self.one(HOST, params["HostArn"], "Host")
        return pick(found, "Name", "Status", "ProviderType", "ProviderEndpoint", "VpcConfiguration")

    def list_hosts(self, params: Params, caller: Caller) -> Params:
        """ListHosts."""
        rows, token = page([_public(row) for row in self.mine(HOST, caller)], params, 100)
        return {"Hosts": rows, **token}

    def update_host(self, params: Params, caller: Caller) -> Params:
        """UpdateHost."""
        found = self.one(HOST, params["HostArn"], "Host")
        found |= pick(params, "ProviderEndpoint", "VpcConfiguration")
        self.store.put(HOST, params["HostArn"], found)
        return {}

    def delete_host(self, params: Params, caller: Caller) -> Params:
        """DeleteHost: only one without connections."""
        self.one(HOST, params["HostArn"], "Host")
        if any(row.get("HostArn") == params["HostArn"] for row in self._all(caller)):
            raise ApiError("ResourceUnavailableException", "The host has connections")
        self.store.delete(HOST, params["HostArn"])
        return {}

    def tag_resource(self, params: Params, caller: Caller) -> Params:
        """TagResource."""
        kind, found = self._tagged(params["ResourceArn"])
        tags = {tag["Key"]: tag for tag in (*found["_tags"], *params["Tags"])}
        found["_tags"] = list(tags.values())
        self.store.put(kind, params["ResourceArn"], found)
        return {}

    def untag_resource(self, params: Params, caller: Caller) -> Params:
        """UntagResource."""
        kind, found = self._tagged(params["ResourceArn"])
        found["_tags"] = [tag for tag in found["_tags"] if tag["Key"] not in params["TagKeys"]]
        self.store.put(kind, params["ResourceArn"], found)
        return {}

    def list_tags_for_resource(self, params: Params, caller: Caller) -> Params:
        """ListTagsForResource."""
        return {"Tags": self._tagged(params["ResourceArn"])[1]["_tags"]}

    def _tagged(self, arn: str) -> tuple[str, Record]:
        kind = HOST if ":host/" in arn else CONNECTION
        return kind, self.one(kind, arn, arn)

    def _all(self, caller: Caller) -> list[Record]:
        return self.mine(CONNECTION, caller)

    def _one(self, arn: str, caller: Caller) -> Record:
        found = self.store.get(CONNECTION, arn)
        if found is None or found["_place"] != [caller.account, caller.region]:
            raise self.missing(f"Connection {arn} not found.")
        return found


class FormerConnections(Connections):
    """The same under the former name."""

    service = "codestar-connections"


def _public(record: Record) -> Params:
    return {name: value for name, value in record.items() if not name.startswith("_")}
