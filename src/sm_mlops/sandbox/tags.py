"""AddTags, ListTags and DeleteTags for SageMaker's resources."""

from __future__ import annotations

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.endpoints import ENDPOINT
from sm_mlops.sandbox.hosting import CONFIG, MODEL
from sm_mlops.sandbox.jobs import PROCESSING, TRAINING
from sm_mlops.sandbox.pipelines import PIPELINE
from sm_mlops.sandbox.projects import PROJECT, REPOSITORY
from sm_mlops.sandbox.registry import GROUP, PACKAGE
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.transforms import TRANSFORM
from sm_mlops.sandbox.wire import Caller, Params, invalid, missing

MOST_TAGS = 50
# The kind of record of each noun in SageMaker's ARNs.
KINDS = {
    "code-repository": REPOSITORY,
    "endpoint": ENDPOINT,
    "endpoint-config": CONFIG,
    "model": MODEL,
    "model-package": PACKAGE,
    "model-package-group": GROUP,
    "pipeline": PIPELINE,
    "processing-job": PROCESSING,
    "project": PROJECT,
    "training-job": TRAINING,
    "transform-job": TRANSFORM,
}


class Tags:
    """Operations on tags."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add_tags(self, params: Params, caller: Caller) -> Params:
        record = self._record(params)
        tags = {tag["Key"]: tag for tag in (*record["_tags"], *params["Tags"])}
        if len(tags) > MOST_TAGS:
            arn = params["ResourceArn"]
            raise invalid(f"The number of tags of {arn} exceeds the limit of {MOST_TAGS}")
        return {"Tags": self._set(params, record, list(tags.values()))}

    def list_tags(self, params: Params, caller: Caller) -> Params:
        rows, token = wire.page(self._record(params)["_tags"], params, default=50)
        return {"Tags": rows, **token}

    def delete_tags(self, params: Params, caller: Caller) -> Params:
        record, gone = self._record(params), set(params["TagKeys"])
        self._set(params, record, [tag for tag in record["_tags"] if tag["Key"] not in gone])
        return {}

    def _set(self, params: Params, record: Record, tags: list[Params]) -> list[Params]:
        record["_tags"] = tags
        self.store.put(KINDS[_noun(params)], params["ResourceArn"], record)
        return tags

    def _record(self, params: Params) -> Record:
        arn, noun = params["ResourceArn"], _noun(params)
        if noun not in KINDS:
            raise wire.not_implemented(f"sagemaker tags of {arn}")
        return self.store.find(KINDS[noun], arn, missing(f"{arn} does not exist"))


def _noun(params: Params) -> str:
    return str(params.get("ResourceArn", "")).rpartition(":")[2].partition("/")[0]
