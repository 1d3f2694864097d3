"""The whole life of a model on this machine, from data to production and back, by the commands a
person types."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repos import Repo, make_repo, mlops, mlops_ended
from sm_mlops import sandbox
from sm_mlops.aws import Aws
from sm_mlops.cli.sandbox_account import prepare

pytestmark = pytest.mark.slow
# Training that takes long enough to be interrupted.
LONG = ("--set", "early_stopping_rounds=2000", "--set", "num_boost_round=2000")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """Yield a committed repo in a folder with a space and an umlaut, its sandbox running."""
    repo = make_repo(tmp_path_factory.mktemp("life") / "mein Modell für morgen")
    (repo.root / ".gitignore").write_text("data/\nreports/\n.sandbox/\n")
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "-C", str(repo.root), *identity, *arguments], check=True)
    done = mlops(repo.root, "sandbox", "up")
    assert done.returncode == 0, done.stderr
    yield repo
    mlops(repo.root, "sandbox", "down")


@pytest.fixture(scope="module", autouse=True)
def first(repo: Repo) -> subprocess.CompletedProcess[str]:
    return mlops(repo.root, "--sandbox", "run")


@pytest.fixture
def account(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """Return the sandbox's account, as the test sees it."""
    with sandbox.connect(repo.root, repo.settings().project.region) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        aws = Aws(repo.settings(), sandbox=True)
        prepare(aws)
        yield aws


def versions(repo: Repo) -> list[dict[str, Any]]:
    done = mlops(repo.root, "--sandbox", "models", "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_a_run_registers_a_version_and_says_how_to_look_at_it(
    first: subprocess.CompletedProcess[str],
) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    for step in ("Preprocess", "Train", "Evaluate", "QualityGate", "Register"):
        assert re.search(rf"^{step} +Succeeded", first.stdout, re.MULTILINE), step
    assert "Registered version 1 (PendingManualApproval)" in first.stdout
    assert "mlops --sandbox report 1" in first.stdout


