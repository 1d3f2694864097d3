"""The smoke test itself: what each check accepts, and what it must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from deployment_cases import ROWS, TYPES, archive, sample_files
from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.deployment import access, endpoints, predict, smoke, stages
from sm_mlops.deployment.endpoints import Endpoint
from sm_mlops.deployment.predict import Answer, Refused
from sm_mlops.deployment.smoke import Check
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/3"
EXPECTED = [
    {"prediction": "yes", "probability": 0.75, "probabilities": {"no": 0.25, "yes": 0.75}},
    {"prediction": "no", "probability": 0.5, "probabilities": {"no": 0.5, "yes": 0.5}},
]
Model = Callable[[bytes, str, str], Answer]


def answer(body: bytes, kind: str, accept: str, **changes: Any) -> Answer:
    """Answer as the seed's inference.py does: in the type that was asked for, errors as 400."""
    text = body.decode()
    if kind not in TYPES:
        raise Refused("the model answered 415: not CSV", 415, {"error": "not CSV"})
    wrong = "surplus" in text or "{}" in text or text.endswith("{")
    if wrong:
        raise Refused("the model answered 400: no such row", 400, {"error": "no such row"})
    count = 1 if text.count('"a"') == 1 and kind == smoke.JSON else len(EXPECTED)
    objects = [json.loads(json.dumps(item)) | changes for item in EXPECTED[:count]]
    if accept == smoke.JSON:
        content = json.dumps({"predictions": objects})
    elif accept == smoke.LINES:
        content = "".join(json.dumps(item) + "\n" for item in objects)
    else:
        content = "".join(
            ",".join(map(str, smoke._leaves(item).values())) + "\n" for item in objects
        )
    return Answer(content.encode(), accept, 0.01)


@pytest.fixture
def run(repo: Repo, account: Aws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Check]]:
    """Run the smoke test against a model that is a function."""
    stage = stages.load(repo.settings(), "staging")
    found = Endpoint(
        *(stage.stack, "InService", "", "serverless", "config", "model", ARN),
        since=datetime(2026, 1, 1, tzinfo=UTC),
        changed=datetime(2026, 1, 1, tzinfo=UTC),
    )
    files = sample_files() | {
        "expected.json": json.dumps({"predictions": EXPECTED}).encode(),
        "contract.json": b"{}",
    }

    def smoke_test(
        model: Model = answer,
        files: dict[str, bytes] = files,
        types: list[str] = TYPES,
        kind: str = "serverless",
        arn: str | None = None,
        **options: Any,
    ) -> list[Check]:
        account.s3.put_object(Bucket=account.bucket, Key="sample", Body=archive(files))
        package = {
            "SamplePayloadUrl": f"s3://{account.bucket}/sample",
            "InferenceSpecification": {"SupportedContentTypes": types},
        }
        monkeypatch.setattr(account.sagemaker, "describe_model_package", lambda **_: package)
        monkeypatch.setattr(access, "enter", lambda aws, stage: aws)
        monkeypatch.setattr(endpoints, "serving", lambda *_, **__: replace(found, kind=kind))
        monkeypatch.setattr(endpoints, "note_test", lambda *_: None)
        monkeypatch.setattr(
            predict, "invoke", lambda aws, endpoint, body, kind, accept: model(body, kind, accept)
        )
        return smoke.smoke(account, stage, arn, **options)

    return smoke_test


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if check.passed is False]


def test_a_model_that_answers_as_evaluated_passes(run: Callable[..., list[Check]]) -> None:
    checks = run()
    assert failed(checks) == []
    assert smoke.passed(checks)
    assert [check.name for check in checks] == [
        "in service",
        *TYPES,
        "latency",
        "refuses a row with an extra field",
        "refuses a row without columns",
        "refuses a truncated body",
        "refuses another content type",
    ]


