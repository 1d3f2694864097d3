"""Compare what lies in the bucket and what runs in Lambda with what this tool built.

A name or a size proves nothing where others, or an earlier bootstrap, could write.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

from sm_mlops import objects
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import assets
from sm_mlops.errors import MlopsError

# In the platform's stack.
FUNCTIONS = ("Trigger", "Retrain", "Notify")


def differing(
    aws: Aws, bucket: str, prefix: str, files: Mapping[str, bytes]
) -> tuple[list[str], list[str]]:
    """Return the names of the files that are missing below the prefix, and that differ there."""
    there = {item["Key"] for item in objects.listed(aws, bucket, prefix)}
    missing = [name for name in files if prefix + name not in there]
    return missing, [
        name
        for name, body in files.items()
        if name not in missing and not objects.has(aws, bucket, prefix + name, io.BytesIO(body))
    ]


def deployed(
    aws: Aws, resources: Mapping[str, str], files: Mapping[str, bytes]
) -> Iterator[tuple[str, str, str]]:
    """Yield functions and layer if their code is not that of `files`: name, its SHA-256, and that
    of the file, as Lambda writes both."""
    client = aws.client("lambda")
    for name in filter(None, (resources.get(each) for each in FUNCTIONS)):
        runs = client.get_function_configuration(FunctionName=name)["CodeSha256"]
        if runs != (built := objects.sha256(files[assets.TRIGGER])):
            yield f"function {name}", runs, built
    if (arn := resources.get("TriggerLayer")) and assets.LAYER in files:
        layer, _, number = arn.rpartition(":")
        found = client.get_layer_version(LayerName=layer, VersionNumber=int(number))
        holds = found["Content"]["CodeSha256"]
        if holds != (built := objects.sha256(files[assets.LAYER])):
            yield f"layer {arn}", holds, built


def check(aws: Aws, resources: Mapping[str, str], files: Mapping[str, bytes], where: str) -> None:
    """Raise MlopsError if function or layer are not what this tool uploaded to `where`."""
    for name, runs, built in deployed(aws, resources, files):
        raise MlopsError(
            f"{name} has the code {runs}, not {built} that this tool built and uploaded: find out "
            "in CloudTrail who deployed it (UpdateFunctionCode, PublishLayerVersion, PutObject), "
            f"delete it, or update it from {where}, then run {aws.command} bootstrap again"
        )