def test_a_version_can_be_traced_to_commit_data_execution_versions_and_baseline(
    repo: Repo, first: subprocess.CompletedProcess[str], account: Aws
) -> None:
    version = versions(repo)[-1]
    head = subprocess.run(
        ["git", "-C", str(repo.root), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert (version["version"], version["commit"]) == (1, head)
    assert "binary_classification_metrics" in version["metrics"]
    package = account.sagemaker.describe_model_package(ModelPackageName=version["arn"])
    assert package["MetadataProperties"]["Repository"] == "https://github.com/acme/churn"
    execution = package["MetadataProperties"]["GeneratedBy"]
    container = package["InferenceSpecification"]["Containers"][0]
    assert execution.rsplit("/", 1)[-1] in container["ModelDataUrl"]
    about = package["CustomerMetadataProperties"]
    assert re.fullmatch("[0-9a-f]{64}", about["DataHash"])
    assert "xgboost 3.2.0" in about["Versions"]
    baselines = package["DriftCheckBaselines"]
    assert package["ModelMetrics"].items() >= baselines.items()
    files = [source["S3Uri"] for kind in baselines.values() for source in kind.values()]
    statistics = baselines["ModelDataQuality"]["Statistics"]["S3Uri"]
    files.append(statistics.replace("statistics.json", "baseline.json"))
    for uri in (package["SamplePayloadUrl"], container["ModelDataUrl"], *files):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        assert account.s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0


def test_the_report_is_one_file_that_needs_nothing_else(
    repo: Repo, first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    done = mlops(repo.root, "--sandbox", "report", "1", "--output", str(file))
    assert done.returncode == 0, done.stderr
    html = file.read_text(encoding="utf-8")
    assert "<svg" in html or "data:image/" in html
    assert not re.search(r"""(src|href)=["']https?://""", html)
    assert "Quality gate: passed" in html


@pytest.mark.long
def test_versions_are_compared_in_text_and_json(
    repo: Repo, first: subprocess.CompletedProcess[str]
) -> None:
    # With the settings of the first, whatever other tests have trained with.
    assert mlops(repo.root, "--sandbox", "run").returncode == 0
    newest = versions(repo)[0]
    assert newest["settings"]["gate.metric"] == "auc"
    assert newest["settings"]["hyperparameters.eta"] == 0.05
    assert newest["settings"]["compute.train.instance"] == "ml.m5.large"
    pair = ("1", str(newest["version"]))
    done = mlops(repo.root, "--sandbox", "compare", *pair)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^auc +0\.\d{4} +0\.\d{4} +[+-]0\.", done.stdout, re.MULTILINE)
    assert re.search(r"^version 1 +\d+ +logloss 0\.\d+ in round \d+", done.stdout, re.MULTILINE)
    found = json.loads(mlops(repo.root, "--sandbox", "compare", *pair, "--json").stdout)
    assert found["versions"] == [1, newest["version"]]
    assert found["notes"] == []


def test_the_log_of_a_step_is_printed(repo: Repo, first: subprocess.CompletedProcess[str]) -> None:
    found = re.search(r"pipeline/\S+/execution/(\w+)", first.stdout)
    assert found
    of_the_first = ("--execution", found[1])
    done = mlops(repo.root, "--sandbox", "logs", "Train", *of_the_first)
    assert "validation-logloss" in done.stdout
    wrong = mlops(repo.root, "--sandbox", "logs", "Serve", *of_the_first)
    assert wrong.returncode == 2
    assert "steps with a log: Preprocess, Train, Evaluate" in wrong.stderr


@pytest.mark.long
def test_a_second_run_takes_every_job_from_the_cache(
    repo: Repo, first: subprocess.CompletedProcess[str]
) -> None:
    for _ in range(2):  # the first may have another champion than the fixture's
        done = mlops(repo.root, "--sandbox", "run")
        assert done.returncode == 0, done.stderr
    for step in ("Preprocess", "Train", "Evaluate"):
        assert re.search(rf"^{step} +Succeeded.*cache hit", done.stdout, re.MULTILINE), step


@pytest.mark.long
def test_another_evaluation_runs_evaluate_alone(
    repo: Repo, first: subprocess.CompletedProcess[str]
) -> None:
    file = repo.root / "model" / "evaluate.py"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "\n# another look\n", encoding="utf-8")
    try:
        done = mlops(repo.root, "--sandbox", "run")
    finally:
        file.write_text(before, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "uncommitted changes" in done.stdout
    cached = re.findall(r"^(\w+) +Succeeded.*cache hit", done.stdout, re.MULTILINE)
    assert cached == ["Preprocess", "Train"]
    assert versions(repo)[0]["commit"].endswith("-dirty")


@pytest.mark.long
def test_a_model_below_the_threshold_is_not_registered_and_the_reason_names_both(
    repo: Repo, first: subprocess.CompletedProcess[str]
) -> None:
    before = len(versions(repo))
    done = mlops(repo.root, "--sandbox", "run", "--set", "GateThreshold=1.5")
    assert done.returncode == 1
    assert re.search(r"QualityGate: auc 0\.\d+ .*wanted at least 1\.5", done.stderr)
    assert re.search(r"than the champion \((version \d+|there is none yet)\)", done.stderr)
    report = re.search(r"report: mlops --sandbox report (\w+)", done.stderr)
    assert report, "the report of a model that failed is what one wants to see"
    for which in ([report.group(1)], []):  # it is the newest
        shown = mlops(repo.root, "--sandbox", "report", *which)
        assert shown.returncode == 0, shown.stderr
        page = Path(shown.stdout.strip()).read_text(encoding="utf-8")
        assert "Quality gate: not passed" in page and "wanted: at least 1.5" in page
    assert len(versions(repo)) == before


@pytest.mark.long
def test_a_model_worse_than_the_champion_is_not_registered_and_the_reason_names_it(
    repo: Repo, first: subprocess.CompletedProcess[str], account: Aws
) -> None:
    mlops(repo.root, "--sandbox", "reject", "1")
    approved = mlops(repo.root, "--sandbox", "approve", "1", "--comment", "good enough")
    assert approved.stdout.startswith("Version 1 is Approved (was Rejected)")
    arn = next(item["arn"] for item in versions(repo) if item["version"] == 1)
    package = account.sagemaker.describe_model_package(ModelPackageName=arn)
    assert package["ApprovalDescription"] == "good enough"
    try:
        done = mlops(
            *(repo.root, "--sandbox", "run", "--set", "GateThreshold=0"),
            *("--set", "GateTolerance=0", "--set", "num_boost_round=1", "--set", "max_depth=1"),
        )
    finally:
        rejected = mlops(repo.root, "--sandbox", "reject", "1")
    assert rejected.returncode == 0, rejected.stderr
    assert "champion   version 1" in done.stdout
    assert done.returncode == 1, done.stdout
    assert re.search(r"auc 0\.\d+ .*champion version 1: (0\.\d+|1\.0+)", done.stderr)
    assert "worse than the champion (version 1)" in done.stderr


def test_bad_data_is_named_with_file_and_line_before_anything_starts(
    repo: Repo, account: Aws
) -> None:
    def executions() -> int:
        found = account.sagemaker.list_pipeline_executions(PipelineName="churn")
        return len(found["PipelineExecutionSummaries"])

    known = executions()
    data = repo.root / "data" / "broken"
    data.mkdir(parents=True)
    (data / "rows.csv").write_text("a,diagnosis\n" + "1,x\n2,y\n" * 50 + "3,x,surplus\n")
    before = (repo.root / "mlops.yaml").read_text()
    repo.configure(data={"path": "data/broken", "positive": None})
    try:
        done = mlops(repo.root, "--sandbox", "run")
    finally:
        (repo.root / "mlops.yaml").write_text(before)
    assert (done.returncode, executions()) == (2, known)
    assert re.search(r"rows\.csv, line 102: 3 fields, but the header has 2$", done.stderr)


@pytest.mark.long
def test_ctrl_c_leaves_the_execution_running_and_says_how_to_follow_it(repo: Repo) -> None:
    code, said = mlops_ended(
        repo.root,
        lambda line: line.startswith("Train") and "Executing" in line,
        *("--sandbox", "run", *LONG, "--set", "max_depth=9"),
    )
    assert code == 130, said
    follow = re.search(r"mlops --sandbox follow (\w+)", said)
    assert follow, said
    assert "mlops --sandbox stop" in said
    followed = mlops(repo.root, "--sandbox", "follow", follow.group(1))
    assert followed.returncode == 0, followed.stderr


ENDLESS = ("--set", "early_stopping_rounds=1000000", "--set", "num_boost_round=1000000")


@pytest.mark.long
def test_a_job_that_a_ci_ends_stops_its_execution(repo: Repo, tmp_path: Path) -> None:
    code, said = mlops_ended(
        repo.root,
        lambda line: line.startswith("Train") and "Executing" in line,
        *("--sandbox", "run", *ENDLESS, "--set", "max_depth=8"),
        how=signal.SIGTERM,
        GITHUB_OUTPUT=str(tmp_path / "output"),
    )
    assert code == 128 + signal.SIGTERM, said
    [arn] = re.findall(r"^stopping (arn:.*)$", said, re.MULTILINE)
    followed = mlops(repo.root, "--sandbox", "follow", arn)
    assert followed.returncode == 1
    assert "Stopped" in followed.stdout + followed.stderr
    # GitHub kills the command; the step that stops the execution knows it by this output.
    assert arn.rpartition("/")[2] in (tmp_path / "output").read_text()


@pytest.mark.long
def test_a_stopped_execution_ends_stopped(repo: Repo) -> None:
    started = mlops(repo.root, "--sandbox", "run", "--no-wait", *ENDLESS)
    assert started.returncode == 0, started.stderr
    stopped = mlops(repo.root, "--sandbox", "stop")
    assert stopped.returncode == 0, stopped.stderr
    deadline = time.monotonic() + 60
    followed = mlops(repo.root, "--sandbox", "follow")
    assert time.monotonic() < deadline
    assert followed.returncode == 1
    assert "Stopped" in followed.stdout + followed.stderr
    again = mlops(repo.root, "--sandbox", "stop")
    assert again.returncode == 2
    assert "already Stopped" in again.stderr


# From here on: an approved version on its way to production.


def arn_of(repo: Repo, version: int) -> str:
    return str(next(item["arn"] for item in versions(repo) if item["version"] == version))


def endpoint_of(repo: Repo, stage: str) -> tuple[int | None, str]:
    """Return version and state, as `mlops status` shows them."""
    done = mlops(repo.root, "--sandbox", "status", "--json")
    assert done.returncode == 0, done.stderr
    found = next(item for item in json.loads(done.stdout)["stages"] if item["stage"] == stage)
    return found["version"], found["state"]


@pytest.fixture
def in_production(repo: Repo, first: subprocess.CompletedProcess[str]) -> str:
    """Return the ARN of version 1, approved and deployed to staging and production; again if a
    test has changed that."""
    approved = mlops(repo.root, "--sandbox", "approve", "1", "--comment", "good enough")
    arn = arn_of(repo, 1)
    next_step = f"mlops --sandbox deploy staging --model-package-arn {arn}"
    assert next_step in approved.stdout, "approving says what comes next"
    for stage in ("staging", "production"):
        if endpoint_of(repo, stage) == (1, "InService"):
            continue
        done = mlops(repo.root, "--sandbox", "deploy", stage, "--model-package-arn", arn)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{stage} runs version 1, in service after" in done.stdout
        tested = mlops(repo.root, "--sandbox", "smoke", stage)
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert f"{stage} works" in tested.stdout
    return arn


def test_an_approved_version_reaches_production_and_predicts(
    repo: Repo, in_production: str
) -> None:
    assert endpoint_of(repo, "production") == (1, "InService")
    row = (repo.root / "data" / "breast-cancer.csv").read_text().splitlines()[:3]
    file = repo.root / "rows.csv"
    file.write_text("\n".join(row) + "\n")
    try:
        done = mlops(repo.root, "--sandbox", "invoke", "production", "rows.csv")
    finally:
        file.unlink()
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["predictions"]
    assert [answer["prediction"] in ("malignant", "benign") for answer in answers] == [True, True]
    assert all(0 <= answer["probability"] <= 1 for answer in answers)


@pytest.mark.long
def test_what_runs_already_is_deployed_again_without_a_change(
    repo: Repo, in_production: str
) -> None:
    done = mlops(
        *(repo.root, "--sandbox", "deploy", "production", "--json"),
        MODEL_PACKAGE_ARN=in_production,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["changed"], told["version"]) == (False, 1)
    assert "production is unchanged: it already runs version 1" in done.stderr


@pytest.mark.long
def test_a_version_that_cannot_serve_stops_in_staging_and_production_is_untouched(
    repo: Repo, in_production: str, account: Aws
) -> None:
    from sm_mlops import registry
    from sm_mlops.cli.sandbox import register_broken_copy

    broken = register_broken_copy(account, registry.version(account, 1))
    number = str(broken.version)
    refused = mlops(repo.root, "--sandbox", "deploy", "staging", "--model-package-arn", broken.arn)
    assert refused.returncode == 2
    assert "is PendingManualApproval, not Approved" in refused.stderr
    mlops(repo.root, "--sandbox", "approve", number)
    try:
        done = mlops(repo.root, "--sandbox", "deploy", "staging", "--model-package-arn", broken.arn)
        assert done.returncode == 1, done.stdout
        assert "did not pass the ping health check" in done.stderr.splitlines()[0]
        assert "this inference.py cannot load its model" in done.stderr
        assert "staging still runs version 1" in done.stderr
        log = mlops(repo.root, "--sandbox", "logs", "--stage", "staging")
        assert "this inference.py cannot load its model" in log.stdout
    finally:
        mlops(repo.root, "--sandbox", "reject", number)
    assert endpoint_of(repo, "staging") == (1, "InService")
    assert endpoint_of(repo, "production") == (1, "InService")


@pytest.mark.long
def test_ctrl_c_leaves_the_deployment_running_and_says_how_to_go_on(
    repo: Repo, in_production: str
) -> None:
    try:
        repo.stage("brief", Parameters={"EndpointKind": "serverless"})
        code, said = mlops_ended(
            repo.root,
            lambda line: "CREATE_IN_PROGRESS" in line,
            *("--sandbox", "deploy", "brief"),
            MODEL_PACKAGE_ARN=in_production,
        )
        assert code == 130, said
        assert "CloudFormation continues" in said
        again = mlops(repo.root, "--sandbox", "deploy", "brief", MODEL_PACKAGE_ARN=in_production)
        assert again.returncode == 0, again.stderr
        assert endpoint_of(repo, "brief") == (1, "InService")
        gone = mlops(repo.root, "--sandbox", "destroy", "brief", "--yes")
        assert gone.returncode == 0, gone.stderr
    finally:
        (repo.root / "infra" / "brief.json").unlink()


@pytest.mark.long
def test_production_returns_to_the_version_before(
    repo: Repo, in_production: str, account: Aws
) -> None:
    run = mlops(
        *(repo.root, "--sandbox", "run", "--set", "num_boost_round=60"),
        *("--set", "GateTolerance=1"),
    )
    assert run.returncode == 0, run.stderr
    second = versions(repo)[0]
    assert second["approval"] == "PendingManualApproval"
    approved = mlops(repo.root, "--sandbox", "approve", str(second["version"]))
    assert approved.returncode == 0, approved.stderr
    done = mlops(
        repo.root, "--sandbox", "deploy", "production", "--model-package-arn", second["arn"]
    )
    assert done.returncode == 0, done.stderr
    asked = mlops(repo.root, "--sandbox", "rollback", "production")
    assert asked.returncode == 2
    assert f"runs version {second['version']} and returns to version 1" in asked.stderr
    assert endpoint_of(repo, "production") == (second["version"], "InService")
    back = mlops(repo.root, "--sandbox", "rollback", "production", "--yes")
    assert back.returncode == 0, back.stderr
    reject = f"mlops --sandbox reject {second['version']}"
    assert reject in back.stdout
    assert mlops(repo.root, *reject.split()[1:]).returncode == 0
    assert endpoint_of(repo, "production") == (1, "InService")


@pytest.mark.long
def test_destroying_all_asks_first_and_leaves_the_registry_and_the_data_unless_told_to(
    repo: Repo, in_production: str, account: Aws
) -> None:
    asked = mlops(repo.root, "--sandbox", "destroy", "--all")
    assert asked.returncode == 2
    assert "pass --yes" in asked.stderr
    assert endpoint_of(repo, "production") == (1, "InService")
    before = len(versions(repo))
    done = mlops(repo.root, "--sandbox", "destroy", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Nothing billable remains" in done.stdout
    assert re.search(rf"keeps +pipeline and {before} versions?", done.stdout)
    assert len(versions(repo)) == before
    sagemaker = account.sagemaker
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert account.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    again = mlops(repo.root, "--sandbox", "destroy", "--all", "--yes")
    assert again.returncode == 0
    assert "Nothing to delete" in again.stdout
    end = ("destroy", "--all", "--registry", "--data", "--yes")
    done = mlops(repo.root, "--sandbox", *end)
    assert done.returncode == 0, done.stderr
    assert versions(repo) == []
    left = account.s3.list_objects_v2(Bucket=account.bucket, Prefix="churn/")
    assert left["KeyCount"] == 0
    # For tests that come after this one.
    assert "Registered version 1" in mlops(repo.root, "--sandbox", "run").stdout
