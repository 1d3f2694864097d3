"""The platform: planned, created, upgraded, shared by repos of all versions, and deleted."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bootstrap_case import ACCOUNT, BUCKET, REGION, Kept, Land, connected_once, items, land
from connected_case import app_layer
from fault_injection import inject
from sm_mlops import objects, stacks, templates
from sm_mlops import platform as package
from sm_mlops.bootstrap import adoption, assets, catalog, credential, needs, platform
from sm_mlops.bootstrap.plan import Todo, is_work
from sm_mlops.bootstrap.platform import STACK, Options, Platform, Retry
from sm_mlops.bootstrap.project import Project
from sm_mlops.bootstrap.studio import TAG, Studio
from sm_mlops.bootstrap.subscribers import PENDING, Subscribers, protocol
from sm_mlops.deployment import access
from sm_mlops.errors import MlopsError
from sm_mlops.stacks import StackFailed

pytestmark = pytest.mark.slow

TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
LAKE, ELSEWHERE = "arn:aws:s3:::lake", "arn:aws:s3:::elsewhere"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return a sandbox with a platform of version 0.1.0 and the project."""
    return connected_once(tmp_path_factory.mktemp("connected"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    with land(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def there(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    with kept.entered(tmp_path, monkeypatch) as found:
        yield found


def act(found: Land, **options: Any) -> list[str]:
    told: list[str] = []
    found.part(Platform, **options).act(told.append)
    return told


def parameters(found: Land) -> dict[str, str]:
    stack = stacks.describe(found.aws, STACK)
    assert stack is not None
    return stack.parameters


def versions(found: Land) -> dict[str, str]:
    product = (platform.outputs(found.aws) or {})["ProductId"]
    return {item.name: item.guidance for item in catalog.versions(found.aws, product)}


# From nothing


def test_the_plan_of_an_empty_account_makes_everything_and_changes_nothing(empty: Land) -> None:
    planned = items(empty.part(Platform).look())
    assert set(planned.values()) == {"create"}
    assert {f"platform {STACK}", f"artifact bucket {BUCKET}", "product version 0.1.0"} <= set(
        planned
    )
    assert empty.writes == []
    assert platform.outputs(empty.aws) is None


def test_what_was_planned_exists_afterward_and_nothing_is_left_to_do(empty: Land) -> None:
    planned = items(empty.part(Platform).look())
    told = act(empty)
    assert empty.writes
    assert items(empty.part(Platform).look()) == dict.fromkeys(planned, "exists")
    assert sum("bucket" in line for line in told) == 1
    empty.calls.clear()
    assert act(empty) == []
    assert empty.writes == []
    made = parameters(empty)
    assert (made["AllowedOwners"], made["TemplateVersion"]) == ("acme", "0.1.0")


def test_an_existing_bucket_is_adopted_with_its_objects(empty: Land) -> None:
    s3 = empty.aws.s3
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="churn/data.csv", Body=b"1")
    assert items(empty.part(Platform).look())[f"artifact bucket {BUCKET}"] == "change"
    assert f"adopted      bucket {BUCKET}" in act(empty)
    assert s3.get_object(Bucket=BUCKET, Key="churn/data.csv")["Body"].read() == b"1"
    # Not only believed to be so.
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert "EncryptedConnectionsOnly" in s3.get_bucket_policy(Bucket=BUCKET)["Policy"]
    assert not list(filter(is_work, empty.part(Platform).look()))


def test_a_bucket_with_a_policy_is_refused_before_anything_is_made(empty: Land) -> None:
    s3 = empty.aws.s3
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    theirs = {
        "Sid": "TheirOwn",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{BUCKET}/secret/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    empty.calls.clear()
    with pytest.raises(MlopsError, match=rf"{BUCKET} has a policy .*TheirOwn.*delete-bucket-poli"):
        empty.part(Platform).look()
    assert empty.writes == []
    s3.delete_bucket_policy(Bucket=BUCKET)
    act(empty)
    assert not list(filter(is_work, empty.part(Platform).look()))


def test_a_bucket_that_would_lose_its_settings_is_refused_before_anything_is_made(
    empty: Land,
) -> None:
    s3 = empty.aws.s3
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    rule = {"ID": "their old-versions", "Status": "Enabled", "Filter": {"Prefix": "a/"}}
    rules = {"Rules": [{**rule, "NoncurrentVersionExpiration": {"NoncurrentDays": 3650}}]}
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)
    cors = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://acme.org"]}
    s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [cors]})
    by_key = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    encryption = {"Rules": [by_key]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=encryption)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    names = "CORS rule https://acme.org, encryption aws:kms, lifecycle rule their old-versions"
    empty.calls.clear()
    with pytest.raises(MlopsError, match=rf"would replace \({names}, tag team\): remove them"):
        empty.part(Platform).look()
    assert empty.writes == []
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    s3.delete_bucket_cors(Bucket=BUCKET)
    s3.delete_bucket_encryption(Bucket=BUCKET)
    s3.delete_bucket_tagging(Bucket=BUCKET)
    act(empty)


def test_what_the_platform_sets_itself_is_replaced_without_a_word_only_if_the_bucket_is_its_own(
    empty: Land,
) -> None:
    s3 = empty.aws.s3
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    tags = {"TagSet": [{"Key": "project", "Value": "billing"}, {"Key": "owner", "Value": "b"}]}
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging=tags)
    rule = {"ID": "old-versions", "Status": "Enabled", "Filter": {"Prefix": ""}}
    rules = {"Rules": [{**rule, "NoncurrentVersionExpiration": {"NoncurrentDays": 3650}}]}
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)
    names = "lifecycle rule old-versions, tag owner, tag project"
    with pytest.raises(MlopsError, match=rf"would replace \({names}\)"):
        empty.part(Platform).look()
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    s3.delete_bucket_tagging(Bucket=BUCKET)
    adoption.adopt(empty.aws, STACK, BUCKET, Console(quiet=True))
    # Interrupted here, it is in the stack, where only an update is left.
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging=tags)
    act(empty)
    assert not list(filter(is_work, empty.part(Platform).look()))


