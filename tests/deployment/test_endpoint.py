"""infra/: what the template makes of each kind of endpoint, and what the rendered stages ask."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from infra_case import (
    ACCOUNT,
    ARTIFACT_KEY,
    BUCKET,
    FULL,
    INFRA,
    KEY,
    KINDS,
    PACKAGE,
    ROLE,
    TOPIC,
    Stack,
    full,
    stack,
    stage,
    template,
)
from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.wire import ApiError

STAGES = sorted(file.stem for file in INFRA.glob("*.json"))
BATCH = {"Model", "ExecutionRole"}
ALWAYS = BATCH | {"EndpointConfig", "Endpoint", "ErrorAlarm", "LatencyAlarm"}
# Kinds that have an endpoint.
ENDPOINTS = tuple(kind for kind in KINDS if kind != "batch")
SCALING = {"ScalableTarget", "ScalingPolicy"}
BACKLOG = SCALING | {"WakeUpScalingPolicy", "WakeUpAlarm"}
HOURS_A_MONTH = 730


def variant(**parameters: Any) -> dict[str, Any]:
    """Return the one production variant."""
    [found] = stack(parameters).properties("EndpointConfig")["ProductionVariants"]
    return dict(found)


# The stages


def test_there_are_the_stages_that_a_version_passes() -> None:
    assert STAGES == ["production", "staging"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_sets_only_parameters_of_the_template(name: str) -> None:
    assert stack(stage(name)["Parameters"], Stage=name).resources >= ALWAYS


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_leaves_to_mlops_deploy_what_is_deployed(name: str) -> None:
    assert not set(stage(name)["Parameters"]) & {
        *("Project", "Stage", "ModelPackageArn", "ArtifactBucket")
    }


def priced(reason: str) -> tuple[int, str, float]:
    """Return count, type and hourly price of `2 x ml.m5.large at 0.115 USD per hour ...`."""
    found = re.match(
        rf"(\d+) x (ml\.\S+) at ([\d.]+) USD per hour x {HOURS_A_MONTH} hours\b", reason
    )
    assert found, (
        f"Because must begin '2 x ml.m5.large at 0.115 USD per hour x {HOURS_A_MONTH} hours'"
    )
    return int(found[1]), found[2], float(found[3])


@pytest.mark.parametrize("name", STAGES)
def test_the_idle_cost_is_that_of_the_instances_a_stage_keeps_running(name: str) -> None:
    parameters, cost = stage(name)["Parameters"], stage(name)["Cost"]
    kind = parameters["EndpointKind"]
    scales_to_zero = kind == "asynchronous" and parameters.get("Autoscaling", "on") == "on"
    if kind == "serverless" or scales_to_zero:
        assert cost["IdlePerMonthUSD"] == 0
        return
    count, instance, price = priced(cost["Because"])
    [variant] = stack(parameters).properties("EndpointConfig")["ProductionVariants"]
    assert (count, instance) == (variant["InitialInstanceCount"], variant["InstanceType"])
    assert cost["IdlePerMonthUSD"] == pytest.approx(count * price * HOURS_A_MONTH, abs=0.005)


@pytest.mark.parametrize("name", STAGES)
def test_the_idle_cost_says_when_and_where_it_was_priced(name: str) -> None:
    cost = stage(name)["Cost"]
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", cost["Priced"])
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+-\d", cost["Region"])


def test_staging_surely_starts_and_leaves_production_s_quota_alone() -> None:
    """Whether the image starts as a serverless endpoint is not known."""
    parameters = [stage(name)["Parameters"] for name in ("staging", "production")]
    assert [given["EndpointKind"] for given in parameters] == ["real-time", "real-time"]
    assert len({given["InstanceType"] for given in parameters}) == 2


def test_staging_becomes_serverless_by_one_edit() -> None:
    made = variant(**stage("staging")["Parameters"] | {"EndpointKind": "serverless"})
    assert "InstanceType" not in made
    assert made["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 5}


def test_production_survives_the_loss_of_an_instance() -> None:
    assert variant(**stage("production")["Parameters"])["InitialInstanceCount"] >= 2


# The kinds


def test_a_real_time_endpoint_scales_by_invocations() -> None:
    assert full("real-time").resources == ALWAYS | SCALING


def test_a_serverless_endpoint_scales_by_itself() -> None:
    assert full("serverless").resources == ALWAYS


def test_an_asynchronous_endpoint_scales_by_its_backlog_and_wakes_up() -> None:
    assert full("asynchronous").resources == ALWAYS | BACKLOG


def test_a_batch_stage_has_only_what_costs_nothing_while_idle() -> None:
    assert full("batch").resources == BATCH
    shifting = stack(stage("production")["Parameters"] | {"EndpointKind": "batch"})
    assert shifting.resources == BATCH
    assert stack(EndpointKind="batch", TrafficShift="canary").resources == BATCH


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_the_defaults_make_an_endpoint_of_each_kind(kind: str) -> None:
    assert stack(EndpointKind=kind).resources - BACKLOG == ALWAYS


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_there_is_one_variant_whose_name_never_changes(kind: str) -> None:
    assert variant(EndpointKind=kind)["VariantName"] == "AllTraffic"


def test_a_serverless_variant_has_memory_and_no_instances() -> None:
    made = variant(EndpointKind="serverless", ServerlessMemoryMB=3072, ServerlessMaxConcurrency=7)
    assert made["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 7}
    assert not {"InstanceType", "InitialInstanceCount"} & set(made)


def test_a_model_and_its_configuration_have_no_names_so_that_new_ones_can_replace_them() -> None:
    made = full("real-time")
    assert "ModelName" not in made.properties("Model")
    assert "EndpointConfigName" not in made.properties("EndpointConfig")


def test_another_version_is_another_model() -> None:
    other = PACKAGE.replace("/7", "/8")
    model = full("real-time", ModelPackageArn=other).properties("Model")
    assert model["PrimaryContainer"] == {"ModelPackageName": other}
    assert (
        "/properties/PrimaryContainer"
        in schemas.schema("AWS::SageMaker::Model")["createOnlyProperties"]
    )


def test_only_a_container_that_can_be_isolated_is() -> None:
    isolated = {kind: full(kind).properties("Model")["EnableNetworkIsolation"] for kind in KINDS}
    assert isolated == {kind: kind != "serverless" for kind in KINDS}
    opened = stack(NetworkIsolation=False).properties("Model")
    assert opened["EnableNetworkIsolation"] is False


def test_captured_data_is_written_below_the_project_the_stage_and_the_version() -> None:
    capture = full("real-time").properties("EndpointConfig")["DataCaptureConfig"]
    assert capture["InitialSamplingPercentage"] == 20
    assert capture["DestinationS3Uri"] == f"s3://{BUCKET}/churn/capture/production/version-7/"


def test_nothing_is_captured_unless_asked_for() -> None:
    assert "DataCaptureConfig" not in stack().properties("EndpointConfig")


def test_an_asynchronous_endpoint_writes_below_the_project_the_stage_and_the_version() -> None:
    made = full("asynchronous", OutputBucket="elsewhere")
    output = made.properties("EndpointConfig")["AsyncInferenceConfig"]["OutputConfig"]
    assert output == {
        "S3OutputPath": "s3://elsewhere/churn/async/production/output/version-7/",
        "S3FailurePath": "s3://elsewhere/churn/async/production/failure/",
        "KmsKeyId": KEY,
    }


def test_an_endpoint_is_named_like_its_stack_and_says_what_it_runs() -> None:
    made = full("serverless")
    assert made.properties("Endpoint")["EndpointName"] == "churn-production"
    assert made.outputs() == {"EndpointKind": "serverless", "ModelPackageArn": PACKAGE}


# Scaling


def test_autoscaling_keeps_between_the_two_counts() -> None:
    target = full("real-time").properties("ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 4)
    assert target["ResourceId"] == "endpoint/churn-production/variant/AllTraffic"


@pytest.mark.parametrize(
    ("kind", "metric", "target"),
    [
        (
            "real-time",
            {
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
                }
            },
            1500,
        ),
        (
            "asynchronous",
            {
                "CustomizedMetricSpecification": {
                    "Namespace": "AWS/SageMaker",
                    "MetricName": "ApproximateBacklogSizePerInstance",
                    "Dimensions": [{"Name": "EndpointName", "Value": "churn-production"}],
                    "Statistic": "Average",
                }
            },
            5,
        ),
    ],
)
def test_autoscaling_follows_what_the_kind_publishes(
    kind: str, metric: dict[str, Any], target: int
) -> None:
    policy = full(kind).properties("ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert policy == {**metric, "TargetValue": target, "ScaleOutCooldown": 60}


def test_equal_counts_mean_no_autoscaling() -> None:
    assert not stack(InstanceCount=2, MaxInstanceCount=2).resources & SCALING


def test_an_asynchronous_endpoint_scales_to_zero_even_from_one() -> None:
    target = stack(EndpointKind="asynchronous").properties("ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 1)


def test_an_asynchronous_endpoint_wakes_up_when_requests_wait_and_nothing_runs() -> None:
    made = full("asynchronous")
    alarm = made.properties("WakeUpAlarm")
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["AlarmActions"] == [made.scope.resolve({"Ref": "WakeUpScalingPolicy"})]
    [step] = made.properties("WakeUpScalingPolicy")["StepScalingPolicyConfiguration"][
        "StepAdjustments"
    ]
    assert step == {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}


@pytest.mark.parametrize("kind", ["real-time", "asynchronous"])
def test_autoscaling_can_be_removed(kind: str) -> None:
    assert not full(kind, Autoscaling="off").resources & (SCALING | BACKLOG)


@pytest.mark.parametrize("kind", KINDS)
def test_removing_autoscaling_leaves_the_endpoint_itself_unchanged(kind: str) -> None:
    on, off = full(kind).everything(), full(kind, Autoscaling="off").everything()
    assert {name: on[name] for name in off} == off


def test_a_new_version_starts_with_the_instances_autoscaling_has_made() -> None:
    endpoint = full("real-time").properties("Endpoint")
    assert endpoint["RetainAllVariantProperties"] is True


@pytest.mark.parametrize(
    "parameters",
    [
        {"EndpointKind": "asynchronous", "MaxInstanceCount": 3},
        {"EndpointKind": "serverless", "MaxInstanceCount": 3},
        {"InstanceCount": 2, "MaxInstanceCount": 2},
    ],
    ids=["asleep", "serverless", "fixed"],
)
def test_a_new_version_starts_with_the_instances_the_stage_asks_for(
    parameters: dict[str, Any],
) -> None:
    assert "RetainAllVariantProperties" not in stack(parameters).properties("Endpoint")


# Updates


@pytest.mark.parametrize(
    ("shift", "routing"),
    [
        ("canary", {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20}}),
        ("linear", {"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 20}}),
        ("all-at-once", {"Type": "ALL_AT_ONCE"}),
    ],
)
def test_traffic_shifts_as_asked(shift: str, routing: dict[str, Any]) -> None:
    endpoint = stack(InstanceCount=2, TrafficShift=shift, ShiftPercent=20, BakeSeconds=60)
    update = endpoint.properties("Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert update["TrafficRoutingConfiguration"] == {**routing, "WaitIntervalInSeconds": 60}
    assert update["TerminationWaitInSeconds"] == 60


def test_the_longest_update_fits_into_the_time_sagemaker_gives_one() -> None:
    slowest = template().parameters
    steps, bake = 100 // slowest["ShiftPercent"]["MinValue"], slowest["BakeSeconds"]["MaxValue"]
    start = 1800
    update = full("real-time").properties("Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert start + (steps + 1) * bake < update["MaximumExecutionTimeoutInSeconds"] == 28800


def test_an_update_of_a_serverless_endpoint_has_no_steps() -> None:
    assert "DeploymentConfig" not in full("serverless").properties("Endpoint")


@pytest.mark.parametrize("kind", ["real-time", "asynchronous"])
def test_an_update_rolls_back_when_an_alarm_rings(kind: str) -> None:
    update = full(kind).properties("Endpoint")["DeploymentConfig"]
    alarms = [alarm["AlarmName"] for alarm in update["AutoRollbackConfiguration"]["Alarms"]]
    assert alarms == [f"churn-production-{what}" for what in ("errors", "latency")]


# Alarms


@pytest.mark.parametrize("kind", ENDPOINTS)
@pytest.mark.parametrize("alarm", ["ErrorAlarm", "LatencyAlarm"])
def test_an_alarm_watches_the_endpoint_and_notifies_the_topic(kind: str, alarm: str) -> None:
    made = full(kind).properties(alarm)
    assert made["AlarmName"].startswith("churn-production-")
    assert {item["Name"]: item["Value"] for item in made["Dimensions"]} == {
        "EndpointName": "churn-production",
        "VariantName": "AllTraffic",
    }
    assert made["AlarmActions"] == made["OKActions"] == [TOPIC]


def test_alarms_without_a_topic_notify_no_one() -> None:
    assert not {"AlarmActions", "OKActions"} & set(stack().properties("ErrorAlarm"))


def test_the_latency_of_the_alarm_is_in_microseconds() -> None:
    alarm = stack(LatencyP90Milliseconds=250).properties("LatencyAlarm")
    assert (alarm["ExtendedStatistic"], float(alarm["Threshold"])) == ("p90", 250_000)


def test_the_error_alarm_is_about_a_share_of_the_requests() -> None:
    alarm = stack(ErrorAlarmThreshold=0.05).properties("ErrorAlarm")
    assert (alarm["MetricName"], alarm["Statistic"]) == ("Invocation5XXErrors", "Average")
    assert alarm["Threshold"] == 0.05


@pytest.mark.parametrize("alarm", ["ErrorAlarm", "LatencyAlarm"])
def test_an_endpoint_without_requests_raises_no_alarm(alarm: str) -> None:
    assert full("real-time").properties(alarm)["TreatMissingData"] == "notBreaching"


@pytest.mark.parametrize("shift", ["canary", "linear"])
def test_a_serverless_endpoint_ignores_how_traffic_would_shift(shift: str) -> None:
    made = stack(EndpointKind="serverless", TrafficShift=shift, InstanceCount=1)
    assert "DeploymentConfig" not in made.properties("Endpoint")


# Combinations that cannot work


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"EndpointKind": "serverless", "DataCapturePercent": 5}, "DataCapturePercent"),
        (
            {
                "EndpointKind": "serverless",
                "SubnetIds": ["subnet-0123456789abcdef0"],
                "SecurityGroupIds": ["sg-0123456789abcdef0"],
            },
            "SubnetIds",
        ),
        ({"EndpointKind": "serverless", "KmsKeyArn": KEY}, "KmsKeyArn"),
        ({"EndpointKind": "asynchronous", "DataCapturePercent": 5}, "DataCapturePercent"),
        ({"TrafficShift": "canary", "InstanceCount": 1}, "InstanceCount"),
        ({"TrafficShift": "linear", "InstanceCount": 1}, "InstanceCount"),
        ({"SubnetIds": ["subnet-0123456789abcdef0"]}, "SecurityGroupIds"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "SubnetIds"),
        ({"InstanceCount": 2, "TrafficShift": "canary", "ShiftPercent": 51}, "ShiftPercent"),
        ({"InstanceCount": 2, "TrafficShift": "linear", "ShiftPercent": 9}, "ShiftPercent"),
        ({"ServerlessMemoryMB": 2000}, "ServerlessMemoryMB"),
        ({"ServerlessMaxConcurrency": 0}, "ServerlessMaxConcurrency"),
        ({"LatencyP90Milliseconds": "0.5"}, "LatencyP90Milliseconds"),
        ({"ModelPackageArn": PACKAGE.removesuffix("/7")}, "ModelPackageArn"),
        ({"Project": "churn-"}, "Project"),
        ({"Project": "a" * 33}, "Project"),
        ({"Stage": "Production"}, "Stage"),
        ({"SubnetIds": ["subnet-1", "vpc-0123456789abcdef0"]}, "SubnetIds"),
        ({"KmsKeyArn": "alias/mine"}, "KmsKeyArn"),
        ({"AlarmTopicArn": "alarms"}, "AlarmTopicArn"),
        ({"InstanceType": "m5.large"}, "InstanceType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_combination_that_cannot_work_is_refused_by_name(
    parameters: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        stack(parameters)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("name", ["Project", "Stage"])
def test_the_longest_names_make_a_name_that_sagemaker_accepts(name: str) -> None:
    longest = {"Project": "P" * 32, "Stage": "s" * 30}
    endpoint = stack(longest).properties("Endpoint")["EndpointName"]
    assert len(endpoint) == 63
    with pytest.raises(ApiError):
        stack({**longest, name: longest[name] + "x"})


# What the execution role may do


@pytest.mark.parametrize("kind", KINDS)
def test_the_role_writes_to_s3_below_its_own_stage_only(kind: str) -> None:
    for arn in full(kind).resources_of("s3:PutObject"):
        place = r"churn/((capture|async)/production|batch/production/output)/\*"
        assert re.fullmatch(rf"arn:aws:s3:::{BUCKET}/{place}", arn)


@pytest.mark.parametrize("kind", KINDS)
def test_the_role_reads_models_of_its_project_and_requests_of_its_stage_only(kind: str) -> None:
    requests = [f"arn:aws:s3:::{BUCKET}/churn/async/production/*"]
    assert full(kind).resources_of("s3:GetObject") == [
        f"arn:aws:s3:::{BUCKET}/churn/*/model.tar.gz",
        f"arn:aws:s3:::{BUCKET}/churn/batch/production/input/*",
        *(requests if kind == "asynchronous" else []),
    ]
    listings = [item for item in full(kind).statements() if "s3:ListBucket" in item["Action"]]
    assert [item["Condition"] for item in listings] == [{"StringLike": {"s3:prefix": "churn/*"}}]


@pytest.mark.parametrize("kind", KINDS)
def test_the_role_deletes_administers_and_passes_nothing(kind: str) -> None:
    for statement in full(kind).statements():
        for action in statement["Action"]:
            assert not re.search(r"\*|^(iam|sagemaker|sts):", action), action
            assert not re.search(r":(Delete|Attach|Update)", action) or action in (
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            )


def test_only_calls_without_a_narrower_resource_are_allowed_on_all() -> None:
    open_wide = {
        action
        for kind in KINDS
        for statement in full(kind).statements()
        if "*" in statement["Resource"]
        for action in statement["Action"]
    }
    assert open_wide == {
        "cloudwatch:PutMetricData",
        "ecr:GetAuthorizationToken",
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
    }


def test_metrics_go_to_the_namespaces_of_endpoints_and_transform_jobs() -> None:
    [metrics] = [
        item
        for item in full("real-time").statements()
        if "cloudwatch:PutMetricData" in item["Action"]
    ]
    namespaces = ["/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"]
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": namespaces}}


def test_logs_go_to_the_group_of_this_endpoint_and_the_streams_of_its_project_s_jobs() -> None:
    group, jobs = "Endpoints/churn-production", "TransformJobs"
    found = {
        arn.partition("log-group:/aws/sagemaker/")[2]
        for arn in full("real-time").resources_of("logs:PutLogEvents")
    }
    assert found == {
        *(group, f"{group}:*"),
        *(jobs, f"{jobs}:log-stream:", f"{jobs}:log-stream:churn-batch-*"),
    }


def test_the_role_may_look_at_the_alarms_that_roll_back() -> None:
    made = full("real-time")
    [pattern] = made.resources_of("cloudwatch:DescribeAlarms")
    for alarm in ("ErrorAlarm", "LatencyAlarm"):
        name = made.properties(alarm)["AlarmName"]
        assert re.fullmatch(pattern.replace("*", ".*"), f"{pattern.rpartition(':')[0]}:{name}")


def allowed(made: Stack) -> set[str]:
    """Return the actions that a stack's execution role allows, with their resources."""
    return {
        f"{action} {resource}"
        for statement in made.statements()
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


@pytest.mark.parametrize(
    ("parameter", "what"),
    [
        ("SubnetIds", r"ec2:"),
        ("KmsKeyArn", rf"kms:\w+ {KEY}"),
        ("ArtifactKmsKeyArn", rf"kms:Decrypt {ARTIFACT_KEY}"),
        ("DataCapturePercent", r"s3:PutObject .*/capture/"),
    ],
)
def test_the_role_may_do_only_what_its_endpoint_needs(parameter: str, what: str) -> None:
    without = {name: value for name, value in FULL["real-time"].items() if name != parameter}
    if parameter == "SubnetIds":
        del without["SecurityGroupIds"]
    extra = allowed(full("real-time")) - allowed(stack(without))
    assert extra and all(re.match(what, item) for item in extra)


def test_the_role_of_a_plain_endpoint_may_do_little() -> None:
    actions = {item.partition(" ")[0] for item in allowed(stack(EndpointKind="serverless"))}
    assert actions == {
        "cloudwatch:DescribeAlarms",
        "cloudwatch:PutMetricData",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    }


def test_only_sagemaker_acting_for_this_account_assumes_the_role() -> None:
    document = full("real-time").properties("ExecutionRole")["AssumeRolePolicyDocument"]
    [statement] = (json.loads(document) if isinstance(document, str) else document)["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {
        "ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:*"},
    }


