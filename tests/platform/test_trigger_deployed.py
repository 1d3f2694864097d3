"""The trigger as the platform deploys it: with its role, its rule and its layer, in the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connected_case import COMMIT, NAME, OWNER, REGION, Connected, app_layer, connect
from function_cases import until
from github_people import add_app, install
from repos import Repo, make_repo
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.sandbox import Server, clock
from trigger_case import Aws

RETRAIN = f"arn:aws:lambda:{REGION}:123456789012:function:sm-mlops-retrain"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    """Yield an account whose function has the layer for GitHub Apps."""
    before = dict(os.environ)
    repo: Repo = make_repo(tmp_path_factory.mktemp("repo") / "churn")
    with Server(tmp_path_factory.mktemp("account"), REGION) as server:
        apply(server.environment())
        try:
            yield connect(server, repo, app_layer())
        finally:
            os.environ.clear()
            os.environ.update(before)


def approve(account: Connected, arn: str) -> None:
    account.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")


@pytest.mark.slow
def test_an_approval_signs_in_as_a_github_app_and_starts_the_workflow(account: Connected) -> None:
    accounts = account.server.github.accounts
    app = add_app(accounts, OWNER, "trigger", actions="write")
    installation = install(accounts, app["id"], OWNER, [NAME])
    account.credential(
        app_id=app["id"], installation_id=installation, private_key=app["private_key"]
    )
    before = len(account.runs())
    arn = account.register()
    approve(account, arn)
    until(lambda: len(account.runs()) > before)
    assert account.runs()[0]["inputs"] == {"model-package-arn": arn, "commit": COMMIT}
    told = until(lambda: account.log() if f'"modelPackageArn": "{arn}"' in account.log() else "")
    assert "cffi, cryptography" in told, "the layer's libraries are of another machine"
    assert "PRIVATE KEY" not in told and "ghs_" not in told


@pytest.mark.slow
def test_with_a_token_nothing_of_the_layer_is_loaded(account: Connected) -> None:
    from sm_mlops import platform as package
    from sm_mlops.bootstrap import assets

    account.token()
    functions = account.aws.client("lambda")
    # As it is deployed, with a last line that tells what it has loaded.
    folder = package.FOLDER / "trigger"
    files = {file.name: file.read_bytes() for file in folder.glob("*.py")}
    files["watched.py"] = (
        b"import sys\nfrom handler import handler as own\n"
        b"def handler(event, context):\n    own(event, context)\n    return sorted(sys.modules)\n"
    )
    name = "sm-mlops-trigger"
    before = functions.get_function(FunctionName=name)["Configuration"]
    functions.update_function_code(FunctionName=name, ZipFile=assets.archive(files))
    functions.update_function_configuration(FunctionName=name, Handler="watched.handler")
    events = account.aws.client("events")
    # The registration is an approval as well, which the rule would pass on.
    events.disable_rule(Name="sm-mlops-approved")
    try:
        runs = len(account.runs())
        arn = account.register("Approved")
        payload = json.dumps({"detail": {"ModelPackageArn": arn, "Replay": True}})
        answer = functions.invoke(FunctionName=name, Payload=payload)["Payload"].read().decode()
        assert len(account.runs()) == runs + 1
        assert '"handler"' in answer
        for module in ("app", "jwt", "cryptography", "boto3"):
            assert f'"{module}"' not in answer
    finally:
        events.enable_rule(Name="sm-mlops-approved")
        made = assets.build()
        functions.update_function_code(FunctionName=name, ZipFile=made.files["trigger.zip"])
        functions.update_function_configuration(FunctionName=name, Handler=before["Handler"])


def reasons(account: Connected) -> list[str]:
    """Return the reasons of the trainings that GitHub has started, the newest first."""
    return [run["inputs"]["reason"] for run in account.runs() if "reason" in run["inputs"]]


def role_of_schedules(account: Connected) -> str:
    """Return a role that may call the function of schedules and nothing else."""
    iam, name = account.aws.client("iam"), "churn-schedules"
    principal = {"Service": "scheduler.amazonaws.com"}
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
    call = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": RETRAIN}
    iam.put_role_policy(RoleName=name, PolicyName="call", PolicyDocument=policy(call))
    return str(made["Role"]["Arn"])


def keep_result(account: Connected, end: datetime, status: str) -> None:
    """Keep the result of a check of a day in production, as the monitoring job does."""
    memory = Aws()
    memory.check(end.replace(minute=0, second=0, microsecond=0), status)
    [(key, body)] = memory.objects.items()
    account.aws.client("s3").put_object(Bucket=account.aws.bucket, Key=key, Body=body)


def policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.slow
def test_drift_and_a_schedule_each_start_one_training_and_people_are_told(
    account: Connected,
) -> None:
    account.token()
    account.register("Approved")
    number = account.register().rpartition("/")[2]
    alarms, alarm = account.aws.client("cloudwatch"), "churn-production-drift"
    tags = {"project": "churn", "stage": "production", "retrain-on-drift": "true"}
    alarms.put_metric_alarm(
        AlarmName=alarm,
        Namespace="sm-mlops",
        MetricName="Violations",
        Statistic="Maximum",
        Period=3600,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="ignore",
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )

    def ring(state: str) -> None:
        alarms.set_alarm_state(AlarmName=alarm, StateValue=state, StateReason="a drill")

    # Late labels have added a violation to a window before the newest.
    for days, status in ((1, "violation"), (0, "ok")):
        keep_result(account, datetime.fromtimestamp(clock.now(), UTC) - timedelta(days), status)
    ring("ALARM")
    [reason] = until(lambda: reasons(account))
    assert reason == "drift: violation"
    ring("OK")
    ring("ALARM")
    until(lambda: "which is less than 7 days ago" in account.log())
    assert len(reasons(account)) == 1

    given = {"Project": "churn", "Stage": "production", "Stack": "arn:aws:cloudformation:1"}
    given["Scheduled"] = "<aws.scheduler.scheduled-time>"
    account.aws.client("scheduler").create_schedule(
        Name="churn-production-retrain",
        ScheduleExpression="rate(1 day)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": RETRAIN,
            "RoleArn": role_of_schedules(account),
            "Input": json.dumps({"Retrain": given}),
        },
    )
    account.server.integrations.advance(clock.now() + 25 * 3600)
    until(lambda: len(reasons(account)) == 2)
    assert reasons(account)[0].startswith("schedule of production, 20")

    def subjects() -> set[str]:
        rows = account.server.integrations.topics.messages()
        own = [row for row in rows if row["TopicArn"].endswith(":sm-mlops-notifications")]
        return {row["Subject"] for row in own}

    wanted = {"churn: drift in production", f"churn: version {number} waits for approval"}
    until(lambda: wanted <= subjects())