def test_what_share_grants_survives_the_next_update_of_the_stack(there: Land) -> None:
    def policy() -> str:
        return str(there.aws.s3.get_bucket_policy(Bucket=BUCKET)["Policy"])

    for grant in access.plan(there.aws, ["210987654321"]):
        grant.apply()
    assert "210987654321" in policy()
    assert access.missing(there.aws, "210987654321") == ()
    assert access.plan(there.aws, ["210987654321"]) == ()
    more = f"{parameters(there)['DeploymentAccounts']},333344445555"
    act(there, parameters={"DeploymentAccounts": more})
    assert "210987654321" in policy() and "333344445555" in policy()
    # Nor does a project that needs no other account take them from those that do.
    assert [line for grant in access.plan(there.aws, []) for line in grant.lines] == [
        "- account 210987654321 may no longer read"
    ]


def test_existing_resources_that_are_unique_in_an_account_are_used(empty: Land) -> None:
    iam, connections = empty.aws.client("iam"), empty.aws.client("codeconnections")
    provider = iam.create_open_id_connect_provider(
        Url="https://token.actions.githubusercontent.com", ClientIDList=["sts.amazonaws.com"]
    )["OpenIDConnectProviderArn"]
    connection = connections.create_connection(ConnectionName="sm-mlops", ProviderType="GitHub")
    planned = items(empty.part(Platform).look())
    assert not {"OpenID Connect provider for GitHub", "connection to GitHub"} & set(planned)
    act(empty)
    made = platform.outputs(empty.aws) or {}
    assert made["OidcProviderArn"] == provider
    assert made["ConnectionArn"] == connection["ConnectionArn"]
    assert not list(filter(is_work, empty.part(Platform).look()))


@pytest.mark.parametrize(
    "operation",
    [
        "CreateFunction",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in (
                *("CreateChangeSet", "ListProvisioningArtifacts", "ExecuteChangeSet"),
                *("DescribeChangeSet", "CreateRole", "CreatePortfolio"),
            )
        ),
    ],
)
def test_after_a_failure_anywhere_the_next_run_continues_and_creates_nothing_twice(
    empty: Land, operation: str
) -> None:
    inject(empty.server, operation, "InternalFailure", times=1, status=400)
    with pytest.raises(Exception, match=r"injected|InternalFailure"):
        act(empty)
    act(empty)
    assert not list(filter(is_work, empty.part(Platform).look()))
    count_one_of_each(empty)


def count_one_of_each(found: Land) -> None:
    shop = found.aws.client("servicecatalog")
    assert len(shop.list_portfolios()["PortfolioDetails"]) == 1
    assert len(shop.search_products_as_admin()["ProductViewDetails"]) == 1
    assert list(versions(found)) == ["0.1.0"]
    alive = found.aws.client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in alive] == [STACK]
    assert len(found.aws.client("lambda").list_functions()["Functions"]) == 3


@pytest.mark.long
def test_a_stack_operation_of_a_killed_run_is_waited_for(empty: Land) -> None:
    body = templates.without(package.FOLDER / "platform.yml", "HasAssets")
    given = {"TemplateVersion": "0.1.0", "AllowedOwners": "acme"}
    empty.aws.client("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=body,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
    )
    told = act(empty)
    assert told[0] == f"Waiting: {STACK} is CREATE_IN_PROGRESS"
    assert not list(filter(is_work, empty.part(Platform).look()))


# Tools of several versions


