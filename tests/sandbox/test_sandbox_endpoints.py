"""Endpoints of the sandbox: models run in separate processes and answer as SageMaker does."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

from endpoint_cases import (
    BROKEN,
    BUCKET,
    IMAGE,
    MODEL,
    ROLE,
    SLOW,
    Hosting,
    gone,
    hosting,
    runs,
    serverless,
    variant,
)
from sandbox_cases import REGION, there, until
from sm_mlops import sandbox
from sm_mlops.sandbox import Server, serving
from sm_mlops.sandbox.endpoints import Endpoints

pytestmark = pytest.mark.slow

NO_PING = (
    "The primary container for production variant AllTraffic did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    root = tmp_path_factory.mktemp("endpoints") / "mes modèles à moi" / ("long" * 40)
    root.mkdir(parents=True)
    with Server(root, REGION, pace=0.01) as server:
        yield hosting(server)


@pytest.fixture(scope="module")
def ready(aws: Hosting) -> str:
    """An endpoint that no test changes."""
    return aws.deploy(aws.named("ready"))


# Answers.


def test_an_approved_version_answers_through_its_own_code(aws: Hosting, ready: str) -> None:
    assert aws.ask(ready, "some rows") == {"model": "ready", "data": "some rows"} | {
        "pid": aws.ask(ready)["pid"]
    }
    described = aws.sagemaker.describe_endpoint(EndpointName=ready)
    shown = described["ProductionVariants"][0]
    assert shown["CurrentInstanceCount"] == 1
    assert aws.ask(ready)["pid"] != os.getpid()


def test_content_types_reach_the_model_and_come_back(aws: Hosting) -> None:
    script = """
import json
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept):
    return json.dumps([body.decode("latin-1"), content_type, accept]), "application/x-own"
"""
    name = aws.deploy(aws.named("types", script))
    answer = aws.runtime.invoke_endpoint(
        EndpointName=name, Body=b"\xff\x00", ContentType="application/x-mine", Accept="text/plain"
    )
    assert json.loads(answer["Body"].read()) == ["\xff\x00", "application/x-mine", "text/plain"]
    assert answer["ContentType"] == "application/x-own"
    assert answer["InvokedProductionVariant"] == "AllTraffic"


@pytest.mark.parametrize(
    ("member", "header"),
    [("TargetVariant", "Target-Variant"), ("CustomAttributes", "Custom-Attributes")],
)
def test_unsupported_invocations_are_refused_by_name(
    aws: Hosting, ready: str, member: str, header: str
) -> None:
    words = f"does not implement invocations with X-Amzn-SageMaker-{header}"
    with pytest.raises(ClientError, match=words):
        aws.ask(ready, **{member: "x"})


def test_an_error_of_the_model_is_a_model_error_with_its_log(aws: Hosting, ready: str) -> None:
    with pytest.raises(ClientError) as caught:
        aws.ask(ready, "raise")
    answer: Any = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["OriginalStatusCode"] == 500
    assert "<title>500 Internal Server Error</title>" in answer["OriginalMessage"]
    assert "Received server error (500) from primary" in answer["Error"]["Message"]
    assert any("RuntimeError: no prediction for this" in line for line in aws.log(ready))


def test_a_fault_of_the_caller_keeps_its_status(aws: Hosting) -> None:
    script = """
from sagemaker_containers.beta.framework import worker
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept):
    return worker.Response("rows only", status=415)
