"""Fixtures and options of all tests; what tests import is in support/."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from generated import clean_copy
from rendering import Bake, Rendered, Run, baked, run
from repos import Repo, make_repo
from sm_mlops.aws import Aws


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


@pytest.fixture(scope="module", autouse=True)
def nobody_s_session() -> None:
    """The session that boto3 keeps would have the sign-in of another module's tests."""
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "a repo")


@pytest.fixture
def account(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An account of moto, prepared like a sandbox, in which nothing runs."""
    from moto import mock_aws

    from sm_mlops.cli.sandbox_account import prepare

    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        aws = Aws(repo.settings())
        prepare(aws)
        yield aws


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