def test_a_newer_tool_adds_a_version_and_deprecates_the_one_before(there: Land) -> None:
    act(there, parameters={"AlarmTopicArn": TOPIC})
    there.release("0.2.0")
    planned = items(there.part(Platform).look())
    assert planned[f"platform {STACK}"] == "change"
    assert there.part(Platform).look()[0].detail == "version 0.1.0; upgrade to 0.2.0"
    assert planned["product version 0.2.0"] == "create"
    act(there)
    assert versions(there) == {"0.1.0": "DEPRECATED", "0.2.0": "DEFAULT"}
    now = parameters(there)
    assert now["TemplateVersion"] == "0.2.0"
    assert now["AssetsPrefix"].startswith("platform/0.2.0/")
    assert now["FirstAssetsPrefix"].startswith("platform/0.1.0/")
    assert now["AlarmTopicArn"] == TOPIC
    assert not list(filter(is_work, there.part(Platform).look()))
    there.release("0.10.0")
    act(there)
    assert versions(there) == {"0.1.0": "DEPRECATED", "0.2.0": "DEPRECATED", "0.10.0": "DEFAULT"}


def test_a_platform_of_0_1_0_with_its_credential_is_upgraded(there: Land) -> None:
    """The secret stays as it is; its policy had another name."""
    there.aws = there.aws.as_role(admin(there))
    there.reword("platform.yml", "OnlyTheTriggerReadsIt", "OnlyTheTriggerReads")
    act(there)
    secrets = there.aws.client("secretsmanager")
    secrets.put_secret_value(SecretId="sm-mlops/github", SecretString="{}")
    there.reword("platform.yml", "OnlyTheTriggerReads", "OnlyTheTriggerReadsIt")
    there.release("0.2.0")
    act(there)
    assert parameters(there)["TemplateVersion"] == "0.2.0"
    assert "AWSCURRENT" in str(secrets.describe_secret(SecretId="sm-mlops/github"))


def test_a_secret_that_changed_could_not_be_updated_so_none_does(there: Land) -> None:
    there.aws = there.aws.as_role(admin(there))
    secrets = there.aws.client("secretsmanager")
    secrets.put_secret_value(SecretId="sm-mlops/github", SecretString="{}")
    there.release("0.2.0")
    act(there)
    there.release("0.3.0")
    there.reword("platform.yml", "Replace it with mlops secret rotate", "Rotate it")
    with pytest.raises(StackFailed, match=r"GitHubSecret: .*GetSecretValue"):
        act(there)


def test_an_older_tool_leaves_a_newer_platform_as_it_is(there: Land) -> None:
    there.release("0.10.0")
    act(there)
    there.release("0.2.0")
    there.calls.clear()
    found = there.part(Platform).look()
    assert not list(filter(is_work, found))
    assert "newer than this tool (0.2.0)" in found[0].detail
    assert act(there) == []
    assert there.writes == []
    assert "0.2.0" not in versions(there)


def test_other_files_of_the_same_version_are_replaced_by_the_tools_own(there: Land) -> None:
    there.reword("project.yml", "What the training pipeline of", "What training of")
    planned = there.part(Platform).look()
    assert planned[0].detail == ("version 0.1.0; its files will be replaced by this tool's")
    assert items(planned)["product version 0.1.0"] == "create"
    act(there)
    assert guidance(there) == [("0.1.0", "DEPRECATED"), ("0.1.0", "DEFAULT")]
    assert not list(filter(is_work, there.part(Platform).look()))


@pytest.mark.long
def test_replaced_files_of_the_same_version_come_back_only_with_a_tool_that_has_them(
    there: Land,
) -> None:
    before = package.FOLDER
    there.reword("platform.yml", "A model version was approved", "Somebody approved")
    act(there)
    assert rule(there) == "Somebody approved"
    there.environment.setattr(package, "FOLDER", before)
    planned = there.part(Platform).look()
    marked = [item for item in planned if item.what == "guidance of product version 0.1.0"]
    assert [item.detail for item in marked] == ["DEFAULT", "DEPRECATED"]
    assert {item.todo for item in marked} == {Todo.CHANGE}
    there.release("0.0.9")
    assert not list(filter(is_work, there.part(Platform).look()))
    assert act(there) == []
    assert rule(there) == "Somebody approved"
    there.release("0.1.0")
    act(there)
    assert rule(there) == "A model version was approved"
    assert guidance(there) == [("0.1.0", "DEFAULT"), ("0.1.0", "DEPRECATED")]
    assert not list(filter(is_work, there.part(Platform).look()))


def rule(found: Land) -> str:
    shown = found.aws.client("events").describe_rule(Name="sm-mlops-approved")
    return str(shown["Description"])


def guidance(found: Land) -> list[tuple[str, str]]:
    """Return the versions of the product in the order in which they were added."""
    product = (platform.outputs(found.aws) or {})["ProductId"]
    known = sorted(catalog.versions(found.aws, product), key=lambda item: item.made)
    return [(item.name, item.guidance) for item in known]


