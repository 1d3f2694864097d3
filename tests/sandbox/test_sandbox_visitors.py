"""Who reaches a running sandbox: its own clients only, no web page and nobody else's process."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import botocore.auth
import psutil
import pytest
from botocore.client import Config

from github_case import add_people
from sandbox_cases import BUCKET, REGION, World, policy, step, there
from sandbox_iam_case import HERE, Account, allow, error
from sm_mlops import sandbox
from sm_mlops.sandbox import Server, client
from sm_mlops.sandbox.client import SandboxError

FORM = "application/x-www-form-urlencoded"
CREATE = json.dumps({"ModelPackageGroupName": "of-a-page"})
TARGET = {"X-Amz-Target": "SageMaker.CreateModelPackageGroup"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("visitors"), REGION) as server:
        Account(server.environment()).prepare()
        add_people(server)
        server.github.routes.add("acme", "open", private=False)
        yield server


@pytest.fixture
def aws(server: Server) -> Account:
    return Account(server.environment())


def ask(
    server: Server, method: str = "GET", path: str = "/", body: str = "", **headers: str
) -> tuple[int, str, Mapping[str, str]]:
    """Send a request without a signature; return status, body and headers of the answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body.encode(), named)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.headers.items())
    connection.close()
    return found


# What a browser sends for a page of somebody else.


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("POST", "/"), ("OPTIONS", "/"), ("PUT", f"/{BUCKET}/x"), ("GET", "/_github/"),
     ("POST", "/_sandbox/status"), ("POST", "/moto-api/reset")],
)  # fmt: skip
def test_a_page_of_another_origin_gets_nothing(
    server: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    status, body, answered = ask(server, method, path, "x", **headers)
    assert status == 403 and "no web page" in body
    assert not [name for name in answered if name.lower().startswith("access-control")]


def test_even_a_signed_request_is_refused_when_a_page_sends_it(aws: Account) -> None:
    def page(request: Any, **_: Any) -> None:
        request.headers["Origin"] = "https://evil.example"

    aws.sagemaker.meta.events.register("before-sign", page)
    assert error(aws.sagemaker.list_models)[:2] == ("AccessDenied", 403)


@pytest.mark.parametrize(
    "name",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost",
     "169.254.169.254", "0.0.0.0", ""],
)  # fmt: skip
def test_a_name_that_leads_here_is_not_the_sandbox_s(server: Server, name: str) -> None:
    for host in (f"{name}:{server.port}", name):
        assert ask(server, Host=host)[0] == 421
    for name in ("127.0.0.1", "localhost", "[::1]"):
        assert ask(server, Host=f"{name}:{server.port}")[0] == 403
        assert ask(server, Host=f"{name}:{server.port + 1}")[0] == 421
        assert ask(server, Host=name)[0] == 421


@pytest.mark.parametrize("kind", ["text/plain", FORM, "multipart/form-data; boundary=x", ""])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (CREATE, TARGET),
        (CREATE, {}),
        (urlencode({"Action": "CreateUser", "UserName": "page", "Version": "2010-05-08"}), {}),
        (urlencode({"Action": "AssumeRole", "RoleArn": f"{HERE}:role/hosting",
                    "RoleSessionName": "x", "Version": "2011-06-15"}), {}),
        (urlencode({"Action": "CreateStack", "StackName": "page", "TemplateBody": "{}",
                    "Version": "2010-05-15"}), {}),
    ],
)  # fmt: skip
def test_what_nobody_has_signed_changes_nothing(
    server: Server, aws: Account, kind: str, body: str, headers: dict[str, str]
) -> None:
    given = {**headers, **({"Content-Type": kind} if kind else {})}
    status, text, _ = ask(server, "POST", "/", body, **given)
    code = "MissingAuthenticationTokenException" if headers else "MissingAuthenticationToken"
    assert status == 403 and re.search(rf"\b{code}\b", text)
    groups = aws.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [group["ModelPackageGroupName"] for group in groups] == ["group"]
    assert aws.iam.list_users()["Users"] == []
    assert aws.client("cloudformation").describe_stacks()["Stacks"] == []


