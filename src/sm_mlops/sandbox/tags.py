"""AddTags, ListTags and DeleteTags of what SageMaker's part of the sandbox keeps."""

from __future__ import annotations

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import Caller, Params, invalid, missing

MOST_TAGS = 50


class Tags:
    """Operations on tags. `kinds` maps what an ARN names, "pipeline", to the kind of its record."""

    def __init__(self, store: Store, kinds: dict[str, str]) -> None:
        self.store, self.kinds = store, kinds

    def kind(self, params: Params) -> str | None:
        """Return the kind of record that a request is about, None if it is none of these."""
        return self.kinds.get(_noun(params))

    def add_tags(self, params: Params, caller: Caller) -> Params:
        """Answer AddTags."""
        record = self._record(params)
        tags = {tag["Key"]: tag for tag in (*record["_tags"], *params["Tags"])}
        if len(tags) > MOST_TAGS:
            arn = params["ResourceArn"]
            raise invalid(f"The number of tags of {arn} exceeds the limit of {MOST_TAGS}")
        return {"Tags": self._set(params, record, list(tags.values()))}

    def list_tags(self, params: Params, caller: Caller) -> Params:
        """Answer ListTags."""
        rows, token = wire.page(self._record(params)["_tags"], params, default=50)
        return {"Tags": rows, **token}

    def delete_tags(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteTags."""
        record, gone = self._record(params), set(params["TagKeys"])
        self._set(params, record, [tag for tag in record["_tags"] if tag["Key"] not in gone])
        return {}

    def _set(self, params: Params, record: Record, tags: list[Params]) -> list[Params]:
        record["_tags"] = tags
        self.store.put(self.kinds[_noun(params)], params["ResourceArn"], record)
        return tags

    def _record(self, params: Params) -> Record:
        arn, noun = params["ResourceArn"], _noun(params)
        if noun not in self.kinds:
            raise wire.not_implemented(f"sagemaker tags of {arn}")
        record = self.store.get(self.kinds[noun], arn)
        if record is None:
            raise missing(f"{arn} does not exist")
        return record


def _noun(params: Params) -> str:
    return str(params.get("ResourceArn", "")).rpartition(":")[2].partition("/")[0]
