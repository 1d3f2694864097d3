"""The pipeline: Preprocess → Train → Evaluate → QualityGate → Register, or GateFailed.

Plain SageMaker SDK; `Repo` fills in account, image, network and code. A step of your own is a
script in model/, which is told its paths by arguments, and a step written between two of these.
"""

from typing import Any

from sagemaker.core.drift_check_baselines import DriftCheckBaselines
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.shapes import MetadataProperties
from sagemaker.core.training.configs import InputData
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo as AtLeast
from sagemaker.core.workflow.conditions import ConditionLessThanOrEqualTo as AtMost
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterString
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sm_mlops.pipeline import IN, OUT, Repo, parameter_name

CONTENT_TYPES = ["text/csv", "application/jsonlines", "application/json"]
CHANNELS = ("train", "validation", "preprocessor")
BASELINE = {
    "model_statistics": "evaluation.json",
    "model_constraints": "evaluation-constraints.json",
    "model_data_statistics": "statistics.json",
    "model_data_constraints": "constraints.json",
}
VERDICT = PropertyFile(name="gate", output_name="evaluation", path="gate.json")


def pipeline(repo: Repo) -> Pipeline:
    """Return the pipeline of this repo."""
    compute, parameters = repo.settings.compute, parameters_of(repo)

    # Raw files → typed train and validation rows, untouched test rows.
    keys = ["data.target", "data.task", "data.positive", "data.drop", "data.decimal", "split"]
    keys += ["data.checks", "data.changed_columns", "evaluation.threshold", "aws.network_isolation"]
    code = repo.code("preprocess.py", reads=keys)
    processor = repo.processor(code, compute.preprocess, parameters["PreprocessInstanceType"])
    preprocess = ProcessingStep(
        name="Preprocess",
        step_args=processor.run(
            inputs=[code.input, repo.input("data", parameters["InputData"])],
            outputs=[repo.output("preprocess", part) for part in (*CHANNELS, "test")],
            arguments=[
                *("--data", f"{IN}/data", "--output", OUT, "--measured-as", repo.measured_as),
                *("--data-hash", parameters["DataHash"]),  # so other data is no cache hit
            ],
        ),
        cache_config=repo.cache,
        retry_policies=repo.retries,
    )

    # The functions of train.py, in script mode → model.tar.gz, with inference.py in it.
    code = repo.code("train.py", also=["inference.py"])
    hyperparameters = {name: parameters[name] for name in repo.settings.hyperparameters}
    trainer = repo.trainer(code, parameters["TrainInstanceType"], hyperparameters)
    channels = [
        InputData(channel_name=part, data_source=repo.output_of(preprocess, part))
        for part in CHANNELS
    ]
    train = TrainingStep(
        name="Train",
        step_args=trainer.train(input_data_config=[code.channel, *channels]),
        cache_config=repo.cache,
        retry_policies=repo.retries,
    )
    model = train.properties.ModelArtifacts.S3ModelArtifacts

    # Is the model good enough, and then a version? These steps are written below.
    evaluate = evaluate_step(repo, parameters, model, repo.output_of(preprocess, "test"))
    evaluation = repo.output_of(evaluate, "evaluation")
    gate = quality_gate(repo, parameters, register(repo, parameters, model, evaluation))
    return Pipeline(
        name=repo.settings.pipeline,
        parameters=list(parameters.values()),
        steps=[preprocess, train, evaluate, gate],
        pipeline_experiment_config=None,  # the registry links versions to executions
        sagemaker_session=repo.session,
    )


def evaluate_step(repo: Repo, parameters: dict[str, Any], model: Any, test: Any) -> ProcessingStep:
    """Return the step that tries the packaged model and the champion, each on the test rows."""
    reads = ["evaluation.slices", *(["gate.metric"] if repo.settings.evaluation.slices else [])]
    code, job = repo.code("evaluate.py", reads=reads), repo.settings.compute.evaluate
    processor = repo.processor(code, job, parameters["EvaluateInstanceType"])
    places = {"model": model, "test": test, "champion": parameters["Champion"]}
    return ProcessingStep(
        name="Evaluate",
        step_args=processor.run(
            inputs=[code.input, *(repo.input(name, place) for name, place in places.items())],
            outputs=[repo.output("evaluate", "evaluation", folder=OUT)],
            arguments=[
                *("--model", f"{IN}/model", "--test", f"{IN}/test", "--output", OUT),
                *("--champion", f"{IN}/champion", "--waive-champion", parameters["WaiveChampion"]),
                *("--reason", parameters["Reason"]),  # shown in the report
            ],
        ),
        property_files=[VERDICT],
        cache_config=repo.cache,
        retry_policies=repo.retries,
    )