"""
    name = aws.deploy(aws.named("strict", script))
    with pytest.raises(ClientError, match=r"Received client error \(415\).*rows only") as caught:
        aws.ask(name)
    answer: Any = caught.value.response
    assert answer["OriginalStatusCode"] == 415


def test_what_is_not_there_is_not_found(aws: Hosting) -> None:
    with pytest.raises(ClientError, match="Endpoint nope of account 123456789012 not found") as e:
        aws.ask("nope")
    assert e.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="Could not find endpoint "):
        aws.sagemaker.describe_endpoint(EndpointName="nope")


def test_payloads_have_the_documented_limits(aws: Hosting, ready: str) -> None:
    body = "x" * (5 * 1024 * 1024)
    assert len(aws.ask(ready, body)["data"]) == len(body)
    with pytest.raises(ClientError, match="less than or equal to 6291456") as refused:
        aws.ask(ready, "x" * (6 * 1024 * 1024 + 1))
    name = aws.deploy(aws.config(serverless(aws.model())))
    assert aws.ask(name, "ok")["data"] == "ok"
    with pytest.raises(ClientError, match=r"Request [0-9a-f-]{36} has oversize body\.") as also:
        aws.ask(name, body)
    for error in (refused.value.response, also.value.response):
        assert error["Error"]["Code"] == "ValidationError"
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_thirty_two_clients_get_their_own_answers(aws: Hosting, ready: str) -> None:
    clients = [aws.runtime for _ in range(32)]

    def ask(number: int) -> bool:
        client = clients[number % 32]
        answer = client.invoke_endpoint(EndpointName=ready, Body=f"row {number}")
        return bool(json.loads(answer["Body"].read())["data"] == f"row {number}")

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(320)))


def test_a_model_sees_no_credentials_and_no_network(aws: Hosting) -> None:
    script = """
import json, os, socket
def model_fn(model_dir):
    return model_dir
def input_fn(body, kind):
    return body
def predict_fn(data, model):
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except OSError as error:
        return [dict(os.environ), str(error)]
def output_fn(prediction, accept):
    return json.dumps(prediction), accept
