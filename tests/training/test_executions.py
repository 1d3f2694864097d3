"""Executions as they are shown to a person."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution, Step, describe, duration, failure, find, logs
from sm_mlops.registry import report_of_execution

TOOLKITS_WORDS = 'AlgorithmError: ExecuteUserScriptError:\nCommand "python3 -m train --eta 0.1"'


def log(aws: Aws, group: str, stream: str, *lines: str) -> None:
    client = aws.client("logs")
    client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def failed(step: Step) -> Execution:
    return Execution(
        "arn:aws:sagemaker:eu-west-1:1:pipeline/churn/execution/x", "Failed", "", (step,)
    )


@pytest.fixture
def trained(account: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Return an account with a training job whose name has upper case, which its ARN has not."""
    names = {"train-1": "Train-1"}
    monkeypatch.setattr(
        account.sagemaker,
        "describe_training_job",
        lambda TrainingJobName: {"TrainingJobName": names[TrainingJobName]},
    )
    return account


TRAIN = Step("Train", "Failed", reason=TOOLKITS_WORDS, kind="TrainingJob", job="train-1")


GROUP, STREAM = "/aws/sagemaker/TrainingJobs", "Train-1/algo-1-1"
SHOW = f"log: mlops logs Train --execution x (in {GROUP})"


def test_the_words_of_a_training_script_are_found_in_its_log(trained: Aws) -> None:
    """Expect them there: the toolkit replaces them in FailureReason with the command it ran."""
    said = "error: hyperparameter 'eta' is 'x', not a number"
    log(trained, GROUP, STREAM, "[0] validation-logloss:0.6", said, "ExecuteUserScriptError")
    assert failure(trained, failed(TRAIN)) == [
        "Train: hyperparameter 'eta' is 'x', not a number",
        SHOW,
    ]
    *_, why = logs(trained, failed(TRAIN), None)
    assert why == "Train failed: hyperparameter 'eta' is 'x', not a number"


@pytest.mark.slow
def test_an_exception_of_the_team_s_script_is_named_with_its_place(trained: Aws) -> None:
    traceback = [
        "Traceback (most recent call last):",
        '  File "/opt/ml/code/train.py", line 12, in <module>',
        "    main()",
        '  File "/opt/ml/code/train.py", line 7, in main',
        "    return 1 / 0",
        "ZeroDivisionError: division by zero",
        "2026-01-01 ERROR ExecuteUserScriptError:",
    ]
    log(trained, GROUP, STREAM, *(f"[{number}]" for number in range(20)), *traceback)
    first, *rest = failure(trained, failed(TRAIN))
    assert first == "Train: ZeroDivisionError: division by zero (train.py, line 7)"
    assert [f"| {line}" for line in traceback] == rest[-8:-1]
    assert rest[-1] == SHOW


@pytest.mark.parametrize(
    "reason",
    [
        "AlgorithmError: the process was ended by SIGKILL, exit code: 137",
        "ClientError: Please use an instance type with more memory",
    ],
)
def test_a_job_that_was_killed_for_lack_of_memory_says_so(trained: Aws, reason: str) -> None:
    step = replace(TRAIN, reason=reason)
    assert failure(trained, failed(step))[0] == (
        "Train: the job was killed, probably for lack of memory: a larger instance in compute of "
        f"mlops.yaml has more memory ({reason})"
    )


@pytest.mark.slow
def test_the_place_is_in_the_team_s_code_and_not_in_a_library(trained: Aws) -> None:
    traceback = [
        "Traceback (most recent call last):",
        '  File "/opt/ml/code/sm_mlops/tabular/train.py", line 12, in main',
        '  File "/opt/ml/code/helpers/words.py", line 7, in count',
        '  File "/miniconda3/lib/python3.12/site-packages/pandas/core/frame.py", line 4102',
        "KeyError: 'x'",
    ]
    log(trained, GROUP, STREAM, *traceback)
    assert failure(trained, failed(TRAIN))[0] == "Train: KeyError: 'x' (helpers/words.py, line 7)"


