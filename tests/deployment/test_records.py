"""What a deployment leaves for others to read; test_deploy.py has it in the sandbox."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from repos import Repo
from sm_mlops.aws import Aws
from sm_mlops.deployment import records, stages


def test_a_deployment_does_not_fail_for_want_of_its_records(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(service: str, *_: object, **__: object) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, service)

    shown = Console(record=True, file=io.StringIO(), width=200)
    stage = stages.load(repo.settings(), "staging")
    assert account.account
    monkeypatch.setattr(Aws, "client", lambda *given, **more: refused(given[1]))
    records.keep(account, account, stage, 3, shown)
    lines = shown.export_text()
    assert "the dashboard does not show this version: " in lines
    assert "the log of the endpoint has no tags: " in lines