def test_a_role_made_elsewhere_is_used_as_it_is() -> None:
    made = stack(ExecutionRoleArn=ROLE)
    assert "ExecutionRole" not in made.resources
    assert made.properties("Model")["ExecutionRoleArn"] == ROLE


def test_a_role_made_here_takes_the_boundary_of_the_account() -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    assert stack(PermissionsBoundaryArn=boundary).properties("ExecutionRole")[
        "PermissionsBoundary"
    ] == (boundary)
    assert "PermissionsBoundary" not in stack().properties("ExecutionRole")


def test_a_role_created_here_is_under_its_projects_path() -> None:
    made = stack(Project="churn-eu").properties("ExecutionRole")
    assert made["Path"] == "/sm-mlops/churn-eu/production/"
    assert "RoleName" not in made


# Another account


def test_a_version_of_another_account_needs_its_arn_bucket_and_key() -> None:
    foreign = PACKAGE.replace(ACCOUNT, "999999999999")
    made = stack(ModelPackageArn=foreign, ArtifactBucket="theirs", ArtifactKmsKeyArn=ARTIFACT_KEY)
    assert made.properties("Model")["PrimaryContainer"] == {"ModelPackageName": foreign}
    [model, batch] = made.resources_of("s3:GetObject")
    assert model == "arn:aws:s3:::theirs/churn/*/model.tar.gz"
    assert "theirs" not in batch
    assert made.resources_of("kms:Decrypt") == [ARTIFACT_KEY]


