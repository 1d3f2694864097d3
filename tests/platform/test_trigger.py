"""The trigger function, against the sandbox's AWS and a server that answers like GitHub's."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_mlops.sandbox import Server
from trigger_case import FOLDER, GitHub, functions, replace

pytestmark = pytest.mark.slow
REGION, BUCKET, SECRET = "eu-west-1", "claims", "sm-mlops/github"
CANARY = "ghp_canary0123456789"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# Of one account; a new client takes longer than what a test does with it.
@functools.cache
def client(service: Any) -> Any:
    return boto3.client(service)


KEPT: dict[str, Any] = {}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("account"), REGION) as server:
        yield server
    client.cache_clear()
    KEPT.clear()


@pytest.fixture
def github(github_as_described: list[str]) -> Iterator[GitHub]:
    server = GitHub(github_as_described)
    yield server
    server.close()


@pytest.fixture
def trigger(
    account: Server, github: GitHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """Yield the function's module, loaded as in a fresh instance."""
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("ALLOWED_OWNERS", "acme,others")
    monkeypatch.setenv("CREDENTIAL_SECRET", SECRET)
    monkeypatch.setenv("CLAIMS_BUCKET", BUCKET)
    monkeypatch.setenv("GITHUB_API", github.url)
    s3 = client("s3")
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        client("secretsmanager").create_secret(Name=SECRET, SecretString="{}")
    put_credential(token=CANARY)
    with functions() as modules:
        # The function's own clients as well.
        kept = KEPT.setdefault("client", modules.registry.client)
        replace(monkeypatch, modules, "client", kept)
        yield modules.handler


def put_credential(text: str = "", **values: str) -> None:
    client("secretsmanager").put_secret_value(
        SecretId=SECRET, SecretString=text or json.dumps(values)
    )


@pytest.fixture
def register(trigger: Any) -> Callable[..., str]:
    """Register a version and return its ARN; keywords change what the pipeline would stamp."""
    sagemaker = client("sagemaker")

    def registered(
        status: str = "Approved",
        repository: str = "https://github.com/acme/churn",
        commit: str = COMMIT,
        **about: str,
    ) -> str:
        groups = sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
        if not groups:
            sagemaker.create_model_package_group(ModelPackageGroupName="churn")
        metadata = {"Repository": repository, "CommitId": commit}
        arn = sagemaker.create_model_package(
            ModelPackageGroupName="churn",
            ModelApprovalStatus=status,
            MetadataProperties={key: value for key, value in metadata.items() if value},
            **({"CustomerMetadataProperties": about} if about else {}),
        )["ModelPackageArn"]
        return str(arn)

    return registered


def event(arn: str, **more: Any) -> dict[str, Any]:
    return {"detail": {"ModelPackageArn": arn, "ModelApprovalStatus": "Approved", **more}}


def approve(arn: str, status: str = "Approved") -> None:
    client("sagemaker").update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)


