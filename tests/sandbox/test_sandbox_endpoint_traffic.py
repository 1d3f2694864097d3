"""Deployments in the sandbox shift traffic step by step, and roll back when an alarm goes off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from endpoint_cases import MODEL, Hosting, hosting, serverless, variant
from sandbox_cases import REGION, until
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.endpoints import Endpoints
from sm_mlops.sandbox.signatures import ACCOUNT
from sm_mlops.sandbox.traffic import steps
from sm_mlops.sandbox.wire import Caller

pytestmark = pytest.mark.slow

PACE = 0.01
FAILING = MODEL.replace('if data == "raise"', "if True")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("traffic"), REGION, pace=PACE) as running:
        yield running


@pytest.fixture(scope="module")
def aws(server: Server) -> Hosting:
    return hosting(server)


def routing(kind: str, wait: int = 100, **sizes: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    traffic = {"Type": kind, "WaitIntervalInSeconds": wait, **sizes}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": traffic}}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def with_alarm(deployment: dict[str, Any], *names: str) -> dict[str, Any]:
    alarms = [{"AlarmName": name} for name in names]
    return deployment | {"AutoRollbackConfiguration": {"Alarms": alarms}}


def alarm(aws: Hosting, name: str, endpoint: str, metric: str, **more: Any) -> str:
    request = {
        "AlarmName": name,
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    wanted = {key: value for key, value in (request | more).items() if value is not None}
    aws.client("cloudwatch").put_metric_alarm(**wanted)
    return name


class Traffic:
    """Asks an endpoint all the time; the models that have answered, None for an error."""

    def __init__(self, aws: Hosting, name: str) -> None:
        self.seen: list[str | None] = []
        self._aws, self._name, self._done = aws, name, threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Traffic:
        self._asking = self._pool.submit(self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._asking.result()
        self._pool.shutdown()

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                self.seen.append(self._aws.ask(self._name)["model"])
            except ClientError as error:
                assert error.response["Error"]["Code"] == "ModelError"
                self.seen.append(None)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold every step of a deployment until this is set, whatever its waiting time is."""
    event = threading.Event()
    monkeypatch.setattr(Endpoints, "_wait", lambda *_: event.wait(300))
    yield event
    event.set()


@pytest.mark.long
def test_a_canary_gets_its_share_before_all_of_the_traffic(
    aws: Hosting, step: threading.Event
) -> None:
    name = aws.deploy(aws.named("old"))
    deployment = routing("CANARY", CanarySize=percent(30))
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=(config := aws.named("new")),
        DeploymentConfig=deployment,
    )
    until(lambda: aws.ask(name)["model"] == "new")
    mixed = [aws.ask(name)["model"] for _ in range(300)]
    # 90 of 300 are expected, and eight standard deviations lie between these bounds and that.
    assert set(mixed) == {"old", "new"} and 26 < mixed.count("new") < 154
    step.set()
    described = aws.settled(name)
    assert {aws.ask(name)["model"] for _ in range(20)} == {"new"}
    assert described["EndpointConfigName"] == config


def test_steps_of_every_kind_of_routing() -> None:
    assert steps({}) == [(1.0, 0.0)]
    assert steps(routing("CANARY", 5, CanarySize=percent(25))) == [(0.25, 5), (1.0, 5)]
    linear = routing("LINEAR", 7, LinearStepSize=percent(50))
    linear["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] = 3
    assert steps(linear) == [(0.5, 7), (1.0, 10)]
    assert len(steps(routing("LINEAR", 1, LinearStepSize=percent(10)))) == 10


def test_errors_of_the_new_fleet_roll_the_deployment_back(aws: Hosting) -> None:
    old = aws.named("old")
    name = aws.deploy(old)
    errors = alarm(aws, f"{name}-errors", name, "Invocation5XXErrors")
    deployment = with_alarm(routing("CANARY", 3600, CanarySize=percent(50)), errors)
    with Traffic(aws, name) as traffic:
        found = aws.update(name, aws.named("bad", FAILING), DeploymentConfig=deployment)
    assert found["EndpointStatus"] == "InService"
    assert found["EndpointConfigName"] == old
    assert errors in found["FailureReason"]
    assert None in traffic.seen
    assert {aws.ask(name)["model"] for _ in range(20)} == {"old"}
    cloudwatch = aws.client("cloudwatch")
    state = cloudwatch.describe_alarms(AlarmNames=[errors])["MetricAlarms"][0]
    assert state["StateValue"] == "ALARM"
    # What was found then does not stop the next deployment, a period of the alarm later.
    time.sleep(60 * PACE)
    deployment = with_alarm(routing("ALL_AT_ONCE", 50), errors)
    found = aws.update(name, aws.named("good"), DeploymentConfig=deployment)
    assert "FailureReason" not in found
    assert aws.ask(name)["model"] == "good"


def test_a_slow_fleet_rolls_the_deployment_back(aws: Hosting) -> None:
    name = aws.deploy(aws.named("quick"))
    latency = alarm(
        aws,
        f"{name}-latency",
        name,
        "ModelLatency",
        ExtendedStatistic="p90",
        Statistic=None,
        Threshold=50_000,
    )
    slow = MODEL.replace("    if data ==", "    time.sleep(0.1)\n    if data ==", 1)
    deployment = with_alarm(routing("ALL_AT_ONCE", 3600), latency)
    with Traffic(aws, name):
        found = aws.update(name, aws.named("slow", slow), DeploymentConfig=deployment)
    assert latency in found["FailureReason"]
    assert aws.ask(name)["model"] == "quick"


def test_missing_traffic_counts_only_where_the_alarm_says_so(aws: Hosting, server: Server) -> None:
    name = aws.deploy(aws.named("old"))
    fewer = {"ComparisonOperator": "LessThanThreshold", "Threshold": 1, "Period": 3600}
    silent = alarm(
        aws, f"{name}-silent", name, "Invocations", TreatMissingData="breaching", **fewer
    )
    ignored = alarm(aws, f"{name}-ignored", name, "Invocations", **fewer)
    caller, metrics, now = Caller(ACCOUNT, REGION, ""), server.metrics, time.time()
    long_ago = now - 3600 * PACE
    assert metrics.alarmed([ignored], caller, long_ago) is None
    assert metrics.alarmed([silent], caller, now + 3600) is None, "time before the deployment"
    assert metrics.alarmed([silent], caller, long_ago) == silent
    aws.ask(name)
    assert metrics.alarmed([silent], caller, long_ago) is None


def test_missing_traffic_rolls_a_deployment_back(aws: Hosting) -> None:
    name = aws.deploy(aws.named("old"))
    silent = alarm(
        aws,
        f"{name}-silent",
        name,
        "Invocations",
        ComparisonOperator="LessThanThreshold",
        Threshold=1,
        TreatMissingData="breaching",
    )
    deployment = with_alarm(routing("ALL_AT_ONCE", 3600), silent)
    found = aws.update(name, aws.named("new"), DeploymentConfig=deployment)
    assert silent in found["FailureReason"]


def test_an_alarm_set_by_hand_rolls_back(aws: Hosting) -> None:
    name = aws.deploy(aws.named("old"))
    own = alarm(aws, f"{name}-own", name, "Invocation4XXErrors")
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=aws.named("new"),
        DeploymentConfig=with_alarm(routing("CANARY", 3600, CanarySize=percent(10)), own),
    )
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        aws.sagemaker.delete_endpoint(EndpointName=name)
    until(lambda: aws.ask(name)["model"] == "new")
    aws.client("cloudwatch").set_alarm_state(
        AlarmName=own, StateValue="ALARM", StateReason="seen by a person"
    )
    found = aws.settled(name)
    assert own in found["FailureReason"]
    assert aws.ask(name)["model"] == "old"