def test_what_an_endpoint_writes_can_stay_in_its_own_account() -> None:
    made = stack(ArtifactBucket="theirs", OutputBucket="ours", DataCapturePercent=1)
    capture = made.properties("EndpointConfig")["DataCaptureConfig"]
    assert capture["DestinationS3Uri"] == "s3://ours/churn/capture/production/version-7/"
    assert made.resources_of("s3:PutObject") == [
        "arn:aws:s3:::ours/churn/batch/production/output/*",
        "arn:aws:s3:::ours/churn/capture/production/*",
    ]


# The template as such


def test_tags_are_the_stack_s_alone() -> None:
    for kind in KINDS:
        for logical, properties in full(kind).everything().items():
            assert "Tags" not in properties, logical


def test_every_parameter_is_described() -> None:
    for name, declared in template().parameters.items():
        assert declared["Description"], name


def test_every_parameter_is_bounded() -> None:
    bounds = {"AllowedPattern", "AllowedValues", "MinValue"}
    for name, declared in template().parameters.items():
        assert bounds & set(declared), name


def test_only_what_is_deployed_has_no_default() -> None:
    assert {name for name, p in template().parameters.items() if "Default" not in p} == {
        *("Project", "Stage", "ModelPackageArn", "ArtifactBucket", "OutputBucket")
    }