@pytest.mark.long
def test_a_version_of_a_fork_is_one_between_two_others(there: Land) -> None:
    there.release("0.2.0")
    act(there)
    there.release("0.2.0+acme.1")
    act(there)
    assert parameters(there)["AssetsPrefix"].startswith("platform/0.2.0_acme.1/")
    assert versions(there)["0.2.0+acme.1"] == "DEFAULT"
    there.release("0.2.0")
    assert "newer than this tool (0.2.0)" in there.part(Platform).look()[0].detail
    assert act(there) == []
    there.release("0.2.1")
    act(there)
    assert versions(there)["0.2.1"] == "DEFAULT"


def test_an_older_tool_lets_another_owner_in_and_changes_nothing_else(there: Land) -> None:
    there.release("0.2.0")
    act(there)
    before = parameters(there)
    other = there.neighbour("eu")
    file = other.repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace("acme/", "others/"))
    other.again()
    other.release("0.1.0")
    [item] = filter(is_work, other.part(Platform).look())
    assert item.detail.endswith("AllowedOwners + others")
    act(other)
    assert parameters(there) == before | {"AllowedOwners": "acme,others"}


def test_what_several_repos_need_is_combined(there: Land) -> None:
    there.repo.configure(data={"path": "s3://lake/churn/", "sample": None})
    there.repo.stage("production", Account="222233334444", Role="deploy")
    there.again()
    [item] = filter(is_work, there.part(Platform).look())
    assert "DeploymentAccounts + 222233334444" in item.detail
    act(there)
    assert parameters(there)["DataLocations"] == "arn:aws:s3:::lake,arn:aws:s3:::lake/churn/*"
    other = there.neighbour("eu")
    other.repo.configure(data={"path": "s3://lake/eu/all.csv", "sample": None})
    other.again()
    act(other)
    now = parameters(there)
    assert now["DataLocations"].endswith(
        "lake/churn/*,arn:aws:s3:::lake/eu/all.csv,arn:aws:s3:::lake/eu/all.csv/*"
    )
    assert now["DeploymentAccounts"] == "222233334444"
    assert not list(filter(is_work, there.part(Platform).look()))


def test_a_repo_for_whose_data_there_is_no_space_is_refused_until_the_list_is_wider(
    there: Land,
) -> None:
    folders = [LAKE, *(f"{LAKE}/team-{n}/*" for n in range(53))]
    act(there, parameters={"DataLocations": ",".join(folders)})
    there.repo.configure(data={"path": "s3://elsewhere/churn/raw/2026/", "sample": None})
    there.again()
    there.calls.clear()
    with pytest.raises(MlopsError, match=r"TrainBoundary.* would have 6,1[0-9]{2} char") as caught:
        there.part(Platform).look()
    assert there.writes == []
    words = shlex.split(str(caught.value).partition("keys instead: ")[2])
    assert words[:4] == ["mlops", "--sandbox", "bootstrap", "--platform"]
    given = {"parameters": dict([words[4].split("=", 1)])}
    [item] = filter(is_work, there.part(Platform, **given).look())
    assert f"DataLocations + {LAKE}/* + {ELSEWHERE} + {ELSEWHERE}/*" in item.detail
    act(there, **given)
    wide = f"{LAKE},{LAKE}/*,{ELSEWHERE},{ELSEWHERE}/*"
    assert parameters(there)["DataLocations"] == given["parameters"]["DataLocations"] == wide
    assert not list(filter(is_work, there.part(Platform).look()))
    # Nor does the next repo change anything.
    other = there.neighbour("eu")
    other.repo.configure(data={"path": "s3://lake/eu/", "sample": None})
    other.again()
    assert not list(filter(is_work, other.part(Platform).look()))


def test_the_plan_shows_what_a_shorter_list_takes_away(there: Land) -> None:
    act(there, parameters={"DataLocations": f"{LAKE},{LAKE}/a/*,{ELSEWHERE}"})
    given = {"DataLocations": f"{LAKE}/*"}
    [item] = filter(is_work, there.part(Platform, parameters=given).look())
    assert item.detail.endswith(f"DataLocations + {LAKE}/* - {LAKE} - {ELSEWHERE}")


def test_a_list_that_includes_the_artifact_bucket_is_refused(empty: Land) -> None:
    with pytest.raises(MlopsError, match=r"arn:aws:s3:::sm-\* includes the artifact bucket"):
        empty.part(Platform, parameters={"DataLocations": "arn:aws:s3:::sm-*"}).look()


