"""`mlops monitor` and the health in `mlops status`, by results that lie in S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from repos import Repo
from sm_mlops import executions
from sm_mlops.aws import Aws
from sm_mlops.cli.main import app
from sm_mlops.deployment.status import Running, Status, table
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution, Step
from sm_mlops.monitoring import results

PIPELINE = "arn:aws:sagemaker:eu-west-1:123456789012:pipeline/churn-monitor"
END = datetime(2026, 11, 28, 6, tzinfo=UTC)
DRIFT = {"kind": "drift", "column": "amount", "value": 0.4, "limit": 0.15, "version": "3"}


def content(days: int, status: str = "ok", **more: Any) -> dict[str, Any]:
    """Return the result of the window that ended this many days ago."""
    end = END - timedelta(days=days)
    return {
        "format": 1,
        "project": "churn",
        "stage": "production",
        "window": {"start": (end - timedelta(days=1)).isoformat(), "end": end.isoformat()},
        "status": status,
        "requests": 120,
        "rows": 2345,
        "versions": {"3": 2345},
        "violations": [],
        "worst": DRIFT | {"value": 0.031},
        "message": "",
    } | more


def violated(days: int, *more: dict[str, Any]) -> dict[str, Any]:
    return content(days, "violation", violations=[DRIFT, *more], worst=DRIFT)


@pytest.fixture
def checked(account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Return the account of a repo that checks production, in whose folder commands run."""
    monkeypatch.chdir(repo.root)
    monkeypatch.setattr(Aws, "now", lambda _: END + timedelta(hours=1))
    return Aws(repo.configure(monitoring={"stages": ["production"]}))


def write(aws: Aws, *found: dict[str, Any]) -> None:
    for item in found:
        end = results.window_name(datetime.fromisoformat(item["window"]["end"]))
        key = f"churn/monitor/{item['stage']}/{end}"
        for name, body in (("result.json", json.dumps(item)), ("report.html", "<p>drift")):
            aws.s3.put_object(Bucket=aws.bucket, Key=f"{key}/{name}", Body=body.encode())


def told(*words: str) -> tuple[int, str]:
    """Return exit code and output of `mlops monitor`."""
    done = CliRunner().invoke(app, ["monitor", *words])
    return (2, str(done.exception)) if isinstance(done.exception, MlopsError) else (0, done.output)


@pytest.mark.parametrize(
    ("found", "health"),
    [
        ([], "never checked"),
        ([content(0), content(1), violated(2)], "ok since 2026-11-26 06:00 UTC"),
        ([violated(0), content(1)], "drift of amount"),
        ([violated(0, DRIFT | {"column": "age", "value": 0.9})], "drift of age and 1 more"),
        (
            [violated(0, DRIFT | {"column": "age", "kind": "missing", "limit": 0})],
            "missing age and 1 more",
        ),
        (
            [content(0, "violation", violations=[DRIFT | {"kind": "outside", "column": "{age}"}])],
            "{age} outside its range",
        ),
        (
            [content(0, "violation", violations=[DRIFT | {"kind": "quality", "column": None}])],
            "quality",
        ),
        ([content(0, "too few rows"), violated(1)], "too few rows"),
        ([content(1), content(3)], "ok since 2026-11-24 06:00 UTC"),
        ([content(3), content(4)], "last checked 2026-11-25"),
        ([content(3)], "last checked 2026-11-25"),
        ([violated(9), content(10)], "drift of amount, last checked 2026-11-19"),
    ],
)
def test_health_is_what_the_newest_windows_say(found: list[dict[str, Any]], health: str) -> None:
    parsed = [results.parsed("production", item) for item in found]
    assert results.health(parsed, END + timedelta(hours=1)) == health


def test_the_last_windows_are_shown_newest_first_with_the_worst_figure(checked: Aws) -> None:
    write(checked, *(content(days) for days in range(1, 15)), violated(0))
    code, said = told()
    lines = [line.strip() for line in said.splitlines()]
    assert (code, lines[0]) == (0, "production: drift of amount")
    assert lines[2].split()[:6] == ["2026-11-27", "06:00", "to", "2026-11-28", "06:00", "violation"]
    assert lines[2].endswith("2,345  drift of amount 0.4 (limit 0.15)")
    assert "ok" in lines[3] and "drift of amount 0.031 (limit 0.15)" in lines[3]
    assert len(lines) == 2 + results.SHOWN
    rows = json.loads(told("production", "--json")[1])["production"]
    assert [row["status"] for row in rows[:2]] == ["violation", "ok"]


def test_a_stage_that_was_never_checked_says_how(checked: Aws) -> None:
    code, said = told()
    assert code == 0
    assert said == "production: never checked\ncheck it now: mlops monitor production --run\n"


def test_the_newest_report_is_downloaded(checked: Aws, repo: Repo) -> None:
    write(checked, content(1), violated(0))
    code, said = told("--report")
    file = repo.root / "reports" / "monitor-production-2026-11-28T06Z.html"
    assert (code, said.replace("\n", "")) == (0, str(file))
    assert file.read_text() == "<p>drift"


