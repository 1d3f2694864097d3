"""What the sandbox remembers: across restarts, after a kill, on damage, in bounded memory."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.sqs.models import Queue, SQSBackend

from sandbox_cases import (
    BUCKET,
    GROUP,
    World,
    condition,
    files_below,
    register,
    step,
    there,
    until,
    world,
)
from sm_mlops import sandbox
from sm_mlops.sandbox import SandboxError, Server
from sm_mlops.sandbox.moto_app import Dispatcher
from sm_mlops.sandbox.storage import Store

pytestmark = pytest.mark.slow


def restart(root: Path) -> Server:
    return Server(root, "eu-west-1", stop_grace=0.5)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        aws.s3.put_object(
            Bucket=BUCKET, Key="kept", Body=b"x", ContentType="text/csv", Metadata={"a": "b"}
        )
        aws.iam.create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
        version = aws.sagemaker.create_model_package(**register("s3://b/m.tar.gz"))
        cached = step(
            "P", "Processing", aws.processing("pass"),
            CacheConfig={"Enabled": True, "ExpireAfter": "P1D"},
        )  # fmt: skip
        first = aws.run([cached], name="kept")
        job = first.steps["P"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
        before = aws.sagemaker.describe_processing_job(ProcessingJobName=job)
    with restart(tmp_path) as server:
        aws = World(server.environment())
        kept = aws.s3.get_object(Bucket=BUCKET, Key="kept")
        assert kept["Body"].read() == b"x"
        assert (kept["ContentType"], kept["Metadata"]) == ("text/csv", {"a": "b"})
        assert aws.iam.get_role(RoleName="kept")["Role"]["RoleName"] == "kept"
        name = version["ModelPackageArn"]
        assert (
            aws.sagemaker.describe_model_package(ModelPackageName=name)["ModelPackageVersion"] == 1
        )
        after = aws.sagemaker.describe_processing_job(ProcessingJobName=job)
        assert {k: v for k, v in after.items() if k != "ResponseMetadata"} == {
            k: v for k, v in before.items() if k != "ResponseMetadata"
        }
        again = aws.run([cached], name="kept")
        assert again.steps["P"]["CacheHitResult"]["SourcePipelineExecutionArn"] == first.arn
        listed = aws.sagemaker.list_pipeline_executions(PipelineName="kept")
        assert len(listed["PipelineExecutionSummaries"]) == 2


def test_other_services_are_there_after_a_restart(tmp_path: Path) -> None:
    template = (
        '{"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "b-1"}}}}'
    )
    with restart(tmp_path) as server:
        aws = World(server.environment())
        aws.client("secretsmanager").create_secret(Name="s", SecretString="x")
        aws.client("events").put_rule(Name="r", EventPattern='{"source": ["aws.sagemaker"]}')
        stacks = aws.client("cloudformation")
        stacks.create_stack(StackName="stack", TemplateBody=template)
        waiter = stacks.get_waiter("stack_create_complete")
        waiter.wait(StackName="stack", WaiterConfig={"Delay": 0, "MaxAttempts": 1000})
        aws.client("logs").create_log_group(logGroupName="/own")
    with restart(tmp_path) as server:
        aws = World(server.environment())
        secret = aws.client("secretsmanager").get_secret_value(SecretId="s")
        assert secret["SecretString"] == "x"
        assert aws.client("events").describe_rule(Name="r")["Name"] == "r"
        [stack] = aws.client("cloudformation").describe_stacks(StackName="stack")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        assert [bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]] == ["b-1"]
        groups = aws.client("logs").describe_log_groups()["logGroups"]
        assert [group["logGroupName"] for group in groups] == ["/own"]


def test_queues_and_keys_are_there_after_a_restart(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = World(server.environment())
        url = aws.client("sqs").create_queue(QueueName="q")["QueueUrl"]
        aws.client("sqs").send_message(QueueUrl=url, MessageBody="hello")
        key = aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        signing = {
            "KeyId": key["KeyMetadata"]["KeyId"],
            "Message": b"hello",
            "SigningAlgorithm": "RSASSA_PSS_SHA_256",
        }
        signature = aws.client("kms").sign(**signing)["Signature"]
    with restart(tmp_path) as server:
        aws = World(server.environment())
        url = aws.client("sqs").get_queue_url(QueueName="q")["QueueUrl"]
        [message] = aws.client("sqs").receive_message(QueueUrl=url)["Messages"]
        assert message["Body"] == "hello"
        assert aws.client("kms").verify(Signature=signature, **signing)["SignatureValid"]


def test_the_logs_of_jobs_are_there_after_a_restart(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        name = aws.process(aws.processing("print('hello')"))["ProcessingJobName"]
    with restart(tmp_path) as server:
        events = World(server.environment()).logs.filter_log_events(
            logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=name
        )["events"]
        assert [event["message"] for event in events] == ["hello"]


def test_objects_are_plain_files_that_change_and_go_with_them(tmp_path: Path) -> None:
    folder = tmp_path / ".sandbox" / "s3"
    with restart(tmp_path) as server:
        aws = world(server)
        for body in ("one", "two"):
            aws.put("a/b.txt", body)
        assert [(folder / name).read_text() for name in files_below(folder)] == ["two"]
        aws.put("a", "a key that is also a folder")
        aws.put("../up", "up")
        assert aws.read(f"s3://{BUCKET}/a").decode() == "a key that is also a folder"
        aws.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}, {"Key": "a/b.txt"}]})
        assert len(files_below(folder)) == 1
        aws.s3.delete_object(Bucket=BUCKET, Key="../up")
        assert files_below(folder) == []
    with restart(tmp_path) as server:
        assert "Contents" not in World(server.environment()).s3.list_objects_v2(Bucket=BUCKET)


def test_versions_of_an_object_survive_a_restart(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        aws.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        first, second = (
            aws.s3.put_object(Bucket=BUCKET, Key="k", Body=body)["VersionId"]
            for body in (b"one", b"two")
        )
        aws.s3.delete_object(Bucket=BUCKET, Key="k")
    with restart(tmp_path) as server:
        aws = World(server.environment())
        with pytest.raises(ClientError, match="NoSuchKey"):
            aws.s3.get_object(Bucket=BUCKET, Key="k")
        for version, body in ((first, b"one"), (second, b"two")):
            found = aws.s3.get_object(Bucket=BUCKET, Key="k", VersionId=version)
            assert found["Body"].read() == body
        aws.s3.delete_object(Bucket=BUCKET, Key="k", VersionId=first)
        assert len(files_below(tmp_path / ".sandbox" / "s3")) == 1


@pytest.mark.long
def test_a_large_object_is_not_held_in_memory(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    block = hashlib.sha256(b"x").digest() * 32768
    with source.open("wb") as file:
        for _ in range(200):
            file.write(block)
    process = psutil.Process(sandbox.start(tmp_path, "eu-west-1").pid)
    try:
        aws = World(there(tmp_path)).prepare()
        aws.put("warm", "up")
        before = process.memory_info().rss
        aws.s3.upload_file(str(source), BUCKET, "large")
        aws.s3.download_file(BUCKET, "large", str(target))
        whole = hashlib.sha256()
        for piece in aws.s3.get_object(Bucket=BUCKET, Key="large")["Body"].iter_chunks(1 << 20):
            whole.update(piece)
        grown = process.memory_info().rss - before
    finally:
        sandbox.stop(tmp_path)
    with source.open("rb") as one, target.open("rb") as two:
        digests = [hashlib.file_digest(file, "sha256").hexdigest() for file in (one, two)]
    assert digests == [whole.hexdigest()] * 2
    assert grown < 100e6, f"memory grew by {grown / 1e6:.0f} MB"
    assert len(files_below(tmp_path / ".sandbox/s3")) == 2


def test_a_range_of_an_object_is_read(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        body = bytes(range(256)) * 20000
        aws.put("large", body)
        for header, expected in (
            ("bytes=5-9", body[5:10]),
            ("bytes=5119990-", body[5119990:]),
            ("bytes=-7", body[-7:]),
        ):
            found = aws.s3.get_object(Bucket=BUCKET, Key="large", Range=header)
            assert found["Body"].read() == expected
        assert aws.s3.head_object(Bucket=BUCKET, Key="large")["ContentLength"] == len(body)


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b""])
def test_damaged_state_is_one_line_that_names_the_remedy(tmp_path: Path, damage: bytes) -> None:
    with restart(tmp_path) as server:
        world(server)
    database = tmp_path / ".sandbox" / "state.db"
    if damage:
        database.write_bytes(damage)
    else:
        with sqlite3.connect(database) as db:
            db.execute("UPDATE meta SET value = '0'")
        db.close()
    with pytest.raises(SandboxError) as caught:
        restart(tmp_path).start()
    assert "mlops sandbox reset" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_is_whole_while_others_add_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with restart(tmp_path) as server, ThreadPoolExecutor(8) as pool:
        sqs = World(server.environment()).client("sqs")
        listed, inside, most = SQSBackend.list_queues, [], []

        def slowly(self: SQSBackend, prefix: str) -> list[Queue]:
            inside.append(prefix)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
            return listed(self, prefix)

        monkeypatch.setattr(SQSBackend, "list_queues", slowly)
        list(pool.map(lambda _: sqs.list_queues(), range(8)))
    assert most == [1] * 8


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"HTTP_X_AMZ_TARGET": "AmazonSQS.ReceiveMessage"}, b"{}"),
        ({"CONTENT_TYPE": "application/x-www-form-urlencoded"}, b"Action=ReceiveMessage"),
    ],
    ids=["json", "query"],
)
def test_who_waits_for_a_message_keeps_nobody_waiting(header: dict[str, str], body: bytes) -> None:
    def request(header: dict[str, str], body: bytes) -> dict[str, Any]:
        return {**header, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}

    def sent() -> bool:
        with dispatcher.turn("sqs", request({"HTTP_X_AMZ_TARGET": "AmazonSQS.SendMessage"}, b"{}")):
            return True

    dispatcher = Dispatcher()
    with dispatcher.turn("sqs", request(header, body)), ThreadPoolExecutor(1) as pool:
        assert pool.submit(sent).result(10)


def test_moto_is_its_own_again_after_the_sandbox(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        world(server)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="other")
        client.put_object(Bucket="other", Key="k", Body=b"x")
        assert client.get_object(Bucket="other", Key="k")["Body"].read() == b"x"
    assert files_below(tmp_path / ".sandbox" / "s3") == []


def test_two_servers_never_share_a_state(tmp_path: Path) -> None:
    with restart(tmp_path), pytest.raises(SandboxError, match="another sandbox server"):
        restart(tmp_path).start()


def test_records_are_durable_once_put(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("kind", "b", {"n": 1})
    store.put("kind", "a", {"n": 2})
    store.put("kind", "b", {"n": 3})
    store.delete("kind", "a")
    store.put_blobs("blob", {"x": b"1", "y": b"2"})
    store.put_blobs("blob", {"x": None})
    store.close()
    again = Store(tmp_path)
    assert again.all("kind") == {"b": {"n": 3}}
    assert again.blobs("blob") == [("y", b"2")]
    again.close()


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        world(server).put("kept", "x")
    folder = tmp_path / ".sandbox"
    [kept] = files_below(folder / "s3")
    (folder / "s3" / "orphan").write_text("x")
    (folder / "jobs" / "old" / "ml").mkdir(parents=True)
    (folder / "jobs" / "old" / "log.txt").write_text("x")
    with restart(tmp_path):
        assert files_below(folder / "s3") == [kept]
        assert files_below(folder / "jobs") == ["old/log.txt"]


def test_executions_of_a_killed_server_are_closed_with_a_reason(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        ended = aws.run([condition("C", [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}])])
        job = aws.process(aws.processing("pass"))["ProcessingJobArn"]
    store = Store(tmp_path / ".sandbox")
    for kind, arn, changes in (
        ("PipelineExecution", ended.arn, {"PipelineExecutionStatus": "Executing"}),
        ("ProcessingJob", job, {"ProcessingJobStatus": "InProgress"}),
    ):
        store.put(kind, arn, store.all(kind)[arn] | changes)
    store.all("PipelineExecution")[ended.arn]["_steps"]["C"]["StepStatus"] = "Executing"
    store.put("PipelineExecution", ended.arn, store.all("PipelineExecution")[ended.arn])
    store.close()
    with restart(tmp_path) as server:
        aws = World(server.environment())
        after = aws.wait(ended.arn)
        assert after.status == "Failed"
        assert "The sandbox was killed" in after.described["FailureReason"]
        assert "The sandbox was killed" in after.steps["C"]["FailureReason"]
        described = aws.sagemaker.describe_processing_job(ProcessingJobName=job.rpartition("/")[2])
        assert described["ProcessingJobStatus"] == "Failed"


def test_a_group_counts_its_versions_again_after_a_kill_between_two_writes(tmp_path: Path) -> None:
    with restart(tmp_path) as server:
        aws = world(server)
        aws.sagemaker.create_model_package(**register("s3://b/m.tar.gz"))
        [group] = server.store.all("ModelPackageGroup").values()
        group["_versions"] = 0
        server.store.put("ModelPackageGroup", group["ModelPackageGroupArn"], group)
    with restart(tmp_path) as server:
        answer = World(server.environment()).sagemaker.create_model_package(
            **register("s3://b/m.tar.gz")
        )
        assert answer["ModelPackageArn"].endswith(f"{GROUP}/2")


def test_closing_stops_running_jobs(tmp_path: Path) -> None:
    script = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(600)\n"
    started = tmp_path / "started"
    with restart(tmp_path) as server:
        aws = world(server)
        arn = aws.start([step("P", "Processing", aws.processing(script, [str(started)]))])
        aws.wait_for_step(arn, "P")
        until(started.exists)
    left = [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]
    assert not [process for process in left if "job.py" in str(process.cmdline())]
    with restart(tmp_path) as server:
        assert World(server.environment()).wait(arn).status == "Stopped"
