"""Batch transform jobs of the sandbox: pieces, answers in order, failures, limits, and the role."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from endpoint_cases import BROKEN, BUCKET, ROLE, Hosting, hosting, until
from sandbox_cases import REGION, fail, get, join, step
from sm_mlops.sandbox import Server, quotas
from sm_mlops.sandbox.transforms import MEGABYTE
from transform_cases import COUNT, LINES, job, source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    with Server(tmp_path_factory.mktemp("transforms"), REGION) as server:
        yield hosting(server)


@pytest.fixture(scope="module")
def model(aws: Hosting) -> str:
    return aws.model(aws.package(COUNT))


def ended(aws: Hosting, request: dict[str, Any]) -> dict[str, Any]:
    aws.sagemaker.create_transform_job(**request)
    name = request["TransformJobName"]

    told: dict[str, Any] = {}

    def over() -> bool:
        told.update(aws.sagemaker.describe_transform_job(TransformJobName=name))
        return told["TransformJobStatus"] not in ("InProgress", "Stopping")

    until(over)
    return told


def outputs(aws: Hosting, request: dict[str, Any]) -> dict[str, bytes]:
    prefix = request["TransformOutput"]["S3OutputPath"].removeprefix(f"s3://{BUCKET}/")
    found = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    keys = [item["Key"] for item in found]
    return {key.removeprefix(prefix): aws.read(f"s3://{BUCKET}/{key}") for key in keys}


def test_every_object_below_the_prefix_has_an_output_of_its_own(aws: Hosting, model: str) -> None:
    request = job(model, source(aws, a="1\n2\n", deep__b="3"))
    found = ended(aws, request)
    assert found["TransformJobStatus"] == "Completed", found
    assert found["TransformStartTime"] <= found["TransformEndTime"]
    made = outputs(aws, request)
    assert set(made) == {"a.out", "deep/b.out"}
    assert made["a.out"].endswith(b"}\n")
    answer = json.loads(made["a.out"])
    assert (answer["lines"], answer["kind"], answer["accept"]) == (2, LINES, LINES)
    listed = aws.sagemaker.list_transform_jobs(NameContains=request["TransformJobName"])
    [row] = listed["TransformJobSummaries"]
    assert row["TransformJobStatus"] == "Completed"


def test_the_container_is_told_that_it_is_a_batch(aws: Hosting, model: str) -> None:
    request = job(model, source(aws, a="1"), MaxConcurrentTransforms=3, Environment={"OWN": "mine"})
    ended(aws, request)
    answer = json.loads(outputs(aws, request)["a.out"])
    assert answer["own"] == "mine"
    wanted = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
    }
    assert answer["told"].items() >= wanted.items()


@pytest.mark.parametrize("at_once", [1, 4])
def test_pieces_are_whole_lines_within_the_limit_and_answers_keep_their_order(
    aws: Hosting, model: str, at_once: int
) -> None:
    lines = ["slow", *(f"{number} {'x' * 300_000}" for number in range(9))]
    request = job(
        model,
        source(aws, a=gzip.compress("\n".join(lines).encode())),
        InputCompressionType="Gzip",
        MaxPayloadInMB=1,
        MaxConcurrentTransforms=at_once,
    )
    found = ended(aws, request)
    assert found["TransformJobStatus"] == "Completed", found
    answers = [json.loads(line) for line in outputs(aws, request)["a.out"].splitlines()]
    assert sum(answer["lines"] for answer in answers) == 10
    assert all(answer["bytes"] <= MEGABYTE for answer in answers)
    firsts = [answer["first"][0].split()[0] for answer in answers]
    assert firsts == ["slow", "3", "6"]


def test_single_records_and_whole_objects(aws: Hosting, model: str) -> None:
    data = source(aws, a="1\n2\n3\n")
    single = job(model, data, BatchStrategy="SingleRecord")
    whole = job(model, data, InputSplitType="None", OutputAssembleWith="None")
    for request, counts in ((single, [1, 1, 1]), (whole, [3])):
        assert ended(aws, request)["TransformJobStatus"] == "Completed"
        answers = outputs(aws, request)["a.out"]
        assert [json.loads(line)["lines"] for line in answers.splitlines()] == counts
        assert answers.endswith(b"\n") == (request is single)


@pytest.mark.parametrize(
    ("bad", "reason", "logged"),
    [
        ("refuse", "ClientError: See job logs", "ClientError: 400"),
        ("raise", "AlgorithmError: See job logs", "Bad HTTP status received from algorithm: 500"),
        ("x" * (MEGABYTE + 1), "ClientError: See job logs", "a payload exceeds MaxPayloadInMB"),
    ],
)
def test_a_failed_object_fails_the_job_and_the_others_are_still_transformed(
    aws: Hosting, model: str, bad: str, reason: str, logged: str
) -> None:
    request = job(model, source(aws, a="1", b=f"1\n{bad}\n2", c="3"), MaxPayloadInMB=1)
    found = ended(aws, request)
    assert found["TransformJobStatus"] == "Failed"
    assert found["FailureReason"].startswith(reason)
    assert set(outputs(aws, request)) == {"a.out", "c.out"}
    lines = aws.logs.filter_log_events(
        logGroupName="/aws/sagemaker/TransformJobs",
        logStreamNamePrefix=request["TransformJobName"],
    )["events"]
    assert any(logged in line["message"] and "/b: " in line["message"] for line in lines)


def test_a_model_that_does_not_load_and_data_that_is_not_there_fail_the_job(
    aws: Hosting, model: str
) -> None:
    broken = job(aws.model(aws.package(BROKEN)), source(aws, a="1"))
    assert ended(aws, broken)["FailureReason"].startswith("AlgorithmError")
    nothing = job(model, f"s3://{BUCKET}/nothing/")
    assert "No S3 objects found" in ended(aws, nothing)["FailureReason"]
    damaged = job(model, source(aws, a="no gzip"), InputCompressionType="Gzip")
    assert ended(aws, damaged)["TransformJobStatus"] == "Failed"


def test_a_stopped_job_ends_without_an_output_of_what_was_under_way(
    aws: Hosting, tmp_path: Any
) -> None:
    held = tmp_path / "held"
    package = aws.package_of(aws.archive(COUNT), {"HELD": str(held)})
    request = job(aws.model(package), source(aws, a="hold"))
    name = request["TransformJobName"]
    aws.sagemaker.create_transform_job(**request)
    until(held.exists)
    aws.sagemaker.stop_transform_job(TransformJobName=name)
    told = aws.sagemaker.describe_transform_job
    until(lambda: told(TransformJobName=name)["TransformJobStatus"] == "Stopped")
    assert outputs(aws, request) == {}
    with pytest.raises(ClientError, match="in status Stopped"):
        aws.sagemaker.stop_transform_job(TransformJobName=name)


def test_the_role_of_the_model_reads_and_writes(aws: Hosting) -> None:
    def narrow(name: str, actions: list[str], *prefixes: str) -> str:
        resources = [f"arn:aws:s3:::{BUCKET}/{prefix}/*" for prefix in prefixes]
        models = f"arn:aws:s3:::{BUCKET}/models/*"
        aws.role_for(
            name,
            {"Effect": "Allow", "Action": actions, "Resource": resources},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": models},
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        )
        role = ROLE.replace("hosting", name)
        return aws.model(aws.package(COUNT), ExecutionRoleArn=role)

    data = source(aws, a="1")
    for model in (
        narrow("writes", ["s3:PutObject"], "out"),
        narrow("reads", ["s3:GetObject"], "in"),
    ):
        assert ended(aws, job(model, data))["TransformJobStatus"] == "Failed"
    both = narrow("both", ["s3:GetObject", "s3:PutObject"], "in", "out")
    assert ended(aws, job(both, data))["TransformJobStatus"] == "Completed"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"DataProcessing": {"InputFilter": "$..a"}}, "not a JSONPath expression"),
        (
            {"DataProcessing": {"JoinSource": "Input"}, "OutputAccept": "application/json"},
            "CreateTransformJob with DataProcessing of other data",
        ),
        ({"ModelClientConfig": {}}, "CreateTransformJob with ModelClientConfig"),
        ({"InputSplitType": "RecordIO"}, "CreateTransformJob with SplitType RecordIO"),
        ({"ResourcesInstanceCount": 2}, "CreateTransformJob with InstanceCount 2"),
        ({"MaxPayloadInMB": 101}, "cannot be greater than 100 MB"),
        ({"MaxPayloadInMB": 26, "MaxConcurrentTransforms": 4}, "cannot be greater than 100 MB"),
        ({"ModelName": "none"}, "Could not find model"),
        ({"ResourcesInstanceType": "ml.c5.large"}, "Member must satisfy enum value set"),
    ],
)
def test_what_sagemaker_or_the_sandbox_does_not_do_is_refused(
    aws: Hosting, model: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        aws.sagemaker.create_transform_job(**job(model, f"s3://{BUCKET}/in/", **more))


def test_a_name_is_used_once_and_a_quota_limits_the_jobs(
    aws: Hosting, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = job(model, source(aws, a="1"))
    ended(aws, request)
    with pytest.raises(ClientError, match="Job name must be unique"):
        aws.sagemaker.create_transform_job(**request)
    monkeypatch.setattr("sm_mlops.sandbox.transforms.INSTANCES", 0)
    with pytest.raises(ClientError, match="for transform job usage' is 0 Instances"):
        aws.sagemaker.create_transform_job(**job(model, f"s3://{BUCKET}/in/"))
    assert quotas.INSTANCES > 0


def test_predictions_join_their_rows(aws: Hosting, model: str) -> None:
    data = source(aws, a='{"id": 1}\n{"id": 2}\n')
    both = {"JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    request = job(model, data, BatchStrategy="SingleRecord", DataProcessing=both)
    assert ended(aws, request)["TransformJobStatus"] == "Completed"
    rows = [json.loads(line) for line in outputs(aws, request)["a.out"].splitlines()]
    assert [row["id"] for row in rows] == [1, 2]
    assert [row["SageMakerOutput"]["first"] for row in rows] == [['{"id": 1}'], ['{"id": 2}']]
    # One answer for two rows.
    request = job(model, data, DataProcessing=both)
    assert ended(aws, request)["FailureReason"].startswith("ClientError: See job logs")


def test_a_pipeline_transforms(aws: Hosting, model: str) -> None:
    request = job(get("Parameters.Model"), source(aws, a="1\n"))
    del request["TransformJobName"]
    path = get("Steps.Predict.TransformOutput.S3OutputPath")
    steps = [step("Predict", "Transform", request), fail("End", join(" ", "lies in", path))]
    steps[1]["DependsOn"] = ["Predict"]
    name = {"Name": "Model", "Type": "String", "DefaultValue": model}
    found = aws.run(steps, parameters=[name])
    assert found.steps["Predict"]["StepStatus"] == "Succeeded", found.steps
    arn = found.steps["Predict"]["Metadata"]["TransformJob"]["Arn"]
    tags = aws.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert {"Key": "sagemaker:pipeline-execution-arn", "Value": found.arn} in tags
    to = request["TransformOutput"]["S3OutputPath"]
    assert found.steps["End"]["FailureReason"] == f"lies in {to}"
    assert set(outputs(aws, request)) == {"a.out"}
    refused = job(model, source(aws, a="refuse\n"))
    del refused["TransformJobName"]
    found = aws.run([step("Predict", "Transform", refused)])
    assert found.steps["Predict"]["FailureReason"] == (
        "ClientError: ClientError: See job logs for more information"
    )


def test_a_stopped_pipeline_stops_its_transform(aws: Hosting, model: str, tmp_path: Path) -> None:
    held = tmp_path / "held"
    request = job(model, source(aws, a="hold\n"), Environment={"HELD": str(held)})
    del request["TransformJobName"]
    arn = aws.start([step("Predict", "Transform", request)])
    until(held.exists)
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    found = aws.wait(arn)
    assert (found.status, found.steps["Predict"]["StepStatus"]) == ("Stopped", "Stopped")
