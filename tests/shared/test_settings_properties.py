"""Any mlops.yaml, pyproject.toml and stage file is either understood or refused in one line; AWS
accepts the names of every legal project in every region."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import unicodedata
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from repos import IDENTITY, TEMPLATE, Repo
from sm_mlops import bundle, templates
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError
from sm_mlops.settings import PARAMETERS, Project, Settings, SettingsError, load, parameter_name

QUICK = settings(max_examples=150)
OWN = yaml.safe_load((TEMPLATE / "mlops.yaml").read_text(encoding="utf-8"))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "a\nb", "\x1b[31m", "\ud800", "null", "~", "s3://b/k", "ml.m5.large"]),
    st.dates(min_value=date(1, 1, 2)),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(SCALARS.filter(lambda k: k == k), inner, max_size=3)
    ),
    max_leaves=6,
)


def understood(read: Callable[[], object], error: type[Exception]) -> bool:
    """Return whether it is understood; if not, it must be refused in one printable line."""
    try:
        read()
    except error as refused:
        said = str(refused)
        assert len(said.splitlines()) == 1
        assert not [c for c in said if unicodedata.category(c) in ("Cc", "Cs")], repr(said)
        return False
    return True


def changed(draw: random.Random, value: Any) -> dict[str, Any]:
    """Return this repo's mlops.yaml with one value or key replaced, at any depth."""
    content: dict[Any, Any] = copy.deepcopy(OWN)
    place = content
    while True:
        key = draw.choice(list(place))
        if isinstance(place[key], dict) and place[key] and draw.random() < 0.85:
            place = place[key]
            continue
        if draw.random() < 0.2 and not isinstance(value, dict | list):
            place[value] = place.pop(key)
        else:
            place[key] = value
        return content


def survives(found: Settings) -> None:
    """Check that the settings can be passed on: to the jobs as YAML, to SageMaker as JSON."""
    bundle.collect(found, "preprocess.py", reads=["data", "split", "gate", "compute"])
    for job in (found.compute.preprocess, found.compute.train, found.compute.evaluate):
        assert math.ceil(job.max_hours * 3600) >= 1
    json.dumps([found.data.path, *found.hyperparameters.values()]).encode()


@pytest.mark.slow
@QUICK
@given(st.randoms(use_true_random=False), VALUES)
def test_any_value_at_any_key_is_understood_or_refused_in_one_line(
    repo: Repo, draw: random.Random, value: Any
) -> None:
    text = yaml.dump(changed(draw, value), allow_unicode=False)
    (repo.root / "mlops.yaml").write_text(text, encoding="utf-8")
    if understood(lambda: load(repo.root), SettingsError):
        survives(load(repo.root))


@pytest.mark.slow
@QUICK
@given(st.one_of(st.binary(), st.text().map(lambda t: t.encode("utf-8", "ignore"))))
@example(b"data: {path: 2024-13-45, target: y}")
@example(b"data: {path: x, target: " + b"9" * 5000 + b"}")
@example(b"[" * 3000)
@example(b"? [a]\n: b")
@example(b"data: &a [*a]")
@example(b"&a {data: *a}")
@example(b"data: {path: !!int x, target: y}")
@example(b"data: {path: !!timestamp x, target: y}")
@example(b'data: {path: x, target: "\\ud800"}')
@example(b"data: {path: x, target: y}\ncompute: {train: {max_hours: 1e307}}")
@example(b"data: {path: x, target: y}\nsplit: {seed: -1}")
@example(b"data: {path: x, target: y}\n\x00")
@example(b"data: {path: x, target: y}\n---\ngate: {}")
def test_any_bytes_are_understood_or_refused_in_one_line(repo: Repo, content: bytes) -> None:
    (repo.root / "mlops.yaml").write_bytes(content)
    if understood(lambda: load(repo.root), SettingsError):
        survives(load(repo.root))


