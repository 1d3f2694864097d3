"""Invoking an endpoint: waiting while it starts, and the message of a refusal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.deployment import predict
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.predict import Answer
from sm_mlops.errors import MlopsError

ENDPOINT = Endpoint(
    *("churn-staging", "InService", "", "serverless", "config", "model", ""),
    since=datetime(2026, 1, 1, tzinfo=UTC),
    changed=datetime(2026, 1, 1, tzinfo=UTC),
)


class Runtime:
    """An endpoint that raises these errors first, then answers."""

    def __init__(self, *errors: dict[str, Any]) -> None:
        self.errors = list(errors)

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        if self.errors:
            raise ClientError(self.errors.pop(0), "InvokeEndpoint")  # type: ignore[arg-type]
        return {"Body": io.BytesIO(b"1"), "ContentType": request["Accept"]}


@pytest.fixture
def ask(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(predict.time, "sleep", lambda seconds: None)

    def invoke(*errors: dict[str, Any]) -> Answer:
        monkeypatch.setattr(Aws, "runtime", Runtime(*errors))
        return predict.invoke(Aws(repo.settings()), ENDPOINT, b"a", "text/csv", "text/csv")

    return invoke


NOT_READY = {"Error": {"Code": "ModelNotReadyException", "Message": "being provisioned"}}


def test_a_serverless_endpoint_that_still_starts_is_waited_for(ask: Any) -> None:
    assert ask(NOT_READY, NOT_READY).body == b"1"


def test_an_endpoint_that_never_becomes_ready_is_reported(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "STARTING_SECONDS", -1.0)
    with pytest.raises(MlopsError, match="churn-staging is still starting after"):
        ask(NOT_READY)


def test_a_refusal_has_the_message_of_the_model(ask: Any) -> None:
    error = {
        "Error": {"Code": "ModelError", "Message": "Received client error (400)"},
        "OriginalStatusCode": 400,
        "OriginalMessage": "row 3: a field\ntoo many\nTraceback (most recent call last): ...",
    }
    with pytest.raises(predict.Refused) as refused:
        ask(error)
    assert (str(refused.value), refused.value.status) == (
        "the model answered 400: row 3: a field too many",
        400,
    )


def test_what_aws_refuses_is_not_the_models_refusal(ask: Any) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        ask({"Error": {"Code": "AccessDeniedException", "Message": "no"}})
