"""The quality gate of an execution, as the report shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.registry import Report
from sm_mlops.training import gate
from sm_mlops.training.definition import compile_pipeline

pytestmark = pytest.mark.slow

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/churn/execution/x"
PAGE = "<html><header>Predicting it</header><p>Metrics"


def measured(**more: Any) -> dict[str, Any]:
    entry = {"value": 0.97, "champion": None, "worse_by": 0.0, "text": "auc 0.97 on 85 test rows"}
    champion = more.pop("version", "none")
    return {"champion": champion, "metrics": {"auc": {**entry, **more}}}


class Shown:
    """The report of an execution of `repo`, whose Evaluate wrote `found`."""

    def __init__(self, aws: Aws, repo: Repo, file: Path, patch: pytest.MonkeyPatch) -> None:
        self.aws, self.file, self.patch = aws, file, patch
        aws.s3.put_object(Bucket=aws.bucket, Key="e/report.html", Body=PAGE.encode())
        text = compile_pipeline(repo.settings(), aws.account).definition
        answer = {"PipelineDefinition": text}
        patch.setattr(
            aws.sagemaker, "describe_pipeline_definition_for_execution", lambda **_: answer
        )

    def __call__(self, found: dict[str, Any], **given: str) -> str:
        body = json.dumps(found).encode()
        self.aws.s3.put_object(Bucket=self.aws.bucket, Key="e/gate.json", Body=body)
        values = [{"Name": name, "Value": value} for name, value in given.items()]
        self.patch.setattr(Aws, "pages", lambda *_, **__: values)
        report = Report(f"s3://{self.aws.bucket}/e/report.html", ARN, "x")
        gate.download_report(self.aws, report, self.file)
        return self.file.read_text(encoding="utf-8")


@pytest.fixture
def shown(account: Aws, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    repo.configure(gate={"metric": "auc", "threshold": 0.95, "tolerance": 0.01})
    return Shown(account, repo, tmp_path / "report.html", monkeypatch)


def test_the_limits_are_those_of_the_execution_and_not_of_a_cached_evaluate(shown: Shown) -> None:
    page = shown(measured())
    assert "Quality gate: passed" in page
    assert "auc is 0.9700; wanted: at least 0.95" in page
    assert "There is no champion to compare with yet; tolerance: at most 0.01 worse" in page
    page = shown(measured(), GateThreshold="0.98")
    assert "Quality gate: not passed" in page
    assert "<li class=worse>auc is 0.9700; wanted: at least 0.98" in page
    assert page.startswith("<html><header>Predicting it</header><section class=gate>")


@pytest.mark.parametrize(
    ("champion", "verdict", "said"),
    [
        ({"champion": 0.975, "worse_by": 0.005}, "passed", "0.0050 worse than the champion"),
        ({"champion": 0.99, "worse_by": 0.02}, "not passed", "version 3 (0.9900); tolerance"),
        ({"champion": 0.96}, "passed", "It is not worse than the champion, version 3 (0.9600)"),
        ({}, "passed", "The comparison with the champion, version 3, was waived"),
        ({"worse_by": 1e308}, "not passed", "version 3, was not possible"),
    ],
)
def test_the_champion_and_the_tolerance_are_named(
    shown: Shown, champion: dict[str, Any], verdict: str, said: str
) -> None:
    page = shown(measured(version="3", **champion))
    assert f"Quality gate: {verdict}<" in page
    assert said in page


@pytest.mark.parametrize(("value", "said"), [(1083.0812, "1083"), (1084.3, "1084.3")])
def test_large_values_are_rounded_as_in_the_tiles_unless_the_limit_is_that_close(
    value: float, said: str
) -> None:
    rule = gate.Condition("rmse", "value", 1084, at_least=False)
    page = gate.section([rule], {"champion": "none", "metrics": {"rmse": {"value": value}}})
    assert f"rmse is {said}; wanted: at most 1084" in page


def test_an_undefined_metric_is_no_number(shown: Shown) -> None:
    page = shown(measured(value=-1e308, text="auc is undefined on these 8 test rows & <b>"))
    assert "auc is undefined on these 8 test rows &amp; &lt;b&gt;; wanted: at least 0.95" in page


def test_without_the_execution_the_report_is_shown_without_a_verdict(
    account: Aws, repo: Repo, tmp_path: Path
) -> None:
    for name, body in (("report.html", PAGE), ("gate.json", json.dumps(measured()))):
        account.s3.put_object(Bucket=account.bucket, Key=f"e/{name}", Body=body.encode())
    file = tmp_path / "report.html"
    gate.download_report(account, Report(f"s3://{account.bucket}/e/report.html", ARN, "x"), file)
    assert file.read_text(encoding="utf-8") == PAGE
