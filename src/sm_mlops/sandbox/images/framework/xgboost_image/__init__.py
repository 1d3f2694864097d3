"""What SageMaker's XGBoost image adds to sagemaker-containers. Runs in the image's environment."""

import shlex
import sys


def split(command: str) -> list[str]:
    """Return the words of a toolkit's command for pip: here, Python's own path may have blanks."""
    return [sys.executable, *shlex.split(command.removeprefix(sys.executable))]
