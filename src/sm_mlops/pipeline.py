"""The base of `pipeline/definition.py`: the SageMaker SDK with this repo's account, image, network
and code filled in.

Public: definitions use `Repo`, which returns objects of the SDK's own classes. Of the
tool, only `monitoring/definition.py` imports the SDK as well. Importing it takes seconds, so import
this module only where it is needed.
Compiling calls no service: the S3 address of code follows from its content.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import boto3
from sagemaker.core import image_uris, shapes
from sagemaker.core.config.config_manager import SageMakerConfig
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.training.configs import Compute, InputData, Networking
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.parameters import ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow import retry, steps
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep
from sagemaker.train import ModelTrainer

from sm_mlops import bundle, requirements, tags
from sm_mlops.errors import MlopsError
from sm_mlops.settings import SANDBOX_ACCOUNT, Evaluation, Settings, has_local_storage
from sm_mlops.settings import Job as Job
from sm_mlops.settings import parameter_name as parameter_name
from sm_mlops.tabular import booster, measures
from sm_mlops.tabular.packaging import REQUIREMENTS

IN, OUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
# The container installs its code with pip, which fetches setuptools for an environment to build in:
# not in network isolation. The value is that of pip's option build-isolation: 0 switches it off.
_OFFLINE = {"PIP_NO_BUILD_ISOLATION": "0"}
_BOOSTING, _FIGURES = "sm_mlops/tabular/boosting.py", "sm_mlops/tabular/figures.py"
_STEP, _JOB = retry.StepExceptionTypeEnum, retry.SageMakerJobExceptionTypeEnum
_THROTTLED = retry.StepRetryPolicy(
    exception_types=[_STEP.SERVICE_FAULT, _STEP.THROTTLING],
    interval_seconds=10,
    backoff_rate=2.0,
    max_attempts=8,
)
_NO_CAPACITY = retry.SageMakerJobStepRetryPolicy(
    exception_types=[_JOB.INTERNAL_ERROR, _JOB.CAPACITY_ERROR],
    interval_seconds=60,
    backoff_rate=2.0,
    max_attempts=5,
)
_AT_A_LIMIT = retry.SageMakerJobStepRetryPolicy(
    exception_types=[_JOB.RESOURCE_LIMIT],
    interval_seconds=300,
    backoff_rate=1.5,
    max_attempts=5,
)


class _Session(PipelineSession):
    """The SDK's session as far as compiling needs it.

    The SDK's own creates six clients and reads the defaults of this machine's user, which must not
    change the definition.
    """

    def _initialize(self, boto_session: boto3.Session, **_: Any) -> None:
        self.boto_session = boto_session
        self._region_name = boto_session.region_name
        self.local_mode = False
        # The SDK has no other switch for telemetry.
        self.sagemaker_config = {
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        }

    @cached_property
    def sagemaker_client(self) -> Any:
        """Return a client for definitions that call SageMaker; none of this module's needs it."""
        return self.boto_session.client("sagemaker")


@contextmanager
def compiling() -> Iterator[None]:
    """Skip two things that the SDK does while it compiles, which take longer than importing it.

    It validates the whole schema of its defaults, here a constant, at each of some forty look-ups;
    and each processing step creates a local session with its clients to read a method's name.
    """
    validate, local_client = SageMakerConfig.validate_sagemaker_config, steps.LocalSagemakerClient
    SageMakerConfig.validate_sagemaker_config = staticmethod(lambda _: None)
    steps.LocalSagemakerClient = lambda: local_client
    try:
        yield
    finally:
        SageMakerConfig.validate_sagemaker_config = staticmethod(validate)
        steps.LocalSagemakerClient = local_client


