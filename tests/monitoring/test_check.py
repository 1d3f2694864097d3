"""The pipeline that checks a stage: its definition, its upload, and an execution of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import botocore.session
import pytest
from botocore.validate import ParamValidator
from typer.testing import CliRunner

from deployment_cases import place
from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.cli.main import app
from sm_mlops.monitoring import run
from sm_mlops.settings import Settings
from sm_mlops.training.definition import Compiled

# Compiling imports the SDK: seconds, once per process.
pytestmark = pytest.mark.slow

ACCOUNT = "1" * 12


@pytest.fixture
def settings(repo: Repo) -> Settings:
    return repo.configure(monitoring={"stages": ["production"], "limits": {"quality": 0.3}})


def test_two_compilations_are_the_same_bytes(settings: Settings) -> None:
    assert run.compile_monitor(settings, ACCOUNT) == run.compile_monitor(settings, ACCOUNT)


def test_one_job_is_judged_and_a_violation_is_a_failed_execution(settings: Settings) -> None:
    compiled = run.compile_monitor(settings, ACCOUNT)
    definition = json.loads(compiled.definition)
    assert [item["Name"] for item in definition["Parameters"]] == ["Stage", "Bucket", "Until"]
    check, judge = definition["Steps"]
    assert "CacheConfig" not in check  # what lies in S3 changes, and is no input
    assert [step["Type"] for step in judge["Arguments"]["IfSteps"]] == ["Fail"]
    assert judge["Arguments"]["ElseSteps"] == []
    job = check["Arguments"]
    request = json.loads(json.dumps(job).replace('{"Get": "Parameters.', '{"Name": "'))
    given = dict(zip(*[iter(job["AppSpecification"]["ContainerArguments"])] * 2, strict=True))
    assert given["--stage"] == {"Get": "Parameters.Stage"}
    assert given["--until"] == {"Get": "Parameters.Until"}
    assert (given["--prefix"], given["--group"], given["--region"]) == (
        "churn",
        "churn",
        "eu-west-1",
    )
    # What only the execution knows.
    request["AppSpecification"]["ContainerArguments"] = ["x"]
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] = "s3://bucket/x"
    request["ProcessingJobName"] = "x"
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.shape_for("CreateProcessingJobRequest")
    assert not ParamValidator().validate(request, shape).has_errors()


def test_the_job_has_its_settings_and_nothing_of_the_team(repo: Repo, settings: Settings) -> None:
    (repo.root / "model" / "requirements.txt").write_text("no-such-package==1.0\n")
    objects = run.compile_monitor(settings, ACCOUNT).objects
    files = {key.split("/", 3)[3]: content for key, content in objects.items()}
    assert {"monitor.py", "mlops.yaml", "sm_mlops/tabular/monitor.py"} <= set(files)
    assert not {"requirements.txt", "train.py", "preprocess.py"} & set(files)
    assert b"quality: 0.3" in files["mlops.yaml"] and b"min_rows: 500" in files["mlops.yaml"]


def test_an_upload_updates_pipeline_and_code_and_says_so_in_one_line(
    settings: Settings, account: Aws
) -> None:
    aws, said = account, list[str]()
    for _ in range(2):
        run.upload(aws, said.append)
    assert said == ["monitor    pipeline churn-monitor checks production"] * 2
    found = aws.sagemaker.describe_pipeline(PipelineName="churn-monitor")
    compiled = run.compile_monitor(aws.settings, aws.account)
    assert found["PipelineDefinition"] == compiled.definition
    for key, content in compiled.objects.items():
        assert aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read() == content


JOB = """
import json, os, pathlib, sys
import boto3

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
violations = int(given["--until"] < "2026-11-28")
found = {"kind": "drift", "column": "amount", "value": 0.4, "limit": 0.15, "text": "-"}
message = "drift of amount is 0.4, above 0.15" if violations else "nothing drifted"
end = given["--until"][:13] + ":00:00+00:00"
result = {
    "window": {"start": "2026-11-26T06:00:00+00:00", "end": end},
    "status": "violation" if violations else "ok",
    "rows": 2000,
    "worst": found,
    "violations": [found] * violations,
    "message": message,
}
key = f"{given['--prefix']}/monitor/{given['--stage']}/{given['--until'][:13]}Z/result.json"
s3 = boto3.client("s3", region_name=given["--region"])
s3.put_object(Bucket=given["--bucket"], Key=key, Body=json.dumps(result))
verdict = {"violations": violations, "message": message}
(pathlib.Path(given["--output"]) / "verdict.json").write_text(json.dumps(verdict))
print(message)
"""


def test_a_check_is_followed_to_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_another_job(settings: Settings, account: str) -> Compiled:
        compiled = compile_monitor(settings, account)
        scripts = {key: JOB.encode() for key in compiled.objects if key.endswith("/monitor.py")}
        return Compiled(compiled.definition, {**compiled.objects, **scripts})

    compile_monitor = run.compile_monitor
    monkeypatch.setattr(run, "compile_monitor", with_another_job)
    monkeypatch.setattr(run, "deployed", lambda *_: True)
    with place(tmp_path) as here:
        here.repo.configure(monitoring={"stages": ["staging"]})
        monkeypatch.chdir(here.repo.root)
        run.upload(Aws(here.repo.settings(), sandbox=True), print)
        codes = []
        for until in ("2026-11-27T06:00", "2026-11-28T08:40+02:00"):
            done = CliRunner().invoke(app, ["monitor", "staging", "--run", "--until", until])
            codes.append((done.exit_code, done.output))
        shown = CliRunner().invoke(app, ["monitor", "staging"]).output
        identifier = re.findall(r"execution/(\w+)", codes[0][1])[0]
        log = CliRunner().invoke(app, ["logs", "Check", "--execution", identifier])
    (drifted, why), (fine, good) = codes
    assert (drifted, fine) == (1, 0), why + good
    assert "Violation: staging: drift of amount is 0.4, above 0.15" in why.splitlines()
    assert "2026-11-26 06:00 to 2026-11-28 06:00  ok" in good and "nothing drifted" in good
    assert all(text.endswith("report     mlops monitor staging --report\n") for text in (why, good))
    assert shown.startswith("staging: ok since 2026-11-26 06:00 UTC\n")
    assert log.output == "drift of amount is 0.4, above 0.15\n"