def test_an_alarm_reaches_its_topic(aws: Hosting) -> None:
    sns, sqs = aws.client("sns"), aws.client("sqs")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    name = aws.deploy(aws.named("old"))
    errors = alarm(aws, f"{name}-e", name, "Invocation5XXErrors", AlarmActions=[topic])
    deployment = with_alarm(routing("ALL_AT_ONCE", 3600), errors)
    with Traffic(aws, name):
        aws.update(name, aws.named("bad", FAILING), DeploymentConfig=deployment)
    message = sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"]
    assert errors in message


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (routing("CANARY", CanarySize=percent(60)), "CanarySize must be at most 50 percent"),
        (routing("CANARY"), "CanarySize must be given"),
        (routing("LINEAR", CanarySize=percent(10)), "CanarySize must be given"),
        (routing("LINEAR", LinearStepSize=percent(5)), "LinearStepSize must be at least 10"),
        (
            routing("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}),
            "does not implement CanarySize of type INSTANCE_COUNT",
        ),
        (with_alarm(routing("ALL_AT_ONCE"), "nope"), "Could not find CloudWatch alarm nope"),
    ],
)
def test_impossible_deployments_are_refused(
    aws: Hosting, deployment: dict[str, Any], message: str
) -> None:
    name = aws.deploy(aws.named("old"))
    with pytest.raises(ClientError, match=message):
        aws.update(name, aws.named("new"), DeploymentConfig=deployment)
    assert aws.settled(name)["EndpointStatus"] == "InService"


def test_traffic_shifts_between_variants_of_one_name_only(aws: Hosting) -> None:
    name = aws.deploy(aws.named("old"))
    renamed = aws.config(variant(aws.model(), "Other"))
    with pytest.raises(ClientError, match="must have the same variant names"):
        aws.update(name, renamed, DeploymentConfig=routing("ALL_AT_ONCE"))
    assert aws.update(name, renamed)["ProductionVariants"][0]["VariantName"] == "Other"


def test_rolling_deployments_are_refused_by_name(aws: Hosting) -> None:
    name = aws.deploy(aws.config(serverless(aws.model())))
    config = aws.config(serverless(aws.model()))
    rolling = {"MaximumBatchSize": percent(50), "WaitIntervalInSeconds": 0}
    with pytest.raises(ClientError, match="does not implement sagemaker:UpdateEndpoint with Roll"):
        aws.update(name, config, DeploymentConfig={"RollingUpdatePolicy": rolling})
    found = aws.update(name, config, DeploymentConfig=routing("CANARY", 0, CanarySize=percent(10)))
    assert found["EndpointStatus"] == "InService"


def test_invocations_are_metrics(aws: Hosting) -> None:
    name = aws.deploy(aws.named("measured"))
    for body in ("a", "b", "raise"):
        try:
            aws.ask(name, body)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ModelError"

    def total(metric: str, statistic: str = "Sum") -> float:
        now = datetime.now(UTC)
        points = aws.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[
                {"Name": "EndpointName", "Value": name},
                {"Name": "VariantName", "Value": "AllTraffic"},
            ],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=5),
            Period=3600,
            Statistics=[statistic],
        )["Datapoints"]
        return float(sum(point[statistic] for point in points))

    assert total("Invocations") == 3
    assert total("Invocation5XXErrors") == 1
    assert total("Invocation4XXErrors") == 0
    assert 0 < total("ModelLatency", "Minimum") < 1e6
    assert 0 < total("OverheadLatency", "Maximum") < 1e6
