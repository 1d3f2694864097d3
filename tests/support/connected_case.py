"""An account with a platform and a GitHub to deploy on, for tests of what connects them."""

from __future__ import annotations

import io
import json
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from repos import Repo
from sandbox_cases import REGION
from sm_mlops import platform as package
from sm_mlops import stacks, templates
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import assets
from sm_mlops.bootstrap.platform import object_url
from sm_mlops.sandbox import Server
from sm_mlops.sandbox.github import git

OWNER, NAME = "acme", "churn"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
STACK = "sm-mlops-platform"
TRIGGER = "sm-mlops-trigger"
SECRET = "sm-mlops/github"
WORKFLOW = """
on:
  workflow_dispatch:
    inputs:
      model-package-arn: {required: true, type: string}
      commit: {required: true, type: string}
jobs: {}
"""
TRAINING = """
on:
  workflow_dispatch:
    inputs:
      reason: {type: string}
jobs: {}
"""
ARM = b"\x7fELF\x02\x01" + b"\0" * 12 + b"\xb7\0"


@dataclass
class Connected:
    """What is signed in to (the sandbox's account), and the sandbox itself."""

    server: Server
    aws: Aws

    def credential(self, **values: Any) -> None:
        """Replace the credential with which an approval starts a deployment."""
        self.aws.client("secretsmanager").put_secret_value(
            SecretId=SECRET, SecretString=json.dumps(values)
        )

    def token(self) -> str:
        """Return a token that may start workflows and nothing else, as the credential."""
        accounts = self.server.github.accounts
        token = accounts.fine_grained("ada", OWNER, [NAME], actions="write")
        self.credential(token=token)
        return str(token)

    def register(self, approval: str = "PendingManualApproval", **metadata: str) -> str:
        """Register a version of this repo and return its ARN."""
        about = {"Repository": f"https://github.com/{OWNER}/{NAME}", "CommitId": COMMIT, **metadata}
        made = self.aws.sagemaker.create_model_package(
            ModelPackageGroupName=NAME, ModelApprovalStatus=approval, MetadataProperties=about
        )
        return str(made["ModelPackageArn"])

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that GitHub has started."""
        return list(self.server.github.routes.runs_of(f"{OWNER}/{NAME}"))

    def log(self) -> str:
        """Return everything that the function has written."""
        logs = self.aws.client("logs")
        rows = logs.filter_log_events(logGroupName=f"/aws/lambda/{TRIGGER}")["events"]
        return "".join(row["message"] for row in rows)


def connect(server: Server, repo: Repo, layer: bytes = b"", **parameters: str) -> Connected:
    """Deploy the platform, and make a repository with a workflow.

    The environment of this process must be that of the server.
    """
    aws = Aws(repo.settings())
    platform(aws, templates.without(package.FOLDER / "platform.yml", "HasAssets"), **parameters)
    made = assets.build()
    for name, body in {**made.files, **({"layer.zip": layer} if layer else {})}.items():
        aws.s3.put_object(Bucket=aws.bucket, Key=made.prefix + name, Body=body)
    assets_there = {"AssetsPrefix": made.prefix, "HasLayer": str(bool(layer)).lower()}
    there = object_url(aws, aws.bucket, made.prefix + assets.PLATFORM)
    platform(aws, there, **assets_there, FirstAssetsPrefix=made.prefix, **parameters)
    aws.sagemaker.create_model_package_group(ModelPackageGroupName=NAME)
    accounts = server.github.accounts
    accounts.add("ada")
    accounts.add(OWNER, "Organization", ada="admin")
    server.github.routes.add(OWNER, NAME)
    for name, text in (("deploy", WORKFLOW), ("build", TRAINING)):
        commit(server, f"{OWNER}/{NAME}", f".github/workflows/{name}.yml", text)
    return Connected(server, aws)


def commit(server: Server, name: str, path: str, text: str) -> None:
    """Put a file onto main of a repository, as a push would."""
    bare = server.github.bare.path(name)
    work = Path(tempfile.mkdtemp(dir=bare.parent)) / "work"
    who = {f"GIT_{role}_NAME": "ada" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_EMAIL": "ada@acme.org" for role in ("AUTHOR", "COMMITTER")}
    env = git._environment() | who
    subprocess.run(["git", "clone", "-q", str(bare), str(work)], check=True, env=env)
    (work / path).parent.mkdir(parents=True, exist_ok=True)
    (work / path).write_text(text)
    for words in (["add", "-A"], ["commit", "-qm", "x"], ["push", "-q", "origin", "HEAD:main"]):
        subprocess.run(["git", *words], cwd=work, check=True, env=env)


def platform(aws: Aws, template: str, **parameters: str) -> None:
    """Deploy the platform's template."""
    version = {"TemplateVersion": package.version(), "AllowedOwners": OWNER}
    stacks.deploy(
        aws,
        STACK,
        template,
        version | parameters,
        {},
        ["CAPABILITY_NAMED_IAM"],
        Console(file=io.StringIO()),
    )


def app_layer() -> bytes:
    """Return a layer as `mlops bootstrap` makes it, with libraries that no machine here can load
    and the rest as it is in this environment."""
    spec = find_spec("jwt")
    assert spec is not None and spec.origin is not None
    top = Path(spec.origin).parent
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as target:
        for file in sorted(top.glob("*.py")):
            target.write(file, f"python/jwt/{file.name}")
        target.writestr("python/cryptography/__init__.py", "raise ImportError('for arm64')")
        target.writestr("python/cryptography/hazmat/bindings/_rust.abi3.so", ARM)
        target.writestr("python/_cffi_backend.cpython-313-aarch64-linux-gnu.so", ARM)
    return body.getvalue()


__all__ = [
    "COMMIT",
    "REGION",
    "SECRET",
    "STACK",
    "TRIGGER",
    "Connected",
    "app_layer",
    "commit",
    "connect",
]
