"""No legal edit turns a rendered repo red, and an illegal one does so with a line that helps.

Each edit alone meets the rendered tests that read its file, in this process; many together, on two
data sets, meet all of the rendered tests, as `make test` runs them. `make test` runs one of the
latter and the edits that it lacks; the others are marked long.
"""

from __future__ import annotations

import csv
import difflib
import importlib.util
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import datasets
from container_case import sklearn_links
from rendering import Rendered, run
from sm_mlops import objects, testing
from sm_mlops.errors import MlopsError
from sm_mlops.settings import SettingsError, load
from sm_mlops.training.definition import compile_pipeline

Edit = Callable[[Path], object]
EUROPE = "3 x ml.m5.large at 0.138 USD per hour x 730 hours"
SUBNETS = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
GROUPS = ["sg-0123456789abcdef0"]
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


# Edits


def mlops(**sections: Mapping[str, Any] | str | None) -> Edit:
    """Return the edit that replaces keys of mlops.yaml, section by section; None empties one."""

    def edit(root: Path) -> None:
        file = root / "mlops.yaml"
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, keys in sections.items():
            more = {**(content.get(name) or {}), **keys} if isinstance(keys, Mapping) else keys
            content[name] = more
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    return edit


def stage(name: str, parameters: Mapping[str, Any] | None = None, **keys: Any) -> Edit:
    """Return the edit that replaces keys and parameters of infra/<name>.json."""

    def edit(root: Path) -> None:
        file = root / "infra" / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        content |= keys
        content["Parameters"] = {**content.get("Parameters", {}), **(parameters or {})}
        file.write_text(json.dumps(content, indent=2), encoding="utf-8")

    return edit


def replace(name: str, old: str, new: str) -> Edit:
    """Return the edit that replaces text that occurs once in a file."""

    def edit(root: Path) -> None:
        file = root / name
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def together(*edits: Edit) -> Edit:
    """Return the edit that makes all of these."""

    def edit(root: Path) -> None:
        for each in edits:
            each(root)

    return edit


def one_more_step(root: Path) -> None:
    """Add a step of the team's own to the pipeline, in plain SDK."""
    file = root / "pipeline" / "definition.py"
    text = file.read_text(encoding="utf-8")
    text, count = re.subn(r"(steps=\[preprocess, train, evaluate, )", r"\1watch, ", text)
    assert count == 1
    added = """
        watch = ConditionStep(
            name="Watch",
            conditions=[AtMost(left=1.0, right=2.0)],
            if_steps=[],
            else_steps=[],
        )
    """
    text, count = re.subn(
        r"\n    (pipeline =|return) Pipeline\(",
        lambda found: textwrap.indent(textwrap.dedent(added), "    ") + found[0],
        text,
    )
    assert count == 1
    file.write_text(text, encoding="utf-8")


def lines(old: str, new: str) -> int:
    """Return how many lines `new` adds or changes, imports and blank lines included."""
    changes = difflib.ndiff(old.splitlines(), new.splitlines())
    return sum(line.startswith("+ ") for line in changes)


def written(name: str, old: str, new: str, most: int) -> Edit:
    """Return the edit that replaces text of a file of model/, in at most this many lines."""

    def edit(root: Path) -> None:
        before = (root / name).read_text(encoding="utf-8")
        replace(name, old, new)(root)
        assert lines(before, (root / name).read_text(encoding="utf-8")) <= most

    return edit


def model_of(functions: str, most: int) -> Edit:
    """Return the edit that replaces all that train.py imports and defines."""

    def edit(root: Path) -> None:
        file = root / "model" / "train.py"
        before = file.read_text(encoding="utf-8")
        start, end = before.index("\nfrom pathlib"), before.index("\n\nif __name__")
        after = before[:start] + functions + before[end:]
        assert lines(before, after) <= most
        file.write_text(after, encoding="utf-8")

    return edit


