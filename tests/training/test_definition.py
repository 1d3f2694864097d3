"""The compiled definition, judged by botocore's model of the requests it will become."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from repos import Repo, mlops
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings, SettingsError, parameter_name
from sm_mlops.tabular.measures import LOWER
from sm_mlops.training.definition import DEFINITION, compile_pipeline

# Compiling imports the SDK: seconds, once per process.
pytestmark = pytest.mark.slow

ACCOUNT = "1" * 12
OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "RegisterModel": "CreateModelPackage",
}
BASELINE = {
    "ModelQuality": ("evaluation.json", "evaluation-constraints.json"),
    "ModelDataQuality": ("statistics.json", "constraints.json"),
}
Compiled = dict[str, Any]


@pytest.fixture
def compiled() -> Callable[[Settings], Compiled]:
    return lambda settings: dict(json.loads(compile_pipeline(settings, ACCOUNT).definition))


def all_steps(definition: Compiled) -> dict[str, Any]:
    found = {}

    def collect(steps: list[dict[str, Any]]) -> None:
        for step in steps:
            found[step["Name"]] = step
            if step["Type"] == "Condition":
                collect(step["Arguments"]["IfSteps"])
                collect(step["Arguments"]["ElseSteps"])

    collect(definition["Steps"])
    return found


def resolved(value: Any, parameters: dict[str, Any]) -> Any:
    """Return `value` with parameters at their defaults and other references as S3 addresses."""
    if isinstance(value, list):
        return [resolved(item, parameters) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        name = value["Get"].removeprefix("Parameters.")
        return parameters.get(name, "s3://bucket/of/a/step")
    if set(value) == {"Std:Join"}:
        parts = [resolved(item, parameters) for item in value["Std:Join"]["Values"]]
        return value["Std:Join"]["On"].join(str(part) for part in parts)
    if set(value) == {"Std:JsonGet"}:
        return "measured"
    return {key: resolved(item, parameters) for key, item in value.items()}


def test_two_compilations_are_the_same_bytes(repo: Repo) -> None:
    settings = repo.settings()
    assert compile_pipeline(settings, ACCOUNT) == compile_pipeline(settings, ACCOUNT)


def test_the_steps_are_the_six_of_the_design(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    steps = all_steps(compiled(repo.settings()))
    assert {name: step["Type"] for name, step in steps.items()} == {
        "Preprocess": "Processing",
        "Train": "Training",
        "Evaluate": "Processing",
        "QualityGate": "Condition",
        "Register": "RegisterModel",
        "GateFailed": "Fail",
    }


def test_every_job_has_the_tags_of_the_bill(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    """A version has those of its group and takes none."""
    steps = all_steps(compiled(repo.settings()))
    wanted = [{"Key": "project", "Value": "churn"}, {"Key": "owner", "Value": "unknown"}]
    for name, step in steps.items():
        tags = wanted if step["Type"] in ("Processing", "Training") else None
        assert step["Arguments"].get("Tags") == tags, name


KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000"
EVERYTHING: dict[str, dict[str, Any]] = {
    "aws": {
        "kms_key": KEY,
        "subnets": ["subnet-0a"],
        "security_groups": ["sg-0a"],
        "network_isolation": True,
        "encrypt_between_containers": True,
    },
    "compute": {"train": {"spot": True}},
}


@pytest.mark.parametrize("sections", [{}, EVERYTHING], ids=["defaults", "everything switched on"])
def test_every_request_is_one_that_botocore_accepts(
    repo: Repo, compiled: Callable[[Settings], Compiled], sections: dict[str, Any]
) -> None:
    definition = compiled(repo.configure(**sections))
    parameters = {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]}
    model = botocore.session.get_session().get_service_model("sagemaker")
    for name, step in all_steps(definition).items():
        if step["Type"] in OPERATIONS:
            shape = model.operation_model(OPERATIONS[step["Type"]]).input_shape
            request = resolved(step["Arguments"], parameters)
            # The service gives jobs their names.
            names = {
                "CreateProcessingJob": "ProcessingJobName",
                "CreateTrainingJob": "TrainingJobName",
            }
            if job := names.get(OPERATIONS[step["Type"]]):
                request[job] = name
            assert shape is not None
            report = ParamValidator().validate(request, shape)
            assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_key_network_and_isolation_reach_every_job(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    steps = all_steps(compiled(repo.configure(**EVERYTHING)))
    key = KEY
    for name in ("Preprocess", "Evaluate"):
        job = steps[name]["Arguments"]
        assert job["ProcessingOutputConfig"]["KmsKeyId"] == key
        assert job["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == key
        assert job["NetworkConfig"] == {
            "EnableNetworkIsolation": True,
            "EnableInterContainerTrafficEncryption": True,
            "VpcConfig": {"SecurityGroupIds": ["sg-0a"], "Subnets": ["subnet-0a"]},
        }
    job = steps["Train"]["Arguments"]
    assert job["OutputDataConfig"]["KmsKeyId"] == job["ResourceConfig"]["VolumeKmsKeyId"] == key
    assert job["VpcConfig"] == {"SecurityGroupIds": ["sg-0a"], "Subnets": ["subnet-0a"]}
    assert job["EnableNetworkIsolation"] is job["EnableInterContainerTrafficEncryption"] is True


@pytest.mark.parametrize(
    "instance", ["ml.g4dn.xlarge", "ml.m5d.large", "ml.g5.xlarge", "ml.p6-b300.48xlarge"]
)
def test_local_storage_takes_no_key_and_everything_else_does(
    repo: Repo, compiled: Callable[[Settings], Compiled], instance: str
) -> None:
    repo.configure(aws={"kms_key": KEY})
    settings = repo.configure(compute={"train": {"instance": instance}})
    steps = all_steps(compiled(settings))
    train = steps["Train"]["Arguments"]
    assert "VolumeKmsKeyId" not in train["ResourceConfig"]
    assert train["OutputDataConfig"]["KmsKeyId"] == KEY
    cluster = steps["Evaluate"]["Arguments"]["ProcessingResources"]["ClusterConfig"]
    assert cluster["VolumeKmsKeyId"] == KEY
    settings = repo.configure(compute={"train": {}, "evaluate": {"instance": instance}})
    cluster = all_steps(compiled(settings))["Evaluate"]["Arguments"]["ProcessingResources"]
    assert "VolumeKmsKeyId" not in cluster["ClusterConfig"]


@pytest.mark.parametrize(
    ("name", "meant"), [("n_estimators", "num_boost_round"), ("max_dept", "max_depth")]
)
def test_a_hyperparameter_that_nothing_knows_is_refused_with_the_one_that_is_meant(
    repo: Repo, name: str, meant: str
) -> None:
    settings = repo.configure(hyperparameters={name: 3})
    with pytest.raises(MlopsError, match=rf"'{name}' is unknown; did you mean '{meant}'\?"):
        compile_pipeline(settings, ACCOUNT)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("booster", "gblinear", "use one of gbtree, dart"),
        ("eval_metric", "aucp", "did you mean 'aucpr'?"),
        ("learning_rate", "fast", "not a number"),
        ("max_depth", 2.5, "not a whole number"),
    ],
)
def test_a_value_that_xgboost_does_not_know_is_refused_before_anything_starts(
    repo: Repo, compiled: Callable[[Settings], Compiled], name: str, value: object, why: str
) -> None:
    settings = repo.configure(hyperparameters={name: value})
    with pytest.raises(MlopsError, match=rf"'{name}' is '{value}'.*{re.escape(why)}"):
        compile_pipeline(settings, ACCOUNT)
    train = repo.root / "model" / "train.py"
    text = train.read_text()
    # Read by the team's code, or handed on to something else than our fit.
    for other in (f"{text}\nREAD = '{name}'\n", text.replace("boosting.fit", "boosting.other")):
        train.write_text(other)
        compiled(settings)
    train.write_text(text)
    compiled(repo.configure(hyperparameters={name: f'"{value}"'}))


def test_a_hyperparameter_of_the_team_s_own_code_is_its_own_affair(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    settings = repo.configure(hyperparameters={"early_stop_delta": 3, "learning_rate": 0.1})
    with pytest.raises(MlopsError, match="'early_stop_delta' is unknown"):
        compile_pipeline(settings, ACCOUNT)
    train = repo.root / "model" / "train.py"
    train.write_text(f"{train.read_text()}\nDELTA = 'early_stop_delta'\n")
    given = all_steps(compiled(settings))["Train"]["Arguments"]["HyperParameters"]
    assert given["early_stop_delta"] == {"Get": "Parameters.EarlyStopDelta"}
    train.write_text("print('another kind of model')\n")
    compiled(repo.configure(hyperparameters={"trees": 3}))


def test_spot_training_waits_for_capacity_and_keeps_checkpoints(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    job = all_steps(compiled(repo.configure(**EVERYTHING)))["Train"]["Arguments"]
    assert job["EnableManagedSpotTraining"] is True
    limits = job["StoppingCondition"]
    assert limits["MaxWaitTimeInSeconds"] > limits["MaxRuntimeInSeconds"]
    # Part of the cache key: an address per execution would keep every cache from hitting. But a job
    # downloads everything below it, so not one for all data.
    *_, last = job["CheckpointConfig"]["S3Uri"]["Std:Join"]["Values"]
    assert last == {"Get": "Parameters.DataHash"}


def test_every_job_and_the_registration_retry_throttling(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    for name, step in all_steps(compiled(repo.settings())).items():
        if step["Type"] in OPERATIONS:
            retried = {kind for policy in step["RetryPolicies"] for kind in policy["ExceptionType"]}
            assert "Step.THROTTLING" in retried, name
            if step["Type"] != "RegisterModel":
                assert {"SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"} <= retried, name


def test_everything_an_execution_writes_is_below_its_own_prefix(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    steps = all_steps(compiled(repo.settings()))
    written = [
        output["S3Output"]["S3Uri"]
        for name in ("Preprocess", "Evaluate")
        for output in steps[name]["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    ]
    written.append(steps["Train"]["Arguments"]["OutputDataConfig"]["S3OutputPath"])
    for address in written:
        assert {"Get": "Execution.PipelineExecutionId"} in address["Std:Join"]["Values"]


def test_another_gate_changes_no_job_at_all(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    before = compiled(repo.settings())
    after = compiled(repo.configure(gate={"metric": "f1", "threshold": 0.1, "tolerance": 0.2}))
    assert before != after
    for name in ("Preprocess", "Train", "Evaluate"):
        assert all_steps(before)[name] == all_steps(after)[name]


def test_another_key_is_another_artifact_so_no_step_is_a_cache_hit(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    """SageMaker's cache key has no KMS key: what a step has written keeps the one of its time."""
    other = KEY.replace("00000000-", "11111111-")
    inputs = [
        all_steps(compiled(repo.configure(aws={"kms_key": key})))["Preprocess"]["Arguments"][
            "ProcessingInputs"
        ]
        for key in (None, KEY, other)
    ]
    assert all(one != two for one, two in itertools.combinations(inputs, 2))


