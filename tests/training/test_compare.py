"""What differs between versions, as `mlops compare` and `mlops models` show it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from repos import Repo
from sm_mlops import registry
from sm_mlops.aws import Aws
from sm_mlops.cli.registry import _changed
from sm_mlops.errors import MlopsError
from sm_mlops.training import compare
from sm_mlops.training.run import ensure_model_package_group

pytestmark = pytest.mark.slow

ROWS = {"train": 70, "test": 15}


def version(aws: Aws, about: dict[str, Any] | None, **more: Any) -> int:
    """Register a version that carries `about`; an older tool's carries None."""
    ensure_model_package_group(aws)
    number = len(list(registry.versions(aws))) + 1
    folder = f"s3://{aws.bucket}/runs/{number}"
    value = more.pop("auc", 0.9)
    gate = {"rows": ROWS, "metrics": {"auc": {"value": value}, "rmse": {"value": 1e308}}}
    files: dict[str, Any] = {"gate.json": gate, "version.json": about, "model.tar.gz": {}}
    without = more.pop("without", ())
    for name, body in files.items():
        if body is not None and name not in without:
            key = f"runs/{number}/{name}"
            aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=json.dumps(body).encode())
    container = {"Image": "1.dkr.ecr/xgboost:3.2-0", "ModelDataUrl": f"{folder}/model.tar.gz"}
    statistics = {"ContentType": "application/json", "S3Uri": f"{folder}/evaluation.json"}
    aws.sagemaker.create_model_package(
        ModelPackageGroupName="churn",
        ModelApprovalStatus=more.pop("approval", "PendingManualApproval"),
        ModelMetrics={"ModelQuality": {"Statistics": statistics}},
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
        MetadataProperties={"CommitId": more.pop("commit", "unknown")},
        CustomerMetadataProperties={"DataHash": "d" * 64, **more},
    )
    return number


def about(eta: float, *validation: float, **settings: Any) -> dict[str, Any]:
    best = validation.index(min(validation)) + 1 if validation else 0
    training = {
        "metric": "logloss",
        "rounds": len(validation),
        "best_round": best,
        "curve": {"train": list(validation), "validation": list(validation)},
    }
    return {
        "settings": {"hyperparameters.eta": eta, **settings},
        "training": training if validation else {},
    }


def test_settings_metrics_data_and_curves_of_two_versions_are_compared(account: Aws) -> None:
    first = {"Gate": "auc - threshold 0.9 - tolerance 0.0"}
    first["Instances"] = "ml.m5.large ml.m5.xlarge ml.m5.large"
    version(account, about(0.1, 0.6, 0.5, 0.55), **first)
    more = {"Instances": "ml.m5.large ml.m5.2xlarge ml.m5.large"}
    more |= {"DataHash": "e" * 64, "Gate": "auc - threshold 0.8 - tolerance 0.0"}
    version(account, about(0.3, 0.6, **{"split.seed": 7}), auc=0.95, **more)
    found = compare.compare(account, 1, 2)
    assert found["settings"] == {
        "compute.train.instance": ("ml.m5.xlarge", "ml.m5.2xlarge"),
        "data.hash": ("d" * 64, "e" * 64),
        "gate.threshold": ("0.9", "0.8"),
        "hyperparameters.eta": (0.1, 0.3),
        "split.seed": (None, 7),
    }
    assert found["metrics"] == {"auc": [0.9, 0.95]}
    assert found["curves"][0]["best_round"] == 2
    assert found["notes"] == []
    assert json.loads(json.dumps(found))["versions"] == [1, 2]


def test_what_an_older_tool_did_not_keep_is_unknown_and_no_difference(account: Aws) -> None:
    version(account, None)
    version(account, about(0.3), DataHash="e" * 64)
    found = compare.compare(account, 1, 2)
    assert found["settings"] == {"data.hash": ("d" * 64, "e" * 64)}
    assert found["notes"] == [
        "version 1 was made by an older tool: only metrics and data are known"
    ]


def test_a_version_that_does_not_exist_is_refused_in_one_line(account: Aws) -> None:
    version(account, about(0.1))
    with pytest.raises(MlopsError, match="churn has no version 9: see mlops models"):
        compare.compare(account, 1, 9)


def test_a_version_is_not_compared_with_itself(account: Aws) -> None:
    with pytest.raises(MlopsError, match="version 1 does not differ from itself"):
        compare.compare(account, 1, 1)


def test_a_version_that_is_rejected_or_has_lost_its_artifact_says_so(account: Aws) -> None:
    version(account, about(0.1), approval="Rejected", without=("model.tar.gz",))
    version(account, about(0.1), without=("gate.json",))
    notes = compare.compare(account, 1, 2)["notes"]
    assert notes == [
        "version 1 is rejected",
        "version 1 no longer has its artifact, so it cannot be deployed",
        "version 2 no longer has its evaluation",
    ]


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_files_that_changed_are_named_as_far_as_git_knows(account: Aws, repo: Repo) -> None:
    git(repo.root, "init", "--quiet")
    ends = []
    for text in ("one", "two"):
        (repo.root / "model" / "extra.py").write_text(f"# {text}\n")
        (repo.root / "notes.md").write_text(text)
        git(repo.root, "add", ".")
        git(repo.root, "commit", "--quiet", "-m", text)
        ends.append(git(repo.root, "rev-parse", "HEAD"))
    found = compare.code(account, *ends)
    assert (found["between"], found["files"], found["why"]) == (1, ["model/extra.py"], "")
    dirty = compare.code(account, ends[0], f"{ends[1]}-dirty")
    assert dirty["files"] == ["model/extra.py"] and "uncommitted changes" in dirty["why"]
    assert "git fetch" in compare.code(account, ends[0], "a" * 40)["why"]
    assert "outside of git" in compare.code(account, "unknown", ends[1])["why"]


def test_the_list_of_versions_names_what_changed(account: Aws) -> None:
    before = {
        "hyperparameters.eta": 0.1,
        "data.hash": "a" * 64,
        "split.seed": 1,
        "gate": "x",
        "z": 1,
    }
    after = {
        "hyperparameters.eta": 0.2,
        "data.hash": "b" * 64,
        "split.seed": 2,
        "gate": "y",
        "z": 1,
    }
    text = "hash aaaaaaaaaaaa… → bbbbbbbbbbbb…, gate x → y, eta 0.1 → 0.2, 1 more"
    assert _changed(after, before) == text
    assert _changed(after, after) == "no setting"
    assert _changed(after, None) == _changed(None, before) == ""


def test_of_two_lists_only_what_differs_is_shown() -> None:
    assert compare.shown((["a", "b"], ["b", "c", "d"])) == ["a", "c, d"]
    assert compare.shown((["a"], ["a", "b"])) == ["-", "b"]
    assert compare.shown((None, 0.5)) == ["-", "0.5"]


def test_a_curve_is_a_line_of_bars() -> None:
    assert compare.sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert compare.sparkline([1.0, 1.0]) == "▁▁"
    assert len(compare.sparkline([float(i) for i in range(1000)])) == 30
    assert compare.sparkline([]) == ""
