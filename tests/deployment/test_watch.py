"""What runs by itself for a stage: what is refused, what the second stack holds, and its life."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from rich.console import Console

from deployment_cases import BATCH, Place, place
from function_cases import until
from infra_case import ACCOUNT, BUCKET, KEY, REGION
from platform_case import WATCHED, template, watch
from repos import Repo
from sm_mlops import objects, stacks, testing
from sm_mlops.aws import Aws
from sm_mlops.deployment import batch, destroy, endpoints, smoke, stages, status
from sm_mlops.deployment import watch as work
from sm_mlops.deployment.deploy import rollback_target
from sm_mlops.errors import MlopsError
from sm_mlops.sandbox import clock
from sm_mlops.sandbox.cloudformation import schemas

ROWS = f"s3://{BUCKET}/churn/batch/production/input/customers/"
PREDICTIONS = f"s3://{BUCKET}/churn/batch/production/output/customers/"
NIGHTLY = {"Schedule": "cron(0 5 * * ? *)", "Input": ROWS, "Output": PREDICTIONS}
MONITORED = {"monitoring": {"stages": ["production"]}}
ELSEWHERE = "222233334444"


# What is refused


@pytest.fixture(autouse=True)
def none(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no stack and no pipeline exist outside of the sandbox."""
    if "here" not in request.fixturenames:
        monkeypatch.setattr(stacks, "describe", lambda *_: None)
        monkeypatch.setattr(work, "exists", lambda *_, **__: False)


def required(
    repo: Repo, name: str = "production", account: str = ACCOUNT, keys: Sequence[str] = ()
) -> str:
    """Check a stage that is in this account, as `mlops deploy` does before it changes anything;
    return what is said. `keys` are in its bucket."""
    settings, said = repo.settings(), Console(file=io.StringIO(), width=300)
    aws: Any = SimpleNamespace(settings=settings, account=ACCOUNT, bucket=BUCKET, command="mlops")
    aws.sagemaker = SimpleNamespace(describe_pipeline=None)
    aws.now = lambda: datetime(2028, 2, 1, tzinfo=UTC)

    def listed(Prefix: str, **_: object) -> dict[str, Any]:
        return {"Contents": [{"Key": key} for key in keys if key.startswith(Prefix)][:2]}

    there: Any = SimpleNamespace(account=account, s3=SimpleNamespace(list_objects_v2=listed))
    work.require(aws, there, stages.load(settings, name), said)
    return said.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sections", "keys", "account", "said"),
    [
        (MONITORED, {"EndpointKind": "serverless"}, ACCOUNT, "serverless endpoint captures no"),
        (MONITORED, {"EndpointKind": "batch"}, ACCOUNT, "a stage that is batch only has none: set"),
        (MONITORED, {}, ELSEWHERE, f"in account {ELSEWHERE} cannot start what is in account 123"),
        (MONITORED, {"DataCapturePercent": 0}, ACCOUNT, "DataCapturePercent is 0, but mlops.yaml"),
        (
            {"retraining": {"schedule": "rate(7 days)"}},
            *({}, ELSEWHERE, r"retraining\.schedule follows production, but its schedule"),
        ),
        (
            MONITORED | {"retraining": {"on_drift": True}, "monitoring": {"stages": ["staging"]}},
            *({}, ACCOUNT, "on_drift follows production, which monitoring.stages does not have"),
        ),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_with_the_reason(
    repo: Repo, sections: dict[str, Any], keys: dict[str, Any], account: str, said: str
) -> None:
    repo.configure(**sections)
    repo.stage("production", Parameters=keys)
    with pytest.raises(MlopsError, match=said) as refused:
        required(repo, account=account)
    assert "\n" not in str(refused.value)
    if account == ACCOUNT:  # what the files show, the repo's own tests show
        assert testing.stage_problems(repo.root, "production") == [str(refused.value)]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"Schedule": "daily"}, r"Batch\.Schedule must be like rate"),
        ({"Schedule": "cron(0  6 * *\n? *)"}, r"Batch\.Schedule .*, not 'cron\(0  6 \* \*\\n\? "),
        (
            {"Schedule": "cron(0 6 31 2 ? *)"},
            r"Batch\.Schedule must have a day that comes, not 'cr",
        ),
        ({"Schedule": "cron(0 6 1 1 ? 2025)"}, r"Batch\.Schedule must have a day that comes, not"),
        ({"Schedule": "rate(99999999999 days)"}, r"Batch\.Schedule must be at least once a year"),
        ({"Schedule": None}, r"Batch\.Schedule must be text"),
        ({"When": "x"}, r"Batch\.When is unknown"),
        ({"Input": "rows/"}, r"Batch\.Input must be like s3://bucket/folder/"),
        (
            {"Input": "s3://b/rows/"},
            r"Batch\.Input must be like .*, a bucket of 3 to 63 characters",
        ),
        ({"Input": ROWS + 'x"'}, r"Batch\.Input must be like s3://"),
        ({"Output": PREDICTIONS.rstrip("/")}, r"Batch\.Output must be a folder, with / at its end"),
        ({"Output": ROWS + "out/"}, r"Batch\.Output is below Batch\.Input"),
        ({"Input": "s3://lake/rows/"}, r"Batch\.Input must be in a folder of s3://sm-mlops-"),
        ({"Input": ROWS.partition("customers")[0]}, r"Batch\.Input must be in a folder of s3://"),
        ({"Output": "s3://lake/out/"}, r"Batch\.Output must be in a folder of s3://sm-mlops-"),
    ],
)
def test_a_batch_that_could_not_run_is_refused(repo: Repo, edit: Any, said: str) -> None:
    repo.stage("production", Parameters={}, Batch=NIGHTLY | edit)
    with pytest.raises(MlopsError, match=rf"infra/production\.json: {said}") as refused:
        required(repo)
    assert "\n" not in str(refused.value)