@pytest.mark.slow
@QUICK
@given(
    st.one_of(
        st.binary(),
        st.sampled_from(["3", "true", "[]", "{}", "1979-05-27", "nan", '"x"', '"a\\nb"']).flatmap(
            lambda value: st.sampled_from(
                [
                    f"tool = {value}",
                    f"[tool]\nmlops = {value}",
                    IDENTITY.replace('"churn"', value, 1),
                    f"{IDENTITY}more = {value}",
                    f'{IDENTITY}"a\\nb" = {value}',
                ]
            ).map(str.encode)
        ),
    )
)
@example(b"a = " + b"[" * 3000)
@example(IDENTITY.encode())
def test_any_pyproject_is_understood_or_refused_in_one_line(repo: Repo, content: bytes) -> None:
    (repo.root / "pyproject.toml").write_bytes(content)
    if understood(lambda: load(repo.root), SettingsError):
        assert all(isinstance(v, str) for v in vars(load(repo.root).project).values())


@pytest.fixture
def read_once(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings and the endpoint's template, which take most of the time."""
    found = repo.settings()
    declared = templates.parameters(stages.template(found))
    monkeypatch.setattr(templates, "parameters", lambda text: declared)
    return found


STAGE = json.loads((TEMPLATE / "infra" / "production.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@QUICK
@given(st.randoms(use_true_random=False), VALUES)
@example(random.Random(0), 10**320)
def test_any_stage_file_is_understood_or_refused_in_one_line(
    repo: Repo, read_once: Settings, draw: random.Random, value: Any
) -> None:
    content = copy.deepcopy(STAGE)
    keys = ["Account", "Role", "Reviewers", "Cost", "Parameters", "Tags"]
    place = content
    if draw.random() < 0.6:
        place = content[draw.choice([k for k in keys if isinstance(content.get(k), dict)])]
        keys = [*place, "InstanceType"]
    place[draw.choice(keys)] = value
    text = json.dumps(content, default=str, skipkeys=True)
    (repo.root / "infra" / "staging.json").write_text(text, encoding="utf-8")
    understood(lambda: stages.load(read_once, "staging"), MlopsError)


@pytest.mark.parametrize("key", ["\x1e", "a\nb", "\x1b[31m"])
@pytest.mark.parametrize("place", [None, "Parameters", "Tags"])
def test_a_key_of_a_stage_file_is_shown_in_one_line(
    repo: Repo, place: str | None, key: str
) -> None:
    content = copy.deepcopy(STAGE)
    (content.setdefault(place, {}) if place else content)[key] = "x"
    (repo.root / "infra" / "staging.json").write_text(json.dumps(content), encoding="utf-8")
    found = repo.settings()
    assert not understood(lambda: stages.load(found, "staging"), MlopsError)


@pytest.mark.parametrize("role", ["\x1e", "a b", "arn:aws:iam::1:role/x", 7, ["x"], "x" * 600])
def test_an_invalid_role_is_refused_in_one_line(repo: Repo, role: object) -> None:
    content = {**STAGE, "Role": role}
    (repo.root / "infra" / "staging.json").write_text(json.dumps(content), encoding="utf-8")
    found = repo.settings()
    assert not understood(lambda: stages.load(found, "staging"), MlopsError)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"Account": ' + "9" * 5000 + "}"])
def test_a_malformed_stage_file_is_refused_in_one_line(repo: Repo, text: str) -> None:
    (repo.root / "infra" / "staging.json").write_text(text, encoding="utf-8")
    found = repo.settings()
    assert not understood(lambda: stages.load(found, "staging"), MlopsError)


# Names.

SESSION = botocore.session.get_session()
REGIONS = sorted(
    region
    for partition in SESSION.get_available_partitions()
    for region in SESSION.get_available_regions("sagemaker", partition_name=partition)
)
# The names that the template accepts for a SageMaker project.
PROJECTS = st.one_of(
    st.from_regex(r"[a-z](-*[a-z0-9]){0,31}", fullmatch=True).filter(lambda n: len(n) <= 32),
    st.sampled_from(["a", "a" * 32, "a" + "-" * 30 + "b", "a-1" * 10 + "bc"]),
)
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def accepts(service: str, shape: str, name: str) -> bool:
    """Return whether botocore's model of the service accepts this name."""
    rules = SESSION.get_service_model(service).shape_for(shape).metadata
    long_enough = rules.get("min", 0) <= len(name) <= rules.get("max", len(name))
    return long_enough and re.fullmatch(rules.get("pattern", ".*"), name) is not None


@pytest.mark.slow
@settings(max_examples=200)
@given(PROJECTS, st.sampled_from(REGIONS), st.from_regex(r"[0-9]{12}", fullmatch=True))
def test_names_of_every_project_in_every_region_are_names_to_aws(
    project: str, region: str, account: str
) -> None:
    identity = Project(project, region, "acme/repo", "oidc")
    found = Settings(Path(), identity, load_data())
    stacks = [f"{project}-{stage}" for stage in ("staging", "production")]
    assert accepts("sagemaker", "PipelineName", found.pipeline)
    assert accepts("sagemaker", "EntityName", found.model_package_group)
    assert accepts("sagemaker", "ProjectEntityName", project)
    for name in stacks:
        assert accepts("sagemaker", "EndpointName", name)
        assert accepts("cloudformation", "StackNameOrId", name)
        assert accepts("cloudwatch", "AlarmName", f"{name}-invocations")
    for role in (found.role_arn(account), *(f"{project}-{use}" for use in ("github", "launch"))):
        assert accepts("iam", "roleNameType", role.rpartition("/")[2])
    assert accepts("sagemaker", "RoleArn", found.role_arn(account))
    bucket = found.bucket(account)
    assert BUCKET.fullmatch(bucket)
    assert accepts("sagemaker", "S3Uri", f"s3://{bucket}/{found.prefix}/executions/x")
    assert region in bucket
    assert account in bucket
    # Of two projects, neither has the other's name, nor a prefix of its objects.
    assert not f"{found.prefix}/".startswith(f"{project}x/")


def load_data() -> Any:
    """Return the parts of Settings that names are derived from."""
    from sm_mlops.settings import Data

    return Data("rows.csv", "y")


def test_the_partition_of_a_region_is_the_one_it_is_in() -> None:
    for partition in ("aws", "aws-us-gov"):  # no other has what a project needs
        for region in SESSION.get_available_regions("sagemaker", partition_name=partition):
            project = Project("p", region, "acme/repo", "oidc")
            assert Settings(Path(), project, load_data()).partition == partition, region


@pytest.mark.slow
@settings(max_examples=200)
@given(st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True))
def test_a_hyperparameter_makes_a_parameters_name(name: str) -> None:
    assert accepts("sagemaker", "PipelineParameterName", parameter_name(name)) or len(name) > 256


@pytest.mark.slow
@QUICK
@given(st.lists(st.from_regex(r"(eta|a|b_c|input|data|1|_){1,4}", fullmatch=True), max_size=4))
@example(["input_data"])
@example(["a_b", "a__b"])
@example(["a1", "a_1"])
def test_no_two_parameters_have_one_name(repo: Repo, hyperparameters: list[str]) -> None:
    content = OWN | {"hyperparameters": dict.fromkeys(hyperparameters, 1)}
    (repo.root / "mlops.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    if understood(lambda: load(repo.root), SettingsError):
        found = [*PARAMETERS, *map(parameter_name, load(repo.root).hyperparameters)]
        assert len(set(found)) == len(found)
    else:
        named = [parameter_name(h) for h in set(hyperparameters)]
        legal = all(re.fullmatch(r"[a-z][a-z0-9_]*", h) for h in hyperparameters)
        assert not legal or len({*PARAMETERS, *named}) < len(PARAMETERS) + len(named)
