"""Signatures: what the sandbox verifies of a request to AWS, and how its services refuse it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import botocore.auth
import pytest
from botocore.client import Config

from sandbox_cases import BUCKET, REGION, policy
from sandbox_iam_case import Account, allow, error
from sm_mlops.sandbox import Server, client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("signatures"), REGION) as server:
        Account(server.environment()).prepare()
        yield server


@pytest.fixture
def aws(server: Server) -> Account:
    return Account(server.environment())


def of_key(aws: Account, *keys: str) -> Account:
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
    return aws.as_(dict(zip(names, keys, strict=False)))


def codes(account: Account) -> list[tuple[str, int]]:
    """Return how S3, a service with XML and one with JSON refuse this account."""
    calls = (account.s3.list_buckets, account.iam.list_roles, account.sagemaker.list_models)
    return [error(call)[:2] for call in calls]


MISMATCH = [("SignatureDoesNotMatch", 403), ("SignatureDoesNotMatch", 403),
            ("InvalidSignatureException", 403)]  # fmt: skip
UNKNOWN = [("InvalidAccessKeyId", 403), ("InvalidClientTokenId", 403),
           ("UnrecognizedClientException", 403)]  # fmt: skip
INVALID = [("InvalidToken", 400), *UNKNOWN[1:]]
EXPIRED = [("ExpiredToken", 400), ("ExpiredToken", 403), ("ExpiredTokenException", 403)]


def test_each_sandbox_has_a_key_of_its_own(server: Server, tmp_path: Path) -> None:
    key = json.loads((server.folder / "key.json").read_text())
    assert stat.S_IMODE((server.folder / "key.json").stat().st_mode) == 0o600
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key[0]) and len(key[1]) >= 40
    variables = server.environment()
    assert key == [variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]]
    client.own(tmp_path / ".sandbox")
    other = client.account_key(tmp_path / ".sandbox")
    assert other.id != key[0] and other.secret != key[1]
    assert client.account_key(tmp_path / ".sandbox") == other


def test_a_key_with_another_secret_is_refused(server: Server, aws: Account) -> None:
    key = server.environment()["AWS_ACCESS_KEY_ID"]
    assert codes(of_key(aws, key, "sandbox")) == MISMATCH
    assert codes(of_key(aws, "AKIASANDBOX000000000", "sandbox")) == UNKNOWN
    assert codes(of_key(aws, "owner", "-")) == MISMATCH


def test_a_user_s_key_is_good_with_its_secret_while_it_is_active(aws: Account) -> None:
    aws.iam.create_user(UserName="keyed")
    aws.iam.put_user_policy(UserName="keyed", PolicyName="p", PolicyDocument=policy(allow("*")))
    made = aws.iam.create_access_key(UserName="keyed")["AccessKey"]
    key, secret = made["AccessKeyId"], made["SecretAccessKey"]
    of_key(aws, key, secret).sagemaker.list_models()
    assert codes(of_key(aws, key, secret[::-1])) == MISMATCH
    aws.iam.update_access_key(UserName="keyed", AccessKeyId=key, Status="Inactive")
    assert codes(of_key(aws, key, secret)) == UNKNOWN
    aws.iam.delete_access_key(UserName="keyed", AccessKeyId=key)
    aws.iam.delete_user_policy(UserName="keyed", PolicyName="p")
    aws.iam.delete_user(UserName="keyed")


def test_a_session_needs_secret_and_token_until_it_ends(
    aws: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = aws.may("session", allow("*"))
    keys = role.keys
    good = [keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"]]
    of_key(aws, *good).sagemaker.list_models()
    assert codes(of_key(aws, good[0], "x", good[2])) == MISMATCH
    assert codes(of_key(aws, good[0], good[1])) == UNKNOWN
    assert codes(of_key(aws, *good[:2], good[2][:-1])) == INVALID
    _shift(monkeypatch, 3700)
    assert codes(of_key(aws, *good)) == EXPIRED


def _shift(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Sign, and answer, as of another time."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    monkeypatch.setattr("sm_mlops.sandbox.signatures.time.time", moment.timestamp)


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_a_signature_of_another_time_is_refused(
    aws: Account, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    assert codes(aws) == [("RequestTimeTooSkewed", 403), *MISMATCH[1:]]


def _changed(account: Account, service: str, change: Any) -> Any:
    """Return a client whose signed requests are changed on their way."""
    made = account.client(service)
    made.meta.events.register("before-send", lambda request, **_: change(request))
    return made


def test_a_request_that_was_changed_on_its_way_is_refused(aws: Account) -> None:
    aws.put("here", "x")

    def elsewhere(request: Any) -> None:
        request.url = request.url.replace("max-keys=1", "max-keys=2")

    def longer(request: Any) -> None:
        request.body = b"{} "
        request.headers["Content-Length"] = "3"

    def other(request: Any) -> None:
        request.body = b"y"

    def named(request: Any) -> None:
        request.headers["X-Amz-Target"] = "SageMaker.ListEndpoints"

    def cut(request: Any) -> None:
        text = request.headers["Authorization"].decode()
        request.headers["Authorization"] = text.partition(", Signature")[0]

    s3 = _changed(aws, "s3", elsewhere)
    listed = error(s3.list_objects_v2, Bucket=BUCKET, MaxKeys=1)
    assert listed[0] == "SignatureDoesNotMatch"
    for change in (longer, named):
        listed = _changed(aws, "sagemaker", change).list_models
        assert error(listed)[:2] == MISMATCH[2]
    s3 = _changed(aws, "s3", other)
    put = error(s3.put_object, Bucket=BUCKET, Key="here", Body=b"x")
    assert put[:2] == ("XAmzContentSHA256Mismatch", 400)
    assert aws.s3.get_object(Bucket=BUCKET, Key="here")["Body"].read() == b"x"
    listed = _changed(aws, "sagemaker", cut).list_models
    assert error(listed)[:2] == ("IncompleteSignatureException", 403)
    assert error(_changed(aws, "iam", cut).list_users)[:2] == ("IncompleteSignature", 403)


@pytest.mark.parametrize("payload_signing", [True, False])
def test_bodies_arrive_as_boto3_sends_them(aws: Account, payload_signing: bool) -> None:
    config = Config(s3={"payload_signing_enabled": payload_signing})
    s3: Any = aws._session.client("s3", endpoint_url=aws.url, config=config)
    body = os.urandom(9_000_000)
    for key in ("whole", "a b+ü/%41~", "x//../y"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=body[:1000], Metadata={"some_name": " a  b "})
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body[:1000]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    place = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload}
    part = s3.upload_part(**place, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**place, MultipartUpload=parts)
    assert s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == body


def test_chunks_without_signatures_arrive(aws: Account) -> None:
    config = Config(request_checksum_calculation="when_required")
    s3 = aws._session.client("s3", endpoint_url=aws.url, config=config)

    def chunked(request: Any, **_: Any) -> None:
        request.headers["Content-Encoding"] = "aws-chunked"
        request.headers["X-Amz-Decoded-Content-Length"] = "5"
        request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        request.data = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"

    s3.meta.events.register("before-sign.s3.PutObject", chunked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth.S3SigV4Auth, "payload",
                      lambda self, request: "STREAMING-UNSIGNED-PAYLOAD-TRAILER")  # fmt: skip
        s3.put_object(Bucket=BUCKET, Key="chunks", Body=b"hello")
    assert aws.s3.get_object(Bucket=BUCKET, Key="chunks")["Body"].read() == b"hello"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_address_is_refused(aws: Account, version: str) -> None:
    aws.put("shared.txt", "x")
    config = Config(signature_version=version)
    s3 = aws._session.client("s3", endpoint_url=aws.url, config=config, **aws.keys)
    given = {"Bucket": BUCKET, "Key": "shared.txt"}
    assert _status(s3.generate_presigned_url("get_object", given)) == 403


def _status(url: str) -> int:
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code
