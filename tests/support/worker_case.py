"""Packed models behind the worker that SageMaker's XGBoost image runs, in the environment that has
the image's packages."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "xgboost-3.2-0"
PYTHON = Path(sys.prefix) / "images" / IMAGE / "bin" / "python"
SCRIPT = Path(__file__).with_name("container_worker.py")


@dataclass(frozen=True)
class Reply:
    """`seconds` of CPU time; `kind` is the content type."""

    status: int
    kind: str
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Worker:
    """A process that answers for several models, one request after the other."""

    process: subprocess.Popen[str]

    def ask(self, body: bytes, headers: Mapping[str, str], model: int = 0) -> Reply:
        """Return what the worker answers to a request to /invocations."""
        text = base64.b64encode(body).decode()
        asked = json.dumps({"model": model, "body": text, "headers": headers})
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(asked + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the worker has ended with {self.process.wait()}"
        status, kind, content, seconds = json.loads(line)
        return Reply(status, kind, base64.b64decode(content), seconds)


@contextmanager
def worker(models: Sequence[Path], **environment: str) -> Iterator[Worker]:
    """Start the worker for these folders, each an unpacked model.tar.gz; all have the same code."""
    if not PYTHON.exists():
        pytest.skip(f"no environment of the image {IMAGE}: {PYTHON.parents[1]} does not exist")
    process = subprocess.Popen(
        [PYTHON, "-B", SCRIPT, models[0], *models],
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "SAGEMAKER_BASE_DIR": str(models[0].parent),
            "SAGEMAKER_PROGRAM": "inference.py",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.communicate()
