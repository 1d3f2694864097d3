"""Fixtures and options of all tests; what tests import is in support/."""

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
from hypothesis import HealthCheck

import github_description
from generated import clean_copy
from rendering import Bake, Rendered, Run, baked, run
from repos import Repo, make_repo
from sm_mlops import quotas
from sm_mlops.aws import Aws
from sm_mlops.sandbox.github.answers import Answer
from sm_mlops.sandbox.github.routes import Routes
from sm_mlops.sandbox.github.routing import Request

# Their loggers are watched.
LIBRARIES = {"boto3", "botocore", "github", "logging", "sm_mlops"}
# Fixtures that make a test slow, as whatever takes a tenth of a second is.
SLOW = {"account", "bake", "elsewhere", "play"}
ALL_SLOW = "\npytestmark = pytest.mark.slow\n"
# By file, the longest first: a minute or more each, most of it for a fixture of the module.
SLOWEST = [
    *("test_workflows_run.py", "test_iam_life.py", "test_life.py", "test_bootstrap_project.py"),
    *("test_secrets.py", "test_deploy.py", "test_run.py", "test_source.py", "test_rendered.py"),
    *("test_bootstrap_platform.py", "test_containers.py", "test_infra.py", "test_evaluation.py"),
]


# What is imported and collected stays: see pytest_collection_finish.
gc.disable()
# A shell that starts this in the background ignores Ctrl-C, which tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says what else the machine does; and fixtures hold for all examples.
hypothesis.settings.register_profile(
    "sm-mlops",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("sm-mlops")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the session")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("\nskipped tests count as failed here (--no-skips)", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import a module whose tests are all slow, if only the others are wanted."""
    if config.option.markexpr.startswith("not slow") and collection_path.suffix == ".py":
        return ALL_SLOW in collection_path.read_text(encoding="utf-8") or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    if not config.pluginmanager.hasplugin("randomly"):
        # Workers begin with what takes longest, and never wait for it at the end.
        order = {name: place for place, name in enumerate(SLOWEST)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Let no later collection of garbage look at what stays to the end anyway."""
    gc.collect()
    gc.freeze()
    # Most objects of a test go by themselves: looking rarely saves a twelfth of the processor.
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have recorded as "shown", whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, text in getattr(report, "user_properties", ()):
            if name == "shown":
                terminalreporter.write_line(str(text))


def process_state() -> dict[str, Any]:
    """Return what a test could leave in this process for the next one."""
    state: dict[str, Any] = {
        "the current folder": Path.cwd(),
        "sys.path": tuple(sys.path),
        "logging.disable": logging.root.manager.disable,
        "socket.setdefaulttimeout": socket.getdefaulttimeout(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }
    for name in LIBRARIES & set(sys.modules):
        logger = logging.getLogger("" if name == "logging" else name)
        handlers = [h for h in logger.handlers if "pytest" not in type(h).__module__]
        state[f"the logger of {name}"] = (logger.level, handlers)
    for name, value in os.environ.items():
        if name != "PYTEST_CURRENT_TEST":
            state[f"the variable {name}"] = value
    return state


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test after which this process is not as it was, and repair it for the others."""
    # boto3 keeps the session of its first caller, with that caller's sign-in.
    boto3.DEFAULT_SESSION = None
    before, variables, path = process_state(), dict(os.environ), list(sys.path)
    yield
    after = process_state()
    if after == before:
        return
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(before["the current folder"])
    sys.path[:] = path
    logging.disable(before["logging.disable"])
    # A library may be imported at any time, and set up its logger or (scikit-learn) OpenMP.
    imported = ("the logger", "the variable KMP_")
    names = [name for name in after | before if name in before or not name.startswith(imported)]
    left = [name for name in names if after.get(name) != before.get(name)]
    if left:
        pytest.fail(f"it leaves another process behind than it found: {', '.join(sorted(left))}")


@pytest.fixture(autouse=True, scope="session")
def github_as_described() -> Iterator[list[str]]:
    """Judge every exchange with the sandbox's GitHub in this process; return what was wrong."""
    found: list[str] = []
    answer = Routes.answer

    def judged(routes: Routes, request: Request, headers: dict[str, str]) -> Answer:
        given = answer(routes, request, headers)
        exchange = (request.method, request.path, request.body, given.status, given.body)
        found.extend(github_description.wrong(*exchange))
        return given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Routes, "answer", judged)
        yield found


@pytest.fixture(autouse=True)
def speaks_as_github_does(github_as_described: list[str]) -> Iterator[None]:
    """Fail a test whose requests or answers GitHub's own description does not know."""
    github_as_described.clear()
    yield
    assert github_as_described == []


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "a repo")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out of a report: they take most of the time of Evaluate."""
    from sm_mlops.tabular import figures

    monkeypatch.setattr(figures, "figure", lambda title, *_: f"<figure>{title}</figure>")


@pytest.fixture
def account(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """Yield an account of moto, prepared like a sandbox, in which nothing runs."""
    from moto import mock_aws

    from sm_mlops.cli.sandbox_account import prepare

    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        aws = Aws(repo.settings())
        # moto's pipelines have no versions.
        aws.sagemaker.meta.events.register(
            "after-call.sagemaker.UpdatePipeline",
            lambda parsed, **_: parsed.setdefault("PipelineVersionId", 1),
        )
        # Nor has it quotas of SageMaker.
        monkeypatch.setattr(quotas, "rows", lambda *_: {})
        prepare(aws)
        yield aws


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the template as a clone of it would be."""
    return clean_copy(tmp_path_factory.mktemp("clone") / "sm-mlops")


@pytest.fixture
def bake(cookies: Any, template: Path) -> Bake:
    """Return a function that renders the template with these answers, defaults for the rest."""
    return lambda **answers: baked(cookies, template, answers)


@pytest.fixture(scope="session")
def default(cookies_session: Any, template: Path) -> Rendered:
    """Return the render with default answers. Do not write into it."""
    return baked(cookies_session, template, {})


@pytest.fixture
def elsewhere(tmp_path: Path, template: Path) -> Iterator[Callable[..., Run]]:
    """Yield a function that runs cookiecutter as a user outside the temp folder with an empty home.

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
