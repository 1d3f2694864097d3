"""A sandbox that starts again in the process of the tests.

Such tests share no module with one whose sandbox stays: moto's state belongs to the process, and
starting or ending a sandbox empties it.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import transform_cases
from alarm_cases import alarm, report, sent, state, topic
from endpoint_cases import SLOW, Hosting, arrived, gone, hosting, queue
from function_cases import COUNT, Wired, tries, until
from sandbox_cases import BUCKET, REGION
from sandbox_iam_case import Account
from schedule_cases import DAY, SCHEDULER, request, statement, wait
from sm_mlops import sandbox
from sm_mlops.sandbox import Server, clock
from sm_mlops.sandbox.client import SandboxError
from sm_mlops.sandbox.endpoints import Endpoints

pytestmark = pytest.mark.slow


def test_endpoints_outlive_the_sandbox_and_start_when_asked(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        name = aws.deploy(aws.named("kept"))
        pid = aws.ask(name)["pid"]
    assert gone(pid)
    with Server(tmp_path, REGION) as server:
        aws = Hosting(server.environment())
        assert aws.settled(name)["EndpointStatus"] == "InService"
        assert aws.ask(name)["model"] == "kept"
        new = aws.ask(name)["pid"]
        assert any("answers" in line for line in aws.log(name))
    assert gone(new)


def test_an_interrupted_deployment_is_resumed(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        name = aws.deploy(aws.named("before"))
        aws.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=aws.named("after", SLOW)
        )
        aws.sagemaker.create_endpoint(
            EndpointName="unborn", EndpointConfigName=aws.named("unborn", SLOW)
        )
    with Server(tmp_path, REGION) as server:
        aws = Hosting(server.environment())
        assert aws.settled(name)["EndpointStatus"] == "InService"
        assert aws.ask(name)["model"] == "after"
        assert aws.settled("unborn")["EndpointStatus"] == "InService"
        assert aws.ask("unborn")["model"] == "unborn"
    folders = [entry for entry in (tmp_path / ".sandbox/endpoints").glob("*/*") if entry.is_dir()]
    assert len(folders) == 2


def test_what_a_resumed_deployment_unpacks_is_not_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        name = aws.deploy(aws.named("before"))
        aws.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=aws.named("after", SLOW)
        )
    begin = Endpoints._begin

    def begin_and_unpack(endpoints: Endpoints, arn: str, work: Any) -> None:
        """Lets the deployment get ahead of what comes after it at the start of a server."""
        begin(endpoints, arn, work)
        time.sleep(0.3)

    monkeypatch.setattr(Endpoints, "_begin", begin_and_unpack)
    with Server(tmp_path, REGION) as server:
        aws = Hosting(server.environment())
        assert aws.settled(name)["EndpointStatus"] == "InService"
        assert aws.ask(name)["model"] == "after"


def test_what_was_accepted_is_answered_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        name = aws.deploy(aws.named("patient", SLOW, **queue()))
        asked = [
            aws.runtime.invoke_endpoint_async(
                EndpointName=name, InputLocation=aws.put(f"asked/{n}", f"sleep0.{n + 1}")
            )
            for n in range(5)
        ]
    with Server(tmp_path, REGION) as server:
        aws = Hosting(server.environment())
        answers = [json.loads(arrived(aws, answer["OutputLocation"])) for answer in asked]
    assert [answer["data"] for answer in answers] == [f"sleep0.{n + 1}" for n in range(5)]


def test_a_sandbox_whose_client_leaves_ends_after_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        held = tmp_path / "held"
        package = aws.package_of(aws.archive(transform_cases.COUNT), {"HELD": str(held)})
        aws.sagemaker.create_transform_job(
            **transform_cases.job(aws.model(package), transform_cases.source(aws, a="hold"))
        )
        until(held.exists)
        with monkeypatch.context() as watched:
            watched.setattr(server, "close", ended.set)
            server.belong_to_starter()
            server.left(goodbye=True)
            assert not ended.wait(0.5) and server.transforms.running
            (tmp_path / "held.go").touch()
            assert ended.wait(60)


def test_a_job_of_a_killed_sandbox_has_failed(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = hosting(server)
        held = tmp_path / "held"
        package = aws.package_of(aws.archive(transform_cases.COUNT), {"HELD": str(held)})
        request = transform_cases.job(
            aws.model(package),
            transform_cases.source(aws, a="hold"),
            Tags=[{"Key": "a", "Value": "b"}],
        )
        arn = aws.sagemaker.create_transform_job(**request)["TransformJobArn"]
        until(held.exists)
        assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    with Server(tmp_path, REGION) as server:
        again = Hosting(server.environment())
        told = again.sagemaker.describe_transform_job(TransformJobName=request["TransformJobName"])
        assert told["TransformJobStatus"] == "Failed"
        assert "The sandbox was killed" in told["FailureReason"]


def test_an_event_and_the_function_survive_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "eu-west-1", pace=1) as server:  # A minute until the second try.
        aws = Wired(server.environment())
        aws.prepare()
        arn = aws.function("later", COUNT, Timeout=20, MemorySize=256)
        aws.client("secretsmanager").create_secret(Name="s", SecretString="v")
        event = {"name": "later", "good": 2}
        server.integrations.functions.invoke_later(arn, event)
        until(
            lambda: (
                server.integrations.functions.store.all("FunctionInvocation")
                and any(row["Tried"] for row in server.store.all("FunctionInvocation").values())
            )
        )
        assert server.integrations.busy()
    with Server(tmp_path, "eu-west-1") as server:
        aws = Wired(server.environment())
        until(lambda: len(tries(aws, "later")) == 2 and not server.integrations.busy())
        kept = aws.client("secretsmanager").get_secret_value(SecretId="s")
        assert kept["SecretString"] == "v"
        assert "try 1" in aws.log("later")


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


def test_the_clock_and_the_schedules_survive_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = Wired(server.environment())
        aws.prepare()
        aws.role("starter", statement("sagemaker:StartPipelineExecution"), SCHEDULER)
        daily = request(ScheduleExpression="cron(0 6 * * ? *)")
        aws.client("scheduler").create_schedule(**daily)
        assert len(wait(server, 3 * DAY)) == 3
        aws.put("late", "x")
        written = aws.s3.list_objects_v2(Bucket=BUCKET)["Contents"][0]["LastModified"]
        assert written.timestamp() == pytest.approx(clock.now(), abs=60)
    with Server(tmp_path, REGION) as server:
        assert clock.now() > time.time() + 3 * DAY - 120
        aws = Wired(server.environment())
        assert aws.s3.list_buckets()["Buckets"]  # A signature by real time.
        assert len(wait(server, DAY)) == 1
    with Server(tmp_path / "other", REGION):
        assert clock.now() < time.time() + 1


def test_states_messages_and_metrics_survive_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = Account(server.environment())
        where = topic(aws, "kept")
        alarm(aws, "kept", AlarmActions=[where], TreatMissingData="ignore")
        report(aws, 1)
        assert len(sent(server, where)) == 1
    with Server(tmp_path, REGION) as server:
        aws = Account(server.environment())
        assert state(aws, "kept") == "ALARM"
        assert [each["To"] for each in sent(server, where)] == [["kept@example.com"]]
        report(aws, 0)
        assert state(aws, "kept") == "ALARM", "the maximum of the hour"
        server.integrations.advance(clock.now() + 3600)
        report(aws, 0)
        assert state(aws, "kept") == "OK"
