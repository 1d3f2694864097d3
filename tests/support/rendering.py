"""The `bake` fixture: renders the template and looks at the result as its user would.

Knows what cookiecutter is; what a rendered repo contains is for the tests to say.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from generated import clean_copy

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the session")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("\nskipped tests count as failed here (--no-skips)", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "elsewhere" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    # They take longest, in processes of their own; meanwhile another worker does the rest.
    items.sort(key=lambda item: item.path.name != "test_rendered.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests have recorded as "shown", whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, text in getattr(report, "user_properties", ()):
            if name == "shown":
                terminalreporter.write_line(str(text))


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
        """Content by relative path with forward slashes, without what git or Python put there."""
        return {
            file.relative_to(self.path).as_posix(): file.read_bytes()
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and not {".git", "__pycache__"} & set(file.parts)
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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone of it would be."""
    return clean_copy(tmp_path_factory.mktemp("clone") / "sm-mlops")


@pytest.fixture
def bake(cookies: Any, template: Path) -> Bake:
    """Renders the template with these answers, defaults for the rest."""
    return lambda **answers: baked(cookies, template, answers)


@pytest.fixture(scope="session")
def default(cookies_session: Any, template: Path) -> Rendered:
    """The render nobody typed an answer into. Do not write into it."""
    return baked(cookies_session, template, {})


def baked(cookies: Any, template: Path, answers: dict[str, str]) -> Rendered:
    result = cookies.bake(extra_context=answers, template=str(template))
    assert result.exception is None, result.exception
    return Rendered(result.project_path)


@pytest.fixture
def elsewhere(tmp_path: Path, template: Path) -> Iterator[Callable[..., Run]]:
    """Runs cookiecutter's command as a user outside the temp folder would, with an empty home.

    Called with options, then `name=value` answers; renders into `tmp_path / "work"`.
    """
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    environment = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_CONFIG_HOME": str(tmp_path / "home" / "config"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }

    def cookiecutter(*arguments: str, **extra: str) -> Run:
        answers = [word for word in arguments if not word.startswith("--")]
        options = arguments[: len(arguments) - len(answers)]
        command = ("python", "-m", "cookiecutter", "--no-input", *options, str(template), *answers)
        return run(*command, cwd=tmp_path / "work", **(environment | extra))

    yield cookiecutter


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
