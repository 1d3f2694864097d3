"""The pipeline that checks a stage: its definition, its upload, and an execution of it."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path

import botocore.session
import numpy as np
import pytest
from botocore.validate import ParamValidator
from typer.testing import CliRunner

from deployment_cases import Place, place
from monitor_case import line, objects, people, predictions, probability, trained
from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.cli import training
from sm_mlops.cli.main import app
from sm_mlops.monitoring import run
from sm_mlops.settings import Settings
from sm_mlops.tabular.baseline import FILE

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
    assert said == ["monitor    pipeline churn-monitor uploaded"] * 2
    found = aws.sagemaker.describe_pipeline(PipelineName="churn-monitor")
    compiled = run.compile_monitor(aws.settings, aws.account)
    assert found["PipelineDefinition"] == compiled.definition
    for key, content in compiled.objects.items():
        assert aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read() == content


@pytest.mark.parametrize("stages", [[], ["production"]])
def test_mlops_run_uploads_it_where_stages_are_checked(
    repo: Repo, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, stages: list[str]
) -> None:
    repo.configure(monitoring={"stages": stages})
    account: Aws = request.getfixturevalue("account")
    monkeypatch.setattr(training, "connected", lambda context: nullcontext(account))
    monkeypatch.setattr(training, "follow_to_the_end", lambda *_: None)
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 0, done.output
    assert ("monitor    pipeline churn-monitor uploaded" in done.output) == bool(stages)
    found = account.sagemaker.list_pipelines()["PipelineSummaries"]
    names = ["churn", "churn-monitor"] if stages else ["churn"]
    assert sorted(item["PipelineName"] for item in found) == names


def check(place: Place, until: str) -> tuple[int, str]:
    """Return exit code and output of a check of staging."""
    done = CliRunner().invoke(app, ["monitor", "staging", "--run", "--until", until])
    return done.exit_code, done.output


@pytest.mark.long
def test_a_check_names_what_drifted_and_is_followed_to_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "deployed", lambda *_: True)
    with place(tmp_path) as here:
        monkeypatch.chdir(here.repo.root)
        baseline = here.put("churn/executions/1/evaluation/statistics.json", b"{}")
        trained().save(tmp_path)
        here.put("churn/executions/1/evaluation/baseline.json", (tmp_path / FILE).read_bytes())
        source = {"ContentType": "application/json", "S3Uri": baseline}
        here.register(DriftCheckBaselines={"ModelDataQuality": {"Statistics": source}})
        random = np.random.default_rng(1)
        for day, shift in (("27", 0.0), ("28", 9.0)):
            rows = people(random, 1500, age=shift)
            body = json.dumps({"instances": objects(rows)})
            text = line(body, predictions(probability(rows)), inference_id=f"202611{day}05-a")
            folder = "churn/capture/staging/version-1/churn-staging/AllTraffic"
            here.put(f"{folder}/2026/11/{day}/05/a.jsonl", text.encode())
        (fine, good), (drifted, why) = (
            check(here, until) for until in ("2026-11-27T06:00", "2026-11-28T08:40+02:00")
        )
        shown = CliRunner().invoke(app, ["monitor", "staging"]).output
        identifier = re.findall(r"execution/(\w+)", why)[0]
        log = CliRunner().invoke(app, ["logs", "Check", "--execution", identifier]).output
        here.put("churn/executions/1/evaluation/baseline.json", b"{")
        failed, _ = check(here, "2026-11-28T07:00")
        told = CliRunner().invoke(app, ["monitor", "staging"]).output.splitlines()
        hint = re.findall(r"; mlops (logs --execution \w+)$", told[1])[0]
        reason = CliRunner().invoke(app, hint.split()).output
    assert (fine, drifted) == (0, 1), good + why
    uploads = [
        text.startswith("monitor    pipeline churn-monitor uploaded\n") for text in (good, why)
    ]
    assert uploads == [True, False]
    assert "2026-11-26 06:00 to 2026-11-27 06:00  ok      1,500" in good
    assert "nothing above its limit in 1,500 rows" in good
    [violation] = [text for text in why.splitlines() if text.startswith("Violation: ")]
    assert violation.startswith("Violation: staging, 24 hours to 2026-11-28T06Z: ")
    assert "age" in violation and violation.removeprefix("Violation: ") in log
    assert all(text.endswith("report     mlops monitor staging --report\n") for text in (why, good))
    assert shown.splitlines()[0].startswith("staging: drift of age")
    # The older result stays, and a line says that the newest check has none.
    assert failed != 0 and told[0].startswith("staging: drift of age")
    assert re.match(r"the newest check failed 20\d\d-\d\d-\d\d \d\d:\d\d UTC: Check: ", told[1])
    assert "JSONDecodeError" in reason and "Check failed: " in reason