def test_a_batch_reads_a_folder_or_one_object_and_nothing_whose_name_begins_alike(
    repo: Repo,
) -> None:
    rows = ROWS.rstrip("/")
    key = rows.partition(f"{BUCKET}/")[2]
    repo.stage("production", Parameters={}, Batch=NIGHTLY | {"Input": rows})
    for keys in ([], [key], [f"{key.rpartition('/')[0]}/other"]):
        required(repo, keys=keys)
    for keys in ([f"{key}/a.jsonl"], [key, f"{key}-rejected/b.jsonl"]):
        with pytest.raises(MlopsError, match=rf"production\.json: .* would read {keys[-1]}, too"):
            required(repo, keys=keys)
    repo.stage("production", Parameters={}, Batch=NIGHTLY)
    required(repo, keys=[f"{key}/a.jsonl", f"{key}-rejected/b.jsonl"])


def test_a_schedule_whose_last_day_has_passed_is_not_created(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = "cron(0 6 31 1 ? 2027-2028)"
    repo.configure(monitoring={"stages": ["production"]}, retraining={"schedule": ended})
    with pytest.raises(MlopsError) as refused:
        required(repo)
    assert str(refused.value) == (
        f"mlops.yaml: retraining.schedule must have a day that comes, not '{ended}'"
    )
    # One that has been there does not keep the next version away.
    there = SimpleNamespace(parameters={"RetrainExpression": ended})
    monkeypatch.setattr(stacks, "describe", lambda *_: there)
    required(repo)
    monkeypatch.undo()
    repo.configure(retraining={"schedule": None})
    repo.stage("production", Parameters={}, Batch=NIGHTLY | {"Schedule": ended})
    monkeypatch.setattr(stacks, "describe", lambda *_: None)
    with pytest.raises(MlopsError, match=r"production\.json: Batch\.Schedule must have a day"):
        required(repo)


def test_a_role_of_its_own_reads_and_writes_where_it_may(repo: Repo) -> None:
    repo.stage("production", Parameters={}, Batch=NIGHTLY)
    required(repo)
    role = {"ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/batches"}
    lake = NIGHTLY | {"Input": "s3://lake/in/", "Output": "s3://lake/out/"}
    repo.stage("production", Parameters=role, Batch=lake)
    required(repo)


@pytest.mark.parametrize("name", ["watch", "eu-watch"])
def test_the_name_of_a_second_stack_is_not_a_stage_s(repo: Repo, name: str) -> None:
    repo.stage(name, Parameters={})
    with pytest.raises(MlopsError, match="names that end with watch are taken: rename the stage"):
        stages.load(repo.settings(), name)


def test_a_schedule_s_name_must_fit(repo: Repo) -> None:
    name = "x" * 30
    identity = repo.root / "pyproject.toml"
    text = identity.read_text().replace('project = "churn"', f'project = "churn-{"p" * 22}"')
    identity.write_text(text)
    repo.stage(name, Parameters={})
    repo.configure(monitoring={"stages": [name]})
    with pytest.raises(MlopsError, match="a name has at most 64 characters: shorten the stage's"):
        required(repo, name)


@pytest.mark.parametrize(
    ("keys", "captured"),
    [
        ({"EndpointKind": "real-time"}, {"DataCapturePercent": "40"}),
        ({"EndpointKind": "asynchronous"}, {}),
    ],
)
def test_a_monitored_stage_captures_what_mlops_yaml_says(
    repo: Repo, keys: dict[str, Any], captured: dict[str, str]
) -> None:
    repo.configure(monitoring={"stages": ["production"], "capture": 40})
    repo.stage("production", Parameters=keys)
    settings = repo.settings()
    stage = stages.load(settings, "production")
    more = work.capture(settings, stage)
    assert more == captured
    own = dataclasses.replace(stage, parameters={**stage.parameters, "DataCapturePercent": "5"})
    given = stages.stack_parameters(settings, own, BUCKET, "arn", **more)
    assert given["DataCapturePercent"] == "5", "the stage's file has the last word"


def test_a_project_that_is_older_than_the_tool_deploys_what_it_did(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any) -> None:
        error: Any = {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}
        raise ClientError(error, "DescribeStacks")

    monkeypatch.setattr(stacks, "describe", denied)

    settings = repo.settings()
    aws: Any = SimpleNamespace(settings=settings, command="mlops")
    stage = stages.load(settings, "production")
    assert work.deploy(aws, aws, stage, {}, Console(quiet=True)) == work.NOTHING
    required(repo)
    repo.configure(**MONITORED)
    with pytest.raises(MlopsError, match="older than this tool; update it with mlops bootstrap"):
        required(repo)


def test_a_pipeline_of_the_checks_that_is_not_there_yet_is_named(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert required(repo) == ""
    repo.configure(**MONITORED)
    repo.stage("production", Parameters={})
    assert required(repo).startswith("pipeline churn-monitor is missing: a push to main or mlops")
    monkeypatch.setattr(work, "exists", lambda *_, **__: True)
    assert required(repo) == ""


@pytest.mark.parametrize(
    ("name", "rings"), [("sm-mlops-notifications", False), ("ours", True), ("", False)]
)
def test_the_platform_s_topic_gets_one_message_about_drift(
    repo: Repo, name: str, rings: bool
) -> None:
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}" if name else ""
    repo.stage("production", Parameters={"AlarmTopicArn": topic} if topic else {})
    settings = repo.settings()
    aws: Any = SimpleNamespace(
        settings=settings,
        bucket=BUCKET,
        arn=lambda service, rest: f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}",
    )
    given = work._parameters(aws, aws, stages.load(settings, "production"))
    assert given["AlarmTopicArn"] == (topic if rings else "")


