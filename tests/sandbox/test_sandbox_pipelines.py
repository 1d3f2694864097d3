"""Pipeline executions in the sandbox: real processes, over the real wire protocol."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fault_injection import inject
from sandbox_cases import (
    BUCKET,
    GROUP,
    IMAGE,
    OUTPUT,
    ROLE,
    World,
    channel,
    condition,
    definition,
    fail,
    get,
    join,
    json_get,
    register,
    s3_input,
    step,
    until,
    world,
)
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.wire import snake_case

pytestmark = pytest.mark.slow

WRITE = "import pathlib, sys\npathlib.Path(sys.argv[1], 'x.json').write_text(sys.argv[2])\n"
SLEEP = "import time\ntime.sleep(600)\n"
HOLD = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
"""
BREAK = "import sys\nsys.exit(3)\n"
GATE_FILE = [{"PropertyFileName": "gate", "OutputName": "out", "FilePath": "x.json"}]
CACHED = {"CacheConfig": {"Enabled": True, "ExpireAfter": "P1D"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("répo with space"), "eu-west-1", stop_grace=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def aws(server: Server) -> World:
    return world(server)


def equals(left: Any, right: Any) -> dict[str, Any]:
    return {"Type": "Equals", "LeftValue": left, "RightValue": right}


def writing(aws: World, name: str, value: Any, **more: Any) -> dict[str, Any]:
    """A Processing step that writes x.json into its output."""
    request = aws.processing(WRITE, [f"{OUTPUT}/out", value])
    return step(name, "Processing", request, PropertyFiles=GATE_FILE, **more)


OUT = "Steps.{}.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri"


def test_a_pipeline_trains_judges_and_registers(aws: World) -> None:
    train = aws.training(
        "import os, pathlib\n"
        "data = pathlib.Path(os.environ['SM_CHANNEL_DATA'], 'x.json').read_text()\n"
        "pathlib.Path(os.environ['SM_MODEL_DIR'], 'model').write_text(data)\n",
    )
    train["InputDataConfig"].append(channel("data", get(OUT.format("Prepare"))))
    url = get("Steps.Train.ModelArtifacts.S3ModelArtifacts")
    judged = {
        "Type": "GreaterThanOrEqualTo",
        "LeftValue": json_get("Prepare", "gate", "auc"),
        "RightValue": get("Parameters.Threshold"),
    }
    steps = [
        writing(aws, "Prepare", '{"auc": 0.9}'),
        step("Train", "Training", train),
        condition(
            "Gate", [judged], [step("Register", "RegisterModel", register(url))], [fail("No", "x")]
        ),
    ]
    parameters = [{"Name": "Threshold", "Type": "Float", "DefaultValue": 0.8}]
    ended = aws.run(steps, parameters=parameters)
    assert ended.status == "Succeeded"
    assert set(ended.steps) == {"Prepare", "Train", "Gate", "Register"}
    assert ended.steps["Gate"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    package = aws.sagemaker.describe_model_package(
        ModelPackageName=ended.steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    trained = aws.sagemaker.describe_training_job(
        TrainingJobName=ended.steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    [container] = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == trained["ModelArtifacts"]["S3ModelArtifacts"]
    assert package["MetadataProperties"]["GeneratedBy"] == ended.arn


def test_a_failed_gate_fails_the_execution_with_its_message(aws: World) -> None:
    message = join(" ", "auc", json_get("Judge", "gate", "auc"), "is below", get("Parameters.T"))
    judged = {
        "Type": "GreaterThan",
        "LeftValue": json_get("Judge", "gate", "auc"),
        "RightValue": get("Parameters.T"),
    }
    steps = [
        writing(aws, "Judge", '{"auc": 0.5}'),
        condition("Gate", [judged], [], [fail("GateFailed", message)]),
    ]
    ended = aws.run(steps, parameters=[{"Name": "T", "Type": "Float", "DefaultValue": 0.75}])
    assert ended.status == "Failed"
    assert ended.described["FailureReason"] == "Step failure: One or multiple steps failed."
    failed = ended.steps["GateFailed"]
    assert failed["StepStatus"] == "Failed"
    assert failed["FailureReason"] == "auc 0.5 is below 0.75"
    assert failed["Metadata"] == {"Fail": {"ErrorMessage": "auc 0.5 is below 0.75"}}


def test_only_the_chosen_branch_runs_with_its_nested_conditions(aws: World) -> None:
    inner = condition("Inner", [equals(1, 2)], [fail("A", "a")], [condition("B", [equals(1, 1)])])
    after = condition("AfterA", [equals(1, 1)], DependsOn=["A"])
    ended = aws.run([condition("Outer", [equals(1, 1)], [inner], [fail("C", "c")]), after])
    assert ended.status == "Succeeded"
    assert set(ended.steps) == {"Outer", "Inner", "B"}


def test_execution_variables_and_parameters_reach_the_job(aws: World) -> None:
    value = join(
        "|",
        get("Execution.PipelineName"),
        get("Execution.PipelineExecutionId"),
        get("Execution.PipelineExecutionArn"),
        get("Parameters.Count"),
    )
    ended = aws.run(
        [writing(aws, "Write", value)],
        name="variables",
        parameters=[{"Name": "Count", "Type": "Integer", "DefaultValue": 3}],
        PipelineParameters=[{"Name": "Count", "Value": "4"}],
    )
    job = aws.sagemaker.describe_processing_job(
        ProcessingJobName=ended.steps["Write"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[
            2
        ]
    )
    written = aws.read(job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] + "/x.json")
    identity = ended.arn.rpartition("/")[2]
    assert written.decode() == f"variables|{identity}|{ended.arn}|4"
    assert job["ProcessingJobName"].startswith(f"pipelines-{identity}-Write-")
    assert len(job["ProcessingJobName"]) <= 63


def test_independent_steps_run_at_the_same_time(aws: World, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("one", "two")]
    meet = "import pathlib, sys\npathlib.Path(sys.argv[2]).touch()\n" + HOLD
    steps = [
        step("One", "Processing", aws.processing(meet, names)),
        step("Two", "Processing", aws.processing(meet, names[::-1])),
    ]
    assert aws.run(steps).status == "Succeeded"


def test_depends_on_orders_steps(aws: World) -> None:
    ended = aws.run(
        [writing(aws, "Last", "1", DependsOn=["First"]), writing(aws, "First", "1")]
    ).steps
    assert ended["First"]["EndTime"] <= ended["Last"]["StartTime"]


def test_a_failing_step_lets_running_ones_finish_and_starts_no_other(
    aws: World, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    steps = [
        step("Bad", "Processing", aws.processing(BREAK)),
        step("Slow", "Processing", aws.processing(HOLD, [str(go)])),
        writing(aws, "AfterBad", "1", DependsOn=["Bad"]),
        writing(aws, "AfterSlow", "1", DependsOn=["Slow"]),
    ]
    arn = aws.start(steps)
    until(lambda: aws.steps(arn).get("Bad", {}).get("StepStatus") == "Failed")
    go.touch()
    ended = aws.wait(arn)
    assert ended.status == "Failed"
    assert {name: s["StepStatus"] for name, s in ended.steps.items()} == {
        "Bad": "Failed",
        "Slow": "Succeeded",
    }
    reason = ended.steps["Bad"]["FailureReason"]
    assert reason == "ClientError: AlgorithmError: See job logs for more information, exit code: 3"


def test_an_invalid_resolved_request_fails_its_step_with_the_reason(aws: World) -> None:
    request = aws.processing(WRITE)
    request["RoleArn"] = get("Parameters.Role")
    parameters = [{"Name": "Role", "Type": "String", "DefaultValue": "nobody"}]
    ended = aws.run([step("Bad", "Processing", request)], parameters=parameters)
    assert ended.status == "Failed"
    assert "Failed to invoke sagemaker:CreateProcessingJob" in ended.steps["Bad"]["FailureReason"]
    assert "roleArn" in ended.steps["Bad"]["FailureReason"].replace("RoleArn", "roleArn")


def test_a_missing_property_file_fails_the_step_that_reads_it(aws: World) -> None:
    request = aws.processing("print('writes nothing')")
    steps = [
        step("Silent", "Processing", request, PropertyFiles=GATE_FILE),
        condition("Gate", [equals(json_get("Silent", "gate", "auc"), 1)]),
    ]
    ended = aws.run(steps)
    assert ended.steps["Gate"]["StepStatus"] == "Failed"
    assert "There is no object" in ended.steps["Gate"]["FailureReason"]


# Caching.


@pytest.fixture(scope="module")
def cached(aws: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """Requests of a Processing and a Training step that have run once, in the pipeline `cached`."""
    processing = aws.processing(WRITE, [f"{OUTPUT}/out", "1"], Environment={"A": "1"})
    training = aws.training("print('trained')", Environment={"A": "1"})
    first = aws.run(cached_steps(processing, training), name="cached")
    assert first.status == "Succeeded"
    return processing, training


def cached_steps(processing: dict[str, Any], training: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        step("Process", "Processing", processing, **CACHED),
        step("Train", "Training", training, **CACHED),
    ]


Requests = tuple[dict[str, Any], dict[str, Any]]


def is_hit(step: dict[str, Any]) -> bool:
    return bool(step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn"))


def changed(request: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(request))
    target: Any = copied
    *parents, last = path.split(".")
    for name in parents:
        target = target[int(name) if name.isdigit() else name]
    target[int(last) if last.isdigit() else last] = value
    return copied


def test_an_unchanged_step_is_not_run_again(aws: World, cached: Requests) -> None:
    again = aws.run(cached_steps(*cached), name="cached")
    third = aws.run(cached_steps(*cached), name="cached")
    for name in ("Process", "Train"):
        # The source is what has run, not what has found it in the cache.
        source = again.steps[name]["CacheHitResult"]
        assert source["SourcePipelineExecutionArn"] != again.arn
        assert third.steps[name]["CacheHitResult"] == source
        for ended in (again, third):
            assert ended.steps[name]["StepStatus"] == "Succeeded"
            assert ended.steps[name]["Metadata"]


PROCESSING_KEY = [
    ("AppSpecification.ContainerArguments.1", "2", False),
    ("AppSpecification.ImageUri", IMAGE.replace("us-east-1", "eu-west-1"), False),
    ("Environment.A", "2", False),
    ("ProcessingInputs.0.S3Input.S3InputMode", "File", True),
    ("ProcessingOutputConfig.Outputs.0.S3Output.S3Uri", f"s3://{BUCKET}/elsewhere", True),
    ("ProcessingResources.ClusterConfig.InstanceType", "ml.m5.xlarge", True),
    ("RoleArn", f"{ROLE}2", True),
]
TRAINING_KEY = [
    ("AlgorithmSpecification.TrainingImage", IMAGE.replace("us-east-1", "eu-west-1"), False),
    ("CheckpointConfig", {"S3Uri": f"s3://{BUCKET}/checkpoints"}, False),
    ("DebugHookConfig", {"S3OutputPath": f"s3://{BUCKET}/debug"}, False),
    ("Environment.A", "2", False),
    ("HyperParameters.rounds", "2", False),
    ("InputDataConfig.0.ContentType", "text/csv", False),
    ("OutputDataConfig.S3OutputPath", f"s3://{BUCKET}/elsewhere/", True),
    ("ResourceConfig.InstanceType", "ml.m5.xlarge", True),
    ("StoppingCondition.MaxRuntimeInSeconds", 601, True),
]


@pytest.mark.parametrize(("path", "value", "hit"), PROCESSING_KEY)
def test_each_part_of_a_processing_cache_key_counts_and_nothing_else(
    aws: World, cached: Requests, path: str, value: Any, hit: bool
) -> None:
    request = changed(cached[0], path, value)
    ended = aws.run([step("Process", "Processing", request, **CACHED)], name="cached")
    assert is_hit(ended.steps["Process"]) is hit


@pytest.mark.parametrize(("path", "value", "hit"), TRAINING_KEY)
def test_each_part_of_a_training_cache_key_counts_and_nothing_else(
    aws: World, cached: Requests, path: str, value: Any, hit: bool
) -> None:
    request = changed(cached[1], path, value)
    ended = aws.run([step("Train", "Training", request, **CACHED)], name="cached")
    assert is_hit(ended.steps["Train"]) is hit


def test_new_input_addresses_miss_the_cache(aws: World, cached: Requests) -> None:
    request = changed(cached[0], "ProcessingInputs.0.S3Input.S3Uri", aws.code(WRITE))
    ended = aws.run([step("Process", "Processing", request, **CACHED)], name="cached")
    assert ended.steps["Process"]["CacheHitResult"] == {"SourcePipelineExecutionArn": ""}


def test_caching_is_off_by_default_and_stays_within_its_pipeline(
    aws: World, cached: Requests
) -> None:
    off = aws.run([step("Process", "Processing", cached[0])], name="cached")
    elsewhere = aws.run([step("Process", "Processing", cached[0], **CACHED)])
    assert not is_hit(off.steps["Process"])
    assert not is_hit(elsewhere.steps["Process"])


def test_a_result_older_than_its_expiry_is_not_used(aws: World, server: Server) -> None:
    request = aws.processing(WRITE, [f"{OUTPUT}/out", "1"])
    config = {"CacheConfig": {"Enabled": True, "ExpireAfter": "PT1H"}}
    steps = [step("Process", "Processing", request, **config)]
    first = aws.run(steps, name="expiry")
    record = server.store.all("PipelineExecution")[first.arn]["_steps"]["Process"]
    record["EndTime"] -= timedelta(minutes=59).total_seconds()
    assert is_hit(aws.run(steps, name="expiry").steps["Process"])
    record["EndTime"] -= timedelta(minutes=2).total_seconds()
    assert not is_hit(aws.run(steps, name="expiry").steps["Process"])


def test_a_failed_run_is_never_used_again(aws: World) -> None:
    steps = [step("Process", "Processing", aws.processing(BREAK), **CACHED)]
    assert aws.run(steps, name="failing").status == "Failed"
    again = aws.run(steps, name="failing")
    assert again.status == "Failed"
    assert not is_hit(again.steps["Process"])


def test_what_a_cached_step_made_is_passed_on(aws: World) -> None:
    read = "import pathlib, sys\nprint(pathlib.Path(sys.argv[1], 'x.json').read_text())\n"
    first = writing(aws, "First", "[7]", **CACHED)
    aws.run([first], name="passed-on")
    reading = aws.processing(read, ["/opt/ml/processing/input/data"])
    reading["ProcessingInputs"].append(s3_input("data", get(OUT.format("First"))))
    first = changed(
        first, "Arguments.ProcessingOutputConfig.Outputs.0.S3Output.S3Uri", f"s3://{BUCKET}/no"
    )
    ended = aws.run([first, step("Second", "Processing", reading)], name="passed-on")
    assert is_hit(ended.steps["First"])
    assert ended.steps["Second"]["StepStatus"] == "Succeeded"


# Retries.


def policy(kind: str, **more: Any) -> dict[str, Any]:
    return {"RetryPolicies": [{"ExceptionType": [kind], "IntervalSeconds": 0.01, **more}]}


@pytest.mark.parametrize(
    ("where", "code", "status", "kind"),
    [
        ("CreateProcessingJob", "ThrottlingException", 400, "Step.THROTTLING"),
        ("CreateProcessingJob", "ServiceUnavailable", 503, "Step.SERVICE_FAULT"),
        ("CreateProcessingJob", "ResourceLimitExceeded", 400, "SageMaker.RESOURCE_LIMIT"),
        ("ProcessingJob", "CapacityError", 400, "SageMaker.CAPACITY_ERROR"),
        ("ProcessingJob", "InternalServerError", 400, "SageMaker.JOB_INTERNAL_ERROR"),
    ],
)
def test_a_fault_is_retried_as_its_policy_says(
    aws: World, server: Server, where: str, code: str, status: int, kind: str
) -> None:
    inject(server, where, code, status=status, times=2)
    steps = [writing(aws, "Job", "1", **policy(kind, MaxAttempts=3))]
    ended = aws.run(steps)
    assert ended.status == "Succeeded"
    assert ended.steps["Job"]["AttemptCount"] == 3


def test_retries_end_with_max_attempts(aws: World, server: Server) -> None:
    inject(server, "ProcessingJob", "CapacityError", "no such machine", times=3)
    ended = aws.run([writing(aws, "Job", "1", **policy("SageMaker.CAPACITY_ERROR", MaxAttempts=2))])
    assert ended.steps["Job"]["StepStatus"] == "Failed"
    assert ended.steps["Job"]["AttemptCount"] == 3
    assert ended.steps["Job"]["FailureReason"] == "ClientError: CapacityError: no such machine"


def test_a_fault_without_a_fitting_policy_is_not_retried(aws: World, server: Server) -> None:
    inject(server, "ProcessingJob", "CapacityError")
    ended = aws.run([writing(aws, "Job", "1", **policy("SageMaker.RESOURCE_LIMIT"))])
    assert ended.steps["Job"]["StepStatus"] == "Failed"
    assert ended.steps["Job"]["AttemptCount"] == 1


def test_retries_end_with_their_time(aws: World, server: Server) -> None:
    inject(server, "ProcessingJob", "CapacityError")
    late = policy("SageMaker.CAPACITY_ERROR", ExpireAfterMin=1)
    late["RetryPolicies"][0]["IntervalSeconds"] = 120
    assert aws.run([writing(aws, "Job", "1", **late)]).status == "Failed"


# Stop, retry, identity.


def test_stopping_ends_the_job_and_the_execution(aws: World) -> None:
    steps = [
        step("Long", "Processing", aws.processing(SLEEP)),
        writing(aws, "Never", "1", DependsOn=["Long"]),
    ]
    arn = aws.start(steps)
    job = aws.wait_for_step(arn, "Long")["Metadata"]["ProcessingJob"]["Arn"]
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)
    described = aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert described["PipelineExecutionStatus"] in ("Stopping", "Stopped")
    ended = aws.wait(arn)
    assert ended.status == "Stopped"
    assert {name: s["StepStatus"] for name, s in ended.steps.items()} == {"Long": "Stopped"}
    name = job.rpartition("/")[2]
    stopped = aws.sagemaker.describe_processing_job(ProcessingJobName=name)
    assert stopped["ProcessingJobStatus"] == "Stopped"
    aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)


def test_an_execution_that_has_ended_cannot_be_stopped(aws: World) -> None:
    ended = aws.run([condition("C", [equals(1, 1)])])
    with pytest.raises(ClientError, match="Only an executing execution can be stopped"):
        aws.sagemaker.stop_pipeline_execution(PipelineExecutionArn=ended.arn)


def test_the_same_request_token_starts_one_execution(aws: World) -> None:
    token = uuid.uuid4().hex
    steps = [condition("C", [equals(1, 1)])]
    first = aws.start(steps, name="token", ClientRequestToken=token)
    second = aws.start(steps, name="token", ClientRequestToken=token)
    assert first == second
    assert aws.start(steps, name="token") != first


def test_an_update_does_not_change_a_running_execution(aws: World, tmp_path: Path) -> None:
    request = aws.processing(HOLD, [str(tmp_path / "go")])
    steps = [step("Wait", "Processing", request), fail("Old", "old", DependsOn=["Wait"])]
    arn = aws.start(steps, name="updated")
    before = aws.sagemaker.describe_pipeline(PipelineName="updated")["PipelineDefinition"]
    aws.create("updated", [fail("New", "new")])
    (tmp_path / "go").touch()
    ended = aws.wait(arn)
    assert set(ended.steps) == {"Wait", "Old"}
    kept = aws.sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)
    assert kept["PipelineDefinition"] == before


# What the API answers.


def test_pipelines_are_created_described_listed_and_deleted(aws: World) -> None:
    text = definition([fail("F", "x")])
    tags = [{"Key": "team", "Value": "a"}]
    created = aws.sagemaker.create_pipeline(
        PipelineName="life", PipelineDefinition=text, RoleArn=ROLE, Tags=tags,
        PipelineDescription="d",
    )  # fmt: skip
    arn = created["PipelineArn"]
    with pytest.raises(ClientError, match="Pipeline names must be unique"):
        aws.sagemaker.create_pipeline(PipelineName="life", PipelineDefinition=text, RoleArn=ROLE)
    described = aws.sagemaker.describe_pipeline(PipelineName=arn)
    assert described["PipelineDefinition"] == text
    assert described["PipelineDescription"] == "d"
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "b"}]
    aws.sagemaker.delete_pipeline(PipelineName="life")
    with pytest.raises(ClientError, match="does not exist") as caught:
        aws.sagemaker.describe_pipeline(PipelineName="life")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFound"


def test_steps_and_executions_are_listed_in_order_and_in_pages(aws: World) -> None:
    steps = [
        condition(f"S{n}", [equals(1, 1)], DependsOn=[f"S{n - 1}"] if n else []) for n in range(5)
    ]
    arns = [aws.run(steps, name="paged").arn for _ in range(3)]
    paginator = aws.sagemaker.get_paginator("list_pipeline_execution_steps")
    pages = list(
        paginator.paginate(
            PipelineExecutionArn=arns[0], SortOrder="Ascending", PaginationConfig={"PageSize": 2}
        )
    )
    assert [len(page["PipelineExecutionSteps"]) for page in pages] == [2, 2, 1]
    names = [s["StepName"] for page in pages for s in page["PipelineExecutionSteps"]]
    assert names == ["S0", "S1", "S2", "S3", "S4"]
    newest = aws.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arns[0])
    assert newest["PipelineExecutionSteps"][0]["StepName"] == "S4"
    summaries = aws.sagemaker.list_pipeline_executions(PipelineName="paged")
    listed = [s["PipelineExecutionArn"] for s in summaries["PipelineExecutionSummaries"]]
    assert listed == arns[::-1]


def test_every_answer_fits_botocores_model(aws: World) -> None:
    ended = aws.run(
        [writing(aws, "P", "1"), condition("C", [equals(1, 1)], [fail("F", "x")], DependsOn=["P"])],
        name="shapes",
    )
    job = ended.steps["P"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
    client = aws.sagemaker
    bodies: list[bytes] = []
    client.meta.events.register(
        "before-parse.sagemaker", lambda response_dict, **_: bodies.append(response_dict["body"])
    )
    for operation, request in (
        ("DescribePipeline", {"PipelineName": "shapes"}),
        ("ListPipelines", {}),
        ("DescribePipelineExecution", {"PipelineExecutionArn": ended.arn}),
        ("ListPipelineExecutions", {"PipelineName": "shapes"}),
        ("ListPipelineExecutionSteps", {"PipelineExecutionArn": ended.arn}),
        ("DescribePipelineDefinitionForExecution", {"PipelineExecutionArn": ended.arn}),
        ("ListPipelineParametersForExecution", {"PipelineExecutionArn": ended.arn}),
        ("DescribeProcessingJob", {"ProcessingJobName": job}),
        ("ListModelPackageGroups", {}),
        ("DescribeModelPackageGroup", {"ModelPackageGroupName": GROUP}),
    ):
        shape = client.meta.service_model.operation_model(operation)
        getattr(client, snake_case(operation))(**request)
        unknown = set(json.loads(bodies[-1])) - set(shape.output_shape.members)
        assert not unknown, f"{operation} answers {unknown}, which AWS does not"


NO_EXECUTION = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/p/execution/abcdefghijkl"
PIPELINE = {"PipelineName": "bad", "PipelineDefinition": "{}", "RoleArn": ROLE}
LAMBDA = '{"Version": "2020-12-01", "Steps": [{"Name": "L", "Type": "Lambda"}]}'


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("start_pipeline_execution", {"PipelineName": "nope"}, "ResourceNotFound"),
        (
            "describe_pipeline_execution",
            {"PipelineExecutionArn": NO_EXECUTION},
            "ResourceNotFound",
        ),
        ("create_pipeline", {**PIPELINE, "PipelineName": "-bad"}, "ValidationException"),
        (
            "create_pipeline",
            {**PIPELINE, "RoleArn": "a role without an arn"},
            "ValidationException",
        ),
        ("create_pipeline", {**PIPELINE, "PipelineDefinition": LAMBDA}, "ValidationException"),
    ],
)
def test_a_wrong_request_is_refused_with_the_services_code(
    aws: World, operation: str, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.sagemaker, operation)(**request_)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("ListTrainingJobs", {}),
        ("StopProcessingJob", {"ProcessingJobName": "x"}),
        ("RetryPipelineExecution", {"PipelineExecutionArn": NO_EXECUTION}),
        ("CreateExperiment", {"ExperimentName": "x"}),
    ],
)
def test_an_operation_that_is_not_implemented_is_refused_by_name(
    aws: World, operation: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.sagemaker, snake_case(operation))(**request_)
    error = caught.value.response["Error"]
    assert error["Code"] == "NotImplemented"
    assert error["Message"] == f"The sandbox does not implement sagemaker:{operation}"


