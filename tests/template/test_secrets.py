"""Credentials on their way through cookiecutter and its hook, which connects the new repo for real:
with an AWS and a GitHub on loopback."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from answers import FINISH, NOBODY
from rendering import Rendered, Run, run

pytestmark = pytest.mark.slow
Cookiecutter = Callable[..., Run]
SUPPORT = Path(__file__).parents[1] / "support"
# Serves until its standard input ends. The tokens are random: whatever shows one has leaked it.
CLOUD = """
import json, sys
from pathlib import Path
import boto3
sys.path.append(sys.argv[2])
from fault_injection import inject_github
from sm_mlops.sandbox import Server

def allowed(**more):
    statement = {"Effect": "Allow", "Action": "*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

def administrator(variables):
    # Service Catalog knows roles and users only, not an account's own key.
    key = (variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"])
    session = boto3.Session(*key, region_name="us-east-1")
    iam, sts = (session.client(name, endpoint_url=server.url) for name in ("iam", "sts"))
    trust = allowed(Action="sts:AssumeRole", Principal={"AWS": "123456789012"})
    try:
        iam.create_role(RoleName="administrator", AssumeRolePolicyDocument=trust)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    iam.put_role_policy(
        RoleName="administrator", PolicyName="all", PolicyDocument=allowed(Resource="*")
    )
    arn = "arn:aws:iam::123456789012:role/administrator"
    found = sts.assume_role(RoleArn=arn, RoleSessionName="ada")["Credentials"]
    return variables | {
        "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
        "AWS_SESSION_TOKEN": found["SessionToken"],
    }

with Server(Path(sys.argv[1]), "us-east-1") as server:
    accounts = server.github.accounts
    accounts.add("ada")
    accounts.add("my-org", "Organization", plan="enterprise", ada="admin")
    for label in sys.argv[3:]:
        inject_github(server.github, label, 422, times=100)
    tokens = {
        "GITHUB_TOKEN": accounts.token("ada", "repo", "workflow", "read:org"),
        "MLOPS_TRIGGER_TOKEN": accounts.fine_grained("ada", "my-org", None, actions="write"),
    }
    print(json.dumps([administrator(server.environment()), tokens]), flush=True)
    sys.stdin.read()
"""
Cloud = tuple[dict[str, str], dict[str, str]]


@pytest.fixture(autouse=True)
def nobody_s_own_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NOBODY, "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def cloud(repo: Rendered, folder: Path, *failing: str) -> Iterator[Cloud]:
    """Yield the variables that lead to an empty account and to GitHub, and the tokens among them.

    Requests to GitHub with one of the labels `failing` are refused.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", CLOUD, str(folder), str(SUPPORT), *failing],
        cwd=repo.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        environment, tokens = json.loads(process.stdout.readline())
        yield {k: v for k, v in (environment | tokens).items() if v}, tokens
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def assert_nowhere(secrets: dict[str, str], folder: Path, *said: str) -> None:
    """Check that no value is in any file of a folder, nor in what was said.

    git's objects are neither packed nor compressed here.
    """
    for name, value in secrets.items():
        assert not any(value in text for text in said), name
        for file in folder.rglob("*"):
            if file.is_file():
                assert value.encode() not in file.read_bytes(), (name, file)


def objects(repo: Path) -> str:
    """Return all that git keeps, uncompressed."""
    command = ["git", "-C", str(repo), "cat-file", "--batch-all-objects", "--batch"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")


def test_the_hook_connects_the_repo_and_keeps_no_credential(
    elsewhere: Cookiecutter, tmp_path: Path, default: Rendered
) -> None:
    with cloud(default, tmp_path / "cloud") as (environment, tokens):
        done = elsewhere(SM_MLOPS_REGISTER="yes", **environment)
        assert done.code == 0, done.out + done.err
        repo = Rendered(tmp_path / "work" / "my-model")
        again = repo.run("python", "-m", "sm_mlops", "bootstrap", "--plan", **environment)
    assert "created      SageMaker project my-model" in done.out, done.out + done.err
    assert "pushed       main" in done.out and FINISH not in done.out, done.out + done.err
    assert not [line for line in again.out.splitlines() if line.startswith(("create", "change"))]
    assert run("git", "remote", "get-url", "origin", cwd=repo.path).out.strip().endswith(".git")
    said = (done.out, done.err, again.out, again.err, objects(repo.path))
    for place in ("work", "home", "tmp"):
        assert_nowhere(tokens, tmp_path / place, *said)


@pytest.mark.long
def test_a_refusal_by_github_midway_leaves_a_repo_and_the_command_to_continue(
    elsewhere: Cookiecutter, tmp_path: Path, default: Rendered
) -> None:
    with cloud(default, tmp_path / "cloud", "POST */variables") as (environment, tokens):
        done = elsewhere(SM_MLOPS_REGISTER="yes", **environment)
    assert done.code == 0, done.out + done.err
    assert "created      SageMaker project my-model" in done.out
    assert "mlops: " in done.err and "Traceback" not in done.err
    assert FINISH in done.out
    repo = Rendered(tmp_path / "work" / "my-model")
    # Another day, with the same account.
    with cloud(default, tmp_path / "cloud") as (environment, others):
        finished = repo.run("python", "-m", "sm_mlops", "bootstrap", "--yes", **environment)
    assert finished.code == 0, finished.out + finished.err
    assert "created      SageMaker project" not in finished.out and "pushed" in finished.out
    said = (done.out, done.err, finished.out, finished.err, objects(repo.path))
    for place in ("work", "home", "tmp"):
        assert_nowhere(tokens | others, tmp_path / place, *said)
