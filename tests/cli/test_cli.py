"""The command line: its error messages, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore import exceptions

from bootstrap_case import mlops_here
from function_cases import Wired
from repos import ROOT, Repo, bare_environment, mlops
from sm_mlops.aws import Aws
from sm_mlops.cli import console
from sm_mlops.errors import MlopsError, explained


@pytest.mark.slow
def test_help_names_every_command_and_loads_neither_the_sdk_nor_boto3(repo: Repo) -> None:
    script = """
import sys
from sm_mlops.cli.main import app
for words in (["--help"], ["models", "--help"], ["deploy", "--help"]):
    try:
        app(words)
    except SystemExit as done:
        assert not done.code
heavy = {"sagemaker", "boto3", "botocore", "github", "moto", "pandas"}
loaded = heavy & {name.partition(".")[0] for name in sys.modules}
loaded |= {"sm_mlops.sandbox"} & set(sys.modules)
print("loaded", sorted(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repo.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    commands = ("compile", "run", "follow", "stop", "logs", "models", "approve", "reject", "report")
    deployment = ("deploy", "smoke", "invoke", "rollback", "status", "destroy", "share", "check")
    connection = ("bootstrap", "doctor", "trigger", "secret", "compare")
    for command in (*commands, *deployment, *connection, "sandbox"):
        assert f" {command} " in done.stdout
    assert done.stdout.rstrip().endswith("loaded []")


@pytest.mark.slow
def test_outside_a_repo_it_says_so(tmp_path: Path) -> None:
    done = mlops(tmp_path, "models")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mlops: no mlops.yaml in")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_mistake_in_the_settings_is_one_line(repo: Repo) -> None:
    repo.root.joinpath("mlops.yaml").write_text("data: {path: x, targt: y}")
    done = mlops_here(repo.root, "models")
    assert done.returncode == 2
    assert done.stderr == "mlops: mlops.yaml: data.targt is unknown; did you mean target?\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        *("models", "report", "follow", "stop", "logs", "approve 1", "reject 1", "status", "share"),
        *("smoke staging", "invoke staging", "rollback staging", "destroy staging"),
        *("destroy --all", "logs --stage staging", "compare 1 2"),
        "deploy staging --model-package-arn "
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/1",
    ],
)
def test_without_a_sign_in_it_says_how_to_sign_in_or_stay_local(repo: Repo, command: str) -> None:
    done = mlops_here(repo.root, *command.split())
    assert done.returncode == 2
    assert done.stderr.startswith("mlops: no AWS credentials found")
    assert "--sandbox" in done.stderr
    assert done.stderr.count("\n") == 1


PROFILES = """
[profile process]
credential_process = sh -c "echo no ticket >&2; exit 1"
[profile silent]
credential_process = false
[profile nonsense]
credential_process = echo nonsense
[profile program]
credential_process = /no/such/program
[profile source]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = missing
[profile token]
role_arn = arn:aws:iam::123456789012:role/x
web_identity_token_file = /no/such/file
[profile sso]
sso_session = missing
sso_account_id = 123456789012
sso_role_name = x
"""


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("process", "custom-process: no ticket"),
        ("silent", "custom-process: it failed without a message"),
        ("nonsense", "JSONDecodeError: Expecting value"),
        ("program", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/program'"),
        (
            "source",
            'The source_profile "missing" referenced in the profile "source" does not exist',
        ),
        ("token", "No such file or directory: '/no/such/file'"),
        ("sso", 'The specified sso-session does not exist: "missing"'),
    ],
)
def test_a_profile_that_cannot_sign_in_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repo: Repo, profile: str, said: str
) -> None:
    (tmp_path / "config").write_text(PROFILES)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(MlopsError, match=f"cannot sign in to AWS as profile {profile}: ") as failed:
        _ = Aws(repo.settings()).sagemaker
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.slow
def test_an_unreachable_account_is_one_line(repo: Repo) -> None:
    done = mlops(
        repo.root,
        "models",
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="b",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_MAX_ATTEMPTS="1",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mlops: cannot reach AWS")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_full_disk_under_the_output_is_one_line(repo: Repo) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "sm_mlops", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=repo.root,
            env=bare_environment(repo.root),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "mlops: cannot write the output: No space left on device\n"


def test_a_name_with_brackets_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("data       1 file at s3://bucket/data [old]/[red]")
    assert capsys.readouterr().out == "data       1 file at s3://bucket/data [old]/[red]\n"


@pytest.mark.slow
def test_a_setting_without_a_value_is_refused(repo: Repo) -> None:
    done = mlops_here(repo.root, "run", "--set", "max_depth")
    assert done.returncode == 2
    assert "must be NAME=VALUE" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("approve", "1", "--comment", "x" * 1025), ("run", "--reason", "x" * 1025)]
)
def test_a_comment_longer_than_aws_keeps_is_refused(repo: Repo, words: tuple[str, ...]) -> None:
    done = mlops_here(repo.root, *words)
    assert done.returncode == 2
    assert "1025 characters" in done.stderr


@pytest.mark.slow
def test_a_reason_that_a_job_would_take_for_an_option_is_refused(repo: Repo) -> None:
    done = mlops_here(repo.root, "run", "--reason=-rollback")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--reason begins with a hyphen" in done.stderr