# What the stack holds


MONITOR = {"MonitorExpression": "rate(1 day)"}
RETRAIN = {"RetrainExpression": "rate(7 days)"}
PREDICT = {name: WATCHED[name] for name in WATCHED if name.startswith(("Batch", "Model"))}


@pytest.mark.parametrize(
    ("given", "held", "may"),
    [
        (MONITOR, {"DriftAlarm", "MonitorSchedule"}, {"sagemaker:StartPipelineExecution"}),
        (RETRAIN, {"RetrainSchedule"}, {"lambda:InvokeFunction"}),
        (PREDICT, {"BatchSchedule"}, {"sagemaker:AddTags", "sagemaker:CreateTransformJob"}),
    ],
)
def test_it_holds_what_is_wanted_and_its_role_may_just_that(
    given: dict[str, str], held: set[str], may: set[str]
) -> None:
    made = watch(**given)
    assert made.resources == held | {"ExecutionRole"}
    [policy] = made.policies("ExecutionRole")
    assert {statement["Action"] for statement in policy["Statement"]} == may
    assert "*" not in {statement["Resource"] for statement in policy["Statement"]}


def test_its_properties_fit_aws_s_schemas_with_everything_on() -> None:
    made = watch("p" * 32, "production", **WATCHED)
    for logical in made.resources:
        assert not list(schemas.violations(made.kind(logical), made.properties(logical))), logical
    assert made.resources == set(template("watch").resources)


