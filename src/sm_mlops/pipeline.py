"""What `pipeline/definition.py` builds on: the SageMaker SDK with this repo's account, image,
network and code filled in.

Public: a definition uses `Repo`, which hands out objects of the SDK's own classes. Beside
definitions this is the only module that imports the SDK, which takes seconds: import it where it is
needed. Compiling calls no service: code is named by its content, so its S3 address is known before
anything is uploaded.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from sagemaker.core import image_uris
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import (
    CheckpointConfig,
    OutputDataConfig,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    StoppingCondition,
)
from sagemaker.core.training.configs import Compute, InputData, Networking
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.retry import (
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep
from sagemaker.train import ModelTrainer

from sm_mlops import bundle
from sm_mlops.errors import MlopsError
from sm_mlops.settings import APPROVALS as APPROVALS
from sm_mlops.settings import LOWER_IS_BETTER, Settings
from sm_mlops.settings import Job as Job
from sm_mlops.settings import parameter_name as parameter_name

IN, OUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
# The managed container whose packages the extra `tabular` pins; change them only together.
_XGBOOST = "3.2-0"
_THROTTLED = StepRetryPolicy(
    exception_types=[StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING],
    interval_seconds=10,
    backoff_rate=2.0,
    max_attempts=8,
)
_NO_CAPACITY = SageMakerJobStepRetryPolicy(
    exception_types=[
        SageMakerJobExceptionTypeEnum.INTERNAL_ERROR,
        SageMakerJobExceptionTypeEnum.CAPACITY_ERROR,
    ],
    interval_seconds=60,
    backoff_rate=2.0,
    max_attempts=5,
)
_AT_A_LIMIT = SageMakerJobStepRetryPolicy(
    exception_types=[SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT],
    interval_seconds=300,
    backoff_rate=1.5,
    max_attempts=5,
)
# Neither telemetry nor a person's SDK defaults may shape the definition.
_OPTED_OUT = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


class Repo:
    """A model repo as its pipeline definition sees it.

    Attributes:
        settings: `mlops.yaml`, typed.
        bucket, role: Name of the artifact bucket; ARN of the role that jobs run as.
        session: The SDK's session, for every object of the SDK that takes one.
        cache: Reuses a step's result for 30 days, as long as its code and inputs are the same.
        retries, throttled: Retry policies of steps that run a job, and of those that do not.
        no_data, no_champion: S3 folders with nothing in them, the defaults of two parameters.
        objects: S3 key and content of all code that the definition has asked for.
    """

    def __init__(self, settings: Settings, account: str) -> None:
        self.settings = settings
        self.cache = CacheConfig(enable_caching=True, expire_after="P30D")
        self.throttled = [_THROTTLED]
        self.retries = [_THROTTLED, _NO_CAPACITY, _AT_A_LIMIT]
        self.bucket, self.role = settings.bucket(account), settings.role_arn(account)
        self.no_data = self._address("data/none/")
        self.no_champion = self._address("champion/none/")
        self.objects: dict[str, bytes] = {}
        self.session = PipelineSession(
            boto_session=boto3.Session(region_name=settings.project.region),
            default_bucket=self.bucket,
            sagemaker_config=_OPTED_OUT,
        )

    @cached_property
    def image(self) -> str:
        """The managed XGBoost container in this region."""
        region = self.settings.project.region
        try:
            return str(image_uris.retrieve("xgboost", region, version=_XGBOOST))
        except ValueError as error:
            raise MlopsError(f"no XGBoost {_XGBOOST} image in {region}: {error}") from error

    @property
    def lower_is_better(self) -> bool:
        """Whether the gate's metric is an error."""
        return self.settings.gate.metric in LOWER_IS_BETTER

    def code(self, script: str, *, also: Iterable[str] = (), reads: Iterable[str] = ()) -> Code:
        """Return a script of `model/` with the modules it imports, ready to be a step's input.

        Args:
            script: Name of a file in `model/`.
            also: Files of `model/` that it needs and does not import.
            reads: Keys of `mlops.yaml` that it reads, such as `split` or `data.target`. No other is
                in its copy, so that no other makes the step run again.

        Raises:
            MlopsError: A file is missing, cannot be parsed, or imports what no job has.
        """
        return Code(self, bundle.collect(self.settings, script, also=also, reads=reads))

    def processor(self, code: Code, job: Job | None = None, instance: Any = None) -> Processor:
        """Return a Processor that runs `code`, whose `input` has to be among its inputs.

        Args:
            code: What it runs.
            job: Its compute, from mlops.yaml or written as `Job(instance="ml.m5.xlarge")`.
            instance: Instance type or pipeline parameter, instead of the job's.
        """
        job, aws = job or Job(), self.settings.aws
        with self._without_defaults():
            return Processor(
                role=self.role,
                image_uri=self.image,
                instance_count=job.count,
                instance_type=instance or job.instance,
                entrypoint=["python3", f"{IN}/code/{code.script}"],
                volume_size_in_gb=job.volume_gb,
                volume_kms_key=aws.kms_key,
                output_kms_key=aws.kms_key,
                max_runtime_in_seconds=math.ceil(job.max_hours * 3600),
                sagemaker_session=self.session,
                network_config=NetworkConfig(
                    enable_network_isolation=aws.network_isolation,
                    encrypt_inter_container_traffic=aws.encrypt_between_containers,
                    subnets=list(aws.subnets) or None,
                    security_group_ids=list(aws.security_groups) or None,
                ),
            )

    def trainer(
        self, code: Code, instance: Any, count: Any, hyperparameters: Mapping[str, Any]
    ) -> ModelTrainer:
        """Return a ModelTrainer in script mode; `code.channel` has to be among its channels.

        The code is a channel, not the SDK's source_code: that would write the time into its
        address, so that no cache could hit, and have the container fetch it from S3, which network
        isolation forbids.
        """
        job, aws = self.settings.compute.train, self.settings.aws
        seconds = math.ceil(job.max_hours * 3600)
        return ModelTrainer(
            training_image=self.image,
            role=self.role,
            base_job_name="train",
            sagemaker_session=self.session,
            compute=Compute(
                instance_type=instance,
                instance_count=count,
                volume_size_in_gb=job.volume_gb,
                volume_kms_key_id=aws.kms_key,
                enable_managed_spot_training=job.spot or None,
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
                **({"max_wait_time_in_seconds": 2 * seconds} if job.spot else {}),
            ),
            # Part of the cache key: an address per execution would keep caches from hitting.
            checkpoint_config=CheckpointConfig(
                s3_uri=self._address(f"checkpoints/{code.bundle.digest}")
            )
            if job.spot
            else None,
            output_data_config=OutputDataConfig(
                s3_output_path=self.artifacts("train"),
                **({"kms_key_id": aws.kms_key} if aws.kms_key else {}),
            ),
            hyperparameters={
                "sagemaker_program": code.script,
                "sagemaker_submit_directory": "/opt/ml/input/data/code/source.tar.gz",
                **hyperparameters,
            },
        )

    def input(self, name: str, address: Any) -> ProcessingInput:
        """Return the input that brings what is at an S3 address to `IN/name`."""
        return ProcessingInput(
            input_name=name,
            s3_input=ProcessingS3Input(
                s3_uri=address,
                local_path=f"{IN}/{name}",
                s3_data_type="S3Prefix",
                s3_input_mode="File",
            ),
        )

    def output(self, step: str, name: str, folder: str | None = None) -> ProcessingOutput:
        """Return the output that keeps `OUT/name`, or another folder, when the step has ended."""
        return ProcessingOutput(
            output_name=name,
            s3_output=ProcessingS3Output(
                s3_uri=self.artifacts(step, name),
                local_path=folder or f"{OUT}/{name}",
                s3_upload_mode="EndOfJob",
            ),
        )

    def output_of(self, step: ProcessingStep, name: str) -> Any:
        """Return the S3 address of an output of a step, for the inputs of later ones."""
        return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri

    def artifacts(self, *path: str) -> Join:
        """Return an S3 address that only this execution writes to."""
        start = self._address("executions")
        return Join(on="/", values=[start, ExecutionVariables.PIPELINE_EXECUTION_ID, *path])

    def compile(self, pipeline: Pipeline) -> str:
        """Return the definition of `pipeline` as JSON text.

        Raises:
            MlopsError: Two parameters have one name, or a step lacks its code.
        """
        with self._without_defaults():
            definition = json.loads(pipeline.definition())
        names = Counter(item["Name"] for item in definition["Parameters"])
        if twice := [name for name, count in names.items() if count > 1]:
            raise MlopsError(
                f"pipeline/definition.py: two parameters are called {twice[0]}; rename one "
                "(a hyperparameter's is its own name in capitals)"
            )
        return json.dumps(definition, indent=2) + "\n"

    def _address(self, path: str) -> str:
        return f"s3://{self.bucket}/{self.settings.prefix}/{path}"

    @contextmanager
    def _without_defaults(self) -> Iterator[None]:
        """Let the SDK find no defaults meanwhile, so that it does not check their whole schema at
        each of some forty look-ups, which takes as long as importing it."""
        self.session.sagemaker_config = {}
        try:
            yield
        finally:
            self.session.sagemaker_config = _OPTED_OUT


@dataclass(frozen=True)
class Code:
    """A script with all that it needs, at an S3 address named by its content."""

    repo: Repo
    bundle: bundle.Bundle

    @property
    def script(self) -> str:
        """Its file name."""
        return self.bundle.script

    @cached_property
    def input(self) -> ProcessingInput:
        """The input of a processing step."""
        for name, content in self.bundle.files:
            self._keep(name, content)
        return self.repo.input("code", self._folder)

    @cached_property
    def channel(self) -> InputData:
        """The channel of a training step."""
        self._keep("source.tar.gz", self.bundle.tar_gz())
        return InputData(channel_name="code", data_source=f"{self._folder}/source.tar.gz")

    @property
    def _folder(self) -> str:
        return self.repo._address(f"code/{self.bundle.digest}")

    def _keep(self, name: str, content: bytes) -> None:
        key = f"{self.repo.settings.prefix}/code/{self.bundle.digest}/{name}"
        self.repo.objects[key] = content
