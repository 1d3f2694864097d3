"""Deployments to the sandbox: what is refused, what is verified, what remains after a failure."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from deployment_cases import BROKEN, COMMIT, Place, archive, place
from function_cases import until
from repos import Repo, bare_environment, mlops
from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.cli import console
from sm_mlops.cli import deploy as cli_deploy
from sm_mlops.cli.deploy import _carry_out
from sm_mlops.cli.main import app
from sm_mlops.deployment import deploy, destroy, endpoints, smoke, stages, status, watch
from sm_mlops.deployment.deploy import DeploymentFailed, read_trail, rollback_target
from sm_mlops.errors import MlopsError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("deploy")) as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def first(here: Place) -> str:
    """Register version 1, whichever test is first."""
    return here.register()


def approval(here: Place, arn: str, status: str) -> None:
    here.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)


def running(here: Place, stack: str) -> int | None:
    found = endpoints.describe(here.aws, stack)
    return found.version if found else None


def scaled(here: Place, endpoint: str) -> bool:
    answer = here.aws.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{endpoint}/variant/AllTraffic"]
    )
    return bool(answer["ScalableTargets"])


def test_a_deployment_ends_with_an_endpoint_in_service_that_answers(
    here: Place, first: str
) -> None:
    stage = here.stage("good")
    done = here.deploy(stage, first)
    assert (done.changed, done.endpoint, done.version) == (True, "churn-good", 1)
    checks = smoke.smoke(here.aws, stage, first)
    assert smoke.passed(checks), checks
    assert {"in service", "text/csv", "latency", "refuses a truncated body"} <= {
        check.name for check in checks
    }
    tags = stacks.describe(here.aws, "churn-good").tags  # type: ignore[union-attr]
    assert tags["commit"] == COMMIT
    assert (tags["project"], tags["stage"], tags["model-version"]) == ("churn", "good", "1")


# As 0.1.0 wrote and registered them.
SAMPLE_0_1_0 = {
    "rows.csv": b'"a","b"\n1,2\n0.5,-1\n',
    "rows.jsonl": b'{"a": 1.0, "b": 2.0}\n{"a": 0.5, "b": -1.0}\n',
    "rows.json": b'{"instances": [{"a": 1.0, "b": 2.0}, {"a": 0.5, "b": -1.0}]}\n',
    "expected.json": b"""{
 "predictions": [
  {
   "prediction": 3.0
  },
  {
   "prediction": -0.5
  }
 ]
}
""",
}
METADATA_0_1_0: dict[str, Any] = {
    "MetadataProperties": {
        "CommitId": COMMIT,
        "Repository": "https://github.com/acme/churn",
        "ProjectId": "churn",
        "GeneratedBy": "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/churn/execution/abc123",
    },
    "CustomerMetadataProperties": {
        "CI": "github-actions",
        "DataHash": "0" * 64,
        "Evaluation": "auc 0.9951",
        "Champion": "none",
        "Versions": "xgboost 3.2.0",
    },
    "Domain": "MACHINE_LEARNING",
    "Task": "OTHER",
}


def test_a_version_that_0_1_0_registered_is_deployed_and_tested_by_this_tool(here: Place) -> None:
    """Its code, sample and schema are the artifact's; nothing of its commit is needed."""
    arn = here.register(sample=SAMPLE_0_1_0, **METADATA_0_1_0)
    stage = here.stage("older")
    assert here.deploy(stage, arn).commit == COMMIT
    checks = smoke.smoke(here.aws, stage, arn)
    assert smoke.passed(checks), checks
    assert all(check.passed for check in checks)
    assert smoke.load_sample(here.aws, arn).first == {"a": 1.0, "b": 2.0}


def test_repeating_it_changes_nothing_and_succeeds(here: Place, first: str) -> None:
    stage = here.stage("same")
    here.deploy(stage, first)
    config = endpoints.describe(here.aws, stage.stack).config  # type: ignore[union-attr]
    again = here.deploy(stage, first)
    assert (again.changed, again.changes) == (False, ())
    assert endpoints.describe(here.aws, stage.stack).config == config  # type: ignore[union-attr]


def test_a_dry_run_shows_the_changes_and_makes_none(here: Place, first: str) -> None:
    done = here.deploy(here.stage("planned"), first, execute=False)
    assert done.planned
    assert {change.resource for change in done.changes} >= {"Model", "Endpoint"}
    # CloudFormation deletes the empty stack by itself, after its answer.
    until(lambda: stacks.describe(here.aws, "churn-planned") is None)


