"""`mlops doctor`: what it says of an account that is as it should be, and of each thing amiss."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from bootstrap_case import ACCOUNT, NAME, OWNER, PERSON, Land, land
from fault_injection import inject
from sm_mlops import doctor
from sm_mlops.aws import Aws
from sm_mlops.bootstrap.credential import Credential
from sm_mlops.bootstrap.settings import Settings
from sm_mlops.bootstrap.studio import TAG
from sm_mlops.cli.main import app
from sm_mlops.doctor import account, parts, platform
from sm_mlops.doctor.scene import Finding, Scene, State

pytestmark = pytest.mark.slow

Look = Callable[[Scene], Iterable[Finding]]
TOKEN = "ghp_" + "canary" * 6


class Whole:
    """An account where everything has been set up."""

    def __init__(self, found: Land) -> None:
        self.land = found

    @property
    def aws(self) -> Aws:
        return self.land.aws

    def scene(self, aws: Aws | None = None) -> Scene:
        scene = Scene(aws or self.aws, os.environ)
        scene.look_ahead()
        return scene

    def look(self, check: Look, state: State = State.FAILED) -> list[Finding]:
        """Return what a check finds, of one state."""
        return [item for item in check(self.scene()) if item.state is state]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with (
        pytest.MonkeyPatch.context() as patch,
        land(tmp_path_factory.mktemp("whole"), patch) as found,
    ):
        found.act()
        token = found.server.github.accounts.fine_grained(PERSON, OWNER, [NAME], actions="write")
        patch.setenv("MLOPS_TRIGGER_TOKEN", token)
        for part in (Credential(found.aws, found.hub), Settings(found.aws, found.hub)):
            part.act(lambda _: None)
        found.server.integrations.connections.complete("sm-mlops")
        yield Whole(found)


def test_when_everything_is_in_order_nothing_has_failed(whole: Whole) -> None:
    found = doctor.examine(whole.aws, os.environ)
    amiss = [item for item in found if item.state is not State.OK]
    # The tests' repo is not a git repository, so it cannot be pushed.
    assert [item for item in amiss if item.check != "first push"] == []
    # Each check has said something, in the order of the table. This repo pins no tool.
    order = list(dict.fromkeys(item.check for item in found))
    names = [check.name for check in doctor.CHECKS]
    assert order == ["AWS sign-in", *names[2:]]
    assert names[:2] == ["version", "tool in workflows"]


def test_it_changes_nothing(whole: Whole) -> None:
    before = len(whole.land.writes)
    doctor.examine(whole.aws, os.environ)
    assert whole.land.writes[before:] == []


def test_no_check_reads_or_shows_the_credential(whole: Whole) -> None:
    before = len(whole.land.calls)
    found = doctor.examine(whole.aws, os.environ)
    assert "GetSecretValue" not in whole.land.calls[before:]
    shown = repr(found)
    for name in ("GITHUB_TOKEN", "MLOPS_TRIGGER_TOKEN"):
        assert os.environ[name] not in shown


# One thing amiss at a time


def test_an_unauthorized_connection_is_reported_with_its_link(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sm_mlops.bootstrap import by_hand

    there = by_hand.connection(whole.aws)
    assert there
    pending = there | {"ConnectionStatus": "PENDING"}
    monkeypatch.setattr(by_hand, "connection", lambda _: pending)
    [found] = whole.look(platform.connection)
    assert "PENDING" in found.detail and found.remedy == "mlops sandbox authorize sm-mlops"
    [found] = platform.connection(whole.scene(Aws(whole.aws.settings)))
    assert found.remedy.startswith("https://eu-west-1.console.aws.amazon.com/codesuite/")


def test_a_disabled_rule_and_a_missing_function_are_failures(whole: Whole) -> None:
    events, functions = whole.aws.client("events"), whole.aws.client("lambda")
    events.disable_rule(Name=platform.RULE)
    try:
        [found] = whole.look(platform.trigger)
        assert "disabled" in found.detail and platform.RULE in found.remedy
    finally:
        events.enable_rule(Name=platform.RULE)
    assert whole.look(platform.trigger) == []
    inject(
        whole.land.server,
        "GetFunctionConfiguration",
        "ResourceNotFoundException",
        "Function not found",
    )
    [found] = whole.look(platform.trigger)
    assert "there is no function sm-mlops-trigger" in found.detail
    del functions


def test_an_approval_that_could_not_be_passed_on_has_failed(whole: Whole) -> None:
    queues = whole.aws.client("sqs")
    url = queues.get_queue_url(QueueName="sm-mlops-failed-approvals")["QueueUrl"]
    assert whole.look(platform.failed_approvals) == []
    queues.send_message(QueueUrl=url, MessageBody="{}")
    try:
        [found] = whole.look(platform.failed_approvals)
        assert found.detail.startswith("1 event ") and "mlops --sandbox trigger" in found.remedy
    finally:
        queues.purge_queue(QueueUrl=url)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "nobody gets the messages of this account"),
        (["PendingConfirmation"], "nobody gets the messages of this account; 1 not confirmed"),
        (["PendingConfirmation", "arn:aws:sns:x"], "1 of sm-mlops-notifications"),
    ],
)
def test_messages_that_nobody_gets_are_a_warning(rows: list[str], said: str) -> None:
    pages = [{"Subscriptions": [{"SubscriptionArn": row} for row in rows]}]
    sns = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda TopicArn: pages))
    scene: Any = SimpleNamespace(
        outputs={"TopicArn": "arn:aws:sns:eu-west-1:123456789012:sm-mlops-notifications"},
        client=lambda _: sns,
        aws=SimpleNamespace(sandbox=False),
        bootstrap="mlops bootstrap",
    )
    [found] = platform.subscribers(scene)
    assert found.detail == said
    assert (found.state is State.WARNING) is ("--subscriber" in found.remedy) is ("nobody" in said)


def test_boundaries_with_little_space_are_reported_with_what_makes_more(whole: Whole) -> None:
    [found] = whole.look(platform.boundaries, State.OK)
    assert "0 of 743 characters used in GitHubBoundary" in found.detail
    names = ["arn:aws:s3:::lake", *(f"arn:aws:s3:::lake/team-{n}/*" for n in range(50))]
    scene = whole.scene()
    assert scene.platform is not None
    scene.platform.parameters["DataLocations"] = ",".join(names)
    [found] = platform.boundaries(scene)
    assert (found.state, "used in TrainBoundary" in found.detail) == (State.WARNING, True)
    wide = "arn:aws:s3:::lake,arn:aws:s3:::lake/*"
    assert found.remedy == f"mlops --sandbox bootstrap --platform 'DataLocations={wide}'"
    scene.platform.parameters["TemplateVersion"] = "9.0.0"
    [found] = platform.boundaries(scene)
    assert (found.state, "newer tool" in found.detail) == (State.OK, True)


def test_a_product_that_studio_does_not_show_is_reported_as_hidden(whole: Whole) -> None:
    catalog = whole.aws.client("servicecatalog")
    scene = whole.scene()
    assert scene.platform
    product = scene.platform.outputs["ProductId"]
    key, value = platform.VISIBLE
    catalog.update_product(Id=product, RemoveTags=[key])
    try:
        [found] = whole.look(platform.product)
        assert key in found.detail and product in found.remedy
    finally:
        catalog.update_product(Id=product, AddTags=[{"Key": key, "Value": value}])
    assert whole.look(platform.product) == []


def test_a_provider_without_the_audience_has_failed(whole: Whole) -> None:
    from moto.iam.models import iam_backends

    scene = whole.scene()
    assert scene.platform
    arn = scene.platform.outputs["OidcProviderArn"]
    # moto does not answer RemoveClientIDFromOpenIDConnectProvider.
    provider: Any = iam_backends[ACCOUNT]["aws"].open_id_providers[arn]
    provider.client_id_list.remove(platform.AUDIENCE)
    try:
        [found] = whole.look(platform.workflow_sign_in)
        assert platform.AUDIENCE in found.detail and arn in found.remedy
    finally:
        provider.client_id_list.append(platform.AUDIENCE)
    assert whole.look(platform.workflow_sign_in) == []


def test_a_deleted_launch_role_is_reported(whole: Whole) -> None:
    inject(whole.land.server, "GetRole", "NoSuchEntity", "gone", 404)
    [found] = whole.look(platform.launch_role)
    assert "does not exist" in found.detail
    assert whole.look(platform.launch_role) == []


@pytest.mark.parametrize(
    ("ours", "state", "remedy"),
    [("0.0.9", State.WARNING, "make upgrade"), ("0.2.0", State.WARNING, "bootstrap")],
)
def test_a_platform_whose_version_differs_from_the_tools_is_reported(
    whole: Whole, ours: str, state: State, remedy: str
) -> None:
    whole.land.release(ours)
    try:
        [found] = platform.drift(whole.scene())
        assert found.state is state and found.remedy.endswith(remedy)
        assert ours in found.detail and "0.1.0" in found.detail
    finally:
        whole.land.release("0.1.0")


def test_what_bootstrap_would_do_has_failed(whole: Whole) -> None:
    hub = whole.land.hub
    place = f"/repos/{OWNER}/{NAME}/environments/training/variables/AWS_ROLE_ARN"
    hub.ask("DELETE", place)
    try:
        [found] = whole.look(parts.settings)
        assert "create variable AWS_ROLE_ARN" in found.detail
        assert found.remedy == "mlops --sandbox bootstrap"
    finally:
        Settings(whole.aws, hub).act(lambda _: None)
    assert whole.look(parts.settings) == []


def test_a_secret_without_a_value_has_failed(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    from sm_mlops.bootstrap import credential

    for kinds, words in (((), "no value"), (("jenkins",), "cannot use")):
        monkeypatch.setattr(credential, "kept", lambda _, k=kinds: k)
        [found] = whole.look(platform.credential)
        assert words in found.detail
    monkeypatch.setattr(credential, "kept", lambda _: ("app",))
    [found] = whole.look(platform.credential)
    assert "lacks the layer" in found.detail


def test_an_old_token_is_a_warning(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    assert whole.look(platform.credential, State.WARNING) == []
    monkeypatch.setattr(platform, "_days", lambda _: 340)
    [found] = whole.look(platform.credential, State.WARNING)
    assert "340 days old" in found.detail and found.remedy.endswith("secret rotate")


@pytest.mark.parametrize(("days", "state"), [(1, State.OK), (91, State.WARNING)])
def test_the_age_of_a_users_key_is_reported(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, days: int, state: State
) -> None:
    iam = whole.aws.client("iam")
    user = f"{NAME}-github-train"
    iam.create_user(UserName=user)
    try:
        found, *others = platform._key(whole.scene())
        assert [each.state for each in others] == [State.FAILED, State.FAILED]
        assert found.state is State.FAILED and "no active key" in found.detail
        key = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
        monkeypatch.setattr(platform, "_days", lambda _: days)
        found = next(platform._key(whole.scene()))
        assert found.state is state and f"{days} day" in found.detail
        iam.delete_access_key(UserName=user, AccessKeyId=key)
    finally:
        iam.delete_user(UserName=user)


def test_days_are_counted_from_the_moment() -> None:
    assert platform._days(datetime.now(UTC) - timedelta(days=91, hours=1)) == 91


# Sign-ins and rights


def test_without_a_sign_in_to_github_the_rest_is_still_looked_at(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"PATH": ""}
    found = {item.check: item for item in doctor.examine(whole.aws, environment)}
    assert found["GitHub sign-in"].state is State.FAILED
    assert "gh auth login" in found["GitHub sign-in"].remedy
    assert "GitHub settings" in found["not checked"].detail
    assert found["trigger"].state is State.OK


def test_a_token_without_a_scope_has_failed_with_the_scope(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = whole.land.server.github.accounts.token(PERSON, "repo")
    scene = Scene(whole.aws, {**os.environ, "GITHUB_TOKEN": token})
    [found] = account.github_sign_in(scene)
    assert found.state is State.FAILED and "workflow" in found.detail
    assert token not in repr(found)


def test_a_github_outage_is_a_warning_and_delays_nothing(whole: Whole) -> None:
    environment = {**os.environ, "GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_TOKEN": TOKEN}
    found = doctor.examine(whole.aws, environment)
    states = {item.check: item.state for item in found}
    assert states["GitHub sign-in"] is State.WARNING
    assert states["GitHub settings"] is State.WARNING
    assert states["trigger"] is State.OK
    assert TOKEN not in repr(found)


def test_an_aws_that_is_down_is_one_failure_and_github_is_still_looked_at(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("sm_mlops.doctor.scene.ATTEMPTS", 1)
    found = {item.check: item for item in doctor.examine(Aws(whole.aws.settings), os.environ)}
    assert found["AWS sign-in"].state is State.FAILED
    assert "cannot reach AWS in eu-west-1" in found["AWS sign-in"].detail
    assert found["GitHub sign-in"].state is found["GitHub repository"].state is State.OK
    assert "trigger" not in found and "trigger" in found["not checked"].detail


def test_without_permissions_each_missing_one_is_reported_without_a_crash(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = whole.aws.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    found = doctor.examine(Aws(whole.aws.settings), os.environ)
    of = {item.check: item for item in found}
    assert of["AWS sign-in"].state is State.OK and "user/nobody" in of["AWS sign-in"].detail
    assert "iam:SimulatePrincipalPolicy" in of["permissions"].detail
    assert of["platform"].state is State.WARNING
    assert "you lack the permission cloudformation:DescribeStacks" in of["platform"].detail
    assert of["trigger"].detail.startswith("not checked, because the platform")
    assert "sagemaker:ListPipelines" in repr(found)
    assert not [item for item in found if item.state is State.FAILED]


def test_a_person_s_rights_are_simulated_by_what_they_are_for(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = whole.aws.client("iam")
    iam.create_user(UserName="approver")
    actions = ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage", "iam:Simulate*"]
    policy = {"Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.put_user_policy(
        UserName="approver",
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", **policy}),
    )
    key = iam.create_access_key(UserName="approver")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    found = list(account.rights(Scene(Aws(whole.aws.settings), os.environ)))
    assert [item.detail for item in found if item.state is State.OK] == ["may approve"]
    [lacking] = [item for item in found if item.state is State.FAILED]
    assert lacking.detail.startswith("may not train: lacks sagemaker:CreatePipeline")


# Studio and quotas


def test_without_a_studio_domain_there_is_a_warning_outside_the_sandbox(whole: Whole) -> None:
    [found] = parts.domain(whole.scene(Aws(whole.aws.settings)))
    assert found.state is State.WARNING and "none in eu-west-1" in found.detail
    [found] = parts.domain(whole.scene())
    assert found.state is State.OK


def test_a_domain_needs_a_tag_only_where_the_template_is_in_s3(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from sm_mlops import projects

    sagemaker = whole.aws.sagemaker
    made = sagemaker.create_domain(
        DomainName="studio",
        AuthMode="IAM",
        DefaultUserSettings={"ExecutionRole": "arn:aws:iam::123456789012:role/studio"},
        VpcId="vpc-1",
        SubnetIds=["subnet-1"],
        Tags=[{"Key": "team", "Value": "data"}],
    )
    try:
        [found] = parts.domain(whole.scene())
        assert (found.state, found.detail) == (State.OK, "studio")
        grants = whole.look(platform.product, State.WARNING)
        assert "role/studio" in grants[0].detail and "StudioRoleArns=" in grants[0].remedy
        there = projects.find(whole.aws)
        assert there
        url = "https://bucket.s3.amazonaws.com/platform/0.1.0/x/project.yml"
        monkeypatch.setattr(projects, "find", lambda _: replace(there, template_url=url))
        scene = whole.scene()
        [found] = parts.domain(scene)
        assert found.state is State.FAILED and TAG in found.detail
        assert found.remedy == "mlops --sandbox bootstrap"
        assert "show the template in Studio" in account.purposes(scene)
        bucket = whole.aws.bucket
        for place, state in (("s3://b/", State.WARNING), (f"s3://{bucket}/platform/", State.OK)):
            tags = [{"Key": TAG, "Value": place}]
            sagemaker.add_tags(ResourceArn=made["DomainArn"], Tags=tags)
            [found] = parts.domain(scene)
            assert found.state is state
            assert (place in found.detail) is (state is State.WARNING)
    finally:
        sagemaker.delete_domain(DomainId=made["DomainArn"].rpartition("/")[2])


# The command


def test_the_command_ends_with_1_when_something_has_failed(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole.land.repo.root)
    done = CliRunner().invoke(app, ["doctor"])
    assert "AWS sign-in" in done.output and " ok, " in done.output
    rows = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert {*rows[0]} == {"check", "state", "detail", "remedy"}
    whole.aws.client("events").disable_rule(Name=platform.RULE)
    try:
        done = CliRunner().invoke(app, ["doctor", "--json"])
    finally:
        whole.aws.client("events").enable_rule(Name=platform.RULE)
    assert done.exit_code == 1
    [amiss] = [
        row
        for row in json.loads(done.output)
        if (row["check"], row["state"]) == ("trigger", "failed")
    ]
    assert platform.RULE in amiss["remedy"]
