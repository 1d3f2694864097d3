"""Small models and what hosts them, for the tests of the sandbox's endpoints. Knows nothing of this
repo's model."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from sandbox_cases import BUCKET, GROUP, IMAGE, REGION, World, register, until
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.endpoints import ENDPOINT

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
ROLE = "arn:aws:iam::123456789012:role/hosting"

MODEL = """
import json, os, time
from pathlib import Path

def model_fn(model_dir):
    return Path(model_dir, "name").read_text()

def input_fn(body, content_type):
    return body.decode() if isinstance(body, bytes) else body

def predict_fn(data, model):
    if data == "raise":
        raise RuntimeError("no prediction for this")
    died = Path(os.environ["TMPDIR"], "died")
    if data == "die" or (data == "die once" and not died.exists()):
        died.touch()
        os._exit(7)
    if data.startswith("hold "):
        Path(data[5:] + ".begun").touch()
        while not Path(data[5:]).exists():
            time.sleep(0.02)
    if data.startswith("sleep"):
        time.sleep(float(data[5:]))
    return {"model": model, "data": data, "pid": os.getpid()}

def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
SCRIPT_MODE = {
    "SAGEMAKER_PROGRAM": "inference.py",
    "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
}
BROKEN = "def model_fn(model_dir):\n    raise ValueError('these weights are broken')\n"
SLOW = MODEL.replace("    return Path", "    time.sleep(0.7)\n    return Path")


class Hosting(World):
    """A world with a role, packaged models and endpoints."""

    server: Server

    @classmethod
    def of(cls, variables: Mapping[str, str], credentials: Any) -> Hosting:
        """Return the world of somebody else, who has these credentials."""
        found = cls(variables)
        found._session = boto3.session.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
            region_name=REGION,
        )
        found.sagemaker, found.s3 = found.client("sagemaker"), found.client("s3")
        found.logs, found.iam = found.client("logs"), found.client("iam")
        return found

    def prepare(self) -> Hosting:
        """Create bucket, group and role."""
        super().prepare()
        self.role_for("hosting")
        return self

    def scale(self, name: str, count: int) -> None:
        """Change the instance count of an endpoint as Application Auto Scaling does."""
        store = self.server.store
        found = store.all(ENDPOINT).items()
        arn, record = next((k, v) for k, v in found if v["EndpointName"] == name)
        [shown] = record["ProductionVariants"]
        shown["CurrentInstanceCount"] = shown["DesiredInstanceCount"] = count
        record["_deployed"]["variant"]["InitialInstanceCount"] = count
        store.put(ENDPOINT, arn, record)

    @property
    def runtime(self) -> Any:
        """Return a client of the runtime that tries every call once."""
        return self.client("sagemaker-runtime")

    def archive(self, script: str = MODEL, name: str = "one", **files: str | bytes) -> str:
        """Store a model.tar.gz and return its address."""
        content = {"code/inference.py": script, "name": name, **files}
        return self.put(f"models/{uuid.uuid4().hex}/model.tar.gz", tarred(content))

    def package(self, script: str = MODEL, name: str = "one", **more: Any) -> str:
        """Register a version and return its ARN."""
        return self.package_of(self.archive(script, name), **more)

    def package_of(self, url: str, environment: dict[str, str] | None = None, **more: Any) -> str:
        """Register a version with this model data and return its ARN."""
        request = register(url, ModelApprovalStatus="Approved", **more)
        container = request["InferenceSpecification"]["Containers"][0]
        container["Environment"] = SCRIPT_MODE | (environment or {})
        return str(self.sagemaker.create_model_package(**request)["ModelPackageArn"])

    def model(self, package: str = "", **more: Any) -> str:
        """Create a model of a version and return its name."""
        name = f"m-{uuid.uuid4().hex[:8]}"
        container = {"ModelPackageName": package or self.package()}
        request = {"PrimaryContainer": container, "ExecutionRoleArn": ROLE} | more
        self.sagemaker.create_model(ModelName=name, **request)
        return name

    def config(self, *variants: dict[str, Any], **more: Any) -> str:
        """Create an endpoint configuration and return its name."""
        name = f"c-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=list(variants), **more
        )
        return name

    def named(self, name: str, script: str = MODEL, **more: Any) -> str:
        """Return a configuration with one variant of a model of this name."""
        package = self.package(script, name)
        return self.config(variant(self.model(package)), **more)

    def deploy(self, config: str, expect: str = "InService") -> str:
        """Create an endpoint, wait for it and return its name."""
        name = f"e-{uuid.uuid4().hex[:8]}"
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        found = self.settled(name)
        assert found["EndpointStatus"] == expect, found
        return name

    def update(self, name: str, config: str, **more: Any) -> dict[str, Any]:
        """Update an endpoint and return what it is then."""
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, **more)
        return self.settled(name)

    def settled(self, name: str, seconds: float = 300) -> dict[str, Any]:
        """Wait until nothing is in progress; return what Describe answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.sagemaker.describe_endpoint(EndpointName=name)
            if found["EndpointStatus"] in ("InService", "Failed"):
                return dict(found)
            time.sleep(0.02)
        raise TimeoutError(f"{name} is still {found['EndpointStatus']}")

    def ask(self, name: str, body: str = "hello", **more: Any) -> dict[str, Any]:
        """Return what the model answers."""
        answer = self.runtime.invoke_endpoint(EndpointName=name, Body=body, **more)
        content: dict[str, Any] = json.loads(answer["Body"].read())
        return content

    def log(self, name: str) -> list[str]:
        """Return the lines of an endpoint's log."""
        events = self.logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{name}")
        return [event["message"] for event in events["events"]]


def hosting(server: Server) -> Hosting:
    """Return a prepared world in a server of this process."""
    found = Hosting(server.environment()).prepare()
    found.server = server
    return found


def variant(model: str, name: str = "AllTraffic", **more: Any) -> dict[str, Any]:
    """Return an instance-based production variant."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **more,
    }


def serverless(model: str, **more: Any) -> dict[str, Any]:
    """Return a serverless production variant."""
    return {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
        **more,
    }


def tarred(files: Mapping[str, str | bytes]) -> bytes:
    """Return a .tar.gz of these files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def runs(pid: int) -> bool:
    """Return whether a process runs (and is not a zombie)."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(pid: int, seconds: float = 120) -> bool:
    """Wait for the end of a process; return whether it came."""
    end = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not runs(pid)


__all__ = [
    "BROKEN", "BUCKET", "GROUP", "IMAGE", "MODEL", "REGION", "ROLE", "SLOW", "TRUST", "Hosting",
    "gone", "hosting", "runs", "serverless", "tarred", "variant",
]  # fmt: skip


def queue(**more: Any) -> dict[str, Any]:
    """An AsyncInferenceConfig."""
    output = {
        "S3OutputPath": f"s3://{BUCKET}/answers",
        "S3FailurePath": f"s3://{BUCKET}/failures/",
        **more,
    }
    return {"AsyncInferenceConfig": {"OutputConfig": output}}


def arrived(aws: Hosting, uri: str) -> bytes:
    """The content of an object that is on its way."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    until(lambda: "Contents" in aws.s3.list_objects_v2(Bucket=bucket, Prefix=key))
    return aws.read(uri)