DERIVED = written(
    "model/preprocess.py",
    "    return rows\n",
    """\
    rows["area_by_radius"] = rows["mean_area"] / rows["mean_radius"]
    return rows.drop(columns=["mean_area"])
""",
    most=10,
)
FOREST = '''
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sm_mlops.tabular.encoder import Encoding
from sm_mlops.tabular.rows import Rows


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Any:
    """Return the encoding and a random forest on it."""
    encoding = Encoding.fit(train)
    kind = RandomForestClassifier if train.schema.classes else RandomForestRegressor
    forest = kind(n_estimators=20, random_state=0)
    return encoding, forest.fit(encoding.encode(train), train.labels)


def predict(model: Any, rows: Rows) -> np.ndarray:
    """Return a prediction per row."""
    encoding, forest = model
    return getattr(forest, "predict_proba", forest.predict)(encoding.encode(rows))


def save(model: Any, folder: Path) -> None:
    """Write encoding and forest."""
    encoding, forest = model
    encoding.save(folder)
    joblib.dump(forest, folder / "forest.joblib")


def load(folder: Path) -> Any:
    """Return encoding and forest."""
    return Encoding.load(folder), joblib.load(folder / "forest.joblib")
'''
OWN_ENCODING = '''
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sm_mlops.tabular.rows import Rows


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return columns of text with a word for a missing one."""
    return frame.fillna("missing")


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Pipeline:
    """Return a logistic regression on scaled numbers and one-hot categories."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(FunctionTransformer(as_text), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="float64")),
            ("texts", texts, make_column_selector(dtype_include="object")),
        ]
    )
    strength = float(parameters.get("strength", 1.0))
    return make_pipeline(columns, LogisticRegression(C=strength, max_iter=1000)).fit(
        train.frame, train.labels
    )


def predict(model: Pipeline, rows: Rows) -> np.ndarray:
    """Return probabilities per row."""
    return model.predict_proba(rows.frame)


def save(model: Pipeline, folder: Path) -> None:
    """Write the scikit-learn pipeline."""
    joblib.dump(model, folder / "pipeline.joblib")


def load(folder: Path) -> Pipeline:
    """Return the scikit-learn pipeline."""
    return joblib.load(folder / "pipeline.joblib")
'''
COST = written(
    "model/evaluate.py",
    "from pathlib import Path\n\n",
    """\
from pathlib import Path

from sm_mlops.tabular.metrics import lower_is_better


@lower_is_better
def cost(truth, predicted, rows):
    return ((truth != predicted["prediction"]) * rows["mean_area"]).mean()


""",
    most=8,
)
OWN_HYPERPARAMETER = written(
    "model/train.py",
    "    return boosting.fit(train, validation, parameters)\n",
    """\
    parameters["max_depth"] = parameters["leaves"].bit_length()
    return boosting.fit(train, validation, parameters)
""",
    most=1,
)
random_forest = together(model_of(FOREST, most=40), mlops(hyperparameters=None))


def sample(root: Path) -> None:
    """Keep rows in the repo that stand in for data in S3."""
    (root / "samples").mkdir()
    datasets.write_csv(root / "samples" / "x.csv", datasets.churn(rows=400))
    mlops(
        data={
            "path": "s3://somewhere/churn/",
            "sample": "samples/x.csv",
            "target": "Churn",
            "positive": "Yes",
        }
    )(root)


def houses(root: Path) -> None:
    """Use other data, with a number to predict and a column named like an option."""
    table = datasets.houses(rows=400)
    table["--target"] = table.pop("LotFrontage")
    (root / "rows").mkdir()
    pq.write_table(pa.table(table), root / "rows" / "houses.parquet")
    mlops(
        data={"path": "rows", "target": "SalePrice", "positive": None, "drop": ["Id"]},
        gate={"metric": "rmse", "threshold": 40000, "tolerance": 500},
    )(root)


def letters(root: Path) -> None:
    """Bring data with several classes."""
    datasets.write_csv(root / "letters.csv", datasets.letters(rows=600, classes=4), ";")
    mlops(
        data={"path": "letters.csv", "target": "letter", "positive": None},
        gate={"metric": "f1", "threshold": 0.5},
    )(root)


