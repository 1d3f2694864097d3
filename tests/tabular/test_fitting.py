"""Training: hyperparameters are checked, it resumes where it stopped, the model is complete."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import datasets
from model_case import MODEL, Case, DataError, boosting, train
from sm_mlops.tabular import booster, local

pytestmark = pytest.mark.slow

PACKED = ["model.ubj", "schema.json", "training.json", "versions.json"]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("churn"))
    case.prepare(case.write(datasets.churn(rows=600)), "Churn")
    return case


def folders(case: Case, model: Path) -> list[str]:
    out = case.folder / "out"
    names = ("train", "validation", "preprocessor")
    return [w for n in names for w in (f"--{n}", str(out / n))] + ["--model-dir", str(model)]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MODEL / "train.py"), *arguments],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_target_far_from_zero_with_a_spread_of_one_is_predicted(tmp_path: Path) -> None:
    case = Case(tmp_path)
    table = {"x": [n % 7.0 for n in range(200)], "y": [99_999.0, 100_001.0] * 100}
    case.prepare(case.write(table), "y", task="regression")
    found = boosting.predict(case.train(num_boost_round=2).model, case.rows("validation"))
    assert np.abs(found - 100_000).max() <= 1


def test_hyperparameters_arrive_as_text_and_are_typed() -> None:
    texts = {"eta": '"0.1"', "max_depth": "4.0", "num_boost_round": "7", "reg_lambda": "2"}
    own, given = boosting.hyperparameters(train.hyperparameters({**texts, "alpha": ""}))
    assert own["num_boost_round"] == 7
    assert (given["eta"], given["max_depth"], given["lambda"]) == (0.1, 4, 2.0)
    assert "alpha" not in given


@pytest.mark.parametrize(
    ("name", "value", "pattern"),
    [
        ("max_dept", "3", "'max_dept' is unknown; did you mean 'max_depth'?"),
        ("num_boost_rounds", "3", "did you mean 'num_boost_round'?"),
        ("eta", "fast", "'eta' is 'fast', not a number"),
        ("max_depth", "2.5", "'max_depth' is 2.5, not a whole number"),
        ("num_boost_round", "0", "at least 1"),
        ("booster", "gblinear", "'booster' is 'gblinear'; use one of gbtree, dart"),
        ("eval_metric", "loglosspr", "'eval_metric' is 'loglosspr'; did you mean 'logloss'?"),
        ("objective", "binary:logit", "did you mean 'binary:logitraw'?"),
        ("eval_metric", "rmse@1", "did you mean 'rmse'?"),
        ("eta", "nan", "'eta' is nan, not a number"),
        ("max_depth", "9" * 401, "not a whole number"),
        ("early_stopping_rounds", "-1", "must not be negative"),
    ],
)
def test_a_wrong_hyperparameter_is_named(name: str, value: str, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern.replace("?", r"\?")):
        train.refuse_unknown(MODEL, train.hyperparameters({name: value}))
        boosting.hyperparameters(train.hyperparameters({name: value}))


def test_a_value_xgboost_refuses_is_one_line(case: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"XGBoost refuses a hyperparameter: .*subsample"):
        case.train(subsample="7")
    with pytest.raises(DataError, match=r"XGBoost refuses a hyperparameter: .*Failed to parse"):
        case.train(interaction_constraints="x")


def test_each_value_is_one_that_xgboost_has_a_parameter_for() -> None:
    named = {"error@0.3", "ndcg@5-", "map-"}
    assert not any(booster.wrong("eval_metric", name) for name in named)
    xgboost = booster.load()
    rows = xgboost.DMatrix(np.eye(3), np.arange(3))
    for field in ("objective", "eval_metric"):
        for value in booster.CHOICES[field].split():
            model = xgboost.Booster({"num_class": 3, field: value}, [rows])
            try:
                model.eval_set([(rows, "rows")], 0)
            except xgboost.core.XGBoostError as error:
                assert "Unknown" not in str(error), value


@pytest.mark.parametrize("method", ["hist", "approx"])
def test_each_tree_method_trains(case: Case, method: str) -> None:
    model = case.train(tree_method=method, num_boost_round="3")
    assert model.model.booster.num_boosted_rounds() == 3


def test_the_built_in_defaults_are_those_of_mlops_yaml() -> None:
    content = yaml.safe_load((MODEL.parent / "mlops.yaml").read_text(encoding="utf-8"))
    assert content["hyperparameters"] == booster.DEFAULTS


def test_script_mode_trains_and_names_a_wrong_hyperparameter(case: Case, tmp_path: Path) -> None:
    out = case.folder / "out"
    environment = {
        "SM_CHANNEL_TRAIN": str(out / "train"),
        "SM_CHANNEL_VALIDATION": str(out / "validation"),
        "SM_CHANNEL_PREPROCESSOR": str(out / "preprocessor"),
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SAGEMAKER_BASE_DIR": str(tmp_path),
    }
    first = run(["--num_boost_round", "3"], **environment)
    assert first.returncode == 0, first.stderr
    names = sorted(p.name for p in (tmp_path / "model").iterdir())
    assert names == ["baseline.json", "code", "encoding.json", *PACKED]
    assert "validation-logloss:" in first.stdout
    wrong = run(["--max_dept", "3"], **environment)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "max_depth" in (tmp_path / "output" / "failure").read_text()


def test_training_stops_early_and_keeps_the_best_rounds(case: Case) -> None:
    model = case.train(num_boost_round="400", early_stopping_rounds="5", eta="0.3")
    notes = json.loads((case.folder / "model" / "training.json").read_text())
    curve = notes["curve"]["validation"]
    assert notes["rounds"] < 400
    assert (
        notes["best_round"] == int(np.argmin(curve)) + 1 == model.model.booster.num_boosted_rounds()
    )


@pytest.mark.parametrize(
    ("offset", "scale"), [(0, 1), (1.7e9, 1), (0, 1e-30), (0, 1e30), (-1e15, 1e4)]
)
def test_a_quantity_is_learned_whatever_its_offset_and_scale(
    tmp_path: Path, offset: float, scale: float
) -> None:
    case = Case(tmp_path)
    random = np.random.default_rng(0)
    x = random.normal(size=400)
    y = offset + scale * (3 * x + random.normal(size=400) / 10)
    case.prepare(case.write({"x": x.tolist(), "y": y.tolist()}), "y")
    case.train(num_boost_round="100")
    assert case.evaluate()["metrics"]["r2"]["value"] > 0.9


def test_training_twice_gives_the_same_model(case: Case) -> None:
    first = case.train().model.booster.save_raw("ubj")
    assert case.train().model.booster.save_raw("ubj") == first


def test_training_resumes_from_its_checkpoint(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    # Of all rows and columns: what a first round draws differs from what a later one does.
    every = {"subsample": "1", "colsample_bytree": "1"}
    case.train(num_boost_round="40", **every)
    curve = json.loads((case.folder / "model" / "training.json").read_text())["curve"]
    (tmp_path / "checkpoints").mkdir()
    case.train(num_boost_round="20", checkpoint_rounds="10", **every)
    (store,) = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in store.iterdir()} == {"model.ubj"}
    resumed = case.train(num_boost_round="40", checkpoint_rounds="10", **every)
    notes = json.loads((case.folder / "model" / "training.json").read_text())
    assert notes["curve"] == curve
    assert resumed.model.booster.num_boosted_rounds() == notes["best_round"]
    assert resumed.model.booster.attr("progress") is None


def test_training_does_not_resume_from_other_parameters_or_data(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    case.train(checkpoint_rounds="10")
    case.train(checkpoint_rounds="10", max_depth="2")
    schema = case.folder / "out" / "preprocessor" / "schema.json"
    before = schema.read_bytes()
    schema.write_bytes(before.replace(b'"sha256": "', b'"sha256": "0'))
    try:
        case.train(checkpoint_rounds="10")
    finally:
        schema.write_bytes(before)
    assert "resumed" not in capsys.readouterr().out
    case.train(checkpoint_rounds="10")
    assert "resumed after" in capsys.readouterr().out


def test_a_checkpoint_is_left_after_a_minute_however_few_the_rounds(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setattr(boosting, "MOST_SECONDS", 0)
    (tmp_path / "checkpoints").mkdir()
    case.train(num_boost_round="3")
    assert list((tmp_path / "checkpoints").glob("*/model.ubj"))


def test_a_spot_interruption_leaves_a_checkpoint(case: Case, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(MODEL / "train.py"), *folders(case, tmp_path / "model"),
         "--num_boost_round", "1000000", "--early_stopping_rounds", "0", "--eta", "0.0001"],
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 128 + signal.SIGTERM
    (store,) = (tmp_path / "checkpoints").iterdir()
    saved = booster.load().Booster(model_file=str(store / "model.ubj"))
    state: dict[str, Any] = json.loads(saved.attr("progress"))
    assert state["rounds"] == saved.num_boosted_rounds() > 0
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("from sm_mlops.tabular import boosting\n", True),
        ("from sm_mlops.tabular import boosting\nNAME = 'wiat'\n", True),
        ("from sm_mlops.tabular import boosting\ndef fit(p):\n    return p['wait']\n", False),
        ("from sm_mlops.tabular import boosting\nimport mine\n", False),
        ("from sm_mlops.tabular import encoder\n", False),
    ],
)
def test_a_hyperparameter_that_the_team_s_code_may_read_is_not_refused(
    tmp_path: Path, source: str, refused: bool
) -> None:
    (tmp_path / "train.py").write_text(source)
    (tmp_path / "mine.py").write_text("WAIT = 'wait'\n")
    if refused:
        with pytest.raises(DataError, match="hyperparameter 'wait' is unknown; use XGBoost's own"):
            train.refuse_unknown(tmp_path, {"eta": 1, "wait": 2})
    else:
        train.refuse_unknown(tmp_path, {"eta": 1, "wait": 2})


@pytest.mark.long
def test_each_script_runs_by_itself_after_those_before_it(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__"))
    datasets.write_csv(tmp_path / "rows" / "some.csv", datasets.churn(rows=120))
    (tmp_path / "mlops.yaml").write_text(
        "data: {path: s3://elsewhere/rows/, sample: rows, target: Churn}\n"
        "hyperparameters: {num_boost_round: 3}\n"
    )
    said = {}
    for name in ("inference", "evaluate"):
        done = subprocess.run(
            [sys.executable, tmp_path / "model" / f"{name}.py"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert '{"predictions": [{"prediction": ' in said["inference"]
    assert "train.py: the step before" in said["evaluate"]
    assert "auc 0." in said["evaluate"]
    assert (tmp_path / "build" / "model" / "evaluation" / "report.html").exists()


def test_a_script_by_itself_says_that_the_data_is_elsewhere(tmp_path: Path) -> None:
    address = "https://somebody:token@elsewhere/rows"
    (tmp_path / "mlops.yaml").write_text(f"data: {{path: '{address}', target: Churn}}\n")
    with pytest.raises(DataError, match=r"data\.path names no file [^@]*name rows[^@]*$"):
        local.arguments(tmp_path / "model", "preprocess")


def test_a_script_by_itself_says_where_mlops_yaml_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "mlops.yaml").write_text("data:\n  target: y\n  target: z\n")
    said = f"{tmp_path}/mlops.yaml line 3, column 3: target is there twice"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        local.arguments(tmp_path / "model", "preprocess")
