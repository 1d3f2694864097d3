"""Who is signed in stays so when the sandbox is started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_cases import REGION
from sandbox_iam_case import HERE, Account, allow, error
from sm_mlops.sandbox import Server, grants


@pytest.mark.slow
def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, REGION) as server:
        aws = Account(server.environment()).prepare()
        assert isinstance(aws, Account)
        kept = aws.may("kept", allow("sagemaker:ListModels"))
        made = grants.session(f"{HERE}:role/kept", "service", REGION)
    with Server(tmp_path, REGION) as server:
        again = Account(server.environment())
        for keys in (kept.keys.values(), made.values()):
            names = ("AccessKeyId", "SecretAccessKey", "SessionToken")
            restored = again.as_(dict(zip(names, keys, strict=True)))
            restored.sagemaker.list_models()
            assert error(restored.iam.list_roles)[0] == "AccessDenied"
        assert grants.session(f"{HERE}:role/kept", "service", REGION) == made