SETTINGS: dict[str, Edit] = {
    "gate-recall": mlops(gate={"metric": "recall"}),
    "gate-rmse": houses,
    "gate-threshold": mlops(gate={"threshold": 0.9}),
    "data-sample": sample,
    "multiclass": letters,
    "role": mlops(aws={"role": "DataScienceRole"}),
    "role-arn": mlops(aws={"role": "arn:aws:iam::210987654321:role/team/Science"}),
    "bucket": mlops(aws={"bucket": "our-models"}),
    "kms": mlops(aws={"kms_key": KEY}),
    "vpc": mlops(aws={"subnets": SUBNETS, "security_groups": GROUPS, "network_isolation": True}),
    "encrypted": mlops(aws={"encrypt_between_containers": True}),
    "spot": mlops(compute={"train": {"instance": "ml.c5.xlarge", "spot": True, "max_hours": 12}}),
    "no-hyperparameters": mlops(hyperparameters=None),
    "other-hyperparameters": mlops(
        hyperparameters={"max_depth": 3, "gamma": 0.1, "tree_method": "approx"}
    ),
    "split": mlops(split={"validation": 0.2, "test": 0.3, "seed": 7}),
    "defaults": mlops(split=None, gate=None, compute=None, aws=None),
    "one-more-step": one_more_step,
    "random-forest": random_forest,
    "derived-column": DERIVED,
    "own-encoding": together(model_of(OWN_ENCODING, most=80), mlops(hyperparameters=None)),
    "own-metric": together(COST, mlops(gate={"metric": "cost", "threshold": 100})),
    "own-hyperparameter": together(OWN_HYPERPARAMETER, mlops(hyperparameters={"leaves": 8})),
}
SERVERLESS = {"EndpointKind": "serverless"}
SSM = "{Type: 'AWS::SSM::Parameter::Value<String>', Default: /vpc/id}"
STAGES: dict[str, Edit] = {
    "reviewers": stage("production", Reviewers=["some-login", "my-org/ml-leads"]),
    "no-reviewers": stage("production", Reviewers=[]),
    "tag": stage("staging", Tags={"cost-owner": "Kredit", "team": "risk/é"}),
    "no-tags": stage("staging", Tags={}),
    "staging-serverless": stage("staging", {"EndpointKind": "serverless"}),
    "production-serverless": stage("production", {"EndpointKind": "serverless"}),
    "production-asynchronous": stage("production", {"EndpointKind": "asynchronous"}),
    "production-batch": stage(
        "production",
        {"EndpointKind": "batch"},
        Batch={
            "Schedule": "cron(0 5 * * ? *)",
            "Input": "s3://rows/my-model/batch/production/input/all/",
            "Output": "s3://rows/my-model/batch/production/output/all/",
        },
    ),
    "three-instances": stage("production", {"InstanceCount": 3}),
    "ten-instances": stage("staging", {"InstanceCount": 10}),
    "fixed-size": stage("production", {"InstanceCount": 2, "MaxInstanceCount": 2}),
    "linear": stage("production", {"TrafficShift": "linear", "ShiftPercent": 25}),
    "at-once": stage("production", {"TrafficShift": "all-at-once", "InstanceCount": 1}),
    "price": stage(
        "production",
        {"InstanceCount": 3},
        Cost={
            "IdlePerMonthUSD": 302.22,
            "Because": EUROPE,
            "Priced": "2026-11-28",
            "Region": "eu-central-1",
        },
    ),
    "no-cost": stage("production", Cost={}),
    "vpc": stage("production", {"SubnetIds": SUBNETS, "SecurityGroupIds": GROUPS}),
    "kms": stage("production", {"KmsKeyArn": KEY, "DataCapturePercent": 10}),
    "topic": stage("production", {"AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:alarms"}),
    "other-bucket": stage("production", {"OutputBucket": "ours", "DataCapturePercent": 1}),
    "own-role": stage("production", {"ExecutionRoleArn": "arn:aws:iam::123456789012:role/serving"}),
    "gpu": stage("production", {"InstanceType": "ml.g5.xlarge", "NetworkIsolation": False}),
    "account": stage("production", Account="210987654321", Role="deployer"),
    "region": replace("pyproject.toml", 'region = "us-east-1"', 'region = "il-central-1"'),
    "one-more-stage": stage("qa", {"EndpointKind": "asynchronous"}),
    "minimal": lambda root: (root / "infra" / "staging.json").write_text("{}"),
    # What the sandbox does not know, AWS may.
    "ssm": together(
        replace("infra/endpoint.yml", "\nParameters:\n", f"\nParameters:\n  Vpc: {SSM}\n"),
        replace("infra/endpoint.yml", "Outputs:\n", "Outputs:\n  Mine: {Value: !Ref Vpc}\n"),
    ),
    "own-output": replace("infra/endpoint.yml", "Outputs:\n", "Outputs:\n  Mine: {Value: x}\n"),
}
CI = ".github/workflows"


