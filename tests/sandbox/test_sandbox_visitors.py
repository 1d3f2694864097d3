"""Who reaches a running sandbox: its own clients only, no web page and nobody else's process."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from sandbox_cases import BUCKET, REGION, World, step, there, until
from sandbox_iam_case import HERE, Account, allow, error
from sm_mlops import sandbox
from sm_mlops.sandbox import Server, client

FORM = "application/x-www-form-urlencoded"
CREATE = json.dumps({"ModelPackageGroupName": "of-a-page"})
TARGET = {"X-Amz-Target": "SageMaker.CreateModelPackageGroup"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("visitors"), REGION) as server:
        Account(server.environment()).prepare()
        server.github.accounts.add("eve")
        server.github.routes.add("eve", "open", private=False)
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
    assert status == 403 and "requests from web pages are refused" in body
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    paths = ("api/v3/repos/eve/open", "eve/open.git/info/refs?service=git-upload-pack")
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


@pytest.mark.slow
def test_a_web_identity_needs_a_token_of_the_sandbox_s_github(server: Server) -> None:
    status, text, _ = ask(
        server, "POST", "/", urlencode({"Action": "AssumeRoleWithWebIdentity", "RoleSessionName":
        "x", "RoleArn": f"{HERE}:role/x", "WebIdentityToken": "a.b.c"}), Content_Type=FORM,
    )  # fmt: skip
    assert status == 400 and "InvalidIdentityToken" in text


@pytest.mark.parametrize(
    ("path", "form", "headers"),
    [
        ("/", "", {"X_Amz_Target": "SageMaker.ListModels"}),
        ("/", "", {"X_Amz_Target": "SageMaker.CreateModelPackageGroup"}),
        ("/?Action=ListUsers&Version=2010-05-08", "", {}),
        ("/", "&Action=ListUsers", {}),
        ("/", "&Action=AssumeRole", {}),
        ("/endpoints/x/invocations", "", {}),
        ("/2015-03-31/functions", "", {}),
    ],
)
def test_what_looks_like_a_web_identity_opens_no_other_door(
    server: Server, path: str, form: str, headers: dict[str, str]
) -> None:
    role = urlencode({"RoleArn": f"{HERE}:role/x", "RoleSessionName": "x", "WebIdentityToken": "x"})
    for first in (
        f"Action=AssumeRoleWithWebIdentity{form}",
        f"{form}&Action=AssumeRoleWithWebIdentity",
    ):
        body = f"{first.lstrip('&')}&{role}&Version=2011-06-15"
        status, text, _ = ask(server, "POST", path, body, Content_Type=FORM, **headers)
        refused = "AccessDenied|MissingAuthenticationToken|InvalidIdentityToken"
        assert status in (400, 403) and re.search(refused, text), text


# What lies about.


CANARY = "canary-of-the-developer"
PRIVATE = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "GH_TOKEN", "MLOPS_TRIGGER_TOKEN",
           "OPENAI_API_KEY", "UV_INDEX_PASSWORD", "SSH_AUTH_SOCK", "PYTHONPATH")  # fmt: skip


@pytest.mark.slow
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
        until(found.children)  # a job is listed before its process has begun
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