class Repo:
    """A model repo as its pipeline definition sees it.

    Attributes:
        settings: `mlops.yaml`, typed.
        bucket, role: Name of the artifact bucket; ARN of the role that jobs run as.
        session: The SDK's session, for every object of the SDK that takes one.
        cache: Reuses a step's result for 30 days if its code and inputs are the same.
        retries, throttled: Retry policies of steps with and without a job.
        no_data, no_champion: Empty S3 folders, the defaults of two parameters.
        objects: S3 key and content of all code that the steps use.
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
        self._codes: list[Code] = []
        self._account = account
        self._read: set[str] = set()
        self.session = _Session(
            boto3.Session(region_name=settings.project.region), default_bucket=self.bucket
        )

    @cached_property
    def image(self) -> str:
        """Return the address of the image of jobs and endpoints, in this region."""
        region, image = self.settings.project.region, self.settings.container
        if image.sdk is None:
            return image.name
        framework, version = image.sdk
        try:
            return str(image_uris.retrieve(framework, region, version=version))
        except ValueError as error:
            raise MlopsError(f"no {image.title} image in {region}: {error}") from error

    def _required(self, files: Container[str] = (), team: bool = True) -> dict[str, bytes]:
        """Return what a job with these files installs: what the team requires, and what the library
        draws with if the image lacks it."""
        drawing = _FIGURES in files and not self._has("matplotlib", team)
        library = ["matplotlib"] if drawing else []
        settings, here = self.settings, self._account == SANDBOX_ACCOUNT
        # Jobs of the sandbox never reach an index.
        pack = here or settings.aws.network_isolation or not settings.aws.package_index
        image = settings.container
        return requirements.files(settings.root, image, library, team=team, pack=pack, here=here)

    @property
    def _tags(self) -> list[dict[str, str]]:
        """Return the tags of a job. They are no part of the cache key. Source:
        https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html"""
        return tags.rows(self.settings.project.resource_tags())

    @property
    def lower_is_better(self) -> bool:
        """Return whether lower values of the gate's metric are better."""
        return self.settings.lower_is_better

    @property
    def measured_as(self) -> str:
        """Return what the gate's metric is for: `classes`, `quantity`, or, if own, `either`."""
        metric = self.settings.gate.metric
        if metric in measures.OF_QUANTITIES:
            return "quantity"
        return "classes" if metric in measures.OF_CLASSES else "either"

    def code(self, script: str, *, also: Iterable[str] = (), reads: Iterable[str] = ()) -> Code:
        """Return a script of `model/` with the modules it imports, ready to be a step's input.

        Args:
            script: Name of a file in `model/`.
            also: Files of `model/` that it needs but does not import.
            reads: Keys of `mlops.yaml` that it reads, such as `split` or `data.target`. The step
                runs again only when one of these changes.

        Raises:
            MlopsError: A file is missing, cannot be parsed, or imports what jobs do not have.
        """
        reads = list(reads)
        if self.settings.aws.kms_key:
            # The cache ignores the key, and would reuse output that the former key encrypts.
            reads.append("aws.kms_key")
        self._read.update(reads)
        found = bundle.collect(
            self.settings, script, also=also, reads=reads, required=self._required
        )
        code = Code(self, found)
        self._codes.append(code)
        return code

    def library_code(self, script: Path, *, reads: Iterable[str]) -> Code:
        """Return a script of the tool, which needs nothing that the team requires."""
        found = bundle.collect(
            *(self.settings, script.name),
            folder=script.parent,
            reads=reads,
            required=partial(self._required, team=False),
        )
        return Code(self, found)

    def processor(self, code: Code, job: Job | None = None, instance: Any = None) -> Processor:
        """Return a Processor that runs `code`; add `code.input` to its inputs.

        Args:
            code: The script to run.
            job: Its compute, from mlops.yaml or such as `Job(instance="ml.m5.xlarge")`.
            instance: Instance type or pipeline parameter, instead of the job's.
        """
        job, aws = job or Job(), self.settings.aws
        files = filter(None, (code.bundle.installer, code.bundle.script))
        return Processor(
            role=self.role,
            image_uri=self.image,
            instance_count=job.count,
            instance_type=instance or job.instance,
            entrypoint=["python3", *(f"{IN}/code/{name}" for name in files)],
            volume_size_in_gb=job.volume_gb,
            volume_kms_key=self._volume_key(instance or job.instance),
            output_kms_key=aws.kms_key,
            max_runtime_in_seconds=math.ceil(job.max_hours * 3600),
            sagemaker_session=self.session,
            tags=self._tags,
            network_config=NetworkConfig(
                enable_network_isolation=aws.network_isolation,
                encrypt_inter_container_traffic=aws.encrypt_between_containers,
                subnets=list(aws.subnets) or None,
                security_group_ids=list(aws.security_groups) or None,
            ),
        )

    def trainer(
        self, code: Code, instance: Any, hyperparameters: Mapping[str, Any]
    ) -> ModelTrainer:
        """Return a ModelTrainer in script mode; add `code.channel` to its channels.

        The SDK's source_code would not do: its address contains the time, which defeats the cache,
        and the container downloads it from S3, which network isolation forbids.
        """
        if _BOOSTING in dict(code.bundle.files) and not self._has("xgboost"):
            raise MlopsError(
                f"mlops.yaml: image {self.settings.image} has no xgboost: train another kind of "
                "model in model/train.py, or add xgboost to model/requirements.txt"
            )
        known = self.settings.hyperparameters
        _refuse_unknown(code, {name: known.get(name, "") for name in hyperparameters})
        job, aws = self.settings.compute.train, self.settings.aws
        seconds = math.ceil(job.max_hours * 3600)
        # Part of the cache key, so not an address per execution; each job downloads all below it.
        shared = self._address(f"checkpoints/{code.bundle.digest}")
        checkpoints = Join(on="/", values=[shared, ParameterString("DataHash")])
        return ModelTrainer(
            training_image=self.image,
            role=self.role,
            base_job_name="train",
            environment=dict(_OFFLINE),
            sagemaker_session=self.session,
            tags=[shapes.Tag(key=tag["Key"], value=tag["Value"]) for tag in self._tags],
            compute=Compute(
                instance_type=instance,
                instance_count=1,
                volume_size_in_gb=job.volume_gb,
                volume_kms_key_id=self._volume_key(instance),
                enable_managed_spot_training=job.spot or None,
            ),
            networking=Networking(
                subnets=list(aws.subnets) or None,
                security_group_ids=list(aws.security_groups) or None,
                enable_network_isolation=aws.network_isolation,
                enable_inter_container_traffic_encryption=aws.encrypt_between_containers,
            ),
            stopping_condition=shapes.StoppingCondition(
                max_runtime_in_seconds=seconds,
                # Wait for spot capacity at most as long as training may take.
                **({"max_wait_time_in_seconds": 2 * seconds} if job.spot else {}),
            ),
            checkpoint_config=shapes.CheckpointConfig(s3_uri=checkpoints) if job.spot else None,
            output_data_config=shapes.OutputDataConfig(
                s3_output_path=self.artifacts("train"),
                **({"kms_key_id": aws.kms_key} if aws.kms_key else {}),
            ),
            hyperparameters={
                "sagemaker_program": code.bundle.script,
                "sagemaker_submit_directory": "/opt/ml/input/data/code/source.tar.gz",
                **hyperparameters,
            },
        )

    def carried(self, parameters: Mapping[str, Any]) -> dict[str, Join]:
        """Return what a version carries in its metadata about its execution, for mlops compare."""
        limits = parameters["GateThreshold"], "- tolerance", parameters["GateTolerance"]
        jobs = ("Preprocess", "Train", "Evaluate")
        return {
            "Gate": Join(" ", [self.settings.gate.metric, "- threshold", *limits]),
            "Instances": Join(" ", [parameters[f"{job}InstanceType"] for job in jobs]),
        }

    def serving(self, script: str) -> dict[str, str]:
        """Return the environment of a model whose artifact brings `script` in its folder `code`."""
        return {
            "SAGEMAKER_PROGRAM": script,
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            # The image's server gives up after 60 s by default; SageMaker waits this long for the
            # answer to an asynchronous request, and 600 s in batch transform jobs.
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "900",
            **_OFFLINE,
        }

    def input(self, name: str, address: Any) -> shapes.ProcessingInput:
        """Return the input that downloads an S3 address to `IN/name`."""
        return shapes.ProcessingInput(
            input_name=name,
            s3_input=shapes.ProcessingS3Input(
                s3_uri=address,
                local_path=f"{IN}/{name}",
                s3_data_type="S3Prefix",
                s3_input_mode="File",
            ),
        )

    def output(self, step: str, name: str, folder: str | None = None) -> shapes.ProcessingOutput:
        """Return the output that uploads `OUT/name`, or another folder, when the step ends."""
        return shapes.ProcessingOutput(
            output_name=name,
            s3_output=shapes.ProcessingS3Output(
                s3_uri=self.artifacts(step, name),
                local_path=folder or f"{OUT}/{name}",
                s3_upload_mode="EndOfJob",
            ),
        )

    def output_of(self, step: ProcessingStep, name: str) -> Any:
        """Return the S3 address of a step's output, for the inputs of later steps."""
        return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri

    def artifacts(self, *path: str) -> Join:
        """Return an S3 address that only this execution writes to."""
        start = self._address("executions")
        return Join(on="/", values=[start, ExecutionVariables.PIPELINE_EXECUTION_ID, *path])

    def compile(self, pipeline: Pipeline) -> str:
        """Return the definition of `pipeline` as JSON text.

        Raises:
            MlopsError: Two parameters have one name, or no step has the code of a script.
        """
        definition = json.loads(pipeline.definition())
        names = Counter(item["Name"] for item in definition["Parameters"])
        if twice := [name for name, count in names.items() if count > 1]:
            raise MlopsError(
                f"pipeline/definition.py: two parameters are called {twice[0]}; rename one "
                "(a hyperparameter's is its own name in capitals)"
            )
        for name, value in asdict(self.settings.evaluation).items():
            key = f"evaluation.{name}"
            if value != getattr(Evaluation(), name) and key not in self._read:
                raise MlopsError(
                    f"pipeline/definition.py: no step reads {key} of mlops.yaml; take over the "
                    "template's pipeline/definition.py (make upgrade)"
                )
        text = json.dumps(definition, indent=2) + "\n"
        for code in self._codes:
            if f"/code/{code.bundle.digest}" not in text:
                raise MlopsError(
                    f"pipeline/definition.py: no step has the code of model/{code.bundle.script}; "
                    "add code.input to its inputs, or code.channel to its channels"
                )
        return text

    def _has(self, package: str, team: bool = True) -> bool:
        """Return whether the image has a package, or the team requires it."""
        lines = self._required(team=team).get(REQUIREMENTS, b"").decode().splitlines()
        named = [re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines]
        return package in named or package in self.settings.container.pins

    def _volume_key(self, instance: Any) -> str | None:
        """Return the key of the volume; SageMaker refuses one where the storage is local."""
        name = str(getattr(instance, "default_value", instance))
        return None if has_local_storage(name) else self.settings.aws.kms_key

    def _address(self, path: str) -> str:
        return f"s3://{self.bucket}/{self.settings.prefix}/{path}"


