"""Find the files that a script needs besides the image's packages: the script, the team's modules
and packages that it imports, and the modules of this library.

For the code of every job and for `code/` in model.tar.gz. Parses source and imports nothing. Must
not know what the scripts do.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sm_mlops.tabular.failure import DataError

LIBRARY, PART = "sm_mlops", "sm_mlops.tabular"
REQUIREMENTS, CONSTRAINTS, WHEELS = "requirements.txt", "constraints.txt", "wheels"
INSTALLER = "sm_mlops.tabular.install"
IMAGE = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "xgboost")  # import each other
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where statements hold others
_TYPING = re.compile(r"(\w+\.)?TYPE_CHECKING")
_STARTED = "__name__ == '__main__'"
_ROOT = Path(__file__).resolve().parents[2]


def collect(folder: Path, scripts: Iterable[str], started: str = "") -> dict[str, Path]:
    """Return the files of the bundle by their names in it, sorted.

    A package of the team is complete, with all files of its folder; of this library only modules
    that are imported are included. What the team requires travels with every script.

    Args:
        folder: The folder of the scripts and of the team's modules and packages.
        scripts: Names of files in `folder`, such as `train.py`.
        started: The one that a job starts; in all others, what follows `if __name__ == "__main__"`
            never runs.

    Raises:
        DataError: A script is missing, a file is not Python, an import cannot work in a job, or a
            module hides another one of the same name. The text names file and line.
    """
    scripts = list(scripts)
    for name in scripts:
        if not (folder / name).is_file():
            raise DataError(f"{folder.name}/{name}: no such file")
        _refuse_hiding(folder, name.removesuffix(".py"))
    if folder.resolve() != _ROOT:
        _refuse_hiding(folder, LIBRARY)
    found: dict[str, Path] = {}
    waiting = {name: folder / name for name in scripts}
    if (folder / REQUIREMENTS).is_file():
        extra = [folder / REQUIREMENTS, folder / CONSTRAINTS, *folder.glob(f"{WHEELS}/*.whl")]
        found |= {path.relative_to(folder).as_posix(): path for path in extra if path.is_file()}
        waiting |= _library_files(_Import(INSTALLER, (), REQUIREMENTS, True))
    while waiting:
        name, path = waiting.popitem()
        found[name] = path
        if path.suffix == ".py":
            for wanted in _imports(name, path, f"{folder.name}/{name}", started):
                new = _files(wanted, folder, ours=name.startswith(f"{LIBRARY}/"))
                waiting |= {key: value for key, value in new.items() if key not in found}
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Import:
    """An import statement at `place`; `sure` unless the script catches its failure."""

    module: str
    names: tuple[str, ...]
    place: str
    sure: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@lru_cache(maxsize=128)  # the scripts of a repo share most modules
def _parsed(content: bytes, label: str) -> ast.Module:
    try:
        return ast.parse(content, filename=label)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise DataError(f"{label}{line}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{label}: {error or 'too deeply nested'}") from error


def _imports(name: str, path: Path, label: str, started: str) -> Iterator[_Import]:
    """Yield what a file imports when it is used, so nothing for type checkers only."""
    waiting: list[tuple[ast.AST, bool]] = [(_parsed(path.read_bytes(), label), True)]
    while waiting:
        node, sure = waiting.pop()
        sure = sure and not isinstance(node, ast.Try | ast.TryStar)
        test = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        never = bool(_TYPING.fullmatch(test)) or (test == _STARTED and name != started)
        for block in ("orelse",) if never else _BLOCKS:
            waiting += [(child, sure) for child in getattr(node, block, ())]
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        place = f"{label}, line {node.lineno}"
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, (), place, sure) for alias in node.names)
            continue
        # `from . import x` in a/b.py imports from a; each further dot is one package up.
        above = name.split("/")[: -node.level] if node.level else []
        if node.level and not above:
            if sure:
                raise DataError(f"{place}: a relative import works only inside a package")
            continue
        module = ".".join([*above, *filter(None, [node.module])])
        yield _Import(module, tuple(alias.name for alias in node.names), place, sure)


def _files(wanted: _Import, folder: Path, *, ours: bool) -> dict[str, Path]:
    """Return the files that an import needs. `ours`: this library imports it."""
    if wanted.top == LIBRARY:
        return _library_files(wanted)
    package, module = folder / wanted.top, folder / f"{wanted.top}.py"
    regular = (package / "__init__.py").is_file()
    below = [wanted.module, *(f"{wanted.module}.{name}" for name in wanted.names)]
    below = [name for name in below if "." in name and _exists(folder, name)]
    # An installed package precedes a folder of the same name without __init__.py.
    if not regular and not module.is_file() and not below:
        return {}
    _refuse_hiding(folder, wanted.top, needed=ours)
    if not _exists(folder, wanted.module):
        _refuse_missing(wanted)
        return {}
    if module.is_file() and not regular:
        return {module.name: module}
    return {
        path.relative_to(folder).as_posix(): path
        for path in package.rglob("*")
        if path.is_file()
        and path.suffix not in (".pyc", ".pyo")
        and not any(p[0] == "." or p == "__pycache__" for p in path.relative_to(folder).parts)
    }


def _library_files(wanted: _Import) -> dict[str, Path]:
    modules = [wanted.module, *(f"{wanted.module}.{name}" for name in wanted.names)]
    modules = [module for module in modules if _exists(_ROOT, module)]
    carried = [m for m in modules if m == LIBRARY or f"{m}.".startswith(f"{PART}.")]
    if wanted.module not in carried or carried != modules:
        _refuse_missing(wanted)
    files: dict[str, Path] = {}
    for module in carried:
        parts = module.split(".")
        names = ["/".join([*parts[: i + 1], "__init__.py"]) for i in range(len(parts))]
        names.append("/".join(parts) + ".py")
        files |= {name: _ROOT / name for name in names if (_ROOT / name).is_file()}
    return files


def _exists(root: Path, module: str) -> bool:
    path = root.joinpath(*module.split("."))
    return path.is_dir() or path.with_name(f"{path.name}.py").is_file()


def _refuse_missing(wanted: _Import) -> None:
    if wanted.sure:
        ours = wanted.top == LIBRARY and not f"{wanted.module}.".startswith(f"{PART}.")
        why = f"of {LIBRARY} a job has only {PART}" if ours else "there is no such module"
        raise DataError(f"{wanted.place}: cannot import {wanted.module}: {why}")


def _refuse_hiding(folder: Path, name: str, *, needed: bool = False) -> None:
    """Refuse a module of the team whose name Python or this library needs."""
    for file in (f"{name}.py", f"{name}/__init__.py"):
        if (folder / file).is_file() and (
            needed or name in (LIBRARY, *IMAGE) or name in sys.stdlib_module_names
        ):
            raise DataError(f"{folder.name}/{file}: hides another module {name}; rename it")