def test_slices_are_shown_by_the_gate_s_metric_which_then_runs_evaluate_again(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    before = all_steps(compiled(repo.configure(evaluation={"slices": ["mean_radius"]})))
    after = all_steps(compiled(repo.configure(gate={"metric": "f1"})))
    jobs = ("Preprocess", "Train", "Evaluate")
    assert [name for name in jobs if before[name] != after[name]] == ["Evaluate"]


@pytest.mark.parametrize(("metric", "kind"), [("auc", "classes"), ("rmse", "quantity")])
def test_preprocess_is_told_what_the_gates_metric_is_for(
    repo: Repo, compiled: Callable[[Settings], Compiled], metric: str, kind: str
) -> None:
    steps = all_steps(compiled(repo.configure(gate={"metric": metric})))
    given = steps["Preprocess"]["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert given[given.index("--measured-as") + 1] == kind


OWN_METRICS = """
from sm_mlops.tabular.metrics import higher_is_better, lower_is_better


@lower_is_better
def cost(truth, predicted, rows): ...


@higher_is_better
def gain(truth, predicted, rows): ...
"""


@pytest.mark.parametrize(("metric", "type_"), [("cost", "LessThan"), ("gain", "GreaterThan")])
def test_the_gate_compares_in_the_direction_of_a_metric_of_the_team_s_own(
    repo: Repo, compiled: Callable[[Settings], Compiled], metric: str, type_: str
) -> None:
    with pytest.raises(SettingsError, match=rf"must be one of .*, mape, or .*, not {metric}$"):
        repo.configure(gate={"metric": metric})
    (repo.root / "model" / "evaluate.py").write_text(OWN_METRICS)
    steps = all_steps(compiled(repo.configure(gate={"metric": metric})))
    absolute, _ = steps["QualityGate"]["Arguments"]["Conditions"]
    assert absolute["Type"] == f"{type_}OrEqualTo"
    given = steps["Preprocess"]["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert given[given.index("--measured-as") + 1] == "either"
    with pytest.raises(SettingsError, match=r"cost, gain, or .*, not coat; did you mean cost?"):
        repo.configure(gate={"metric": "coat"})


@pytest.mark.parametrize("metric", ["auc", "rmse"])
def test_the_gate_compares_in_the_direction_of_its_metric(
    repo: Repo, compiled: Callable[[Settings], Compiled], metric: str
) -> None:
    gate = all_steps(compiled(repo.configure(gate={"metric": metric})))["QualityGate"]["Arguments"]
    absolute, relative = gate["Conditions"]
    lower = metric in LOWER
    assert absolute["Type"] == ("LessThanOrEqualTo" if lower else "GreaterThanOrEqualTo")
    assert absolute["LeftValue"]["Std:JsonGet"]["Path"] == f"metrics.{metric}.value"
    assert relative["Type"] == "LessThanOrEqualTo"
    assert relative["LeftValue"]["Std:JsonGet"]["Path"] == f"metrics.{metric}.worse_by"


def test_a_version_names_its_repository_commit_data_sample_and_baseline(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    request = all_steps(compiled(repo.settings()))["Register"]["Arguments"]
    assert request["MetadataProperties"]["Repository"] == "https://github.com/acme/churn"
    assert request["MetadataProperties"]["CommitId"] == {"Get": "Parameters.Commit"}
    # The approval trigger asks it which server deploys.
    assert request["CustomerMetadataProperties"]["CI"] == repo.settings().project.ci
    assert request["CustomerMetadataProperties"]["DataHash"] == {"Get": "Parameters.DataHash"}
    assert "Versions" in request["CustomerMetadataProperties"]
    assert request["SamplePayloadUrl"]["Std:Join"]["Values"][-1] == "sample-payload.tar.gz"
    evaluation = request["SamplePayloadUrl"]["Std:Join"]["Values"][0]
    for kind, (statistics, constraints) in BASELINE.items():
        for name, file in (("Statistics", statistics), ("Constraints", constraints)):
            address = {"Std:Join": {"On": "/", "Values": [evaluation, file]}}
            wanted = {"ContentType": "application/json", "S3Uri": address}
            assert request["ModelMetrics"][kind][name] == wanted
            assert request["DriftCheckBaselines"][kind][name] == wanted


def test_without_parameters_an_execution_has_no_data(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    parameters = {
        item["Name"]: item["DefaultValue"] for item in compiled(repo.settings())["Parameters"]
    }
    assert parameters["InputData"].endswith("/churn/data/none/")
    assert parameters["Champion"].endswith("/churn/champion/none/")


def test_every_hyperparameter_can_be_set_for_one_execution(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    settings = repo.configure(hyperparameters={"max_depth": 3})
    definition = compiled(settings)
    names = {item["Name"] for item in definition["Parameters"]}
    given = all_steps(definition)["Train"]["Arguments"]["HyperParameters"]
    for name in settings.hyperparameters:
        assert parameter_name(name) in names
        assert given[name] == {"Get": f"Parameters.{parameter_name(name)}"}


def test_no_other_account_or_region_is_in_the_definition(repo: Repo) -> None:
    text = compile_pipeline(repo.settings(), ACCOUNT).definition
    registry = re.search(r"(\d{12})\.dkr\.ecr", text)
    assert registry
    # A digest of code may hold twelve digits in a row, too.
    accounts = set(re.findall(r"(?<![0-9a-f])\d{12}(?![0-9a-f])", text))
    assert accounts == {ACCOUNT, registry.group(1)}


def test_compiling_calls_no_service_and_writes_no_file(repo: Repo) -> None:
    before = {path: path.stat().st_mtime_ns for path in repo.root.rglob("*")}
    home = repo.root.parent / "home"
    home.mkdir()
    # Any call fails at once: nothing listens on port 9, and there are no keys.
    done = mlops(repo.root, "compile", HOME=str(home), AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["Version"] == "2020-12-01"
    assert {path: path.stat().st_mtime_ns for path in repo.root.rglob("*")} == before
    assert not list(home.rglob("*"))


def test_compiling_leaves_the_process_as_it_was(repo: Repo) -> None:
    compile_pipeline(repo.settings(), ACCOUNT)
    from sagemaker.core.config.config_manager import SageMakerConfig
    from sagemaker.mlops.workflow import steps

    def state() -> list[object]:
        sdk = (SageMakerConfig.validate_sagemaker_config, steps.LocalSagemakerClient)
        return [dict(os.environ), list(logging.getLogger().handlers), list(warnings.filters), sdk]

    before = state()
    compile_pipeline(repo.settings(), ACCOUNT)
    assert state() == before


def test_the_sdk_sends_no_telemetry(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagemaker.core.telemetry import telemetry_logging

    sent: list[object] = []
    monkeypatch.setattr(
        telemetry_logging, "_send_telemetry_request", lambda *event: sent.append(event)
    )
    compile_pipeline(repo.settings(), ACCOUNT)
    assert sent == []


def edited(repo: Repo, before: str, after: str) -> Settings:
    """Replace a text of the definition, which must be there once."""
    file = repo.root / DEFINITION
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), encoding="utf-8")
    return repo.settings()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("    return Pipeline(", "    return Pipeline)", r", line \d+: SyntaxError: "),
        ('parameters["Commit"]', 'parameters["Comit"]', r", line \d+: KeyError: 'Comit'"),
        ('repo.code("evaluate.py"', 'repo.code("judge.py"', "^model/judge.py: no such file"),
        ('"data.target", ', '"data.goal", ', "mlops.yaml has no key data.goal"),
        ("def pipeline(", "def pipelines(", r"must define a function pipeline\(repo\)"),
        ('ParameterString("InputData"', 'ParameterString("Eta", "1"),ParameterString("InputData"',
         "two parameters are called Eta"),
        ("code.input, *(repo.input(name, place)", "*(repo.input(name, place)",
         "no step has the code of model/evaluate.py; add code.input"),
        ("import IN,", "import MINE, IN,", ", line .*: ImportError: "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_definition_is_one_line_that_names_its_place(
    repo: Repo, before: str, after: str, said: str
) -> None:
    settings = edited(repo, before, after)
    with pytest.raises(MlopsError, match=said) as refused:
        compile_pipeline(settings, ACCOUNT)
    assert "\n" not in str(refused.value)
    assert str(DEFINITION) in str(refused.value) or "model/" in str(refused.value)


def test_a_repo_without_a_definition_fails_in_one_line(repo: Repo) -> None:
    (repo.root / DEFINITION).unlink()
    with pytest.raises(MlopsError, match=r"pipeline/definition\.py: no such file"):
        compile_pipeline(repo.settings(), ACCOUNT)


def test_settings_of_the_evaluation_that_no_step_reads_are_refused(
    repo: Repo, compiled: Callable[[Settings], Compiled]
) -> None:
    compiled(repo.configure(evaluation={"threshold": 0.3}))
    file = repo.root / DEFINITION
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(', "evaluation.threshold"', ""), encoding="utf-8")
    with pytest.raises(MlopsError, match=r"no step reads evaluation\.threshold of mlops\.yaml"):
        compiled(repo.settings())
