"""Schedules that start a pipeline, and the clock they wait for."""

import json
from typing import Any

from function_cases import ACCOUNT, until
from sm_mlops.sandbox import Server, clock

DAY = 86_400
SCHEDULER = "scheduler.amazonaws.com"
START = "arn:aws:scheduler:::aws-sdk:sagemaker:startPipelineExecution"
TOKEN = "<aws.scheduler.execution-id>" * 2


def statement(*actions: str) -> dict[str, Any]:
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [allowed]}


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def request(**changes: Any) -> dict[str, Any]:
    """Return a request for a schedule that starts the pipeline."""
    given = {
        "PipelineName": "checked",
        "PipelineParameters": [{"Name": "Until", "Value": "<aws.scheduler.scheduled-time>"}],
        "ClientRequestToken": TOKEN,
    }
    target = {"Arn": START, "RoleArn": role("starter"), "Input": json.dumps(given)}
    return {
        "Name": "s",
        "ScheduleExpression": "rate(1 day)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        **changes,
        "Target": {**target, **changes.get("Target", {})},
    }


def wait(server: Server, seconds: float) -> list[Any]:
    """Move the clock as the command does; return what was fired."""
    now, found = clock.now(), []
    end = now + seconds
    while now < end:
        step = server.integrations.advance(end)
        now = step["now"]
        found += step["fired"]
        until(lambda: not server.integrations.working())
    return found
