"""Serving in script mode: what gunicorn, started by `serve` of sagemaker-containers, calls.

Of the image's own defaults, which are for models of its built-in algorithm, it has none.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from sagemaker_containers.beta.framework import env, transformer, worker

# The image's, unless the model's environment says otherwise.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_HOOKS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")


@cache
def application() -> Any:
    """Load the user's module and its model, and return the WSGI application."""
    name = env.ServingEnv().module_name
    if name is None:
        raise ValueError("SAGEMAKER_PROGRAM is not set: the sandbox has no built-in algorithm")
    module = importlib.import_module(name)
    hooks = {hook: getattr(module, hook) for hook in _HOOKS if hasattr(module, hook)}
    model = transformer.Transformer(**hooks)
    model.initialize()
    for hook in ("input_fn", "predict_fn"):
        if hook not in hooks and "transform_fn" not in hooks:
            raise ValueError(f"{name} has no {hook}, and the sandbox has none of the image's own")
    return worker.Worker(transform_fn=model.transform, module_name=name)


def main(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    answer: Iterable[bytes] = application()(environ, start_response)
    return answer