def test_every_condition_is_used() -> None:
    text = (INFRA / "endpoint.yml").read_text(encoding="utf-8")
    for condition in template().conditions:
        used = rf"(!If(\s+-|\s*\[)|Condition:|!Condition)\s+{condition}\b|!If \[{condition},"
        assert re.search(used, text), condition


# AWS's calls

CALLS = {
    "AWS::SageMaker::Model": ("sagemaker", "CreateModel", {"ModelName": "model-1"}),
    "AWS::SageMaker::EndpointConfig": (
        "sagemaker",
        "CreateEndpointConfig",
        {"EndpointConfigName": "config-1"},
    ),
    "AWS::SageMaker::Endpoint": ("sagemaker", "CreateEndpoint", {}),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm", {}),
    "AWS::ApplicationAutoScaling::ScalableTarget": (
        "application-autoscaling",
        "RegisterScalableTarget",
        {},
    ),
    "AWS::ApplicationAutoScaling::ScalingPolicy": (
        "application-autoscaling",
        "PutScalingPolicy",
        {
            "ServiceNamespace": "sagemaker",
            "ResourceId": "endpoint/churn-production/variant/AllTraffic",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        },
    ),
    "AWS::IAM::Role": ("iam", "CreateRole", {"RoleName": "role-1"}),
}


