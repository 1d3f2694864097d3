"""Training in script mode: what `train` of sagemaker-training calls."""

from types import SimpleNamespace

from sagemaker_training import entry_point, environment, modules, runner
from xgboost_image import split

vars(modules)["shlex"] = SimpleNamespace(split=split)


def main() -> None:
    """Install the bundle's requirements with pip and run its script."""
    found = environment.Environment()
    if found.user_entry_point is None:
        raise ValueError("the hyperparameter sagemaker_program is missing")
    entry_point.run(
        uri=found.module_dir,
        user_entry_point=found.user_entry_point,
        args=found.to_cmd_args(),
        env_vars=found.to_env_vars(),
        runner_type=runner.ProcessRunnerType,
    )
