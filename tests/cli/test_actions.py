"""What `mlops` gives a job of GitHub Actions: outputs, summaries, an end before the job's own."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from botocore.exceptions import ClientError, EndpointConnectionError
from typer.testing import CliRunner

from repos import Repo, mlops
from sm_mlops import actions, commit, executions, stacks
from sm_mlops.aws import Aws
from sm_mlops.cli import batch as cli_batch
from sm_mlops.cli import deploy, training
from sm_mlops.cli.main import app
from sm_mlops.deployment import batch, merged
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution, Step
from sm_mlops.training import run
from sm_mlops.training.run import ensure_model_package_group


def outputs(file: Path) -> dict[str, str]:
    """Return the outputs in a file as GitHub's runner reads them: the last of a name counts."""
    found, lines = {}, iter(file.read_text(encoding="utf-8").splitlines())
    for line in lines:
        name, _, mark = line.partition("<<")
        value: list[str] = []
        for inner in lines:
            if inner == mark:
                break
            value.append(inner)
        found[name] = "\n".join(value)
    return found


def test_outside_of_actions_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    actions.output("name", "value")
    actions.summary("text")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["plain", "two\nlines", "a\nevil<<x\nowned\nx", "", "é=1<<EOF"])
def test_an_output_holds_whatever_it_is_given_and_sets_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    file = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(file))
    actions.output("first", value)
    actions.output("second", "2")
    assert outputs(file) == {"first": value, "second": "2"}


def test_summaries_of_a_step_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    actions.summary("one\n")
    actions.summary("two")
    assert file.read_text() == "one\n\ntwo\n\n"


def test_a_summary_too_long_for_github_is_cut_and_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "summary"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    actions.summary("verdict\n" + "é" * 80 * 1024 * 10)
    assert file.stat().st_size <= actions.LONGEST_SUMMARY
    assert "verdict" in file.read_text()
    assert file.read_text().endswith(actions.CUT)


@pytest.mark.parametrize("fence", ["```", "`````"])
def test_a_cut_text_closes_what_it_was_in(fence: str) -> None:
    inside = "- line\n```\n" if len(fence) > 3 else "- line\n"
    text = f"# verdict\n<details><summary>x</summary>\n\n{fence}diff\n{inside * 1000}"
    text += f"{fence}\n</details>"
    short = actions.cut(text, 500)
    assert len(short.encode()) <= 500
    assert short.endswith(f"\n{fence}\n</details>{actions.CUT}")
    assert actions.cut(text, 100_000) == text


def test_a_summary_that_is_full_drops_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "summary"
    file.write_bytes(b"x" * actions.LONGEST_SUMMARY)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    actions.summary("more")
    assert file.stat().st_size == actions.LONGEST_SUMMARY


@pytest.mark.long
def test_at_most_some_minutes_are_followed_and_a_later_job_gets_the_rest(
    repo: Repo, tmp_path: Path
) -> None:
    """Follow as build.yml does if an execution takes longer than its credentials last."""
    file, summary = tmp_path / "output", tmp_path / "summary"
    ci = {"GITHUB_OUTPUT": str(file), "GITHUB_STEP_SUMMARY": str(summary)}
    assert mlops(repo.root, "sandbox", "up").returncode == 0
    try:
        given = ci | {"MLOPS_SET": "max_depth=3 eta=0.2"}
        handing_over = ("run", "--at-most", "0.001", "--unfinished-ok")
        done = mlops(repo.root, "--sandbox", *handing_over, **given)
        assert done.returncode == 0, done.stderr
        assert "The execution continues." in done.stdout
        left = outputs(file)
        assert left["status"] == "Executing"
        assert "123456789012" not in left["execution"], "GitHub keeps masked outputs to itself"
        assert f"continues: `mlops --sandbox follow {left['execution']}`" in summary.read_text()
        follow = ("--sandbox", "follow", left["execution"], "--at-most")
        last = mlops(repo.root, *follow, "0", MLOPS_UNFINISHED_OK="false")
        assert last.returncode == 3, "no result is never green"
        assert f"follow it   mlops --sandbox follow {left['execution']}" in last.stdout
        done = mlops(repo.root, *follow, "0", MLOPS_UNFINISHED_OK="true")
        assert done.returncode == 0, done.stderr
        done = mlops(repo.root, *follow, "5", **ci)
        assert done.returncode == 0, done.stderr
        assert outputs(file) == left | {"status": "Succeeded"}
        assert "Registered version 1" in summary.read_text()
        again = ("--set", "max_depth=3", "--set", "eta=0.2", "--set", "GateThreshold=2")
        done = mlops(repo.root, "--sandbox", "run", *again, **ci)
        assert done.returncode == 1
        assert re.search(r"Execution Failed.*auc [01]\.\d+ .*at least 2", summary.read_text(), re.S)
    finally:
        mlops(repo.root, "sandbox", "down")