def test_without_a_log_the_services_reason_is_shown(trained: Aws) -> None:
    assert failure(trained, failed(TRAIN))[0] == f"Train: {TOOLKITS_WORDS}"


@pytest.mark.slow
def test_a_log_that_does_not_exist_yet_is_reported_as_such(trained: Aws) -> None:
    with pytest.raises(MlopsError, match="no log of train-1 in /aws/sagemaker/TrainingJobs yet"):
        logs(trained, failed(TRAIN), "Train")


HERE, SOURCE = (f"arn:aws:sagemaker:eu-west-1:1:pipeline/churn/execution/{name}" for name in "xy")
JOB = {"TrainingJob": {"Arn": "arn:aws:sagemaker:eu-west-1:1:training-job/train-1"}}


@pytest.fixture
def steps(trained: Aws, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Return the only step of each execution by its ARN, as ListPipelineExecutionSteps has it."""
    found = {arn: {"StepName": "Train", "StepStatus": "Succeeded"} for arn in (HERE, SOURCE)}
    monkeypatch.setattr(
        trained.sagemaker,
        "describe_pipeline_execution",
        lambda PipelineExecutionArn: {"PipelineExecutionStatus": "Succeeded"},
    )
    monkeypatch.setattr(
        type(trained),
        "pages",
        lambda self, *_, PipelineExecutionArn, **more: [found[PipelineExecutionArn]],
    )
    return found


@pytest.mark.slow
def test_an_execution_that_does_not_exist_is_named(account: Aws) -> None:
    with pytest.raises(MlopsError, match=f"^no execution {HERE}$"):
        find(account, HERE)


def test_the_report_of_a_check_is_found_elsewhere(
    trained: Aws, steps: dict[str, dict[str, Any]]
) -> None:
    arn = HERE.replace("pipeline/churn", f"pipeline/{trained.settings.monitor_pipeline}")
    steps[arn] = {"StepName": "Check", "StepStatus": "Failed"}
    with pytest.raises(MlopsError, match=r"execution x is a check: .* monitor STAGE --report"):
        report_of_execution(trained, arn)


def test_a_miss_of_the_cache_is_told_by_its_value(
    trained: Aws, steps: dict[str, dict[str, Any]]
) -> None:
    steps[HERE] |= {"Metadata": JOB, "CacheHitResult": {"SourcePipelineExecutionArn": ""}}
    assert not describe(trained, HERE).steps[0].cached


@pytest.mark.parametrize("metadata", [JOB, {}], ids=["named", "not named"])
def test_the_log_of_a_cached_step_is_that_of_the_execution_it_came_from(
    trained: Aws, steps: dict[str, dict[str, Any]], metadata: dict[str, Any]
) -> None:
    hit = {"SourcePipelineExecutionArn": SOURCE}
    steps[HERE] |= {"Metadata": metadata, "CacheHitResult": hit}
    steps[SOURCE] |= {"Metadata": JOB}
    log(trained, GROUP, STREAM, "trained")
    assert logs(trained, describe(trained, HERE), None) == (["trained"], SOURCE, "")


@pytest.mark.parametrize(
    ("sources", "unchanged"),
    [
        ({"Train": "x", "Evaluate": "x"}, True),
        ({"Train": "x", "Evaluate": ""}, True),
        ({"Train": "", "Evaluate": "x"}, False),
        ({"Train": "x", "Score": ""}, False),
        ({}, False),
    ],
)
def test_a_model_is_unchanged_if_no_job_before_evaluate_ran(
    sources: dict[str, str], unchanged: bool
) -> None:
    steps = [Step(name, "Succeeded", source=s, job="j") for name, s in sources.items()]
    gate = Step("QualityGate", "Succeeded")
    assert Execution("arn", "Succeeded", "", (*steps, gate)).unchanged is unchanged


def test_a_step_that_is_running_counts_its_time() -> None:
    began = datetime.now(UTC) - timedelta(seconds=90)
    seconds = Step("Train", "Executing", started=began).seconds
    assert seconds is not None
    assert 90 <= seconds < 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3600 * 5 + 120, "5 h 02 min")],
)
def test_durations_are_shown_in_the_units_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
