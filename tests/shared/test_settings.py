"""mlops.yaml as people write it, valid and invalid."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from repos import Repo
from schedule_expressions import ACCEPTED, NEVER, REFUSED
from sm_mlops import bundle, schedules
from sm_mlops import settings as mlops_settings
from sm_mlops.settings import SettingsError
from sm_mlops.tabular import mlops_yaml, preprocess

LONGEST = "a" + "-b" * 15 + "c"


def write(repo: Repo, text: str) -> None:
    (repo.root / "mlops.yaml").write_text(text, encoding="utf-8")


def test_the_repos_own_settings_are_valid(repo: Repo) -> None:
    assert repo.settings().data.target


def test_path_and_target_are_all_that_is_needed(repo: Repo) -> None:
    write(repo, "data: {path: rows.csv, target: y}")
    settings = repo.settings()
    assert (settings.data.task, settings.gate.tolerance, settings.compute.train.spot) == (
        "auto",
        0.0,
        False,
    )
    assert settings.hyperparameters == {}


def test_empty_sections_mean_their_defaults(repo: Repo) -> None:
    write(repo, "data: {path: rows.csv, target: y}\ngate:\ncompute:\n  train:\nhyperparameters:\n")
    assert repo.settings().compute.train.instance == "ml.m5.large"


WRITTEN = """
data: {path: x, target: on, drop: [yes, 1.10, 2024-01-01, 007, n], positive: yes}
split: {validation: 15e-2, test: "0.2", seed: 1_000}
gate: {threshold: 9e-1, tolerance: 1e-2}
compute: {train: {spot: yes, max_hours: 5E-1}}
aws: {network_isolation: off}
hyperparameters: {eta: 5e-2, lambda: 1.50}
"""


def test_words_and_numbers_of_yaml_mean_what_they_look_like(repo: Repo) -> None:
    write(repo, WRITTEN)
    found = repo.settings()
    data, split, gate = found.data, found.split, found.gate
    assert (data.target, data.positive) == ("on", "yes")
    assert data.drop == ("yes", "1.10", "2024-01-01", "007", "n")
    assert (split.validation, split.test, split.seed) == (0.15, 0.2, 1000)
    assert (gate.threshold, gate.tolerance) == (0.9, 0.01)
    assert (found.compute.train.spot, found.compute.train.max_hours) == (True, 0.5)
    assert found.aws.network_isolation is False
    assert found.hyperparameters == {"eta": "5e-2", "lambda": "1.50"}


@pytest.mark.slow
def test_the_jobs_read_mlops_yaml_as_the_tool_does(repo: Repo, tmp_path: Path) -> None:
    more = "decimal: comma, changed_columns: stop, checks: {a: {allowed: [1.10, no, 2], stop: no}}"
    write(repo, WRITTEN.replace("positive: yes", f"positive: 1.10, {more}"))
    found, tool = preprocess.read_settings(repo.root / "model"), repo.settings()
    assert (found.target, found.positive, found.drop) == ("on", "1.10", tool.data.drop)
    assert (found.validation, found.test, found.seed) == (0.15, 0.2, 1000)
    assert found.checks == {"a": {"allowed": ["1.10", "no", 2], "stop": False}}
    assert found.isolated is False
    text = (repo.root / "pipeline" / "definition.py").read_text()
    reads = sorted({*re.findall(r'"((?:data|aws)\.\w+)"', text)} - {"data.path"})
    job = dict(bundle.collect(tool, "preprocess.py", reads=[*reads, "split"]).files)
    (tmp_path / "mlops.yaml").write_bytes(job["mlops.yaml"])
    assert preprocess.read_settings(tmp_path) == found


def test_a_number_can_be_copied_with_how_it_is_written() -> None:
    number = mlops_yaml.load("1.10")
    assert (str(copy.deepcopy(number)), copy.deepcopy(number)) == ("1.10", 1.1)


def test_hyperparameters_are_passed_as_the_text_that_sagemaker_passes(repo: Repo) -> None:
    settings = repo.configure(hyperparameters={"eta": 0.1, "max_depth": 4, "tree_method": "hist"})
    assert settings.hyperparameters["eta"] == "0.1"
    assert settings.hyperparameters["max_depth"] == "4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping"),
        ("[1, 2]", "must be a mapping"),
        ("gate: {metric: auc}", "data is missing"),
        ("data: {path: x}", "data.target is missing"),
        ("data: {path: x, target: y, targt: z}", "data.targt is unknown; did you mean target?"),
        ("data: {path: x, target: y}\ngates: {}", "gates is unknown; did you mean gate?"),
        ("data: {path: x, target: y, drop: id}", "data.drop must be a list"),
        ("data: {path: x, target: y, drop: [y]}", "data.drop names the target y"),
        ("data: {path: x, target: y, task: clustering}", "data.task must be one of"),
        ("data: {path: x, target: y, checks: [a]}", "data.checks must be checks by column"),
        ("data: {path: x, target: y, checks: {a: {min: low}}}", "data.checks.a.min must be a num"),
        ("data: {path: x, target: y, checks: {a: {least: 1}}}", "data.checks.a.least is unknown;"),
        ("data: {path: x, target: y, checks: {a: {stop: 1}}}", "stop must be true or false, not 1"),
        ("data: {path: x, target: y, checks: {a: {allowed: b}}}", "allowed must be a list, as in"),
        ("data: {path: x, target: y, checks: {a: {missing: 5}}}", "must be a share from 0 to 1"),
        (
            "data: {path: x, target: y, checks: {a: {min: .nan}}}",
            "must be a finite number, not nan",
        ),
        ("data: {path: x, target: y, drop: [a], checks: {a: {unique: true}}}", "leaves a out"),
        (
            "data: {path: x, target: y}\ngate: {metric: r2}\ngate: {metric: mae}",
            "gate is there twice",
        ),
        ("data: {path: x, target: y, path: z}", "path is there twice"),
        ("data: {path: x, target: y, changed_columns: no}", "must be one of warn, stop, not no"),
        ("data: {path: x, target: y, decimal: dot}", "data.decimal must be one of point, comma"),
        (
            "data: {path: x, target: y}\nevaluation: {threshold: 1}",
            "evaluation.threshold must be between 0 and 1, not 1",
        ),
        (
            "data: {path: x, target: y, task: multiclass}\nevaluation: {threshold: 0.3}",
            "evaluation.threshold is for two classes, but data.task is multiclass",
        ),
        ("data: {path: x, target: y}\nevaluation: {slices: a}", "evaluation.slices must be a list"),
        ("data: {path: x, target: y}\nsplit: {test: 1.5}", "split.test must be between 0 and 1"),
        ("data: {path: x, target: y}\nsplit: {test: .6, validation: .5}", "no rows for training"),
        ("data: {path: x, target: y}\nsplit: {seed: high}", "split.seed must be a whole number"),
        ("data: {path: x, target: y}\nsplit: {seed: true}", "split.seed must be a whole number"),
        ("data: {path: x, target: y}\nsplit: {by: y}", "split.by names the target y"),
        ("data: {path: x, target: y}\nsplit: {by: [a]}", "split.by must be text, not ['a']"),
        ("data: {path: x, target: y}\ngate: {metric: acuracy}", "acuracy; did you mean accuracy?"),
        ("data: {path: x, target: y}\ngate: {metric: cost}", "evaluate.py under @higher_is_better"),
        ("data: {path: x, target: y}\ngate: {threshold: good}", "gate.threshold must be a number"),
        (
            "data: {path: x, target: y}\ngate: {tolerance: -1}",
            "gate.tolerance must not be negative",
        ),
        ("data: {path: x, target: y}\ncompute: {train: {instance: m5}}", "like ml.m5.large"),
        ("data: {path: x, target: y}\ncompute: {preprocess: {count: 2}}", "count must be 1, not 2"),
        (
            "data: {path: x, target: y}\ncompute: {train: {count: 2}}",
            "would be paid for being idle",
        ),
        (
            "data: {path: x, target: y, task: regression}\ngate: {metric: auc}",
            "gate.metric auc does not fit data.task regression; choose one of r2, rmse, mae, mape",
        ),
        (
            "data: {path: x, target: y, task: binary}\ngate: {metric: rmse}",
            "gate.metric rmse does not fit data.task binary; choose one of auc",
        ),
        ("data: {path: x, target: y}\ncompute: {train: {spot: 3}}", "spot must be true or false"),
        ("data: {path: x, target: y}\naws: {subnets: [subnet-1]}", "go together"),
        ("data: {path: x, target: y}\nhyperparameters: {Max-Depth: 3}", "use only a-z, 0-9 and _"),
        ("data: {path: x, target: y}\nhyperparameters: {eta: [1]}", "must be a number or text"),
        ("data: {path: x, target: y}\nregistry: {approval: Approved}", "registry.approval is gone"),
        *(
            (f"data: {{path: x, target: y}}\n{text}", said)
            for text, said in (
                ("monitoring: {stage: [a]}", "monitoring.stage is unknown; did you mean stages?"),
                ("monitoring: {stages: [prod]}", "no stage prod; did you mean production?"),
                ("monitoring: {stages: [staging, staging]}", "staging is there twice"),
                ("monitoring: {stages: [staging]}\naws: {network_isolation: true}", "isolated job"),
                ("monitoring: {window_hours: 0}", "window_hours must be from 1 to 168, not 0"),
                ("monitoring: {capture: 101}", "monitoring.capture must be from 1 to 100, not 101"),
                ("monitoring: {capture: 0.5}", "monitoring.capture must be a whole number"),
                ("monitoring: {min_rows: 0}", "monitoring.min_rows must be at least 1, not 0"),
                ("monitoring: {limits: {numbr: {}}}", "limits.numbr is unknown; did you mean num"),
                (
                    "monitoring: {limits: {age: {drift: 0.2}}}",
                    "limits.age is unknown; did you mean date? A limit is of a kind of column, not "
                    "of one column",
                ),
                ("monitoring: {limits: {date: {drift: 1}}}", "date.drift is unknown; known are"),
                ("monitoring: {limits: {text: {new: 5}}}", "text.new must be a share from 0 to 1"),
                ("monitoring: {limits: {prediction: 0}}", "limits.prediction must be above 0"),
                ("retraining: {on_drift: yes}", "needs a stage that is checked"),
                ("retraining: {cool_down_days: 0}", "cool_down_days must be from 1 to 365, not 0"),
                ("retraining: {schedule: weekly}", "retraining.schedule must be like rate(1 day)"),
                ("monitoring:\n  schedule: at(2026-01-01T00:00:00)", "must be like rate(1 day) or"),
                ("monitoring: {schedule: rate(5 minutes)}", "must be at most once an hour"),
                ("monitoring: {schedule: rate(1 days)}", "must be rate(1 day), not 'rate(1 days)'"),
                ("monitoring:\n  schedule: cron(0 6 * * *)", "must be cron with six fields"),
                ("monitoring:\n  schedule: cron(0 6 * * * *)", "with ? for either day-of-month or"),
                (
                    "monitoring:\n  schedule: cron(0 24 * * ? *)",
                    "cron with hours from 0 to 23, not",
                ),
                ("aws: {bucket: s3://lake}", "aws.bucket: 's3://lake' is not the name of a bucket"),
                ("aws: {bucket: a}", "aws.bucket: 'a' is not the name of a bucket, which has 3"),
                ("monitoring: {schedule: rate(400 days)}", "schedule must be at least once a year"),
                (
                    "monitoring:\n  schedule: cron(0 6 31 2 ? *)",
                    "monitoring.schedule must have a day that comes, not 'cron(0 6 31 2 ? *)'",
                ),
                (
                    "retraining:\n  schedule: cron(0 6 1 1 ? 2025)",
                    "retraining.schedule must have a day that comes, not 'cron(0 6 1 1 ? 2025)'",
                ),
                ("monitoring:\n  schedule: cron(0 6 15W * ? *)", "without W (day-of-month), not"),
                (
                    'monitoring:\n  schedule: "cron(0  6 * * ? *)\\n"',
                    r"must be like rate(1 day) or cron(0 6 * * ? *), in UTC, not "
                    r"'cron(0  6 * * ? *)\n'",
                ),
                (
                    "monitoring:\n  schedule: cron(0/9 6 * * ? *)",
                    "at most once an hour: one number",
                ),
            )
        ),
        ("data: {path: x, target: y\n", "mlops.yaml line 2, column 1"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_that_names_it(
    repo: Repo, text: str, said: str
) -> None:
    write(repo, text)
    with pytest.raises(SettingsError) as refused:
        repo.settings()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("expression", [*ACCEPTED, *REFUSED, *NEVER])
def test_a_schedule_is_one_of_eventbridge_scheduler(expression: str) -> None:
    assert (schedules.not_a_schedule(expression) is None) == (expression in ACCEPTED)


def test_the_file_of_a_new_repo_has_every_key_of_what_runs_by_itself_with_its_default(
    repo: Repo,
) -> None:
    text = (repo.root / "mlops.yaml").read_text(encoding="utf-8")
    for name, default in (
        ("monitoring", schedules.Monitoring()),
        ("retraining", schedules.Retraining()),
    ):
        assert json.loads(json.dumps(asdict(default))) == yaml.safe_load(text)[name]


def test_bytes_that_are_not_text_are_refused(repo: Repo) -> None:
    (repo.root / "mlops.yaml").write_bytes(b"data: \xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        repo.settings()


@pytest.mark.parametrize(
    "owner", ["Data Science", "Müller/risk@acme", "x" * 256, "", "R&D", "x" * 257]
)
def test_the_owner_is_a_value_that_tags_may_have(repo: Repo, owner: str) -> None:
    file = repo.root / "pyproject.toml"
    file.write_text(f'{file.read_text(encoding="utf-8")}owner = "{owner}"\n', encoding="utf-8")
    if owner and "&" not in owner and len(owner) <= 256:
        assert repo.settings().project.owner == owner
        return
    with pytest.raises(SettingsError, match="owner becomes a tag in AWS: it must be text of 1 to"):
        repo.settings()


def test_a_pyproject_without_identity_is_refused(repo: Repo) -> None:
    (repo.root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"\[tool\.mlops\]"):
        repo.settings()


def test_tokens_of_another_host_which_aws_does_not_trust_are_refused(repo: Repo) -> None:
    """The workflows of such a repo sign in with tokens, and have no keys."""
    file = repo.root / "pyproject.toml"
    file.write_text(file.read_text() + 'git-host = "git.acme.org"\n')
    with pytest.raises(SettingsError, match=r"no tokens of git\.acme\.org: .*=iam-user"):
        repo.settings()
    file.write_text(file.read_text().replace('"oidc"', '"iam-user"'))
    assert repo.settings().project.uses_key


def test_a_project_that_is_named_like_a_pipeline_of_checks_is_refused(repo: Repo) -> None:
    file = repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace('"churn"', '"churn-monitor"'), encoding="utf-8")
    with pytest.raises(SettingsError, match="project must not end in -monitor: the pipeline that"):
        repo.settings()


def test_the_repo_is_found_from_a_folder_inside_it(repo: Repo) -> None:
    assert mlops_settings.find_root(repo.root / "model") == repo.root


def test_a_folder_outside_any_repo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no mlops\.yaml"):
        mlops_settings.find_root(tmp_path)


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-west-1", "aws"), ("us-gov-west-1", "aws-us-gov")],
)
def test_arns_are_in_the_partition_of_the_region(repo: Repo, region: str, partition: str) -> None:
    file = repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace("eu-west-1", region))
    settings = repo.settings()
    assert settings.role_arn("1" * 12) == f"arn:{partition}:iam::{'1' * 12}:role/churn-pipeline"


def test_a_given_role_and_bucket_are_used(repo: Repo) -> None:
    arn = f"arn:aws:iam::{'2' * 12}:role/team/trainer"
    settings = repo.configure(aws={"role": arn, "bucket": "ours"})
    assert (settings.role_arn("1" * 12), settings.bucket("1" * 12)) == (arn, "ours")


def test_names_of_the_longest_project_are_what_aws_accepts(repo: Repo) -> None:
    """Check the names with botocore's own service model."""
    import botocore.session

    assert len(LONGEST) == 32
    file = repo.root / "pyproject.toml"
    file.write_text(
        file.read_text().replace('"churn"', f'"{LONGEST}"').replace("eu-west-1", "ap-southeast-1")
    )
    settings = repo.settings()
    session = botocore.session.get_session()
    model = session.get_service_model("sagemaker")
    for shape, name in (
        ("PipelineName", settings.pipeline),
        ("EntityName", settings.model_package_group),
    ):
        assert len(name) <= model.shape_for(shape).metadata["max"]
    role = settings.role_arn("1" * 12).rpartition("/")[2]
    iam = session.get_service_model("iam")
    assert len(role) <= iam.shape_for("roleNameType").metadata["max"]
    assert len(settings.bucket("1" * 12)) <= 63
