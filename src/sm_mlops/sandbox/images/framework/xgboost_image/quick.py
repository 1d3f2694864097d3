"""The same, faster: without what shows nowhere.

Neither pip, whose copies of modules are found after the code folder's own, nor what
sagemaker-containers imports for other things than running a script or answering with its hooks.
"""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

_PARTS = ("_encoders", "_intermediate_output", "_mpi", "_server", "_trainer")
RARELY_USED = ("boto3", *(f"sagemaker_containers.{part}" for part in _PARTS))


class Later(types.ModuleType):
    """A module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        """Import the module for any attribute but those that tools look for in every module."""
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        sys.modules.pop(self.__name__, None)
        module = importlib.import_module(self.__name__)
        vars(self).update(vars(module))
        return getattr(module, name)


sys.modules.update((name, Later(name)) for name in RARELY_USED)

from sagemaker_containers.beta.framework import env, modules, trainer  # noqa: E402

from xgboost_image import split  # noqa: E402

vars(modules)["shlex"] = types.SimpleNamespace(split=split)
_install = modules.install


def _needed(path: str, *options: Any, **more: Any) -> None:
    """Install a bundle with requirements or a set-up of its own."""
    folder = Path(path)
    generated = "packages=['']" in (folder / "setup.py").read_text()
    others = ("requirements.txt", "pyproject.toml")
    if not generated or any((folder / name).exists() for name in others):
        _install(path, *options, **more)


modules.install = _needed


def application() -> Any:
    """Return the WSGI application, its model loaded."""
    from xgboost_image import serving

    environment = env.ServingEnv()
    sys.path.insert(0, env.code_dir)
    if environment.module_name:
        modules.import_module(environment.module_dir, environment.module_name)
    return serving.application()


if __name__ == "__main__":
    trainer.train()
