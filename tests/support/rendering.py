"""The `bake` fixture: renders the template and looks at the result as its user would.

Knows what cookiecutter is; what a rendered repo contains is for the tests to say.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """What a process left behind: exit code and the decoded output streams."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Rendered:
    """A rendered repo."""

    path: Path

    def run(self, *command: str | Path, **environment: str) -> Run:
        """Runs a command in the repo; `python` is the one that runs these tests."""
        return run(*command, cwd=self.path, **environment)

    def has_file(self, name: str) -> bool:
        return (self.path / name).is_file()

    def text(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        """Return content by relative path with forward slashes, all of it text: without what git
        or Python put there, and without the tool's wheel, whose hash stands in tool.txt."""
        return {
            file.relative_to(self.path).as_posix(): file.read_bytes()
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
            and not {".git", "__pycache__"} & set(file.parts)
            and file.suffix != ".whl"
        }


def run(*command: str | Path, cwd: Path, **environment: str) -> Run:
    """Runs `command` in `cwd` with these environment variables on top of the present ones."""
    words = [sys.executable if word == "python" else str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


Bake = Callable[..., Rendered]


def baked(cookies: Any, template: Path, answers: dict[str, str]) -> Rendered:
    result = cookies.bake(extra_context=answers, template=str(template))
    assert result.exception is None, result.exception
    return Rendered(result.project_path)


def shared(factory: pytest.TempPathFactory) -> Path:
    """The folder of all processes that test in parallel."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def mypy_cache(factory: pytest.TempPathFactory, repo: Rendered, folder: Path) -> Path:
    """A cache of mypy's in `folder` that knows `repo`: half a minute, spent once for all repos with
    the same code. No two processes may use the same one at the same time."""
    base = shared(factory)
    with (base / "mypy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "mypy").exists():
            repo.run("python", "-m", "mypy", "--cache-dir", str(base / "mypy.new"), ".")
            (base / "mypy.new").rename(base / "mypy")
    return Path(shutil.copytree(base / "mypy", folder / "mypy"))
