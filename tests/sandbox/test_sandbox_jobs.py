"""Processing and Training jobs in the sandbox: what goes in, what comes out, what they can see."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from sandbox_cases import BUCKET, OUTPUT, World, channel, files_below, s3_input, until, world
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("jobs ü"), "eu-west-1", stop_grace=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def aws(server: Server) -> World:
    return world(server)


REPORT = """
import json, os, pathlib, sys
target = pathlib.Path(sys.argv[1])
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
(target / "report.json").write_text(json.dumps({
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "files": sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()),
    "config": json.loads((base / "config/processingjobconfig.json").read_text()),
    "resources": json.loads((base / "config/resourceconfig.json").read_text()),
}))
"""


def out(job: dict[str, Any]) -> str:
    return str(job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"])


def report(aws: World, request: dict[str, Any]) -> dict[str, Any]:
    request["AppSpecification"]["ContainerArguments"] = [f"{OUTPUT}/out"]
    job = aws.process(request)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    content: dict[str, Any] = json.loads(aws.read(f"{out(job)}/report.json"))
    return content


def log_of(server: Server, job: dict[str, Any]) -> str:
    name = job.get("ProcessingJobName") or job["TrainingJobName"]
    return server.jobs.log_path(name).read_text()


# Processing.


def test_inputs_are_laid_out_as_the_service_lays_them_out(aws: World) -> None:
    aws.put("in/data/a.csv", "a")
    aws.put("in/data/deep/b.csv", "b")
    aws.put("in/data/", "")
    aws.put("in/database/c.csv", "c")
    request = aws.processing(REPORT)
    request["ProcessingInputs"] += [
        s3_input("folder", f"s3://{BUCKET}/in/data/"),
        s3_input("prefix", f"s3://{BUCKET}/in/data"),
        s3_input("object", f"s3://{BUCKET}/in/data/a.csv"),
    ]
    files = report(aws, request)["files"]
    found = [name for name in files if not name.startswith(("config/", "processing/input/code"))]
    assert found == [
        "processing/input/folder/a.csv",
        "processing/input/folder/deep/b.csv",
        "processing/input/object/a.csv",
        "processing/input/prefix/a.csv",
        "processing/input/prefix/database/c.csv",
        "processing/input/prefix/deep/b.csv",
    ]


def test_opt_ml_means_the_jobs_folder_in_arguments_and_environment(aws: World) -> None:
    seen = report(aws, aws.processing(REPORT, Environment={"WHERE": "/opt/ml/processing/x"}))
    base = seen["environment"]["SAGEMAKER_BASE_DIR"]
    assert seen["arguments"] == [f"{base}/processing/output/out"]
    assert seen["environment"]["WHERE"] == f"{base}/processing/x"
    [output] = seen["config"]["ProcessingOutputConfig"]["Outputs"]
    assert output["S3Output"]["LocalPath"] == f"{OUTPUT}/out"
    assert seen["resources"]["hosts"] == [seen["resources"]["current_host"]]


ROLE = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")


@pytest.mark.parametrize("isolated", [False, True])
def test_a_job_signs_in_as_its_role_unless_it_has_no_network(aws: World, isolated: bool) -> None:
    request = aws.processing(REPORT, NetworkConfig={"EnableNetworkIsolation": isolated})
    environment = report(aws, request)["environment"]
    assert set(ROLE) & set(environment) == (set() if isolated else set(ROLE))
    assert environment.get("AWS_ACCESS_KEY_ID", "ASIA").startswith("ASIA")


def test_a_job_sees_nothing_of_the_developers_environment(
    aws: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREALREALREALREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "realsecret")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("GITHUB_TOKEN", "realtoken")
    environment = report(aws, aws.processing(REPORT, Environment={"MINE": "1"}))["environment"]
    assert environment["MINE"] == "1"
    assert environment["AWS_REGION"] == "eu-west-1"
    assert Path(environment["PATH"].split(":")[0]).parts[-2:] == ("environment", "bin")
    assert Path.home() != Path(environment["HOME"])
    variables = {name for name in environment if name.startswith("AWS_")}
    assert variables <= {
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        *ROLE,
    }
    assert "GITHUB_TOKEN" not in environment
    assert not [value for value in environment.values() if "real" in value.lower()]


@pytest.mark.parametrize(
    "attempt",
    [
        "import os; os.makedirs('/opt/ml/processing/output/rows', exist_ok=True)",
        "import pathlib; pathlib.Path('/opt/ml/processing/output/rows.csv').write_text('a')",
        "open('/opt/ml/processing/input/rows/rows.csv')",
        "import os; os.listdir('/opt/ml/processing/input')",
        "import pathlib; print(list(pathlib.Path('/opt/ml/processing').iterdir()))",
    ],
)
def test_a_job_is_told_that_its_script_names_the_folder_of_the_container(
    aws: World, server: Server, attempt: str
) -> None:
    job = aws.process(aws.processing(attempt))
    assert job["ProcessingJobStatus"] == "Failed"
    assert "in the sandbox, /opt/ml is a folder of the job: take the path" in log_of(server, job)
    assert not Path("/opt/ml/processing").exists()


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)",
        "import urllib.request; urllib.request.urlopen('https://example.com', timeout=5)",
        "import socket; socket.gethostbyname('example.com')",
        "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    ],
)
def test_a_job_reaches_nothing_but_this_machine(aws: World, server: Server, attempt: str) -> None:
    job = aws.process(aws.processing(attempt))
    assert job["ProcessingJobStatus"] == "Failed"
    log = log_of(server, job)
    assert "the sandbox lets jobs reach this machine only" in log or "Connection refused" in log


def test_a_job_may_use_loopback(aws: World) -> None:
    script = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", listener.getsockname()[1])).close()
"""
    assert aws.process(aws.processing(script))["ProcessingJobStatus"] == "Completed"