def test_results_are_read_where_the_stage_captures_to(checked: Aws, repo: Repo) -> None:
    checked.s3.create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    body = json.dumps(content(0)).encode()
    key = "churn/monitor/production/2026-11-28T06Z/result.json"
    checked.s3.put_object(Bucket="elsewhere", Key=key, Body=body)
    assert "never checked" in told()[1]
    repo.stage("production", Parameters={"OutputBucket": "elsewhere"})
    assert "ok since" in told()[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no stage is checked: name those to check in monitoring.stages of mlops.yaml"),
        (("prod",), "no stage prod: did you mean production?"),
        (("staging", "--report"), "stage staging was never checked: mlops monitor staging --run"),
        (("staging", "--run"), "stage staging is not deployed, so there is nothing to check: "),
        (("--until", "2026-11-28T06:00"), "--until needs --run"),
        (("--run", "--until", "noon"), "--until noon: must be like 2026-11-28T06:00"),
        (("--run", "--until", ""), "--until '': must be like 2026-11-28T06:00"),
        (
            ("--run", "--until", "0001-01-01"),
            "--until 0001-01-01: SageMaker has answered requests since 2017",
        ),
        (
            ("staging", "--run", "--until", "2999-01-01T06:00"),
            "--until 2999-01-01T06:00 is in the future: the last full hour is 2026-11-28T07:00 UTC",
        ),
        (("--run", "--json"), "--run cannot be combined with --report or --json"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(repo.root)
    monkeypatch.setattr(Aws, "now", lambda _: END + timedelta(minutes=70))
    code, line = told(*words)
    assert (code, line.startswith(said), "\n" in line) == (2, True, False), line


def test_a_stage_is_named_where_several_are_checked(checked: Aws, repo: Repo) -> None:
    repo.configure(monitoring={"stages": ["staging", "production"]})
    assert told("--report") == (2, "name one stage: staging, production")
    assert told()[1].count("never checked") == 2


# Of a stage: status, the step that failed, whether that one is a job's.
BROKEN = ("Failed", Step("Check", "Failed", kind="ProcessingJob", job="j"))
NO_JOB = ("Failed", Step("Check", "Failed", reason="no quota\nfor ml.m5.large"))
VIOLATED = ("Failed", Step("Violation", "Failed", kind="Fail"))
FINE = ("Succeeded", Step("Check", "Succeeded"))
RUNNING, STOPPED = ("Executing", FINE[1]), ("Stopped", FINE[1])


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what lets these checks have run, each with its stage, the newest first."""

    def made(*checks: tuple[str, tuple[str, Step]]) -> None:
        known = {f"{PIPELINE}/execution/e{n}": check for n, check in enumerate(checks)}

        def summaries(aws: Aws, pipeline: str) -> Iterator[dict[str, Any]]:
            assert pipeline == "churn-monitor"
            for arn, (_, (status, _step)) in known.items():
                yield {
                    "PipelineExecutionArn": arn,
                    "PipelineExecutionStatus": status,
                    "StartTime": END + timedelta(minutes=30),
                }

        def describe(aws: Aws, arn: str) -> Execution:
            status, step = known[arn][1]
            return Execution(arn, status, "", (step,))

        monkeypatch.setattr(executions, "summaries", summaries)
        monkeypatch.setattr(executions, "describe", describe)
        monkeypatch.setattr(executions, "log_lines", lambda *_: [])
        job = {"ExitMessage": "monitoring of production:\nAccess Denied"}
        monkeypatch.setattr(executions, "_described", lambda *_: job)
        monkeypatch.setattr(executions, "parameters", lambda _, arn: {"Stage": known[arn][0]})

    return made


WHEN = "the newest check failed 2026-11-28 06:30 UTC"


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([BROKEN, FINE], f"{WHEN}: Check: monitoring of production: Access Denied; "
                         "mlops logs --execution e0"),
        ([RUNNING, STOPPED, BROKEN], f"{WHEN}: Check: monitoring of production: Access Denied; "
                                     "mlops logs --execution e2"),
        ([NO_JOB], f"{WHEN}: Check: no quota for ml.m5.large"),
        ([FINE, BROKEN], ""),
        ([VIOLATED, BROKEN], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_check_that_failed_is_said_in_one_line_with_the_way_to_its_reason(
    checked: Aws, ran: Callable[..., None], checks: list[Any], said: str
) -> None:
    write(checked, content(0))
    ran(("staging", BROKEN), *(("production", check) for check in checks), ("production", FINE))
    said = said.replace("e0", "e1").replace("e2", "e3")
    lines = told()[1].splitlines()
    assert lines[0] == "production: ok since 2026-11-27 06:00 UTC"
    assert (lines[1] == said) if said else "window (UTC)" in lines[1]
    found = Status((Running("production", "1", "InService"),), (), None)
    [row] = results.with_health(checked, found).stages
    failed = "check failed: mlops monitor production" if said else ""
    assert row.health == (failed or "ok since 2026-11-27 06:00 UTC")


def test_status_has_the_health_of_the_stages_that_are_checked(checked: Aws) -> None:
    write(checked, violated(0))
    found = Status(
        tuple(Running(name, "1", "InService") for name in ("staging", "production")), (), None
    )
    rows = results.with_health(checked, found).stages
    assert [row.health for row in rows] == ["", "drift of amount"]
    headings = [str(column.header) for column in table(rows).columns]
    assert "health" in headings and "health" not in [str(c.header) for c in table(rows[:1]).columns]


def test_a_result_that_is_none_is_refused_with_its_address(checked: Aws) -> None:
    write(checked, content(0) | {"status": None})
    write(checked, {**content(1), "rows": 1, "violations": None})
    with pytest.raises(
        MlopsError, match=r"2026-11-27T06Z/result\.json is not the result of a chec"
    ):
        results.last(checked, results.stages.load(checked.settings, "production"))
