"""Parameters, upserts and commits: what happens before an execution starts."""

from __future__ import annotations

import json
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from repos import Repo
from sm_mlops import commit, executions, quotas
from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings, load
from sm_mlops.training import artifacts, checks, run
from sm_mlops.training.definition import Compiled, compile_pipeline

pytestmark = pytest.mark.slow

DEFINITION = json.dumps(
    {
        "Version": "2020-12-01",
        "Parameters": [
            {"Name": "MaxDepth", "Type": "String", "DefaultValue": "6"},
            {"Name": "MaxLeaves", "Type": "String", "DefaultValue": "0"},
            {"Name": "GateThreshold", "Type": "Float", "DefaultValue": 0.9},
            {"Name": "Rounds", "Type": "Integer", "DefaultValue": 1},
            {
                "Name": "Color",
                "Type": "String",
                "DefaultValue": "red",
                "EnumValues": ["red", "blue"],
            },
            *(
                {"Name": name, "Type": "String"}
                for name in ("Commit", "Champion", "DataHash", "Reason")
            ),
        ],
        "Steps": [],
    }
)


def test_parameters_and_hyperparameters_are_set_by_either_name() -> None:
    given = {"MaxDepth": "3", "GateThreshold": "0.5"}
    assert run.check_overrides(DEFINITION, given) == given
    assert run.check_overrides(DEFINITION, {"max_depth": "3"}) == {"MaxDepth": "3"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MaxDeth", "3", "did you mean MaxDepth"),
        ("max_leaf_nodes", "3", "did you mean MaxLeaves"),
        ("zzz", "3", "known are MaxDepth, MaxLeaves, GateThreshold"),
        ("GateThreshold", "high", "'high' is not a number"),
        ("GateThreshold", "nan", "'nan' is not a number"),
        ("Rounds", "1.5", "'1.5' is not a whole number"),
        ("Color", "green", "not one of red, blue"),
        ("Commit", "f" * 40, "--set Commit: Commit cannot be set"),
        ("commit", "f" * 40, "--set commit: Commit cannot be set"),
        ("Champion", "s3://elsewhere/", "Champion cannot be set"),
        ("data_hash", "0" * 64, "DataHash cannot be set"),
        ("reason", "drift", "Reason cannot be set"),
        ("ApprovalStatus", "Approved", "no such parameter"),
        ("MaxDepth", "", "the value is empty"),
        ("MaxDepth", "1" * 1025, "the value is longer than 1024 characters"),
    ],
)
def test_what_cannot_be_set_is_refused_with_a_hint(name: str, value: str, said: str) -> None:
    with pytest.raises(MlopsError, match=said):
        run.check_overrides(DEFINITION, {name: value})


def test_a_pipeline_is_created_and_then_updated(account: Aws) -> None:
    for definition in (DEFINITION, DEFINITION, DEFINITION.replace("0.9", "0.8")):
        run.upsert(account, definition)
        now = account.sagemaker.describe_pipeline(PipelineName="churn")
        assert now["PipelineDefinition"] == definition
    rows = account.sagemaker.list_tags(ResourceArn=now["PipelineArn"])["Tags"]
    tags = {tag["Key"]: tag["Value"] for tag in rows}
    assert tags == {"project": "churn", "owner": "unknown"}