def test_a_repo_with_a_bucket_of_its_own_reads_no_other_project_s_data(there: Land) -> None:
    path = f"s3://{BUCKET}/other/data/"
    there.repo.configure(aws={"bucket": "own"}, data={"path": path, "sample": None})
    there.again()
    with pytest.raises(MlopsError, match=rf"{BUCKET}.* includes the artifact bucket"):
        there.part(Platform).look()


def test_another_projects_part_of_the_bucket_is_refused_as_training_data(there: Land) -> None:
    there.repo.configure(data={"path": f"s3://{BUCKET}/other/data/", "sample": None})
    there.again()
    for kind in (Platform, Project):
        with pytest.raises(MlopsError, match=f"s3://{BUCKET}/churn/"):
            there.part(kind).look()
    there.repo.configure(data={"path": f"s3://{BUCKET}/churn/data/", "sample": None})
    there.again()
    assert there.open() == []


def test_a_github_app_brings_its_layer_once_its_key_is_there(
    there: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = app_layer()
    monkeypatch.setattr(assets, "build_layer", lambda root: layer)
    shared = there.part(Platform)
    shared.act(print)
    monkeypatch.setattr(credential, "kind", lambda aws: "app")
    told: list[str] = []
    Retry(shared).act(told.append)
    assert "added        layer sm-mlops-github-app" in told
    assert parameters(there)["HasLayer"] == "true"
    assert not list(filter(is_work, there.part(Platform).look()))
    assert Retry(shared).look() == []


# What is deployed is what was built


def trigger_key() -> str:
    return assets.build().prefix + assets.TRIGGER


def stored(found: Land, key: str) -> bytes:
    return bytes(found.aws.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())


@pytest.mark.parametrize("name", [assets.TRIGGER, assets.PROJECT])
def test_a_prepared_file_of_the_same_name_and_size_is_replaced_before_it_is_deployed(
    empty: Land, name: str
) -> None:
    built = assets.build()
    s3, key = empty.aws.s3, built.prefix + name
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * len(built.files[name]))
    [line] = [line for line in act(empty) if line.startswith("replaced")]
    assert name in line
    assert "CloudTrail" in line
    assert stored(empty, key) == built.files[name]
    assert not list(filter(is_work, empty.part(Platform).look()))


def test_a_file_that_was_replaced_later_is_planned_and_restored(there: Land) -> None:
    whole = stored(there, trigger_key())
    there.aws.s3.put_object(Bucket=BUCKET, Key=trigger_key(), Body=b"x" * len(whole))
    [item] = filter(is_work, there.part(Platform).look())
    assert (item.what, item.todo) == (trigger_key(), Todo.CHANGE)
    assert any(line.startswith("replaced") for line in act(there))
    assert stored(there, trigger_key()) == whole


def test_a_function_with_other_code_than_was_built_is_an_error_that_names_both(
    there: Land,
) -> None:
    functions, whole = there.aws.client("lambda"), stored(there, trigger_key())
    other = assets.archive({"handler.py": b"def handler(event, context): ..."})
    runs = functions.update_function_code(FunctionName="sm-mlops-trigger", ZipFile=other)
    [item] = filter(is_work, there.part(Platform).look())
    assert item.what == "code of function sm-mlops-trigger"
    with pytest.raises(MlopsError) as caught:
        act(there)
    assert runs["CodeSha256"] == objects.sha256(other)
    assert objects.sha256(other) in str(caught.value)
    assert objects.sha256(whole) in str(caught.value)
    functions.update_function_code(
        FunctionName="sm-mlops-trigger", S3Bucket=BUCKET, S3Key=trigger_key()
    )
    assert act(there) == []


def test_a_layer_with_other_content_than_was_built_is_replaced_or_an_error(
    there: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = app_layer()
    monkeypatch.setattr(assets, "build_layer", lambda root: layer)
    monkeypatch.setattr(credential, "kind", lambda aws: "app")
    key = assets.build().prefix + assets.LAYER
    there.aws.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * len(layer))
    assert any(line.startswith("replaced") for line in act(there))
    assert stored(there, key) == layer
    # Not what was built at the time of the stack's update.
    monkeypatch.setattr(assets, "build_layer", lambda root: layer + b"1")
    with pytest.raises(MlopsError, match=rf"layer arn:.*{re.escape(objects.sha256(layer))}"):
        act(there)


# What a person says


def test_a_parameter_of_the_command_line_is_planned_and_set(there: Land) -> None:
    given = {"AlarmTopicArn": TOPIC}
    [item] = filter(is_work, there.part(Platform, parameters=given).look())
    assert (item.todo, f"AlarmTopicArn {TOPIC}" in item.detail) == (Todo.CHANGE, True)
    act(there, parameters=given)
    assert parameters(there)["AlarmTopicArn"] == TOPIC
    assert not list(filter(is_work, there.part(Platform).look()))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"AlarmTopic": "x"}, "did you mean AlarmTopicArn"),
        ({"TemplateVersion": "9.9.9"}, "--platform TemplateVersion"),
        ({"AlarmTopicArn": "alarms"}, "expected: the ARN of an SNS topic"),
    ],
    ids=["unknown", "own", "malformed"],
)
def test_an_invalid_parameter_is_refused_before_anything_is_done(
    empty: Land, given: dict[str, str], complaint: str
) -> None:
    with pytest.raises(MlopsError, match=complaint):
        empty.part(Platform, parameters=given).look()


