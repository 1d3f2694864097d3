"""Compile the repo's `pipeline/definition.py`, quietly and to the same bytes each time."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sm_mlops.compatibility import require_supported
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Settings, one_line

DEFINITION = Path("pipeline/definition.py")


@dataclass(frozen=True)
class Compiled:
    """A pipeline definition as JSON text, and S3 key → content of all code that it names.

    Source of the format: the pipeline definition JSON schema, version 2020-12-01.
    """

    definition: str
    objects: dict[str, bytes]


def compile_pipeline(settings: Settings, account: str) -> Compiled:
    """Return what the same repo, account and region always compile to, byte for byte.

    Raises:
        MlopsError: There is no definition, or it fails; names its line.
    """
    require_supported(settings.project.template_version)
    file = settings.root / DEFINITION
    try:
        source = file.read_bytes()
    except FileNotFoundError as error:
        raise MlopsError(f"{file}: no such file") from error
    with quiet_sdk(settings.project.region):
        with _staying():
            from sm_mlops.pipeline import Repo, compiling

        repo = Repo(settings, account)
        try:
            # Its own name and file, so that a debugger stops in it and an error names its line.
            module: dict[str, Any] = {"__name__": "definition", "__file__": str(file)}
            exec(compile(source, str(file), "exec"), module)  # nosec B102 # as an import would
            if "pipeline" not in module:
                raise MlopsError(f"{DEFINITION}: must define a function pipeline(repo)")
            with compiling():
                definition = repo.compile(module["pipeline"](repo))
        except MlopsError:
            raise
        except Exception as error:
            where = _place(error, file)
            if where is None:
                raise
            said = f"{type(error).__name__}: {one_line(error)}"
            raise MlopsError(f"{DEFINITION}{where}: {said}") from error
    return Compiled(definition, repo.objects)


def _place(error: Exception, file: Path) -> str | None:
    """Return where in the definition an error comes from, or None if it is a bug of the tool."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    if frames[-1].filename.startswith(str(Path(__file__).parents[1])):
        return None
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


@contextmanager
def _staying() -> Iterator[None]:
    """Look for no garbage among what the SDK loads, which stays to the end: that would take a
    quarter of the time to import it and to compile."""
    if "sm_mlops.pipeline" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet_sdk(region: str) -> Iterator[None]:
    """Keep the SDK from logging, from warning and from asking IAM, and leave no trace of that."""
    before = dict(os.environ)
    handler = logging.NullHandler()
    # It makes clients while it is imported and needs a region for that.
    os.environ.setdefault("AWS_DEFAULT_REGION", region)
    # Checking the role would call IAM; `mlops run` meets a missing role where it is used.
    os.environ["SAGEMAKER_VALIDATE_ROLE"] = "false"
    # One of its modules calls logging.basicConfig, which a root logger with a handler ignores.
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            # Its own syntax, and "Running within a PipelineSession", which is the point.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        for name in ("AWS_DEFAULT_REGION", "SAGEMAKER_VALIDATE_ROLE"):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