@pytest.mark.parametrize(
    ("operation", "request_", "what"),
    [
        (
            "StartPipelineExecution",
            {"ParallelismConfiguration": {"MaxParallelExecutionSteps": 1}},
            "ParallelismConfiguration",
        ),
        (
            "UpdatePipeline",
            {"PipelineDefinitionS3Location": {"Bucket": BUCKET, "ObjectKey": "x"}},
            "PipelineDefinitionS3Location",
        ),
        ("ListPipelineExecutions", {"CreatedAfter": 1}, "CreatedAfter"),
        ("ListPipelineExecutions", {"SortBy": "PipelineExecutionArn"}, "SortBy"),
    ],
)
def test_a_member_that_is_not_implemented_is_refused_by_name(
    aws: World, operation: str, request_: dict[str, Any], what: str
) -> None:
    aws.create("strict", [fail("F", "x")])
    words = f"does not implement sagemaker:{operation} with {what}"
    with pytest.raises(ClientError, match=words):
        getattr(aws.sagemaker, snake_case(operation))(PipelineName="strict", **request_)


def test_wrong_parameters_start_nothing(aws: World) -> None:
    aws.create("strict", [fail("F", "x")])
    with pytest.raises(ClientError, match="Unknown parameter 'Nope'"):
        aws.sagemaker.start_pipeline_execution(
            PipelineName="strict", PipelineParameters=[{"Name": "Nope", "Value": "1"}]
        )
    assert not aws.sagemaker.list_pipeline_executions(PipelineName="strict")[
        "PipelineExecutionSummaries"
    ]


def test_an_execution_that_names_a_version_has_its_definition(aws: World) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    aws.create(name, [fail("Stop", "first")])
    aws.create(name, [fail("Stop", "second")])
    ends = []
    for version in (1, 2):
        arn = aws.sagemaker.start_pipeline_execution(PipelineName=name, PipelineVersionId=version)
        ended = aws.wait(arn["PipelineExecutionArn"])
        assert ended.described["PipelineVersionId"] == version
        ends.append(ended.steps["Stop"]["FailureReason"])
    assert "first" in ends[0] and "second" in ends[1]
    with pytest.raises(ClientError, match=r"version 3 of .* not found"):
        aws.sagemaker.start_pipeline_execution(PipelineName=name, PipelineVersionId=3)
