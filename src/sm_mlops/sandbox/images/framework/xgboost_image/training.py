"""Training in script mode: what `train` of sagemaker-containers calls."""

from sagemaker_containers.beta import framework


def main() -> None:
    """Install the bundle with pip and run its script as a module."""
    environment = framework.training_env()
    if environment.user_entry_point is None:
        raise framework.errors.ClientError(
            "the hyperparameter sagemaker_program is missing: the sandbox has no built-in algorithm"
        )
    framework.modules.run_module(
        environment.module_dir,
        environment.to_cmd_args(),
        environment.to_env_vars(),
        environment.module_name,
        capture_error=False,
    )
