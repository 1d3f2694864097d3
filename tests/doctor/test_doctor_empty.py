"""`mlops doctor` in an empty account: what is missing, and the account's limits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bootstrap_case import ACCOUNT, REGION, Land, land
from repos import ROOT
from sm_mlops import doctor
from sm_mlops import quotas as shared
from sm_mlops.doctor import account, quotas
from sm_mlops.doctor.scene import Scene, State, explain
from sm_mlops.sandbox.wire import Caller

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Land]:
    with (
        pytest.MonkeyPatch.context() as patch,
        land(tmp_path_factory.mktemp("bare"), patch) as found,
    ):
        yield found


def test_in_an_empty_account_it_says_what_creates_the_platform(bare: Land) -> None:
    found = doctor.examine(bare.aws, os.environ)
    [missing] = [item for item in found if item.check == "platform"]
    assert missing.state is State.FAILED and missing.remedy == "mlops --sandbox bootstrap"
    assert "sm-mlops-platform" in missing.detail
    # Nothing else is reported that the platform would have.
    assert not {"trigger", "connection to GitHub", "launch role"} & {item.check for item in found}


def test_an_identity_that_iam_cannot_simulate_is_a_warning(
    bare: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(bare.aws, os.environ)
    who = {"Arn": "arn:aws:iam::123456789012:user/ada"}

    class Service:
        def get_caller_identity(self) -> dict[str, str]:
            return who

        def simulate_principal_policy(self, **_: Any) -> Any:
            error = {"Error": {"Code": "InvalidAction", "Message": "unknown"}}
            raise ClientError(error, "SimulatePrincipalPolicy")  # type: ignore[arg-type]

    monkeypatch.setattr(scene, "client", lambda _: Service())
    [found] = account.rights(scene)
    assert found.state is State.WARNING and "IAM returned InvalidAction" in found.detail


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="a bug"):
        explain(KeyError("a bug"), REGION)


@pytest.mark.parametrize(
    ("used", "state"), [(0, State.OK), (399, State.OK), (400, State.WARNING), (500, State.FAILED)]
)
def test_a_quota_is_reported_before_it_is_reached(
    bare: Land, monkeypatch: pytest.MonkeyPatch, used: int, state: State
) -> None:
    monkeypatch.setattr(quotas, "COUNTED", quotas.COUNTED[:1])
    monkeypatch.setattr(quotas, "_usage", lambda *_: (used, 500.0))
    [found] = quotas.counts(Scene(bare.aws, os.environ))
    assert found.state is state and f"{used} of 500" in found.detail
    assert bool(found.remedy) is (state is not State.OK)


def test_a_limit_of_the_account_s_own_comes_before_the_default(
    bare: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(bare.aws, os.environ)
    assert quotas._usage(scene, quotas.COUNTED[0]) == (0, 500)

    class Service:
        def get_service_quota(self, **_: Any) -> Any:
            return {"Quota": {"Value": 900.0}}

        def get_paginator(self, _: str) -> Any:
            return self

        def paginate(self) -> list[dict[str, list[str]]]:
            return [{"PipelineSummaries": ["one", "two"]}]

    monkeypatch.setattr(scene, "client", lambda _: Service())
    assert quotas._usage(scene, quotas.COUNTED[0]) == (2, 900)


def test_instances_are_those_of_the_settings_and_of_the_stages(bare: Land) -> None:
    repo = bare.repo
    repo.configure(compute={"train": {"instance": "ml.g5.xlarge", "spot": True}})
    parameters = {"EndpointKind": "real-time", "InstanceType": "ml.m5.large", "InstanceCount": 3}
    repo.stage("production", Parameters={**parameters, "MaxInstanceCount": 3})
    bare.again()
    scene = Scene(bare.aws, os.environ)
    assert quotas.needed(scene) == {
        "ml.g5.xlarge for spot training job usage": 1,
        "ml.m5.large for processing job usage": 1,
        "ml.c5.large for endpoint usage": 2,
        "ml.m5.large for endpoint usage": 6,
    }
    found = {item.detail: item.state for item in quotas.instances(scene)}
    assert found == {
        "ml.g5.xlarge for spot training job usage: needs 1 of 4": State.OK,
        "ml.m5.large for processing job usage: needs 1 of 4": State.OK,
        "ml.c5.large for endpoint usage: needs 2 of 4": State.OK,
        "ml.m5.large for endpoint usage: needs 6 of 4": State.FAILED,
    }


def test_instances_in_use_count_where_cloudwatch_counts_them(
    bare: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(bare.aws, os.environ)
    name = "ml.m5.large for processing job usage"
    metric = {
        "MetricNamespace": "AWS/Usage",
        "MetricName": "ResourceCount",
        "MetricDimensions": {"Service": "SageMaker", "Resource": "processing-job/ml.m5.large"},
        "MetricStatisticRecommendation": "Maximum",
    }
    row = {"QuotaName": name, "QuotaCode": "L-1", "Value": 4.0, "UsageMetric": metric}
    monkeypatch.setattr(quotas, "needed", lambda _: {name: 1, "other": 1})
    monkeypatch.setattr(shared, "rows", lambda *_: {name: row})
    [idle, unknown] = quotas.instances(scene)
    assert idle.detail == f"{name}: needs 1 of 4, 0 in use" and idle.state is State.OK
    assert unknown.state is State.WARNING and "no quota with that name" in unknown.detail
    where: Any = metric["MetricDimensions"]
    bare.server.integrations.alarms.record(
        Caller(ACCOUNT, REGION, ""), "AWS/Usage", where, ResourceCount=4.0
    )
    busy = next(iter(quotas.instances(scene)))
    assert busy.detail.endswith("4 in use") and busy.state is State.WARNING and busy.remedy


def test_it_never_loads_the_sagemaker_sdk(bare: Land) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from sm_mlops import doctor\nfrom sm_mlops.aws import Aws\n"
        "from sm_mlops import settings\n"
        "doctor.examine(Aws(settings.load(Path.cwd())), os.environ)\n"
        "print('sagemaker' in sys.modules, 'pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=bare.repo.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False False\n"