@pytest.mark.parametrize("status", ["PendingManualApproval", "Rejected"])
def test_a_version_that_is_not_approved_is_refused(here: Place, status: str) -> None:
    arn = here.register(approval=status)
    with pytest.raises(MlopsError, match=rf"is {status}, not Approved: mlops --sandbox approve"):
        here.deploy(here.stage("refused"), arn)
    assert stacks.describe(here.aws, "churn-refused") is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("/churn/1", "/others/1", "/others/1 is not a version of this project"),
        ("/churn/1", "/churn/999", "churn has no version 999"),
        ("123456789012", "210987654321", "is not a version of this project in this account"),
        ("eu-west-1", "us-east-1", "in this account and region, arn:aws:sagemaker:eu-west-1:123"),
        ("model-package/churn/1", "model/x", "model/x is not a version of this project"),
    ],
)
def test_a_version_from_elsewhere_is_refused(
    here: Place, first: str, old: str, new: str, said: str
) -> None:
    with pytest.raises(MlopsError) as refused:
        here.deploy(here.stage("refused"), first.replace(old, new))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert stacks.describe(here.aws, "churn-refused") is None


def test_an_artifact_that_was_exchanged_after_the_approval_is_refused(here: Place) -> None:
    versioned = {"Status": "Enabled"}  # as platform.yml has it
    here.aws.s3.put_bucket_versioning(Bucket=here.aws.bucket, VersioningConfiguration=versioned)
    arn = here.register()
    described = here.aws.sagemaker.describe_model_package(ModelPackageName=arn)
    url = described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    bucket, _, key = url.removeprefix("s3://").partition("/")
    here.aws.s3.put_object(Bucket=bucket, Key=key, Body=archive({"code/inference.py": b"evil"}))
    with pytest.raises(MlopsError, match=r"has been written again since its training"):
        here.deploy(here.stage("exchanged"), arn)
    assert stacks.describe(here.aws, "churn-exchanged") is None


def test_what_is_unusual_about_a_version_for_production_is_named(here: Place, first: str) -> None:
    staging, production = here.stage("staging"), here.stage("production")
    edited = here.register(MetadataProperties={"CommitId": f"{COMMIT}-dirty"})
    version = deploy.approved(here.aws, edited)
    uncommitted = "was trained with uncommitted changes: no commit has its code"
    for name in stages.names(here.aws.settings):  # of other tests
        if name not in ("staging", "production"):
            (here.repo.root / "infra" / f"{name}.json").unlink()
    assert deploy.unusual(here.aws, production, version) == [
        uncommitted,
        "has never run in staging",
    ]
    here.deploy(staging, edited)
    here.deploy(staging, first)
    assert deploy.unusual(here.aws, production, version) == [uncommitted]
    assert deploy.unusual(here.aws, production, deploy.approved(here.aws, first)) == []


