"""SageMaker's own Python SDK drives the sandbox: upsert, start, wait, describe, list the steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_cases import BUCKET, IMAGE, REGION, ROLE, World
from sm_mlops import sandbox

pytestmark = pytest.mark.slow

# In its own process: the SDK makes clients when it is imported, from the environment.
SCRIPT = f"""
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import ProcessingInput, ProcessingS3Input
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep
from sagemaker.core.workflow.pipeline_context import PipelineSession

session = PipelineSession(default_bucket="{BUCKET}")
processor = Processor(
    role="{ROLE}",
    image_uri="{IMAGE}",
    instance_count=1,
    instance_type="ml.m5.large",
    entrypoint=["python3", "/opt/ml/processing/input/code/job.py"],
    sagemaker_session=session,
)
word = ParameterString(name="Word", default_value="hello")
arguments = processor.run(
    inputs=[
        ProcessingInput(
            input_name="code",
            s3_input=ProcessingS3Input(
                s3_uri="s3://{BUCKET}/sdk/",
                local_path="/opt/ml/processing/input/code",
                s3_data_type="S3Prefix",
                s3_input_mode="File",
            ),
        )
    ],
    arguments=[word],
)
cached = CacheConfig(enable_caching=True, expire_after="P1D")
step = ProcessingStep(name="Say", step_args=arguments, cache_config=cached)
pipeline = Pipeline(name="sdk", steps=[step], parameters=[word], sagemaker_session=session)
for turn in range(2):
    pipeline.upsert(role_arn="{ROLE}", tags=[{{"Key": "turn", "Value": str(turn)}}])
    execution = pipeline.start(parameters={{"Word": "welcome"}})
    execution.wait(delay=1, max_attempts=60)
    status = execution.describe()["PipelineExecutionStatus"]
    for found in execution.list_steps():
        hit = bool(found["CacheHitResult"]["SourcePipelineExecutionArn"])
        print("turn", turn, status, found["StepName"], found["StepStatus"], hit)
"""


def test_the_sdks_pipeline_makes_a_round_trip(tmp_path: Path) -> None:
    try:
        with sandbox.connect(tmp_path, REGION) as variables:
            aws = World(variables).prepare()
            aws.put("sdk/job.py", "import sys\nassert sys.argv[1] == 'welcome'\n")
            environment = {**os.environ, **variables}
            answer = subprocess.run(
                [sys.executable, "-c", SCRIPT],
                env={name: value for name, value in environment.items() if value},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert answer.returncode == 0, answer.stderr[-3000:]
            tags = aws.sagemaker.list_tags(
                ResourceArn=f"arn:aws:sagemaker:{REGION}:123456789012:pipeline/sdk"
            )["Tags"]
    finally:
        sandbox.reset(tmp_path)
    turns = [line for line in answer.stdout.splitlines() if line.startswith("turn")]
    assert turns == [
        "turn 0 Succeeded Say Succeeded False",
        "turn 1 Succeeded Say Succeeded True",
    ]
    assert tags == [{"Key": "turn", "Value": "1"}]