def test_a_repo_on_github_enterprise_server_needs_a_host(empty: Land) -> None:
    file = empty.repo.root / "pyproject.toml"
    text = file.read_text().replace('"oidc"', '"iam-user"')
    file.write_text(text + 'git-host = "git.example.com"\n', encoding="utf-8")
    empty.again()
    with pytest.raises(MlopsError, match="--platform ConnectionHostArn"):
        empty.part(Platform).look()


@pytest.mark.long
def test_another_host_needs_another_name_for_the_connection(empty: Land) -> None:
    file = empty.repo.root / "pyproject.toml"
    text = file.read_text().replace('"oidc"', '"iam-user"')
    file.write_text(text + 'git-host = "git.example.com"\n', encoding="utf-8")
    empty.again()
    host = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:host/ours"
    act(empty, parameters={"ConnectionHostArn": f"{host}-1a2b"})
    empty.calls.clear()
    given = {"ConnectionHostArn": f"{host}-3c4d"}
    with pytest.raises(MlopsError, match=r"connection sm-mlops, .*--platform ConnectionName="):
        empty.part(Platform, parameters=given).look()
    assert empty.writes == []
    named = {**given, "ConnectionName": "sm-mlops-new"}
    act(empty, parameters=named)
    assert not list(filter(is_work, empty.part(Platform, parameters=named).look()))


def test_jenkins_needs_its_url(empty: Land) -> None:
    file = empty.repo.root / "pyproject.toml"
    file.write_text(file.read_text() + 'ci = "jenkins"\n', encoding="utf-8")
    empty.again()
    found = items(empty.part(Platform).look())
    assert found["Jenkins URL"] == "manual"
    # Nor does GitHub sign in there.
    assert "OpenID Connect provider for GitHub" not in found
    url = {"JenkinsUrl": "https://jenkins.example.com"}
    assert "Jenkins URL" not in items(empty.part(Platform, parameters=url).look())


# Who may use the product

ALL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


def admin(found: Land) -> str:
    """Take a role with a path, as single sign-on gives people."""
    trust = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "sts:AssumeRole",
        },
    }
    iam = found.aws.client("iam")
    made = iam.create_role(
        RoleName="admin", Path="/people/", AssumeRolePolicyDocument=json.dumps(trust)
    )
    iam.put_role_policy(RoleName="admin", PolicyName="all", PolicyDocument=json.dumps(ALL))
    return str(made["Role"]["Arn"])


def test_the_role_that_is_signed_in_may_make_projects_and_loses_that_at_the_end(
    there: Land,
) -> None:
    arn = admin(there)
    there.aws = there.aws.as_role(arn)
    assert items(there.part(Platform).look())["your permission to create projects"] == "create"
    assert act(there) == [f"granted      {arn} may create projects"]
    assert items(there.part(Platform).look())["your permission to create projects"] == "exists"
    assert act(there) == []
    # A template in S3 does not need it.
    assert "your permission to create projects" not in items(
        there.part(Platform, template_provider="s3").look()
    )


STUDIO = [f"arn:aws:iam::{ACCOUNT}:role/studio-{number}" for number in range(6)]


def granted(found: Land) -> list[str]:
    portfolio = (platform.outputs(found.aws) or {})["PortfolioId"]
    return sorted(catalog.principals(found.aws, portfolio))


@pytest.mark.long
def test_without_the_first_of_several_roles_the_others_keep_their_right(there: Land) -> None:
    for arn in STUDIO[:4]:
        there.aws.client("iam").create_role(
            RoleName=arn.rpartition("/")[2], AssumeRolePolicyDocument=json.dumps(ALL)
        )
    act(there, parameters={"StudioRoleArns": ",".join(STUDIO[:3])})
    assert granted(there) == STUDIO[:3]
    act(there, parameters={"StudioRoleArns": ",".join(STUDIO[1:3])})
    assert granted(there) == STUDIO[1:3]
    assert parameters(there)["StudioRoleArns"] == ",".join(["none", *STUDIO[1:3]])
    act(there, parameters={"StudioRoleArns": ",".join(STUDIO[1:4])})
    assert granted(there) == STUDIO[1:4]
    act(there, parameters={"StudioRoleArns": ""})
    assert granted(there) == []
    with pytest.raises(MlopsError, match="at most 5 roles"):
        act(there, parameters={"StudioRoleArns": ",".join(STUDIO)})


