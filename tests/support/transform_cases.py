"""Batch transform jobs of a small model, for the tests of the sandbox."""

from __future__ import annotations

import uuid
from typing import Any

from endpoint_cases import Hosting
from sandbox_cases import BUCKET

# Answers with the number of lines, their sizes and what the container was told.
COUNT = """
import json, os, time
from pathlib import Path
from flask import Response

def model_fn(model_dir):
    return None

def transform_fn(model, body, kind, accept):
    text = body.decode() if isinstance(body, bytes) else body
    lines = text.splitlines()
    if "refuse" in lines:
        return Response('{"error": "row 1"}', 400, mimetype="application/json")
    if "raise" in lines:
        raise RuntimeError("broken")
    if "hold" in lines:
        Path(os.environ["HELD"]).touch()
        while not Path(os.environ["HELD"] + ".go").exists():
            time.sleep(0.02)
    if "slow" in lines:
        time.sleep(0.3)
    told = {k: v for k, v in os.environ.items() if k.startswith("SAGEMAKER_")}
    answer = {"lines": len(lines), "first": lines[:1], "kind": kind, "accept": accept,
              "bytes": len(text), "told": told, "own": os.environ.get("OWN")}
    return json.dumps(answer), accept
"""
LINES = "application/jsonlines"


def job(model: Any, source: str, **more: Any) -> dict[str, Any]:
    """Return a request as `mlops predict` makes it; `more` changes members at any depth."""
    request: dict[str, Any] = {
        "TransformJobName": f"t-{uuid.uuid4().hex[:8]}",
        "ModelName": model,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": LINES,
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": f"s3://{BUCKET}/out/{uuid.uuid4().hex[:8]}/",
            "Accept": LINES,
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    for name, value in more.items():
        part = next((p for p in ("Input", "Output", "Resources") if name.startswith(p)), None)
        if part is None:
            request[name] = value
        else:
            request[f"Transform{part}"][name.removeprefix(part)] = value
    return request


def source(aws: Hosting, **files: str | bytes) -> str:
    prefix = f"in/{uuid.uuid4().hex[:8]}/"
    for name, content in files.items():
        aws.put(f"{prefix}{name.replace('__', '/')}", content)
    return f"s3://{BUCKET}/{prefix}"