def other_workflows(root: Path) -> None:
    """Add two whose region and project are another project's, or known only when they run."""
    for region, command in (("eu-central-1", "aws s3 ls"), ("${{ vars.AWS_REGION }}", "mlops run")):
        (root / CI / f"{command.split()[0]}.yml").write_text(
            f"on: push\nenv:\n  AWS_REGION: {region}\n  PROJECT: ${{{{ vars.PROJECT }}}}\njobs:\n"
            f"  own:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: {command}\n"
        )


CI_EDITS: dict[str, Edit] = {
    "schedule": replace(
        f"{CI}/build.yml", "\non:\n", '\non:\n  schedule: [{ cron: "17 3 * * 1" }]\n'
    ),
    "own-job": replace(
        f"{CI}/ci.yml",
        "jobs:\n",
        "jobs:\n  spell:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo fine\n",
    ),
    "no-ci": lambda root: shutil.rmtree(root / ".github"),
    # Of another project, or known only when it runs.
    "other-workflows": other_workflows,
}


# Each alone


def some(edits: dict[str, Edit], *names: str) -> list[Any]:
    """Return all edits as parameters, those that are not named as long ones."""
    long = pytest.mark.long
    return [
        pytest.param(edit, id=name, marks=() if name in names else long)
        for name, edit in edits.items()
    ]


@pytest.fixture
def repo(default: Rendered, tmp_path: Path) -> Path:
    """A copy of the render with default answers."""
    return Path(shutil.copytree(default.path, tmp_path / "repo"))


def rendered_test(root: Path, name: str) -> ModuleType:
    """Return a module of the repo's own tests."""
    spec = importlib.util.spec_from_file_location(f"of_{name}", root / "tests" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("edit", some(SETTINGS, "defaults", "vpc"))
def test_a_legal_edit_keeps_the_pipeline_s_tests_green(repo: Path, edit: Edit) -> None:
    edit(repo)
    module = rendered_test(repo, "test_pipeline")
    # In this process the SDK is imported once.
    vars(module)["compiled"] = lambda root, hash_seed=0: (
        compile_pipeline(load(root), testing.ACCOUNT).definition
    )
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) >= 4
    for test in tests:
        test(module.compiled(repo))


@pytest.mark.slow
@pytest.mark.parametrize(
    "edit", some(STAGES, "minimal", "production-asynchronous", "production-batch", "region", "ssm")
)
def test_a_legal_edit_keeps_the_stages_tests_green(
    repo: Path, default: Rendered, edit: Edit
) -> None:
    edit(repo)
    module, before = rendered_test(repo, "test_stages"), default.files()
    names = module.names(load(repo))
    edited = [
        name
        for name in names
        if (repo / "infra" / f"{name}.json").read_bytes() != before.get(f"infra/{name}.json")
    ]
    for name in edited or names:
        module.test_a_stage_can_be_deployed(name)


