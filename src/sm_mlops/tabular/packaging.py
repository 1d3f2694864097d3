"""Finds the files that a script needs besides the image's own packages: itself, the team's modules
it imports, and this library.

One walk over imports serves every job's code bundle and the `code/` folder of model.tar.gz. Reads
source text and imports nothing. Must not know what the scripts do.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

LIBRARY = "sm_mlops"
_LIBRARY_ROOT = Path(__file__).resolve().parents[2]


def collect(folder: Path, scripts: Iterable[str]) -> dict[str, Path]:
    """Return the file of each name below the bundle's root, sorted by name.

    Args:
        folder: Where the scripts and the team's own modules and packages are.
        scripts: Names in `folder`, such as `train.py`.

    Raises:
        FileNotFoundError: A script is not there.
        SyntaxError: A file is not Python.
    """
    found: dict[str, Path] = {}
    waiting = [(name, folder / name) for name in scripts]
    while waiting:
        name, path = waiting.pop()
        if name not in found:
            found[name] = path
            waiting += _imported(name, path, folder)
    return dict(sorted(found.items()))


def _imported(name: str, path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    for module in _modules(name, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        root = _LIBRARY_ROOT if module.partition(".")[0] == LIBRARY else folder
        target = PurePosixPath(*module.split("."))
        candidates = [target.with_suffix(".py"), target / "__init__.py"]
        candidates += [parent / "__init__.py" for parent in target.parents if parent.parts]
        yield from ((str(c), root / c) for c in candidates if (root / c).is_file())


def _modules(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield the absolute name of everything that may be a module and is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from . import x` in a/b.py is about a; each further dot is one package up.
            above = PurePosixPath(name).parts[: -node.level] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            if base:
                yield base
            yield from (".".join(filter(None, [base, alias.name])) for alias in node.names)