def test_an_execution_is_of_the_definition_that_was_uploaded_for_it(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's upload comes between the upload and the start."""
    numbers, started = iter(range(7, 99)), []
    events = account.sagemaker.meta.events
    events.register(
        "after-call.sagemaker.UpdatePipeline",
        lambda parsed, **_: parsed.update(PipelineVersionId=next(numbers)),
    )
    events.register(
        "provide-client-params.sagemaker.StartPipelineExecution",
        lambda params, **_: started.append(params["PipelineVersionId"]),
    )
    upsert = run.upsert

    def overtaken(aws: Aws, definition: str) -> int:
        version = upsert(aws, definition)
        upsert(aws, DEFINITION)
        return version

    monkeypatch.setattr(run, "upsert", overtaken)
    run.start(account, {}, print)
    assert started == [7]


@pytest.mark.parametrize(
    ("usual", "other"), [("ml.m5.large", "ml.g4dn.xlarge"), ("ml.g5.xlarge", "ml.m5.large")]
)
def test_an_instance_type_that_the_volume_s_key_does_not_fit_is_refused(
    account: Aws, repo: Repo, usual: str, other: str
) -> None:
    key = f"arn:aws:kms:eu-west-1:{'1' * 12}:key/00000000-0000-0000-0000-000000000000"
    repo.configure(aws={"kms_key": key})
    aws = Aws(repo.configure(compute={"train": {"instance": usual}}))
    with pytest.raises(
        MlopsError, match=f"--set TrainInstanceType: one of {usual} and {other} has"
    ):
        run.start(aws, {"TrainInstanceType": other}, print)
    assert not account.sagemaker.list_pipelines()["PipelineSummaries"]


@pytest.mark.parametrize("spot", [False, True])
def test_a_quota_that_allows_no_such_machine_is_refused_before_anything_starts(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch, spot: bool
) -> None:
    repo.configure(compute={"train": {"instance": "ml.g5.xlarge", "spot": spot}})
    aws = now(account)
    name = f"ml.g5.xlarge for {'spot ' if spot else ''}training job usage"
    limits = {name: 0.0, "ml.m5.large for processing job usage": 1.0}

    def rows(client: object, wanted: set[str]) -> dict[str, object]:
        assert wanted == set(limits)
        return {name: {"QuotaCode": "L-1", "Value": value} for name, value in limits.items()}

    monkeypatch.setattr(quotas, "rows", rows)
    with pytest.raises(MlopsError) as refused:
        run.start(aws, {}, print)
    said = str(refused.value)
    assert said.startswith(f"step Train needs 1, but the quota {name} of account ")
    assert "in eu-west-1 is 0: request an increase at https://eu-west-1.console" in said
    assert "services/sagemaker/quotas/L-1" in said and "\n" not in said
    assert not account.sagemaker.list_pipelines()["PipelineSummaries"]
    # The instance type of this execution counts, not that of mlops.yaml.
    limits[name.replace("ml.g5.xlarge", "ml.m5.large")] = 1.0
    del limits[name]
    run.start(aws, {"TrainInstanceType": "ml.m5.large"}, print)


def test_who_may_not_read_quotas_trains_without_a_word(
    account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListServiceQuotas")

    monkeypatch.setattr(quotas, "rows", denied)
    run.start(account, {}, print)
    assert "uota" not in capsys.readouterr().out


def test_what_is_uploaded_is_what_the_definition_names_even_while_one_edits(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    code: dict[str, bytes] = {}

    def compile_while_editing(settings: Settings, number: str) -> Compiled:
        compiled = compile_pipeline(settings, number)
        code.update(compiled.objects)
        for script in (repo.root / "model").glob("*.py"):
            script.write_text("# saved\n", encoding="utf-8")
        return compiled

    monkeypatch.setattr(run, "compile_pipeline", compile_while_editing)
    run.start(account, {}, print)
    named = account.sagemaker.describe_pipeline(PipelineName="churn")["PipelineDefinition"]
    for key, content in code.items():
        assert "/".join(key.split("/")[:3]) in named  # churn/code/<hash>
        uploaded = account.s3.get_object(Bucket=account.bucket, Key=key)["Body"].read()
        assert uploaded == content


def test_the_model_package_group_is_made_once(account: Aws) -> None:
    run.ensure_model_package_group(account)
    run.ensure_model_package_group(account)
    groups = account.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [group["ModelPackageGroupName"] for group in groups] == ["churn"]


def test_the_hash_of_a_version_is_that_of_the_data_it_was_given(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.s3.put_object(Bucket=account.bucket, Key="churn/other/rows.csv", Body=b"a\n1\n")
    other = f"s3://{account.bucket}/churn/other/"
    definition = json.dumps({"Parameters": [{"Name": "InputData", "Type": "String"}], "Steps": []})
    monkeypatch.setattr(run, "compile_pipeline", lambda *_: Compiled(definition, {}))
    arn = run.start(account, {"InputData": other}, lambda line: None)
    used = account.pages(
        "list_pipeline_parameters_for_execution", "PipelineParameters", PipelineExecutionArn=arn
    )
    given = {item["Name"]: item["Value"] for item in used}
    assert given["DataHash"] == artifacts.data_in_s3(account, other).digest


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("data/rows.csv", "not an S3 address"),
        ("s3://elsewhere/rows/", "neither below s3://.*/churn/ nor data.path"),
        ("s3://lake/2026-rejected/", "neither below"),
        ("s3://{bucket}/churn-eu/data/", "neither below"),
        ("s3://lake/2026/june/", ""),
        ("s3://lake/2026", ""),
        ("s3://{bucket}/churn/data/1/", ""),
    ],
)
def test_data_is_the_project_s_or_declared_in_mlops_yaml(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    aws = Aws(repo.configure(data={"path": "s3://lake/2026"}))
    definition = json.dumps({"Parameters": [{"Name": "InputData", "Type": "String"}]})
    monkeypatch.setattr(run, "compile_pipeline", lambda *_: Compiled(definition, {}))
    given = {"InputData": address.format(bucket=aws.bucket)}
    # Data that is declared is looked for.
    with pytest.raises((MlopsError, ClientError), match=said or "no object|NoSuchBucket"):
        run.start(aws, given, lambda line: None)
    assert not account.sagemaker.list_pipelines()["PipelineSummaries"]


def test_no_parameter_approves_a_version(repo: Repo) -> None:
    definition = json.loads(compile_pipeline(repo.settings(), "1" * 12).definition)
    [gate] = [step for step in definition["Steps"] if step["Type"] == "Condition"]
    [register] = [s for s in gate["Arguments"]["IfSteps"] if s["Type"] == "RegisterModel"]
    assert register["Arguments"]["ModelApprovalStatus"] == "PendingManualApproval"
    assert "Approved" not in json.dumps(definition["Parameters"])


QUANTITY = "y,region\n" + "".join(f"{n}.5,north\n" for n in range(60))
CLASSES = "y,region\n" + "yes,north\nno,south\n" * 30


@pytest.mark.parametrize(
    ("rows", "changed", "said"),
    [
        (QUANTITY, {"gate": {"metric": "auc"}}, "gate.metric auc does not fit 'y', a regression"),
        (CLASSES, {"gate": {"metric": "rmse"}}, "does not fit 'y', a binary target; choose one of"),
        (QUANTITY, {"evaluation": {"threshold": 0.3}}, "evaluation.threshold is for two classes"),
        (CLASSES, {"evaluation": {"slices": ["regoin"]}}, "no column 'regoin'; did you mean 'reg"),
        (CLASSES, {"evaluation": {"slices": ["id"]}}, "'id' is in data.drop"),
        (
            CLASSES,
            {"split": {"by": "regoin"}},
            r"no column .regoin. \(split.by in mlops.yaml\); did",
        ),
    ],
)
@pytest.mark.parametrize("where", ["path", "sample"])
def test_settings_that_the_rows_refute_are_refused_before_anything_starts(
    account: Aws, repo: Repo, rows: str, changed: dict[str, Any], said: str, where: str
) -> None:
    (repo.root / "samples").mkdir()
    (repo.root / "samples" / "rows.csv").write_text(rows, encoding="utf-8")
    drop = ["id"] if changed.get("evaluation") == {"slices": ["id"]} else []
    if drop:
        text = "".join(f"{line},{n}\n" for n, line in enumerate(rows.splitlines()))
        text = text.replace("region,0", "region,id", 1)
        (repo.root / "samples" / "rows.csv").write_text(text, encoding="utf-8")
    places = {"path": "s3://lake/rows/", where: "samples/rows.csv"}
    data = {"target": "y", "positive": None, "drop": drop, **places}
    metric = {"metric": "rmse" if rows == QUANTITY else "auc"}
    aws = Aws(repo.configure(**{"gate": metric, **changed}, data=data))
    with pytest.raises(MlopsError, match=said):
        run.start(aws, {}, print)
    assert not account.sagemaker.list_pipelines()["PipelineSummaries"]
    assert not aws.s3.list_objects_v2(Bucket=aws.bucket).get("Contents")


@pytest.mark.parametrize(
    ("content", "changed", "trained", "said"),
    [
        (CLASSES, {"target": "z"}, False, "^samples/rows.csv: no column 'z' .data.target in mlops"),
        ("\xd0\xcf\x11\xe0", {}, False, "^samples/rows.csv is an old Excel workbook"),
        (CLASSES, {"positive": "maybe"}, True, "^samples/rows.csv: .* 'maybe'"),
        ("y,region\nyes,north\nno,south\n", {}, True, "rows with a label are too few"),
        (CLASSES, {"positive": "maybe"}, False, ""),
    ],
)
def test_rows_that_are_not_what_mlops_yaml_describes_are_refused(
    repo: Repo, content: str, changed: dict[str, str], trained: bool, said: str
) -> None:
    rows = repo.root / "samples" / "rows.csv"
    rows.parent.mkdir()
    rows.write_bytes(content.encode("latin-1"))
    settings = repo.configure(data={"target": "y", "positive": None, **changed})
    with pytest.raises(MlopsError, match=said) if said else nullcontext():
        checks.refuse_unfit(settings, rows, trained=trained)


def test_the_team_s_own_metrics_are_among_those_that_fit(repo: Repo) -> None:
    own = "@lower_is_better\ndef cost(truth, predicted, rows): ...\n"
    (repo.root / "model" / "evaluate.py").write_text(own)
    with pytest.raises(MlopsError, match=r"choose one of auc, .*, cost, or set data\.task"):
        checks._refuse(repo.configure(gate={"metric": "rmse"}), "binary")


def test_a_sample_that_this_run_does_not_need_may_be_missing(repo: Repo) -> None:
    aws = Aws(repo.configure(data={"sample": "samples/gone.csv"}))
    run._refuse_unfit(aws, elsewhere=True)
    with pytest.raises(MlopsError, match="does not exist"):
        run._refuse_unfit(Aws(repo.settings(), sandbox=True), elsewhere=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    (root / "model").mkdir(parents=True)
    (root / "model" / "train.py").write_text("pass\n")
    (root / ".gitignore").write_text("build/\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return root


def commit_all(root: Path, message: str = "next") -> str:
    git(root, "add", ".")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    git(root, *who, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def versioned(account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Return an account with an execution of the first commit of `repo`."""
    # moto knows no steps, and answers the oldest execution first.
    monkeypatch.setattr(executions, "_steps", lambda *_: [])
    account.sagemaker.meta.events.register(
        "after-call.sagemaker.ListPipelineExecutions",
        lambda parsed, **_: parsed["PipelineExecutionSummaries"].reverse(),
    )
    (repo.root / ".gitignore").write_text("data/\n")
    git(repo.root, "init", "--quiet", "--initial-branch=main")
    commit_all(repo.root)
    run.start(account, {}, print)
    return account


def now(aws: Aws) -> Aws:
    """Return the account as a new process would see it: with the settings of the repo as it is."""
    again = replace(aws, settings=load(aws.settings.root))
    # The clients with what moto lacks.
    again.__dict__["_clients"] = aws._clients
    return again


def what_trained(aws: Aws, **given: str) -> str | None:
    found = run.trained(now(aws), run.plan(now(aws), given, print))
    return found[0].arn if found else None


def executions_of(aws: Aws) -> list[str]:
    return [item["PipelineExecutionArn"] for item in executions.summaries(aws)]


def test_a_commit_that_changes_no_model_needs_no_training(versioned: Aws, repo: Repo) -> None:
    (repo.root / "README.md").write_text("Another text.\n")
    commit_all(repo.root)
    [first] = executions_of(versioned)
    assert what_trained(versioned) == first
    # One that somebody else started with another parameter is not what main holds.
    run.start(versioned, {"max_depth": "3"}, print)
    assert what_trained(versioned) == first
    assert what_trained(versioned, max_depth="3") is None
    # Whatever it was trained for, it is what main holds.
    wanted = run.plan(now(versioned), {}, print)
    arn = run.launch(versioned, wanted, print, "drift in production")
    assert what_trained(versioned) == arn
    found = versioned.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert executions.reason(found["PipelineExecutionDescription"]) == "drift in production"
    # Without the comparison it is the same model.
    run.start(versioned, {"WaiveChampion": "yes"}, print)
    assert what_trained(versioned) == executions_of(versioned)[0]


@pytest.mark.parametrize(
    "file",
    [
        "model/train.py",
        *(
            pytest.param(file, marks=pytest.mark.long)
            for file in ("mlops.yaml", "data/breast-cancer.csv")
        ),
    ],
)
def test_what_no_execution_was_trained_from_is_new(versioned: Aws, repo: Repo, file: str) -> None:
    """The commit that brought it may have failed; the one that repairs the build need not touch
    it."""
    path = repo.root / file
    before = path.read_text()
    path.write_text(before.replace("validation: 0.15", "validation: 0.2").rstrip("\n") + "\n\n")
    if file.endswith(".csv"):
        path.write_text("\n".join(before.splitlines()[:-1]))
    commit_all(repo.root)
    (repo.root / "README.md").write_text("Repaired.\n")
    commit_all(repo.root)
    assert what_trained(versioned) is None
    run.start(now(versioned), {}, print)
    assert what_trained(versioned) == executions_of(versioned)[0]
    # Back to the first: the newest counts, as after a revert.
    path.write_text(before)
    commit_all(repo.root)
    assert what_trained(versioned) is None


def test_what_another_branch_trained_is_not_what_main_holds(versioned: Aws, repo: Repo) -> None:
    """Its version could not be deployed: its commit is not on main."""
    git(repo.root, "switch", "--quiet", "--create", "side")
    (repo.root / "model" / "train.py").write_text("pass\n")
    # The same files in the same second are the same commit, but for the message.
    commit_all(repo.root, "side")
    run.start(versioned, {}, print)
    git(repo.root, "switch", "--quiet", "main")
    git(repo.root, "restore", "--source", "side", "model/train.py")
    commit_all(repo.root)
    assert what_trained(versioned) is None


@pytest.mark.parametrize(
    ("status", "failed", "counts"),
    [
        ("Executing", {}, True),
        ("Stopped", {}, False),
        ("Failed", {"TrainingJob": {"Arn": "job/x"}}, False),
        ("Failed", {"Fail": {"ErrorMessage": "QualityGate: auc 0.4"}}, True),
    ],
)
def test_an_execution_without_a_verdict_has_trained_nothing(
    versioned: Aws,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    failed: dict[str, object],
    counts: bool,
) -> None:
    [first] = executions_of(versioned)
    step = {"StepName": "it", "StepStatus": "Failed", "Metadata": failed}
    monkeypatch.setattr(executions, "_steps", lambda *_: [executions._step(step)] if failed else [])
    monkeypatch.setattr(
        versioned.sagemaker,
        "describe_pipeline_execution",
        lambda **_: {"PipelineExecutionStatus": status},
    )
    assert what_trained(versioned) == (first if counts else None)


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_clean_clone_is_at_its_commit(clone: Path) -> None:
    assert commit.current(clone) == git(clone, "rev-parse", "HEAD")


@pytest.mark.parametrize("file", ["model/train.py", "model/new.py", "mlops.yaml", "tool.txt"])
def test_what_trains_the_model_and_is_not_committed_makes_it_dirty(clone: Path, file: str) -> None:
    (clone / file).write_text("changed\n")
    assert commit.current(clone) == git(clone, "rev-parse", "HEAD") + "-dirty"


def test_notes_beside_the_model_do_not_make_it_dirty(clone: Path) -> None:
    (clone / "notes.md").write_text("ideas\n")
    assert not commit.current(clone).endswith("-dirty")


def test_outside_git_and_in_an_ignored_folder_the_commit_is_unknown(
    clone: Path, tmp_path: Path
) -> None:
    ignored = clone / "build" / "repo"
    ignored.mkdir(parents=True)
    assert commit.current(ignored) == "unknown"
    assert commit.current(tmp_path) == "unknown"
