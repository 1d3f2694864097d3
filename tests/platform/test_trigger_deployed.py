"""The trigger as the platform deploys it: with its role, its rule and its layer, in the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from connected_case import COMMIT, NAME, OWNER, REGION, Connected, app_layer, connect
from function_cases import until
from github_people import add_app, install
from repos import Repo, make_repo
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.sandbox import Server


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    """Yield an account whose function has the layer for GitHub Apps."""
    before = dict(os.environ)
    repo: Repo = make_repo(tmp_path_factory.mktemp("repo") / "churn")
    with Server(tmp_path_factory.mktemp("account"), REGION) as server:
        apply(server.environment())
        try:
            yield connect(server, repo, app_layer())
        finally:
            os.environ.clear()
            os.environ.update(before)


def approve(account: Connected, arn: str) -> None:
    account.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")


@pytest.mark.slow
def test_an_approval_signs_in_as_a_github_app_and_starts_the_workflow(account: Connected) -> None:
    accounts = account.server.github.accounts
    app = add_app(accounts, OWNER, "trigger", actions="write")
    installation = install(accounts, app["id"], OWNER, [NAME])
    account.credential(
        app_id=app["id"], installation_id=installation, private_key=app["private_key"]
    )
    before = len(account.runs())
    arn = account.register()
    approve(account, arn)
    until(lambda: len(account.runs()) > before)
    assert account.runs()[0]["inputs"] == {"model-package-arn": arn, "commit": COMMIT}
    told = until(lambda: account.log() if f'"modelPackageArn": "{arn}"' in account.log() else "")
    assert "cffi, cryptography" in told, "the layer's libraries are of another machine"
    assert "PRIVATE KEY" not in told and "ghs_" not in told


@pytest.mark.slow
def test_with_a_token_nothing_of_the_layer_is_loaded(account: Connected) -> None:
    from sm_mlops import platform as package
    from sm_mlops.bootstrap import assets

    account.token()
    functions = account.aws.client("lambda")
    # As it is deployed, with a last line that tells what it has loaded.
    files = {
        name: (package.FOLDER / "trigger" / name).read_bytes() for name in ("app.py", "handler.py")
    }
    files["watched.py"] = (
        b"import sys\nfrom handler import handler as own\n"
        b"def handler(event, context):\n    own(event, context)\n    return sorted(sys.modules)\n"
    )
    name = "sm-mlops-trigger"
    before = functions.get_function(FunctionName=name)["Configuration"]
    functions.update_function_code(FunctionName=name, ZipFile=assets.archive(files))
    functions.update_function_configuration(FunctionName=name, Handler="watched.handler")
    events = account.aws.client("events")
    # The registration is an approval as well, which the rule would pass on.
    events.disable_rule(Name="sm-mlops-approved")
    try:
        runs = len(account.runs())
        arn = account.register("Approved")
        payload = json.dumps({"detail": {"ModelPackageArn": arn, "Replay": True}})
        answer = functions.invoke(FunctionName=name, Payload=payload)["Payload"].read().decode()
        assert len(account.runs()) == runs + 1
        assert '"handler"' in answer
        for module in ("app", "jwt", "cryptography", "boto3"):
            assert f'"{module}"' not in answer
    finally:
        events.enable_rule(Name="sm-mlops-approved")
        made = assets.build()
        functions.update_function_code(FunctionName=name, ZipFile=made.files["trigger.zip"])
        functions.update_function_configuration(FunctionName=name, Handler=before["Handler"])
