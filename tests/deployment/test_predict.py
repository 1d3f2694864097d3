"""Invoking an endpoint: waiting while it starts, and the message of a refusal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
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


@pytest.mark.parametrize("output", ["output/version-3/", "output/"])
def test_requests_of_an_asynchronous_endpoint_are_where_monitoring_reads_them(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    start = "s3://b/churn/async/staging/"
    config = {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"{start}{output}"}}}
    answer = {"OutputLocation": f"{start}{output}x.out"}
    put: list[str] = []
    sagemaker = SimpleNamespace(describe_endpoint_config=lambda **_: config)
    s3 = SimpleNamespace(put_object=lambda Key, **_: put.append(Key))
    runtime = SimpleNamespace(invoke_endpoint_async=lambda **_: answer)
    aws: Any = SimpleNamespace(sagemaker=sagemaker, s3=s3, runtime=runtime)
    monkeypatch.setattr(predict.objects, "find", lambda aws, uri: b"1")
    assert predict._asynchronously(aws, ENDPOINT, "x", b"a", "text/csv", "a") == (b"1", "a")
    assert put == ["churn/async/staging/input/x"]


def test_an_endpoint_that_never_becomes_ready_is_reported(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "STARTING_SECONDS", -1.0)
    with pytest.raises(MlopsError, match="churn-staging is still starting after"):
        ask(NOT_READY)


def test_a_request_has_an_id_with_its_hour_and_the_answer_says_it(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    class Noting(Runtime):
        def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
            asked.append(request)
            return super().invoke_endpoint(**request)

    monkeypatch.setattr(Aws, "runtime", Noting(NOT_READY))
    monkeypatch.setattr(predict.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Aws, "now", lambda _: datetime(2026, 11, 29, 6, 59, tzinfo=UTC))
    answers = [
        predict.invoke(Aws(repo.settings()), ENDPOINT, b"a", "text/csv", "text/csv")
        for _ in range(2)
    ]
    names = [request.inference_id for answer in answers for request in answer.requests]
    # A repeated call is the same request.
    assert [request["InferenceId"] for request in asked] == [names[0], names[0], names[1]]
    assert names[0] != names[1] and re.fullmatch("2026112906-[0-9a-f]{16}", names[0])
    assert predict.joined(answers).requests == answers[0].requests + answers[1].requests


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


def test_a_refusal_has_the_reason_that_the_model_gives_as_json(ask: Any) -> None:
    reason = {"error": "column 'Age', row 2: 'old' is not a number", "column": "Age", "row": 2}
    error = {
        "Error": {"Code": "ModelError", "Message": "Received client error (400)"},
        "OriginalStatusCode": 400,
        "OriginalMessage": json.dumps(reason),
    }
    with pytest.raises(predict.Refused) as refused:
        ask(error)
    assert str(refused.value) == f"the model answered 400: {reason['error']}"
    assert refused.value.reason == reason


def test_a_refusal_without_a_row_names_the_file(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise predict.Refused("the model answered 400: no", 400, {})

    monkeypatch.setattr(predict, "invoke", refuse)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(predict.Refused, match=r"^rows\.csv: the model answered 400: no$"):
        list(predict.in_pieces(Aws(repo.settings()), ENDPOINT, tmp_path / "rows.csv", ""))


@pytest.mark.parametrize(("kind", "most"), [("real-time", 6), ("serverless", 4)])
def test_a_body_that_aws_would_refuse_is_refused_before(repo: Repo, kind: str, most: int) -> None:
    endpoint = replace(ENDPOINT, kind=kind)
    words = f"churn-staging takes at most {most} MB per request, but this is {most}.5 MB: leave"
    with pytest.raises(MlopsError, match=words):
        predict.invoke(Aws(repo.settings()), endpoint, b"a" * (most * 2 + 1 << 19), "text/csv", "")


def test_what_aws_refuses_is_not_the_models_refusal(ask: Any) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        ask({"Error": {"Code": "AccessDeniedException", "Message": "no"}})