@pytest.mark.parametrize(
    "path",
    ["/moto-api/reset", "/moto-api/data.json", "/latest/meta-data/", f"/{BUCKET}",
     "/2015-03-31/functions", "/favicon.ico"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_no_path_is_open(server: Server, aws: Account, method: str, path: str) -> None:
    assert ask(server, method, path)[0] == 403
    aws.s3.head_bucket(Bucket=BUCKET)


def test_moto_s_own_interface_is_closed_to_those_who_may_sign(aws: Account) -> None:
    reader = aws.may("moto-reader", allow("s3:*"))
    assert error(reader.s3.get_object, Bucket="moto-api", Key="data.json")[0] == "NoSuchBucket"


def test_no_answer_may_be_read_by_another_page(server: Server, aws: Account) -> None:
    for call in (aws.s3.list_buckets, aws.iam.list_roles, aws.sagemaker.list_models):
        headers = call()["ResponseMetadata"]["HTTPHeaders"]
        assert not [name for name in headers if name.startswith("access-control")]


def test_the_control_channel_wants_its_token(server: Server) -> None:
    for token in ({}, {"X_Sandbox_Token": "x"}, {"X_Sandbox_Token": "\xe9"}):
        for action in ("status", "lease", "stop", "control"):
            assert ask(server, "POST", f"/_sandbox/{action}", **token)[0] == 403
    assert ask(server, "POST", "/_sandbox/status", X_Sandbox_Token=server.token)[0] == 200


def test_github_wants_a_token_even_for_what_is_public(server: Server) -> None:
    paths = ("api/v3/repos/acme/open", "acme/open.git/info/refs?service=git-upload-pack")
    for path in paths:
        status, _, headers = ask(server, "GET", f"/_github/{path}")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="GitHub"')
        wrong = {"Authorization": "token x", "User_Agent": "x"}
        assert ask(server, "GET", f"/_github/{path}", **wrong)[0] == 401
    token = server.github.accounts.token("eve", "repo")
    known = {"Authorization": f"token {token}", "User_Agent": "x"}
    assert ask(server, "GET", f"/_github/{paths[0]}", **known)[0] == 200


@pytest.mark.parametrize("length", ["-5", "abc"])
@pytest.mark.parametrize("path", ["/", "/_github/api/v3/user", "/_sandbox/status"])
def test_a_length_that_is_none_is_refused_everywhere(
    server: Server, path: str, length: str
) -> None:
    assert ask(server, "POST", path, Content_Length=length)[0] == 400


# Signatures.


def of_key(aws: Account, key: str, secret: str, token: str | None = None) -> Account:
    return aws.as_({"AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token})


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


def test_what_a_web_identity_gets_has_a_secret_too(server: Server, aws: Account) -> None:
    status, text, _ = ask(
        server, "POST", "/", urlencode({"Action": "AssumeRoleWithWebIdentity", "RoleSessionName":
        "x", "RoleArn": f"{HERE}:role/x", "WebIdentityToken": "a.b.c"}), Content_Type=FORM,
    )  # fmt: skip
    assert status == 400 and "InvalidIdentityToken" in text


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
    s3 = aws._session.client("s3", endpoint_url=aws.url, config=config)
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
    def chunked(request: Any, **_: Any) -> None:
        request.headers.replace_header("X-Amz-Content-SHA256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")

    config = Config(request_checksum_calculation="when_required")
    s3 = aws._session.client("s3", endpoint_url=aws.url, config=config)

    def unsigned(request: Any, signing_name: str, **_: Any) -> None:
        request.headers["Content-Encoding"] = "aws-chunked"
        request.headers["X-Amz-Decoded-Content-Length"] = "5"
        request.headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        request.data = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"

    original = botocore.auth.S3SigV4Auth.payload
    s3.meta.events.register("before-sign.s3.PutObject", unsigned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth.S3SigV4Auth, "payload",
                      lambda self, request: "STREAMING-UNSIGNED-PAYLOAD-TRAILER")  # fmt: skip
        s3.put_object(Bucket=BUCKET, Key="chunks", Body=b"hello")
    assert original and aws.s3.get_object(Bucket=BUCKET, Key="chunks")["Body"].read() == b"hello"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_address_is_good_for_one_object_and_a_while(
    aws: Account, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    aws.put("shared ü.txt", "x")
    aws.put("secret.txt", "y")
    for who in (aws, aws.may(f"sharer-{version}", allow("s3:GetObject"))):
        s3 = who._session.client(
            "s3", endpoint_url=aws.url, config=Config(signature_version=version), **who.keys
        )
        given = {"Bucket": BUCKET, "Key": "shared ü.txt"}
        url = s3.generate_presigned_url("get_object", given, ExpiresIn=60)
        with urlopen(url) as answer:
            assert answer.read() == b"x"
        other = re.sub(r"shared[^?]*", "secret.txt", url)
        later = re.sub(r"(Expires=)(\d+)", lambda m: f"{m[1]}{int(m[2]) + 9}", url)
        for wrong in (other, later, f"{url}x"):
            assert _status(wrong) in (403, 400), wrong
        with monkeypatch.context() as patch:
            later_on = time.time() + 61
            patch.setattr("sm_mlops.sandbox.signatures.time.time", lambda at=later_on: at)
            assert _status(url) == 403


def _status(url: str) -> int:
    try:
        with urlopen(url) as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code


# What lies about.


def test_the_state_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / ".sandbox"
    folder.mkdir()
    folder.chmod(0o755)
    with Server(tmp_path, REGION):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sandbox.reset(tmp_path)
    with sandbox.connect(tmp_path, REGION):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_state_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".sandbox").mkdir(mode=0o755)
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / ".sandbox").stat().st_uid + 1)
    with pytest.raises(SandboxError, match="belongs to another user"):
        Server(tmp_path, REGION).start()
    with (
        pytest.raises(SandboxError, match="belongs to another user"),
        sandbox.connect(tmp_path, REGION),
    ):
        pass
    assert list((tmp_path / ".sandbox").iterdir()) == []


CANARY = "canary-of-the-developer"
PRIVATE = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "GH_TOKEN", "MLOPS_TRIGGER_TOKEN",
           "OPENAI_API_KEY", "UV_INDEX_PASSWORD", "SSH_AUTH_SOCK", "PYTHONPATH")  # fmt: skip


def test_nothing_of_the_developer_s_reaches_the_server_and_no_secret_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PRIVATE:
        monkeypatch.setenv(name, CANARY)
    sandbox.start(tmp_path, REGION)
    try:
        aws = World(there(tmp_path)).prepare()
        wait = aws.processing("import time; time.sleep(600)")
        aws.wait_for_step(aws.start([step("Wait", "Processing", wait)]), "Wait")
        folder = tmp_path / ".sandbox"
        key = client.account_key(folder)
        record = json.loads((folder / "server.json").read_text())
        status = sandbox.status(tmp_path)
        assert status is not None
        found = psutil.Process(status.pid)
        started = [found, *found.children(recursive=True)]
        assert len(started) > 1
        assert not set(PRIVATE) - {"PYTHONPATH"} & set(found.environ())
        for process in started:
            assert CANARY not in "\n".join(process.environ().values())
            shown = " ".join(process.cmdline())
            assert not [each for each in (key.id, *key[1:], record["token"]) if each in shown]
        secret_files = {"key.json", "server.json"}
        for file in folder.rglob("*"):
            if file.is_file() and file.name not in secret_files:
                content = file.read_bytes()
                assert key.secret.encode() not in content, file
                assert record["token"].encode() not in content, file
        for name in secret_files:
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    finally:
        sandbox.stop(tmp_path)