"""
    environment = {"OWN": "1", "WHERE": "/opt/ml/model/code"}
    model = aws.model(aws.package_of(aws.archive(script), environment))
    answer: Any = aws.ask(aws.deploy(aws.config(variant(model))))
    found, error = answer
    assert "this machine only" in error
    assert not {name for name in found if name.startswith("AWS") and "KEY" in name}
    assert found["OWN"] == "1"
    assert Path(found["WHERE"]).parent == Path(found["SAGEMAKER_BASE_DIR"]) / "model"


@pytest.fixture(scope="module")
def cases() -> Any:
    """Return the helpers for models, which change sys.path when they are imported."""
    import model_case

    return model_case


def test_the_packaged_model_of_this_repo_predicts(aws: Hosting, cases: Any, tmp_path: Path) -> None:
    import datasets

    case = cases.Case(tmp_path)
    case.prepare(case.write(datasets.passengers()), "Survived", drop=("PassengerId",))
    model = case.train()
    url = aws.put("models/passengers/model.tar.gz", case.pack().read_bytes())
    environment = {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
    }
    name = aws.deploy(aws.config(variant(aws.model(aws.package_of(url, environment)))))
    header, *rows = (tmp_path / "data.csv").read_text().splitlines()
    body = "\n".join([header, *rows[:50]])
    answer = aws.runtime.invoke_endpoint(
        EndpointName=name, Body=body, ContentType="text/csv", Accept="text/csv"
    )
    expected = cases.inference.transform_fn(model, body, "text/csv", "text/csv")
    assert answer["ContentType"].partition(";")[0] == "text/csv"
    assert answer["Body"].read() == expected.get_data()
    with pytest.raises(ClientError, match=r"client error \(400\).*row 1 has 2 values"):
        aws.ask(name, "1,2", ContentType="text/csv")


def test_a_body_of_unknown_length_arrives(aws: Hosting, ready: str) -> None:
    address = f"{aws.url}/endpoints/{ready}/invocations"
    signed = AWSRequest("POST", address, data=b"row 1\nrow 2\n")
    key = aws.server.signatures.key
    credentials = ReadOnlyCredentials(key.id, key.secret, None)
    SigV4Auth(credentials, "sagemaker", REGION).add_auth(signed)
    connection = http.client.HTTPConnection(aws.url.removeprefix("http://"))
    rows = iter([b"row 1\n", b"row 2\n"])
    connection.request(
        "POST", f"/endpoints/{ready}/invocations", rows, dict(signed.headers), encode_chunked=True
    )
    answer = connection.getresponse()
    assert json.loads(answer.read())["data"] == "row 1\nrow 2\n"
    connection.close()


def test_a_model_s_process_answers_the_sandbox_only(aws: Hosting, ready: str) -> None:
    every = aws.server.endpoints.live.items()
    fleet = next(live.blue for arn, live in every if arn.endswith(f"/{ready}"))
    assert fleet is not None
    process = fleet.container.start()
    wrong: list[dict[str, str]] = [{}, {"X-Model-Server-Token": "\xe9"}]
    for headers in wrong:
        for method, path in (("GET", "/ping"), ("POST", "/invocations")):
            connection = http.client.HTTPConnection("127.0.0.1", process.port)
            connection.request(method, path, headers=headers)
            assert connection.getresponse().status == 403
            connection.close()


# Life of an endpoint.


def test_a_model_that_does_not_load_fails_in_the_words_of_aws(aws: Hosting) -> None:
    name = aws.deploy(aws.named("broken", BROKEN), expect="Failed")
    described = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert described["FailureReason"] == NO_PING
    assert any("ValueError: these weights are broken" in line for line in aws.log(name))
    with pytest.raises(ClientError, match="not found"):
        aws.ask(name)
    with pytest.raises(ClientError, match="Cannot update failed endpoint"):
        aws.update(name, aws.named("good"))
    aws.sagemaker.delete_endpoint(EndpointName=name)
    wait_until_deleted(aws, name)
    assert any("these weights are broken" in line for line in aws.log(name))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no archive", "Failed to extract model data archive"), (b"", "Failed to extract")],
)
def test_model_data_that_is_not_an_archive_is_named(
    aws: Hosting, content: bytes, reason: str
) -> None:
    url = aws.put("models/odd.tar.gz", content)
    model = aws.model(aws.package_of(url))
    name = aws.deploy(aws.config(variant(model)), expect="Failed")
    described = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert described["FailureReason"].startswith(reason)
    assert url in described["FailureReason"]


def test_model_data_deleted_before_the_start_is_named(aws: Hosting) -> None:
    url = aws.archive()
    config = aws.config(variant(aws.model(aws.package_of(url))))
    aws.s3.delete_object(Bucket=BUCKET, Key=url.removeprefix(f"s3://{BUCKET}/"))
    name = aws.deploy(config, expect="Failed")
    described = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert described["FailureReason"].startswith("Failed to download model data")


def test_an_endpoint_is_created_in_the_background(
    aws: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, launch = threading.Event(), Endpoints._launch

    def held(*given: Any) -> Any:
        go.wait(300)
        return launch(*given)

    monkeypatch.setattr(Endpoints, "_launch", held)
    config = aws.named("slow")
    aws.sagemaker.create_endpoint(EndpointName="slow", EndpointConfigName=config)
    described = aws.sagemaker.describe_endpoint(EndpointName="slow")
    assert described["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="not found"):
        aws.ask("slow")
    for change in (
        lambda: aws.sagemaker.delete_endpoint(EndpointName="slow"),
        lambda: aws.update("slow", config),
    ):
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            change()
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        aws.sagemaker.create_endpoint(EndpointName="slow", EndpointConfigName=config)
    go.set()
    assert aws.settled("slow")["EndpointStatus"] == "InService"
    assert aws.ask("slow")["model"] == "slow"


def test_deleting_an_endpoint_ends_its_process(aws: Hosting) -> None:
    name = aws.deploy(aws.named("short"))
    pid = aws.ask(name)["pid"]
    aws.sagemaker.delete_endpoint(EndpointName=name)
    assert gone(pid)
    wait_until_deleted(aws, name)
    with pytest.raises(ClientError, match="not found"):
        aws.ask(name)


def test_a_killed_process_is_started_again_by_the_next_request(aws: Hosting) -> None:
    name = aws.deploy(aws.named("tough"))
    pid = aws.ask(name)["pid"]
    os.kill(pid, signal.SIGKILL)
    answer = aws.ask(name)
    assert answer["model"] == "tough"
    assert answer["pid"] != pid


def test_a_request_whose_process_is_killed_under_it_is_sent_again(aws: Hosting) -> None:
    name = aws.deploy(aws.named("unlucky"))
    assert aws.ask(name, "die once")["data"] == "die once"
    assert any("starting it again" in line for line in aws.log(name))


def test_a_request_that_kills_the_process_is_a_model_error(aws: Hosting) -> None:
    name = aws.deploy(aws.named("fragile"))
    with pytest.raises(ClientError, match="process ended while it worked on this") as caught:
        aws.ask(name, "die")
    answer: Any = caught.value.response
    assert answer["OriginalStatusCode"] == 500
    assert aws.ask(name, "again")["data"] == "again"


def test_lists_show_the_newest_first_and_filter(aws: Hosting, ready: str) -> None:
    rows = aws.sagemaker.list_endpoints(MaxResults=100)["Endpoints"]
    times = [row["CreationTime"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert ready in [row["EndpointName"] for row in rows]
    found = aws.sagemaker.list_endpoints(NameContains=ready)["Endpoints"]
    assert [row["EndpointName"] for row in found] == [ready]
    config = aws.sagemaker.describe_endpoint(EndpointName=ready)["EndpointConfigName"]
    configs = aws.sagemaker.list_endpoint_configs(NameContains=config)["EndpointConfigs"]
    assert [row["EndpointConfigName"] for row in configs] == [config]


def test_tags_of_endpoints_can_be_changed(aws: Hosting) -> None:
    tag = {"Key": "stage", "Value": "staging"}
    config = aws.named("tagged", Tags=[tag])
    arn = aws.sagemaker.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [tag]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "production"}])
    changed = aws.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert changed == [{"Key": "stage", "Value": "production"}]


# Updates.


def test_the_old_fleet_answers_until_the_new_one_is_healthy(aws: Hosting) -> None:
    name = aws.deploy(aws.named("old"))
    old = aws.ask(name)["pid"]
    seen: list[str] = []
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            seen.append(aws.ask(name)["model"])

    config = aws.named("new", SLOW)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(keep_asking)
        described = aws.update(name, config)
        time.sleep(0.1)
        done.set()
        asking.result()
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == config
    assert re.fullmatch("(old )+(new )+", " ".join(seen) + " ")
    assert gone(old)


def test_an_update_that_does_not_load_leaves_the_old_fleet_in_service(aws: Hosting) -> None:
    first = aws.named("first")
    name = aws.deploy(first)
    pid = aws.ask(name)["pid"]
    described = aws.update(name, aws.named("second", BROKEN))
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == first
    assert described["FailureReason"] == NO_PING
    assert aws.ask(name) == {"model": "first", "data": "hello", "pid": pid}
    third = aws.update(name, aws.named("third"))
    assert "FailureReason" not in third
    assert aws.ask(name)["model"] == "third"


def test_requests_under_way_are_answered_by_the_fleet_they_reached(
    aws: Hosting, tmp_path: Path
) -> None:
    name = aws.deploy(aws.named("long"))
    config, go = aws.named("next"), tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(aws.ask, name, f"hold {go}")
        until((tmp_path / "go.begun").exists)
        aws.update(name, config)
        assert aws.ask(name)["model"] == "next"
        go.touch()
        assert late.result()["model"] == "long"


def test_a_configuration_deleted_under_its_endpoint_makes_updates_impossible(
    aws: Hosting,
) -> None:
    config = aws.named("orphan")
    name = aws.deploy(config)
    aws.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    assert aws.ask(name)["model"] == "orphan"
    with pytest.raises(ClientError, match=f'find endpoint configuration ".*{config}"'):
        aws.update(name, aws.named("other"))


def test_the_count_that_autoscaling_sets_is_kept_when_asked(aws: Hosting) -> None:
    config = aws.named("scaled by hand")
    name = aws.deploy(config)
    aws.scale(name, 3)
    kept = aws.update(name, config, RetainAllVariantProperties=True)
    assert kept["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    reset = aws.update(name, config)
    assert reset["ProductionVariants"][0]["CurrentInstanceCount"] == 1


# What is refused.


def test_models_need_data_and_a_version(aws: Hosting) -> None:
    for package, message in (
        (aws.package_of(f"s3://{BUCKET}/nope"), "Could not find model data at"),
        (aws.package_of("s3://no-such-bucket/m"), "Could not find model data"),
        (aws.package() + "0", "does not exist"),
    ):
        with pytest.raises(ClientError, match=message):
            aws.model(package)
    with pytest.raises(ClientError, match="PrimaryContainer is required"):
        aws.sagemaker.create_model(ModelName="none", ExecutionRoleArn=ROLE)


def test_unsupported_models_and_endpoints_are_refused_by_name(aws: Hosting, ready: str) -> None:
    container = {"Image": IMAGE, "ModelDataUrl": aws.archive()}
    for call, message in (
        (lambda: aws.model(PrimaryContainer=container), "sagemaker:CreateModel with Image"),
        (lambda: aws.model(Containers=[container]), "sagemaker:CreateModel with Containers"),
        (
            lambda: aws.config(variant(aws.model()), variant(aws.model(), "other")),
            "endpoints with several production variants",
        ),
        (
            lambda: aws.config(variant(aws.model()), ExecutionRoleArn=ROLE),
            "sagemaker:CreateEndpointConfig with ExecutionRoleArn",
        ),
        (
            lambda: aws.update(ready, aws.named("x"), RetainDeploymentConfig=True),
            "sagemaker:UpdateEndpoint with RetainDeploymentConfig",
        ),
    ):
        with pytest.raises(ClientError, match=f"does not implement {message}"):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}, "support an instance type"),
        ({"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1}}, "must be one of"),
        (
            {"ServerlessConfig": {"MemorySizeInMB": 8192, "MaxConcurrency": 1}},
            "less than or equal to 6144",
        ),
    ],
)
def test_serverless_variants_have_rules(aws: Hosting, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        aws.config(serverless(aws.model(), **change))


def test_serverless_excludes_other_features(aws: Hosting) -> None:
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{BUCKET}/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    queue = {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out"}}
    model = aws.model()
    for more, message in (
        ({"DataCaptureConfig": capture}, "data capture"),
        ({"AsyncInferenceConfig": queue}, "asynchronous inference"),
    ):
        with pytest.raises(ClientError, match=message):
            aws.config(serverless(model), **more)
    isolated = aws.model(EnableNetworkIsolation=True)
    with pytest.raises(ClientError, match="network isolation"):
        aws.config(serverless(isolated))


def test_a_configuration_needs_what_it_names(aws: Hosting) -> None:
    model = aws.model()
    with pytest.raises(ClientError, match="Could not find model"):
        aws.config(variant("nope"))
    with pytest.raises(ClientError, match=r"KMS key .* does not exist"):
        aws.config(variant(model), KmsKeyId="1234abcd-12ab-34cd-56ef-1234567890ab")
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    with pytest.raises(ClientError, match="KMS key is not supported for NVMe instance storage"):
        aws.config(variant(model, InstanceType="ml.g5.xlarge"), KmsKeyId=key)
    assert aws.config(variant(model), KmsKeyId=key)
    with pytest.raises(ClientError, match="needs InstanceType and InitialInstanceCount"):
        aws.config({"VariantName": "AllTraffic", "ModelName": model})


def test_an_instance_based_endpoint_never_becomes_serverless(aws: Hosting) -> None:
    name = aws.deploy(aws.config(serverless(aws.model())))
    described = aws.update(name, aws.named("instances"))
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    with pytest.raises(ClientError, match="cannot be updated to serverless") as caught:
        aws.update(name, aws.config(serverless(aws.model())))
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert aws.settled(name)["EndpointStatus"] == "InService"


def test_a_registered_variant_keeps_its_instance_type(aws: Hosting) -> None:
    name = aws.deploy(aws.named("scaled"))
    scaling = aws.client("application-autoscaling")
    resource = f"endpoint/{name}/variant/AllTraffic"
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource,
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    larger = aws.config(variant(aws.model(), InstanceType="ml.m5.xlarge"))
    with pytest.raises(ClientError, match="must be deregistered as a scalable target"):
        aws.update(name, larger)
    with pytest.raises(ClientError, match=r'variant\(s\) "AllTraffic" must be deregistered'):
        aws.update(name, aws.config(variant(aws.model(), "other")))
    assert aws.update(name, aws.named("same type"))["EndpointStatus"] == "InService"
    scaling.deregister_scalable_target(**target)
    assert aws.update(name, larger)["EndpointStatus"] == "InService"
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    aws.sagemaker.delete_endpoint(EndpointName=name)
    wait_until_deleted(aws, name)
    left = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert resource not in [found["ResourceId"] for found in left]


def test_data_capture_writes_what_was_asked_and_answered(aws: Hosting) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{BUCKET}/capture",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
    }
    name = aws.deploy(aws.named("captured", DataCaptureConfig=capture))
    aws.ask(name, "1,2,3", ContentType="text/csv", Accept="application/json", InferenceId="mine")
    prefix = f"capture/{name}/AllTraffic/"
    until(lambda: "Contents" in aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix))
    found = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    assert re.fullmatch(prefix + r"\d{4}/\d\d/\d\d/\d\d/.*\.jsonl", found[0]["Key"])
    event = json.loads(aws.read(f"s3://{BUCKET}/{found[0]['Key']}"))
    sent = event["captureData"]["endpointInput"]
    assert (sent["data"], sent["encoding"], sent["mode"]) == ("1,2,3", "CSV", "INPUT")
    assert json.loads(event["captureData"]["endpointOutput"]["data"])["data"] == "1,2,3"
    assert event["eventMetadata"]["inferenceId"] == "mine"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("ContentType", "a" * 1025),
        ("ContentType", "é"),
        ("InferenceId", "a" * 65),
    ],
)
def test_headers_that_the_service_does_not_accept_are_refused(
    aws: Hosting, ready: str, member: str, value: str
) -> None:
    with pytest.raises(ClientError, match=r"ValidationError.*failed to satisfy constraint"):
        aws.ask(ready, **{member: value})


def test_an_endpoint_has_fifty_tags_at_most(aws: Hosting, ready: str) -> None:
    arn = aws.sagemaker.describe_endpoint(EndpointName=ready)["EndpointArn"]
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(51)]
    with pytest.raises(ClientError, match="exceeds the limit of 50"):
        for some in (tags[:50], tags[50:]):
            aws.sagemaker.add_tags(ResourceArn=arn, Tags=some)


def test_a_model_that_exits_at_once_leaves_a_line_in_the_log(aws: Hosting) -> None:
    name = aws.deploy(aws.named("gone", "import os\nos._exit(0)\n"), expect="Failed")
    assert aws.log(name) == ["[sandbox] the process ended before it answered /ping"]


def test_the_log_of_a_talkative_model_does_not_fill_the_disk(
    aws: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LARGEST_LOG", 100_000)
    loud = "def predict_fn(data, model):"
    name = aws.deploy(aws.named("loud", MODEL.replace(loud, f"{loud}\n    print(data * 9_000)")))
    assert [line for _ in range(3) for line in (aws.ask(name, "12345"), aws.log(name))]
    for _ in range(9):
        aws.ask(name, "12345")
    assert "[sandbox] the log was too long; it starts again here" in aws.log(name)


# Restarts.


def test_no_process_is_left_when_the_sandbox_is_killed(tmp_path: Path) -> None:
    from sm_mlops import sandbox

    status = sandbox.start(tmp_path, REGION)
    aws = Hosting(there(tmp_path)).prepare()
    name = aws.deploy(aws.named("victim"))
    pid = aws.ask(name)["pid"]
    assert runs(pid)
    os.kill(status.pid, signal.SIGKILL)
    assert gone(pid)
    status = sandbox.start(tmp_path, REGION)
    try:
        aws = Hosting(there(tmp_path))
        assert aws.ask(name)["model"] == "victim"
        pid = aws.ask(name)["pid"]
    finally:
        sandbox.stop(tmp_path)
    assert gone(pid)


def wait_until_deleted(aws: Hosting, name: str) -> None:
    def deleted() -> bool:
        try:
            aws.sagemaker.describe_endpoint(EndpointName=name)
        except ClientError:
            return True
        return False

    until(deleted)


def test_an_update_brings_no_other_service_into_memory(tmp_path: Path) -> None:
    running = sandbox.start(tmp_path, REGION)
    aws = Hosting(there(tmp_path)).prepare()
    server = psutil.Process(running.pid)
    try:
        name = aws.deploy(aws.named("old"))
        before = server.memory_info().rss
        assert aws.update(name, aws.named("new"))["EndpointStatus"] == "InService"
        assert server.memory_info().rss - before < 40 * 1024 * 1024
    finally:
        sandbox.stop(tmp_path)
