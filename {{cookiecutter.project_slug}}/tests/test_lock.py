"""The steps run here with the package versions of SageMaker's XGBoost container."""

import importlib.metadata
import re
from pathlib import Path

import pytest

# Image 3.2-0, https://github.com/aws/sagemaker-xgboost-container: change it with the image.
CONTAINER = {
    "matplotlib": "3.10.9",
    "numpy": "2.1.0",
    "pandas": "2.2.3",
    "pyarrow": "22.0.0",
    "pyyaml": "6.0.1",
    "scikit-learn": "1.8.0",
    "scipy": "1.15.0",
    "xgboost": "3.2.0",
}


@pytest.mark.parametrize("package", CONTAINER)
def test_the_lock_pins_what_the_container_has(package: str) -> None:
    lock = (Path(__file__).parent.parent / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    assert pins == [CONTAINER[package]]


@pytest.mark.parametrize("package", CONTAINER)
def test_this_environment_has_what_the_container_has(package: str) -> None:
    assert importlib.metadata.version(package) == CONTAINER[package]
