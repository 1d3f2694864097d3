"""The pipeline `<project>-monitor`: Check → Judge, or Violation.

Imports the SageMaker SDK, as a repo's `pipeline/definition.py` does: import it only where it is
needed. Knows of the job its arguments and its verdict.
"""

from __future__ import annotations

from pathlib import Path

from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep

from sm_mlops.pipeline import OUT, Repo

CHECK = "Check"
VERDICT = PropertyFile(name="verdict", output_name="verdict", path="verdict.json")


def pipeline(repo: Repo) -> Pipeline:
    """Return the pipeline that checks a stage."""
    settings = repo.settings
    parameters = {
        "Stage": ParameterString("Stage"),
        "Bucket": ParameterString("Bucket", repo.bucket),
        "Until": ParameterString("Until", "now"),
    }
    code = repo.library_code(
        Path(__file__).with_name("monitor.py"), reads=["gate.metric", "monitoring"]
    )
    check = ProcessingStep(
        name=CHECK,
        step_args=repo.processor(code, settings.compute.evaluate).run(
            inputs=[code.input],
            outputs=[repo.output("monitor", VERDICT.output_name, folder=OUT)],
            arguments=[
                *("--bucket", parameters["Bucket"], "--prefix", settings.prefix),
                *("--stage", parameters["Stage"], "--until", parameters["Until"]),
                *("--group", settings.model_package_group, "--output", OUT),
                *("--region", settings.project.region),
            ],
        ),
        property_files=[VERDICT],
        retry_policies=repo.retries,
    )
    why = Join(values=[_verdict("message")])
    judge = ConditionStep(
        name="Judge",
        conditions=[ConditionGreaterThanOrEqualTo(left=_verdict("violations"), right=1)],
        if_steps=[FailStep(name="Violation", error_message=why)],
        else_steps=[],
    )
    return Pipeline(
        name=settings.monitor_pipeline,
        parameters=list(parameters.values()),
        steps=[check, judge],
        pipeline_experiment_config=None,
        sagemaker_session=repo.session,
    )


def _verdict(path: str) -> JsonGet:
    """Return a value of the verdict.json that the job writes."""
    return JsonGet(step_name=CHECK, property_file=VERDICT, json_path=path)