def test_a_failing_job_says_why(aws: World, server: Server) -> None:
    script = """
import os, pathlib, sys
print("to the log")
print("and this too", file=sys.stderr)
pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "output/message").write_text("column 'x' is empty")
sys.exit(2)
"""
    job = aws.process(aws.processing(script))
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: column 'x' is empty, exit code: 2"
    assert job["ExitMessage"] == "column 'x' is empty"
    log = log_of(server, job)
    assert "to the log\n" in log
    assert "and this too\n" in log


def test_a_job_killed_by_a_signal_says_so(aws: World) -> None:
    job = aws.process(aws.processing("import os\nos.kill(os.getpid(), 9)\n"))
    assert job["FailureReason"] == (
        "AlgorithmError: the process was ended by SIGKILL, exit code: 137"
    )


def test_a_command_that_does_not_exist_fails_the_job(aws: World, server: Server) -> None:
    request = aws.processing("pass")
    request["AppSpecification"]["ContainerEntrypoint"] = ["no-such-command"]
    job = aws.process(request)
    assert "exit code: 127" in job["FailureReason"]
    assert "cannot start no-such-command" in log_of(server, job)


def test_a_missing_input_fails_as_on_aws(aws: World) -> None:
    request = aws.processing("pass")
    request["ProcessingInputs"].append(s3_input("data", f"s3://{BUCKET}/no/such/prefix"))
    job = aws.process(request)
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        f"ClientError: No S3 objects found under S3 URL 's3://{BUCKET}/no/such/prefix'"
    )


def test_a_job_cannot_change_the_object_it_was_given(aws: World) -> None:
    uri = aws.put("mine/data.txt", "original")
    script = "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('changed')\n"
    request = aws.processing(script, ["/opt/ml/processing/input/data/data.txt"])
    request["ProcessingInputs"].append(s3_input("data", uri))
    assert aws.process(request)["ProcessingJobStatus"] == "Completed"
    assert aws.read(uri) == b"original"


@pytest.mark.parametrize("local", ["/etc", "/opt/ml/../../x"])
def test_a_local_path_outside_of_opt_ml_fails_the_job(aws: World, local: str) -> None:
    request = aws.processing("pass")
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["LocalPath"] = local
    assert "opt/ml" in aws.process(request)["FailureReason"]


def test_a_job_that_takes_too_long_is_stopped(aws: World) -> None:
    request = aws.processing(
        "import time\ntime.sleep(60)\n", StoppingCondition={"MaxRuntimeInSeconds": 1}
    )
    job = aws.process(request)
    assert job["ProcessingJobStatus"] == "Stopped"