def test_a_person_is_asked_before_production_changes(here: Place, first: str) -> None:
    here.stage("production")
    command = ["-m", "sm_mlops", "deploy", "production", "--model-package-arn", first]
    person, terminal = pty.openpty()
    os.write(person, b"n\n")
    asked = subprocess.run(
        [sys.executable, *command],
        cwd=here.repo.root,
        env=bare_environment(here.repo.root) | here.signed_in(),
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(person)
    os.close(terminal)
    assert asked.returncode == 2
    assert "Deploy version 1 to production? [y/N]" in asked.stderr
    assert asked.stderr.endswith("mlops: nothing was changed\n")
    assert stacks.describe(here.aws, "churn-production") is None


def test_a_job_of_github_is_not_asked_even_at_a_terminal(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out, aws = [], Aws(repo.settings())
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(cli_deploy, "connected", lambda _: nullcontext(aws))
    monkeypatch.setattr(console, "on_terminal", lambda _: True)
    monkeypatch.setattr(cli_deploy, "_carry_out", lambda *given, **_: carried_out.append(given))
    done = CliRunner().invoke(app, ["deploy", "production", "--model-package-arn", "arn"])
    assert done.exit_code == 0, done.output
    assert carried_out[0][2] == "arn"


def test_a_version_that_cannot_serve_leaves_the_one_before_in_service(
    here: Place, first: str
) -> None:
    stage = here.stage("sturdy")
    here.deploy(stage, first)
    broken = here.register(BROKEN)
    with pytest.raises(DeploymentFailed) as failed:
        here.deploy(stage, broken)
    assert "did not pass the ping health check" in str(failed.value)
    assert str(failed.value).startswith("churn-sturdy is UPDATE_ROLLBACK_COMPLETE: Endpoint: ")
    assert "\n" not in str(failed.value)
    assert any("no such file: model.ubj" in line for line in failed.value.log)
    assert failed.value.running == 1
    assert running(here, stage.stack) == 1
    assert read_trail(stacks.describe(here.aws, stage.stack)) == (1,)


def test_a_failure_of_the_second_stack_says_which_version_runs(
    here: Place,
    first: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise stacks.StackFailed("churn-half-watch is ROLLBACK_COMPLETE: no such role", None)

    monkeypatch.setattr(watch, "deploy", fail)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    with pytest.raises(typer.Exit) as ended:
        _carry_out(here.aws, here.stage("half"), first, True)
    assert ended.value.exit_code == 1
    told = capsys.readouterr()
    line = (
        "half runs version 1; its schedules and alarm were not deployed: churn-half-watch is ROLL"
    )
    assert line in " ".join(told.err.split()) and "still" not in told.err
    assert json.loads(told.out)["running"] == 1
    assert "not deployed\n" not in (said := (tmp_path / "summary").read_text()) and line in said


def test_after_a_failed_first_deployment_the_next_one_starts_over(here: Place, first: str) -> None:
    stage = here.stage("anew")
    with pytest.raises(DeploymentFailed, match="is ROLLBACK_COMPLETE") as failed:
        here.deploy(stage, here.register(BROKEN))
    assert failed.value.running is None
    assert here.deploy(stage, first).changed
    assert "churn-anew is ROLLBACK_COMPLETE: deleting it to create it again" in here.shown


def test_a_quota_that_allows_no_such_endpoint_is_refused_before_the_stack_changes(
    here: Place, first: str
) -> None:
    here.repo.stage("vast", Parameters={"EndpointKind": "real-time", "InstanceCount": 5})
    with pytest.raises(MlopsError, match=r"stage vast needs 5, but the quota .* is 4: .*quotas/L-"):
        here.deploy(stages.load(here.aws.settings, "vast"), first)
    assert stacks.describe(here.aws, "churn-vast") is None


def test_an_endpoint_that_was_deleted_by_hand_is_noticed_before_any_deployment(
    here: Place, first: str
) -> None:
    """CloudFormation could neither update nor roll back."""
    stage = here.stage("touched")
    here.deploy(stage, first)
    other = here.register(offset=3)
    found = endpoints.describe(here.aws, stage.stack)
    assert found is not None
    with pytest.MonkeyPatch.context() as patch:
        leaving = replace(found, status="Deleting")
        patch.setattr(endpoints, "describe", lambda *names: leaving)
        with pytest.raises(MlopsError, match=r"complete, but its endpoint is Deleting: .* destroy"):
            here.deploy(stage, other)
    here.aws.sagemaker.delete_endpoint(EndpointName=stage.stack)
    assert endpoints.settled(here.aws, stage.stack) is None
    for arn in (other, first):
        for execute in (False, True):
            with pytest.raises(MlopsError, match="complete, but it has no endpoint churn-touched"):
                here.deploy(stage, arn, execute=execute)
    assert stacks.describe(here.aws, stage.stack).status == "CREATE_COMPLETE"  # type: ignore[union-attr]
    assert destroy.destroy(destroy.look(here.aws, stage), here.console) == []
    assert here.deploy(stage, first).changed


def test_a_version_that_was_put_there_by_hand_can_be_replaced_in_service(
    here: Place, first: str
) -> None:
    stage, other = here.stage("moved"), here.stage("source")
    here.deploy(stage, first)
    here.deploy(other, here.register(offset=5))
    ours, theirs = (endpoints.describe(here.aws, item.stack) for item in (stage, other))
    assert ours is not None
    assert theirs is not None
    here.aws.sagemaker.update_endpoint(EndpointName=stage.stack, EndpointConfigName=theirs.config)
    with pytest.raises(MlopsError, match=f"--endpoint-config-name {ours.config}, then deploy"):
        here.deploy(stage, first)


def test_a_version_that_sagemaker_returned_to_is_not_replaced_by_the_one_its_alarms_stopped(
    here: Place, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, other = here.stage("returned"), here.register(offset=4)
    here.deploy(stage, first)
    shown = endpoints.describe
    with monkeypatch.context() as patch:
        patch.setattr(
            endpoints,
            "describe",
            lambda *of: (found := shown(*of)) and replace(found, package=first),
        )
        advice = f"runs version 1: most likely an alarm .* deploy returned --model-.*-arn {first}"
        with pytest.raises(MlopsError, match=advice):
            here.deploy(stage, other)
    with monkeypatch.context() as patch:
        # CloudFormation has deleted what the endpoint returned to.
        patch.setattr(
            endpoints,
            "describe",
            lambda *of: (found := shown(*of)) and replace(found, package="", model=""),
        )
        with pytest.raises(MlopsError, match=r"runs a former configuration.* most likely an alarm"):
            here.deploy(stage, other)
    with monkeypatch.context() as patch:
        # A model that is no version was put there by hand.
        patch.setattr(
            endpoints,
            "describe",
            lambda *of: (found := shown(*of)) and replace(found, package=""),
        )
        with pytest.raises(MlopsError, match=r"runs model .* which was set outside of it"):
            here.deploy(stage, other)
    assert here.deploy(stage, first).changed


@pytest.mark.long
def test_an_alarm_that_went_off_before_does_not_end_the_deployment_of_a_better_version(
    here: Place, first: str
) -> None:
    """SageMaker would count the errors of the version that runs, and return to it."""
    alarms = here.aws.client("cloudwatch")
    state = {"AlarmName": "churn-failing-errors", "StateReason": "its version fails"}
    stage, better = here.stage("failing", EndpointKind="real-time"), here.register(offset=6)
    here.deploy(stage, first)
    alarms.set_alarm_state(**state, StateValue="ALARM")
    assert not here.deploy(stage, first).changed
    assert here.deploy(stage, better).changed
    assert "churn-failing-errors went off before: no alarm will end this deployment" in here.shown
    assert not here.deploy(stage, better).changed
    # Another limit of an alarm leaves the endpoint alone, another size does not.
    limit = here.stage("failing", EndpointKind="real-time", ErrorAlarmThreshold=0.5)
    assert [each.resource for each in here.deploy(limit, better).changes] == ["ErrorAlarm"]
    size = here.stage("failing", EndpointKind="real-time", InstanceCount=2)
    alarms.set_alarm_state(**state, StateValue="ALARM")
    assert here.deploy(size, better).changed
    alarms.set_alarm_state(**state, StateValue="OK")
    here.stage("failing", EndpointKind="real-time")
    assert here.deploy(stage, better).changed
    parameters = stacks.describe(here.aws, stage.stack).parameters  # type: ignore[union-attr]
    assert parameters["AutoRollback"] == "on"


def test_a_stage_that_wants_its_alarms_to_end_each_deployment_has_its_way(
    here: Place, first: str
) -> None:
    stage = here.stage("strict", EndpointKind="real-time", AutoRollback="on")
    here.deploy(stage, first)
    here.aws.client("cloudwatch").set_alarm_state(
        AlarmName="churn-strict-errors", StateReason="its version fails", StateValue="ALARM"
    )
    with pytest.raises(deploy.DeploymentFailed, match="is in ALARM state"):
        here.deploy(stage, here.register(offset=7))
    assert "churn-strict-errors went off" not in here.shown


def test_an_instance_type_changes_under_autoscaling(here: Place, first: str) -> None:
    sizes: dict[str, Any] = {"EndpointKind": "real-time", "InstanceCount": 1, "BakeSeconds": 0}
    sizes["MaxInstanceCount"] = 3
    here.deploy(here.stage("scaled", **sizes), first)
    assert len(endpoints.scalable_targets(here.aws, "churn-scaled")) == 1
    done = here.deploy(here.stage("scaled", **sizes, InstanceType="ml.c5.large"), first)
    assert done.changed
    assert "deregistering churn-scaled from autoscaling first" in here.shown
    assert scaled(here, "churn-scaled")
    config = endpoints.describe(here.aws, "churn-scaled").config  # type: ignore[union-attr]
    described = here.aws.sagemaker.describe_endpoint_config(EndpointConfigName=config)
    assert described["ProductionVariants"][0]["InstanceType"] == "ml.c5.large"


def test_when_that_fails_autoscaling_is_back(here: Place, first: str) -> None:
    sizes: dict[str, Any] = {"EndpointKind": "real-time", "InstanceCount": 1, "BakeSeconds": 0}
    sizes["MaxInstanceCount"] = 2
    here.deploy(here.stage("backed", **sizes), first)
    changed = here.stage("backed", **sizes, InstanceType="ml.c5.large")
    with pytest.raises(DeploymentFailed):
        here.deploy(changed, here.register(BROKEN))
    assert scaled(here, "churn-backed")
    assert running(here, "churn-backed") == 1


def test_when_the_change_itself_is_refused_autoscaling_is_back_too(here: Place, first: str) -> None:
    sizes: dict[str, Any] = {"EndpointKind": "real-time", "InstanceCount": 1, "BakeSeconds": 0}
    here.deploy(here.stage("torn", **sizes, MaxInstanceCount=2), first)
    canary = sizes | {"InstanceType": "ml.c5.large", "TrafficShift": "canary"}
    with pytest.raises(ClientError, match="Rule StepsNeedInstances"):
        here.deploy(here.stage("torn", **canary, MaxInstanceCount=2), first)
    assert scaled(here, "churn-torn")


def test_the_tags_of_a_stage_are_on_the_stack_and_on_the_endpoint(here: Place, first: str) -> None:
    here.repo.stage("paid", Tags={"owner": "risk", "team": "a"})
    here.deploy(here.stage("paid"), first)
    endpoint = here.aws.arn("sagemaker", "endpoint/churn-paid")
    tags = here.aws.sagemaker.list_tags(ResourceArn=endpoint)["Tags"]
    assert {"Key": "owner", "Value": "risk"} in tags
    assert {"Key": "team", "Value": "a"} in tags
    stack = stacks.describe(here.aws, "churn-paid")
    assert stack is not None
    assert set(stack.tags) - {"owner", "team"} == set(stages.OWN_TAGS) - {endpoints.TESTED}


def test_a_deployment_tags_the_endpoint_s_log_and_records_its_version(
    here: Place, first: str
) -> None:
    here.repo.stage("noted", Tags={"owner": "risk"})
    here.deploy(here.stage("noted"), first)
    logs, watch = here.aws.client("logs"), here.aws.client("cloudwatch")
    arn = here.aws.arn("logs", "log-group:/aws/sagemaker/Endpoints/churn-noted")
    tags = logs.list_tags_for_resource(resourceArn=arn)["tags"]
    assert tags == {"project": "churn", "stage": "noted", "owner": "risk"}
    stage = [{"Name": "Project", "Value": "churn"}, {"Name": "Stage", "Value": "noted"}]
    now = datetime.now(UTC)
    [point] = watch.get_metric_statistics(
        Namespace="sm-mlops",
        MetricName="Version",
        Dimensions=stage,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=7200,
        Statistics=["Maximum"],
    )["Datapoints"]
    assert point["Maximum"] == 1


@contextmanager
def encrypting(here: Place, key: str) -> Iterator[None]:
    """Encrypt with this key whatever the block uploads."""
    s3, bucket = here.aws.s3, {"Bucket": here.aws.bucket}
    how = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = [{"ApplyServerSideEncryptionByDefault": how}]
    s3.put_bucket_encryption(**bucket, ServerSideEncryptionConfiguration={"Rules": rules})
    try:
        yield
    finally:
        s3.delete_bucket_encryption(**bucket)


def test_the_role_may_use_the_key_of_the_artifact_whatever_mlops_yaml_names_now(
    here: Place, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(arn: str) -> str:
        stage = here.stage("sealed")
        done = deploy.deploy(aws, stage, arn, here.console)
        stack = stacks.describe(aws, done.endpoint)
        assert stack is not None
        return stack.parameters["ArtifactKmsKeyArn"]

    kms = here.aws.client("kms")
    former, key = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    kms.create_alias(AliasName="alias/artifacts", TargetKeyId=key)
    with encrypting(here, former):
        sealed = here.register()
    before = (here.repo.root / "mlops.yaml").read_text()
    try:
        aws = Aws(here.repo.configure(aws={"kms_key": "alias/artifacts"}), sandbox=True)
        assert given(first) == ""
        assert given(sealed) == former
        # Who may not see the artifact can only take the key of now.
        for code in ("403", "404"):
            error = ClientError({"Error": {"Code": code}}, "HeadObject")
            monkeypatch.setattr(aws.s3, "head_object", Mock(side_effect=error))
            assert given(sealed) == key
    finally:
        (here.repo.root / "mlops.yaml").write_text(before)


def test_the_role_of_an_endpoint_has_the_platform_s_boundary(here: Place, first: str) -> None:
    iam, allow = here.aws.client("iam"), {"Effect": "Allow", "Action": "*", "Resource": "*"}
    boundary = iam.create_policy(
        PolicyName=f"sm-mlops-boundary-{here.aws.settings.project.region}",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]}),
    )["Policy"]["Arn"]
    stage = here.stage("bounded")
    try:
        here.deploy(stage, first)
        stack = stacks.describe(here.aws, stage.stack)
        assert stack is not None
        held = {item.kind: item.physical for item in stacks.resources(here.aws, stack)}
        role = iam.get_role(RoleName=held["AWS::IAM::Role"])["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
        assert role["Path"] == f"/sm-mlops/{here.aws.settings.project.project}/bounded/"
        assert destroy.destroy(destroy.look(here.aws, stage), here.console) == []
    finally:
        iam.delete_policy(PolicyArn=boundary)


def test_a_stack_of_another_project_is_left_alone(here: Place, first: str) -> None:
    stage = here.stage("eu-qa")
    here.deploy(stage, first)
    identity = here.repo.root / "pyproject.toml"
    before = identity.read_text()
    identity.write_text(before.replace('project = "churn"', 'project = "churn-eu"'))
    try:
        here.repo.stage("qa", Parameters={})
        aws = Aws(here.repo.settings(), sandbox=True)
        with pytest.raises(MlopsError, match="churn-eu-qa is stage eu-qa of project churn: give"):
            destroy.look(aws, stages.load(aws.settings, "qa"))
    finally:
        identity.write_text(before)
        (here.repo.root / "infra" / "qa.json").unlink()


def test_a_stage_without_its_file_is_found_and_deleted(here: Place, first: str) -> None:
    here.deploy(here.stage("lost"), first)
    (here.repo.root / "infra" / "lost.json").unlink()
    assert "lost" in {row.stage for row in status.status(here.aws).stages}
    assert "churn-lost" in {stage.stack for stage in destroy.chosen(here.aws, None)}
    [stage] = destroy.chosen(here.aws, "lost")
    assert destroy.destroy(destroy.look(here.aws, stage), here.console) == []
    with pytest.raises(MlopsError, match="no stage lost"):
        destroy.chosen(here.aws, "lost")


def test_a_conversion_that_sagemaker_refuses_is_refused_at_once(here: Place, first: str) -> None:
    here.deploy(here.stage("turned", EndpointKind="real-time"), first)
    with pytest.raises(MlopsError, match=r"change it to serverless: .* destroy turned first"):
        here.deploy(here.stage("turned"), first)
    with pytest.raises(MlopsError, match="is real-time, and SageMaker cannot change it to asyn"):
        here.deploy(here.stage("turned", EndpointKind="asynchronous"), first)


@pytest.mark.long
def test_a_serverless_endpoint_becomes_a_real_time_one(here: Place, first: str) -> None:
    here.deploy(here.stage("grown"), first)
    assert here.deploy(here.stage("grown", EndpointKind="real-time"), first).changed
    assert endpoints.describe(here.aws, "churn-grown").kind == "real-time"  # type: ignore[union-attr]


def test_a_rollback_goes_to_the_version_before_and_never_forward(here: Place) -> None:
    stage = here.stage("back")
    one, two, three = (here.register(offset=offset) for offset in (1, 2, 3))
    numbers = [int(arn.rpartition("/")[2]) for arn in (one, two, three)]
    with pytest.raises(MlopsError, match="no endpoint churn-back yet"):
        rollback_target(here.aws, stage, None)
    for arn in (one, two, three):
        here.deploy(stage, arn)
    for step in (1, 0):
        back = rollback_target(here.aws, stage, None)
        assert (back.running, back.version) == (numbers[step + 1], numbers[step])
        here.deploy(stage, back.arn, back=back)
        assert running(here, stage.stack) == numbers[step]
    with pytest.raises(MlopsError, match="has no record of a previous one: name one with --to"):
        rollback_target(here.aws, stage, None)


def test_a_version_before_that_is_rejected_now_is_not_returned_to(here: Place) -> None:
    stage = here.stage("barred")
    one, two, three = (here.register(offset=offset) for offset in (1, 2, 3))
    for arn in (one, two, three):
        here.deploy(stage, arn)
    approval(here, two, "Rejected")
    with pytest.raises(MlopsError, match=r"is Rejected: name one with --to \(approved: ") as why:
        rollback_target(here.aws, stage, None)
    number = int(one.rpartition("/")[2])
    assert str(number) in str(why.value)
    assert rollback_target(here.aws, stage, number).arn == one
    with pytest.raises(MlopsError, match=r"already runs version"):
        rollback_target(here.aws, stage, int(three.rpartition("/")[2]))


def test_a_destroyed_stage_leaves_nothing_and_an_orphan_is_found(here: Place, first: str) -> None:
    stage = here.stage("gone", EndpointKind="real-time", MaxInstanceCount=2, BakeSeconds=0)
    here.deploy(stage, first)
    doomed = destroy.look(here.aws, stage)
    assert {"Model", "EndpointConfig", "Endpoint", "ScalableTarget"} <= {
        item.name for item in doomed.resources
    }
    assert destroy.destroy(doomed, here.console) == []
    here.aws.client("cloudwatch").put_metric_alarm(
        AlarmName="churn-gone-by-hand",
        Dimensions=[{"Name": "EndpointName", "Value": "churn-gone"}],
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
    )
    left = list(destroy.left(here.aws, stage.stack, doomed.resources))
    assert left == ["alarm churn-gone-by-hand"]
    here.aws.client("cloudwatch").delete_alarms(AlarmNames=["churn-gone-by-hand"])


def test_an_endpoint_without_its_stack_is_deleted_too(here: Place, first: str) -> None:
    stage = here.stage("stray")
    here.deploy(here.stage("donor"), first)
    config = endpoints.describe(here.aws, "churn-donor").config  # type: ignore[union-attr]
    here.aws.sagemaker.create_endpoint(EndpointName=stage.stack, EndpointConfigName=config)
    endpoints.settled(here.aws, stage.stack)
    doomed = destroy.look(here.aws, stage)
    assert (doomed.stray, doomed.stacks) == (True, ())
    assert destroy.destroy(doomed, here.console) == []


@pytest.mark.long
def test_a_stage_in_another_account_needs_its_share_and_then_runs_there(
    here: Place, first: str
) -> None:
    parameters: dict[str, Any] = {"EndpointKind": "serverless"}
    queue = {"EndpointKind": "asynchronous", "InstanceCount": 1}
    role = "OrganizationAccountAccessRole"
    here.repo.stage("far", Account="210987654321", Role=role, Parameters=queue)

    def command(*arguments: str) -> Any:
        there = {name: value for name, value in here.server.environment().items() if value}
        return mlops(here.repo.root, *arguments, **there)

    try:
        homeless = command("deploy", "far", "--model-package-arn", first)
        assert homeless.returncode == 2
        assert "OutputBucket must name a bucket of account 210987654321" in homeless.stderr
        here.repo.stage("far", Parameters=parameters)
        refused = command("deploy", "far", "--model-package-arn", first)
        assert refused.returncode == 2
        assert "account 210987654321 cannot read model package group churn or" in refused.stderr
        assert refused.stderr.rstrip().endswith("yet: mlops share")
        shared = command("share", "--yes")
        assert shared.returncode == 0, shared.stderr
        assert "2 policies changed" in shared.stdout
        done = command("deploy", "far", "--model-package-arn", first)
        assert done.returncode == 0, done.stderr
        tested = command("smoke", "far")
        assert tested.returncode == 0, tested.stdout
        slow = command("smoke", "far", "--latency-limit", "0")
        assert slow.returncode == 1
        assert "far: 1 of 9 checks failed" in slow.stderr
        assert "try it      mlops invoke far\n" in slow.stderr
        assert "its log     mlops logs --stage far\n" in slow.stderr
        assert endpoints.describe(here.aws, "churn-far") is None, "it runs there, not here"
        removed = command("destroy", "far", "--yes")
        assert removed.returncode == 0, removed.stderr
    finally:
        (here.repo.root / "infra" / "far.json").unlink()
