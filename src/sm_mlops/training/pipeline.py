"""Compiles the repo's `pipeline/definition.py`, quietly and to the same bytes each time.

Only this file and the definition import the SageMaker SDK (it takes seconds), and compiling calls
no service: code bundles are named by their content, so their S3 addresses are known before anything
is uploaded.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from sm_mlops.compatibility import require_supported
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings
from sm_mlops.settings import parameter_name as parameter_name
from sm_mlops.training import bundle
from sm_mlops.training.bundle import Bundle

DEFINITION = Path("pipeline/definition.py")


@dataclass(frozen=True)
class Code:
    """The bundles of one compilation; their S3 keys start with `prefix`."""

    preprocess: Bundle
    train: Bundle
    evaluate: Bundle
    prefix: str

    def folder(self, code: Bundle) -> str:
        return f"{self.prefix}/code/{code.digest}"

    def objects(self) -> dict[str, bytes]:
        """S3 key → content of every object that the definition's `code` inputs refer to."""
        found = {f"{self.folder(self.train)}/source.tar.gz": self.train.tar_gz()}
        for processing in (self.preprocess, self.evaluate):
            for name, content in processing.files:
                found[f"{self.folder(processing)}/{name}"] = content
        return found


def code(settings: Settings) -> Code:
    """The code of each step, with just the settings that the step reads."""
    model = settings.root / "model"
    data = settings.data
    reads = {
        "data": {
            "target": data.target,
            "task": data.task,
            "positive": data.positive,
            "drop": list(data.drop),
        },
        "split": {
            "validation": settings.split.validation,
            "test": settings.split.test,
            "seed": settings.split.seed,
        },
    }
    return Code(
        preprocess=bundle.collect(model, "preprocess.py", settings=reads),
        train=bundle.collect(model, "train.py", also=["inference.py"]),
        evaluate=bundle.collect(model, "evaluate.py"),
        prefix=settings.prefix,
    )


def compile_pipeline(settings: Settings, account: str, sources: Code | None = None) -> str:
    """The pipeline definition as JSON text, the same bytes for the same repo, account and region.

    `sources` is the code it names; without it, what is in `model/` now.
    Source of the format: the pipeline definition JSON schema, version 2020-12-01.
    """
    require_supported(settings.project.template_version)
    with _quiet_sdk(settings.project.region):
        definition = load_definition(settings.root)
        return str(definition.compile_pipeline(settings, account, sources or code(settings)))


@contextmanager
def _quiet_sdk(region: str) -> Iterator[None]:
    """The SDK without its side effects: what it logs, warns, asks IAM, and checks over and over."""
    # It makes clients while it is imported and needs a region for that.
    os.environ.setdefault("AWS_DEFAULT_REGION", region)
    # Checking the role would call IAM; `mlops run` meets a missing role where it is used.
    os.environ["SAGEMAKER_VALIDATE_ROLE"] = "false"
    # One of its modules calls logging.basicConfig, which a root logger with a handler ignores.
    logging.getLogger().addHandler(logging.NullHandler())

    with warnings.catch_warnings():
        # Its own syntax, and "Running within a PipelineSession", which is what we mean to do.
        warnings.simplefilter("ignore")

        from sagemaker.core.config.config_manager import SageMakerConfig
        from sagemaker.core.helper import session_helper
        from sagemaker.mlops.workflow import steps

        local = steps.LocalSagemakerClient
        with (
            # It validates the schema of its whole configuration at each of some fifty look-ups,
            # which takes as long as its import does; ours is the constant in `_compile`.
            patch.object(SageMakerConfig, "validate_sagemaker_config"),
            patch.object(session_helper, "validate_sagemaker_config"),
            # Each ProcessingStep makes a client for local mode, to read a method's name.
            patch.object(steps, "LocalSagemakerClient", lambda: local),
        ):
            yield


def load_definition(root: Path) -> ModuleType:
    """Import the repo's `pipeline/definition.py`. Raises MlopsError when there is none."""
    file = root / DEFINITION
    if not file.is_file():
        raise MlopsError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location("definition", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