def _refuse_unknown(code: Code, given: Mapping[str, str]) -> None:
    """Raise MlopsError for a hyperparameter that neither XGBoost nor the team's code can mean."""
    files = dict(code.bundle.files)
    own = [
        content
        for name, content in files.items()
        if name.endswith(".py") and not name.startswith("sm_mlops/")
    ]
    if problem := booster.refused(given, files, own):
        raise MlopsError(f"mlops.yaml: {problem}")


@dataclass(frozen=True)
class Code:
    """A script with everything that it imports, at an S3 address named by its content."""

    repo: Repo
    bundle: bundle.Bundle

    @cached_property
    def input(self) -> shapes.ProcessingInput:
        """Return the input of a processing step."""
        return self.repo.input("code", self._stored(dict(self.bundle.files)))

    @cached_property
    def channel(self) -> InputData:
        """Return the channel of a training step."""
        folder = self._stored({"source.tar.gz": self.bundle.tar_gz()})
        return InputData(channel_name="code", data_source=f"{folder}/source.tar.gz")

    def _stored(self, files: Mapping[str, bytes]) -> str:
        """Add the files to those that are uploaded, and return their S3 folder."""
        folder = f"code/{self.bundle.digest}"
        for name, content in files.items():
            self.repo.objects[f"{self.repo.settings.prefix}/{folder}/{name}"] = content
        return self.repo._address(folder)
