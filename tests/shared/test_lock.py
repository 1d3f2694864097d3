"""The steps run here with the package versions of SageMaker's XGBoost container."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from repos import TEMPLATE

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
    lock = (TEMPLATE / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    assert pins == [CONTAINER[package]]


@pytest.mark.parametrize("package", CONTAINER)
def test_this_environment_has_what_the_container_has(package: str) -> None:
    assert importlib.metadata.version(package) == CONTAINER[package]


# The toolkit that serves models in the container; the jobs do without it.
TOOLKIT = {"inference.py": {"sagemaker_inference"}}
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
MODEL = TEMPLATE / "model"


@pytest.mark.parametrize("script", sorted(MODEL.glob("*.py")), ids=lambda path: path.name)
def test_model_imports_nothing_but_what_the_container_has(script: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"line {node.lineno}: jobs have no packages"
            imported.add(node.module.partition(".")[0])
    own = {path.stem for path in MODEL.glob("*.py")}
    container = {MODULES.get(package, package) for package in CONTAINER}
    allowed = sys.stdlib_module_names | own | container | TOOLKIT.get(script.name, set())
    assert imported <= allowed