@pytest.mark.slow
@pytest.mark.parametrize("edit", some(CI_EDITS, "no-ci", "own-job", "other-workflows"))
def test_a_legal_edit_keeps_the_workflows_tests_green(repo: Path, edit: Edit) -> None:
    edit(repo)
    rendered_test(repo, "test_stages").test_ci_runs_commands_that_exist()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("edit", SETTINGS.values(), ids=SETTINGS)
def test_a_legal_edit_keeps_the_model_s_tests_green(repo: Path, edit: Edit) -> None:
    edit(repo)
    assert_green(repo, "tests/test_model.py")


@pytest.mark.long
@pytest.mark.slow
def test_a_forest_trains_and_answers_in_the_scikit_learn_image(repo: Path, tmp_path: Path) -> None:
    random_forest(repo)
    mlops(image="sklearn-1.9-0")(repo)
    links = sklearn_links(tmp_path / "wheels")
    assert_green(repo, "tests/test_model.py", "tests/test_pipeline.py", **links)


# Four places for the data scientist


QUICK = mlops(hyperparameters={"num_boost_round": 30, "eta": 0.3})


@contextmanager
def served(repo: Path, work: Path) -> Iterator[tuple[testing.Model, list[dict[str, str]]]]:
    """Train and serve; yield the model and raw rows of its data, as a client has them."""
    with testing.trained(repo, work) as model:
        with (repo / "data" / "breast-cancer.csv").open(newline="") as stream:
            rows = [row for row, _ in zip(csv.DictReader(stream), range(5), strict=False)]
        yield model, rows


def version(model: testing.Model) -> dict[str, Any]:
    """Return the registered model package."""
    call, group = model.aws.sagemaker, model.aws.settings.model_package_group
    (found,) = call.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    return dict(call.describe_model_package(ModelPackageName=found["ModelPackageArn"]))


def ask(model: testing.Model, rows: list[Any]) -> list[Any]:
    return model.ask(json.dumps(rows).encode(), testing.JSON)


@pytest.mark.slow
def test_a_derived_column_reaches_the_client_that_sends_raw_rows(
    repo: Path, tmp_path: Path
) -> None:
    together(DERIVED, QUICK)(repo)
    with served(repo, tmp_path / "work") as (model, rows):
        assert {answer["prediction"] for answer in ask(model, rows)} <= {"malignant", "benign"}
        with pytest.raises(testing.Refused, match="'mean_radius', row 1: 'x' is not a number"):
            ask(model, [{**rows[0], "mean_radius": "x"}])
        del rows[0]["mean_area"]
        with pytest.raises(testing.Refused, match="column 'mean_area' is missing in row 1"):
            ask(model, rows)


@pytest.mark.long
@pytest.mark.slow
def test_a_random_forest_on_the_library_s_encoding_answers(repo: Path, tmp_path: Path) -> None:
    random_forest(repo)
    with served(repo, tmp_path / "work") as (model, rows):
        probabilities = [answer["probability"] for answer in ask(model, rows)]
        assert all(round(value * 20, 6).is_integer() for value in probabilities)  # of 20 trees
        assert model.gate["metrics"]["auc"]["value"] > 0.9


@pytest.mark.long
@pytest.mark.slow
def test_an_encoding_of_the_team_s_own_answers(repo: Path, tmp_path: Path) -> None:
    together(
        model_of(OWN_ENCODING, most=80), mlops(hyperparameters=None), sample,
        mlops(hyperparameters={"strength": 0.5}),
    )(repo)  # fmt: skip
    with testing.trained(repo, tmp_path / "work") as model:
        rows = json.loads(model.sample.bodies[testing.JSON])["instances"]
        assert ask(model, rows) == model.sample.expected
        assert {answer["prediction"] for answer in ask(model, [dict.fromkeys(rows[0])])} <= {
            "Yes", "No",
        }  # fmt: skip
        assert "scikit-learn" in model.gate["versions"]