def test_another_version_than_the_one_asked_for_fails(run: Callable[..., list[Check]]) -> None:
    checks = run(arn=ARN.replace("/3", "/4"))
    assert failed(checks) == ["in service"]
    assert checks[0].detail.startswith("version 3, not 4")
    assert not smoke.passed(checks)


def test_values_within_the_tolerance_pass_and_others_do_not(
    run: Callable[..., list[Check]],
) -> None:
    def off(by: float) -> Model:
        return lambda body, kind, accept: answer(body, kind, accept, probability=0.75 + by)

    only_first = [EXPECTED[0]]
    files = sample_files() | {"expected.json": json.dumps({"predictions": only_first}).encode()}
    files["rows.json"] = json.dumps({"instances": ROWS[:1]}).encode()
    types = [smoke.JSON]
    assert smoke.passed(run(off(0.00009), files, types))
    checks = run(off(0.0002), files, types)
    assert failed(checks) == [smoke.JSON]
    assert "row 1: 0.7502, evaluated as 0.75" in checks[1].detail
    assert smoke.passed(run(off(0.0002), files, types, tolerance=0.001))


def test_another_label_fails(run: Callable[..., list[Check]]) -> None:
    checks = run(lambda body, kind, accept: answer(body, kind, accept, prediction="maybe"))
    assert failed(checks) == TYPES
    assert "'maybe', evaluated as 'yes'" in checks[1].detail


def test_an_answer_of_another_form_fails(run: Callable[..., list[Check]]) -> None:
    checks = run(lambda body, kind, accept: answer(body, kind, accept, probability="high"))
    assert set(failed(checks)) >= {smoke.JSON, smoke.LINES}
    checks = run(lambda body, kind, accept: answer(body, kind, accept, surplus=1))
    assert failed(checks)[:3] == TYPES


@pytest.mark.parametrize("value", ["nan", None])
def test_a_value_that_is_not_a_number_fails(run: Callable[..., list[Check]], value: Any) -> None:
    checks = run(lambda body, kind, accept: answer(body, kind, accept, probability=value))
    assert set(TYPES) <= set(failed(checks))


def test_an_answer_to_fewer_rows_fails(run: Callable[..., list[Check]]) -> None:
    def shorter(body: bytes, kind: str, accept: str) -> Answer:
        lines = answer(body, kind, accept).body.splitlines(keepends=True)
        return Answer(lines[0], accept, 0.01)

    assert "1 answers to 2 rows" in run(shorter)[1].detail


def test_an_answer_marked_as_another_type_fails(run: Callable[..., list[Check]]) -> None:
    def html(body: bytes, kind: str, accept: str) -> Answer:
        return Answer(answer(body, kind, accept).body, "text/html; charset=utf-8", 0.01)

    assert run(html)[1].detail == "answered as text/html, not as text/csv"


def test_a_slow_answer_fails_the_limit_and_passes_another(
    run: Callable[..., list[Check]],
) -> None:
    def slow(body: bytes, kind: str, accept: str) -> Answer:
        return Answer(answer(body, kind, accept).body, accept, 0.3)

    assert failed(run(slow, latency_limit=200)) == ["latency"]
    assert smoke.passed(run(slow, latency_limit=400))
    assert smoke.passed(run(slow))


def test_a_model_that_answers_a_malformed_row_fails(run: Callable[..., list[Check]]) -> None:
    def lenient(body: bytes, kind: str, accept: str) -> Answer:
        try:
            return answer(body, kind, accept)
        except Refused:
            return Answer(b'{"predictions": [{"prediction": 0}]}', accept, 0.01)

    checks = run(lenient)
    assert len(failed(checks)) == 4
    assert checks[-1].detail == 'answered {"predictions": [{"prediction": 0}]}'


