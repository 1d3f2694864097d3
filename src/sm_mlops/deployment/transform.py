"""The request of a batch transform job, and what it runs on, whether `mlops predict` or a schedule
starts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sm_mlops.aws import Aws
from sm_mlops.deployment.stages import Stage
from sm_mlops.settings import has_local_storage

# The largest request that the image's server takes; of all at the same time AWS allows 100 MB.
PAYLOAD, MOST = 6, 100
INSTANCE = "ml.m5.large"
LINES = "application/jsonlines"


@dataclass(frozen=True)
class Machine:
    """`requests` are sent at the same time. `key` encrypts the output, `volume_key` the disk."""

    instance: str
    requests: int
    key: str
    volume_key: str


def machine(aws: Aws, stage: Stage, package: str, instance: str = "") -> Machine:
    """Return what a job with the version of this ARN runs on, by default its first instance type.

    Asks the registry, which is in the account of `aws`.
    """
    if not instance:
        found = aws.sagemaker.describe_model_package(ModelPackageName=package)
        offered = found.get("InferenceSpecification", {}).get("SupportedTransformInstanceTypes")
        instance = (offered or [INSTANCE])[0]
    key = stage.parameters.get("KmsKeyArn", "")
    return Machine(
        instance=instance,
        requests=min(_processors(instance), MOST // PAYLOAD),
        key=key,
        volume_key="" if has_local_storage(instance) else key,
    )


def request(machine: Machine, model: str, source: str, target: str) -> dict[str, Any]:
    """Return the request for a job without its name and tags. It predicts compressed JSON Lines in
    the folder `source` of S3, and writes its answers to the folder `target`."""
    resources: dict[str, Any] = {"InstanceType": machine.instance, "InstanceCount": 1}
    if machine.volume_key:
        resources["VolumeKmsKeyId"] = machine.volume_key
    return {
        "ModelName": model,
        "MaxConcurrentTransforms": machine.requests,
        "MaxPayloadInMB": PAYLOAD,
        "BatchStrategy": "MultiRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": LINES,
            "CompressionType": "Gzip",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": target,
            "Accept": LINES,
            "AssembleWith": "Line",
            **({"KmsKeyId": machine.key} if machine.key else {}),
        },
        "TransformResources": resources,
    }


def _processors(instance: str) -> int:
    """Return the processors of an instance type, one worker each: ml.m5.2xlarge has eight."""
    size = instance.rpartition(".")[2]
    times = re.fullmatch(r"(\d*)xlarge", size)
    return 4 * int(times[1] or 1) if times else 2