def test_a_refusal_by_aws_keeps_its_code_and_words() -> None:
    answer = {"Error": {"Code": "AccessDeniedException", "Message": "not\nallowed"}}
    error = exceptions.ClientError(answer, "StartPipelineExecution")  # type: ignore[arg-type]
    said = explained(error, "eu-west-1")
    assert said == "AWS refused StartPipelineExecution: AccessDeniedException: not allowed"


def test_an_expired_sign_in_is_reported_as_such() -> None:
    error = exceptions.ClientError({"Error": {"Code": "ExpiredToken"}}, "GetCallerIdentity")
    assert "no longer valid" in (explained(error, "eu-west-1") or "")


def test_an_upload_that_aws_refuses_is_one_line(account: Aws, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.touch()
    with pytest.raises(S3UploadFailedError) as caught:
        account.s3.upload_file(str(file), "no-such-bucket", "rows.csv")
    said = explained(caught.value, "eu-west-1") or ""
    assert "NoSuchBucket" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionClosedError(endpoint_url="https://x"),
        exceptions.ReadTimeoutError(endpoint_url="https://x"),
        exceptions.ProxyConnectionError(proxy_url="http://x"),
    ],
)
def test_a_lost_network_connection_is_not_a_bug(error: Exception) -> None:
    assert (explained(error, "eu-west-1") or "").startswith("cannot reach AWS in eu-west-1")


def test_a_bug_is_not_explained_away() -> None:
    assert explained(KeyError("bug"), "eu-west-1") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("deploy stagin --model-package-arn x", "no stage stagin: did you mean staging?"),
        ("destroy", "name a stage, or pass --all"),
        ("destroy staging --all", "name a stage, or pass --all"),
        ("destroy staging --data", "--registry and --data need --all"),
        ("destroy --all --data", "--data needs --registry"),
        ("logs Train --stage staging", "--stage cannot be combined with a step"),
    ],
)
def test_contradictory_options_are_refused_in_one_line(
    repo: Repo, account: Aws, command: str, said: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = mlops_here(repo.root, *command.split(), **keys)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_shell_completes_the_names_of_stages(repo: Repo) -> None:
    words = {"_MLOPS_COMPLETE": "complete_bash", "COMP_WORDS": "mlops smoke pro", "COMP_CWORD": "2"}
    assert mlops_here(repo.root, **words).stdout.split() == ["production"]
    outside = mlops_here(repo.root.parent, **words)
    assert (outside.stdout.strip(), outside.stderr) == ("", "")


@pytest.mark.slow
def test_every_command_of_the_deploy_panel_shows_an_example(repo: Repo) -> None:
    for command in ("deploy", "smoke", "invoke", "rollback", "status", "destroy", "share"):
        shown = mlops_here(repo.root, command, "--help").stdout
        assert "Example" in shown
        assert f"mlops {command}" in shown.partition("Example")[2]


@pytest.mark.slow
def test_the_sandbox_s_clock_is_moved_and_its_messages_are_shown(repo: Repo) -> None:
    from sm_mlops import sandbox

    long = mlops_here(repo.root, "sandbox", "wait", "99999999999999d")
    assert (long.returncode, long.stderr.strip()) == (
        2,
        "mlops: 99999999999999d is longer than 400d, the longest",
    )
    wrong = mlops_here(repo.root, "sandbox", "wait", "tomorrow")
    assert wrong.returncode == 2 and "30s, 90m, 3h or 1d" in wrong.stderr
    with sandbox.connect(repo.root, "eu-west-1") as variables:
        aws = Wired(variables)
        role = aws.role("nobody", service="scheduler.amazonaws.com")
        target = "arn:aws:lambda:eu-west-1:123456789012:function:none"
        aws.client("scheduler").create_schedule(
            Name="daily",
            ScheduleExpression="cron(0 6 * * ? *)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": target, "RoleArn": role, "Input": "{}"},
        )
        topic = aws.client("sns").create_topic(Name="news")["TopicArn"]
        aws.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="a@example.com")
        first, last = mlops(repo.root, "sandbox", "wait", "1d").stdout.splitlines()
        assert first.endswith(" 06:00:00 UTC  daily") and last.endswith(" UTC  in the sandbox")
        aws.client("sns").publish(TopicArn=topic, Subject="Approval [waits]", Message="Open it")
        shown = mlops(repo.root, "sandbox", "messages").stdout
        assert "news, to a@example.com" in shown and last[:10] in shown
        assert "Subject: Approval [waits]\nOpen it" in shown
        (message,) = json.loads(mlops(repo.root, "sandbox", "messages", "--json").stdout)
        assert message["To"] == ["a@example.com"] and message["Message"] == "Open it"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["down", "reset"])
def test_a_sandbox_stops_even_if_the_settings_cannot_be_read(repo: Repo, command: str) -> None:
    from sm_mlops import sandbox

    up = mlops(repo.root, "sandbox", "up")
    assert up.returncode == 0, up.stderr
    try:
        (repo.root / "mlops.yaml").write_text("<<<<<<< ours\n", encoding="utf-8")
        done = mlops(repo.root, "sandbox", command)
        assert done.returncode == 0, done.stderr
        assert sandbox.status(repo.root) is None
    finally:
        sandbox.stop(repo.root)