def test_a_role_that_cloudformation_leaves_its_right_loses_it(
    there: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does with roles whose name has a path."""
    there.aws.client("iam").create_role(
        RoleName="studio-0", AssumeRolePolicyDocument=json.dumps(ALL)
    )
    act(there, parameters={"StudioRoleArns": STUDIO[0]})
    deploy = stacks.deploy

    def leaving(*given: Any, **more: Any) -> Any:
        done = deploy(*given, **more)
        portfolio = (platform.outputs(there.aws) or {})["PortfolioId"]
        catalog.grant(there.aws, portfolio, STUDIO[0])
        return done

    monkeypatch.setattr(stacks, "deploy", leaving)
    told = act(there, parameters={"StudioRoleArns": ""})
    assert f"revoked      {STUDIO[0]} may no longer create projects" in told
    assert granted(there) == []


@pytest.mark.long
def test_a_free_position_in_the_list_is_no_role(there: Land) -> None:
    for arn in STUDIO:
        there.aws.client("iam").create_role(
            RoleName=arn.rpartition("/")[2], AssumeRolePolicyDocument=json.dumps(ALL)
        )
    act(there, parameters={"StudioRoleArns": ",".join(STUDIO[:5])})
    act(there, parameters={"StudioRoleArns": ",".join(STUDIO[1:5])})
    # As doctor suggests it.
    suggested = needs.merged(parameters(there)["StudioRoleArns"], STUDIO[5:])
    assert suggested == ",".join(["none", *STUDIO[1:]])
    act(there, parameters={"StudioRoleArns": suggested})
    assert parameters(there)["StudioRoleArns"] == ",".join([STUDIO[5], *STUDIO[1:5]])
    assert granted(there) == STUDIO[1:]


def test_an_identity_that_service_catalog_refuses_is_reported_first(empty: Land) -> None:
    from dataclasses import replace

    empty.aws = replace(empty.aws, sandbox=False)
    with pytest.raises(MlopsError, match="--template-provider s3"):
        empty.part(Platform).look()
    assert empty.part(Platform, template_provider="s3").look()


# Templates in Studio


@pytest.fixture
def studio(there: Land) -> Iterator[Any]:
    """Return a domain's tag for templates as it is now, by the domain's name."""
    sagemaker, arns = there.aws.sagemaker, {}
    for name, tags in (("ours", []), ("theirs", [{"Key": TAG, "Value": "s3://theirs/"}])):
        arns[name] = sagemaker.create_domain(
            DomainName=name,
            AuthMode="IAM",
            DefaultUserSettings={},
            VpcId="vpc-1",
            SubnetIds=["subnet-1"],
            Tags=tags,
        )["DomainArn"]

    def tags_now() -> dict[str, str]:
        listed = {name: sagemaker.list_tags(ResourceArn=arn)["Tags"] for name, arn in arns.items()}
        return {name: row["Value"] for name, rows in listed.items() for row in rows}

    yield tags_now
    for arn in arns.values():
        sagemaker.delete_domain(DomainId=arn.rpartition("/")[2])


def test_studio_shows_templates_in_s3_unless_it_shows_others(there: Land, studio: Any) -> None:
    assert Studio(there.aws).look() == []
    part = Studio(there.aws, Options("s3"))
    ours, theirs = part.look()
    assert (ours.todo, ours.detail) == (Todo.CHANGE, f"tag {TAG}=s3://{BUCKET}/platform/")
    assert theirs.todo is Todo.PERSON and "s3://theirs/" in theirs.detail
    told: list[str] = []
    part.act(told.append)
    assert told == [f"set          templates in Studio domain ours to s3://{BUCKET}/platform/"]
    assert studio() == {"ours": f"s3://{BUCKET}/platform/", "theirs": "s3://theirs/"}
    assert [item.todo for item in part.look()] == [Todo.NOTHING, Todo.PERSON]


def test_templates_leave_studio_with_the_last_project(
    there: Land, studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Studio(there.aws, Options("s3")).act(print)
    before = studio()
    part = Studio(there.aws)
    with monkeypatch.context() as used:
        used.setattr("sm_mlops.bootstrap.studio.others", lambda aws: ["SC-eu"])
        assert [(item.todo, item.detail) for item in part.look_back()] == [
            (Todo.NOTHING, "kept: used by SC-eu")
        ]
        part.undo(print)
        assert studio() == before
    assert items(part.look_back()) == {"templates in Studio domain ours": "delete"}
    part.undo(print)
    assert studio() == {"theirs": "s3://theirs/"}
    assert part.look_back() == []


# Away again


def test_a_platform_knows_the_other_projects_that_use_it(there: Land) -> None:
    assert platform.others(there.aws) == []
    other = there.neighbour("eu")
    [user] = platform.others(other.aws)
    assert user.startswith(f"SC-{ACCOUNT}-pp-")


def test_a_bucket_is_emptied_of_all_versions_before_the_stack_is_deleted(empty: Land) -> None:
    act(empty)
    for body in (b"1", b"22"):
        empty.aws.s3.put_object(Bucket=BUCKET, Key="churn/x", Body=body)
    empty.aws.s3.delete_object(Bucket=BUCKET, Key="churn/x")
    part = empty.part(Platform)
    [bucket] = [item for item in part.look_back() if BUCKET in item.what]
    # Trigger, template, two versions and a mark of deletion.
    assert "6 objects" in bucket.detail
    told: list[str] = []
    part.undo(told.append)
    assert told[-1] == f"deleted      {STACK}"
    assert part.look_back() == []
    assert stacks.describe(empty.aws, STACK) is None


def test_a_sign_in_provider_that_others_trust_is_kept_and_said_why(empty: Land) -> None:
    act(empty)
    iam = empty.aws.client("iam")
    arn = (platform.outputs(empty.aws) or {})["OidcProviderArn"]
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{arn.partition('/')[2]}:aud": "sts.amazonaws.com"}},
    }
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_role(RoleName="website", AssumeRolePolicyDocument=trust)
    part, words = empty.part(Platform), "OpenID Connect provider for GitHub"
    [item] = [item for item in part.look_back() if item.what == words]
    assert (item.todo, item.detail) == (Todo.NOTHING, "kept: trusted by role website")
    empty.release("0.2.0")
    with pytest.raises(MlopsError, match="role website trust: run mlops --sandbox bootstrap once"):
        part.undo(print)
    empty.release("0.1.0")
    told: list[str] = []
    part.undo(told.append)
    assert f"kept         {words}: role website trust it" in told
    assert stacks.describe(empty.aws, STACK) is None
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ClientIDList"]


@pytest.mark.long
def test_a_sign_in_provider_that_no_one_trusts_goes_with_the_platform(empty: Land) -> None:
    act(empty)
    empty.part(Platform).undo(print)
    listed = empty.aws.client("iam").list_open_id_connect_providers()
    assert listed["OpenIDConnectProviderList"] == []


def test_a_failed_deletion_is_resumed(empty: Land) -> None:
    act(empty)
    inject(empty.server, "DeleteFunction", "InternalFailure", times=1)
    with pytest.raises(StackFailed):
        empty.part(Platform).undo(print)
    assert empty.part(Platform).look_back()
    empty.part(Platform).undo(print)
    assert empty.part(Platform).look_back() == []


def test_without_a_platform_none_is_deleted(empty: Land) -> None:
    part = empty.part(Platform)
    assert (part.look_back(), platform.others(empty.aws)) == ([], [])
    part.undo(print)
    assert empty.writes == []


# Messages


def test_whoever_is_named_is_subscribed_once(there: Land) -> None:
    who = ("ada@example.com", "grace@example.com")
    part = Subscribers(there.aws, who)
    wanted = [f"messages to {each}" for each in who]
    assert items(part.look()) == dict.fromkeys(wanted, "create")
    told: list[str] = []
    for _ in range(2):
        part.act(told.append)
    assert told == ["subscribed   ada@example.com", "subscribed   grace@example.com"]
    # Another repo's bootstrap, which names nobody, keeps and shows them.
    assert list(items(Subscribers(there.aws).look())) == wanted
    part._subscribed = lambda topic: {"ada@example.com": PENDING}  # type: ignore[method-assign]
    assert items(part.look()) == dict(zip(wanted, ("manual", "create"), strict=True))


def test_whoever_has_ended_a_subscription_is_subscribed_again(
    there: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNS lists the former subscription for three days."""
    row = {"Endpoint": "ada@example.com", "SubscriptionArn": "Deleted"}
    monkeypatch.setattr(type(there.aws), "pages", lambda *_, **__: iter([row]))
    part = Subscribers(there.aws, ("ada@example.com",))
    monkeypatch.setattr(part, "_topic", lambda: "arn:aws:sns:eu-west-1:123456789012:messages")
    assert items(part.look()) == {"messages to ada@example.com": "create"}


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("ada@example.com", "email"),
        ("https://example.com/hook", "https"),
        ("arn:aws:lambda:eu-west-1:123456789012:function:chat", "lambda"),
        ("arn:aws:sqs:eu-west-1:123456789012:messages", "sqs"),
        ("http://example.com", ""),
        ("ada", ""),
        ("arn:aws:s3:::bucket", ""),
        ("https://user:password@example.com/", ""),
    ],
)
def test_a_subscriber_is_reached_by_what_its_address_says(endpoint: str, said: str) -> None:
    if said:
        assert protocol(endpoint) == said
    else:
        with pytest.raises(MlopsError, match="must be an e-mail address"):
            protocol(endpoint)