def complaints(service: str, operation: str, request: dict[str, Any]) -> str:
    """Return what botocore's model of a call says about a request, "" if it fits."""
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    return str(ParamValidator().validate(request, shape).generate_report())


@pytest.mark.slow
@pytest.mark.parametrize("shift", ["canary", "linear", "all-at-once"])
@pytest.mark.parametrize("kind", KINDS)
def test_aws_s_own_calls_take_what_the_template_says(kind: str, shift: str) -> None:
    more: dict[str, Any] = {}
    if kind != "serverless":
        more = {"TrafficShift": shift, "InstanceCount": 2}
    for logical, properties in full(kind, **more).everything().items():
        resource = template().resources[logical]["Type"]
        assert not schemas.violations(resource, properties), logical
        service, operation, names = CALLS[resource]
        request = {**properties, **names}
        request.pop("ScalingTargetId", None)
        if resource == "AWS::IAM::Role":
            request["AssumeRolePolicyDocument"] = json.dumps(request["AssumeRolePolicyDocument"])
            request.pop("Policies")
        if resource == "AWS::SageMaker::Endpoint":
            update = {name: item for name, item in request.items() if name != "Tags"}
            assert not complaints(service, "UpdateEndpoint", update)
            request.pop("RetainAllVariantProperties", None)
        if service == "application-autoscaling" and operation == "PutScalingPolicy":
            assert properties["ScalingTargetId"].startswith(request["ResourceId"])
        assert not complaints(service, operation, request), logical
