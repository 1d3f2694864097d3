"""A sandbox in this process with versions of a small model to deploy, faster than a trained one."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from repos import Repo, make_repo, mlops
from sandbox_cases import IMAGE
from sm_mlops.aws import Aws
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops.deployment import stages
from sm_mlops.deployment.deploy import Deployment, deploy
from sm_mlops.deployment.stages import Stage
from sm_mlops.sandbox import Server, client
from sm_mlops.training.run import ensure_model_package_group

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TYPES = ["text/csv", "application/jsonlines", "application/json"]
ROWS = [{"a": 1.0, "b": 2.0}, {"a": 0.5, "b": -1.0}]
# Adds a, b and an offset that differs by version.
SUM = """
import csv, io, json
from flask import Response

def model_fn(model_dir):
    return OFFSET

def rows_of(body, content_type):
    text = body if isinstance(body, str) else body.decode()
    if content_type == "text/csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        if any(None in row for row in rows):
            raise ValueError("row 3: a field too many")
    elif content_type == "application/json":
        rows = json.loads(text)["instances"]
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    if not all({"a", "b"} <= set(row) for row in rows):
        raise ValueError("column 'a' is missing in row 1")
    return rows

def transform_fn(offset, body, content_type, accept):
    try:
        values = [float(r["a"]) + float(r["b"]) + offset for r in rows_of(body, content_type)]
    except ValueError as error:
        return Response(json.dumps({"error": str(error)}), 400, mimetype="application/json")
    if accept == "text/csv":
        return "".join(f"{value}\\n" for value in values), accept
    objects = [{"prediction": value} for value in values]
    if accept == "application/json":
        return json.dumps({"predictions": objects}), accept
    return "".join(json.dumps(item) + "\\n" for item in objects), accept
"""
# Answers a bad row with its reason in a batch, as sm_mlops.tabular.responses does.
BATCH = """
import json, os, time
from pathlib import Path

def model_fn(model_dir):
    return OFFSET

def transform_fn(offset, body, kind, accept):
    assert (kind, accept, os.environ["SAGEMAKER_BATCH"]) == (*["application/jsonlines"] * 2, "true")
    text = body if isinstance(body, str) else body.decode()
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        row = json.loads(line)
        while row.get("wait") and not Path(row["wait"]).exists():
            time.sleep(0.02)
        try:
            lines.append({"prediction": float(row["a"]) + float(row["b"]) + offset})
        except ValueError:
            lines.append({"error": f"column 'a', row {number}: no number", "column": "a",
                          "row": number})
    return "".join(json.dumps(line) + "\\n" for line in lines), accept
"""
BROKEN = "def model_fn(model_dir):\n    raise RuntimeError('no such file: model.ubj')\n"


class Place:
    """A repo, its sandbox, and the output of deployments so far."""

    def __init__(self, repo: Repo, server: Server) -> None:
        self.repo, self.server = repo, server
        self.aws = Aws(repo.settings(), sandbox=True)
        self.console = Console(file=io.StringIO(), width=300)
        self._numbers = itertools.count(1)

    @property
    def shown(self) -> str:
        return self.console.file.getvalue()  # type: ignore[attr-defined]

    def register(
        self,
        script: str = SUM,
        offset: float = 0,
        approval: str = "Approved",
        sample: dict[str, bytes] | None = None,
        **more: Any,
    ) -> str:
        """Register a version; return its ARN."""
        code = f"OFFSET = {offset}\n{script}".encode()
        return self.register_model(
            archive({"code/inference.py": code}),
            approval,
            sample if sample is not None else sample_files(offset),
            **more,
        )

    def register_model(
        self,
        model: bytes,
        approval: str = "Approved",
        files: dict[str, bytes] | None = None,
        **more: Any,
    ) -> str:
        """Register a version with this model.tar.gz and sample payload; return its ARN."""
        prefix = f"{self.aws.settings.prefix}/executions/test-{next(self._numbers)}"
        url = self.put(f"{prefix}/model.tar.gz", model)
        if files:
            more["SamplePayloadUrl"] = self.put(f"{prefix}/sample.tar.gz", archive(files))
        environment = {
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        }
        container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": environment}
        request = {
            "ModelPackageGroupName": self.aws.settings.model_package_group,
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": TYPES,
                "SupportedResponseMIMETypes": TYPES,
            },
            "ModelApprovalStatus": approval,
            "MetadataProperties": {"CommitId": COMMIT},
            **more,
        }
        return str(self.aws.sagemaker.create_model_package(**request)["ModelPackageArn"])

    def put(self, key: str, body: bytes) -> str:
        """Upload an object; return its address."""
        self.aws.s3.put_object(Bucket=self.aws.bucket, Key=key, Body=body)
        return f"s3://{self.aws.bucket}/{key}"

    def stage(self, name: str, **parameters: object) -> Stage:
        """Write and load a stage with these parameters; serverless by default."""
        given = {"EndpointKind": "serverless"} | parameters
        self.repo.stage(name, Parameters=given)
        return stages.load(self.aws.settings, name)

    def command(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `mlops` as someone who is signed in to this sandbox."""
        return mlops(self.repo.root, *words, **self.signed_in() | more)

    def signed_in(self) -> dict[str, str]:
        """Return the variables of someone who is signed in to this sandbox."""
        names = ("AWS_", "GITHUB_")
        return {name: value for name, value in os.environ.items() if name.startswith(names)}

    def deploy(self, stage: Stage, arn: str, **more: Any) -> Deployment:
        return deploy(self.aws, stage, arn, self.console, **more)


def sample_files(offset: float = 0) -> dict[str, bytes]:
    """Return the sample payload that the Evaluate step would write for the model above."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    table = "a,b\n" + "".join(f"{row['a']},{row['b']}\n" for row in ROWS)
    expected = [{"prediction": row["a"] + row["b"] + offset} for row in ROWS]
    return {
        "rows.csv": table.encode(),
        "rows.jsonl": lines.encode(),
        "rows.json": json.dumps({"instances": ROWS}).encode(),
        "expected.json": json.dumps({"predictions": expected}).encode(),
    }


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Yield a place; this process's AWS variables lead there while the block runs."""
    repo = make_repo(folder / "a repo")
    before = dict(os.environ)
    with Server(repo.root, repo.settings().project.region, pace=0.01) as server:
        for name, value in client.environment(server.folder, server.port, server.region).items():
            os.environ.pop(name, None)
            if value:
                os.environ[name] = value
        try:
            found = Place(repo, server)
            prepare(found.aws)
            ensure_model_package_group(found.aws)
            yield found
        finally:
            os.environ.clear()
            os.environ.update(before)