@pytest.mark.parametrize(
    ("logical", "operation", "most"),
    [
        ("MonitorSchedule", "StartPipelineExecution", {"ClientRequestToken": (32, 128)}),
        ("BatchSchedule", "CreateTransformJob", {"TransformJobName": (1, 63)}),
    ],
)
def test_sagemaker_takes_what_a_schedule_sends(
    logical: str, operation: str, most: dict[str, tuple[int, int]]
) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    for name, stage in (("a", "b"), ("p" * 32, "production")):
        target = watch(name, stage, **WATCHED).properties(logical)["Target"]
        assert target["Arn"].rpartition(":")[2] == operation[0].lower() + operation[1:]
        text = target["Input"].replace("<aws.scheduler.scheduled-time>", "2026-11-28T06:00:00Z")
        given = json.loads(text.replace("<aws.scheduler.execution-id>", "d32c5kddcf5bb8c3"))
        assert not ParamValidator().validate(given, shape).generate_report()
        for member, (least, longest) in most.items():
            assert least <= len(given[member]) <= longest


def test_a_batch_keeps_its_rows_and_goes_into_a_folder_of_its_time() -> None:
    given = json.loads(watch(**WATCHED).properties("BatchSchedule")["Target"]["Input"])
    assert given["DataProcessing"] == {"JoinSource": "Input"}
    output = given["TransformOutput"]
    assert output["S3OutputPath"] == f"{WATCHED['BatchOutput']}<aws.scheduler.scheduled-time>/"
    assert (output["KmsKeyId"], given["TransformResources"]["VolumeKmsKeyId"]) == (KEY, KEY)
    tags = {tag["Key"] for tag in given["Tags"]}
    assert tags == {"project", "owner", "stage", "model-version"}
    plain = WATCHED | {"BatchKmsKeyArn": "", "BatchVolumeKmsKeyArn": ""}
    given = json.loads(watch(**plain).properties("BatchSchedule")["Target"]["Input"])
    assert "KmsKeyId" not in given["TransformOutput"]
    assert "VolumeKmsKeyId" not in given["TransformResources"]


def test_a_retraining_says_which_stack_asks_for_it() -> None:
    target = watch(**WATCHED).properties("RetrainSchedule")["Target"]
    assert json.loads(target["Input"]) == {
        "Retrain": {
            "Project": "churn",
            "Stage": "production",
            "Scheduled": "<aws.scheduler.scheduled-time>",
            "Stack": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/churn-production-watch/1",
        }
    }


