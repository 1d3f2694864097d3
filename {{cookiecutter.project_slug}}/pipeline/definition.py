"""The pipeline, top to bottom: Preprocess → Train → Evaluate → QualityGate → Register | GateFailed."""

from __future__ import annotations

import json
import math
from typing import Any

from sm_mlops.settings import APPROVALS, LOWER_IS_BETTER, Job, Settings, parameter_name
from sm_mlops.training.bundle import Bundle
from sm_mlops.training.pipeline import Code

# The managed XGBoost container; what is in it is what pyproject.toml pins for the laptop.
CONTAINER = "3.2-0"

CONTENT_TYPES = ["text/csv", "application/jsonlines", "application/json"]
CACHE_FOR = "P30D"
IN, OUT = "/opt/ml/processing/input", "/opt/ml/processing/output"


def compile_pipeline(settings: Settings, account: str, sources: Code) -> str:
    import boto3
    from sagemaker.core import image_uris
    from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
    from sagemaker.core.network import NetworkConfig
    from sagemaker.core.processing import Processor
    from sagemaker.core.shapes import (
        CheckpointConfig,
        MetadataProperties,
        OutputDataConfig,
        ProcessingInput,
        ProcessingOutput,
        ProcessingS3Input,
        ProcessingS3Output,
        StoppingCondition,
    )
    from sagemaker.core.training.configs import Compute, InputData, Networking
    from sagemaker.core.workflow.conditions import (
        ConditionGreaterThanOrEqualTo,
        ConditionLessThanOrEqualTo,
    )
    from sagemaker.core.workflow.execution_variables import ExecutionVariables
    from sagemaker.core.workflow.functions import Join, JsonGet
    from sagemaker.core.workflow.parameters import (
        ParameterFloat,
        ParameterInteger,
        ParameterString,
    )
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.core.workflow.properties import PropertyFile
    from sagemaker.mlops.workflow.condition_step import ConditionStep
    from sagemaker.mlops.workflow.fail_step import FailStep
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.mlops.workflow.pipeline import Pipeline
    from sagemaker.mlops.workflow.retry import (
        SageMakerJobExceptionTypeEnum,
        SageMakerJobStepRetryPolicy,
        StepExceptionTypeEnum,
        StepRetryPolicy,
    )
    from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
    from sagemaker.serve.model_builder import ModelBuilder
    from sagemaker.train import ModelTrainer

    region, aws, compute, gate = (
        settings.project.region,
        settings.aws,
        settings.compute,
        settings.gate,
    )
    bucket, role = settings.bucket(account), settings.role_arn(account)
    # A config of our own: neither telemetry nor a person's SDK defaults may shape the definition.
    session = PipelineSession(
        boto_session=boto3.Session(region_name=region),
        default_bucket=bucket,
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )
    image = image_uris.retrieve("xgboost", region, version=CONTAINER)

    # ---- Parameters: what one execution may choose differently ----
    input_data = ParameterString(
        "InputData", default_value=f"s3://{bucket}/{settings.prefix}/data/"
    )
    data_hash = ParameterString("DataHash", default_value="unknown")
    commit = ParameterString("Commit", default_value="unknown")
    champion = ParameterString(
        "Champion", default_value=f"s3://{bucket}/{settings.prefix}/champion/none/"
    )
    approval = ParameterString(
        "ApprovalStatus",
        default_value=settings.registry.approval,
        enum_values=list(APPROVALS),
    )
    threshold = ParameterFloat("GateThreshold", default_value=gate.threshold)
    tolerance = ParameterFloat("GateTolerance", default_value=gate.tolerance)
    preprocess_instance = ParameterString("PreprocessInstanceType", compute.preprocess.instance)
    train_instance = ParameterString("TrainInstanceType", compute.train.instance)
    train_count = ParameterInteger("TrainInstanceCount", compute.train.count)
    evaluate_instance = ParameterString("EvaluateInstanceType", compute.evaluate.instance)
    hyperparameters = {
        name: ParameterString(parameter_name(name), default_value=value)
        for name, value in settings.hyperparameters.items()
    }

    # ---- What all jobs share ----
    cache = CacheConfig(enable_caching=True, expire_after=CACHE_FOR)
    network = NetworkConfig(
        enable_network_isolation=aws.network_isolation,
        encrypt_inter_container_traffic=aws.encrypt_between_containers,
        subnets=list(aws.subnets) or None,
        security_group_ids=list(aws.security_groups) or None,
    )
    throttled = StepRetryPolicy(
        exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
        interval_seconds=10,
        backoff_rate=2.0,
        max_attempts=8,
    )
    no_capacity = SageMakerJobStepRetryPolicy(
        exception_types=[
            SageMakerJobExceptionTypeEnum.INTERNAL_ERROR,
            SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
        ],
        interval_seconds=60,
        backoff_rate=2.0,
        max_attempts=5,
    )
    at_a_limit = SageMakerJobStepRetryPolicy(
        exception_types=[SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT],
        interval_seconds=300,
        backoff_rate=1.5,
        max_attempts=5,
    )
    retries = [throttled, no_capacity, at_a_limit]

    def artifacts(*path: str) -> Any:
        """An address below this execution's own prefix, which no other execution ever writes to."""
        start = f"s3://{bucket}/{settings.prefix}/executions"
        return Join(on="/", values=[start, ExecutionVariables.PIPELINE_EXECUTION_ID, *path])

    def code_of(source: Bundle) -> Any:
        return f"s3://{bucket}/{sources.folder(source)}"

    def processor(source: Bundle, job: Job, instance: Any) -> Any:
        return Processor(
            role=role,
            image_uri=image,
            instance_count=job.count,
            instance_type=instance,
            entrypoint=["python3", f"{IN}/code/{source.script}"],
            volume_size_in_gb=job.volume_gb,
            volume_kms_key=aws.kms_key,
            output_kms_key=aws.kms_key,
            max_runtime_in_seconds=_seconds(job.max_hours),
            sagemaker_session=session,
            network_config=network,
        )

    def reads(name: str, address: Any) -> Any:
        return ProcessingInput(
            input_name=name,
            s3_input=ProcessingS3Input(
                s3_uri=address,
                local_path=f"{IN}/{name}",
                s3_data_type="S3Prefix",
                s3_input_mode="File",
            ),
        )

    def writes(step: str, name: str, folder: str = "") -> Any:
        return ProcessingOutput(
            output_name=name,
            s3_output=ProcessingS3Output(
                s3_uri=artifacts(step, name),
                local_path=f"{OUT}{folder}",
                s3_upload_mode="EndOfJob",
            ),
        )

    def output_of(step: Any, name: str) -> Any:
        return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri

    # ---- Preprocess: raw files → encoded train and validation rows, untouched test rows ----
    preprocess = ProcessingStep(
        name="Preprocess",
        step_args=processor(sources.preprocess, compute.preprocess, preprocess_instance).run(
            inputs=[reads("code", code_of(sources.preprocess)), reads("data", input_data)],
            outputs=[
                writes("preprocess", name, f"/{name}")
                for name in ("train", "validation", "test", "preprocessor")
            ],
            arguments=["--data", f"{IN}/data", "--output", OUT],
        ),
        cache_config=cache,
        retry_policies=retries,
    )

    # ---- Train: XGBoost in the managed container's script mode → model.tar.gz ----
    # The code arrives as a channel, not as the SDK's source_code: that would stamp the time into
    # its address, so that no cache could hit, and have the container itself fetch it from S3, which
    # network isolation forbids.
    spot = compute.train.spot
    seconds = _seconds(compute.train.max_hours)
    checkpoints = f"s3://{bucket}/{settings.prefix}/checkpoints/{sources.train.digest}"
    trainer = ModelTrainer(
        training_image=image,
        role=role,
        base_job_name="train",
        sagemaker_session=session,
        compute=Compute(
            instance_type=train_instance,
            instance_count=train_count,
            volume_size_in_gb=compute.train.volume_gb,
            volume_kms_key_id=aws.kms_key,
            enable_managed_spot_training=spot or None,
        ),
        networking=Networking(
            subnets=list(aws.subnets) or None,
            security_group_ids=list(aws.security_groups) or None,
            enable_network_isolation=aws.network_isolation,
            enable_inter_container_traffic_encryption=aws.encrypt_between_containers,
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=seconds,
            # Spot capacity may be hours away: wait for it at most as long again.
            **({"max_wait_time_in_seconds": 2 * seconds} if spot else {}),
        ),
        checkpoint_config=CheckpointConfig(s3_uri=checkpoints) if spot else None,
        output_data_config=OutputDataConfig(
            s3_output_path=artifacts("train"),
            **({"kms_key_id": aws.kms_key} if aws.kms_key else {}),
        ),
        hyperparameters={
            "sagemaker_program": sources.train.script,
            "sagemaker_submit_directory": "/opt/ml/input/data/code/source.tar.gz",
            **hyperparameters,
        },
    )
    train = TrainingStep(
        name="Train",
        step_args=trainer.train(
            input_data_config=[
                InputData(
                    channel_name="code", data_source=f"{code_of(sources.train)}/source.tar.gz"
                ),
                *(
                    InputData(channel_name=name, data_source=output_of(preprocess, name))
                    for name in ("train", "validation", "preprocessor")
                ),
            ]
        ),
        cache_config=cache,
        retry_policies=retries,
    )

    # ---- Evaluate: the packaged model and the champion, each on the test rows ----
    judged = PropertyFile(name="gate", output_name="evaluation", path="gate.json")
    evaluate = ProcessingStep(
        name="Evaluate",
        step_args=processor(sources.evaluate, compute.evaluate, evaluate_instance).run(
            inputs=[
                reads("code", code_of(sources.evaluate)),
                reads("model", train.properties.ModelArtifacts.S3ModelArtifacts),
                reads("test", output_of(preprocess, "test")),
                reads("champion", champion),
            ],
            outputs=[writes("evaluate", "evaluation")],
            arguments=[
                *("--model", f"{IN}/model"),
                *("--test", f"{IN}/test"),
                *("--champion", f"{IN}/champion"),
                *("--output", OUT),
            ],
        ),
        property_files=[judged],
        cache_config=cache,
        retry_policies=retries,
    )
    evaluation = output_of(evaluate, "evaluation")

    def measured(path: str) -> Any:
        return JsonGet(step_name=evaluate.name, property_file=judged, json_path=path)

    # ---- Register: a version with its metrics, its sample and its way back to the commit ----
    register = ModelStep(
        name="Register",
        step_args=ModelBuilder(
            s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
            image_uri=image,
            role_arn=role,
            sagemaker_session=session,
            # With dependencies the SDK looks for code to upload; the artifact brings its own.
            dependencies={},
            env_vars={
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            },
        ).register(
            model_package_group_name=settings.model_package_group,
            content_types=CONTENT_TYPES,
            response_types=CONTENT_TYPES,
            inference_instances=["ml.m5.large", "ml.m5.xlarge", "ml.c5.large", "ml.c5.xlarge"],
            transform_instances=["ml.m5.large", "ml.m5.xlarge"],
            approval_status=approval,
            model_metrics=ModelMetrics(
                model_statistics=MetricsSource(
                    s3_uri=Join(on="/", values=[evaluation, "evaluation.json"]),
                    content_type="application/json",
                )
            ),
            metadata_properties=MetadataProperties(
                commit_id=commit,
                repository=settings.project.repository,
                project_id=settings.project.project,
                generated_by=ExecutionVariables.PIPELINE_EXECUTION_ARN,
            ),
            # Values are text of 1 to 256 characters, which no S3 address can promise to be.
            customer_metadata_properties={
                "CI": settings.project.ci,
                "DataHash": data_hash,
                "Evaluation": measured(f"metrics.{gate.metric}.text"),
                "Champion": measured("champion"),
                "Versions": measured("versions"),
            },
            sample_payload_url=Join(on="/", values=[evaluation, "sample-payload.tar.gz"]),
            domain="MACHINE_LEARNING",
            task="OTHER",
        ),
        retry_policies=[throttled],
    )

    # ---- QualityGate: good enough, and not worse than the champion ----
    metric = f"metrics.{gate.metric}"
    lower = gate.metric in LOWER_IS_BETTER
    good_enough = ConditionLessThanOrEqualTo if lower else ConditionGreaterThanOrEqualTo
    failed = FailStep(
        name="GateFailed",
        error_message=Join(
            values=[
                "QualityGate: ",
                measured(f"{metric}.text"),
                f"; wanted {'at most' if lower else 'at least'} ",
                threshold,
                ", and at most ",
                tolerance,
                " worse than the champion (version ",
                measured("champion"),
                ")",
            ]
        ),
    )
    quality_gate = ConditionStep(
        name="QualityGate",
        conditions=[
            good_enough(left=measured(f"{metric}.value"), right=threshold),
            ConditionLessThanOrEqualTo(left=measured(f"{metric}.worse_by"), right=tolerance),
        ],
        if_steps=[register],
        else_steps=[failed],
    )

    pipeline = Pipeline(
        name=settings.pipeline,
        parameters=[
            *(input_data, data_hash, commit, champion, approval, threshold, tolerance),
            *(preprocess_instance, train_instance, train_count, evaluate_instance),
            *hyperparameters.values(),
        ],
        steps=[preprocess, train, evaluate, quality_gate],
        # The registry links versions to executions; an experiment would say it twice.
        pipeline_experiment_config=None,
        sagemaker_session=session,
    )
    return json.dumps(json.loads(pipeline.definition()), indent=2) + "\n"


def _seconds(hours: float) -> int:
    return math.ceil(hours * 3600)