def test_credentials_that_expire_while_following_leave_the_command_that_follows(
    account: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "ExpiredTokenException"}}, "Describe")

    monkeypatch.setattr(executions, "follow", follow)
    with pytest.raises(ClientError):
        training.follow_to_the_end(account, "arn:aws:sagemaker:::pipeline/churn/execution/x1")
    assert "follow it   mlops follow x1\n" in capsys.readouterr().out


@pytest.mark.parametrize("sandbox", [False, True])
def test_an_execution_continues_without_the_network_but_not_without_the_sandbox(
    account: Aws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sandbox: bool,
) -> None:
    def follow(*_: object, **__: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(executions, "follow", follow)
    aws = Aws(account.settings, sandbox=sandbox)
    with pytest.raises(EndpointConnectionError):
        training.follow_to_the_end(aws, "arn:aws:sagemaker:::pipeline/churn/execution/x1")
    assert ("The execution continues." in capsys.readouterr().out) is not sandbox


def interrupted_run(
    account: Aws, monkeypatch: pytest.MonkeyPatch, during: str, how: signal.Signals
) -> tuple[int, str, list[str]]:
    """Interrupt `mlops run` while it waits for the answer of an operation; return its exit code,
    its output and the executions."""
    # Not all of moto's client, and the signal before the answer.
    stopped: list[str] = []
    monkeypatch.setattr(
        account.sagemaker,
        "stop_pipeline_execution",
        lambda PipelineExecutionArn: stopped.append(PipelineExecutionArn),
    )
    monkeypatch.setattr(training, "connected", lambda context: nullcontext(account))
    account.sagemaker.meta.events.register(
        f"before-call.sagemaker.{during}", lambda **_: os.kill(os.getpid(), how)
    )
    done = CliRunner().invoke(app, ["run"])
    account.sagemaker.meta.events.unregister(f"before-call.sagemaker.{during}")
    found = started(account)
    assert stopped == ([] if how == signal.SIGINT else found)
    return done.exit_code, done.output, found


def started(account: Aws) -> list[str]:
    return [item["PipelineExecutionArn"] for item in executions.summaries(account)]


GATE = Step("QualityGate", "Failed", kind="Fail")


@pytest.mark.parametrize(
    ("status", "steps", "own", "code", "follows"),
    [
        ("Executing", (), True, 0, True),
        ("Succeeded", (), True, 0, False),
        ("Failed", (GATE,), True, 1, False),
        ("Failed", (GATE,), False, 0, False),
        # It may be a person's, or for drift: a push must not stop it when it is cancelled.
        ("Executing", (), False, 0, False),
    ],
    ids=["under way", "done", "stopped by the gate", "of an earlier commit", "of another run"],
)
def test_a_build_that_is_started_again_ends_as_its_execution_does(
    account: Aws,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    steps: tuple[Step, ...],
    own: bool,
    code: int,
    follows: bool,
) -> None:
    """GitHub takes its result for that of the commit."""
    found = Execution("arn:aws:sagemaker:::pipeline/churn/execution/x1", status, "", steps)
    of = commit.current(account.settings.root) if own else "0" * 40
    followed: list[str] = []
    monkeypatch.setattr(training, "connected", lambda context: nullcontext(account))
    monkeypatch.setattr(run, "trained", lambda *_: (found, of))
    monkeypatch.setattr(training, "follow_to_the_end", lambda aws, arn, *_: followed.append(arn))
    done = CliRunner().invoke(app, ["run", "--if-changed"])
    assert (done.exit_code, followed) == (code, [found.arn] * follows), done.output
    assert "nothing to train" in done.output and started(account) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_predictions_that_end_before_their_job_say_how_to_continue(
    account: Aws, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setattr(cli_batch, "connected", lambda context: nullcontext(account))
    monkeypatch.setattr(batch, "predict", lambda *_, **__: os.kill(os.getpid(), how))
    done = CliRunner().invoke(app, ["predict", "in.csv", "out.csv"])
    assert done.exit_code == 130
    again = "mlops predict in.csv out.csv --stage production"
    assert done.output.strip() == f"Interrupted. To start again, or continue: {again}"


@pytest.mark.slow
def test_ctrl_c_before_an_execution_starts_says_that_nothing_was_started(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, found = interrupted_run(account, monkeypatch, "UpdatePipeline", signal.SIGINT)
    assert (code, found) == (130, [])
    assert "Nothing was started." in said


@pytest.mark.slow
def test_ctrl_c_while_an_execution_starts_names_it_and_how_to_stop_it(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, [arn] = interrupted_run(
        account, monkeypatch, "StartPipelineExecution", signal.SIGINT
    )
    assert code == 130
    assert f"execution  {arn}" in said
    assert f"stop it     mlops stop {arn.rpartition('/')[2]}" in said


@pytest.mark.slow
def test_a_job_that_a_ci_ends_stops_the_execution_that_it_has_just_started(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, [arn] = interrupted_run(
        account, monkeypatch, "StartPipelineExecution", signal.SIGTERM
    )
    assert code == 128 + signal.SIGTERM
    assert f"stopping {arn}" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a" * 40 + "-dirty", "uncommitted changes"),
        ("unknown", "outside of git"),
        ("main", "40 hexadecimal digits"),
        ("abc1234", "40 hexadecimal digits"),
        ("", "40 hexadecimal digits"),
        ("--upload-pack=x", "40 hexadecimal digits"),
        ("A" * 40, "40 hexadecimal digits"),
        ("a" * 40 + "\n", "40 hexadecimal digits"),
    ],
)
def test_what_is_no_commit_is_refused(name: str, said: str) -> None:
    with pytest.raises(MlopsError, match=said) as caught:
        commit.require(name)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_check_asks_the_registry_whether_the_commit_is_the_version_s_own(
    account: Aws, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo.root)
    monkeypatch.setattr(merged, "_ask_github", lambda aws, sha: "identical")
    ensure_model_package_group(account)
    arn = account.sagemaker.create_model_package(
        ModelPackageGroupName="churn",
        ModelApprovalStatus="Approved",
        MetadataProperties={"CommitId": "a" * 40},
    )["ModelPackageArn"]
    options = ["check", "--model-package-arn", arn, "--commit"]
    done = CliRunner().invoke(app, [*options, "a" * 40])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, [*options, "b" * 40])
    assert isinstance(refused.exception, MlopsError)
    assert str(refused.exception).endswith(f"not {'b' * 40}")


@pytest.mark.slow
def test_check_refuses_a_bad_commit_in_one_line_before_it_signs_in(repo: Repo) -> None:
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/1"
    done = mlops(repo.root, "check", MODEL_PACKAGE_ARN=arn, COMMIT="b" * 40 + "-dirty")
    assert done.returncode == 2
    assert done.stderr.startswith(f"mlops: commit {'b' * 40}-dirty: ")
    assert done.stderr.count("\n") == 1
    commit.require("0123456789abcdef" * 2 + "01234567")


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        ("UPDATE_COMPLETE", (), "does not change churn-staging: nothing is in progress."),
        ("UPDATE_IN_PROGRESS", (), "CloudFormation continues."),
        # Right after the request the stack has its old status.
        ("UPDATE_COMPLETE", ({},), "CloudFormation continues."),
    ],
)
def test_ctrl_c_says_whether_a_deployment_has_begun(
    repo: Repo,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: str,
    answer: tuple[object, ...],
    said: str,
) -> None:
    stack = stacks.Stack("churn-staging", "arn", status)
    monkeypatch.setattr(stacks, "describe", lambda *_: stack)
    with pytest.raises(typer.Exit), deploy.interruptible(Aws(repo.settings()), "churn-staging"):
        raise KeyboardInterrupt(*answer)
    assert said in capsys.readouterr().err


def test_a_deployment_that_takes_too_long_fails_and_says_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(typer.Exit) as ended, deploy._at_most(0, "production"):
        time.sleep(10)
    assert ended.value.exit_code == 1
    assert "production: still in progress" in (tmp_path / "summary").read_text()
    said = " ".join(capsys.readouterr().err.split())
    assert "Run the command again (in CI: re-run the failed job)" in said
    assert signal.getsignal(signal.SIGALRM) == before
    with deploy._at_most(60, "production"):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
