"""Small pipelines, jobs and clients for the sandbox's tests. Knows nothing of this repo's model."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from sm_mlops.sandbox import FOLDER, Server, status
from sm_mlops.sandbox.client import environment

REGION = "eu-west-1"
BUCKET = "sandbox-tests"
ROLE = "arn:aws:iam::123456789012:role/tests"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"
GROUP = "group"
CODE = "/opt/ml/processing/input/code"
OUTPUT = "/opt/ml/processing/output"


@dataclass(frozen=True)
class Ended:
    """An execution that has ended: what Describe answers, and its steps by name."""

    arn: str
    described: dict[str, Any]
    steps: dict[str, dict[str, Any]]

    @property
    def status(self) -> str:
        """Return the execution's status."""
        return str(self.described["PipelineExecutionStatus"])


class World:
    """A sandbox with a bucket, a model package group and clients; runs pipelines to their end.

    `variables` lead there: `server.environment()`, or what `connect` yields.
    """

    def __init__(self, variables: Mapping[str, str], region: str = REGION) -> None:
        session = boto3.session.Session(
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=region,
        )
        self._session, self.variables = session, variables
        self.url = variables["AWS_ENDPOINT_URL"]

    # Made when first used: each takes as long as several calls.

    @cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @cached_property
    def logs(self) -> Any:
        return self.client("logs")

    @cached_property
    def iam(self) -> Any:
        return self.client("iam")

    def client(self, service: Any) -> Any:
        """Return a client of another service."""
        return self._session.client(service, endpoint_url=self.url)

    def prepare(self) -> World:
        """Create the bucket, the model package group and a role that may do everything."""
        self.role_for("tests")
        self.s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
        return self

    def role_for(self, name: str, *statements: dict[str, Any], service: str = "sagemaker") -> str:
        """Make a role that a service may take, and return its ARN; without statements it may do
        everything."""
        trust = {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        allowed = list(statements) or [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
        made = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
        self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*allowed))
        return str(made["Role"]["Arn"])

    def put(self, key: str, body: str | bytes) -> str:
        """Store an object and return its address."""
        self.s3.put_object(
            Bucket=BUCKET, Key=key, Body=body.encode() if isinstance(body, str) else body
        )
        return f"s3://{BUCKET}/{key}"

    def read(self, uri: str) -> bytes:
        """Return an object's content."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def code(self, text: str) -> str:
        """Store a script as job.py and return the address of its folder."""
        return self.put(f"code/{uuid.uuid4().hex}/job.py", text).removesuffix("job.py")

    def processing(
        self, script: str, arguments: list[Any] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Return a CreateProcessingJob request that runs a script with an output named `out`."""
        request: dict[str, Any] = {
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 30,
                }
            },
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", f"{CODE}/job.py"],
            },
            "RoleArn": ROLE,
            "ProcessingInputs": [s3_input("code", self.code(script))],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "out",
                        "S3Output": {
                            "S3Uri": f"s3://{BUCKET}/out/{uuid.uuid4().hex}",
                            "LocalPath": f"{OUTPUT}/out",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
        }
        if arguments:
            request["AppSpecification"]["ContainerArguments"] = arguments
        return request | changes

    def training(self, script: str, **changes: Any) -> dict[str, Any]:
        """Return a CreateTrainingJob request that runs a script in script mode."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            info = tarfile.TarInfo("train.py")
            info.size = len(script.encode())
            tar.addfile(info, io.BytesIO(script.encode()))
        source = self.put(f"source/{uuid.uuid4().hex}/source.tar.gz", archive.getvalue())
        request: dict[str, Any] = {
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models/"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 30,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "InputDataConfig": [channel("code", source)],
            "HyperParameters": {
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": "/opt/ml/input/data/code/source.tar.gz",
            },
        }
        return request | changes

    def start(self, steps: list[dict[str, Any]], **options: Any) -> str:
        """Create a pipeline of these steps, start it and return the execution's ARN."""
        name = options.pop("name", f"p-{uuid.uuid4().hex[:8]}")
        self.create(name, steps, options.pop("parameters", []))
        answer = self.sagemaker.start_pipeline_execution(PipelineName=name, **options)
        return str(answer["PipelineExecutionArn"])

    def create(
        self, name: str, steps: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None
    ) -> None:
        """Create a pipeline, or update the one that has this name."""
        text = definition(steps, parameters)
        known = self.sagemaker.list_pipelines(PipelineNamePrefix=name)["PipelineSummaries"]
        change = self.sagemaker.update_pipeline if known else self.sagemaker.create_pipeline
        change(PipelineName=name, PipelineDefinition=text, RoleArn=ROLE)

    def run(self, steps: list[dict[str, Any]], **options: Any) -> Ended:
        """Create and start a pipeline of these steps, and wait for its end."""
        return self.wait(self.start(steps, **options))

    def wait(self, arn: str, seconds: float = 300) -> Ended:
        """Wait for the end of an execution."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            described = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            if described["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
                return Ended(arn, dict(described), self.steps(arn))
            time.sleep(0.02)
        raise TimeoutError(f"{arn} is still {described['PipelineExecutionStatus']}")

    def steps(self, arn: str) -> dict[str, dict[str, Any]]:
        """Return the steps of an execution by name."""
        answer = self.sagemaker.list_pipeline_execution_steps(
            PipelineExecutionArn=arn, MaxResults=100
        )
        return {step["StepName"]: dict(step) for step in answer["PipelineExecutionSteps"]}

    def wait_for_step(self, arn: str, name: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until a step has made its job, and return the step."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            step = self.steps(arn).get(name, {})
            if "Metadata" in step:
                return step
            time.sleep(0.02)
        raise TimeoutError(f"{name} has not started")

    def process(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a Processing job directly and return what Describe answers at its end."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_processing_job(ProcessingJobName=name, **request)
        while True:
            job = self.sagemaker.describe_processing_job(ProcessingJobName=name)
            if job["ProcessingJobStatus"] not in ("InProgress", "Stopping"):
                return dict(job)
            time.sleep(0.02)

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a Training job directly and return what Describe answers at its end."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_training_job(TrainingJobName=name, **request)
        while True:
            job = self.sagemaker.describe_training_job(TrainingJobName=name)
            if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                return dict(job)
            time.sleep(0.02)


def until(holds: Callable[[], Any], seconds: float = 120) -> None:
    """Wait until something holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for has not come")
        time.sleep(0.02)