def test_stopping_sends_sigterm_then_sigkill(aws: World, server: Server) -> None:
    polite = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(sys.argv[1], "goodbye").write_text("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
pathlib.Path(sys.argv[1], "ready").write_text("x")
time.sleep(600)
"""
    stubborn = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1], "ready").write_text("x")
time.sleep(600)
"""
    for script in (polite, stubborn):
        request = aws.processing(script, [f"{OUTPUT}/out"])
        name = f"stop-{time.time_ns()}"
        created = aws.sagemaker.create_processing_job(ProcessingJobName=name, **request)
        folder = server.jobs.log_path(name).parent / "ml/processing/output/out"
        until((folder / "ready").is_file)
        server.jobs.stop("ProcessingJob", created["ProcessingJobArn"])
        server.jobs.wait(created["ProcessingJobArn"])
        job = aws.sagemaker.describe_processing_job(ProcessingJobName=name)
        assert job["ProcessingJobStatus"] == "Stopped"
        if script is polite:
            assert aws.read(f"{out(dict(job))}/goodbye") == b"x"


def test_processes_that_a_job_leaves_behind_are_stopped_with_it(aws: World) -> None:
    script = """
import pathlib, subprocess, sys
command = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(command, start_new_session=True)
pathlib.Path(sys.argv[1], "pid").write_text(str(child.pid))
"""
    job = aws.process(aws.processing(script, [f"{OUTPUT}/out"]))
    pid = int(aws.read(f"{out(job)}/pid"))
    if sys.platform == "linux":
        assert not psutil.pid_exists(pid)


def test_only_the_log_of_a_finished_job_stays_on_disk(aws: World, server: Server) -> None:
    job = aws.process(aws.processing("print('x')"))
    folder = server.jobs.log_path(job["ProcessingJobName"]).parent
    assert files_below(folder) == ["log.txt"]


def test_the_log_of_one_job_is_separate_from_the_others(aws: World) -> None:
    names = [aws.process(aws.processing(f"print({n})"))["ProcessingJobName"] for n in (1, 2)]
    for name, said in ((names[0], ["1"]), (names[1], ["2"]), ("none", [])):
        found = aws.logs.filter_log_events(
            logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=f"{name}/"
        )
        assert [event["message"] for event in found["events"]] == said


def test_logs_are_read_as_on_aws_while_the_job_runs(aws: World, server: Server) -> None:
    script = """
import pathlib, sys, time
print("early", flush=True)
while not pathlib.Path(sys.argv[1], "go").exists():
    time.sleep(0.02)
print("late")
"""
    request = aws.processing(script, [f"{OUTPUT}/out"])
    aws.sagemaker.create_processing_job(ProcessingJobName="logged", **request)
    folder = server.jobs.log_path("logged").parent / "ml/processing/output/out"
    group = "/aws/sagemaker/ProcessingJobs"

    def lines() -> list[str]:
        try:
            streams = aws.logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix="logged/algo-1-"
            )["logStreams"]
        except ClientError:
            return []
        return [
            event["message"]
            for stream in streams
            for event in aws.logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]

    until(lambda: lines() == ["early"])
    (folder / "go").touch()
    until(lambda: lines() == ["early", "late"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"S3InputMode": "Pipe"}, "supports File mode"),
        ({"S3CompressionType": "Gzip"}, "supports File mode, uncompressed, only"),
        ({"S3DataType": "ManifestFile"}, "supports S3DataType S3Prefix only"),
    ],
)
def test_what_processing_does_not_support_is_refused(
    aws: World, change: dict[str, str], message: str
) -> None:
    request = aws.processing("pass")
    request["ProcessingInputs"][0]["S3Input"] |= change
    with pytest.raises(ClientError, match=message):
        aws.process(request)


def test_a_request_is_checked_as_the_service_checks_it(aws: World) -> None:
    request = aws.processing("pass")
    request["ProcessingResources"]["ClusterConfig"]["InstanceType"] = "laptop"
    with pytest.raises(ClientError, match="must satisfy enum value set") as caught:
        aws.process(request)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="must satisfy regular expression"):
        aws.sagemaker.create_processing_job(ProcessingJobName="a_b", **aws.processing("pass"))


@pytest.mark.parametrize("instance", ["ml.g4dn.xlarge", "ml.g5.xlarge", "ml.p5.4xlarge"])
def test_local_storage_takes_no_volume_key(aws: World, instance: str) -> None:
    processing, training = aws.processing("print()"), aws.training("print()")
    key = {"InstanceType": instance, "VolumeKmsKeyId": "alias/ours"}
    processing["ProcessingResources"]["ClusterConfig"] |= key
    training["ResourceConfig"] |= key
    for create, request in (
        (aws.sagemaker.create_processing_job, processing | {"ProcessingJobName": "local"}),
        (aws.sagemaker.create_training_job, training | {"TrainingJobName": "local"}),
    ):
        with pytest.raises(ClientError, match="KMS key is not supported for NVMe instance storage"):
            create(**request)


def test_the_arn_of_a_job_has_lower_case_only_and_its_log_has_the_name(aws: World) -> None:
    name = "Pipelines-X-Train"
    request = aws.processing("print('trained')")
    arn = aws.sagemaker.create_processing_job(**request, ProcessingJobName=name)["ProcessingJobArn"]
    assert arn.endswith("/pipelines-x-train")
    aws.sagemaker.get_waiter("processing_job_completed_or_stopped").wait(
        ProcessingJobName=name, WaiterConfig={"Delay": 1}
    )
    found = aws.sagemaker.describe_processing_job(ProcessingJobName=arn.rpartition("/")[2])
    assert found["ProcessingJobName"] == name
    events = aws.logs.filter_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=f"{name}/"
    )["events"]
    assert [event["message"] for event in events] == ["trained"]


