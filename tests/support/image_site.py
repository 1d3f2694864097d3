"""Loaded, as sitecustomize, by every Python process of a container in the tests: hides the
installed tool and the packages that the image does not have. Standard library only.

`tool.txt` beside this file names the folder of the tool, `absent.txt` the packages. A toolkit's own
process sees all packages, as its own are in the image; what it starts does not.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


class Absent:
    """A finder that is asked before all others."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Refuse a module that is not in the image, leave every other one to the other finders."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} in the image", name=name)


tool = Path(__file__).with_name("tool.txt").read_text(encoding="utf-8")
sys.path[:] = [folder for folder in sys.path if folder != tool]
if [Path(word).name for word in sys.orig_argv[1:2]] != ["train"]:
    found = Path(__file__).with_name("absent.txt").read_text(encoding="utf-8")
    sys.meta_path.insert(0, Absent(frozenset(found.split())))
    importlib.import_module("network_guard")