def test_the_alarm_tells_the_trigger_what_to_do() -> None:
    made = watch(**WATCHED, RetrainOnDrift="true", CoolDownDays="3").properties("DriftAlarm")
    assert made["AlarmName"] == "churn-production-drift"
    assert {tag["Key"]: tag["Value"] for tag in made["Tags"]} == {
        **{"project": "churn", "stage": "production"},
        **{"retrain-on-drift": "true", "cool-down-days": "3"},
    }


# In the sandbox


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("watch")) as found:
        yield found


def schedules(here: Place) -> dict[str, str]:
    found = here.aws.client("scheduler").list_schedules()["Schedules"]
    get = here.aws.client("scheduler").get_schedule
    return {one["Name"]: get(Name=one["Name"])["ScheduleExpression"] for one in found}


def fired(here: Place, seconds: float, rows: bytes) -> list[Any]:
    """Return what the schedule of stage bulk makes of rows as the clock moves on."""
    bucket, folder = here.aws.bucket, "churn/batch/bulk"
    here.aws.s3.put_object(Bucket=bucket, Key=f"{folder}/input/all/rows.jsonl", Body=rows)
    [(name, moment)] = here.server.integrations.advance(clock.now() + seconds)["fired"]
    assert name == "churn-bulk-batch"
    until(lambda: not here.server.integrations.working())
    uri = f"s3://{bucket}/{folder}/output/all/{clock.text(moment)}/rows.jsonl.out"
    [job] = here.aws.sagemaker.list_transform_jobs(MaxResults=1)["TransformJobSummaries"]
    assert job["TransformJobStatus"] == "Completed", job
    return [json.loads(line) for line in objects.read(here.aws, uri).splitlines()]


@pytest.mark.slow
def test_the_second_stack_comes_changes_stays_and_goes_with_what_is_wanted(here: Place) -> None:
    arn, settings = here.register(BATCH), (here.repo.root / "mlops.yaml").read_text()
    stage = here.stage("production", EndpointKind="real-time", BakeSeconds=0)

    def deploy(**sections: Any) -> tuple[bool, set[str], str]:
        """Deploy the same version with these sections; return what changed, and what was shown."""
        (here.repo.root / "mlops.yaml").write_text(settings)
        here.aws = Aws(here.repo.configure(**sections), sandbox=True)
        before = len(here.shown)
        done = here.deploy(stages.load(here.aws.settings, "production"), arn)
        shown = re.sub("pipeline churn-monitor is missing: .*\n", "", here.shown[before:])
        return done.changed, {one.resource for one in done.changes}, shown

    try:
        changed, resources, _ = deploy()
        assert changed and "DriftAlarm" not in resources
        assert stacks.describe(here.aws, "churn-production-watch") is None
        hourly = {"stages": ["production"], "schedule": "rate(1 hour)", "capture": 30}
        changed, resources, _ = deploy(monitoring=hourly)
        assert resources >= {"DriftAlarm", "MonitorSchedule", "EndpointConfig"}
        assert schedules(here) == {"churn-production-monitor": "rate(1 hour)"}
        config = endpoints.describe(here.aws, stage.stack).config  # type: ignore[union-attr]
        found = here.aws.sagemaker.describe_endpoint_config(EndpointConfigName=config)
        assert found["DataCaptureConfig"]["InitialSamplingPercentage"] == 30
        assert deploy(monitoring=hourly) == (False, set(), "")
        both = {"monitoring": hourly, "retraining": {"schedule": "rate(7 days)"}}
        assert deploy(**both)[:2] == (True, {"ExecutionRole", "RetrainSchedule"})
        assert deploy(**both) == (False, set(), "")
        assert set(schedules(here)) == {"churn-production-monitor", "churn-production-retrain"}
        _, resources, _ = deploy(retraining=both["retraining"])
        assert resources >= {"DriftAlarm", "MonitorSchedule"}
        assert set(schedules(here)) == {"churn-production-retrain"}
        assert {"ExecutionRole", "RetrainSchedule"} <= deploy()[1]
        assert (schedules(here), deploy()) == ({}, (False, set(), ""))
        deploy(**both)
        doomed = destroy.look(here.aws, stage)
        assert {"DriftAlarm", "Endpoint"} <= {one.name for one in doomed.resources}
        assert destroy.destroy(doomed, here.console) == [] and schedules(here) == {}
    finally:
        (here.repo.root / "mlops.yaml").write_text(settings)
        here.aws = Aws(here.repo.settings(), sandbox=True)


