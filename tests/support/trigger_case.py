"""The modules of the platform's functions, loaded as Lambda does: by their own names, from their
folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sm_mlops import platform

FOLDER = platform.FOLDER / "trigger"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))


@contextmanager
def functions() -> Iterator[SimpleNamespace]:
    """Yield the modules by name, as in a fresh instance of a function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        _forget()
        try:
            yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        finally:
            _forget()


def _forget() -> None:
    for name in NAMES:
        sys.modules.pop(name, None)


def replace(patch: pytest.MonkeyPatch, modules: SimpleNamespace, name: str, value: Any) -> None:
    """Replace what each module that has this name imported or defines by it."""
    for module in vars(modules).values():
        assert isinstance(module, ModuleType)
        if hasattr(module, name):
            patch.setattr(module, name, value)