def test_a_job_name_is_used_once(aws: World) -> None:
    request = aws.processing("pass")
    aws.sagemaker.create_processing_job(ProcessingJobName="once", **request)
    with pytest.raises(ClientError, match="must be unique") as caught:
        aws.sagemaker.create_processing_job(ProcessingJobName="once", **request)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"


# Training.

TRAIN = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int)
rounds = parser.parse_args().rounds
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
extra = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
(model / "code").mkdir()
(model / "code" / "inference.py").write_text("pass")
(model / "model").write_text(str(rounds))
(extra / "note").write_text(pathlib.Path(os.environ["SM_CHANNEL_DATA"], "d.txt").read_text())
"""


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def training(aws: World, script: str = TRAIN, **changes: Any) -> dict[str, Any]:
    request = aws.training(script, **changes)
    request["InputDataConfig"].append(channel("data", aws.put("train/d.txt", "data")))
    request["HyperParameters"]["rounds"] = "7"
    return request


@pytest.fixture(scope="module")
def trained(aws: World) -> dict[str, Any]:
    job = aws.train(training(aws))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    return job


def test_training_packs_the_model_and_the_output(aws: World, trained: dict[str, Any]) -> None:
    uri = trained["ModelArtifacts"]["S3ModelArtifacts"]
    name = trained["TrainingJobName"]
    assert uri == f"s3://{BUCKET}/models/{name}/output/model.tar.gz"
    assert members(aws.read(uri)) == {"code/inference.py": b"pass", "model": b"7"}
    output = aws.read(f"s3://{BUCKET}/models/{name}/output/output.tar.gz")
    assert members(output) == {"note": b"data"}


def test_a_described_training_job_has_its_times(trained: dict[str, Any]) -> None:
    assert trained["CreationTime"] <= trained["TrainingStartTime"] <= trained["TrainingEndTime"]


def test_the_same_training_gives_the_same_bytes(aws: World, trained: dict[str, Any]) -> None:
    again = aws.train(training(aws))
    uris = [job["ModelArtifacts"]["S3ModelArtifacts"] for job in (trained, again)]
    assert aws.read(uris[0]) == aws.read(uris[1])


def test_a_failing_training_names_its_command_whatever_the_script_has_written(
    aws: World,
) -> None:
    script = """
import os, pathlib, sys
pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "output/failure").write_text("no column 'target'")
sys.exit(2)
"""
    job = aws.train(training(aws, script))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError:\nCommand ")
    assert job["FailureReason"].endswith('python -m train --rounds 7", exit code: 1')


def test_a_training_reaches_nothing_but_this_machine(aws: World, server: Server) -> None:
    job = aws.train(training(aws, "import socket\nsocket.create_connection(('192.0.2.1', 80))\n"))
    assert job["TrainingJobStatus"] == "Failed"
    assert "the sandbox lets jobs reach this machine only" in log_of(server, job)


def test_checkpoints_are_restored_and_saved(aws: World) -> None:
    script = """
import os, pathlib
folder = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "checkpoints")
rounds = len(list(folder.iterdir()))
(folder / f"{rounds}.txt").write_text("x")
pathlib.Path(os.environ["SM_MODEL_DIR"], "rounds").write_text(str(rounds))
"""
    config = {"S3Uri": f"s3://{BUCKET}/checkpoints/c", "LocalPath": "/opt/ml/checkpoints"}
    jobs = [aws.train(training(aws, script, CheckpointConfig=config)) for _ in range(2)]
    found = [members(aws.read(job["ModelArtifacts"]["S3ModelArtifacts"])) for job in jobs]
    assert found == [{"rounds": b"0"}, {"rounds": b"1"}]


@pytest.mark.long
def test_a_training_that_takes_too_long_keeps_its_model(aws: World) -> None:
    script = """
import os, pathlib, time
pathlib.Path(os.environ["SM_MODEL_DIR"], "partial").write_text("x")
time.sleep(600)
"""
    job = aws.train(training(aws, script, StoppingCondition={"MaxRuntimeInSeconds": 10}))
    assert job["TrainingJobStatus"] == "Stopped"
    assert members(aws.read(job["ModelArtifacts"]["S3ModelArtifacts"])) == {"partial": b"x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InputMode": "Pipe"}, "does not support Pipe"),
        ({"CompressionType": "Gzip"}, "does not decompress"),
        ({"RecordWrapperType": "RecordIO"}, "does not wrap records"),
    ],
)
def test_what_training_does_not_support_is_refused(
    aws: World, change: dict[str, str], message: str
) -> None:
    request = training(aws)
    request["InputDataConfig"][0] |= change
    with pytest.raises(ClientError, match=message):
        aws.train(request)


def test_a_container_with_its_own_command_is_refused(aws: World) -> None:
    request = training(aws)
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["python3"]
    with pytest.raises(ClientError, match=r"does not support AlgorithmSpecification\.Con"):
        aws.train(request)