def parameters_of(repo: Repo) -> dict[str, Any]:
    """Return what one execution may choose differently, by name; see `mlops run --set`."""
    settings, compute = repo.settings, repo.settings.compute
    own = [
        ParameterString("InputData", repo.no_data),
        *(ParameterString(name, "unknown") for name in ("DataHash", "Commit", "Reason")),
        ParameterString("Champion", repo.no_champion),
        ParameterString("WaiveChampion", "no", enum_values=["no", "yes"]),
        ParameterFloat("GateThreshold", settings.gate.threshold),
        ParameterFloat("GateTolerance", settings.gate.tolerance),
        ParameterString("PreprocessInstanceType", compute.preprocess.instance),
        ParameterString("TrainInstanceType", compute.train.instance),
        ParameterString("EvaluateInstanceType", compute.evaluate.instance),
    ]
    return {parameter.name: parameter for parameter in own} | {
        name: ParameterString(parameter_name(name), value)
        for name, value in settings.hyperparameters.items()
    }


def register(repo: Repo, parameters: dict[str, Any], model: Any, evaluation: Any) -> ModelStep:
    """Return the step that registers a version; `model` and `evaluation` are S3 addresses."""
    settings = repo.settings
    builder = ModelBuilder(
        s3_model_data_url=model,
        image_uri=repo.image,
        role_arn=repo.role,
        sagemaker_session=repo.session,
        dependencies={},  # with any, the SDK looks for code to upload; the artifact has its own
        env_vars=repo.serving("inference.py"),
    )
    baseline = {
        name: MetricsSource("application/json", Join("/", [evaluation, file]))
        for name, file in BASELINE.items()
    }
    step_args = builder.register(
        model_package_group_name=settings.model_package_group,
        content_types=CONTENT_TYPES,
        response_types=CONTENT_TYPES,
        inference_instances=["ml.m5.large", "ml.m5.xlarge", "ml.c5.large", "ml.c5.xlarge"],
        transform_instances=["ml.m5.large", "ml.m5.xlarge"],
        approval_status="PendingManualApproval",  # a person approves; IAM denies any other status
        model_metrics=ModelMetrics(**baseline),
        drift_check_baselines=DriftCheckBaselines(**baseline),
        metadata_properties=MetadataProperties(
            commit_id=parameters["Commit"],
            repository=settings.project.repository,
            project_id=settings.project.project,
            generated_by=ExecutionVariables.PIPELINE_EXECUTION_ARN,
        ),
        customer_metadata_properties={
            "CI": settings.project.ci,
            "DataHash": parameters["DataHash"],
            "Evaluation": measured(f"metrics.{settings.gate.metric}.text"),
            "Champion": measured("champion"),
            "Versions": measured("versions"),
            **repo.carried(parameters),
        },
        sample_payload_url=Join("/", [evaluation, "sample-payload.tar.gz"]),
        domain="MACHINE_LEARNING",
        task="OTHER",
    )
    return ModelStep(name="Register", step_args=step_args, retry_policies=repo.throttled)


def quality_gate(repo: Repo, parameters: dict[str, Any], passed: ModelStep) -> ConditionStep:
    """Return the step that lets a model pass that is good enough and no worse than the champion."""
    metric = f"metrics.{repo.settings.gate.metric}"
    threshold, tolerance = parameters["GateThreshold"], parameters["GateTolerance"]
    good_enough, limit = (AtMost, "most") if repo.lower_is_better else (AtLeast, "least")
    reason = [
        *("QualityGate: ", measured(f"{metric}.text"), f"; wanted at {limit} ", threshold),
        *(", and at most ", tolerance, " worse than the champion (", measured("against"), ")"),
    ]
    return ConditionStep(
        name="QualityGate",
        conditions=[
            good_enough(left=measured(f"{metric}.value"), right=threshold),
            AtMost(left=measured(f"{metric}.worse_by"), right=tolerance),
        ],
        if_steps=[passed],
        else_steps=[FailStep(name="GateFailed", error_message=Join(values=reason))],
    )


def measured(path: str) -> JsonGet:
    """Return a value of the gate.json that Evaluate writes."""
    return JsonGet(step_name="Evaluate", property_file=VERDICT, json_path=path)
