"""A model repo under a known name, and running `mlops` in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import botocore.session
import yaml
from botocore.loaders import Loader

from sm_mlops import settings as mlops_settings
from sm_mlops.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
IDENTITY = """\
[tool.mlops]
project = "churn"
region = "eu-west-1"
github = "acme/churn"
sign-in = "oidc"
template-version = "1.0"
"""


class Models(Loader):
    """Read each service's model once for all sessions; each would take 0.2 s to read it again."""

    @property
    def search_paths(self) -> list[str]:
        # A copy: boto3 adds its folder for each session.
        return [*super().search_paths, str(Path(boto3.__file__).parent / "data")]


MODELS = Models()
botocore.session.create_loader = lambda *_: MODELS


class Repo:
    """A model repo in its own folder: the template's `model/`, `infra/` and `mlops.yaml`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def settings(self) -> Settings:
        return mlops_settings.load(self.root)

    def configure(self, **sections: object) -> Settings:
        """Replace keys of `mlops.yaml` by section: `configure(gate={"metric": "f1"})`."""
        file = self.root / "mlops.yaml"
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, values in sections.items():
            if isinstance(values, dict):
                content[name] = {**(content.get(name) or {}), **values}
            else:
                content[name] = values
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return self.settings()

    def stage(self, name: str, **keys: object) -> None:
        """Replace keys of `infra/<name>.json`: `stage("staging", Parameters={...})`."""
        file = self.root / "infra" / f"{name}.json"
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(content | keys, indent=2), encoding="utf-8")


def mlops(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `mlops` in `folder` as a person who is not signed in."""
    return subprocess.run(
        [sys.executable, "-m", "sm_mlops", *arguments],
        cwd=folder,
        env=bare_environment(folder) | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def mlops_ended(
    folder: Path,
    at: Callable[[str], bool],
    *arguments: str,
    how: signal.Signals = signal.SIGINT,
    **environment: str,
) -> tuple[int, str]:
    """Send `mlops` a signal at the first line that fits `at`; return exit code and output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sm_mlops", *arguments],
        cwd=folder,
        env=bare_environment(folder) | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell may start this process with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if at(line):
            process.send_signal(how)
            break
    said += process.stdout.read()
    return process.wait(), said


def bare_environment(home: Path) -> dict[str, str]:
    """Return the variables to run `python -m sm_mlops` with: no sign-in, no personal settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TERM": "dumb",
        "COLUMNS": "200",
    }


def make_repo(root: Path) -> Repo:
    root.mkdir(parents=True)
    for folder in ("model", "pipeline", "infra"):
        shutil.copytree(
            TEMPLATE / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(TEMPLATE / "mlops.yaml", root)
    (root / "pyproject.toml").write_text(IDENTITY, encoding="utf-8")
    return Repo(root)