def policy(*statements: dict[str, Any]) -> str:
    """Return a policy's document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def world(server: Server) -> World:
    """Return a prepared world in a server of this process."""
    return World(server.environment()).prepare()


def there(root: Path) -> dict[str, str]:
    """Return the variables that lead to the running sandbox of a folder."""
    found = status(root)
    assert found is not None
    return environment(root / FOLDER, found.port, found.region)


def s3_input(name: str, uri: Any) -> dict[str, Any]:
    """Return a ProcessingInput."""
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"/opt/ml/processing/input/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }


def channel(name: str, uri: Any) -> dict[str, Any]:
    """Return a channel of a Training job."""
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
    }


def step(name: str, kind: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a step of a definition."""
    return {"Name": name, "Type": kind, "Arguments": arguments, **more}


def fail(name: str, message: Any, **more: Any) -> dict[str, Any]:
    """Return a Fail step."""
    return step(name, "Fail", {"ErrorMessage": message}, **more)


def condition(
    name: str,
    conditions: list[dict[str, Any]],
    then: list[dict[str, Any]] | None = None,
    otherwise: list[dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a Condition step."""
    arguments = {"Conditions": conditions, "IfSteps": then or [], "ElseSteps": otherwise or []}
    return step(name, "Condition", arguments, **more)


def register(model_url: Any, **more: Any) -> dict[str, Any]:
    """Return the arguments of a RegisterModel step."""
    return {
        "ModelPackageGroupName": GROUP,
        "InferenceSpecification": {
            "Containers": [{"Image": IMAGE, "ModelDataUrl": model_url}],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
        **more,
    }


def definition(steps: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None) -> str:
    """Return the text of a definition."""
    return json.dumps(
        {
            "Version": "2020-12-01",
            "Metadata": {},
            "Parameters": parameters or [],
            "Steps": steps,
        }
    )


def get(path: str) -> dict[str, str]:
    """Return a Get expression."""
    return {"Get": path}


def join(on: str, *values: Any) -> dict[str, Any]:
    """Return a Std:Join expression."""
    return {"Std:Join": {"On": on, "Values": list(values)}}


def json_get(step_name: str, file: str, path: Any) -> dict[str, Any]:
    """Return a Std:JsonGet expression on a property file."""
    return {
        "Std:JsonGet": {
            "PropertyFile": get(f"Steps.{step_name}.PropertyFiles.{file}"),
            "Path": path,
        }
    }


def files_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