def test_a_model_that_breaks_on_a_malformed_row_fails(run: Callable[..., list[Check]]) -> None:
    def fragile(body: bytes, kind: str, accept: str) -> Answer:
        try:
            return answer(body, kind, accept)
        except Refused as refused:
            raise Refused("the model answered 500: KeyError", 500) from refused

    checks = run(fragile)
    assert len(failed(checks)) == 4
    assert checks[-1].detail == "the model answered 500: KeyError"


@pytest.mark.parametrize(
    ("refusal", "count"),
    [
        (Refused("the model answered 415: no", 415, {"error": "no"}), 3),
        (Refused("the model answered 400: no", 400, {"error": "no"}), 1),
        (Refused("the model answered 422: no", 422, {"error": "no"}), 4),
    ],
)
def test_a_refusal_with_another_status_fails(
    run: Callable[..., list[Check]], refusal: Refused, count: int
) -> None:
    assert len(failed(run(refusing(refusal)))) == count


def test_a_refusal_without_a_reason_as_json_fails(run: Callable[..., list[Check]]) -> None:
    checks = run(refusing(Refused("the model answered 400: <p>no</p>", 400)))
    assert len(failed(checks)) == 4
    assert checks[-2].detail == "no reason as JSON: the model answered 400: <p>no</p>"


def refusing(refusal: Refused) -> Model:
    def model(body: bytes, kind: str, accept: str) -> Answer:
        try:
            return answer(body, kind, accept)
        except Refused:
            raise refusal from None

    return model


def test_a_version_of_the_first_release_passes_with_what_is_wrong_with_it(
    run: Callable[..., list[Check]],
) -> None:
    """SageMaker's image answers its text as text/html, and each of its errors as status 500."""

    def old(body: bytes, kind: str, accept: str) -> Answer:
        try:
            return Answer(answer(body, kind, accept).body, "text/html; charset=utf-8", 0.01)
        except Refused:
            raise Refused("the model answered 500: Internal Server Error", 500) from None

    files = sample_files() | {"expected.json": json.dumps({"predictions": EXPECTED}).encode()}
    checks = run(old, files)
    assert smoke.passed(checks)
    assert [check.passed for check in checks] == [*[True] * 5, *[None] * 4]
    assert "answered as text/html, as the image does for a version of 0.1.0" in checks[1].detail
    assert "500: Internal Server Error; as the image does" in checks[-1].detail
    assert len(failed(run(old))) == 3


def test_the_status_of_an_asynchronous_refusal_may_be_unknown(
    run: Callable[..., list[Check]],
) -> None:
    model = refusing(Refused("the model refused: no", 400, {"error": "no"}))
    assert failed(run(model, kind="asynchronous")) == []


def test_a_type_without_rows_is_reported_and_does_not_fail(run: Callable[..., list[Check]]) -> None:
    checks = run(types=[*TYPES, "image/png"])
    assert checks[4] == Check("image/png", None, "the sample has no rows as image/png")
    assert smoke.passed(checks)


@pytest.mark.parametrize(
    "files",
    [
        {"other.txt": b"x"},
        sample_files() | {"expected.json": b'{"predictions": []}'},
        sample_files() | {"expected.json": b"no json"},
        sample_files() | {"rows.json": b"[]"},
    ],
)
def test_a_sample_that_is_not_valid_is_named(
    run: Callable[..., list[Check]], files: dict[str, bytes]
) -> None:
    with pytest.raises(MlopsError, match=r"sample payload of version 3 \(s3://.*must have") as why:
        run(files=files)
    assert "\n" not in str(why.value)


def test_a_table_without_rows_fails_its_own_check_only(run: Callable[..., list[Check]]) -> None:
    def empty(body: bytes, kind: str, accept: str) -> Answer:
        return answer(body, kind, accept) if body else Answer(b"", accept, 0.01)

    files = sample_files() | {"expected.json": json.dumps({"predictions": EXPECTED}).encode()}
    checks = run(empty, files | {"rows.csv": b""})
    assert failed(checks) == [smoke.CSV]
    assert "refuses a row with an extra field" not in [check.name for check in checks]
