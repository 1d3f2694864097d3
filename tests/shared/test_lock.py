"""The steps run here with the package versions of SageMaker's XGBoost image, and need no others."""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_packages import CONTAINER, MODULES, TOOLKIT
from repos import ROOT, TEMPLATE

MODEL, TABULAR = TEMPLATE / "model", ROOT / "src" / "sm_mlops" / "tabular"
SCRIPTS = sorted([*MODEL.glob("*.py"), *TABULAR.glob("*.py")])


@pytest.mark.parametrize("package", CONTAINER)
def test_the_lock_pins_what_the_image_has(package: str) -> None:
    lock = (TEMPLATE / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    assert pins == [CONTAINER[package]]


@pytest.mark.parametrize("package", CONTAINER)
def test_this_environment_has_what_the_image_has(package: str) -> None:
    assert importlib.metadata.version(package) == CONTAINER[package]


def imported(script: Path) -> Iterator[str]:
    """Yield the absolute name of each module that a script imports, at the top or later."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"line {node.lineno}: jobs have no packages"
            yield node.module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_runs_in_the_image_imports_nothing_else(script: Path) -> None:
    own = {path.stem for path in MODEL.glob("*.py")}
    image = {MODULES.get(package, package) for package in CONTAINER}
    allowed = sys.stdlib_module_names | own | image | TOOLKIT.get(script.name, set())
    for module in imported(script):
        ours = module == "sm_mlops.tabular" or module.startswith("sm_mlops.tabular.")
        assert ours or module.partition(".")[0] in allowed, module
