"""Starting, sharing and ending the sandbox's server from other processes, politely and by force."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox_cases import BUCKET, GROUP, World, register, step, there
from sm_mlops import sandbox
from sm_mlops.sandbox import SandboxError

REPO = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
MARK = "marked-as-a-test-job"
LONG = f"import time\nprint('{MARK}', flush=True)\ntime.sleep(600)\n"
pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "my repo"
    sandbox.reset(tmp_path / "my repo")


def eventually(what: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the first true answer; fail if none comes in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never came true: {what}")


def hold(gate: Path) -> str:
    """Return a line of Python that ends when a file is there."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"


def jobs_below(root: Path) -> list[psutil.Process]:
    """Return every process that runs for a job of this sandbox, whatever its parent."""
    found = []
    for process in psutil.process_iter():
        try:
            base = process.environ().get("SAGEMAKER_BASE_DIR", "")
        except psutil.Error:
            continue
        if base.startswith(str(root)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def server_of(root: Path) -> psutil.Process:
    return psutil.Process(int((root / ".sandbox" / "server.lock").read_text()))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def url(environment: dict[str, str]) -> str:
    return environment["AWS_ENDPOINT_URL"]


def command(root: Path, body: str) -> subprocess.Popen[str]:
    """Start a process that connects and then runs `body` with `aws` and `env` at hand."""
    script = f"""
import os, sys, time
sys.path.insert(0, {str(REPO / "tests" / "support")!r})
from sm_mlops import sandbox
from sandbox_cases import World, step, world
with sandbox.connect({str(root)!r}, {REGION!r}) as env:
{textwrap.indent(textwrap.dedent(body), "    ")}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPO
    )


RUN_LONG = f"""
    aws = world_ = World(env).prepare()
    arn = aws.start([step("Long", "Processing", aws.processing({LONG!r}))], name="long")
    aws.wait_for_step(arn, "Long")
    print(arn, flush=True)
"""


def test_connecting_starts_a_server_and_leaving_ends_it(root: Path) -> None:
    with sandbox.connect(root, REGION) as environment:
        World(environment).prepare()
        process = server_of(root)
        status = sandbox.status(root)
        assert status is not None
        assert (status.url, status.region, status.standing) == (url(environment), REGION, False)
    eventually(lambda: gone(process))
    assert sandbox.status(root) is None
    with sandbox.connect(root, REGION) as environment:
        found = World(environment).sagemaker.list_model_package_groups()
        assert len(found["ModelPackageGroupSummaryList"]) == 1


def test_the_environment_leads_to_the_sandbox_and_nowhere_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere.example")
    with sandbox.connect(root, REGION) as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            assert environment[name] == ""
        assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == REGION
        assert not Path(environment["AWS_SHARED_CREDENTIALS_FILE"]).exists()
        server = server_of(root).environ()
    variables = {name for name in server if name.startswith("AWS_")}
    assert "real" not in server.values()
    assert "AWS_PROFILE" not in variables


def test_a_second_command_uses_the_running_server_and_keeps_it(root: Path) -> None:
    gate = root.parent / "go"
    first = command(root, f"print('up', flush=True)\n{hold(gate)}")
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    process = server_of(root)
    with sandbox.connect(root, REGION) as environment:
        assert server_of(root).pid == process.pid
        gate.touch()
        assert first.wait(timeout=120) == 0
        time.sleep(0.5)
        assert World(environment).sagemaker.list_pipelines()["PipelineSummaries"] == []
    eventually(lambda: gone(process))


@pytest.mark.long
def test_commands_that_start_at_once_share_one_server(root: Path) -> None:
    gate = root.parent / "go"
    body = f"print(env['AWS_ENDPOINT_URL'], flush=True)\n{hold(gate)}"
    commands = [command(root, body) for _ in range(3)]
    addresses = {process.stdout.readline() for process in commands if process.stdout}
    gate.touch()
    assert [process.wait(timeout=120) for process in commands] == [0, 0, 0]
    assert len(addresses) == 1


@pytest.mark.long
def test_leaving_lets_a_running_execution_finish(root: Path) -> None:
    gate = root.parent / "go"
    body = f"""
        aws = World(env).prepare()
        aws.start([step("Short", "Processing", aws.processing({hold(gate)!r}))], name="short")
    """
    assert command(root, body).wait(timeout=120) == 0
    server = server_of(root)
    status = sandbox.status(root)
    assert status is not None
    gate.touch()
    eventually(lambda: gone(server))
    with sandbox.connect(root, REGION) as environment:
        aws = World(environment)
        [summary] = aws.sagemaker.list_pipeline_executions(PipelineName="short")[
            "PipelineExecutionSummaries"
        ]
        assert summary["PipelineExecutionStatus"] == "Succeeded"


def test_a_killed_command_takes_server_and_jobs_with_it(root: Path) -> None:
    process = command(root, RUN_LONG + "    time.sleep(600)")
    assert process.stdout is not None
    arn = process.stdout.readline().strip()
    server = server_of(root)
    eventually(lambda: jobs_below(root))
    process.send_signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: gone(server))
    assert jobs_below(root) == []
    with sandbox.connect(root, REGION) as environment:
        ended = World(environment).wait(arn)
        assert ended.status in ("Stopped", "Failed")
        assert "The sandbox was killed" in ended.described["FailureReason"]


@pytest.mark.long
def test_a_killed_server_leaves_nothing_running_and_starts_again(root: Path) -> None:
    with pytest.raises(Exception, match="onnect"), \
            sandbox.connect(root, REGION) as environment:  # fmt: skip
        aws = World(environment).prepare()
        arn = aws.start([step("Long", "Processing", aws.processing(LONG))], name="long")
        aws.wait_for_step(arn, "Long")
        jobs = eventually(lambda: len(jobs_below(root)) >= 2 and jobs_below(root))
        server_of(root).kill()
        eventually(lambda: all(gone(job) for job in jobs))
        assert jobs_below(root) == []
        aws.sagemaker.list_pipelines()
    with sandbox.connect(root, REGION) as environment:
        aws = World(environment)
        ended = aws.wait(arn)
        assert ended.status == "Failed"
        assert "The sandbox was killed" in ended.described["FailureReason"]
        assert "The sandbox was killed" in ended.steps["Long"]["FailureReason"]
        assert aws.run([step("P", "Processing", aws.processing("pass"))]).status == "Succeeded"


def test_what_was_answered_survives_a_kill(root: Path) -> None:
    sandbox.start(root, REGION)
    status = sandbox.status(root)
    assert status is not None
    aws = World(there(root)).prepare()
    aws.iam.create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
    aws.put("overwritten", "old")
    aws.put("overwritten", "new")
    aws.sagemaker.create_model_package(**register("s3://b/m.tar.gz"))
    psutil.Process(status.pid).kill()
    with sandbox.connect(root, REGION) as environment:
        aws = World(environment)
        assert aws.iam.get_role(RoleName="kept")["Role"]["RoleName"] == "kept"
        assert aws.read(f"s3://{BUCKET}/overwritten") == b"new"
        listed = aws.sagemaker.list_model_packages(ModelPackageGroupName=GROUP)
        assert len(listed["ModelPackageSummaryList"]) == 1


def test_the_terminals_interrupt_does_not_reach_the_server(root: Path) -> None:
    with sandbox.connect(root, REGION):
        assert os.getsid(server_of(root).pid) != os.getsid(0)


def test_a_standing_server_stays_until_it_is_stopped(root: Path) -> None:
    status = sandbox.start(root, REGION)
    process = psutil.Process(status.pid)
    assert status.standing
    assert sandbox.start(root, REGION).pid == status.pid
    with sandbox.connect(root, REGION) as environment:
        assert url(environment) == status.url
    time.sleep(0.3)
    assert sandbox.status(root) is not None
    assert sandbox.stop(root)
    eventually(lambda: gone(process))
    assert sandbox.status(root) is None
    assert not sandbox.stop(root)


def test_stopping_a_standing_server_stops_its_executions(root: Path) -> None:
    sandbox.start(root, REGION)
    aws = World(there(root)).prepare()
    arn = aws.start([step("Long", "Processing", aws.processing(LONG))])
    aws.wait_for_step(arn, "Long")
    eventually(lambda: jobs_below(root))
    sandbox.stop(root)
    assert jobs_below(root) == []
    with sandbox.connect(root, REGION) as environment:
        assert World(environment).wait(arn).status == "Stopped"


def test_a_standing_server_that_does_not_answer_is_killed(root: Path) -> None:
    process = psutil.Process(sandbox.start(root, REGION).pid)
    (root / ".sandbox" / "server.json").unlink()
    process.suspend()
    assert sandbox.stop(root)
    eventually(lambda: gone(process))


def test_reset_forgets_everything(root: Path) -> None:
    with sandbox.connect(root, REGION) as environment:
        World(environment).prepare()
    sandbox.reset(root)
    assert not (root / ".sandbox").exists()
    with sandbox.connect(root, REGION) as environment:
        assert World(environment).s3.list_buckets()["Buckets"] == []


def test_another_region_is_refused_while_a_server_runs(root: Path) -> None:
    sandbox.start(root, REGION)
    with (
        pytest.raises(SandboxError, match="runs with region eu-west-1, not us-east-1"),
        sandbox.connect(root, "us-east-1"),
    ):
        pass


def test_a_stale_record_of_another_process_is_not_trusted(root: Path) -> None:
    folder = root / ".sandbox"
    folder.mkdir(parents=True)
    stale = {"pid": os.getpid(), "port": 9, "token": "x", "region": REGION}
    (folder / "server.json").write_text(json.dumps(stale))
    assert sandbox.status(root) is None
    assert not sandbox.stop(root)
    with sandbox.connect(root, REGION):
        assert sandbox.status(root) is not None


@pytest.mark.parametrize("record", ["5", "null", "[]", "{", '{"port": "x", "token": 1}'])
def test_a_malformed_record_counts_as_none(root: Path, record: str) -> None:
    (root / ".sandbox").mkdir(parents=True)
    (root / ".sandbox" / "server.json").write_text(record)
    assert sandbox.status(root) is None


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "a file"
    root.touch()
    with pytest.raises(SandboxError, match="cannot write to") as caught:
        sandbox.start(root, REGION)
    assert "\n" not in str(caught.value)


def test_a_server_that_cannot_write_says_why(root: Path) -> None:
    (root / ".sandbox" / "server.json.new").mkdir(parents=True)
    with (
        pytest.raises(SandboxError, match="cannot write to"),
        sandbox.connect(root, REGION),
    ):
        pass


def test_damaged_state_is_one_line_without_a_traceback(root: Path) -> None:
    (root / ".sandbox").mkdir(parents=True)
    (root / ".sandbox" / "state.db").write_bytes(b"damaged " * 1000)
    with pytest.raises(SandboxError) as caught, sandbox.connect(root, REGION):
        pass
    assert "mlops sandbox reset" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_an_idle_server_uses_no_processor_time(root: Path) -> None:
    process = psutil.Process(sandbox.start(root, REGION).pid)
    seconds = 1.0

    def idle() -> bool:
        before = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        return sum(process.cpu_times()[:2]) - before < 0.05 * seconds

    eventually(idle)


def test_importing_the_package_loads_neither_moto_nor_boto3() -> None:
    heavy = "{'moto', 'boto3', 'botocore'}"
    code = f"import sys; from sm_mlops import sandbox; sandbox.connect; print({heavy} & "
    code += "set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "set()\n"