def test_an_approved_version_starts_its_repository_s_workflow_with_arn_and_commit(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    page = {"html_url": "https://github.com/acme/churn/actions/runs/7"}
    github.answers = [(200, {}, json.dumps(page).encode())]
    arn = register()
    told = trigger.handler(event(arn), None)
    path, headers, body = github.requests[0]
    assert path == "/repos/acme/churn/actions/workflows/deploy.yml/dispatches"
    assert headers["Authorization"] == f"Bearer {CANARY}"
    assert json.loads(body) == {
        "ref": "main",
        "inputs": {"model-package-arn": arn, "commit": COMMIT},
        "return_run_details": True,
    }
    assert (told["started"], told["run"]) == (True, page["html_url"])


def test_a_request_that_github_s_description_does_not_know_is_noticed(
    trigger: Any,
    register: Callable[..., str],
    github: GitHub,
    github_as_described: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = json.dumps

    def misspelled(value: Any, **how: Any) -> str:
        return written(value, **how).replace('"ref"', '"branch"')

    monkeypatch.setattr(trigger.ci.json, "dumps", misspelled)
    trigger.handler(event(register()), None)
    found, github_as_described[:] = [*github_as_described], []
    assert any("'ref' is a required property" in one for one in found)
    assert any("'branch' was unexpected" in one for one in found)


def test_several_events_for_one_approval_start_it_once(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    arn = register()
    assert [trigger.handler(event(arn), None)["started"] for _ in range(3)] == [True, False, False]
    assert len(github.requests) == 1


def test_events_at_the_same_moment_start_it_once_and_the_others_come_back_to_nothing(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    arn = register()
    ends: list[Any] = []

    def call() -> None:
        try:
            ends.append(trigger.handler(event(arn), None)["started"])
        except trigger.TriggerError as error:
            ends.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(github.requests) == 1 and ends.count(True) == 1
    assert trigger.handler(event(arn), None)["started"] is False


def test_approving_an_older_version_again_starts_it_again(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    arn = register()
    trigger.handler(event(arn), None)
    approve(arn, "Rejected")
    approve(arn)
    assert trigger.handler(event(arn), None)["started"] is True
    assert len(github.requests) == 2


def test_a_replay_by_hand_starts_it_again(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    arn = register()
    trigger.handler(event(arn), None)
    assert trigger.handler(event(arn, Replay=True), None)["started"] is True


@pytest.mark.parametrize("status", ["Rejected", "PendingManualApproval"])
def test_the_registry_is_the_truth_and_the_event_a_hint(
    trigger: Any, register: Callable[..., str], github: GitHub, status: str
) -> None:
    told = trigger.handler(event(register(status=status)), None)
    assert told["started"] is False and status in told["why"]
    assert not github.requests


@pytest.mark.parametrize(
    "repository",
    [
        "",
        "https://github.com/strangers/churn",
        "https://evil.example/acme/churn",
        "https://github.com.evil.example/acme/churn",
        "http://github.com/acme/churn",
        "https://github.com/acme/churn/../../orgs/acme",
        "https://github.com/acme",
        "https://github.com/acme/..",
        "https://github.com/acme/churn%2F..",
        "https://[github.com/acme/churn",
    ],
)
def test_a_version_of_another_origin_starts_nothing(
    trigger: Any, register: Callable[..., str], github: GitHub, repository: str
) -> None:
    assert trigger.handler(event(register(repository=repository)), None)["started"] is False
    assert not github.requests


@pytest.mark.parametrize(
    "detail",
    [
        None,
        {},
        {"ModelPackageArn": None},
        {"ModelPackageArn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/999"},
        {"ModelPackageArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/churn/1"},
        {"ModelPackageArn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package/alone"},
        {"ModelPackageArn": f"arn:aws:sagemaker:eu-west-1:123456789012:model-package/c/{'9' * 99}"},
        {"ModelPackageArn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/\u0661"},
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/1",
        ["ModelPackageArn"],
    ],
)
def test_a_malformed_or_foreign_event_starts_nothing(
    trigger: Any, register: Callable[..., str], github: GitHub, detail: Any
) -> None:
    register()
    assert trigger.handler({"detail": detail}, None)["started"] is False
    assert not github.requests


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["detail", "ModelPackageArn", "Replay", "source", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(event=JSON)
def test_whatever_comes_as_an_event_starts_nothing_and_breaks_nothing(
    trigger: Any, github: GitHub, event: Any
) -> None:
    told = trigger.handler(event, None)
    assert told["started"] is False and told["why"]
    assert json.dumps(told) and not github.requests


@pytest.mark.parametrize("commit", [f"{COMMIT}-dirty", "unknown", "main"])
def test_a_version_whose_commit_cannot_be_checked_out_is_an_error(
    trigger: Any, register: Callable[..., str], commit: str
) -> None:
    with pytest.raises(trigger.TriggerError, match="nobody can review"):
        trigger.handler(event(register(commit=commit)), None)


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 503])
def test_an_error_of_github_is_raised_told_without_the_token_and_can_be_retried(
    trigger: Any,
    register: Callable[..., str],
    github: GitHub,
    capsys: pytest.CaptureFixture[str],
    status: int,
) -> None:
    github.answers = [
        (status, {"Retry-After": "3600"}, b'{"message": "no, and why"}'),
        (204, {}, b""),
    ]
    arn = register()
    with pytest.raises(trigger.TriggerError, match=rf"{status} no, and why; try again in 3600 s"):
        trigger.handler(event(arn), None)
    assert trigger.handler(event(arn), None)["started"] is True
    assert CANARY not in "".join(capsys.readouterr())


def test_a_failure_is_reported_with_project_and_version(
    trigger: Any,
    register: Callable[..., str],
    github: GitHub,
    capsys: pytest.CaptureFixture[str],
) -> None:
    github.answers = [(503, {}, b'{"message": "no\\nserver"}')]
    arn = register()
    with pytest.raises(trigger.TriggerError):
        trigger.handler(event(arn), None)
    [line] = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["started"], told["modelPackageArn"]) == (False, arn)
    assert (told["project"], told["version"]) == ("churn", arn.rpartition("/")[2])
    assert told["repository"] == "acme/churn" and "503 no server" in told["why"]


@pytest.mark.parametrize("wait", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "\u00b2", "1.5", "9" * 40])
def test_a_retry_after_of_another_form_is_an_error_like_any_other(
    trigger: Any, register: Callable[..., str], github: GitHub, wait: str
) -> None:
    github.answers = [(429, {"Retry-After": wait}, b"{}")]
    with pytest.raises(trigger.TriggerError, match="429"):
        trigger.handler(event(register()), None)
    assert len(github.requests) == 1


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[]", b'{"html_url": null}'])
def test_a_started_deployment_is_not_started_again_because_of_its_answer(
    trigger: Any, register: Callable[..., str], github: GitHub, content: bytes
) -> None:
    github.answers = [(200, {}, content)]
    arn = register()
    assert trigger.handler(event(arn), None)["started"] is True
    assert trigger.handler(event(arn), None)["started"] is False
    assert len(github.requests) == 1


def test_a_started_deployment_whose_claim_cannot_be_kept_is_not_a_failure(
    trigger: Any,
    register: Callable[..., str],
    github: GitHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from botocore.exceptions import ClientError

    def keep(*_: Any) -> None:
        raise ClientError({"Error": {"Code": "SlowDown", "Message": "later"}}, "PutObject")

    monkeypatch.setattr(trigger.Claim, "keep", keep)
    assert trigger.handler(event(register()), None)["started"] is True
    assert "could not be recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("token", "works"),
    [
        (f"{CANARY}\n", True),
        (f" {CANARY} ", True),
        (f"{CANARY}\nX: y", False),
        (f"{CANARY}é", False),
    ],
)
def test_a_token_that_no_header_can_hold_is_never_shown(
    trigger: Any,
    register: Callable[..., str],
    github: GitHub,
    capsys: pytest.CaptureFixture[str],
    token: str,
    works: bool,
) -> None:
    put_credential(token=token)
    arn = register()
    if works:
        assert trigger.handler(event(arn), None)["started"] is True
        assert github.requests[0][1]["Authorization"] == f"Bearer {CANARY}"
        return
    with pytest.raises(trigger.TriggerError) as told:
        trigger.handler(event(arn), None)
    chain = [told.value, told.value.__cause__, told.value.__context__]
    assert not any(CANARY in repr(error) for error in chain)
    assert CANARY not in "".join(capsys.readouterr()) and not github.requests


@pytest.mark.parametrize("location", ["https://[", "//evil.example/x", "https://evil.example/"])
def test_a_redirect_that_leads_elsewhere_or_nowhere_is_not_followed(
    trigger: Any, register: Callable[..., str], github: GitHub, location: str
) -> None:
    github.answers = [(307, {"Location": location}, b"")]
    with pytest.raises(trigger.TriggerError, match=r"307|no answer"):
        trigger.handler(event(register()), None)
    assert len(github.requests) == 1


def test_a_version_that_was_registered_as_approved_has_no_modification_yet(
    trigger: Any, register: Callable[..., str], github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = register()
    package = client("sagemaker").describe_model_package(ModelPackageName=arn)
    package.pop("LastModifiedTime", None)

    class Registry:
        def describe_model_package(self, **_: str) -> dict[str, Any]:
            return dict(package)

    monkeypatch.setattr(trigger.registry, "client", lambda _: Registry())
    assert trigger.handler(event(arn), None)["started"] is True


def test_a_short_retry_after_is_waited_for(
    trigger: Any, register: Callable[..., str], github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(trigger.ci, "time", SimpleNamespace(**vars(time) | {"sleep": slept.append}))
    github.answers = [(429, {"Retry-After": "1"}, b"{}"), (204, {}, b"")]
    assert trigger.handler(event(register()), None)["started"] is True
    assert slept == [1]


def test_a_redirect_to_another_server_does_not_get_the_token(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    thief = GitHub([])
    try:
        github.answers = [(307, {"Location": f"{thief.url}/repositories/1"}, b"")]
        with pytest.raises(trigger.TriggerError, match=r"307|no answer"):
            trigger.handler(event(register()), None)
        assert not thief.requests
    finally:
        thief.close()


def test_a_renamed_repository_is_followed_on_the_same_server(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    place = "/repositories/1/actions/workflows/deploy.yml/dispatches"
    github.answers = [(307, {"Location": place}, b""), (204, {}, b"")]
    assert trigger.handler(event(register()), None)["started"] is True
    assert github.requests[1][0] == place


def test_a_server_that_trickles_bytes_is_given_up_on(
    trigger: Any, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def send(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.02):
                handler.wfile.write(b"x")

    monkeypatch.setattr(github.server.RequestHandlerClass, "do_POST", send)
    began = time.monotonic()
    try:
        with (
            pytest.raises(trigger.TriggerError, match="not complete in time"),
            trigger.ci._until(began + 0.3),
        ):
            trigger.ci._post(github.url, b"", {"Authorization": "Bearer x"}, began + 60)
    finally:
        ended.set()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_server_that_is_down_is_an_error_that_names_it(
    trigger: Any, register: Callable[..., str], github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_API", "http://127.0.0.1:9")
    with pytest.raises(trigger.TriggerError, match=r"127\.0\.0\.1/repos/acme/churn.*no answer"):
        trigger.handler(event(register()), None)


@pytest.mark.parametrize("text", ["ghp_canary0123456789", '["ghp_canary0123456789"]', "{}"])
def test_a_credential_of_the_wrong_form_is_refused_without_showing_it(
    trigger: Any, register: Callable[..., str], text: str
) -> None:
    put_credential(text)
    with pytest.raises(trigger.TriggerError) as told:
        trigger.handler(event(register()), None)
    chain = [told.value, told.value.__cause__, told.value.__context__]
    assert not any(CANARY in repr(error) for error in chain)


def test_a_github_app_signs_in_with_a_token_of_its_installation(
    trigger: Any, register: Callable[..., str], github: GitHub
) -> None:
    import jwt
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    put_credential(app_id="17", installation_id="42", private_key=pem.decode())
    github.answers = [(201, {}, b'{"token": "ghs_short"}'), (204, {}, b"")]
    assert trigger.handler(event(register()), None)["started"] is True
    (path, headers, body), (_, second, _) = github.requests
    assert path == "/app/installations/42/access_tokens"
    wanted = {"permissions": {"actions": "write"}, "repositories": ["churn"]}
    assert json.loads(body) == wanted
    claims = jwt.decode(
        headers["Authorization"].removeprefix("Bearer "), key.public_key(), algorithms=["RS256"]
    )
    assert claims["iss"] == "17" and claims["exp"] - claims["iat"] <= 600
    assert second["Authorization"] == "Bearer ghs_short"


def test_a_jenkins_repo_starts_its_job_with_jenkins_own_token(
    trigger: Any, register: Callable[..., str], github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JENKINS_URL", f"{github.url}/jenkins/")
    put_credential(token=CANARY, jenkins_user="ci", jenkins_token="11canary")
    github.answers = [(201, {"Location": f"{github.url}/queue/item/5/"}, b"")]
    told = trigger.handler(event(register(CI="jenkins")), None)
    path, headers, body = github.requests[0]
    assert path == "/jenkins/job/acme/job/churn/job/main/buildWithParameters"
    assert base64.b64decode(headers["Authorization"].split()[1]) == b"ci:11canary"
    assert f"COMMIT={COMMIT}" in body.decode() and "MODEL_PACKAGE_ARN=arn%3Aaws" in body.decode()
    assert told["run"] == f"{github.url}/queue/item/5/"


def test_the_path_with_a_token_loads_neither_boto3_nor_the_layer(
    trigger: Any, register: Callable[..., str]
) -> None:
    import subprocess

    code = (
        "import sys, handler; print(sorted({'boto3', 'jwt', 'requests', 'app'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