@pytest.mark.long
@pytest.mark.slow
def test_a_stage_that_is_batch_only_predicts_without_an_endpoint(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (here.register(BATCH, offset=offset) for offset in (10, 20))
    folder = f"s3://{here.aws.bucket}/churn/batch/bulk"
    nightly = {"Input": f"{folder}/input/all/", "Output": f"{folder}/output/all/"}
    here.repo.stage("bulk", Parameters={"EndpointKind": "batch"}, Batch=NIGHTLY | nightly)
    stage = stages.load(here.aws.settings, "bulk")
    planned = here.deploy(stage, one, execute=False)
    assert {change.resource for change in planned.changes} >= {"Model", "BatchSchedule"}
    assert here.deploy(stage, one).kind == "batch"
    assert not here.deploy(stage, one).changed
    # Its schedule follows the model.
    assert here.deploy(stage, two).changed
    get = here.aws.client("scheduler").get_schedule
    sent = json.loads(get(Name="churn-bulk-batch")["Target"]["Input"])
    running = endpoints.running(here.aws, stage.stack)
    assert running is not None and sent["ModelName"] == running.model
    assert here.aws.sagemaker.list_endpoints(NameContains="churn-bulk")["Endpoints"] == []
    [row] = [row for row in status.status(here.aws).stages if row.stage == "bulk"]
    assert (row.state, row.kind, row.note) == (
        *("batch only", "batch"),
        "no endpoint, newest approved",
    )
    checks = smoke.smoke(here.aws, stage, two)
    assert smoke.passed(checks), checks
    assert not smoke.passed(smoke.smoke(here.aws, stage, one))
    refused = here.command("invoke", "bulk")
    assert refused.returncode == 2 and "mlops predict INPUT OUTPUT --stage bulk" in refused.stderr
    source = tmp_path / "rows.csv"
    source.write_text("id,a,b\n007,1,2\n")
    # What the schedule has written stays, however old it is.
    key = "churn/batch/bulk/output/all/2026-01-01T05:00:00Z/rows.jsonl.out"
    here.aws.s3.put_object(Bucket=here.aws.bucket, Key=key, Body=b"{}\n")
    monkeypatch.setattr(batch, "LEFT", timedelta(days=-1))
    done = batch.predict(here.aws, stage, str(source), str(tmp_path / "out.csv"), here.console)
    with (tmp_path / "out.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"id": "007", "a": "1", "b": "2", "prediction": "23"}]
    assert (done.rows, done.errors) == (1, 0)
    assert objects.exists(here.aws, f"s3://{here.aws.bucket}/{key}")
    back = rollback_target(here.aws, stage, None)
    here.deploy(stage, back.arn, back=back)
    assert endpoints.running(here.aws, stage.stack).package == one  # type: ignore[union-attr]
    scheduled = fired(
        here, 86_400, b'{"id": "007", "a": 1, "b": 2}\n{"id": "8", "a": "x", "b": 1}\n'
    )
    assert scheduled == [
        {"id": "007", "a": 1, "b": 2, "SageMakerOutput": {"prediction": 13.0}},
        {
            **{"id": "8", "a": "x", "b": 1},
            "SageMakerOutput": {"error": "column 'a', row 2: no number", "column": "a", "row": 2},
        },
    ]
    (here.repo.root / "infra" / "bulk.json").unlink()
    [forgotten] = destroy.chosen(here.aws, "bulk")
    assert destroy.destroy(destroy.look(here.aws, forgotten), here.console) == []
    assert stacks.describe(here.aws, "churn-bulk-watch") is None
