"""The same without pip where that shows nowhere: its copies of modules are found after the code
folder's own."""

from pathlib import Path
from typing import Any

from sagemaker_containers.beta.framework import env, modules

_install = modules.install


def _needed(path: str, *options: Any, **more: Any) -> None:
    """Install a bundle with requirements or a set-up of its own."""
    folder = Path(path)
    generated = "packages=['']" in (folder / "setup.py").read_text()
    others = ("requirements.txt", "pyproject.toml")
    if not generated or any((folder / name).exists() for name in others):
        _install(path, *options, **more)


modules.install = _needed


def train() -> None:
    """Run the script of a bundle."""
    from xgboost_image import training

    training.main()


def application() -> Any:
    """Return the WSGI application, its model loaded."""
    import sys

    from xgboost_image import serving

    environment = env.ServingEnv()
    sys.path.insert(0, env.code_dir)
    if environment.module_name:
        modules.import_module(environment.module_dir, environment.module_name)
    return serving.application()
