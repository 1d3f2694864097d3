"""The stages as their files say them, and what is refused in those files."""

from __future__ import annotations

import pytest

from conftest import Repo
from ops import stages
from ops.errors import MlopsError


def test_every_json_file_of_infra_is_a_stage_from_staging_to_production(repo: Repo) -> None:
    repo.stage("canary")
    repo.stage("zone-b")
    assert stages.names(repo.settings()) == ("staging", "canary", "zone-b", "production")


def test_the_rendered_stages_can_be_read_and_say_what_they_cost_idle(repo: Repo) -> None:
    staging = stages.load(repo.settings(), "staging")
    assert (staging.stack, staging.kind, staging.idle_cost) == ("churn-staging", "serverless", 0)
    production = stages.load(repo.settings(), "production")
    assert (production.kind, production.account, production.role) == ("real-time", None, "")
    assert (production.idle_cost or 0) > 0
    assert production.parameters["InstanceCount"] == "2"


def test_values_become_the_text_that_cloudformation_takes(repo: Repo) -> None:
    given = {"SubnetIds": ["subnet-1", "subnet-2"], "NetworkIsolation": False, "BakeSeconds": 60}
    repo.stage("staging", Parameters=given)
    assert stages.load(repo.settings(), "staging").parameters == {
        "SubnetIds": "subnet-1,subnet-2",
        "NetworkIsolation": "false",
        "BakeSeconds": "60",
    }


def test_the_kind_is_the_templates_own_where_the_stage_names_none(repo: Repo) -> None:
    repo.stage("staging", Parameters={})
    template = stages.template(repo.settings())
    default = stages.template_parameters(template)["EndpointKind"]["Default"]
    assert stages.load(repo.settings(), "staging").kind == default


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("stagin", {}, "no stage stagin: did you mean staging?"),
        ("qa", {}, "no stage qa: known are staging, production"),
        ("staging", {"Parametres": {}}, "Parametres is unknown: did you mean Parameters?"),
        ("staging", {"Parameters": {"InstanceTyp": "x"}}, "did you mean InstanceType?"),
        ("staging", {"Parameters": {"Commit": "x"}}, "Commit is set by mlops deploy itself"),
        ("staging", {"Parameters": {"EndpointKind": "realtime"}}, "did you mean real-time?"),
        ("staging", {"Parameters": {"BakeSeconds": None}}, "BakeSeconds must be text, a number"),
        ("staging", {"Parameters": []}, None),
        ("staging", {"Parameters": [1]}, "Parameters must be an object"),
        ("staging", {"Account": "12"}, "Account must be 12 digits in quotes, not '12'"),
        ("staging", {"Role": "deployer"}, "Role deployer needs an Account"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_remedy(
    repo: Repo, name: str, keys: dict[str, object], said: str | None
) -> None:
    if keys:
        repo.stage(name, **keys)
    if said is None:
        assert stages.load(repo.settings(), name).parameters == {}
        return
    with pytest.raises(MlopsError) as refused:
        stages.load(repo.settings(), name)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_json_is_named_with_its_line(repo: Repo) -> None:
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
