"""`mlops doctor` on the image that mlops.yaml names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.doctor.image import image
from sm_mlops.doctor.scene import Finding, State

ACCOUNT = "123456789012"  # moto's
OWN = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/forest:1.0"
PACKAGES = "numpy==1\npandas==1\npyarrow==1\npyyaml==1\nsagemaker-containers==1\n"


class Simulator:
    """Answers as IAM's simulator does; moto has none. `lacking` is denied."""

    def __init__(self, lacking: tuple[str, ...]) -> None:
        self.lacking, self.asked = lacking, dict[str, Any]()

    def simulate_principal_policy(self, **asked: Any) -> Any:
        self.asked = asked
        results = [
            {
                "EvalActionName": name,
                "EvalDecision": "implicitDeny" if name in self.lacking else "allowed",
            }
            for name in asked["ActionNames"]
        ]
        return {"EvaluationResults": results}


def look(repo: Repo, iam: Any = None, sandbox: bool = False) -> Finding:
    aws = Aws(repo.settings(), sandbox=sandbox)
    vars(aws)["account"] = ACCOUNT
    ecr = boto3.client("ecr", region_name="eu-west-1")
    clients = {"ecr": ecr, "iam": iam}
    scene: Any = SimpleNamespace(aws=aws, client=clients.__getitem__, bootstrap="mlops bootstrap")
    [found] = image(scene)
    return found


@pytest.fixture
def own(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    Path(repo.root, "environment.txt").write_text(PACKAGES)
    repo.configure(image=OWN, image_environment="environment.txt")
    return repo


@pytest.mark.slow
def test_an_image_of_sagemakers_needs_no_check(repo: Repo) -> None:
    assert look(repo).detail == "SageMaker's XGBoost 3.2-0"


def test_in_the_sandbox_it_says_what_stands_for_an_image_of_the_teams(own: Repo) -> None:
    found = look(own, sandbox=True)
    assert found.state is State.OK
    assert found.detail == f"{OWN}: the sandbox installs environment.txt instead"


@pytest.mark.slow
def test_an_image_must_exist_and_the_pipelines_role_must_be_allowed_to_pull_it(own: Repo) -> None:
    with mock_aws():
        ecr = boto3.client("ecr", region_name="eu-west-1")
        assert look(own).detail == f"{OWN} does not exist"
        ecr.create_repository(repositoryName="team/forest")
        assert look(own).detail == f"{OWN} does not exist"
        media = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "layers": [], "config": {}})
        ecr.put_image(repositoryName="team/forest", imageManifest=manifest, imageTag="1.0")
        found = look(own, Simulator(("ecr:BatchGetImage",)))
        assert (found.state, found.remedy) == (State.FAILED, "mlops bootstrap")
        assert found.detail == f"churn-pipeline may not pull {OWN}: lacks ecr:BatchGetImage"
        allowing = Simulator(())
        assert look(own, allowing).state is State.OK
    assert allowing.asked["ResourceArns"] == [
        f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/team/forest"
    ]
    assert allowing.asked["PolicySourceArn"] == f"arn:aws:iam::{ACCOUNT}:role/churn-pipeline"
