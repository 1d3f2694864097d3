"""Stages as read from their files, and what is refused there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from hostile import HOSTILE
from repos import Repo
from sm_mlops import templates
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError


def test_every_json_file_of_infra_is_a_stage_from_staging_to_production(repo: Repo) -> None:
    repo.stage("canary")
    repo.stage("zone-b")
    assert stages.names(repo.settings()) == ("staging", "canary", "zone-b", "production")


def test_the_rendered_stages_can_be_read_and_say_what_they_cost_idle(repo: Repo) -> None:
    staging = stages.load(repo.settings(), "staging")
    assert (staging.stack, staging.kind, staging.idle_cost) == ("churn-staging", "real-time", 74.46)
    assert staging.parameters["InstanceCount"] == "1"
    production = stages.load(repo.settings(), "production")
    assert (production.kind, production.account, production.role) == ("real-time", None, "")
    assert (production.idle_cost or 0) > 0
    assert production.parameters["InstanceCount"] == "2"


def test_a_cost_says_where_and_when_it_was_the_price(repo: Repo) -> None:
    assert stages.load(repo.settings(), "production").priced == "us-east-1, 2026-11-22"
    repo.stage("qa", Cost={"IdlePerMonthUSD": 5, "Region": "eu-west-1"})
    assert stages.load(repo.settings(), "qa").priced == "eu-west-1"


def test_values_become_the_text_that_cloudformation_accepts(repo: Repo) -> None:
    subnets = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    given = {"SubnetIds": subnets, "NetworkIsolation": False, "BakeSeconds": 60.0}
    repo.stage("staging", Parameters=given | {"ErrorAlarmThreshold": 0.00001}, Tags={})
    assert stages.load(repo.settings(), "staging").parameters == {
        "SubnetIds": ",".join(subnets),
        "NetworkIsolation": "false",
        "BakeSeconds": "60",
        "ErrorAlarmThreshold": "0.00001",
    }


def test_an_endpoint_without_a_network_cannot_download_packages(repo: Repo) -> None:
    requirements = repo.root / "model" / "requirements.txt"
    requirements.parent.mkdir(exist_ok=True)
    settings = repo.configure(aws={"package_index": True})
    nothing = ["# none yet\n\n", "\ufeff# none\r\n", "numpy\n", 'foo; sys_platform == "win32"\n']
    for text in nothing:
        requirements.write_text(text, encoding="utf-8")
        stages.require_wheels(settings, stages.load(settings, "staging"))
    requirements.write_text("lightgbm==4.6.0\n")
    for kind in ("real-time", "asynchronous", "batch"):
        repo.stage("qa", Parameters={"EndpointKind": kind})
        # What is there can still be called, rolled back and deleted.
        stage = stages.load(repo.settings(), "qa")
        with pytest.raises(MlopsError, match=r"infra/qa\.json: .* set aws\.package_index to false"):
            stages.require_wheels(repo.settings(), stage)
    for given in ({"EndpointKind": "serverless"}, {"NetworkIsolation": False}):
        repo.stage("qa", Parameters=given)
        stages.require_wheels(repo.settings(), stages.load(repo.settings(), "qa"))
    repo.stage("qa", Parameters={"EndpointKind": "real-time"})
    settings = repo.configure(aws={"package_index": False})
    stages.require_wheels(settings, stages.load(settings, "qa"))


def test_tags_of_a_stage_are_those_of_its_stack(repo: Repo) -> None:
    own = {"project": "churn", "stage": "staging", "owner": "unknown"}
    for given in ({"team": "a/b"}, {"owner": "risk"}):
        repo.stage("staging", Tags=given)
        assert stages.load(repo.settings(), "staging").tags == own | given


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("section", ["Tags", "Parameters"])
def test_hostile_tags_and_parameters_are_refused_in_a_line_that_is_only_shown(
    repo: Repo, section: str, text: str
) -> None:
    name = "team" if section == "Tags" else "DataCapturePercent"
    for given in ({name: text}, {text: "x"}):
        if section == "Tags" and re.fullmatch(r"[\w\s.:/=+@-]*", text) and text.isprintable():
            continue  # A tag may hold it.
        repo.stage("staging", **{section: given})
        with pytest.raises(MlopsError) as caught:
            stages.load(repo.settings(), "staging")
        assert str(caught.value).isprintable(), given


def test_files_that_a_file_system_leaves_are_not_stages(repo: Repo) -> None:
    (repo.root / "infra" / "._staging.json").write_bytes(b"\0")
    assert stages.names(repo.settings()) == ("staging", "production")


def test_a_file_is_read_with_a_bom_and_with_blanks_between_the_items_of_a_list(repo: Repo) -> None:
    items = "subnet-0123456789abcdef0 , subnet-0123456789abcdef1"
    network = {"SubnetIds": items, "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    repo.stage("qa", Parameters=network)
    file = repo.root / "infra" / "qa.json"
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    found = stages.load(repo.settings(), "qa").parameters["SubnetIds"]
    assert found == items.replace(" ", "")


def test_equal_minimum_and_maximum_make_an_endpoint_of_constant_size(repo: Repo) -> None:
    sizes = {"EndpointKind": "real-time", "InstanceCount": "3", "MaxInstanceCount": 3}
    repo.stage("qa", Parameters=sizes)
    assert stages.load(repo.settings(), "qa").parameters["MaxInstanceCount"] == "3"


@pytest.mark.parametrize("kind", ["real-time", "asynchronous"])
def test_without_a_maximum_an_endpoint_of_several_instances_keeps_its_size(
    repo: Repo, kind: str
) -> None:
    repo.stage("qa", Parameters={"EndpointKind": kind, "InstanceCount": 3})
    assert stages.load(repo.settings(), "qa").parameters["MaxInstanceCount"] == "3"


def test_the_kind_is_the_templates_own_where_the_stage_names_none(repo: Repo) -> None:
    repo.stage("staging", Parameters={})
    template = stages.template(repo.settings())
    default = templates.parameters(template)["EndpointKind"]["Default"]
    assert stages.load(repo.settings(), "staging").kind == default


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("stagin", {}, "no stage stagin: did you mean staging?"),
        ("qa", {}, "no stage qa: known are staging, production"),
        ("training", {"Role": None}, "training is for training: rename the stage"),
        (
            "pre_prod",
            {"Role": None},
            "churn-pre_prod, but a name has only letters, digits and inner",
        ),
        ("staging", {"Parametres": {}}, "Parametres is unknown: did you mean Parameters?"),
        ("staging", {"Parameters": {"InstanceTyp": "x"}}, "did you mean InstanceType?"),
        ("staging", {"Parameters": {"Project": "x"}}, "Project is set by mlops deploy"),
        ("staging", {"Parameters": {"EndpointKind": "realtime"}}, "did you mean real-time?"),
        (
            "staging",
            {"Parameters": {"BakeSeconds": None}},
            "BakeSeconds is null: remove it for the default",
        ),
        ("staging", {"Parameters": []}, None),
        ("staging", {"Parameters": [1]}, "Parameters must be an object"),
        ("staging", {"Account": "12"}, "Account must be 12 digits in quotes, not '12'"),
        ("staging", {"Role": "deployer"}, "Role deployer needs an Account"),
        ("QA", {"Role": None}, "the name QA is 'QA'; expected: Name of the stage, at most 30"),
        ("staging", {"Parameters": {"BakeSeconds": "long"}}, "is 'long'; expected a number, 0 to"),
        ("staging", {"Parameters": {"BakeSeconds": "nan"}}, "is 'nan'; expected a number, 0 to"),
        ("staging", {"Parameters": {"BakeSeconds": 9999}}, "is '9999'; expected a number, 0 to"),
        ("staging", {"Parameters": {"InstanceCount": 0}}, "expected a number, at least 1"),
        ("staging", {"Parameters": {"InstanceType": "m5.large"}}, "such as ml.m5.large"),
        ("staging", {"Parameters": {"SubnetIds": ["a"]}}, "SubnetIds is 'a'; expected: IDs of"),
        ("staging", {"Parameters": {"SubnetIds": [["a"]]}}, "SubnetIds must be text, a number"),
        (
            "staging",
            {"Parameters": {"InstanceCount": 3, "MaxInstanceCount": 1}},
            "MaxInstanceCount is 1, less than InstanceCount 3; remove it",
        ),
        ("staging", {"Cost": {"IdlePerMonthUSD": "20"}}, "must be a number or null, not '20'"),
        ("staging", {"Tags": {"team": None}}, "Tags.team must be text of 1 to 256"),
        ("staging", {"Tags": {"team": "x" * 257}}, "Tags.team must be text of 1 to 256"),
        ("staging", {"Tags": {"AWS:team": "x"}}, "does not begin with aws:"),
        ("staging", {"Tags": {"a#b": "x"}}, "Tags.a#b: a name has at most 128 letters"),
        ("staging", {"Tags": {"commit": "x"}}, "Tags.commit is set by mlops deploy"),
        ("staging", {"Tags": dict.fromkeys(map(str, range(44)), "x")}, "room for 42"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_remedy(
    repo: Repo, name: str, keys: dict[str, object], said: str | None
) -> None:
    if keys:
        repo.stage(name, **keys)
    if said is None:
        assert not stages.load(repo.settings(), name).parameters
        return
    with pytest.raises(MlopsError) as refused:
        stages.load(repo.settings(), name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_json_is_named_with_its_line(repo: Repo) -> None:
    (repo.root / "infra" / "staging.json").write_text('{\n  "Account": null,,\n}')
    with pytest.raises(MlopsError, match=r"infra/staging\.json: not JSON: .* line 2"):
        stages.load(repo.settings(), "staging")


def test_a_role_in_another_account_is_made_an_arn(repo: Repo) -> None:
    repo.stage("staging", Account="210987654321", Role="deployer")
    staging = stages.load(repo.settings(), "staging")
    assert staging.role == "arn:aws:iam::210987654321:role/deployer"


def test_a_name_too_long_for_an_endpoint_is_refused_before_anything_is_called(repo: Repo) -> None:
    name = "s" * 60
    repo.stage(name)
    with pytest.raises(MlopsError, match="at most 63"):
        stages.load(repo.settings(), name)


def test_reviewers_are_users_and_teams(repo: Repo) -> None:
    settings = repo.settings()
    assert stages.load(settings, "staging").reviewers == ()
    assert stages.load(settings, "production").reviewers is None
    repo.stage("production", Reviewers=["ada", "my-org/ml-leads"])
    assert stages.load(settings, "production").reviewers == ("ada", "my-org/ml-leads")


def test_a_file_that_names_no_reviewers_requires_approval_for_production(repo: Repo) -> None:
    for name in ("staging", "production"):
        file = repo.root / "infra" / f"{name}.json"
        content = json.loads(file.read_text())
        del content["Reviewers"]
        file.write_text(json.dumps(content))
    assert stages.load(repo.settings(), "staging").reviewers == ()
    assert stages.load(repo.settings(), "production").reviewers is None


@pytest.mark.parametrize(
    ("reviewers", "told"),
    [
        ("ada", 'Reviewers must be a list such as ["ada", "my-org/ml-leads"], or null'),
        ([1], "Reviewers: 1 is neither a user (ada) nor a team"),
        (["a b"], "'a b' is neither a user (ada) nor a team (my-org/ml-leads)"),
        (["a/b/c"], "'a/b/c' is neither"),
        (list("abcdefg"), "Reviewers has 7 entries, GitHub allows 6"),
    ],
)
def test_invalid_reviewers_are_refused(repo: Repo, reviewers: Any, told: str) -> None:
    repo.stage("production", Reviewers=reviewers)
    with pytest.raises(MlopsError) as refused:
        stages.load(repo.settings(), "production")
    assert told in str(refused.value) and "infra/production.json" in str(refused.value)
