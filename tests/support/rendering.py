"""Render the template and look at the result as its user would.

Knows what cookiecutter is; what a rendered repo contains is for the tests to say.
"""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Test renders name an address that is never contacted: building the tool's wheel takes long.
PIN = f"sm-mlops @ git+https://github.com/my-org/sm-mlops@{'0' * 40}"
T = TypeVar("T")


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
        """Run a command in the repo; `python` is the one that runs these tests."""
        return run(*command, cwd=self.path, **environment)

    def has_file(self, name: str) -> bool:
        return (self.path / name).is_file()

    def text(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def files(self) -> dict[str, bytes]:
        """Return content by relative path, all of it text.

        Without what git or Python put there, and the tool's wheel, whose hash is in tool.txt.
        """
        return {
            file.relative_to(self.path).as_posix(): file.read_bytes()
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
            and not {".git", "__pycache__"} & set(file.parts)
            and file.suffix != ".whl"
        }


def run(*command: str | Path, cwd: Path, **environment: str) -> Run:
    """Run `command` in `cwd` with these environment variables on top of the present ones."""
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
    """Return a render with these answers, the defaults for the rest but for the region, of which a
    fork may have another."""
    given = {"_tool_pin": PIN, "aws_region": "us-east-1"} | answers
    result = cookies.bake(extra_context=given, template=str(template))
    assert result.exception is None, result.exception
    return Rendered(result.project_path)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[], T]) -> T:
    """Return what `make` returns, made by one of the processes that test in parallel.

    The others wait. What failed is not tried again.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    file = base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_bytes(pickle.dumps((False, None)))
            file.write_bytes(pickle.dumps((True, make())))
    made, value = pickle.loads(file.read_bytes())
    assert made, f"{name} failed in another test"
    found: T = value
    return found


def mypy_cache(factory: pytest.TempPathFactory, repo: Rendered, folder: Path) -> Path:
    """Return a cache of mypy's in `folder` that knows `repo`: half a minute, spent once.

    No two processes may use the same one at the same time.
    """

    def fill() -> Path:
        cache = factory.mktemp("mypy") / "cache"
        repo.run("python", "-m", "mypy", "--cache-dir", str(cache), ".")
        return cache

    return Path(shutil.copytree(once(factory, "mypy", fill), folder / "mypy"))