@pytest.mark.long
@pytest.mark.slow
def test_a_metric_of_the_team_s_own_is_the_gate_s(repo: Path, tmp_path: Path) -> None:
    together(COST, QUICK, mlops(gate={"metric": "cost", "threshold": 100, "tolerance": 1}))(repo)
    with served(repo, tmp_path / "work") as (model, rows):
        entry = model.gate["metrics"]["cost"]
        assert (entry["better"], entry["champion"]) == ("lower", None)
        assert entry["text"] == f"cost {entry['value']:.4f} on 85 test rows"
        assert 0 <= entry["value"] < 100
        assert version(model)["CustomerMetadataProperties"]["Evaluation"] == entry["text"]
        assert len(ask(model, rows)) == 5


@pytest.mark.long
@pytest.mark.slow
def test_a_hyperparameter_of_the_team_s_own_reaches_fit(repo: Path, tmp_path: Path) -> None:
    together(OWN_HYPERPARAMETER, QUICK, mlops(hyperparameters={"leaves": 1}))(repo)
    with served(repo, tmp_path / "work") as (model, rows):
        uri = version(model)["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
        report = objects.read(model.aws, uri.replace("evaluation.json", "report.html"))
        assert "max_depth 1," in str(report)
        assert len(ask(model, rows)) == 5


OWN_TEST = """
import pandas as pd
from preprocess import features


def test_features() -> None:
    assert len(features(pd.DataFrame({"radius_mean": [1.0, 2.0]}))) == 2
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("types", "files"),
    [
        pytest.param("", ("model", "tests/test_own.py"), id="types"),
        pytest.param("strict = true\n", (".",), id="strict types"),
    ],
)
def test_a_test_of_the_team_s_own_imports_its_code_as_model_does(
    repo: Path, types: str, files: tuple[str, ...]
) -> None:
    (repo / "tests" / "test_own.py").write_text(OWN_TEST)
    (repo / "model" / "helper.py").write_text("NAME = 'x'\n")
    file = repo / "model" / "preprocess.py"
    file.write_text(f"from helper import NAME as NAME\n{file.read_text()}")
    assert_green(repo, "tests/test_own.py")
    replace("pyproject.toml", "[tool.mypy]\n", f"[tool.mypy]\n{types}")(repo)
    judged = run("python", "-m", "mypy", *files, cwd=repo)
    assert judged.code == 0, judged.out


# All together


def assert_green(root: Path, *arguments: str, **variables: str) -> None:
    """Run the repo's tests as `make test` does, without an account, in any order."""
    done = run(
        *("python", "-m", "pytest", "-q", "-p", "randomly", "-p", "no:cacheprovider", "--tb=short"),
        *arguments,
        cwd=root,
        PYTEST_ADDOPTS="",
        AWS_PROFILE="of-nobody",
        **variables,
    )
    assert done.code == 0, done.out[-8000:] + done.err[-2000:]
    closing = done.out.strip().splitlines()[-1]
    assert re.search(r"\d+ passed", closing) and "skipped" not in closing, closing


TOGETHER: dict[str, Edit] = {
    "classes": together(
        sample,
        mlops(
            gate={"metric": "recall", "threshold": 0.9},
            aws={"role": "DataScienceRole", "bucket": "our-models"},
            compute={"train": {"spot": True}},
        ),
        random_forest,
        one_more_step,
        *(STAGES[name] for name in ("reviewers", "tag", "staging-serverless", "price", "linear")),
        *(STAGES[name] for name in ("vpc", "kms", "account", "one-more-stage", "own-output")),
        CI_EDITS["schedule"],
    ),
    "numbers": together(
        houses,
        mlops(hyperparameters=None, split={"seed": 7}),
        one_more_step,
        *(STAGES[name] for name in ("production-serverless", "ten-instances", "no-tags")),
        CI_EDITS["own-job"],
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("edit", TOGETHER.values(), ids=TOGETHER)
def test_many_legal_edits_together_keep_all_tests_green(repo: Path, edit: Edit) -> None:
    edit(repo)
    assert_green(repo)


# What is illegal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (stage("staging", {"InstanceTyp": "ml.m5.large"}), "did you mean InstanceType?"),
        (stage("staging", {"ServerlessMemoryMB": 2000}), "ServerlessMemoryMB is 2000"),
        (stage("staging", SERVERLESS | {"DataCapturePercent": 5}), "set DataCapturePercent to 0"),
        (stage("staging", SERVERLESS | {"KmsKeyArn": KEY}), "leave SubnetIds and KmsKeyArn empty"),
        (stage("production", {"InstanceCount": 1}), "an InstanceCount of at least 2"),
        (
            stage("production", {"KmsKeyArn": KEY, "InstanceType": "ml.g5.xlarge"}),
            "the local storage of ml.g5.xlarge takes no KMS key",
        ),
        (stage("production", {"InstanceCount": 5}), "MaxInstanceCount is 4, less than"),
        (stage("production", {"SubnetIds": SUBNETS}), "needs both SubnetIds and SecurityGroupIds"),
        (
            stage("production", {"KmsKeyArn": "alias/x"}),
            "expected: ARN of a KMS key (not an alias)",
        ),
        (stage("production", Reviewers="ada"), "Reviewers must be a list"),
        (stage("production", Batch={"Schedule": "daily"}), "Batch.Input must be text"),
        (replace("infra/staging.json", '"Account": null,', '"Account": null,,'), "line 2"),
        (
            replace(
                "infra/endpoint.yml", "Type: AWS::SageMaker::EndpointConfig", "Type: AWS::X::Y"
            ),
            "AWS::X::Y",
        ),
        (
            replace("infra/endpoint.yml", "Name: !Ref ModelPackageArn", "Name: !Ref Nobody"),
            "Nobody",
        ),
    ],
)
def test_an_invalid_stage_is_named_in_one_line(repo: Path, edit: Edit, line: str) -> None:
    edit(repo)
    problems = [
        problem
        for name in rendered_test(repo, "test_stages").names(load(repo))
        for problem in testing.stage_problems(repo, name)
    ]
    assert line in " ".join(problems)
    assert all("\n" not in problem for problem in problems)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (replace(f"{CI}/build.yml", "mlops run", "mlops rum"), "No such command 'rum'"),
        (replace(f"{CI}/build.yml", "mlops run --at", "mlops run --ta"), "option: --ta-most"),
        (
            replace("pyproject.toml", 'region = "us-east-1"', 'region = "eu-west-1"'),
            "AWS_REGION is us-east-1, in pyproject.toml it is eu-west-1",
        ),
        (replace(f"{CI}/ci.yml", "\njobs:\n", "\njbos:\n"), "jbos"),
    ],
)
def test_an_invalid_workflow_is_named(repo: Path, edit: Edit, line: str) -> None:
    edit(repo)
    assert line in " ".join(testing.workflow_problems(repo))


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (mlops(gate={"metric": "acuracy"}), "gate.metric must be one of"),
        (mlops(compute={"train": {"count": 2}}), "would be paid for being idle"),
        (mlops(data={"targt": "x"}), "did you mean target?"),
        (mlops(split={"test": 1.5}), "split.test must be between 0 and 1"),
    ],
)
def test_an_invalid_setting_is_named_in_one_line(repo: Path, edit: Edit, line: str) -> None:
    edit(repo)
    with pytest.raises((MlopsError, SettingsError)) as refused:
        rendered_test(repo, "test_stages")
    assert line in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_definition_that_does_not_compile_says_why(repo: Path) -> None:
    replace("pipeline/definition.py", ' name="Evaluate"', ' name="Evaluate" 1')(repo)
    with pytest.raises(AssertionError, match="invalid syntax"):
        testing.compiled(repo)


@pytest.mark.long
@pytest.mark.slow
def test_a_metric_that_does_not_fit_the_task_is_named(repo: Path) -> None:
    mlops(gate={"metric": "rmse", "threshold": 1})(repo)
    done = run(
        *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_model.py"),
        cwd=repo,
        PYTEST_ADDOPTS="",
    )
    assert done.code == 1
    assert "gate.metric rmse does not fit 'diagnosis', a binary target; choose one" in done.out


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    """Keep what a definition imports from model/ out of the next test."""
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("of_test_") or name == "definition":
            del sys.modules[name]
