"""Executions as they are shown to a person."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from sm_mlops.aws import Aws
from sm_mlops.errors import MlopsError
from sm_mlops.executions import Execution, Step, duration, failure, logs

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


TRAIN = Step("Train", "Failed", reason=TOOLKITS_WORDS, kind="TrainingJob", job="train-1")


def test_the_words_of_a_training_script_are_found_in_its_log(account: Aws) -> None:
    """Expect them there: the toolkit replaces them in FailureReason with the command it ran."""
    log(
        account,
        "/aws/sagemaker/TrainingJobs",
        "train-1/algo-1-1",
        "[0] validation-logloss:0.6",
        "error: hyperparameter 'eta' is 'x', not a number",
        "ExecuteUserScriptError",
    )
    first, *rest = failure(account, failed(TRAIN))
    assert first == "Train: hyperparameter 'eta' is 'x', not a number"
    assert rest[0] == "log: mlops logs Train"


def test_without_a_log_the_services_reason_is_shown(account: Aws) -> None:
    assert failure(account, failed(TRAIN))[0] == f"Train: {TOOLKITS_WORDS}"


@pytest.mark.slow
def test_a_log_that_does_not_exist_yet_is_reported_as_such(account: Aws) -> None:
    with pytest.raises(MlopsError, match="no log of train-1 in /aws/sagemaker/TrainingJobs yet"):
        logs(account, failed(TRAIN), "Train")


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
