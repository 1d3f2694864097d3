"""The judges of workflows that we did not write, and what several tests read from workflows."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from generated import questions
from rendering import Rendered, Run, run

BIN = Path(sys.executable).parent
SHELLCHECK = BIN / "shellcheck"
SIGN_INS: list[str] = list(questions()["github_sign_in"])  # type: ignore[call-overload]
NAMES = ("ci", "build", "deploy")
# Tag and commit of each action, looked up where it is released. dependabot moves them in rendered
# repos; here they change together with this table.
PINS = {
    "actions/checkout": ("v7.0.1", "3d3c42e5aac5ba805825da76410c181273ba90b1"),
    "aws-actions/configure-aws-credentials": ("v6.2.3", "e6de054238d6b7531b4efff3b6587d9aade6a06c"),
    "astral-sh/setup-uv": ("v9.0.0", "c771a70e6277c0a99b617c7a806ffedaca235ff9"),
}
ACTIONLINT = "go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def path(name: str) -> str:
    return f".github/workflows/{name}.yml"


def load(repo: Rendered, name: str) -> dict[str, Any]:
    # BaseLoader: GitHub, too, reads `on` as text.
    return dict(yaml.load(repo.text(path(name)), yaml.BaseLoader))


def actionlint(folder: Path, *files: str | Path, shellcheck: str | Path = SHELLCHECK) -> Run:
    """Run actionlint with a shellcheck; "" means without. Skips the test where it is missing."""
    program = shutil.which("actionlint")
    if not program:
        pytest.skip(f"actionlint, which is no Python package, is missing; get it: {ACTIONLINT}")
    command = (program, "-no-color", "-shellcheck", shellcheck, "-pyflakes", "")
    return run(*command, *files, cwd=folder)


def zizmor(folder: Path, *more: Path) -> Run:
    """Run zizmor as its strictest reader, the auditor."""
    command = (BIN / "zizmor", "--persona=auditor", "--offline", "--no-progress", "--quiet")
    return run(*command, "--no-config", "--collect=all", folder, *more, cwd=folder)


def schema(folder: Path, name: str, *files: str | Path) -> Run:
    """Check files against a schema of GitHub's."""
    command = ("python", "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}")
    return run(*command, *files, cwd=folder)


def assert_mlops_takes(commands: Iterable[list[str]]) -> None:
    """Raise AssertionError unless each is a command of `mlops` with options that it has, and with
    all that it needs."""
    from sm_mlops.cli.main import app

    group: Any = typer.main.get_command(app)
    outer = group.make_context("mlops", ["run"])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MODEL_PACKAGE_ARN", "COMMIT"):
            patch.setenv(name, name.lower())
        for words in commands:
            try:
                name, command, rest = group.resolve_command(outer, words)
                command.make_context(name, rest, parent=outer)
            except Exception as error:
                raise AssertionError(f"mlops {' '.join(words)}: {error!r}") from error
